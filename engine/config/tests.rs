//! Every file in `cases/` is loaded against a registry of stand-ins and must give exactly the text beside
//! it: the rendered diagnostics, or, for a file without any, the plan. `UPDATE_CASES=1 cargo test` writes
//! the texts anew; read the difference before committing it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Diagnostic, PipelineSource, load, schema};
use crate::error::{Error, Result};
use crate::explain;
use crate::message::Batch;
use crate::operator::{Operator, Output};
use crate::pipeline::{Bytes, PipelineFile, Span};
use crate::registry::Registry;
use crate::sink::{Sink, SinkConnector, SinkContext};
use crate::source::{Source, SourceConnector, SourceContext, options};
use crate::sql::{REVISION, SqlError, SqlExplain, SqlPlan, SqlPlanner, SqlRequest, SqlTable, WINDOW_START};
use crate::table::{ReferenceTable, TableContext, TableLoader};
use crate::window::Window;

#[test]
fn cases() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/cases");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    files.sort();
    assert!(!files.is_empty());
    let wrong: Vec<String> = files.iter().filter_map(|file| differs(file)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a case gives, where that is not what stands beside it.
fn differs(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    let got = outcome(name, &text);
    let beside = file.with_extension("txt");
    if std::env::var_os("UPDATE_CASES").is_some() {
        std::fs::write(&beside, &got).unwrap();
    }
    let expect = std::fs::read_to_string(&beside).unwrap_or_default();
    (got != expect).then(|| format!("--- {name} expected\n{expect}--- got\n{got}"))
}

fn outcome(file: &str, text: &str) -> String {
    let vars = |name: &str| (name == "LAKE").then(|| "/lake".to_owned());
    let vars = &vars;
    match load(
        &PipelineSource {
            file,
            text,
            vars,
            date: None,
        },
        &registry(),
    ) {
        Ok(plan) => format!("{}\n{}", explain::text(&plan), explain::mermaid(&plan)),
        Err(diagnostics) => diagnostics.iter().map(|d| d.render() + "\n").collect(),
    }
}

/// Whatever is left of a file, the answer is a plan or a reason, at a place that the file has.
#[test]
fn a_mutilated_file_is_answered() {
    let whole = case("right.toml");
    let lines: Vec<&str> = whole.lines().collect();
    let without = |i: usize| [&lines[..i], &lines[i + 1..]].concat().join("\n");
    let cut = |i: usize| whole.get(..i).unwrap_or_default().to_owned();
    let cuts = (0..whole.len()).step_by(11).map(cut);
    let quotes = whole.match_indices('"').step_by(3);
    let unquoted = quotes.map(|(i, _)| whole[..i].to_owned() + &whole[i + 1..]);
    let mut refused = 0;
    for text in (0..lines.len()).map(without).chain(cuts).chain(unquoted) {
        let (file, vars) = ("cut.toml", &|_: &str| None);
        if let Err(diagnostics) = load(
            &PipelineSource {
                file,
                text: &text,
                vars,
                date: None,
            },
            &registry(),
        ) {
            refused += 1;
            assert!(!diagnostics.is_empty(), "{text}");
            for d in diagnostics {
                let line = text.split('\n').nth(d.line - 1);
                assert!(
                    line.is_some_and(|l| d.column <= l.chars().count() + 1),
                    "{d}\n{text}"
                );
            }
        }
    }
    assert!(refused > 300, "{refused}");
}

fn case(name: &str) -> String {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/cases");
    std::fs::read_to_string(cases.join(name)).unwrap()
}

/// Tables with known keys refuse others, in the schema as in the check.
#[test]
fn the_schema_is_closed_and_complete() {
    let schema = schema(&registry());
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let http = &schema["$defs"]["source.http"];
    assert_eq!(http["properties"]["type"]["const"], "http");
    assert_eq!(http["required"], serde_json::json!(["type", "path"]));
    assert_eq!(http["additionalProperties"], false);
    assert!(http["properties"]["max_out_of_orderness"]["default"].is_string());
    let mut tables = 0;
    every_object(&schema, &mut |object| {
        if object.contains_key("properties") && object["type"] == "object" {
            tables += 1;
            assert_eq!(object["additionalProperties"], false, "{object:?}");
        }
        if let Some(Value::String(to)) = object.get("$ref") {
            assert!(schema.pointer(&to[1..]).is_some(), "{to}");
        }
    });
    assert!(tables > 10, "{tables}");
}

/// Two connectors may call different things by one name.
#[test]
fn definitions_of_connectors_do_not_collide() {
    let schema = schema(&registry());
    assert_eq!(schema["$defs"]["Format"]["type"], "object");
    let console = &schema["$defs"]["sink.console"]["properties"]["format"];
    assert!(
        console.to_string().contains("#/$defs/sink.console.Format"),
        "{console}"
    );
}

/// What the check takes, the types take: also a file with everything in it.
#[test]
fn the_types_read_what_the_schema_allows() {
    let text = case("right.toml");
    let file: PipelineFile = toml::from_str(&text).unwrap();
    assert_eq!(file.sink.len(), 5);
}

#[test]
fn the_graph_has_an_edge_for_every_input() {
    let text = case("right.toml");
    let vars = |_: &str| Some("/lake".to_owned());
    let (file, text) = ("right.toml", &text);
    let plan = load(
        &PipelineSource {
            file,
            text,
            vars: &vars,
            date: None,
        },
        &registry(),
    )
    .ok()
    .unwrap();
    let names: Vec<&str> = plan.streams.keys().map(String::as_str).collect();
    assert!(names.contains(&"clicks_by_minute.late") && names.contains(&"impressions.invalid"));
    let graph = explain::json(&plan);
    let ids: Vec<&Value> = graph["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| &n["id"])
        .collect();
    let edges = graph["edges"].as_array().unwrap();
    for edge in edges {
        assert!(
            ids.contains(&&edge["from"]) && ids.contains(&&edge["to"]),
            "{edge}"
        );
    }
    assert_eq!(edges.len(), plan.windows.len() + plan.sinks.len() + 4);
}

/// Also where the check of the source found nothing, a moment before.
#[test]
fn what_was_away_is_told_apart_from_what_is_wrong() {
    let text = case("logs.toml");
    let tables = text
        .lines()
        .find(|line| line.starts_with("tables = "))
        .expect("a log");
    let text = &text.replace(tables, "tables = [\"away\"]");
    let wrong = |text: &str| {
        let source = PipelineSource {
            file: "logs.toml",
            text,
            vars: &|_| None,
            date: None,
        };
        load(&source, &registry()).err().unwrap_or_default()
    };
    let problems = wrong(text);
    let away = |problem: &&Diagnostic| problem.message.ends_with("which is away");
    assert!(
        problems.iter().find(away).is_some_and(|problem| problem.passing),
        "{problems:?}"
    );
    let problems = wrong(&case("logs.toml").replace("\"console\"", "\"consol\""));
    assert!(
        !problems.is_empty() && !problems.iter().any(|problem| problem.passing),
        "{problems:?}"
    );
}

fn every_object(value: &Value, check: &mut impl FnMut(&serde_json::Map<String, Value>)) {
    match value {
        Value::Object(members) => {
            check(members);
            members.values().for_each(|v| every_object(v, check));
        }
        Value::Array(items) => items.iter().for_each(|v| every_object(v, check)),
        _ => {}
    }
}

fn registry() -> Registry {
    Registry::new(Arc::new(FakeSql::default()))
        .tables(Tables)
        .source(Http)
        .source(Generate)
        .source(Log)
        .sink(Console)
        .sink(CloudWatch)
        .sink(Parquet)
}

struct Http;

/// Rows over HTTP.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct HttpOptions {
    /// Where clients post. A path of the listen address.
    #[schemars(regex(pattern = "^/"))]
    path: String,
    /// The JSON key that holds the array of rows.
    records: Option<String>,
    /// When a request is answered.
    #[serde(default)]
    ack: Ack,
    /// Most rows per request.
    #[serde(default)]
    max_rows: Option<u32>,
    #[serde(default)]
    max_bytes: Option<Bytes>,
    /// How rows are written.
    #[serde(default)]
    format: Option<Format>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Ack {
    /// After the rows are on disk.
    #[default]
    Durable,
    /// At once.
    Memory,
    /// When the sinks have them.
    Delivered,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Format {
    strict: bool,
}

impl SourceConnector for Http {
    fn name(&self) -> &'static str {
        "http"
    }
    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(HttpOptions)
    }
    fn awaits_delivery(&self, options: &Value) -> Option<Duration> {
        (options["ack"] == "delivered").then_some(Duration::from_secs(10))
    }
    fn open(&self, _: SourceContext) -> Result<Arc<dyn Source>> {
        Err(Error::bug("not in this test"))
    }
}

struct Generate;

/// Rows out of nothing.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GenerateOptions {
    /// Rows per second.
    rate: f64,
}

