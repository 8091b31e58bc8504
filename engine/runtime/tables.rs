//! Reads the reference tables: all of them before anything runs, and those with `refresh` again and again.
//!
//! A table that cannot be read at the start stops the pipeline. One that cannot be read again keeps the rows it
//! has: a report with yesterday's names is better than none, and the warning and the count say so.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::metrics::NodeMetrics;
use crate::plan::TableNode;
use crate::runtime::Shared;

/// Times that a table was read.
const READS: &str = "reads";
/// Times that it could not be read and kept its rows.
const READS_FAILED: &str = "reads_failed";

/// Reads every table that has not been read yet. A pipeline that starts again after a failure goes on with the
/// rows it had.
pub async fn load(shared: &Shared) -> Result<()> {
    let given = shared
        .bounded_run
        .lock()
        .expect("only this task locks it")
        .as_mut()
        .map(|b| std::mem::take(&mut b.tables));
    for (name, rows) in given.unwrap_or_default() {
        if let Some(table) = shared.plan.tables.iter().find(|t| t.name == name) {
            table.rows.replace(rows);
        }
    }
    for table in shared.plan.tables.iter().filter(|t| !t.rows.is_loaded()) {
        read(shared, table).await?;
    }
    Ok(())
}

/// The tasks that read tables again, until they are dropped. Bounded runs have none.
pub fn refresh(shared: &Arc<Shared>) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    if shared.bounded {
        return tasks;
    }
    for (number, table) in shared.plan.tables.iter().enumerate() {
        if let Some(every) = table.refresh {
            tasks.spawn(refresh_one(shared.clone(), number, every));
        }
    }
    tasks
}

async fn refresh_one(shared: Arc<Shared>, number: usize, every: Duration) {
    let table = &shared.plan.tables[number];
    loop {
        shared.timer.sleep(every).await;
        if let Err(e) = read(&shared, table).await {
            if let Ok(metrics) = metrics(&shared, table) {
                metrics.counters.add(READS_FAILED, 1);
            }
            let (pipeline, table) = (&shared.plan.name, &table.name);
            tracing::warn!(pipeline, table, error = %e, "could not be read again; its old rows stay");
        }
    }
}

async fn read(shared: &Shared, table: &TableNode) -> Result<()> {
    let place = format!("table.{}", table.name);
    let loader = shared.registry.tables.as_ref();
    let loader = loader.ok_or_else(|| Error::config(format!("{place}: tables cannot be read here")))?;
    let rows = loader
        .load(&table.context())
        .await
        .map_err(|e| e.within(&place))?;
    let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
    table.rows.replace(rows);
    let metrics = metrics(shared, table)?;
    metrics.counters.add(READS, 1);
    metrics.rows_in.inc_by(count as u64);
    Ok(())
}

fn metrics<'s>(shared: &'s Shared, table: &TableNode) -> Result<&'s NodeMetrics> {
    let node = format!("table.{}", table.name);
    let found = shared.nodes.get(&node);
    found.ok_or_else(|| Error::bug(format!("node {node} is not in the plan")))
}
