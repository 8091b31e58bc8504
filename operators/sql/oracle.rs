//! The one rule for SQL over windows, checked against DataFusion itself.
//!
//! Each query of `cases/queries.sql` runs over a seeded stream of rows (out of order, some late, some nulls, a
//! minute without clicks, a minute without anything) through window operators, several partitions of lower
//! halves and one upper half, undisturbed and with everything snapshotted, thrown away and restored to
//! another number of partitions. Whatever a window gives must be what a plain DataFusion session gives for
//! that window's rows. The script moves the watermark in steps small enough that each closes one window at
//! most, so it is known which window a result is for.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::array_value_to_string;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::sql::{SqlPlan, SqlPlanner, SqlRequest, SqlTable, WINDOW_END, WINDOW_START};
use millstream_engine::state::Snapshot;
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::window::Window;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::DataFusionPlanner;
use crate::window::{Interval, Panes, window_operator};

const SECOND: i64 = 1_000_000;
/// Arrival time moves by this much from one watermark to the next.
const STEP: i64 = 10 * SECOND;
/// The watermark is this far behind arrival.
const BEHIND: i64 = 30 * SECOND;
/// Rows arrive over this long.
const LASTS: i64 = 260 * SECOND;
const EVENT_TIME: usize = 4;
const TABLES: [&str; 2] = ["impressions", "clicks"];

/// A row on its way: its table, its number there, event time and when it arrives.
struct Arrival {
    table: usize,
    row: u32,
    at: i64,
    arrives: i64,
}

/// A seeded stream of rows for both tables.
struct Stream {
    rows: [RecordBatch; 2],
    arrivals: Vec<Arrival>,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("ad_id", DataType::Utf8, true),
        Field::new("user_id", DataType::Utf8, false),
        Field::new("amount", DataType::Float64, true),
        Field::new("occurred_at", timestamp_type(), false),
    ]))
}

impl Stream {
    fn new(seed: u64) -> Stream {
        let mut random = StdRng::seed_from_u64(seed);
        let mut arrivals = Vec::new();
        let rows =
            [(0, 150), (1, 60)].map(|(table, count)| table_rows(table, count, &mut random, &mut arrivals));
        arrivals.sort_by_key(|a| a.arrives);
        Stream { rows, arrivals }
    }
}

fn table_rows(table: usize, count: usize, random: &mut StdRng, arrivals: &mut Vec<Arrival>) -> RecordBatch {
    let mut times = Vec::new();
    while times.len() < count {
        let at = random.random_range(-70 * SECOND..LASTS - 70 * SECOND);
        // Two holes: no rows at all in the second minute, no clicks in the third.
        let minute = at.div_euclid(60 * SECOND);
        if minute == 1 || (minute == 2 && table == 1) {
            continue;
        }
        let delay = match random.random_range(0..10) {
            0 => random.random_range(0..80 * SECOND),
            _ => random.random_range(0..25 * SECOND),
        };
        arrivals.push(Arrival {
            table,
            row: times.len() as u32,
            at,
            arrives: at + delay,
        });
        times.push(at);
    }
    let ids = (0..count).map(|n| format!("{}{n:03}", ["i", "c"][table]));
    // Quarters, so that sums are exact in whatever order they are made.
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(ids)),
        Arc::new(
            (0..count)
                .map(|_| nullable(random, |r| format!("a{}", r.random_range(1..5))))
                .collect::<StringArray>(),
        ),
        Arc::new(StringArray::from_iter_values(
            (0..count).map(|_| format!("u{}", random.random_range(1..8))),
        )),
        Arc::new(
            (0..count)
                .map(|_| nullable(random, |r| f64::from(r.random_range(0..16)) / 4.0))
                .collect::<Float64Array>(),
        ),
        Arc::new(TimestampMicrosecondArray::from(times)),
    ];
    RecordBatch::try_new(schema(), columns).expect("rows")
}

fn nullable<T>(random: &mut StdRng, value: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    (random.random_range(0..8) > 0).then(|| value(random))
}

fn plan(query: &str, window: &Window, emit_empty: bool) -> Arc<dyn SqlPlan> {
    let tables = TABLES.map(|name| SqlTable {
        name: name.to_owned(),
        schema: schema(),
        event_time: EVENT_TIME,
        window: Some(window.clone()),
        lateness: None,
    });
    let request = SqlRequest {
        name: "case",
        query,
        emit_empty,
        tables: &tables,
    };
    DataFusionPlanner::new()
        .plan(&request)
        .unwrap_or_else(|e| panic!("{query}\n{e:?}"))
}

