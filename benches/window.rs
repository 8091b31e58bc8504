//! Windowed SQL as it runs in a partition and at the close, beside batch DataFusion on the same rows, one core
//! each, in turns in one run.
//!
//! Ours gets the rows batch by batch, cuts them into windows and gives the result of each. Batch DataFusion runs
//! the query once over all rows with the window as a group column. Every measurement is a process of its own, so
//! that peak memory is that of one query; both must give as many rows with the same total of `n`.
//!
//! `cargo bench --workspace --bench window [-- PART_OF_A_NAME]`

mod window_cases;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_benches::{START, impressions, median, memory, schema};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::time::Timestamp;
use millstream_engine::window::Window;
use millstream_operators::sql::DataFusionPlanner;

use window_cases::{CASES, Case};

const ROWS_PER_BATCH: usize = 8_192;
/// Processes per measurement, in turns, and how often each runs the query after a first, untimed time.
const PROCESSES: usize = 3;
const RUNS: usize = 3;

/// How the parent calls itself.
const MEASURE: &str = "--measure";
const ENGINES: [&str; 2] = ["millstream", "datafusion"];

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [MEASURE, case, engine] => {
            let measured = measure(&CASES[case.parse::<usize>()?], engine)?;
            println!("{}", measured.line());
            Ok(())
        }
        [] => compare_all(""),
        [part] => compare_all(part),
        _ => bail!("give at most one argument: part of the name of a query"),
    }
}

fn compare_all(part: &str) -> anyhow::Result<()> {
    println!(
        "| query | rows | Millstream rows/s | batch DataFusion rows/s | ratio | Millstream MB | DataFusion MB |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (number, case) in CASES
        .iter()
        .enumerate()
        .filter(|(_, case)| case.name.contains(part))
    {
        let mut seconds = [Vec::new(), Vec::new()];
        let mut first = [None, None];
        for _ in 0..PROCESSES {
            for (at, engine) in ENGINES.iter().enumerate() {
                let measured =
                    in_a_process(number, engine).with_context(|| format!("{}: {engine}", case.name))?;
                seconds[at].extend(measured.seconds.iter().copied());
                first[at].get_or_insert(measured);
            }
        }
        let [Some(ours), Some(batch)] = first else {
            bail!("nothing was measured");
        };
        ensure!(
            ours.results > 0 && (ours.results, ours.total) == (batch.results, batch.total),
            "{}: results differ: rows and total of n are {:?}, in batch {:?}",
            case.name,
            (ours.results, ours.total),
            (batch.results, batch.total)
        );
        let [our_rate, batch_rate] = seconds.map(|s| case.taken() as f64 / median(s));
        println!(
            "| {} | {} | {:.2} M | {:.2} M | {:.2} | {:.0} | {:.0} |",
            case.name,
            case.taken(),
            our_rate / 1e6,
            batch_rate / 1e6,
            our_rate / batch_rate,
            ours.peak_bytes as f64 / 1e6,
            batch.peak_bytes as f64 / 1e6
        );
    }
    Ok(())
}

/// What one process found.
struct Measured {
    seconds: Vec<f64>,
    /// The most memory the first run had beside its input.
    peak_bytes: u64,
    results: u64,
    total: i64,
}

impl Measured {
    fn line(&self) -> String {
        let seconds: Vec<_> = self.seconds.iter().map(f64::to_string).collect();
        format!(
            "{} {} {} {}",
            self.peak_bytes,
            self.results,
            self.total,
            seconds.join(" ")
        )
    }

    fn parse(line: &str) -> anyhow::Result<Measured> {
        let mut words = line.split_whitespace();
        let mut next = || words.next().context("a measurement is cut off");
        Ok(Measured {
            peak_bytes: next()?.parse()?,
            results: next()?.parse()?,
            total: next()?.parse()?,
            seconds: words.map(str::parse).collect::<Result<_, _>>()?,
        })
    }
}

fn in_a_process(case: usize, engine: &str) -> anyhow::Result<Measured> {
    let me = std::env::current_exe()?;
    let output = Command::new(me)
        .args([MEASURE, &case.to_string(), engine])
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Measured::parse(&String::from_utf8(output.stdout)?)
}

fn measure(case: &Case, engine: &str) -> anyhow::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let tables = Table::all(case);
    let plan = plan(case)?;
    let run = || -> anyhow::Result<Vec<RecordBatch>> {
        match engine {
            "millstream" => runtime.block_on(Chain::new(case, &*plan)?.run(&tables)),
            _ => runtime.block_on(batch(case, &tables)),
        }
    };
    let before = memory::forget_peak()?;
    let results = run()?;
    let peak_bytes = memory::peak()?.saturating_sub(before);
    let time = |_| {
        let started = Instant::now();
        run().map(|_| started.elapsed().as_secs_f64())
    };
    Ok(Measured {
        seconds: (0..RUNS).map(time).collect::<Result<_, _>>()?,
        peak_bytes,
        results: results.iter().map(|batch| batch.num_rows() as u64).sum(),
        total: results.iter().map(total).sum::<anyhow::Result<i64>>()?,
    })
}

/// The sum of a result's column `n`.
fn total(results: &RecordBatch) -> anyhow::Result<i64> {
    let counts = results
        .column_by_name("n")
        .context("every query has a column n")?;
    let counts = counts.as_primitive_opt::<Int64Type>().context("n is a bigint")?;
    Ok(arrow::compute::sum(counts).unwrap_or(0))
}

