//! Rows on their way to a table: a local Arrow file per checkpoint, read back in batches or in chunks of one size.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind};
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use millstream_engine::message::Epoch;
use millstream_engine::{Error, Result};

use super::disk::cannot;
pub(super) use super::outbox::Sealed;
use super::outbox::{OutboxFiles, unreadable};

/// The rows of one sink that wait.
pub(super) struct Outbox {
    pub files: OutboxFiles,
    open: Option<StreamWriter<BufWriter<File>>>,
}

impl Outbox {
    pub fn new(dir: PathBuf) -> Outbox {
        Outbox {
            files: OutboxFiles::new(dir, "arrow"),
            open: None,
        }
    }

    /// Adds rows to the checkpoint to come.
    pub fn append(&mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let broken = |e: ArrowError| cannot("write", &self.files.open_path(), e);
        let writer = match &mut self.open {
            Some(writer) => writer,
            none => {
                let file = BufWriter::new(self.files.create()?);
                none.insert(StreamWriter::try_new(file, &rows.schema()).map_err(broken)?)
            }
        };
        writer.write(rows).map_err(broken)
    }

    /// Makes durable what was appended; none if nothing was.
    pub async fn seal(&mut self, epoch: Epoch) -> Result<Option<Sealed>> {
        let Some(writer) = self.open.take() else {
            return Ok(None);
        };
        // Writes the end of the stream and what is buffered.
        let finish = move |path: &Path| {
            let file = writer.into_inner().map_err(|e| cannot("write", path, e))?;
            file.into_inner().map_err(|e| cannot("write", path, e))
        };
        self.files.seal(epoch, finish).await.map(Some)
    }
}

/// The rows of an outbox file.
pub(super) type Rows = StreamReader<BufReader<File>>;

/// Opens an outbox file, batch by batch as it was written; none if it does not exist. Blocks.
pub(super) fn rows(path: &Path) -> Result<Option<Rows>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(path, e)),
    };
    StreamReader::try_new(BufReader::new(file), None)
        .map(Some)
        .map_err(|e| unreadable(path, e))
}

/// Reads an outbox file chunk by chunk.
pub(super) struct Chunks {
    path: PathBuf,
    schema: SchemaRef,
    /// None while a task reads.
    reader: Option<Rows>,
    /// Read, and not given out yet.
    rest: Option<RecordBatch>,
}

impl Chunks {
    /// None if the file does not exist.
    pub fn open(path: PathBuf) -> Result<Option<Chunks>> {
        let Some(reader) = rows(&path)? else {
            return Ok(None);
        };
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
