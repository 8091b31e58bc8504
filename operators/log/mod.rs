//! The durable ingest log: a write-ahead log of Arrow batches, one per source and lane.
//!
//! A row is acknowledged once the frame that holds it is on disk, and its frame stays there until a durable
//! checkpoint covers it. Between the two the log is the only place the row is safe, so everything here
//! prefers refusing (a retry error, which becomes 429 or 503) to losing, and refusing to open over guessing.
//!
//! ```text
//! append ─ bounded queue ─ writer thread: one write, one fdatasync per group ─ segments ─┬─ acks
//!                                                                                        └─ readers
//! release(upto) ─ ledger, durable ─ unlink whole segments
//! ```
//!
//! A directory holds `lock` (in use while locked), `released` (the ledger) and the segments,
//! `<first seq>.log`. Sequence numbers start at 1 and have no gaps; a gap means lost frames.
//!
//! How it fails:
//! - a crash or power loss leaves at most a torn tail: bytes at the end of the last segment that are no
//!   whole frame. They were never acknowledged; opening cuts them off and counts them;
//! - anything else that is not as it was written (a flipped bit, a missing file) makes opening fail with the
//!   file and the offset: `millstream log verify` ([`verify`]) lists it all, `millstream log repair`
//!   ([`repair`]) goes on without it. A power loss can, on file systems that write pages out of order, leave
//!   a bad frame with good ones of the same unacknowledged group behind it; nothing on disk tells that from a
//!   flipped bit, so it is refused too;
//! - a full disk or a full log fails appends with a retry error until space is released;
//! - a failed fsync ends the log (see `writer`): open it again.

mod check;
mod disk;
mod frame;
mod ledger;
mod open;
mod reader;
mod repair;
mod scan;
mod segment;
mod shared;
mod writer;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use futures::stream::{self, BoxStream, StreamExt};
use millstream_engine::source::invalid_schema;
use millstream_engine::{Error, Result};
use tokio::sync::oneshot;

use disk::{Disk, FULL_RETRY_AFTER, OsDisk};
use shared::{Counters, Queue, Queued, Shared, State, lock, memory_bytes};

pub use check::{Corruption, SegmentReport, VerifyReport, verify};
pub use repair::{RepairReport, Repaired, repair};

/// Frames that may wait for the writer: at the rate of one fdatasync per millisecond, more than any number
/// of connections keeps busy.
const QUEUE_FRAMES: usize = 16 * 1024;
/// Memory of the frames that wait for the writer or are being written: a tenth of a second of a fast disk.
const QUEUE_BYTES: u64 = 64 << 20;
/// The largest batch, in memory: its frame stays well below what the 32 bits of a length can say.
const FRAME_BYTES: u64 = 1 << 30;
/// Delay named to clients when the queue is full: it empties within a few syncs.
const QUEUE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How a log is kept.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Its directory; created if missing.
    pub dir: PathBuf,
    /// A segment is closed when it is this large. Space is released by whole segments. At most a quarter of
    /// `max_bytes` is used.
    pub segment_bytes: u64,
    /// Appends fail when the segments and what waits for them would be larger.
    pub max_bytes: u64,
    /// Appends fail while the file system has less free than this.
    pub min_free_bytes: u64,
    /// The longest a group waits for more frames before it is synced; see `writer` for when it waits.
    pub commit_linger: Duration,
    /// `false`: frames count as durable once the operating system has them (`ack = "memory"`); they
    /// survive the process, not a power loss.
    pub sync: bool,
}

impl LogOptions {
    /// 64 MiB segments (a checkpoint or two of a busy lane), 8 GiB in all (an hour of 2 MB/s without a
    /// checkpoint), 256 MiB left to the rest of the machine, 2 ms linger, durable.
    pub fn new(dir: PathBuf) -> LogOptions {
        LogOptions {
            dir,
            segment_bytes: 64 << 20,
            max_bytes: 8 << 30,
            min_free_bytes: 256 << 20,
            commit_linger: Duration::from_millis(2),
            sync: true,
        }
    }
}

/// One batch as it was appended.
#[derive(Clone, Debug)]
pub struct Frame {
    /// Its sequence number.
    pub seq: u64,
    /// The rows, in the schema the log was opened with.
    pub rows: RecordBatch,
    /// Input that could not become rows, in [`invalid_schema`].
    pub invalid: Option<RecordBatch>,
}

/// A frame on its way to the disk.
#[derive(Debug)]
pub struct Appended {
    /// Its sequence number, if it becomes durable; if not, a later frame gets it.
    pub seq: u64,
    /// Resolves when the frame is durable, or cannot become so.
    pub durable: oneshot::Receiver<Result<()>>,
}

