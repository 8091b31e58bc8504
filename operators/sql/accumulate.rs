//! A partial aggregate fed by hand: rows in, groups and accumulators grow; out comes the state that
//! DataFusion's final aggregate takes.
//!
//! This drives DataFusion's own `GroupValues` and accumulators the way its `AggregateExec` does in partial
//! mode, except that it never ends: state is taken when a window closes or a checkpoint asks. Taking state
//! consumes an accumulator; what becomes of the state then is `deltas.rs`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::{GroupsAccumulatorAdapter, PhysicalExpr};
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use datafusion::physical_plan::aggregates::{
    AggregateExec, AggregateMode, PhysicalGroupBy, aggregate_expressions, evaluate_group_by, evaluate_many,
};
use datafusion::physical_plan::filter::batch_filter;

use super::functions::{calls_window, substitute};
use crate::window::Interval;

/// A partial aggregate as DataFusion planned it.
#[derive(Clone, Debug)]
pub(super) struct PartialAggregate {
    group_by: PhysicalGroupBy,
    group_schema: SchemaRef,
    calls: Vec<Call>,
    schema: SchemaRef,
}

/// One aggregate function call.
#[derive(Clone, Debug)]
struct Call {
    function: Arc<AggregateFunctionExpr>,
    arguments: Vec<Arc<dyn PhysicalExpr>>,
    filter: Option<Arc<dyn PhysicalExpr>>,
    /// How many columns its state takes.
    state_columns: usize,
}

impl PartialAggregate {
    /// What the plan's partial aggregate does.
    pub fn of(plan: &AggregateExec, schema: SchemaRef) -> Result<PartialAggregate> {
        let group_by = plan.group_expr().clone();
        let arguments = aggregate_expressions(
            plan.aggr_expr(),
            &AggregateMode::Partial,
            group_by.num_group_exprs(),
        )?;
        let functions = plan.aggr_expr().iter().zip(arguments).zip(plan.filter_expr());
        let call = |((function, arguments), filter): ((&Arc<AggregateFunctionExpr>, _), &Option<_>)| {
            Ok(Call {
                state_columns: function.state_fields()?.len(),
                function: Arc::clone(function),
                arguments,
                filter: filter.clone(),
            })
        };
        Ok(PartialAggregate {
            group_schema: group_by.group_schema(&plan.input().schema())?,
            group_by,
            calls: functions.map(call).collect::<Result<_>>()?,
            schema,
        })
    }

    /// Whether what is computed depends on the window.
    pub fn mentions_window(&self) -> bool {
        let call = |call: &Call| call.arguments.iter().chain(&call.filter).any(calls_window);
        self.group_by.expr().iter().any(|(expr, _)| calls_window(expr)) || self.calls.iter().any(call)
    }

    /// The same aggregate with the window's start and end as literals.
    pub fn bind(&self, window: Interval) -> Result<PartialAggregate> {
        let mut bound = self.clone();
        for call in &mut bound.calls {
            for expr in call.arguments.iter_mut().chain(&mut call.filter) {
                *expr = substitute(expr, window)?;
            }
        }
        let named =
            |(expr, name): &(Arc<dyn PhysicalExpr>, String)| Ok((substitute(expr, window)?, name.clone()));
        bound.group_by = PhysicalGroupBy::new(
            self.group_by.expr().iter().map(named).collect::<Result<_>>()?,
            self.group_by.null_expr().to_vec(),
            self.group_by.groups().to_vec(),
            self.group_by.has_grouping_set(),
        );
        Ok(bound)
    }

    /// For people: what DataFusion shows of an aggregate.
    pub fn line(&self) -> String {
        let groups = self.group_by.expr().iter().map(|(expr, name)| {
            let shown = expr.to_string();
            let plain = shown.split('@').next() == Some(name);
            if plain {
                name.clone()
            } else {
                format!("{shown} AS {name}")
            }
        });
        let calls = self.calls.iter().map(|call| call.function.name());
        format!(
            "Accumulate: groupBy=[{}], aggr=[{}]",
            groups.collect::<Vec<_>>().join(", "),
            calls.collect::<Vec<_>>().join(", ")
        )
    }
}

/// The state of a partial aggregate over the rows of one pane.
pub(super) enum Accumulators {
    /// Without GROUP BY: plain accumulators, which take whole columns.
    Whole(Vec<Box<dyn Accumulator>>),
    /// With GROUP BY.
    Grouped {
        groups: Box<dyn GroupValues>,
        accumulators: Vec<Box<dyn GroupsAccumulator>>,
        /// Group of each row of the batch at hand; kept for its capacity.
        indices: Vec<usize>,
    },
}

