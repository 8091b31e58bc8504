//! Late rows: windows that fire again, checked against DataFusion in batch over the rows taken so far.
//!
//! Queries run over a seeded stream of rows, many of them late, some beyond the allowed lateness, through
//! window operators, several partitions of lower halves and one upper half. At every watermark each window
//! that is due, for the first time or again, must give, under the next number, what a plain DataFusion session
//! gives for the rows of that window taken by then; nothing else may fire; and the last number of every window
//! must be the result over all its rows. In one partition and in three, undisturbed and restored in the middle
//! to another number. `SEED=n` runs one seed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{REVISION, SqlError, SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::state::Snapshot;
use millstream_engine::time::{Timestamp, micros, timestamp_type};
use millstream_engine::window::Window;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::DataFusionPlanner;
use crate::window::{Interval, Panes, ROWS_LATE_UPDATED, updating_window_operator};

const SEEDS: u64 = 6;
const ROWS: usize = 120;
/// Event times, in microseconds, begin and end here.
const TIMES: (i64, i64) = (-60, 400);
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

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ad", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("at", timestamp_type(), false),
    ]))
}

/// What happens to the operators, in order.
#[derive(Clone, Debug)]
enum Step {
    /// Rows of a table arrive in a partition, by their numbers.
    Rows(usize, usize, Vec<u32>),
    Watermark(i64),
}

/// A seeded stream of rows.
struct Stream {
    rows: [RecordBatch; 2],
    steps: Vec<Step>,
}

impl Stream {
    fn new(random: &mut StdRng) -> Stream {
        let mut arrivals = Vec::new();
        let rows = [0, 1].map(|table| {
            let mut times: Vec<i64> = (0..ROWS).map(|_| random.random_range(TIMES.0..TIMES.1)).collect();
            // A hole, so that some windows are empty, or have late rows only.
            let hole = |at: &i64, random: &mut StdRng| (150..230).contains(at) && random.random_bool(0.9);
            times.retain(|at| !hole(at, random));
            for (row, at) in times.iter().enumerate() {
                let delay = [0..10, 0..60, 40..250][random.random_range(0..3)].clone();
                arrivals.push((at + random.random_range(delay), table, row as u32));
            }
            columns(&times, random)
        });
        arrivals.sort_unstable();
        let steps = steps(&arrivals, random);
        Stream { rows, steps }
    }

    fn at(&self, table: usize, row: u32) -> i64 {
        let times = self.rows[table].column(EVENT_TIME);
        times
            .as_primitive::<TimestampMicrosecondType>()
            .value(row as usize)
    }

    fn take(&self, table: usize, rows: &[u32]) -> RecordBatch {
        let rows = UInt32Array::from(rows.to_vec());
        take_record_batch(&self.rows[table], &rows).expect("rows")
    }
}

fn columns(times: &[i64], random: &mut StdRng) -> RecordBatch {
    let ads = times.iter().map(|_| {
        let ad = random.random_range(0..5);
        (ad > 0).then(|| format!("a{ad}"))
    });
    let ads: StringArray = ads.collect();
    // Quarters, so that sums are exact in whatever order they are made.
    let amounts = times.iter().map(|_| {
        let quarters = random.random_range(0..14);
        (quarters < 12).then(|| f64::from(quarters) / 4.0)
    });
    let amounts: Float64Array = amounts.collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(0..times.len() as i64)),
        Arc::new(ads),
        Arc::new(amounts),
        Arc::new(TimestampMicrosecondArray::from(times.to_vec())),
    ];
    RecordBatch::try_new(schema(), columns).expect("rows")
}

fn steps(arrivals: &[(i64, usize, u32)], random: &mut StdRng) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut watermark = i64::MIN;
    for some in arrivals.chunk_by(|a, b| a.1 == b.1 && a.0 / 7 == b.0 / 7) {
        let rows = some.iter().map(|a| a.2).collect();
        steps.push(Step::Rows(some[0].1, random.random_range(0..3), rows));
        let newest = some[some.len() - 1].0;
        if random.random_bool(0.4) && newest > watermark {
            watermark = newest;
            steps.push(Step::Watermark(newest));
        }
    }
    steps.push(Step::Watermark(i64::MAX));
    steps
}

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
            operator.on_watermark(at, &mut out).await.expect("watermark");
        }
        for batch in out.main {
            self.upper.on_batch(0, batch, &mut result).expect("upper half");
        }
        self.upper
            .on_watermark(at, &mut result)
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
                operator.on_watermark(at, &mut out).await.expect("watermark");
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

/// Results by the end of their window and their revision, as text.
type Results = BTreeMap<(i64, i64), Vec<String>>;

/// What should come: by the rule, with DataFusion in batch for every firing.
struct Expected {
    /// By step.
    results: Vec<Results>,
    updated: u64,
    late: u64,
}

struct Model<'a> {
    how: &'a How,
    query: &'a str,
    stream: &'a Stream,
    panes: Panes,
    watermark: i64,
    taken: BTreeMap<i64, [Vec<u32>; 2]>,
    touched: BTreeSet<i64>,
    fired: BTreeMap<i64, i64>,
    /// Windows end from here on, where empty ones fire.
    known: Option<i64>,
}

