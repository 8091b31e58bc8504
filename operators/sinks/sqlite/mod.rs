//! The `sqlite` sink: the embedded serving store. Each row replaces the one with the same key.
//!
//! Rows wait in a local file, fsynced at the checkpoint. The commit puts them into the table in one transaction that also
//! enters the checkpoint, so readers see all of a checkpoint or nothing, and a commit that is made again after a crash
//! finds that it is done: every row counts exactly once, even where another sink has replaced it since.
//!
//! In a dated run the commit replaces the date: in the same transaction, what the earlier run of that date wrote is
//! removed, so what the run does not write any more is gone. Which row is whose stands in the hidden column `_writer`.
//!
//! Which of two rows with one key holds: the later one of the stream; with `version`, the one whose version is
//! greater, and of equal versions the one with the greater `revision`, whoever put it and when.
//!
//! What SQLite has no place for (NULL in the key, an integer beyond 64 bits) goes to `<sink>.rejected` with the reason.
//! A database that another process writes to, or a full disk, is tried again with patience. Memory: the batch that is
//! being put and SQLite's page cache; a large transaction spills into its log.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use async_trait::async_trait;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::sink::{Committable, Sink, SinkConnector, SinkContext};
use millstream_engine::source::options;
use millstream_engine::{Error, Result};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use self::options::SqliteOptions;
use self::store::{Failure, Identity};
use self::table::Table;
use super::outbox::unreadable;
use super::rejected::RejectedRows;
use super::row_outbox::{Outbox, Sealed, rows};
use super::{new_series, promise, promised};

pub mod options;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod value;

/// Name of a process's serving store in its data directory.
pub const SERVING: &str = "serving.db";

/// `type = "sqlite"`.
#[derive(Default)]
pub struct SqliteConnector {
    /// The database of sinks that name none: the process's own. None where nothing runs.
    pub default_path: Option<PathBuf>,
}

#[async_trait]
impl SinkConnector for SqliteConnector {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    fn identity(&self) -> &'static [&'static str] {
        &["path", "table", "key"]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(SqliteOptions)
    }

    fn check(&self, cx: &SinkContext) -> Result<()> {
        Table::new(cx, &cx.schema, &options(&cx.options)?).map(drop)
    }

    /// A higher revision replaces the one before.
    fn takes_revisions(&self) -> bool {
        true
    }

    fn rejects(&self) -> bool {
        true
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>> {
        let date = cx.run.as_ref().map(|run| run.date.to_string());
        let sink = SqliteSink::open(cx, self.default_path.as_deref(), date.unwrap_or_default());
        Ok(Box::new(sink.await?))
    }
}

/// What stands in the checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Promise {
    series: String,
    files: Vec<Sealed>,
}

struct SqliteSink {
    database: Database,
    table: Table,
    outbox: Outbox,
    /// See [`new_series`]; none until the sink knows whether it recovers.
    series: Option<String>,
    /// Prepared, but not committed yet.
    waiting: Vec<Sealed>,
    rejected: RejectedRows,
}

#[async_trait]
impl Sink for SqliteSink {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        self.begin()?;
        let refusals = self.table.refusals(&rows)?;
        let good: BooleanArray = refusals.iter().map(|why| Some(why.is_none())).collect();
        self.outbox.append(&filter_record_batch(&rows, &good)?)?;
        for (row, why) in refusals.iter().enumerate() {
            if let Some(why) = why {
                self.database.cx.counters.add("rows_refused", 1);
                self.rejected.push(&rows, row, why)?;
            }
        }
        Ok(())
    }

    async fn prepare(&mut self, barrier: Barrier) -> Result<Committable> {
        let series = self.begin()?;
        self.waiting.extend(self.outbox.seal(barrier.epoch).await?);
        promise(&Promise {
            series,
            files: self.waiting.clone(),
        })
    }

    async fn commit(&mut self, epoch: Epoch, what: Committable) -> Result<()> {
        let Some(promise) = promised::<Promise>(what, &self.database.cx)? else {
            return Ok(());
        };
        let series = promise.series.clone();
        let files = promise.files.iter().map(|of| (*of, self.outbox.files.path(of)));
        let commit = Commit {
            epoch,
            series: series.clone(),
            files: files.collect(),
        };
        self.database.with(move |of, at| commit.apply(of, at)).await?;
        for file in &promise.files {
            self.outbox.files.remove(file)?;
        }
        self.waiting.retain(|file| !promise.files.contains(file));
        if self.series.is_none() {
            // What is left was written by the crashed run after its last checkpoint and will be replayed.
            self.outbox.files.clear()?;
            self.series = Some(series);
        }
        Ok(())
    }

    fn rejected(&mut self) -> Option<RecordBatch> {
        self.rejected.take()
    }
}

