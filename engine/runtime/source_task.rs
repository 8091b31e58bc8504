//! Reads partitions of a source: keeps time, pushes rows through the partitions' operators, checkpoints.
//!
//! This is the only loop that reads sources. A task reads one partition of a source whose partitions are fixed, or
//! several side by side of one whose partitions come and go ([`crate::runtime::discovery`]). A passing failure reads
//! again from the last offset of its partition, while the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::coordinator::{Report, SourceReport};
use crate::error::{Error, ErrorClass, Result};
use crate::message::{Barrier, Moved};
use crate::metrics::NodeMetrics;
use crate::runtime::backoff::Backoff;
use crate::runtime::build::SourceStreams;
use crate::runtime::chain::Chain;
use crate::runtime::clock::{HELD_UP, IDLE_CHECK, SourceClock};
use crate::runtime::discovery::{Assignment, Ended, Reading};
use crate::runtime::timer::Timer;
use crate::source::{ERRORS, Offsets, PartitionId, Source, SourceBatch};
use crate::time::Timestamp;

/// Everything a partition task needs.
pub struct SourceTask {
    /// Name of the source.
    pub name: String,
    /// Names the task in a checkpoint: its partition, or its number where it reads several.
    pub task: String,
    /// The source.
    pub source: Arc<dyn Source>,
    /// Partitions to read; closed when no more will come.
    pub assignments: mpsc::Receiver<Assignment>,
    /// Who is told of the end of a partition before it leaves the clock; none where partitions are fixed.
    pub ended: Option<mpsc::Sender<Ended>>,
    /// Where the partitions stand that this task reads or has read.
    pub offsets: Offsets,
    /// Offsets from before this run, which hold where no task has a newer one.
    pub kept: Offsets,
    /// The source's watermark.
    pub clock: Arc<SourceClock>,
    /// Index of the event-time column.
    pub event_time: usize,
    /// Rows stamped further ahead of the wall clock do not advance the watermark.
    pub max_future: Duration,
    /// The watermark this task had sent when its state was saved.
    pub sent: Timestamp,
    /// The operators of the partition.
    pub chain: Chain,
    /// The streams that it feeds.
    pub streams: SourceStreams,
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

/// What a partition yields, by its number in the clock; at its end, none.
type Input = BoxStream<'static, (usize, Option<Result<SourceBatch>>)>;

/// A partition that is being read.
struct Open {
    partition: PartitionId,
    backoff: Backoff,
    /// How long the task had listened when the partition was last heard of.
    heard: Duration,
}

/// What is being read.
#[derive(Default)]
struct Inputs {
    open: BTreeMap<usize, Open>,
    streams: SelectAll<Input>,
    /// How long the task has waited for input. Time that it worked, waited for room downstream or was stopped does
    /// not count.
    listened: Duration,
    /// No more partitions will come.
    complete: bool,
}

/// What a partition task wakes up for.
enum Event {
    Barrier(Option<Barrier>),
    Watermark,
    Assignment(Option<Assignment>),
    IdleCheck,
    Input(usize, Option<Result<SourceBatch>>),
}

impl SourceTask {
    /// Runs until the last barrier.
    pub async fn run(mut self) -> Result<()> {
        let mut inputs = Inputs::default();
        let mut watermark = self.clock.subscribe();
        // After recovery the clock stands already; operators of a partition that is new must hear of it.
        self.advance(&mut watermark).await?;
        let mut idle_check = self.timer.sleep(IDLE_CHECK);
        loop {
            let waiting = self.timer.elapsed();
            // Input goes before the idle check: a partition that has rows is not idle.
            let event = tokio::select! {
                biased;
                barrier = self.barriers.recv() => Event::Barrier(barrier),
                _ = watermark.changed() => Event::Watermark,
                new = self.assignments.recv(), if !inputs.complete => Event::Assignment(new),
                Some((of, what)) = inputs.streams.next(), if !inputs.streams.is_empty() => Event::Input(of, what),
                () = &mut idle_check => Event::IdleCheck,
            };
            inputs.waited(self.timer.elapsed().saturating_sub(waiting));
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
                Event::Assignment(new) => self.assigned(new, &mut inputs).await?,
                Event::IdleCheck => {
                    for (number, it) in &inputs.open {
                        let quiet = inputs.listened.saturating_sub(it.heard);
                        self.clock.tick(*number, quiet, self.timer.now());
                    }
                    idle_check = self.timer.sleep(IDLE_CHECK);
                }
                Event::Input(of, Some(Ok(batch))) => {
                    let it = inputs.heard_of(of);
                    it.backoff = Backoff::default();
                    let partition = it.partition.clone();
                    self.take(of, partition, batch).await?;
                }
                Event::Input(of, Some(Err(e))) => self.reopen(of, e, &mut inputs)?,
                Event::Input(of, None) => self.ended(of, &mut inputs).await?,
            }
        }
    }

