//! The leaves of plans: what stands for a table while planning, and what feeds the upper plan.
//!
//! A reference table is neither a stream nor a window: its leaf stays where it is in the plan, in no half but the
//! one that executes, and is filled with the rows that the table has then.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Result, Statistics, internal_datafusion_err, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use futures::{Stream, StreamExt, stream};
use millstream_engine::sql::{SqlTable, WINDOW_END, WINDOW_START};
use millstream_engine::table::{ReferenceTable, TableRows};
use millstream_engine::time::timestamp_type;

use super::PIECE_ROWS;

/// Rows that a reference table and a stream are planned with. Joins build from the side with fewer.
const ROWS_OF_TABLE: usize = 1_000;
const ROWS_OF_STREAM: usize = 1 << 50;

/// A table while planning: a name and a schema, no rows. Windows have no statistics either, since what is planned
/// once serves windows of every size.
#[derive(Debug)]
pub(super) struct PlanningTable {
    name: String,
    schema: SchemaRef,
    rows: Option<usize>,
    is_reference: bool,
}

impl PlanningTable {
    /// The table as a query sees it: a windowed one has its window's columns after its own.
    pub fn new(table: &SqlTable) -> PlanningTable {
        let mut fields = table.schema.fields().to_vec();
        if table.window.is_some() {
            for name in [WINDOW_START, WINDOW_END] {
                fields.push(Arc::new(Field::new(name, timestamp_type(), false)));
            }
        }
        PlanningTable {
            name: table.name.clone(),
            schema: Arc::new(Schema::new(fields)),
            rows: table.window.is_none().then_some(ROWS_OF_STREAM),
            is_reference: false,
        }
    }

    /// A reference table.
    pub fn reference(table: &ReferenceTable) -> PlanningTable {
        PlanningTable {
            name: table.name.clone(),
            schema: Arc::clone(table.rows.schema()),
            rows: Some(ROWS_OF_TABLE),
            is_reference: true,
        }
    }
}

#[async_trait]
impl TableProvider for PlanningTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = match projection {
            Some(columns) => columns.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let schema = Arc::new(self.schema.project(&columns)?);
        let table = self.name.clone();
        Ok(Arc::new(Leaf {
            properties: leaf_properties(&schema),
            schema,
            rows: self.rows,
            kind: match self.is_reference {
                true => LeafKind::Reference { table, columns },
                false => LeafKind::Scan { table, columns },
            },
        }))
    }
}

/// A plan without inputs.
#[derive(Debug)]
pub(super) struct Leaf {
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    /// How many rows to plan with, if known.
    rows: Option<usize>,
    /// What it stands for.
    pub kind: LeafKind,
}

/// What a leaf stands for.
#[derive(Debug)]
pub(super) enum LeafKind {
    /// Columns of a table, while planning. Cannot be executed.
    Scan {
        /// Name of the table.
        table: String,
        /// Indices of its columns, the window's included.
        columns: Vec<usize>,
    },
    /// Columns of a reference table, while planning. Cannot be executed.
    Reference {
        /// Name of the table.
        table: String,
        /// Indices of its columns.
        columns: Vec<usize>,
    },
    /// Where a slot's rows go when a window fires. Cannot be executed.
    Slot(usize),
    /// Rows.
    Rows(Vec<RecordBatch>),
}

impl Leaf {
    /// A scan of everything a table has; the table need not be one of the pipeline.
    pub fn whole(table: &str, schema: SchemaRef) -> Leaf {
        Leaf {
            properties: leaf_properties(&schema),
            kind: LeafKind::Scan {
                table: table.to_owned(),
                columns: (0..schema.fields().len()).collect(),
            },
            rows: None,
            schema,
        }
    }

