//! Windows over the results of windows, checked against plain arithmetic.
//!
//! For each seed: a random chain of two or three levels (tumbling, hopping, cumulative; aligned or not; with
//! and without empty windows), random rows, some of them late at the first level, and watermarks in random
//! steps. Each level counts what the one below made. Whatever the shapes are, no result may be late above,
//! and every level must give what adding up by hand gives; in one partition and in three, undisturbed and
//! restored in the middle. `SEED=n` runs one seed and prints it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use millstream_engine::message::Batch;
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::state::Snapshot;
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::window::Window;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::DataFusionPlanner;
use crate::window::{Panes, window_operator};

const SEEDS: u64 = 60;
const ROWS: usize = 200;
/// Event times, in microseconds: windows are a few of them long.
const LASTS: i64 = 1_000;

/// One level: how it cuts and whether it reports empty windows.
#[derive(Clone, Debug)]
struct Level {
    window: Window,
    emit_empty: bool,
}

/// A level's result for one window: its start, and two sums.
type Row = (i64, i64, i64);

fn level(random: &mut StdRng, longest: u64) -> Level {
    let micros = Duration::from_micros;
    let size = random.random_range(2..longest);
    let offset = micros(random.random_range(0..4));
    let window = match random.random_range(0..3) {
        0 => Window::Tumbling {
            size: micros(size),
            offset,
        },
        1 => Window::Hopping {
            size: micros(size),
            slide: micros(random.random_range(1..=size)),
            offset,
        },
        _ => {
            let step = random.random_range(1..=size.div_ceil(3));
            Window::Cumulative {
                size: micros(step * 3),
                step: micros(step),
                offset,
            }
        }
    };
    Level {
        window,
        emit_empty: random.random_bool(0.5),
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("at", timestamp_type(), false),
        Field::new("n", DataType::Int64, true),
        Field::new("windows", DataType::Int64, true),
    ]))
}

fn rows(of: &[Row]) -> Batch {
    let times = TimestampMicrosecondArray::from_iter_values(of.iter().map(|r| r.0));
    let first = Int64Array::from_iter_values(of.iter().map(|r| r.1));
    let second = Int64Array::from_iter_values(of.iter().map(|r| r.2));
    RecordBatch::try_new(schema(), vec![Arc::new(times), Arc::new(first), Arc::new(second)])
        .expect("rows")
        .into()
}

fn read(batch: &RecordBatch) -> Vec<Row> {
    let times = batch.column(0).as_primitive::<TimestampMicrosecondType>();
    let [first, second] = [1, 2].map(|c| batch.column(c).as_primitive::<Int64Type>());
    (0..batch.num_rows())
        .map(|i| (times.value(i), first.value(i), second.value(i)))
        .collect()
}

fn plan(level: &Level) -> Arc<dyn SqlPlan> {
    let table = SqlTable {
        name: "below".into(),
        schema: schema(),
        event_time: 0,
        window: Some(level.window.clone()),
        lateness: None,
    };
    let query = "SELECT window_start() AS at, coalesce(sum(n), 0) AS n, count(*) AS windows FROM below";
    DataFusionPlanner::new()
        .plan(&SqlRequest {
            name: "level",
            query,
            emit_empty: level.emit_empty,
            state_limit: Bytes(1 << 30),
            tables: &[table],
        })
        .expect("a good query")
}

/// The operators of a level, in the order in which a task calls them.
struct Stage {
    plan: Arc<dyn SqlPlan>,
    window: Window,
    parts: Vec<[Box<dyn Operator>; 2]>,
    upper: Box<dyn Operator>,
    /// What the level's window operators were told.
    watermark: Timestamp,
}

