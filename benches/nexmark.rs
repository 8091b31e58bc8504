//! The Nexmark queries through the whole runtime, beside batch DataFusion on the same rows, one core each, in
//! turns in one run.
//!
//! Rows come from the `generate` source's generator and lie in memory. Ours runs a file of `pipelines/nexmark/`:
//! tasks, edges, watermarks and all; batch DataFusion runs the query beside it in `pipelines/nexmark/batch/`. Both
//! must give as many rows; that they give the same is a test (`operators/tests/nexmark.rs`).
//!
//! `cargo bench --workspace --bench nexmark [-- QUERY …]`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::prelude::{CsvReadOptions, SessionConfig, SessionContext};
use futures::stream::TryStreamExt;
use millstream_benches::in_memory::{Counted, InMemory};
use millstream_benches::median;
use millstream_engine::config::{self, PipelineSource};
use millstream_engine::metrics::{Counters, Metrics};
use millstream_engine::plan::Plan;
use millstream_engine::runtime::{self, BoundedRun, RunOptions, timer};
use millstream_engine::source::{Offsets, Source, SourceContext};
use millstream_operators::Environment;
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Events of all three streams: 920,000 bids, 60,000 auctions, 20,000 persons.
const EVENTS: u64 = 1_000_000;
const SEED: u64 = 2_008;
/// Timed runs of each, after one that is not.
const RUNS: usize = 3;

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    println!("| query | rows | results | Millstream rows/s | batch DataFusion rows/s | ratio |");
    println!("|---|---|---|---|---|---|");
    for query in queries()?
        .into_iter()
        .filter(|q| wanted.is_empty() || wanted.contains(q))
    {
        let compared = runtime.block_on(compare(&query));
        println!("{}", compared.with_context(|| query.clone())?);
    }
    Ok(())
}

/// The names of the pipeline files, in the order of their numbers.
fn queries() -> anyhow::Result<Vec<String>> {
    let files = std::fs::read_dir(folder())?;
    let paths = files
        .map(|file| Ok(file?.path()))
        .collect::<anyhow::Result<Vec<PathBuf>>>()?;
    let tomls = paths
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "toml"));
    let mut names: Vec<String> = tomls
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    Ok(names)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/nexmark")
}

/// A line of the table.
async fn compare(query: &str) -> anyhow::Result<String> {
    let plan = Arc::new(plan(query)?);
    let mut tables = BTreeMap::new();
    for source in &plan.sources {
        let rows = generated(&source.name, source.schema.clone(), query).await?;
        tables.insert(source.name.clone(), rows);
    }
    let rows: usize = tables.values().flatten().map(RecordBatch::num_rows).sum();
    let (mut ours, mut batch) = (Vec::new(), Vec::new());
    let mut results = (0, 0);
    for run in 0..=RUNS {
        let started = Instant::now();
        results.0 = streamed(&plan, query, &tables).await?;
        let streamed = started.elapsed().as_secs_f64();
        let (made, batched) = batched(query, &plan, &tables).await?;
        results.1 = made;
        if run > 0 {
            ours.push(streamed);
            batch.push(batched);
        }
    }
    ensure!(
        results.0 == results.1,
        "{} rows, in batch {}",
        results.0,
        results.1
    );
    let [ours, batch] = [ours, batch].map(|seconds| rows as f64 / median(seconds) / 1e6);
    Ok(format!(
        "| {query} | {rows} | {} | {ours:.2} M | {batch:.2} M | {:.2} |",
        results.0,
        ours / batch
    ))
}

fn plan(query: &str) -> anyhow::Result<Plan> {
    let file = folder().join(format!("{query}.toml"));
    let source = PipelineSource {
        file: &file.display().to_string(),
        text: &std::fs::read_to_string(&file)?,
        vars: &|name| (name == "NEXMARK").then(|| folder().display().to_string()),
        date: None,
    };
    let registry = millstream_operators::registry(Environment::default());
    config::load(&source, &registry).map_err(|problems| anyhow!("{problems:?}"))
}

/// All rows of a stream. Queries by day get some of those, the others 10,000 seconds.
async fn generated(name: &str, schema: SchemaRef, query: &str) -> anyhow::Result<Vec<RecordBatch>> {
    let interval = if ["q15", "q16", "q17"].contains(&query) {
        "1s"
    } else {
        "10ms"
    };
    let registry = millstream_operators::registry(Environment::default());
    let cx = SourceContext {
        run: None,
        pipeline: "nexmark".into(),
        name: name.into(),
        event_time: schema.index_of("date_time")?,
        schema,
        options: json!({"generator": "nexmark", "stream": name, "rows": EVENTS, "seed": SEED, "interval": interval}),
        data_dir: PathBuf::new(),
        stop: CancellationToken::new(),
        counters: Counters::detached(),
    };
    let source = registry.sources["generate"].open(cx)?;
    let found = source.partitions(&Offsets::new()).await?;
    let partition = &found.open[0].0;
    let batches = source.read(partition, None).map_ok(|batch| batch.rows);
    Ok(batches.try_collect().await?)
}

/// Runs the pipeline to the end of its rows; how many results it gave.
async fn streamed(
    plan: &Arc<Plan>,
    query: &str,
    tables: &BTreeMap<String, Vec<RecordBatch>>,
) -> anyhow::Result<u64> {
    let source = |(name, batches): (&String, &Vec<RecordBatch>)| {
        let source = InMemory(batches.clone());
        (name.clone(), Arc::new(source) as Arc<dyn Source>)
    };
    let counted = Counted::default();
    let options = RunOptions {
        data_dir: PathBuf::new(),
        registry: millstream_operators::registry(Environment::default()),
        metrics: Arc::new(Metrics::new()),
        reset: Vec::new(),
        checkpoints: None,
        cores: runtime::cores(),
        timer: timer::real(),
        run: None,
        bounded: Some(BoundedRun {
            sources: tables.iter().map(source).collect(),
            collect: vec![(query.to_owned(), Box::new(counted.clone()))],
            tables: BTreeMap::new(),
        }),
    };
    runtime::start(plan.clone(), options).done().await?;
    Ok(counted.rows())
}

/// Runs the batch query; how many results it gave, and how many seconds it took.
async fn batched(
    query: &str,
    plan: &Plan,
    tables: &BTreeMap<String, Vec<RecordBatch>>,
) -> anyhow::Result<(u64, f64)> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for source in &plan.sources {
        let batches = tables[&source.name].clone();
        let table = MemTable::try_new(source.schema.clone(), vec![batches])?;
        context.register_table(source.name.as_str(), Arc::new(table))?;
    }
    let side_input = folder().join("side_input.csv");
    let side_input = side_input.to_str().context("a path that is text")?;
    context
        .register_csv("side_input", side_input, CsvReadOptions::new())
        .await?;
    let text = std::fs::read_to_string(folder().join(format!("batch/{query}.sql")))?;
    let started = Instant::now();
    let results = context.sql(&text).await?.collect().await?;
    let seconds = started.elapsed().as_secs_f64();
    Ok((results.iter().map(|rows| rows.num_rows() as u64).sum(), seconds))
}
