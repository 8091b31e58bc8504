//! The first rows of each key: `row_number() OVER (PARTITION BY … ORDER BY …)` below a filter that keeps a few of
//! each partition.
//!
//! Planned as it is written, every row that a window holds is sorted with all its columns, numbered, and most of
//! them are dropped. [`TopPerKey`] finds by hash and one comparison per row those that can be kept, so that only they
//! are sorted; where one of each partition is kept and nobody above asks for the order, nothing is sorted at all.
//! Rows that the order does not tell apart are numbered as they arrived, which is as good as any other way.
//!
//! DataFusion has a rule of this kind, `WindowTopN`, switched off by default: it sorts what it keeps by the key,
//! knows no `= 1`, and no filter that projects.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, ScalarValue, internal_datafusion_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::window::{StandardWindowExpr, WindowExpr};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr, PhysicalSortExpr, split_conjunction};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, replace_children_if_necessary};
use datafusion::physical_plan::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowUDFExpr};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};

/// Most rows of a key that are found by insertion; with more the sort is as good.
const MOST: usize = 1_000;
/// No row.
const NONE: u32 = u32::MAX;

/// Puts [`TopPerKey`] where it can be.
#[derive(Debug, Default)]
pub(super) struct FirstRows;

impl PhysicalOptimizerRule for FirstRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        rewritten(plan, false)
    }

    fn name(&self) -> &str {
        "FirstRows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The plan with its rankings replaced; `ordered`: somebody above relies on the order of its rows.
fn rewritten(plan: Arc<dyn ExecutionPlan>, ordered: bool) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = match Ranking::below(&plan) {
        Some(ranking) => ranking.applied(&plan, ordered)?,
        None => plan,
    };
    let (required, kept) = (plan.required_input_ordering(), plan.maintains_input_order());
    let limited = plan.fetch().is_some();
    let mut children = Vec::new();
    for (number, child) in plan.children().into_iter().enumerate() {
        let asked = required.get(number).is_some_and(Option::is_some);
        let passed = (ordered || limited) && kept.get(number).copied().unwrap_or(true);
        children.push(rewritten(Arc::clone(child), asked || passed)?);
    }
    match children.is_empty() {
        true => Ok(plan),
        false => replace_children_if_necessary(plan, children),
    }
}

/// A filter over a ranking: how many rows of each partition pass at most, and of what.
struct Ranking<'p> {
    most: usize,
    window: &'p BoundedWindowAggExec,
    sort: &'p SortExec,
}

