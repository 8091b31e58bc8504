//! What the ingest server counts. Each lane has its own counters, so that cores do not share a cache line;
//! reading adds them up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Every status an answer can have.
const STATUSES: [u16; 11] = [200, 400, 404, 405, 408, 413, 415, 429, 431, 500, 503];

/// Buckets of answer times, four to an octave: 9 % off at most, from 16 µs to 16 s.
const TIMES: usize = 80;
/// The shortest bucket, in octaves of a microsecond.
const SHORTEST: f64 = 4.0;

/// Counters of the ingest server since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IngestStats {
    /// Answers by status.
    pub answers: BTreeMap<u16, u64>,
    /// Rows taken.
    pub rows: u64,
    /// Rows and bodies that went to `.invalid`.
    pub invalid: u64,
    /// Bytes of bodies, as sent.
    pub bytes: u64,
    /// Connections accepted.
    pub connections: u64,
    /// How many answers of success took about so long, in microseconds, from the head of the request.
    pub times: BTreeMap<u64, u64>,
}

/// Counters of one lane, on cache lines of their own.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct LaneStats {
    answers: [AtomicU64; STATUSES.len()],
    times: [AtomicU64; TIMES],
    pub rows: AtomicU64,
    pub invalid: AtomicU64,
    pub bytes: AtomicU64,
    pub connections: AtomicU64,
}

impl Default for LaneStats {
    fn default() -> Self {
        LaneStats {
            answers: Default::default(),
            times: std::array::from_fn(|_| AtomicU64::new(0)),
            rows: AtomicU64::new(0),
            invalid: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
        }
    }
}

impl LaneStats {
    /// An answer of success took so long.
    pub fn took(&self, time: Duration) {
        let octaves = (time.as_secs_f64() * 1e6).max(1.0).log2();
        // The cast saturates: what is shorter or longer than all buckets is in the first or the last.
        let bucket = ((octaves - SHORTEST) * 4.0).max(0.0) as usize;
        self.times[bucket.min(TIMES - 1)].fetch_add(1, Relaxed);
    }

    pub fn answered(&self, status: u16) {
        match STATUSES.iter().position(|s| *s == status) {
            Some(at) => self.answers[at].fetch_add(1, Relaxed),
            None => unreachable!("status {status} is not in the list of answers"),
        };
    }

    pub fn add_to(&self, sum: &mut IngestStats) {
        for (status, count) in STATUSES.iter().zip(&self.answers) {
            let count = count.load(Relaxed);
            if count > 0 {
                *sum.answers.entry(*status).or_default() += count;
            }
        }
        for (bucket, count) in self.times.iter().enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                let middle = (SHORTEST + (bucket as f64 + 0.5) / 4.0).exp2();
                *sum.times.entry(middle.round() as u64).or_default() += count;
            }
        }
        sum.rows += self.rows.load(Relaxed);
        sum.invalid += self.invalid.load(Relaxed);
        sum.bytes += self.bytes.load(Relaxed);
        sum.connections += self.connections.load(Relaxed);
    }
}
