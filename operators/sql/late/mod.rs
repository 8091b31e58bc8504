//! Late rows: windows that fire again, checked against DataFusion in batch over the rows taken so far.
//!
//! Queries run over a seeded stream of rows, many of them late, some beyond the allowed lateness, through
//! window operators, several partitions of lower halves and one upper half. At every watermark each window
//! that is due, for the first time or again, must give, under the next number, what a plain DataFusion session
//! gives for the rows of that window taken by then; nothing else may fire; and the last number of every window
//! must be the result over all its rows. In one partition and in three, undisturbed and restored in the middle
//! to another number. `SEED=n` runs one seed.

mod model;
mod stream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{REVISION, SqlError, SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::state::Snapshot;
use millstream_engine::time::Timestamp;
use millstream_engine::window::Window;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use self::model::{Expected, Model, Results, lines};
use self::stream::{Step, Stream, schema};
use super::DataFusionPlanner;
use crate::window::{ROWS_LATE_UPDATED, updating_window_operator};

const SEEDS: u64 = 4;
const EVENT_TIME: usize = 3;
const TABLES: [&str; 2] = ["impressions", "clicks"];

/// Each names its window, so that its results can be told apart.
const QUERIES: [&str; 8] = [
    "SELECT window_start() AS s, window_end() AS e, count(*) AS n, max(amount) AS most FROM clicks",
    "SELECT window_start() AS s, window_end() AS e, ad, count(*) AS n, sum(amount) AS total FROM clicks GROUP BY ad",
    "SELECT window_start() AS s, window_end() AS e, count(DISTINCT ad) AS ads FROM clicks WHERE amount > 1",
    "SELECT window_start() AS s, window_end() AS e, ad, avg(amount) AS a FROM clicks GROUP BY ad HAVING count(*) < 3",
    "SELECT window_start AS s, window_end AS e, id, amount FROM clicks WHERE ad = 'a1'",
    "SELECT window_start() AS s, window_end() AS e, i.n AS impressions, c.n AS clicks \
     FROM (SELECT count(*) AS n FROM impressions) i CROSS JOIN (SELECT count(*) AS n FROM clicks) c",
    "SELECT window_start() AS s, window_end() AS e, c.ad, c.n, i.n AS seen \
     FROM (SELECT ad, count(*) AS n FROM clicks GROUP BY ad) c \
     LEFT JOIN (SELECT ad, count(*) AS n FROM impressions GROUP BY ad) i ON i.ad = c.ad",
    "SELECT s, e, id FROM (SELECT window_start AS s, window_end AS e, id, \
     row_number() OVER (PARTITION BY ad ORDER BY amount DESC, id) AS place FROM clicks) WHERE place <= 2",
];

fn plan(
    query: &str,
    window: &Window,
    lateness: [Option<Duration>; 2],
    emit_empty: bool,
) -> Result<Arc<dyn SqlPlan>, Vec<SqlError>> {
    let tables = [0, 1].map(|table| SqlTable {
        name: TABLES[table].to_owned(),
        schema: schema(),
        event_time: EVENT_TIME,
        window: Some(window.clone()),
        lateness: lateness[table],
    });
    DataFusionPlanner::new().plan(&SqlRequest {
        name: "case",
        query,
        emit_empty,
        state_limit: Bytes(1 << 30),
        tables: &tables,
    })
}

/// What runs in one partition: number of the table, window operator, lower half.
type Part = (usize, [Box<dyn Operator>; 2]);

struct Operators<'a> {
    how: &'a How,
    parts: Vec<Part>,
    upper: Box<dyn Operator>,
    updated: u64,
    late: u64,
}

/// A query and its windows.
struct How {
    plan: Arc<dyn SqlPlan>,
    window: Window,
    lateness: Duration,
    emit_empty: bool,
}

