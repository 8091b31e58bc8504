//! The catalog's tables, and how a catalog of an earlier version becomes one of this.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

/// What makes version n+1 of version n, in order. What has been released is never edited: add a step.
/// Times are microseconds since 1970, dates and JSON are text.
const STEPS: [&str; 1] = ["
CREATE TABLE jobs (
    uuid TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    log_name TEXT NOT NULL,
    log_schema_version TEXT NOT NULL,
    s3_path TEXT NOT NULL,
    start_date TEXT NOT NULL,
    end_date TEXT,
    contact_emails TEXT NOT NULL,
    log_format TEXT NOT NULL,
    redshift_id TEXT NOT NULL,
    additional_arguments TEXT NOT NULL,
    status TEXT NOT NULL,
    status_since INTEGER NOT NULL,
    error TEXT,
    pause_requested INTEGER NOT NULL,
    cancel_requested INTEGER NOT NULL,
    delete_requested INTEGER NOT NULL,
    backfill_parallelism INTEGER,
    created_at INTEGER NOT NULL,
    revision INTEGER NOT NULL
) STRICT;
CREATE INDEX jobs_by_log ON jobs (log_name, log_schema_version);

CREATE TABLE runs (
    job TEXT NOT NULL REFERENCES jobs (uuid) ON DELETE CASCADE,
    date TEXT NOT NULL,
    status TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    et_started_at INTEGER,
    et_seconds REAL,
    load_started_at INTEGER,
    load_seconds REAL,
    rows TEXT NOT NULL,
    invalid INTEGER NOT NULL,
    worker TEXT,
    error TEXT,
    next_try_at INTEGER,
    failures INTEGER NOT NULL,
    failing_since INTEGER,
    given_up INTEGER NOT NULL,
    forced INTEGER NOT NULL,
    backfill INTEGER NOT NULL,
    extent TEXT NOT NULL,
    PRIMARY KEY (job, date)
) STRICT, WITHOUT ROWID;

CREATE TABLE workers (
    name TEXT PRIMARY KEY,
    alive_until INTEGER NOT NULL
) STRICT;

CREATE TABLE clusters (
    redshift_id TEXT PRIMARY KEY,
    cluster TEXT NOT NULL
) STRICT;

CREATE TABLE schemas (
    log_name TEXT NOT NULL,
    version TEXT NOT NULL,
    text TEXT NOT NULL,
    posted_at INTEGER NOT NULL,
    PRIMARY KEY (log_name, version)
) STRICT;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    job TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending',
    attempts INTEGER NOT NULL DEFAULT 0,
    progress TEXT NOT NULL DEFAULT '',
    error TEXT,
    next_try_at INTEGER NOT NULL,
    done_at INTEGER
) STRICT;
CREATE INDEX outbox_by_time ON outbox (state, next_try_at);
"];

/// Sets a connection up and brings the tables up to date.
pub fn prepare(connection: &mut Connection, busy: Duration) -> Result<(), String> {
    set_up(connection, busy).map_err(|e| e.to_string())?;
    let mut upgrade = || -> rusqlite::Result<Result<(), String>> {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let version = version as usize;
        if version > STEPS.len() {
            return Ok(Err(format!(
                "it has version {version}, which a newer millstream wrote; this one knows {}",
                STEPS.len()
            )));
        }
        for step in &STEPS[version..] {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "user_version", STEPS.len() as u32)?;
        transaction.commit()?;
        Ok(Ok(()))
    };
    upgrade().map_err(|e| e.to_string())?
}

fn set_up(connection: &Connection, busy: Duration) -> rusqlite::Result<()> {
    connection.busy_timeout(busy)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // In WAL mode the default loses the last transactions at a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_becomes_a_catalog_and_a_newer_one_is_refused() {
        let mut connection = Connection::open_in_memory().expect("memory");
        prepare(&mut connection, Duration::ZERO).expect("made");
        prepare(&mut connection, Duration::ZERO).expect("nothing left to do");
        let newer = STEPS.len() as u32 + 1;
        connection
            .pragma_update(None, "user_version", newer)
            .expect("set");
        let error = prepare(&mut connection, Duration::ZERO).expect_err("newer");
        assert!(error.contains("a newer millstream wrote"), "{error}");
    }
}
