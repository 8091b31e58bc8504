//! The checked plan: what is left of a pipeline file once every name is resolved, every schema known and
//! every query planned. Made by [`crate::config`], run by [`crate::runtime`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;

use crate::pipeline::{LateRows, TestSpec};
use crate::schedule::Schedule;
use crate::secret::Secrets;
use crate::sql::SqlPlan;
use crate::table::{SharedTable, TableContext, TableFormat};
use crate::window::Window;

/// A pipeline that can run.
#[derive(Clone)]
pub struct Plan {
    /// Name of the pipeline.
    pub name: String,
    /// What it does, for people.
    pub description: Option<String>,
    /// Streams that come in.
    pub sources: Vec<SourceNode>,
    /// Dedups of streams, each after those it reads.
    pub dedups: Vec<DedupNode>,
    /// Windows over streams.
    pub windows: Vec<WindowNode>,
    /// Queries, each after the queries whose streams it reads.
    pub queries: Vec<SqlNode>,
    /// Reference tables, which queries join. They hold their rows, so a plan runs once at a time.
    pub tables: Vec<TableNode>,
    /// Where streams go.
    pub sinks: Vec<SinkNode>,
    /// Every stream there is, by name: sources, `<source>.invalid`, dedups, `<window>.late`, queries,
    /// `<sink>.rejected`.
    pub streams: BTreeMap<String, Stream>,
    /// Time from one checkpoint to the next.
    pub checkpoint_interval: Duration,
    /// When the pipeline has a run per date: when its dates are due.
    pub schedule: Option<Schedule>,
    /// The file's tests.
    pub tests: Vec<TestSpec>,
    /// What the file and the variables in it say that must not be printed.
    pub secrets: Secrets,
}

impl Plan {
    /// The sink that makes `stream` from what it refuses, if one does.
    pub fn rejecting(&self, stream: &str) -> Option<&SinkNode> {
        let name = rejecting_sink(stream)?;
        self.sinks.iter().find(|s| s.name == name)
    }
}

/// The stream of the rows that a sink refuses.
pub fn rejected(sink: &str) -> String {
    format!("{sink}{REJECTED}")
}

/// The sink whose refused rows a stream would be, by its name.
pub(crate) fn rejecting_sink(stream: &str) -> Option<&str> {
    stream.strip_suffix(REJECTED)
}

const REJECTED: &str = ".rejected";

/// A stream's shape.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Columns.
    pub schema: SchemaRef,
    /// Index of the event-time column, where the stream has one.
    pub event_time: Option<usize>,
}

/// A source.
#[derive(Clone, Debug)]
pub struct SourceNode {
    /// Name, also of its stream.
    pub name: String,
    /// The connector.
    pub kind: String,
    /// Columns.
    pub schema: SchemaRef,
    /// Index of the event-time column.
    pub event_time: usize,
    /// The watermark is this far behind the largest event time seen.
    pub max_out_of_orderness: Duration,
    /// After this long without rows, wall-clock time moves the windows on.
    pub idle_after: Duration,
    /// Rows further ahead of the wall clock do not advance the watermark.
    pub max_future: Duration,
    /// Drop rows whose key was seen before.
    pub dedup: Option<Dedup>,
    /// The tables that it feeds, each a stream `<name>.<table>`; mostly none.
    pub tables: Vec<String>,
    /// The connector's own keys.
    pub options: serde_json::Value,
}

/// Drop rows whose key was seen before.
#[derive(Clone, Debug)]
pub struct Dedup {
    /// Indices of the key columns.
    pub key: Vec<usize>,
    /// How long, in event time, a key is remembered.
    pub within: Duration,
}

/// A dedup of a stream, in the stream's schema.
#[derive(Clone, Debug)]
pub struct DedupNode {
    /// Name, also of its stream.
    pub name: String,
    /// The stream whose rows it takes.
    pub input: String,
    /// Columns.
    pub schema: SchemaRef,
    /// Index of the event-time column.
    pub event_time: usize,
    /// What it drops.
    pub dedup: Dedup,
}

impl SourceNode {
    /// The source's `dedup` as a node that makes the source's stream from what its partitions hand on.
    pub fn dedup_node(&self) -> Option<DedupNode> {
        Some(DedupNode {
            name: self.name.clone(),
            input: self.name.clone(),
            schema: self.schema.clone(),
            event_time: self.event_time,
            dedup: self.dedup.clone()?,
        })
    }
}

/// A window over a stream. Its late rows are the stream `<name>.late`, in the input's schema, unless they are
/// dropped.
#[derive(Clone, Debug)]
pub struct WindowNode {
    /// Name, a table in SQL.
    pub name: String,
    /// The stream that is cut.
    pub input: String,
    /// How it is cut.
    pub window: Window,
    /// Index of the event-time column in the input's schema.
    pub event_time: usize,
    /// Whether late rows are a stream or dropped.
    pub late: LateRows,
    /// How long after its end a window fires again for rows that come late; none when it fires once.
    pub lateness: Option<Duration>,
}

/// A query.
#[derive(Clone)]
pub struct SqlNode {
    /// Name, also of its stream.
    pub name: String,
    /// The query text.
    pub query: String,
    /// The planned query; `plan.inputs()` names one stream (stateless), two (an interval join), or windows.
    pub plan: Arc<dyn SqlPlan>,
}

/// A reference table.
#[derive(Clone, Debug)]
pub struct TableNode {
    /// Name, a table in SQL.
    pub name: String,
    /// A file, or `s3://bucket/key`.
    pub path: String,
    /// How its rows are written; absent: by the ending of `path`.
    pub format: Option<TableFormat>,
    /// How often it is read again; absent: never.
    pub refresh: Option<Duration>,
    /// Its rows, once they are read.
    pub rows: SharedTable,
    /// The loader's own keys.
    pub options: serde_json::Value,
}

impl TableNode {
    /// What its loader needs to know.
    pub fn context(&self) -> TableContext {
        TableContext {
            name: self.name.clone(),
            path: self.path.clone(),
            format: self.format,
            schema: self.rows.schema().clone(),
            options: self.options.clone(),
        }
    }
}

/// A sink.
#[derive(Clone, Debug)]
pub struct SinkNode {
    /// Name.
    pub name: String,
    /// The connector.
    pub kind: String,
    /// The stream it takes.
    pub input: String,
    /// The connector's own keys.
    pub options: serde_json::Value,
}
