//! From a query's text to its operators.
//!
//! Planning is done once to check the query and to make what the partitions share, and once more for each
//! global half: its plan holds the cell that `window_start()` answers from, and executing a plan changes it,
//! so halves do not share plans. Planning takes milliseconds.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion::common::DataFusionError;
use datafusion::execution::{SessionState, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use millstream_engine::operator::Operator;
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlError, SqlExplain, SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::table::ReferenceTable;
use millstream_engine::window::Window;
use millstream_engine::{Error, Result};

use super::PLANNING_STACK_BYTES;
use super::check::{Checked, check, reads, row_by_row};
use super::enrich::{Enrich, Enrichment, passed_column};
use super::errors::Text;
use super::event_time::window_start_column;
use super::functions::FiringWindow;
use super::global::UpperHalf;
use super::interval::{self, IntervalJoin};
use super::kept::StateLimit;
use super::lines::{indented, plan_lines, session_lines, slot_lines};
use super::local::{LowerHalf, Stateless};
use super::planning::session;
use super::revisions::with_revision;
use super::session::{Batched, SessionHalf, batched};
use super::split::{Bounds, Split, split};
use super::steps::{ScanColumn, Steps};
use super::tables::References;
use crate::dedup::dedup_operator;
use crate::window::{Panes, session_operator, updating_window_operator};

/// Plans queries with DataFusion.
#[derive(Clone, Debug, Default)]
pub struct DataFusionPlanner {
    references: Arc<[ReferenceTable]>,
}

impl DataFusionPlanner {
    /// The planner.
    pub fn new() -> DataFusionPlanner {
        DataFusionPlanner::default()
    }
}

impl SqlPlanner for DataFusionPlanner {
    fn window(
        &self,
        window: &Window,
        event_time: usize,
        lateness: Duration,
    ) -> Result<Box<dyn Operator>, Error> {
        updating_window_operator(window, event_time, lateness)
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
    ) -> Result<Box<dyn Operator>, Error> {
        dedup_operator(schema, event_time, key, within)
    }

    fn with_tables(&self, tables: Vec<ReferenceTable>) -> Arc<dyn SqlPlanner> {
        Arc::new(DataFusionPlanner {
            references: tables.into(),
        })
    }

    fn plan(&self, request: &SqlRequest<'_>) -> Result<Arc<dyn SqlPlan>, Vec<SqlError>> {
        let query = Query {
            name: Arc::from(request.name),
            text: request.query.to_owned(),
            emit_empty: request.emit_empty,
            state_limit: request.state_limit,
            tables: request.tables.to_vec(),
            references: Arc::clone(&self.references),
        };
        let planned = query.plan()?;
        let limit = StateLimit::new(Arc::clone(&query.name), query.state_limit);
        Ok(Arc::new(DataFusionPlan {
            query,
            planned,
            limit,
        }))
    }
}

/// A request of our own, to plan again.
struct Query {
    name: Arc<str>,
    text: String,
    emit_empty: bool,
    state_limit: Bytes,
    tables: Vec<SqlTable>,
    references: Arc<[ReferenceTable]>,
}

/// A planned query.
struct Planned {
    inputs: Vec<String>,
    references: Vec<String>,
    schema: SchemaRef,
    event_time: Option<usize>,
    kind: Kind,
}

enum Kind {
    Stateless(Steps),
    Enriched(Enrichment),
    Interval(Arc<IntervalJoin>),
    Windowed {
        panes: Panes,
        /// Set when windows fire again for late rows.
        lateness: Option<Duration>,
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
        let state = session(&self.tables, &self.references, &window).map_err(one)?;
        let request = SqlRequest {
            name: &self.name,
            query: &self.text,
            emit_empty: self.emit_empty,
            state_limit: self.state_limit,
            tables: &self.tables,
        };
        let checked = check(&request, &self.references, &state)?;
        let logical = state
            .statement_to_plan(checked.statement.clone())
            .await
            .map_err(one)?;
        match checked.window {
            None => self.plan_streams(&checked, &logical, &state).await,
            Some(_) => self
                .plan_windowed(checked, &logical, &state, window)
                .await
                .map_err(one),
        }
    }

    async fn plan_streams(
        &self,
        checked: &Checked,
        logical: &LogicalPlan,
        state: &SessionState,
    ) -> Result<Planned, Vec<SqlError>> {
        if let Some(error) = row_by_row(logical, &checked.inputs, &self.text, state) {
            return Err(vec![error]);
        }
        let place = |number: usize| checked.places.get(number).cloned().flatten();
        let streams = reads(logical, &checked.inputs);
        if let (2.., Some(table)) = (streams, checked.references.first()) {
            let message = format!(
                "two streams and the table {table:?} are not joined in one query; join the streams in a [sql.NAME] of \
                 its own and its result with {table:?}"
            );
            return Err(vec![SqlError {
                message,
                at: place(1),
            }]);
        }
        match streams {
            0 | 1 => self.plan_stateless(checked, logical, state).await,
            2 => self.plan_interval(place(1), logical, state).await,
            _ => Err(vec![SqlError {
                message:
                    "a query joins two streams without windows, not more; join the first two in a [sql.NAME] \
                          of its own and join its result with the next"
                        .to_owned(),
                at: place(2).or_else(|| place(1)),
            }]),
        }
    }

    async fn plan_interval(
        &self,
        second: Option<Range<usize>>,
        logical: &LogicalPlan,
        state: &SessionState,
    ) -> Result<Planned, Vec<SqlError>> {
        let request = interval::Request {
            text: Text(&self.text),
            tables: &self.tables,
            second,
            state,
            logical,
        };
        let join = interval::plan(&request).await?;
        Ok(Planned {
            inputs: join.inputs(),
            references: Vec::new(),
            schema: join.schema(),
            event_time: join.event_time(),
            kind: Kind::Interval(Arc::new(join)),
        })
    }

    async fn plan_stateless(
        &self,
        checked: &Checked,
        logical: &LogicalPlan,
        state: &SessionState,
    ) -> Result<Planned, Vec<SqlError>> {
        let stream = &checked.inputs[0];
        let one = |e: DataFusionError| vec![Text(&self.text).error(&e)];
        let plan = state.create_physical_plan(logical).await.map_err(one)?;
        let Some(table) = self.table(stream) else {
            return Err(one(DataFusionError::Internal(format!("there is no {stream:?}"))));
        };
        let (event_time, kind) = match Steps::of(&plan, &|table| self.width(table)) {
            Some(steps) => {
                let source_time = Some(ScanColumn::Input(table.event_time));
                let mut columns = 0..plan.schema().fields().len();
                let event_time = columns.find(|i| steps.source_of(*i) == source_time);
                (event_time, Kind::Stateless(steps))
            }
            None => {
                let name = table.schema.field(table.event_time).name();
                let enrichment = Enrichment {
                    plan: Arc::clone(&plan),
                    tables: References::of(&checked.references, &self.references),
                    context: state.task_ctx(),
                };
                (passed_column(logical, stream, name), Kind::Enriched(enrichment))
            }
        };
        Ok(Planned {
            inputs: checked.inputs.clone(),
            references: checked.references.clone(),
            schema: plan.schema(),
            event_time,
            kind,
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
        let lateness = checked.inputs.iter().find_map(|name| self.table(name)?.lateness);
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
            references: checked.references,
            schema: match lateness {
                Some(_) => with_revision(&plan.schema())?,
                None => plan.schema(),
            },
            event_time: window_start_column(logical),
            kind: Kind::Windowed {
                panes,
                lateness,
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
        state_limit: request.state_limit,
        tables: request.tables.to_vec(),
        references: Arc::from([]),
    };
    match query.plan().expect("a good query").kind {
        Kind::Windowed {
            split,
            window,
            context,
            sessions: Some(batched),
            ..
        } => SessionHalf::new(
            Arc::clone(&query.name),
            split,
            batched.filter(|_| together),
            window,
            context,
            References::of(&[], &query.references),
            &StateLimit::new(query.name, query.state_limit),
        ),
        _ => panic!("no query over sessions"),
    }
}

struct DataFusionPlan {
    query: Query,
    planned: Planned,
    limit: Arc<StateLimit>,
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

    fn references(&self) -> &[String] {
        &self.planned.references
    }

    fn event_time(&self) -> Option<usize> {
        self.planned.event_time
    }

    fn watermark_delay(&self) -> Duration {
        match &self.planned.kind {
            Kind::Stateless(_) | Kind::Enriched(_) => Duration::ZERO,
            Kind::Interval(join) => join.delay(),
            Kind::Windowed { panes, .. } => panes.size(),
        }
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
            Kind::Enriched(enrichment) => Ok(Box::new(Enrich::new(query, self.schema(), enrichment.clone()))),
            Kind::Interval(join) => Ok(join.local(&query, input)),
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
                    &self.limit,
                )))
            }
        }
    }

    fn global(&self) -> Result<Option<Box<dyn Operator>>> {
        match &self.planned.kind {
            Kind::Stateless(_) | Kind::Enriched(_) => return Ok(None),
            Kind::Interval(join) => return Ok(Some(join.global(&self.query.name, self.query.state_limit))),
            Kind::Windowed { .. } => {}
        }
        let again = self.query.plan().map_err(|errors| {
            let first = errors.into_iter().next().map(|e| e.message).unwrap_or_default();
            Error::bug(format!(
                "query {:?} cannot be planned again: {first}",
                self.query.name
            ))
        })?;
        match again.kind {
            Kind::Stateless(_) | Kind::Enriched(_) | Kind::Interval(_) => Ok(None),
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
                References::of(&again.references, &self.query.references),
                &self.limit,
            )))),
            Kind::Windowed {
                panes,
                lateness,
                split,
                window,
                context,
                sessions: None,
            } => {
                let half = UpperHalf::new(
                    Arc::clone(&self.query.name),
                    split,
                    window,
                    context,
                    panes,
                    References::of(&again.references, &self.query.references),
                    &self.limit,
                );
                let half = half.firing_empty(self.query.emit_empty);
                Ok(Some(Box::new(half.updating(lateness))))
            }
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
            Kind::Enriched(enrichment) => SqlExplain {
                local: of_input(&|_| plan_lines(&enrichment.plan)),
                global: Vec::new(),
            },
            Kind::Interval(join) => SqlExplain {
                local: (0..)
                    .zip(&self.planned.inputs)
                    .map(|(side, name)| (name.clone(), indented(join.local_lines(side))))
                    .collect(),
                global: indented(join.global_lines()),
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
