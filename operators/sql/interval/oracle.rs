//! Interval joins against DataFusion itself.
//!
//! Each query of `cases/interval.sql` runs over seeded streams (out of order, nulls, skewed keys, duplicate
//! instants, batches of a few rows) through the lower halves of several partitions and one join, undisturbed
//! and with everything snapshotted, thrown away and restored in the middle. Nothing is late, so the pairs must
//! be those that a plain DataFusion session gives over all rows; and none may be further behind the watermark
//! than the plan says.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::array_value_to_string;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::state::Snapshot;
use millstream_engine::time::{Timestamp, timestamp_type};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::DataFusionPlanner;

const SECOND: i64 = 1_000_000;
/// Rows arrive up to this much after they happened.
const MOST_DELAY: i64 = 30 * SECOND;
const LASTS: i64 = 300 * SECOND;
pub(super) const EVENT_TIME: usize = 4;
pub(super) const TABLES: [&str; 2] = ["impressions", "clicks"];
const SEEDS: u64 = 6;

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("ad_id", DataType::Utf8, true),
        Field::new("user_id", DataType::Utf8, false),
        Field::new("amount", DataType::Float64, true),
        Field::new("occurred_at", timestamp_type(), false),
    ]))
}

pub(super) fn plan(query: &str) -> Arc<dyn SqlPlan> {
    let tables = TABLES.map(|name| SqlTable {
        name: name.to_owned(),
        schema: schema(),
        event_time: EVENT_TIME,
        window: None,
        lateness: None,
    });
    let request = SqlRequest {
        name: "case",
        query,
        emit_empty: false,
        state_limit: Bytes(1 << 30),
        tables: &tables,
    };
    DataFusionPlanner::new()
        .plan(&request)
        .unwrap_or_else(|e| panic!("{query}\n{e:?}"))
}

/// Rows of both tables, and for each row its table, number and time of arrival, in order of arrival.
struct Stream {
    rows: [RecordBatch; 2],
    arrivals: Vec<(usize, u32, i64)>,
}

impl Stream {
    fn new(seed: u64) -> Stream {
        let random = &mut StdRng::seed_from_u64(seed);
        let mut arrivals = Vec::new();
        let rows = [0, 1].map(|table| {
            let count = random.random_range(1..160);
            let times: Vec<i64> = (0..count).map(|_| time(random)).collect();
            arrivals.extend((0u32..).zip(&times).map(|(row, at)| {
                let delay = random.random_range(0..=MOST_DELAY);
                (table, row, at + delay)
            }));
            table_rows(table, times, random)
        });
        arrivals.sort_by_key(|(_, _, arrives)| *arrives);
        Stream { rows, arrivals }
    }
}

/// A third of the rows stand at whole seconds, so that instants are equal.
fn time(random: &mut StdRng) -> i64 {
    let at = random.random_range(-LASTS / 2..LASTS / 2);
    match random.random_range(0..3) {
        0 => at / SECOND * SECOND,
        _ => at,
    }
}

fn table_rows(table: usize, times: Vec<i64>, random: &mut StdRng) -> RecordBatch {
    let count = times.len();
    let mut any = |f: &mut dyn FnMut(&mut StdRng) -> Option<String>| {
        (0..count).map(|_| f(random)).collect::<StringArray>()
    };
    // Half of the rows have one key.
    let skewed = |r: &mut StdRng, most: u32| r.random_range(1..=most) * u32::from(r.random_bool(0.5));
    let ads = any(&mut |r| r.random_bool(0.85).then(|| format!("a{}", skewed(r, 5))));
    let users = any(&mut |r| Some(format!("u{}", skewed(r, 9))));
    let ids = StringArray::from_iter_values((0..count).map(|n| format!("{}{n:03}", ["i", "c"][table])));
    let amounts: Float64Array = (0..count)
        .map(|_| {
            random
                .random_bool(0.8)
                .then(|| f64::from(random.random_range(0..16)) / 4.0)
        })
        .collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids),
        Arc::new(ads),
        Arc::new(users),
        Arc::new(amounts),
        Arc::new(TimestampMicrosecondArray::from(times)),
    ];
    RecordBatch::try_new(schema(), columns).expect("rows")
}