impl<'a> Operators<'a> {
    fn new(how: &'a How, partitions: usize) -> Operators<'a> {
        let inputs = how.plan.inputs().iter().enumerate();
        let parts = inputs.flat_map(|(input, name)| {
            let table = TABLES.iter().position(|t| t == name).expect("a known table");
            (0..partitions).map(move |_| {
                let window = updating_window_operator(&how.window, EVENT_TIME, how.lateness);
                let lower = how.plan.local(input).expect("local");
                (table, [window.expect("window operator"), lower])
            })
        });
        Operators {
            parts: parts.collect(),
            upper: how.plan.global().expect("global").expect("windowed"),
            how,
            updated: 0,
            late: 0,
        }
    }

    fn rows(&mut self, table: usize, lane: usize, rows: RecordBatch) {
        let mut parts: Vec<_> = self.parts.iter_mut().filter(|p| p.0 == table).collect();
        if parts.is_empty() {
            return;
        }
        let lane = lane % parts.len();
        let [window, lower] = &mut parts[lane].1;
        let (mut passed, mut out) = (Output::default(), Output::default());
        window
            .on_batch(0, rows.into(), &mut passed)
            .expect("window operator");
        self.late += passed.side.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        for (what, rows) in passed.counts {
            assert_eq!(what, ROWS_LATE_UPDATED);
            self.updated += rows;
        }
        for batch in passed.main {
            lower.on_batch(0, batch, &mut out).expect("lower half");
        }
    }

    async fn watermark(&mut self, at: Timestamp) -> Vec<RecordBatch> {
        let (mut out, mut result) = (Output::default(), Output::default());
        for operator in self.parts.iter_mut().flat_map(|p| &mut p.1) {
            operator.watermark_to_end(at, &mut out).await.expect("watermark");
        }
        for batch in out.main {
            self.upper.on_batch(0, batch, &mut result).expect("upper half");
        }
        self.upper
            .watermark_to_end(at, &mut result)
            .await
            .expect("upper half");
        result.main.into_iter().map(|b| b.rows).collect()
    }

    /// State of lower halves on its way to the upper one, as when a barrier comes between an edge's rows and
    /// the watermark of all edges.
    async fn half_a_watermark(&mut self, at: Timestamp) {
        let (mut out, mut result) = (Output::default(), Output::default());
        if let Some((_, part)) = self.parts.first_mut() {
            for operator in part {
                operator.watermark_to_end(at, &mut out).await.expect("watermark");
            }
        }
        for batch in out.main {
            self.upper.on_batch(0, batch, &mut result).expect("upper half");
        }
        assert!(result.main.is_empty());
    }

    /// The same state in another number of partitions.
    fn restored(mut self, partitions: usize) -> Operators<'a> {
        let mut next = Operators::new(self.how, partitions);
        for table in 0..2 {
            let mut merged = [Snapshot::default(), Snapshot::default()];
            for (_, part) in self.parts.iter_mut().filter(|p| p.0 == table) {
                for (operator, merged) in part.iter_mut().zip(&mut merged) {
                    merged.parts.extend(operator.snapshot().expect("snapshot").parts);
                }
            }
            // Every window operator needs its watermark, one lower half the state.
            for (number, (_, part)) in next.parts.iter_mut().filter(|p| p.0 == table).enumerate() {
                part[0].restore(merged[0].clone()).expect("restore");
                if number == 0 {
                    part[1].restore(merged[1].clone()).expect("restore");
                }
            }
        }
        let upper = self.upper.snapshot().expect("snapshot");
        next.upper.restore(upper).expect("restore");
        (next.late, next.updated) = (self.late, self.updated);
        next
    }
}

/// The results of a step by window and revision.
fn results_of(batches: &[RecordBatch]) -> Results {
    let mut results = Results::new();
    for rows in batches {
        let ends = rows.column(1).as_primitive::<TimestampMicrosecondType>();
        let last = rows.num_columns() - 1;
        assert_eq!(rows.schema().field(last).name(), REVISION);
        let revisions = rows.column(last).as_primitive::<Int64Type>();
        for (row, line) in lines(rows, last).into_iter().enumerate() {
            let key = (ends.value(row), revisions.value(row));
            results.entry(key).or_default().push(line);
        }
    }
    results.values_mut().for_each(|lines| lines.sort());
    results
}

