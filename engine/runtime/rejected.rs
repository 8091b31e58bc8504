//! Rows that a sink has refused, on their way to the sinks that take them.
//!
//! Where nobody takes them they are counted and, so that nobody has to look for them, logged; not every one, since
//! a stream of them would fill the log.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};

use crate::error::{Error, Result};
use crate::metrics::NodeMetrics;
use crate::runtime::chain::{Chain, FanId};
use crate::runtime::timer::Timer;
use crate::sink::Sink;
use crate::source::invalid_schema;

/// Time from one message about refused rows to the next.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Where the rows of one sink go that it refuses.
pub struct Rejected {
    /// The edges into the sinks that take them.
    pub chain: Chain,
    sink: String,
    stream: FanId,
    metrics: NodeMetrics,
    timer: Arc<dyn Timer>,
    /// Refused and taken by nobody since the last message.
    unlogged: usize,
    /// When, of the timer, there was a message.
    logged: Option<Duration>,
}

impl Rejected {
    /// For the sink of this name, whose refused rows are `stream` of `chain`.
    pub fn new(
        sink: &str,
        chain: Chain,
        stream: FanId,
        metrics: NodeMetrics,
        timer: Arc<dyn Timer>,
    ) -> Rejected {
        Rejected {
            chain,
            sink: sink.into(),
            stream,
            metrics,
            timer,
            unlogged: 0,
            logged: None,
        }
    }

    /// Hands on what `sink` has refused since it was asked last.
    pub async fn pass_on(&mut self, sink: &mut dyn Sink) -> Result<()> {
        let Some(rows) = sink.rejected().filter(|r| r.num_rows() > 0) else {
            return Ok(());
        };
        if rows.schema_ref() != &invalid_schema() {
            let name = &self.sink;
            return Err(Error::bug(format!(
                "refused rows of sink {name} have a schema of their own"
            )));
        }
        self.metrics.rows_rejected.inc_by(rows.num_rows() as u64);
        if self.chain.edges.is_empty() {
            self.log(&rows);
        }
        self.chain.push(self.stream, rows.into()).await
    }

    fn log(&mut self, rows: &RecordBatch) {
        self.unlogged += rows.num_rows();
        let now = self.timer.elapsed();
        if self
            .logged
            .is_some_and(|last| now.saturating_sub(last) < LOG_EVERY)
        {
            return;
        }
        self.logged = Some(now);
        let rejected = std::mem::take(&mut self.unlogged);
        let reason = rows.column(2).as_string_opt::<i32>().map_or("", |r| r.value(0));
        let sink = &self.sink;
        tracing::warn!(
            sink,
            rejected,
            reason,
            "rows are refused, and no sink takes `{sink}.rejected`"
        );
    }
}
