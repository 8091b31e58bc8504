//! Rows on their way out: a local file per checkpoint, read back in requests.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use millstream_engine::message::Epoch;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::super::disk::{cannot, create_dirs, remove_files, sync_dir};
use super::super::write_ndjson;

/// A request takes no more rows once its body has this size: what receivers commonly take.
const BODY_BYTES: usize = 4 << 20;

/// What the names of all outbox files start with.
const PREFIX: &str = "outbox-";

/// The rows of one checkpoint, fsynced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    /// The checkpoint, by which the file is named.
    pub epoch: Epoch,
}

/// The files of one sink.
pub(super) struct Outbox {
    dir: PathBuf,
    open: Option<File>,
}

impl Outbox {
    pub fn new(dir: PathBuf) -> Outbox {
        Outbox { dir, open: None }
    }

    /// Adds rows to the checkpoint to come.
    pub fn append(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let mut lines = Vec::new();
        write_ndjson(rows, &mut lines)?;
        let path = self.open_path();
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                create_dirs(&self.dir)?;
                none.insert(File::create(&path).map_err(|e| cannot("create", &path, e))?)
            }
        };
        file.write_all(&lines).map_err(|e| cannot("write", &path, e))
    }

    /// Makes durable what was appended; none if nothing was.
    pub async fn seal(&mut self, epoch: Epoch) -> Result<Option<Sealed>> {
        let Some(file) = self.open.take() else {
            return Ok(None);
        };
        let sealed = Sealed { epoch };
        let (from, to, dir) = (self.open_path(), self.path(&sealed), self.dir.clone());
        let done = tokio::task::spawn_blocking(move || {
            file.sync_all().map_err(|e| cannot("sync", &from, e))?;
            fs::rename(&from, &to).map_err(|e| cannot("rename", &from, e))?;
            sync_dir(&dir)
        });
        done.await.map_err(|e| Error::bug(format!("fsync task: {e}")))??;
        Ok(Some(sealed))
    }

    /// Where the rows of a checkpoint lie.
    pub fn path(&self, of: &Sealed) -> PathBuf {
        self.dir.join(format!("{PREFIX}{}.ndjson", of.epoch.0))
    }

    /// Removes the rows of a checkpoint.
    pub fn remove(&self, of: &Sealed) -> Result<()> {
        let path = self.path(of);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(cannot("remove", &path, e)),
            _ => Ok(()),
        }
    }

    /// Removes everything.
    pub fn clear(&self) -> Result<()> {
        remove_files(&self.dir, PREFIX, |_| true)
    }

    fn open_path(&self) -> PathBuf {
        self.dir.join(format!("{PREFIX}open.ndjson"))
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

fn unreadable(path: &Path, e: std::io::Error) -> Error {
    Error::retry(format!("cannot read {}: {e}", path.display()))
}
