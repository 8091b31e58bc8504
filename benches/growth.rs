//! Cost against growth: pipelines through the whole runtime, beside batch DataFusion on the same rows in memory, one core
//! each, in turns in one run.
//!
//! Each table lets one thing grow (keys, open windows, pipelines) and keeps the rest. A step is how many times as much a
//! row costs as on the line before; batch DataFusion's step says what the growth itself asks for (a table that no longer
//! fits a cache). Where ours is twice that there is a cliff. Every measurement is a process of its own, so that memory is
//! that of one; both must give as many rows with the same total of `n`.
//!
//! `cargo bench --workspace --bench growth [-- TABLE …]`; `benches/growth` has this and what grows around a process.
//! `ROWS` in the environment: how many, in millions (default 10).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, anyhow, bail, ensure};
use arrow::array::{RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::stream::{BoxStream, StreamExt};
use millstream_benches::in_memory::{Counted, InMemory};
use millstream_benches::{START, median, memory, with_spread};
use millstream_engine::config::{self, PipelineSource};
use millstream_engine::metrics::Metrics;
use millstream_engine::plan::Plan;
use millstream_engine::runtime::{self, BoundedRun, RunOptions, timer};
use millstream_engine::source::{Offset, Offsets, PartitionId, Partitions, Source, SourceBatch};
use millstream_engine::time::timestamp_type;
use millstream_operators::Environment;

const ROWS_PER_BATCH: usize = 8_192;
const MINUTE: u64 = 60_000_000;
/// Processes per measurement, in turns.
const PROCESSES: usize = 3;
/// A step this many times that of batch DataFusion is a cliff.
const CLIFF: f64 = 2.0;

/// How the parent calls itself.
const MEASURE: &str = "--measure";
const ENGINES: [&str; 2] = ["millstream", "datafusion"];

/// What grows.
struct Table {
    name: &'static str,
    about: &'static str,
    what: &'static str,
    sizes: &'static [usize],
    /// Per mille of ROWS, so that each measurement takes a second or so.
    share: usize,
    shape: fn(usize) -> Shape,
}

/// A table at one size.
struct Shape {
    keys: u64,
    /// Event time that rows are spread over, in order.
    minutes: u64,
    /// How many minutes a row may be out of order: they are spread evenly.
    disorder: u64,
    /// Minutes of a window; one starts every minute.
    window: u64,
    pipelines: usize,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            keys: 16,
            minutes: 1,
            disorder: 0,
            window: 1,
            pipelines: 1,
        }
    }
}

const TABLES: [Table; 4] = [
    Table {
        name: "keys",
        about: "Keys: count per minute and key, all rows in one minute",
        what: "keys",
        sizes: &[1, 100, 10_000, 1_000_000, 10_000_000],
        share: 1_000,
        shape: |size| Shape {
            keys: size as u64,
            ..Shape::default()
        },
    },
    Table {
        name: "windows",
        about: "Open windows that overlap: count per key, 16 keys, in hopping windows of so many minutes every minute, 1,200 minutes",
        what: "windows a row is in",
        sizes: &[1, 10, 100, 1_000],
        share: 200,
        shape: |size| Shape {
            minutes: 1_200,
            window: size as u64,
            ..Shape::default()
        },
    },
    Table {
        name: "disorder",
        about: "Open windows side by side: count per minute and key, 16 keys, rows evenly spread over the minutes that are open",
        what: "minutes in every batch",
        sizes: &[1, 10, 100, 1_000],
        share: 300,
        shape: |size| Shape {
            minutes: size as u64,
            disorder: size as u64,
            ..Shape::default()
        },
    },
    Table {
        name: "pipelines",
        about: "Pipelines in one process: count per minute and key, 1,000 keys, ten minutes, the rows dealt out to all of them",
        what: "pipelines",
        sizes: &[1, 5, 10, 50],
        share: 400,
        shape: |size| Shape {
            keys: 1_000,
            minutes: 10,
            pipelines: size,
            ..Shape::default()
        },
    },
];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [measure, table, size, engine] = &args[..]
        && measure == MEASURE
    {
        let table = TABLES.iter().find(|t| t.name == *table).context("a table")?;
        println!("{}", measured(table, size.parse()?, engine)?.line());
        return Ok(());
    }
    let unknown = args.iter().find(|arg| TABLES.iter().all(|t| t.name != **arg));
    ensure!(
        unknown.is_none(),
        "{unknown:?} is none of {:?}",
        TABLES.map(|t| t.name)
    );
    let asked = |table: &&Table| args.is_empty() || args.iter().any(|arg| arg == table.name);
    let mut steepest = Vec::new();
    for table in TABLES.iter().filter(asked) {
        let (size, step) = compare(table)?;
        steepest.push(format!(
            "| {} | {} | {step:.2} | {} |",
            table.what,
            grouped(size),
            if step >= CLIFF { "**cliff**" } else { "no cliff" }
        ));
    }
    println!("| what grows | steepest at | step of ours / step of batch | verdict |\n|---|---|---|---|");
    println!("{}\n", steepest.join("\n"));
    Ok(())
}

