//! What people are still to be told, and what they were. A notice is written with the change it tells of and is done
//! when it is delivered, so none is lost; one whose delivery is cut off by a crash is delivered again.

use millstream_engine::time::Timestamp;
use rusqlite::{Row, Transaction, params};
use serde_json::Value;

use crate::catalog::model::{Event, Job, Notice, NoticeState};
use crate::catalog::{Catalog, CatalogError, Result};

/// What a notice is read from.
const COLUMNS: &str = "id, at, event, job, state, attempts, progress, error, next_try_at, done_at";

impl Catalog {
    /// The newest notices, of one state or all, at most `limit`.
    pub async fn notices(&self, state: Option<NoticeState>, limit: u32) -> Result<Vec<Notice>> {
        self.call(move |of| {
            let mut all = of.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox WHERE ?1 IS NULL OR state = ?1 ORDER BY id DESC LIMIT ?2"
            ))?;
            let all = all.query_map(params![state.map(NoticeState::name), limit], notice)?;
            Ok(all.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// How many notices are in which state.
    pub async fn notice_counts(&self) -> Result<Vec<(NoticeState, i64)>> {
        self.call(|of| {
            let mut count = of.prepare_cached("SELECT count(*) FROM outbox WHERE state = ?1")?;
            let mut counts = Vec::new();
            for state in NoticeState::ALL {
                counts.push((state, count.query_row([state.name()], |row| row.get(0))?));
            }
            Ok(counts)
        })
        .await
    }

    /// Writes something that means nothing, durably: whether that works is whether jobs and notices can go on.
    pub async fn probe(&self) -> Result<()> {
        self.call(|to| {
            // It was alive in 1970.
            to.execute(
                "INSERT OR REPLACE INTO workers (name, alive_until) VALUES ('(probe)', 0)",
                [],
            )?;
            Ok(())
        })
        .await
    }

    /// Takes up to `limit` due notices, the oldest first: they are due again only at `until`, so that no other process
    /// delivers them meanwhile.
    pub async fn take_notices(&self, now: Timestamp, until: Timestamp, limit: u32) -> Result<Vec<Notice>> {
        self.call(move |to| {
            let mut due = to.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM outbox WHERE state = 'pending' AND next_try_at <= ?1 ORDER BY id LIMIT ?2"
            ))?;
            let due = due.query_map(params![now.0, limit], notice)?;
            let due: Vec<Notice> = due.collect::<rusqlite::Result<_>>()?;
            let mut take = to.prepare_cached("UPDATE outbox SET next_try_at = ?2 WHERE id = ?1")?;
            for notice in &due {
                take.execute(params![notice.id, until.0])?;
            }
            Ok(due)
        })
        .await
    }

    /// Makes everything that is not delivered due now, whoever has taken it: for the only process there is.
    pub async fn release_notices(&self, now: Timestamp) -> Result<()> {
        self.call(move |to| {
            to.execute(
                "UPDATE outbox SET next_try_at = ?1 WHERE state = 'pending'",
                [now.0],
            )?;
            Ok(())
        })
        .await
    }

    /// A notice is over with; those that were so before `forget` are forgotten.
    pub async fn notice_done(
        &self,
        id: i64,
        state: NoticeState,
        progress: String,
        error: Option<String>,
        now: Timestamp,
        forget: Timestamp,
    ) -> Result<()> {
        self.call(move |to| {
            to.execute(
                "UPDATE outbox SET state = ?2, progress = ?3, error = ?4, done_at = ?5 WHERE id = ?1",
                params![id, state.name(), progress, error, now.0],
            )?;
            to.execute("DELETE FROM outbox WHERE done_at < ?1", [forget.0])?;
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
    let (event, job, state): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
    let done_at: Option<i64> = row.get(9)?;
    Ok(Notice {
        id: row.get(0)?,
        at: Timestamp(row.get(1)?),
        // Only events and states of ours are written; one of a later version is told as what it resembles least.
        event: Event::named(&event).unwrap_or(Event::Error),
        job: serde_json::from_str(&job).unwrap_or(Value::Null),
        state: NoticeState::named(&state).unwrap_or(NoticeState::Failed),
        attempts: row.get(5)?,
        progress: row.get(6)?,
        error: row.get(7)?,
        next_try_at: Timestamp(row.get(8)?),
        done_at: done_at.map(Timestamp),
    })
}
