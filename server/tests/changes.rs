//! A pipeline file that is changed between two runs: what fits goes on, what does not is named.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Launch, Millstream, post, python_json};

/// `$QUERY` and `$MORE` are filled in.
const PIPELINE: &str = r#"
name = "rows"

[checkpoint]
interval = "200ms"

[source.rows]
type = "http"
path = "/rows"
event_time = "occurred_at"
max_out_of_orderness = "0s"
idle_after = "1s"
max_future = "1h"
[source.rows.columns]
id = "string not null"
occurred_at = "timestamp not null"

[window.by_minute]
input = "rows"
type = "tumbling"
size = "1m"

[sql.counts]
query = "SELECT window_start() AS at, count(*) AS n FROM by_minute"

[sql.changing]
query = "$QUERY"

[sink.out]
type = "console"
format = "ndjson"
input = "counts"

[sink.changed]
type = "console"
format = "ndjson"
input = "changing"

[sink.lake]
type = "parquet"
input = "rows"
path = "lake"
partition_by = ["year", "month", "day"]
$MORE
"#;

const QUERY: &str = "SELECT window_start() AS at, count(*) AS before FROM by_minute";
const OTHER: &str = "SELECT window_start() AS at, count(*) AS after FROM by_minute";

/// Seconds from now to the first minute with rows: no clock closes it while the test runs.
const AHEAD: u64 = 600;

/// Longer than `idle_after`: what is sent then moves the watermark whichever lane it takes.
const UNTIL_IDLE: std::time::Duration = std::time::Duration::from_secs(3);

#[test]
fn what_is_unchanged_keeps_its_state_and_what_is_not_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let minute = unix_time() / 60 * 60 + AHEAD;
    let more = "[sql.gone]\nquery = \"SELECT count(*) AS gone FROM by_minute\"\n[sink.gone]\ntype = \"console\"\nformat = \"ndjson\"\ninput = \"gone\"";
    let it = start(dir.path(), QUERY, more);
    send(&it, &["a", "b", "c"], minute + 30);
    it.wait_for("rows to flow", || it.node("rows", "source.rows")["rows_in"] == 3);
    assert_eq!(it.terminate(), 0);

    // Comments and limits are not the state's business.
    let it = start(dir.path(), QUERY, &format!("# changed\n{more}"));
    assert_eq!(it.terminate(), 0);

    write(dir.path(), OTHER, "");
    let refused = run(dir.path(), &[]);
    assert_eq!(refused.0, Some(1), "{}", refused.1);
    for part in [
        "sql.changing has changed",
        "sql.gone is gone",
        "--reset sql.changing --reset sql.gone",
    ] {
        assert!(refused.1.contains(part), "no {part:?} in {}", refused.1);
    }
    for unchanged in ["source.rows", "window.by_minute", "sql.counts"] {
        assert!(!refused.1.contains(unchanged), "{unchanged} in {}", refused.1);
    }
    let refused = run(dir.path(), &["--reset", "sql.gone"]);
    assert_eq!(refused.0, Some(1), "{}", refused.1);
    assert!(!refused.1.contains("sql.gone is gone"), "{}", refused.1);
    assert_eq!(run(dir.path(), &["--reset", "changing"]).0, Some(2));

    let path = dir.path().join("rows.toml").display().to_string();
    let it = Millstream::start_with(
        &launch(dir.path(), &path),
        &["--reset", "sql.changing", "--reset", "sql.gone"],
    );
    send(&it, &["d"], minute + 40);
    support::pause(UNTIL_IDLE);
    send(&it, &["e"], minute + 70);
    it.wait_for("both queries to answer", || it.printed_rows().len() >= 2);
    let rows = it.printed_rows();
    assert_eq!(counts(&rows, "n"), [json!(4)], "{rows:?}");
    assert_eq!(counts(&rows, "after"), [json!(1)], "{rows:?}");
    assert_eq!(it.terminate(), 0);
    let log = support::log(dir.path());
    assert!(log.contains("its state is dropped"), "{log}");

    // Once more, without the option: what was reset belongs to the new file now.
    let it = start(dir.path(), OTHER, "");
    support::pause(UNTIL_IDLE);
    send(&it, &["f"], minute + 130);
    it.wait_for("the next minute", || it.printed_rows().len() >= 2);
    let rows = it.printed_rows();
    assert_eq!(it.terminate(), 0);
    assert_eq!(counts(&rows, "n"), [json!(1)], "{rows:?}");
    assert_eq!(counts(&rows, "after"), [json!(1)], "{rows:?}");

    let lake = dir.path().join("lake").display().to_string();
    let lake = python_json("lake.py", &[&lake, "id"], &[]);
    assert_eq!(
        lake["keys"],
        json!({"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1})
    );
}

/// The values of a column, of the rows that have it.
fn counts(rows: &[Value], column: &str) -> Vec<Value> {
    rows.iter().filter_map(|row| row.get(column).cloned()).collect()
}

fn write(dir: &Path, query: &str, more: &str) -> String {
    let path = dir.join("rows.toml");
    let text = PIPELINE.replace("$QUERY", query).replace("$MORE", more);
    std::fs::write(&path, text).expect("a writable directory");
    path.display().to_string()
}

fn start(dir: &Path, query: &str, more: &str) -> Millstream {
    let path = write(dir, query, more);
    Millstream::start(&launch(dir, &path))
}

fn launch<'a>(dir: &'a Path, pipeline: &'a str) -> Launch<'a> {
    Launch {
        dir,
        pipeline,
        port: 0,
        env: Vec::new(),
    }
}

/// Runs to the end, which a refusal is; gives the exit code and what was said.
fn run(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .current_dir(dir)
        .args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "run",
            "rows.toml",
        ])
        .args(args)
        .output()
        .expect("the binary starts");
    let said = [out.stdout, out.stderr].concat();
    (out.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn unix_time() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

/// Rows that happened `at`, in seconds since the epoch.
fn send(it: &Millstream, ids: &[&str], at: u64) {
    let at = arrow::temporal_conversions::timestamp_s_to_datetime(at as i64).expect("a time of our age");
    let at = at.format("%Y-%m-%d %H:%M:%S").to_string();
    let rows: Vec<Value> = ids
        .iter()
        .map(|id| json!({"id": id, "occurred_at": at}))
        .collect();
    let (status, answer) = post(&it.ingest, "/rows", &json!(rows).to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(answer.starts_with(r#"{"failed_count":0"#), "{answer}");
}
