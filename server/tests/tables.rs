//! Reference tables in a running pipeline: read before anything runs, replaced while it runs, and what happens
//! when a file is broken.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{Launch, Millstream, PATIENCE, log, pause, post};

/// The same pipeline that `preview` is tested with.
const PIPELINE: &str = include_str!("preview/prices.toml");

fn launch<'a>(dir: &'a Path, pipeline: &'a str) -> Launch<'a> {
    Launch {
        dir,
        pipeline,
        port: 0,
        env: Vec::new(),
    }
}

/// Puts a file in place at once, as a table is best replaced.
fn replace(dir: &Path, text: &str) {
    std::fs::write(dir.join("ads.csv.new"), text).expect("a writable directory");
    std::fs::rename(dir.join("ads.csv.new"), dir.join("ads.csv")).expect("a writable directory");
}

fn reads(it: &Millstream, what: &str) -> u64 {
    it.node("prices", "table.ads")["counts"][what]
        .as_u64()
        .unwrap_or(0)
}

/// The prices that clicks on `ad` were given, one after the other.
fn prices(it: &Millstream, ad: &str) -> Vec<Value> {
    let rows = it.stream("prices", "priced").into_iter();
    rows.filter(|r| r["ad_id"] == ad)
        .map(|r| r["price"].clone())
        .collect()
}

fn click(it: &Millstream, ad: &str) {
    let row = json!({"ad_id": ad, "occurred_at": "2026-11-23 12:00:10"});
    let (status, answer) = post(&it.ingest, "/clicks", &row.to_string());
    assert_eq!(status, 200, "{answer}");
}

#[test]
fn rows_after_a_refresh_see_the_new_values() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("prices.toml"), PIPELINE).expect("a writable directory");
    replace(dir.path(), "ad_id,campaign,price\na1,spring,0.5\n");
    let it = Millstream::start(&launch(dir.path(), "prices.toml"));
    assert!(
        reads(&it, "reads") >= 1,
        "the table was read before the pipeline ran"
    );
    click(&it, "a1");
    it.wait_for("the first click", || prices(&it, "a1") == [json!(0.5)]);

    replace(dir.path(), "ad_id,campaign,price\na1,spring,1.5\na2,autumn,2.5\n");
    // The one under way may have opened the old file.
    let before = reads(&it, "reads");
    it.wait_for("two more reads", || reads(&it, "reads") >= before + 2);
    click(&it, "a1");
    click(&it, "a2");
    it.wait_for("the clicks after it", || {
        prices(&it, "a1") == [json!(0.5), json!(1.5)] && prices(&it, "a2") == [json!(2.5)]
    });

    // A broken file: the rows stay, and it is said and counted.
    replace(dir.path(), "ad_id,campaign,price\na1,spring,free\n");
    it.wait_for("a failed read", || reads(&it, "reads_failed") >= 1);
    click(&it, "a2");
    it.wait_for("the click with the old rows", || prices(&it, "a2").len() == 2);
    assert_eq!(prices(&it, "a2")[1], json!(2.5));
    let said = log(dir.path());
    assert!(
        said.contains("ads.csv: line 2: \"price\"") && said.contains("old rows stay"),
        "{said}"
    );
    let (status, metrics) = support::get(&it.admin, "/metrics");
    assert_eq!(status, 200);
    let count = |line: &&str| line.contains("table.ads") && line.contains("reads_failed");
    assert!(metrics.lines().any(|line| count(&line)), "{metrics}");
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
}

#[test]
fn a_pipeline_does_not_start_without_its_table() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("prices.toml"), PIPELINE).expect("a writable directory");
    let mut child = support::spawn(&launch(dir.path(), "prices.toml"), &[]);
    let says = "table.ads: cannot read ads.csv: No such file";
    let started = std::time::Instant::now();
    while !log(dir.path()).contains(says) {
        assert!(started.elapsed() < PATIENCE, "{}", log(dir.path()));
        pause(std::time::Duration::from_millis(50));
    }
    support::signal(&child, "TERM");
    child.wait().expect("it ends");
}