/// The operators of one query: per table and partition a window operator and a lower half, and the upper half.
struct Pipeline {
    chains: Vec<Chain>,
    upper: Box<dyn Operator>,
}

/// What runs in one partition: number of the table, window operator, lower half.
type Chain = (usize, Box<dyn Operator>, Box<dyn Operator>);

impl Pipeline {
    fn new(plan: &dyn SqlPlan, window: &Window, partitions: usize) -> Pipeline {
        let inputs = plan.inputs().iter().enumerate();
        let chains = inputs.flat_map(|(input, name)| {
            let table = TABLES.iter().position(|t| t == name).expect("a known table");
            (0..partitions).map(move |_| {
                let late = window_operator(window, EVENT_TIME).expect("window operator");
                (table, late, plan.local(input).expect("local"))
            })
        });
        Pipeline {
            chains: chains.collect(),
            upper: plan.global().expect("global").expect("windowed"),
        }
    }

    fn rows(&mut self, table: usize, lane: usize, rows: RecordBatch) {
        let mut chains: Vec<_> = self.chains.iter_mut().filter(|c| c.0 == table).collect();
        if chains.is_empty() {
            return;
        }
        let lane = lane % chains.len();
        let (_, late, lower) = &mut *chains[lane];
        let (mut passed, mut out) = (Output::default(), Output::default());
        late.on_batch(0, rows.into(), &mut passed)
            .expect("window operator");
        for batch in passed.main {
            lower.on_batch(0, batch, &mut out).expect("lower half");
        }
        assert!(out.main.is_empty(), "state leaves with the watermark only");
    }

    async fn watermark(&mut self, at: Timestamp) -> Vec<RecordBatch> {
        let mut out = Output::default();
        for (_, late, lower) in &mut self.chains {
            late.on_watermark(at, &mut Output::default())
                .await
                .expect("window operator");
            lower.on_watermark(at, &mut out).await.expect("lower half");
        }
        let mut result = Output::default();
        for batch in out.main {
            self.upper.on_batch(0, batch, &mut result).expect("upper half");
        }
        self.upper
            .on_watermark(at, &mut result)
            .await
            .expect("upper half");
        result.main.into_iter().map(|b| b.rows).collect()
    }

    /// The same state in another number of partitions.
    fn restored(mut self, plan: &dyn SqlPlan, window: &Window, partitions: usize) -> Pipeline {
        let mut next = Pipeline::new(plan, window, partitions);
        let mut parts: BTreeMap<(usize, usize), (Snapshot, Snapshot)> = BTreeMap::new();
        let mut seen = [0, 0];
        for (table, late, lower) in &mut self.chains {
            let lane = seen[*table] % partitions;
            seen[*table] += 1;
            let into = parts.entry((*table, lane)).or_default();
            into.0
                .parts
                .extend(stored(late.snapshot().expect("snapshot")).parts);
            let first = lower.snapshot().expect("snapshot");
            let second = lower.snapshot().expect("snapshot");
            assert_eq!(
                first.parts.len(),
                second.parts.len(),
                "a snapshot must not disturb the state"
            );
            into.1.parts.extend(stored(second).parts);
        }
        let mut lanes = [0, 0];
        for (table, late, lower) in &mut next.chains {
            let lane = lanes[*table];
            lanes[*table] += 1;
            if let Some((of_late, of_lower)) = parts.remove(&(*table, lane)) {
                late.restore(of_late).expect("restore");
                lower.restore(of_lower).expect("restore");
            }
        }
        next.upper
            .restore(stored(self.upper.snapshot().expect("snapshot")))
            .expect("restore");
        next
    }
}

/// A snapshot after its way through a checkpoint: written and read as Arrow IPC.
fn stored(snapshot: Snapshot) -> Snapshot {
    let mut read = Snapshot::default();
    for part in snapshot.parts {
        let mut writer = StreamWriter::try_new(Vec::new(), &part.rows.schema()).expect("writer");
        writer.write(&part.rows).expect("write");
        let bytes = writer.into_inner().expect("bytes");
        let mut reader = StreamReader::try_new(bytes.as_slice(), None).expect("reader");
        read.push(part.label, reader.next().expect("a batch").expect("rows"));
    }
    read
}

/// How a case is run.
#[derive(Clone, Copy, Debug)]
struct Run {
    partitions: usize,
    /// Restore halfway, to so many partitions.
    restore: Option<usize>,
}

const RUNS: [Run; 4] = [
    Run {
        partitions: 1,
        restore: None,
    },
    Run {
        partitions: 3,
        restore: None,
    },
    Run {
        partitions: 3,
        restore: Some(3),
    },
    Run {
        partitions: 3,
        restore: Some(2),
    },
];

