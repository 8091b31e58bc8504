//! Segment files: their names, their headers, and reading them to the schema a reader wants.
//!
//! ```text
//! "MSTRMLOG" | crc32c u32 | version u32 | header length u32 | flags u32 | first seq u64
//! | fingerprint u32 | rows schema length u32 | invalid schema length u32 | 0 u32 | schemas | padding | frames
//! ```
//!
//! The checksum covers everything after itself. The schemas are Arrow IPC schema messages, so a segment can
//! be read by itself; the fingerprint is their CRC-32C and seeds the checksum of every frame, so frames never
//! pass under schemas that are not theirs. A segment appears under its name by renaming, with its header
//! durable: a bad header is always damage, never a torn write.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::convert::try_schema_from_flatbuffer_bytes;
use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteOptions};
use millstream_engine::source::invalid_schema;
use millstream_engine::{Error, Result};

use super::disk::{TEMPORARY, io_error, replace_file};
use super::frame::{ALIGN, u32_at, u64_at};

const MAGIC: &[u8; 8] = b"MSTRMLOG";
/// The only format there is; a later one comes with code that reads this one.
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 48;
/// No header is longer; a few thousand columns with long names make one MiB.
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Flag of a segment whose frames were acknowledged without waiting for the disk.
const MEMORY_ACKS: u32 = 1;
/// Extension of segments.
const SEGMENT: &str = "log";

/// What a segment says about its frames.
#[derive(Clone, Debug)]
pub(super) struct Header {
    /// Sequence number of its first frame.
    pub first_seq: u64,
    /// Whether acknowledgements waited for the disk.
    pub sync: bool,
    /// Schema of the rows.
    pub rows: SchemaRef,
    /// Schema of the invalid rows.
    pub invalid: SchemaRef,
    /// Seeds the checksum of every frame.
    pub fingerprint: u32,
    bytes: Vec<u8>,
}

impl Header {
    /// The header of a new segment.
    pub fn new(first_seq: u64, rows: &SchemaRef, sync: bool) -> Header {
        let (rows, invalid) = (rows.clone(), invalid_schema());
        let (rows_bytes, invalid_bytes) = (schema_bytes(&rows), schema_bytes(&invalid));
        let fingerprint = fingerprint(&rows_bytes, &invalid_bytes);
        let len = (FIXED_BYTES + rows_bytes.len() + invalid_bytes.len()).next_multiple_of(ALIGN);
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[0; 4]);
        let flags = if sync { 0 } else { MEMORY_ACKS };
        for field in [VERSION, len as u32, flags] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&first_seq.to_le_bytes());
        for field in [
            fingerprint,
            rows_bytes.len() as u32,
            invalid_bytes.len() as u32,
            0,
        ] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&rows_bytes);
        bytes.extend_from_slice(&invalid_bytes);
        bytes.resize(len, 0);
        seal(&mut bytes);
        Header {
            first_seq,
            sync,
            rows,
            invalid,
            fingerprint,
            bytes,
        }
    }

    /// The header of another segment with the same schemas.
    pub fn at(&self, first_seq: u64) -> Header {
        let mut bytes = self.bytes.clone();
        bytes[24..32].copy_from_slice(&first_seq.to_le_bytes());
        seal(&mut bytes);
        Header {
            first_seq,
            bytes,
            ..self.clone()
        }
    }

    /// Bytes before the first frame.
    pub fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// The header as it is in the file.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads the header of the segment at `path`; the inner error is what is wrong with it.
    pub fn read(path: &Path, file: &File) -> io::Result<Result<Header, String>> {
        use std::os::unix::fs::FileExt;
        let available = file.metadata()?.len();
        let mut bytes = vec![0; FIXED_BYTES.min(available as usize)];
        file.read_exact_at(&mut bytes, 0)?;
        let len = match header_len(&bytes) {
            Ok(len) if len > available => return Ok(Err("the header is cut off".into())),
            Ok(len) => len,
            Err(reason) => return Ok(Err(reason)),
        };
        bytes.resize(len as usize, 0);
        file.read_exact_at(&mut bytes, 0)?;
        Ok(parse(bytes, path))
    }
}

/// Puts the checksum in.
fn seal(header: &mut [u8]) {
    let crc = crc32c::crc32c(&header[12..]);
    header[8..12].copy_from_slice(&crc.to_le_bytes());
}

fn header_len(fixed: &[u8]) -> Result<u64, String> {
    if fixed.len() < FIXED_BYTES {
        return Err("the header is cut off".into());
    }
    if &fixed[..8] != MAGIC {
        return Err("it does not begin like a segment of the ingest log".into());
    }
    let len = u64::from(u32_at(fixed, 16));
    if len < FIXED_BYTES as u64 || len > MAX_HEADER_BYTES {
        return Err(format!("the header has an impossible length of {len} bytes"));
    }
    Ok(len)
}

