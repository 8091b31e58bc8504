//! CloudWatch through the real binary, read back by boto3: every kind of datapoint, rows that CloudWatch would
//! refuse, what a process publishes about itself, and the dashboards and alarms that read it.

mod support;

use std::path::Path;
use std::process::Command;

use millstream_engine::time::Timestamp;
use serde_json::{Value, json};
use support::{Aws, Launch, Millstream, now_seconds, post, python_json};

const MINUTE: i64 = 60;
const DAY: i64 = 24 * 3600;

/// Rows as they come, by ad and second; by minute as statistic sets; all values of a minute.
const MEASURED: &str = r#"
name = "measured"

[checkpoint]
interval = "500ms"

[source.measured]
type = "http"
path = "/measured"
event_time = "at"
idle_after = "1s"
[source.measured.columns]
ad = "string not null"
latency = "double"
at = "timestamp not null"

[window.by_minute]
input = "measured"
type = "tumbling"
size = "1m"

[sql.sets]
query = """
SELECT window_start() AS at, ad, count(*) AS n, sum(latency) AS total, min(latency) AS low, max(latency) AS high
FROM by_minute WHERE latency < 1e100 GROUP BY ad
"""

[sql.all_values]
query = "SELECT window_start() AS at, array_agg(latency) AS latencies FROM by_minute WHERE latency < 1e100"

[sink.each]
type = "cloudwatch"
input = "measured"
namespace = "Measured"
resolution = "1s"
dimensions = { Ad = "ad" }
metrics = [{ name = "Latency", value = "latency", unit = "Milliseconds" }]

[sink.sets]
type = "cloudwatch"
input = "sets"
namespace = "Measured"
timestamp = "at"
dimensions = { Ad = "ad" }
metrics = [{ name = "Set", unit = "Milliseconds",
  statistics = { sample_count = "n", sum = "total", minimum = "low", maximum = "high" } }]

[sink.all_values]
type = "cloudwatch"
input = "all_values"
namespace = "Measured"
timestamp = "at"
metrics = [{ name = "All", unit = "Milliseconds", distribution = { values = "latencies" } }]

[sink.refused]
type = "parquet"
input = "each.rejected"
path = "refused"
partition_by = []
"#;