impl Stage {
    fn new(level: &Level, plan: Arc<dyn SqlPlan>, partitions: usize) -> Stage {
        assert_eq!(plan.event_time(), Some(0));
        let part = |_| {
            let window = window_operator(&level.window, 0).expect("window operator");
            [window, plan.local(0).expect("local")]
        };
        Stage {
            parts: (0..partitions).map(part).collect(),
            upper: plan.global().expect("global").expect("windowed"),
            window: level.window.clone(),
            plan,
            watermark: Timestamp::MIN,
        }
    }

    /// Gives how many rows were late.
    fn rows(&mut self, lane: usize, batch: Batch) -> usize {
        let lane = lane % self.parts.len();
        let [window, lower] = &mut self.parts[lane];
        let (mut passed, mut out) = (Output::default(), Output::default());
        window.on_batch(0, batch, &mut passed).expect("window operator");
        for batch in passed.main {
            lower.on_batch(0, batch, &mut out).expect("lower half");
        }
        passed.side.iter().map(RecordBatch::num_rows).sum()
    }

    /// Gives the results, and the watermark behind them.
    async fn watermark(&mut self, at: Timestamp) -> (Vec<RecordBatch>, Timestamp) {
        let (mut out, mut results) = (Output::default(), Output::default());
        if at > self.watermark {
            self.watermark = at;
            for operator in self.parts.iter_mut().flatten() {
                operator.watermark_to_end(at, &mut out).await.expect("watermark");
            }
            for batch in out.main {
                self.upper.on_batch(0, batch, &mut results).expect("upper half");
            }
            let fired = self.upper.watermark_to_end(at, &mut results).await;
            fired.expect("upper half");
        }
        let behind = self.upper.watermark_behind(at);
        assert!(behind <= at, "no watermark runs ahead");
        (results.main.into_iter().map(|b| b.rows).collect(), behind)
    }

    /// The same state in new operators, in one partition.
    fn restored(mut self) -> Stage {
        let level = Level {
            window: self.window.clone(),
            emit_empty: false,
        };
        let mut next = Stage::new(&level, Arc::clone(&self.plan), 1);
        let mut merged = [Snapshot::default(), Snapshot::default()];
        for part in &mut self.parts {
            for (operator, merged) in part.iter_mut().zip(&mut merged) {
                merged.parts.extend(operator.snapshot().expect("snapshot").parts);
            }
        }
        for (operator, merged) in next.parts[0].iter_mut().zip(merged) {
            operator.restore(merged).expect("restore");
        }
        let upper = self.upper.snapshot().expect("snapshot");
        next.upper.restore(upper).expect("restore");
        next
    }
}

/// What happens: rows, or the first level's watermark.
#[derive(Clone, Debug)]
enum Step {
    Rows(usize, Vec<Row>),
    Watermark(i64),
}

fn script(random: &mut StdRng) -> Vec<Step> {
    let mut times: Vec<i64> = (0..ROWS)
        .map(|_| random.random_range(-LASTS / 5..LASTS))
        .collect();
    times.sort_unstable();
    // A hole, so that some windows are empty.
    times.retain(|at| !(300..420).contains(at));
    let mut steps = Vec::new();
    let mut watermark = i64::MIN;
    while !times.is_empty() {
        let count = random.random_range(1..8).min(times.len());
        let some: Vec<Row> = times
            .drain(..count)
            .map(|at| {
                let delay = if random.random_bool(0.1) { 150 } else { 5 };
                (at - random.random_range(0..delay), random.random_range(0..100), 0)
            })
            .collect();
        let newest = some.iter().map(|r| r.0).max().unwrap_or_default();
        steps.push(Step::Rows(random.random_range(0..3), some));
        if random.random_bool(0.6) && newest > watermark {
            watermark = newest;
            steps.push(Step::Watermark(newest));
        }
    }
    steps.push(Step::Watermark(i64::MAX));
    steps
}

