//! The `dynamodb` sink: each row is an item, which replaces the one with the same key.
//!
//! Rows wait in a local file, fsynced at the checkpoint, and are put at its commit, so no item is there that
//! could still be replayed differently. A commit that fails halfway goes on with the items that were not taken. After a
//! crash the last checkpoint's items may be put again, in their order: each replaces itself, so the table ends up as if
//! they had been put once. A window that fires again (`on_late = "update"`) and a run that is repeated replace in the
//! same way, where the key names the window.
//!
//! Which of two rows with one key holds: the later one of the stream; with `version`, the one whose version is
//! greater, and of equal versions the one with the greater `revision`, whoever put it and when (a conditional put).
//!
//! In a dated run the items of the date are replaced: those that an earlier run of the date put, and this one does not, are
//! deleted after the others are put ([`written`]). The key must tell dates apart (`day`), or the run of one date
//! replaces, and deletes, what that of another put.
//!
//! What DynamoDB would refuse for good (a key that is NULL, empty or too long, a number it does not know, more than
//! 400 KB) does not get there: it is counted (`items_refused`) and goes to `<sink>.rejected` with the reason. What it
//! refuses all the same, such as a value that does not fit a secondary index, goes there when the sink takes its next
//! rows, and is logged, as there may be none.
//! Items it puts off (`UnprocessedItems`) are put again at once, with growing pauses, as long as some are taken; after
//! that the runtime tries again with patience.

use std::collections::HashSet;
use std::time::Duration;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use async_trait::async_trait;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::sink::{Committable, Sink, SinkConnector, SinkContext};
use millstream_engine::source::options;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use self::item::{Item, Mapping, newest};
use self::options::DynamodbOptions;
use self::put::{Outcome, Puts};
use self::written::Written;
use super::rejected::RejectedRows;
use super::row_outbox::{Chunks, Outbox, Sealed};
use super::{promise, promised};
use crate::aws;

mod delete;
mod item;
pub mod options;
mod put;
mod table;
#[cfg(test)]
mod tests;
mod value;
mod written;

/// Rows read from the outbox at once: eighty full requests. Among them, one item per key is put.
const CHUNK_ROWS: usize = 2_000;

/// The pauses before items that were put off are put again: doubled each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// `type = "dynamodb"`.
pub struct DynamodbConnector;

#[async_trait]
impl SinkConnector for DynamodbConnector {
    fn name(&self) -> &'static str {
        "dynamodb"
    }

    fn identity(&self) -> &'static [&'static str] {
        &["table", "key", "region", "endpoint"]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(DynamodbOptions)
    }

    fn check(&self, cx: &SinkContext) -> Result<()> {
        let typed: DynamodbOptions = options(&cx.options)?;
        typed.aws.check()?;
        Mapping::new(cx, &typed).map(drop)
    }

    /// A higher revision replaces the one before.
    fn takes_revisions(&self) -> bool {
        true
    }

    fn rejects(&self) -> bool {
        true
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>> {
        let typed: DynamodbOptions = options(&cx.options)?;
        let mapping = Mapping::new(&cx, &typed)?;
        let client = aws::dynamodb(&typed.aws).await?;
        table::ready(&client, &typed.table, &mapping.key_types(&cx), typed.create).await?;
        Ok(Box::new(DynamodbSink {
            puts: Puts {
                client,
                table: typed.table.clone(),
                version: typed.version.clone(),
            },
            outbox: Outbox::new(cx.data_dir.clone()),
            written: cx.run.as_ref().map(|run| Written::new(&cx, run, &typed)),
            options: typed,
            mapping,
            fresh: true,
            waiting: Vec::new(),
            delivery: None,
            rejected: RejectedRows::new(&cx),
            cx,
        }))
    }
}

/// What stands in the checkpoint.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Promise {
    files: Vec<Sealed>,
}

struct DynamodbSink {
    cx: SinkContext,
    options: DynamodbOptions,
    mapping: Mapping,
    puts: Puts,
    outbox: Outbox,
    /// In a dated run.
    written: Option<Written>,
    /// Has neither taken rows nor committed anything: a commit is what an earlier life promised.
    fresh: bool,
    /// Prepared, but not delivered yet.
    waiting: Vec<Sealed>,
    delivery: Option<Delivery>,
    /// Rows that will never be taken, until the runtime asks for them.
    rejected: RejectedRows,
}

/// A file that is being delivered.
struct Delivery {
    of: Sealed,
    chunks: Chunks,
    /// Of the rows as they were when they were written.
    mapping: Mapping,
    /// The chunk read last.
    rows: RecordBatch,
    /// Those of its items that are not taken yet.
    items: Vec<Item>,
}

#[async_trait]
impl Sink for DynamodbSink {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        self.begin()?;
        let items = self.mapping.items(&rows)?;
        let good: BooleanArray = items.iter().map(|item| Some(item.is_ok())).collect();
        self.outbox.append(&filter_record_batch(&rows, &good)?)?;
        for (row, item) in items.iter().enumerate() {
            if let Err(why) = item {
                self.reject(&rows, row, why)?;
            }
        }
        Ok(())
    }

    async fn prepare(&mut self, barrier: Barrier) -> Result<Committable> {
        self.begin()?;
        self.waiting.extend(self.outbox.seal(barrier.epoch).await?);
        promise(&Promise {
            files: self.waiting.clone(),
        })
    }

    async fn commit(&mut self, _: Epoch, what: Committable) -> Result<()> {
        let Some(promise) = promised::<Promise>(what, &self.cx)? else {
            return Ok(());
        };
        match self.written.take() {
            Some(written) => {
                let replaced = self.replace(&written, &promise.files).await;
                self.written = Some(written);
                replaced?;
            }
            None => {
                for file in &promise.files {
                    self.deliver(file).await?;
                    self.forget(file)?;
                }
            }
        }
        // What is left was written by the crashed run after its last checkpoint and will be replayed.
        self.begin()
    }

    fn rejected(&mut self) -> Option<RecordBatch> {
        self.rejected.take()
    }
}

