//! The writer thread: group commit.
//!
//! It takes everything that waits, writes it with one vectored write, makes it durable with one fdatasync,
//! resolves the acknowledgements, and shows the frames to readers. While the disk works the next group
//! gathers by itself, so groups grow with load and a lone request never waits for company.
//!
//! Lingering: clients that wait for their acknowledgement come back together after each sync, but the first
//! of them would start a sync alone and make the others wait for two. So when the last group had several
//! frames and fewer wait now, the writer waits for as many again, at most `commit_linger`, and never longer
//! than the last sync took: past that, syncing at once is better for everybody.
//!
//! How it fails:
//! - the disk is full: the group and all that waits fail with a retry error, what was written of it is cut
//!   off again, and the log goes on. Their sequence numbers are given to later frames;
//! - anything else, above all a failed fsync: the kernel may have dropped the dirty pages, and asking again
//!   would report success for data that is gone. The log fails for good; opening it again reads what the
//!   disk really has.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millstream_engine::Error;

use super::disk::{FULL_RETRY_AFTER, is_full, write_all};
use super::frame::{Encoded, Encoder};
use super::scan::Index;
use super::segment::{self, Adapter, Header};
use super::shared::{Counters, Kept, Queue, Queued, Shared, State, copy, lock};
use super::{Frame, LogOptions};

/// How often free space is asked for. A lane that writes 1 GB/s passes 100 MB between two looks, well under
/// the default `min_free_bytes`.
const FREE_SPACE_EVERY: Duration = Duration::from_millis(100);

const NO_PANIC: &str = "no thread of the ingest log panicked";

/// The segment that is written to.
pub(super) struct Active {
    pub file: File,
    pub bytes: u64,
    /// The sequence number its next frame must have.
    pub next_seq: u64,
}

/// Why a group was not written.
enum Fault {
    /// The log goes on without it.
    Refused(Error),
    /// Nobody knows what is on the disk.
    Broken(String),
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Option<Active>,
    encoder: Encoder,
    last_group: usize,
    last_sync: Duration,
    looked: Instant,
}

impl Writer {
    /// A writer that appends to `active`, or to a new segment if there is none.
    pub fn new(shared: Arc<Shared>, active: Option<Active>, encoder: Encoder) -> Writer {
        Writer {
            shared,
            active,
            encoder,
            last_group: 0,
            last_sync: Duration::ZERO,
            looked: Instant::now(),
        }
    }

    /// Writes until the log is closed and everything queued is on disk, or until it fails.
    pub fn run(mut self) {
        while let Some(mut left) = self.take_group() {
            self.last_group = left.len();
            self.look_at_free_space();
            match self.commit(&mut left) {
                Ok(()) => Counters::add(&self.shared.counters.groups, 1),
                Err(Fault::Refused(e)) => self.refuse(left, &e),
                Err(Fault::Broken(why)) => return self.fail(left, why),
            }
        }
        self.finish();
    }

    /// Everything that waits, once something does; `None` when the log is closed and nothing does.
    fn take_group(&mut self) -> Option<VecDeque<Queued>> {
        let shared = self.shared.clone();
        let mut queue = shared.queue();
        while queue.frames.is_empty() {
            if queue.state != State::Open {
                return None;
            }
            queue = match queue.low_disk {
                // Nothing is appended while space is short, so only we can notice that it came back.
                true => {
                    drop(shared.wake.wait_timeout(queue, FREE_SPACE_EVERY).expect(NO_PANIC));
                    self.look_at_free_space();
                    shared.queue()
                }
                false => shared.wake.wait(queue).expect(NO_PANIC),
            };
        }
        let linger = shared.options.commit_linger.min(self.last_sync);
        let enough = self.last_group;
        if !linger.is_zero() && queue.frames.len() < enough {
            let few = |queue: &mut Queue| queue.frames.len() < enough && queue.state == State::Open;
            queue = shared
                .wake
                .wait_timeout_while(queue, linger, few)
                .expect(NO_PANIC)
                .0;
        }
        Some(std::mem::take(&mut queue.frames))
    }