/// Prints a table. Where ours has its steepest step beside batch DataFusion's, and how steep.
fn compare(table: &Table) -> anyhow::Result<(usize, f64)> {
    println!("{}. {} rows.\n", table.about, grouped(rows(table)?));
    println!(
        "| {} | Millstream rows/s | batch DataFusion rows/s | ratio | step | step of batch | Millstream MB | B for each |\n\
         |---|---|---|---|---|---|---|---|",
        table.what
    );
    let (mut before, mut steepest) = (None, (0, 0.0));
    for &size in table.sizes {
        let (ours, batch) = (table.in_turns(size)?, rows(table)? as f64);
        let rates: [Vec<f64>; 2] = ours
            .each_ref()
            .map(|of| of.iter().map(|m| batch / m.seconds).collect());
        let ratios: Vec<f64> = rates[0]
            .iter()
            .zip(&rates[1])
            .map(|(ours, batch)| ours / batch)
            .collect();
        let now = rates.map(median);
        let [step, step_of_batch] = before.map_or([1.0, 1.0], |before: [f64; 2]| {
            [before[0] / now[0], before[1] / now[1]]
        });
        // What became faster is no step, and batch that becomes faster explains none.
        let beyond = step / step_of_batch.max(1.0);
        if beyond > steepest.1 {
            steepest = (size, beyond);
        }
        let open = ours[0].iter().map(|m| m.open_bytes as f64).collect();
        let open = median(open);
        println!(
            "| {} | {:.2} M | {:.2} M | {} | {step:.2} | {step_of_batch:.2} | {:.1} | {:.0} |",
            grouped(size),
            now[0] / 1e6,
            now[1] / 1e6,
            with_spread(&ratios),
            open / 1e6,
            open / size as f64
        );
        before = Some(now);
    }
    println!();
    Ok(steepest)
}

impl Table {
    /// Of both engines, a process each.
    fn in_turns(&self, size: usize) -> anyhow::Result<[Vec<Measured>; 2]> {
        let mut found = [Vec::new(), Vec::new()];
        for _ in 0..PROCESSES {
            for (at, engine) in ENGINES.iter().enumerate() {
                let one = in_a_process(self.name, size, engine);
                found[at].push(one.with_context(|| format!("{} {size}: {engine}", self.name))?);
            }
        }
        let results = found.each_ref().map(|of| (of[0].results, of[0].total));
        ensure!(
            results[0] == results[1] && results[0].0 > 0,
            "{} {size}: rows and total of n are {:?}, in batch {:?}",
            self.name,
            results[0],
            results[1]
        );
        Ok(found)
    }
}

