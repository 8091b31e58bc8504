//! The one rule for SQL over sessions, checked against DataFusion itself.
//!
//! Each query of `cases/sessions.sql` runs over a seeded stream of rows (bursts and silences per user, out of
//! order, some late, some users null) through the session operator and both halves, and each session must give
//! what a plain DataFusion session gives for its rows. Which rows those are, and which are late, says the
//! definition in `window/session_model.rs`. Everything runs three ways: sessions fired together (where the query
//! can), one by one, and with everything snapshotted, thrown away and restored several times.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt32Array,
};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::array_value_to_string;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
use datafusion::prelude::SessionContext;
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlan, SqlPlanner, SqlRequest, SqlTable, WINDOW_END, WINDOW_START};
use millstream_engine::state::Snapshot;
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::window::Window;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::sql::DataFusionPlanner;
use crate::sql::plan::session_half;
use crate::window::session_model::{ModelSession, SessionModel};
use crate::window::session_operator;

const SECOND: i64 = 1_000_000;
const GAP: i64 = 60 * SECOND;
/// Rows arrive over this long, half of it before the epoch.
const LASTS: i64 = 800 * SECOND;
/// The watermark is this far behind arrival.
const BEHIND: i64 = 30 * SECOND;
const EVENT_TIME: usize = 4;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("user_id", DataType::Utf8, true),
        Field::new("device", DataType::Int64, false),
        Field::new("page", DataType::Utf8, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("at", timestamp_type(), false),
    ]))
}

/// A seeded stream: rows, and in which order and when they arrive.
struct Stream {
    rows: RecordBatch,
    arrivals: Vec<(i64, u32)>,
}

impl Stream {
    fn new(seed: u64) -> Stream {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut users, mut times, mut arrivals) = (Vec::new(), Vec::new(), Vec::new());
        for user in 0..6 {
            let mut at = -LASTS / 2;
            while at < LASTS / 2 {
                // Mostly within a session, at times exactly a gap, at times far beyond.
                at += match random.random_range(0..12) {
                    0 => GAP,
                    1 | 2 => random.random_range(GAP - SECOND..4 * GAP),
                    _ => random.random_range(0..40 * SECOND),
                };
                let delay = match random.random_range(0..8) {
                    0 => random.random_range(0..600 * SECOND),
                    _ => random.random_range(0..35 * SECOND),
                };
                arrivals.push((at + delay, times.len() as u32));
                times.push(at);
                users.push((user > 0).then(|| format!("u{user}")));
            }
        }
        arrivals.sort_unstable();
        let count = times.len();
        let mut maybe = |text: bool, most: i64| -> ArrayRef {
            let some = (0..count).map(|_| {
                let value = random.random_range(0..most);
                (random.random_range(0..8) > 0).then_some(value)
            });
            match text {
                true => Arc::new(some.map(|v| v.map(|v| format!("p{v}"))).collect::<StringArray>()),
                // Quarters, so that sums are exact in whatever order they are made.
                false => Arc::new(some.map(|v| v.map(|v| v as f64 / 4.0)).collect::<Float64Array>()),
            }
        };
        let (pages, amounts) = (maybe(true, 4), maybe(false, 16));
        let devices = Int64Array::from_iter_values((0..count).map(|row| (row % 7 / 5) as i64));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(users.into_iter().collect::<StringArray>()),
            Arc::new(devices),
            pages,
            amounts,
            Arc::new(TimestampMicrosecondArray::from(times)),
        ];
        let rows = RecordBatch::try_new(schema(), columns).expect("rows");
        Stream { rows, arrivals }
    }

    fn at(&self, row: u32) -> i64 {
        let times = self.rows.column(EVENT_TIME);
        times
            .as_primitive::<arrow::datatypes::TimestampMicrosecondType>()
            .value(row as usize)
    }

    fn key(&self, row: u32, key: &[usize]) -> Vec<String> {
        let cell = |column: &usize| {
            let column = self.rows.column(*column);
            let text = array_value_to_string(column, row as usize).expect("a value");
            format!("{} {text}", column.is_null(row as usize))
        };
        key.iter().map(cell).collect()
    }

    fn some(&self, rows: &[u32]) -> RecordBatch {
        take_record_batch(&self.rows, &UInt32Array::from(rows.to_vec())).expect("rows")
    }
}

/// What happens in order: rows, then a watermark.
struct Step {
    rows: Vec<Vec<u32>>,
    watermark: i64,
}

