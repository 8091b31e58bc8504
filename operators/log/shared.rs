//! What the appenders, the writer thread and the readers of one log share.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_engine::{Error, Result};
use tokio::sync::{oneshot, watch};

use super::disk::{Disk, io_error, sync_dir};
use super::ledger::Ledger;
use super::scan::Index;
use super::segment::Adapter;
use super::{Frame, LogOptions};

/// Recent frames kept in memory for readers that keep up, by bytes: a quarter of a second of the fastest
/// lane we have measured, and little beside the state of a pipeline.
const TAIL_BYTES: u64 = 32 << 20;
/// The same by frames, for tiny ones, whose bookkeeping outweighs their rows.
const TAIL_FRAMES: usize = 4096;

/// A frame on its way to the writer.
pub(super) struct Queued {
    pub frame: Frame,
    pub bytes: u64,
    pub ack: oneshot::Sender<Result<()>>,
}

/// What waits for the writer.
pub(super) struct Queue {
    pub frames: VecDeque<Queued>,
    /// Of `frames` and of those being written: memory in use.
    pub bytes: u64,
    /// The sequence number of the next frame appended.
    pub next_seq: u64,
    /// What `next_seq` was before the first append.
    pub started_at: u64,
    pub state: State,
    pub low_disk: bool,
}

/// Whether a log takes frames.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    Open,
    Closed,
    /// The disk failed in a way that leaves unknown what is on it; why.
    Failed(String),
}

/// One segment as the running log knows it.
pub(super) struct Kept {
    pub first_seq: u64,
    pub path: PathBuf,
    /// Up to here it may be read.
    pub bytes: u64,
    /// Where its first frame is.
    pub header_bytes: u64,
    pub fingerprint: u32,
    /// Frames, holes not counted.
    pub frames: u64,
    pub index: Index,
    pub adapter: Adapter,
    /// Schema its rows were written under.
    pub written: SchemaRef,
    /// Schema its invalid rows were written under.
    pub invalid: SchemaRef,
}

/// What there is to read, oldest first.
pub(super) struct Store {
    pub segments: VecDeque<Kept>,
    /// Everything before is covered by a durable checkpoint.
    pub released: u64,
    tail: VecDeque<(Frame, u64)>,
    tail_bytes: u64,
}

/// How far readers may go.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Progress {
    /// Frames before this one may be read.
    pub end: u64,
    pub state: State,
}

/// What only the owner of a directory may have.
pub(super) struct Held {
    pub ledger: Ledger,
    /// Locked while it is open.
    pub _lock: File,
}

#[derive(Default)]
pub(super) struct Counters {
    /// Bytes of all segments.
    pub disk_bytes: AtomicU64,
    pub fsyncs: AtomicU64,
    pub groups: AtomicU64,
    pub appended: AtomicU64,
    pub refused: AtomicU64,
}

pub(super) struct Shared {
    pub options: LogOptions,
    pub schema: SchemaRef,
    pub disk: Box<dyn Disk>,
    pub queue: Mutex<Queue>,
    /// Rung when `queue` gets frames or changes state.
    pub wake: Condvar,
    pub store: Mutex<Store>,
    pub progress: watch::Sender<Progress>,
    pub counters: Counters,
    /// What makes the directory ours; given back when the last handle is dropped, or on failure.
    pub held: Mutex<Option<Held>>,
    /// Bytes cut off the end when the log was opened.
    pub torn_bytes: u64,
}

impl Counters {
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// Locks; a panic elsewhere while it was held is passed on, since what it guards may be half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread of the ingest log panicked")
}

impl Shared {
    pub fn queue(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    /// The error of a log that failed.
    pub fn failed(&self, why: &str) -> Error {
        Error::retry(format!(
            "ingest log {}: {why}; nothing is taken until the pipeline is restarted, which opens the log again",
            self.options.dir.display()
        ))
    }

    /// Removes the segments that hold only frames before `upto`, after making that durable. The last
    /// segment stays: it is being written.
    pub fn release(&self, upto: u64) -> Result<()> {
        // Held to the end: one release at a time, and none after the directory was given back. Appends and
        // reads do not wait for it.
        let mut held = lock(&self.held);
        let Some(Held { ledger, .. }) = held.as_mut() else {
            return Err(self.failed("it was given back after a failure"));
        };
        if upto <= self.store().released {
            return Ok(());
        }
        ledger.store(upto)?;
        let mut gone = Vec::new();
        let mut store = self.store();
        store.released = upto;
        while store.segments.get(1).is_some_and(|next| next.first_seq <= upto) {
            gone.extend(store.segments.pop_front());
        }
        drop(store);
        for segment in &gone {
            fs::remove_file(&segment.path).map_err(|e| io_error("remove", &segment.path, e))?;
            self.counters
                .disk_bytes
                .fetch_sub(segment.bytes, Ordering::Relaxed);
        }
        match gone.is_empty() {
            true => Ok(()),
            false => sync_dir(&self.options.dir).map_err(|e| io_error("sync", &self.options.dir, e)),
        }
    }

    /// Whether less than `min_free_bytes` are left; if that cannot be asked, writing will tell.
    pub fn is_disk_low(&self) -> bool {
        let LogOptions {
            dir, min_free_bytes, ..
        } = &self.options;
        self.disk.free_bytes(dir).is_ok_and(|free| free < *min_free_bytes)
    }
}

impl Store {
    pub fn new(segments: VecDeque<Kept>, released: u64) -> Store {
        Store {
            segments,
            released,
            tail: VecDeque::new(),
            tail_bytes: 0,
        }
    }

    /// Keeps a frame at hand for readers that keep up.
    pub fn remember(&mut self, frame: Frame, bytes: u64) {
        self.tail.push_back((frame, bytes));
        self.tail_bytes += bytes;
        while self.tail_bytes > TAIL_BYTES || self.tail.len() > TAIL_FRAMES {
            let Some((_, bytes)) = self.tail.pop_front() else {
                break;
            };
            self.tail_bytes -= bytes;
        }
    }

    /// Up to `most` frames from `seq` on, if that one is in memory.
    pub fn recent(&self, seq: u64, most: usize) -> Vec<Frame> {
        let Some(skip) = self
            .tail
            .front()
            .and_then(|(first, _)| seq.checked_sub(first.seq))
        else {
            return Vec::new();
        };
        self.tail
            .iter()
            .skip(skip as usize)
            .take(most)
            .map(|(frame, _)| frame.clone())
            .collect()
    }

    /// The first frame there is to read, unless a reader asks for older ones that are still there.
    pub fn oldest(&self, end: u64) -> u64 {
        self.first_seq(end).max(self.released)
    }

    /// The first frame that can be read at all.
    pub fn first_seq(&self, end: u64) -> u64 {
        self.segments.front().map_or(end, |s| s.first_seq)
    }
}

/// The same error once more, for everybody who waits for the same thing.
pub(super) fn copy(error: &Error) -> Error {
    match error {
        Error::Retry { message, after } => Error::Retry {
            message: message.clone(),
            after: *after,
        },
        Error::Config(m) => Error::Config(m.clone()),
        Error::Data(m) => Error::Data(m.clone()),
        Error::Bug(m) => Error::Bug(m.clone()),
    }
}

/// Memory a batch holds on to.
pub(super) fn memory_bytes(rows: &RecordBatch, invalid: Option<&RecordBatch>) -> u64 {
    (rows.get_array_memory_size() + invalid.map_or(0, RecordBatch::get_array_memory_size)) as u64
}
