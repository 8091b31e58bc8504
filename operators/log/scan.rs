//! Walking the frames of a segment and saying what is wrong with it.
//!
//! Opening, `log verify` and `log repair` see a segment through [`scan`]; what each makes of the damage is
//! theirs. Reading walks with the same [`Cursor`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use arrow::buffer::{Buffer, MutableBuffer};
use millstream_engine::Result;

use super::disk::io_error;
use super::frame::{ALIGN, Claim, HEAD_BYTES, RawFrame};
use super::segment::Header;

/// Read at once, and kept in memory while any frame of it is: large enough for the disk to stream, small
/// enough that a lagging reader of each of a few dozen lanes stays cheap.
const CHUNK_BYTES: u64 = 1 << 20;
/// Distance between entries of a segment's index: a reader that starts in the middle skips at most this.
const INDEX_EVERY_BYTES: u64 = 1 << 20;

/// What comes next in a segment.
pub(super) enum Step {
    /// A whole frame with a right checksum.
    Frame(RawFrame),
    /// Nothing.
    End,
    /// Bytes that are not a frame, and why.
    Bad(String),
}

/// A position in a segment file.
pub(super) struct Cursor {
    file: File,
    fingerprint: u32,
    /// Where the next frame starts.
    pub offset: u64,
    /// Bytes of the file that may be read.
    pub end: u64,
    chunk: Buffer,
    chunk_at: u64,
}

impl Cursor {
    /// At `offset` of `file`, of which `end` bytes may be read.
    pub fn new(file: File, fingerprint: u32, offset: u64, end: u64) -> Cursor {
        Cursor {
            file,
            fingerprint,
            offset,
            end,
            chunk: Buffer::from(&[]),
            chunk_at: 0,
        }
    }

    /// Reads the frame at the position and moves behind it; does not move if there is none.
    pub fn step(&mut self) -> io::Result<Step> {
        let left = self.end - self.offset;
        if left == 0 {
            return Ok(Step::End);
        }
        if left < HEAD_BYTES as u64 {
            return Ok(Step::Bad(format!("{left} bytes are not a whole frame")));
        }
        let Some(claim) = Claim::read(&self.bytes(HEAD_BYTES as u64)?) else {
            return Ok(Step::Bad("no frame begins like this".into()));
        };
        if claim.bytes > left {
            return Ok(Step::Bad(format!(
                "the frame has {left} of its {} bytes",
                claim.bytes
            )));
        }
        match RawFrame::check(self.bytes(claim.bytes)?, self.fingerprint) {
            Some(frame) => {
                self.offset += claim.bytes;
                Ok(Step::Frame(frame))
            }
            None => Ok(Step::Bad(format!("the checksum of frame {} is wrong", claim.seq))),
        }
    }

    /// Moves on to the next valid frame that can follow, when `expected` and maybe more were lost at the
    /// position. Returns whether there is one; the position is at its start, or at the end.
    fn resync(&mut self, expected: u64) -> io::Result<bool> {
        let bad = self.offset;
        self.offset = (bad + 1).next_multiple_of(ALIGN as u64);
        while self.offset + HEAD_BYTES as u64 <= self.end {
            if let Some(claim) = Claim::read(&self.bytes(HEAD_BYTES as u64)?) {
                let most_lost = (self.offset - bad) / HEAD_BYTES as u64 + 1;
                let follows = claim.seq >= expected && (claim.hole || claim.seq - expected <= most_lost);
                if follows && claim.bytes <= self.end - self.offset {
                    let bytes = self.bytes(claim.bytes)?;
                    if RawFrame::check(bytes, self.fingerprint).is_some() {
                        return Ok(true);
                    }
                }
            }
            self.offset += ALIGN as u64;
        }
        self.offset = self.end;
        Ok(false)
    }

    /// The next `len` bytes, which must be within `end`.
    fn bytes(&mut self, len: u64) -> io::Result<Buffer> {
        let within =
            self.offset >= self.chunk_at && self.offset + len <= self.chunk_at + self.chunk.len() as u64;
        if !within {
            let read = len.max(CHUNK_BYTES).min(self.end - self.offset);
            let mut chunk = MutableBuffer::from_len_zeroed(read as usize);
            self.file.read_exact_at(&mut chunk, self.offset)?;
            self.chunk = chunk.into();
            self.chunk_at = self.offset;
        }
        Ok(self
            .chunk
            .slice_with_length((self.offset - self.chunk_at) as usize, len as usize))
    }
}

/// Where the frames of a segment are: every so many bytes, a frame's sequence number and offset.
#[derive(Clone, Debug, Default)]
pub(super) struct Index(Vec<(u64, u64)>);

impl Index {
    /// Notes a frame if the last one noted is far enough behind it.
    pub fn note(&mut self, seq: u64, offset: u64) {
        if self
            .0
            .last()
            .is_none_or(|(_, last)| offset - last >= INDEX_EVERY_BYTES)
        {
            self.0.push((seq, offset));
        }
    }

