//! Secrets are printed nowhere: every place that can hold one holds one that is marked, and everything that comes out of
//! the real binary is searched for the mark, with libraries logging all they can.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Aws, Launch, Millstream, PATIENCE, get, log, pause, post, put_object, python_json, spawn};

/// Begins every secret.
const MARK: &str = "marked-";

/// A pipeline with a secret wherever one can be.
fn pipeline(receiver: &str, aws: &str) -> String {
    let host = receiver.trim_start_matches("http://");
    format!(
        r#"name = "secrets"
[checkpoint]
interval = "1s"

[source.clicks]
type = "http"
path = "/clicks"
[source.clicks.columns]
click_id = "string not null"

[table.known]
path = "s3://secrets/known.csv"
endpoint = "{aws}"
assume_role = {{ role_arn = "arn:aws:iam::123456789012:role/table", external_id = "marked-external-id-of-table" }}
[table.known.columns]
click_id = "string not null"

[sql.joined]
query = "SELECT c.click_id, c.received_at FROM clicks c LEFT JOIN known k ON c.click_id = k.click_id WHERE c.click_id <> '${{QUERY_SECRET}}'"

[sink.hook]
type = "http"
input = "joined"
url = "http://user:marked-password@{host}/marked-path/hook?marked-query=1"
headers = {{ X-Key = "marked-header", X-Other = "${{HOOK_HEADER}}" }}
bearer_token = "${{HOOK_TOKEN}}"

[sink.lake]
type = "parquet"
input = "clicks"
path = "s3://secrets/clicks"
endpoint = "{aws}"
event_time = ""

[sink.lake.assume_role]
role_arn = "arn:aws:iam::123456789012:role/lake"
external_id = "${{LAKE_ID}}"
"#
    )
    .replace("event_time = \"\"\n", "")
}

/// The environment: credentials, and what the pipeline takes from it.
fn environment(aws: &Aws, sts: &str) -> Vec<(String, String)> {
    let ours = [
        ("AWS_ENDPOINT_URL_STS", sts),
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "marked-secret-access-key"),
        ("AWS_SESSION_TOKEN", "marked-session-token"),
        ("HOOK_HEADER", "marked-header-of-variable"),
        ("HOOK_TOKEN", "marked-bearer-token"),
        ("LAKE_ID", "marked-external-id-of-lake"),
        ("QUERY_SECRET", "marked-query-secret"),
        ("RUST_LOG", "trace"),
    ];
    let ours = ours.map(|(k, v)| (k.to_string(), v.to_string()));
    aws.env.iter().cloned().chain(ours).collect()
}

