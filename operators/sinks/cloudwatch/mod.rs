//! The `cloudwatch` sink: columns as CloudWatch metrics.
//!
//! Rows become datapoints as they arrive; the datapoints of a checkpoint stand in its manifest and are sent at
//! its commit, so a datapoint is sent only once the rows behind it can no longer be replayed. A commit that fails
//! halfway goes on where it stopped.
//!
//! PutMetricData knows no idempotency: datapoints that are sent twice are added up. What was sent is noted in
//! `committed` below the sink's directory. Where that does not say, as after a crash between sending and noting or a
//! request whose answer was lost, the datapoints are *in doubt*: they are read back (`read_back`), and those that have
//! not shown after `settle` are sent. Meanwhile nothing waits: datapoints in doubt, and those after them, stand in the
//! next checkpoint's promise again; only the last commit of a run waits for the end of the doubt. CloudWatch states no
//! bound on how late a datapoint shows: one that shows later than `settle` after a crash is there twice.
//!
//! CloudWatch refuses a whole request for one bad value, so what it would refuse is found in the row (`refusal`) and
//! counted by metric: `values_not_a_number`, `values_out_of_range`, `values_inconsistent`, `dimensions_invalid`,
//! `timestamps_null`, `points_too_old`, `points_too_far_ahead`. The row goes to `<sink>.rejected`, with the names of the
//! metrics that it gives no datapoint of; the others are sent. NULL is no value (`values_null`) and nothing wrong. A
//! datapoint that became too old on its way, while CloudWatch was away, is counted and lost.
//!
//! Requests of 10 KB and more are compressed, by the SDK.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::Config;
use aws_sdk_cloudwatch::config::retry::RetryConfig;
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit, StatisticSet};
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::sink::{Committable, Sink, SinkConnector, SinkContext};
use millstream_engine::source::options;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use self::columns::Mapping;
use self::options::CloudwatchOptions;
use self::options::Resolution;
use self::outbox::{Marker, Prepared, PreparedId, adopt};
use self::points::{Point, Value};
use self::refusal::Accepted;
use super::rejected::RejectedRows;
use super::{only_streams, promise, promised};
use crate::aws;

mod columns;
pub mod options;
mod outbox;
mod points;
mod read_back;
mod refusal;
#[cfg(test)]
mod tests;
mod values;

/// Datapoints of one request: the limit of PutMetricData.
const REQUEST_POINTS: usize = 1000;

/// Estimated bytes of one request, below the limit of 1 MB since it is an estimate.
const REQUEST_BYTES: usize = 800_000;

/// Datapoints of one checkpoint, those of many values counted as many. They stand in the manifest, which is written whole at every checkpoint; and
/// a hundred requests are what the default quota passes in under a second.
const CHECKPOINT_POINTS: usize = 100_000;

/// CloudWatch takes timestamps up to two weeks old and two hours ahead.
const OLDEST: Duration = Duration::from_secs(14 * 24 * 3600);
const FARTHEST_AHEAD: Duration = Duration::from_secs(2 * 3600);

/// `type = "cloudwatch"`.
pub struct CloudwatchConnector;

#[async_trait]
impl SinkConnector for CloudwatchConnector {
    fn name(&self) -> &'static str {
        "cloudwatch"
    }

    fn identity(&self) -> &'static [&'static str] {
        &["namespace", "region", "endpoint"]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(CloudwatchOptions)
    }

    fn rejects(&self) -> bool {
        true
    }

    fn check(&self, cx: &SinkContext) -> Result<()> {
        only_streams(cx, "cloudwatch", "adds to its metrics")?;
        let typed: CloudwatchOptions = options(&cx.options)?;
        typed.aws.check()?;
        Mapping::new(cx, &typed).map(drop)
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>> {
        let typed: CloudwatchOptions = options(&cx.options)?;
        let mapping = Mapping::new(&cx, &typed)?;
        let client = aws::cloudwatch(&typed.aws).await?;
        Ok(Box::new(CloudwatchSink {
            client,
            namespace: typed.namespace,
            high_resolution: typed.resolution == Resolution::Second,
            settle: typed.settle.0,
            mapping,
            points: Vec::new(),
            size: 0,
            rejected: RejectedRows::new(&cx),
            outbox: Vec::new(),
            marker: Marker::new(cx.data_dir.clone()),
            fresh: true,
            last: false,
            cx,
        }))
    }
}