    async fn assigned(&mut self, new: Option<Assignment>, inputs: &mut Inputs) -> Result<()> {
        match new {
            Some(Assignment::Read(Reading {
                number,
                partition,
                from,
            })) => {
                if let Some(from) = from {
                    self.offsets.insert(partition.clone(), from);
                }
                let it = Open {
                    partition,
                    backoff: Backoff::default(),
                    heard: inputs.listened,
                };
                self.read(number, &it.partition, Duration::ZERO, inputs);
                inputs.open.insert(number, it);
                Ok(())
            }
            Some(Assignment::Forget(partitions)) => {
                for id in &partitions {
                    self.offsets.remove(id);
                    self.kept.remove(id);
                }
                Ok(())
            }
            None => {
                inputs.complete = true;
                self.drained(inputs.drained()).await
            }
        }
    }

    /// Reads a partition from where it stands.
    fn read(&self, number: usize, partition: &PartitionId, after: Duration, inputs: &mut Inputs) {
        let (source, partition) = (self.source.clone(), partition.clone());
        let from = self.offsets.get(&partition).cloned();
        let pause = (!after.is_zero()).then(|| self.timer.sleep(after));
        let stop = self.stop.clone();
        let wait = async move {
            if let Some(pause) = pause {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = pause => {}
                }
            }
        };
        let batches = stream::once(wait).flat_map(move |()| source.read(&partition, from.clone()));
        inputs.streams.push(numbered(number, batches.boxed()));
    }

    /// Its stream yields nothing more.
    async fn ended(&mut self, number: usize, inputs: &mut Inputs) -> Result<()> {
        let it = inputs
            .open
            .remove(&number)
            .expect("only an open partition yields");
        let exhausted = !self.stop.is_cancelled();
        match &self.ended {
            // What follows it must hold the watermark before it lets go.
            Some(ended) if exhausted => {
                let offset = self.offsets.get(&it.partition).cloned();
                let end = Ended {
                    number,
                    partition: it.partition,
                    offset,
                };
                // Whoever is gone has seen the pipeline stop.
                ended.send(end).await.ok();
            }
            _ => self.clock.finish(number, exhausted, self.timer.now()),
        }
        self.drained(inputs.drained()).await
    }

    async fn drained(&mut self, drained: bool) -> Result<()> {
        if drained {
            self.report(Report::Drained).await?;
        }
        Ok(())
    }

    /// The watermark moves only after the rows that moved it are in: a row is late only when it is behind
    /// the watermark that stood before its batch.
    async fn take(&mut self, number: usize, partition: PartitionId, batch: SourceBatch) -> Result<()> {
        let started = Instant::now();
        if let Some(invalid) = batch.invalid.filter(|i| i.num_rows() > 0) {
            self.metrics.rows_invalid.inc_by(invalid.num_rows() as u64);
            self.chain.push(self.streams.invalid, invalid.into()).await?;
        }
        for (table, rows) in batch.tables {
            self.take_table(&table, rows).await?;
        }
        let rows = batch.rows;
        self.offsets.insert(partition, batch.offset);
        if rows.num_rows() == 0 {
            return Ok(());
        }
        self.metrics.rows_in.inc_by(rows.num_rows() as u64);
        if self.counts_out {
            self.metrics.rows_out.inc_by(rows.num_rows() as u64);
        }
        let now = self.timer.now();
        let newest = newest(&rows, self.event_time, now.plus(self.max_future))?;
        self.chain.push(self.streams.rows, rows.into()).await?;
        self.clock.observe(number, newest, now);
        self.metrics.busy.inc_by(started.elapsed().as_secs_f64());
        Ok(())
    }

    async fn take_table(&mut self, table: &str, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let to = self.streams.tables.get(table).copied();
        let to = to.ok_or_else(|| Error::bug(format!("{}: a table {table:?} that it has not", self.name)))?;
        let count = rows.num_rows() as u64;
        if table == ERRORS {
            self.metrics.rows_invalid.inc_by(count);
        } else {
            self.metrics.rows_in.inc_by(count);
            self.metrics.rows_out.inc_by(count);
        }
        self.chain.push(to, rows.into()).await
    }

    async fn advance(&mut self, watermark: &mut watch::Receiver<Timestamp>) -> Result<()> {
        let to = *watermark.borrow_and_update();
        if to > self.sent {
            let since = self.clock.moved_beyond(self.sent);
            self.sent = to;
            self.metrics.saw_watermark(to);
            self.chain.watermark(Moved { to, since }).await?;
        }
        Ok(())
    }

    async fn checkpoint(&mut self, barrier: Barrier) -> Result<()> {
        let state = self.chain.snapshot()?;
        let report = SourceReport {
            source: self.name.clone(),
            task: self.task.clone(),
            offsets: self.offsets.clone(),
            kept: self.kept.clone(),
            watermark: self.sent,
            state,
        };
        // The barrier leaves first: downstream can align while the state is being written.
        self.chain.barrier(barrier).await?;
        self.report(Report::Source(barrier.epoch, report)).await
    }

    /// Reads again after a while. A partition that cannot be listened to is not idle.
    fn reopen(&self, number: usize, e: Error, inputs: &mut Inputs) -> Result<()> {
        let ErrorClass::Retry { after } = e.class() else {
            return Err(e);
        };
        let heard = inputs.listened;
        let it = inputs
            .open
            .get_mut(&number)
            .expect("only an open partition fails");
        let wait = it.backoff.next(after);
        it.heard = heard + wait;
        let partition = it.partition.clone();
        self.metrics.retries.inc();
        tracing::warn!(source = self.name, %partition, error = %e, ?wait, "reading again");
        self.read(number, &partition, wait, inputs);
        Ok(())
    }

    async fn report(&mut self, report: Report) -> Result<()> {
        let sent = self.reports.send(report).await;
        sent.map_err(|_| Error::bug("the checkpoint coordinator is gone"))
    }
}

impl Inputs {
    /// A process that was stopped has not listened: its partitions have to be silent anew.
    fn waited(&mut self, waited: Duration) {
        if waited > HELD_UP {
            let now = self.listened;
            self.open.values_mut().for_each(|it| it.heard = it.heard.max(now));
        } else {
            self.listened += waited;
        }
    }

    fn drained(&self) -> bool {
        self.complete && self.open.is_empty()
    }

    fn heard_of(&mut self, number: usize) -> &mut Open {
        let it = self.open.get_mut(&number).expect("only an open partition yields");
        it.heard = self.listened;
        it
    }
}

/// A partition's batches under its number, up to its end or the first error.
fn numbered(number: usize, batches: BoxStream<'static, Result<SourceBatch>>) -> Input {
    stream::unfold(Some(batches), move |batches| async move {
        let mut batches = batches?;
        let what = batches.next().await;
        let rest = matches!(what, Some(Ok(_))).then_some(batches);
        Some(((number, what), rest))
    })
    .boxed()
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
