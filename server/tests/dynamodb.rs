//! The `dynamodb` sink through the real binary against an emulator, read back through boto3: items exact whatever is
//! killed, handed back or refused, and never replaced by older ones.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use support::proxy::{self, Proxy};
use support::{Aws, Launch, Millstream, free_port, log, now_seconds, post, python_json};

/// Clicks per ad and minute. All rows count, however late, as higher revisions.
const COUNTS: &str = r#"
name = "counts"

[checkpoint]
interval = "1s"

[source.clicks]
type = "http"
path = "/clicks"
event_time = "occurred_at"
idle_after = "1s"
[source.clicks.columns]
ad_id = "string not null"
occurred_at = "timestamp not null"
price = "double"

[window.minutes]
input = "clicks"
type = "tumbling"
size = "1m"
allowed_lateness = "2h"
on_late = "update"

[sql.per_ad]
query = """
SELECT ad_id, window_start() AS minute, window_end() AS until, count(*) AS clicks, sum(price) AS price
FROM minutes GROUP BY ad_id
"""

[sink.items]
type = "dynamodb"
input = "per_ad"
table = "clicks"
"#;

const ADS: i64 = 40;

/// Rows of each life: enough for several requests of 25 items.
const ROWS: i64 = 400;

#[test]
fn items_are_exact_after_kills_and_half_done_requests() {
    let aws = Aws::start();
    let proxy = Proxy::start(&aws.endpoint, proxy::THROTTLED);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = write(dir.path(), "key = [\"ad_id\", \"minute\"]\ncreate = true");
    let launch = launch(dir.path(), &pipeline, &aws, &proxy.url);
    let minute = now_seconds() / 60 * 60 - 3600;
    let mut sent: BTreeMap<(String, String), i64> = BTreeMap::new();
    for life in 0..4 {
        let it = Millstream::start(&launch);
        let rows: Vec<(String, i64)> = (0..ROWS)
            .map(|n| {
                (
                    format!("ad-{}", (n * 7 + life) % ADS),
                    minute + n % 3 * 60 + n % 50,
                )
            })
            .collect();
        for (ad, at) in &rows {
            let minute = utc(at / 60 * 60);
            *sent.entry((ad.clone(), minute)).or_default() += 1;
        }
        send(&it, &rows);
        let written = || count(&it, "items_written") > 0;
        it.wait_for("items of this life", written);
        it.kill();
    }
    let it = Millstream::start(&launch);
    it.wait_for("the last items", || items(&aws) == sent);
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    assert_eq!(items(&aws), sent, "a stop adds nothing");
    assert!(proxy.spoilt() > 5, "only {} requests went wrong", proxy.spoilt());
    let found = python_json("dynamodb.py", &["describe", "clicks"], &aws.env);
    let expect = json!({ "billing": "PAY_PER_REQUEST",
        "key": [["ad_id", "S", "HASH"], ["minute", "S", "RANGE"]] });
    assert_eq!(found, expect);
}

/// The clicks of every item.
fn items(aws: &Aws) -> BTreeMap<(String, String), i64> {
    let items = python_json("dynamodb.py", &["scan", "clicks"], &aws.env);
    let text = |item: &Value, name: &str| item[name]["S"].as_str().expect("a string").to_string();
    let number = |item: &Value| item["clicks"]["N"].as_str().and_then(|n| n.parse().ok());
    let items = items.as_array().expect("a list of items").iter();
    items
        .map(|item| {
            let key = (text(item, "ad_id"), text(item, "minute"));
            (key, number(item).expect("a number"))
        })
        .collect()
}

/// One item per ad, of its newest minute.
#[test]
fn an_item_is_never_replaced_by_an_older_one() {
    let aws = Aws::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let minute = now_seconds() / 60 * 60 - 3600;
    let item = |ad: &str, until: i64, revision: i64| {
        json!({ "ad_id": {"S": ad}, "until": {"S": utc(until)}, "revision": {"N": revision.to_string()},
            "clicks": {"N": "-1"}, "left_over": {"BOOL": true} })
        .to_string()
    };
    python_json("dynamodb.py", &["create", "clicks", "ad_id:S"], &aws.env);
    let there = [
        item("newer", minute + 120, 0),
        item("older", minute, 0),
        item("revised", minute + 60, 5),
        item("same", minute + 60, 0),
    ];
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    python_json(
        "dynamodb.py",
        &[&["put", "clicks"][..], &there[..]].concat(),
        &aws.env,
    );

    let pipeline = write(dir.path(), "key = [\"ad_id\"]\nversion = \"until\"");
    let it = Millstream::start(&launch(dir.path(), &pipeline, &aws, &aws.endpoint));
    let ads = ["newer", "older", "revised", "same", "first"];
    let rows: Vec<(String, i64)> = ads.iter().map(|ad| (ad.to_string(), minute + 5)).collect();
    send(&it, &rows);
    it.wait_for("the items", || {
        count(&it, "items_written") + count(&it, "items_stale") == 5
    });
    assert_eq!(count(&it, "items_stale"), 2);
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    let items = python_json("dynamodb.py", &["scan", "clicks"], &aws.env);
    for item in items.as_array().expect("a list of items") {
        let kept = ["newer", "revised"].contains(&item["ad_id"]["S"].as_str().expect("an ad"));
        assert_eq!(item["clicks"]["N"] == "-1", kept, "{item}");
        // The whole item is replaced.
        assert_eq!(item["left_over"].is_null(), !kept, "{item}");
    }
    assert_eq!(items.as_array().map(Vec::len), Some(5), "{items}");
}

