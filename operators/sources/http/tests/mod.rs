//! A real server on a real socket. `cases.json` holds one request and its answer per case; what needs
//! more than one write, or a client that misbehaves, is a test of its own.

mod client;
mod delivery;
mod plain;
mod stop;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use futures::{StreamExt, TryStreamExt};
use millstream_engine::ErrorClass;
use millstream_engine::metrics::Counters;
use millstream_engine::source::{Offset, Offsets, PartitionId, RECEIVED_AT};
use millstream_engine::time::{Timestamp, timestamp_type};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::client::{Client, post, request};
use super::*;
use crate::log::{Log, LogOptions};
use crate::sources::http::endpoint::{Endpoint, partition_of};

const PATH: &str = "/advertising/impressions";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default = "method")]
    method: String,
    #[serde(default = "path")]
    path: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body, in one of these forms.
    body: Option<Value>,
    text: Option<String>,
    latin1: Option<String>,
    impressions: Option<usize>,
    spaces: Option<usize>,
    encode: Option<String>,
    status: u16,
    answer: Option<Value>,
    text_out: Option<String>,
    error_begins: Option<String>,
    #[serde(default)]
    gif: bool,
    /// Headers the answer must have, or with null must not.
    #[serde(default)]
    headers_out: BTreeMap<String, Option<String>>,
    /// Rows that reach the source.
    #[serde(default)]
    rows: usize,
    /// Rows that reach its invalid stream.
    #[serde(default)]
    invalid: usize,
}

fn method() -> String {
    "POST".into()
}

fn path() -> String {
    PATH.into()
}

/// Every case gets its answer, and what reaches the sources is exactly what was answered.
#[tokio::test]
async fn cases() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("../cases.json")).expect("cases");
    let house = House::new(Limits::default());
    let (impressions, stop) = house.open("impressions", impressions_options());
    let plain_options = json!({"path": "/plain", "cors_origins": ["https://ours.example"]});
    let (plain, _) = house.open("plain", plain_options);
    for case in &cases {
        for hyper in [false, true] {
            check(house.ingest.local_addr(), case, hyper);
        }
    }
    house.ingest.shutdown().await;
    assert!(
        !stop.is_cancelled(),
        "the streams end by themselves when the server is shut down"
    );
    let mut got = [0, 0];
    for source in [impressions, plain] {
        let (rows, invalid) = read_all(&source).await;
        got[0] += rows.num_rows();
        got[1] += invalid.num_rows();
    }
    let rows = 2 * cases.iter().map(|c| c.rows).sum::<usize>();
    let invalid = 2 * cases.iter().map(|c| c.invalid).sum::<usize>();
    assert_eq!(got, [rows, invalid], "rows and invalid rows");
    let stats = house.ingest.stats();
    assert_eq!((stats.rows, stats.invalid), (rows as u64, invalid as u64));
    assert_eq!(stats.answers.values().sum::<u64>(), 3 * cases.len() as u64);
}

/// Sends a case over a connection that begins with it, or that is hyper's after another request.
fn check(to: std::net::SocketAddr, case: &Case, hyper: bool) {
    let mut client = Client::connect(to);
    if hyper {
        client.send(&request("OPTIONS", PATH, &BTreeMap::new(), b""));
        assert_eq!(client.receive().expect("an answer").status, 200);
    }
    client.send(&request(&case.method, &case.path, &case.headers, &case.bytes()));
    let reply = match case.method.as_str() {
        "HEAD" => client.receive_head(),
        _ => client.receive(),
    };
    let reply = reply.unwrap_or_else(|| panic!("{}: no answer", case.name));
    let name = format!("{}: {reply:?}", case.name);
    assert_eq!(reply.status, case.status, "{name}");
    for (header, value) in &case.headers_out {
        assert_eq!(reply.headers.get(header), value.as_ref(), "{header} of {name}");
    }
    let closes = reply.headers.get("connection").map(String::as_str) == Some("close");
    assert_eq!(closes, reply.status >= 400, "{name}");
    if let Some(answer) = &case.answer {
        assert_eq!(reply.text(), answer.to_string(), "{name}");
    }
    if let Some(text) = &case.text_out {
        assert_eq!(&reply.text(), text, "{name}");
    }
    if let Some(begins) = &case.error_begins {
        let answer: Value = serde_json::from_slice(&reply.body).expect("JSON");
        let error = answer["error"].as_str().expect("an error");
        assert!(error.starts_with(begins), "{name}");
    }
    if case.gif {
        assert_eq!(
            (&reply.body[..6], reply.body.len()),
            (&b"GIF89a"[..], 43),
            "{name}"
        );
    }
}

