//! Several pipelines in one process: one that fails does not touch the others, and says why.

mod support;

use serde_json::Value;
use support::{Launch, Millstream, get, post};

/// `ratio` divides by a column: a row with 0 makes the pipeline fail.
const FRAGILE: &str = r#"
name = "fragile"
[source.numbers]
type = "http"
path = "/numbers"
columns = { n = "bigint not null" }
[sql.ratio]
query = "SELECT 100 / n AS ratio FROM numbers"
[sink.out]
type = "console"
input = "ratio"
format = "ndjson"
"#;

const STEADY: &str = r#"
name = "steady"
[source.words]
type = "http"
path = "/words"
columns = { word = "string not null" }
[sink.out]
type = "console"
input = "words"
format = "ndjson"
"#;

/// Where it delivers to refuses for good: a person must act.
const REFUSED: &str = r#"
name = "refused"
[source.things]
type = "http"
path = "/things"
columns = { thing = "string not null" }
[checkpoint]
interval = "200ms"
[sink.out]
type = "http"
input = "things"
url = "http://127.0.0.1:PORT/nowhere"
"#;

#[test]
fn a_failing_pipeline_restarts_and_says_why_while_others_run() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let folder = dir.path().join("pipelines");
    std::fs::create_dir(&folder).expect("a writable directory");
    std::fs::write(folder.join("fragile.toml"), FRAGILE).expect("a writable directory");
    std::fs::write(folder.join("steady.toml"), STEADY).expect("a writable directory");
    let it = Millstream::start(&launch(dir.path()));

    assert_eq!(post(&it.ingest, "/numbers", r#"[{"n":5},{"n":0}]"#).0, 200);
    it.wait_for("a restart", || {
        status(&it, "fragile")["restarts"].as_u64() >= Some(2)
    });
    let why = status(&it, "fragile")["error"].to_string();
    assert!(
        why.contains("ratio") && why.to_lowercase().contains("zero"),
        "{why}"
    );
    // Its path answers, and asks to come again while it is down.
    assert!([200, 503].contains(&post(&it.ingest, "/numbers", r#"{"n":1}"#).0));
    assert!(
        get(&it.admin, "/metrics")
            .1
            .contains("millstream_pipeline_restarts_total{pipeline=\"fragile\"}")
    );

    assert_eq!(status(&it, "steady")["state"], "running");
    assert_eq!(post(&it.ingest, "/words", r#"{"word":"still here"}"#).0, 200);
    it.wait_for("the other's row", || {
        it.printed_rows().iter().any(|row| row["word"] == "still here")
    });
    assert_eq!(it.terminate(), 1, "a pipeline that could not drain is a failure");
}

#[test]
fn a_configuration_error_is_final() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let folder = dir.path().join("pipelines");
    std::fs::create_dir(&folder).expect("a writable directory");
    std::fs::write(folder.join("steady.toml"), STEADY).expect("a writable directory");
    // The other process answers 404 to every path it does not know.
    let elsewhere = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(elsewhere.path().join("pipelines")).expect("a writable directory");
    std::fs::write(elsewhere.path().join("pipelines/steady.toml"), STEADY).expect("a writable directory");
    let other = Millstream::start(&launch(elsewhere.path()));
    let port = other.ingest.rsplit(':').next().expect("an address with a port");
    std::fs::write(folder.join("refused.toml"), REFUSED.replace("PORT", port)).expect("a writable directory");

    let it = Millstream::start(&launch(dir.path()));
    assert_eq!(post(&it.ingest, "/things", r#"{"thing":"x"}"#).0, 200);
    it.wait_for("the pipeline to fail", || {
        status(&it, "refused")["state"] == "failed"
    });
    let status = status(&it, "refused");
    assert_eq!(status["restarts"], 0, "{status}");
    assert!(status["error"].to_string().contains("404"), "{status}");
    let (code, why) = get(&it.admin, "/readyz");
    assert_eq!(code, 503);
    assert!(why.contains("refused") && !why.contains("steady"), "{why}");
}

fn launch(dir: &std::path::Path) -> Launch<'_> {
    Launch {
        dir,
        pipeline: "pipelines",
        port: 0,
        env: Vec::new(),
    }
}

fn status(it: &Millstream, pipeline: &str) -> Value {
    let (code, body) = get(&it.admin, &format!("/api/v1/pipelines/{pipeline}"));
    assert_eq!(code, 200, "{body}");
    let all: Value = serde_json::from_str(&body).expect("the API answers with JSON");
    all["status"].clone()
}