fn parse(bytes: Vec<u8>, path: &Path) -> Result<Header, String> {
    if crc32c::crc32c(&bytes[12..]) != u32_at(&bytes, 8) {
        return Err("the checksum of the header is wrong".into());
    }
    let version = u32_at(&bytes, 12);
    if version != VERSION {
        return Err(format!(
            "it has format version {version}, written by another version of millstream"
        ));
    }
    let first_seq = u64_at(&bytes, 24);
    if Some(first_seq) != seq_of(path) {
        return Err(format!(
            "it was named {:020}.{SEGMENT} when it was written",
            first_seq
        ));
    }
    let (rows_len, invalid_len) = (u32_at(&bytes, 36) as usize, u32_at(&bytes, 40) as usize);
    let schemas = bytes
        .get(FIXED_BYTES..FIXED_BYTES + rows_len + invalid_len)
        .ok_or("the schemas are cut off")?;
    let (rows, invalid) = schemas.split_at(rows_len);
    Ok(Header {
        first_seq,
        sync: u32_at(&bytes, 20) & MEMORY_ACKS == 0,
        rows: parse_schema(rows)?,
        invalid: parse_schema(invalid)?,
        fingerprint: u32_at(&bytes, 32),
        bytes,
    })
}

fn parse_schema(bytes: &[u8]) -> Result<SchemaRef, String> {
    // Copied into memory that is aligned as flatbuffers like it.
    let schema = try_schema_from_flatbuffer_bytes(&Buffer::from(bytes)).map_err(|e| e.to_string())?;
    Ok(Arc::new(schema))
}

fn schema_bytes(schema: &Schema) -> Vec<u8> {
    let mut dictionaries = DictionaryTracker::new(false);
    IpcDataGenerator::default()
        .schema_to_bytes_with_dictionary_tracker(schema, &mut dictionaries, &IpcWriteOptions::default())
        .ipc_message
}

fn fingerprint(rows: &[u8], invalid: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(rows), invalid)
}

/// The name of the segment whose first frame is `first_seq`.
pub(super) fn path_of(dir: &Path, first_seq: u64) -> PathBuf {
    dir.join(format!("{first_seq:020}.{SEGMENT}"))
}

/// The first sequence number in a segment's name.
pub(super) fn seq_of(path: &Path) -> Option<u64> {
    let stem = path.file_stem()?.to_str()?;
    let is_segment = path.extension()? == SEGMENT && stem.len() == 20;
    if is_segment { stem.parse().ok() } else { None }
}

/// The segments in `dir`, oldest first.
pub(super) fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let failed = |e| io_error("list", dir, e);
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let Some(seq) = seq_of(&path) {
            segments.push((seq, path));
        }
    }
    segments.sort();
    Ok(segments)
}

/// Removes what an interrupted creation left behind.
pub(super) fn remove_temporaries(dir: &Path) -> Result<()> {
    let failed = |e| io_error("clean", dir, e);
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == TEMPORARY) {
            fs::remove_file(&path).map_err(failed)?;
        }
    }
    Ok(())
}

/// Creates a segment without frames, durably, and opens it for appending.
pub(super) fn create(dir: &Path, header: &Header) -> io::Result<File> {
    let path = path_of(dir, header.first_seq);
    replace_file(&path, header.as_slice())?;
    OpenOptions::new().append(true).open(path)
}

/// How rows written under one schema are given to a reader that wants another.
#[derive(Clone)]
pub(super) struct Adapter {
    wanted: SchemaRef,
    /// For each wanted column, the one that has it; `None`: null in every row.
    from: Option<Arc<[Option<usize>]>>,
}

impl Adapter {
    /// For rows that are in the wanted schema already.
    pub fn same(wanted: &SchemaRef) -> Adapter {
        Adapter {
            wanted: wanted.clone(),
            from: None,
        }
    }

    /// Columns are matched by name. Refuses what would change the meaning of a value or leave a column that
    /// must not be null without one.
    pub fn new(written: &Schema, wanted: &SchemaRef, segment: &Path) -> Result<Adapter> {
        if written == wanted.as_ref() {
            return Ok(Adapter::same(wanted));
        }
        let refuse = |what: String| {
            Error::config(format!(
                "ingest log: {} holds rows that were accepted under other columns: {what}; run the pipeline as it \
                 was until they are processed, or move the directory aside to give them up",
                segment.display()
            ))
        };
        let mut from = Vec::with_capacity(wanted.fields().len());
        for field in wanted.fields() {
            from.push(match written.column_with_name(field.name()) {
                Some((at, was)) if was.data_type() == field.data_type() => Some(at),
                Some((_, was)) => {
                    let (name, is) = (field.name(), field.data_type());
                    return Err(refuse(format!(
                        "column {name:?} was {} and now is {is}",
                        was.data_type()
                    )));
                }
                None if field.is_nullable() => None,
                None => {
                    return Err(refuse(format!(
                        "they have no {:?}, which must not be null",
                        field.name()
                    )));
                }
            });
        }
        Ok(Adapter {
            wanted: wanted.clone(),
            from: Some(from.into()),
        })
    }

    /// The same rows in the wanted schema.
    pub fn apply(&self, rows: RecordBatch) -> Result<RecordBatch> {
        let Some(from) = &self.from else { return Ok(rows) };
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        let columns = from.iter().zip(self.wanted.fields()).map(|(at, field)| match at {
            Some(at) => rows.column(*at).clone(),
            None => new_null_array(field.data_type(), rows.num_rows()),
        });
        RecordBatch::try_new_with_options(self.wanted.clone(), columns.collect(), &options).map_err(|e| {
            Error::config(format!(
                "ingest log: rows accepted under other columns do not fit the present ones: {e}; allow nulls in the \
                 column until they are processed"
            ))
        })
    }
}
