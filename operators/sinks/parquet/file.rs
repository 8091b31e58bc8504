//! One Parquet file while it grows, and how its promised part is turned into a whole file after a crash.
//!
//! At a checkpoint the rows so far become a row group and the file is fsynced, but it stays open; what the
//! checkpoint keeps is the file's length and the footer that would make that length a whole Parquet file. Recovery
//! cuts the file there, writes the footer and has exactly the rows of the checkpoint, without having read
//! them. Such a file has no page index (only finished files do), which readers treat as optional.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use aws_smithy_types::base64;
use millstream_engine::{Error, Result};
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowWriter, encode_arrow_schema};
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataWriter};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};

use super::super::disk::cannot;
use super::staged::Staged;
use super::upload::Upload;

/// A file takes no more row groups than this. Every checkpoint with rows makes one; a footer takes some 100
/// bytes per column and row group, and it stands in every checkpoint while the file is open.
const ROW_GROUPS: usize = 512;

/// Level for the footer in the checkpoint: row groups of one file look alike and shrink to a tenth.
const FOOTER_ZSTD_LEVEL: i32 = 3;

/// What a file takes beside its encoded rows: the writer; for each column of a row group that is written its part of the
/// footer and of the page index; for each column of the row group in memory the encoder, and the compressor once it has
/// compressed a page. The rows take half as much again as the writer says, by what processes with many files grew
/// (`benches/parquet.rs`): buffers that have grown are half empty.
const FILE_BYTES: usize = 24 << 10;
const CHUNK_BYTES: usize = 2 << 10;
const COLUMN_BYTES: usize = 8 << 10;
const CODEC_BYTES: usize = 640 << 10;

/// A page is full at so many rows or bytes: Parquet's defaults, which the properties leave as they are.
const PAGE_ROWS: usize = parquet::file::properties::DEFAULT_DATA_PAGE_ROW_COUNT_LIMIT;
const PAGE_BYTES: usize = parquet::file::properties::DEFAULT_PAGE_SIZE;

/// A file that is whole: fsynced under its staged name, to be published under its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Finished {
    /// File name in the staging directory.
    pub staged: String,
    /// Where it belongs, relative to the sink's path, with `/` between levels.
    pub key: String,
    /// Its length.
    pub bytes: u64,
    /// The upload of its first part to S3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
}

/// A file that goes on growing after the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Promised {
    /// File name in the staging directory.
    pub staged: String,
    /// Where it belongs once whole.
    pub key: String,
    /// Bytes of it that belong to the checkpoint.
    pub bytes: u64,
    /// The footer that makes those bytes a whole file: zstd, then base64.
    pub footer: String,
    /// The upload of its first part to S3, all of it before `bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
}

/// How files are written: the same for every file of a sink.
#[derive(Clone, Debug)]
pub(super) struct FileFormat {
    /// Indices in the stream's schema of the columns that go into files.
    columns: Vec<usize>,
    schema: SchemaRef,
    /// How many columns that is in the file: of a nested one, each leaf.
    leaves: usize,
    properties: WriterProperties,
}

impl FileFormat {
    /// Files with every column of `stream` but those `left_out`.
    pub fn new(stream: &Schema, left_out: &[usize], properties: WriterProperties) -> Result<FileFormat> {
        let columns: Vec<usize> = (0..stream.fields().len())
            .filter(|i| !left_out.contains(i))
            .collect();
        if columns.is_empty() {
            return Err(Error::config(
                "partition_by: no column is left to write to the files",
            ));
        }
        let fields: Vec<Field> = columns.iter().map(|i| stored(stream.field(*i))).collect();
        let schema = Arc::new(Schema::new(fields));
        let descriptor = parquet::arrow::ArrowSchemaConverter::new()
            .convert(&schema)
            .map_err(|e| {
                Error::config(format!(
                    "parquet cannot hold this stream: {e}; cast the column in a query"
                ))
            })?;
        Ok(FileFormat {
            columns,
            schema,
            leaves: descriptor.num_columns(),
            properties,
        })
    }

