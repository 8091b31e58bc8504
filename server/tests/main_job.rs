//! The main job through the real binary: beacons in, minutes out, every row in the lake.

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::{Launch, Millstream, get, post, python_json, root};

const IMPRESSIONS: &str = "/advertising/impressions";
const CLICKS: &str = "/advertising/clicks";

/// Minutes ago, impressions, clicks.
const TRAFFIC: [(i64, usize, usize); 3] = [(6, 40, 10), (5, 700, 220), (3, 7, 0)];

#[test]
fn every_acked_row_is_in_the_lake_and_in_one_minute() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let launch = launch(dir.path(), "pipelines/advertising.toml", 0, Vec::new());
    let it = Millstream::start(&launch);
    let minute = this_minute();
    let sent = send_traffic(&it.ingest, minute);

    // Nothing more comes: after `idle_after` the wall clock closes the minutes.
    let last = rfc3339(minute - 60 * 3);
    it.wait_for("the minutes to be published", || {
        it.printed_rows().iter().any(|r| r["at"] == last.as_str())
    });
    assert_eq!(it.terminate(), 0, "{}", support::log(dir.path()));

    let it = Millstream::start(&launch);
    assert_eq!(it.terminate(), 0);
    for (stream, key) in [("impressions", "impression_id"), ("clicks", "click_id")] {
        let lake = python_json("lake.py", &[&lake_dir(dir.path(), stream), key], &[]);
        let expect: BTreeMap<String, u64> = sent[stream].iter().map(|id| (id.clone(), 1)).collect();
        assert_eq!(lake["keys"], json!(expect), "{stream}: each acked row once");
        assert_eq!(lake["columns"]["occurred_at"], "timestamp[us]", "{lake}");
    }
}

/// Sends [`TRAFFIC`] and checks what is published for it, after a stop in the middle of open windows too.
#[test]
fn minutes_that_were_open_at_a_stop_are_published_once_after_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let launch = launch(dir.path(), "pipelines/advertising.toml", 0, Vec::new());
    let minute = this_minute();
    let it = Millstream::start(&launch);
    send_traffic(&it.ingest, minute);
    let mut printed = Vec::new();
    // Once in peace, once by kill: the state of the open minutes comes back from the checkpoint, or the
    // rows from the log.
    it.wait_for("rows to flow", || {
        it.node("advertising", "source.impressions")["rows_in"] == 747
    });
    let first = it.printed_rows();
    assert_eq!(it.terminate(), 0);
    printed.extend(first);
    let it = Millstream::start(&launch);
    it.kill();
    let it = Millstream::start(&launch);
    let last = rfc3339(minute - 60 * 3);
    it.wait_for("the minutes to be published", || {
        it.printed_rows().iter().any(|r| r["at"] == last.as_str())
    });
    printed.extend(it.printed_rows());
    for (ago, impressions, clicks) in TRAFFIC {
        let at = rfc3339(minute - 60 * ago);
        let rows: Vec<&Value> = printed.iter().filter(|r| r["at"] == at.as_str()).collect();
        assert_eq!(rows.len(), 1, "{at} in {printed:?}");
        assert_eq!(
            (&rows[0]["impressions"], &rows[0]["clicks"]),
            (&json!(impressions), &json!(clicks)),
            "{at}"
        );
    }
    let empty = rfc3339(minute - 60 * 4);
    let row = printed
        .iter()
        .find(|r| r["at"] == empty.as_str())
        .expect("the empty minute is published");
    assert_eq!(
        (&row["impressions"], &row["clickthrough"]),
        (&json!(0), &Value::Null)
    );
    assert_eq!(it.terminate(), 0);
}

/// The AWS pipeline against an emulator, read back through boto3 and pyarrow.
#[test]
fn the_aws_pipeline_publishes_to_cloudwatch_and_s3() {
    let aws = support::Aws::start();
    let bucket = "millstream-test";
    python_json("bucket.py", &[bucket], &aws.env);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut env = aws.env.clone();
    env.push(("LAKE_BUCKET".into(), bucket.into()));
    let it = Millstream::start(&launch(dir.path(), "pipelines/advertising-aws.toml", 0, env));
    let minute = this_minute();
    let sent = send_traffic(&it.ingest, minute);
    let last = rfc3339(minute - 60 * 3);
    let shown = || {
        it.stream("advertising-aws", "clickthrough")
            .iter()
            .any(|r| r["at"] == last.as_str())
    };
    it.wait_for("the minutes to close", shown);
    assert_eq!(it.terminate(), 0, "{}", support::log(dir.path()));

    let (start, end) = ((minute - 1200).to_string(), (minute + 120).to_string());
    let args = ["Warehouse/Advertising", &start, &end, "Impressions", "Clicks"];
    let points = python_json("cloudwatch.py", &args, &aws.env);
    for (ago, impressions, clicks) in TRAFFIC {
        let at = rfc3339(minute - 60 * ago);
        assert_eq!(
            points["Impressions"][&at],
            json!([impressions as f64, 1.0]),
            "{at} in {points}"
        );
        assert_eq!(
            points["Clicks"][&at],
            json!([clicks as f64, 1.0]),
            "{at} in {points}"
        );
    }
    for (stream, key) in [("impressions", "impression_id"), ("clicks", "click_id")] {
        let lake = python_json("lake.py", &[&format!("s3://{bucket}/{stream}"), key], &aws.env);
        let expect: BTreeMap<String, u64> = sent[stream].iter().map(|id| (id.clone(), 1)).collect();
        assert_eq!(lake["keys"], json!(expect), "{stream}: each acked row once");
    }
}

