//! The binary as its users meet it: what it prints, and the code it ends with.

use std::path::Path;
use std::process::{Command, Output};

fn millstream(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(args).current_dir(dir);
    for name in ["DATA_DIR", "LISTEN", "ADMIN", "LOG_FORMAT"] {
        command.env_remove(format!("MILLSTREAM_{name}"));
    }
    command.output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs in an empty directory and checks the exit code and that each part is on standard output or error.
fn check(args: &[&str], code: i32, parts: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("wrong.toml"), "nmae = \"x\"\n").expect("a writable directory");
    let out = millstream(dir.path(), args);
    let all = text(&out.stdout) + &text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {all}");
    for part in parts {
        assert!(all.contains(part), "{args:?}: no {part:?} in: {all}");
    }
}

#[test]
fn exit_codes_tell_a_mistake_from_a_failure() {
    check(
        &["--help"],
        0,
        &[
            "run",
            "check",
            "explain",
            "test",
            "preview",
            "schema",
            "log",
            "--data-dir",
        ],
    );
    check(&["--version"], 0, &[env!("CARGO_PKG_VERSION")]);
    check(&[], 2, &["Usage"]);
    check(&["rum"], 2, &["rum"]);
    check(&["run", "--admin", "here"], 2, &["--admin", "host:port"]);
    for command in ["run", "check", "explain", "test", "preview"] {
        check(&[command, "missing.toml"], 2, &["cannot read missing.toml"]);
        check(
            &[command, "wrong.toml"],
            2,
            &["wrong.toml:1:", "wrong.toml: ", " error"],
        );
    }
    check(&["log", "verify", "missing"], 1, &["error: "]);
    check(&["health", "--admin", "127.0.0.1:1"], 1, &["does not answer"]);
}

#[test]
fn nothing_is_left_behind_by_a_run_that_was_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("wrong.toml"), "nmae = \"x\"\n").expect("a writable directory");
    millstream(dir.path(), &["run", "wrong.toml"]);
    assert!(!dir.path().join("data").exists());
}

#[test]
fn check_goes_through_all_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for name in ["a.toml", "b.toml"] {
        std::fs::write(dir.path().join(name), "nmae = \"x\"\n").expect("a writable directory");
    }
    let out = millstream(dir.path(), &["check", "."]);
    let all = text(&out.stdout);
    assert!(all.contains("a.toml:1:") && all.contains("b.toml:1:"), "{all}");
}

#[test]
fn the_schema_is_json() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let out = millstream(dir.path(), &["schema", "pipeline"]);
    assert_eq!(out.status.code(), Some(0));
    let schema: serde_json::Value = serde_json::from_slice(&out.stdout).expect("json");
    assert!(schema.is_object());
}

const LOG: &str = r#"
name = "people"
[source.log]
type = "file"
path = "in"
format = "log"
schema = "people.yaml"
[sink.out]
type = "console"
input = "log.*"

[[test]]
name = "one that is good"
[test.input]
log = [
  { name = "Fred", height = 72 },
  { height = 64 },
  { name = "Wilma", shoes = "none" },
  { name = "Anna", height = 40000 },
]
[test.expect]
"log.people" = [
  { name = "Fred", height = 72 },
  { name = "Wilma", height = "NULL" },
]
"log.pipeline_errors" = [
  { line_number = 2, error_reason = "missing_value" },
  { line_number = 4, error_reason = "out_of_range" },
]

[[test]]
name = "one that is not"
[test.input]
log = [{ name = "Fred", height = 72 }]
[test.expect]
"log.people" = [{ name = "Fred", height = 73 }]
"#;

/// Lines of a log become rows of the schema's tables in a test, too.
#[test]
fn tests_of_a_log_are_its_lines() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pipelines/people.yaml");
    std::fs::copy(schema, dir.path().join("people.yaml")).expect("a readable schema");
    std::fs::write(dir.path().join("people.toml"), LOG).expect("a writable directory");
    let out = millstream(dir.path(), &["test", "people.toml"]);
    let all = text(&out.stdout) + &text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{all}");
    for part in [
        "ok    one that is good",
        "stream log.people: 1 of 1 expected rows came out otherwise",
    ] {
        assert!(all.contains(part), "no {part:?} in: {all}");
    }
}
