//! From the ingest log to the result: the clickthrough of `pipelines/advertising.toml`, on one core, beside batch
//! DataFusion over the same rows in memory.
//!
//! The logs of both sources are filled with beacons as a lane would write them: frames of [`FRAME_ROWS`] rows, which
//! are up to [`DISORDER`] out of order. Then the whole runtime runs over them: the `http` source reads its log from the
//! files (which the kernel has in memory), rows pass the watermark, the windows, both halves of the query and the edges
//! to a sink that counts. Opening a log, which checks every frame, is not timed.
//!
//! Each measurement is a process of its own, pinned to one core. The rows `read` are how fast the log alone gives its
//! batches: the part of the time that no query can save.
//!
//! `cargo bench --workspace --bench clickthrough [-- PART_OF_A_NAME]`; MILLSTREAM_BENCH_DIR names a directory for the
//! logs (default: where temporary files go).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt;
use millstream_benches::in_memory::Counted;
use millstream_benches::{START, ad_id, impression_id, median};
use millstream_engine::config::{self, PipelineSource};
use millstream_engine::metrics::{Counters, Metrics};
use millstream_engine::plan::{Plan, SourceNode};
use millstream_engine::registry::Registry;
use millstream_engine::runtime::{self, BoundedRun, RunOptions, timer};
use millstream_engine::source::{Offsets, Source, SourceContext};
use millstream_operators::Environment;
use millstream_operators::log::{Log, LogOptions};
use millstream_operators::sources::http::{Ingest, Limits};
use tokio_util::sync::CancellationToken;

const IMPRESSIONS: usize = 6_000_000;
/// Impressions for each click.
const PER_CLICK: usize = 3;
/// Event time the rows are spread over.
const SPREAD: i64 = 600 * SECOND;
const SECOND: i64 = 1_000_000;
/// How much later rows may come than newer ones.
const DISORDER: i64 = SECOND;
const ADS: usize = 1_000;
/// Rows of a frame: a request of many rows, which has a frame to itself.
const FRAME_ROWS: usize = 500;
/// Frames that wait for the disk at the same time.
const WAITING: usize = 256;
/// Batches of the comparison, in rows; about what the source makes of the frames.
const BATCH_ROWS: usize = 8_000;
/// Processes per measurement, in turns, and how often each runs after a first, untimed time.
const PROCESSES: usize = 3;
const RUNS: usize = 3;
/// Rows per second and core, from log to result.
const AIM: f64 = 10e6;

/// How the parent calls itself.
const MEASURE: &str = "--measure";

/// What is measured: the name, what of the file is other, and the same for batch DataFusion.
struct Case {
    name: &'static str,
    dedup: bool,
    query: Option<&'static str>,
    batch: &'static str,
}

const CLICKTHROUGH: &str = "
    SELECT i.at, i.n AS impressions, c.n AS clicks, CASE WHEN i.n > 0 THEN c.n / CAST(i.n AS DOUBLE) END AS clickthrough
    FROM (SELECT date_trunc('minute', occurred_at) AS at, count(*) AS n FROM impressions GROUP BY 1) i
    JOIN (SELECT date_trunc('minute', occurred_at) AS at, count(*) AS n FROM clicks GROUP BY 1) c ON i.at = c.at";