impl<'p> Ranking<'p> {
    fn below(plan: &'p Arc<dyn ExecutionPlan>) -> Option<Ranking<'p>> {
        let filter = plan.downcast_ref::<FilterExec>()?;
        let conditions = split_conjunction(filter.predicate());
        let (number, most) = conditions.into_iter().find_map(first_rows)?;
        let (window, column) = window_below(filter.input(), number)?;
        let sort = window.input().downcast_ref::<SortExec>()?;
        let [ranked] = window.window_expr() else {
            return None;
        };
        let is_it = column == sort.schema().fields().len() && is_row_number(ranked);
        let partitioned = !ranked.partition_by().is_empty();
        let good = is_it && partitioned && most <= MOST && sort.fetch().is_none();
        good.then_some(Ranking { most, window, sort })
    }

    fn applied(&self, plan: &Arc<dyn ExecutionPlan>, ordered: bool) -> Result<Arc<dyn ExecutionPlan>> {
        let ranked = &self.window.window_expr()[0];
        let top = TopPerKey::new(
            Arc::clone(self.sort.input()),
            ranked.partition_by().to_vec(),
            ranked.order_by().to_vec(),
            self.most,
        );
        let top: Arc<dyn ExecutionPlan> = Arc::new(top);
        let numbered = match self.most == 1 && !ordered {
            true => self.all_first(top)?,
            false => {
                let sort = replace_children_if_necessary(Arc::new(self.sort.clone()), vec![top])?;
                replace_children_if_necessary(Arc::new(self.window.clone()), vec![sort])?
            }
        };
        above_window(plan, numbered)
    }

    /// One row of each partition has the number one.
    fn all_first(&self, top: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = self.window.schema();
        let inputs = top.schema().fields().len();
        let column = |(index, field): (usize, &Arc<Field>)| -> Result<(Arc<dyn PhysicalExpr>, String)> {
            let name = field.name().clone();
            Ok(match index < inputs {
                true => (Arc::new(Column::new(&name, index)), name),
                false => {
                    let one = ScalarValue::UInt64(Some(1)).cast_to(field.data_type())?;
                    (Arc::new(Literal::new(one)), name)
                }
            })
        };
        let columns: Vec<_> = schema
            .fields()
            .iter()
            .enumerate()
            .map(column)
            .collect::<Result<_>>()?;
        Ok(Arc::new(ProjectionExec::try_new(columns, top)?))
    }
}

/// The nodes from `plan` down to the window with `instead` in the window's place.
fn above_window(
    plan: &Arc<dyn ExecutionPlan>,
    instead: Arc<dyn ExecutionPlan>,
) -> Result<Arc<dyn ExecutionPlan>> {
    if plan.is::<BoundedWindowAggExec>() {
        return Ok(instead);
    }
    let children = plan.children();
    let [child] = children[..] else {
        return Err(internal_datafusion_err!("a filter or a projection has one input"));
    };
    replace_children_if_necessary(Arc::clone(plan), vec![above_window(child, instead)?])
}

/// The window that makes output column `column` of a plan which does nothing but project, and which of its columns.
fn window_below(plan: &Arc<dyn ExecutionPlan>, column: usize) -> Option<(&BoundedWindowAggExec, usize)> {
    if let Some(window) = plan.downcast_ref::<BoundedWindowAggExec>() {
        return Some((window, column));
    }
    let projection = plan.downcast_ref::<ProjectionExec>()?;
    let from = projection.expr().get(column)?.expr.downcast_ref::<Column>()?;
    window_below(projection.input(), from.index())
}

fn is_row_number(expr: &Arc<dyn WindowExpr>) -> bool {
    let standard = expr.as_any().downcast_ref::<StandardWindowExpr>();
    let function = standard.and_then(|s| {
        s.get_standard_func_expr()
            .as_any()
            .downcast_ref::<WindowUDFExpr>()
    });
    function.is_some_and(|f| f.fun().name() == "row_number")
}

/// The column that a condition keeps the first numbers of, and how many.
fn first_rows(condition: &Arc<dyn PhysicalExpr>) -> Option<(usize, usize)> {
    let compared = condition.downcast_ref::<BinaryExpr>()?;
    let (column, op, number) = match compared.left().downcast_ref::<Column>() {
        Some(column) => (column, *compared.op(), compared.right()),
        None => (
            compared.right().downcast_ref::<Column>()?,
            compared.op().swap()?,
            compared.left(),
        ),
    };
    let number = number.downcast_ref::<Literal>()?.value();
    let number = match number.data_type().is_integer() {
        true => number.cast_to(&DataType::Int64).ok()?,
        false => return None,
    };
    let ScalarValue::Int64(Some(number)) = number else {
        return None;
    };
    let most = match op {
        Operator::LtEq | Operator::Eq => number,
        Operator::Lt => number.checked_sub(1)?,
        _ => return None,
    };
    // No row has a number below one; such a filter is left alone.
    usize::try_from(most)
        .ok()
        .filter(|most| *most > 0)
        .map(|most| (column.index(), most))
}

/// Passes the first `most` rows of each key, in order of arrival.
#[derive(Debug)]
struct TopPerKey {
    input: Arc<dyn ExecutionPlan>,
    key: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<PhysicalSortExpr>,
    most: usize,
    properties: Arc<PlanProperties>,
}

impl TopPerKey {
    fn new(
        input: Arc<dyn ExecutionPlan>,
        key: Vec<Arc<dyn PhysicalExpr>>,
        order: Vec<PhysicalSortExpr>,
        most: usize,
    ) -> TopPerKey {
        TopPerKey {
            properties: properties_above(&input),
            input,
            key,
            order,
            most,
        }
    }
}

fn properties_above(input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(input.schema()),
        input.output_partitioning().clone(),
        EmissionType::Final,
        Boundedness::Bounded,
    ))
}

impl DisplayAs for TopPerKey {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let shown = |all: Vec<String>| all.join(", ");
        write!(
            f,
            "TopPerKey: most={}, key=[{}], order=[{}]",
            self.most,
            shown(self.key.iter().map(ToString::to_string).collect()),
            shown(self.order.iter().map(ToString::to_string).collect())
        )
    }
}

