//! A proxy in front of a healthy service that makes it a bad one: each connection meets the next of the
//! given fates, in turn.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};

use super::{partly, pause};

/// How long a slow answer is held up.
const SLOW: Duration = Duration::from_millis(1_500);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It gets its answer.
    Good,
    /// It is refused with 503.
    Busy,
    /// It is refused with 500.
    Broken,
    /// Its connection is reset before it reaches the service.
    Lost,
    /// It reaches the service, whose answer is withheld.
    Unanswered,
    /// It gets half of its answer.
    Cut,
    /// It gets its answer late.
    Slow,
    /// It is refused as going over a stream's throughput.
    Throttled,
    /// Of a put into a stream some records are refused, the others reach the service.
    Partly,
    /// As a throttled DynamoDB does it: of a BatchWriteItem, the first half is written and the rest handed back.
    HalfDone,
    /// If it is a GetRecords, it is refused with this error of Kinesis; else it gets its answer.
    Unread(&'static str),
    /// It gets no answer, and its connection stays open, for longer than anybody waits.
    Silent,
}

/// Everything that can go wrong, and enough that does not.
pub const ANY: &[Fate] = &[
    Fate::Busy,
    Fate::Broken,
    Fate::Lost,
    Fate::Unanswered,
    Fate::Slow,
    Fate::Good,
    Fate::Good,
    Fate::Good,
];

/// As [`ANY`], and now and then a request that is forgotten. Each of those costs the client its timeout.
pub const ANY_AND_SILENCE: &[Fate] = &[
    Fate::Busy,
    Fate::Broken,
    Fate::Lost,
    Fate::Unanswered,
    Fate::Slow,
    Fate::Good,
    Fate::Good,
    Fate::Silent,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
    Fate::Good,
];

/// A service that is well more often than not. Its length has no factor in common with how many requests an operation
/// takes, so that none meets the same fate each time it is tried.
pub const NOW_AND_THEN: &[Fate] = &[
    Fate::Busy,
    Fate::Good,
    Fate::Good,
    Fate::Unanswered,
    Fate::Good,
    Fate::Lost,
    Fate::Broken,
    Fate::Good,
    Fate::Good,
    Fate::Unanswered,
    Fate::Good,
];

/// What a busy DynamoDB does.
pub const THROTTLED: &[Fate] = &[
    Fate::HalfDone,
    Fate::Good,
    Fate::Busy,
    Fate::HalfDone,
    Fate::Unanswered,
    Fate::HalfDone,
    Fate::Lost,
    Fate::Good,
];

/// A running proxy; its thread ends with the test process.
pub struct Proxy {
    pub url: String,
    spoilt: Arc<AtomicU64>,
    silent: Arc<AtomicU64>,
}

impl Proxy {
    /// Stands before `target`, `http://host:port`.
    pub fn start(target: &str, fates: &'static [Fate]) -> Proxy {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", socket.local_addr().expect("an address"));
        let (spoilt, silent) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (target, count) = (target.trim_start_matches("http://").to_string(), spoilt.clone());
        let forgotten = silent.clone();
        std::thread::spawn(move || {
            for (number, client) in socket.incoming().flatten().enumerate() {
                let (target, count) = (target.clone(), count.clone());
                // A connection that breaks is what this is for.
                let fate = fates[number % fates.len()];
                forgotten.fetch_add(u64::from(fate == Fate::Silent), SeqCst);
                std::thread::spawn(move || drop(serve(client, &target, fate, &count)));
            }
        });
        Proxy { url, spoilt, silent }
    }

    /// Requests that did not go as they should.
    pub fn spoilt(&self) -> u64 {
        self.spoilt.load(SeqCst)
    }

    /// Requests that were never answered.
    pub fn forgotten(&self) -> u64 {
        self.silent.load(SeqCst)
    }
}

