//! The database file: opened for one writer at a time, and what it must remember of those who write to it.
//!
//! Each commit of a sink is one transaction, durable when it returns, which enters its series and epoch beside the rows:
//! made again, it is found to be done. Readers are never kept waiting (write-ahead log). Another writer's transaction is
//! waited for, and after [`PATIENCE`] the runtime tries again.

use std::path::Path;
use std::time::Duration;

use millstream_engine::Error;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::super::disk::create_dirs;

/// How long one writer waits for another: a commit of some hundred thousand rows.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of the write-ahead log that stay on disk after a large commit.
const LOG_KEPT: i64 = 64 << 20;

/// What can go wrong between a sink and its database.
pub(super) enum Failure {
    Ours(Error),
    Sqlite(rusqlite::Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        Failure::Ours(e)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(e: rusqlite::Error) -> Failure {
        Failure::Sqlite(e)
    }
}

impl Failure {
    /// Who must act.
    pub fn at(self, path: &Path) -> Error {
        let e = match self {
            Failure::Ours(e) => return e,
            Failure::Sqlite(e) => e,
        };
        let what = format!("database {}: {e}", path.display());
        match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                Error::retry(format!("{what}; another process writes to it"))
            }
            Some(ErrorCode::DiskFull) => Error::retry(format!("{what}; free some space")),
            Some(ErrorCode::SystemIoFailure | ErrorCode::SchemaChanged | ErrorCode::OperationInterrupted) => {
                Error::retry(what)
            }
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                Error::config(format!("{what}; check the path and its permissions"))
            }
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Error::config(format!("{what}; move the file away or name another"))
            }
            _ => Error::data(what),
        }
    }
}

/// Opens the file, or creates it.
pub(super) fn open(path: &Path) -> Result<Connection, Failure> {
    create_dirs(path.parent().unwrap_or(Path::new("")))?;
    let at = Connection::open(path)?;
    at.busy_timeout(PATIENCE)?;
    at.pragma_update(None, "journal_mode", "WAL")?;
    // A commit is on disk when it returns: the rows that wait are removed then.
    at.pragma_update(None, "synchronous", "FULL")?;
    at.pragma_update(None, "journal_size_limit", LOG_KEPT)?;
    Ok(at)
}

/// A transaction that is the only writer from its beginning.
pub(super) fn begin(at: &mut Connection) -> Result<Transaction<'_>, rusqlite::Error> {
    at.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// One row of the table of writers: its id, and the commit that it made last.
pub(super) struct Writer {
    pub id: i64,
    /// The series and the epoch.
    pub done: Option<(String, u64)>,
}

/// Who writes: a sink, and one of its runs where it has a run per date.
pub(super) struct Identity<'a> {
    pub pipeline: &'a str,
    pub sink: &'a str,
    pub table: &'a str,
    /// Empty in a streaming pipeline.
    pub date: &'a str,
}

impl Identity<'_> {
    /// Finds the writer, or enters it.
    pub fn enter(&self, at: &Connection) -> Result<Writer, rusqlite::Error> {
        at.execute_batch(
            "CREATE TABLE IF NOT EXISTS _millstream_writers (id INTEGER PRIMARY KEY, pipeline TEXT NOT NULL, \
             sink TEXT NOT NULL, \"table\" TEXT NOT NULL, run_date TEXT NOT NULL, series TEXT, epoch INTEGER, \
             UNIQUE (pipeline, sink, \"table\", run_date)) STRICT",
        )?;
        let who = [self.pipeline, self.sink, self.table, self.date];
        at.execute(
            "INSERT OR IGNORE INTO _millstream_writers (pipeline, sink, \"table\", run_date) VALUES (?, ?, ?, ?)",
            who,
        )?;
        at.query_row(
            "SELECT id, series, epoch FROM _millstream_writers \
             WHERE pipeline = ? AND sink = ? AND \"table\" = ? AND run_date = ?",
            who,
            |row| {
                let (series, epoch): (Option<String>, Option<i64>) = (row.get(1)?, row.get(2)?);
                Ok(Writer {
                    id: row.get(0)?,
                    done: series.zip(epoch.map(i64::cast_unsigned)),
                })
            },
        )
    }
}

impl Writer {
    /// Enters what is done with this transaction.
    pub fn mark(&self, at: &Connection, series: &str, epoch: u64) -> Result<(), rusqlite::Error> {
        at.execute(
            "UPDATE _millstream_writers SET series = ?, epoch = ? WHERE id = ?",
            rusqlite::params![series, epoch.cast_signed(), self.id],
        )
        .map(drop)
    }
}
