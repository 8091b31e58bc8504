//! A webhook receiver that can be relied on for one thing only: what it took, it remembers by
//! `Idempotency-Key`.
//!
//! One request in eight is answered with 503, one in eight is taken and its connection closed without an
//! answer, so that the sink has to make it again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// A running receiver; its thread ends with the test process.
pub struct Receiver {
    pub url: String,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    requests: u64,
    repeated: u64,
    by_key: BTreeMap<String, Vec<u8>>,
    signatures: BTreeMap<String, String>,
    /// Keys that came again with another body: rows would be lost at a receiver that knows the key.
    differing: Vec<String>,
}

impl Receiver {
    /// Listens; `seed` chooses which requests go wrong.
    pub fn start(seed: u64) -> Receiver {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}/counts", socket.local_addr().expect("an address"));
        let taken = Arc::new(Mutex::new(Taken::default()));
        let shared = taken.clone();
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let taken = shared.clone();
                // A thread each: a client may hold a connection open without using it. One that died in the
                // middle of its request is nothing to talk about.
                std::thread::spawn(move || answer(stream, &taken, seed));
            }
        });
        Receiver { url, taken }
    }

    /// All rows, each key's once.
    pub fn rows(&self) -> Vec<Value> {
        let taken = self.taken.lock().expect("the receiver does not panic");
        let lines = taken.by_key.values().flat_map(|body| body.split(|b| *b == b'\n'));
        let rows = lines.filter(|line| !line.is_empty());
        rows.map(|line| serde_json::from_slice(line).expect("JSON lines"))
            .collect()
    }

    /// The body and signature that came under each key.
    pub fn signed(&self) -> BTreeMap<String, (Vec<u8>, String)> {
        let taken = self.taken.lock().expect("the receiver does not panic");
        let signature = |key: &String| taken.signatures.get(key).cloned().unwrap_or_default();
        let one = |(key, body): (&String, &Vec<u8>)| (key.clone(), (body.clone(), signature(key)));
        taken.by_key.iter().map(one).collect()
    }

    /// Writes all rows as JSON lines.
    pub fn write_rows(&self, to: &Path) {
        let lines: String = self.rows().iter().map(|row| format!("{row}\n")).collect();
        std::fs::write(to, lines).expect("a writable directory");
    }

    /// What came, in a line; fails if a key came with two bodies.
    pub fn summary(&self) -> String {
        let taken = self.taken.lock().expect("the receiver does not panic");
        assert!(
            taken.differing.is_empty(),
            "other rows under a known key: {:?}",
            taken.differing
        );
        let (requests, repeated, keys) = (taken.requests, taken.repeated, taken.by_key.len());
        format!("the receiver got {requests} requests, took {keys} and saw {repeated} of them again")
    }
}

fn answer(stream: TcpStream, taken: &Mutex<Taken>, seed: u64) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut headers = BTreeMap::new();
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && line != "\r\n" {
        if let Some((name, value)) = line.split_once(": ") {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
        }
        line.clear();
    }
    let length = headers
        .get("content-length")
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let key = headers.remove("idempotency-key").unwrap_or_default();
    let mut taken = taken.lock().expect("the receiver does not panic");
    taken.requests += 1;
    let status = match (taken.requests + seed) % 8 {
        0 => "503 Service Unavailable",
        _ => "200 OK",
    };
    if status.starts_with("200") {
        if let Some(signature) = headers.remove("millstream-signature") {
            taken.signatures.insert(key.clone(), signature);
        }
        taken.take(key, body);
    }
    if (taken.requests + seed) % 8 == 4 {
        return Ok(());
    }
    drop(taken);
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    reader.get_mut().write_all(answer.as_bytes())
}

impl Taken {
    fn take(&mut self, key: String, body: Vec<u8>) {
        match self.by_key.get(&key) {
            None => drop(self.by_key.insert(key, body)),
            Some(known) => {
                self.repeated += 1;
                if *known != body {
                    self.differing.push(key);
                }
            }
        }
    }
}
