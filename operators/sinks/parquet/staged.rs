//! The file under a Parquet writer while it grows: it goes to the disk as it is written.
//!
//! Left alone, the kernel keeps what is written until an fsync, which then writes all of it at once: at 40 MB some
//! 20 ms, in which the fsyncs of the ingest log, on the same disk, wait too. So every [`STEP_BYTES`] the disk is
//! started on what there is, and the fsync of a checkpoint finds little left.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;

use rustix::fs::{Advice, fadvise};

/// Written at a time: one or two milliseconds of a disk.
const STEP_BYTES: u64 = 1 << 20;

/// A file that is written from its start to its end.
pub(super) struct Staged {
    file: File,
    written: u64,
    /// So much of it the disk has been started on.
    started: u64,
    /// Wait for the disk after every step.
    pub paced: bool,
}

impl Staged {
    /// Writes to a file that is empty.
    pub fn new(file: File) -> Staged {
        Staged {
            file,
            written: 0,
            started: 0,
            paced: false,
        }
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.written
    }

    /// The file, to fsync it.
    pub fn into_file(self) -> File {
        self.file
    }

    /// The file once more, to fsync it.
    pub fn try_clone(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn start(&mut self) -> io::Result<()> {
        let fresh = NonZeroU64::new(self.written - self.started);
        // Linux starts to write what is dirty when it is told that the pages will not be read. It is advice: where it
        // is not taken, the fsync has more to do.
        let _ = fadvise(&self.file, self.started, fresh, Advice::DontNeed);
        self.started = self.written;
        if self.paced {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let step = bytes.len().min(STEP_BYTES as usize);
        let written = self.file.write(&bytes[..step])?;
        self.written += written as u64;
        if self.written - self.started >= STEP_BYTES {
            self.start()?;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
