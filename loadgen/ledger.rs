//! The ledger: what was sent and what became of it, written so that a kill of loadgen leaves the truth.
//!
//! NDJSON, appended. Before a request leaves, one line holds its rows:
//! `{"request":"5f…-17","status":"sent","stream":"clicks","ids":[…],"impression_ids":[…],"ad_ids":[…],"occurred_at":[…µs]}`
//! and when its fate is known another names it: `{"request":"5f…-17","status":"acked","refused":[2]}`, `"refused"` or
//! `"unknown"` with a reason. Each line is one `write` to a file opened for appending, so it survives the death of
//! the process (not of the machine: the ledger is not fsynced). A request without a second line is unknown; a torn
//! line was never acted upon.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::reply::Outcome;
use crate::rows::{Batch, Row, Stream, Uuid};

/// An open ledger, shared by all connections.
pub struct Ledger {
    file: Mutex<File>,
    run: u64,
    next: AtomicU64,
}

/// Names a request that was written as sent.
#[derive(Clone, Copy, Debug)]
pub struct Ticket(u64);

#[derive(Serialize, Deserialize)]
struct SentLine {
    request: String,
    status: Status,
    stream: Stream,
    ids: Vec<Uuid>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    impression_ids: Vec<Uuid>,
    ad_ids: Vec<Uuid>,
    occurred_at: Vec<i64>,
}

#[derive(Serialize, Deserialize)]
struct OutcomeLine<'a> {
    request: String,
    status: Status,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused: Vec<u32>,
    #[serde(default, skip_serializing_if = "str::is_empty", borrow)]
    reason: std::borrow::Cow<'a, str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Sent,
    Acked,
    Refused,
    Unknown,
}

impl Ledger {
    /// Opens `path` for appending, creating it; a torn last line of a killed run is closed first.
    pub fn open(path: &Path) -> anyhow::Result<Ledger> {
        let open = || -> std::io::Result<File> {
            let mut file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(path)?;
            if file.metadata()?.len() > 0 {
                file.seek(SeekFrom::End(-1))?;
                let mut last = [0];
                file.read_exact(&mut last)?;
                if last != *b"\n" {
                    file.write_all(b"\n")?;
                }
            }
            Ok(file)
        };
        let file =
            open().with_context(|| format!("cannot open the ledger {} for appending", path.display()))?;
        // Not from the seed: two runs of one seed in one ledger must not share request names.
        let run = RandomState::new().build_hasher().finish();
        Ok(Ledger {
            file: Mutex::new(file),
            run,
            next: AtomicU64::new(0),
        })
    }

    /// Writes down what is about to be sent.
    pub fn sent(&self, batch: &Batch) -> anyhow::Result<Ticket> {
        let ticket = Ticket(self.next.fetch_add(1, Relaxed));
        let of = |column: fn(&Row) -> Uuid| batch.rows.iter().map(column).collect::<Vec<Uuid>>();
        let impression_ids = match batch.stream {
            Stream::Impressions => Vec::new(),
            Stream::Clicks => of(|row| row.impression),
        };
        self.write(&SentLine {
            request: self.name(ticket),
            status: Status::Sent,
            stream: batch.stream,
            ids: of(|row| row.id),
            impression_ids,
            ad_ids: of(|row| row.ad),
            occurred_at: batch.rows.iter().map(|row| row.occurred_at).collect(),
        })?;
        Ok(ticket)
    }

    /// Writes down what became of it.
    pub fn outcome(&self, ticket: Ticket, outcome: &Outcome) -> anyhow::Result<()> {
        let (status, refused, reason) = match outcome {
            Outcome::Acked { refused } => (Status::Acked, refused.clone(), ""),
            Outcome::Refused { reason, .. } => (Status::Refused, Vec::new(), reason.as_str()),
            Outcome::Unknown { reason } => (Status::Unknown, Vec::new(), reason.as_str()),
        };
        self.write(&OutcomeLine {
            request: self.name(ticket),
            status,
            refused,
            reason: reason.into(),
        })
    }