#[test]
fn a_run_prints_no_secret_even_when_everything_is_logged() {
    let aws = Aws::start();
    python_json("bucket.py", &["secrets"], &aws.env);
    put_object(&aws.endpoint, "secrets/known.csv", "click_id\nc1\n");
    let receiver = serve(|_| ("503 Busy", "no".into()));
    let sts = serve(|_| ("200 OK", credentials()));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = write(dir.path(), &pipeline(&receiver, &aws.endpoint));
    let launch = Launch {
        dir: dir.path(),
        pipeline: &file,
        port: 0,
        env: environment(&aws, &sts),
    };
    let it = Millstream::start(&launch);
    let row = json!({"click_id": "c1"}).to_string();
    assert_eq!(post(&it.ingest, "/clicks", &row).0, 200);
    it.wait_for("the refusal", || log(dir.path()).contains("answered 503"));
    let answers = answers(&it);
    // It waits for its receiver in vain.
    it.kill();

    let log = log(dir.path());
    assert!(
        log.contains("AssumeRole") && log.contains("x-amz-security-token"),
        "libraries log what they send"
    );
    assert!(answers.contains("\"secrets\"") && answers.contains("sink.hook"));
    assert_unmarked("the log", &log);
    assert_unmarked("the API", &answers);
    for file in files(&dir.path().join("data")) {
        let bytes = std::fs::read(&file).expect("a file of ours");
        assert_unmarked(&file.display().to_string(), &String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn checking_and_explaining_print_no_secret() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let good = pipeline("http://127.0.0.1:9", "http://127.0.0.1:9");
    let file = write(dir.path(), &good);
    for format in ["text", "mermaid", "json"] {
        let out = millstream(&["explain", &file, "--format", format]);
        assert!(out.status.success(), "{out:?}");
        let text = printed(&out);
        assert_unmarked(format, &text);
        if format != "mermaid" {
            assert!(
                text.contains("http://***@127.0.0.1:9/***") && text.contains("role/lake"),
                "{text}"
            );
        }
    }
    // What is wrong stands beside a secret, or is one.
    for (from, to, message) in [
        (
            "http://user:marked-password@",
            "ftp://user:marked-password@",
            "names no http or https host",
        ),
        ("X-Key", "\"X Key\"", "cannot be a header's name"),
        (
            "\"marked-header\"",
            "\"marked-header\\u0007\"",
            "holds characters",
        ),
        ("bearer_token", "bearer_tokn", "did you mean `bearer_token`?"),
        (
            "\"${LAKE_ID}\"",
            "\"${LAKE_ID}\"\nsession_name = \"${LAKE_ID} ${HOOK_TOKEN}\"",
            "does not match ^[",
        ),
        (
            "endpoint = \"http://",
            "endpoint = \"http://user:marked-user@",
            "names a user",
        ),
        ("c.click_id <> '", "nothing <> '", "no column \"nothing\""),
        (
            "path = \"/clicks\"",
            "path = \"${HOOK_TOKEN}\"",
            "does not match ^/",
        ),
    ] {
        let out = millstream(&["check", &write(dir.path(), &good.replace(from, to))]);
        let text = printed(&out);
        assert_eq!(out.status.code(), Some(2), "{text}");
        assert!(text.contains(message), "{message} is not in: {text}");
        assert_unmarked("check", &text);
    }
}

/// A role that may not be assumed is the user's to mend, a service that is away is not.
#[test]
fn a_role_that_is_refused_ends_the_run_and_says_so() {
    let aws = Aws::start();
    python_json("bucket.py", &["secrets"], &aws.env);
    let receiver = serve(|_| ("200 OK", String::new()));
    let sts = serve(|_| ("403 Forbidden", REFUSED.into()));
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = write(dir.path(), &pipeline(&receiver, &aws.endpoint));
    let mut env = environment(&aws, &sts);
    env.push(("RUST_LOG".into(), "info".into()));
    let launch = Launch {
        dir: dir.path(),
        pipeline: &file,
        port: 0,
        env,
    };
    let mut run = spawn(&launch, &[]);
    let started = Instant::now();
    while run.try_wait().expect("its state is known").is_none() && started.elapsed() < PATIENCE {
        pause(Duration::from_millis(50));
    }
    let _ = run.kill();
    let status = run.wait().expect("it has ended");
    let log = log(dir.path());
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains("reading s3://secrets/known.csv") && log.contains("not authorized to assume"),
        "{log}"
    );
    assert_unmarked("the log", &log);
}

const REFUSED: &str = r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>not authorized to assume the role</Message></Error></ErrorResponse>"#;

fn credentials() -> String {
    r#"<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIAIOSFODNN7EXAMPLE</AccessKeyId><SecretAccessKey>marked-assumed-key</SecretAccessKey>
<SessionToken>marked-assumed-token</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>
</AssumeRoleResult></AssumeRoleResponse>"#
        .into()
}

fn assert_unmarked(what: &str, text: &str) {
    if let Some(at) = text.find(MARK) {
        let line = text[..at].matches('\n').count() + 1;
        let from = (0..=at.saturating_sub(300))
            .rev()
            .find(|i| text.is_char_boundary(*i));
        let context: String = text[from.unwrap_or(0)..].chars().take(500).collect();
        panic!("{what}, line {line}: {context}");
    }
}

/// Everything the API and the console answer.
fn answers(it: &Millstream) -> String {
    let paths = [
        "/",
        "/console/app.js",
        "/metrics",
        "/readyz",
        "/api/v1/pipelines",
        "/api/v1/pipelines/secrets",
        "/api/v1/pipelines/nothing",
        "/api/v1/pipelines/secrets/streams/clicks",
        "/api/v1/pipelines/secrets/streams/joined",
    ];
    paths.map(|path| get(&it.admin, path).1).join("\n")
}

fn write(dir: &Path, text: &str) -> String {
    let file = dir.join("secrets.toml");
    std::fs::write(&file, text).expect("a writable directory");
    file.display().to_string()
}

fn millstream(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(args)
        .envs([
            ("HOOK_HEADER", "marked-header-of-variable"),
            ("HOOK_TOKEN", "marked-bearer-token"),
            ("LAKE_ID", "marked-external-id-of-lake"),
            ("QUERY_SECRET", "marked-query-secret"),
        ])
        .output()
        .expect("the binary starts")
}

fn printed(out: &Output) -> String {
    String::from_utf8_lossy(&[&out.stdout[..], &out.stderr].concat()).into_owned()
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory of ours").flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

/// A service that gives every request the same kind of answer; its thread ends with the test process.
fn serve(answer: fn(&str) -> (&'static str, String)) -> String {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", socket.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for client in socket.incoming().flatten() {
            std::thread::spawn(move || respond(client, answer));
        }
    });
    url
}

fn respond(client: TcpStream, answer: fn(&str) -> (&'static str, String)) -> std::io::Result<()> {
    let mut client = BufReader::new(client);
    let (mut line, mut length) = (String::new(), 0);
    while client.read_line(&mut line)? > 0 && line != "\r\n" {
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap_or(0);
        }
        line.clear();
    }
    let mut body = vec![0; length];
    std::io::Read::read_exact(&mut client, &mut body)?;
    let (status, text) = answer(&String::from_utf8_lossy(&body));
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/xml\r\ncontent-length: {}",
        text.len()
    );
    write!(client.get_mut(), "{head}\r\nconnection: close\r\n\r\n{text}")
}