    /// The columns of files, as they are stored.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The part of `rows` that goes into files, as it is stored.
    pub fn of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns: Result<Vec<_>> = self
            .columns
            .iter()
            .zip(self.schema.fields())
            .map(|(i, field)| Ok(cast(rows.column(*i), field.data_type())?))
            .collect();
        Ok(RecordBatch::try_new(self.schema.clone(), columns?)?)
    }

    /// The footer of a file with the row groups flushed so far.
    fn footer(&self, writer: &ArrowWriter<Staged>) -> Result<Vec<u8>> {
        let groups = writer.flushed_row_groups();
        let Some(first) = groups.first() else {
            return Err(Error::bug("a promised parquet file has no row group"));
        };
        let arrow_schema = KeyValue::new(ARROW_SCHEMA_META_KEY.into(), encode_arrow_schema(&self.schema));
        let about = FileMetaData::new(
            self.properties.writer_version().as_num(),
            groups.iter().map(|g| g.num_rows()).sum(),
            Some(self.properties.created_by().into()),
            Some(vec![arrow_schema]),
            first.schema_descr_ptr(),
            None,
        );
        let metadata = ParquetMetaData::new(about, groups.to_vec());
        let mut footer = Vec::new();
        ParquetMetaDataWriter::new(&mut footer, &metadata)
            .finish()
            .map_err(|e| Error::bug(format!("parquet footer: {e}")))?;
        Ok(footer)
    }
}

/// The type a column has in files: times in microseconds, which every reader knows, and plain instead of
/// dictionary or view layouts.
fn stored(field: &Field) -> Field {
    let plain = match field.data_type() {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    };
    field.clone().with_data_type(plain)
}

/// A file that takes rows.
pub(super) struct OpenFile {
    staged: String,
    key: String,
    path: PathBuf,
    writer: ArrowWriter<Staged>,
    columns: usize,
    /// Of the row group in memory, and of the file: reckoned after every change, as asking every column takes time.
    row_group_memory: usize,
    memory: usize,
    opened: Instant,
    promised: Option<Promised>,
    /// The sink's count of writes when this file last took rows.
    pub last_write: u64,
}

impl OpenFile {
    /// Creates the staged file; one of the same name is left over from a run that promised nothing of it.
    pub fn create(staging: &Path, staged: String, key: String, format: &FileFormat) -> Result<OpenFile> {
        let path = staging.join(&staged);
        let file = File::create(&path).map_err(|e| cannot("create", &path, e))?;
        let writer = ArrowWriter::try_new(
            Staged::new(file),
            format.schema.clone(),
            Some(format.properties.clone()),
        )
        .map_err(|e| cannot("write", &path, e))?;
        let opened = Instant::now();
        let mut file = OpenFile {
            staged,
            key,
            path,
            writer,
            columns: format.leaves,
            row_group_memory: 0,
            memory: 0,
            opened,
            promised: None,
            last_write: 0,
        };
        file.reckon();
        Ok(file)
    }

