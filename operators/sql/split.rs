//! Cuts a physical plan in two.
//!
//! The lower half is what can be done where rows arrive, batch by batch: the steps over each windowed scan
//! and, where a partial aggregate sits right above them, that aggregate. Each such piece is a [`Slot`]. The
//! upper half is the plan that is left, with a leaf for each slot; it runs when a window closes.
//!
//! The session plans without the rules that fuse a partial aggregate with its final one, so the seam is
//! already in the plan. Of nested aggregates (`count(distinct …)` becomes two) only the innermost stands
//! right above a scan, and only that is cut off. A scan without one keeps its rows until the window closes.
//! Reference tables stay where they are, with whatever stands above them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use millstream_engine::table::TableRows;

use super::accumulate::PartialAggregate;
use super::steps::{ScanColumn, Steps};
use super::tables::{Leaf, LeafKind, with_tables};
use crate::window::Interval;

/// A plan in two halves.
#[derive(Debug)]
pub(super) struct Split {
    /// The pieces of the lower half, by the number their leaf in `upper` carries.
    pub slots: Vec<Slot>,
    /// The upper half.
    pub upper: Arc<dyn ExecutionPlan>,
}

/// A piece of the lower half: what happens to a table's rows on arrival.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Row by row.
    pub steps: Steps,
    /// And then.
    pub reduce: Reduce,
    /// Whether anything in it depends on the window, so that each pane needs its own copy.
    pub mentions_window: bool,
    /// The plan to put in place of the leaf when the slot has no state at all, where an empty leaf would not
    /// do: a partial aggregate with a grand total makes a row out of nothing.
    when_empty: Option<Arc<dyn ExecutionPlan>>,
    /// Window columns that could not be known on arrival and are put into the leaf's rows.
    window_columns: Option<(Vec<ScanColumn>, SchemaRef)>,
}

/// What a slot keeps of its rows.
#[derive(Clone, Debug)]
pub(super) enum Reduce {
    /// Accumulators.
    Aggregate(PartialAggregate),
    /// The rows themselves.
    Keep,
}

/// Cuts a plan. `width` is the number of columns a table's rows have on arrival; `pane_is_window` tells
/// whether a row's window is known then.
pub(super) fn split(
    plan: &Arc<dyn ExecutionPlan>,
    width: &dyn Fn(&str) -> usize,
    pane_is_window: bool,
) -> Result<Split> {
    let mut slots = Vec::new();
    let upper = Arc::clone(plan).transform_down(|node| {
        let Some(slot) = Slot::at(&node, width, pane_is_window)? else {
            return Ok(Transformed::no(node));
        };
        let leaf = Arc::new(Leaf::slot(slots.len(), &node)) as Arc<dyn ExecutionPlan>;
        slots.push(slot);
        Ok(Transformed::new(leaf, true, TreeNodeRecursion::Jump))
    })?;
    Ok(Split {
        slots,
        upper: upper.data,
    })
}

impl Slot {
    fn at(
        node: &Arc<dyn ExecutionPlan>,
        width: &dyn Fn(&str) -> usize,
        pane_is_window: bool,
    ) -> Result<Option<Slot>> {
        let slot = match partial(node) {
            Some(aggregate) => Slot::aggregate(node, aggregate, width)?,
            None => Steps::of(node, width).map(Slot::keep),
        };
        let Some(slot) = slot else { return Ok(None) };
        if pane_is_window || !slot.mentions_window {
            return Ok(Some(slot));
        }
        // The window is not known on arrival: descend to the bare scan and add its columns at the end.
        Ok(node.children().is_empty().then(|| slot.without_window()))
    }