struct CloudwatchSink {
    cx: SinkContext,
    client: Client,
    namespace: String,
    high_resolution: bool,
    settle: Duration,
    mapping: Mapping,
    points: Vec<Point>,
    /// Of the points, together.
    size: usize,
    rejected: RejectedRows,
    /// Prepared, in order, and not known to be sent.
    outbox: Vec<Prepared>,
    marker: Marker,
    /// Has neither prepared nor committed anything: a commit is what an earlier life promised.
    fresh: bool,
    /// Nothing follows the next commit.
    last: bool,
}

#[async_trait]
impl Sink for CloudwatchSink {
    async fn write(&mut self, rows: RecordBatch) -> Result<()> {
        let accepted = Accepted::at(Timestamp::now());
        let before = self.points.len();
        let counters = &self.cx.counters;
        let refused = self.mapping.map(&rows, &accepted, counters, &mut self.points)?;
        self.size += self.points[before..].iter().map(Point::size).sum::<usize>();
        if self.size > CHECKPOINT_POINTS {
            return Err(Error::config(format!(
                "stream {:?} makes more than {CHECKPOINT_POINTS} datapoints between two checkpoints; aggregate further, \
                 or shorten [checkpoint] interval",
                self.cx.input
            )));
        }
        for (row, reasons) in refused {
            self.rejected.push(&rows, row, &reasons.join("; "))?;
        }
        Ok(())
    }

    async fn prepare(&mut self, barrier: Barrier) -> Result<Committable> {
        self.fresh = false;
        self.last = barrier.last;
        self.size = 0;
        let points = std::mem::take(&mut self.points);
        if !points.is_empty() {
            self.outbox.push(Prepared {
                id: PreparedId::new(barrier.epoch),
                points,
                settled: None,
            });
        }
        promise(&self.outbox)
    }

    async fn commit(&mut self, epoch: Epoch, what: Committable) -> Result<()> {
        if std::mem::take(&mut self.fresh) {
            let promised: Option<Vec<Prepared>> = promised(what, &self.cx)?;
            self.outbox = adopt(promised.unwrap_or_default(), self.marker.read(), self.settle);
        }
        while self.outbox.first().is_some_and(|p| p.id.epoch <= epoch) {
            if !self.resolve_doubt().await? {
                // The next commit asks again.
                return Ok(());
            }
            self.send_first().await?;
            let sent = self.outbox.remove(0);
            self.marker.write(sent.id).await;
        }
        Ok(())
    }

    fn rejected(&mut self) -> Option<RecordBatch> {
        self.rejected.take()
    }
}

impl CloudwatchSink {
    /// Leaves of the first prepared datapoints those that must be sent; false while that is not known.
    async fn resolve_doubt(&mut self) -> Result<bool> {
        let first = &self.outbox[0];
        let Some(settled) = first.settled else {
            return Ok(true);
        };
        if self.last {
            tokio::time::sleep_until(settled.into()).await;
        }
        // Taken before asking: what shows by then may be younger.
        let is_settled = Instant::now() >= settled;
        let missing =
            read_back::missing(&self.client, &self.namespace, self.high_resolution, &first.points).await?;
        if !missing.is_empty() && !is_settled {
            return Ok(false);
        }
        let counters = &self.cx.counters;
        counters.add("points_read_back", (first.points.len() - missing.len()) as u64);
        let first = &mut self.outbox[0];
        (first.points, first.settled) = (missing, None);
        Ok(true)
    }

