//! Rows on their way out: a local file per checkpoint, read back in requests.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use arrow::array::RecordBatch;
use millstream_engine::Result;
use millstream_engine::message::Epoch;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::super::disk::cannot;
pub(super) use super::super::outbox::Sealed;
use super::super::outbox::{OutboxFiles, unreadable};
use super::super::write_ndjson;

/// A request takes no more rows once its body has this size: what receivers commonly take.
const BODY_BYTES: usize = 4 << 20;

/// The rows of one sink that wait.
pub(super) struct Outbox {
    pub files: OutboxFiles,
    open: Option<File>,
}

impl Outbox {
    pub fn new(dir: PathBuf) -> Outbox {
        Outbox {
            files: OutboxFiles::new(dir, "ndjson"),
            open: None,
        }
    }

    /// Adds rows to the checkpoint to come.
    pub fn append(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut lines = Vec::new();
        write_ndjson(rows, &mut lines)?;
        let file = match &mut self.open {
            Some(file) => file,
            none => none.insert(self.files.create()?),
        };
        let written = file.write_all(&lines);
        written.map_err(|e| cannot("write", &self.files.open_path(), e))
    }

    /// Makes durable what was appended; none if nothing was.
    pub async fn seal(&mut self, epoch: Epoch) -> Result<Option<Sealed>> {
        let Some(file) = self.open.take() else {
            return Ok(None);
        };
        self.files.seal(epoch, |_| Ok(file)).await.map(Some)
    }
}

/// The rows of one request, each a JSON object.
pub(super) type Chunk = Vec<Vec<u8>>;

/// Reads an outbox file request by request; the same file and limit always make the same requests.
pub(super) struct Chunks {
    path: PathBuf,
    lines: BufReader<tokio::fs::File>,
    rows: usize,
}

impl Chunks {
    /// None if the file does not exist.
    pub async fn open(path: PathBuf, rows: usize) -> Result<Option<Chunks>> {
        match tokio::fs::File::open(&path).await {
            Ok(file) => Ok(Some(Chunks {
                lines: BufReader::new(file),
                path,
                rows: rows.max(1),
            })),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(unreadable(&path, e)),
        }
    }

    pub async fn next(&mut self) -> Result<Option<Chunk>> {
        let mut chunk = Chunk::new();
        let mut bytes = 0;
        while chunk.len() < self.rows && bytes < BODY_BYTES {
            let mut line = Vec::new();
            let read = self.lines.read_until(b'\n', &mut line).await;
            if read.map_err(|e| unreadable(&self.path, e))? == 0 {
                break;
            }
            line.pop();
            bytes += line.len();
            chunk.push(line);
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}
