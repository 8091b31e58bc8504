//! Finds the join of two streams in a query's plan, and says what is missing where it cannot run.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{JoinSide, JoinType, NullEquality};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::expressions::Column;
use datafusion::physical_plan::joins::HashJoinExec;
use millstream_engine::sql::{SqlError, SqlTable};

use super::super::errors::Text;
use super::super::steps::{ScanColumn, Steps};
use super::super::tables::Leaf;
use super::bounds::{Bounds, Found};
use super::{IntervalJoin, Side, signed};

/// A rule of DataFusion's that may exchange the two inputs; which is the left one matters here.
const RULE_LEFT_OUT: &str = "join_selection";
/// What a bound is in examples.
const EXAMPLE: &str = "INTERVAL '1 hour'";

/// A query that reads two streams.
pub(in super::super) struct Request<'a> {
    /// The query.
    pub text: Text<'a>,
    /// Every table there is.
    pub tables: &'a [SqlTable],
    /// The place of the second stream in the text.
    pub second: Option<Range<usize>>,
    /// What plans it.
    pub state: &'a SessionState,
    /// Its plan.
    pub logical: &'a LogicalPlan,
}

/// Plans the join.
pub(in super::super) async fn plan(request: &Request<'_>) -> Result<IntervalJoin, Vec<SqlError>> {
    let refuse = |message: String| {
        vec![SqlError {
            message,
            at: request.second.clone(),
        }]
    };
    let names = Names::of(request).ok_or_else(|| refuse(not_a_join()))?;
    let state = without_selection(request.state);
    let physical = state
        .create_physical_plan(request.logical)
        .await
        .map_err(|e| vec![request.text.error(&e)])?;
    let mut joins = Vec::new();
    let upper = cut(&physical, &mut joins).map_err(|e| vec![request.text.error(&e)])?;
    let (width, join) = match (joins.pop(), joins.is_empty()) {
        (Some(join), true) => (join.schema().fields().len(), join),
        // Whatever DataFusion plans without keys is no hash join.
        (None, _) => return Err(refuse(names.no_key())),
        _ => return Err(refuse(not_a_join())),
    };
    let join = join
        .downcast_ref::<HashJoinExec>()
        .ok_or_else(|| refuse(not_a_join()))?;
    let then = Steps::of(&upper, &|_| width).ok_or_else(|| refuse(not_a_join()))?;
    let found = build(request, &names, join, then);
    found.map_err(refuse)
}

fn build(
    request: &Request<'_>,
    names: &Names,
    join: &HashJoinExec,
    then: Steps,
) -> Result<IntervalJoin, String> {
    let table = |name: &str| request.tables.iter().find(|t| t.name == name);
    let width = |name: &str| table(name).map_or(0, |t| t.schema.fields().len());
    let outer = match join.join_type() {
        JoinType::Inner => [false, false],
        JoinType::Left => [true, false],
        JoinType::Right => [false, true],
        JoinType::Full => [true, true],
        _ => return Err(not_a_join()),
    };
    let plans = [join.left(), join.right()];
    let steps = plans.map(|plan| Steps::of(plan, &width));
    let [Some(left), Some(right)] = steps else {
        return Err(not_a_join());
    };
    let steps = [left, right];
    let event_time = |side: usize| {
        let steps: &Steps = &steps[side];
        let input = table(&steps.table).map(|t| ScanColumn::Input(t.event_time));
        (0..steps.schema().fields().len()).find(|column| steps.source_of(*column) == input)
    };
    let times = [event_time(0), event_time(1)];
    let bounds = bounds(join, names, times)?;
    let ([Some(left), Some(right)], keys) = (times, keys(join)?) else {
        // Bounds are between the two.
        return Err(names.no_bounds());
    };
    let [left_steps, right_steps] = steps;
    let [left_keys, right_keys] = keys;
    let side = |steps, keys, event_time, outer| Side {
        steps,
        keys,
        event_time,
        outer,
    };
    Ok(IntervalJoin {
        sides: [
            side(left_steps, left_keys, left, outer[0]),
            side(right_steps, right_keys, right, outer[1]),
        ],
        kind: *join.join_type(),
        null_equal: join.null_equality() == NullEquality::NullEqualsNull,
        filter: join.filter().cloned(),
        residual: residual(join, times),
        bounds,
        joined: SchemaRef::clone(join.join_schema()),
        projection: join.projection.as_ref().map(|columns| columns.to_vec()),
        then,
    })
}

