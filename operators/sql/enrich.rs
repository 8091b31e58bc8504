//! A query over a stream without a window that joins it with reference tables, batch by batch.
//!
//! Each row of the stream gives its results alone, so a batch goes through DataFusion's own plan as if it were
//! all there is: the stream's leaf holds the batch, the tables' leaves hold their rows as they stand before it. What
//! would make rows depend on each other, or give a row of a table that no row of the stream asked for, is refused
//! ([`joins_row_by_row`]).
//!
//! Where the plan builds its hash tables from reference tables alone, they are built once per version of the
//! tables and not once per batch: planning says that tables are small and streams are not, which puts the tables
//! on the build side, and a hash join keeps what it has built when it gets another probe side.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, Join, LogicalPlan};
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::joins::HashJoinExec;
use datafusion::physical_plan::{ExecutionPlan, collect};
use millstream_engine::Result;
use millstream_engine::message::Batch;
use millstream_engine::operator::{Operator, Output};
use millstream_engine::table::TableRows;

use super::check::reads;
use super::errors::failed;
use super::steps::with_schema;
use super::tables::{Leaf, LeafKind, References, with_tables};

/// Whether a join with the stream on one side gives each of its rows results of its own: then the other side is a
/// table, and rows of it that match nothing give nothing.
pub(super) fn joins_row_by_row(join: &Join, stream: &[String]) -> bool {
    use JoinType::*;
    match (reads(&join.left, stream), reads(&join.right, stream)) {
        (1, 0) => matches!(join.join_type, Inner | Left | LeftSemi | LeftAnti | LeftMark),
        (0, 1) => matches!(join.join_type, Inner | Right | RightSemi | RightAnti | RightMark),
        _ => false,
    }
}

/// The first column of the plan's result that is column `name` of the stream, unchanged.
pub(super) fn passed_column(plan: &LogicalPlan, stream: &str, name: &str) -> Option<usize> {
    (0..plan.schema().fields().len()).find(|index| passes(plan, *index, stream, name))
}

fn passes(plan: &LogicalPlan, index: usize, stream: &str, name: &str) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => {
            scan.table_name.table() == stream && scan.projected_schema.field(index).name() == name
        }
        LogicalPlan::Projection(p) => {
            let expr = p.expr.get(index).map(|e| e.clone().unalias());
            let Some(Expr::Column(column)) = expr else {
                return false;
            };
            let index = p.input.schema().maybe_index_of_column(&column);
            index.is_some_and(|index| passes(&p.input, index, stream, name))
        }
        LogicalPlan::SubqueryAlias(a) => passes(&a.input, index, stream, name),
        LogicalPlan::Filter(f) => passes(&f.input, index, stream, name),
        LogicalPlan::Join(join) => {
            let left = match join.join_type {
                JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => 0,
                _ => join.left.schema().fields().len(),
            };
            let right = join.right.schema().fields().len();
            match index.checked_sub(left) {
                None => passes(&join.left, index, stream, name),
                Some(index) if index < right => passes(&join.right, index, stream, name),
                // The mark of a mark join.
                Some(_) => false,
            }
        }
        _ => false,
    }
}

/// The plan of a query that joins a stream with tables.
#[derive(Clone)]
pub(super) struct Enrichment {
    /// The physical plan, with leaves for the stream and the tables.
    pub plan: Arc<dyn ExecutionPlan>,
    /// The tables.
    pub tables: References,
    /// What it executes with.
    pub context: Arc<TaskContext>,
}

/// The operator of such a query.
pub(super) struct Enrich {
    query: Arc<str>,
    schema: SchemaRef,
    enrichment: Enrichment,
    /// Whether a prepared plan serves more than one batch.
    keeps: bool,
    prepared: Option<Prepared>,
}

/// The plan with tables in it, and which.
struct Prepared {
    rows: BTreeMap<String, TableRows>,
    plan: Arc<dyn ExecutionPlan>,
}

impl Enrich {
    pub fn new(query: Arc<str>, schema: SchemaRef, enrichment: Enrichment) -> Enrich {
        Enrich {
            query,
            schema,
            keeps: builds_of_tables(&enrichment.plan),
            enrichment,
            prepared: None,
        }
    }

    /// The plan with the tables as they stand now, ready for the next batch.
    fn prepared(&mut self) -> Result<Arc<dyn ExecutionPlan>> {
        let rows = self.enrichment.tables.now()?;
        let same = |p: &&Prepared| p.rows.iter().zip(&rows).all(|(a, b)| Arc::ptr_eq(a.1, b.1));
        if let Some(prepared) = self.prepared.as_ref().filter(same)
            && self.keeps
        {
            return Ok(Arc::clone(&prepared.plan));
        }
        let fresh = reset_plan_states(Arc::clone(&self.enrichment.plan));
        let filled = fresh.and_then(|plan| plan.transform_up(|node| with_tables(node, &rows)));
        let plan = filled.map_err(|e| failed(&self.query, e))?.data;
        self.prepared = Some(Prepared {
            rows,
            plan: Arc::clone(&plan),
        });
        Ok(plan)
    }
}

#[async_trait]
impl Operator for Enrich {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let plan = self.prepared()?;
        let failed = |e| failed(&self.query, e);
        let filled = plan.transform_up(|node| with_batch(node, &batch.rows));
        let results = collect(filled.map_err(failed)?.data, Arc::clone(&self.enrichment.context));
        // Everything is in memory, so this waits for nothing; but a plan of many batches is made to let other tasks go
        // first, which here there are none of.
        let results = futures::executor::block_on(tokio::task::coop::unconstrained(results));
        for rows in results.map_err(failed)? {
            out.emit(with_schema(rows, &self.schema)?);
        }
        Ok(())
    }
}

/// Puts a batch into the stream's leaf.
fn with_batch(
    node: Arc<dyn ExecutionPlan>,
    rows: &RecordBatch,
) -> datafusion::common::Result<Transformed<Arc<dyn ExecutionPlan>>> {
    let scan = node.downcast_ref::<Leaf>().and_then(|leaf| match &leaf.kind {
        LeafKind::Scan { columns, .. } => Some((leaf, columns)),
        _ => None,
    });
    let Some((leaf, columns)) = scan else {
        return Ok(Transformed::no(node));
    };
    let filled = leaf.filled(vec![rows.project(columns)?]);
    Ok(Transformed::yes(Arc::new(filled)))
}

/// Whether every join between the root and the stream's leaf is a hash join that builds from tables alone and
/// keeps nothing of the rows it probes with.
fn builds_of_tables(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let Some(join) = plan.downcast_ref::<HashJoinExec>() else {
        return match plan.children().as_slice() {
            [] => plan.is::<Leaf>(),
            [only] => builds_of_tables(only),
            // Other joins build anew, of whatever is on their sides.
            _ => false,
        };
    };
    use JoinType::*;
    let stateless = matches!(
        join.join_type(),
        Inner | Right | RightSemi | RightAnti | RightMark
    );
    stateless && !holds_scan(join.left()) && builds_of_tables(join.right())
}

fn holds_scan(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let leaf = plan.downcast_ref::<Leaf>();
    leaf.is_some_and(|leaf| matches!(leaf.kind, LeafKind::Scan { .. }))
        || plan.children().into_iter().any(holds_scan)
}