fn rows(table: &Table) -> anyhow::Result<usize> {
    let millions: usize = std::env::var("ROWS").map_or(Ok(10), |rows| rows.parse())?;
    Ok(millions * 1_000 * table.share)
}

/// What one process found.
struct Measured {
    seconds: f64,
    /// What memory it had more than before, when all rows were read and no window had closed for the last time.
    open_bytes: u64,
    results: u64,
    total: u64,
}

impl Measured {
    fn line(&self) -> String {
        format!(
            "{} {} {} {}",
            self.seconds, self.open_bytes, self.results, self.total
        )
    }

    fn parse(line: &str) -> anyhow::Result<Measured> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [seconds, open_bytes, results, total] = words[..] else {
            bail!("a measurement is cut off: {line:?}");
        };
        Ok(Measured {
            seconds: seconds.parse()?,
            open_bytes: open_bytes.parse()?,
            results: results.parse()?,
            total: total.parse()?,
        })
    }
}

fn in_a_process(table: &str, size: usize, engine: &str) -> anyhow::Result<Measured> {
    let me = std::env::current_exe()?;
    let output = Command::new(me)
        .args([MEASURE, table, &size.to_string(), engine])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Measured::parse(&String::from_utf8(output.stdout)?)
}

fn measured(table: &Table, size: usize, engine: &str) -> anyhow::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shape = (table.shape)(size);
    let rows = rows(table)? / shape.pipelines;
    let inputs: Vec<_> = (0..shape.pipelines).map(|_| shape.input(rows)).collect();
    match engine {
        "millstream" => runtime.block_on(streamed(&shape, inputs)),
        _ => runtime.block_on(batched(&shape, inputs)),
    }
}

impl Shape {
    fn input(&self, rows: usize) -> Vec<RecordBatch> {
        let starts = (0..rows).step_by(ROWS_PER_BATCH);
        starts
            .map(|from| self.batch(from, rows.min(from + ROWS_PER_BATCH), rows))
            .collect()
    }

    fn batch(&self, from: usize, to: usize, of: usize) -> RecordBatch {
        // Scattered, as in life: no two rows beside each other have the same key or minute.
        let scattered = |row: usize, over: u64| row as u64 * 2_654_435_761 % over.max(1);
        let keys = (from..to).map(|row| format!("key-{:08}", scattered(row, self.keys)));
        let at = |row: usize| {
            let in_order = row as u64 * (self.minutes * MINUTE / 1_000) / of as u64 * 1_000;
            START + (in_order + scattered(row, self.disorder * MINUTE)) as i64
        };
        let keys = Arc::new(StringArray::from_iter_values(keys));
        let times = Arc::new(TimestampMicrosecondArray::from_iter_values((from..to).map(at)));
        RecordBatch::try_new(schema(), vec![keys, times]).expect("columns of the schema")
    }

    fn plan(&self, number: usize) -> anyhow::Result<Plan> {
        let (window, disorder) = (self.window, self.disorder * 60);
        let text = format!(
            r#"
            name = "growth-{number}"
            [source.rows]
            type = "http"
            path = "/{number}"
            event_time = "at"
            max_out_of_orderness = "{disorder}s"
            columns = {{ key = "string not null", at = "timestamp not null" }}
            [window.w]
            input = "rows"
            type = "hopping"
            size = "{window}m"
            slide = "1m"
            [sql.counts]
            query = "SELECT window_start() AS start, key, count(*) AS n FROM w GROUP BY key"
            [sink.out]
            type = "console"
            input = "counts"
            "#
        );
        let source = PipelineSource {
            file: "growth.toml",
            text: &text,
            vars: &|_| None,
            date: None,
        };
        let registry = millstream_operators::registry(Environment::default());
        config::load(&source, &registry).map_err(|problems| anyhow!("{problems:?}"))
    }

