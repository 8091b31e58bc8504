//! The sink against a server in the test that answers from a script.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use millstream_engine::ErrorClass;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::test_context;
use super::*;

/// A request as it arrived: idempotency key (without the series), authorization, body.
type Seen = (String, String, String);

/// Answers statuses from a script, then 200, and keeps what it was asked.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

async fn server(script: &[u16]) -> Server {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook?token=hidden", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let script = Arc::new(Mutex::new(VecDeque::from(script.to_vec())));
    let requests = seen.clone();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (requests, script) = (requests.clone(), script.clone());
            let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let (requests, script) = (requests.clone(), script.clone());
                async move {
                    let header = |name: &str| {
                        let value = request.headers().get(name);
                        value.map(|v| v.to_str().unwrap().to_string()).unwrap_or_default()
                    };
                    let key: Vec<String> = header("idempotency-key").split('/').map(String::from).collect();
                    let key = [&key[..2], &key[3..]].concat().join("/");
                    let bearer = header("authorization");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let body = String::from_utf8(body.to_vec()).unwrap();
                    requests.lock().unwrap().push((key, bearer, body));
                    let status = script.lock().unwrap().pop_front().unwrap_or(200);
                    http::Response::builder()
                        .status(status)
                        .header("retry-after", "3")
                        .body(Full::new(Bytes::from_static(b"because")))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    Server { url, seen }
}

impl Server {
    fn bodies(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|s| s.2.clone()).collect()
    }

    fn keys(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|s| s.0.clone()).collect()
    }
}

fn schema() -> arrow::datatypes::SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

fn rows(n: std::ops::Range<i64>) -> RecordBatch {
    RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from_iter_values(n))]).unwrap()
}

fn context(url: &str, dir: &Path, more: Value) -> SinkContext {
    let mut options = json!({ "url": url, "batch_rows": 2, "bearer_token": "secret" });
    for (key, value) in more.as_object().into_iter().flatten() {
        options[key] = value.clone();
    }
    test_context(schema(), dir, options)
}

fn barrier(epoch: u64) -> Barrier {
    Barrier {
        epoch: Epoch(epoch),
        last: false,
    }
}

#[tokio::test]
async fn a_repeated_commit_goes_on_where_it_stopped() {
    let (server, dir) = (server(&[200, 503, 200]).await, TempDir::new().unwrap());
    let cx = context(&server.url, dir.path(), json!({}));
    let mut sink = HttpSinkConnector.open(cx.clone()).await.unwrap();
    sink.write(rows(0..3)).await.unwrap();
    sink.write(rows(3..5)).await.unwrap();
    let what = sink.prepare(barrier(1)).await.unwrap();
    let error = sink.commit(Epoch(1), what.clone()).await.unwrap_err();
    assert_eq!(
        error.class(),
        ErrorClass::Retry {
            after: Some(Duration::from_secs(3))
        }
    );
    assert!(
        !error.to_string().contains("hidden") && !error.to_string().contains("secret"),
        "{error}"
    );
    sink.commit(Epoch(1), what.clone()).await.unwrap();
    sink.commit(Epoch(1), what).await.unwrap();
    let (first, second, third) = (r#"[{"n":0},{"n":1}]"#, r#"[{"n":2},{"n":3}]"#, r#"[{"n":4}]"#);
    assert_eq!(server.bodies(), [first, second, second, third]);
    assert_eq!(
        server.keys(),
        ["ads/out/1/0", "ads/out/1/1", "ads/out/1/1", "ads/out/1/2"]
    );
    assert_eq!(server.seen.lock().unwrap()[0].1, "Bearer secret");
    assert_eq!(cx.counters.get("rows_delivered"), 5);
}

#[tokio::test]
async fn a_crash_delivers_the_checkpoint_and_forgets_the_rest() {
    let (server, dir) = (server(&[]).await, TempDir::new().unwrap());
    let cx = context(&server.url, dir.path(), json!({ "format": "ndjson" }));
    let mut sink = HttpSinkConnector.open(cx.clone()).await.unwrap();
    sink.write(rows(0..2)).await.unwrap();
    sink.prepare(barrier(1)).await.unwrap();
    sink.write(rows(2..4)).await.unwrap();
    let what = sink.prepare(barrier(2)).await.unwrap();
    sink.write(rows(4..6)).await.unwrap();
    sink.prepare(barrier(3)).await.unwrap();
    sink.write(rows(6..8)).await.unwrap();
    drop(sink);

    let mut sink = HttpSinkConnector.open(cx.clone()).await.unwrap();
    sink.commit(Epoch(2), what.clone()).await.unwrap();
    assert_eq!(
        server.bodies(),
        ["{\"n\":0}\n{\"n\":1}\n", "{\"n\":2}\n{\"n\":3}\n"]
    );
    assert_eq!(server.keys(), ["ads/out/1/0", "ads/out/2/0"]);
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing stays in the outbox"
    );
    sink.commit(Epoch(2), what).await.unwrap();
    assert_eq!(server.bodies().len(), 2);
}