/// Runs a script; the results of every level.
async fn run(levels: &[Level], script: &[Step], partitions: usize, restore: bool) -> Vec<Vec<Row>> {
    let mut stages: Vec<Stage> = levels
        .iter()
        .enumerate()
        .map(|(n, level)| Stage::new(level, plan(level), if n == 0 { partitions } else { 1 }))
        .collect();
    let mut results = vec![Vec::new(); levels.len()];
    for (number, step) in script.iter().enumerate() {
        if restore && number == script.len() / 2 {
            stages = stages.into_iter().map(Stage::restored).collect();
        }
        match step {
            Step::Rows(lane, of) => {
                stages[0].rows(*lane, rows(of));
            }
            Step::Watermark(at) => {
                let mut at = Timestamp(*at);
                for n in 0..stages.len() {
                    let (made, behind) = stages[n].watermark(at).await;
                    for batch in made {
                        results[n].extend(read(&batch));
                        if let Some(above) = stages.get_mut(n + 1) {
                            assert_eq!(above.rows(0, batch.into()), 0, "late above level {n}: {levels:?}");
                        }
                    }
                    at = behind;
                }
            }
        }
    }
    results
}

/// The same by hand. `rows` are those that are in time, each with the windows it is still in: by their ends
/// after the watermark that stood before it.
fn by_hand(level: &Level, rows: &[(Row, i64)], first: i64, last: i64) -> Vec<Row> {
    let panes = Panes::new(&level.window).expect("window");
    let mut windows: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for ((at, n, _), watermark) in rows {
        let ends = panes.ends_of(panes.pane_of(*at));
        for end in ends.filter(|end| end > watermark) {
            let sums = windows.entry(end).or_default();
            *sums = (sums.0 + n, sums.1 + 1);
        }
    }
    if level.emit_empty {
        let ends = || windows.keys().copied();
        let until = ends().next_back().unwrap_or(i64::MIN).max(last);
        let mut end = ends().next().unwrap_or(i64::MAX).min(panes.next_end(first));
        while end <= until {
            windows.entry(end).or_default();
            end = panes.next_end(end);
        }
    }
    let row = |(end, (n, windows)): (i64, (i64, i64))| (panes.ending(end).start.0, n, windows);
    windows.into_iter().map(row).collect()
}

fn expected(levels: &[Level], script: &[Step]) -> Vec<Vec<Row>> {
    let finite = |s: &Step| match s {
        Step::Watermark(at) if *at < i64::MAX => Some(*at),
        _ => None,
    };
    let mut first = script.iter().find_map(finite).expect("a watermark");
    let mut last = script.iter().rev().find_map(finite).expect("a watermark");
    let mut watermark = i64::MIN;
    let mut below: Vec<(Row, i64)> = Vec::new();
    for step in script {
        match step {
            Step::Rows(_, rows) => below.extend(rows.iter().map(|row| (*row, watermark))),
            Step::Watermark(at) => watermark = *at,
        }
    }
    let mut all = Vec::new();
    for level in levels {
        let made = by_hand(level, &below, first, last);
        below = made.iter().map(|row| (*row, i64::MIN)).collect();
        all.push(made);
        let panes = Panes::new(&level.window).expect("window");
        [first, last] = [first, last].map(|at| panes.open_from(Timestamp(at)).min(at));
    }
    all
}

#[tokio::test]
async fn results_of_windows_are_in_time_in_windows_above() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    for seed in seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(2..=3);
        let levels: Vec<Level> = (0..count).map(|n| level(&mut random, [20, 60, 150][n])).collect();
        let script = script(&mut random);
        let expected = expected(&levels, &script);
        assert!(expected[1].len() > 5, "seed {seed}: nothing to roll up");
        for (partitions, restore) in [(1, false), (3, false), (3, true)] {
            let got = run(&levels, &script, partitions, restore).await;
            for (n, (mut got, mut expected)) in got.into_iter().zip(expected.clone()).enumerate() {
                got.sort_unstable();
                expected.sort_unstable();
                assert_eq!(
                    got, expected,
                    "SEED={seed} level {n}, {partitions} partitions, restored {restore}, {levels:#?}"
                );
            }
        }
    }
}