const CASES: [Case; 3] = [
    Case {
        name: "clickthrough per minute",
        dedup: false,
        query: None,
        batch: CLICKTHROUGH,
    },
    Case {
        name: "clickthrough per minute and ad",
        dedup: false,
        query: Some(
            "SELECT window_start() AS at, i.ad_id, i.n AS impressions, c.n AS clicks
             FROM (SELECT ad_id, count(*) AS n FROM impressions_by_minute GROUP BY ad_id) i
             JOIN (SELECT ad_id, count(*) AS n FROM clicks_by_minute GROUP BY ad_id) c ON i.ad_id = c.ad_id",
        ),
        batch: "SELECT i.at, i.ad_id, i.n AS impressions, c.n AS clicks
             FROM (SELECT date_trunc('minute', occurred_at) AS at, ad_id, count(*) AS n FROM impressions GROUP BY 1, 2) i
             JOIN (SELECT date_trunc('minute', occurred_at) AS at, ad_id, count(*) AS n FROM clicks GROUP BY 1, 2) c
             ON i.at = c.at AND i.ad_id = c.ad_id",
    },
    Case {
        name: "clickthrough per minute, duplicates dropped",
        dedup: true,
        query: None,
        batch: "
    SELECT i.at, i.n AS impressions, c.n AS clicks, CASE WHEN i.n > 0 THEN c.n / CAST(i.n AS DOUBLE) END AS clickthrough
    FROM (SELECT date_trunc('minute', at) AS at, count(*) AS n FROM
            (SELECT impression_id, min(occurred_at) AS at FROM impressions GROUP BY 1) GROUP BY 1) i
    JOIN (SELECT date_trunc('minute', at) AS at, count(*) AS n FROM
            (SELECT click_id, min(occurred_at) AS at FROM clicks GROUP BY 1) GROUP BY 1) c ON i.at = c.at",
    },
];

/// What a process measures.
const WHAT: [&str; 3] = ["read", "millstream", "datafusion"];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [MEASURE, dir, case, what] => {
            let seconds = measure(Path::new(dir), &CASES[case.parse::<usize>()?], what)?;
            let words: Vec<_> = seconds.iter().map(f64::to_string).collect();
            println!("{}", words.join(" "));
            Ok(())
        }
        [] => compare_all(""),
        [part] => compare_all(part),
        _ => bail!("give at most one argument: part of the name of a query"),
    }
}

fn compare_all(part: &str) -> anyhow::Result<()> {
    let base = std::env::var_os("MILLSTREAM_BENCH_DIR").map_or(std::env::temp_dir(), PathBuf::from);
    let dir = tempfile::tempdir_in(base)?;
    tokio::runtime::Runtime::new()?.block_on(fill(dir.path()))?;
    println!("| query | rows | log alone | log to result | of the aim, 10 M | batch DataFusion | ratio |");
    println!("|---|---|---|---|---|---|---|");
    for (number, case) in CASES
        .iter()
        .enumerate()
        .filter(|(_, case)| case.name.contains(part))
    {
        let mut seconds = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..PROCESSES {
            for (at, what) in WHAT.iter().enumerate() {
                let measured = in_a_process(dir.path(), number, what);
                seconds[at].extend(measured.with_context(|| format!("{}: {what}", case.name))?);
            }
        }
        let rows = IMPRESSIONS + IMPRESSIONS / PER_CLICK;
        let [read, ours, batch] = seconds.map(|s| rows as f64 / median(s));
        println!(
            "| {} | {rows} | {:.1} M rows/s | {:.1} M rows/s | {:.2} | {:.1} M rows/s | {:.2} |",
            case.name,
            read / 1e6,
            ours / 1e6,
            ours / AIM,
            batch / 1e6,
            ours / batch
        );
    }
    Ok(())
}

fn in_a_process(dir: &Path, case: usize, what: &str) -> anyhow::Result<Vec<f64>> {
    let output = Command::new("taskset")
        .args(["-c", "0"])
        .arg(std::env::current_exe()?)
        .arg(MEASURE)
        .arg(dir)
        .args([&case.to_string(), what])
        .output()
        .context("taskset, of util-linux, pins to a core")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let words = String::from_utf8(output.stdout)?;
    Ok(words
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?)
}

