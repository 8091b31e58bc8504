//! Much at once: a million groups in a window, a hundred thousand windows in a firing, more rows than the
//! limit. What is checked is the shape of the work (pieces, what may come in between, what is held), which
//! is what keeps ingest going, and the results; not the time.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use millstream_engine::Error;
use millstream_engine::message::Batch;
use millstream_engine::operator::{Operator, Output, Rest};
use millstream_engine::pipeline::Bytes;
use millstream_engine::sql::{SqlPlan, SqlPlanner, SqlRequest, SqlTable};
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_engine::window::Window;

use super::firing::PIECE_WINDOWS;
use super::{DataFusionPlanner, PIECE_ROWS, STATE_ROWS_PER_BATCH};

const SECOND: i64 = 1_000_000;
/// Keys in one batch.
const KEYS_PER_BATCH: i64 = 10_000;
/// Rows of one batch of a result; DataFusion's batch size.
const RESULT_BATCH: usize = 8_192;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ad", DataType::Int64, false),
        Field::new("at", timestamp_type(), false),
    ]))
}

fn batch(ads: impl Iterator<Item = i64>, at: impl Fn(i64) -> i64) -> Batch {
    let ads = Int64Array::from_iter_values(ads);
    let times = TimestampMicrosecondArray::from_iter_values(ads.values().iter().map(|ad| at(*ad)));
    RecordBatch::try_new(schema(), vec![Arc::new(ads), Arc::new(times)])
        .expect("rows")
        .into()
}

fn plan(query: &str, size: Duration, state_limit: Bytes) -> Arc<dyn SqlPlan> {
    let offset = Duration::ZERO;
    let table = SqlTable {
        name: "w".to_owned(),
        schema: schema(),
        event_time: 1,
        window: Some(Window::Tumbling { size, offset }),
        lateness: None,
    };
    let request = SqlRequest {
        name: "large",
        query,
        emit_empty: false,
        state_limit,
        tables: &[table],
    };
    DataFusionPlanner::new().plan(&request).expect("a query")
}

/// One call of `on_watermark`, and what it leaves.
async fn piece(operator: &mut dyn Operator, at: Timestamp) -> (Vec<Batch>, Rest) {
    let mut out = Output::default();
    operator.on_watermark(at, &mut out).await.expect("a piece");
    (out.main, out.rest)
}

/// The state of a lower half, which leaves in pieces, all of which may be interrupted.
async fn state(lower: &mut dyn Operator) -> Vec<Batch> {
    let mut all = Vec::new();
    loop {
        let (batches, rest) = piece(lower, Timestamp::MAX).await;
        for batch in &batches {
            assert!(
                batch.rows.num_rows() <= STATE_ROWS_PER_BATCH,
                "a large batch of state"
            );
        }
        all.extend(batches);
        match rest {
            Rest::Results => {}
            Rest::Nothing => return all,
            Rest::OfResult => panic!("state that leaves is no result"),
        }
    }
}

#[tokio::test]
async fn a_million_groups() {
    const GROUPS: i64 = 1_000_000;
    const PARTITIONS: usize = 2;
    let plan = plan(
        "SELECT ad, count(*) AS n FROM w GROUP BY ad",
        Duration::from_secs(60),
        Bytes(1 << 20),
    );
    let mut upper = plan.global().expect("global").expect("windowed");
    for _ in 0..PARTITIONS {
        let mut lower = plan.local(0).expect("local");
        for from in (0..GROUPS).step_by(KEYS_PER_BATCH as usize) {
            for _ in 0..2 {
                let rows = batch(from..from + KEYS_PER_BATCH, |_| SECOND);
                lower.on_batch(0, rows, &mut Output::default()).expect("rows");
            }
        }
        let state = state(lower.as_mut()).await;
        let held: usize = state.iter().map(|b| b.rows.num_rows()).sum();
        assert_eq!(
            held as i64, GROUPS,
            "state is as large as the groups, not as the rows"
        );
        for batch in state {
            upper.on_batch(0, batch, &mut Output::default()).expect("state");
        }
    }
    let mut seen = vec![false; GROUPS as usize];
    let mut pieces = 0;
    loop {
        let (batches, rest) = piece(upper.as_mut(), Timestamp::MAX).await;
        let rows: usize = batches.iter().map(|b| b.rows.num_rows()).sum();
        assert!(rows <= PIECE_ROWS + RESULT_BATCH, "a piece of {rows} rows");
        for batch in batches {
            let column = |index: usize| batch.rows.column(index).as_primitive::<Int64Type>().values();
            for (ad, n) in column(0).iter().zip(column(1)) {
                assert_eq!(*n, 2 * PARTITIONS as i64, "rows of ad {ad}");
                assert!(!std::mem::replace(&mut seen[*ad as usize], true), "ad {ad} twice");
            }
        }
        pieces += 1;
        match rest {
            Rest::OfResult => {}
            Rest::Nothing => break,
            Rest::Results => panic!("there is one window"),
        }
    }
    assert!(seen.iter().all(|seen| *seen), "every ad has its row");
    assert!(
        pieces >= GROUPS as usize / (PIECE_ROWS + RESULT_BATCH),
        "{pieces} pieces"
    );
}