impl Case {
    fn bytes(&self) -> Vec<u8> {
        let plain = if let Some(body) = &self.body {
            body.to_string().into_bytes()
        } else if let Some(text) = &self.text {
            text.clone().into_bytes()
        } else if let Some(text) = &self.latin1 {
            text.chars().map(|c| c as u8).collect()
        } else if let Some(count) = self.impressions {
            envelope(0..count).into_bytes()
        } else {
            vec![b' '; self.spaces.unwrap_or_default()]
        };
        match self.encode.as_deref() {
            Some("gzip") => gzip(&plain),
            Some("zstd") => zstd::encode_all(&plain[..], 3).expect("in memory"),
            _ => plain,
        }
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(plain).expect("in memory");
    encoder.finish().expect("in memory")
}

fn envelope(ids: std::ops::Range<usize>) -> String {
    let row = |id| json!({"impression_id": id, "ad_id": "a", "occurred_at": "2026-03-01 12:00:00.123"});
    let rows: Vec<_> = ids.map(|id| row(id.to_string())).collect();
    json!({"impressions": rows}).to_string()
}

/// A server, and a place for the logs of its sources.
struct House {
    ingest: Arc<Ingest>,
    dir: tempfile::TempDir,
}

impl House {
    fn new(limits: Limits) -> House {
        House::expecting(&[], limits)
    }