    /// Takes rows in the stored schema.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.promised = None;
        self.writer
            .write(rows)
            .map_err(|e| cannot("write", &self.path, e))?;
        self.reckon();
        Ok(())
    }

    /// Whether the file is as large as files get.
    pub fn is_full(&self, roll_bytes: u64) -> bool {
        let bytes = self.writer.bytes_written() + self.writer.in_progress_size();
        bytes as u64 >= roll_bytes || self.writer.flushed_row_groups().len() >= ROW_GROUPS
    }

    /// Writes out the rows that are in memory.
    pub fn end_row_group(&mut self) -> Result<()> {
        self.writer.flush().map_err(|e| cannot("write", &self.path, e))?;
        self.reckon();
        Ok(())
    }

    /// Bytes of memory that [`OpenFile::end_row_group`] would free.
    pub fn row_group_memory(&self) -> usize {
        self.row_group_memory
    }

    /// Bytes of memory that the file takes.
    pub fn memory(&self) -> usize {
        self.memory
    }

    fn reckon(&mut self) {
        let rows = self.writer.in_progress_rows();
        let encoded = self.writer.memory_size();
        // A column compresses its first page when it is full.
        let codec = match rows >= PAGE_ROWS || encoded >= PAGE_BYTES {
            true => CODEC_BYTES,
            false => 0,
        };
        self.row_group_memory = match rows {
            0 => 0,
            _ => encoded + encoded / 2 + self.columns * (COLUMN_BYTES + codec),
        };
        let groups = self.writer.flushed_row_groups().len();
        self.memory = FILE_BYTES + groups * self.columns * CHUNK_BYTES + self.row_group_memory;
    }

    /// How long the file has been open.
    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Makes the rows so far a part of the file that the next checkpoint can promise. The second value is
    /// the file to fsync before the promise is given away; none when nothing came since the last promise.
    pub fn promise(&mut self, format: &FileFormat) -> Result<(Promised, Option<File>)> {
        if let Some(promised) = &self.promised {
            return Ok((promised.clone(), None));
        }
        self.writer.inner_mut().paced = true;
        self.end_row_group()?;
        self.writer.sync().map_err(|e| cannot("write", &self.path, e))?;
        self.writer.inner_mut().paced = false;
        let footer = zstd::bulk::compress(&format.footer(&self.writer)?, FOOTER_ZSTD_LEVEL)
            .map_err(|e| Error::bug(format!("compressing a parquet footer: {e}")))?;
        let promised = Promised {
            staged: self.staged.clone(),
            key: self.key.clone(),
            bytes: self.writer.bytes_written() as u64,
            footer: base64::encode(footer),
            upload: None,
        };
        self.promised = Some(promised.clone());
        let file = self
            .writer
            .inner()
            .try_clone()
            .map_err(|e| cannot("sync", &self.path, e))?;
        Ok((promised, Some(file)))
    }

    /// Writes the footer. The file must be fsynced before the result is given away.
    pub fn finish(self) -> Result<(Finished, File)> {
        let OpenFile {
            staged,
            key,
            path,
            writer,
            ..
        } = self;
        let file = writer.into_inner().map_err(|e| cannot("write", &path, e))?;
        let finished = Finished {
            staged,
            key,
            bytes: file.bytes(),
            upload: None,
        };
        Ok((finished, file.into_file()))
    }
}

/// Turns the promised part of a file that a crash left open into a whole file. Doing it again does no harm.
/// Where the staged file is gone, as it is after an earlier recovery has published it, nothing is done.
pub(super) fn complete(staging: &Path, promised: &Promised) -> Result<Finished> {
    let path = staging.join(&promised.staged);
    let finished = |bytes| Finished {
        staged: promised.staged.clone(),
        key: promised.key.clone(),
        bytes,
        upload: promised.upload.clone(),
    };
    let footer = footer(promised)?;
    let bytes = promised.bytes + footer.len() as u64;
    if !path.try_exists().map_err(|e| cannot("open", &path, e))? {
        return Ok(finished(bytes));
    }
    let mut file = OpenOptions::new()
        .write(true)
        .open(&path)
        .map_err(|e| cannot("open", &path, e))?;
    let length = file.metadata().map_err(|e| cannot("open", &path, e))?.len();
    if length < promised.bytes {
        return Err(Error::data(format!(
            "{} has {length} bytes, but the checkpoint holds {}: the disk lost rows that were synced to it; restore \
             the file",
            path.display(),
            promised.bytes
        )));
    }
    file.set_len(promised.bytes)
        .and_then(|()| file.seek(SeekFrom::End(0)))
        .and_then(|_| file.write_all(&footer))
        .and_then(|()| file.sync_all())
        .map_err(|e| cannot("complete", &path, e))?;
    Ok(finished(bytes))
}

fn footer(promised: &Promised) -> Result<Vec<u8>> {
    let damaged = |e: String| Error::bug(format!("checkpoint: footer of {}: {e}", promised.staged));
    let packed = base64::decode(&promised.footer).map_err(|e| damaged(e.to_string()))?;
    zstd::decode_all(&packed[..]).map_err(|e| damaged(e.to_string()))
}