impl SqliteSink {
    async fn open(cx: SinkContext, default_path: Option<&Path>, date: String) -> Result<SqliteSink> {
        let typed: SqliteOptions = options(&cx.options)?;
        let table = Table::new(&cx, &cx.schema, &typed)?;
        let path = typed.path.as_deref().or(default_path);
        let path = path.ok_or_else(|| Error::config("path: name the database file"))?;
        let database = Database {
            at: Arc::default(),
            path: path.into(),
            date,
            cx: cx.clone(),
            options: typed,
        };
        let ready = table.clone();
        let make_ready = move |_: &Database, at: &mut Connection| {
            let all = store::begin(at)?;
            ready.ready(&all)?;
            Ok(all.commit()?)
        };
        database.with(make_ready).await?;
        Ok(SqliteSink {
            outbox: Outbox::new(cx.data_dir.clone()),
            rejected: RejectedRows::new(&cx),
            series: None,
            waiting: Vec::new(),
            table,
            database,
        })
    }

    /// The series of this sink. Without a commit before the first rows there was no checkpoint, so this is where
    /// a new series begins, and what lies in the outbox was promised to nobody.
    fn begin(&mut self) -> Result<String> {
        match &self.series {
            Some(series) => Ok(series.clone()),
            None => {
                self.outbox.files.clear()?;
                Ok(self.series.insert(new_series()).clone())
            }
        }
    }
}

/// The database of a sink, and who the sink is to it.
#[derive(Clone)]
struct Database {
    /// None until it is used first, and after a failure.
    at: Arc<Mutex<Option<Connection>>>,
    path: PathBuf,
    /// Of a dated run; else empty.
    date: String,
    cx: SinkContext,
    options: SqliteOptions,
}

impl Database {
    /// Does something that blocks with the connection.
    async fn with<R: Send + 'static>(
        &self,
        then: impl FnOnce(&Database, &mut Connection) -> Result<R, Failure> + Send + 'static,
    ) -> Result<R> {
        let this = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut kept = this.at.lock().unwrap_or_else(PoisonError::into_inner);
            let done = match kept.take() {
                Some(at) => Ok(at),
                None => store::open(&this.path),
            };
            let mut at = done.map_err(|e| e.at(&this.path))?;
            let done = then(&this, &mut at).map_err(|e| e.at(&this.path))?;
            *kept = Some(at);
            Ok(done)
        });
        task.await
            .map_err(|e| Error::bug(format!("task of a database: {e}")))?
    }
}

/// A checkpoint's rows on their way into the table.
struct Commit {
    epoch: Epoch,
    series: String,
    files: Vec<(Sealed, PathBuf)>,
}

impl Commit {
    fn apply(&self, to: &Database, at: &mut Connection) -> Result<(), Failure> {
        let all = store::begin(at)?;
        let who = Identity {
            pipeline: &to.cx.pipeline,
            sink: &to.cx.name,
            table: &to.options.table,
            date: &to.date,
        };
        let writer = who.enter(&all)?;
        // In this series, everything up to this epoch is there.
        let done = writer.done.as_ref().filter(|(series, _)| *series == self.series);
        let done = done.map(|(_, epoch)| *epoch);
        if done >= Some(self.epoch.0) {
            return Ok(());
        }
        if !to.date.is_empty() {
            let table = Table::new(&to.cx, &to.cx.schema, &to.options)?;
            table.ready(&all)?;
            let removed = table.remove(&all, writer.id)?;
            to.cx.counters.add("rows_removed", removed as u64);
        }
        let mut counts = [0, 0];
        for (of, path) in self.files.iter().filter(|(of, _)| Some(of.epoch.0) > done) {
            let [written, stale] = put(to, &all, of, path, writer.id)?;
            counts = [counts[0] + written, counts[1] + stale];
        }
        writer.mark(&all, &self.series, self.epoch.0)?;
        all.commit()?;
        for (what, count) in ["rows_written", "rows_stale"].into_iter().zip(counts) {
            to.cx.counters.add(what, count);
        }
        Ok(())
    }
}

/// Puts a file's rows. They have the columns of the time when they were written: the pipeline may have changed since.
fn put(to: &Database, at: &Connection, of: &Sealed, path: &Path, writer: i64) -> Result<[u64; 2], Failure> {
    let Some(rows) = rows(path)? else {
        return gone(to, of, path);
    };
    let table = Table::new(&to.cx, &rows.schema(), &to.options)?;
    table.ready(at)?;
    let mut counts = [0, 0];
    for batch in rows {
        let [written, stale] = table.put(at, &batch.map_err(|e| unreadable(path, e))?, writer)?;
        counts = [counts[0] + written, counts[1] + stale];
    }
    Ok(counts)
}

/// Neither the rows nor a mark that they were put: the database was removed or replaced since.
fn gone(to: &Database, of: &Sealed, path: &Path) -> Result<[u64; 2], Failure> {
    let what = format!(
        "database {} does not know of checkpoint {}, whose rows were in {}",
        to.path.display(),
        of.epoch.0,
        path.display()
    );
    if !to.date.is_empty() {
        return Err(Error::config(format!("{what}; make the run of {} again", to.date)).into());
    }
    tracing::warn!(
        pipeline = to.cx.pipeline,
        sink = to.cx.name,
        "{what}: it was replaced, and begins with the rows after that"
    );
    Ok([0, 0])
}
