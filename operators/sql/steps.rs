//! The part of a plan that works row by row, as values applied to batches by hand: a scan, then filters and
//! projections. It needs no executor, so it runs inside `on_batch`.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, ScalarValue, internal_datafusion_err};
use datafusion::physical_expr::{PhysicalExpr, conjunction, split_conjunction};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::expressions::{Column, Literal};
use datafusion::physical_plan::filter::{FilterExec, batch_filter};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::functions::{Bound, calls_window, substitute};
use super::tables::{Leaf, LeafKind};
use crate::window::Interval;

/// A scan and what is done to each of its rows alone.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    /// The table that is read.
    pub table: String,
    /// What is read of it.
    pub columns: Vec<ScanColumn>,
    scan_schema: SchemaRef,
    then: Vec<Step>,
    schema: SchemaRef,
}

/// A column of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanColumn {
    /// A column of the rows that arrive.
    Input(usize),
    /// A constant of the window.
    Window(Bound),
}

#[derive(Clone, Debug)]
enum Step {
    Filter {
        predicate: Arc<dyn PhysicalExpr>,
        projection: Option<Vec<usize>>,
    },
    Project {
        exprs: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
    },
}

impl Steps {
    /// The plan as steps, if it is nothing but steps over one scan. `width` tells how many columns the rows
    /// of a table have when they arrive; columns after those are the window's start and end.
    pub fn of(plan: &Arc<dyn ExecutionPlan>, width: &dyn Fn(&str) -> usize) -> Option<Steps> {
        if let Some(leaf) = plan.downcast_ref::<Leaf>() {
            return Steps::scan(leaf, width);
        }
        let (input, step) = step_of(plan)?;
        let mut steps = Steps::of(input, width)?;
        steps.then.extend(step);
        steps.schema = plan.schema();
        Some(steps)
    }

    fn scan(leaf: &Leaf, width: &dyn Fn(&str) -> usize) -> Option<Steps> {
        let LeafKind::Scan { table, columns } = &leaf.kind else {
            return None;
        };
        let width = width(table);
        let column = |&index: &usize| match index.checked_sub(width) {
            None => ScanColumn::Input(index),
            Some(0) => ScanColumn::Window(Bound::Start),
            Some(_) => ScanColumn::Window(Bound::End),
        };
        Some(Steps {
            table: table.clone(),
            columns: columns.iter().map(column).collect(),
            scan_schema: leaf.schema(),
            then: Vec::new(),
            schema: leaf.schema(),
        })
    }

    /// Schema of the rows that come out.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Whether the rows depend on the window they are in.
    pub fn mention_window(&self) -> bool {
        let column = |c: &ScanColumn| matches!(c, ScanColumn::Window(_));
        self.columns.iter().any(column)
            || self.then.iter().any(|step| match step {
                Step::Filter { predicate, .. } => calls_window(predicate),
                Step::Project { exprs, .. } => exprs.iter().any(calls_window),
            })
    }

    /// The same steps with the window's start and end as literals.
    pub fn bind(&self, window: Interval) -> Result<Steps> {
        let bind = |step: &Step| {
            Ok(match step {
                Step::Filter {
                    predicate,
                    projection,
                } => Step::Filter {
                    predicate: substitute(predicate, window)?,
                    projection: projection.clone(),
                },
                Step::Project { exprs, schema } => Step::Project {
                    exprs: exprs
                        .iter()
                        .map(|e| substitute(e, window))
                        .collect::<Result<_>>()?,
                    schema: Arc::clone(schema),
                },
            })
        };
        let then: Result<Vec<_>> = self.then.iter().map(bind).collect();
        Ok(Steps {
            then: then?,
            ..self.clone()
        })
    }

    /// A bare scan without the window's columns.
    pub fn inputs_only(&self) -> Steps {
        let inputs: Vec<usize> = (0..self.columns.len())
            .filter(|i| matches!(self.columns[*i], ScanColumn::Input(_)))
            .collect();
        let fields: Vec<_> = inputs
            .iter()
            .map(|i| Arc::clone(&self.scan_schema.fields()[*i]))
            .collect();
        let schema = Arc::new(Schema::new(fields));
        Steps {
            table: self.table.clone(),
            columns: inputs.iter().map(|i| self.columns[*i]).collect(),
            scan_schema: Arc::clone(&schema),
            then: Vec::new(),
            schema,
        }
    }