impl SourceConnector for Generate {
    fn name(&self) -> &'static str {
        "generate"
    }
    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(GenerateOptions)
    }
    fn check(&self, cx: &SourceContext) -> Result<()> {
        let GenerateOptions { rate } = options(&cx.options)?;
        match rate > 0.0 {
            true => Ok(()),
            false => Err(Error::config("`rate` must be more than nothing")),
        }
    }
    fn open(&self, _: SourceContext) -> Result<Arc<dyn Source>> {
        Err(Error::bug("not in this test"))
    }
}

struct Log;

/// Lines that feed tables.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LogOptions {
    /// Their names.
    tables: Vec<String>,
}

impl SourceConnector for Log {
    fn name(&self) -> &'static str {
        "log"
    }
    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(LogOptions)
    }
    fn tables(&self, cx: &SourceContext) -> Result<Option<Vec<(String, SchemaRef)>>> {
        let LogOptions { tables } = options(&cx.options)?;
        if tables.contains(&"away".to_owned()) {
            return Err(Error::retry("what they are is written elsewhere, which is away"));
        }
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        Ok(Some(
            tables.into_iter().map(|table| (table, schema.clone())).collect(),
        ))
    }
    fn open(&self, _: SourceContext) -> Result<Arc<dyn Source>> {
        Err(Error::bug("not in this test"))
    }
}