/// Runs the stream through the query; the result rows by window end.
async fn run(
    plan: &dyn SqlPlan,
    window: &Window,
    stream: &Stream,
    run: Run,
    seed: u64,
) -> BTreeMap<i64, Vec<RecordBatch>> {
    let panes = Panes::new(window).expect("window");
    let mut random = StdRng::seed_from_u64(seed);
    let mut pipeline = Pipeline::new(plan, window, run.partitions);
    let mut results: BTreeMap<i64, Vec<RecordBatch>> = BTreeMap::new();
    let mut next = 0;
    let mut now = -80 * SECOND;
    let mut watermark = Timestamp::MIN;
    while now < LASTS + 200 * SECOND {
        now += STEP;
        while next < stream.arrivals.len() && stream.arrivals[next].arrives < now {
            let (table, rows, after) = arriving(stream, next, now, &mut random);
            pipeline.rows(table, random.random_range(0..3), rows);
            next = after;
        }
        if let (Some(partitions), true) = (run.restore, now == 100 * SECOND) {
            pipeline = pipeline.restored(plan, window, partitions);
        }
        let fired = pipeline.watermark(Timestamp(now - BEHIND)).await;
        if !fired.is_empty() {
            let end = panes.next_end(watermark.0.max(now - BEHIND - STEP));
            assert!(end <= now - BEHIND, "results without a window to fire at {now}");
            results.entry(end).or_default().extend(fired);
        }
        watermark = Timestamp(now - BEHIND);
    }
    assert!(
        pipeline.watermark(Timestamp::MAX).await.is_empty(),
        "everything has fired before"
    );
    results
}

/// The next few rows of one table that arrive before `now`, and where the stream goes on.
fn arriving(stream: &Stream, from: usize, now: i64, random: &mut StdRng) -> (usize, RecordBatch, usize) {
    let table = stream.arrivals[from].table;
    let most = random.random_range(1..12);
    let fits = |a: &&Arrival| a.table == table && a.arrives < now;
    let rows: Vec<u32> = stream.arrivals[from..]
        .iter()
        .take(most)
        .take_while(fits)
        .map(|a| a.row)
        .collect();
    let after = from + rows.len();
    let batch = take_record_batch(&stream.rows[table], &UInt32Array::from(rows)).expect("rows");
    (table, batch, after)
}

/// The rows each window holds, by its end: those that arrived before the watermark passed it.
fn by_window(window: &Window, stream: &Stream) -> BTreeMap<i64, [Vec<u32>; 2]> {
    let panes = Panes::new(window).expect("window");
    let mut windows: BTreeMap<i64, [Vec<u32>; 2]> = BTreeMap::new();
    for arrival in &stream.arrivals {
        // The watermark that stood before the step in which the row arrived.
        let watermark = arrival.arrives.div_euclid(STEP) * STEP - BEHIND;
        for end in panes
            .ends_of(panes.pane_of(arrival.at))
            .filter(|end| *end > watermark)
        {
            windows.entry(end).or_default()[arrival.table].push(arrival.row);
        }
    }
    windows
}

/// What DataFusion gives in batch when the tables hold the given rows.
async fn batch_result(query: &str, window: Interval, tables: [RecordBatch; 2]) -> Vec<RecordBatch> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let bounds = [(WINDOW_START, window.start), (WINDOW_END, window.end)];
    for (name, at) in bounds {
        let value = ScalarValue::TimestampMicrosecond(Some(at.0), None);
        let constant = Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone())));
        context.register_udf(create_udf(
            name,
            vec![],
            timestamp_type(),
            Volatility::Immutable,
            constant,
        ));
    }
    for (name, rows) in TABLES.iter().zip(tables) {
        let mut fields = rows.schema().fields().to_vec();
        let mut columns = rows.columns().to_vec();
        for (bound, at) in bounds {
            fields.push(Arc::new(Field::new(bound, timestamp_type(), false)));
            columns.push(Arc::new(TimestampMicrosecondArray::from_value(
                at.0,
                rows.num_rows(),
            )));
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("rows");
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).expect("table");
        context.register_table(*name, Arc::new(table)).expect("register");
    }
    let frame = context
        .sql(query)
        .await
        .unwrap_or_else(|e| panic!("{query}\n{e}"));
    frame.collect().await.unwrap_or_else(|e| panic!("{query}\n{e}"))
}

