//! The connections of plain beacons beside hyper's.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::client::Reply;
use super::*;

const ROUNDS: usize = 30;

/// Requests one behind the other, cut anywhere, get the answers that hyper gives, and leave the same rows. What the
/// requests are is up to chance; the seed is printed, and SEED repeats it.
#[tokio::test]
async fn any_requests_in_any_pieces_are_answered_as_by_hyper() {
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().expect("a number"));
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let (plain, hyper) = (Side::new(), Side::new());
    for round in 0..ROUNDS {
        let count = chance.random_range(1..=12);
        let mut requests: Vec<_> = (0..count)
            .map(|at| any_request(&mut chance, &format!("{round}.{at}")))
            .collect();
        // What comes behind a close may reset the connection, and with it answers.
        if let Some(last) = requests.iter().position(|request| closes(request)) {
            requests.truncate(last + 1);
        }
        let all = requests.concat();
        let expect = hyper.answers(true, &[&all]);
        let got = plain.answers(false, &pieces(&mut chance, &all));
        let shown = || {
            requests
                .iter()
                .map(|r| String::from_utf8_lossy(&r[..r.len().min(200)]))
        };
        let show = |answers: &[Reply]| answers.iter().map(|a| a.status).collect::<Vec<_>>();
        assert_eq!(
            show(&got),
            show(&expect),
            "seed {seed}: {:#?}",
            shown().collect::<Vec<_>>()
        );
        for (got, expect) in got.iter().zip(&expect) {
            assert_eq!(got.text(), expect.text(), "seed {seed}");
            assert_eq!(got.headers, expect.headers, "seed {seed}");
        }
    }
    let (got, expect) = (plain.end().await, hyper.end().await);
    assert_eq!(got, expect, "seed {seed}");
    assert!(got.0.len() > ROUNDS, "hardly any rows");
}

/// A server with two sources.
struct Side {
    house: House,
    sources: [(Arc<dyn Source>, CancellationToken); 2],
}

impl Side {
    fn new() -> Side {
        let house = House::new(Limits::default());
        let origins = json!(["https://ours.example"]);
        let options = json!({"path": "/plain", "cors_origins": origins, "ack": "memory"});
        let sources = [
            house.open("impressions", impressions_options()),
            house.open("plain", options),
        ];
        Side { house, sources }
    }

    /// The answers to what is sent over one connection, which is hyper's from the start if `begin` is not plain.
    #[allow(clippy::disallowed_methods, reason = "the server has threads of its own")]
    fn answers(&self, hyper: bool, pieces: &[&[u8]]) -> Vec<Reply> {
        let mut client = self.house.client();
        if hyper {
            client.send(&request("OPTIONS", PATH, &BTreeMap::new(), b""));
            assert_eq!(client.receive().expect("an answer").status, 200);
        }
        for piece in pieces {
            client.send(piece);
            if pieces.len() < 20 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        client.half_close();
        let mut answers: Vec<_> = std::iter::from_fn(|| client.receive()).collect();
        for answer in &mut answers {
            assert!(answer.headers.remove("date").is_some(), "{answer:?}");
        }
        answers
    }

    /// What has come to the sources, and what was counted of it.
    async fn end(self) -> (Vec<String>, (u64, u64, u64)) {
        let mut all = Vec::new();
        for (source, stop) in &self.sources {
            stop.cancel();
            let (rows, invalid) = read_all(source).await;
            let known = if rows.num_columns() == 3 && source.schema().field(2).name() == RECEIVED_AT {
                // When a row came is not the same twice.
                rows.project(&[0, 1]).expect("two columns")
            } else {
                rows
            };
            all.extend(lines(&known));
            all.extend(lines(&invalid.project(&[1, 2, 3]).expect("three columns")));
        }
        all.sort();
        let stats = self.house.ingest.stats();
        (all, (stats.rows, stats.invalid, stats.bytes))
    }
}

fn lines(rows: &RecordBatch) -> Vec<String> {
    let shown = arrow::util::pretty::pretty_format_batches(std::slice::from_ref(rows)).expect("text");
    let shown = shown.to_string();
    // Columns are as wide as their longest value.
    let narrow = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows = shown.lines().skip(3).map(narrow);
    rows.filter(|line| !line.starts_with("+-")).collect()
}

/// `all`, cut in up to forty places.
fn pieces<'a>(chance: &mut StdRng, all: &'a [u8]) -> Vec<&'a [u8]> {
    let cuts = chance.random_range(0..40);
    let mut cuts: Vec<_> = (0..cuts).map(|_| chance.random_range(0..all.len())).collect();
    cuts.extend([0, all.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|cut| &all[cut[0]..cut[1]]).collect()
}

