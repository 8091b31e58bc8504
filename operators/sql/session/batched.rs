//! The upper plan of a query, rewritten to run once for many sessions.
//!
//! Three hidden columns go with every row from the leaves to the result: which session it belongs to, the
//! session's start and its end. They stand behind the others, so that expressions find their columns where
//! they were; they are keys of every aggregate, in front of its own; and they are what `window_start()` and
//! `window_end()` become. What is left of the sessions' rows after that is what would be left of each by itself,
//! for projections, filters and aggregates. Other plans are not rewritten.
//!
//! An aggregate without keys makes a row even of nothing, one with keys does not. So it is rewritten only where
//! its input is never empty for a session: straight above a slot (which then gets the state of no rows), or
//! above what always leaves rows of a session that has some.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateInputMode, AggregateOutputMode, PhysicalGroupBy,
};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::expressions::Column;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::{HIDDEN, hidden_fields};
use crate::sql::functions::{Bound, bound_called, calls_window};
use crate::sql::split::{Reduce, Slot, Split, slot_leaf};
use crate::sql::tables::Leaf;

/// A plan whose rows have the hidden columns.
struct Apart {
    plan: Arc<dyn ExecutionPlan>,
    /// They stand in front: the rows are the state of an aggregate.
    in_front: bool,
    /// Every session that has rows has some here.
    never_empty: bool,
}

/// The upper plan for many sessions at once, with the hidden columns behind those of the result; none when it
/// cannot be rewritten.
pub(in crate::sql) fn batched(split: &Split) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let apart = apart(&split.upper, &split.slots)?;
    Ok(apart.filter(|apart| !apart.in_front).map(|apart| apart.plan))
}

fn apart(plan: &Arc<dyn ExecutionPlan>, slots: &[Slot]) -> Result<Option<Apart>> {
    if let Some((leaf, slot)) = slot_leaf(plan) {
        return Ok(slots.get(slot).and_then(|of| leaf_apart(leaf, of)));
    }
    let [input] = plan.children()[..] else {
        return Ok(None);
    };
    let Some(input) = apart(input, slots)? else {
        return Ok(None);
    };
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return aggregate_apart(aggregate, input);
    }
    if input.in_front {
        return Ok(None);
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        return Ok(Some(Apart {
            plan: projected(projection.expr(), &input.plan)?,
            ..input
        }));
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        return filter_apart(filter, input);
    }
    // Wrappers that only matter to an executor.
    let wrapper = plan.is::<CooperativeExec>() || plan.is::<CoalescePartitionsExec>();
    let one = input.plan.output_partitioning().partition_count() == 1;
    Ok((wrapper && plan.fetch().is_none() && one).then_some(input))
}

fn leaf_apart(leaf: &Leaf, slot: &Slot) -> Option<Apart> {
    let in_front = matches!(slot.reduce, Reduce::Aggregate(_));
    // A grouping set may have a grand total, which makes a row even of nothing.
    if slot.when_empty.is_some() {
        return None;
    }
    let session = slot.session.as_ref()?;
    let inner = match &slot.window_columns {
        Some((_, schema)) => schema,
        None => session.schema(),
    };
    Some(Apart {
        plan: Arc::new(leaf.with_schema(leaf_schema(inner, in_front))),
        in_front,
        never_empty: session.of_nothing.is_some() || session.keeps_all(&slot.steps),
    })
}

fn leaf_schema(inner: &SchemaRef, in_front: bool) -> SchemaRef {
    let inner = inner.fields().iter().cloned();
    let fields: Vec<_> = match in_front {
        true => hidden_fields().into_iter().chain(inner).collect(),
        false => inner.chain(hidden_fields()).collect(),
    };
    Arc::new(Schema::new(fields))
}

/// A projection that passes the hidden columns on.
fn projected(exprs: &[ProjectionExpr], input: &Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let columns = input.schema().fields().len();
    let mut all: Vec<ProjectionExpr> = Vec::with_capacity(exprs.len() + HIDDEN);
    for of in exprs {
        all.push(ProjectionExpr {
            expr: with_bounds(&of.expr, columns - HIDDEN)?,
            alias: of.alias.clone(),
        });
    }
    all.extend(passed_on(input, columns - HIDDEN..columns));
    Ok(Arc::new(ProjectionExec::try_new(all, Arc::clone(input))?))
}