async fn run(
    how: &How,
    stream: &Stream,
    expected: &Expected,
    partitions: usize,
    restore: Option<usize>,
    name: &str,
) {
    let mut operators = Operators::new(how, partitions);
    let is_watermark = |(_, step): &(usize, &Step)| matches!(step, Step::Watermark(_));
    let mut watermarks = stream.steps.iter().enumerate().filter(is_watermark);
    let middle = watermarks.find(|(number, _)| number * 2 > stream.steps.len());
    let (middle, _) = middle.expect("a watermark");
    for (number, step) in stream.steps.iter().enumerate() {
        if let (Some(partitions), Step::Watermark(at), true) = (restore, step, number == middle) {
            operators.half_a_watermark(Timestamp(*at)).await;
            operators = operators.restored(partitions);
        }
        let fired = match step {
            Step::Rows(table, lane, rows) => {
                operators.rows(*table, *lane, stream.take(*table, rows));
                Vec::new()
            }
            Step::Watermark(at) => operators.watermark(Timestamp(*at)).await,
        };
        for rows in &fired {
            assert_eq!(rows.schema(), how.plan.schema(), "{name}");
        }
        let got = results_of(&fired);
        assert_eq!(got, expected.results[number], "{name}: step {number}, {step:?}");
    }
    assert_eq!(
        (operators.updated, operators.late),
        (expected.updated, expected.late),
        "{name}"
    );
}

fn windows(random: &mut StdRng) -> Window {
    let us = Duration::from_micros;
    let offset = us(random.random_range(0..5));
    match random.random_range(0..3) {
        0 => Window::Tumbling { size: us(30), offset },
        1 => Window::Hopping {
            size: us(30),
            slide: us([10, 15, 20][random.random_range(0..3)]),
            offset,
        },
        _ => Window::Cumulative {
            size: us(45),
            step: us(15),
            offset,
        },
    }
}

#[tokio::test]
async fn every_revision_is_what_batch_gives_for_the_rows_so_far() {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    };
    let (mut revisions, mut all_updated, mut all_late) = (0, 0, 0);
    for seed in seeds {
        let mut random = StdRng::seed_from_u64(seed);
        let stream = Stream::new(&mut random);
        for query in QUERIES {
            let window = windows(&mut random);
            let lateness = Duration::from_micros(random.random_range(1..120));
            let emit_empty = random.random_bool(0.3);
            let plan = plan(query, &window, [Some(lateness); 2], emit_empty)
                .unwrap_or_else(|e| panic!("{query}\n{e:?}"));
            let how = How {
                plan,
                window,
                lateness,
                emit_empty,
            };
            let expected = Model::new(&how, query, &stream).expected().await;
            revisions += expected
                .results
                .iter()
                .flat_map(BTreeMap::keys)
                .filter(|key| key.1 > 0)
                .count();
            all_updated += expected.updated;
            all_late += expected.late;
            for (partitions, restore) in [(1, None), (3, None), (3, Some(2)), (1, Some(3))] {
                let name = format!(
                    "SEED={seed} {query}\n{:?}, {lateness:?} late, empty {emit_empty}, {partitions} partitions, {restore:?}",
                    how.window
                );
                run(&how, &stream, &expected, partitions, restore, &name).await;
            }
        }
    }
    assert!(
        revisions > 20 && all_updated > 20 && all_late > 20,
        "{revisions} {all_updated} {all_late}"
    );
}

fn minute() -> Window {
    Window::Tumbling {
        size: Duration::from_secs(60),
        offset: Duration::ZERO,
    }
}

fn refused(query: &str, lateness: [Option<Duration>; 2]) -> String {
    let errors = plan(query, &minute(), lateness, false).err().expect("refused");
    errors[0].message.clone()
}

#[test]
fn windows_that_fire_again_are_not_mixed_with_others() {
    let hour = Some(Duration::from_secs(3600));
    let message = refused(QUERIES[5], [hour, None]);
    assert_eq!(
        message,
        "\"impressions\" fires again for rows up to 3600s late, but \"clicks\" fires once; give both the same \
         allowed_lateness and on_late"
    );
    let message = refused(QUERIES[5], [hour, Some(Duration::from_secs(60))]);
    assert!(message.contains("up to 60s late"), "{message}");
    plan(QUERIES[5], &minute(), [hour, hour], false).expect("the same lateness");
}

#[test]
fn the_name_of_the_added_column_is_kept_free() {
    let hour = Some(Duration::from_secs(3600));
    let message = refused("SELECT count(*) AS revision FROM clicks", [hour, hour]);
    assert!(
        message.contains("has a column \"revision\"") && message.contains("another name"),
        "{message}"
    );
    let plan = plan(
        "SELECT count(*) AS revision FROM clicks",
        &minute(),
        [None, None],
        false,
    );
    assert_eq!(plan.expect("it fires once").schema().fields().len(), 1);
}
