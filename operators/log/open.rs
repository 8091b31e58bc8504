//! Opening a log: take the lock, honour the ledger, check every frame, cut a torn tail, refuse damage.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex};

use arrow::datatypes::SchemaRef;
use millstream_engine::{Error, Result};
use tokio::sync::watch;

use super::disk::{self, Disk, io_error, sync_dir};
use super::frame::Encoder;
use super::ledger::Ledger;
use super::scan::{Damage, Scan, scan};
use super::segment::{self, Adapter, Header};
use super::shared::{Counters, Held, Kept, Progress, Queue, Shared, State, Store};
use super::writer::{Active, Writer};
use super::{LogOptions, ledger};

/// The file whose lock says that a log is in use.
const LOCK: &str = "lock";
/// A segment is at most this part of the whole log: only whole segments are released and never the last,
/// so a log of one segment would stay full for ever.
const FEWEST_SEGMENTS: u64 = 4;

/// Opens the log in `options.dir`, or creates it.
pub(super) fn open(
    mut options: LogOptions,
    schema: SchemaRef,
    disk: Box<dyn Disk>,
) -> Result<(Arc<Shared>, Writer)> {
    options.segment_bytes = options.segment_bytes.min(options.max_bytes / FEWEST_SEGMENTS);
    let header = Header::new(0, &schema, options.sync);
    let encoder = Encoder::new(&schema, header.fingerprint)?;
    disk::create_dir(&options.dir)?;
    let lock = take_lock(&options.dir)?;
    segment::remove_temporaries(&options.dir)?;
    let released = ledger::load(&options.dir)?;
    let found = recover(&options.dir, released, &schema)?;
    let ledger = Ledger::open(&options.dir, released)?;
    let next_seq = found.next_seq.max(released).max(1);
    let active = appendable(&found, &options, &header, next_seq)?;
    let low_disk = disk
        .free_bytes(&options.dir)
        .is_ok_and(|free| free < options.min_free_bytes);
    let counters = Counters {
        disk_bytes: AtomicU64::new(found.segments.iter().map(|s| s.bytes).sum()),
        ..Counters::default()
    };
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            frames: VecDeque::new(),
            bytes: 0,
            next_seq,
            started_at: next_seq,
            state: State::Open,
            low_disk,
        }),
        wake: Condvar::new(),
        store: Mutex::new(Store::new(found.segments, released)),
        progress: watch::Sender::new(Progress {
            end: next_seq,
            state: State::Open,
        }),
        counters,
        held: Mutex::new(Some(Held { ledger, _lock: lock })),
        torn_bytes: found.torn_bytes,
        options,
        schema,
        disk,
    });
    let writer = Writer::new(shared.clone(), active, encoder);
    Ok((shared, writer))
}

/// Takes the directory for this process alone, until the file is closed.
pub(super) fn take_lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = file.map_err(|e| io_error("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::config(format!(
            "ingest log: {} is in use by another process; stop it, or give this one another data directory",
            dir.display()
        ))),
        Err(TryLockError::Error(e)) => Err(io_error("lock", &path, e)),
    }
}

/// What was found in a directory.
struct Found {
    segments: VecDeque<Kept>,
    next_seq: u64,
    torn_bytes: u64,
    /// Whether frames of the last segment were acknowledged from the disk.
    last_sync: bool,
}

/// Brings the directory to where the log can go on: no released segments, no torn tail.
fn recover(dir: &Path, released: u64, schema: &SchemaRef) -> Result<Found> {
    let segments = drop_released(dir, segment::list(dir)?, released)?;
    let mut found = Found {
        segments: VecDeque::new(),
        next_seq: 0,
        torn_bytes: 0,
        last_sync: true,
    };
    let last = segments.last().map(|(seq, _)| *seq);
    let mut expected = released.max(1);
    for (first_seq, path) in segments {
        let mut scanned = scan(first_seq, &path)?;
        if Some(first_seq) == last {
            found.torn_bytes = cut_torn_tail(&mut scanned)?;
        }
        if let Some(damage) = scanned.damage.first() {
            return Err(damaged(&path, damage));
        }
        if found.next_seq > first_seq || first_seq > expected {
            return Err(missing(&path, expected, first_seq));
        }
        found.next_seq = scanned.next_seq;
        expected = scanned.next_seq.max(released);
        if scanned.next_seq > first_seq && scanned.next_seq > released {
            found.last_sync = scanned.header.as_ref().is_none_or(|h| h.sync);
            found.segments.push_back(keep(scanned, schema)?);
        } else {
            // Nothing in it is needed: it has no frames, or the checkpoint covers them all.
            fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
        }
    }
    Ok(found)
}

