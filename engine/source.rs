//! What a source is: a set of partitions, each a stream that can be resumed from an offset.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::time::timestamp_type;

/// A slice of a source that is read in order: a shard, an ingest lane, a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct PartitionId(pub String);

/// Where reading resumes in a partition. Only the source that made it can read it; it is text so that
/// a checkpoint manifest can be read by people.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Offset(pub String);

/// The offset each partition resumes from.
pub type Offsets = BTreeMap<PartitionId, Offset>;

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a source has to read.
#[derive(Clone, Debug, Default)]
pub struct Partitions {
    /// Partitions to read, each with where it starts (none: at its beginning). One that is being read, or has
    /// ended in this run, is passed over, so a source may name all it knows every time.
    pub open: Vec<(PartitionId, Option<Offset>)>,
    /// Partitions that have ended and need not be remembered any longer.
    pub forget: Vec<PartitionId>,
    /// Ask again after this time, and at once when a partition has ended; none: there will never be more.
    pub again: Option<Duration>,
}

impl Partitions {
    /// Partitions that are all there will ever be. Each is resumed from the offset it has in `read`.
    pub fn fixed(ids: impl IntoIterator<Item = PartitionId>, read: &Offsets) -> Partitions {
        let resumed = |id: PartitionId| {
            let from = read.get(&id).cloned();
            (id, from)
        };
        Partitions {
            open: ids.into_iter().map(resumed).collect(),
            ..Partitions::default()
        }
    }

    /// The names of what there is to read.
    pub fn ids(self) -> impl Iterator<Item = PartitionId> {
        self.open.into_iter().map(|(id, _)| id)
    }
}

/// Rows read from one partition, and where to resume after them.
#[derive(Clone, Debug)]
pub struct SourceBatch {
    /// Rows in the source's schema; may be empty.
    pub rows: RecordBatch,
    /// Input that could not become rows, in [`invalid_schema`]; feeds `<source>.invalid`.
    pub invalid: Option<RecordBatch>,
    /// Rows of the tables that the source feeds besides, by name; feed `<source>.<table>`.
    pub tables: Tables,
    /// Resume here to read what follows this batch.
    pub offset: Offset,
}

/// A resumable stream of rows.
///
/// First start, reconnect and recovery take the same path: [`Source::read`] from an offset. The source
/// keeps no other state, and never sees barriers, backoff or metrics: those are the runtime's.
#[async_trait]
pub trait Source: Send + Sync {
    /// The rows' schema; the same for every partition and for the life of the source.
    fn schema(&self) -> SchemaRef;

    /// What there is to read. `read` has the offset of every partition that is known: of one that has ended the
    /// last, of one that is being read at least where that began, of others what the checkpoint says. A source
    /// without a fixed set of partitions is asked again ([`Partitions::again`]) and is read by one task per core,
    /// others by one task per partition.
    async fn partitions(&self, read: &Offsets) -> Result<Partitions>;

    /// Reads a partition from `from` (from its beginning if absent). The stream ends when a bounded
    /// partition is exhausted (its last offset says so, where the source may be asked for it again), or, after [`SourceContext::stop`] is cancelled, once everything that was
    /// acknowledged to a client has been yielded. An error of class retry makes the runtime read again
    /// from the last offset it saw.
    fn read(&self, partition: &PartitionId, from: Option<Offset>) -> BoxStream<'static, Result<SourceBatch>>;

    /// Everything before `done` is in a durable checkpoint and may be released. Idempotent.
    async fn commit(&self, done: &Offsets) -> Result<()>;

    /// Every sink has committed the checkpoint that covers everything before `done`: a client that waits for that may
    /// be told. It is the newest checkpoint, while `commit` is about the one before.
    async fn delivered(&self, _done: &Offsets) -> Result<()> {
        Ok(())
    }
}

/// What a connector gets to open a source.
#[derive(Clone, Debug)]
pub struct SourceContext {
    /// The date and the attempt, in a dated run; none in a pipeline that streams.
    pub run: Option<crate::run::DatedRun>,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Name of the source in the pipeline.
    pub name: String,
    /// The declared columns, with `received_at` where no event time is named.
    pub schema: SchemaRef,
    /// Index of the event-time column in `schema`.
    pub event_time: usize,
    /// The keys of the source that only this connector knows, as typed by its schema.
    pub options: serde_json::Value,
    /// A directory of this source's own under `--data-dir`.
    pub data_dir: PathBuf,
    /// Cancelled when the pipeline stops: accept nothing new, yield what was accepted, end.
    pub stop: CancellationToken,
    /// Counters of this source beyond what the runtime counts, by name and meaning.
    pub counters: crate::metrics::Counters,
}

/// A kind of source: what `type = "…"` names.
pub trait SourceConnector: Send + Sync {
    /// The value of `type`.
    fn name(&self) -> &'static str;

    /// JSON Schema of the keys only this connector knows.
    fn options(&self) -> schemars::Schema;

    /// Those of its keys that say what is read, as against how: with another value it is another source, for
    /// which the offsets of this one mean nothing.
    fn identity(&self) -> &'static [&'static str] {
        &[]
    }

    /// Checks without side effects what [`SourceConnector::open`] would refuse; run by `millstream check`.
    fn check(&self, _cx: &SourceContext) -> Result<()> {
        Ok(())
    }

    /// Whether a source with these options ends by itself, so that it can stand in a pipeline with a `[schedule]`.
    fn is_bounded(&self, _options: &serde_json::Value) -> bool {
        false
    }

    /// Where the source's input feeds several tables: their names and schemas, each a stream `<source>.<table>`.
    fn tables(&self, _cx: &SourceContext) -> Result<Option<Vec<(String, SchemaRef)>>> {
        Ok(None)
    }

    /// What lines of input feed into each of [`SourceConnector::tables`], line by line: for tests of pipelines.
    fn tables_of(&self, cx: &SourceContext, _lines: &[String]) -> Result<Vec<Tables>> {
        Err(Error::bug(format!(
            "{} feeds tables, and does not say how",
            cx.name
        )))
    }

    /// Where clients of the source wait until the sinks have their rows ([`Source::delivered`]): how long, at most.
    /// Checkpoints come more often then.
    fn awaits_delivery(&self, _options: &serde_json::Value) -> Option<Duration> {
        None
    }

    /// Opens the source. Called again after every restart of the pipeline.
    fn open(&self, cx: SourceContext) -> Result<Arc<dyn Source>>;
}

/// Reads connector options, which the schema has checked already, into their type.
pub fn options<T: serde::de::DeserializeOwned>(of: &serde_json::Value) -> Result<T> {
    serde_json::from_value(of.clone()).map_err(|e| Error::config(e.to_string()))
}

/// Rows of tables, by name.
pub type Tables = Vec<(String, RecordBatch)>;

/// Name of the table that a source with tables feeds with what could not become rows.
pub const ERRORS: &str = "pipeline_errors";

/// Name of the column that a source fills with the time of arrival.
pub const RECEIVED_AT: &str = "received_at";

/// Schema of every `<source>.invalid` stream.
///
/// | column | meaning |
/// |---|---|
/// | `received_at` | when the input arrived |
/// | `origin` | where it came from: path and row number, object and line |
/// | `reason` | why it is not a row |
/// | `raw` | the bytes as they came |
pub fn invalid_schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new(RECEIVED_AT, timestamp_type(), false),
            Field::new("origin", DataType::Utf8, false),
            Field::new("reason", DataType::Utf8, false),
            Field::new("raw", DataType::Binary, false),
        ]))
    });
    SCHEMA.clone()
}
