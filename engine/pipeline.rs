//! The pipeline file exactly as typed.
//!
//! These types are the file format: their doc comments become the JSON Schema that editors complete from
//! (`millstream schema pipeline`), and the schema is what [`crate::config`] checks a file against, so that
//! every error of a file is found in one pass. After [`crate::plan`] nobody reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::table::TableFormat;

/// A pipeline: sources, windows over them, SQL over those, sinks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineFile {
    /// Name of the pipeline: lower-case letters, digits, `-` and `_`.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9_-]*$"))]
    pub name: String,
    /// What the pipeline does, for people.
    #[serde(default)]
    pub description: Option<String>,
    /// Streams that come in. The name of a source is the name of its stream.
    #[serde(default)]
    pub source: BTreeMap<String, SourceSpec>,
    /// Streams without the rows whose key was seen before. A dedup's name is the stream of what it lets pass.
    #[serde(default)]
    pub dedup: BTreeMap<String, DedupStreamSpec>,
    /// Windows over streams. A window's name is a table in SQL.
    #[serde(default)]
    pub window: BTreeMap<String, WindowSpec>,
    /// Queries. A query's name is the stream of its results.
    #[serde(default)]
    pub sql: BTreeMap<String, SqlSpec>,
    /// Reference tables, which queries join with streams and windows. A table's name is a table in SQL.
    #[serde(default)]
    pub table: BTreeMap<String, TableSpec>,
    /// Where streams go.
    #[serde(default)]
    pub sink: BTreeMap<String, SinkSpec>,
    /// Checkpoints of this pipeline.
    #[serde(default)]
    pub checkpoint: CheckpointSpec,
    /// Makes the pipeline a bounded one, which has a run per date.
    #[serde(default)]
    pub schedule: Option<ScheduleSpec>,
    /// Tests of this pipeline, run by `millstream test`.
    #[serde(default)]
    pub test: Vec<TestSpec>,
}

/// A stream that comes in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct SourceSpec {
    /// The kind of source, such as `http`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The timestamp column that says when the row happened. Absent: `received_at`, the time of arrival.
    #[serde(default)]
    pub event_time: Option<String>,
    /// How far a row may lag behind the newest one and still be in time. The watermark is this far behind
    /// the largest event time seen.
    #[serde(default = "default_out_of_orderness")]
    pub max_out_of_orderness: Span,
    /// After this long without rows, wall-clock time moves the windows on.
    #[serde(default = "default_idle_after")]
    pub idle_after: Span,
    /// A row stamped further than this ahead of the wall clock does not advance the watermark.
    #[serde(default = "default_max_future")]
    pub max_future: Span,
    /// Drop rows whose key was seen before.
    #[serde(default)]
    pub dedup: Option<DedupSpec>,
    /// The columns, each `"<type>"` or `"<type> not null"`; types: string, bigint, int, double, boolean,
    /// timestamp, date. Absent only where the connector's own keys say what the input is made of.
    #[serde(default)]
    pub columns: Columns,
    /// The keys of the connector.
    #[serde(flatten)]
    #[schemars(skip)]
    pub options: serde_json::Map<String, serde_json::Value>,
}

fn default_out_of_orderness() -> Span {
    Span(Duration::from_secs(5))
}

fn default_idle_after() -> Span {
    Span(Duration::from_secs(10))
}

fn default_max_future() -> Span {
    Span(Duration::from_secs(300))
}

/// Drop rows whose key was seen before.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupSpec {
    /// The columns that together name a row.
    pub key: Vec<String>,
    /// How long, in event time, a key is remembered.
    pub within: Span,
}

/// A stream without the rows whose key was seen before: of several the first passes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupStreamSpec {
    /// The stream whose rows it takes.
    pub input: String,
    /// The columns that together name a row.
    pub key: Vec<String>,
    /// How long, in event time, a key is remembered.
    pub within: Span,
}

/// A window over a stream.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    /// The stream that is cut into windows.
    pub input: String,
    /// How it is cut.
    #[serde(rename = "type")]
    pub kind: WindowKind,
    /// Length of a window (tumbling, hopping, cumulative).
    #[serde(default)]
    pub size: Option<Span>,
    /// Distance from one window's start to the next one's (hopping).
    #[serde(default)]
    pub slide: Option<Span>,
    /// How much each window grows by (cumulative).
    #[serde(default)]
    pub step: Option<Span>,
    /// Silence that ends a session (session).
    #[serde(default)]
    pub gap: Option<Span>,
    /// The columns whose values have a session each (session).
    #[serde(default)]
    pub key: Option<Vec<String>>,
    /// Shifts windows from their alignment to the Unix epoch.
    #[serde(default)]
    pub offset: Option<Span>,
    /// Where rows go that come after their window has closed. They are counted either way.
    #[serde(default)]
    pub late: LateRows,
    /// How long after its end a window still takes rows, to fire again with them; needs `on_late`
    /// (tumbling, hopping, cumulative). The window's state is kept for as long.
    #[serde(default)]
    pub allowed_lateness: Option<Span>,
    /// What a row does that comes after its window has fired, but within `allowed_lateness`.
    #[serde(default)]
    pub on_late: Option<OnLate>,
}