/// Bad input through the real binary: each gets its answer and is counted, and nothing else suffers.
#[test]
fn bad_rows_fail_alone_and_are_kept_with_the_reason() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let it = Millstream::start(&launch(dir.path(), "pipelines/advertising.toml", 0, Vec::new()));
    let good = |id: &str| json!({"impression_id": id, "ad_id": "a", "occurred_at": stamp(this_minute())});
    let mixed = json!({"impressions": [good("g1"), {"impression_id": 7}, good("g2")]});
    let (status, body) = post(&it.ingest, IMPRESSIONS, &mixed.to_string());
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(status, 200);
    assert_eq!(answer["failed_count"], 1);
    let failed: Vec<_> = answer["records"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|r| &r["failed"])
        .collect();
    assert_eq!(failed, [false, true, false]);
    for (body, expect_status, expect) in [
        ("{", 400, "error"),
        (r#"{"a":[],"b":[]}"#, 400, "too many keys: 2"),
        (r#"{"clicks":[]}"#, 400, r#"batch key \"impressions\" not given"#),
    ] {
        let (status, answer) = post(&it.ingest, IMPRESSIONS, body);
        assert_eq!(status, expect_status, "{body}: {answer}");
        assert!(answer.contains(expect), "{body}: {answer}");
    }
    assert_eq!(get(&it.ingest, "/nowhere").0, 404);
    it.wait_for("the bad input to be counted", || {
        it.node("advertising", "source.impressions")["rows_invalid"] == 4
    });
    let kept = it.stream("advertising", "impressions.invalid");
    assert!(
        kept.iter()
            .any(|row| row["raw"].as_str().is_some_and(|raw| raw.contains('7'))),
        "{kept:?}"
    );
    assert_eq!(it.node("advertising", "source.impressions")["rows_in"], 2);
    assert_eq!(it.terminate(), 0);
}

/// The page in a real browser against the running binary.
#[test]
fn the_console_page_shows_what_the_api_says() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let it = Millstream::start(&launch(dir.path(), "pipelines/advertising.toml", 0, Vec::new()));
    send_traffic(&it.ingest, this_minute());
    let out = std::process::Command::new(support::python())
        .arg(root().join("server/tests/browser.py"))
        .arg(&it.admin)
        .output()
        .expect("python runs");
    let (out, err) = (
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    assert!(out.contains("the page shows what the API says"), "{out}{err}");
}

fn launch<'a>(dir: &'a std::path::Path, pipeline: &str, port: u16, env: Vec<(String, String)>) -> Launch<'a> {
    let path = root().join(pipeline).display().to_string();
    Launch {
        dir,
        pipeline: path.leak(),
        port,
        env,
    }
}

fn lake_dir(dir: &std::path::Path, stream: &str) -> String {
    dir.join("data/lake").join(stream).display().to_string()
}

/// Posts [`TRAFFIC`] in requests of 500 rows at most; gives the ids that were acked, by stream.
fn send_traffic(ingest: &str, minute: i64) -> BTreeMap<&'static str, Vec<String>> {
    let mut sent = BTreeMap::from([("impressions", Vec::new()), ("clicks", Vec::new())]);
    for (ago, impressions, clicks) in TRAFFIC {
        let at = stamp(minute - 60 * ago + 30);
        for (stream, path, count) in [
            ("impressions", IMPRESSIONS, impressions),
            ("clicks", CLICKS, clicks),
        ] {
            let ids: Vec<String> = (0..count).map(|n| format!("{stream}-{ago}-{n}")).collect();
            for ids in ids.chunks(500) {
                let rows: Vec<Value> = ids.iter().map(|id| row(stream, id, &at)).collect();
                let (status, answer) = post(ingest, path, &json!({ stream: rows }).to_string());
                assert_eq!(status, 200, "{answer}");
                assert!(answer.starts_with(r#"{"failed_count":0"#), "{answer}");
            }
            sent.entry(stream).or_default().extend(ids);
        }
    }
    sent
}

fn row(stream: &str, id: &str, at: &str) -> Value {
    match stream {
        "clicks" => json!({"impression_id": "i", "click_id": id, "ad_id": "a", "occurred_at": at}),
        _ => json!({"impression_id": id, "ad_id": "a", "occurred_at": at}),
    }
}

/// Start of the current minute, seconds since the epoch.
fn this_minute() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    now.as_secs() as i64 / 60 * 60
}

fn rfc3339(seconds: i64) -> String {
    format!("{}Z", stamp(seconds).replace(' ', "T"))
}

fn stamp(seconds: i64) -> String {
    let at = arrow::temporal_conversions::timestamp_s_to_datetime(seconds).expect("a time of our age");
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}
