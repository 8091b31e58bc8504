//! The `parquet` sink: rows as Hive-partitioned Parquet files, each row in exactly one file whatever crashes.
//!
//! Rows go into one open file per directory of the lake. A file is closed when it is large (`roll.size`), old
//! (`roll.interval`), pushed out by newer directories, or when the pipeline ends; it appears in the lake,
//! whole, at the checkpoint after that. Until then it grows in a hidden staging directory.
//!
//! A checkpoint does not close files. It fsyncs them and keeps, for each, how long it is and the footer that
//! would make it whole ([`file`]). Recovery publishes exactly that much of every file and deletes the rest,
//! which the sources replay ([`fallback`]: also when that checkpoint is not the last one). Every checkpoint with rows
//! ends a row group, so at low traffic row groups are small: a longer `[checkpoint] interval` makes them larger.
//!
//! Rows are encoded on a thread of the sink's own ([`encoder`]), and go to the disk as they are written ([`staged`]). All
//! files together hold at most `memory` bytes of rows ([`files`]).
//!
//! In a dated run the files of the date are replaced instead ([`dated`]).
//!
//! In S3 a large file is a multipart upload that begins while the file is open and spans checkpoints ([`upload`]).
//!
//! How it fails: an error of the disk under the staged files stops the pipeline (configuration), as nothing
//! can be promised without it; a full disk starts it again until there is space. An error of publishing (S3 away) is
//! tried again; until it succeeds no checkpoint ends, and what comes in waits in the log.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sink::{Committable, Sink, SinkConnector, SinkContext};
use millstream_engine::source::options;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use self::catalog::{Catalog, Table};
use self::dated::DatedSink;
use self::encoder::{Encoder, Names, Prepared};
use self::file::{FileFormat, Finished, Promised};
use self::files::{Files, directory_of};
pub use self::options::{CatalogKind, Codec, ParquetOptions, Roll};
use self::partition::Partitioner;
use self::store::{Location, Published, Store};
use self::upload::Uploads;
use super::disk::{cannot, create_dirs, remove_files};
use super::{new_series, promise, promised};
use crate::aws::AwsOptions;

mod catalog;
mod dated;
mod encoder;
mod fallback;
mod file;
mod files;
mod object;
mod options;
mod partition;
mod staged;
mod store;
#[cfg(test)]
mod tests;
mod upload;

/// Files open at once, one per directory. Rows that arrive for more directories than this close the file
/// that was least recently written. Each is a descriptor, of which a process often has 1,024, and a few hundred bytes
/// or more in every manifest.
const OPEN_FILES: usize = 1_024;

/// A row group is written out at this encoded size if no checkpoint comes first.
const ROW_GROUP_BYTES: usize = 16 << 20;

/// As [`ROW_GROUP_BYTES`], for rows that encode to nearly nothing.
const ROW_GROUP_ROWS: usize = 1 << 20;

/// `type = "parquet"`.
pub struct ParquetConnector;

/// What the options come to for a stream.
struct Layout {
    location: Location,
    partitioner: Partitioner,
    format: FileFormat,
    /// The table that the catalog is to show.
    table: Option<Table>,
}

impl ParquetOptions {
    fn plan(&self, cx: &SinkContext) -> Result<Layout> {
        let location = self.path.parse()?;
        self.check_addresses()?;
        let partitioner = Partitioner::new(cx, &self.partition_by)?;
        let format = FileFormat::new(&cx.schema, &partitioner.columns(), self.properties()?)?;
        let table = Table::new(self, &location, format.schema(), &partitioner.levels(&cx.schema))?;
        Ok(Layout {
            location,
            partitioner,
            format,
            table,
        })
    }
}

#[async_trait]
impl SinkConnector for ParquetConnector {
    fn name(&self) -> &'static str {
        "parquet"
    }

    fn identity(&self) -> &'static [&'static str] {
        &["path"]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(ParquetOptions)
    }

    fn check(&self, cx: &SinkContext) -> Result<()> {
        options::<ParquetOptions>(&cx.options)?.plan(cx).map(drop)
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>> {
        let typed: ParquetOptions = options(&cx.options)?;
        let layout = typed.plan(&cx)?;
        if let Some(run) = cx.run.clone() {
            return Ok(Box::new(DatedSink::open(cx, run, typed, layout).await?));
        }
        let catalog = match layout.table {
            Some(table) => Some(Catalog::open(&typed, table).await?),
            None => None,
        };
        let aws = typed.aws;
        let lake = Lake::open(typed.path, layout.location, &aws, &cx).await?;
        Ok(Box::new(ParquetSink {
            partitioner: layout.partitioner,
            format: layout.format,
            lake,
            catalog,
            aws,
            memory: typed.memory,
            roll: typed.roll,
            series: None,
            next_epoch: Epoch(1),
            encoder: None,
            finished: Vec::new(),
            uploads: Uploads::default(),
            recovered: None,
            unregistered: BTreeSet::new(),
            cx,
        }))
    }
}