#[test]
fn every_kind_of_datapoint_arrives_and_what_cloudwatch_refuses_is_kept() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let aws = Aws::start();
    let launch = launch(dir.path(), MEASURED, &aws);
    let it = Millstream::start(&launch);
    let minute = (now_seconds() / MINUTE - 2) * MINUTE;
    let row = |ad: &str, latency: f64, at: i64| json!({ "ad": ad, "latency": latency, "at": time(at) });
    let mut rows: Vec<Value> = (0..301)
        .map(|n| row("a", f64::from(n), minute + i64::from(n % 2)))
        .collect();
    rows.push(row("b", 7.0, minute + 30));
    // What CloudWatch refuses, but for the last, which has no value.
    let refused = [
        row("old", 1.0, minute - 15 * DAY),
        row("new", 1.0, minute + DAY),
        row("huge", 1e200, minute),
        row("\u{e4}", 1.0, minute),
    ];
    rows.extend(refused.clone());
    rows.push(json!({ "ad": "a", "latency": null, "at": time(minute) }));
    let (status, body) = post(&it.ingest, "/measured", &json!(rows).to_string());
    assert_eq!(
        (status, body.contains("\"failed_count\":0")),
        (200, true),
        "{body}"
    );

    let sent = |sink: &str| it.node("measured", &format!("sink.{sink}"))["counts"]["points_sent"].clone();
    it.wait_for("every datapoint to be sent", || {
        // 303 values are sent 150 at a time.
        [sent("each"), sent("sets"), sent("all_values")] == [json!(302), json!(2), json!(3)]
    });
    assert_eq!(it.node("measured", "sink.each")["rows_rejected"], 4);
    assert_eq!(it.node("measured", "sink.refused")["rows_in"], 4);
    assert_eq!(it.terminate(), 0);

    let found = python_json(
        "dashboards.py",
        &["measured", "Measured", &minute.to_string()],
        &aws.env,
    );
    let unit = "Milliseconds";
    let expect = json!({
        "Latency a 1s": { "0": [151.0, 22_650.0, 0.0, 300.0, unit], "1": [150.0, 22_500.0, 1.0, 299.0, unit] },
        "Latency a 60s": { "0": [301.0, 45_150.0, 0.0, 300.0, unit] },
        "Latency b 1s": { "30": [1.0, 7.0, 7.0, 7.0, unit] },
        "Latency b 60s": { "0": [1.0, 7.0, 7.0, 7.0, unit] },
        "Set a 1s": { "0": [301.0, 45_150.0, 0.0, 300.0, unit] },
        "Set a 60s": { "0": [301.0, 45_150.0, 0.0, 300.0, unit] },
        "Set b 1s": { "0": [1.0, 7.0, 7.0, 7.0, unit] },
        "Set b 60s": { "0": [1.0, 7.0, 7.0, 7.0, unit] },
        "All 1s": { "0": [303.0, 45_158.0, 0.0, 300.0, unit] },
        "All 60s": { "0": [303.0, 45_158.0, 0.0, 300.0, unit] },
    });
    assert_eq!(found, expect);

    let dir = dir.path().join("refused").display().to_string();
    let mut kept = python_json("dashboards.py", &["rejected", &dir], &[]);
    let kept = kept.as_array_mut().expect("a list");
    kept.sort_by_key(|row| row[2]["ad"].as_str().unwrap_or_default().to_owned());
    let whys = ["larger or smaller", "two hours", "two weeks", "dimension"];
    let rows = [&refused[2], &refused[1], &refused[0], &refused[3]];
    assert_eq!(kept.len(), rows.len(), "{kept:?}");
    for ((kept, why), row) in kept.iter().zip(whys).zip(rows) {
        assert_eq!(kept[0], "measured");
        let reason = kept[1].as_str().unwrap_or_default();
        assert!(
            reason.starts_with("metric Latency: ") && reason.contains(why),
            "{kept}"
        );
        assert_eq!(
            (&kept[2]["ad"], &kept[2]["latency"]),
            (&row["ad"], &row["latency"])
        );
    }
}

/// Something of every kind that publishes metrics.
const SHOP: &str = r#"
name = "shop"

[checkpoint]
interval = "500ms"

[source.impressions]
type = "http"
path = "/impressions"
event_time = "at"
idle_after = "1s"
dedup = { key = ["id"], within = "10m" }
[source.impressions.columns]
id = "string not null"
ad = "string not null"
clicked = "int not null"
at = "timestamp not null"

[source.streamed]
type = "kinesis"
stream = "streamed"
event_time = "at"
idle_after = "1s"
[source.streamed.columns]
ad = "string not null"
at = "timestamp not null"

[dedup.ads]
input = "streamed"
key = ["ad"]
within = "10m"

[window.by_minute]
input = "impressions"
type = "tumbling"
size = "1m"

[sql.clickthrough]
query = """
SELECT window_start() AS at, count(*) AS impressions, sum(clicked) AS clicks
FROM by_minute
"""

[sink.metrics]
type = "cloudwatch"
input = "clickthrough"
namespace = "Shop"
timestamp = "at"
metrics = [
  { name = "Impressions", value = "impressions", unit = "Count" },
  { name = "Clicks", value = "clicks", unit = "Count" },
]
ratios = [{ name = "Clickthrough Rate", part = "Clicks", whole = "Impressions" }]

[sink.by_ad]
type = "cloudwatch"
input = "impressions"
namespace = "Shop"
dimensions = { Ad = "ad" }
metrics = [{ name = "Clicked", value = "clicked", unit = "Count" }]

[sink.ads]
type = "console"
input = "ads"

[sink.refused]
type = "console"
input = "by_ad.rejected"

[sink.late]
type = "console"
input = "by_minute.late"
"#;