    /// Indices of the columns that are read of the rows that arrive.
    pub fn inputs(&self) -> impl Iterator<Item = usize> {
        self.columns.iter().filter_map(|column| match column {
            ScanColumn::Input(index) => Some(*index),
            ScanColumn::Window(_) => None,
        })
    }

    /// The same steps over rows that have only the columns `of` those that arrive, sorted, which are all it reads.
    pub fn reading(&self, of: &[usize]) -> Steps {
        let place = |column: &ScanColumn| match column {
            ScanColumn::Input(index) => ScanColumn::Input(of.partition_point(|column| column < index)),
            window => *window,
        };
        Steps {
            columns: self.columns.iter().map(place).collect(),
            ..self.clone()
        }
    }

    /// The same steps with input column `column` passed through all of them, behind the other columns.
    pub fn carrying(&self, column: usize, field: &FieldRef) -> Steps {
        let with = |schema: &SchemaRef| -> SchemaRef {
            let fields = schema.fields().iter().chain([field]).cloned();
            Arc::new(Schema::new(fields.collect::<Vec<_>>()))
        };
        let mut columns = self.columns.clone();
        columns.push(ScanColumn::Input(column));
        // How many columns there are between two steps, without the one that is carried.
        let mut width = self.columns.len();
        let carry = |step: &Step| match step {
            Step::Filter {
                predicate,
                projection,
            } => {
                let carried = width;
                width = projection.as_ref().map_or(width, Vec::len);
                Step::Filter {
                    predicate: Arc::clone(predicate),
                    projection: projection
                        .as_ref()
                        .map(|columns| columns.iter().copied().chain([carried]).collect()),
                }
            }
            Step::Project { exprs, schema } => {
                let carried: Arc<dyn PhysicalExpr> = Arc::new(Column::new(field.name(), width));
                width = exprs.len();
                Step::Project {
                    exprs: exprs.iter().cloned().chain([carried]).collect(),
                    schema: with(schema),
                }
            }
        };
        Steps {
            table: self.table.clone(),
            columns,
            scan_schema: with(&self.scan_schema),
            then: self.then.iter().map(carry).collect(),
            schema: with(&self.schema),
        }
    }

    /// Whether every row that comes in comes out.
    pub fn keep_all(&self) -> bool {
        self.then.iter().all(|step| match step {
            Step::Filter { predicate, .. } => is_true(predicate),
            Step::Project { .. } => true,
        })
    }

    /// Takes out of the filters what `take` takes: it is given each condition as one over the columns of the
    /// scan, and says whether the steps are to go on without it.
    pub fn take_conditions(
        &mut self,
        mut take: impl FnMut(&Arc<dyn PhysicalExpr>) -> Result<bool>,
    ) -> Result<()> {
        for number in 0..self.then.len() {
            let Step::Filter { predicate, .. } = &self.then[number] else {
                continue;
            };
            let mut left = Vec::new();
            for condition in split_conjunction(predicate) {
                if !take(&over_scan(&self.then[..number], condition)?)? {
                    left.push(Arc::clone(condition));
                }
            }
            if let Step::Filter { predicate, .. } = &mut self.then[number] {
                *predicate = conjunction(left);
            }
        }
        Ok(())
    }

    /// An expression over the rows that come out, as one over the columns of the scan.
    pub fn over_scan(&self, expr: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        over_scan(&self.then, expr)
    }

    /// The rows that come out for rows that come in. The window is needed when the scan reads its columns.
    pub fn apply(&self, rows: &RecordBatch, window: Option<Interval>) -> Result<RecordBatch> {
        let mut rows = self.read(rows, window)?;
        for step in &self.then {
            rows = match step {
                Step::Filter {
                    predicate,
                    projection,
                } => {
                    let kept = batch_filter(&rows, predicate)?;
                    match projection {
                        Some(columns) => kept.project(columns)?,
                        None => kept,
                    }
                }
                Step::Project { exprs, schema } => project(&rows, exprs, schema)?,
            };
        }
        Ok(rows)
    }

    fn read(&self, rows: &RecordBatch, window: Option<Interval>) -> Result<RecordBatch> {
        let column = |column: &ScanColumn| match column {
            ScanColumn::Input(index) => Ok(Arc::clone(rows.column(*index))),
            ScanColumn::Window(bound) => window
                .ok_or_else(|| internal_datafusion_err!("a window's column was read outside of a window"))
                .and_then(|window| bound.of(window).to_array_of_size(rows.num_rows())),
        };
        let columns = self.columns.iter().map(column).collect::<Result<_>>()?;
        batch(&self.scan_schema, columns, rows.num_rows())
    }