    fn name(&self, ticket: Ticket) -> String {
        format!("{:016x}-{}", self.run, ticket.0)
    }

    fn write(&self, line: &impl Serialize) -> anyhow::Result<()> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        let mut file = self.file.lock().expect("no writer of the ledger panics");
        file.write_all(&bytes).context("cannot write the ledger")
    }
}

/// What is known about a row, over all requests that carried it. Ordered: the stronger fate wins, because a
/// retried row that was acked once must be there, whatever its other attempts were told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// Every request that carried it was refused.
    Refused,
    /// Some request got no answer.
    Unknown,
    /// Some request was acked.
    Acked,
}

/// A row as the ledger knows it, small because there may be millions.
#[derive(Clone, Copy, Debug)]
pub struct SentRow {
    /// Its strongest fate.
    pub fate: Fate,
    /// `occurred_at` in microseconds.
    pub occurred_at: i64,
    /// [`content`] of the row.
    pub content: u64,
    /// Times it was found in the lake; counted by `verify`.
    pub seen: u32,
}

/// A digest of the columns beside the id, to see that the lake holds what was sent.
pub fn content(impression: Uuid, ad: Uuid) -> u64 {
    let folded = impression.0.rotate_left(1) ^ ad.0;
    (folded >> 64) as u64 ^ (folded as u64).rotate_left(32)
}

/// All rows of a ledger.
#[derive(Default)]
pub struct History {
    /// By id, impressions and clicks.
    pub streams: [HashMap<Uuid, SentRow>; 2],
    /// Lines that do not parse: at most one for each kill of loadgen.
    pub torn_lines: u64,
    waiting: HashMap<String, (Stream, Vec<Uuid>)>,
}

impl History {
    /// Adds a ledger.
    pub fn read(&mut self, path: &Path) -> anyhow::Result<()> {
        let what = || format!("cannot read the ledger {}", path.display());
        let mut reader = BufReader::new(File::open(path).with_context(what)?);
        let mut line = Vec::new();
        let mut number = 0;
        while reader.read_until(b'\n', &mut line).with_context(what)? > 0 {
            number += 1;
            self.add_line(&line)
                .with_context(|| format!("{} line {number}", path.display()))?;
            line.clear();
        }
        self.close_waiting();
        Ok(())
    }

    /// The rows of one stream.
    pub fn of(&mut self, stream: Stream) -> &mut HashMap<Uuid, SentRow> {
        &mut self.streams[stream as usize]
    }

    fn add_line(&mut self, line: &[u8]) -> anyhow::Result<()> {
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        if let Ok(sent) = serde_json::from_slice::<SentLine>(line) {
            return self.add_sent(sent);
        }
        match serde_json::from_slice::<OutcomeLine>(line) {
            Ok(outcome) => self.add_outcome(&outcome),
            Err(_) => self.torn_lines += 1,
        }
        Ok(())
    }

    fn add_sent(&mut self, line: SentLine) -> anyhow::Result<()> {
        let impressions = match line.stream {
            Stream::Impressions => &line.ids,
            Stream::Clicks => &line.impression_ids,
        };
        let count = line.ids.len();
        ensure!(
            impressions.len() == count && line.ad_ids.len() == count && line.occurred_at.len() == count,
            "request {} has columns of different lengths: the ledger is damaged",
            line.request
        );
        let columns = impressions.iter().zip(&line.ad_ids).zip(&line.occurred_at);
        for (id, ((impression, ad), occurred_at)) in line.ids.iter().zip(columns) {
            let content = content(*impression, *ad);
            let row = SentRow {
                fate: Fate::Refused,
                occurred_at: *occurred_at,
                content,
                seen: 0,
            };
            self.streams[line.stream as usize].entry(*id).or_insert(row);
        }
        self.waiting.insert(line.request, (line.stream, line.ids));
        Ok(())
    }