fn keys(join: &HashJoinExec) -> Result<[Vec<Arc<dyn PhysicalExpr>>; 2], String> {
    let nested = |key: &Arc<dyn PhysicalExpr>, of: &Arc<dyn ExecutionPlan>| {
        let kind = key.data_type(&of.schema());
        kind.is_ok_and(|kind| kind.is_nested())
    };
    if let Some((key, _)) = join.on().iter().find(|(left, _)| nested(left, join.left())) {
        return Err(format!(
            "{key} is a list or a struct, which cannot be a key of this join; compare its parts"
        ));
    }
    Ok([
        join.on().iter().map(|(left, _)| Arc::clone(left)).collect(),
        join.on().iter().map(|(_, right)| Arc::clone(right)).collect(),
    ])
}

fn bounds(join: &HashJoinExec, names: &Names, times: [Option<usize>; 2]) -> Result<Bounds, String> {
    let mut found = Found::default();
    for conjunct in conjuncts(join) {
        found.add(conjunct, &|column| time_of(join, times, column));
    }
    let column = |key: &Arc<dyn PhysicalExpr>| Some(key.downcast_ref::<Column>()?.index());
    if times.iter().all(Option::is_some)
        && join
            .on()
            .iter()
            .any(|(left, right)| [column(left), column(right)] == times)
    {
        found.exactly(0);
    }
    match (found.lower, found.upper) {
        (Some(lower), Some(upper)) if lower > upper => Err(names.empty(lower, upper)),
        (Some(lower), Some(upper)) => Ok(Bounds { lower, upper }),
        _ if found.in_months => Err(names.in_months()),
        (None, None) => Err(names.no_bounds()),
        (Some(_), None) => Err(names.no_upper()),
        (None, Some(_)) => Err(names.no_lower()),
    }
}

/// The parts of the condition beside the keys.
fn conjuncts(join: &HashJoinExec) -> Vec<&Arc<dyn PhysicalExpr>> {
    let filter = join.filter();
    filter.map_or_else(Vec::new, |filter| split_conjunction(filter.expression()))
}

/// Whose event time a column of the condition is.
fn time_of(join: &HashJoinExec, times: [Option<usize>; 2], column: usize) -> Option<usize> {
    let index = join.filter()?.column_indices().get(column)?;
    let side = match index.side {
        JoinSide::Left => 0,
        JoinSide::Right => 1,
        JoinSide::None => return None,
    };
    (times[side] == Some(index.index)).then_some(side)
}

/// What of the condition is no bound.
fn residual(join: &HashJoinExec, times: [Option<usize>; 2]) -> Vec<String> {
    let is_bound = |conjunct: &&Arc<dyn PhysicalExpr>| {
        let mut found = Found::default();
        found.add(conjunct, &|column| time_of(join, times, column));
        found != Found::default()
    };
    let rest = conjuncts(join).into_iter().filter(|c| !is_bound(c));
    rest.map(ToString::to_string).collect()
}

/// The plan above the join, over a scan of what the join gives; the join goes to `joins`.
fn cut(
    plan: &Arc<dyn ExecutionPlan>,
    joins: &mut Vec<Arc<dyn ExecutionPlan>>,
) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
    let upper = Arc::clone(plan).transform_down(|node| {
        if !node.is::<HashJoinExec>() {
            return Ok(Transformed::no(node));
        }
        let leaf = Arc::new(Leaf::whole("join", node.schema())) as Arc<dyn ExecutionPlan>;
        joins.push(node);
        Ok(Transformed::new(leaf, true, TreeNodeRecursion::Jump))
    })?;
    Ok(upper.data)
}

fn without_selection(state: &SessionState) -> SessionState {
    let rules = state.physical_optimizers().iter();
    let rules = rules.filter(|rule| rule.name() != RULE_LEFT_OUT).cloned();
    SessionStateBuilder::new_from_existing(state.clone())
        .with_physical_optimizer_rules(rules.collect())
        .build()
}

fn not_a_join() -> String {
    "streams without a window cannot be combined in this way; two can be joined by JOIN, LEFT JOIN, RIGHT JOIN or \
     FULL JOIN on an equality and a bound of time; for anything else add a [window.NAME] over each and select from \
     those"
        .to_owned()
}

/// How the query names what messages speak of.
struct Names {
    left: SideName,
    right: SideName,
}

struct SideName {
    /// The stream, or the name the query gives it.
    name: String,
    /// The event time; none when it is not selected.
    time: Option<String>,
    /// The stream's own name for it.
    own_time: String,
    columns: Vec<String>,
}

impl Names {
    /// From the one join of the plan.
    fn of(request: &Request<'_>) -> Option<Names> {
        let mut found = None;
        let _ = request.logical.apply(|node| {
            if let LogicalPlan::Join(join) = node {
                let side = |plan: &LogicalPlan| SideName::of(plan, request.tables);
                found = side(&join.left).zip(side(&join.right));
                return Ok(TreeNodeRecursion::Stop);
            }
            Ok(TreeNodeRecursion::Continue)
        });
        found.map(|(left, right)| Names { left, right })
    }

