//! The sink in a dated run: it replaces what earlier runs of the date wrote.
//!
//! All files lie in the directory of the run's date, whatever the event time of their rows, and are named after pipeline,
//! sink and date: `daily-lake-2026-11-24-0.parquet`. So a run finds the files of earlier ones by their names, and nobody
//! else's look alike.
//!
//! The transform writes files under hidden names and fsyncs them; of a large one for S3 all full parts are sent, too, to an
//! upload that is not completed. The load publishes them, over files of the same names, and then removes the date's
//! files that are not among them: all, where the run has no rows. It can be repeated from any point. A reader who comes
//! while it is under way sees files of both runs; nobody who comes after it does.
//!
//! What an attempt left that did not get to its load is removed by the next one of the date.
//!
//! How it fails: as `parquet` does, and with an error of class data where files that were prepared are gone: the date
//! must be transformed again. Nothing is removed then.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::pipeline::Bytes;
use millstream_engine::run::DatedRun;
use millstream_engine::sink::{Committable, Sink, SinkContext};
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::catalog::Catalog;
use super::encoder::{Encoder, Names};
use super::file::{FileFormat, Finished};
use super::files::{self, Files, directory_of};
use super::partition::Partitioner;
use super::store::Published;
use super::{Lake, Layout, ParquetOptions};
use crate::aws::AwsOptions;
use crate::sinks::disk::remove_files;
use crate::sinks::{promise, promised};

/// `type = "parquet"` in a dated run.
pub(super) struct DatedSink {
    date: Date,
    partitioner: Partitioner,
    format: FileFormat,
    catalog: Option<Catalog>,
    aws: AwsOptions,
    roll: Bytes,
    memory: Bytes,
    /// None before the first row.
    encoder: Option<Encoder>,
    /// Files that are whole.
    finished: Vec<Finished>,
    /// Whether what earlier attempts left is out of the way.
    begun: bool,
}

/// The files of one date.
struct Date {
    cx: SinkContext,
    run: DatedRun,
    lake: Lake,
}

/// What the load gets.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Promise {
    /// The lake at that time.
    path: String,
    /// The directory in which all files of the date are.
    below: String,
    files: Vec<Finished>,
}

impl DatedSink {
    pub async fn open(
        cx: SinkContext,
        run: DatedRun,
        typed: ParquetOptions,
        layout: Layout,
    ) -> Result<DatedSink> {
        let catalog = match layout.table {
            Some(table) => Some(Catalog::open(&typed, table).await?),
            None => None,
        };
        let lake = Lake::open(typed.path, layout.location, &typed.aws, &cx).await?;
        Ok(DatedSink {
            date: Date { cx, run, lake },
            partitioner: layout.partitioner,
            format: layout.format,
            catalog,
            aws: typed.aws,
            roll: typed.roll.size,
            memory: typed.memory,
            encoder: None,
            finished: Vec::new(),
            begun: false,
        })
    }

    /// Once, before anything is staged.
    async fn begin(&mut self) -> Result<()> {
        if !self.begun {
            self.date.clear().await?;
            self.begun = true;
        }
        Ok(())
    }

    /// What encodes the rows, from the first of them on.
    async fn encoder(&mut self) -> Result<&mut Encoder> {
        if self.encoder.is_none() {
            self.begin().await?;
            let names = DateNames {
                prefix: self.date.names(),
                attempt: self.date.run.attempt,
                named: BTreeMap::new(),
            };
            let started = Encoder::start(
                self.partitioner.clone(),
                self.format.clone(),
                self.date.lake.staging.clone(),
                Files::new(self.roll, self.memory),
                names,
            )?;
            self.encoder = Some(started);
        }
        let encoder = self.encoder.as_mut();
        encoder.ok_or_else(|| Error::bug("rows came before the encoder of their sink"))
    }

    /// Sends the full parts of large files ahead. Nothing depends on it: what was not sent, the load sends.
    async fn send_ahead(&mut self) {
        for file in &mut self.finished {
            if let Some(object) = self.date.lake.store.object(&file.key) {
                let from = self.date.lake.staging.join(&file.staged);
                file.upload = object.send_ahead(&from, file.upload.take(), file.bytes).await;
            }
        }
    }
}

