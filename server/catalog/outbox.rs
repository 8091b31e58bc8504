//! What people are still to be told. A notice is written with the change it tells of and goes when it is delivered,
//! so none is lost; one whose delivery is cut off by a crash is delivered again.

use millstream_engine::time::Timestamp;
use rusqlite::{Row, Transaction, params};
use serde_json::Value;

use crate::catalog::model::{Event, Job, Notice};
use crate::catalog::{Catalog, CatalogError, Result};

impl Catalog {
    /// The oldest notices that are due, at most `limit`.
    pub async fn notices(&self, now: Timestamp, limit: usize) -> Result<Vec<Notice>> {
        self.call(move |of| {
            let mut due = of.prepare_cached(
                "SELECT id, at, event, job, attempts, progress, error, next_try_at FROM outbox \
                 WHERE next_try_at <= ?1 ORDER BY id LIMIT ?2",
            )?;
            let due = due.query_map(params![now.0, limit as i64], notice)?;
            Ok(due.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Takes up to `limit` due notices: they are due again only at `until`, so that no other process delivers them
    /// meanwhile.
    pub async fn take_notices(&self, now: Timestamp, until: Timestamp, limit: usize) -> Result<Vec<Notice>> {
        let due = self.notices(now, limit).await?;
        let ids: Vec<i64> = due.iter().map(|notice| notice.id).collect();
        let taken: Vec<i64> = self
            .call(move |to| {
                let mut take = to.prepare_cached(
                    "UPDATE outbox SET next_try_at = ?2 WHERE id = ?1 AND next_try_at <= ?3",
                )?;
                let mut taken = Vec::new();
                for id in ids {
                    if take.execute(params![id, until.0, now.0])? == 1 {
                        taken.push(id);
                    }
                }
                Ok(taken)
            })
            .await?;
        Ok(due
            .into_iter()
            .filter(|notice| taken.contains(&notice.id))
            .collect())
    }

    /// A notice is delivered.
    pub async fn delivered(&self, id: i64) -> Result<()> {
        self.call(move |to| {
            to.execute("DELETE FROM outbox WHERE id = ?1", [id])?;
            Ok(())
        })
        .await
    }

    /// A notice is not delivered, or only in part (`progress`); it is due again at `next`.
    pub async fn undelivered(&self, id: i64, progress: String, error: String, next: Timestamp) -> Result<()> {
        self.call(move |to| {
            to.execute(
                "UPDATE outbox SET attempts = attempts + 1, progress = ?2, error = ?3, next_try_at = ?4 WHERE id = ?1",
                params![id, progress, error, next.0],
            )?;
            Ok(())
        })
        .await
    }
}

/// Writes a notice that is due at once.
pub fn post(to: &Transaction<'_>, at: Timestamp, event: Event, job: &Job) -> Result<()> {
    let text = serde_json::to_string(job).map_err(|e| CatalogError::Failed(e.to_string()))?;
    to.prepare_cached("INSERT INTO outbox (at, event, job, next_try_at) VALUES (?1, ?2, ?3, ?1)")?
        .execute(params![at.0, event.name(), text])?;
    Ok(())
}

fn notice(row: &Row<'_>) -> rusqlite::Result<Notice> {
    let event: String = row.get(2)?;
    let job: String = row.get(3)?;
    Ok(Notice {
        id: row.get(0)?,
        at: Timestamp(row.get(1)?),
        // Only events of ours are written; one of a later version is told as what it resembles least.
        event: Event::named(&event).unwrap_or(Event::Error),
        job: serde_json::from_str(&job).unwrap_or(Value::Null),
        attempts: row.get(4)?,
        progress: row.get(5)?,
        error: row.get(6)?,
        next_try_at: Timestamp(row.get(7)?),
    })
}