    /// Sends the first prepared datapoints, request by request.
    async fn send_first(&mut self) -> Result<()> {
        while !self.outbox[0].points.is_empty() {
            let points = &self.outbox[0].points;
            let length = request_length(points);
            match self.send(&points[..length]).await {
                Ok(()) => drop(self.outbox[0].points.drain(..length)),
                Err(Unsent { error, in_doubt }) => {
                    if in_doubt {
                        self.outbox[0].settled = Some(Instant::now() + self.settle);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    async fn send(&self, points: &[Point]) -> Result<(), Unsent> {
        let now = Timestamp::now();
        let (too_old, too_far) = (now.minus(OLDEST), now.plus(FARTHEST_AHEAD));
        let (mut old, mut far) = (0, 0);
        let mut data = Vec::with_capacity(points.len());
        for point in points {
            match point.at {
                at if at < too_old => old += 1,
                at if at > too_far => far += 1,
                _ => data.push(self.datum(point)),
            }
        }
        let sent = data.len() as u64;
        if !data.is_empty() {
            self.put(data).await?;
        }
        if old > 0 {
            let sink = &self.cx.name;
            tracing::warn!(
                sink,
                old,
                "datapoints became two weeks old before CloudWatch took them"
            );
        }
        let counters = &self.cx.counters;
        for (what, count) in [
            ("points_sent", sent),
            ("points_too_old", old),
            ("points_too_far_ahead", far),
        ] {
            if count > 0 {
                counters.add(what, count);
            }
        }
        Ok(())
    }

    async fn put(&self, data: Vec<MetricDatum>) -> Result<(), Unsent> {
        // Once only: the SDK does not know that a second request would count again.
        let once = Config::builder().retry_config(RetryConfig::disabled());
        let put = self
            .client
            .put_metric_data()
            .namespace(&self.namespace)
            .set_metric_data(Some(data))
            .customize()
            .config_override(once);
        let Err(e) = put.send().await else {
            return Ok(());
        };
        let refused = e.raw_response().is_some_and(|r| r.status().is_client_error());
        Err(Unsent {
            in_doubt: !refused,
            error: aws::classify(e, format!("sending metrics to namespace {:?}", self.namespace)),
        })
    }

    fn datum(&self, point: &Point) -> MetricDatum {
        let dimensions = point
            .dimensions
            .iter()
            .map(|(name, value)| Dimension::builder().name(name).value(value).build());
        let datum = MetricDatum::builder()
            .metric_name(&point.metric)
            .set_dimensions(Some(dimensions.collect()))
            .timestamp(timestamp(point.at))
            .unit(StandardUnit::from(point.unit.as_str()))
            .storage_resolution(if self.high_resolution { 1 } else { 60 });
        match &point.value {
            Value::Single(value) => datum.value(*value),
            Value::Statistics {
                sample_count,
                sum,
                minimum,
                maximum,
            } => datum.statistic_values(
                StatisticSet::builder()
                    .sample_count(*sample_count)
                    .sum(*sum)
                    .minimum(*minimum)
                    .maximum(*maximum)
                    .build(),
            ),
            Value::Distribution { values, counts } => datum
                .set_values(Some(values.clone()))
                .set_counts(Some(counts.clone())),
        }
        .build()
    }
}

/// A request that failed.
struct Unsent {
    error: Error,
    /// It may have gone through all the same: nobody refused it.
    in_doubt: bool,
}

fn timestamp(at: Timestamp) -> DateTime {
    DateTime::from_millis(at.0.div_euclid(1000))
}

/// How many of the points fit into one request.
fn request_length(points: &[Point]) -> usize {
    let mut bytes = 0;
    let fitting = points.iter().take(REQUEST_POINTS).take_while(|point| {
        bytes += point.request_bytes();
        bytes <= REQUEST_BYTES
    });
    fitting.count().max(1)
}
