//! `millstream log verify`: what is in a log, and what is wrong with it.
//!
//! Only reads. It may run while the log is in use; frames that are just being written then look like a torn
//! tail.

use std::fmt;
use std::path::{Path, PathBuf};

use millstream_engine::{Error, Result};

use super::open::{covered, torn_at};
use super::scan::{Damage, Scan, scan};
use super::{ledger, segment};

/// What [`verify`] found.
#[derive(Clone, Debug, Default)]
pub struct VerifyReport {
    /// Segments that are not released, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Good frames in them.
    pub frames: u64,
    /// The first frame there is.
    pub first_seq: Option<u64>,
    /// The last one.
    pub last_seq: Option<u64>,
    /// Frames before this one are covered by a durable checkpoint.
    pub released: u64,
    /// Bytes at the end that the next open will cut off: a write that was interrupted.
    pub torn_tail_bytes: u64,
    /// What keeps the log from being opened.
    pub corrupt: Vec<Corruption>,
}

/// One segment.
#[derive(Clone, Debug)]
pub struct SegmentReport {
    /// Its file.
    pub path: PathBuf,
    /// Sequence number of its first frame.
    pub first_seq: u64,
    /// Of its last; `None` if it has none.
    pub last_seq: Option<u64>,
    /// Good frames.
    pub frames: u64,
    /// Size of the file.
    pub bytes: u64,
}

/// Something that is not as it was written.
#[derive(Clone, Debug)]
pub struct Corruption {
    /// The file.
    pub segment: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// How much of it; 0 if something is missing.
    pub bytes: u64,
    /// What is wrong.
    pub reason: String,
    /// The first and the last frame that are lost by it, as far as that can be known.
    pub lost: Option<(u64, u64)>,
}

impl VerifyReport {
    /// Whether the log can be opened.
    pub fn is_sound(&self) -> bool {
        self.corrupt.is_empty()
    }
}

/// Checks every frame of the log in `dir` that is not released. Changes nothing.
pub fn verify(dir: &Path) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    match ledger::load(dir) {
        Ok(released) => report.released = released,
        Err(Error::Config(reason)) => report.corrupt.push(ledger_corruption(dir, reason)),
        Err(e) => return Err(e),
    }
    let scans = scan_all(dir, report.released)?;
    let last = scans.len().saturating_sub(1);
    let mut expected = report.released.max(1);
    for (at, scanned) in scans.iter().enumerate() {
        report.corrupt.extend(gap(scanned, expected, report.released));
        let torn = if at == last { torn_at(scanned) } else { None };
        report.torn_tail_bytes += torn.map_or(0, |torn| scanned.bytes - torn);
        let following = scans.get(at + 1).map(|next| next.first_seq);
        let bad = scanned
            .damage
            .iter()
            .filter(|d| torn.is_none_or(|torn| d.offset < torn));
        report
            .corrupt
            .extend(bad.map(|d| corruption(&scanned.path, d, following)));
        expected = end_of(scanned, following).max(report.released);
        report.add(scanned);
    }
    Ok(report)
}

impl VerifyReport {
    fn add(&mut self, scanned: &Scan) {
        let last_seq = (scanned.frames > 0).then(|| scanned.next_seq - 1);
        if last_seq.is_some() {
            self.first_seq = self.first_seq.or(Some(scanned.first_seq));
            self.last_seq = last_seq;
        }
        self.frames += scanned.frames;
        let (path, first_seq) = (scanned.path.clone(), scanned.first_seq);
        self.segments.push(SegmentReport {
            path,
            first_seq,
            last_seq,
            frames: scanned.frames,
            bytes: scanned.bytes,
        });
    }
}

/// Reads every segment that is not released.
pub(super) fn scan_all(dir: &Path, released: u64) -> Result<Vec<Scan>> {
    let segments = segment::list(dir)?;
    segments[covered(&segments, released)..]
        .iter()
        .map(|(first_seq, path)| scan(*first_seq, path))
        .collect()
}

/// What is missing before a segment.
pub(super) fn gap(scanned: &Scan, expected: u64, released: u64) -> Option<Corruption> {
    let (first_lost, last_lost) = (expected, scanned.first_seq.checked_sub(1)?);
    let missing = scanned.first_seq > expected && last_lost >= released;
    missing.then(|| Corruption {
        segment: scanned.path.clone(),
        offset: 0,
        bytes: 0,
        reason: format!(
            "it begins with frame {}, but frame {expected} is the next",
            scanned.first_seq
        ),
        lost: Some((first_lost, last_lost)),
    })
}

/// The sequence number after a segment; damage at its end reaches to the following one.
pub(super) fn end_of(scanned: &Scan, following: Option<u64>) -> u64 {
    match scanned.damage.last() {
        Some(d) if d.last_lost.is_none() => following.unwrap_or(scanned.next_seq),
        _ => scanned.next_seq,
    }
}

pub(super) fn corruption(path: &Path, damage: &Damage, following: Option<u64>) -> Corruption {
    Corruption {
        segment: path.to_owned(),
        offset: damage.offset,
        bytes: damage.bytes,
        reason: damage.reason.clone(),
        lost: lost(damage, following),
    }
}

/// The frames that are lost by some damage.
fn lost(damage: &Damage, following: Option<u64>) -> Option<(u64, u64)> {
    let last = damage.last_lost.or(following.map(|f| f.saturating_sub(1)))?;
    (last >= damage.first_lost).then_some((damage.first_lost, last))
}

pub(super) fn ledger_corruption(dir: &Path, reason: String) -> Corruption {
    Corruption {
        segment: ledger::path(dir),
        offset: 0,
        bytes: 0,
        reason,
        lost: None,
    }
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.segment.display(), self.offset, self.reason)?;
        match self.lost {
            Some((first, last)) if first == last => write!(f, "; frame {first} is lost"),
            Some((first, last)) => write!(f, "; frames {first} to {last} are lost"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: u64 = self.segments.iter().map(|s| s.bytes).sum();
        write!(
            f,
            "{} segments, {bytes} bytes, {} frames",
            self.segments.len(),
            self.frames
        )?;
        if let (Some(first), Some(last)) = (self.first_seq, self.last_seq) {
            write!(f, " ({first} to {last})")?;
        }
        writeln!(f, ", released before {}", self.released)?;
        if self.torn_tail_bytes > 0 {
            writeln!(
                f,
                "torn tail of {} bytes, which the next start cuts off",
                self.torn_tail_bytes
            )?;
        }
        self.corrupt
            .iter()
            .try_for_each(|c| writeln!(f, "corrupt: {c}"))?;
        writeln!(
            f,
            "{}",
            if self.is_sound() {
                "sound"
            } else {
                "damaged: run `millstream log repair`"
            }
        )
    }
}
