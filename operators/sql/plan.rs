//! From a query's text to its operators.
//!
//! Planning is done once to check the query and to make what the partitions share, and once more for each
//! global half: its plan holds the cell that `window_start()` answers from, and executing a plan changes it,
//! so halves do not share plans. Planning takes milliseconds.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::context::SessionContext;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion::prelude::SessionConfig;
use millstream_engine::operator::Operator;
use millstream_engine::sql::{SqlError, SqlExplain, SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::window::Window;
use millstream_engine::{Error, Result};

use super::PLANNING_STACK_BYTES;
use super::check::{Checked, check, not_row_by_row, row_by_row};
use super::errors::Text;
use super::event_time::window_start_column;
use super::functions::{FiringWindow, window_functions};
use super::global::UpperHalf;
use super::local::{LowerHalf, Stateless};
use super::session::{Batched, SessionHalf, batched};
use super::split::{Bounds, Reduce, Slot, Split, split};
use super::steps::{ScanColumn, Steps};
use super::tables::PlanningTable;
use crate::dedup::dedup_operator;
use crate::window::{Panes, session_operator, window_operator};

/// Rules of DataFusion's physical optimizer that we plan without. The first fuses a partial aggregate with
/// its final one, which is the seam we cut at. The next two put row limits into aggregates, which a partial
/// aggregate over one task's share of the rows cannot honour. The last answers from table statistics.
pub(super) const RULES_LEFT_OUT: [&str; 4] = [
    "CombinePartialFinalAggregate",
    "LimitedDistinctAggregation",
    "LimitAggregation",
    "aggregate_statistics",
];

/// Plans queries with DataFusion.
#[derive(Clone, Copy, Debug, Default)]
pub struct DataFusionPlanner;

impl DataFusionPlanner {
    /// The planner.
    pub fn new() -> DataFusionPlanner {
        DataFusionPlanner
    }
}

impl SqlPlanner for DataFusionPlanner {
    fn window(&self, window: &Window, event_time: usize) -> Result<Box<dyn Operator>, Error> {
        window_operator(window, event_time)
    }

    fn session(
        &self,
        schema: &SchemaRef,
        event_time: usize,
        gap: Duration,
        key: &[usize],
    ) -> Result<Box<dyn Operator>, Error> {
        session_operator(schema, event_time, gap, key)
    }

    fn dedup(
        &self,
        schema: &SchemaRef,
        event_time: usize,
        key: &[usize],
        within: Duration,
    ) -> Box<dyn Operator> {
        dedup_operator(schema, event_time, key, within)
    }

    fn plan(&self, request: &SqlRequest<'_>) -> Result<Arc<dyn SqlPlan>, Vec<SqlError>> {
        let query = Query {
            name: Arc::from(request.name),
            text: request.query.to_owned(),
            emit_empty: request.emit_empty,
            tables: request.tables.to_vec(),
        };
        let planned = query.plan()?;
        Ok(Arc::new(DataFusionPlan { query, planned }))
    }
}

/// A request of our own, to plan again.
struct Query {
    name: Arc<str>,
    text: String,
    emit_empty: bool,
    tables: Vec<SqlTable>,
}

/// A planned query.
struct Planned {
    inputs: Vec<String>,
    schema: SchemaRef,
    event_time: Option<usize>,
    kind: Kind,
}

enum Kind {
    Stateless(Steps),
    Windowed {
        panes: Panes,
        split: Split,
        window: Arc<FiringWindow>,
        context: Arc<TaskContext>,
        /// Set when the window is one of sessions.
        sessions: Option<Batched>,
    },
}

impl Query {
    /// Plans on a thread of its own, for its stack.
    fn plan(&self) -> Result<Planned, Vec<SqlError>> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("sql-planner".to_owned())
                .stack_size(PLANNING_STACK_BYTES)
                .spawn_scoped(scope, || futures::executor::block_on(self.plan_here()));
            let planned = thread.map(|thread| thread.join());
            match planned {
                Ok(Ok(planned)) => planned,
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                Err(e) => Err(vec![SqlError {
                    message: format!("no thread to plan the query on: {e}"),
                    at: None,
                }]),
            }
        })
    }

    async fn plan_here(&self) -> Result<Planned, Vec<SqlError>> {
        let text = Text(&self.text);
        let one = |e: DataFusionError| vec![text.error(&e)];
        let window = FiringWindow::new();
        let state = session(&self.tables, &window).map_err(one)?;
        let request = SqlRequest {
            name: &self.name,
            query: &self.text,
            emit_empty: self.emit_empty,
            tables: &self.tables,
        };
        let checked = check(&request, &state)?;
        let logical = state
            .statement_to_plan(checked.statement.clone())
            .await
            .map_err(one)?;
        match checked.window {
            None => self.plan_stateless(&checked, &logical, &state).await,
            Some(_) => self
                .plan_windowed(checked, &logical, &state, window)
                .await
                .map_err(one),
        }
    }

    async fn plan_stateless(
        &self,
        checked: &Checked,
        logical: &LogicalPlan,
        state: &SessionState,
    ) -> Result<Planned, Vec<SqlError>> {
        let stream = &checked.inputs[0];
        if let Some(error) = row_by_row(logical, stream, &self.text, state) {
            return Err(vec![error]);
        }
        let one = |e: DataFusionError| vec![Text(&self.text).error(&e)];
        let plan = state.create_physical_plan(logical).await.map_err(one)?;
        let Some(steps) = Steps::of(&plan, &|table| self.width(table)) else {
            return Err(one(not_row_by_row(stream)));
        };
        let source_time = self.table(stream).map(|t| ScanColumn::Input(t.event_time));
        Ok(Planned {
            inputs: checked.inputs.clone(),
            schema: plan.schema(),
            event_time: (0..plan.schema().fields().len()).find(|i| steps.source_of(*i) == source_time),
            kind: Kind::Stateless(steps),
        })
    }

    async fn plan_windowed(
        &self,
        checked: Checked,
        logical: &LogicalPlan,
        state: &SessionState,
        window: Arc<FiringWindow>,
    ) -> Result<Planned, DataFusionError> {
        let cut = checked.window.as_ref().expect("a windowed query has a window");
        let panes = Panes::new(&slices(cut)).map_err(|e| DataFusionError::Plan(e.to_string()))?;
        let plan = state.create_physical_plan(logical).await?;
        let bounds = match cut {
            Window::Session { .. } => Bounds::OfSession,
            _ if panes.pane_is_window() => Bounds::OnArrival,
            _ => Bounds::WhenFired,
        };
        let split = split(&plan, &|table| self.width(table), bounds)?;
        let sessions = match bounds {
            Bounds::OfSession => Some(batched(&split)?),
            _ => None,
        };
        Ok(Planned {
            inputs: checked.inputs,
            schema: plan.schema(),
            event_time: window_start_column(logical),
            kind: Kind::Windowed {
                panes,
                split,
                window,
                context: state.task_ctx(),
                sessions,
            },
        })
    }

    fn table(&self, name: &str) -> Option<&SqlTable> {
        self.tables.iter().find(|t| t.name == name)
    }

    fn width(&self, table: &str) -> usize {
        self.table(table).map_or(0, |t| t.schema.fields().len())
    }
}

