//! What the ingest server counts. Each lane has its own counters, so that cores do not share a cache line;
//! reading adds them up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Every status an answer can have.
const STATUSES: [u16; 11] = [200, 400, 404, 405, 408, 413, 415, 429, 431, 500, 503];

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
}

/// Counters of one lane.
#[derive(Debug, Default)]
pub(super) struct LaneStats {
    answers: [AtomicU64; STATUSES.len()],
    pub rows: AtomicU64,
    pub invalid: AtomicU64,
    pub bytes: AtomicU64,
    pub connections: AtomicU64,
}

impl LaneStats {
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
        sum.rows += self.rows.load(Relaxed);
        sum.invalid += self.invalid.load(Relaxed);
        sum.bytes += self.bytes.load(Relaxed);
        sum.connections += self.connections.load(Relaxed);
    }
}
