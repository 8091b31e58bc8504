//! Kinesis streams through the real binary: put by boto3, counted per minute, read back from CloudWatch and the lake.
//! Nothing drops duplicates here, so a row that is read twice is seen.

mod support;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use support::proxy::{Fate, Proxy};
use support::{Aws, Launch, Millstream, get, log, python_json, quick};

const PIPELINE: &str = "advertising-kinesis";
/// Stream, and the key of its rows.
const STREAMS: [(&str, &str); 2] = [("impressions", "impression_id"), ("clicks", "click_id")];

/// A shard that has other readers, and iterators that are too old.
const THROTTLED: &[Fate] = &[
    Fate::Good,
    Fate::Unread("ProvisionedThroughputExceededException"),
    Fate::Unread("ProvisionedThroughputExceededException"),
    Fate::Good,
    Fate::Unread("ExpiredIteratorException"),
    Fate::Good,
    Fate::Good,
];

/// Minutes are minutes, and only rows move time on: a test machine may be slow.
const PATIENT: [(&str, &str); 5] = [
    ("size = \"5s\"", "size = \"1m\""),
    ("idle_after = \"3s\"", "idle_after = \"10m\""),
    ("dedup = { key = [\"impression_id\"], within = \"10m\" }", ""),
    ("dedup = { key = [\"click_id\"], within = \"10m\" }", ""),
    (
        "namespace = \"Warehouse/Advertising\"",
        "namespace = \"Warehouse/Advertising\"\nsettle = \"1s\"",
    ),
];

/// Split with rows unread, killed, merged while nobody reads; every other read is refused.
#[test]
fn a_throttled_stream_that_is_resharded_is_counted_once_through_a_kill() {
    let mut site = Site::new(Aws::start_by("closed_shards.py"), 2, &[]);
    let proxy = Proxy::start(&site.aws.endpoint, THROTTLED);
    site.env
        .push(("AWS_ENDPOINT_URL_KINESIS".into(), proxy.url.clone()));
    site.put("impressions", 400, 0);
    site.put("clicks", 100, 0);
    site.kinesis(&["bad", "impressions"]);

    let it = site.start();
    site.wait_until_read(&it, 400, 100);
    it.wait_for("what holds no row to be counted", || {
        source(&it, "impressions")["rows_invalid"] == 4
    });
    check_invalid(&it.stream(PIPELINE, "impressions.invalid"));
    it.wait_for("reads to be refused, and iterators to be renewed", || {
        let counts = &source(&it, "impressions")["counts"];
        counts["reads_refused"].as_u64() > Some(1) && counts["iterators_reopened"].as_u64() > Some(0)
    });
    let metrics = get(&it.admin, "/metrics").1;
    let lag = "millstream_source_lag_seconds{pipeline=\"advertising-kinesis\",node=\"source.impressions\"}";
    assert!(metrics.contains(lag), "{metrics}");

    site.put("impressions", 200, 1);
    site.kinesis(&["split", "impressions"]);
    site.put("impressions", 200, 1);
    it.kill();
    site.kinesis(&["merge", "impressions"]);
    site.put("impressions", 100, 2);
    site.put("clicks", 50, 2);
    let it = site.start();
    site.finish(it, 2);
    assert_eq!(site.published(&[0, 1, 2]), [[400, 100], [400, 0], [100, 50]]);
}

/// An enhanced fan-out consumer that begins with what arrives, subscribes again and again, is killed, and finds its
/// shard split. This emulator drops the shard that is split, so all of it has been read and checkpointed by then.
#[test]
fn a_consumer_that_begins_at_the_latest_counts_each_row_once_through_a_kill() {
    let latest = (
        "start = \"trim_horizon\"",
        "start = \"latest\"\nconsumer = \"millstream\"",
    );
    let mut site = Site::new(Aws::start_by("brief_subscriptions.py"), 1, &[latest]);
    site.put("impressions", 50, 0);
    site.sent.clear();

    let it = site.start();
    site.put("impressions", 100, 0);
    site.put("clicks", 10, 0);
    site.wait_until_read(&it, 100, 10);
    wait_for_a_checkpoint(&it);
    site.kinesis(&["split", "impressions"]);
    site.put("impressions", 100, 1);
    it.wait_for("the new shards to be read", || {
        source(&it, "impressions")["rows_in"] != 100
    });
    it.kill();
    site.put("impressions", 60, 1);
    let it = site.start();
    site.finish(it, 1);
    assert_eq!(site.published(&[0, 1]), [[100, 10], [160, 0]]);
}

/// As a shard whose retention is over: what followed it is read, and that it was lost is said.
#[test]
fn a_shard_that_the_stream_has_dropped_is_passed_over() {
    let mut site = Site::new(Aws::start(), 1, &[]);
    site.put("impressions", 30, 0);
    let it = site.start();
    site.wait_until_read(&it, 30, 0);
    wait_for_a_checkpoint(&it);
    site.kinesis(&["split", "impressions"]);
    site.put("impressions", 30, 1);
    site.wait_until_read(&it, 60, 0);
    assert_eq!(source(&it, "impressions")["counts"]["shards_gone"], 1);
    site.finish(it, 1);
    assert_eq!(site.published(&[0, 1]), [[30, 0], [30, 0]]);
}

fn check_invalid(kept: &[Value]) {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let mut found: Vec<String> = kept.iter().map(|row| text(row, "reason")).collect();
    found.sort();
    let expect = [
        "an aggregate of the producer library whose checksum",
        "invalid JSON",
        "it starts as gzip but is not valid",
        "missing_field",
    ];
    assert_eq!(found.len(), expect.len(), "{found:?}");
    for (found, expect) in found.iter().zip(expect) {
        assert!(found.starts_with(expect), "{found}, not {expect}");
    }
    for row in kept {
        let origin = text(row, "origin");
        let place: Vec<&str> = origin.split('/').collect();
        assert!(
            place[0].starts_with("shardId-") && (2..=3).contains(&place.len()),
            "{origin}"
        );
    }
}

