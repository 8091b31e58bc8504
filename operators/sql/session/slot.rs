//! A piece of the lower half, made to keep the parts of sessions apart.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::prep_null_mask_filter;
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::physical_expr::{PhysicalExpr, conjunction};
use datafusion::physical_plan::expressions::Column;

use super::hidden_fields;
use crate::sql::accumulate::{Accumulators, PartialAggregate};
use crate::sql::functions::{Bound, bound_called};
use crate::sql::split::{Reduce, Slot};
use crate::sql::steps::{ScanColumn, Steps, with_schema};
use crate::window::part_field;

/// What a slot over a session window has beside the others.
#[derive(Clone, Debug)]
pub(in crate::sql) struct SessionSlot {
    /// The part's place among the columns of the slot's state.
    pub part: usize,
    /// Schema of the state without the part: what the plan above the slot reads.
    schema: SchemaRef,
    /// On arrival the pane's bounds stand in.
    late_keys: Vec<LateKey>,
    /// Conditions that depend on the session's bounds alone, over the same batch: state of other sessions counts
    /// for nothing.
    late_conditions: Vec<Arc<dyn PhysicalExpr>>,
    /// The state of no rows, for an aggregate without keys: the plan above must see it where a session has no
    /// state.
    pub of_nothing: Option<RecordBatch>,
}

/// A key that depends on the session's bounds alone: its place among the columns of state, and what it is over a
/// batch of two columns, start and end.
type LateKey = (usize, Arc<dyn PhysicalExpr>);

impl Slot {
    /// The slot with the parts of sessions kept apart; none where the plan below it must be looked at.
    pub fn of_session(self, is_scan: bool, width: &dyn Fn(&str) -> usize) -> Result<Option<Slot>> {
        let mut slot = match (&self.reduce, self.mentions_window) {
            (Reduce::Keep, true) if !is_scan => return Ok(None),
            (Reduce::Keep, true) => self.without_window(),
            _ => self,
        };
        let late = match &slot.reduce {
            Reduce::Aggregate(aggregate) if slot.mentions_window => match Late::of(&slot.steps, aggregate)? {
                Some(late) => late,
                None => return Ok(None),
            },
            _ => Late::default(),
        };
        slot.steps = late.steps.unwrap_or(slot.steps);
        let part = part_field();
        let steps = slot.steps.carrying(width(&slot.steps.table), &part);
        let columns = slot.steps.schema().fields().len();
        slot.session = Some(match &slot.reduce {
            Reduce::Keep => SessionSlot {
                part: columns,
                schema: Arc::clone(slot.steps.schema()),
                late_keys: late.keys,
                late_conditions: late.conditions,
                of_nothing: None,
            },
            Reduce::Aggregate(whole) => {
                let Some(apart) = whole.apart(columns, &part) else {
                    return Ok(None);
                };
                let session = SessionSlot {
                    part: 0,
                    schema: Arc::clone(whole.schema()),
                    late_keys: late.keys,
                    late_conditions: late.conditions,
                    of_nothing: match whole.is_whole() {
                        true => Some(Accumulators::new(whole)?.take(whole)?),
                        false => None,
                    },
                };
                slot.reduce = Reduce::Aggregate(apart);
                session
            }
        });
        slot.steps = steps;
        Ok(Some(slot))
    }
}