/// Columns as they are.
fn passed_on(input: &Arc<dyn ExecutionPlan>, columns: std::ops::Range<usize>) -> Vec<ProjectionExpr> {
    let schema = input.schema();
    let column = |index: usize| {
        let alias = schema.field(index).name().clone();
        let expr = Arc::new(Column::new(&alias, index));
        ProjectionExpr { expr, alias }
    };
    columns.map(column).collect()
}

fn filter_apart(filter: &FilterExec, input: Apart) -> Result<Option<Apart>> {
    if filter.fetch().is_some() {
        return Ok(None);
    }
    let columns = input.plan.schema().fields().len();
    let predicate = with_bounds(filter.predicate(), columns - HIDDEN)?;
    let mut plan: Arc<dyn ExecutionPlan> = Arc::new(FilterExec::try_new(predicate, input.plan)?);
    if let Some(kept) = filter.projection() {
        let hidden = columns - HIDDEN..columns;
        let kept = kept.iter().copied().chain(hidden);
        let all: Vec<_> = kept.flat_map(|c| passed_on(&plan, c..c + 1)).collect();
        plan = Arc::new(ProjectionExec::try_new(all, plan)?);
    }
    Ok(Some(Apart {
        plan,
        in_front: false,
        never_empty: false,
    }))
}

fn aggregate_apart(aggregate: &AggregateExec, input: Apart) -> Result<Option<Apart>> {
    let of_state = aggregate.mode().input_mode() == AggregateInputMode::Partial;
    let keys = aggregate.group_expr();
    let fits = of_state == input.in_front
        && !keys.has_grouping_set()
        && aggregate.limit_options().is_none()
        && (input.never_empty || !keys.is_true_no_grouping());
    let inputs = aggregate.aggr_expr().iter().flat_map(|call| call.expressions());
    let filters = aggregate.filter_expr().iter().flatten().cloned();
    if !fits || (!of_state && inputs.chain(filters).any(|e| calls_window(&e))) {
        return Ok(None);
    }
    let schema = input.plan.schema();
    let columns = schema.fields().len();
    // In state the hidden columns stand in front, and an aggregate over state has plain columns as keys.
    let first = if of_state { 0 } else { columns - HIDDEN };
    let mut grouped: Vec<(Arc<dyn PhysicalExpr>, String)> = passed_on(&input.plan, first..first + HIDDEN)
        .into_iter()
        .map(|hidden| (hidden.expr, hidden.alias))
        .collect();
    for (expr, name) in keys.expr() {
        let expr = match of_state {
            true => shifted(expr)?,
            false => with_bounds(expr, columns - HIDDEN)?,
        };
        grouped.push((expr, name.clone()));
    }
    let plan: Arc<dyn ExecutionPlan> = Arc::new(AggregateExec::try_new(
        *aggregate.mode(),
        PhysicalGroupBy::new_single(grouped),
        aggregate.aggr_expr().to_vec(),
        aggregate.filter_expr().to_vec(),
        Arc::clone(&input.plan),
        aggregate.input_schema(),
    )?);
    let in_front = aggregate.mode().output_mode() == AggregateOutputMode::Partial;
    let plan = match in_front {
        true => plan,
        false => {
            let width = plan.schema().fields().len();
            let mut behind = passed_on(&plan, HIDDEN..width);
            behind.extend(passed_on(&plan, 0..HIDDEN));
            Arc::new(ProjectionExec::try_new(behind, plan)?) as _
        }
    };
    Ok(Some(Apart {
        plan,
        in_front,
        never_empty: input.never_empty,
    }))
}

/// An expression with the hidden bounds, which stand after the session's number at `hidden`, instead of calls
/// of `window_start()` and `window_end()`.
fn with_bounds(expr: &Arc<dyn PhysicalExpr>, hidden: usize) -> Result<Arc<dyn PhysicalExpr>> {
    let replaced = Arc::clone(expr).transform_up(|e| {
        Ok(match bound_called(&e) {
            Some(bound) => {
                let index = hidden + 1 + usize::from(bound == Bound::End);
                Transformed::yes(Arc::new(Column::new(bound.name(), index)) as Arc<dyn PhysicalExpr>)
            }
            None => Transformed::no(e),
        })
    })?;
    Ok(replaced.data)
}

/// An expression over rows that have the hidden columns in front.
fn shifted(expr: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let moved = Arc::clone(expr).transform_up(|e| {
        Ok(match e.downcast_ref::<Column>() {
            Some(column) => {
                let moved = Column::new(column.name(), column.index() + HIDDEN);
                Transformed::yes(Arc::new(moved) as Arc<dyn PhysicalExpr>)
            }
            None => Transformed::no(e),
        })
    })?;
    Ok(moved.data)
}
