//! Every metric name of the engine, in one place. The runtime fills them for every node; connectors add
//! their own counts through [`Counters`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::time::Timestamp;

/// Upper bounds of the buckets of `result_latency`. What is well is below 0.1; a minute is the longest of windows that
/// anybody watches as it happens.
const RESULT_LATENCY_SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// A node of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EncodeLabelSet)]
pub struct NodeLabels {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Name of the node: a source, window, query or sink.
    pub node: String,
}

/// A count that only one connector knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CountLabels {
    /// Name of the pipeline.
    pub pipeline: String,
    /// Name of the node.
    pub node: String,
    /// What is counted.
    pub what: String,
}

/// A pipeline.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PipelineLabels {
    /// Name of the pipeline.
    pub pipeline: String,
}

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    rows_in: Family<NodeLabels, Counter>,
    rows_out: Family<NodeLabels, Counter>,
    rows_late: Family<NodeLabels, Counter>,
    rows_invalid: Family<NodeLabels, Counter>,
    rows_rejected: Family<NodeLabels, Counter>,
    busy: Family<NodeLabels, Counter<f64, AtomicU64>>,
    retries: Family<NodeLabels, Counter>,
    watermark_lag: Family<NodeLabels, Gauge<f64, AtomicU64>>,
    queued: Family<NodeLabels, Gauge>,
    counts: Family<CountLabels, Counter>,
    source_lag: Family<NodeLabels, Gauge<f64, AtomicU64>>,
    result_latency: Family<NodeLabels, Histogram>,
    restarts: Family<PipelineLabels, Counter>,
    checkpoints: Family<PipelineLabels, Counter>,
    checkpoint_seconds: Family<PipelineLabels, Gauge<f64, AtomicU64>>,
    running: Family<PipelineLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

impl Metrics {
    /// An empty set.
    pub fn new() -> Metrics {
        let mut m = Metrics {
            registry: Registry::with_prefix("millstream"),
            rows_in: Family::default(),
            rows_out: Family::default(),
            rows_late: Family::default(),
            rows_invalid: Family::default(),
            rows_rejected: Family::default(),
            busy: Family::default(),
            retries: Family::default(),
            watermark_lag: Family::default(),
            queued: Family::default(),
            counts: Family::default(),
            source_lag: Family::default(),
            result_latency: Family::new_with_constructor(|| Histogram::new(RESULT_LATENCY_SECONDS)),
            restarts: Family::default(),
            checkpoints: Family::default(),
            checkpoint_seconds: Family::default(),
            running: Family::default(),
        };
        let r = &mut m.registry;
        r.register("rows_in", "Rows a node took", m.rows_in.clone());
        r.register("rows_out", "Rows a node made", m.rows_out.clone());
        r.register(
            "rows_late",
            "Rows that came after their window had closed",
            m.rows_late.clone(),
        );
        r.register(
            "rows_invalid",
            "Input that could not become rows",
            m.rows_invalid.clone(),
        );
        r.register("rows_rejected", "Rows a sink refused", m.rows_rejected.clone());
        r.register_with_unit("busy", "Time a node spent working", Unit::Seconds, m.busy.clone());
        r.register(
            "retries",
            "Calls made again after a passing failure",
            m.retries.clone(),
        );
        r.register_with_unit(
            "watermark_lag",
            "How far the watermark is behind the wall clock",
            Unit::Seconds,
            m.watermark_lag.clone(),
        );
        r.register("queued_messages", "Messages waiting at a node", m.queued.clone());
        r.register(
            "connector_counts",
            "What only one connector counts",
            m.counts.clone(),
        );
        r.register_with_unit(
            "source_lag",
            "How far a source reads behind the newest there is, where the other side says so",
            Unit::Seconds,
            m.source_lag.clone(),
        );
        r.register_with_unit(
            "result_latency",
            "From the watermark's move that made a result until its sink has taken it",
            Unit::Seconds,
            m.result_latency.clone(),
        );
        r.register(
            "pipeline_restarts",
            "Restarts after a failure",
            m.restarts.clone(),
        );
        r.register("checkpoints", "Checkpoints completed", m.checkpoints.clone());
        r.register_with_unit(
            "checkpoint_duration",
            "Duration of the last checkpoint",
            Unit::Seconds,
            m.checkpoint_seconds.clone(),
        );
        r.register("pipeline_running", "1 while a pipeline runs", m.running.clone());
        m
    }

