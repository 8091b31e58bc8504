//! `millstream runs` and `millstream pipelines` as their users meet them. Each file of `runs/` has a process of its own with
//! the pipeline below, whose dates are the first three of March 2024: files, commands, exactly what they print and end with,
//! and what is waited for between them. `UPDATE_CASES=1` writes the answers anew; read the difference before committing it.
//!
//! `--- file NAME` writes a file. `--- wait daily STATE` waits for the job's state (`gone`: until it is forgotten), `--- wait
//! DATE STATE` for a date's, `--- wait DATE STATE #N` for that of its N-th try. `--- $ COMMAND` runs a command with the
//! process's address and token, `--- $ COMMAND # with token X` with another token. The process starts before the first of
//! these.

#[path = "support/commands.rs"]
mod commands;
mod support;

use std::path::Path;

use commands::{answer_with, check, parts};
use serde_json::Value;
use support::{Launch, Millstream, ask};

const TOKEN: &str = "the-token-of-the-process";

/// A date whose rows have no share fails.
const PIPELINE: &str = r#"
name = "daily"
description = "Rows by date."

[schedule]
every = "daily"
start = "2024-03-01"
end = "2024-03-03"
available_after = "24h"
marker = "in/${date}.complete"
retry = { first = "1h", longest = "1h" }

[source.rows]
type = "file"
path = "in/${date}.json"
event_time = "at"
[source.rows.columns]
id = "string not null"
of = "int not null"
at = "timestamp not null"

[sql.shares]
query = "SELECT id, 12 / of AS share, at FROM rows"

[sink.out]
type = "sqlite"
input = "shares"
table = "shares"
key = ["id"]
"#;

#[test]
fn cases() {
    check("runs", |_, text| answered(text));
}

/// A case with what is answered.
fn answered(text: &str) -> String {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(dir.path().join("in")).expect("a writable directory");
    std::fs::write(dir.path().join("daily.toml"), PIPELINE).expect("a writable directory");
    let mut it = None;
    let mut got = String::new();
    for (heading, text) in parts(text) {
        let (first, rest) = heading.split_once(' ').unwrap_or((&heading, ""));
        match first {
            "file" => std::fs::write(dir.path().join(rest), &text).expect("a writable directory"),
            "wait" => wait(it.get_or_insert_with(|| start(dir.path())), rest),
            "$" => {
                let it = it.get_or_insert_with(|| start(dir.path()));
                got.push_str(&answer(dir.path(), it, rest));
                continue;
            }
            "#" => {}
            _ => continue,
        }
        got.push_str(&format!("--- {heading}\n{text}"));
    }
    got
}

fn start(dir: &Path) -> Millstream {
    Millstream::start(&Launch {
        dir,
        pipeline: "daily.toml",
        port: 0,
        env: vec![("MILLSTREAM_TOKEN".into(), TOKEN.into())],
    })
}

/// Runs a command; gives it and its answer as parts of a case.
fn answer(dir: &Path, it: &Millstream, command: &str) -> String {
    let (given, token) = command.split_once(" # with token ").unwrap_or((command, TOKEN));
    let address = it.admin.trim_start_matches("http://");
    let (first, env) = (["--admin", address], [("MILLSTREAM_TOKEN", token)]);
    let answer = answer_with(dir, given, &first, &env, |text| {
        constant(&text.replace(address, "ADDRESS"))
    });
    let (_, answered) = answer.split_once('\n').expect("a heading");
    format!("--- $ {command}\n{answered}")
}

/// Text without what is another every time: widths, uuids, times, and how long something took.
fn constant(text: &str) -> String {
    let line = |line: &str| {
        let cells = line.split("  ").filter(|cell| !cell.is_empty());
        let cells = cells.map(|cell| cell.trim().split(' ').map(word).collect::<Vec<_>>().join(" "));
        cells.collect::<Vec<_>>().join("  ") + "\n"
    };
    let text: String = text.lines().map(line).collect();
    let digits = |cell: &str| cell.trim_end_matches(" s").parse::<f64>().is_ok() && cell.ends_with(" s");
    let line = |line: &str| {
        let cells = line
            .split("  ")
            .map(|cell| if digits(cell) { "TOOK" } else { cell });
        cells.collect::<Vec<_>>().join("  ") + "\n"
    };
    text.lines().map(line).collect()
}

fn word(word: &str) -> &str {
    let lengths = word.trim_end_matches(':').split('-').map(str::len);
    match word.as_bytes() {
        of if lengths.eq([8, 4, 4, 4, 12]) => match of.ends_with(b":") {
            true => "UUID:",
            false => "UUID",
        },
        of if of.len() >= 20 && of[10] == b'T' && of.ends_with(b"Z") => "TIME",
        _ => word,
    }
}

fn wait(it: &Millstream, what: &str) {
    let words: Vec<&str> = what.split(' ').collect();
    let header = format!("authorization: Bearer {TOKEN}");
    let get = |path: &str| -> Value {
        match ask(&it.admin, &format!("GET {path}"), &[&header], "") {
            (404, ..) => serde_json::json!({ "status": "gone" }),
            (_, _, said) => serde_json::from_str(&said).unwrap_or_default(),
        }
    };
    it.wait_for(what, || match words[..] {
        ["daily", state] => get("/v1/jobs/job/daily")["status"] == state,
        [date, state, ref attempt @ ..] => {
            let runs = get("/v1/runs/daily")["runs"].take();
            let is = |run: &&Value| run["date"] == date && run["status"] == state;
            let run = runs.as_array().into_iter().flatten().find(is).cloned();
            run.is_some_and(|run| attempt.iter().all(|n| *n == format!("#{}", run["attempt"])))
        }
        _ => panic!("{what:?} is nothing to wait for"),
    });
}