impl Model<'_> {
    fn is_kept(&self, end: i64) -> bool {
        end.saturating_add(micros(self.how.lateness)) > self.watermark
    }

    async fn expected(mut self) -> Expected {
        let (mut results, mut updated, mut late) = (Vec::new(), 0, 0);
        for step in &self.stream.steps {
            let mut of_step = Results::new();
            match step {
                Step::Rows(table, _, rows) if self.reads(*table) => {
                    for row in rows {
                        let ends: Vec<i64> = self
                            .panes
                            .ends_of(self.panes.pane_of(self.stream.at(*table, *row)))
                            .collect();
                        let last = *ends.last().expect("a row has a window");
                        late += u64::from(!self.is_kept(last));
                        updated += u64::from(self.is_kept(last) && last <= self.watermark);
                        let kept: Vec<i64> = ends.into_iter().filter(|end| self.is_kept(*end)).collect();
                        for end in kept {
                            self.taken.entry(end).or_default()[*table].push(*row);
                            self.touched.insert(end);
                        }
                    }
                }
                Step::Rows(..) => {}
                Step::Watermark(at) => {
                    for end in self.due(*at) {
                        let revision = self.fired.entry(end).and_modify(|n| *n += 1).or_insert(0);
                        let key = (end, *revision);
                        let rows = self.batch(end).await;
                        if !rows.is_empty() {
                            of_step.insert(key, rows);
                        }
                    }
                    self.watermark = *at;
                }
            }
            results.push(of_step);
        }
        Expected {
            results,
            updated,
            late,
        }
    }

    fn reads(&self, table: usize) -> bool {
        self.how.plan.inputs().iter().any(|i| i == TABLES[table])
    }

    fn due(&mut self, at: i64) -> Vec<i64> {
        let again = |end: &i64| *end <= self.watermark;
        let mut due: BTreeSet<i64> = self.touched.iter().copied().filter(again).collect();
        let first = self
            .taken
            .keys()
            .copied()
            .filter(|end| *end > self.watermark && *end <= at);
        due.extend(first);
        if self.how.emit_empty {
            let new = |end: &&i64| **end > self.watermark;
            let (first, last) = (due.iter().find(new).copied(), due.iter().rev().find(new).copied());
            let mut end = match self.known {
                None => first.unwrap_or(i64::MAX).min(self.panes.next_end(at)),
                Some(_) => self.panes.next_end(self.watermark),
            };
            self.known = Some(end);
            let until = if at == i64::MAX {
                last.unwrap_or(i64::MIN)
            } else {
                at
            };
            while end <= until {
                due.insert(end);
                end = self.panes.next_end(end);
            }
        }
        self.touched.retain(|end| *end > at);
        due.into_iter().collect()
    }

    /// What DataFusion gives in batch for the rows of a window taken so far.
    async fn batch(&self, end: i64) -> Vec<String> {
        let rows = self.taken.get(&end).cloned().unwrap_or_default();
        let tables = [0, 1].map(|t| self.stream.take(t, &rows[t]));
        let result = batch_result(self.query, self.panes.ending(end), tables).await;
        let mut lines: Vec<String> = result
            .iter()
            .flat_map(|rows| lines(rows, rows.num_columns()))
            .collect();
        lines.sort();
        lines
    }
}

async fn batch_result(query: &str, window: Interval, tables: [RecordBatch; 2]) -> Vec<RecordBatch> {
    let context = SessionContext::new();
    let bound = |at: Timestamp| format!("arrow_cast({}, 'Timestamp(Microsecond, None)')", at.0);
    let query = query
        .replace("window_start()", &bound(window.start))
        .replace("window_end()", &bound(window.end));
    for (name, rows) in TABLES.iter().zip(tables) {
        let mut fields = rows.schema().fields().to_vec();
        let mut columns = rows.columns().to_vec();
        for (bound, at) in [("window_start", window.start), ("window_end", window.end)] {
            fields.push(Arc::new(Field::new(bound, timestamp_type(), false)));
            let of_rows = TimestampMicrosecondArray::from_value(at.0, rows.num_rows());
            columns.push(Arc::new(of_rows));
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("rows");
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).expect("table");
        context.register_table(*name, Arc::new(table)).expect("register");
    }
    let frame = context.sql(&query).await;
    let rows = frame.unwrap_or_else(|e| panic!("{query}\n{e}")).collect().await;
    rows.unwrap_or_else(|e| panic!("{query}\n{e}"))
}

fn lines(rows: &RecordBatch, columns: usize) -> Vec<String> {
    let cell = |column: &ArrayRef, row| array_value_to_string(column, row).expect("a printable value");
    let line = |row| {
        let cells: Vec<_> = rows.columns()[..columns].iter().map(|c| cell(c, row)).collect();
        cells.join(" | ")
    };
    (0..rows.num_rows()).map(line).collect()
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
            let model = Model {
                how: &how,
                query,
                stream: &stream,
                panes: Panes::new(&how.window).expect("window"),
                watermark: i64::MIN,
                taken: BTreeMap::new(),
                touched: BTreeSet::new(),
                fired: BTreeMap::new(),
                known: None,
            };
            let expected = model.expected().await;
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
