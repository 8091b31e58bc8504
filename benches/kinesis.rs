//! How fast the Kinesis source reads beside a plain SDK client that makes the same GetRecords and does nothing with what
//! it gets: the same records, in turns in one run. Neither keeps to the limits of a shard, which would make them equal.
//!
//! `cargo bench --workspace --bench kinesis`; without AWS_ENDPOINT_URL it starts the emulator of the tests
//! (MILLSTREAM_VENV, default: where `ci/test` installs it) and ends it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::ensure;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType};
use futures::StreamExt;
use millstream_benches::{Table, lines, schema, service};
use millstream_engine::metrics::Counters;
use millstream_engine::source::{Offsets, SourceConnector, SourceContext};
use millstream_operators::aws::{self, AwsOptions};
use millstream_operators::sources::kinesis::{KinesisConnector, ShardLimits};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const SHARDS: i32 = 2;
const ROUNDS: usize = 5;
/// Name, records, rows in each.
const STREAMS: [(&str, usize, usize); 2] = [("single", 100_000, 1), ("lines", 100_000, 5)];
/// Put together, below the limits of PutRecords.
const RECORDS_PER_PUT: usize = 250;

fn main() -> anyhow::Result<()> {
    if !service::is_there() {
        return service::with_emulator();
    }
    tokio::runtime::Runtime::new()?.block_on(compare())
}

async fn compare() -> anyhow::Result<()> {
    let client = aws::kinesis(&AwsOptions::default()).await?;
    let table = Table::new("records", "rows/s", "plain client");
    for (stream, records, rows) in STREAMS {
        fill(&client, stream, records, rows).await?;
        let rate = |took: Duration| (records * rows) as f64 / took.as_secs_f64();
        let (mut plain, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            plain.push(rate(through_the_client(&client, stream, records).await?));
            ours.push(rate(through_the_source(stream, records * rows).await?));
        }
        table.line(&format!("{records} of {rows} rows"), &ours, &plain);
    }
    Ok(())
}

async fn fill(client: &Client, stream: &str, records: usize, rows: usize) -> anyhow::Result<()> {
    client
        .create_stream()
        .stream_name(stream)
        .shard_count(SHARDS)
        .send()
        .await?;
    let data = Blob::new(lines(rows));
    for first in (0..records).step_by(RECORDS_PER_PUT) {
        let record = |n: usize| {
            PutRecordsRequestEntry::builder()
                .data(data.clone())
                .partition_key(n.to_string())
                .build()
        };
        let batch: Result<Vec<_>, _> = (first..records.min(first + RECORDS_PER_PUT))
            .map(record)
            .collect();
        let put = client.put_records().stream_name(stream).set_records(Some(batch?));
        let failed = put.send().await?.failed_record_count;
        ensure!(failed.unwrap_or(0) == 0, "{failed:?} records were not taken");
    }
    Ok(())
}

/// Reads all shards beside each other until `records` have come.
async fn through_the_client(client: &Client, stream: &str, records: usize) -> anyhow::Result<Duration> {
    let shards = client.list_shards().stream_name(stream).send().await?;
    let total = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for shard in shards.shards.unwrap_or_default() {
        let (client, stream, total) = (client.clone(), stream.to_owned(), total.clone());
        tasks.spawn(async move {
            let iterator = client
                .get_shard_iterator()
                .stream_name(stream)
                .shard_id(shard.shard_id)
                .shard_iterator_type(ShardIteratorType::TrimHorizon);
            let mut iterator = iterator.send().await?.shard_iterator;
            while total.load(Relaxed) < records {
                let got = client
                    .get_records()
                    .set_shard_iterator(iterator)
                    .limit(10_000)
                    .send()
                    .await?;
                total.fetch_add(got.records.len(), Relaxed);
                iterator = got.next_shard_iterator;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(started.elapsed())
}

/// The same through the source, which decodes the rows.
async fn through_the_source(stream: &str, rows: usize) -> anyhow::Result<Duration> {
    let stop = CancellationToken::new();
    let cx = SourceContext {
        run: None,
        pipeline: "bench".into(),
        name: stream.into(),
        schema: schema(),
        event_time: 2,
        options: json!({ "stream": stream }),
        data_dir: PathBuf::new(),
        stop: stop.clone(),
        counters: Counters::detached(),
    };
    let connector = KinesisConnector {
        limits: ShardLimits::NONE,
    };
    let source = connector.open(cx)?;
    let started = Instant::now();
    let total = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for (partition, from) in source.partitions(&Offsets::new()).await?.open {
        let (mut batches, total, stop) = (source.read(&partition, from), total.clone(), stop.clone());
        tasks.spawn(async move {
            while let Some(batch) = batches.next().await {
                let batch = batch?;
                ensure!(batch.invalid.is_none(), "every record holds rows");
                let rows_here = batch.rows.num_rows();
                if total.fetch_add(rows_here, Relaxed) + rows_here >= rows {
                    stop.cancel();
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let took = started.elapsed();
    ensure!(total.load(Relaxed) == rows, "{total:?} rows instead of {rows}");
    Ok(took)
}