/// Where rows go that come after their window has closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LateRows {
    /// To the stream `<window>.late`.
    #[default]
    Side,
    /// Nowhere: there is no stream `<window>.late`.
    Drop,
}

/// What a row does that comes after its window has fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLate {
    /// The window fires again with its full result. Results have a last column `revision`: 0 for the first
    /// firing of a window, then 1, 2 and so on. They can go to sinks only that replace what they have.
    Update,
}

/// How a stream is cut into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WindowKind {
    /// Windows of one size, end to end.
    Tumbling,
    /// Windows of one size that overlap.
    Hopping,
    /// Windows that end when a key falls silent.
    Session,
    /// Windows that grow step by step up to their size.
    Cumulative,
}

/// A query.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlSpec {
    /// DataFusion SQL over streams (row by row) or windows (once per window).
    pub query: String,
    /// Fire also windows without rows.
    #[serde(default)]
    pub emit_empty: bool,
    /// Most bytes of rows that the query keeps in memory until their windows close, over all partitions; past
    /// it the pipeline fails and names the query. Rows are kept only where no aggregate stands right above a
    /// window: in a join of rows, a ranking, a plain selection. At least 1MiB.
    #[serde(default = "default_state_limit")]
    pub state_limit: Bytes,
}

fn default_state_limit() -> Bytes {
    Bytes(1 << 30)
}

/// A reference table: rows that are read as a whole and joined by queries.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct TableSpec {
    /// The file with the rows, relative to the working directory, or `s3://bucket/key`. Unpacked if it ends in
    /// `.gz` or `.zst`.
    #[schemars(length(min = 1))]
    pub path: String,
    /// How the rows are written. Absent: by the ending of `path`.
    #[serde(default)]
    pub format: Option<TableFormat>,
    /// How often the rows are read again. Absent: they are read once, at the start.
    #[serde(default)]
    pub refresh: Option<Span>,
    /// The columns that queries see, each `"<type>"` or `"<type> not null"`, with the types of sources. Others
    /// that the file has are left out.
    pub columns: Columns,
    /// The keys of the loader.
    #[serde(flatten)]
    #[schemars(skip)]
    pub options: serde_json::Map<String, serde_json::Value>,
}

/// Where a stream goes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct SinkSpec {
    /// The kind of sink, such as `console`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The stream it takes; also `<sink>.rejected`, the rows that another sink refuses. `<source>.*`: every table that
    /// the source feeds, each with a sink of its own, `<sink>.<table>`.
    pub input: String,
    /// The keys of the connector.
    #[serde(flatten)]
    #[schemars(skip)]
    pub options: serde_json::Map<String, serde_json::Value>,
}

/// Checkpoints of a pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointSpec {
    /// Time from one checkpoint to the next. Sinks publish at checkpoints. Absent: `10s`, or `200ms` where a source
    /// answers its clients only when the sinks have their rows.
    #[serde(default)]
    pub interval: Option<Span>,
}

/// When a bounded pipeline runs. In any string of its file `${date}` is the date of the run, also `${date:%Y/%m/%d}`,
/// `${date+1d:%d}` and `${date-7d}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleSpec {
    /// When due dates are looked for.
    #[serde(default)]
    pub every: Option<Every>,
    /// As `every`, as a cron expression in UTC: `0 3 * * *`.
    #[serde(default)]
    pub cron: Option<String>,
    /// The first date. Absent: the newest that is old enough when the pipeline is first seen.
    #[serde(default)]
    pub start: Option<String>,
    /// The last date, inclusive. Absent: for ever.
    #[serde(default)]
    pub end: Option<String>,
    /// A date is old enough this long after its 00:00 UTC.
    #[serde(default = "default_available_after")]
    pub available_after: Span,
    /// An object or a file that has to exist before a date runs; until then the date waits.
    #[serde(default)]
    pub marker: Option<String>,
    /// `false`: of the dates that have not begun only the newest runs.
    #[serde(default = "yes")]
    pub catch_up: bool,
    /// Dates that transform side by side. Loads are in order of dates.
    #[serde(default = "default_parallelism")]
    #[schemars(range(min = 1, max = 100))]
    pub parallelism: u32,
    /// How a date that failed is tried again.
    #[serde(default)]
    pub retry: RetrySpec,
    /// How long a phase of a run may take.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

