//! Faults of the real world, one at a time, on the real binary: a second process, damaged files, a stopped
//! process, an orderly stop under load. In each, every acked row is in the lake exactly once, or the one
//! thing that was really lost is named.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::json;
use support::load::{Load, verify, verify_lake};
use support::proxy::{self, Proxy};
use support::{Aws, Launch, Millstream, free_port, log, pause, python_json, quick};

/// Enough rows to be in every file, little enough for a busy machine.
const TRAFFIC: [&str; 4] = ["--users", "300", "--view-frequency", "1s"];

#[test]
fn the_second_process_on_a_data_directory_is_refused() {
    let site = Site::new(&[]);
    let it = site.start();
    let out = millstream(
        &site,
        &[
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "run",
            &site.pipeline,
        ],
    );
    let said = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use by process"), "{said}");
    assert!(said.contains("--data-dir"), "{said}");
    assert_eq!(it.terminate(), 0);
}

/// The manifest before is taken; what the lost checkpoint published is neither doubled nor missing.
#[test]
fn a_damaged_newest_manifest_costs_no_row() {
    for damage in [truncate as fn(&Path), flip_a_byte_in_the_middle] {
        let site = Site::new(&[]);
        let it = site.start();
        let load = Load::start(site.path(), &it.ingest, &TRAFFIC);
        it.wait_for("files in the lake", || {
            files_below(&site.lake(), ".parquet").len() > 3
        });
        it.kill();
        damage(&newest(&site.data("advertising/checkpoints"), ".manifest.json"));
        let it = site.start();
        pause(Duration::from_secs(5));
        load.stop();
        assert!(log(site.path()).contains("passing over a damaged checkpoint"));
        assert_eq!(it.terminate(), 0, "{}", log(site.path()));
        let proof = verify(site.path(), &[]);
        assert!(proof.holds, "{}", proof.text);
    }
}

