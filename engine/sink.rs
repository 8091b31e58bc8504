//! What a sink is: write, prepare, commit.

use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use crate::error::Result;
use crate::message::{Barrier, Epoch};

/// What a sink has promised to publish at a checkpoint, in a form of its own that it can act on after a
/// crash, in a new process. It stands in the checkpoint's manifest, so it stays small: names, not rows,
/// where rows can be many.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Committable(pub serde_json::Value);

/// The outside end of a pipeline.
///
/// Order of calls: any number of `write`s, then `prepare(epoch)`, then (once the checkpoint is durable,
/// perhaps after more writes) `commit(epoch)`. After a crash a fresh sink first gets
/// `commit` with what the last durable checkpoint holds, whether or not that commit happened before:
/// commit is idempotent. A call that failed with class retry is made again with the same arguments.
#[async_trait]
pub trait Sink: Send {
    /// Takes rows. They may stay in memory until `prepare`.
    async fn write(&mut self, rows: RecordBatch) -> Result<()>;

    /// Makes durable, but not visible, everything written so far, and says what to publish. With
    /// `barrier.last` nothing may stay open.
    async fn prepare(&mut self, barrier: Barrier) -> Result<Committable>;

    /// Publishes what was prepared. Idempotent.
    async fn commit(&mut self, epoch: Epoch, what: Committable) -> Result<()>;

    /// Takes the rows that the sink has refused since it was asked last, in
    /// [`invalid_schema`](crate::source::invalid_schema) with the row as one line of JSON in `raw`. Asked after every
    /// `write` and `prepare` that went well: what a call refuses that is made again must be here once. The rows form
    /// the stream `<sink>.rejected`, so a checkpoint that holds the sink's rows holds those, too.
    fn rejected(&mut self) -> Option<RecordBatch> {
        None
    }
}

/// What a connector gets to open a sink.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// The date and the attempt, in a dated run; none in a pipeline that streams.
    pub run: Option<crate::run::DatedRun>,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Name of the sink in the pipeline.
    pub name: String,
    /// Name of the stream it takes.
    pub input: String,
    /// Schema of the stream it takes.
    pub schema: SchemaRef,
    /// Index in `schema` of the stream's event time, where it has one: the source's event-time column,
    /// or `window_start` of a windowed stream.
    pub event_time: Option<usize>,
    /// The keys of the sink that only this connector knows, as typed by its schema.
    pub options: serde_json::Value,
    /// A directory of this sink's own under `--data-dir`.
    pub data_dir: PathBuf,
    /// Counters of this sink beyond what the runtime counts, by name and meaning.
    pub counters: crate::metrics::Counters,
}

impl SinkContext {
    /// A directory of this sink's own that all runs of its pipeline share, for what it may forget. Without dates it is
    /// that of the sink.
    pub fn notes_dir(&self) -> PathBuf {
        let run = self.run.as_ref().map(|run| run.date.to_string());
        let of_run = self.data_dir.ancestors().find(|dir| {
            let name = dir.file_name().and_then(|name| name.to_str());
            run.is_some() && name == run.as_deref()
        });
        match of_run.and_then(|dir| Some((dir, dir.parent()?))) {
            Some((dir, runs)) => runs
                .join("notes")
                .join(self.data_dir.strip_prefix(dir).unwrap_or(dir)),
            None => self.data_dir.clone(),
        }
    }
}

/// A kind of sink: what `type = "…"` names.
#[async_trait]
pub trait SinkConnector: Send + Sync {
    /// The value of `type`.
    fn name(&self) -> &'static str;

    /// JSON Schema of the keys only this connector knows.
    fn options(&self) -> schemars::Schema;

    /// Those of its keys that say where rows go, as against how: with another value it is another sink, which
    /// cannot keep what this one promised.
    fn identity(&self) -> &'static [&'static str] {
        &[]
    }

    /// Checks without side effects what [`SinkConnector::open`] would refuse, such as columns that the
    /// input does not have; run by `millstream check`.
    fn check(&self, _cx: &SinkContext) -> Result<()> {
        Ok(())
    }

    /// Whether the sink can take a window's result again, as a higher revision of what it took before, and
    /// whoever reads it can tell which one holds. One that adds up or only appends cannot.
    fn takes_revisions(&self) -> bool {
        false
    }

    /// Whether its sinks refuse rows, so that there is a stream `<sink>.rejected`.
    fn rejects(&self) -> bool {
        false
    }

    /// Opens the sink. Called again after every restart of the pipeline.
    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>>;
}