    /// Closes the log to appends while less than `min_free_bytes` are left, and opens it again.
    fn look_at_free_space(&mut self) {
        if self.looked.elapsed() >= FREE_SPACE_EVERY {
            self.looked = Instant::now();
            let low = self.shared.is_disk_low();
            self.shared.queue().low_disk = low;
        }
    }

    /// Writes and acknowledges the frames of a group, segment by segment, taking them off `left`.
    fn commit(&mut self, left: &mut VecDeque<Queued>) -> Result<(), Fault> {
        while let Some(first) = left.front() {
            let first_seq = first.frame.seq;
            let segment_bytes = self.shared.options.segment_bytes;
            if self
                .active
                .as_ref()
                .is_none_or(|a| a.bytes >= segment_bytes || a.next_seq != first_seq)
            {
                self.roll(first_seq)?;
            }
            let (run, bytes) = self.encode_run(left)?;
            self.write_run(&run, bytes)?;
            self.publish(left.drain(..run.len()), &run);
        }
        Ok(())
    }

    /// Encodes frames from the front of `left` until the segment is full; at least one.
    fn encode_run(&mut self, left: &VecDeque<Queued>) -> Result<(Vec<Encoded>, u64), Fault> {
        let room = self
            .shared
            .options
            .segment_bytes
            .saturating_sub(self.active().bytes);
        let (mut run, mut bytes) = (Vec::with_capacity(left.len()), 0);
        for queued in left {
            let Frame { seq, rows, invalid } = &queued.frame;
            let frame = self
                .encoder
                .encode(*seq, rows, invalid.as_ref())
                .map_err(Fault::Refused)?;
            bytes += frame.bytes;
            run.push(frame);
            if bytes >= room {
                break;
            }
        }
        Ok((run, bytes))
    }

    /// Appends the run to the active segment, durably.
    fn write_run(&mut self, run: &[Encoded], bytes: u64) -> Result<(), Fault> {
        let mut slices: Vec<IoSlice> = run.iter().flat_map(Encoded::parts).map(IoSlice::new).collect();
        let shared = self.shared.clone();
        let active = self.active();
        if let Err(e) = write_all(shared.disk.as_ref(), &active.file, &mut slices) {
            return Err(undo(&shared, active, e));
        }
        if shared.options.sync {
            let started = Instant::now();
            self.sync()?;
            self.last_sync = started.elapsed();
        }
        let active = self.active();
        active.bytes += bytes;
        active.next_seq += run.len() as u64;
        Counters::add(&self.shared.counters.disk_bytes, bytes);
        Ok(())
    }

    /// Acknowledges frames that are durable, then shows them to readers.
    fn publish(&self, frames: impl Iterator<Item = Queued>, run: &[Encoded]) {
        let shared = &self.shared;
        let mut shown = Vec::with_capacity(run.len());
        for queued in frames {
            // An appender that no longer waits for its acknowledgement is none of our business.
            let _ = queued.ack.send(Ok(()));
            shown.push((queued.frame, queued.bytes));
        }
        let Some(end) = shown.last().map(|(frame, _)| frame.seq + 1) else {
            return;
        };
        let memory = shown.iter().map(|(_, bytes)| bytes).sum::<u64>();
        Counters::add(&shared.counters.appended, shown.len() as u64);
        let mut store = shared.store();
        if let Some(segment) = store.segments.back_mut() {
            segment.frames += run.len() as u64;
            for ((frame, _), encoded) in shown.iter().zip(run) {
                segment.index.note(frame.seq, segment.bytes);
                segment.bytes += encoded.bytes;
            }
        }
        for (frame, bytes) in shown {
            store.remember(frame, bytes);
        }
        drop(store);
        shared.queue().bytes -= memory;
        shared.progress.send_modify(|p| p.end = end);
    }

