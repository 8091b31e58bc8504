//! The `s3` source beside the plain SDK: the same objects listed, each fetched by `GetObject`, unpacked and decoded in one
//! go, as many at a time. Both from the AWS emulator, in the same run, in turns.
//!
//! `cargo bench --workspace --bench objects`; `OBJECTS` and `ROWS` (of each) say how much. The emulator is one Python
//! process beside the reader on the same cores, so what counts is the ratio.

use std::io::Read;
use std::sync::Arc;
use std::time::Instant;

use anyhow::ensure;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use futures::{StreamExt, TryStreamExt};
use millstream_benches::{Table, lines, schema, service};
use millstream_engine::metrics::Counters;
use millstream_engine::source::{Offsets, Source, SourceConnector, SourceContext};
use millstream_engine::time::Timestamp;
use millstream_operators::aws::{self, AwsOptions};
use millstream_operators::formats::json::Decoder;
use millstream_operators::sources::objects::S3Connector;
use serde_json::json;
use tokio_util::sync::CancellationToken;

const BUCKET: &str = "millstream-bench";

/// Runs of each, of which the median counts.
const RUNS: usize = 5;

/// As many objects at a time, for each core, as the source reads.
const AT_ONCE_PER_CORE: usize = 2;

fn main() -> anyhow::Result<()> {
    if !service::is_there() {
        return service::with_emulator();
    }
    tokio::runtime::Runtime::new()?.block_on(compare())
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name)
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

async fn compare() -> anyhow::Result<()> {
    let (objects, rows) = (number("OBJECTS", 32), number("ROWS", 100_000));
    let client = aws::s3(&AwsOptions::default()).await?;
    client.create_bucket().bucket(BUCKET).send().await?;
    let table = Table::new("objects", "rows/s", "plain SDK");
    for packed in [true, false] {
        let name = if packed { "gzip" } else { "plain" };
        let text = lines(rows);
        let bytes = if packed { gzip(&text)? } else { text };
        for n in 0..objects {
            let put = client.put_object().bucket(BUCKET).key(format!("{name}/{n}"));
            put.body(bytes.clone().into()).send().await?;
        }
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..RUNS {
            ours.push(timed(by_source(name), objects * rows).await?);
            plain.push(timed(by_sdk(name, packed), objects * rows).await?);
        }
        let what = format!("{objects} of {rows} rows, {} KB, {name}", bytes.len() / 1000);
        table.line(&what, &ours, &plain);
    }
    Ok(())
}

fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    std::io::Write::write_all(&mut packed, bytes)?;
    Ok(packed.finish()?)
}

/// Rows per second.
async fn timed(work: impl Future<Output = anyhow::Result<usize>>, expect: usize) -> anyhow::Result<f64> {
    let started = Instant::now();
    let rows = work.await?;
    ensure!(rows == expect, "{rows} rows, not {expect}");
    Ok(rows as f64 / started.elapsed().as_secs_f64())
}

async fn by_source(name: &str) -> anyhow::Result<usize> {
    let source: Arc<dyn Source> = S3Connector.open(SourceContext {
        run: None,
        pipeline: "bench".into(),
        name: "rows".into(),
        schema: schema(),
        event_time: 2,
        options: json!({ "path": format!("s3://{BUCKET}/{name}/") }),
        data_dir: Default::default(),
        stop: CancellationToken::new(),
        counters: Counters::detached(),
    })?;
    let found = source.partitions(&Offsets::new()).await?;
    let streams = found.open.into_iter().map(|(id, from)| source.read(&id, from));
    let mut batches = futures::stream::select_all(streams);
    let mut rows = 0;
    while let Some(batch) = batches.try_next().await? {
        rows += batch.rows.num_rows();
    }
    Ok(rows)
}

async fn by_sdk(name: &str, packed: bool) -> anyhow::Result<usize> {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let client = &aws::s3(&AwsOptions::default()).await?;
    let request = client.list_objects_v2().bucket(BUCKET).prefix(format!("{name}/"));
    let listed = request.send().await?;
    let keys = listed.contents().iter().filter_map(|object| object.key());
    let fetches = keys.map(|key| async move {
        let get = client.get_object().bucket(BUCKET).key(key).send();
        let bytes = get.await?.body.collect().await?.into_bytes();
        tokio::task::spawn_blocking(move || decode(&bytes, packed)).await?
    });
    let fetched = futures::stream::iter(fetches).buffer_unordered(cores * AT_ONCE_PER_CORE);
    fetched
        .try_fold(0, |sum, rows| async move { Ok(sum + rows) })
        .await
}

fn decode(bytes: &[u8], packed: bool) -> anyhow::Result<usize> {
    let mut unpacked = Vec::new();
    let text = match packed {
        true => {
            MultiGzDecoder::new(bytes).read_to_end(&mut unpacked)?;
            &unpacked
        }
        false => bytes,
    };
    let mut decoder = Decoder::new(schema())?;
    let decoded = decoder
        .decode(text, Timestamp(0))
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    ensure!(decoded.failed.is_empty(), "bad rows");
    Ok(decoder.finish()?.num_rows())
}