/// What stands in the checkpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Promise {
    /// The lake at that time: a pipeline file may name another by the time of the recovery.
    path: String,
    series: String,
    finished: Vec<Finished>,
    open: Vec<Promised>,
}

struct ParquetSink {
    cx: SinkContext,
    partitioner: Partitioner,
    format: FileFormat,
    lake: Lake,
    catalog: Option<Catalog>,
    aws: AwsOptions,
    roll: Roll,
    memory: Bytes,
    /// See [`new_series`]; none until the sink knows whether it recovers.
    series: Option<String>,
    /// The checkpoint that the next row will be in.
    next_epoch: Epoch,
    /// None before the first row.
    encoder: Option<Encoder>,
    /// Files that are whole but not yet published.
    finished: Vec<Finished>,
    /// Those of open files to S3.
    uploads: Uploads,
    /// The checkpoint that this run began with, once the lake is at it.
    recovered: Option<Epoch>,
    /// Directories that got files which the catalog may not show yet.
    unregistered: BTreeSet<String>,
}

#[async_trait]
impl Sink for ParquetSink {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        self.encoder().await?.write(rows).await
    }

    async fn prepare(&mut self, barrier: Barrier) -> Result<Committable> {
        let series = self.begin().await?;
        let close_after = match barrier.last {
            true => Duration::ZERO,
            false => self.roll.interval.0,
        };
        let Prepared { mut open, finished } = match &mut self.encoder {
            Some(encoder) => encoder.prepare(barrier.epoch, close_after).await?,
            None => Prepared::default(),
        };
        self.finished.extend(finished);
        for promised in &mut open {
            promised.upload = self.uploads.of(&promised.staged);
        }
        self.follow(barrier.epoch);
        // Files of an earlier checkpoint that was never committed are promised again.
        promise(&Promise {
            path: self.lake.path.clone(),
            series,
            finished: self.finished.iter().map(|f| self.uploads.newest(f)).collect(),
            open,
        })
    }

    async fn commit(&mut self, epoch: Epoch, what: Committable) -> Result<()> {
        let Some(promise) = promised::<Promise>(what, &self.cx)? else {
            return Ok(());
        };
        match self.series {
            None => {
                self.recover(epoch, promise).await?;
                self.recovered = Some(epoch);
            }
            // Again, for the catalog's sake.
            Some(_) if self.recovered == Some(epoch) => {}
            Some(_) => self.publish(epoch, promise).await?,
        }
        self.register().await
    }
}

/// Where files go, and the directory where they grow until they are whole.
struct Lake {
    path: String,
    store: Store,
    staging: PathBuf,
}

impl Lake {
    async fn open(path: String, location: Location, aws: &AwsOptions, cx: &SinkContext) -> Result<Lake> {
        let store = Store::open(location, aws).await?;
        let staging = store.staging(&cx.data_dir);
        Ok(Lake { path, store, staging })
    }

    async fn publish(&self, file: &Finished, cx: &SinkContext) -> Result<Published> {
        let published = self.store.publish(&self.staging, file, cx.run.is_some()).await?;
        match published {
            Published::Now => {
                cx.counters.add("files_published", 1);
                cx.counters.add("bytes_published", file.bytes);
            }
            Published::Before => {}
            Published::Gone if cx.run.is_some() => {}
            Published::Gone => {
                cx.counters.add("files_gone", 1);
                tracing::warn!(
                    pipeline = cx.pipeline,
                    sink = cx.name,
                    file = file.key,
                    "a file of the last checkpoint is neither staged nor published: taken to have been published \
                     before the restart and removed since"
                );
            }
        }
        Ok(published)
    }

    /// Publishes what a checkpoint promised, deletes what no checkpoint did.
    async fn recover(&self, epoch: Epoch, promise: &Promise, prefix: &str, cx: &SinkContext) -> Result<()> {
        if fallback::noted(&cx.data_dir)? > Some(epoch) {
            fallback::undo(self, epoch, promise, prefix, cx).await?;
        }
        fallback::note(&cx.data_dir, epoch)?;
        for file in &promise.finished {
            self.publish(file, cx).await?;
        }
        for open in &promise.open {
            let whole = file::complete(&self.staging, open)?;
            self.publish(&whole, cx).await?;
        }
        remove_files(&self.staging, prefix, |_| true)?;
        self.end_uploads(prefix, cx).await
    }

    /// Ends the uploads to files of ours, none of which is of use any more; `prefix` is of their staged names.
    async fn end_uploads(&self, prefix: &str, cx: &SinkContext) -> Result<()> {
        // Staged names are hidden.
        let ours = |name: &str| name.starts_with(&prefix[1..]);
        let ended = self.store.end_uploads(&ours).await?;
        cx.counters.add("uploads_ended", ended as u64);
        Ok(())
    }
}

