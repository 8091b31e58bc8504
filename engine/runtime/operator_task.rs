//! The task of an operator that sees all partitions, and of whatever is chained after it: the global half of
//! a windowed query, the dedup of a source, a session window.

use tokio::sync::mpsc;

use crate::checkpoint::coordinator::{OperatorReport, Report};
use crate::checkpoint::manifest::TaskId;
use crate::error::{Error, Result};
use crate::runtime::chain::{Chain, FanId};
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
    pub async fn run(mut self) -> Result<()> {
        loop {
            match self.inbox.recv().await? {
                Arrival::Batch(batch) => self.chain.push(self.entry, batch).await?,
                Arrival::Watermark(at) => self.chain.watermark(at).await?,
                Arrival::Barrier(barrier) => {
                    let state = self.chain.snapshot()?;
                    self.chain.barrier(barrier).await?;
                    let report = OperatorReport {
                        task: self.task.clone(),
                        state,
                    };
                    let sent = self.reports.send(Report::Operator(barrier.epoch, report)).await;
                    sent.map_err(|_| Error::bug("the checkpoint coordinator is gone"))?;
                }
                Arrival::End => return Ok(()),
            }
        }
    }
}
