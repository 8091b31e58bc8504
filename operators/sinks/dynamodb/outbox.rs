//! Rows on their way out: a local Arrow file per checkpoint, read back in chunks.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use millstream_engine::message::Epoch;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::super::disk::{cannot, create_dirs, remove_files, sync_dir};

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
    open: Option<StreamWriter<BufWriter<File>>>,
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
        let path = self.open_path();
        let writer = match &mut self.open {
            Some(writer) => writer,
            none => none.insert(create(&self.dir, &path, &rows.schema())?),
        };
        writer.write(rows).map_err(|e| cannot("write", &path, e))
    }

    /// Makes durable what was appended; none if nothing was.
    pub async fn seal(&mut self, epoch: Epoch) -> Result<Option<Sealed>> {
        let Some(writer) = self.open.take() else {
            return Ok(None);
        };
        let sealed = Sealed { epoch };
        let (from, to, dir) = (self.open_path(), self.path(&sealed), self.dir.clone());
        let done = tokio::task::spawn_blocking(move || {
            // Writes the end of the stream and what is buffered.
            let file = writer.into_inner().map_err(|e| cannot("write", &from, e))?;
            let file = file.into_inner().map_err(|e| cannot("write", &from, e))?;
            file.sync_all().map_err(|e| cannot("sync", &from, e))?;
            fs::rename(&from, &to).map_err(|e| cannot("rename", &from, e))?;
            sync_dir(&dir)
        });
        done.await.map_err(|e| Error::bug(format!("fsync task: {e}")))??;
        Ok(Some(sealed))
    }

    /// Where the rows of a checkpoint lie.
    pub fn path(&self, of: &Sealed) -> PathBuf {
        self.dir.join(format!("{PREFIX}{}.arrow", of.epoch.0))
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
        self.dir.join(format!("{PREFIX}open.arrow"))
    }
}

fn create(dir: &Path, path: &Path, schema: &SchemaRef) -> Result<StreamWriter<BufWriter<File>>> {
    create_dirs(dir)?;
    let file = File::create(path).map_err(|e| cannot("create", path, e))?;
    StreamWriter::try_new(BufWriter::new(file), schema).map_err(|e| cannot("write", path, e))
}

/// Reads an outbox file chunk by chunk.
pub(super) struct Chunks {
    path: PathBuf,
    schema: SchemaRef,
    /// None while a task reads.
    reader: Option<StreamReader<BufReader<File>>>,
    /// Read, and not given out yet.
    rest: Option<RecordBatch>,
}

impl Chunks {
    /// None if the file does not exist.
    pub fn open(path: PathBuf) -> Result<Option<Chunks>> {
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unreadable(&path, e)),
        };
        let reader = StreamReader::try_new(BufReader::new(file), None).map_err(|e| unreadable(&path, e))?;
        Ok(Some(Chunks {
            path,
            schema: reader.schema(),
            reader: Some(reader),
            rest: None,
        }))
    }

    /// What the rows looked like when they were written: the pipeline may have changed since.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The next rows, `limit` of them unless the file ends before.
    pub async fn next(&mut self, limit: usize) -> Result<Option<RecordBatch>> {
        let (mut rows, mut parts) = (0, Vec::new());
        while rows < limit {
            let Some(batch) = self.batch().await? else {
                break;
            };
            let take = batch.num_rows().min(limit - rows);
            if take < batch.num_rows() {
                self.rest = Some(batch.slice(take, batch.num_rows() - take));
            }
            rows += take;
            parts.push(batch.slice(0, take));
        }
        match rows {
            0 => Ok(None),
            _ => Ok(Some(concat_batches(&self.schema, &parts)?)),
        }
    }

    async fn batch(&mut self) -> Result<Option<RecordBatch>> {
        if let Some(rest) = self.rest.take() {
            return Ok(Some(rest));
        }
        let Some(mut reader) = self.reader.take() else {
            return Err(Error::bug("an outbox file is read twice at once"));
        };
        let read = tokio::task::spawn_blocking(move || (reader.next(), reader));
        let (batch, reader) = read
            .await
            .map_err(|e| Error::bug(format!("task that reads an outbox: {e}")))?;
        self.reader = Some(reader);
        batch.transpose().map_err(|e| unreadable(&self.path, e))
    }
}

fn unreadable(path: &Path, e: impl std::fmt::Display) -> Error {
    Error::retry(format!("cannot read {}: {e}", path.display()))
}