impl DynamodbSink {
    /// Before the first rows, and after a recovery: what lies in the outbox then was promised to nobody.
    fn begin(&mut self) -> Result<()> {
        if self.fresh {
            self.outbox.files.clear()?;
            self.fresh = false;
        }
        Ok(())
    }

    /// Puts the rows of a dated run and deletes what earlier runs of its date have put besides.
    async fn replace(&mut self, written: &Written, files: &[Sealed]) -> Result<()> {
        let before = written.known().await?;
        let (mut known, mut noted) = (before.texts()?, before.batches().to_vec());
        let (mut kept, mut keys) = (HashSet::new(), Vec::new());
        for file in files {
            let Some(mut chunks) = Chunks::open(self.outbox.files.path(file))? else {
                // Delivered before, and so is the rest: files are removed at the end.
                return Ok(());
            };
            while let Some(rows) = chunks.next(CHUNK_ROWS).await? {
                let of_rows = written.keys_of(&rows)?;
                let texts = written.texts(&of_rows)?;
                noted.push(written::new_ones(&of_rows, &texts, &mut known)?);
                keys.push(written::new_ones(&of_rows, &texts, &mut kept)?);
            }
        }
        written.note(noted).await?;
        for file in files {
            self.deliver(file).await?;
        }
        let stale = before.stale(&kept)?;
        if let Some(mapping) = before.mapping().filter(|_| !stale.is_empty()) {
            let count = stale.len() as u64;
            self.puts.delete(stale, mapping).await?;
            self.cx.counters.add("items_deleted", count);
        }
        written.note(keys).await?;
        files.iter().try_for_each(|file| self.forget(file))
    }

    /// Puts a file's rows. A file that is gone was delivered before.
    async fn deliver(&mut self, file: &Sealed) -> Result<()> {
        let mut delivery = match self.delivery.take() {
            Some(begun) if begun.of == *file => begun,
            _ => match self.start(file)? {
                Some(started) => started,
                None => return Ok(()),
            },
        };
        let delivered = self.finish(&mut delivery).await;
        self.delivery = Some(delivery);
        delivered?;
        self.delivery = None;
        Ok(())
    }

    /// Removes a file that was delivered.
    fn forget(&mut self, file: &Sealed) -> Result<()> {
        self.outbox.files.remove(file)?;
        self.waiting.retain(|f| f != file);
        Ok(())
    }

    fn start(&self, file: &Sealed) -> Result<Option<Delivery>> {
        let Some(chunks) = Chunks::open(self.outbox.files.path(file))? else {
            return Ok(None);
        };
        let then = SinkContext {
            schema: chunks.schema(),
            ..self.cx.clone()
        };
        Ok(Some(Delivery {
            of: *file,
            rows: RecordBatch::new_empty(chunks.schema()),
            chunks,
            mapping: Mapping::new(&then, &self.options)?,
            items: Vec::new(),
        }))
    }

    async fn finish(&mut self, delivery: &mut Delivery) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        loop {
            if delivery.items.is_empty() {
                pause = FIRST_PAUSE;
                let Some(rows) = delivery.chunks.next(CHUNK_ROWS).await? else {
                    return Ok(());
                };
                let items = delivery.mapping.items(&rows)?.into_iter().flatten();
                let (items, passed_over) = newest(items);
                self.cx.counters.add("items_passed_over", passed_over);
                (delivery.rows, delivery.items) = (rows, items);
            }
            let items = std::mem::take(&mut delivery.items);
            let before = items.len();
            let mut done = self.puts.put(items, &delivery.mapping).await;
            delivery.items = std::mem::take(&mut done.left);
            let left = delivery.items.len();
            self.count(&done);
            self.refuse(&delivery.rows, &done.refused)?;
            match done.error {
                Some(error) => return Err(error),
                None if left == 0 => {}
                None if left == before => {
                    return Err(Error::retry(format!(
                        "DynamoDB table {:?} puts off {left} items, and took none",
                        self.options.table
                    )));
                }
                None => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn count(&self, done: &Outcome) {
        for (what, count) in [
            ("items_written", done.written),
            ("items_stale", done.stale),
            ("items_put_off", done.put_off),
        ] {
            if count > 0 {
                self.cx.counters.add(what, count);
            }
        }
    }

    /// Items that turned out to be refused.
    fn refuse(&mut self, rows: &RecordBatch, refused: &[(Item, String)]) -> Result<()> {
        for (item, why) in refused {
            // The stream of these rows has a checkpoint of its own, which may not come any more.
            tracing::error!(
                pipeline = self.cx.pipeline,
                sink = self.cx.name,
                key = item.key,
                why,
                "DynamoDB refused an item for good; it is passed over"
            );
            self.reject(rows, item.row, why)?;
        }
        Ok(())
    }

    fn reject(&mut self, rows: &RecordBatch, row: usize, why: &str) -> Result<()> {
        self.cx.counters.add("items_refused", 1);
        self.rejected.push(rows, row, why)
    }
}