impl SessionSlot {
    /// The numbers of the parts that rows of state belong to.
    pub fn parts<'a>(&self, state: &'a RecordBatch) -> Result<&'a [i64]> {
        let column = state.columns().get(self.part);
        column
            .and_then(|c| c.as_primitive_opt::<Int64Type>())
            .map(|c| c.values().as_ref())
            .ok_or_else(|| internal_datafusion_err!("state lacks the parts of sessions"))
    }

    /// State without the part, and with the keys that had to wait for the sessions' bounds, which come per row
    /// as start and end.
    pub fn complete(&self, state: &RecordBatch, bounds: &[ArrayRef]) -> Result<RecordBatch> {
        let mut columns = state.columns().to_vec();
        columns.remove(self.part);
        if !self.late_keys.is_empty() {
            let bounds = bounds_batch(bounds)?;
            for (column, key) in &self.late_keys {
                columns[*column] = key.evaluate(&bounds)?.into_array(bounds.num_rows())?;
            }
        }
        let rows = state.num_rows();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        let rows = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        Ok(with_schema(rows, &self.schema)?)
    }

    /// Whether state of a session counts, for sessions given by their starts and ends; none when all does.
    pub fn counts(&self, bounds: &[ArrayRef]) -> Result<Option<BooleanArray>> {
        if self.late_conditions.is_empty() {
            return Ok(None);
        }
        let bounds = bounds_batch(bounds)?;
        let counts = conjunction(self.late_conditions.iter().cloned());
        let counts = counts.evaluate(&bounds)?.into_array(bounds.num_rows())?;
        let counts = counts.as_boolean();
        // A condition that is neither true nor false lets nothing pass.
        Ok(Some(match counts.null_count() {
            0 => counts.clone(),
            _ => prep_null_mask_filter(counts),
        }))
    }

    /// Whether every session that has rows has state that counts.
    pub fn keeps_all(&self, steps: &Steps) -> bool {
        self.late_conditions.is_empty() && steps.keep_all()
    }

    /// State of the same parts, and groups, in as few rows as possible.
    pub fn merged(&self, aggregate: &PartialAggregate, state: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = state.columns().to_vec();
        for (key, _) in &self.late_keys {
            // What stands in for the bounds differs from pane to pane and says nothing.
            let column = &mut columns[key + 1];
            *column = ScalarValue::try_from_array(column, 0)?.to_array_of_size(state.num_rows())?;
        }
        let mut merged = Accumulators::new(aggregate)?;
        merged.merge(aggregate, &RecordBatch::try_new(state.schema(), columns)?)?;
        merged.take(aggregate)
    }

    /// Schema of what [`SessionSlot::complete`] gives.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

/// What an expression over a scan's columns needs to know of the window.
enum Needs {
    Nothing,
    /// Its bounds and nothing else: the expression over a batch of start and end.
    Bounds(Arc<dyn PhysicalExpr>),
    /// Its bounds together with columns of a row.
    Both,
}

/// What of an aggregate and the steps below it has to wait for the window's bounds.
#[derive(Default)]
struct Late {
    keys: Vec<LateKey>,
    conditions: Vec<Arc<dyn PhysicalExpr>>,
    /// The steps without the conditions.
    steps: Option<Steps>,
}

impl Late {
    /// None when something needs the bounds together with a row, so that rows cannot be aggregated before the
    /// bounds are known.
    fn of(steps: &Steps, aggregate: &PartialAggregate) -> Result<Option<Late>> {
        if aggregate.has_grouping_sets() {
            return Ok(None);
        }
        let mut late = Late::default();
        let mut waits = false;
        let mut without = steps.clone();
        without.take_conditions(|condition| match needs(condition, steps)? {
            Needs::Nothing => Ok(false),
            Needs::Bounds(condition) => {
                late.conditions.push(condition);
                Ok(true)
            }
            Needs::Both => {
                waits = true;
                Ok(false)
            }
        })?;
        for input in aggregate.inputs() {
            waits |= !matches!(needs(&steps.over_scan(input)?, steps)?, Needs::Nothing);
        }
        for (number, key) in aggregate.keys().enumerate() {
            match needs(&steps.over_scan(key)?, steps)? {
                Needs::Nothing => {}
                Needs::Bounds(key) => late.keys.push((number, key)),
                Needs::Both => waits = true,
            }
        }
        late.steps = Some(without);
        Ok((!waits).then_some(late))
    }
}

fn bounds_batch(bounds: &[ArrayRef]) -> Result<RecordBatch> {
    let [_, start, end] = hidden_fields();
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(vec![start, end])),
        bounds.to_vec(),
    )?)
}

fn needs(expr: &Arc<dyn PhysicalExpr>, steps: &Steps) -> Result<Needs> {
    let (mut row, mut window) = (false, false);
    expr.apply(|e| {
        match bound_in(e, steps) {
            Some(_) => window = true,
            None => row |= e.is::<Column>(),
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    if !window {
        return Ok(Needs::Nothing);
    }
    if row {
        return Ok(Needs::Both);
    }
    let over_bounds = Arc::clone(expr).transform_up(|e| {
        Ok(match bound_in(&e, steps) {
            Some(bound) => {
                let column = Column::new(bound.name(), usize::from(bound == Bound::End));
                Transformed::yes(Arc::new(column) as Arc<dyn PhysicalExpr>)
            }
            None => Transformed::no(e),
        })
    })?;
    Ok(Needs::Bounds(over_bounds.data))
}

/// Which bound of the window an expression over a scan's columns is.
fn bound_in(expr: &Arc<dyn PhysicalExpr>, steps: &Steps) -> Option<Bound> {
    let column = expr.downcast_ref::<Column>();
    match column.and_then(|c| steps.columns.get(c.index())) {
        Some(ScanColumn::Window(bound)) => Some(*bound),
        _ => bound_called(expr),
    }
}
