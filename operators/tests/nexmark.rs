//! The Nexmark queries: each file of `pipelines/nexmark/` runs on generated rows through the runtime, and must give what
//! DataFusion gives in batch for the query in `pipelines/nexmark/batch/` over the same rows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use millstream_engine::config::{self, PipelineSource};
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::metrics::{Counters, Metrics};
use millstream_engine::plan::Plan;
use millstream_engine::registry::Registry;
use millstream_engine::runtime::{self, BoundedRun, RunOptions, timer};
use millstream_engine::sink::{Committable, Sink};
use millstream_engine::source::{Offsets, Source, SourceContext};
use millstream_engine::time::timestamp_type;
use millstream_operators::Environment;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Events of all three streams: 18,400 bids, 1,200 auctions, 400 persons.
const EVENTS: u64 = 20_000;
const SEED: u64 = 2_008;

/// 200 seconds in all, so that windows of ten seconds are many; for queries by day, three of those.
fn interval(query: &str) -> &'static str {
    match query {
        "q15" | "q16" | "q17" => "12s",
        _ => "10ms",
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/nexmark")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_gives_what_batch_gives() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for query in queries() {
        let plan = match plan(&query) {
            Ok(plan) => plan,
            Err(problems) => {
                wrong.push(format!("{query}: {problems}"));
                continue;
            }
        };
        let expect = batch(&query).await;
        assert!(!expect.is_empty(), "{query} gives nothing in batch");
        for partitions in [1, 3] {
            let got = stream(&plan, &query, partitions).await;
            if got != expect {
                wrong.push(format!(
                    "{query}, {partitions} partitions: {}",
                    difference(&got, &expect)
                ));
            }
        }
        seen += 1;
    }
    assert!(wrong.is_empty(), "seed {SEED}:\n{}", wrong.join("\n"));
    assert_eq!(seen, 21, "q0 to q22, without q6 and q10");
}

/// The names of the pipeline files.
fn queries() -> Vec<String> {
    let files = std::fs::read_dir(folder()).expect("pipelines/nexmark");
    let files = files.map(|f| f.expect("a file").path());
    let tomls = files.filter(|f| f.extension().is_some_and(|e| e == "toml"));
    let mut names: Vec<String> = tomls
        .map(|f| f.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn registry() -> Registry {
    millstream_operators::registry(Environment::default())
}

fn plan(query: &str) -> Result<Plan, String> {
    let file = folder().join(format!("{query}.toml"));
    let text = std::fs::read_to_string(&file).expect("a pipeline");
    let source = PipelineSource {
        file: &file.display().to_string(),
        text: &text,
        vars: &|name| (name == "NEXMARK").then(|| folder().display().to_string()),
        date: None,
    };
    config::load(&source, &registry()).map_err(|problems| format!("{problems:?}"))
}

/// The options of a source of this test.
fn options(stream: &str, query: &str, partitions: u64) -> serde_json::Value {
    json!({"generator": "nexmark", "stream": stream, "rows": EVENTS, "seed": SEED, "interval": interval(query),
           "partitions": partitions})
}

fn open(name: &str, schema: Arc<Schema>, options: serde_json::Value) -> Arc<dyn Source> {
    let connector = registry().sources["generate"].clone();
    let cx = SourceContext {
        run: None,
        pipeline: "nexmark".into(),
        name: name.into(),
        event_time: schema.index_of("date_time").expect("an event time"),
        schema,
        options,
        data_dir: PathBuf::new(),
        stop: CancellationToken::new(),
        counters: Counters::detached(),
    };
    connector.open(cx).expect("a source")
}

/// Runs a pipeline to the end of its rows; the rows of its result as text, sorted.
async fn stream(plan: &Plan, query: &str, partitions: u64) -> Vec<String> {
    let mut sources: BTreeMap<String, Arc<dyn Source>> = BTreeMap::new();
    for source in &plan.sources {
        let options = options(&source.name, query, partitions);
        sources.insert(
            source.name.clone(),
            open(&source.name, source.schema.clone(), options),
        );
    }
    let rows = Collected::default();
    let collect: Vec<(String, Box<dyn Sink>)> = vec![(query.to_owned(), Box::new(rows.clone()))];
    let data_dir = tempfile::tempdir().expect("a folder");
    let run = RunOptions {
        data_dir: data_dir.path().to_path_buf(),
        registry: registry(),
        metrics: Arc::new(Metrics::new()),
        reset: Vec::new(),
        checkpoints: None,
        cores: runtime::cores(),
        timer: timer::real(),
        run: None,
        bounded: Some(BoundedRun {
            sources,
            collect,
            tables: BTreeMap::new(),
        }),
    };
    let done = runtime::start(Arc::new(plan.clone()), run).done().await;
    done.unwrap_or_else(|e| panic!("{query}: {e}"));
    let rows = std::mem::take(&mut *rows.0.lock().expect("rows"));
    lines(&rows)
}

/// What DataFusion gives for the query's other half over the same rows.
async fn batch(query: &str) -> Vec<String> {
    let context = SessionContext::new();
    for (stream, columns) in [("person", PERSON), ("auction", AUCTION), ("bid", BID)] {
        let field = |(name, kind): &(&str, char)| {
            let kind = match kind {
                'n' => DataType::Int64,
                't' => timestamp_type(),
                _ => DataType::Utf8,
            };
            Field::new(*name, kind, false)
        };
        let schema = Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()));
        let source = open(stream, schema.clone(), options(stream, query, 1));
        let found = source.partitions(&Offsets::new()).await.expect("partitions");
        let partition = &found.open[0].0;
        let batches = source.read(partition, None).map_ok(|batch| batch.rows);
        let batches: Vec<RecordBatch> = batches.try_collect().await.expect("rows");
        let table = MemTable::try_new(schema, vec![batches]).expect("a table");
        context.register_table(stream, Arc::new(table)).expect("register");
    }
    context
        .register_batch("side_input", side_input())
        .expect("register");
    let text = std::fs::read_to_string(folder().join(format!("batch/{query}.sql"))).expect("the batch query");
    let frame = context
        .sql(&text)
        .await
        .unwrap_or_else(|e| panic!("{query}: {e}"));
    lines(&frame.collect().await.unwrap_or_else(|e| panic!("{query}: {e}")))
}