/// The upper half of a query over sessions as it is, or one that never fires sessions together.
#[cfg(test)]
pub(super) fn session_half(request: &SqlRequest<'_>, together: bool) -> SessionHalf {
    let query = Query {
        name: Arc::from(request.name),
        text: request.query.to_owned(),
        emit_empty: request.emit_empty,
        tables: request.tables.to_vec(),
    };
    match query.plan().expect("a good query").kind {
        Kind::Windowed {
            split,
            window,
            context,
            sessions: Some(batched),
            ..
        } => SessionHalf::new(query.name, split, batched.filter(|_| together), window, context),
        _ => panic!("no query over sessions"),
    }
}

struct DataFusionPlan {
    query: Query,
    planned: Planned,
}

impl DataFusionPlan {
    fn input(&self, input: usize) -> Result<&SqlTable> {
        let name = self.planned.inputs.get(input);
        name.and_then(|name| self.query.table(name))
            .ok_or_else(|| Error::bug(format!("query {:?} has no input {input}", self.query.name)))
    }
}

impl SqlPlan for DataFusionPlan {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.planned.schema)
    }

    fn inputs(&self) -> &[String] {
        &self.planned.inputs
    }

    fn event_time(&self) -> Option<usize> {
        self.planned.event_time
    }

    fn local(&self, input: usize) -> Result<Box<dyn Operator>> {
        let table = self.input(input)?;
        let query = Arc::clone(&self.query.name);
        match &self.planned.kind {
            Kind::Stateless(steps) => Ok(Box::new(Stateless {
                query,
                steps: steps.clone(),
                schema: self.schema(),
            })),
            Kind::Windowed { panes, split, .. } => {
                let numbered = (0u32..).zip(&split.slots);
                let mine = numbered.filter(|(_, slot)| slot.steps.table == table.name);
                let slots = mine
                    .map(|(number, slot)| (number, Arc::new(slot.clone())))
                    .collect();
                let presence = split.slots.len() as u32;
                Ok(Box::new(LowerHalf::new(
                    query,
                    table.event_time,
                    *panes,
                    slots,
                    presence,
                )))
            }
        }
    }

    fn global(&self) -> Result<Option<Box<dyn Operator>>> {
        if matches!(self.planned.kind, Kind::Stateless(_)) {
            return Ok(None);
        }
        let again = self.query.plan().map_err(|errors| {
            let first = errors.into_iter().next().map(|e| e.message).unwrap_or_default();
            Error::bug(format!(
                "query {:?} cannot be planned again: {first}",
                self.query.name
            ))
        })?;
        match again.kind {
            Kind::Stateless(_) => Ok(None),
            Kind::Windowed {
                split,
                window,
                context,
                sessions: Some(batched),
                ..
            } => Ok(Some(Box::new(SessionHalf::new(
                Arc::clone(&self.query.name),
                split,
                batched,
                window,
                context,
            )))),
            Kind::Windowed {
                panes,
                split,
                window,
                context,
                sessions: None,
            } => Ok(Some(Box::new(UpperHalf::new(
                Arc::clone(&self.query.name),
                split,
                window,
                context,
                panes,
                self.query.emit_empty,
            )))),
        }
    }

    fn explain(&self) -> SqlExplain {
        let of_input = |lines: &dyn Fn(&str) -> Vec<String>| {
            let inputs = self.planned.inputs.iter();
            inputs.map(|name| (name.clone(), lines(name))).collect()
        };
        match &self.planned.kind {
            Kind::Stateless(steps) => SqlExplain {
                local: of_input(&|_| indented(steps.lines())),
                global: Vec::new(),
            },
            Kind::Windowed { split, sessions, .. } => SqlExplain {
                local: of_input(&|name| {
                    let mine = (0..)
                        .zip(&split.slots)
                        .filter(|(_, slot)| slot.steps.table == name);
                    mine.flat_map(|(number, slot)| slot_lines(number, slot)).collect()
                }),
                global: match sessions {
                    None => plan_lines(&split.upper),
                    Some(batched) => session_lines(batched.as_ref(), &split.upper),
                },
            },
        }
    }
}