    /// The Prometheus text format (OpenMetrics flavour).
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }

    /// The metrics of one node.
    pub fn node(&self, pipeline: &str, node: &str) -> NodeMetrics {
        let labels = NodeLabels {
            pipeline: pipeline.into(),
            node: node.into(),
        };
        NodeMetrics {
            rows_in: self.rows_in.get_or_create(&labels).clone(),
            rows_out: self.rows_out.get_or_create(&labels).clone(),
            rows_late: self.rows_late.get_or_create(&labels).clone(),
            rows_invalid: self.rows_invalid.get_or_create(&labels).clone(),
            rows_rejected: self.rows_rejected.get_or_create(&labels).clone(),
            busy: self.busy.get_or_create(&labels).clone(),
            retries: self.retries.get_or_create(&labels).clone(),
            watermark_lag: self.watermark_lag.get_or_create(&labels).clone(),
            queued: self.queued.get_or_create(&labels).clone(),
            watermark: Arc::new(AtomicI64::new(i64::MIN)),
            result_latency: ResultLatency {
                labels: labels.clone(),
                family: self.result_latency.clone(),
            },
            counters: Counters {
                labels,
                family: self.counts.clone(),
                lag: self.source_lag.clone(),
                known: Arc::default(),
            },
        }
    }

    /// The metrics of one pipeline.
    pub fn pipeline(&self, pipeline: &str) -> PipelineMetrics {
        let labels = PipelineLabels {
            pipeline: pipeline.into(),
        };
        PipelineMetrics {
            restarts: self.restarts.get_or_create(&labels).clone(),
            checkpoints: self.checkpoints.get_or_create(&labels).clone(),
            checkpoint_seconds: self.checkpoint_seconds.get_or_create(&labels).clone(),
            running: self.running.get_or_create(&labels).clone(),
        }
    }
}

/// The metrics of one node; cheap to clone, shared by the node's tasks.
#[derive(Clone, Debug)]
pub struct NodeMetrics {
    /// Rows taken.
    pub rows_in: Counter,
    /// Rows made.
    pub rows_out: Counter,
    /// Rows that came after their window had closed.
    pub rows_late: Counter,
    /// Input that could not become rows.
    pub rows_invalid: Counter,
    /// Rows a sink refused.
    pub rows_rejected: Counter,
    /// Seconds of work.
    pub busy: Counter<f64, AtomicU64>,
    /// Calls made again.
    pub retries: Counter,
    /// Seconds the watermark is behind the wall clock.
    pub watermark_lag: Gauge<f64, AtomicU64>,
    /// Messages waiting.
    pub queued: Gauge,
    /// The watermark itself, microseconds since the epoch; `i64::MIN` before the first.
    pub watermark: Arc<AtomicI64>,
    /// How long results take to their sink.
    pub result_latency: ResultLatency,
    /// What only the connector counts.
    pub counters: Counters,
}

/// How long the results of windows take to a sink. A sink that gets none does not show it.
#[derive(Clone, Debug)]
pub struct ResultLatency {
    labels: NodeLabels,
    family: Family<NodeLabels, Histogram>,
}

impl ResultLatency {
    /// A result has taken so long.
    pub fn observe(&self, took: Duration) {
        self.family
            .get_or_create(&self.labels)
            .observe(took.as_secs_f64());
    }
}

/// The metrics of one pipeline.
#[derive(Clone, Debug)]
pub struct PipelineMetrics {
    /// Restarts after a failure.
    pub restarts: Counter,
    /// Checkpoints completed.
    pub checkpoints: Counter,
    /// Duration of the last checkpoint.
    pub checkpoint_seconds: Gauge<f64, AtomicU64>,
    /// 1 while it runs.
    pub running: Gauge,
}

/// Counts that only one connector knows, such as metric values dropped because they are not numbers.
#[derive(Clone, Debug)]
pub struct Counters {
    labels: NodeLabels,
    family: Family<CountLabels, Counter>,
    lag: Family<NodeLabels, Gauge<f64, AtomicU64>>,
    known: Arc<Mutex<BTreeSet<String>>>,
}

impl Counters {
    /// Counters nobody reads, for tests of a connector on its own.
    pub fn detached() -> Counters {
        Counters {
            labels: NodeLabels {
                pipeline: String::new(),
                node: String::new(),
            },
            family: Family::default(),
            lag: Family::default(),
            known: Arc::default(),
        }
    }

    /// A source reads this far behind the newest there is.
    pub fn behind(&self, lag: Duration) {
        self.lag.get_or_create(&self.labels).set(lag.as_secs_f64());
    }

    /// How many seconds a source reads behind the newest there is; none where it does not say.
    pub fn lag(&self) -> Option<f64> {
        self.lag.get(&self.labels).map(|lag| lag.get())
    }

    /// Adds to the count of `what` (snake_case).
    pub fn add(&self, what: &str, count: u64) {
        self.known
            .lock()
            .expect("nothing panics while it holds the names of counts")
            .insert(what.into());
        self.of(what).inc_by(count);
    }

    /// Every count of this node.
    pub fn all(&self) -> BTreeMap<String, u64> {
        let known = self
            .known
            .lock()
            .expect("nothing panics while it holds the names of counts");
        known.iter().map(|what| (what.clone(), self.get(what))).collect()
    }

    /// The count of `what`.
    pub fn get(&self, what: &str) -> u64 {
        self.of(what).get()
    }

    fn of(&self, what: &str) -> Counter {
        self.family
            .get_or_create(&CountLabels {
                pipeline: self.labels.pipeline.clone(),
                node: self.labels.node.clone(),
                what: what.into(),
            })
            .clone()
    }
}

impl NodeMetrics {
    /// The node's watermark moved on.
    pub fn saw_watermark(&self, at: Timestamp) {
        self.watermark.store(at.0, Ordering::Relaxed);
        if at > Timestamp::MIN && at < Timestamp::MAX {
            let lag = Timestamp::now().0.saturating_sub(at.0);
            self.watermark_lag.set(lag as f64 / 1e6);
        }
    }
}