/// Rows as text; floating point to nine digits, because sums of products depend on the order. The nudge moves
/// values off the middle between two roundings, where quarters and what is made of them like to fall.
fn text(batches: &[RecordBatch], ordered: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for rows in batches {
        for row in 0..rows.num_rows() {
            let mut line = String::new();
            for column in rows.columns() {
                let cell = match column.as_primitive_opt::<Float64Type>() {
                    Some(numbers) if numbers.is_valid(row) => {
                        format!("{:.8e}", numbers.value(row) * (1.0 + 1e-11))
                    }
                    _ => array_value_to_string(column, row).expect("a printable value"),
                };
                write!(line, "{cell} | ").expect("a string");
            }
            lines.push(line);
        }
    }
    if !ordered {
        lines.sort();
    }
    lines
}

fn cases() -> Vec<(&'static str, &'static str)> {
    let blocks = include_str!("cases/queries.sql").split("-- case: ").skip(1);
    blocks
        .map(|block| block.split_once('\n').expect("a name and a query"))
        .collect()
}

async fn check(window: Window, seeds: &[u64]) {
    let panes = Panes::new(&window).expect("window");
    let only = std::env::var("CASE").ok();
    let mut wrong = Vec::new();
    for (name, query) in cases() {
        if only.as_deref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let plan = plan(query, &window, false);
        for seed in seeds {
            let stream = Stream::new(*seed);
            let mut expected = BTreeMap::new();
            let used = |table: usize| plan.inputs().iter().any(|i| i == TABLES[table]);
            for (end, rows) in by_window(&window, &stream) {
                if !(0..2).any(|t| used(t) && !rows[t].is_empty()) {
                    continue;
                }
                let tables = [0, 1].map(|t| {
                    take_record_batch(&stream.rows[t], &UInt32Array::from(rows[t].clone())).expect("rows")
                });
                let result = batch_result(query, panes.ending(end), tables).await;
                expected.insert(end, text(&result, name.ends_with("ordered")));
            }
            expected.retain(|_, rows| !rows.is_empty());
            assert!(expected.len() > 1, "{name}: the stream gives it nothing to do");
            for how in RUNS {
                let results = run(plan.as_ref(), &window, &stream, how, *seed).await;
                for batch in results.values().flatten() {
                    assert_eq!(batch.schema(), plan.schema(), "{name}");
                }
                let got: BTreeMap<i64, Vec<String>> = results
                    .iter()
                    .map(|(end, rows)| (*end, text(rows, name.ends_with("ordered"))))
                    .collect();
                if got != expected {
                    wrong.push(format!(
                        "{name}, {window:?}, seed {seed}, {how:?}:\n{}",
                        difference(&got, &expected)
                    ));
                    break;
                }
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} cases differ\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn difference(got: &BTreeMap<i64, Vec<String>>, expected: &BTreeMap<i64, Vec<String>>) -> String {
    let mut ends: Vec<_> = got.keys().chain(expected.keys()).collect();
    ends.sort_unstable();
    ends.dedup();
    let end = ends
        .into_iter()
        .find(|end| got.get(end) != expected.get(end))
        .expect("a difference");
    format!(
        "  window to {}\n  got      {:?}\n  expected {:?}",
        Timestamp(*end),
        got.get(end),
        expected.get(end)
    )
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn tumbling_windows_give_what_batch_gives() {
    let offset = Duration::from_secs(5);
    check(Window::Tumbling { size: MINUTE, offset }, &[1, 2]).await;
}

#[tokio::test]
async fn hopping_windows_give_what_batch_gives() {
    let (slide, offset) = (Duration::from_secs(20), Duration::ZERO);
    check(
        Window::Hopping {
            size: MINUTE,
            slide,
            offset,
        },
        &[3],
    )
    .await;
}

#[tokio::test]
async fn cumulative_windows_give_what_batch_gives() {
    let (step, offset) = (Duration::from_secs(20), Duration::ZERO);
    check(
        Window::Cumulative {
            size: MINUTE,
            step,
            offset,
        },
        &[4],
    )
    .await;
}

#[test]
fn streams_have_what_the_cases_need() {
    let stream = Stream::new(1);
    let all = concat_batches(&schema(), &stream.rows).expect("rows");
    assert!(all.column(1).null_count() > 0 && all.column(3).null_count() > 0);
    let window = Window::Tumbling {
        size: MINUTE,
        offset: Duration::ZERO,
    };
    let on_time: usize = by_window(&window, &stream).values().flatten().map(Vec::len).sum();
    assert!(on_time < stream.arrivals.len(), "some rows are late");
    assert!(
        stream.arrivals.iter().any(|a| a.at < 0),
        "some rows are before the epoch"
    );
}
