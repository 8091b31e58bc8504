//! A wall clock that jumps an hour ahead and an hour back while rows come in, under the real binary: libfaketime
//! stands between it and the system's clock. Time that passes (timeouts, intervals) is not touched, as on a machine
//! whose clock is set.
//!
//! What a jump may do is documented: with the clock behind, rows are too far in the future to move the windows on;
//! with the clock ahead, a quiet stream's windows may close early, and rows that come then are late. What it may not
//! do is lose a row: every acked one is in the lake once, and in a window's count or among the late ones.

mod support;

use std::path::Path;
use std::time::Duration;

use support::clock::Clock;
use support::load::{Load, verify};
use support::{Launch, Millstream, free_port, log, now_seconds, pause, quick};

const HOUR: i64 = 3_600;

#[test]
fn a_clock_that_jumps_by_an_hour_loses_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = Clock::new(dir.path());
    let pipeline = quick::write(dir.path(), "advertising.toml", &[]);
    let it = Millstream::start(&Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: free_port(),
        env: clock.env(),
    });
    let load = Load::start(
        dir.path(),
        &it.ingest,
        &["--users", "300", "--view-frequency", "1s"],
    );
    for ahead in [0, HOUR, -HOUR, 0, -HOUR, HOUR, 0] {
        clock.set(ahead);
        it.wait_for("a checkpoint at that time", || {
            let off = checkpointed_at(dir.path()) - now_seconds();
            (off - ahead).abs() < HOUR / 2
        });
        pause(Duration::from_secs(2));
    }
    load.stop();
    it.wait_for("every row to be in a window or late", || {
        let late = |window| it.node("advertising", window)["rows_late"].as_u64();
        let late = late("window.impressions_by_minute");
        let counted: u64 = it.printed_rows().iter().map(impressions).sum();
        counted + late.unwrap_or(0) == rows_in(&it)
    });
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    assert!(!log(dir.path()).contains("ERROR"), "{}", log(dir.path()));
    let proof = verify(dir.path(), &[]);
    assert!(proof.holds, "{}", proof.text);
    assert!(proof.line("acked rows")[0] > 0, "{}", proof.text);
}

fn impressions(row: &serde_json::Value) -> u64 {
    row["impressions"].as_u64().unwrap_or(0)
}

/// Rows that the source handed on.
fn rows_in(it: &Millstream) -> u64 {
    let source = it.node("advertising", "source.impressions");
    source["rows_out"].as_u64().expect("a count")
}

/// The time in the newest checkpoint, seconds since the epoch.
fn checkpointed_at(dir: &Path) -> i64 {
    let checkpoints = std::fs::read_dir(dir.join("data/advertising/checkpoints"));
    let names = checkpoints
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let newest = names
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .max();
    let text = newest.and_then(|path| std::fs::read_to_string(path).ok());
    let text = text.unwrap_or_default();
    // A checksum line follows the JSON.
    let manifest = text.rsplit_once("\ncrc32 ").map_or("{}", |(json, _)| json);
    let manifest: serde_json::Value = serde_json::from_str(manifest).expect("a manifest");
    manifest["at"].as_i64().unwrap_or(0) / 1_000_000
}