#[test]
fn dashboards_and_alarms_read_what_is_published() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let aws = Aws::start();
    let made = python_json("dashboards.py", &["topic"], &aws.env);
    let topic = made["topic"].as_str().expect("an ARN");
    let launch = launch(dir.path(), SHOP, &aws);
    let it = Millstream::start_with(&launch, &["--cloudwatch-metrics", "Ours"]);
    let wanted = [
        "--cloudwatch-metrics",
        "Ours",
        "--alarm-topic",
        topic,
        "--max-rows-per-second",
        "4000",
        "--max-requests-per-second",
        "1600",
        "--max-bytes-per-second",
        "4194304",
    ];
    dashboards("push", &launch, &wanted);

    let minute = (now_seconds() / MINUTE - 2) * MINUTE;
    let row = |id: &str, ad: &str, clicked: i32| json!({ "id": id, "ad": ad, "clicked": clicked, "at": time(minute) });
    // An ad that CloudWatch takes for no dimension, and a row that is none.
    let rows = json!([row("1", "a", 1), row("2", "b", 0), row("3", "\u{e4}", 0), { "id": 4 }]);
    assert_eq!(post(&it.ingest, "/impressions", &rows.to_string()).0, 200);
    let node = |name: &str| it.node("shop", name);
    it.wait_for("the datapoints, and a watermark everywhere", || {
        let sent = ["metrics", "by_ad"].map(|s| node(&format!("sink.{s}"))["counts"]["points_sent"].clone());
        let nodes = ["sink.ads", "sql.clickthrough", "sink.refused", "sink.late"];
        let read = node("source.streamed")["source_lag_seconds"].is_number();
        read && sent == [json!(2), json!(2)] && nodes.iter().all(|n| node(n)["watermark"].is_string())
    });
    // What is new since the last full minute is published now.
    assert_eq!(it.terminate(), 0);

    // Again, and nothing is there twice.
    dashboards("push", &launch, &wanted);
    let printed: Value = serde_json::from_str(&dashboards("print", &launch, &wanted)).expect("JSON");
    let queue = made["queue"].as_str().expect("an address");
    let found = python_json("dashboards.py", &["look", queue], &aws.env);
    assert_eq!(found["problems"], json!([]));
    assert_eq!(found["dashboards"], printed["dashboards"]);
    let names: Vec<&String> = found["dashboards"].as_object().expect("by name").keys().collect();
    assert_eq!(names, ["OperationsShopDashboard", "RealTimeShopDashboard"]);
    clickthrough(&found["dashboards"]["RealTimeShopDashboard"]);
    alarms(&found["alarms"], topic);
    let notified = found["notified"].as_array().expect("a list");
    let refused = json!(["millstream/shop/sink.by_ad/RowsRejected", "ALARM"]);
    assert!(notified.contains(&refused), "{notified:?}");
}

/// The graph that the predecessor had: a rate from 0 to 1 on the right, counts of a minute from 0 on the left.
fn clickthrough(board: &Value) {
    assert_eq!(board["start"], "-PT1H");
    let widget = &board["widgets"][0];
    assert_eq!((&widget["width"], &widget["height"]), (&json!(24), &json!(12)));
    let shown = &widget["properties"];
    assert_eq!(shown["title"], "Clickthrough Rate");
    assert_eq!(shown["yAxis"]["right"]["max"], 1);
    assert_eq!(shown["yAxis"]["left"]["min"], 0);
    let [rate, clicks, impressions] = &shown["metrics"].as_array().expect("lines")[..] else {
        panic!("three lines: {shown}");
    };
    assert_eq!(
        (&rate[0]["expression"], &rate[0]["yAxis"]),
        (&json!("clicks/impressions"), &json!("right"))
    );
    for (line, name) in [(clicks, "Clicks"), (impressions, "Impressions")] {
        assert_eq!((&line[0], &line[1]), (&json!("Shop"), &json!(name)));
        assert_eq!(
            (&line[2]["stat"], &line[2]["period"]),
            (&json!("Sum"), &json!(60))
        );
    }
}