fn closes(request: &[u8]) -> bool {
    String::from_utf8_lossy(request).contains("connection: close")
}

fn any_request(chance: &mut StdRng, id: &str) -> Vec<u8> {
    let row = |n: usize| json!({"impression_id": format!("{id}.{n}"), "ad_id": "a", "occurred_at": "2026-03-01 12:00:00"});
    let rows = *[1, 1, 1, 2, 5, 500].choose(chance).expect("some");
    let body = json!({"impressions": (0..rows).map(row).collect::<Vec<_>>()}).to_string();
    let with = |headers: &[(&str, &str)], path: &str, body: &[u8]| {
        let headers = headers.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        request("POST", path, &headers.collect(), body)
    };
    let row = format!("{{\"id\":\"{id}\",\"n\":7}}");
    match chance.random_range(0..40) {
        0..16 => post(PATH, body),
        16..20 => with(
            &[("Origin", "https://ours.example"), ("COOKIE", "a=b")],
            "/plain",
            row.as_bytes(),
        ),
        20..22 => with(&[("origin", "https://theirs.example")], "/plain", row.as_bytes()),
        22 => with(&[("connection", "Keep-Alive")], PATH, body.as_bytes()),
        23..26 => post(PATH, format!("{{\"impressions\":[{{}},{}]}}", body.len())),
        26..29 => format!("GET /plain.gif?id={id}&n={rows}&x=%20+ HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes(),
        29 => format!("GET /plain.gif?n={rows} HTTP/1.1\r\nhost: x\r\norigin: https://ours.example\r\n\r\n")
            .into_bytes(),
        30..32 => with(&[("content-encoding", "gzip")], PATH, &gzip(body.as_bytes())),
        32..34 => {
            let head = format!("POST {PATH} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
            format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
        }
        34 => request("OPTIONS", PATH, &BTreeMap::new(), b""),
        35 => request("GET", "/healthz", &BTreeMap::new(), b""),
        36 => with(&[("connection", "close")], PATH, body.as_bytes()),
        37 => post(PATH, "{\"impressions\":["),
        38 => post("/nothing", body),
        _ => request("PUT", PATH, &BTreeMap::new(), body.as_bytes()),
    }
}

/// Requests of one connection do not wait for each other's fsync.
#[tokio::test]
async fn requests_behind_each_other_share_a_batch() {
    let house = House::new(Limits::default());
    let (source, stop) = house.open("impressions", impressions_options());
    let mut client = house.client();
    let all: Vec<_> = (0..200).flat_map(|id| post(PATH, envelope(id..id + 1))).collect();
    client.send(&all);
    for _ in 0..200 {
        assert_eq!(client.receive().expect("an answer").status, 200);
    }
    stop.cancel();
    let (rows, _) = read_all(&source).await;
    assert_eq!(ids(&rows), (0..200).collect::<Vec<_>>());
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
        frames <= 100,
        "200 requests of one connection made {frames} frames"
    );
}

/// Each larger than what is kept without a reason, and all of them more than may wait: taken bit by bit.
#[tokio::test]
async fn a_client_that_sends_without_end_is_answered() {
    let house = House::new(Limits::default());
    let (source, stop) = house.open("impressions", impressions_options());
    let mut client = house.client();
    let mut sender = client.again();
    let sending = std::thread::spawn(move || {
        for request in 0..100 {
            let ids = request * 500..(request + 1) * 500;
            sender.send(&post(PATH, envelope(ids)));
        }
    });
    for _ in 0..100 {
        assert_eq!(client.receive().expect("an answer").status, 200);
    }
    sending.join().expect("everything is sent");
    stop.cancel();
    assert_eq!(ids(&read_all(&source).await.0), (0..50_000).collect::<Vec<_>>());
}