/// The operators of one query: per input and partition what runs there, and the join.
struct Pipeline {
    locals: Vec<Vec<Box<dyn Operator>>>,
    join: Box<dyn Operator>,
}

impl Pipeline {
    fn new(plan: &dyn SqlPlan, partitions: usize) -> Pipeline {
        let local = |input| (0..partitions).map(move |_| plan.local(input).expect("local"));
        Pipeline {
            locals: (0..plan.inputs().len())
                .map(|input| local(input).collect())
                .collect(),
            join: plan.global().expect("global").expect("a join"),
        }
    }

    fn rows(&mut self, input: usize, partition: usize, rows: RecordBatch, out: &mut Output) {
        let lanes = self.locals[input].len();
        let mut passed = Output::default();
        self.locals[input][partition % lanes]
            .on_batch(0, rows.into(), &mut passed)
            .expect("local");
        for batch in passed.main {
            self.join.on_batch(0, batch, out).expect("join");
        }
    }

    fn restored(mut self, plan: &dyn SqlPlan, partitions: usize) -> Pipeline {
        let mut next = Pipeline::new(plan, partitions);
        let first = self.join.snapshot().expect("snapshot");
        let second = self.join.snapshot().expect("snapshot");
        assert_eq!(
            first.parts.len(),
            second.parts.len(),
            "a snapshot must not disturb the state"
        );
        next.join.restore(stored(second)).expect("restore");
        next
    }
}

/// A snapshot after its way through a checkpoint: written and read as Arrow IPC.
pub(super) fn stored(snapshot: Snapshot) -> Snapshot {
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

/// Runs the stream through the query; restores every so many steps, if at all.
async fn run(
    plan: &dyn SqlPlan,
    stream: &Stream,
    partitions: usize,
    restore: Option<usize>,
    seed: u64,
) -> Vec<RecordBatch> {
    let random = &mut StdRng::seed_from_u64(seed);
    let mut pipeline = Pipeline::new(plan, partitions);
    let mut results = Vec::new();
    let mut watermark = Timestamp::MIN;
    let mut next = 0;
    let mut step = 0;
    while next < stream.arrivals.len() {
        let mut out = Output::default();
        let (table, _, now) = stream.arrivals[next];
        let most = random.random_range(1..9);
        let coming = stream.arrivals[next..].iter().take(most);
        let rows: Vec<u32> = coming.take_while(|a| a.0 == table).map(|a| a.1).collect();
        next += rows.len();
        let rows = take_record_batch(&stream.rows[table], &UInt32Array::from(rows)).expect("rows");
        let partition = random.random_range(0..3);
        for input in 0..plan.inputs().len() {
            if plan.inputs()[input] == TABLES[table] {
                pipeline.rows(input, partition, rows.clone(), &mut out);
            }
        }
        check_times(plan, pipeline.join.watermark_behind(watermark), &out);
        step += 1;
        if restore.is_some_and(|every| step % every == 0) {
            let partitions = random.random_range(1..=partitions);
            pipeline = pipeline.restored(plan, partitions);
        }
        // At times none, at times a large step.
        let to = Timestamp(now - MOST_DELAY - random.random_range(0..20 * SECOND));
        if random.random_bool(0.5) && to > watermark {
            let mut moved = Output::default();
            pipeline
                .join
                .on_watermark(to, &mut moved)
                .await
                .expect("watermark");
            check_times(plan, pipeline.join.watermark_behind(watermark), &moved);
            out.main.append(&mut moved.main);
            watermark = to;
        }
        assert!(out.counts.is_empty(), "nothing is late: {:?}", out.counts);
        results.extend(out.main.into_iter().map(|batch| batch.rows));
    }
    let mut last = Output::default();
    pipeline
        .join
        .on_watermark(Timestamp::MAX, &mut last)
        .await
        .expect("watermark");
    results.extend(last.main.into_iter().map(|batch| batch.rows));
    let kept = pipeline.join.snapshot().expect("snapshot");
    assert_eq!(
        kept.parts.len(),
        1,
        "nothing is kept after the end but the watermark"
    );
    results
}

/// No result may be late for who hears of the watermark behind the join.
fn check_times(plan: &dyn SqlPlan, behind: Timestamp, out: &Output) {
    let Some(column) = plan.event_time().filter(|_| behind > Timestamp::MIN) else {
        return;
    };
    for batch in &out.main {
        let times = batch
            .rows
            .column(column)
            .as_primitive::<TimestampMicrosecondType>();
        assert_eq!(times.null_count(), 0, "event time is never null");
        let earliest = arrow::compute::min(times).expect("rows");
        assert!(
            earliest >= behind.0,
            "{} comes after {behind}",
            Timestamp(earliest)
        );
    }
}

async fn in_batch(query: &str, stream: &Stream) -> Vec<RecordBatch> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    for (name, rows) in TABLES.iter().zip(&stream.rows) {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).expect("table");
        context.register_table(*name, Arc::new(table)).expect("register");
    }
    let frame = context
        .sql(query)
        .await
        .unwrap_or_else(|e| panic!("{query}\n{e}"));
    frame.collect().await.unwrap_or_else(|e| panic!("{query}\n{e}"))
}

