//! `GET /advertising/traffic/{ad-id}` of the real binary, on both addresses, from both stores: the cases of
//! `traffic/requests.case`.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::{Aws, Launch, Millstream, free_port, get, log, now_seconds, post, root};

/// Rows of the serving table as they come.
const FILLING: &str = r#"
name = "filling"

[checkpoint]
interval = "500ms"

[source.rows]
type = "http"
path = "/rows"
cors_origins = ["https://ads.example"]
[source.rows.columns]
ad_id = "string not null"
day = "timestamp not null"
impressions = "bigint not null"
clicks = "bigint not null"

[sql.traffic]
query = "SELECT ad_id, CAST(day AS DATE) AS day, impressions, clicks FROM rows"

[sink.serving]
input = "traffic"
key = ["ad_id", "day"]
"#;

const A: &str = "5f0c3a6e-8a55-4d0e-9a93-0d8a44f7a001";
const B: &str = "5f0c3a6e-8a55-4d0e-9a93-0d8a44f7a002";
const C: &str = "5f0c3a6e-8a55-4d0e-9a93-0d8a44f7a003";

#[test]
fn from_the_embedded_store() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = write(dir.path(), "type = \"sqlite\"\ntable = \"traffic\"");
    let launch = Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: free_port(),
        env: Vec::new(),
    };
    check(&launch, &[]);
}

#[test]
fn from_dynamodb() {
    let aws = Aws::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = write(
        dir.path(),
        "type = \"dynamodb\"\ntable = \"of_ads\"\ncreate = true",
    );
    let launch = Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: free_port(),
        env: aws.env.clone(),
    };
    let store = format!("dynamodb://of_ads?region=us-east-1&endpoint={}", aws.endpoint);
    check(&launch, &["--serve", &store]);
}

/// Where no table is, the answer says so, and how to get one.
#[test]
fn without_a_table() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let pipeline = write(dir.path(), "type = \"sqlite\"\ntable = \"other\"");
    let launch = Launch {
        dir: dir.path(),
        pipeline: &pipeline,
        port: 0,
        env: Vec::new(),
    };
    let it = Millstream::start(&launch);
    it.wait_for("no table", || {
        let (status, body) = get(&it.ingest, &format!("/advertising/traffic/{A}"));
        status == 404 && body.contains("no such table: traffic") && body.contains("--serve")
    });
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    for (store, says) in [
        (
            "mysql://x",
            "write sqlite, sqlite://FILE?table=NAME or dynamodb://TABLE",
        ),
        ("dynamodb://t?zone=x", "unknown key \"zone\""),
    ] {
        let mut child = support::spawn(&launch, &["--serve", store]);
        assert_eq!(child.wait().expect("it ends").code(), Some(1));
        assert!(log(dir.path()).contains(says), "{}", log(dir.path()));
    }
}

fn write(dir: &Path, sink: &str) -> String {
    let file = dir.join("filling.toml");
    std::fs::write(&file, format!("{FILLING}{sink}\n")).expect("a writable directory");
    file.display().to_string()
}

fn check(launch: &Launch<'_>, args: &[&str]) {
    let it = Millstream::start_with(launch, args);
    let mut rows =
        vec![json!({ "ad_id": B, "day": format!("{} 00:00:00", date(3)), "impressions": 10, "clicks": 3 })];
    for ago in 0..10 {
        let day = format!("{} 00:00:00", date(ago));
        rows.push(json!({ "ad_id": A, "day": day, "impressions": ago, "clicks": 1 }));
    }
    let (status, answer) = post(&it.ingest, "/rows", &json!(rows).to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(answer.starts_with(r#"{"failed_count":0"#), "{answer}");
    it.wait_for("the rows", || {
        let of = |ad: &str| {
            get(
                &it.ingest,
                &format!("/advertising/traffic/{ad}?start={}", date(9)),
            )
            .1
        };
        of(A).starts_with(r#"{"count":10"#) && of(B).starts_with(r#"{"count":1"#)
    });
    let cases = std::fs::read_to_string(root().join("server/tests/traffic/requests.case")).expect("cases");
    for base in [&it.ingest, &it.admin] {
        check_cases(base, &cases);
    }
    check_origin(&it.ingest);
    assert_eq!(it.terminate(), 0, "{}", log(launch.dir));
}

fn check_cases(base: &str, cases: &str) {
    let mut next = String::new();
    let lines = cases
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    for case in lines.chunks(2) {
        let [request, expect] = case else {
            panic!("{case:?} is no case");
        };
        let request = fill(request).replace("{next}", &next);
        let (status, body) = get(base, &format!("/advertising/traffic/{request}"));
        let (expect_status, expect) = expect.split_once(' ').expect("status and body");
        assert_eq!(status.to_string(), expect_status, "{request}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        if let Some(message) = body["error"].as_str() {
            assert!(message.starts_with(&fill(expect)), "{request}: {message}");
            continue;
        }
        next = body["next"].as_str().unwrap_or_default().into();
        let safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(next.chars().all(safe), "{request}: {next} is not for a URL");
        let expect = fill(expect).replace("{cursor}", &next);
        assert_eq!(
            body,
            serde_json::from_str::<Value>(&expect).expect("JSON"),
            "{request}"
        );
        // Whoever reads along sees the members in this order.
        let members: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["count", "next", "days"]);
    }
}

fn fill(text: &str) -> String {
    let mut text = text.replace("{A}", A).replace("{B}", B).replace("{C}", C);
    for ago in 0..10 {
        text = text.replace(&format!("{{{ago}}}"), &date(ago));
    }
    text
}

/// Pages of the origins that may send rows may read.
fn check_origin(base: &str) {
    for (method, origin, status, allowed) in [
        ("GET", "https://ads.example", "200", true),
        ("GET", "https://evil.example", "200", false),
        ("OPTIONS", "https://ads.example", "200", true),
        ("POST", "https://ads.example", "405", true),
    ] {
        let head = head(base, method, origin);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{method}: {head}"
        );
        let named = head.contains(&format!("access-control-allow-origin: {origin}"));
        assert_eq!(named, allowed, "{method} from {origin}: {head}");
        assert!(head.to_lowercase().contains("content-length: "), "{head}");
    }
}

fn head(base: &str, method: &str, origin: &str) -> String {
    use std::io::{Read, Write};
    let host = base.trim_start_matches("http://");
    let mut to = std::net::TcpStream::connect(host).expect("listening");
    to.set_read_timeout(Some(support::PATIENCE))
        .expect("a time limit");
    let request = format!(
        "{method} /advertising/traffic/{A} HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\nconnection: close\r\n\r\n"
    );
    to.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    to.read_to_string(&mut answer).expect("text");
    answer
        .split_once("\r\n\r\n")
        .expect("a whole answer")
        .0
        .to_owned()
}

/// The date so many days before today.
fn date(ago: i64) -> String {
    let at =
        arrow::temporal_conversions::timestamp_s_to_datetime(now_seconds() - ago * 86_400).expect("a time");
    at.format("%Y-%m-%d").to_string()
}