    /// The scan's column that passes through unchanged as output column `output`, if one does.
    pub fn source_of(&self, output: usize) -> Option<ScanColumn> {
        let mut index = output;
        for step in self.then.iter().rev() {
            index = match step {
                Step::Filter { projection: None, .. } => index,
                Step::Filter {
                    projection: Some(columns),
                    ..
                } => *columns.get(index)?,
                Step::Project { exprs, .. } => exprs.get(index)?.downcast_ref::<Column>()?.index(),
            };
        }
        self.columns.get(index).copied()
    }

    /// The steps for people, outermost first.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.then.iter().rev().map(Step::line).collect();
        let columns: Vec<_> = self
            .scan_schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        lines.push(format!("Scan: {} [{}]", self.table, columns.join(", ")));
        lines
    }
}

impl Step {
    fn line(&self) -> String {
        match self {
            Step::Filter { predicate, .. } => format!("Filter: {predicate}"),
            Step::Project { exprs, schema } => {
                let named = exprs.iter().zip(schema.fields()).map(|(expr, field)| {
                    let plain = expr
                        .downcast_ref::<Column>()
                        .is_some_and(|c| c.name() == field.name());
                    match plain {
                        true => field.name().clone(),
                        false => format!("{expr} AS {}", field.name()),
                    }
                });
                format!("Project: {}", named.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Whether a condition is the constant that no condition becomes.
fn is_true(predicate: &Arc<dyn PhysicalExpr>) -> bool {
    let literal = predicate.downcast_ref::<Literal>();
    literal.is_some_and(|l| *l.value() == ScalarValue::Boolean(Some(true)))
}

fn over_scan(steps: &[Step], expr: &Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
    let mut expr = Arc::clone(expr);
    for step in steps.iter().rev() {
        let replaced = expr.transform_up(|e| {
            let Some(column) = e.downcast_ref::<Column>() else {
                return Ok(Transformed::no(e));
            };
            let of = match step {
                Step::Filter { projection: None, .. } => return Ok(Transformed::no(e)),
                Step::Filter {
                    projection: Some(columns),
                    ..
                } => columns
                    .get(column.index())
                    .map(|index| Arc::new(Column::new(column.name(), *index)) as _),
                Step::Project { exprs, .. } => exprs.get(column.index()).cloned(),
            };
            of.map(Transformed::yes)
                .ok_or_else(|| internal_datafusion_err!("a step has no column {column}"))
        });
        expr = replaced?.data;
    }
    Ok(expr)
}

/// The input of a plan that is one step (or none at all, for wrappers that only matter to an executor), and
/// the step. A filter with a row limit is no step: the limit is for all of the window's rows together.
fn step_of(plan: &Arc<dyn ExecutionPlan>) -> Option<(&Arc<dyn ExecutionPlan>, Option<Step>)> {
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        let step = Step::Filter {
            predicate: Arc::clone(filter.predicate()),
            projection: filter.projection().as_ref().map(|columns| columns.to_vec()),
        };
        return filter.fetch().is_none().then_some((filter.input(), Some(step)));
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let step = Step::Project {
            exprs: projection.expr().iter().map(|e| Arc::clone(&e.expr)).collect(),
            schema: plan.schema(),
        };
        return Some((projection.input(), Some(step)));
    }
    let wrapper = plan.is::<CooperativeExec>() || plan.is::<CoalescePartitionsExec>();
    let input = plan.children().into_iter().next()?;
    (wrapper && plan.fetch().is_none() && input.output_partitioning().partition_count() == 1)
        .then_some((input, None))
}

fn project(rows: &RecordBatch, exprs: &[Arc<dyn PhysicalExpr>], schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(rows)?.into_array(rows.num_rows());
    let columns = exprs.iter().map(column).collect::<Result<_>>()?;
    batch(schema, columns, rows.num_rows())
}

/// The same columns under the schema that was announced for them; a plan's batches may differ from its own
/// schema in what they say about nulls and metadata.
pub(super) fn with_schema(rows: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), rows.columns().to_vec(), &options)
}

/// A batch that knows its number of rows even without columns, as under `count(*)`.
fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &options,
    )?)
}
