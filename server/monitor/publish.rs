//! Publishes what the process counts to CloudWatch: once at the start, so that every metric is there, then once a
//! minute, then once at the end.
//!
//! What CloudWatch does not take is sent again with the next minute, with the time it had. PutMetricData knows no
//! idempotency, so what a lost answer stood for counts twice: good enough to watch a process by.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::MetricDatum;
use aws_sdk_cloudwatch::types::builders::MetricDatumBuilder;
use millstream_engine::plan::SourceNode;
use millstream_engine::runtime::PipelineHandle;
use millstream_engine::runtime::status::{NodeStatus, PipelineState};
use millstream_engine::time::Timestamp;
use millstream_operators::aws;
use millstream_operators::sources::http::{Ingest, IngestStats};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{Metric, OF_INGEST, OF_PIPELINE, Of, PERIOD, of_node, of_source};

/// Datapoints of one request: the limit of PutMetricData.
const REQUEST_POINTS: usize = 1000;
/// Datapoints that wait for CloudWatch to come back: an hour of a dozen pipelines.
const WAITING_POINTS: usize = 60_000;
/// How long the last datapoints may hold up the end of the process.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Folders within a source's directory, which a log does not have.
const DEEPEST: usize = 4;

/// What is watched.
pub struct Watched {
    /// The pipelines.
    pub pipelines: Vec<PipelineHandle>,
    /// The ingest server, if there is one.
    pub ingest: Option<Arc<Ingest>>,
    /// Where the pipelines' logs lie.
    pub data_dir: PathBuf,
}

/// A running publisher.
pub struct Publishing {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Publishing {
    /// Starts on the current runtime.
    pub fn start(client: Client, namespace: &str, watched: Watched) -> Publishing {
        let publisher = Publisher {
            client,
            namespace: namespace.into(),
            watched,
            totals: HashMap::new(),
            checkpoints: HashMap::new(),
            waiting: Vec::new(),
        };
        let (end, ended) = oneshot::channel();
        Publishing {
            end,
            task: tokio::spawn(publisher.run(ended)),
        }
    }

    /// Publishes what is new and ends.
    pub async fn finish(self) {
        let _ = self.end.send(());
        if tokio::time::timeout(END_LIMIT, self.task).await.is_err() {
            tracing::warn!("CloudWatch did not take the last metrics of this process in time");
        }
    }
}

struct Publisher {
    client: Client,
    namespace: String,
    watched: Watched,
    /// What was published of what only grows.
    totals: HashMap<(Of, Metric, u64), u64>,
    /// By pipeline: how many checkpoints there were, and when that was seen first.
    checkpoints: HashMap<String, (u64, Instant)>,
    /// Not taken by CloudWatch yet.
    waiting: Vec<MetricDatum>,
}

impl Publisher {
    async fn run(mut self, mut ended: oneshot::Receiver<()>) {
        self.publish(Timestamp::now()).await;
        loop {
            let now = Timestamp::now();
            let minute = i64::from(PERIOD) * 1_000_000;
            let next = Timestamp((now.0.div_euclid(minute) + 1) * minute);
            let wait = Duration::from_micros((next.0 - now.0) as u64);
            tokio::select! {
                // Dropped or sent: it is over.
                _ = &mut ended => break,
                // What was counted belongs to the minute that is over.
                () = tokio::time::sleep(wait) => self.publish(next.minus(Duration::from_secs(1))).await,
            }
        }
        self.publish(Timestamp::now()).await;
    }

    async fn publish(&mut self, at: Timestamp) {
        let mut data = std::mem::take(&mut self.waiting);
        self.read_pipelines(at, &mut data).await;
        self.read_ingest(at, &mut data);
        while !data.is_empty() {
            let some = data[..data.len().min(REQUEST_POINTS)].to_vec();
            let sent = some.len();
            let put = self.client.put_metric_data().namespace(&self.namespace);
            if let Err(e) = put.set_metric_data(Some(some)).send().await {
                let error = aws::classify(e, format!("publishing to namespace {:?}", self.namespace));
                let lost = data.len().saturating_sub(WAITING_POINTS);
                data.drain(..lost);
                tracing::warn!(%error, waiting = data.len(), lost, "CloudWatch takes no metrics of this process");
                self.waiting = data;
                return;
            }
            data.drain(..sent);
        }
    }

    async fn read_pipelines(&mut self, at: Timestamp, data: &mut Vec<MetricDatum>) {
        for pipeline in self.watched.pipelines.clone() {
            let plan = pipeline.plan().clone();
            for node in pipeline.nodes() {
                let of = Of::Node(plan.name.clone(), node.node.clone());
                let source = plan
                    .sources
                    .iter()
                    .find(|s| format!("source.{}", s.name) == node.node);
                let of_type = source.map_or(&[][..], |s| of_source(&s.kind));
                for metric in of_node(&node.kind).iter().chain(of_type) {
                    let value = self.of_node(&of, *metric, &node);
                    data.extend(value.map(|v| datum(&of, *metric, at).value(v).build()));
                }
            }
            let logging = |s: &&SourceNode| of_source(&s.kind).contains(&Metric::LogBytes);
            for source in plan.sources.iter().filter(logging) {
                let bytes = log_bytes(&self.watched.data_dir, &plan.name, source).await;
                let of = Of::Node(plan.name.clone(), format!("source.{}", source.name));
                data.push(datum(&of, Metric::LogBytes, at).value(bytes as f64).build());
            }
            let of = Of::Pipeline(plan.name.clone());
            for metric in OF_PIPELINE {
                let value = self.of_pipeline(&of, metric, &pipeline);
                data.push(datum(&of, metric, at).value(value).build());
            }
        }
    }