/// What a log is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct LogStats {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Frames in them.
    pub frames: u64,
    /// The oldest frame that no durable checkpoint covers; `next_seq` if there is none.
    pub oldest_seq: u64,
    /// The sequence number of the next frame.
    pub next_seq: u64,
    /// Frames that wait for the writer.
    pub queued_frames: u64,
    /// Memory of the frames that wait for the writer or are being written.
    pub queued_bytes: u64,
    /// Frames made durable since the log was opened.
    pub appended: u64,
    /// Frames refused since the log was opened: it was full, or failed.
    pub refused: u64,
    /// Groups written since the log was opened; `appended / groups` is how many frames shared a sync.
    pub groups: u64,
    /// Times the log was synced since it was opened.
    pub fsyncs: u64,
    /// Bytes of a torn tail that were cut off when the log was opened.
    pub torn_bytes: u64,
    /// Why the log takes nothing any more and has to be opened again.
    pub failed: Option<String>,
}

/// The log of one lane. Clones are the same log; when the last one is dropped it is closed, flushed, and its
/// directory can be opened again.
#[derive(Clone)]
pub struct Log(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `options.dir`, or creates it. Reads every frame that is kept, to check it.
    ///
    /// Fails with a configuration error if another process has it open, if it is damaged (see the module),
    /// or if it holds rows that cannot be given in `schema`: columns are matched by name, must have the same
    /// type, and are null where the older rows had none.
    pub fn open(options: LogOptions, schema: SchemaRef) -> Result<Log> {
        Log::open_on(options, schema, Box::new(OsDisk))
    }

    fn open_on(options: LogOptions, schema: SchemaRef, disk: Box<dyn Disk>) -> Result<Log> {
        let (shared, writer) = open::open(options, schema, disk)?;
        let thread = std::thread::Builder::new().name("ingest-log".into());
        let thread = thread
            .spawn(move || writer.run())
            .map_err(|e| Error::retry(format!("ingest log: cannot start its writer thread: {e}")))?;
        Ok(Log(Arc::new(Handle {
            shared,
            writer: Mutex::new(Some(thread)),
        })))
    }

    /// Queues a frame; the receiver resolves once it is durable. Never blocks on the disk.
    ///
    /// Fails at once with a retry error when the log is full (its byte limit, low disk, its queue), closed
    /// or failed.
    pub fn append(&self, rows: RecordBatch, invalid: Option<RecordBatch>) -> Result<Appended> {
        let shared = &self.0.shared;
        same_columns(rows.schema_ref(), &shared.schema, "rows")?;
        let invalid = invalid.filter(|i| i.num_rows() > 0);
        if let Some(invalid) = &invalid {
            same_columns(invalid.schema_ref(), &invalid_schema(), "invalid rows")?;
        }
        let bytes = memory_bytes(&rows, invalid.as_ref());
        let (ack, durable) = oneshot::channel();
        let mut queue = shared.queue();
        if let Err(e) = admit(shared, &queue, bytes) {
            Counters::add(&shared.counters.refused, 1);
            return Err(e);
        }
        let seq = queue.next_seq;
        queue.next_seq += 1;
        queue.bytes += bytes;
        queue.frames.push_back(Queued {
            frame: Frame { seq, rows, invalid },
            bytes,
            ack,
        });
        drop(queue);
        shared.wake.notify_one();
        Ok(Appended { seq, durable })
    }

    /// The frames from `from` on (inclusive), or from the oldest that is not released, in order and without
    /// gaps, each once it is durable. Waits for new ones; ends after [`Log::close`] once all are yielded, and
    /// with an error if the log fails. Must be polled on a tokio runtime.
    ///
    /// `from` may name a released frame that is still there, so that recovery can fall back to an older
    /// checkpoint. If it is further than the log ever was, the log goes on from there, see [`Log::resume`].
    pub fn read(&self, from: Option<u64>) -> BoxStream<'static, Result<Frame>> {
        match self.start(from) {
            Ok(next) => reader::frames(self.0.shared.clone(), next),
            Err(e) => stream::once(async { Err(e) }).boxed(),
        }
    }

    /// A checkpoint resumes at `from`. If that is further than the log ever was (it was kept from memory across a power
    /// loss, or its directory was removed), then the log goes on from there, so that no new frame hides behind the
    /// checkpoint. An error of class config if frames have been appended by then.
    pub fn resume(&self, from: u64) -> Result<()> {
        self.start(Some(from)).map(drop)
    }

    /// Everything before `upto` is covered by a durable checkpoint and may go. Idempotent.
    ///
    /// Blocks on the disk, for one fsync, or two when a segment
    /// goes: call it on a thread that may block. Appends do not wait for it.
    pub fn release(&self, upto: u64) -> Result<()> {
        let shared = &self.0.shared;
        let end = shared.progress.borrow().end;
        if upto > end {
            return Err(Error::bug(format!(
                "ingest log {}: frames before {upto} are to be released, but only those before {end} were read",
                shared.options.dir.display()
            )));
        }
        shared.release(upto)
    }

    /// Takes no more appends. What is queued is still written and acknowledged, and then the read streams
    /// end. Does not wait.
    pub fn close(&self) {
        self.0.close();
    }

    /// What the log is doing.
    pub fn stats(&self) -> LogStats {
        use std::sync::atomic::Ordering::Relaxed;
        let Shared {
            counters,
            torn_bytes,
            progress,
            ..
        } = self.0.shared.as_ref();
        let end = progress.borrow().end;
        let (segments, frames, oldest_seq) = {
            let store = self.0.shared.store();
            (
                store.segments.len() as u64,
                store.segments.iter().map(|s| s.frames).sum(),
                store.oldest(end),
            )
        };
        let queue = self.0.shared.queue();
        LogStats {
            bytes: counters.disk_bytes.load(Relaxed),
            segments,
            frames,
            oldest_seq,
            next_seq: queue.next_seq,
            queued_frames: queue.frames.len() as u64,
            queued_bytes: queue.bytes,
            appended: counters.appended.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            groups: counters.groups.load(Relaxed),
            fsyncs: counters.fsyncs.load(Relaxed),
            torn_bytes: *torn_bytes,
            failed: match &queue.state {
                State::Failed(why) => Some(why.clone()),
                State::Open | State::Closed => None,
            },
        }
    }

    /// The first sequence number a reader from `from` gets.
    fn start(&self, from: Option<u64>) -> Result<u64> {
        let shared = &self.0.shared;
        let end = shared.progress.borrow().end;
        let Some(from) = from else {
            return Ok(shared.store().oldest(end));
        };
        if from < shared.store().first_seq(end) {
            return Err(reader::released(shared, from));
        }
        if from > end {
            self.skip_to(from)?;
        }
        Ok(from)
    }

    /// Moves an untouched log on to `from`, which a checkpoint names although the log never came so far.
    fn skip_to(&self, from: u64) -> Result<()> {
        let shared = &self.0.shared;
        let mut queue = shared.queue();
        if from <= queue.next_seq {
            return Ok(());
        }
        let dir = shared.options.dir.display();
        if queue.next_seq != queue.started_at {
            return Err(Error::config(format!(
                "ingest log {dir}: the checkpoint resumes at frame {from}, but the log has only come to {}; it is \
                 not the log this checkpoint was made with",
                queue.next_seq
            )));
        }
        tracing::warn!(
            "ingest log {dir} ends before frame {from}, where the checkpoint resumes; going on from there"
        );
        shared.release(from)?;
        (queue.next_seq, queue.started_at) = (from, from);
        shared.progress.send_modify(|p| p.end = from);
        Ok(())
    }
}

