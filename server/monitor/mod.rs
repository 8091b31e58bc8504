//! What a process says about itself in CloudWatch, and the dashboards and alarms that read it.
//!
//! The one list of our metrics: who publishes them and who shows them go by it, so a widget cannot name a metric that
//! nobody sends.
//!
//! | of | dimensions |
//! |---|---|
//! | a node | `Pipeline`, `Node` (its section, such as `source.clicks`) |
//! | a pipeline | `Pipeline` |
//! | the ingest server | none |

pub mod alarms;
pub mod dashboard;
pub mod operations;
pub mod publish;

use aws_sdk_cloudwatch::types::{Dimension, StandardUnit};
use millstream_engine::plan::Plan;
use serde_json::{Value, json};

/// Seconds from one datapoint to the next.
pub const PERIOD: i32 = 60;

/// The kind of source that keeps a log, and takes what the ingest server is sent.
pub const HTTP: &str = "http";

/// A metric of ours; its name in CloudWatch is the name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Rows that a node took.
    RowsIn,
    /// Rows that a node made.
    RowsOut,
    /// Input that could not become rows.
    RowsInvalid,
    /// Rows that came after their window had closed.
    RowsLate,
    /// Rows that a sink refused.
    RowsRejected,
    /// Calls made again after a passing failure.
    Retries,
    /// How far a node's watermark is behind the wall clock.
    WatermarkLag,
    /// Messages that wait at a node.
    QueuedMessages,
    /// Size of a source's log.
    LogBytes,
    /// How far a source reads behind the newest there is.
    SourceLag,
    /// Restarts of a pipeline after a failure.
    Restarts,
    /// Checkpoints completed.
    Checkpoints,
    /// How long the last checkpoint took.
    CheckpointSeconds,
    /// Time since the last checkpoint, or since the start.
    CheckpointAge,
    /// 1 while a pipeline runs.
    Running,
    /// Requests answered.
    Requests,
    /// Requests answered with a status from 400 on that says what the client did wrong.
    RequestsRefused,
    /// Requests answered with 429 or a status from 500 on.
    RequestsFailed,
    /// Bytes of the bodies of requests.
    RequestBytes,
    /// Time to an answer of success.
    AnswerTime,
}

use Metric::*;

/// What the ingest server publishes.
pub const OF_INGEST: [Metric; 5] = [
    Requests,
    RequestsRefused,
    RequestsFailed,
    RequestBytes,
    AnswerTime,
];

/// What every pipeline publishes.
pub const OF_PIPELINE: [Metric; 5] = [Restarts, Checkpoints, CheckpointSeconds, CheckpointAge, Running];

/// What nodes of a kind publish. A [`Metric::WatermarkLag`] is there once there is a watermark.
pub fn of_node(kind: &str) -> &'static [Metric] {
    match kind {
        "source" => &[RowsIn, RowsInvalid, Retries, WatermarkLag],
        "dedup" => &[RowsIn, RowsOut, WatermarkLag, QueuedMessages],
        "window" => &[RowsIn, RowsLate, WatermarkLag],
        "sql" => &[RowsIn, RowsOut, WatermarkLag, QueuedMessages],
        "sink" => &[RowsIn, RowsRejected, Retries, WatermarkLag, QueuedMessages],
        _ => &[],
    }
}

/// What sources of a type publish besides.
pub fn of_source(kind: &str) -> &'static [Metric] {
    match kind {
        HTTP => &[LogBytes],
        "kinesis" => &[SourceLag],
        _ => &[],
    }
}

impl Metric {
    /// Its name in CloudWatch.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Its unit.
    pub fn unit(self) -> StandardUnit {
        match self {
            WatermarkLag | SourceLag | CheckpointSeconds | CheckpointAge => StandardUnit::Seconds,
            LogBytes | RequestBytes => StandardUnit::Bytes,
            AnswerTime => StandardUnit::Milliseconds,
            Running => StandardUnit::None,
            _ => StandardUnit::Count,
        }
    }

    /// How datapoints of a minute become one number: what is counted adds up; of the rest the worst counts.
    pub fn statistic(self) -> &'static str {
        match self {
            Running => "Minimum",
            WatermarkLag | SourceLag | QueuedMessages | LogBytes | CheckpointSeconds | CheckpointAge => {
                "Maximum"
            }
            AnswerTime => "p95",
            _ => "Sum",
        }
    }
}

/// What a metric is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Of {
    /// All of the process's ingest.
    Ingest,
    /// A pipeline, by name.
    Pipeline(String),
    /// A node, by pipeline and section.
    Node(String, String),
}

impl Of {
    /// The dimensions of its metrics.
    pub fn dimensions(&self) -> Vec<(&'static str, &str)> {
        match self {
            Of::Ingest => Vec::new(),
            Of::Pipeline(pipeline) => vec![("Pipeline", pipeline)],
            Of::Node(pipeline, node) => vec![("Pipeline", pipeline), ("Node", node)],
        }
    }

    /// As the SDK wants them.
    fn sdk_dimensions(&self) -> Vec<Dimension> {
        let dimensions = self.dimensions().into_iter();
        dimensions
            .map(|(name, value)| Dimension::builder().name(name).value(value).build())
            .collect()
    }

    /// As a widget wants them: the metric and what it is about.
    fn line(&self, namespace: &str, metric: Metric) -> Vec<Value> {
        let mut line = vec![json!(namespace), json!(metric.name())];
        for (name, value) in self.dimensions() {
            line.extend([json!(name), json!(value)]);
        }
        line
    }
}

/// The nodes of a plan, by kind and section.
pub fn nodes(plan: &Plan) -> Vec<(&'static str, String)> {
    let mut nodes: Vec<(&'static str, String)> = Vec::new();
    let mut add = |kind, name: &str| nodes.push((kind, format!("{kind}.{name}")));
    plan.sources.iter().for_each(|n| add("source", &n.name));
    plan.dedups.iter().for_each(|n| add("dedup", &n.name));
    plan.windows.iter().for_each(|n| add("window", &n.name));
    plan.queries.iter().for_each(|n| add("sql", &n.name));
    plan.sinks.iter().for_each(|n| add("sink", &n.name));
    nodes
}