/// Seconds of each run after the first.
fn measure(dir: &Path, case: &Case, what: &str) -> anyhow::Result<Vec<f64>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let ingest = ingest()?;
        let environment = Environment {
            ingest: Some(ingest.clone()),
            serving: None,
        };
        let registry = millstream_operators::registry(environment);
        let plan = Arc::new(plan(case, &registry)?);
        let mut seconds = Vec::new();
        for run in 0..=RUNS {
            let took = match what {
                "read" => read(dir, &plan, &registry).await?,
                "millstream" => streamed(dir, &plan, case, &registry).await?,
                _ => batched(&plan, case).await?,
            };
            if run > 0 {
                seconds.push(took.as_secs_f64());
            }
        }
        ingest.shutdown().await;
        Ok(seconds)
    })
}

/// What the sources belong to; nobody connects to it.
fn ingest() -> anyhow::Result<Arc<Ingest>> {
    let limits = Limits {
        lanes: 1,
        ..Limits::default()
    };
    Ok(Ingest::start("127.0.0.1:0".parse()?, limits, &[])?)
}

/// The file as it is, but for what the case says.
fn plan(case: &Case, registry: &Registry) -> anyhow::Result<Plan> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/advertising.toml");
    let mut text = std::fs::read_to_string(&file)?;
    if !case.dedup {
        text = text
            .lines()
            .filter(|line| !line.starts_with("dedup"))
            .collect::<Vec<_>>()
            .join("\n");
    }
    if let Some(query) = case.query {
        let quotes: Vec<usize> = text.match_indices("\"\"\"").map(|(at, _)| at).collect();
        let [from, to] = quotes[..] else {
            bail!("the file has one query")
        };
        text.replace_range(from + 3..to, query);
    }
    // A minute without rows is known from the first watermark on, and batch has none.
    text = text.replace("emit_empty = true\n", "");
    // Its tests are for its own query.
    let text = text.split("[[test]]").next().unwrap_or_default();
    let source = PipelineSource {
        file: &file.display().to_string(),
        text,
        vars: &|_| None,
        date: None,
    };
    config::load(&source, registry).map_err(|problems| anyhow!("{problems:?}"))
}

/// Fills the logs.
async fn fill(dir: &Path) -> anyhow::Result<()> {
    let registry = millstream_operators::registry(Environment::default());
    let plan = plan(&CASES[0], &registry)?;
    for source in &plan.sources {
        let log = Log::open(
            LogOptions::new(log_dir(dir, source).join("lane-0")),
            source.schema.clone(),
        )?;
        let mut acks = futures::stream::iter(frames(source))
            .map(|rows| log.append(rows, None))
            .map(|appended| async { anyhow::Ok(appended?.durable.await??) })
            .buffered(WAITING);
        while let Some(ack) = acks.next().await {
            ack?;
        }
    }
    Ok(())
}

fn log_dir(dir: &Path, source: &SourceNode) -> PathBuf {
    dir.join(&source.name)
}

/// The rows of a source, frame by frame.
fn frames(source: &SourceNode) -> impl Iterator<Item = RecordBatch> {
    let every = if source.name == "clicks" { PER_CLICK } else { 1 };
    let schema = source.schema.clone();
    let rows = IMPRESSIONS / every;
    (0..rows).step_by(FRAME_ROWS).map(move |from| {
        let numbers = || (from..rows.min(from + FRAME_ROWS)).map(|row| row * every);
        let columns = schema.fields().iter().map(|field| match field.name().as_str() {
            "ad_id" => Arc::new(StringArray::from_iter_values(
                numbers().map(|row| ad_id(row, ADS)),
            )) as _,
            "occurred_at" => Arc::new(TimestampMicrosecondArray::from_iter_values(numbers().map(time))) as _,
            _ => Arc::new(StringArray::from_iter_values(numbers().map(impression_id))) as _,
        });
        RecordBatch::try_new(schema.clone(), columns.collect()).expect("columns of the schema")
    })
}

/// In order, but for a delay.
fn time(row: usize) -> i64 {
    let delay = row.wrapping_mul(2_654_435_761) as i64 % DISORDER;
    (START + row as i64 * (SPREAD / IMPRESSIONS as i64) - delay).max(START)
}