impl Handle {
    fn close(&self) {
        let mut queue = self.shared.queue();
        if queue.state == State::Open {
            queue.state = State::Closed;
        }
        drop(queue);
        self.shared.wake.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
        if let Some(writer) = lock(&self.writer).take() {
            // Waits for the last sync, so that the directory is free when this returns. A panic of the
            // writer has been reported by the thread itself.
            let _ = writer.join();
        }
        lock(&self.shared.held).take();
    }
}

/// Whether a frame of `bytes` may be queued.
fn admit(shared: &Shared, queue: &Queue, bytes: u64) -> Result<()> {
    let LogOptions {
        dir,
        max_bytes,
        min_free_bytes,
        ..
    } = &shared.options;
    let busy = |why: String, after| {
        let message = format!("ingest log {}: {why}", dir.display());
        Err(Error::Retry {
            message,
            after: Some(after),
        })
    };
    match &queue.state {
        State::Open => {}
        State::Closed => return busy("closed, because its pipeline stops".into(), QUEUE_RETRY_AFTER),
        State::Failed(why) => return Err(shared.failed(why)),
    }
    if bytes > FRAME_BYTES {
        return Err(Error::data(format!(
            "a batch of {bytes} bytes is larger than the {FRAME_BYTES} of a frame"
        )));
    }
    if queue.low_disk {
        return busy(
            format!("less than {min_free_bytes} bytes are free on its disk"),
            FULL_RETRY_AFTER,
        );
    }
    let on_disk = shared
        .counters
        .disk_bytes
        .load(std::sync::atomic::Ordering::Relaxed);
    if on_disk + queue.bytes + bytes > *max_bytes {
        return busy(
            format!("full: a checkpoint has to release some of its {max_bytes} bytes"),
            FULL_RETRY_AFTER,
        );
    }
    let waits = queue.bytes > 0;
    if waits && (queue.frames.len() >= QUEUE_FRAMES || queue.bytes + bytes > QUEUE_BYTES) {
        return busy("its disk does not keep up".into(), QUEUE_RETRY_AFTER);
    }
    Ok(())
}

/// Batches in other columns than declared would be read back as something else.
fn same_columns(have: &SchemaRef, want: &Schema, what: &str) -> Result<()> {
    let same = std::ptr::eq(have.as_ref(), want) || have.fields() == want.fields();
    match same {
        true => Ok(()),
        false => Err(Error::bug(format!(
            "{what} were appended to the ingest log in other columns than declared"
        ))),
    }
}