    fn of_node(&mut self, of: &Of, metric: Metric, node: &NodeStatus) -> Option<f64> {
        let total = match metric {
            Metric::RowsIn => node.rows_in,
            Metric::RowsOut => node.rows_out,
            Metric::RowsInvalid => node.rows_invalid,
            Metric::RowsLate => node.rows_late,
            Metric::RowsRejected => node.rows_rejected,
            Metric::Retries => node.retries,
            Metric::WatermarkLag => return node.watermark_lag_seconds.map(|lag| lag.max(0.0)),
            Metric::SourceLag => return node.source_lag_seconds,
            Metric::QueuedMessages => return Some(node.queued.max(0) as f64),
            _ => return None,
        };
        Some(self.since(of, metric, 0, total) as f64)
    }

    fn of_pipeline(&mut self, of: &Of, metric: Metric, pipeline: &PipelineHandle) -> f64 {
        let status = pipeline.status();
        match metric {
            Metric::Restarts => self.since(of, metric, 0, status.restarts) as f64,
            Metric::Checkpoints => self.since(of, metric, 0, status.checkpoints) as f64,
            Metric::CheckpointSeconds => status.checkpoint_ms / 1e3,
            Metric::CheckpointAge => self.checkpoint_age(&pipeline.plan().name, status.checkpoints),
            _ => f64::from(u8::from(status.state == PipelineState::Running)),
        }
    }

    /// Seconds since the last checkpoint was seen, as far as one can know who looks once a minute.
    fn checkpoint_age(&mut self, pipeline: &str, made: u64) -> f64 {
        let now = Instant::now();
        let known = self.checkpoints.entry(pipeline.to_owned()).or_insert((made, now));
        if known.0 != made {
            *known = (made, now);
        }
        (now - known.1).as_secs_f64()
    }

    fn read_ingest(&mut self, at: Timestamp, data: &mut Vec<MetricDatum>) {
        let Some(stats) = self.watched.ingest.as_ref().map(|ingest| ingest.stats()) else {
            return;
        };
        for metric in OF_INGEST {
            let of = datum(&Of::Ingest, metric, at);
            match metric {
                Metric::AnswerTime => data.extend(self.answer_times(of, &stats)),
                _ => {
                    let new = self.since(&Of::Ingest, metric, 0, total_of(metric, &stats));
                    data.push(of.value(new as f64).build());
                }
            }
        }
    }

    /// Fewer buckets than one datapoint may have values.
    fn answer_times(&mut self, of: MetricDatumBuilder, stats: &IngestStats) -> Option<MetricDatum> {
        let mut values = Vec::new();
        let mut counts = Vec::new();
        for (micros, total) in &stats.times {
            let new = self.since(&Of::Ingest, Metric::AnswerTime, *micros, *total);
            if new > 0 {
                values.push(*micros as f64 / 1e3);
                counts.push(new as f64);
            }
        }
        let datum = of.set_values(Some(values)).set_counts(Some(counts)).build();
        (!datum.values().is_empty()).then_some(datum)
    }

    /// What a total has grown by since it was published; `part` tells those of one metric apart.
    fn since(&mut self, of: &Of, metric: Metric, part: u64, total: u64) -> u64 {
        let before = self.totals.insert((of.clone(), metric, part), total);
        total.saturating_sub(before.unwrap_or(0))
    }
}

fn datum(of: &Of, metric: Metric, at: Timestamp) -> MetricDatumBuilder {
    MetricDatum::builder()
        .metric_name(metric.name())
        .set_dimensions(Some(of.sdk_dimensions()))
        .timestamp(DateTime::from_millis(at.0.div_euclid(1000)))
        .unit(metric.unit())
}

fn total_of(metric: Metric, stats: &IngestStats) -> u64 {
    let failed = |status: u16| status == 429 || status >= 500;
    let answers = |counts: &dyn Fn(u16) -> bool| {
        let these = stats.answers.iter().filter(|(status, _)| counts(**status));
        these.map(|(_, count)| count).sum()
    };
    match metric {
        Metric::RequestsRefused => answers(&|status| status >= 400 && !failed(status)),
        Metric::RequestsFailed => answers(&failed),
        Metric::RequestBytes => stats.bytes,
        _ => answers(&|_| true),
    }
}

/// The size of the files below a source's directory; what cannot be read counts as nothing, as a segment that goes
/// while it is looked at.
async fn log_bytes(data_dir: &Path, pipeline: &str, source: &SourceNode) -> u64 {
    let dir = data_dir.join(pipeline).join("sources").join(&source.name);
    let sum = tokio::task::spawn_blocking(move || bytes_below(&dir, DEEPEST));
    sum.await.unwrap_or_default()
}

fn bytes_below(dir: &Path, deepest: usize) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_file() => meta.len(),
        Ok(meta) if meta.is_dir() && deepest > 0 => bytes_below(&entry.path(), deepest - 1),
        _ => 0,
    };
    entries.map(size).sum()
}
