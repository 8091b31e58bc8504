//! The `cloudwatch` sink beside a plain SDK client that makes the same puts: 1000 datapoints each, one after the other.
//! The client has its datapoints as the SDK wants them, but for the clock; the sink gets Arrow rows, checks every value
//! and promises them to a checkpoint first. Both talk to a server in this process that takes everything at once, over a
//! socket; so what is compared is what a core has to do, not how long a service takes.
//!
//! `cargo bench --workspace --bench cloudwatch`

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use millstream_benches::{Table, service};
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::metrics::Counters;
use millstream_engine::sink::{SinkConnector, SinkContext};
use millstream_engine::time::Timestamp;
use millstream_operators::aws::{self, AwsOptions};
use millstream_operators::sinks::cloudwatch::CloudwatchConnector;
use serde_json::json;

/// Within what one checkpoint may hold.
const POINTS: usize = 50_000;
const ADS: usize = 500;
/// Rows of a batch, as sources make them.
const BATCH: usize = 8_192;
const PUT: usize = 1000;
const ROUNDS: usize = 5;

fn main() -> anyhow::Result<()> {
    let endpoint = format!("http://{}", service::serve(take)?);
    if !service::is_there() {
        return service::again(&endpoint);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let rate = |took: Duration| POINTS as f64 / took.as_secs_f64();
    let (mut sink, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        sink.push(rate(runtime.block_on(through_the_sink(&endpoint))?));
        plain.push(rate(runtime.block_on(by_hand(&endpoint))?));
    }
    Table::new("puts", "points/s", "plain client").line("cloudwatch", &sink, &plain);
    Ok(())
}

fn value(number: usize) -> f64 {
    (number % 977) as f64 / 7.0
}

fn ad(number: usize) -> String {
    format!("ad-{:04}", number % ADS)
}

/// Writes all rows, and commits them as a checkpoint does.
async fn through_the_sink(endpoint: &str) -> anyhow::Result<Duration> {
    let now = Timestamp::now().0;
    let at = TimestampMicrosecondArray::from_iter_values((0..POINTS).map(|n| now - n as i64));
    let ads = StringArray::from_iter_values((0..POINTS).map(ad));
    let values = Float64Array::from_iter_values((0..POINTS).map(value));
    let rows = RecordBatch::try_from_iter([
        ("at", Arc::new(at) as _),
        ("ad", Arc::new(ads) as _),
        ("latency", Arc::new(values) as _),
    ])?;
    let dir = tempfile::tempdir()?;
    let cx = SinkContext {
        run: None,
        pipeline: "bench".into(),
        name: "out".into(),
        input: "rows".into(),
        schema: rows.schema(),
        event_time: Some(0),
        options: json!({
            "region": "us-east-1", "endpoint": endpoint, "namespace": "Bench", "dimensions": { "Ad": "ad" },
            "metrics": [{ "name": "Latency", "value": "latency", "unit": "Milliseconds" }],
        }),
        data_dir: dir.path().into(),
        counters: Counters::detached(),
    };
    let mut sink = CloudwatchConnector.open(cx).await?;
    let started = Instant::now();
    for from in (0..POINTS).step_by(BATCH) {
        sink.write(rows.slice(from, BATCH.min(POINTS - from))).await?;
    }
    let (epoch, last) = (Epoch(1), false);
    let what = sink.prepare(Barrier { epoch, last }).await?;
    sink.commit(epoch, what).await?;
    Ok(started.elapsed())
}

/// Puts as many datapoints with an SDK client.
async fn by_hand(endpoint: &str) -> anyhow::Result<Duration> {
    let options = AwsOptions {
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint.into()),
        ..AwsOptions::default()
    };
    let client = aws::cloudwatch(&options).await?;
    let points: Vec<(String, f64)> = (0..POINTS).map(|n| (ad(n), value(n))).collect();
    let started = Instant::now();
    for some in points.chunks(PUT) {
        let datum = |(ad, value): &(String, f64)| {
            MetricDatum::builder()
                .metric_name("Latency")
                .dimensions(Dimension::builder().name("Ad").value(ad).build())
                .timestamp(DateTime::from_millis(Timestamp::now().0 / 1000))
                .unit(StandardUnit::Milliseconds)
                .value(*value)
                .storage_resolution(60)
                .build()
        };
        let data = some.iter().map(datum).collect();
        let put = client.put_metric_data().namespace("Bench");
        put.set_metric_data(Some(data)).send().await?;
    }
    Ok(started.elapsed())
}

/// Takes every datapoint of a put: an empty map, as CBOR.
async fn take(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let _ = request.into_body().collect().await;
    let mut answer = Response::new(Full::new(Bytes::from_static(&[0xa0])));
    let headers = answer.headers_mut();
    headers.insert("smithy-protocol", "rpc-v2-cbor".parse().expect("a header"));
    headers.insert("content-type", "application/cbor".parse().expect("a header"));
    Ok(answer)
}