impl ExecutionPlan for TopPerKey {
    fn name(&self) -> &str {
        "TopPerKey"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        apply: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for expr in self.key.iter().chain(self.order.iter().map(|o| &o.expr)) {
            if apply(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        options: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children
            .pop()
            .ok_or_else(|| internal_datafusion_err!("one input is needed"))?;
        let properties = match options.children_properties {
            ChildrenPropertiesMode::Keep => Arc::clone(&self.properties),
            ChildrenPropertiesMode::Recompute => properties_above(&input),
        };
        Ok(Arc::new(TopPerKey {
            input,
            key: self.key.clone(),
            order: self.order.clone(),
            most: self.most,
            properties,
        }))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let recompute = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
        self.replace_children(children, recompute)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, context)?;
        let schema = self.input.schema();
        let mut top = Top::new(&schema, &self.key, &self.order, self.most)?;
        let (key, order) = (self.key.clone(), self.order.clone());
        let found = async move {
            while let Some(rows) = input.next().await {
                top.take(&key, &order, rows?)?;
            }
            Ok::<_, DataFusionError>(stream::iter(top.kept()))
        };
        let rows = stream::once(found).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

/// The first rows of each key among those that came.
struct Top {
    most: usize,
    groups: Box<dyn GroupValues>,
    /// Group of each row of the batch at hand; kept for its capacity.
    indices: Vec<usize>,
    batches: Vec<RecordBatch>,
    /// Number of the first row of each batch.
    starts: Vec<usize>,
    rows: usize,
    ranks: Ranks,
    /// Of each group, the numbers of its first rows so far, in order.
    first: First,
}

/// The first rows of each group.
enum First {
    One(Vec<u32>),
    Several(Vec<Vec<u32>>),
}

/// What rows are compared by.
enum Ranks {
    /// Of each row, a number that grows as the rows come later in the order.
    Numbers { of: Vec<i64>, descending: bool },
    /// Of each batch, its rows' columns in a form that compares as bytes.
    Bytes { converter: RowConverter, of: Vec<Rows> },
    /// Nothing: the first to arrive are first.
    Arrival,
}

impl Top {
    fn new(
        schema: &SchemaRef,
        key: &[Arc<dyn PhysicalExpr>],
        order: &[PhysicalSortExpr],
        most: usize,
    ) -> Result<Top> {
        let field = |(n, expr): (usize, &Arc<dyn PhysicalExpr>)| {
            Ok(Field::new(
                n.to_string(),
                expr.data_type(schema)?,
                expr.nullable(schema)?,
            ))
        };
        let fields: Vec<Field> = key.iter().enumerate().map(field).collect::<Result<_>>()?;
        Ok(Top {
            most,
            groups: new_group_values(Arc::new(Schema::new(fields)), &GroupOrdering::None)?,
            indices: Vec::new(),
            batches: Vec::new(),
            starts: Vec::new(),
            rows: 0,
            ranks: Ranks::new(schema, order)?,
            first: match most {
                1 => First::One(Vec::new()),
                _ => First::Several(Vec::new()),
            },
        })
    }

    fn take(
        &mut self,
        key: &[Arc<dyn PhysicalExpr>],
        order: &[PhysicalSortExpr],
        rows: RecordBatch,
    ) -> Result<()> {
        let columns = |exprs: &mut dyn Iterator<Item = &Arc<dyn PhysicalExpr>>| {
            exprs
                .map(|e| e.evaluate(&rows)?.into_array(rows.num_rows()))
                .collect::<Result<Vec<ArrayRef>>>()
        };
        self.groups
            .intern(&columns(&mut key.iter())?, &mut self.indices)?;
        self.ranks.add(&columns(&mut order.iter().map(|o| &o.expr))?)?;
        let start = self.rows;
        self.starts.push(start);
        self.rows += rows.num_rows();
        if u32::try_from(self.rows).is_err() {
            return Err(internal_datafusion_err!(
                "a window holds more than {} rows",
                u32::MAX
            ));
        }
        self.batches.push(rows);
        let before = Before {
            ranks: &self.ranks,
            starts: &self.starts,
        };
        self.first
            .place(&before, self.most, start as u32, &self.indices, self.groups.len());
        Ok(())
    }

    /// The rows that were kept, batch by batch.
    fn kept(self) -> Vec<Result<RecordBatch>> {
        let mut keep = vec![false; self.rows];
        let mut mark = |row: &u32| keep[*row as usize] = true;
        match &self.first {
            First::One(rows) => rows.iter().for_each(&mut mark),
            First::Several(groups) => groups.iter().flatten().for_each(&mut mark),
        }
        let batches = self.batches.iter().zip(&self.starts);
        let kept = batches.map(|(rows, start)| {
            let mask = BooleanArray::from(keep[*start..*start + rows.num_rows()].to_vec());
            Ok(filter_record_batch(rows, &mask)?)
        });
        kept.filter(|rows| rows.as_ref().map_or(true, |rows| rows.num_rows() > 0))
            .collect()
    }
}

impl First {
    /// Finds the places of rows that have come, numbered from `start`, each in its group of `count`.
    fn place(&mut self, before: &Before<'_>, most: usize, start: u32, groups: &[usize], count: usize) {
        let rows = (start..).zip(groups);
        match self {
            First::One(first) => {
                first.resize(count, NONE);
                for (row, group) in rows {
                    let best = &mut first[*group];
                    if *best == NONE || before.is(row, *best) {
                        *best = row;
                    }
                }
            }
            First::Several(first) => {
                first.resize(count, Vec::new());
                for (row, group) in rows {
                    let it = &mut first[*group];
                    if it.len() < most || it.last().is_some_and(|last| before.is(row, *last)) {
                        let at = it.partition_point(|other| !before.is(row, *other));
                        it.insert(at, row);
                        it.truncate(most);
                    }
                }
            }
        }
    }
}

/// Compares rows by number.
struct Before<'a> {
    ranks: &'a Ranks,
    starts: &'a [usize],
}

impl Before<'_> {
    /// Whether a row comes before another that arrived earlier.
    fn is(&self, row: u32, earlier: u32) -> bool {
        let (row, earlier) = (row as usize, earlier as usize);
        match self.ranks {
            Ranks::Numbers {
                of,
                descending: false,
            } => of[row] < of[earlier],
            Ranks::Numbers { of, descending: true } => of[row] > of[earlier],
            Ranks::Bytes { of, .. } => self.bytes(of, row) < self.bytes(of, earlier),
            Ranks::Arrival => false,
        }
    }

    fn bytes<'r>(&self, of: &'r [Rows], row: usize) -> arrow::row::Row<'r> {
        let batch = self.starts.partition_point(|start| *start <= row) - 1;
        of[batch].row(row - self.starts[batch])
    }
}

