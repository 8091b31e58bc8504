//! The task of an operator that sees all partitions, and of whatever is chained after it: the global half of
//! a windowed query, the dedup of a source, a session window.

use tokio::sync::mpsc;

use crate::checkpoint::coordinator::{OperatorReport, Report};
use crate::checkpoint::manifest::TaskId;
use crate::error::{Error, Result};
use crate::message::{Barrier, Moved};
use crate::runtime::chain::{Chain, FanId};
use crate::runtime::channel::EDGE_MESSAGES;
use crate::runtime::inbox::{Arrival, Inbox};

/// Everything an operator task needs.
pub struct OperatorTask {
    /// Which task it is.
    pub task: TaskId,
    /// What arrives.
    pub inbox: Inbox,
    /// The operators.
    pub chain: Chain,
    /// The stream that arrivals enter.
    pub entry: FanId,
    /// Where to report.
    pub reports: mpsc::Sender<Report>,
}

impl OperatorTask {
    /// Runs until every edge has ended.
    ///
    /// While a watermark makes its way through the chain in pieces, what has arrived is taken between them, so
    /// that a long firing neither fills the edges, which would stop the sources, nor holds up a checkpoint. A
    /// watermark that arrives meanwhile waits: passing it on later is always right, and after a recovery the
    /// sources send it again.
    pub async fn run(mut self) -> Result<()> {
        let mut waiting = None;
        loop {
            if self.chain.is_advancing() {
                for _ in 0..EDGE_MESSAGES {
                    let Some(arrival) = self.inbox.try_recv().await? else {
                        break;
                    };
                    self.take(arrival, &mut waiting).await?;
                    if !self.chain.is_advancing() {
                        break;
                    }
                }
                self.chain.advance().await?;
            } else if let Some(at) = waiting.take() {
                self.chain.start(at).await?;
            } else {
                match self.inbox.recv().await? {
                    Arrival::End => return Ok(()),
                    arrival => self.take(arrival, &mut waiting).await?,
                }
            }
        }
    }

    async fn take(&mut self, arrival: Arrival, waiting: &mut Option<Moved>) -> Result<()> {
        match arrival {
            Arrival::Batch(batch) => self.chain.push(self.entry, batch).await,
            Arrival::Watermark(moved) => {
                // What the two set off was due when the first came.
                let since = waiting.map_or(moved.since, |earlier| earlier.since);
                *waiting = Some(Moved { since, ..moved });
                Ok(())
            }
            Arrival::Barrier(barrier) => {
                if barrier.last {
                    self.settle(waiting).await?;
                }
                self.checkpoint(barrier).await
            }
            Arrival::End => Err(Error::bug("an edge ended before a firing did")),
        }
    }

    /// Behind the last barrier nothing moves any more, so everything goes before it.
    async fn settle(&mut self, waiting: &mut Option<Moved>) -> Result<()> {
        self.chain.finish().await?;
        match waiting.take() {
            Some(at) => self.chain.watermark(at).await,
            None => Ok(()),
        }
    }

    async fn checkpoint(&mut self, barrier: Barrier) -> Result<()> {
        let state = self.chain.snapshot()?;
        self.chain.barrier(barrier).await?;
        let report = OperatorReport {
            task: self.task.clone(),
            state,
        };
        let sent = self.reports.send(Report::Operator(barrier.epoch, report)).await;
        sent.map_err(|_| Error::bug("the checkpoint coordinator is gone"))
    }
}

#[cfg(test)]
mod tests;