/// One request; the connection ends with it, so that the next one gets its own fate.
fn serve(client: TcpStream, target: &str, fate: Fate, spoilt: &AtomicU64) -> std::io::Result<()> {
    if fate != Fate::Good {
        spoilt.fetch_add(1, SeqCst);
    }
    if fate == Fate::Lost {
        // What is closed with bytes unread is reset.
        return client.peek(&mut [0]).map(drop);
    }
    let mut client = BufReader::new(client);
    let request = read_message(&mut client, true)?;
    let refuse =
        |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    match fate {
        Fate::Busy => return client.get_mut().write_all(refuse("503 Slow Down").as_bytes()),
        Fate::Broken => {
            return client
                .get_mut()
                .write_all(refuse("500 Internal Server Error").as_bytes());
        }
        Fate::Throttled => return client.get_mut().write_all(partly::throttled().as_bytes()),
        Fate::Partly => {
            let forward = |request: &[u8]| exchange(target, request);
            return client.get_mut().write_all(&partly::put(&request, forward)?);
        }
        Fate::Slow => pause(SLOW),
        Fate::Unread(error) if is_get_records(&request) => {
            return client.get_mut().write_all(partly::refused(error).as_bytes());
        }
        // Until the client closes it.
        Fate::Silent => return client.read_to_end(&mut Vec::new()).map(drop),
        Fate::HalfDone => {
            if let Some((written, rest)) = halves(&request) {
                exchange(target, &written)?;
                return client.get_mut().write_all(&rest);
            }
        }
        Fate::Lost | Fate::Unanswered | Fate::Cut | Fate::Good | Fate::Unread(_) => {}
    }
    let answer = exchange(target, &request)?;
    match fate {
        Fate::Unanswered => Ok(()),
        Fate::Cut => client.get_mut().write_all(&answer[..answer.len() / 2]),
        _ => client.get_mut().write_all(&answer),
    }
}

fn exchange(target: &str, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(target)?;
    server.write_all(request)?;
    read_message(&mut BufReader::new(server), false)
}

/// A BatchWriteItem with the first half of its items, and the answer that hands back the others; none for any other
/// request.
fn halves(request: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = std::str::from_utf8(request).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    if !head.contains("DynamoDB_20120810.BatchWriteItem") {
        return None;
    }
    let mut first: Value = serde_json::from_str(body).ok()?;
    let mut rest = json!({});
    for (table, writes) in first["RequestItems"].as_object_mut()? {
        let writes = writes.as_array_mut()?;
        // The only one is written: nothing else would come of a request of one.
        rest[table] = writes.split_off(writes.len().div_ceil(2)).into();
    }
    let kept = |line: &&str| !line.to_ascii_lowercase().starts_with("content-length:");
    let head: Vec<&str> = head.split("\r\n").filter(kept).collect();
    let (first, rest) = (first.to_string(), json!({ "UnprocessedItems": rest }).to_string());
    let with_body = |head: &str, body: &str| {
        format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
    };
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\nconnection: close";
    Some((with_body(&head.join("\r\n"), &first), with_body(answer, &rest)))
}

fn is_get_records(request: &[u8]) -> bool {
    let head = String::from_utf8_lossy(request);
    head.contains("Kinesis_20131202.GetRecords\r\n")
}

/// Head and body, the head asking to close the connection afterwards.
pub(super) fn read_message(from: &mut impl BufRead, is_request: bool) -> std::io::Result<Vec<u8>> {
    let mut message = Vec::new();
    let (mut line, mut length, mut chunked) = (String::new(), 0, false);
    while from.read_line(&mut line)? > 0 && line != "\r\n" {
        let lower = line.to_ascii_lowercase();
        match lower.split_once(": ") {
            Some(("content-length", n)) => length = n.trim().parse().unwrap_or(0),
            Some(("transfer-encoding", _)) => chunked = true,
            _ => {}
        }
        // S3 clients wait for leave to send a body; we give it before we read that.
        if !lower.starts_with("connection:") && !lower.starts_with("expect:") {
            message.extend_from_slice(line.as_bytes());
        }
        line.clear();
    }
    message.extend_from_slice(b"connection: close\r\n\r\n");
    match (chunked, is_request) {
        (true, true) => read_chunks(from, &mut message)?,
        // To the end: the server was asked to close.
        (true, false) => drop(from.read_to_end(&mut message)?),
        // The answer to HEAD names a length and has no body, so the end of the connection is what counts.
        (false, false) => drop(from.read_to_end(&mut message)?),
        (false, true) => drop(from.take(length).read_to_end(&mut message)?),
    }
    Ok(message)
}

fn read_chunks(from: &mut impl BufRead, message: &mut Vec<u8>) -> std::io::Result<()> {
    loop {
        let mut size = String::new();
        from.read_line(&mut size)?;
        message.extend_from_slice(size.as_bytes());
        let digits = size.trim().split(';').next().unwrap_or_default();
        let bytes = u64::from_str_radix(digits, 16).map_err(std::io::Error::other)?;
        if bytes == 0 {
            break;
        }
        from.take(bytes + 2).read_to_end(message)?;
    }
    // Trailers, up to the empty line.
    let mut line = String::new();
    while from.read_line(&mut line)? > 0 {
        message.extend_from_slice(line.as_bytes());
        if line == "\r\n" {
            break;
        }
        line.clear();
    }
    Ok(())
}