/// How often due dates are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// Once a day.
    Daily,
}

/// How a date that failed is tried again.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySpec {
    /// The wait after the first failure; doubles with each.
    pub first: Span,
    /// The longest wait.
    pub longest: Span,
    /// A date that has failed for this long is given up.
    pub give_up_after: Span,
}

impl Default for RetrySpec {
    fn default() -> RetrySpec {
        RetrySpec {
            first: Span(Duration::from_secs(300)),
            longest: Span(Duration::from_secs(3600)),
            give_up_after: Span(Duration::from_secs(24 * 3600)),
        }
    }
}

fn default_available_after() -> Span {
    Span(Duration::from_secs(48 * 3600))
}

fn default_parallelism() -> u32 {
    3
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(6 * 3600))
}

fn yes() -> bool {
    true
}

/// A test: rows in, rows out.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TestSpec {
    /// What the test shows.
    pub name: String,
    /// The date of the run, in a pipeline with a `[schedule]`: `2026-11-24`.
    #[serde(default)]
    pub date: Option<String>,
    /// Rows in, by source, in order of arrival: JSON objects with the source's columns; of a log, its lines.
    #[schemars(with = "BTreeMap<String, Vec<BTreeMap<String, serde_json::Value>>>")]
    pub input: BTreeMap<String, Vec<BTreeMap<String, toml::Value>>>,
    /// Rows of reference tables, by table; one that is not named has none. Their files are not read.
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, Vec<BTreeMap<String, serde_json::Value>>>")]
    pub table: BTreeMap<String, Vec<BTreeMap<String, toml::Value>>>,
    /// Rows out, by stream, in any order. Streams that are not named are not checked; columns that are not
    /// named are not compared.
    #[schemars(with = "BTreeMap<String, Vec<BTreeMap<String, serde_json::Value>>>")]
    pub expect: BTreeMap<String, Vec<BTreeMap<String, toml::Value>>>,
}

/// Column names and types, in the order of the file.
#[derive(Clone, Debug, Default)]
pub struct Columns(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Columns {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> serde::de::Visitor<'de> for InOrder {
            type Value = Columns;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table of column = \"type\"")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Columns, A::Error> {
                let mut columns = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    columns.push(entry);
                }
                Ok(Columns(columns))
            }
        }
        from.deserialize_map(InOrder)
    }
}

impl JsonSchema for Columns {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Columns".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "column = \"type\" or \"type not null\"",
            "additionalProperties": { "type": "string", "format": "column-type" },
        })
    }
}

/// A duration as typed: `"5s"`, `"1m"`, `"1h 30m"`, `"250ms"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// As it would be typed; the JSON Schema shows defaults this way.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(self.0))
    }
}

impl std::str::FromStr for Span {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        humantime::parse_duration(text).map(Span).map_err(|e| {
            format!("{text:?} is not a duration: {e}; write for example \"5s\", \"1m\" or \"250ms\"")
        })
    }
}

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "duration",
            "description": "a duration such as \"250ms\", \"5s\", \"1m\" or \"1h 30m\"",
        })
    }
}

/// A size in bytes as typed: `"128MB"`, `"4MiB"`, `"512"`. `MB` is 10⁶ bytes, `MiB` 2²⁰.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// As it would be typed, in the largest unit that divides it.
impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const UNITS: [(&str, u64); 6] = [
            ("GiB", 1 << 30),
            ("GB", 1_000_000_000),
            ("MiB", 1 << 20),
            ("MB", 1_000_000),
            ("KiB", 1 << 10),
            ("KB", 1_000),
        ];
        let fits = |(_, scale): &&(&str, u64)| self.0 > 0 && self.0.is_multiple_of(*scale);
        match UNITS.iter().find(fits) {
            Some((unit, scale)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}B", self.0),
        }
    }
}

/// As it would be typed; the JSON Schema shows defaults this way.
impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl std::str::FromStr for Bytes {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        const UNITS: [(&str, u64); 8] = [
            ("", 1),
            ("B", 1),
            ("KB", 1_000),
            ("MB", 1_000_000),
            ("GB", 1_000_000_000),
            ("KIB", 1 << 10),
            ("MIB", 1 << 20),
            ("GIB", 1 << 30),
        ];
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
        let unit = text[digits.len()..].trim().to_ascii_uppercase();
        let scale = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .map(|(_, scale)| *scale);
        digits
            .parse::<u64>()
            .ok()
            .zip(scale)
            .and_then(|(count, scale)| count.checked_mul(scale))
            .map(Bytes)
            .ok_or_else(|| {
                format!("{text:?} is not a size in bytes; write for example \"128MB\" or \"4MiB\"")
            })
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bytes".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "bytes",
            "description": "a size in bytes such as \"128MB\" or \"4MiB\"",
        })
    }
}
