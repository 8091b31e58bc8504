//! The cases of `counts`: one core's work on a row, from the bytes of a request to the result of a window.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, ensure};
use arrow::array::RecordBatch;
use futures::executor::block_on;
use millstream_benches::{envelope, impressions, lines, schema};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::time::Timestamp;
use millstream_engine::window::Window;
use millstream_operators::formats::json::Decoder;
use millstream_operators::log::{Log, LogOptions};
use millstream_operators::sql::DataFusionPlanner;

/// What is counted.
pub struct Case {
    pub name: &'static str,
    run: fn() -> anyhow::Result<usize>,
}

/// All of them. A name is a table of `counts.toml`.
pub const CASES: [Case; 9] = [
    Case {
        name: "decode_lines",
        run: || decode(Decoder::new(schema())?, &lines(500), 500, 40),
    },
    Case {
        name: "decode_envelope",
        run: || decode(enveloped()?, &envelope(500), 500, 40),
    },
    Case {
        name: "decode_envelope_of_one",
        run: || decode(enveloped()?, &envelope(1), 1, 4_000),
    },
    Case {
        name: "log_append",
        run: || append(500, 100),
    },
    Case {
        name: "log_append_of_one",
        run: || append(1, 400),
    },
    Case {
        name: "window_count",
        run: || window(minutes(1), COUNT),
    },
    Case {
        name: "window_count_per_ad",
        run: || window(minutes(1), PER_AD),
    },
    Case {
        name: "window_hopping_per_ad",
        run: || window(hopping(), PER_AD),
    },
    Case {
        name: "window_distinct",
        run: || window(minutes(1), DISTINCT),
    },
];

const COUNT: &str = "SELECT count(*) AS n FROM w";
const PER_AD: &str = "SELECT ad_id, count(*) AS n FROM w GROUP BY ad_id";
const DISTINCT: &str = "SELECT count(DISTINCT ad_id) AS n FROM w";

/// Runs the cases of these names and prints how many rows each measured, a line each.
pub fn run(names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let case = CASES
            .iter()
            .find(|case| case.name == name)
            .context("no such case")?;
        println!("{}", (case.run)().with_context(|| name.clone())?);
    }
    Ok(())
}

/// Does the work that is counted. Each case comes here once, and not before it has done the same work, or a part of
/// it, a first time: buffers have grown and lazy values are there.
fn measured(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    counting_starts();
    let result = work();
    counting_ends();
    result
}

/// Callgrind zeroes its counts when this is called: by its name, so it must stay a function.
#[inline(never)]
fn counting_starts() {
    black_box(());
}

/// And writes them down when this is.
#[inline(never)]
fn counting_ends() {
    black_box(());
}

fn enveloped() -> anyhow::Result<Decoder> {
    Ok(Decoder::new(schema())?.enveloped(Some("impressions".into())))
}

/// A batch for every 500 rows, as a lane makes one of all requests that are ready.
fn decode(mut decoder: Decoder, body: &[u8], rows: usize, bodies: usize) -> anyhow::Result<usize> {
    let mut some = |bodies: usize| {
        for _ in 0..bodies {
            let decoded = decoder.decode(black_box(body), Timestamp(0));
            let decoded = decoded.map_err(|error| anyhow::anyhow!("{error:?}"))?;
            ensure!(decoded.failed.is_empty() && decoded.rows == rows, "rows are lost");
            if decoder.len() >= 500 {
                black_box(decoder.finish()?);
            }
        }
        Ok(())
    };
    some(500 / rows)?;
    measured(|| some(bodies))?;
    Ok(bodies * rows)
}

/// One frame at a time, durable before the next: how many share a commit would be chance.
fn append(rows: usize, frames: usize) -> anyhow::Result<usize> {
    let dir = tempfile::tempdir()?;
    let log = Log::open(LogOptions::new(dir.path().into()), schema())?;
    let batch = impressions(rows, 1_000, 60);
    let some = |frames: usize| {
        for _ in 0..frames {
            block_on(log.append(batch.clone(), None)?.durable)??;
        }
        Ok(())
    };
    some(10)?;
    measured(|| some(frames))?;
    Ok(frames * rows)
}