fn script(stream: &Stream, seed: u64) -> Vec<Step> {
    let mut random = StdRng::seed_from_u64(seed ^ 0x5eed);
    let (mut steps, mut now, mut next) = (Vec::new(), -LASTS / 2, 0);
    while next < stream.arrivals.len() {
        now += random.random_range(SECOND..60 * SECOND);
        let until = next + stream.arrivals[next..].partition_point(|(arrives, _)| *arrives < now);
        let mut rows: Vec<Vec<u32>> = Vec::new();
        while next < until {
            let some = random.random_range(1..9).min(until - next);
            rows.push(stream.arrivals[next..next + some].iter().map(|a| a.1).collect());
            next += some;
        }
        let watermark = now - BEHIND;
        steps.push(Step { rows, watermark });
    }
    let watermark = i64::MAX;
    steps.push(Step {
        rows: Vec::new(),
        watermark,
    });
    steps
}

/// By step: the sessions that close, and the rows that are late.
fn expected(stream: &Stream, script: &[Step], key: &[usize]) -> Vec<(Vec<ModelSession>, Vec<u32>)> {
    let mut model = SessionModel::new(GAP);
    let mut watermark = i64::MIN;
    let mut all = Vec::new();
    for step in script {
        let mut late = Vec::new();
        for row in step.rows.iter().flatten() {
            if !model.take(&stream.key(*row, key), stream.at(*row), *row, watermark) {
                late.push(*row);
            }
        }
        watermark = step.watermark;
        all.push((model.close(watermark), late));
    }
    all
}

fn table(key: &[usize]) -> SqlTable {
    let key = key.iter().map(|c| schema().field(*c).name().clone());
    SqlTable {
        name: "visits".to_owned(),
        schema: schema(),
        event_time: EVENT_TIME,
        window: Some(Window::Session {
            gap: Duration::from_micros(GAP.unsigned_abs()),
            key: key.collect(),
        }),
        lateness: None,
    }
}

/// The operators of one query.
struct Pipeline {
    window: Box<dyn Operator>,
    lower: Box<dyn Operator>,
    upper: Box<dyn Operator>,
}

impl Pipeline {
    fn new(plan: &dyn SqlPlan, request: &SqlRequest<'_>, key: &[usize], together: bool) -> Pipeline {
        let gap = Duration::from_micros(GAP.unsigned_abs());
        Pipeline {
            window: session_operator(&schema(), EVENT_TIME, gap, key).expect("session operator"),
            lower: plan.local(0).expect("local"),
            upper: Box::new(session_half(request, together)),
        }
    }

    fn rows(&mut self, rows: RecordBatch) -> Vec<RecordBatch> {
        let (mut passed, mut out) = (Output::default(), Output::default());
        self.window.on_batch(0, rows.into(), &mut passed).expect("rows");
        for batch in passed.main {
            self.lower.on_batch(0, batch, &mut out).expect("lower half");
        }
        assert!(out.main.is_empty(), "state leaves with the watermark only");
        passed.side
    }

    async fn watermark(&mut self, at: i64) -> Vec<RecordBatch> {
        let at = Timestamp(at);
        let (mut closed, mut state, mut results) = (Output::default(), Output::default(), Output::default());
        self.window.on_watermark(at, &mut closed).await.expect("window");
        for batch in closed.main {
            self.lower.on_batch(0, batch, &mut state).expect("passes on");
        }
        self.lower.on_watermark(at, &mut state).await.expect("lower half");
        for batch in state.main {
            self.upper.on_batch(0, batch, &mut results).expect("upper half");
        }
        self.upper
            .on_watermark(at, &mut results)
            .await
            .expect("upper half");
        results.main.into_iter().map(|b| b.rows).collect()
    }

    fn restored(&mut self, mut next: Pipeline) -> Pipeline {
        let pairs = [
            (&mut self.window, &mut next.window),
            (&mut self.lower, &mut next.lower),
            (&mut self.upper, &mut next.upper),
        ];
        for (from, to) in pairs {
            let first = from.snapshot().expect("snapshot");
            let second = from.snapshot().expect("snapshot");
            assert_eq!(
                first.parts.len(),
                second.parts.len(),
                "a snapshot must not disturb"
            );
            to.restore(stored(second)).expect("restore");
        }
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

/// What DataFusion gives in batch for a session's rows.
async fn batch_result(
    context: &SessionContext,
    query: &str,
    stream: &Stream,
    session: &ModelSession,
) -> Vec<RecordBatch> {
    let rows = stream.some(&session.2);
    let mut fields = rows.schema().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    for (name, at) in [(WINDOW_START, session.0), (WINDOW_END, session.1)] {
        let value = ScalarValue::TimestampMicrosecond(Some(at), None);
        let constant = Arc::new(move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone())));
        let volatility = Volatility::Immutable;
        context.register_udf(create_udf(name, vec![], timestamp_type(), volatility, constant));
        fields.push(Arc::new(Field::new(name, timestamp_type(), false)));
        columns.push(Arc::new(TimestampMicrosecondArray::from_value(
            at,
            rows.num_rows(),
        )));
    }
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("rows");
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).expect("table");
    context.deregister_table("visits").expect("a table or none");
    context
        .register_table("visits", Arc::new(table))
        .expect("register");
    let frame = context
        .sql(query)
        .await
        .unwrap_or_else(|e| panic!("{query}\n{e}"));
    frame.collect().await.unwrap_or_else(|e| panic!("{query}\n{e}"))
}