/// The rows of one input.
struct Table {
    name: &'static str,
    batches: Vec<RecordBatch>,
}

impl Table {
    fn all(case: &Case) -> Vec<Table> {
        let one = |(name, every): &(&'static str, usize)| {
            let rows = impressions(case.rows / every, case.ads, case.seconds);
            let count = rows.num_rows();
            let cut = |from: usize| rows.slice(from, ROWS_PER_BATCH.min(count - from));
            Table {
                name,
                batches: (0..count).step_by(ROWS_PER_BATCH).map(cut).collect(),
            }
        };
        case.tables.iter().map(one).collect()
    }
}

/// The operators of one partition of each input, and the global half, as the runtime chains them.
struct Chain<'a> {
    case: &'a Case,
    /// The window operator and the lower half of each input of the plan.
    lower: Vec<(Box<dyn Operator>, Box<dyn Operator>)>,
    /// Which input of the plan a table is.
    inputs: Vec<usize>,
    global: Box<dyn Operator>,
}

impl<'a> Chain<'a> {
    fn new(case: &'a Case, plan: &dyn SqlPlan) -> anyhow::Result<Chain<'a>> {
        let planner = DataFusionPlanner::new();
        let window = || match (case.window)() {
            Window::Session { gap, .. } => planner.session(&schema(), EVENT_TIME, gap, &[AD_ID]),
            window => planner.window(&window, EVENT_TIME, Duration::ZERO),
        };
        let lower = (0..plan.inputs().len()).map(|input| anyhow::Ok((window()?, plan.local(input)?)));
        let position = |(name, _): &(&str, usize)| plan.inputs().iter().position(|input| input == name);
        let inputs: Option<Vec<_>> = case.tables.iter().map(position).collect();
        Ok(Chain {
            case,
            lower: lower.collect::<anyhow::Result<_>>()?,
            inputs: inputs.context("the query reads every table")?,
            global: plan.global()?.context("the query is windowed")?,
        })
    }

    /// Pushes the inputs side by side, each with a share of its rows at a time, the watermark behind them.
    async fn run(&mut self, tables: &[Table]) -> anyhow::Result<Vec<RecordBatch>> {
        let steps = tables.iter().map(|table| table.batches.len()).max().unwrap_or(0);
        let mut results = Vec::new();
        for step in 0..steps {
            for (table, input) in tables.iter().zip(self.inputs.clone()) {
                // Rounded up: a batch comes before the watermark reaches its first row.
                let upto = |step: usize| (step * table.batches.len()).div_ceil(steps);
                for batch in &table.batches[upto(step)..upto(step + 1)] {
                    self.push(input, batch)?;
                }
            }
            let at = START + self.case.seconds * 1_000_000 / steps as i64 * step as i64;
            results.extend(self.advance(Timestamp(at)).await?);
        }
        results.extend(self.advance(Timestamp::MAX).await?);
        Ok(results)
    }

    fn push(&mut self, input: usize, rows: &RecordBatch) -> anyhow::Result<()> {
        let (window, local) = &mut self.lower[input];
        let mut on_time = Output::default();
        window.on_batch(0, rows.clone().into(), &mut on_time)?;
        ensure!(on_time.side.is_empty(), "rows are late");
        for batch in on_time.main {
            local.on_batch(0, batch, &mut Output::default())?;
        }
        Ok(())
    }

    async fn advance(&mut self, at: Timestamp) -> anyhow::Result<Vec<RecordBatch>> {
        let (mut partial, mut out) = (Output::default(), Output::default());
        for (window, local) in &mut self.lower {
            let mut closed = Output::default();
            window.on_watermark(at, &mut closed).await?;
            for batch in closed.main {
                local.on_batch(0, batch, &mut partial)?;
            }
            local.watermark_to_end(at, &mut partial).await?;
        }
        for batch in partial.main {
            self.global.on_batch(0, batch, &mut out)?;
        }
        self.global.watermark_to_end(at, &mut out).await?;
        Ok(out.main.into_iter().map(|batch| batch.rows).collect())
    }
}

/// Index of the event-time column.
const EVENT_TIME: usize = 2;
/// Index of the column that sessions have for a key.
const AD_ID: usize = 1;

fn plan(case: &Case) -> anyhow::Result<Arc<dyn SqlPlan>> {
    let table = |(name, _): &(&str, usize)| SqlTable {
        name: (*name).into(),
        schema: schema(),
        event_time: EVENT_TIME,
        window: Some((case.window)()),
        lateness: None,
    };
    let tables: Vec<_> = case.tables.iter().map(table).collect();
    let request = SqlRequest {
        name: "bench",
        query: case.windowed,
        emit_empty: false,
        state_limit: Bytes(1 << 30),
        tables: &tables,
    };
    let planned = DataFusionPlanner::new().plan(&request);
    planned.map_err(|errors| anyhow::anyhow!("{}: {errors:?}", case.name))
}

async fn batch(case: &Case, tables: &[Table]) -> anyhow::Result<Vec<RecordBatch>> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    for table in tables {
        let schema: SchemaRef = schema();
        let rows = MemTable::try_new(schema, vec![table.batches.clone()])?;
        context.register_table(table.name, Arc::new(rows))?;
    }
    Ok(context.sql(case.batch).await?.collect().await?)
}

/// A window of `minutes`.
pub(crate) const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}
