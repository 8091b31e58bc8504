//! A long firing, and what comes in between.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use async_trait::async_trait;
use tokio::sync::mpsc;

use super::OperatorTask;
use crate::checkpoint::coordinator::Report;
use crate::checkpoint::manifest::TaskId;
use crate::error::Result;
use crate::message::{Barrier, Batch, Epoch, Message, Moved};
use crate::metrics::{Metrics, NodeMetrics};
use crate::operator::{Operator, Output, Rest};
use crate::runtime::chain::{Chain, ChainedOperator};
use crate::runtime::channel::{EdgeReceiver, EdgeSender, edge};
use crate::runtime::inbox::{Arrival, Inbox};
use crate::state::Snapshot;
use crate::time::Timestamp;

/// Results of one watermark, each of two halves.
const RESULTS: i64 = 200;

fn rows(value: i64) -> RecordBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, false)]));
    RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![value]))]).expect("rows")
}

fn value(of: &RecordBatch) -> i64 {
    of.column(0).as_primitive::<Int64Type>().value(0)
}

/// Gives, for a watermark, the numbers from the last watermark up to it, each twice, one at a time. Its state
/// is the number of results given and of rows taken.
#[derive(Default)]
struct Numbers {
    given: i64,
    half: bool,
    taken: i64,
}

#[async_trait]
impl Operator for Numbers {
    fn on_batch(&mut self, _: usize, _: Batch, _: &mut Output) -> Result<()> {
        self.taken += 1;
        Ok(())
    }

    async fn on_watermark(&mut self, at: Timestamp, out: &mut Output) -> Result<()> {
        if self.given == at.0 {
            return Ok(());
        }
        out.emit(rows(self.given));
        self.half = !self.half;
        out.rest = match self.half {
            true => Rest::OfResult,
            false => {
                self.given += 1;
                Rest::Results
            }
        };
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        assert!(!self.half, "a snapshot within a result");
        let mut snapshot = Snapshot::default();
        snapshot.push("given", rows(self.given));
        snapshot.push("taken", rows(self.taken));
        Ok(snapshot)
    }
}

struct Task {
    into: EdgeSender,
    inbox: Inbox,
    reports: mpsc::Receiver<Report>,
    running: tokio::task::JoinHandle<Result<()>>,
}

fn task() -> Task {
    let metrics = Metrics::new();
    let node = || -> NodeMetrics { metrics.node("p", "sql.numbers") };
    let (into, from) = edge(node());
    let (to, out): (EdgeSender, EdgeReceiver) = edge(node());
    let (reports, reported) = mpsc::channel(4);
    let mut chain = Chain::default();
    let entry = chain.add_fan(None);
    let main = chain.add_fan(None);
    chain.add_edge(main, to);
    let operator = ChainedOperator {
        state_name: "numbers".to_owned(),
        operator: Box::new(Numbers::default()),
        main,
        side: None,
        metrics: node(),
        counts_in: true,
        counts_out: true,
    };
    chain.add_operator(entry, 0, operator);
    let task = OperatorTask {
        task: TaskId::Query("numbers".to_owned()),
        inbox: Inbox::new(vec![from]),
        chain,
        entry,
        reports,
    };
    Task {
        into,
        inbox: Inbox::new(vec![out]),
        reports: reported,
        running: tokio::spawn(task.run()),
    }
}

fn barrier(epoch: u64, last: bool) -> Message {
    Message::Barrier(Barrier {
        epoch: Epoch(epoch),
        last,
    })
}

/// What an operator said in a report: results given, rows taken.
fn reported(report: Option<Report>) -> (i64, i64) {
    let Some(Report::Operator(_, report)) = report else {
        panic!("no report of an operator");
    };
    let parts = &report.state[0].1.parts;
    (value(&parts[0].rows), value(&parts[1].rows))
}

/// A barrier and rows that arrive during a firing are taken between two results: what left before the barrier
/// is exactly what the snapshot says was given.
#[tokio::test]
async fn rows_and_barriers_pass_between_results() {
    let mut task = task();
    let moved = Moved::from(Timestamp(RESULTS));
    task.into.send(Message::Watermark(moved)).await.expect("room");
    task.into
        .send(Message::Batch(rows(7).into()))
        .await
        .expect("room");
    // The edge that leaves holds 64 messages and nobody reads it: the firing cannot end before the barrier.
    task.into.send(barrier(1, false)).await.expect("room");
    task.into
        .send(Message::Watermark(Timestamp(RESULTS + 1).into()))
        .await
        .expect("room");
    task.into.send(barrier(2, true)).await.expect("room");
    task.into.send(Message::End).await.expect("room");
    let mut seen = Vec::new();
    let mut at_barriers = Vec::new();
    let mut watermarks = Vec::new();
    loop {
        match task.inbox.recv().await.expect("an arrival") {
            Arrival::Batch(batch) => {
                // All but the last result are due to the first watermark.
                assert_eq!(batch.due == Some(moved.since), seen.len() < 2 * RESULTS as usize);
                seen.push(value(&batch.rows));
            }
            Arrival::Watermark(moved) => watermarks.push(moved.to.0),
            Arrival::Barrier(_) => at_barriers.push((seen.len() as i64, reported(task.reports.recv().await))),
            Arrival::End => break,
        }
    }
    task.running.await.expect("no panic").expect("no failure");
    let whole = RESULTS + 1;
    assert_eq!(
        seen,
        (0..whole).flat_map(|n| [n, n]).collect::<Vec<_>>(),
        "all, in order, once"
    );
    let [(first_seen, (given, taken)), (last_seen, (all, _))] = at_barriers[..] else {
        panic!("two barriers: {at_barriers:?}");
    };
    assert_eq!((first_seen, taken), (2 * given, 1));
    assert!(given < RESULTS, "the barrier waited for the whole firing");
    assert_eq!(
        (last_seen, all),
        (2 * whole, whole),
        "everything goes before the last barrier"
    );
    assert_eq!(watermarks, [RESULTS, whole], "each behind its results");
}