/// The reference table of q13.
fn side_input() -> RecordBatch {
    let text = std::fs::read_to_string(folder().join("side_input.csv")).expect("the side input");
    let rows = text
        .lines()
        .skip(1)
        .map(|line| line.split_once(',').expect("key,value"));
    let (keys, values): (Vec<&str>, Vec<&str>) = rows.unzip();
    let keys = keys.iter().map(|key| key.parse::<i64>().expect("a number"));
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("key", Arc::new(Int64Array::from_iter_values(keys))),
        ("value", Arc::new(StringArray::from(values))),
    ];
    RecordBatch::try_from_iter(columns).expect("a table")
}

/// Columns: n is a number, s a text, t a time.
const PERSON: &[(&str, char)] = &[
    ("id", 'n'),
    ("name", 's'),
    ("email_address", 's'),
    ("credit_card", 's'),
    ("city", 's'),
    ("state", 's'),
    ("date_time", 't'),
    ("extra", 's'),
];
const AUCTION: &[(&str, char)] = &[
    ("id", 'n'),
    ("item_name", 's'),
    ("description", 's'),
    ("initial_bid", 'n'),
    ("reserve", 'n'),
    ("date_time", 't'),
    ("expires", 't'),
    ("seller", 'n'),
    ("category", 'n'),
    ("extra", 's'),
];
const BID: &[(&str, char)] = &[
    ("auction", 'n'),
    ("bidder", 'n'),
    ("price", 'n'),
    ("channel", 's'),
    ("url", 's'),
    ("date_time", 't'),
    ("extra", 's'),
];

/// Rows as text, sorted.
fn lines(of: &[RecordBatch]) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut lines = Vec::new();
    for batch in of {
        let columns = batch.columns().iter();
        let columns = columns.map(|c| ArrayFormatter::try_new(c, &options).expect("printable"));
        let columns: Vec<_> = columns.collect();
        lines.extend((0..batch.num_rows()).map(|row| {
            let values: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            values.join(" | ")
        }));
    }
    lines.sort();
    lines
}

/// How many rows, and the first that differ.
fn difference(got: &[String], expect: &[String]) -> String {
    let only = |these: &[String], those: &[String]| {
        let only: Vec<&str> = these
            .iter()
            .filter(|l| those.binary_search(l).is_err())
            .map(String::as_str)
            .collect();
        format!(
            "{} such as {:?}",
            only.len(),
            only.iter().take(3).collect::<Vec<_>>()
        )
    };
    format!(
        "{} rows, in batch {}; too many: {}; missing: {}",
        got.len(),
        expect.len(),
        only(got, expect),
        only(expect, got)
    )
}

/// A sink that keeps what it gets.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<RecordBatch>>>);

#[async_trait]
impl Sink for Collected {
    async fn write(&mut self, rows: RecordBatch) -> millstream_engine::Result<()> {
        self.0.lock().expect("rows").push(rows);
        Ok(())
    }

    async fn prepare(&mut self, _: Barrier) -> millstream_engine::Result<Committable> {
        Ok(Committable::default())
    }

    async fn commit(&mut self, _: Epoch, _: Committable) -> millstream_engine::Result<()> {
        Ok(())
    }
}
