//! One task per source partition: read, keep time, push through the partition's operators, checkpoint.
//!
//! This is the only loop that reads sources. A passing failure reads again from the last offset.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::coordinator::{Report, SourceReport};
use crate::error::{Error, ErrorClass, Result};
use crate::message::Barrier;
use crate::metrics::NodeMetrics;
use crate::runtime::backoff::Backoff;
use crate::runtime::chain::{Chain, FanId};
use crate::runtime::clock::SourceClock;
use crate::runtime::timer::Timer;
use crate::source::{Offset, PartitionId, Source, SourceBatch};
use crate::time::Timestamp;

/// How often a partition looks whether it, or the whole source, has fallen idle; a small part of the
/// shortest sensible `idle_after`.
const IDLE_CHECK: Duration = Duration::from_millis(250);
/// A task that wakes up this much after it fell asleep was stopped, as a process can be: the idle check alone
/// would have woken it four times.
const HELD_UP: Duration = Duration::from_secs(1);

/// Everything a partition task needs.
pub struct SourceTask {
    /// Name of the source.
    pub name: String,
    /// The source.
    pub source: Arc<dyn Source>,
    /// The partition.
    pub partition: PartitionId,
    /// Its number in the clock.
    pub number: usize,
    /// The source's watermark.
    pub clock: Arc<SourceClock>,
    /// Index of the event-time column.
    pub event_time: usize,
    /// Rows stamped further ahead of the wall clock do not advance the watermark.
    pub max_future: Duration,
    /// Where to start.
    pub offset: Option<Offset>,
    /// The watermark this task had sent when its state was saved.
    pub sent: Timestamp,
    /// The operators of the partition.
    pub chain: Chain,
    /// The stream of rows.
    pub rows: FanId,
    /// The stream of invalid input.
    pub invalid: FanId,
    /// Counts of the source.
    pub metrics: NodeMetrics,
    /// The clocks.
    pub timer: Arc<dyn Timer>,
    /// Whether `metrics.rows_out` counts here; false when duplicates are dropped further on.
    pub counts_out: bool,
    /// Barriers to inject.
    pub barriers: mpsc::Receiver<Barrier>,
    /// Where to report.
    pub reports: mpsc::Sender<Report>,
    /// Cancelled when the pipeline stops.
    pub stop: CancellationToken,
}

type Input = BoxStream<'static, Result<SourceBatch>>;

/// What a partition task wakes up for.
enum Event {
    Barrier(Option<Barrier>),
    Watermark,
    IdleCheck,
    Input(Option<Result<SourceBatch>>),
}

impl SourceTask {
    /// Runs until the last barrier.
    pub async fn run(mut self) -> Result<()> {
        let mut input = Some(self.source.read(&self.partition, self.offset.clone()));
        let mut watermark = self.clock.subscribe();
        // After recovery the clock stands already; operators of a partition that is new must hear of it.
        self.advance(&mut watermark).await?;
        let mut idle_check = self.timer.sleep(IDLE_CHECK);
        let mut backoff = Backoff::default();
        let mut quiet = Duration::ZERO;
        loop {
            let waiting = self.timer.elapsed();
            // Input goes before the idle check: a partition that has rows is not idle.
            let event = tokio::select! {
                biased;
                barrier = self.barriers.recv() => Event::Barrier(barrier),
                _ = watermark.changed() => Event::Watermark,
                batch = next(&mut input) => Event::Input(batch),
                () = &mut idle_check => Event::IdleCheck,
            };
            let waited = self.timer.elapsed().saturating_sub(waiting);
            quiet = if waited > HELD_UP {
                Duration::ZERO
            } else {
                quiet + waited
            };
            match event {
                Event::Barrier(barrier) => {
                    let barrier = barrier.ok_or_else(|| Error::bug("the checkpoint coordinator is gone"))?;
                    // What the clock says by now belongs before the barrier: behind the last one nothing
                    // moves any more, and the end of a bounded source must still close its windows.
                    self.advance(&mut watermark).await?;
                    self.checkpoint(barrier).await?;
                    if barrier.last {
                        return Ok(());
                    }
                }
                Event::Watermark => self.advance(&mut watermark).await?,
                Event::IdleCheck => {
                    self.clock.tick(self.number, quiet, self.timer.now());
                    idle_check = self.timer.sleep(IDLE_CHECK);
                }
                Event::Input(Some(Ok(batch))) => {
                    backoff = Backoff::default();
                    quiet = Duration::ZERO;
                    self.take(batch).await?;
                }
                Event::Input(Some(Err(e))) => input = Some(self.reopen(e, &mut backoff).await?),
                Event::Input(None) => {
                    input = None;
                    self.drained().await?;
                }
            }
        }
    }