    /// Where to start looking for `seq`; `None`: at the first frame.
    pub fn before(&self, seq: u64) -> Option<u64> {
        let after = self.0.partition_point(|(first, _)| *first <= seq);
        after.checked_sub(1).map(|at| self.0[at].1)
    }
}

/// Something in a segment that is not as it was written.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    /// Where in the file.
    pub offset: u64,
    /// How much of the file; 0 if frames are missing between good ones.
    pub bytes: u64,
    /// What is wrong.
    pub reason: String,
    /// The first frame lost here.
    pub first_lost: u64,
    /// The last frame lost here; `None` if nothing valid follows in the segment.
    pub last_lost: Option<u64>,
}

/// All that is known about a segment.
pub(super) struct Scan {
    /// Where it is.
    pub path: PathBuf,
    /// The first sequence number, as its name says.
    pub first_seq: u64,
    /// Its header; `None` when that is damaged.
    pub header: Option<Header>,
    /// Good frames, holes not counted.
    pub frames: u64,
    /// The sequence number after its last frame.
    pub next_seq: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Where the frames are.
    pub index: Index,
    /// What is wrong with it, by offset.
    pub damage: Vec<Damage>,
    /// Where good frames are, holes included: offset and bytes of adjacent ones together.
    pub good: Vec<(u64, u64)>,
}

impl Scan {
    /// The damage after which nothing valid follows, if it has frames and its header is good.
    pub fn tail(&self) -> Option<&Damage> {
        self.damage
            .last()
            .filter(|d| d.last_lost.is_none() && self.header.is_some())
    }
}

/// Reads the whole segment at `path`.
pub(super) fn scan(first_seq: u64, path: &Path) -> Result<Scan> {
    let failed = |e| io_error("read", path, e);
    let file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    match Header::read(path, &file).map_err(failed)? {
        Ok(header) => scan_frames(path, file, header, bytes).map_err(failed),
        Err(reason) => {
            let damage = Damage {
                offset: 0,
                bytes,
                reason,
                first_lost: first_seq,
                last_lost: None,
            };
            Ok(Scan {
                path: path.to_owned(),
                first_seq,
                header: None,
                frames: 0,
                next_seq: first_seq,
                bytes,
                index: Index::default(),
                damage: vec![damage],
                good: Vec::new(),
            })
        }
    }
}

/// Reads the frames of a segment that has, or should have, `header`.
pub(super) fn scan_frames(path: &Path, file: File, header: Header, bytes: u64) -> io::Result<Scan> {
    let mut cursor = Cursor::new(file, header.fingerprint, header.len().min(bytes), bytes);
    let mut scan = Scan {
        path: path.to_owned(),
        first_seq: header.first_seq,
        frames: 0,
        next_seq: header.first_seq,
        bytes,
        header: Some(header),
        index: Index::default(),
        damage: Vec::new(),
        good: Vec::new(),
    };
    loop {
        let offset = cursor.offset;
        match cursor.step()? {
            Step::End => return Ok(scan),
            Step::Frame(frame) => scan.take(offset, &frame),
            Step::Bad(reason) => {
                let found = cursor.resync(scan.next_seq)?;
                let first_lost = scan.next_seq;
                let last_lost = found.then_some(first_lost);
                scan.damage.push(Damage {
                    offset,
                    bytes: cursor.offset - offset,
                    reason,
                    first_lost,
                    last_lost,
                });
            }
        }
    }
}

impl Scan {
    fn take(&mut self, offset: u64, frame: &RawFrame) {
        let (first, bytes) = (frame.first_seq(), frame.as_slice().len() as u64);
        if first < self.next_seq {
            let reason = format!("frame {first} stands where frame {} belongs", self.next_seq);
            let (first_lost, last_lost) = (self.next_seq, Some(self.next_seq.saturating_sub(1)));
            self.damage.push(Damage {
                offset,
                bytes,
                reason,
                first_lost,
                last_lost,
            });
            return;
        }
        let explained = self
            .damage
            .last()
            .is_some_and(|d| d.offset + d.bytes == offset && d.bytes > 0);
        if explained {
            if let Some(d) = self.damage.last_mut() {
                d.last_lost = first.checked_sub(1);
            }
        } else if first > self.next_seq {
            let (first_lost, last_lost) = (self.next_seq, Some(first - 1));
            let reason = format!("frame {first} stands where frame {first_lost} belongs");
            self.damage.push(Damage {
                offset,
                bytes: 0,
                reason,
                first_lost,
                last_lost,
            });
        }
        self.index.note(frame.seq, offset);
        match self.good.last_mut() {
            Some((at, len)) if *at + *len == offset => *len += bytes,
            _ => self.good.push((offset, bytes)),
        }
        self.frames += u64::from(!frame.is_hole());
        self.next_seq = frame.seq + 1;
    }
}
