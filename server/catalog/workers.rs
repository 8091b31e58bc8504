//! The processes that share a catalog. One that has not said for a while that it is alive has lost what it had in
//! hand.

use std::collections::BTreeSet;

use millstream_engine::time::Timestamp;
use rusqlite::{Transaction, params};

use crate::catalog::{Catalog, Result};

impl Catalog {
    /// Says that a process will be alive until then, at least.
    pub async fn alive(&self, worker: &str, until: Timestamp) -> Result<()> {
        let worker = worker.to_owned();
        self.call(move |to| {
            to.execute(
                "INSERT OR REPLACE INTO workers VALUES (?1, ?2)",
                params![worker, until.0],
            )?;
            Ok(())
        })
        .await
    }

    /// Says that a process has ended in order and has nothing in hand.
    pub async fn gone(&self, worker: &str) -> Result<()> {
        self.alive(worker, Timestamp(0)).await
    }
}

/// The processes that are alive.
pub fn alive(of: &Transaction<'_>, now: Timestamp) -> Result<BTreeSet<String>> {
    let mut all = of.prepare_cached("SELECT name FROM workers WHERE alive_until > ?1")?;
    let all = all.query_map([now.0], |row| row.get(0))?;
    Ok(all.collect::<rusqlite::Result<_>>()?)
}