impl ParquetSink {
    /// What encodes the rows, from the first of them on.
    async fn encoder(&mut self) -> Result<&mut Encoder> {
        if self.encoder.is_none() {
            let series = self.begin().await?;
            let names = EpochNames {
                prefix: self.names(&series),
                epoch: self.next_epoch,
                named: 0,
            };
            let started = Encoder::start(
                self.partitioner.clone(),
                self.format.clone(),
                self.lake.staging.clone(),
                Files::new(self.roll.size, self.memory),
                names,
            )?;
            self.encoder = Some(started);
        }
        let encoder = self.encoder.as_mut();
        encoder.ok_or_else(|| Error::bug("rows came before the encoder of their sink"))
    }

    async fn publish(&mut self, epoch: Epoch, promise: Promise) -> Result<()> {
        if !promise.finished.is_empty() {
            fallback::note(&self.cx.data_dir, epoch)?;
            self.uploads.settle().await;
        }
        for file in &promise.finished {
            self.lake.publish(&self.uploads.newest(file), &self.cx).await?;
            self.uploads.forget(&file.staged);
            self.finished.retain(|f| f.staged != file.staged);
            self.show(&file.key);
        }
        self.uploads
            .feed(&self.lake.store, &self.lake.staging, &promise.open);
        Ok(())
    }

    /// Notes a published file for the catalog, where there is one.
    fn show(&mut self, key: &str) {
        if self.catalog.is_some() {
            self.unregistered.insert(directory_of(key).into());
        }
    }

    /// Shows what was published in the catalog.
    async fn register(&mut self) -> Result<()> {
        if let Some(catalog) = &mut self.catalog
            && !self.unregistered.is_empty()
        {
            let made = catalog.register(&self.unregistered).await?;
            self.cx.counters.add("partitions_registered", made);
            self.unregistered.clear();
        }
        Ok(())
    }

    /// The first call after a restart: brings the lake to the checkpoint, no more and no less.
    async fn recover(&mut self, epoch: Epoch, promise: Promise) -> Result<()> {
        let prefix = self.staged_names(&promise.series);
        if promise.path == self.lake.path {
            self.lake.recover(epoch, &promise, &prefix, &self.cx).await?;
            let finished = promise.finished.iter().map(|f| &f.key);
            for key in finished.chain(promise.open.iter().map(|f| &f.key)) {
                self.show(key);
            }
        } else {
            let location = promise.path.parse()?;
            let old = Lake::open(promise.path.clone(), location, &self.aws, &self.cx).await?;
            old.recover(epoch, &promise, &prefix, &self.cx).await?;
            if self.catalog.is_some() {
                // Its table is not known any more.
                tracing::warn!(
                    pipeline = self.cx.pipeline,
                    sink = self.cx.name,
                    path = promise.path,
                    "the last files of the former path are not shown in the catalog; MSCK REPAIR TABLE adds them"
                );
            }
        }
        self.follow(epoch);
        self.enter(promise.series).await
    }

    /// The series of this sink. Without a recovery before the first rows there was no checkpoint, so this is
    /// where a new series begins.
    async fn begin(&mut self) -> Result<String> {
        if self.series.is_none() {
            self.enter(new_series()).await?;
        }
        Ok(self.series.clone().unwrap_or_default())
    }

    /// Works in `series` from here on. Where the last run was in another, it died before its first checkpoint,
    /// and what it staged was promised to nobody.
    async fn enter(&mut self, series: String) -> Result<()> {
        let record = self.cx.data_dir.join("series");
        let before = match fs::read_to_string(&record) {
            Ok(before) => before,
            Err(e) if e.kind() == ErrorKind::NotFound => String::new(),
            Err(e) => return Err(cannot("read", &record, e)),
        };
        if before != series {
            if !before.is_empty() {
                let prefix = self.staged_names(&before);
                remove_files(&self.lake.staging, &prefix, |_| true)?;
                self.lake.end_uploads(&prefix, &self.cx).await?;
            }
            create_dirs(&self.cx.data_dir)?;
            fs::write(&record, &series).map_err(|e| cannot("write", &record, e))?;
        }
        self.series = Some(series);
        Ok(())
    }

    fn follow(&mut self, epoch: Epoch) {
        self.next_epoch = epoch.next();
    }

    /// What every file name of this sink in a series starts with.
    fn names(&self, series: &str) -> String {
        format!("{}-{}-{series}-", self.cx.pipeline, self.cx.name)
    }

    /// As [`Self::names`], for files that are not whole yet.
    fn staged_names(&self, series: &str) -> String {
        format!(".{}", self.names(series))
    }
}

/// Files are named after the checkpoint that their first row is in, and numbered.
struct EpochNames {
    prefix: String,
    epoch: Epoch,
    named: u64,
}

impl Names for EpochNames {
    fn next(&mut self, _: &str) -> (String, String) {
        let name = format!("{}{}-{}.parquet", self.prefix, self.epoch.0, self.named);
        self.named += 1;
        (format!(".{name}.inprogress"), name)
    }

    fn follow(&mut self, epoch: Epoch) {
        self.epoch = epoch.next();
        self.named = 0;
    }
}