/// What DynamoDB has no place for does not keep the other rows of its request from it.
#[test]
fn rows_that_cannot_be_items_are_refused_alone() {
    let aws = Aws::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = write(dir.path(), "key = [\"ad_id\", \"minute\"]\ncreate = true");
    let it = Millstream::start(&launch(dir.path(), &pipeline, &aws, &aws.endpoint));
    let at = utc(now_seconds() / 60 * 60 - 3600);
    let row = |ad: &str, price: Value| json!({ "ad_id": ad, "occurred_at": at, "price": price });
    let rows = json!([
        row("", json!(1)),
        row(&"x".repeat(3000), json!(1)),
        row("dear", json!(1e200)),
        row("good", json!(0.1)),
        row("free", Value::Null),
    ]);
    let (status, answer) = post(&it.ingest, "/clicks", &rows.to_string());
    assert_eq!(status, 200, "{answer}");
    it.wait_for("the good rows", || count(&it, "items_written") == 2);
    assert_eq!(count(&it, "items_refused"), 3);
    let refused = it.stream("counts", "items.rejected");
    for (reason, ad) in [
        ("ad_id: empty in the key", "\"ad_id\":\"\""),
        ("ad_id: 3000 bytes in the key", "\"ad_id\":\"xxx"),
        ("price: 1e200 is beyond", "\"ad_id\":\"dear\""),
    ] {
        let is_it = |row: &Value| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_string();
            text("reason").starts_with(reason) && text("raw").contains(ad)
        };
        assert_eq!(refused.iter().filter(|row| is_it(row)).count(), 1, "{refused:?}");
    }
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    let items = python_json("dynamodb.py", &["scan", "clicks"], &aws.env);
    let mut items = items.as_array().expect("a list of items").clone();
    items.sort_by_key(|item| item["ad_id"]["S"].to_string());
    assert_eq!(items.len(), 2, "{items:?}");
    assert_eq!(
        (&items[0]["ad_id"]["S"], &items[0]["price"]),
        (&json!("free"), &Value::Null)
    );
    assert_eq!(items[1]["price"], json!({ "N": "0.1" }));
}

