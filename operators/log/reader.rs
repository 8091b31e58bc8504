//! Reading a log while it is written.
//!
//! A reader that keeps up gets frames from memory; one that starts or lags reads the segment files, on a
//! thread that may block, a batch of frames at a time. Readers hold no lock while they wait or read, so a
//! slow one never holds the writer up: the frames it has not read stay on disk until they are released.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_engine::{Error, Result};
use tokio::sync::watch;

use super::Frame;
use super::disk::io_error;
use super::scan::{Cursor, Step};
use super::segment::Adapter;
use super::shared::{Progress, Shared, State};

/// Frames handed from the log to a reader at once: enough that locks and threads cost nothing per frame.
const READ_FRAMES: usize = 64;
/// The same by bytes, for large frames: what a lagging reader holds in memory.
const READ_BYTES: u64 = 4 << 20;

/// The frames from `next` on, as they become durable.
pub(super) fn frames(shared: Arc<Shared>, next: u64) -> BoxStream<'static, Result<Frame>> {
    let progress = shared.progress.subscribe();
    let reader = Reader {
        shared,
        progress,
        ready: VecDeque::new(),
        next,
        segment: None,
    };
    let read = |reader: Option<Reader>| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(frame)) => Some((Ok(frame), Some(reader))),
            Ok(None) => None,
            Err(e) => Some((Err(e), None)),
        }
    };
    stream::unfold(Some(reader), read).boxed()
}

struct Reader {
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    ready: VecDeque<Frame>,
    /// The sequence number after the last of `ready`.
    next: u64,
    /// The segment last read from.
    segment: Option<Open>,
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Some(frame));
            }
            let progress = self.progress.borrow_and_update().clone();
            if self.next < progress.end {
                self.fill(progress.end).await?;
                continue;
            }
            match progress.state {
                State::Open => {}
                State::Closed => return Ok(None),
                State::Failed(why) => return Err(self.shared.failed(&why)),
            }
            if self.progress.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Takes more frames before `end`, from memory if they are there.
    async fn fill(&mut self, end: u64) -> Result<()> {
        let recent = self.shared.store().recent(self.next, READ_FRAMES);
        if let Some(last) = recent.last() {
            self.next = last.seq + 1;
            self.ready = recent.into();
            return Ok(());
        }
        let (shared, segment, next) = (self.shared.clone(), self.segment.take(), self.next);
        let read = move || read_disk(&shared, segment, next, end);
        let read = tokio::task::spawn_blocking(read).await;
        let (segment, ready, next) =
            read.map_err(|e| Error::bug(format!("reading the ingest log: {e}")))??;
        (self.segment, self.ready, self.next) = (Some(segment), ready, next);
        Ok(())
    }
}

/// Reads some frames from `next` on; also says where to go on, which is further than the last frame when
/// lost ones follow it.
fn read_disk(
    shared: &Shared,
    segment: Option<Open>,
    mut next: u64,
    end: u64,
) -> Result<(Open, VecDeque<Frame>, u64)> {
    let mut segment = match segment {
        Some(segment) if segment.at == next => segment,
        _ => Open::at(shared, next)?,
    };
    let (mut ready, mut bytes) = (VecDeque::new(), 0);
    while next < end && ready.len() < READ_FRAMES && bytes < READ_BYTES {
        let offset = segment.cursor.offset;
        let step = segment
            .cursor
            .step()
            .map_err(|e| io_error("read", &segment.path, e))?;
        match step {
            Step::Frame(frame) if frame.seq < next => {}
            Step::Frame(frame) => {
                next = frame.seq + 1;
                bytes += frame.as_slice().len() as u64;
                if !frame.is_hole() {
                    let (rows, invalid) = frame
                        .decode(&segment.written, &segment.invalid)
                        .map_err(|e| segment.damaged(offset, &e))?;
                    ready.push_back(Frame {
                        seq: frame.seq,
                        rows: segment.adapter.apply(rows)?,
                        invalid,
                    });
                }
            }
            Step::Bad(reason) => return Err(segment.damaged(offset, &reason)),
            Step::End if segment.grow(shared) => {}
            Step::End => {
                // Behind what a checkpoint covers there may be numbers that were never given to a frame.
                next = next.max(segment.successor(shared)?);
                segment = Open::at(shared, next)?;
            }
        }
    }
    segment.at = next;
    Ok((segment, ready, next))
}

/// An open segment.
struct Open {
    first_seq: u64,
    path: PathBuf,
    written: SchemaRef,
    invalid: SchemaRef,
    adapter: Adapter,
    cursor: Cursor,
    /// The sequence number that `cursor` is at, or before.
    at: u64,
}

impl Open {
    /// The segment that has the frame `next`, at it or before.
    fn at(shared: &Shared, next: u64) -> Result<Open> {
        // Opened under the lock, so that it cannot be released in between.
        let store = shared.store();
        let after = store.segments.partition_point(|s| s.first_seq <= next);
        let Some(segment) = after.checked_sub(1).map(|at| &store.segments[at]) else {
            return Err(released(shared, next));
        };
        let file = File::open(&segment.path).map_err(|e| io_error("open", &segment.path, e))?;
        let offset = segment.index.before(next).unwrap_or(segment.header_bytes);
        Ok(Open {
            first_seq: segment.first_seq,
            path: segment.path.clone(),
            written: segment.written.clone(),
            invalid: segment.invalid.clone(),
            adapter: segment.adapter.clone(),
            cursor: Cursor::new(file, segment.fingerprint, offset, segment.bytes),
            at: next,
        })
    }

    /// Takes in what was written to the segment since it was opened; whether there is any.
    fn grow(&mut self, shared: &Shared) -> bool {
        let store = shared.store();
        let bytes = store
            .segments
            .iter()
            .rev()
            .find(|s| s.first_seq == self.first_seq)
            .map(|s| s.bytes);
        let grown = bytes.is_some_and(|bytes| bytes > self.cursor.end);
        self.cursor.end = bytes.unwrap_or(self.cursor.end);
        grown
    }

    /// The first sequence number of the segment after this one.
    fn successor(&self, shared: &Shared) -> Result<u64> {
        let store = shared.store();
        let at = store.segments.partition_point(|s| s.first_seq <= self.first_seq);
        let missing = || {
            Error::bug(format!(
                "ingest log: {} ends before frames that were shown",
                self.path.display()
            ))
        };
        store.segments.get(at).map(|s| s.first_seq).ok_or_else(missing)
    }

    fn damaged(&self, offset: u64, why: &dyn std::fmt::Display) -> Error {
        Error::config(format!(
            "ingest log: {} is damaged at offset {offset}: {why}; stop the pipeline and run `millstream log repair`",
            self.path.display()
        ))
    }
}

/// The error of a reader that asks for frames that are gone.
pub(super) fn released(shared: &Shared, from: u64) -> Error {
    Error::config(format!(
        "ingest log {}: frame {from} was released, because a later checkpoint covers it; resume from that checkpoint",
        shared.options.dir.display()
    ))
}