    fn expecting(paths: &[&str], limits: Limits) -> House {
        let limits = Limits { lanes: 2, ..limits };
        let listen = "127.0.0.1:0".parse().expect("an address");
        House {
            ingest: Ingest::start(listen, limits, paths).expect("a free port"),
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn context(&self, name: &str, options: Value) -> SourceContext {
        let required = |name: &str| Field::new(name, DataType::Utf8, false);
        let fields = match name {
            "plain" => vec![
                required("id"),
                Field::new("n", DataType::Int64, true),
                Field::new(RECEIVED_AT, timestamp_type(), false),
            ],
            _ => vec![
                required("impression_id"),
                required("ad_id"),
                Field::new("occurred_at", timestamp_type(), false),
            ],
        };
        SourceContext {
            run: None,
            pipeline: "advertising".into(),
            name: name.into(),
            schema: Arc::new(Schema::new(fields)),
            event_time: 2,
            options,
            data_dir: self.dir.path().join(name),
            stop: CancellationToken::new(),
            counters: Counters::detached(),
        }
    }

    fn open(&self, name: &str, options: Value) -> (Arc<dyn Source>, CancellationToken) {
        let cx = self.context(name, options);
        let stop = cx.stop.clone();
        let source = HttpConnector::new(self.ingest.clone()).open(cx);
        let source = source.expect("a source");
        // As the runtime does; the path is open then.
        let none = Offsets::new();
        futures::executor::block_on(source.partitions(&none)).expect("partitions");
        (source, stop)
    }

    fn client(&self) -> Client {
        Client::connect(self.ingest.local_addr())
    }

    fn status(&self, request: &[u8]) -> u16 {
        let mut client = self.client();
        client.send(request);
        client.receive().expect("an answer").status
    }
}

fn impressions_options() -> Value {
    json!({"path": PATH, "records": "impressions"})
}

/// Everything a source has, once it has been stopped: rows and invalid rows.
async fn read_all(source: &Arc<dyn Source>) -> (RecordBatch, RecordBatch) {
    let (mut rows, mut invalid) = (Vec::new(), Vec::new());
    for partition in source
        .partitions(&Offsets::new())
        .await
        .expect("partitions")
        .ids()
    {
        let batches: Vec<_> = source
            .read(&partition, None)
            .try_collect()
            .await
            .expect("no error");
        for batch in batches {
            rows.push(batch.rows);
            invalid.extend(batch.invalid);
        }
    }
    let concat = |schema, batches: &[RecordBatch]| {
        arrow::compute::concat_batches(&schema, batches).expect("one schema")
    };
    let invalid_schema = millstream_engine::source::invalid_schema();
    (concat(source.schema(), &rows), concat(invalid_schema, &invalid))
}

fn ids(rows: &RecordBatch) -> Vec<usize> {
    let ids = rows.column(0).as_string::<i32>().iter().flatten();
    let mut ids: Vec<_> = ids.map(|id| id.parse().expect("a number")).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn invalid_rows_say_what_came_from_where_and_why() {
    let house = House::new(Limits::default());
    let (source, stop) = house.open("plain", json!({"path": "/plain"}));
    let before = Timestamp::now();
    house.status(&post(
        "/plain",
        "[{\"id\":\"ok\"}, {\"id\": \"\\u00e9\", \"n\":\"x\"}]",
    ));
    house.status(&post("/plain", "no json"));
    house.status(b"GET /plain.gif?n=1 HTTP/1.1\r\nhost: x\r\n\r\n");
    stop.cancel();
    let (rows, invalid) = read_all(&source).await;
    let received = rows.column(2).as_primitive::<TimestampMicrosecondType>().value(0);
    assert!((before.0..=Timestamp::now().0).contains(&received));
    let (origin, reason) = (
        invalid.column(1).as_string::<i32>(),
        invalid.column(2).as_string::<i32>(),
    );
    let raw = invalid.column(3).as_binary::<i32>();
    let mut got: Vec<_> = (0..invalid.num_rows())
        .map(|at| {
            let reason = reason.value(at).split(':').next().expect("a code");
            (origin.value(at), reason, String::from_utf8_lossy(raw.value(at)))
        })
        .collect();
    got.sort_unstable();
    let expect = [
        ("GET /plain.gif from 127.0.0.1", "missing_field", "n=1".into()),
        ("POST /plain from 127.0.0.1", "invalid JSON", "no json".into()),
        (
            "POST /plain row 2 from 127.0.0.1",
            "wrong_type",
            "{\"id\": \"\\u00e9\", \"n\":\"x\"}".into(),
        ),
    ];
    assert_eq!(got, expect);
}

#[tokio::test]
async fn a_restart_loses_and_repeats_nothing() {
    let house = House::new(Limits::default());
    // A run with more lanes has left this one.
    std::fs::create_dir_all(house.dir.path().join("impressions/lane-7")).expect("a directory");
    let (source, stop) = house.open("impressions", impressions_options());
    let names: Vec<_> = source
        .partitions(&Offsets::new())
        .await
        .expect("partitions")
        .ids()
        .map(|p| p.0)
        .collect();
    assert_eq!(names, ["lane-0", "lane-1", "lane-7"]);

    let mut kept = house.client();
    let mut send = |ids: std::ops::Range<usize>| {
        for id in ids {
            kept.send(&post(PATH, envelope(id..id + 1)));
            assert_eq!(kept.receive().expect("an answer").status, 200);
        }
    };
    send(0..10);
    // The offset of a batch resumes behind it; what is released is gone.
    let (partition, first) = first_batch(&source).await;
    send(10..20);
    let resumed: Vec<_> = source
        .read(&partition, Some(first.offset.clone()))
        .take(1)
        .try_collect()
        .await
        .expect("no error");
    assert_ne!(ids(&resumed[0].rows), ids(&first.rows));
    let done = Offsets::from([(partition, first.offset)]);
    source.commit(&done).await.expect("released");
    source.commit(&done).await.expect("released again");

    stop.cancel();
    let (rest, _) = read_all(&source).await;
    let mut all = [ids(&first.rows), ids(&rest)].concat();
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<_>>());

    // On its way back it asks for patience, also over a connection it had before.
    kept.send(&post(PATH, envelope(0..1)));
    let away = kept.receive().expect("an answer");
    assert_eq!((away.status, away.headers["retry-after"].as_str()), (503, "1"));
    assert_eq!(away.headers["connection"], "close");
    assert_eq!(house.status(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n"), 503);
    drop(source);
    assert_eq!(house.status(&post(PATH, envelope(0..1))), 503);

    let (again, _) = house.open("impressions", impressions_options());
    assert_eq!(house.status(&post(PATH, envelope(0..1))), 200);
    drop(again);
    assert_eq!(house.status(&post(PATH, envelope(0..1))), 503);
}

async fn first_batch(source: &Arc<dyn Source>) -> (PartitionId, millstream_engine::source::SourceBatch) {
    let partitions = source
        .partitions(&Offsets::new())
        .await
        .expect("partitions")
        .ids();
    let first = partitions.map(|partition| {
        let mut stream = source.read(&partition, None);
        Box::pin(async move {
            (
                partition,
                stream.next().await.expect("a batch").expect("no error"),
            )
        })
    });
    futures::future::select_all(first).await.0
}

#[tokio::test]
async fn a_path_that_will_open_soon_asks_for_patience() {
    let house = House::expecting(&[PATH], Limits::default());
    let ready = b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(house.status(&post(PATH, envelope(0..1))), 503);
    assert_eq!(house.status(&post("/other", envelope(0..1))), 404);
    assert_eq!(house.status(ready), 503);
    let (_source, _) = house.open("impressions", impressions_options());
    assert_eq!(house.status(&post(PATH, envelope(0..1))), 200);
    assert_eq!(house.status(ready), 200);
}

#[tokio::test]
async fn a_path_has_one_holder() {
    let house = House::new(Limits::default());
    let (_source, _) = house.open("impressions", impressions_options());
    let rival = house.context("rival", impressions_options());
    let error = HttpConnector::new(house.ingest.clone())
        .open(rival)
        .err()
        .expect("refused");
    assert_eq!(error.class(), ErrorClass::Config);
    assert_eq!(
        error.to_string(),
        "path \"/advertising/impressions\" is taken by source \"impressions\" of pipeline \"advertising\"; \
         give each http source a path of its own"
    );
    // The same source again is its own restart: it takes over, whoever still holds on to the old one.
    for _ in 0..8 {
        assert_eq!(house.status(&post(PATH, envelope(0..1))), 200);
    }
    let (again, stop) = house.open("impressions", impressions_options());
    assert_eq!(house.status(&post(PATH, envelope(0..1))), 200);
    stop.cancel();
    assert_eq!(read_all(&again).await.0.num_rows(), 9);
}

#[test]
fn options_are_checked() {
    let house = House::new(Limits::default());
    let cases = [
        (json!({"path": "/x"}), "ok"),
        (json!({"path": "x"}), "path \"x\" is not the path of a URL"),
        (json!({"path": "/x?y"}), "path \"/x?y\" is not the path of a URL"),
        (json!({"path": "/healthz"}), "path \"/healthz\" is taken"),
        (json!({"path": "/x.gif"}), "path \"/x.gif\" is taken"),
        (json!({"path": "/x", "records": ""}), "records is empty"),
        (
            json!({"path": "/x", "max_rows": 0}),
            "max_rows must be from 1 to 65536",
        ),
        (
            json!({"path": "/x", "max_body": "1GB"}),
            "max_body must be from 1 to",
        ),
        (
            json!({"path": "/x", "commit_linger": "2s"}),
            "commit_linger must be at most 1s",
        ),
        (
            json!({"path": "/x", "cors_origins": ["a\nb"]}),
            "cors_origins: \"a\\nb\" is not an origin",
        ),
        (
            json!({"path": "/x", "delivery_timeout": "10ms"}),
            "delivery_timeout must be from 1s to 300s",
        ),
        (json!({"path": "/x", "ack": "never"}), "unknown variant `never`"),
        (json!({"records": "x"}), "missing field `path`"),
    ];
    let connector = HttpConnector::unbound();
    for (options, expect) in cases {
        let got = connector.check(&house.context("plain", options.clone()));
        let got = got.map_or_else(|e| e.to_string(), |()| "ok".into());
        assert!(got.starts_with(expect), "{options}: {got}");
    }
    let error = connector.open(house.context("plain", json!({"path": "/x"})));
    assert_eq!(error.err().expect("refused").class(), ErrorClass::Config);
}

#[tokio::test]
async fn many_requests_share_a_batch() {
    let house = House::new(Limits::default());
    let (source, stop) = house.open("impressions", impressions_options());
    let stream = tokio::net::TcpStream::connect(house.ingest.local_addr())
        .await
        .expect("a server");
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (client, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .expect("h2");
    tokio::spawn(connection);
    let requests = (0..100).map(|id| {
        let body = http_body_util::Full::new(bytes::Bytes::from(envelope(id..id + 1)));
        let request = ::http::Request::post(format!("http://test{PATH}"))
            .body(body)
            .expect("a request");
        client.clone().send_request(request)
    });
    for answer in futures::future::join_all(requests).await {
        let answer = answer.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), answer.version()),
            (200, ::http::Version::HTTP_2)
        );
    }
    stop.cancel();
    let (rows, _) = read_all(&source).await;
    assert_eq!(ids(&rows), (0..100).collect::<Vec<_>>());
    let mut frames = 0;
    for partition in source
        .partitions(&Offsets::new())
        .await
        .expect("partitions")
        .ids()
    {
        let log = house.dir.path().join("impressions").join(partition.0);
        frames += crate::log::verify(&log).expect("a log").frames;
    }
    assert!(
        frames <= 50,
        "100 requests of one connection made {frames} frames"
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    for ack in ["durable", "memory"] {
        let house = House::new(Limits::default());
        let (source, stop) = house.open(
            "impressions",
            json!({"path": PATH, "records": "impressions", "ack": ack}),
        );
        let mut client = house.client();
        let all = [1, 3, 0, 2]
            .map(|rows| post(PATH, envelope(10 * rows..11 * rows)))
            .concat();
        client.send(&all);
        let answers: Vec<_> = std::iter::from_fn(|| client.receive())
            .map(|a| (a.status, a.text()))
            .collect();
        let good = |rows| {
            let records = vec![json!({"failed": false}); rows];
            (200, json!({"failed_count": 0, "records": records}).to_string())
        };
        // After a refusal the connection is closed, so the fourth has no answer, and no effect.
        let none = (400, "{\"error\":\"no rows given\"}".into());
        assert_eq!(answers, [good(1), good(3), none]);
        stop.cancel();
        assert_eq!(ids(&read_all(&source).await.0), [10, 30, 31, 32]);
    }
}

#[tokio::test]
async fn clients_that_misbehave_get_their_answer() {
    let house = House::new(Limits {
        header_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        ..Limits::default()
    });
    let (_source, _) = house.open("impressions", impressions_options());
    let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\n");
    let whole = post(PATH, envelope(0..1));

    // Half-closed behind the request: still answered.
    let mut client = house.client();
    client.send(&whole);
    client.half_close();
    assert_eq!(client.receive().expect("an answer").status, 200);
    assert!(client.receive().is_none());

    // Half-closed in the middle of the body.
    let mut client = house.client();
    client.send(&whole[..whole.len() - 10]);
    client.half_close();
    assert!(client.receive().is_none_or(|answer| answer.status == 400));

    // A body, then a head, that do not come to their end.
    for part in [whole.len() - 10, 30] {
        let mut client = house.client();
        client.send(&whole[..part]);
        assert_eq!(client.receive().expect("an answer").status, 408, "{part} bytes");
        assert!(client.receive().is_none());
    }

    // Silence, from the start, between two requests, and in the middle of the first word.
    for (bytes, answers) in [(&b""[..], 0), (&whole[..], 1), (&b"PR"[..], 0)] {
        let mut client = house.client();
        client.send(bytes);
        assert_eq!(std::iter::from_fn(|| client.receive()).count(), answers);
    }

    // In pieces, without a length.
    let mut client = house.client();
    client.send(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes());
    let body = envelope(0..1);
    for piece in body.as_bytes().chunks(20) {
        client.send(format!("{:x}\r\n", piece.len()).as_bytes());
        client.send(piece);
        client.send(b"\r\n");
    }
    client.send(b"0\r\n\r\n");
    assert_eq!(client.receive().expect("an answer").status, 200);

    // Too large without a length, and still writing when the answer comes.
    let mut client = house.client();
    client.send(format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes());
    let piece = [
        format!("{:x}\r\n", 1 << 20).into_bytes(),
        vec![b' '; 1 << 20],
        b"\r\n".to_vec(),
    ]
    .concat();
    for _ in 0..6 {
        client.send(&piece);
    }
    assert_eq!(client.receive().expect("an answer").status, 413);

    // Not HTTP, and a head without end.
    assert_eq!(house.status(b"\x16\x03\x01 hello\r\n\r\n"), 400);
    let long = format!("GET / HTTP/1.1\r\ncookie: {}\r\n\r\n", "x".repeat(300 << 10));
    assert_eq!(house.status(long.as_bytes()), 431);

    // Nothing else has suffered.
    assert_eq!(house.status(&whole), 200);
}

#[test]
fn too_many_connections() {
    let house = House::new(Limits {
        connections_per_lane: 0,
        ..Limits::default()
    });
    let mut client = house.client();
    client.send(&post(PATH, "{}"));
    let answer = client.receive().expect("an answer");
    assert_eq!(
        (answer.status, answer.headers["retry-after"].as_str()),
        (503, "1")
    );
    assert_eq!(answer.text(), "{\"error\":\"too many connections\"}");
}

#[test]
fn a_full_log_asks_for_patience() {
    let house = House::new(Limits::default());
    let cx = house.context("impressions", impressions_options());
    let log = |lane| {
        let partition = partition_of(lane);
        let mut options = LogOptions::new(house.dir.path().join(&partition.0));
        options.max_bytes = 0;
        (partition, Log::open(options, cx.schema.clone()).expect("a log"))
    };
    let logs = (0..2).map(log).collect();
    let options = typed(&cx.options).expect("options");
    let endpoint = Endpoint::new("a test".into(), options, cx.schema.clone(), logs);
    house
        .ingest
        .open(Arc::new(endpoint), cx.stop)
        .expect("a free path");
    for _ in 0..2 {
        let mut client = house.client();
        client.send(&post(PATH, envelope(0..1)));
        let answer = client.receive().expect("an answer, not silence");
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.headers.contains_key("retry-after"), "{answer:?}");
    }
}

#[test]
fn a_port_has_one_server() {
    let house = House::new(Limits::default());
    let error = Ingest::start(house.ingest.local_addr(), Limits::default(), &[])
        .err()
        .expect("refused");
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(
        error.to_string().starts_with("cannot listen on 127.0.0.1:"),
        "{error}"
    );
}

#[test]
fn offsets_are_those_of_an_http_source() {
    let house = House::new(Limits::default());
    let (source, _) = house.open("plain", json!({"path": "/plain"}));
    let done = Offsets::from([(PartitionId("lane-0".into()), Offset("x".into()))]);
    let error = futures::executor::block_on(source.commit(&done)).expect_err("refused");
    assert_eq!(error.to_string(), "offset \"x\" is not one of an http source");
}