    /// Starts a new segment whose first frame will be `first_seq`.
    fn roll(&mut self, first_seq: u64) -> Result<(), Fault> {
        let shared = self.shared.clone();
        let LogOptions { dir, sync, .. } = &shared.options;
        if !sync && self.active.is_some() {
            // Only the last segment may be torn, whatever acknowledgements wait for.
            self.sync()?;
        }
        let header = Header::new(first_seq, &shared.schema, *sync);
        let file = segment::create(dir, &header).map_err(|e| match is_full(&e) {
            true => Fault::Refused(full(&shared, &e)),
            false => Fault::Broken(format!("cannot create a segment: {e}")),
        })?;
        self.active = Some(Active {
            file,
            bytes: header.len(),
            next_seq: first_seq,
        });
        Counters::add(&shared.counters.disk_bytes, header.len());
        shared.store().segments.push_back(Kept {
            first_seq,
            path: segment::path_of(dir, first_seq),
            bytes: header.len(),
            header_bytes: header.len(),
            fingerprint: header.fingerprint,
            frames: 0,
            index: Index::default(),
            adapter: Adapter::same(&shared.schema),
            written: header.rows,
            invalid: header.invalid,
        });
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Fault> {
        let shared = self.shared.clone();
        Counters::add(&shared.counters.fsyncs, 1);
        let synced = shared.disk.sync(&self.active().file);
        synced.map_err(|e| Fault::Broken(format!("a sync of its segment failed: {e}")))
    }

    fn active(&mut self) -> &mut Active {
        self.active
            .as_mut()
            .expect("a segment is opened before frames are encoded")
    }

    /// Fails the rest of a group and everything behind it, whose sequence numbers are taken back.
    fn refuse(&self, mut left: VecDeque<Queued>, why: &Error) {
        let mut queue = self.shared.queue();
        if let Some(first) = left.front() {
            queue.next_seq = first.frame.seq;
        }
        left.append(&mut queue.frames);
        queue.bytes = 0;
        drop(queue);
        Counters::add(&self.shared.counters.refused, left.len() as u64);
        for queued in left {
            let _ = queued.ack.send(Err(copy(why)));
        }
    }

    /// Ends the log: fails everything, now and from now on, and lets the directory be opened again.
    fn fail(self, left: VecDeque<Queued>, why: String) {
        tracing::error!(dir = %self.shared.options.dir.display(), "ingest log failed: {why}");
        self.shared.queue().state = State::Failed(why.clone());
        self.refuse(left, &self.shared.failed(&why));
        drop(self.active);
        lock(&self.shared.held).take();
        self.shared.progress.send_modify(|p| p.state = State::Failed(why));
    }

    /// Ends a log that was closed.
    fn finish(mut self) {
        if !self.shared.options.sync && self.active.is_some() {
            // A courtesy: what was acknowledged from memory survives a power loss after an orderly stop.
            let _ = self.sync();
        }
        self.shared.progress.send_modify(|p| p.state = State::Closed);
    }
}

/// Takes back a write that failed: the log goes on if the disk is merely full and the part that was written
/// can be cut off.
fn undo(shared: &Shared, active: &Active, e: io::Error) -> Fault {
    if !is_full(&e) {
        return Fault::Broken(format!("a write to its segment failed: {e}"));
    }
    match active.file.set_len(active.bytes) {
        Ok(()) => Fault::Refused(full(shared, &e)),
        Err(cut) => Fault::Broken(format!(
            "a write to its segment failed: {e}, and cutting it off too: {cut}"
        )),
    }
}

fn full(shared: &Shared, e: &io::Error) -> Error {
    let message = format!("ingest log {} is full: {e}", shared.options.dir.display());
    Error::Retry {
        message,
        after: Some(FULL_RETRY_AFTER),
    }
}