/// How a window's rows are cut on arrival. Sessions are cut into slices as long as the gap: of a key's rows, those
/// in one slice are in one session, and no session ends before the last slice it has rows in does.
fn slices(window: &Window) -> Window {
    match window {
        Window::Session { gap, .. } => Window::Tumbling {
            size: *gap,
            offset: Duration::ZERO,
        },
        other => other.clone(),
    }
}

fn slot_lines(number: usize, slot: &Slot) -> Vec<String> {
    let reduce = match &slot.reduce {
        Reduce::Aggregate(aggregate) => aggregate.line(),
        Reduce::Keep => "Keep rows".to_owned(),
    };
    let mut lines = vec![format!("{reduce}, slot={number}")];
    lines.extend(slot.steps.lines());
    indented(lines)
}

fn session_lines(batched: Option<&Arc<dyn ExecutionPlan>>, upper: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    let (how, plan) = match batched {
        Some(plan) => ("for all sessions that close, together:", plan),
        None => ("for each session that closes:", upper),
    };
    let lines = plan_lines(plan).into_iter().map(|line| format!("  {line}"));
    std::iter::once(how.to_owned()).chain(lines).collect()
}

fn indented(lines: Vec<String>) -> Vec<String> {
    lines
        .into_iter()
        .enumerate()
        .map(|(depth, line)| format!("{}{line}", "  ".repeat(depth)))
        .collect()
}

fn plan_lines(plan: &Arc<dyn ExecutionPlan>) -> Vec<String> {
    displayable(plan.as_ref())
        .indent(false)
        .to_string()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A session that knows the tables and plans the way `split` needs it.
fn session(tables: &[SqlTable], window: &Arc<FiringWindow>) -> Result<SessionState, DataFusionError> {
    let rules = PhysicalOptimizer::new().rules;
    let rules = rules
        .into_iter()
        .filter(|rule| !RULES_LEFT_OUT.contains(&rule.name()))
        .collect();
    let state = SessionStateBuilder::new()
        .with_config(session_config())
        .with_default_features()
        .with_physical_optimizer_rules(rules)
        .build();
    let context = SessionContext::new_with_state(state);
    for function in window_functions(window) {
        context.register_udf(function);
    }
    for table in tables {
        let schema = context.catalog("datafusion").and_then(|c| c.schema("public"));
        let schema = schema.ok_or_else(|| DataFusionError::Internal("a session has no schema".to_owned()))?;
        schema.register_table(table.name.clone(), Arc::new(PlanningTable::new(table)))?;
    }
    Ok(context.state())
}

fn session_config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    // A plan runs many times, a filter that learnt from one window's rows must not meet the next one's.
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    // Subqueries become joins: as expressions they would end up in the steps of a lower half.
    options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    config
}
