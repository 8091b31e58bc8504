//! The `/v1` API as its clients meet it. Each file of `api/` is a conversation with a process of its own: requests and
//! exactly what is answered; uuids and times are replaced. `UPDATE_CASES=1` writes the answers anew; read the
//! difference before committing it.
//!
//! A request is `--- METHOD /path`, then its headers, each `name: value`, then its body behind an empty line if there
//! are headers. `{uuid}` in it stands for the uuid that was answered last. Environment of the process: `--- env NAME=value`.

#[path = "support/commands.rs"]
mod commands;
mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;

use commands::{check, parts};
use serde_json::Value;
use support::{IDLE, Launch, Millstream, PATIENCE, ask};

/// A part of a case: its heading and its text.
#[test]
fn cases() {
    check("api", |_, text| answered(text));
}

#[test]
fn whoever_listens_hears_of_changes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let it = start(dir.path(), Vec::new());
    let host = it.admin.trim_start_matches("http://");
    let mut socket = TcpStream::connect(host).expect("listening");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(socket, "GET /v1/events HTTP/1.1\r\nhost: {host}\r\n\r\n").expect("sent");
    let mut lines = BufReader::new(socket)
        .lines()
        .map(|line| line.expect("a line in time"));
    assert!(lines.any(|line| line == ": listening"));

    let json = |line: &str, body: &str| ask(&it.admin, line, &["content-type: application/json"], body);
    let cluster = r#"{"redshift_id":"main","dialect":"postgres","host":"h","database":"d","user":"u"}"#;
    json("POST /v1/clusters", cluster);
    let schema = "version: 1\ntables:\n  people:\n    src: ''\n    src_type: dict\n    columns:\n    - {log_key: name, sql_attr: varchar(9)}\n";
    ask(&it.admin, "POST /v1/schema/people/1", &[], schema);
    let load = r#"{"log_name":"people","log_schema_version":1,"s3_path":"s3://l/p","start_date":"2126-11-01","redshift_id":"main"}"#;
    let (status, _, said) = json("POST /v1/jobs", load);
    assert_eq!(status, 200, "{said}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let told = serde_json::json!({ "job": said["post_accepted"]["uuid"], "date": null });
    assert!(lines.any(|line| line == format!("data: {told}")));
}

fn start(dir: &Path, env: Vec<(String, String)>) -> Millstream {
    std::fs::write(dir.join("idle.toml"), IDLE).expect("a writable directory");
    Millstream::start(&Launch {
        dir,
        pipeline: "idle.toml",
        port: 0,
        env,
    })
}

/// A case with what is answered.
fn answered(text: &str) -> String {
    let parts = parts(text);
    let env = parts
        .iter()
        .filter_map(|(heading, _)| heading.strip_prefix("env ")?.split_once('='));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let env = env.map(|(name, value)| (name.into(), value.into()));
    let it = start(dir.path(), env.collect());
    let mut got = String::new();
    let mut uuid = String::new();
    for (heading, text) in &parts {
        let (first, _) = heading.split_once(' ').unwrap_or((heading, ""));
        match first {
            "GET" | "POST" | "PUT" | "DELETE" => {
                got += &format!("--- {heading}\n{text}");
                got += &answer(
                    &it,
                    &heading.replace("{uuid}", &uuid),
                    &text.replace("{uuid}", &uuid),
                    &mut uuid,
                );
            }
            "env" | "#" => got += &format!("--- {heading}\n{text}"),
            _ => {}
        }
    }
    got
}

/// Makes a request; gives status and body as a part of a case.
fn answer(it: &Millstream, line: &str, text: &str, uuid: &mut String) -> String {
    let is_header = |line: &str| {
        line.split_once(": ")
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
    };
    let (head, body) = match text.split_once("\n\n") {
        Some((head, body)) if head.lines().all(is_header) => (head, body),
        _ if !text.is_empty() && text.lines().all(is_header) => (text, ""),
        _ => ("", text),
    };
    let mut headers: Vec<&str> = head.lines().filter(|line| !line.is_empty()).collect();
    let typed = headers.iter().any(|header| header.starts_with("content-type"));
    if !typed && body.starts_with(['{', '[']) {
        headers.push("content-type: application/json");
    }
    let (status, head, said) = ask(&it.admin, line, &headers, body);
    let mut shown = String::new();
    if let Ok(value) = serde_json::from_str::<Value>(&said) {
        shown += &serde_json::to_string_pretty(&constant(value, uuid)).expect("JSON");
        shown += "\n";
    } else {
        shown += &said;
        if !said.ends_with('\n') {
            shown += "\n";
        }
    }
    let challenge = head.lines().find(|line| line.starts_with("www-authenticate"));
    let challenge = challenge.map(|line| format!("{line}\n")).unwrap_or_default();
    format!("--- {status}\n{challenge}{shown}")
}

/// JSON without what is another every time. Remembers a uuid.
fn constant(value: Value, uuid: &mut String) -> Value {
    match value {
        Value::String(text) => Value::String(constant_text(text, uuid)),
        Value::Array(all) => all.into_iter().map(|one| constant(one, uuid)).collect(),
        Value::Object(members) => {
            let one = |(key, value)| (key, constant(value, uuid));
            Value::Object(members.into_iter().map(one).collect())
        }
        other => other,
    }
}

fn constant_text(text: String, uuid: &mut String) -> String {
    let words = text.split(' ').map(|word| {
        if is_uuid(word.trim_end_matches(':')) {
            *uuid = word.trim_end_matches(':').into();
            "UUID"
        } else if word.len() >= 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T' {
            "TIME"
        } else {
            word
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

fn is_uuid(word: &str) -> bool {
    let lengths: Vec<usize> = word.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && word.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}
