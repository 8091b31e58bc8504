//! The leaves of plans: what stands for a table while planning, and what feeds the upper plan.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties};
use millstream_engine::sql::{SqlTable, WINDOW_END, WINDOW_START};
use millstream_engine::time::timestamp_type;

/// A table while planning: a name and a schema, no rows and no statistics.
#[derive(Debug)]
pub(super) struct PlanningTable {
    name: String,
    schema: SchemaRef,
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
        Ok(Arc::new(Leaf {
            properties: leaf_properties(&schema),
            schema,
            kind: LeafKind::Scan {
                table: self.name.clone(),
                columns,
            },
        }))
    }
}

/// A plan without inputs.
#[derive(Debug)]
pub(super) struct Leaf {
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
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
    /// Where a slot's rows go when a window fires. Cannot be executed.
    Slot(usize),
    /// Rows.
    Rows(Vec<RecordBatch>),
}

impl Leaf {
    /// The leaf that stands where the slot's lower half was cut off. It has the properties of what it
    /// replaces, which hold for its rows as well and spare the plan above from computing its own anew.
    pub fn slot(slot: usize, instead_of: &Arc<dyn ExecutionPlan>) -> Leaf {
        Leaf {
            schema: instead_of.schema(),
            properties: Arc::clone(instead_of.properties()),
            kind: LeafKind::Slot(slot),
        }
    }

    /// A leaf for the same slot whose rows have other columns, and so none of the properties.
    pub fn with_schema(&self, schema: SchemaRef) -> Leaf {
        let kind = match &self.kind {
            LeafKind::Slot(slot) => LeafKind::Slot(*slot),
            LeafKind::Scan { table, columns } => LeafKind::Scan {
                table: table.clone(),
                columns: columns.clone(),
            },
            LeafKind::Rows(rows) => LeafKind::Rows(rows.clone()),
        };
        Leaf {
            properties: leaf_properties(&schema),
            schema,
            kind,
        }
    }

    /// The same leaf with rows in it.
    pub fn filled(&self, rows: Vec<RecordBatch>) -> Leaf {
        Leaf {
            schema: Arc::clone(&self.schema),
            properties: Arc::clone(&self.properties),
            kind: LeafKind::Rows(rows),
        }
    }
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

    fn execute(&self, _partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        match &self.kind {
            LeafKind::Rows(rows) => Ok(Box::pin(MemoryStream::try_new(
                rows.clone(),
                Arc::clone(&self.schema),
                None,
            )?)),
            other => internal_err!("a plan with {other:?} was executed"),
        }
    }
}