/// Rows as sorted text; floating point to nine digits.
fn text(batches: &[RecordBatch]) -> Vec<String> {
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
    lines.sort();
    lines
}

/// How a case is run.
#[derive(Clone, Copy, Debug)]
struct Run {
    together: bool,
    /// Restore after every so many steps.
    restore: Option<usize>,
}

const RUNS: [Run; 3] = [
    Run {
        together: true,
        restore: None,
    },
    Run {
        together: false,
        restore: None,
    },
    Run {
        together: true,
        restore: Some(7),
    },
];

struct Case {
    name: &'static str,
    together: bool,
    accumulates: bool,
    query: &'static str,
}

fn cases() -> Vec<Case> {
    let blocks = include_str!("../cases/sessions.sql").split("-- case: ").skip(1);
    let only = std::env::var("CASE").unwrap_or_default();
    let case = |block: &'static str| {
        let (head, query) = block.split_once('\n').expect("a name and a query");
        let parts: Vec<&str> = head.split(" | ").collect();
        let [name, fires, keeps] = parts[..] else {
            panic!("{head}: name | together or each | state or rows")
        };
        Case {
            name,
            together: fires == "together",
            accumulates: keeps == "state",
            query,
        }
    };
    blocks
        .map(case)
        .filter(|case| case.name.contains(&only))
        .collect()
}

async fn check(key: &[usize], seed: u64) {
    let stream = Stream::new(seed);
    let script = script(&stream, seed);
    let expected = expected(&stream, &script, key);
    let tables = [table(key)];
    let context = SessionContext::new();
    let mut wrong = Vec::new();
    for case in cases() {
        let request = SqlRequest {
            name: "case",
            query: case.query,
            emit_empty: false,
            state_limit: Bytes(1 << 30),
            tables: &tables,
        };
        let planner = DataFusionPlanner::new();
        let plan = planner
            .plan(&request)
            .unwrap_or_else(|e| panic!("{}\n{e:?}", case.query));
        let mut results = Vec::new();
        for (sessions, _) in &expected {
            let mut all = Vec::new();
            for session in sessions {
                all.extend(batch_result(&context, case.query, &stream, session).await);
            }
            results.push(text(&all));
        }
        let explain = plan.explain();
        let together = explain.global[0].contains("together");
        let kept = explain.local[0].1.iter().any(|line| line.contains("Keep rows"));
        if (together, !kept) != (case.together, case.accumulates) {
            wrong.push(format!("{}: not run as it says: {explain:#?}", case.name));
        }
        for how in RUNS {
            let mut pipeline = Pipeline::new(plan.as_ref(), &request, key, how.together);
            for (number, (step, (_, late))) in script.iter().zip(&expected).enumerate() {
                let side: Vec<RecordBatch> = step
                    .rows
                    .iter()
                    .flat_map(|rows| pipeline.rows(stream.some(rows)))
                    .collect();
                assert_eq!(
                    text(&side),
                    text(&[stream.some(late)]),
                    "late rows of step {number}, seed {seed}"
                );
                if how.restore.is_some_and(|every| number % every == 0) {
                    pipeline = pipeline.restored(Pipeline::new(plan.as_ref(), &request, key, how.together));
                }
                let fired = pipeline.watermark(step.watermark).await;
                assert!(
                    fired.iter().all(|rows| rows.schema() == plan.schema()),
                    "{}",
                    case.name
                );
                let got = text(&fired);
                if got != results[number] {
                    let expected = &results[number];
                    wrong.push(format!(
                        "{}, seed {seed}, {how:?}, step {number}:\n  got      {got:?}\n  expected {expected:?}",
                        case.name
                    ));
                    break;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn sessions_of_a_user_give_what_batch_gives() {
    check(&[0], 1).await;
}

#[tokio::test]
async fn sessions_of_a_user_and_device_give_what_batch_gives() {
    check(&[0, 1], 2).await;
}

#[test]
fn streams_have_what_the_cases_need() {
    let stream = Stream::new(1);
    let script = script(&stream, 1);
    let expected = expected(&stream, &script, &[0]);
    let late: usize = expected.iter().map(|(_, late)| late.len()).sum();
    let sessions: Vec<&ModelSession> = expected.iter().flat_map(|(sessions, _)| sessions).collect();
    assert!(late > 3, "some rows are late");
    assert!(sessions.len() > 20 && expected.iter().any(|(s, _)| s.len() > 1));
    assert!(
        sessions.iter().any(|s| s.1 - s.0 > 3 * GAP),
        "some last for several panes"
    );
    assert!(stream.rows.column(0).null_count() > 0 && stream.rows.column(3).null_count() > 0);
}
