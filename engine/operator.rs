//! What an operator is: a state machine over batches and watermarks.

use arrow::array::RecordBatch;
use async_trait::async_trait;

use crate::error::Result;
use crate::message::Batch;
use crate::state::Snapshot;
use crate::time::Timestamp;

/// A state machine. It does no I/O, reads no clock and takes no lock: time arrives as a watermark.
///
/// `on_watermark` is async only so that the upper half of a query, a DataFusion stream over rows in
/// memory, can be polled to its end without blocking the thread; it waits for nothing outside the process.
#[async_trait]
pub trait Operator: Send {
    /// Takes rows of the given input.
    fn on_batch(&mut self, input: usize, batch: Batch, out: &mut Output) -> Result<()>;

    /// No row earlier than `at` follows on any input. Called with growing values only, except that an operator
    /// with much to do does a piece of it, says in [`Output::rest`] that there is more, and is called again with
    /// the same `at`; the runtime takes on what was emitted in between, so that memory stays bounded.
    async fn on_watermark(&mut self, _at: Timestamp, _out: &mut Output) -> Result<()> {
        Ok(())
    }

    /// The watermark of the operator's stream, after [`Operator::on_watermark`] with `at`: no row that it
    /// emits from now on is earlier. It grows with `at` and is never ahead of it. An operator whose results
    /// are stamped earlier than the watermark that makes them holds it back by this, so that nobody
    /// downstream takes them for late.
    fn watermark_behind(&self, at: Timestamp) -> Timestamp {
        at
    }

    /// The state as Arrow batches, without disturbing it.
    fn snapshot(&mut self) -> Result<Snapshot> {
        Ok(Snapshot::default())
    }

    /// Takes back what [`Operator::snapshot`] gave; called once, before anything else. An operator that
    /// runs in several partitions is given the snapshots of all of its former tasks that fall to it.
    fn restore(&mut self, _from: Snapshot) -> Result<()> {
        Ok(())
    }
}

impl dyn Operator + '_ {
    /// Calls [`Operator::on_watermark`] until nothing is left to do, for drivers that want all of it at once:
    /// tests and benchmarks.
    pub async fn watermark_to_end(&mut self, at: Timestamp, out: &mut Output) -> Result<()> {
        loop {
            out.rest = Rest::Nothing;
            self.on_watermark(at, out).await?;
            if out.rest == Rest::Nothing {
                return Ok(());
            }
        }
    }
}

/// What is left to do for a watermark when [`Operator::on_watermark`] returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    #[default]
    Nothing,
    /// More results. The state tells which: a snapshot taken now and what was emitted so far agree, and rows
    /// that arrive now make no difference to them, so both may come in between.
    Results,
    /// The rest of a result whose beginning has been emitted. A snapshot taken now would not know of that:
    /// nothing may come in between.
    OfResult,
}

/// Where an operator puts what it makes. The runtime takes it on from there.
#[derive(Debug, Default)]
pub struct Output {
    /// The operator's stream.
    pub main: Vec<Batch>,
    /// The operator's side stream: late rows of a window.
    pub side: Vec<RecordBatch>,
    /// What only this operator counts: added to its node's counts.
    pub counts: Vec<(&'static str, u64)>,
    /// What is left to do; read after `on_watermark` only.
    pub rest: Rest,
}

impl Output {
    /// Rows for the operator's stream; empty batches are dropped.
    pub fn emit(&mut self, batch: impl Into<Batch>) {
        let batch = batch.into();
        if batch.rows.num_rows() > 0 {
            self.main.push(batch);
        }
    }

    /// Rows for the side stream; empty batches are dropped.
    pub fn emit_side(&mut self, rows: RecordBatch) {
        if rows.num_rows() > 0 {
            self.side.push(rows);
        }
    }

    /// Counts rows that went no further, under a name in snake_case.
    pub fn count(&mut self, what: &'static str, rows: u64) {
        self.counts.push((what, rows));
    }
}