fn alarms(found: &Value, topic: &str) {
    let alarm = |statistic: &str, threshold: f64, minutes: [i32; 2], missing: &str| {
        let above = "GreaterThanThreshold";
        json!([
            [topic],
            [topic],
            statistic,
            threshold,
            minutes[0],
            minutes[1],
            missing,
            above,
            60
        ])
    };
    let calm = "notBreaching";
    let some = || alarm("Sum", 0.0, [3, 5], calm);
    let expect = json!({
        "millstream/ingest/RequestBytes": alarm("Sum", 4_194_304.0 * 60.0, [3, 5], calm),
        "millstream/ingest/Requests": alarm("Sum", 96_000.0, [3, 5], calm),
        "millstream/shop/CheckpointAge": alarm("Maximum", 300.0, [3, 3], "breaching"),
        "millstream/shop/Restarts": alarm("Sum", 0.0, [1, 1], calm),
        "millstream/shop/sink.by_ad/RowsRejected": alarm("Sum", 0.0, [1, 1], calm),
        "millstream/shop/sink.metrics/RowsRejected": alarm("Sum", 0.0, [1, 1], calm),
        "millstream/shop/source.impressions/RowsIn": alarm("Sum", 240_000.0, [3, 5], calm),
        "millstream/shop/source.impressions/RowsInvalid": some(),
        "millstream/shop/source.impressions/WatermarkLag": alarm("Maximum", 300.0, [3, 5], calm),
        "millstream/shop/source.streamed/RowsIn": alarm("Sum", 240_000.0, [3, 5], calm),
        "millstream/shop/source.streamed/RowsInvalid": some(),
        "millstream/shop/source.streamed/SourceLag": alarm("Maximum", 300.0, [3, 5], calm),
        "millstream/shop/source.streamed/WatermarkLag": alarm("Maximum", 300.0, [3, 5], calm),
        "millstream/shop/window.by_minute/RowsLate": some(),
    });
    assert_eq!(found, &expect);
}

/// Runs `millstream dashboards`; gives what it printed.
fn dashboards(what: &str, launch: &Launch<'_>, args: &[&str]) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .current_dir(launch.dir)
        .args(["dashboards", what, launch.pipeline])
        .args(args)
        .envs(launch.env.iter().map(|(k, v)| (k, v)))
        .output()
        .expect("the binary runs");
    let says = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && says.is_empty(), "{what}: {says}");
    String::from_utf8(out.stdout).expect("text")
}

fn launch<'a>(dir: &'a Path, pipeline: &str, aws: &Aws) -> Launch<'a> {
    std::fs::write(dir.join("pipeline.toml"), pipeline).expect("a writable directory");
    Launch {
        dir,
        pipeline: "pipeline.toml",
        port: 0,
        env: aws.env.clone(),
    }
}

/// `YYYY-MM-DDTHH:MM:SSZ`.
fn time(seconds: i64) -> String {
    Timestamp(seconds * 1_000_000).to_string()
}

/// The names that people's links and the deployment know.
#[test]
fn the_advertising_pipeline_has_its_dashboard() {
    let pipeline = support::root().join("pipelines/advertising-aws.toml");
    let env = [("AWS_REGION", "eu-west-1"), ("LAKE_BUCKET", "lake")];
    let launch = Launch {
        dir: &support::root(),
        pipeline: &pipeline.display().to_string(),
        port: 0,
        env: env.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
    };
    let printed = dashboards(
        "print",
        &launch,
        &[
            "--cloudwatch-metrics",
            "Ours",
            "--alarm-topic",
            "arn:aws:sns:eu-west-1:1:t",
        ],
    );
    let printed: Value = serde_json::from_str(&printed).expect("JSON");
    let shown = &printed["dashboards"]["RealTimeAdvertisingDashboard"]["widgets"][0]["properties"];
    assert_eq!(
        (&shown["title"], &shown["region"]),
        (&json!("Clickthrough Rate"), &json!("eu-west-1"))
    );
    assert_eq!(shown["metrics"][1][0], "Warehouse/Advertising");
    let alarms = printed["alarms"].as_array().expect("a list");
    assert!(
        alarms
            .iter()
            .any(|a| a["AlarmName"] == "millstream/advertising-aws/CheckpointAge")
    );
}