const ROWS: usize = 100_000;
const ROWS_PER_BATCH: usize = 8_192;
/// Event time the rows are spread over.
const SECONDS: u64 = 300;
/// Index of the event-time column.
const EVENT_TIME: usize = 2;

fn minutes(minutes: u64) -> Window {
    Window::Tumbling {
        size: Duration::from_secs(60 * minutes),
        offset: Duration::ZERO,
    }
}

fn hopping() -> Window {
    let [size, slide] = [120, 30].map(Duration::from_secs);
    Window::Hopping {
        size,
        slide,
        offset: Duration::ZERO,
    }
}

/// From the window operator through the lower half to the results.
fn window(window: Window, query: &str) -> anyhow::Result<usize> {
    let plan = plan(&window, query)?;
    let rows = impressions(ROWS, 1_000, SECONDS as i64);
    let batches: Vec<_> = (0..ROWS)
        .step_by(ROWS_PER_BATCH)
        .map(|from| rows.slice(from, ROWS_PER_BATCH.min(ROWS - from)))
        .collect();
    Chain::new(&window, &*plan)?.run(&batches)?;
    let mut chain = Chain::new(&window, &*plan)?;
    measured(|| chain.run(&batches))?;
    Ok(ROWS)
}

fn plan(window: &Window, query: &str) -> anyhow::Result<std::sync::Arc<dyn SqlPlan>> {
    let table = SqlTable {
        name: "w".into(),
        schema: schema(),
        event_time: EVENT_TIME,
        window: Some(window.clone()),
        lateness: None,
    };
    let planned = DataFusionPlanner::new().plan(&SqlRequest {
        name: "counts",
        query,
        emit_empty: false,
        state_limit: Bytes(1 << 30),
        tables: &[table],
    });
    planned.map_err(|errors| anyhow::anyhow!("{errors:?}"))
}

/// The operators of one partition and the upper half behind it, as the runtime chains them.
struct Chain {
    window: Box<dyn Operator>,
    local: Box<dyn Operator>,
    global: Box<dyn Operator>,
}

impl Chain {
    fn new(window: &Window, plan: &dyn SqlPlan) -> anyhow::Result<Chain> {
        Ok(Chain {
            window: DataFusionPlanner::new().window(window, EVENT_TIME, Duration::ZERO)?,
            local: plan.local(0)?,
            global: plan.global()?.context("the query is windowed")?,
        })
    }

    /// All rows, then the watermark: every window has a result.
    fn run(&mut self, batches: &[RecordBatch]) -> anyhow::Result<()> {
        for batch in batches {
            let mut cut = Output::default();
            self.window.on_batch(0, batch.clone().into(), &mut cut)?;
            for batch in cut.main {
                self.local.on_batch(0, batch, &mut Output::default())?;
            }
        }
        let results = block_on(self.close())?;
        ensure!(results >= SECONDS as usize / 60, "windows are missing");
        Ok(())
    }

    async fn close(&mut self) -> anyhow::Result<usize> {
        let (mut cut, mut partial, mut out) = (Output::default(), Output::default(), Output::default());
        self.window.on_watermark(Timestamp::MAX, &mut cut).await?;
        for batch in cut.main {
            self.local.on_batch(0, batch, &mut partial)?;
        }
        self.local.watermark_to_end(Timestamp::MAX, &mut partial).await?;
        for batch in partial.main {
            self.global.on_batch(0, batch, &mut out)?;
        }
        self.global.watermark_to_end(Timestamp::MAX, &mut out).await?;
        Ok(out.main.iter().map(|batch| batch.rows.num_rows()).sum())
    }
}