/// Rows as text, counted.
fn multiset(batches: &[RecordBatch]) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cell = |column: &ArrayRef| match column.is_null(row) {
                true => "NULL".to_owned(),
                false => array_value_to_string(column, row).expect("a value"),
            };
            let text: Vec<String> = batch.columns().iter().map(cell).collect();
            *all.entry(text.join(" | ")).or_default() += 1;
        }
    }
    all
}

/// Name, what is said of time, query.
fn cases() -> Vec<(&'static str, &'static str, &'static str)> {
    let cases = include_str!("../cases/interval.sql").split("-- case: ").skip(1);
    let case = |text: &'static str| {
        let (name, rest) = text.split_once("\n-- time: ").expect("a name, then the time");
        let (time, query) = rest.split_once('\n').expect("a query");
        (name, time, query.trim())
    };
    cases.map(case).collect()
}

#[tokio::test]
async fn joins_equal_batch() {
    let cases = cases();
    assert!(cases.len() >= 15, "{}", cases.len());
    let mut rows = 0;
    for (name, _, query) in cases {
        let plan = plan(query);
        for seed in 0..SEEDS {
            let stream = Stream::new(seed);
            let expect = multiset(&in_batch(query, &stream).await);
            rows += expect.len();
            for (partitions, restore) in [(1, None), (3, None), (1, Some(7)), (3, Some(1))] {
                let got = multiset(&run(plan.as_ref(), &stream, partitions, restore, seed).await);
                let missing: Vec<_> = expect
                    .iter()
                    .filter(|(row, n)| got.get(*row) != Some(n))
                    .collect();
                let surplus: Vec<_> = got
                    .iter()
                    .filter(|(row, n)| expect.get(*row) != Some(n))
                    .collect();
                assert!(
                    missing.is_empty() && surplus.is_empty(),
                    "{name}: seed {seed}, {partitions} partitions, restore {restore:?}\nmissing {missing:#?}\n\
                     surplus {surplus:#?}"
                );
            }
        }
    }
    assert!(rows > 10_000, "{rows} rows prove little");
}

#[test]
fn event_time_and_delay() {
    for (name, says, query) in cases() {
        let plan = plan(query);
        let time = plan.event_time().map(|column| {
            let schema = plan.schema();
            let field = schema.field(column);
            assert!(!field.is_nullable(), "{name}: event time may be null");
            format!("{}, {}s behind", field.name(), held_back(plan.as_ref()))
        });
        assert_eq!(time.as_deref().unwrap_or("none"), says, "{name}");
    }
}

/// Seconds by which the watermark behind the join is held back.
fn held_back(plan: &dyn SqlPlan) -> f64 {
    let join = plan.global().expect("global").expect("a join has a global half");
    -join.watermark_behind(Timestamp(0)).0 as f64 / SECOND as f64
}
