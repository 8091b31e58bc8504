//! The sinks of streams beside plain SDK clients that make the same puts: 500 records each, four on their way. The
//! clients make their records from structs with serde; the sinks get Arrow rows, and keep order, limits and what was refused.
//! Both talk to a server in this process that takes everything at once, over a socket; so what is compared is what a
//! core has to do, not how long a service takes.
//!
//! `cargo bench --workspace --bench streams`

use std::convert::Infallible;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use aws_sdk_kinesis::primitives::Blob;
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use millstream_benches::{Table, impressions, lines, service};
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::metrics::Counters;
use millstream_engine::sink::{SinkConnector, SinkContext};
use millstream_operators::aws::{self, AwsOptions};
use millstream_operators::sinks::firehose::FirehoseConnector;
use millstream_operators::sinks::kinesis::KinesisSinkConnector;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const ROWS: usize = 200_000;
/// Rows of a batch, as sources make them.
const BATCH: usize = 8_192;
const PUT: usize = 500;
const IN_FLIGHT: usize = 4;
const ROUNDS: usize = 5;

fn main() -> anyhow::Result<()> {
    let endpoint = format!("http://{}", service::serve(take)?);
    if !service::is_there() {
        return service::again(&endpoint);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let table = Table::new("puts", "rows/s", "plain client");
    for what in [What::Kinesis, What::KinesisByKey, What::Firehose] {
        let rate = |took: Duration| ROWS as f64 / took.as_secs_f64();
        let (mut sink, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            sink.push(rate(runtime.block_on(through_the_sink(what, &endpoint))?));
            plain.push(rate(runtime.block_on(by_hand(what, &endpoint))?));
        }
        table.line(what.name(), &sink, &plain);
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Kinesis,
    KinesisByKey,
    Firehose,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            What::Kinesis => "kinesis",
            What::KinesisByKey => "kinesis, in order by 20,000 keys",
            What::Firehose => "firehose",
        }
    }

    fn options(self, endpoint: &str) -> Value {
        let mut options = json!({"region": "us-east-1", "endpoint": endpoint});
        match self {
            What::Kinesis => options["stream"] = "s".into(),
            What::KinesisByKey => {
                (options["stream"], options["partition_key"]) = ("s".into(), "ad_id".into())
            }
            What::Firehose => options["delivery_stream"] = "s".into(),
        }
        options
    }
}

/// Writes all rows and waits until they are taken.
async fn through_the_sink(what: What, endpoint: &str) -> anyhow::Result<Duration> {
    let rows = impressions(ROWS, 20_000, 60);
    let cx = SinkContext {
        run: None,
        pipeline: "bench".into(),
        name: "out".into(),
        input: "rows".into(),
        schema: rows.schema(),
        event_time: None,
        options: what.options(endpoint),
        data_dir: std::env::temp_dir(),
        counters: Counters::detached(),
    };
    let mut sink = match what {
        What::Firehose => FirehoseConnector.open(cx).await?,
        What::Kinesis | What::KinesisByKey => KinesisSinkConnector.open(cx).await?,
    };
    let batches: Vec<RecordBatch> = (0..ROWS)
        .step_by(BATCH)
        .map(|from| rows.slice(from, BATCH.min(ROWS - from)))
        .collect();
    let started = Instant::now();
    for batch in batches {
        sink.write(batch).await?;
    }
    let barrier = Barrier {
        epoch: Epoch(1),
        last: true,
    };
    sink.prepare(barrier).await?;
    Ok(started.elapsed())
}

/// A row as a client has it.
#[derive(Clone, Serialize, Deserialize)]
struct Row {
    impression_id: String,
    ad_id: String,
    occurred_at: String,
}

fn rows() -> Vec<Row> {
    let rows = lines(ROWS);
    let rows = rows.split(|b| *b == b'\n').map(serde_json::from_slice::<Row>);
    rows.map(|row| row.expect("a row of ours")).collect()
}

/// Puts as many records with an SDK client.
async fn by_hand(what: What, endpoint: &str) -> anyhow::Result<Duration> {
    let options = AwsOptions {
        region: Some("us-east-1".into()),
        endpoint: Some(endpoint.into()),
        ..AwsOptions::default()
    };
    let (kinesis, firehose) = (aws::kinesis(&options).await?, aws::firehose(&options).await?);
    let rows: Vec<Row> = rows();
    let started = Instant::now();
    let mut puts = futures::stream::iter(rows.chunks(PUT).map(<[Row]>::to_vec))
        .map(|rows| {
            let (kinesis, firehose) = (kinesis.clone(), firehose.clone());
            tokio::spawn(async move {
                let records = rows.iter().map(serde_json::to_vec).collect::<Result<_, _>>()?;
                match what {
                    What::Firehose => put_firehose(&firehose, records).await,
                    What::Kinesis | What::KinesisByKey => put_kinesis(&kinesis, records).await,
                }
            })
        })
        .buffer_unordered(IN_FLIGHT);
    while let Some(put) = puts.next().await {
        put??;
    }
    Ok(started.elapsed())
}

async fn put_kinesis(client: &aws_sdk_kinesis::Client, records: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let entry = |(number, data): (usize, Vec<u8>)| {
        aws_sdk_kinesis::types::PutRecordsRequestEntry::builder()
            .data(Blob::new(data))
            .partition_key(format!("{number:x}"))
            .build()
    };
    let entries = records.into_iter().enumerate().map(entry);
    let entries = entries.collect::<Result<Vec<_>, _>>()?;
    let put = client.put_records().stream_name("s").set_records(Some(entries));
    let answer = put.send().await?;
    anyhow::ensure!(answer.failed_record_count().unwrap_or_default() == 0);
    Ok(())
}

async fn put_firehose(client: &aws_sdk_firehose::Client, records: Vec<Vec<u8>>) -> anyhow::Result<()> {
    let record = |mut data: Vec<u8>| {
        data.push(b'\n');
        aws_sdk_firehose::types::Record::builder()
            .data(Blob::new(data))
            .build()
    };
    let records = records.into_iter().map(record).collect::<Result<Vec<_>, _>>()?;
    let put = client
        .put_record_batch()
        .delivery_stream_name("s")
        .set_records(Some(records));
    anyhow::ensure!(put.send().await?.failed_put_count() == 0);
    Ok(())
}

/// Takes every record of a put.
async fn take(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers().get("x-amz-target").cloned();
    let is_firehose = target.is_some_and(|t| t.as_bytes().starts_with(b"Firehose"));
    let body = request.into_body().collect().await;
    let body = body.map(|b| b.to_bytes()).unwrap_or_default();
    // JSON of ours, in which nothing else is called so.
    let records = body.windows(7).filter(|w| *w == b"\"Data\":").count();
    let (one, begin) = match is_firehose {
        true => (
            r#"{"RecordId":"1"}"#,
            r#"{"FailedPutCount":0,"RequestResponses":["#,
        ),
        false => (
            r#"{"SequenceNumber":"1","ShardId":"s"}"#,
            r#"{"FailedRecordCount":0,"Records":["#,
        ),
    };
    let answer = format!("{begin}{}]}}", vec![one; records].join(","));
    let mut response = Response::new(Full::from(answer));
    let kind = hyper::header::HeaderValue::from_static("application/x-amz-json-1.1");
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, kind);
    Ok(response)
}