impl Accumulators {
    /// Nothing yet.
    pub fn new(aggregate: &PartialAggregate) -> Result<Accumulators> {
        let functions = aggregate.calls.iter().map(|call| &call.function);
        if aggregate.group_by.is_true_no_grouping() {
            let accumulators = functions.map(|f| f.create_accumulator()).collect::<Result<_>>()?;
            return Ok(Accumulators::Whole(accumulators));
        }
        Ok(Accumulators::Grouped {
            groups: new_group_values(Arc::clone(&aggregate.group_schema), &GroupOrdering::None)?,
            accumulators: functions.map(groups_accumulator).collect::<Result<_>>()?,
            indices: Vec::new(),
        })
    }

    /// Takes rows.
    pub fn update(&mut self, aggregate: &PartialAggregate, rows: &RecordBatch) -> Result<()> {
        match self {
            Accumulators::Whole(accumulators) => {
                for (accumulator, call) in accumulators.iter_mut().zip(&aggregate.calls) {
                    match &call.filter {
                        Some(filter) => {
                            accumulator.update_batch(&arguments(call, &batch_filter(rows, filter)?)?)?
                        }
                        None => accumulator.update_batch(&arguments(call, rows)?)?,
                    }
                }
                Ok(())
            }
            Accumulators::Grouped {
                groups,
                accumulators,
                indices,
            } => {
                let inputs: Vec<_> = aggregate
                    .calls
                    .iter()
                    .map(|call| call.inputs(rows))
                    .collect::<Result<_>>()?;
                for keys in evaluate_group_by(&aggregate.group_by, rows)? {
                    groups.intern(&keys, indices)?;
                    for (accumulator, (values, filter)) in accumulators.iter_mut().zip(&inputs) {
                        accumulator.update_batch(values, indices, filter.as_ref(), groups.len())?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Takes the state out, as the rows a final aggregate reads, and starts anew.
    pub fn take(&mut self, aggregate: &PartialAggregate) -> Result<RecordBatch> {
        let columns = match self {
            Accumulators::Whole(accumulators) => {
                let state = accumulators
                    .iter_mut()
                    .map(|a| a.state())
                    .collect::<Result<Vec<_>>>()?;
                state
                    .iter()
                    .flatten()
                    .map(ScalarValue::to_array)
                    .collect::<Result<Vec<_>>>()?
            }
            // Some accumulators cannot give the state of no groups.
            Accumulators::Grouped { groups, .. } if groups.is_empty() => {
                return Ok(RecordBatch::new_empty(Arc::clone(&aggregate.schema)));
            }
            Accumulators::Grouped {
                groups, accumulators, ..
            } => {
                let mut columns = groups.emit(EmitTo::All)?;
                for accumulator in accumulators {
                    columns.extend(accumulator.state(EmitTo::All)?);
                }
                columns
            }
        };
        *self = Accumulators::new(aggregate)?;
        Ok(RecordBatch::try_new(Arc::clone(&aggregate.schema), columns)?)
    }

    /// Takes state back in.
    pub fn merge(&mut self, aggregate: &PartialAggregate, state: &RecordBatch) -> Result<()> {
        let keys = aggregate.group_by.num_group_exprs();
        let expected = keys
            + aggregate
                .calls
                .iter()
                .map(|call| call.state_columns)
                .sum::<usize>();
        if state.num_columns() != expected {
            return Err(internal_datafusion_err!(
                "state has {} columns instead of {expected}",
                state.num_columns()
            ));
        }
        let mut columns = &state.columns()[keys..];
        let mut next = |call: &Call| {
            let (mine, rest) = columns.split_at(call.state_columns);
            columns = rest;
            mine
        };
        match self {
            Accumulators::Whole(accumulators) => {
                for (accumulator, call) in accumulators.iter_mut().zip(&aggregate.calls) {
                    accumulator.merge_batch(next(call))?;
                }
            }
            Accumulators::Grouped {
                groups,
                accumulators,
                indices,
            } => {
                groups.intern(&state.columns()[..keys], indices)?;
                for (accumulator, call) in accumulators.iter_mut().zip(&aggregate.calls) {
                    accumulator.merge_batch(next(call), indices, groups.len())?;
                }
            }
        }
        Ok(())
    }
}

impl Call {
    fn inputs(&self, rows: &RecordBatch) -> Result<(Vec<ArrayRef>, Option<BooleanArray>)> {
        let filter = match &self.filter {
            Some(filter) => Some(
                filter
                    .evaluate(rows)?
                    .into_array(rows.num_rows())?
                    .as_boolean()
                    .clone(),
            ),
            None => None,
        };
        Ok((arguments(self, rows)?, filter))
    }
}

fn arguments(call: &Call, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let of_one = evaluate_many(std::slice::from_ref(&call.arguments), rows)?;
    Ok(of_one.into_iter().flatten().collect())
}

fn groups_accumulator(function: &Arc<AggregateFunctionExpr>) -> Result<Box<dyn GroupsAccumulator>> {
    if function.groups_accumulator_supported() {
        return function.create_groups_accumulator();
    }
    let function = Arc::clone(function);
    Ok(Box::new(GroupsAccumulatorAdapter::new(move || {
        function.create_accumulator()
    })))
}