#[tokio::test]
async fn answers_are_sorted_by_who_must_act() {
    let retry = Some(ErrorClass::Retry {
        after: Some(Duration::from_secs(3)),
    });
    let config = Some(ErrorClass::Config);
    let cases = [
        (201, None, 0),
        (429, retry, 0),
        (500, retry, 0),
        (302, config, 0),
        (401, config, 0),
        (404, config, 0),
        (400, None, 2),
        (422, None, 2),
    ];
    for (status, class, refused) in cases {
        let (server, dir) = (server(&[status]).await, TempDir::new().unwrap());
        let cx = context(&server.url, dir.path(), json!({}));
        let mut sink = HttpSinkConnector.open(cx.clone()).await.unwrap();
        sink.write(rows(0..2)).await.unwrap();
        let what = sink.prepare(barrier(1)).await.unwrap();
        let result = sink.commit(Epoch(1), what).await;
        assert_eq!(result.err().map(|e| e.class()), class, "{status}");
        assert_eq!(cx.counters.get("rows_refused"), refused, "{status}");
    }
}

#[tokio::test]
async fn nobody_listening_is_tried_again() {
    let dir = TempDir::new().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut sink = HttpSinkConnector
        .open(context(&format!("http://{free}"), dir.path(), json!({})))
        .await
        .unwrap();
    sink.write(rows(0..1)).await.unwrap();
    let what = sink.prepare(barrier(1)).await.unwrap();
    let error = sink.commit(Epoch(1), what).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retry { after: None }, "{error}");
}

#[test]
fn wrong_options_are_named_and_secrets_are_not() {
    let cases = [
        (json!({ "url": "example.com/hidden" }), "write http://host/path"),
        (json!({ "url": "ftp://example.com/hidden" }), "url: names no http"),
        (
            json!({ "url": "http://x", "headers": { "bad name": "hidden" } }),
            "\"bad name\"",
        ),
        (
            json!({ "url": "http://x", "headers": { "x-key": "hidden\n" } }),
            "headers.x-key",
        ),
        (json!({ "url": "http://x", "batch_rows": 0 }), "at least 1"),
        (json!({ "url": "http://x", "header": {} }), "unknown field"),
    ];
    for (options, expect) in cases {
        let error = HttpSinkConnector
            .check(&test_context(schema(), Path::new("."), options))
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config);
        let error = error.to_string();
        assert!(error.contains(expect) && !error.contains("hidden"), "{error}");
    }
}

#[tokio::test]
async fn the_user_of_an_address_is_sent_unless_headers_say_who_asks() {
    for (more, expect) in [
        (json!({ "bearer_token": null }), "Basic dTpwQDE="),
        (json!({}), "Bearer secret"),
    ] {
        let (server, dir) = (server(&[]).await, TempDir::new().unwrap());
        let url = server.url.replace("http://", "http://u:p%401@");
        let mut sink = HttpSinkConnector
            .open(context(&url, dir.path(), more))
            .await
            .unwrap();
        sink.write(rows(0..1)).await.unwrap();
        let what = sink.prepare(barrier(1)).await.unwrap();
        sink.commit(Epoch(1), what).await.unwrap();
        assert_eq!(server.seen.lock().unwrap()[0].1, expect);
    }
}