impl Date {
    /// What all names of the files start with.
    fn names(&self) -> String {
        format!("{}-{}-{}-", self.cx.pipeline, self.cx.name, self.run.date)
    }

    /// Removes what earlier attempts have staged.
    async fn clear(&self) -> Result<()> {
        self.clear_staging(&self.lake)?;
        let names = self.names();
        let is_ours = |name: &str| number_of(name, &names).is_some();
        let ended = self.lake.store.end_uploads(&is_ours).await?;
        self.cx.counters.add("uploads_ended", ended as u64);
        Ok(())
    }

    fn clear_staging(&self, lake: &Lake) -> Result<()> {
        let prefix = format!(".{}", self.names());
        remove_files(&lake.staging, &prefix, |name| is_staged(name, &prefix))
    }

    /// Makes the files of a run those of the date.
    async fn publish(&self, lake: &Lake, promise: &Promise) -> Result<()> {
        for file in &promise.files {
            if lake.publish(file, &self.cx).await? == Published::Gone {
                return Err(Error::data(format!(
                    "the rows of {} for {} that were prepared are gone, so the earlier ones stay; run the date again from \
                     its transform",
                    file.key, self.run.date
                )));
            }
        }
        let kept: BTreeSet<&str> = promise.files.iter().map(|file| file.key.as_str()).collect();
        let names = self.names();
        let is_stale = |key: &str| number_of(files::name_of(key), &names).is_some() && !kept.contains(key);
        let removed = lake.store.remove(&promise.below, &is_stale).await?;
        self.cx.counters.add("files_removed", removed as u64);
        self.clear_staging(lake)
    }
}

#[async_trait]
impl Sink for DatedSink {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        self.encoder().await?.write(rows).await
    }

    async fn prepare(&mut self, barrier: Barrier) -> Result<Committable> {
        self.begin().await?;
        if let Some(encoder) = &mut self.encoder {
            let prepared = encoder.prepare(barrier.epoch, Duration::ZERO).await?;
            self.finished.extend(prepared.finished);
        }
        self.send_ahead().await;
        promise(&Promise {
            path: self.date.lake.path.clone(),
            below: self.partitioner.below(),
            files: self.finished.clone(),
        })
    }

    async fn commit(&mut self, _: Epoch, what: Committable) -> Result<()> {
        let Some(promise) = promised::<Promise>(what, &self.date.cx)? else {
            return Ok(());
        };
        if promise.path != self.date.lake.path {
            // The pipeline file has changed since the transform; what it wrote goes where it was meant to.
            let location = promise.path.parse()?;
            let then = Lake::open(promise.path.clone(), location, &self.aws, &self.date.cx).await?;
            return self.date.publish(&then, &promise).await;
        }
        self.date.publish(&self.date.lake, &promise).await?;
        if let Some(catalog) = &mut self.catalog {
            let directories = promise
                .files
                .iter()
                .map(|file| directory_of(&file.key).to_owned());
            let made = catalog.register(&directories.collect()).await?;
            self.date.cx.counters.add("partitions_registered", made);
        }
        Ok(())
    }
}

/// Files are named after the date and numbered, those of each directory from 0.
struct DateNames {
    prefix: String,
    attempt: u32,
    /// How many files have been named, by directory.
    named: BTreeMap<String, u64>,
}

impl Names for DateNames {
    fn next(&mut self, directory: &str) -> (String, String) {
        let all: u64 = self.named.values().sum();
        let number = self.named.entry(directory.into()).or_default();
        let name = format!("{}{number}.parquet", self.prefix);
        *number += 1;
        (format!(".{}{}-{all}.inprogress", self.prefix, self.attempt), name)
    }

    fn follow(&mut self, _: Epoch) {}
}

/// The number in the name of a date's file; none of any other file.
fn number_of(name: &str, names: &str) -> Option<u64> {
    name.strip_prefix(names)?.strip_suffix(".parquet")?.parse().ok()
}

/// Whether a hidden file is one of the date's.
fn is_staged(name: &str, prefix: &str) -> bool {
    let numbers = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_suffix(".inprogress"));
    numbers.is_some_and(|text| text.chars().all(|c| c.is_ascii_digit() || c == '-'))
}

#[cfg(test)]
mod tests;