/// A directory, two streams, and what was put into them.
struct Site {
    aws: Aws,
    env: Vec<(String, String)>,
    dir: tempfile::TempDir,
    pipeline: String,
    /// The minute that is number 0, half an hour ago: seconds since the epoch.
    base: i64,
    numbered: usize,
    sent: BTreeMap<&'static str, Vec<String>>,
}

impl Site {
    fn new(aws: Aws, shards: usize, changes: &[(&str, &str)]) -> Site {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let changes = [&PATIENT, changes].concat();
        let site = Site {
            pipeline: quick::write(dir.path(), "advertising-kinesis.toml", &changes),
            env: aws.env.clone(),
            base: support::now_seconds() / 60 * 60 - 30 * 60,
            numbered: 0,
            sent: BTreeMap::new(),
            aws,
            dir,
        };
        site.kinesis(&["create", "impressions", &shards.to_string()]);
        site.kinesis(&["create", "clicks", "1"]);
        site
    }

    fn start(&self) -> Millstream {
        Millstream::start(&Launch {
            dir: self.dir.path(),
            pipeline: &self.pipeline,
            port: 0,
            env: self.env.clone(),
        })
    }

    /// Not through the proxy: producers are well.
    fn kinesis(&self, args: &[&str]) -> Value {
        python_json("kinesis.py", args, &self.aws.env)
    }

    /// Puts rows that are stamped in minute number `minute`.
    fn put(&mut self, stream: &'static str, rows: usize, minute: i64) {
        let (first, last) = (self.numbered, self.numbered + rows);
        self.numbered = last;
        let at = (self.base + 60 * minute + 30).to_string();
        let args = [
            "put",
            stream,
            key(stream),
            &first.to_string(),
            &last.to_string(),
            &at,
        ];
        self.note(stream, self.kinesis(&args));
    }

    fn note(&mut self, stream: &'static str, ids: Value) {
        let ids = ids.as_array().expect("a list of ids").iter();
        let ids = ids.map(|id| id.as_str().expect("an id").to_owned());
        self.sent.entry(stream).or_default().extend(ids);
    }

    fn wait_until_read(&self, it: &Millstream, impressions: usize, clicks: usize) {
        it.wait_for("the rows to be read", || {
            source(it, "impressions")["rows_in"] == impressions && source(it, "clicks")["rows_in"] == clicks
        });
    }

    /// Puts a last row into every shard, waits until minute number `last` is published, which is when all of those
    /// have been read, and stops.
    fn finish(&mut self, it: Millstream, last: i64) {
        for (stream, key) in STREAMS {
            let first = self.numbered.to_string();
            let at = (self.base + 60 * (last + 5)).to_string();
            let ids = self.kinesis(&["everywhere", stream, key, &first, &at]);
            self.numbered += ids.as_array().map_or(0, Vec::len);
            self.note(stream, ids);
        }
        let last = rfc3339(self.base + 60 * last);
        it.wait_for("the minutes to close", || {
            let shown = it.stream(PIPELINE, "clickthrough");
            shown.iter().any(|row| row["at"] == last.as_str())
        });
        assert_eq!(it.terminate(), 0, "{}", log(self.dir.path()));
        for (stream, key) in STREAMS {
            let lake = self
                .dir
                .path()
                .join("data/lake")
                .join(stream)
                .display()
                .to_string();
            let lake = python_json("lake.py", &[&lake, key], &[]);
            let expect: BTreeMap<&String, u64> = self.sent[stream].iter().map(|id| (id, 1)).collect();
            assert_eq!(lake["keys"], json!(expect), "{stream}: each row once");
        }
    }

    /// Impressions and clicks of each minute as CloudWatch has them, each a single sample.
    fn published(&self, minutes: &[i64]) -> Vec<[i64; 2]> {
        let (start, end) = ((self.base - 60).to_string(), (self.base + 1_800).to_string());
        let args = ["Warehouse/Advertising", &start, &end, "Impressions", "Clicks"];
        let points = python_json("cloudwatch.py", &args, &self.aws.env);
        let of = |metric: &str, minute: i64| {
            let point = &points[metric][rfc3339(self.base + 60 * minute)];
            assert_eq!(point[1], 1.0, "{metric} of minute {minute} in {points}");
            point[0].as_f64().unwrap_or(-1.0) as i64
        };
        let both = |minute: &i64| [of("Impressions", *minute), of("Clicks", *minute)];
        minutes.iter().map(both).collect()
    }
}

fn key(stream: &str) -> &'static str {
    STREAMS
        .iter()
        .find(|(name, _)| *name == stream)
        .expect("a stream of ours")
        .1
}

fn source(it: &Millstream, stream: &str) -> Value {
    it.node(PIPELINE, &format!("source.{stream}"))
}

/// Waits for one that began after this.
fn wait_for_a_checkpoint(it: &Millstream) {
    let epoch = checkpoint(it);
    it.wait_for("two checkpoints", || checkpoint(it) >= epoch + 2);
}

fn checkpoint(it: &Millstream) -> u64 {
    let (status, body) = get(&it.admin, &format!("/api/v1/pipelines/{PIPELINE}"));
    assert_eq!(status, 200, "{body}");
    let all: Value = serde_json::from_str(&body).expect("the API answers with JSON");
    all["status"]["epoch"].as_u64().expect("a number")
}

fn rfc3339(seconds: i64) -> String {
    let at = arrow::temporal_conversions::timestamp_s_to_datetime(seconds).expect("a time of our age");
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}