/// `pipelines/traffic.toml`: an item per ad and day, however often the day's windows fire.
#[test]
fn the_traffic_pipeline_keeps_an_item_per_ad_and_day() {
    let aws = Aws::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let text = std::fs::read_to_string(support::root().join("pipelines/traffic.toml")).expect("a pipeline");
    let quick = "[checkpoint]\ninterval = \"1s\"\n\n[source.impressions]";
    let text = text.replacen("[source.impressions]", quick, 1);
    let text = text.replace("idle_after = \"10s\"", "idle_after = \"2s\"");
    // A machine that is busy may take longer than that to send the rows.
    let late = "step = \"1h\"\nallowed_lateness = \"3d\"\non_late = \"update\"";
    let text = text.replace("step = \"1h\"", late);
    let file = dir.path().join("traffic.toml");
    std::fs::write(&file, text).expect("a writable directory");
    let pipeline = file.display().to_string();
    let mut launch = launch(dir.path(), &pipeline, &aws, &aws.endpoint);
    launch.env.push(("TRAFFIC_TABLE".into(), "of_ads".into()));
    let it = Millstream::start(&launch);
    let day = now_seconds() / 86_400 * 86_400 - 86_400;
    // Three impressions and a click on each ad, but for ad 7, which was not shown, and ad 8, which was in its place.
    for (stream, id, count) in [("impressions", "impression_id", 30), ("clicks", "click_id", 10)] {
        let rows = (0..count).map(|n| {
            let ad = if stream == "clicks" {
                n % 10
            } else {
                n % 10 + i64::from(n % 10 == 7)
            };
            json!({ "impression_id": format!("i{n}"), id: format!("{n}"), "ad_id": format!("ad-{ad}"),
                "occurred_at": utc(day + n * 2_000) })
        });
        let body = json!({ stream: rows.collect::<Vec<_>>() });
        let (status, answer) = post(&it.ingest, &format!("/advertising/{stream}"), &body.to_string());
        assert_eq!(status, 200, "{answer}");
        assert!(answer.starts_with(r#"{"failed_count":0"#), "{answer}");
    }
    let expect: BTreeMap<String, [String; 3]> = (0..10)
        .map(|ad| {
            let impressions = match ad {
                7 => 0,
                8 => 6,
                _ => 3,
            };
            let day = utc(day)[..10].to_string();
            (format!("ad-{ad}"), [day, impressions.to_string(), "1".into()])
        })
        .collect();
    it.wait_for("the day's last hour", || traffic(&aws) == expect);
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    assert_eq!(traffic(&aws), expect);
}

/// Day, impressions and clicks of every ad.
fn traffic(aws: &Aws) -> BTreeMap<String, [String; 3]> {
    let items = python_json("dynamodb.py", &["scan", "of_ads"], &aws.env);
    let text = |item: &Value, name: &str, of: &str| item[name][of].as_str().unwrap_or_default().to_string();
    let items = items.as_array().expect("a list of items").iter();
    let items = items.map(|item| {
        let values = [("day", "S"), ("impressions", "N"), ("clicks", "N")];
        (
            text(item, "ad_id", "S"),
            values.map(|(name, of)| text(item, name, of)),
        )
    });
    items.collect()
}

/// A table may ask for more than its key says: here, that a price is text.
#[test]
fn an_item_that_the_table_refuses_is_refused_alone() {
    let aws = Aws::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let create = ["create", "clicks", "ad_id:S", "minute:S", "index:price:S"];
    python_json("dynamodb.py", &create, &aws.env);
    let pipeline = write(dir.path(), "key = [\"ad_id\", \"minute\"]");
    let it = Millstream::start(&launch(dir.path(), &pipeline, &aws, &aws.endpoint));
    let at = utc(now_seconds() / 60 * 60 - 3600);
    let rows = [("a", None), ("b", Some(0.5)), ("c", None)];
    let rows = rows.map(|(ad, price)| json!({ "ad_id": ad, "occurred_at": at, "price": price }));
    let (status, answer) = post(&it.ingest, "/clicks", &json!(rows).to_string());
    assert_eq!(status, 200, "{answer}");
    it.wait_for("the other rows", || {
        count(&it, "items_written") == 2 && count(&it, "items_refused") == 1
    });
    it.wait_for("the refused row", || {
        let refused = it.stream("counts", "items.rejected");
        let raw = |row: &Value| {
            row["raw"]
                .as_str()
                .unwrap_or_default()
                .contains("\"ad_id\":\"b\"")
        };
        refused.len() == 1 && refused.iter().all(raw)
    });
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
}

#[test]
fn a_table_with_another_key_is_refused() {
    let aws = Aws::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    python_json("dynamodb.py", &["create", "clicks", "ad_id:S", "day:S"], &aws.env);
    for (options, says) in [
        (
            "key = [\"ad_id\", \"minute\"]\ncreate = true",
            "has the key ad_id (S), day (S), not ad_id (S), minute (S)",
        ),
        (
            "key = [\"ad_id\", \"minute\"]\nregion = \"eu-west-1\"",
            "create it, or write create = true",
        ),
    ] {
        let pipeline = write(dir.path(), options);
        let mut child = support::spawn(&launch(dir.path(), &pipeline, &aws, &aws.endpoint), &[]);
        assert_eq!(child.wait().expect("it ends").code(), Some(1));
        assert!(log(dir.path()).contains(says), "{}", log(dir.path()));
    }
}

fn write(dir: &Path, options: &str) -> String {
    let file = dir.join("counts.toml");
    std::fs::write(&file, format!("{COUNTS}{options}\n")).expect("a writable directory");
    file.display().to_string()
}

fn launch<'a>(dir: &'a Path, pipeline: &'a str, aws: &Aws, endpoint: &str) -> Launch<'a> {
    let mut env = aws.env.clone();
    env.push(("AWS_ENDPOINT_URL".into(), endpoint.into()));
    Launch {
        dir,
        pipeline,
        port: free_port(),
        env,
    }
}

fn send(it: &Millstream, rows: &[(String, i64)]) {
    let rows: Vec<Value> = rows
        .iter()
        .map(|(ad, at)| json!({ "ad_id": ad, "occurred_at": utc(*at), "price": 0.5 }))
        .collect();
    let (status, answer) = post(&it.ingest, "/clicks", &json!(rows).to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(answer.starts_with(r#"{"failed_count":0"#), "{answer}");
}

fn count(it: &Millstream, what: &str) -> u64 {
    it.node("counts", "sink.items")["counts"][what]
        .as_u64()
        .unwrap_or(0)
}

/// As the sink writes times.
fn utc(seconds: i64) -> String {
    let at = arrow::temporal_conversions::timestamp_s_to_datetime(seconds).expect("a time of our age");
    at.format("%Y-%m-%dT%H:%M:%S.000000Z").to_string()
}