struct Console;

mod console {
    use super::*;

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    pub enum Format {
        Table,
        Json,
    }

    /// Rows on standard output.
    #[derive(Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    pub struct ConsoleOptions {
        pub format: Option<Format>,
    }
}

struct CloudWatch;

/// Metrics.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct CloudWatchOptions {
    namespace: String,
    /// The column with the time of the data points.
    timestamp: String,
    #[schemars(length(min = 1))]
    metrics: Vec<Metric>,
    token: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Metric {
    /// The metric's name.
    name: String,
    /// The column with the value.
    value: String,
    unit: Option<String>,
}

struct Parquet;

/// A lake.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct ParquetOptions {
    path: String,
    #[serde(default)]
    partition_by: Vec<String>,
    roll: Option<Roll>,
}

/// When a file is complete.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code)]
struct Roll {
    size: Option<Bytes>,
    interval: Option<Span>,
}

fn has_column(cx: &SinkContext, name: &str) -> Result<()> {
    let known = cx.schema.index_of(name).is_ok();
    known
        .then_some(())
        .ok_or_else(|| Error::config(format!("stream {} has no column \"{name}\"", cx.input)))
}

macro_rules! sink {
    ($connector:ty, $name:literal, $options:ty, $revisions:literal, $rejects:literal, $check:expr) => {
        #[async_trait]
        impl SinkConnector for $connector {
            fn name(&self) -> &'static str {
                $name
            }
            fn options(&self) -> schemars::Schema {
                schemars::schema_for!($options)
            }
            fn check(&self, cx: &SinkContext) -> Result<()> {
                let check: fn(&SinkContext, $options) -> Result<()> = $check;
                check(cx, options(&cx.options)?)
            }
            fn takes_revisions(&self) -> bool {
                $revisions
            }
            fn rejects(&self) -> bool {
                $rejects
            }
            async fn open(&self, _: SinkContext) -> Result<Box<dyn Sink>> {
                Err(Error::bug("not in this test"))
            }
        }
    };
}

sink!(
    Console,
    "console",
    console::ConsoleOptions,
    true,
    false,
    |_, _| Ok(())
);
sink!(Parquet, "parquet", ParquetOptions, false, false, |_, _| Ok(()));
sink!(
    CloudWatch,
    "cloudwatch",
    CloudWatchOptions,
    false,
    true,
    |cx, options| {
        has_column(cx, &options.timestamp)?;
        options.metrics.iter().try_for_each(|m| has_column(cx, &m.value))
    }
);

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)]
struct TableOptions {
    /// Region of the bucket.
    #[serde(default)]
    region: Option<String>,
}

struct Tables;

#[async_trait]
impl TableLoader for Tables {
    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(TableOptions)
    }
    fn check(&self, table: &TableContext) -> Result<()> {
        match table.path.starts_with("s4:") {
            true => Err(Error::config(format!("there is nothing like {:?}", table.path))),
            false => Ok(()),
        }
    }
    async fn load(&self, _: &TableContext) -> Result<Vec<RecordBatch>> {
        Err(Error::bug("not in this test"))
    }
}

/// Understands `SELECT column, … FROM table [, table]`, where `count(*) AS n` and `window_start() AS at` are
/// columns too.
#[derive(Default)]
struct FakeSql {
    tables: Vec<ReferenceTable>,
}

struct Nothing;

impl Operator for Nothing {
    fn on_batch(&mut self, _: usize, _: Batch, _: &mut Output) -> Result<()> {
        Err(Error::bug("not in this test"))
    }
}

struct FakePlan {
    schema: SchemaRef,
    inputs: Vec<String>,
    references: Vec<String>,
    windowed: bool,
}

