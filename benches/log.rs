//! How fast the ingest log writes beside a plain file: the same bytes, written one after the other with as many
//! syncs, in turns in one run.
//!
//! `cargo bench --workspace --bench log`; MILLSTREAM_BENCH_DIR names a directory on the disk to measure (default:
//! where temporary files go).

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use futures::StreamExt;
use millstream_benches::{impressions, median, schema};
use millstream_operators::log::{Log, LogOptions};

const FRAMES: usize = 10_000;
const ROWS: usize = 500;
/// Requests that wait at the same time: what a loaded lane sees.
const WAITING: usize = 64;
const ROUNDS: usize = 5;

fn main() -> anyhow::Result<()> {
    let base = std::env::var_os("MILLSTREAM_BENCH_DIR").map_or(std::env::temp_dir(), PathBuf::from);
    let dir = base.join(format!("millstream-bench-log-{}", std::process::id()));
    let runtime = tokio::runtime::Runtime::new()?;
    let batch = impressions(ROWS, 1_000, 60);
    println!("| round | MB | syncs | log MB/s | log rows/s | plain write + fdatasync MB/s | ratio |");
    println!("|---|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    let mut recovery = Vec::new();
    for round in 1..=ROUNDS {
        fs::create_dir_all(&dir)?;
        let log = runtime.block_on(through_the_log(&dir.join("log"), &batch))?;
        recovery.push(runtime.block_on(read_back(&dir.join("log")))?);
        let plain = plain(&dir.join("plain"), log.bytes, log.syncs)?;
        let rate = |took: Duration| log.bytes as f64 / took.as_secs_f64() / 1e6;
        let ratio = plain.as_secs_f64() / log.took.as_secs_f64();
        println!(
            "| {round} | {} | {} | {:.0} | {:.0} | {:.0} | {ratio:.2} |",
            log.bytes / 1_000_000,
            log.syncs,
            rate(log.took),
            (FRAMES * ROWS) as f64 / log.took.as_secs_f64(),
            rate(plain),
        );
        ratios.push(ratio);
        fs::remove_dir_all(&dir)?;
    }
    println!("\nmedian ratio {:.2}", median(ratios));
    println!("median of reading it back: {:.0} MB/s", median(recovery));
    Ok(())
}

struct Written {
    took: Duration,
    bytes: u64,
    syncs: u64,
}

/// Appends `FRAMES` frames with `WAITING` outstanding.
async fn through_the_log(dir: &Path, batch: &RecordBatch) -> anyhow::Result<Written> {
    let log = Log::open(LogOptions::new(dir.into()), schema())?;
    let started = Instant::now();
    let mut acks = futures::stream::iter(0..FRAMES)
        .map(|_| log.append(batch.clone(), None))
        .map(|appended| async { anyhow::Ok(appended?.durable.await??) })
        .buffered(WAITING);
    while let Some(ack) = acks.next().await {
        ack?;
    }
    let took = started.elapsed();
    drop(acks);
    let stats = log.stats();
    Ok(Written {
        took,
        bytes: stats.bytes,
        syncs: stats.fsyncs,
    })
}

/// MB/s of opening the log, which checks every frame, and reading it to its end.
async fn read_back(dir: &Path) -> anyhow::Result<f64> {
    let started = Instant::now();
    let log = Log::open(LogOptions::new(dir.into()), schema())?;
    let bytes = log.stats().bytes;
    log.close();
    let mut frames = log.read(None);
    while let Some(frame) = frames.next().await {
        frame?;
    }
    Ok(bytes as f64 / started.elapsed().as_secs_f64() / 1e6)
}

/// Writes as many bytes to a file with as many syncs.
fn plain(path: &Path, bytes: u64, syncs: u64) -> anyhow::Result<Duration> {
    let block = vec![0x5a; (bytes / syncs) as usize];
    let mut file = File::create(path)?;
    let started = Instant::now();
    for _ in 0..syncs {
        file.write_all(&block)?;
        file.sync_data()?;
    }
    Ok(started.elapsed())
}