    /// The leaf that stands where the slot's lower half was cut off. It has the properties of what it
    /// replaces, which hold for its rows as well and spare the plan above from computing its own anew.
    pub fn slot(slot: usize, instead_of: &Arc<dyn ExecutionPlan>) -> Leaf {
        Leaf {
            schema: instead_of.schema(),
            properties: Arc::clone(instead_of.properties()),
            rows: None,
            kind: LeafKind::Slot(slot),
        }
    }

    /// The same leaf with rows in it.
    pub fn filled(&self, rows: Vec<RecordBatch>) -> Leaf {
        Leaf {
            schema: Arc::clone(&self.schema),
            properties: Arc::clone(&self.properties),
            rows: None,
            kind: LeafKind::Rows(rows),
        }
    }
}

/// The batches, with a turn for the thread's other tasks after each [`PIECE_ROWS`] rows: an aggregate reads all
/// of its input before it gives anything, and would not let go of the thread for that long.
fn in_turns(rows: Vec<RecordBatch>) -> impl Stream<Item = Result<RecordBatch>> + Send {
    let mut since = 0;
    stream::iter(rows).then(move |rows| {
        since += rows.num_rows();
        let pause = since > PIECE_ROWS;
        if pause {
            since = rows.num_rows();
        }
        async move {
            if pause {
                tokio::task::yield_now().await;
            }
            Ok(rows)
        }
    })
}

fn leaf_properties(schema: &SchemaRef) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(Arc::clone(schema)),
        Partitioning::UnknownPartitioning(1),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

impl DisplayAs for Leaf {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            LeafKind::Scan { table, .. } => write!(f, "Scan: {table}"),
            LeafKind::Reference { table, .. } => write!(f, "Table: {table}"),
            LeafKind::Slot(slot) => write!(f, "State: slot={slot}"),
            LeafKind::Rows(rows) => write!(f, "Rows: batches={}", rows.len()),
        }
    }
}

impl ExecutionPlan for Leaf {
    fn name(&self) -> &str {
        "Leaf"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema);
        if let Some(rows) = self.rows {
            statistics.num_rows = Precision::Inexact(rows);
        }
        Ok(Arc::new(statistics))
    }

    fn execute(&self, _partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match &self.kind {
            LeafKind::Rows(rows) => {
                let schema = Arc::clone(&self.schema);
                Ok(Box::pin(RecordBatchStreamAdapter::new(
                    schema,
                    in_turns(rows.clone()),
                )))
            }
            other => internal_err!("a plan with {other:?} was executed"),
        }
    }
}

/// The reference tables that a query reads.
#[derive(Clone, Debug, Default)]
pub(super) struct References(Vec<ReferenceTable>);

impl References {
    /// Those of `all` that are among `names`.
    pub fn of(names: &[String], all: &[ReferenceTable]) -> References {
        References(all.iter().filter(|t| names.contains(&t.name)).cloned().collect())
    }

    /// The rows of each as they stand now. A batch or a firing asks once.
    pub fn now(&self) -> millstream_engine::Result<BTreeMap<String, TableRows>> {
        let rows = |t: &ReferenceTable| Ok((t.name.clone(), t.rows.rows()?));
        self.0.iter().map(rows).collect()
    }
}

/// Puts its rows into a node that is the leaf of a reference table.
pub(super) fn with_tables(
    node: Arc<dyn ExecutionPlan>,
    rows: &BTreeMap<String, TableRows>,
) -> Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let reference = node.downcast_ref::<Leaf>().and_then(|leaf| match &leaf.kind {
        LeafKind::Reference { table, columns } => Some((leaf, table, columns)),
        _ => None,
    });
    let Some((leaf, table, columns)) = reference else {
        return Ok(Transformed::no(node));
    };
    let rows = rows
        .get(table)
        .ok_or_else(|| internal_datafusion_err!("no rows were given for table {table:?}"))?;
    let rows: Result<Vec<_>, _> = rows.iter().map(|rows| rows.project(columns)).collect();
    Ok(Transformed::yes(Arc::new(leaf.filled(rows?))))
}