/// A log that is damaged in the middle is not read past the damage behind anyone's back.
#[test]
fn a_damaged_frame_is_refused_until_repair_and_costs_only_itself() {
    let site = Site::new(&[("interval = \"1s\"", "interval = \"10m\"")]);
    let it = site.start();
    let load = Load::start(site.path(), &it.ingest, &TRAFFIC);
    pause(Duration::from_secs(4));
    load.stop();
    it.kill();
    let logs = site.data("advertising/sources/impressions");
    let segment = largest(&logs);
    flip_a_byte_in_the_middle(&segment);

    let mut refused = support::spawn(&site.launch(), &[]);
    assert_eq!(refused.wait().expect("it ends").code(), Some(1));
    let said = log(site.path());
    assert!(said.contains("millstream log repair"), "{said}");

    let lane = segment
        .parent()
        .expect("a segment lies in its log")
        .display()
        .to_string();
    let found = millstream(&site, &["log", "verify", &lane]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    let repaired = millstream(&site, &["log", "repair", &lane]);
    assert_eq!(repaired.status.code(), Some(0), "{repaired:?}");
    assert_eq!(
        millstream(&site, &["log", "verify", &lane]).status.code(),
        Some(0)
    );

    let it = site.start();
    assert_eq!(it.terminate(), 0, "{}", log(site.path()));
    let proof = verify(site.path(), &[]);
    let [acked, _] = proof.line("acked rows");
    let [missing, clicks_missing] = proof.line("missing from the lake");
    assert!(missing > 0 && missing < acked / 4, "{}", proof.text);
    assert_eq!(clicks_missing, 0, "{}", proof.text);
    assert_eq!(proof.line("more than once"), [0, 0], "{}", proof.text);
}

/// Whatever was acked is in the lake when the process has ended, and the rest was told so; then a rolling
/// restart.
#[test]
fn an_orderly_stop_under_load_finishes_what_it_took() {
    let site = Site::new(&[]);
    let it = site.start();
    let load = Load::start(site.path(), &it.ingest, &TRAFFIC);
    pause(Duration::from_secs(3));
    let asked = Instant::now();
    assert_eq!(it.terminate(), 0, "{}", log(site.path()));
    // What supervisors wait before they kill; the service ends with 1 when it takes that long.
    assert!(asked.elapsed() < Duration::from_secs(30));
    let it = site.start();
    pause(Duration::from_secs(2));
    assert_eq!(it.terminate(), 0, "{}", log(site.path()));
    load.stop();
    let proof = verify(site.path(), &[]);
    assert!(proof.holds, "{}", proof.text);
    let acked = proof.line("acked rows");
    assert!(acked[0] > 0, "{}", proof.text);
    assert_eq!(
        proof.line("rows in the lake"),
        acked,
        "taken without an answer: {}",
        proof.text
    );
}

/// Whoever is not answered with success while one process ends and the next begins can send the same rows again: no
/// row of a client that does so is lost, refused for good, or counted twice.
#[test]
fn a_rolling_restart_under_load_costs_a_client_that_retries_nothing() {
    let site = Site::new(&[]);
    let mut it = site.start();
    let retrying = [&TRAFFIC[..], &["--retry"]].concat();
    let load = Load::start(site.path(), &it.ingest, &retrying);
    for _ in 0..4 {
        pause(Duration::from_secs(2));
        assert_eq!(it.terminate(), 0, "{}", log(site.path()));
        it = site.start();
    }
    load.stop();
    assert_eq!(it.terminate(), 0, "{}", log(site.path()));
    let proof = verify(site.path(), &[]);
    assert!(proof.holds, "{}", proof.text);
    assert_eq!(proof.line("refused rows"), [0, 0], "{}", proof.text);
    assert_eq!(proof.line("rows without an answer"), [0, 0], "{}", proof.text);
    let failed = tries_that_failed(&site);
    assert!(!failed.is_empty(), "no request met a restart");
    let retryable = |why: &String| why.starts_with("connection: ") || why.starts_with("503");
    assert!(failed.iter().all(retryable), "{failed:?}");
}

/// Why requests were not answered with success, in the ledger's words.
fn tries_that_failed(site: &Site) -> Vec<String> {
    let ledger = std::fs::read_to_string(site.path().join("ledger.ndjson")).expect("a ledger");
    let lines = ledger.lines().filter_map(|line| serde_json::from_str(line).ok());
    let failed = lines
        .filter(|line: &serde_json::Value| matches!(line["status"].as_str(), Some("refused" | "unknown")));
    failed
        .map(|line| line["reason"].as_str().unwrap_or_default().into())
        .collect()
}

/// For longer than any client waits, as a laptop lid or a paused machine does it.
#[test]
fn a_process_that_is_stopped_and_goes_on_loses_nothing() {
    let site = Site::new(&[]);
    let it = site.start();
    let load = Load::start(site.path(), &it.ingest, &TRAFFIC);
    pause(Duration::from_secs(2));
    it.signal("STOP");
    pause(Duration::from_secs(60));
    it.signal("CONT");
    pause(Duration::from_secs(3));
    load.stop();
    assert_eq!(it.terminate(), 0, "{}", log(site.path()));
    let proof = verify(site.path(), &[]);
    assert!(proof.holds, "{}", proof.text);
}

/// S3 that refuses, breaks, resets connections, stalls and forgets to answer, so that requests time out; CloudWatch
/// behind the same endpoint, too.
#[test]
fn a_bad_object_store_gets_every_row_once() {
    let aws = Aws::start();
    let bucket = "millstream-faults";
    python_json("bucket.py", &[bucket], &aws.env);
    let proxy = Proxy::start(&aws.endpoint, proxy::ANY_AND_SILENCE);
    let mut site = Site::of("advertising-aws.toml", &[]);
    site.env = aws.env.clone();
    site.env.push(("LAKE_BUCKET".into(), bucket.into()));
    site.env.push(("AWS_ENDPOINT_URL".into(), proxy.url.clone()));
    let it = site.start();
    let load = Load::start(site.path(), &it.ingest, &TRAFFIC);
    pause(Duration::from_secs(10));
    load.stop();
    it.terminate_in_bad_weather();
    site.env.push(("AWS_ENDPOINT_URL".into(), aws.endpoint.clone()));
    assert_eq!(site.start().terminate(), 0, "{}", log(site.path()));
    assert!(proxy.spoilt() > 5, "only {} requests went wrong", proxy.spoilt());
    assert!(proxy.forgotten() > 0, "every request was answered");
    let lake = site.path().join("downloaded");
    python_json("download.py", &[bucket, &lake.display().to_string()], &aws.env);
    let proof = verify_lake(site.path(), &lake, &[]);
    assert!(proof.holds, "{}", proof.text);
}

/// CloudWatch that fails most requests, some of them after it took the points: each minute is one sample with
/// the right sum, because points in doubt are read back. The emulator shows at once what it took.
#[test]
fn a_throttling_metrics_service_gets_every_point_once() {
    let aws = Aws::start();
    let bucket = "millstream-points";
    python_json("bucket.py", &[bucket], &aws.env);
    let proxy = Proxy::start(&aws.endpoint, proxy::ANY);
    let minutes = ("size = \"5s\"", "size = \"1m\"");
    let namespace = "namespace = \"Warehouse/Advertising\"";
    let settle = format!("{namespace}\nsettle = \"1s\"");
    let mut site = Site::of("advertising-aws.toml", &[minutes, (namespace, &settle)]);
    site.env = aws.env.clone();
    site.env.push(("LAKE_BUCKET".into(), bucket.into()));
    site.env
        .push(("AWS_ENDPOINT_URL_CLOUDWATCH".into(), proxy.url.clone()));
    let it = site.start();
    let this_minute = support::now_seconds() / 60 * 60;
    for ago in 3..6 {
        let at = arrow::temporal_conversions::timestamp_s_to_datetime(this_minute - 60 * ago);
        let at = at
            .expect("a time of our age")
            .format("%Y-%m-%d %H:%M:%S")
            .to_string();
        let row = |n| json!({"impression_id": format!("{ago}-{n}"), "ad_id": "a", "occurred_at": at});
        let rows: Vec<_> = (0..ago * 10).map(row).collect();
        let (status, answer) = support::post(
            &it.ingest,
            "/advertising/impressions",
            &json!({"impressions": rows}).to_string(),
        );
        assert_eq!(status, 200, "{answer}");
    }
    it.wait_for("the minutes to close", || {
        it.stream("advertising-aws", "clickthrough").len() >= 4
    });
    it.terminate_in_bad_weather();
    site.env
        .push(("AWS_ENDPOINT_URL_CLOUDWATCH".into(), aws.endpoint.clone()));
    assert_eq!(site.start().terminate(), 0, "{}", log(site.path()));
    assert!(proxy.spoilt() >= 3, "only {} requests went wrong", proxy.spoilt());
    let (from, to) = ((this_minute - 1200).to_string(), (this_minute + 120).to_string());
    let args = ["Warehouse/Advertising", &from, &to, "Impressions"];
    let found = python_json("cloudwatch.py", &args, &aws.env);
    let points = found["Impressions"].as_object().expect("points by time");
    let points: Vec<_> = points.values().filter(|p| p[0] != 0.0).collect();
    let mut sums: Vec<String> = points.iter().map(|p| p.to_string()).collect();
    sums.sort();
    assert_eq!(
        sums,
        ["[30.0,1.0]", "[40.0,1.0]", "[50.0,1.0]"],
        "{}",
        log(site.path())
    );
}

/// Nothing more is acked than fits; with space again it goes on by itself. Needs root, to mount a small disk.
#[test]
fn a_full_disk_refuses_rows_and_goes_on_when_there_is_space() {
    let site = Site::new(&[]);
    let Some(_disk) = SmallDisk::mount(&site.data("")) else {
        println!("skipped: only root can mount a small disk");
        return;
    };
    let it = site.start();
    let load = Load::start(site.path(), &it.ingest, &TRAFFIC);
    pause(Duration::from_secs(3));
    let filler = site.data("filler");
    fill(&filler);
    it.wait_for("the answer that it is full", || {
        let answer = raw_post(&it.ingest).to_ascii_lowercase();
        answer.starts_with("http/1.1 503") && answer.contains("retry-after: ")
    });
    pause(Duration::from_secs(5));
    std::fs::remove_file(&filler).expect("the filler is there");
    it.wait_for("rows to be taken again", || {
        raw_post(&it.ingest).starts_with("HTTP/1.1 200")
    });
    it.wait_for("the pipeline to run again", || {
        support::get(&it.admin, "/readyz").0 == 200
    });
    pause(Duration::from_secs(3));
    load.stop();
    assert!(
        log(site.path()).contains("free some space"),
        "{}",
        log(site.path())
    );
    assert_eq!(it.terminate(), 0, "{}", log(site.path()));
    let proof = verify(site.path(), &["--other-traffic"]);
    assert!(proof.holds, "{}", proof.text);
    assert!(proof.line("refused rows")[0] > 0, "{}", proof.text);
}

/// A directory with a pipeline, and the processes that run in it.
struct Site {
    dir: tempfile::TempDir,
    pipeline: String,
    port: u16,
    env: Vec<(String, String)>,
}

impl Site {
    fn new(changes: &[(&str, &str)]) -> Site {
        Site::of("advertising.toml", changes)
    }

    fn of(pipeline: &str, changes: &[(&str, &str)]) -> Site {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pipeline = quick::write(dir.path(), pipeline, changes);
        let port = free_port();
        let env = Vec::new();
        Site {
            dir,
            pipeline,
            port,
            env,
        }
    }

    fn launch(&self) -> Launch<'_> {
        Launch {
            dir: self.path(),
            pipeline: &self.pipeline,
            port: self.port,
            env: self.env.clone(),
        }
    }

    fn start(&self) -> Millstream {
        Millstream::start(&self.launch())
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn data(&self, below: &str) -> PathBuf {
        self.path().join("data").join(below)
    }

    fn lake(&self) -> PathBuf {
        self.data("lake")
    }
}

fn millstream(site: &Site, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millstream"))
        .current_dir(site.path())
        .args(args)
        .output()
        .expect("the binary runs")
}

fn truncate(file: &Path) {
    let bytes = std::fs::read(file).expect("a readable file");
    std::fs::write(file, &bytes[..bytes.len() / 2]).expect("a writable file");
}

fn flip_a_byte_in_the_middle(file: &Path) {
    let mut bytes = std::fs::read(file).expect("a readable file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x55;
    std::fs::write(file, bytes).expect("a writable file");
}

fn newest(dir: &Path, suffix: &str) -> PathBuf {
    files_below(dir, suffix).pop().expect("a file")
}

fn largest(dir: &Path) -> PathBuf {
    let bytes = |file: &PathBuf| file.metadata().map_or(0, |m| m.len());
    files_below(dir, "")
        .into_iter()
        .max_by_key(bytes)
        .expect("a file")
}

/// Files whose names end in `suffix` and are not hidden, sorted.
fn files_below(dir: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            found.extend(files_below(&entry.path(), suffix));
        } else if name.ends_with(suffix) && !name.starts_with('.') {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// Sends one row, another each time; gives the answer with its head.
fn raw_post(ingest: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let id = format!("00000000-0000-4000-8000-{:012}", NUMBER.fetch_add(1, Relaxed));
    let row = format!(r#"{{"impression_id":"{id}","ad_id":"{id}","occurred_at":"2026-11-23 12:00:00"}}"#);
    let body = format!(r#"{{"impressions":[{row}]}}"#);
    let request = format!(
        "POST /advertising/impressions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    let exchange = TcpStream::connect(ingest.trim_start_matches("http://")).and_then(|mut socket| {
        socket.write_all(request.as_bytes())?;
        socket.read_to_string(&mut answer)
    });
    exchange.map(|_| answer).unwrap_or_default()
}

/// A disk of [`DISK`] at a directory, while it is not dropped.
struct SmallDisk(PathBuf);

/// Above the 256 MiB that the ingest log leaves free.
const DISK: &str = "size=320m";

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("a writable directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", DISK, "tmpfs"])
            .arg(at)
            .output();
        let mounted = mounted.is_ok_and(|out| out.status.success());
        mounted.then(|| SmallDisk(at.into()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes until nothing fits any more.
fn fill(file: &Path) {
    let mut file = std::fs::File::create(file).expect("a writable disk");
    let mut piece = vec![0; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}
