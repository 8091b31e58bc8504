//! What a running pipeline says about itself.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use crate::message::Epoch;
use crate::metrics::NodeMetrics;
use crate::time::Timestamp;

/// Where a pipeline is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PipelineState {
    /// Opening sources and sinks, recovering.
    Starting,
    /// Rows flow.
    Running,
    /// It failed and waits for its next try.
    Restarting,
    /// Draining.
    Stopping,
    /// Stopped on request; it can go on from its last checkpoint.
    Stopped,
    /// All its sources ended.
    Finished,
    /// It failed for good: a person must act.
    Failed,
}

/// A pipeline's state for people.
#[derive(Clone, Debug, Serialize)]
pub struct PipelineStatus {
    /// Where it is in its life.
    pub state: PipelineState,
    /// The last failure.
    pub error: Option<String>,
    /// Restarts after failures.
    pub restarts: u64,
    /// When the current try started, RFC 3339.
    pub started_at: String,
    /// When the next try starts, RFC 3339; only while restarting.
    pub next_restart_at: Option<String>,
    /// The last checkpoint.
    pub epoch: u64,
    /// Checkpoints completed by this process.
    pub checkpoints: u64,
    /// How long it took, in milliseconds.
    pub checkpoint_ms: f64,
}

/// A node's counts for people.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// Its section in the pipeline file, such as `source.clicks`.
    pub node: String,
    /// source, dedup, window, table, sql or sink.
    pub kind: String,
    /// Rows taken.
    pub rows_in: u64,
    /// Rows made.
    pub rows_out: u64,
    /// Rows that came after their window had closed.
    pub rows_late: u64,
    /// Input that could not become rows.
    pub rows_invalid: u64,
    /// Rows a sink refused.
    pub rows_rejected: u64,
    /// Seconds of work.
    pub busy_seconds: f64,
    /// Calls made again.
    pub retries: u64,
    /// RFC 3339.
    pub watermark: Option<String>,
    /// How far the watermark is behind the wall clock now.
    pub watermark_lag_seconds: Option<f64>,
    /// How far a source reads behind the newest there is, where it knows.
    pub source_lag_seconds: Option<f64>,
    /// Messages waiting.
    pub queued: i64,
    /// What only the connector counts.
    pub counts: BTreeMap<String, u64>,
}

impl NodeStatus {
    /// Reads a node's metrics.
    pub fn read(node: &str, metrics: &NodeMetrics) -> NodeStatus {
        let watermark = Timestamp(metrics.watermark.load(Ordering::Relaxed));
        let real = (watermark > Timestamp::MIN && watermark < Timestamp::MAX).then_some(watermark);
        NodeStatus {
            node: node.into(),
            kind: node.split('.').next().unwrap_or(node).into(),
            rows_in: metrics.rows_in.get(),
            rows_out: metrics.rows_out.get(),
            rows_late: metrics.rows_late.get(),
            rows_invalid: metrics.rows_invalid.get(),
            rows_rejected: metrics.rows_rejected.get(),
            busy_seconds: metrics.busy.get(),
            retries: metrics.retries.get(),
            watermark: real.map(|w| w.to_string()),
            watermark_lag_seconds: real.map(|w| (Timestamp::now().0 - w.0) as f64 / 1e6),
            source_lag_seconds: metrics.counters.lag(),
            queued: metrics.queued.get(),
            counts: metrics.counters.all(),
        }
    }
}

/// The shared, changing part of a pipeline's status.
#[derive(Debug)]
pub struct Progress {
    status: Mutex<PipelineStatus>,
}

impl Progress {
    /// A pipeline that is about to start.
    pub fn new() -> Progress {
        Progress {
            status: Mutex::new(PipelineStatus {
                state: PipelineState::Starting,
                error: None,
                restarts: 0,
                started_at: Timestamp::now().to_string(),
                next_restart_at: None,
                epoch: 0,
                checkpoints: 0,
                checkpoint_ms: 0.0,
            }),
        }
    }

    /// The status now.
    pub fn status(&self) -> PipelineStatus {
        self.with(|s| s.clone())
    }

    /// A checkpoint is complete.
    pub fn checkpointed(&self, epoch: Epoch, took: Duration) {
        self.with(|s| {
            s.epoch = epoch.0;
            s.checkpoints += 1;
            s.checkpoint_ms = took.as_secs_f64() * 1e3;
        });
    }

    /// Changes the state; a try that starts or runs has no next one pending.
    pub fn enter(&self, state: PipelineState) {
        self.with(|s| {
            s.state = state;
            s.next_restart_at = None;
            if state == PipelineState::Starting {
                s.started_at = Timestamp::now().to_string();
            }
        });
    }

    /// A try failed; the next one starts after `wait`, or never.
    pub fn failed(&self, error: String, wait: Option<Duration>) {
        self.with(|s| {
            s.error = Some(error);
            s.next_restart_at = wait.map(|w| Timestamp::now().plus(w).to_string());
            s.state = PipelineState::Failed;
            if wait.is_some() {
                s.state = PipelineState::Restarting;
                s.restarts += 1;
            }
        });
    }

    fn with<T>(&self, f: impl FnOnce(&mut PipelineStatus) -> T) -> T {
        f(&mut self
            .status
            .lock()
            .expect("nothing panics while it holds a status"))
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new()
    }
}