/// Unlinks the segments whose frames are all covered by a checkpoint; the others.
fn drop_released(
    dir: &Path,
    mut segments: Vec<(u64, PathBuf)>,
    released: u64,
) -> Result<Vec<(u64, PathBuf)>> {
    let kept = segments.split_off(covered(&segments, released));
    for (_, path) in &segments {
        fs::remove_file(path).map_err(|e| io_error("remove", path, e))?;
    }
    if !segments.is_empty() {
        sync_dir(dir).map_err(|e| io_error("sync", dir, e))?;
    }
    Ok(kept)
}

/// How many of the first segments hold only frames before `released`.
pub(super) fn covered(segments: &[(u64, PathBuf)], released: u64) -> usize {
    segments
        .iter()
        .rposition(|(first_seq, _)| *first_seq <= released)
        .unwrap_or(0)
}

/// Cuts what a crash left unfinished off the last segment; how many bytes.
fn cut_torn_tail(scanned: &mut Scan) -> Result<u64> {
    let Some(torn) = torn_at(scanned) else {
        return Ok(0);
    };
    let torn_bytes = scanned.bytes - torn;
    truncate(&scanned.path, torn)?;
    tracing::warn!(
        segment = %scanned.path.display(),
        bytes = torn_bytes,
        "cut a torn tail off the ingest log: frames that were being written when the process or the machine stopped"
    );
    *scanned = scan(scanned.first_seq, &scanned.path)?;
    Ok(torn_bytes)
}

/// Where the torn tail of the last segment starts. Frames that were acknowledged from memory promised
/// nothing across a power loss, after which their pages may be missing in any place.
pub(super) fn torn_at(scanned: &Scan) -> Option<u64> {
    let sync = scanned.header.as_ref()?.sync;
    match scanned.damage.as_slice() {
        [first, ..] if !sync => Some(first.offset),
        [_only] => scanned.tail().map(|d| d.offset),
        _ => None,
    }
}

/// Cuts a file, durably.
pub(super) fn truncate(path: &Path, bytes: u64) -> Result<()> {
    let cut = || {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(bytes)?;
        file.sync_all()
    };
    cut().map_err(|e| io_error("truncate", path, e))
}

fn keep(scanned: Scan, schema: &SchemaRef) -> Result<Kept> {
    let Some(header) = scanned.header else {
        return Err(Error::bug(format!(
            "ingest log: {} passed without a header",
            scanned.path.display()
        )));
    };
    Ok(Kept {
        adapter: Adapter::new(&header.rows, schema, &scanned.path)?,
        header_bytes: header.len(),
        fingerprint: header.fingerprint,
        written: header.rows,
        invalid: header.invalid,
        first_seq: scanned.first_seq,
        path: scanned.path,
        bytes: scanned.bytes,
        frames: scanned.frames,
        index: scanned.index,
    })
}

/// The last segment, if new frames can go behind what it holds.
fn appendable(found: &Found, options: &LogOptions, header: &Header, next_seq: u64) -> Result<Option<Active>> {
    let Some(last) = found.segments.back() else {
        return Ok(None);
    };
    let alike = last.fingerprint == header.fingerprint && found.last_sync == options.sync;
    if !alike || last.bytes >= options.segment_bytes || found.next_seq != next_seq {
        return Ok(None);
    }
    let file = OpenOptions::new().append(true).open(&last.path);
    let file = file.map_err(|e| io_error("open", &last.path, e))?;
    Ok(Some(Active {
        file,
        bytes: last.bytes,
        next_seq,
    }))
}

fn damaged(path: &Path, damage: &Damage) -> Error {
    let lost = match damage.last_lost {
        Some(last) if last < damage.first_lost => "no frame is lost".to_string(),
        Some(last) => format!(
            "frames {} to {last} are lost, intact ones follow",
            damage.first_lost
        ),
        None => format!("frames from {} on are lost", damage.first_lost),
    };
    Error::config(format!(
        "ingest log: {} is damaged at offset {}: {}; {lost}; run `millstream log repair` to go on without them",
        path.display(),
        damage.offset,
        damage.reason
    ))
}

fn missing(path: &Path, expected: u64, found: u64) -> Error {
    Error::config(format!(
        "ingest log: {} begins at offset 0 with frame {found}, but frame {expected} is the next; bring the missing \
         segment back, or run `millstream log repair` to go on without it",
        path.display()
    ))
}