impl Ranks {
    fn new(schema: &SchemaRef, order: &[PhysicalSortExpr]) -> Result<Ranks> {
        if let [one] = order
            && !one.expr.nullable(schema)?
            && numbers_type(&one.expr.data_type(schema)?)
        {
            return Ok(Ranks::Numbers {
                of: Vec::new(),
                descending: one.options.descending,
            });
        }
        if order.is_empty() {
            return Ok(Ranks::Arrival);
        }
        let field =
            |o: &PhysicalSortExpr| Ok(SortField::new_with_options(o.expr.data_type(schema)?, o.options));
        let fields = order.iter().map(field).collect::<Result<_>>()?;
        Ok(Ranks::Bytes {
            converter: RowConverter::new(fields)?,
            of: Vec::new(),
        })
    }

    fn add(&mut self, columns: &[ArrayRef]) -> Result<()> {
        match self {
            Ranks::Arrival => {}
            Ranks::Bytes { converter, of } => of.push(converter.convert_columns(columns)?),
            Ranks::Numbers { of, .. } => {
                let column = &columns[0];
                if column.null_count() > 0 {
                    return Err(internal_datafusion_err!("a column that has no nulls has one"));
                }
                match column.data_type() {
                    DataType::Int64 => of.extend_from_slice(column.as_primitive::<Int64Type>().values()),
                    _ => of.extend_from_slice(column.as_primitive::<TimestampMicrosecondType>().values()),
                }
            }
        }
        Ok(())
    }
}

fn numbers_type(of: &DataType) -> bool {
    use arrow::datatypes::TimeUnit::Microsecond;
    matches!(of, DataType::Int64 | DataType::Timestamp(Microsecond, _))
}

#[cfg(test)]
mod tests;