fn open(
    dir: &Path,
    node: &SourceNode,
    registry: &Registry,
    stop: CancellationToken,
) -> anyhow::Result<Arc<dyn Source>> {
    let cx = SourceContext {
        run: None,
        pipeline: "advertising".into(),
        name: node.name.clone(),
        schema: node.schema.clone(),
        event_time: node.event_time,
        options: node.options.clone(),
        data_dir: log_dir(dir, node),
        stop,
        counters: Counters::detached(),
    };
    Ok(registry.sources["http"].open(cx)?)
}

/// Reads both logs to their ends and does nothing with the rows.
async fn read(dir: &Path, plan: &Plan, registry: &Registry) -> anyhow::Result<Duration> {
    let mut took = Duration::ZERO;
    for node in &plan.sources {
        let stop = CancellationToken::new();
        let source = open(dir, node, registry, stop.clone())?;
        let found = source.partitions(&Offsets::new()).await?;
        stop.cancel();
        let started = Instant::now();
        let mut batches = source.read(&found.open[0].0, None);
        let mut rows = 0;
        while let Some(batch) = batches.next().await {
            rows += batch?.rows.num_rows();
        }
        took += started.elapsed();
        ensure!(rows > 0, "the log of {} is empty", node.name);
    }
    Ok(took)
}

/// Runs the pipeline to the end of the logs.
async fn streamed(
    dir: &Path,
    plan: &Arc<Plan>,
    case: &Case,
    registry: &Registry,
) -> anyhow::Result<Duration> {
    // Told to stop from the beginning: what is in the logs is read, and then the sources end.
    let stop = CancellationToken::new();
    stop.cancel();
    let mut sources = BTreeMap::new();
    for node in &plan.sources {
        sources.insert(node.name.clone(), open(dir, node, registry, stop.clone())?);
    }
    let counted = Counted::summing("impressions");
    let options = RunOptions {
        data_dir: PathBuf::new(),
        registry: registry.clone(),
        metrics: Arc::new(Metrics::new()),
        reset: Vec::new(),
        checkpoints: None,
        cores: 1,
        timer: timer::real(),
        run: None,
        bounded: Some(BoundedRun {
            sources,
            collect: vec![("clickthrough".to_owned(), Box::new(counted.clone()))],
            tables: BTreeMap::new(),
        }),
    };
    let started = Instant::now();
    runtime::start(plan.clone(), options).done().await?;
    let took = started.elapsed();
    check(&counted, case)?;
    Ok(took)
}

/// Runs the batch query over the same rows.
async fn batched(plan: &Plan, case: &Case) -> anyhow::Result<Duration> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for node in &plan.sources {
        let table = MemTable::try_new(node.schema.clone(), vec![joined(node)?])?;
        context.register_table(node.name.as_str(), Arc::new(table))?;
    }
    let started = Instant::now();
    let results = context.sql(case.batch).await?.collect().await?;
    let took = started.elapsed();
    let counted = Counted::summing("impressions");
    results.iter().try_for_each(|rows| counted.take(rows))?;
    check(&counted, case)?;
    Ok(took)
}

/// Every impression is in one result, and there are as many results as there must be.
fn check(counted: &Counted, case: &Case) -> anyhow::Result<()> {
    let minutes = (SPREAD / (60 * SECOND)) as u64;
    let results = if case.query.is_some() {
        minutes * ADS as u64
    } else {
        minutes
    };
    let found = (counted.rows(), counted.sum());
    ensure!(
        found == (results, IMPRESSIONS as u64),
        "{found:?} results and impressions instead of {results}"
    );
    Ok(())
}

fn joined(node: &SourceNode) -> anyhow::Result<Vec<RecordBatch>> {
    let schema: SchemaRef = node.schema.clone();
    let frames: Vec<RecordBatch> = frames(node).collect();
    let together = frames.chunks(BATCH_ROWS / FRAME_ROWS);
    Ok(together
        .map(|some| arrow::compute::concat_batches(&schema, some))
        .collect::<Result<_, _>>()?)
}