    fn aggregate(
        node: &Arc<dyn ExecutionPlan>,
        aggregate: &AggregateExec,
        width: &dyn Fn(&str) -> usize,
    ) -> Result<Option<Slot>> {
        let Some(steps) = Steps::of(aggregate.input(), width) else {
            return Ok(None);
        };
        let partial = PartialAggregate::of(aggregate, node.schema())?;
        let when_empty = match aggregate.group_expr().has_grouping_set() {
            true => {
                let nothing = Arc::new(EmptyExec::new(aggregate.input().schema()));
                let plan = AggregateExec::try_new(
                    AggregateMode::Partial,
                    aggregate.group_expr().clone(),
                    aggregate.aggr_expr().to_vec(),
                    aggregate.filter_expr().to_vec(),
                    nothing,
                    aggregate.input_schema(),
                )?;
                Some(Arc::new(plan) as Arc<dyn ExecutionPlan>)
            }
            false => None,
        };
        Ok(Some(Slot {
            mentions_window: steps.mention_window() || partial.mentions_window(),
            steps,
            reduce: Reduce::Aggregate(partial),
            when_empty,
            window_columns: None,
        }))
    }

    fn keep(steps: Steps) -> Slot {
        Slot {
            mentions_window: steps.mention_window(),
            steps,
            reduce: Reduce::Keep,
            when_empty: None,
            window_columns: None,
        }
    }

    fn without_window(self) -> Slot {
        let columns = self.steps.columns.clone();
        let schema = Arc::clone(self.steps.schema());
        Slot {
            steps: self.steps.inputs_only(),
            mentions_window: false,
            window_columns: Some((columns, schema)),
            ..self
        }
    }

    /// The slot for one pane's rows.
    pub fn bind(&self, window: Interval) -> Result<Slot> {
        let mut bound = self.clone();
        bound.steps = self.steps.bind(window)?;
        if let Reduce::Aggregate(aggregate) = &mut bound.reduce {
            *aggregate = aggregate.bind(window)?;
        }
        Ok(bound)
    }

    /// The slot's rows as the plan above expects them, for the given window.
    fn complete(&self, rows: Vec<RecordBatch>, window: Interval) -> Result<Vec<RecordBatch>> {
        let Some((columns, schema)) = &self.window_columns else {
            return Ok(rows);
        };
        let complete = |rows: RecordBatch| {
            let mut inputs = rows.columns().iter();
            let column = |column: &ScanColumn| match column {
                ScanColumn::Window(bound) => bound.of(window).to_array_of_size(rows.num_rows()),
                ScanColumn::Input(_) => inputs
                    .next()
                    .cloned()
                    .ok_or_else(|| DataFusionError::Internal("kept rows lack a column".to_owned())),
            };
            let columns = columns.iter().map(column).collect::<Result<_>>()?;
            Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
        };
        rows.into_iter().map(complete).collect()
    }
}

impl Split {
    /// The upper plan with the slots' and the tables' rows in its leaves, fresh and ready to execute once.
    pub fn filled(
        &self,
        mut rows: impl FnMut(usize) -> Vec<RecordBatch>,
        tables: &BTreeMap<String, TableRows>,
        window: Interval,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let fresh = reset_plan_states(Arc::clone(&self.upper))?;
        let filled = fresh.transform_up(|node| {
            let Some((leaf, slot)) = slot_leaf(&node) else {
                return with_tables(node, tables);
            };
            let (slot, rows) = (&self.slots[slot], rows(slot));
            Ok(Transformed::yes(match &slot.when_empty {
                Some(plan) if rows.is_empty() => Arc::clone(plan),
                _ => Arc::new(leaf.filled(slot.complete(rows, window)?)) as Arc<dyn ExecutionPlan>,
            }))
        })?;
        Ok(filled.data)
    }
}

fn partial(node: &Arc<dyn ExecutionPlan>) -> Option<&AggregateExec> {
    let aggregate = node.downcast_ref::<AggregateExec>()?;
    (*aggregate.mode() == AggregateMode::Partial).then_some(aggregate)
}

fn slot_leaf(node: &Arc<dyn ExecutionPlan>) -> Option<(&Leaf, usize)> {
    let leaf = node.downcast_ref::<Leaf>()?;
    match leaf.kind {
        LeafKind::Slot(slot) => Some((leaf, slot)),
        _ => None,
    }
}
