//! Clients that send the same ids again, over other connections and across crashes, through the real binary:
//! each id is in the lake once and in its minute once.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;

use serde_json::{Value, json};
use support::{Launch, Millstream, get, post, python_json, root};

const IMPRESSIONS: &str = "/advertising/impressions";
/// Ids of a test; each request carries [`PER_REQUEST`] of them.
const IDS: usize = 1_200;
const PER_REQUEST: usize = 100;
/// The id of the rows that close the minute.
const LATER: &str = "later";
/// Clients that send all of them at the same time, each over connections of its own.
const CLIENTS: usize = 4;

#[test]
fn the_same_ids_from_several_clients_at_once_count_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = pipeline(dir.path());
    let launch = launch(dir.path(), &pipeline);
    let it = Millstream::start(&launch);
    let at = minute_with_time_left();
    let ids = ids("once");
    send(&it, &ids, at, CLIENTS);
    let duplicates = (IDS * (CLIENTS - 1)) as u64;
    it.wait_for("the duplicates to be counted", || {
        duplicates_of(&it) == duplicates
    });
    let node = it.node("advertising", "source.impressions");
    assert_eq!(
        (&node["rows_in"], &node["rows_out"]),
        (&json!(IDS * CLIENTS), &json!(IDS)),
        "{node}"
    );
    assert_counted_once(it, dir.path(), &launch, at, &ids);
}

/// The first crash finds the ids in the log only, the second in a checkpoint.
#[test]
fn ids_sent_again_after_a_crash_count_once() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = pipeline(dir.path());
    let launch = launch(dir.path(), &pipeline);
    let it = Millstream::start(&launch);
    let at = minute_with_time_left();
    let ids = ids("again");
    let (early, late) = ids.split_at(IDS / 2);
    send(&it, early, at, 1);
    it.kill();

    let it = Millstream::start(&launch);
    send(&it, early, at, CLIENTS);
    send(&it, late, at, 1);
    let all_in =
        || it.node("advertising", "source.impressions")["rows_in"] == json!(early.len() * 5 + late.len());
    it.wait_for("the rows to be read", all_in);
    let before = epoch(&it);
    // The one under way may have started before the last row.
    it.wait_for("a checkpoint", || epoch(&it) >= before + 2);
    it.kill();

    let it = Millstream::start(&launch);
    send(&it, &ids, at, 2);
    it.wait_for("the duplicates to be counted", || {
        duplicates_of(&it) == 2 * IDS as u64
    });
    assert_counted_once(it, dir.path(), &launch, at, &ids);
}

/// Closes the minute of `at` with later rows, waits for it, stops, and reads the lake.
fn assert_counted_once(it: Millstream, dir: &Path, launch: &Launch<'_>, at: i64, ids: &[String]) {
    let minute = format!("{}Z", stamp(at / 60 * 60).replace(' ', "T"));
    let later =
        json!({"impression_id": LATER, "click_id": LATER, "ad_id": "a", "occurred_at": stamp(at + 65)});
    // Again and again, until every lane has had one or is idle: these are retries too.
    let close = || {
        for stream in ["impressions", "clicks"] {
            let body = json!({ stream: [later] }).to_string();
            let (status, answer) = post(&it.ingest, &format!("/advertising/{stream}"), &body);
            assert_eq!(status, 200, "{answer}");
        }
    };
    let published = || -> Vec<Value> {
        let rows = it.printed_rows();
        rows.into_iter().filter(|r| r["at"] == minute.as_str()).collect()
    };
    it.wait_for("the minute to be published", || {
        close();
        !published().is_empty()
    });
    let rows = published();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["impressions"], json!(ids.len()), "{rows:?}");
    assert_eq!(it.terminate(), 0, "{}", support::log(dir));
    // A commit that the stop cut short is made at the next start.
    assert_eq!(Millstream::start(launch).terminate(), 0);
    let lake = dir.join("data/lake/impressions").display().to_string();
    let lake = python_json("lake.py", &[&lake, "impression_id"], &[]);
    let expect = ids.iter().map(String::as_str).chain([LATER]);
    let expect: BTreeMap<&str, u64> = expect.map(|id| (id, 1)).collect();
    assert_eq!(lake["keys"], json!(expect), "each id once in the lake");
}

/// Sends all ids from each of several clients at the same time; every request is acked.
fn send(it: &Millstream, ids: &[String], at: i64, clients: usize) {
    let bodies: Vec<String> = ids
        .chunks(PER_REQUEST)
        .map(|ids| {
            let row = |id: &String| json!({"impression_id": id, "ad_id": "a", "occurred_at": stamp(at)});
            json!({"impressions": ids.iter().map(row).collect::<Vec<_>>()}).to_string()
        })
        .collect();
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                for body in &bodies {
                    let (status, answer) = post(&it.ingest, IMPRESSIONS, body);
                    assert_eq!(status, 200, "{answer}");
                    assert!(answer.starts_with(r#"{"failed_count":0"#), "{answer}");
                }
            });
        }
    });
}

fn duplicates_of(it: &Millstream) -> u64 {
    let node = it.node("advertising", "source.impressions");
    node["counts"]["rows_duplicate"].as_u64().unwrap_or(0)
}

fn epoch(it: &Millstream) -> u64 {
    let (_, body) = get(&it.admin, "/api/v1/pipelines/advertising");
    let all: Value = serde_json::from_str(&body).expect("the API answers with JSON");
    all["status"]["epoch"]
        .as_u64()
        .unwrap_or_else(|| panic!("no epoch in {all}"))
}

fn ids(of: &str) -> Vec<String> {
    (0..IDS).map(|n| format!("{of}-{n}")).collect()
}

/// An event time in a minute that stays open while the rows are sent, so that only dedup keeps what is sent
/// again out of it: two minutes ahead of now, in seconds, which is less than `max_future`.
fn minute_with_time_left() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    now.as_secs() as i64 + 120
}

fn stamp(seconds: i64) -> String {
    let at = arrow::temporal_conversions::timestamp_s_to_datetime(seconds).expect("a time of our age");
    at.format("%Y-%m-%d %H:%M:%S").to_string()
}

/// The pipeline that ships, with a checkpoint every second.
fn pipeline(dir: &Path) -> String {
    let shipped = std::fs::read_to_string(root().join("pipelines/advertising.toml")).expect("it is there");
    let path = dir.join("advertising.toml");
    std::fs::write(&path, shipped + "\n[checkpoint]\ninterval = \"1s\"\n").expect("a writable directory");
    path.display().to_string()
}

fn launch<'a>(dir: &'a Path, pipeline: &'a str) -> Launch<'a> {
    Launch {
        dir,
        pipeline,
        port: 0,
        env: Vec::new(),
    }
}
