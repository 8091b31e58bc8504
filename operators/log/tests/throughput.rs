//! How fast the log writes beside a plain file. `cargo test -p millstream-operators --release log::tests::throughput --
//! --ignored --nocapture`; set MILLSTREAM_BENCH_DIR to measure another disk than the one with temporary files.

use std::io::Write;
use std::time::{Duration, Instant};

use super::*;

const FRAMES: u64 = 10_000;
const ROWS: usize = 500;
/// Requests that wait at the same time: what a loaded lane sees.
const WAITING: usize = 64;
/// Written before each sync of the plain file: about what a group of the log holds.
const ROUNDS: usize = 3;

/// Appends `FRAMES` frames with `WAITING` outstanding; how long, how many bytes, how many syncs.
async fn through_the_log(dir: &Path) -> (Duration, u64, u64) {
    let log = open(&options(dir));
    let batches: Vec<_> = (0..16).map(|b| rows(b, ROWS)).collect();
    let started = Instant::now();
    futures::stream::iter(0..FRAMES)
        .map(|i| durable(log.append(batches[i as usize % batches.len()].clone(), None)))
        .buffered(WAITING)
        .for_each(|_| async {})
        .await;
    let took = started.elapsed();
    let stats = log.stats();
    drop(log);
    let started = Instant::now();
    let log = open(&options(dir));
    let opened = started.elapsed();
    assert_eq!(drain(&log, None).await.len() as u64, FRAMES);
    let rate = |took: Duration| stats.bytes as f64 / took.as_secs_f64() / 1e6;
    println!(
        "recovery: open at {:.0} MB/s, open and read at {:.0} MB/s",
        rate(opened),
        rate(started.elapsed())
    );
    drop(log);
    fs::remove_dir_all(dir).unwrap();
    (took, stats.bytes, stats.fsyncs)
}

/// Writes the same bytes to a file with as many syncs.
fn plain(dir: &Path, bytes: u64, syncs: u64) -> Duration {
    fs::create_dir_all(dir).unwrap();
    let block = vec![0x5a; (bytes / syncs) as usize];
    let mut file = fs::File::create(dir.join("plain")).unwrap();
    let started = Instant::now();
    for _ in 0..syncs {
        file.write_all(&block).unwrap();
        file.sync_data().unwrap();
    }
    let took = started.elapsed();
    fs::remove_dir_all(dir).unwrap();
    took
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn beside_a_plain_file() {
    let base = std::env::var_os("MILLSTREAM_BENCH_DIR").map_or(std::env::temp_dir(), PathBuf::from);
    let dir = tempfile::tempdir_in(base).unwrap();
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let (log, bytes, syncs) = through_the_log(&dir.path().join(format!("log{round}"))).await;
        let plain = plain(&dir.path().join(format!("plain{round}")), bytes, syncs);
        let rate = |took: Duration| bytes as f64 / took.as_secs_f64() / 1e6;
        ratios.push(plain.as_secs_f64() / log.as_secs_f64());
        println!(
            "{} MB, {syncs} syncs: log {:.0} MB/s, plain write + fdatasync {:.0} MB/s, ratio {:.2}, {:.0} rows/s",
            bytes / 1_000_000,
            rate(log),
            rate(plain),
            ratios[round],
            (FRAMES as usize * ROWS) as f64 / log.as_secs_f64()
        );
    }
    assert!(ratios.iter().all(|r| r.is_finite()));
}
