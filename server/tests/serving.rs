//! The serving store: the `sqlite` sink through the real binary, killed at any moment, read back through Python.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use support::{Launch, Millstream, free_port, log, now_seconds, post, python_json};

/// Clicks per ad and minute. All rows count, however late, as higher revisions.
const COUNTS: &str = r#"
name = "counts"

[checkpoint]
interval = "250ms"

[source.clicks]
type = "http"
path = "/clicks"
event_time = "occurred_at"
idle_after = "1s"
[source.clicks.columns]
ad_id = "string not null"
occurred_at = "timestamp not null"

[window.minutes]
input = "clicks"
type = "tumbling"
size = "1m"
allowed_lateness = "2h"
on_late = "update"

[sql.per_ad]
query = """
SELECT ad_id, window_start() AS minute, window_end() AS until, count(*) AS clicks FROM minutes GROUP BY ad_id
"""

[sink.rows]
type = "sqlite"
input = "per_ad"
table = "clicks"
key = ["ad_id", "minute"]
"#;

const ADS: i64 = 40;
const ROWS: i64 = 400;

#[test]
fn rows_are_exact_after_kills_around_the_commit() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("counts.toml");
    std::fs::write(&file, COUNTS).expect("a writable directory");
    let pipeline = file.display().to_string();
    let launch = Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: free_port(),
        env: Vec::new(),
    };
    let minute = now_seconds() / 60 * 60 - 3600;
    let mut sent: BTreeMap<(String, String), i64> = BTreeMap::new();
    let at = |seconds: i64| {
        let at = arrow::temporal_conversions::timestamp_s_to_datetime(seconds).expect("a time of our age");
        at.format("%Y-%m-%dT%H:%M:%S.000000Z").to_string()
    };
    for life in 0..5 {
        let it = Millstream::start(&launch);
        let before = written(&it);
        let rows = (0..ROWS).map(|n| {
            let (ad, of) = (format!("ad-{}", (n * 7 + life) % ADS), minute + n % 3 * 60);
            *sent.entry((ad.clone(), at(of))).or_default() += 1;
            json!({ "ad_id": ad, "occurred_at": at(of + n % 50) })
        });
        let (status, answer) = post(
            &it.ingest,
            "/clicks",
            &json!(rows.collect::<Vec<_>>()).to_string(),
        );
        assert_eq!(status, 200, "{answer}");
        // Killed as soon as the first commit of these rows is seen, or, every other time, while it may be on its way.
        if life % 2 == 0 {
            it.wait_for("rows of this life", || written(&it) > before);
        }
        it.kill();
    }
    let it = Millstream::start(&launch);
    it.wait_for("the last rows", || clicks(dir.path()) == sent);
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    assert_eq!(clicks(dir.path()), sent, "a stop adds nothing");
}

fn written(it: &Millstream) -> u64 {
    it.node("counts", "sink.rows")["counts"]["rows_written"]
        .as_u64()
        .unwrap_or(0)
}

/// The clicks of every row.
fn clicks(dir: &Path) -> BTreeMap<(String, String), i64> {
    let database = dir.join("data/serving.db").display().to_string();
    let rows = python_json(
        "sqlite.py",
        &[&database, "SELECT ad_id, minute, clicks FROM clicks"],
        &[],
    );
    let rows: Vec<((String, String), i64)> = rows
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| {
            let text = |i: usize| row[i].as_str().expect("text").to_string();
            ((text(0), text(1)), row[2].as_i64().expect("a number"))
        })
        .collect();
    rows.into_iter().collect()
}