    async fn drained(&mut self) -> Result<()> {
        let exhausted = !self.stop.is_cancelled();
        self.clock.finish(self.number, exhausted, self.timer.now());
        self.report(Report::Drained).await
    }

    /// The watermark moves only after the rows that moved it are in: a row is late only when it is behind
    /// the watermark that stood before its batch.
    async fn take(&mut self, batch: SourceBatch) -> Result<()> {
        let started = Instant::now();
        if let Some(invalid) = batch.invalid.filter(|i| i.num_rows() > 0) {
            self.metrics.rows_invalid.inc_by(invalid.num_rows() as u64);
            self.chain.push(self.invalid, invalid.into()).await?;
        }
        let rows = batch.rows;
        self.offset = Some(batch.offset);
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.metrics.rows_in.inc_by(rows.num_rows() as u64);
        if self.counts_out {
            self.metrics.rows_out.inc_by(rows.num_rows() as u64);
        }
        let now = self.timer.now();
        let newest = newest(&rows, self.event_time, now.plus(self.max_future))?;
        self.chain.push(self.rows, rows.into()).await?;
        self.clock.observe(self.number, newest, now);
        self.metrics.busy.inc_by(started.elapsed().as_secs_f64());
        Ok(())
    }

    async fn advance(&mut self, watermark: &mut watch::Receiver<Timestamp>) -> Result<()> {
        let to = *watermark.borrow_and_update();
        if to > self.sent {
            self.sent = to;
            self.metrics.saw_watermark(to);
            self.chain.watermark(to).await?;
        }
        Ok(())
    }

    async fn checkpoint(&mut self, barrier: Barrier) -> Result<()> {
        let state = self.chain.snapshot()?;
        let report = SourceReport {
            source: self.name.clone(),
            partition: self.partition.clone(),
            offset: self.offset.clone(),
            watermark: self.sent,
            state,
        };
        // The barrier leaves first: downstream can align while the state is being written.
        self.chain.barrier(barrier).await?;
        self.report(Report::Source(barrier.epoch, report)).await
    }

    async fn reopen(&mut self, e: Error, backoff: &mut Backoff) -> Result<Input> {
        let ErrorClass::Retry { after } = e.class() else {
            return Err(e);
        };
        let wait = backoff.next(after);
        self.metrics.retries.inc();
        tracing::warn!(source = self.name, partition = %self.partition, error = %e, ?wait, "reading again");
        self.timer.sleep(wait).await;
        Ok(self.source.read(&self.partition, self.offset.clone()))
    }

    async fn report(&mut self, report: Report) -> Result<()> {
        let sent = self.reports.send(report).await;
        sent.map_err(|_| Error::bug("the checkpoint coordinator is gone"))
    }
}

async fn next(input: &mut Option<Input>) -> Option<Result<SourceBatch>> {
    match input {
        Some(input) => input.next().await,
        None => std::future::pending().await,
    }
}

/// The largest event time that is not later than `limit`; [`Timestamp::MIN`] when there is none.
fn newest(rows: &RecordBatch, event_time: usize, limit: Timestamp) -> Result<Timestamp> {
    let column = rows.column(event_time);
    let times = column
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| Error::bug("the event-time column is not a timestamp"))?;
    let newest = arrow::compute::max(times).unwrap_or(i64::MIN);
    if newest <= limit.0 {
        return Ok(Timestamp(newest));
    }
    let within = times.iter().flatten().filter(|t| *t <= limit.0).max();
    Ok(within.map_or(Timestamp::MIN, Timestamp))
}