    fn add_outcome(&mut self, line: &OutcomeLine) {
        let Some((stream, ids)) = self.waiting.remove(&line.request) else {
            return;
        };
        for (index, id) in ids.into_iter().enumerate() {
            let fate = match line.status {
                Status::Acked if line.refused.contains(&(index as u32)) => Fate::Refused,
                Status::Acked => Fate::Acked,
                Status::Refused => Fate::Refused,
                Status::Sent | Status::Unknown => Fate::Unknown,
            };
            self.raise(stream, id, fate);
        }
    }

    fn close_waiting(&mut self) {
        for (_, (stream, ids)) in std::mem::take(&mut self.waiting) {
            for id in ids {
                self.raise(stream, id, Fate::Unknown);
            }
        }
    }

    fn raise(&mut self, stream: Stream, id: Uuid, fate: Fate) {
        if let Some(row) = self.of(stream).get_mut(&id) {
            row.fate = row.fate.max(fate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(stream: Stream, ids: &[u128]) -> Batch {
        let row = |id: &u128| Row {
            id: Uuid(*id),
            impression: Uuid(*id),
            ad: Uuid::of_ad(1),
            occurred_at: 5000,
        };
        Batch {
            stream,
            rows: ids.iter().map(row).collect(),
        }
    }

    fn refused() -> Outcome {
        Outcome::Refused {
            status: 503,
            reason: "503 busy".to_owned(),
            retry_after: None,
        }
    }

    #[test]
    fn fates_survive_the_file_and_the_strongest_wins() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("ledger");
        let ledger = Ledger::open(&path).expect("opens");
        let send = |ids: &[u128], outcome: Option<Outcome>| {
            let ticket = ledger.sent(&batch(Stream::Impressions, ids)).expect("written");
            if let Some(outcome) = outcome {
                ledger.outcome(ticket, &outcome).expect("written");
            }
        };
        send(&[1, 2, 3], Some(Outcome::Acked { refused: vec![1] }));
        send(&[4, 5], Some(refused()));
        send(&[6], Some(Outcome::unknown("lost")));
        send(&[7], None);
        send(&[4], Some(Outcome::Acked { refused: vec![] })); // a retry that worked
        send(&[6], Some(refused())); // a retry that did not: the first attempt may still be in
        let mut history = History::default();
        history.read(&path).expect("reads");
        let mut fates: Vec<_> = history
            .of(Stream::Impressions)
            .iter()
            .map(|(id, row)| (id.0, row.fate))
            .collect();
        fates.sort();
        use Fate::*;
        let want = [
            (1, Acked),
            (2, Refused),
            (3, Acked),
            (4, Acked),
            (5, Refused),
            (6, Unknown),
            (7, Unknown),
        ];
        assert_eq!(fates, want);
        assert_eq!(history.torn_lines, 0);
    }

    #[test]
    fn a_killed_writer_leaves_a_torn_line_that_is_counted_and_closed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("ledger");
        let ledger = Ledger::open(&path).expect("opens");
        ledger.sent(&batch(Stream::Clicks, &[1])).expect("written");
        ledger.sent(&batch(Stream::Clicks, &[2])).expect("written");
        let whole = std::fs::read(&path).expect("reads");
        std::fs::write(&path, &whole[..whole.len() - 20]).expect("writes");
        let ledger = Ledger::open(&path).expect("opens again");
        let ticket = ledger.sent(&batch(Stream::Clicks, &[3])).expect("written");
        ledger
            .outcome(ticket, &Outcome::Acked { refused: vec![] })
            .expect("written");
        let mut history = History::default();
        history.read(&path).expect("reads");
        assert_eq!(history.torn_lines, 1);
        let clicks = history.of(Stream::Clicks);
        assert_eq!(clicks.len(), 2);
        assert_eq!(clicks[&Uuid(1)].fate, Fate::Unknown);
        assert_eq!(clicks[&Uuid(3)].fate, Fate::Acked);
    }
}