/// A watermark passes a hundred thousand windows at once. Somewhere in between the upper half is snapshotted
/// and another one goes on: between them, every window fires once, in order.
#[tokio::test]
async fn a_hundred_thousand_windows() {
    const WINDOWS: i64 = 100_000;
    /// The call after which there is a restore.
    const RESTORE: usize = 700;
    let plan = plan(
        "SELECT window_start() AS at, count(*) AS n FROM w",
        Duration::from_secs(1),
        Bytes(1 << 20),
    );
    let mut lower = plan.local(0).expect("local");
    for from in (0..WINDOWS).step_by(KEYS_PER_BATCH as usize) {
        let rows = batch(from..from + KEYS_PER_BATCH, |ad| ad * SECOND);
        lower.on_batch(0, rows, &mut Output::default()).expect("rows");
    }
    let mut upper = plan.global().expect("global").expect("windowed");
    let mut next = plan.global().expect("global").expect("windowed");
    for batch in state(lower.as_mut()).await {
        upper.on_batch(0, batch, &mut Output::default()).expect("state");
    }
    let (mut fired, mut calls) = (0, 0);
    loop {
        let (batches, rest) = piece(upper.as_mut(), Timestamp::MAX).await;
        assert!(
            batches.len() <= PIECE_WINDOWS,
            "{} windows in one piece",
            batches.len()
        );
        for batch in batches {
            let at = batch
                .rows
                .column(0)
                .as_primitive::<TimestampMicrosecondType>()
                .value(0);
            assert_eq!((batch.rows.num_rows(), at), (1, fired * SECOND));
            fired += 1;
        }
        calls += 1;
        match rest {
            Rest::Results if calls == RESTORE => {
                let snapshot = upper.snapshot().expect("snapshot");
                let panes = snapshot.parts.len() as i64 - 1;
                assert_eq!(panes, WINDOWS - fired, "panes that have fired are gone, whole");
                next.restore(snapshot).expect("restore");
                std::mem::swap(&mut upper, &mut next);
            }
            Rest::Results => {}
            Rest::Nothing => break,
            Rest::OfResult => panic!("a result of one row is not interrupted"),
        }
    }
    assert_eq!(fired, WINDOWS);
    assert!(calls as i64 >= WINDOWS / PIECE_WINDOWS as i64, "{calls} calls");
}

#[test]
fn rows_past_the_limit_are_refused_by_name() {
    let plan = plan(
        "SELECT ad FROM w WHERE ad >= 0",
        Duration::from_secs(60),
        Bytes(1 << 20),
    );
    // A batch keeps 80 kB of the one column; two partitions share the limit.
    let mut lower = [0, 1].map(|_| plan.local(0).expect("local"));
    let mut taken = 0;
    let refused = loop {
        let rows = batch(0..KEYS_PER_BATCH, |_| SECOND);
        match lower[taken % 2].on_batch(0, rows, &mut Output::default()) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!(
        taken,
        (1 << 20) / (8 * KEYS_PER_BATCH as usize),
        "batches below the limit"
    );
    assert!(matches!(refused, Error::Data(_)), "{refused:?}");
    let message = refused.to_string();
    assert!(
        message.contains("\"large\"") && message.contains("`state_limit`"),
        "{message}"
    );
}