    fn both(&self) -> String {
        format!("{:?} and {:?}", self.left.name, self.right.name)
    }

    fn no_key(&self) -> String {
        let common = self.left.columns.iter().find(|column| {
            **column != self.left.own_time && self.right.columns.iter().any(|other| other == *column)
        });
        let key = common.map_or("KEY", String::as_str);
        format!(
            "{} are joined without a key, so every row would meet every other; add an equality to the condition, such \
             as AND {}.{key} = {}.{key}",
            self.both(),
            self.left.name,
            self.right.name
        )
    }

    fn no_bounds(&self) -> String {
        match self.times() {
            Ok((left, right)) => format!(
                "{} are joined without a bound of time, so their rows would be kept for ever; add to the condition AND \
                 {right} BETWEEN {left} AND {left} + {EXAMPLE}, or add a [window.NAME] over each and select from those",
                self.both()
            ),
            Err(message) => message,
        }
    }

    fn no_upper(&self) -> String {
        match self.times() {
            Ok((left, right)) => format!(
                "nothing says how long after {left} a match may come, so rows of {:?} would be kept for ever; add to \
                 the condition AND {right} <= {left} + {EXAMPLE}",
                self.left.name
            ),
            Err(message) => message,
        }
    }

    fn no_lower(&self) -> String {
        match self.times() {
            Ok((left, right)) => format!(
                "nothing says how long before {left} a match may have come, so rows of {:?} would be kept for ever; \
                 add to the condition AND {right} >= {left}, or AND {right} >= {left} - {EXAMPLE}",
                self.right.name
            ),
            Err(message) => message,
        }
    }

    fn in_months(&self) -> String {
        "a bound of time in months or years has no fixed length; write it in days, hours, minutes or seconds"
            .to_owned()
    }

    fn empty(&self, lower: i64, upper: i64) -> String {
        format!(
            "no rows can match: {} would have to come {} or more and {} or less after {}",
            self.right.name,
            signed(lower),
            signed(upper),
            self.left.name
        )
    }

    fn times(&self) -> Result<(&str, &str), String> {
        let time = |side: &'_ SideName| {
            format!(
                "the rows of {:?} come without their event time {:?}, so nothing bounds how long they are kept; select \
                 it in the subquery too",
                side.name, side.own_time
            )
        };
        match (&self.left.time, &self.right.time) {
            (Some(left), Some(right)) => Ok((left, right)),
            (None, _) => Err(time(&self.left)),
            (_, None) => Err(time(&self.right)),
        }
    }
}

impl SideName {
    fn of(plan: &LogicalPlan, tables: &[SqlTable]) -> Option<SideName> {
        let table = scanned(plan).and_then(|name| tables.iter().find(|t| t.name == name))?;
        let own_time = table.schema.field(table.event_time).name().clone();
        let fields: Vec<_> = plan.schema().iter().collect();
        let alias = fields
            .iter()
            .find_map(|(qualifier, _)| qualifier.map(ToString::to_string));
        let name = alias.unwrap_or_else(|| table.name.clone());
        let time = (0..fields.len()).find(|index| passes_through(plan, *index, &own_time));
        Some(SideName {
            time: time.map(|index| format!("{name}.{}", fields[index].1.name())),
            own_time,
            columns: fields.iter().map(|(_, field)| field.name().clone()).collect(),
            name,
        })
    }
}

/// The one table a plan reads.
fn scanned(plan: &LogicalPlan) -> Option<String> {
    match plan {
        LogicalPlan::TableScan(scan) => Some(scan.table_name.table().to_owned()),
        other => match other.inputs()[..] {
            [input] => scanned(input),
            _ => None,
        },
    }
}

/// Whether a column of a plan is the named one of the table it reads.
fn passes_through(plan: &LogicalPlan, index: usize, name: &str) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.projected_schema.field(index).name() == name,
        LogicalPlan::SubqueryAlias(alias) => passes_through(&alias.input, index, name),
        LogicalPlan::Filter(filter) => passes_through(&filter.input, index, name),
        LogicalPlan::Projection(projection) => {
            let input = &projection.input;
            let mut expr = &projection.expr[index];
            while let Expr::Alias(alias) = expr {
                expr = &alias.expr;
            }
            let Expr::Column(column) = expr else { return false };
            let index = input.schema().maybe_index_of_column(column);
            index.is_some_and(|index| passes_through(input, index, name))
        }
        _ => false,
    }
}