impl SqlPlanner for FakeSql {
    fn plan(&self, request: &SqlRequest<'_>) -> Result<Arc<dyn SqlPlan>, Vec<SqlError>> {
        let text = request.query;
        let at = |part: &str| {
            let start = part.as_ptr() as usize - text.as_ptr() as usize;
            Some(start..start + part.len())
        };
        let fail = |part: &str, message: String| SqlError {
            message,
            at: at(part),
        };
        let Some((select, from)) = text.trim_end().split_once("FROM ") else {
            return Err(vec![SqlError {
                message: "no FROM".into(),
                at: None,
            }]);
        };
        let mut errors = Vec::new();
        let mut tables: Vec<&SqlTable> = Vec::new();
        let mut references: Vec<&ReferenceTable> = Vec::new();
        for name in from.split(',').map(str::trim) {
            match request.tables.iter().find(|t| t.name == name) {
                Some(table) => tables.push(table),
                None if self.tables.iter().any(|t| t.name == name) => {
                    references.extend(self.tables.iter().filter(|t| t.name == name));
                }
                None => errors.push(fail(name, format!("table '{name}' not found"))),
            }
        }
        let mut fields = Vec::new();
        for column in select
            .trim()
            .trim_start_matches("SELECT")
            .split(',')
            .map(str::trim)
        {
            let of_reference = |t: &&ReferenceTable| t.rows.schema().field_with_name(column).ok().cloned();
            let found = tables.iter().find_map(|t| field(t, column));
            match found.or_else(|| references.iter().find_map(of_reference)) {
                Some(field) => fields.push(field),
                None if tables.is_empty() => {}
                None => errors.push(fail(column, format!("column '{column}' not found"))),
            }
        }
        if tables.iter().any(|t| t.lateness.is_some()) {
            fields.push(Field::new(REVISION, arrow::datatypes::DataType::Int64, false));
        }
        match errors.is_empty() {
            true => Ok(Arc::new(FakePlan {
                schema: Arc::new(Schema::new(fields)),
                inputs: tables.iter().map(|t| t.name.clone()).collect(),
                references: references.iter().map(|t| t.name.clone()).collect(),
                windowed: tables.iter().any(|t| t.window.is_some()),
            })),
            false => Err(errors),
        }
    }
    fn with_tables(&self, tables: Vec<ReferenceTable>) -> Arc<dyn SqlPlanner> {
        Arc::new(FakeSql { tables })
    }
    fn window(&self, _: &Window, _: usize, _: Duration) -> Result<Box<dyn Operator>> {
        Err(Error::bug("not in this test"))
    }
    fn session(&self, _: &SchemaRef, _: usize, _: Duration, _: &[usize]) -> Result<Box<dyn Operator>> {
        Err(Error::bug("not in this test"))
    }
    fn dedup(&self, schema: &SchemaRef, _: usize, key: &[usize], _: Duration) -> Result<Box<dyn Operator>> {
        let boolean = key
            .iter()
            .map(|k| schema.field(*k))
            .find(|f| f.data_type() == &arrow::datatypes::DataType::Boolean);
        match boolean {
            Some(field) => Err(Error::config(format!(
                "column \"{}\" cannot be part of a key",
                field.name()
            ))),
            None => Ok(Box::new(Nothing)),
        }
    }
}

fn field(table: &SqlTable, column: &str) -> Option<Field> {
    if let Some(name) = column.strip_prefix("count(*) AS ") {
        return Some(Field::new(name, arrow::datatypes::DataType::Int64, false));
    }
    if table.window.is_some() {
        if column == WINDOW_START {
            return Some(Field::new(WINDOW_START, crate::time::timestamp_type(), false));
        }
        if let Some(name) = column.strip_prefix("window_start() AS ") {
            return Some(Field::new(name, crate::time::timestamp_type(), false));
        }
    }
    table.schema.field_with_name(column).ok().cloned()
}

impl SqlPlan for FakePlan {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
    fn inputs(&self) -> &[String] {
        &self.inputs
    }
    fn references(&self) -> &[String] {
        &self.references
    }
    fn event_time(&self) -> Option<usize> {
        let time = |name: &str| self.schema.index_of(name).ok();
        let names = [WINDOW_START, "minute", "hour", "occurred_at"];
        names.into_iter().find_map(time)
    }
    fn watermark_delay(&self) -> Duration {
        Duration::ZERO
    }
    fn local(&self, _: usize) -> Result<Box<dyn Operator>> {
        Err(Error::bug("not in this test"))
    }
    fn global(&self) -> Result<Option<Box<dyn Operator>>> {
        Err(Error::bug("not in this test"))
    }
    fn explain(&self) -> SqlExplain {
        let step = |name: &String| (name.clone(), vec!["partial".to_owned(), "  scan".to_owned()]);
        SqlExplain {
            local: self.inputs.iter().map(step).collect(),
            global: if self.windowed {
                vec!["final".into()]
            } else {
                Vec::new()
            },
        }
    }
}
