//! Rows into Kinesis and Firehose through the real binary, over a proxy that makes both bad services: puts that are
//! refused in part, throttled, lost, answered late or not at all. What was answered to clients is in the streams, and
//! what has a key is in the order in which it was sent; also when the machine is lost with everything on it.
//!
//! A client has a key of its own, and sends a body again until it is answered. A row may come more than once then, so
//! order is about when each came for the first time.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use support::proxy::{Fate, Proxy};
use support::{Aws, Launch, Millstream, free_port, log, pause, post, python_json, root};

const CLIENTS: usize = 8;
/// Rows of a body, all of one key, so that each takes a put of its own.
const ROWS: i64 = 6;

/// Both sinks behind one source.
const BOTH: &str = r#"
name = "both"
[source.beacons]
type = "http"
path = "/beacons"
ack = "delivered"
columns = { beacon_id = "string not null", visitor = "string", page = "string" }
[sink.stream]
type = "kinesis"
input = "beacons"
stream = "both"
partition_key = "visitor"
[sink.files]
type = "firehose"
input = "beacons"
delivery_stream = "both"
rows_per_record = 50
[sink.refused]
type = "console"
input = "stream.rejected"
format = "ndjson"
"#;

/// Enough to meet every fate, and not to take long.
const FATES: &[Fate] = &[
    Fate::Partly,
    Fate::Good,
    Fate::Good,
    Fate::Throttled,
    Fate::Good,
    Fate::Unanswered,
    Fate::Good,
    Fate::Partly,
    Fate::Good,
    Fate::Good,
    Fate::Busy,
    Fate::Good,
    Fate::Lost,
    Fate::Good,
    Fate::Broken,
    Fate::Good,
    Fate::Good,
    Fate::Slow,
    Fate::Good,
];

#[test]
fn every_answered_row_is_in_the_streams_and_in_order() {
    let aws = Aws::start();
    python_json("streams.py", &["create", "both", "3"], &aws.env);
    python_json("streams.py", &["deliver", "both", "landed"], &aws.env);
    let proxy = Proxy::start(&aws.endpoint, FATES);
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("both.toml"), BOTH).expect("a writable directory");
    let it = Millstream::start(&launch(dir.path(), "both.toml", &aws, &proxy));
    let clients = Clients::start(&it.ingest);
    it.wait_for("enough to go wrong", || proxy.spoilt() > 40);
    let acked = clients.stop();
    let large = json!({"beacon_id": "0", "visitor": "large", "page": "p".repeat(1_100_000)});
    assert_eq!(post(&it.ingest, "/beacons", &large.to_string()).0, 200);
    it.wait_for("the row that no record can hold", || {
        let printed = it.printed_rows();
        let reasons = printed.iter().filter_map(|row| row["reason"].as_str());
        reasons.into_iter().any(|reason| reason.starts_with("too_large"))
    });
    let again = &it.node("both", "sink.stream")["counts"]["records_put_again"];
    assert!(again.as_u64() > Some(0), "{again}");
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    check_stream(&acked, "both", &aws);
    let landed = python_json("streams.py", &["landed", "landed"], &aws.env);
    let landed: BTreeSet<(String, i64)> = rows(&landed).map(numbered).collect();
    assert_covered(&acked, &landed);
    assert!(landed.iter().all(|(client, _)| client != "large"));
}

#[test]
fn an_answered_row_survives_the_loss_of_its_machine() {
    let aws = Aws::start();
    python_json("streams.py", &["create", "beacons", "2"], &aws.env);
    python_json("bucket.py", &["checkpoints"], &aws.env);
    let proxy = Proxy::start(&aws.endpoint, FATES);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = root().join("pipelines/collector.toml").display().to_string();
    let launch = launch(dir.path(), &pipeline, &aws, &proxy);
    let mut clients = None;
    for life in 0..5 {
        // In the last three, the checkpoints survive the machine.
        let elsewhere = ["--checkpoint", "s3://checkpoints/collector"];
        let it = Millstream::start_with(&launch, if life < 2 { &[] } else { &elsewhere });
        let clients = clients.get_or_insert_with(|| Clients::start(&it.ingest));
        let before = clients.answered();
        it.wait_for("answers", || clients.answered() >= before + 10);
        if life < 4 {
            it.kill();
            std::fs::remove_dir_all(dir.path().join("data")).expect("it can be lost");
        } else {
            let acked = clients.stop_all();
            assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
            check_stream(&acked, "beacons", &aws);
        }
    }
}

