//! The task of a sink. Retries live here: a call that failed in passing is made again with the same arguments.
//!
//! Rows that the sink refuses leave for the sinks that take them, before the barrier of the checkpoint that holds
//! them; so do watermarks, barriers and the end of what arrives.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::checkpoint::coordinator::Report;
use crate::error::{Error, ErrorClass, Result};
use crate::message::{Barrier, Batch, Epoch, Moved};
use crate::metrics::NodeMetrics;
use crate::runtime::backoff::Backoff;
use crate::runtime::inbox::{Arrival, Inbox};
use crate::runtime::rejected::Rejected;
use crate::runtime::timer::Timer;
use crate::sink::{Committable, Sink};

/// Publish what was prepared: the checkpoint is durable.
#[derive(Debug)]
pub struct Commit {
    /// The checkpoint.
    pub epoch: Epoch,
    /// What the sink prepared.
    pub what: Committable,
    /// Nothing follows.
    pub last: bool,
}

/// Everything a sink task needs.
pub struct SinkTask {
    /// Name of the sink.
    pub name: String,
    /// What arrives.
    pub inbox: Inbox,
    /// The sink.
    pub sink: Box<dyn Sink>,
    /// Where the rows go that the sink refuses.
    pub rejected: Rejected,
    /// Commits to make.
    pub commits: mpsc::Receiver<Commit>,
    /// Where to report.
    pub reports: mpsc::Sender<Report>,
    /// Counts of the sink.
    pub metrics: NodeMetrics,
    /// The clocks.
    pub timer: Arc<dyn Timer>,
}

impl SinkTask {
    /// Runs until the last commit.
    pub async fn run(mut self) -> Result<()> {
        let mut ended = false;
        loop {
            tokio::select! {
                biased;
                commit = self.commits.recv() => {
                    let commit = commit.ok_or_else(gone)?;
                    let last = commit.last;
                    self.commit(commit).await?;
                    if last {
                        return Ok(());
                    }
                }
                arrival = self.inbox.recv(), if !ended => match arrival? {
                    Arrival::Batch(batch) => self.write(batch).await?,
                    Arrival::Watermark(moved) => self.watermark(moved).await?,
                    Arrival::Barrier(barrier) => self.prepare(barrier).await?,
                    Arrival::End => ended = true,
                },
            }
        }
    }

    async fn write(&mut self, batch: Batch) -> Result<()> {
        let Batch { rows, due, .. } = batch;
        self.metrics.rows_in.inc_by(rows.num_rows() as u64);
        let started = Instant::now();
        let mut retry = Retry::new(&self.name, &self.metrics, self.timer.as_ref());
        while let Err(e) = self.sink.write(rows.clone()).await {
            retry.after(e).await?;
        }
        self.metrics.busy.inc_by(started.elapsed().as_secs_f64());
        if let Some(due) = due {
            self.metrics.result_latency.observe(due.elapsed());
        }
        self.rejected.pass_on(self.sink.as_mut()).await
    }

    async fn watermark(&mut self, moved: Moved) -> Result<()> {
        self.metrics.saw_watermark(moved.to);
        self.rejected.chain.watermark(moved).await
    }

    async fn prepare(&mut self, barrier: Barrier) -> Result<()> {
        let started = Instant::now();
        let mut retry = Retry::new(&self.name, &self.metrics, self.timer.as_ref());
        let what = loop {
            match self.sink.prepare(barrier).await {
                Ok(what) => break what,
                Err(e) => retry.after(e).await?,
            }
        };
        self.metrics.busy.inc_by(started.elapsed().as_secs_f64());
        self.rejected.pass_on(self.sink.as_mut()).await?;
        self.rejected.chain.barrier(barrier).await?;
        self.report(Report::Prepared(barrier.epoch, self.name.clone(), what))
            .await
    }

    async fn commit(&mut self, commit: Commit) -> Result<()> {
        let mut retry = Retry::new(&self.name, &self.metrics, self.timer.as_ref());
        while let Err(e) = self.sink.commit(commit.epoch, commit.what.clone()).await {
            retry.after(e).await?;
        }
        self.report(Report::Committed(commit.epoch, self.name.clone()))
            .await
    }

    async fn report(&mut self, report: Report) -> Result<()> {
        self.reports.send(report).await.map_err(|_| gone())
    }
}

/// Between the tries of a call: waits after a passing failure, gives up after any other.
pub struct Retry<'a> {
    name: &'a str,
    metrics: &'a NodeMetrics,
    timer: &'a dyn Timer,
    backoff: Backoff,
}

impl<'a> Retry<'a> {
    /// For one call of the named sink.
    pub fn new(name: &'a str, metrics: &'a NodeMetrics, timer: &'a dyn Timer) -> Retry<'a> {
        Retry {
            name,
            metrics,
            timer,
            backoff: Backoff::default(),
        }
    }

    /// The call has failed with `error`: comes back when it is to be made again.
    pub async fn after(&mut self, error: Error) -> Result<()> {
        let ErrorClass::Retry { after } = error.class() else {
            return Err(error);
        };
        let wait = self.backoff.next(after);
        self.metrics.retries.inc();
        tracing::warn!(sink = self.name, %error, ?wait, "trying again");
        self.timer.sleep(wait).await;
        Ok(())
    }
}

fn gone() -> Error {
    Error::bug("the checkpoint coordinator is gone")
}