    /// As someone would write it who knows DataFusion well: each minute is counted once, and then added to its windows.
    fn query(&self) -> String {
        let by_minute =
            "SELECT date_trunc('minute', at) AS start, key, count(*) AS n FROM rows GROUP BY 1, 2";
        match self.window {
            1 => by_minute.into(),
            window => format!(
                "WITH by_minute AS ({by_minute}), by_window AS (
                     SELECT CAST(start AS BIGINT) - back * {MINUTE} AS start, key, n
                     FROM (SELECT start, key, n, unnest(range(0, {window})) AS back FROM by_minute)
                 )
                 SELECT start, key, CAST(sum(n) AS BIGINT) AS n FROM by_window GROUP BY 1, 2"
            ),
        }
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("at", timestamp_type(), false),
    ]))
}

async fn streamed(shape: &Shape, inputs: Vec<Vec<RecordBatch>>) -> anyhow::Result<Measured> {
    let plans = (0..shape.pipelines).map(|number| shape.plan(number));
    let plans = plans.collect::<anyhow::Result<Vec<_>>>()?;
    let (counted, open) = (Counted::summing("n"), Arc::new(AtomicU64::new(0)));
    let before = memory::now()?;
    let started = Instant::now();
    let start = |(plan, input): (Plan, Vec<RecordBatch>)| {
        let source: Arc<dyn Source> = Arc::new(Watched(InMemory(input), open.clone()));
        let options = RunOptions {
            data_dir: PathBuf::new(),
            registry: millstream_operators::registry(Environment::default()),
            metrics: Arc::new(Metrics::new()),
            reset: Vec::new(),
            checkpoints: None,
            cores: 1,
            timer: timer::real(),
            run: None,
            bounded: Some(BoundedRun {
                sources: BTreeMap::from([("rows".to_owned(), source)]),
                collect: vec![("counts".to_owned(), Box::new(counted.clone()))],
                tables: BTreeMap::new(),
            }),
        };
        runtime::start(Arc::new(plan), options)
    };
    let running: Vec<_> = plans.into_iter().zip(inputs).map(start).collect();
    for pipeline in &running {
        pipeline.done().await?;
    }
    Ok(Measured {
        seconds: started.elapsed().as_secs_f64(),
        open_bytes: open.load(Ordering::Relaxed).saturating_sub(before),
        results: counted.rows(),
        total: counted.sum(),
    })
}

async fn batched(shape: &Shape, inputs: Vec<Vec<RecordBatch>>) -> anyhow::Result<Measured> {
    let (mut seconds, counted) = (0.0, Counted::summing("n"));
    for input in inputs {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        context.register_table("rows", Arc::new(MemTable::try_new(schema(), vec![input])?))?;
        let started = Instant::now();
        let made = context.sql(&shape.query()).await?.collect().await?;
        seconds += started.elapsed().as_secs_f64();
        made.iter().try_for_each(|rows| counted.take(rows))?;
    }
    Ok(Measured {
        seconds,
        open_bytes: 0,
        results: counted.rows(),
        total: counted.sum(),
    })
}

/// Rows in memory that note how much memory there was when the last of them had been taken.
struct Watched(InMemory, Arc<AtomicU64>);

#[async_trait]
impl Source for Watched {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    async fn partitions(&self, read: &Offsets) -> millstream_engine::Result<Partitions> {
        self.0.partitions(read).await
    }

    fn read(
        &self,
        partition: &PartitionId,
        from: Option<Offset>,
    ) -> BoxStream<'static, millstream_engine::Result<SourceBatch>> {
        let open = self.1.clone();
        let note = async move {
            let now = memory::now().expect("Linux says how much memory a process has");
            open.fetch_max(now, Ordering::Relaxed);
            None
        };
        let rows = self.0.read(partition, from).map(Some);
        rows.chain(futures::stream::once(note))
            .filter_map(std::future::ready)
            .boxed()
    }

    async fn commit(&self, read: &Offsets) -> millstream_engine::Result<()> {
        self.0.commit(read).await
    }
}

/// 10000 as 10,000.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
