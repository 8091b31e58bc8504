//! What the oracle does not reach: many sessions at once, sessions that go on and on, what is kept of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use millstream_engine::operator::{Operator, Output};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::window::Window;

use super::{PLANS_PER_TURN, SESSIONS_PER_RUN};
use crate::sql::DataFusionPlanner;
use crate::window::session_operator;

const GAP: Duration = Duration::from_secs(60);
const MINUTE: i64 = 60_000_000;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("user", DataType::Int64, false),
        Field::new("at", timestamp_type(), false),
    ]))
}

/// Rows of users at times, in microseconds.
fn rows(of: impl Iterator<Item = (i64, i64)>) -> RecordBatch {
    let (users, times): (Vec<i64>, Vec<i64>) = of.unzip();
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(Int64Array::from(users)),
        Arc::new(TimestampMicrosecondArray::from(times)),
    ];
    RecordBatch::try_new(schema(), columns).expect("rows")
}

/// The operators of a query over sessions per user, from rows to results.
struct Pipeline {
    plan: Arc<dyn SqlPlan>,
    window: Box<dyn Operator>,
    lower: Box<dyn Operator>,
    upper: Box<dyn Operator>,
}

impl Pipeline {
    fn new(query: &str) -> Pipeline {
        let tables = [SqlTable {
            name: "visits".into(),
            schema: schema(),
            event_time: 1,
            window: Some(Window::Session {
                gap: GAP,
                key: vec!["user".into()],
            }),
            lateness: None,
        }];
        let request = SqlRequest {
            name: "case",
            query,
            emit_empty: false,
            state_limit: Bytes(1 << 30),
            tables: &tables,
        };
        let plan = DataFusionPlanner::new().plan(&request).expect("a good query");
        Pipeline {
            window: session_operator(&schema(), 1, GAP, &[0]).expect("session operator"),
            lower: plan.local(0).expect("local"),
            upper: plan.global().expect("global").expect("windowed"),
            plan,
        }
    }

    fn rows(&mut self, rows: RecordBatch) {
        let mut passed = Output::default();
        self.window.on_batch(0, rows.into(), &mut passed).expect("rows");
        for batch in passed.main {
            let mut out = Output::default();
            self.lower.on_batch(0, batch, &mut out).expect("lower half");
        }
    }

    /// The first two columns of the results.
    async fn watermark(&mut self, at: i64) -> Vec<(i64, i64)> {
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
        let pairs = results.main.iter().flat_map(|batch| {
            let column = |n: usize| batch.rows.column(n).as_primitive::<Int64Type>().values().iter();
            column(0).copied().zip(column(1).copied())
        });
        pairs.collect()
    }

    /// Rows of state in the upper half.
    fn held(&mut self) -> usize {
        let snapshot = self.upper.snapshot().expect("snapshot");
        snapshot.parts.iter().map(|part| part.rows.num_rows()).sum()
    }
}

/// Fires sessions of so many users at once; gives the results, sorted, and how often another task had its turn.
async fn fire(query: &str, users: i64) -> (Vec<(i64, i64)>, usize) {
    let mut pipeline = Pipeline::new(query);
    let all: Vec<(i64, i64)> = (0..users)
        .flat_map(|user| [(user, user % 1_000), (user, 5_000)])
        .collect();
    for some in all.chunks(8_192) {
        pipeline.rows(rows(some.iter().copied()));
    }
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let mut results = pipeline.watermark(10 * MINUTE).await;
    other.abort();
    assert_eq!(pipeline.held(), 0, "nothing is left of what has fired");
    assert!(pipeline.plan.event_time().is_some());
    results.sort_unstable();
    (results, turns.load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_firing_of_very_many_sessions_lets_others_run() {
    let users = 100_000;
    let query = "SELECT user, count(*) AS n, window_start FROM visits GROUP BY user, window_start";
    let (results, turns) = fire(query, users).await;
    assert!(results.iter().copied().eq((0..users).map(|user| (user, 2))));
    assert!(turns >= users as usize / SESSIONS_PER_RUN, "{turns}");
}

#[tokio::test]
async fn sessions_that_fire_one_by_one_let_others_run() {
    let users = 500;
    let query =
        "SELECT user, count(*) AS n, window_start() AS at FROM visits GROUP BY user ORDER BY n LIMIT 1";
    let (results, turns) = fire(query, users).await;
    assert!(results.iter().copied().eq((0..users).map(|user| (user, 2))));
    assert!(turns >= users as usize / PLANS_PER_TURN as usize, "{turns}");
}

#[tokio::test]
async fn a_session_that_goes_on_for_days_stays_small() {
    let query = "SELECT user, count(*) AS n, window_start AS at FROM visits GROUP BY user, window_start";
    let mut pipeline = Pipeline::new(query);
    let minutes = 3 * 24 * 60;
    for minute in 0..minutes {
        let at = minute * MINUTE;
        // User 1 never rests; user 2 does every other minute.
        let now = (1..=2).filter(|user| minute % user == 0);
        pipeline.rows(rows(now.flat_map(|user| [(user, at), (user, at + MINUTE / 2)])));
        let fired = pipeline.watermark(at).await;
        assert!(fired.iter().all(|result| *result == (2, 2)), "{fired:?}");
        let held = pipeline.held();
        assert!(held < 40, "{held} rows of state after {minute} minutes");
    }
    let fired = pipeline.watermark(i64::MAX).await;
    assert!(fired.contains(&(1, 2 * minutes)), "{fired:?}");
}

#[tokio::test]
async fn state_of_open_sessions_does_not_keep_that_of_closed_ones() {
    let query = "SELECT user, count(*) AS n, window_start AS at FROM visits GROUP BY user, window_start";
    let mut pipeline = Pipeline::new(query);
    let users = 10_000;
    pipeline.rows(rows((0..users).map(|user| (user, 0))));
    // Every hundredth goes on.
    pipeline.rows(rows((0..users).step_by(100).map(|user| (user, MINUTE - 1))));
    assert_eq!(pipeline.watermark(MINUTE).await.len() as i64, users - users / 100);
    assert_eq!(pipeline.held() as i64, users / 100);
    let fired = pipeline.watermark(2 * MINUTE).await;
    assert!(
        fired
            .iter()
            .copied()
            .eq((0..users).step_by(100).map(|user| (user, 2)))
    );
}