fn launch<'a>(dir: &'a Path, pipeline: &'a str, aws: &Aws, proxy: &Proxy) -> Launch<'a> {
    let mut env = aws.env.clone();
    for service in ["KINESIS", "FIREHOSE"] {
        env.push((format!("AWS_ENDPOINT_URL_{service}"), proxy.url.clone()));
    }
    Launch {
        dir,
        pipeline,
        port: free_port(),
        env,
    }
}

/// The rows that were answered with 200: how many of each client, which numbers them from zero.
type Acked = BTreeMap<String, i64>;

/// Everything acked is in the stream, and the rows of each client for the first time in their order.
fn check_stream(acked: &Acked, stream: &str, aws: &Aws) {
    let shards = python_json("streams.py", &["read", stream], &aws.env);
    let mut seen: BTreeMap<String, i64> = BTreeMap::new();
    for row in rows(&shards).flat_map(rows) {
        let (client, number) = numbered(row);
        let next = seen.entry(client.clone()).or_default();
        assert!(number <= *next, "{client}: row {number} came before row {next}");
        *next = (number + 1).max(*next);
    }
    for (client, count) in acked {
        let in_stream = seen.get(client).copied().unwrap_or_default();
        assert!(*count > 0, "{client} got no answer");
        assert!(
            in_stream >= *count,
            "{client}: {count} acked, {in_stream} in the stream"
        );
    }
}

fn assert_covered(acked: &Acked, found: &BTreeSet<(String, i64)>) {
    for (client, count) in acked {
        let missing = (0..*count).find(|number| !found.contains(&(client.clone(), *number)));
        assert_eq!(missing, None, "{client}: an acked row is missing");
    }
}

fn rows(of: &Value) -> impl Iterator<Item = &Value> {
    of.as_array().expect("a list").iter()
}

/// Whose row it is, and its number.
fn numbered(row: &Value) -> (String, i64) {
    let text = |column: &str| {
        row[column]
            .as_str()
            .unwrap_or_else(|| panic!("no {column} in {row}"))
    };
    (
        text("visitor").into(),
        text("beacon_id").parse().expect("a number"),
    )
}

/// Clients that send without a pause.
struct Clients {
    stop: Arc<AtomicBool>,
    answered: Arc<std::sync::atomic::AtomicU64>,
    running: Vec<JoinHandle<(String, i64)>>,
}

impl Clients {
    fn start(ingest: &str) -> Clients {
        let mut clients = Clients {
            stop: Arc::default(),
            answered: Arc::default(),
            running: Vec::new(),
        };
        for number in 0..CLIENTS {
            let (stop, answered) = (clients.stop.clone(), clients.answered.clone());
            let ingest = ingest.to_owned();
            clients.running.push(std::thread::spawn(move || {
                let name = format!("client-{number}");
                let mut acked = 0;
                while !stop.load(SeqCst) {
                    if post(&ingest, "/beacons", &body(&name, acked)).0 == 200 {
                        acked += ROWS;
                        answered.fetch_add(1, SeqCst);
                    } else {
                        pause(Duration::from_millis(50));
                    }
                }
                (name, acked)
            }));
        }
        clients
    }

    /// Requests that were answered with 200 so far.
    fn answered(&self) -> u64 {
        self.answered.load(SeqCst)
    }

    fn stop(mut self) -> Acked {
        self.stop_all()
    }

    /// What was acked when the last answer is in.
    fn stop_all(&mut self) -> Acked {
        self.stop.store(true, SeqCst);
        let ended = self
            .running
            .drain(..)
            .map(|c| c.join().expect("a client does not panic"));
        ended.collect()
    }
}

fn body(client: &str, from: i64) -> String {
    let row = |number: i64| json!({"beacon_id": number.to_string(), "visitor": client, "page": "/"});
    (from..from + ROWS)
        .map(|number| format!("{}\n", row(number)))
        .collect()
}
