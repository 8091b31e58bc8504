//! The binary against a small server that tells the truth about what it took, refused and dropped.
#![allow(clippy::disallowed_methods, reason = "a test has no runtime to block")]

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// What the server does with a request.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Take,
    FailRow(usize),
    Status(u16),
    Close,
    Never,
    TakeAfter(Duration),
}

#[derive(Clone, Debug)]
struct Seen {
    stream: String,
    ids: Vec<String>,
    answer: Answer,
}

/// A server on a free port; `behave` decides by the number of the request.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _runtime: Runtime,
}

impl Server {
    fn start(behave: fn(usize) -> Answer) -> Server {
        let runtime = Runtime::new().expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let log = log.clone();
                let service = service_fn(move |request| answer(request, behave, log.clone()));
                let connection = hyper::server::conn::http1::Builder::new()
                    .pipeline_flush(true)
                    .serve_connection(TokioIo::new(socket), service);
                tokio::spawn(connection);
            }
        });
        Server {
            address,
            seen,
            _runtime: runtime,
        }
    }

    fn command(&self, flags: &str) -> Command {
        let mut command = loadgen(flags);
        command
            .arg("--base-url")
            .arg(format!("http://{}/advertising", self.address));
        command
    }

    /// Runs to the end; the exit code and the JSON report.
    fn run(&self, flags: &str) -> (i32, Value) {
        let output = self.command(flags).arg("--json").output().expect("runs");
        let code = output.status.code().expect("not killed");
        let report = serde_json::from_slice(&output.stdout);
        (
            code,
            report.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr))),
        )
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no server task panics").clone()
    }

    fn wait_for_requests(&self, count: usize) {
        while self.seen().len() < count {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Rows taken, refused, and without an answer, as the server knows it.
    fn truth(&self) -> (usize, usize, usize) {
        let mut truth = (0, 0, 0);
        for Seen { ids, answer, .. } in self.seen() {
            match answer {
                Answer::Take | Answer::TakeAfter(_) => truth.0 += ids.len(),
                Answer::FailRow(_) => truth = (truth.0 + ids.len() - 1, truth.1 + 1, truth.2),
                Answer::Status(_) => truth.1 += ids.len(),
                Answer::Close | Answer::Never => truth.2 += ids.len(),
            }
        }
        truth
    }
}

fn loadgen(flags: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(flags.split_whitespace());
    command
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    behave: fn(usize) -> Answer,
    log: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let body = request
        .into_body()
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let (stream, ids) = check_body(&path, &body);
    let rows = ids.len();
    let answer = {
        let mut log = log.lock().expect("no server task panics");
        let answer = behave(log.len());
        log.push(Seen {
            stream,
            ids,
            answer: answer.clone(),
        });
        answer
    };
    let reply = |status: u16, body: Value| {
        let reply = Response::builder()
            .status(status)
            .body(Full::new(body.to_string().into()));
        Ok(reply.expect("a valid reply"))
    };
    let records = |failed: Option<usize>| {
        let records: Vec<_> = (0..rows)
            .map(|row| json!({ "failed": Some(row) == failed }))
            .collect();
        json!({ "failed_count": usize::from(failed.is_some()), "records": records })
    };
    match answer {
        Answer::Take => reply(200, records(None)),
        Answer::FailRow(row) => reply(200, records(Some(row))),
        Answer::Status(status) => reply(status, json!({ "error": "refused by the test" })),
        Answer::Close => Err(std::io::Error::other("closed by the test")),
        Answer::Never => std::future::pending::<Result<_, Infallible>>()
            .await
            .map_err(|never| match never {}),
        Answer::TakeAfter(stall) => {
            tokio::time::sleep(stall).await;
            reply(200, records(None))
        }
    }
}

/// Panics (which closes the connection and fails the counts) unless the body is what the contract says.
fn check_body(path: &str, body: &[u8]) -> (String, Vec<String>) {
    let stream = path
        .strip_prefix("/advertising/")
        .expect("below the base URL")
        .to_owned();
    let columns: &[&str] = match stream.as_str() {
        "impressions" => &["impression_id", "ad_id", "occurred_at"],
        "clicks" => &["impression_id", "click_id", "ad_id", "occurred_at"],
        other => panic!("unknown stream {other}"),
    };
    let body: HashMap<String, Vec<HashMap<String, String>>> =
        serde_json::from_slice(body).expect("valid JSON");
    assert_eq!(body.len(), 1, "one key");
    let rows = &body[&stream];
    assert!((1..=500).contains(&rows.len()), "{} rows", rows.len());
    let id_column = if stream == "clicks" {
        "click_id"
    } else {
        "impression_id"
    };
    for row in rows {
        assert_eq!(
            row.keys().map(String::as_str).collect::<BTreeSet<_>>(),
            columns.iter().copied().collect()
        );
        let at = &row["occurred_at"];
        chrono::NaiveDateTime::parse_from_str(at, "%Y-%m-%d %H:%M:%S%.3f").expect("a time");
        assert_eq!(at.len(), 23);
    }
    let ids = rows.iter().map(|row| row[id_column].clone()).collect();
    (stream, ids)
}

fn unique_ids(seen: &[Seen]) -> usize {
    let ids: BTreeSet<_> = seen
        .iter()
        .flat_map(|seen| seen.ids.iter().map(|id| (&seen.stream, id)))
        .collect();
    ids.len()
}

fn counts(report: &Value) -> (u64, u64, u64) {
    let count = |name: &str| {
        report[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name} in {report}"))
    };
    (count("rows_acked"), count("rows_refused"), count("rows_unknown"))
}

fn as_u64((taken, refused, unknown): (usize, usize, usize)) -> (u64, u64, u64) {
    (taken as u64, refused as u64, unknown as u64)
}

/// Users so eager that a thousand rows take no time.
const USERS: &str = "--users 400 --view-frequency 100ms --consider-duration 20ms --flush 20ms --rows 1000";

#[test]
fn users_send_whole_batches_and_all_are_acked() {
    let server = Server::start(|_| Answer::Take);
    let (code, report) = server.run(&format!("{USERS} --batch 40 --seed 5"));
    let seen = server.seen();
    assert_eq!(code, 0, "{report}");
    assert_eq!(counts(&report), (1000, 0, 0));
    assert_eq!(unique_ids(&seen), 1000);
    assert!(seen.iter().all(|seen| seen.ids.len() <= 40));
    let impressions: BTreeSet<_> = seen
        .iter()
        .filter(|seen| seen.stream == "impressions")
        .collect_ids();
    assert!(impressions.len() < 1000, "some are clicks");

    // The same seed makes the same rows again, however they are cut into batches.
    let again = Server::start(|_| Answer::Take);
    let (_, _) = again.run(&format!("{USERS} --batch 7 --seed 5"));
    let repeated: BTreeSet<_> = again
        .seen()
        .iter()
        .filter(|seen| seen.stream == "impressions")
        .collect_ids();
    assert_eq!(impressions, repeated);
}

trait CollectIds {
    fn collect_ids(self) -> BTreeSet<String>;
}

impl<'a, I: Iterator<Item = &'a Seen>> CollectIds for I {
    fn collect_ids(self) -> BTreeSet<String> {
        self.flat_map(|seen| seen.ids.clone()).collect()
    }
}

fn troubled(number: usize) -> Answer {
    match number % 7 {
        1 => Answer::Status(500),
        2 => Answer::Close,
        4 => Answer::FailRow(0),
        5 => Answer::Status(429),
        _ => Answer::Take,
    }
}

/// The heart of the instrument: its counts are the server's, in every mode, and so is its ledger.
#[test]
fn every_mode_reports_what_the_server_did() {
    let modes = [
        format!("{USERS} --batch 10"),
        "--rate 20000 --batch 10 --rows 1000 --connections 3".to_owned(),
        "--closed-loop --batch 10 --rows 1000 --connections 2 --threads 1".to_owned(),
    ];
    for flags in modes {
        let server = Server::start(troubled);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let ledger = dir.path().join("ledger");
        let (code, report) = server.run(&format!("{flags} --ledger {}", ledger.display()));
        assert_eq!(code, 1, "{flags}: {report}");
        assert_eq!(counts(&report), as_u64(server.truth()), "{flags}: {report}");
        assert_eq!(report["rows_sent"], 1000, "{flags}");
        assert_eq!(unique_ids(&server.seen()), 1000, "{flags}");
        assert_eq!(ledger_counts(&ledger), counts(&report), "{flags}");
    }
}

/// With pipelining, the server may take requests whose answers are lost with their connection: `unknown` is the
/// only honest word for them. What it said is still exact.
#[test]
fn pipelined_requests_lost_with_their_connection_are_unknown() {
    let server = Server::start(|number| {
        if number % 50 == 17 {
            Answer::Close
        } else {
            Answer::Take
        }
    });
    let (code, report) = server.run("--closed-loop --batch 5 --rows 5000 --connections 2 --pipeline 8");
    let (acked, refused, unknown) = counts(&report);
    let (taken, _, _) = server.truth();
    assert_eq!(code, 1);
    assert_eq!((acked + unknown, refused), (5000, 0));
    assert!(
        acked <= taken as u64 && unknown > 0,
        "{acked} acked of {taken} taken"
    );
}

fn ledger_counts(path: &std::path::Path) -> (u64, u64, u64) {
    let mut rows = HashMap::new();
    let mut counts = (0, 0, 0);
    for line in std::fs::read_to_string(path).expect("a ledger").lines() {
        let line: Value = serde_json::from_str(line).expect("a whole line");
        let request = line["request"].as_str().expect("a name").to_owned();
        let failed = line["refused"]
            .as_array()
            .map_or(0, |refused| refused.len() as u64);
        match line["status"].as_str().expect("a status") {
            "sent" => drop(rows.insert(request, line["ids"].as_array().expect("ids").len() as u64)),
            "acked" => counts = (counts.0 + rows[&request] - failed, counts.1 + failed, counts.2),
            "refused" => counts.1 += rows[&request],
            _ => counts.2 += rows[&request],
        }
    }
    counts
}

#[test]
fn retries_carry_the_same_ids_until_they_are_taken() {
    let server = Server::start(|number| match number % 3 {
        0 => Answer::Status(503),
        1 => Answer::Close,
        _ => Answer::Take,
    });
    let flags =
        "--users 50 --view-frequency 100ms --consider-duration 10ms --flush 10ms --connections 1 --rows 60";
    let (code, report) = server.run(&format!("{flags} --batch 10 --retry"));
    let seen = server.seen();
    assert_eq!((code, counts(&report)), (0, (60, 0, 0)), "{report}");
    assert_eq!(
        report["retries"].as_u64(),
        Some(seen.len() as u64 / 3 * 2),
        "two attempts of three fail"
    );
    for three in seen.chunks(3) {
        assert_eq!(three.len(), 3, "each batch is sent until it is taken");
        assert_eq!(three[0].ids, three[1].ids);
        assert_eq!(three[1].ids, three[2].ids);
    }
    assert_eq!(unique_ids(&seen), 60);
}

/// One connection, a request due every 10 ms, and a server that stalls 300 ms at the first: the requests that
/// fell due meanwhile waited too, and a tool that measures from the send would not see it.
#[test]
fn a_stall_is_seen_by_every_request_it_delayed() {
    let stall = |number| match number {
        0 => Answer::TakeAfter(Duration::from_millis(300)),
        _ => Answer::Take,
    };
    let server = Server::start(stall);
    let (code, report) = server.run("--rate 100 --batch 1 --connections 1 --rows 30");
    assert_eq!(code, 0, "{report}");
    let latency = |name: &str| report["latency"][name].as_f64().expect("a number");
    assert!(latency("max_ms") >= 299.0, "{report}");
    assert!(
        latency("p50_ms") >= 140.0,
        "request 15 was due 150 ms before the stall ended: {report}"
    );
}

/// The same, but the run ends before the stall does: what was due and never sent waited, too.
#[test]
fn a_stall_to_the_end_is_not_hidden() {
    let server = Server::start(|number| match number {
        4 => Answer::TakeAfter(Duration::from_secs(1)),
        _ => Answer::Take,
    });
    let (code, report) = server.run("--rate 200 --batch 1 --connections 1 --duration 500ms");
    assert_eq!(code, 0, "{report}");
    let never_sent = report["requests_never_sent"].as_u64().expect("a number");
    assert!(never_sent >= 80, "100 were due, and 5 sent: {report}");
    let latency = |name: &str| report["latency"][name].as_f64().expect("a number");
    assert!(
        latency("p50_ms") >= 100.0 && latency("p99_ms") >= 400.0,
        "{report}"
    );
}

#[test]
fn prebuilt_bodies_carry_unique_rows_and_both_sides_use_is_reported() {
    let server = Server::start(troubled);
    let flags = "--closed-loop --prebuilt --batch 10 --rows 1000 --connections 3";
    let (_, report) = server.run(&format!("{flags} --server-pid {}", std::process::id()));
    assert_eq!(counts(&report), as_u64(server.truth()), "{report}");
    assert_eq!(report["rows_sent"], 1000);
    assert_eq!(unique_ids(&server.seen()), 1000);
    for side in ["client", "server"] {
        assert!(
            report[side]["busy"].as_f64().is_some_and(|busy| busy >= 0.0),
            "{report}"
        );
        assert!(
            report[side]["cores"].as_u64().is_some_and(|cores| cores >= 1),
            "{report}"
        );
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(child.id().to_string())
        .status();
    assert!(status.expect("kill runs").success());
}

#[test]
fn ctrl_c_ends_a_run_with_its_report_and_loses_nothing() {
    for mode in [
        "--users 300 --view-frequency 100ms",
        "--rate 3000 --batch 5",
        "--closed-loop --batch 5 --pipeline 4",
    ] {
        let server = Server::start(|_| Answer::Take);
        let mut child = server
            .command(mode)
            .arg("--json")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        server.wait_for_requests(5);
        signal(&child, "INT");
        let status = child.wait().expect("ends");
        let mut report = String::new();
        child
            .stdout
            .take()
            .expect("piped")
            .read_to_string(&mut report)
            .expect("text");
        let report: Value = serde_json::from_str(&report).expect("a report");
        assert_eq!(status.code(), Some(0), "{mode}: {report}");
        assert_eq!(counts(&report), as_u64(server.truth()), "{mode}");
    }
}

#[test]
fn a_second_ctrl_c_leaves_at_once() {
    let server = Server::start(|_| Answer::Never);
    let mut child = server
        .command("--users 50 --view-frequency 50ms")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    server.wait_for_requests(1);
    signal(&child, "INT");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    assert!(
        lines.any(|line| line.expect("text").contains("ending")),
        "the first signal is acknowledged"
    );
    signal(&child, "INT");
    assert_eq!(child.wait().expect("ends").code(), Some(130));
}

#[test]
fn nothing_acked_is_a_failure_and_mistakes_are_usage() {
    let server = Server::start(|_| Answer::Status(400));
    let (code, report) = server.run(&format!("{USERS} --batch 500"));
    assert_eq!((code, counts(&report)), (1, (0, 1000, 0)));
    let nobody = "--base-url http://127.0.0.1:9/a --duration 200ms --users 50 --view-frequency 50ms";
    for (flags, code, text) in [
        (nobody, 1, "unknown"),
        ("--frobnicate", 2, "--frobnicate"),
        ("/nowhere/loadgen.yaml", 2, "/nowhere/loadgen.yaml"),
        ("--clickthrough 3", 2, "ClickthroughProbability"),
        ("--server-pid 4194305", 2, "--server-pid"),
        ("verify --ledger /nowhere --lake /nowhere", 2, "/nowhere"),
    ] {
        let output = loadgen(flags).output().expect("runs");
        assert_eq!(output.status.code(), Some(code), "{flags}");
        let said = [output.stdout, output.stderr].concat();
        assert!(
            String::from_utf8_lossy(&said).contains(text),
            "{flags}: {}",
            String::from_utf8_lossy(&said)
        );
    }
}

#[test]
fn progress_is_one_character_for_a_batch() {
    let server = Server::start(|number| match number {
        1 => Answer::Status(500),
        2 => Answer::FailRow(0),
        _ => Answer::Take,
    });
    let output = server
        .command(&format!("{USERS} --batch 100 --connections 1"))
        .output()
        .expect("runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.starts_with(".EF."), "{stderr}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("acked"));
}
