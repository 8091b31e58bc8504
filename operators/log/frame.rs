//! One frame: an Arrow batch on its way to disk and back.
//!
//! ```text
//! length u32 | crc32c u32 | seq u64 | flags u32 | rows length u32 | rows | invalid rows
//!             `- over all that follows, seeded with the fingerprint of the segment's schemas
//! ```
//!
//! All integers are little endian; `length` counts what follows the checksum; rows and invalid rows are
//! Arrow IPC record batch messages without their schema (the segment header has it). Everything is a
//! multiple of 8 bytes long, so frames read into aligned memory become arrays without being copied. Invalid
//! rows that are absent take no bytes.
//!
//! A frame flagged [`HOLE`] has no rows: `millstream log repair` leaves it where frames were lost, so that
//! sequence numbers stay gapless and a gap can only mean damage.
//!
//! Formats: Arrow IPC (<https://arrow.apache.org/docs/format/Columnar.html>), CRC-32C (RFC 3720).

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{IpcWriteOptions, StreamEncoder};
use arrow::ipc::{MetadataVersion, root_as_message};
use millstream_engine::source::invalid_schema;
use millstream_engine::{Error, Result};

/// Length and checksum.
pub(super) const PREFIX_BYTES: usize = 8;
/// Everything before the rows; also the smallest frame there can be.
pub(super) const HEAD_BYTES: usize = 24;
/// Frames, and the parts of a frame, start at multiples of this. 8 is what Arrow asks of everything but
/// 128-bit decimals; 64, its default, would double the size of a frame of one row.
pub(super) const ALIGN: usize = 8;
/// Flag of a frame that stands for lost frames; its body is the first lost sequence number.
const HOLE: u32 = 1;

/// A frame ready to be written: its head, and the buffers of its arrays as they are in memory.
pub(super) struct Encoded {
    head: [u8; HEAD_BYTES],
    body: Vec<Buffer>,
    /// Bytes it takes in the file.
    pub bytes: u64,
}

impl Encoded {
    fn new(seq: u64, flags: u32, rows_bytes: usize, body: Vec<Buffer>, fingerprint: u32) -> Result<Encoded> {
        let bytes = HEAD_BYTES + body.iter().map(Buffer::len).sum::<usize>();
        let length = u32::try_from(bytes - PREFIX_BYTES).map_err(|_| {
            Error::data(format!(
                "a frame of {bytes} bytes is larger than the ingest log can hold"
            ))
        })?;
        let mut head = [0; HEAD_BYTES];
        head[0..4].copy_from_slice(&length.to_le_bytes());
        head[8..16].copy_from_slice(&seq.to_le_bytes());
        head[16..20].copy_from_slice(&flags.to_le_bytes());
        head[20..24].copy_from_slice(&(rows_bytes as u32).to_le_bytes());
        let crc = crc32c::crc32c_append(fingerprint, &head[PREFIX_BYTES..]);
        let crc = body
            .iter()
            .fold(crc, |crc, part| crc32c::crc32c_append(crc, part));
        head[4..8].copy_from_slice(&crc.to_le_bytes());
        Ok(Encoded {
            head,
            body,
            bytes: bytes as u64,
        })
    }

    /// The frame that stands for the lost frames `first..=last`.
    pub fn hole(first: u64, last: u64, fingerprint: u32) -> Result<Encoded> {
        Encoded::new(
            last,
            HOLE,
            0,
            vec![Buffer::from(first.to_le_bytes().as_slice())],
            fingerprint,
        )
    }

    /// What to write, in order.
    pub fn parts(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.head.as_slice()).chain(self.body.iter().map(Buffer::as_slice))
    }
}

/// Encodes batches; knows the schemas, so that frames need not.
pub(super) struct Encoder {
    rows: StreamEncoder,
    invalid: StreamEncoder,
    fingerprint: u32,
}

impl Encoder {
    /// An encoder for rows of `schema`; refuses a schema that the log cannot keep.
    pub fn new(schema: &Schema, fingerprint: u32) -> Result<Encoder> {
        refuse_dictionaries(schema)?;
        Ok(Encoder {
            rows: primed(schema)?,
            invalid: primed(&invalid_schema())?,
            fingerprint,
        })
    }

    /// Encodes a frame without copying its arrays.
    pub fn encode(&mut self, seq: u64, rows: &RecordBatch, invalid: Option<&RecordBatch>) -> Result<Encoded> {
        let mut body = self.rows.encode(rows)?;
        let rows_bytes = body.iter().map(Buffer::len).sum();
        if let Some(invalid) = invalid {
            body.append(&mut self.invalid.encode(invalid)?);
        }
        Encoded::new(seq, 0, rows_bytes, body, self.fingerprint)
    }
}

/// A dictionary would travel once per stream of batches, but each frame must stand alone.
fn refuse_dictionaries(schema: &Schema) -> Result<()> {
    let is_dictionary = |d: &DataType| matches!(d, DataType::Dictionary(..));
    match schema
        .flattened_fields()
        .iter()
        .find(|f| is_dictionary(f.data_type()))
    {
        Some(field) => Err(Error::config(format!(
            "column {:?} has type {}, which the ingest log cannot keep; declare its value type",
            field.name(),
            field.data_type()
        ))),
        None => Ok(()),
    }
}

/// A stream encoder that has put out its schema already; what follows are record batch messages only.
fn primed(schema: &Schema) -> Result<StreamEncoder> {
    let options = IpcWriteOptions::try_new(ALIGN, false, MetadataVersion::V5)?;
    let mut encoder = StreamEncoder::try_new_with_options(schema, options)
        .map_err(|e| Error::config(format!("the ingest log cannot keep these columns: {e}")))?;
    encoder.encode(&RecordBatch::new_empty(SchemaRef::new(schema.clone())))?;
    Ok(encoder)
}

/// A frame as it is on disk: checked, not yet decoded.
pub(super) struct RawFrame {
    /// Sequence number; of a hole, the last one lost.
    pub seq: u64,
    bytes: Buffer,
}

/// The length and sequence number a frame's first bytes claim; nothing is checked.
pub(super) struct Claim {
    /// Bytes of the whole frame.
    pub bytes: u64,
    /// Its sequence number.
    pub seq: u64,
    /// Whether it claims to be a hole.
    pub hole: bool,
}

impl Claim {
    /// Reads the first [`HEAD_BYTES`] of a frame; `None` if no frame begins like this.
    pub fn read(head: &[u8]) -> Option<Claim> {
        let bytes = PREFIX_BYTES + u32_at(head, 0) as usize;
        let rows_bytes = u32_at(head, 20) as usize;
        let possible = bytes >= HEAD_BYTES && bytes.is_multiple_of(ALIGN) && rows_bytes <= bytes - HEAD_BYTES;
        possible.then(|| Claim {
            bytes: bytes as u64,
            seq: u64_at(head, 8),
            hole: u32_at(head, 16) & HOLE != 0,
        })
    }
}

impl RawFrame {
    /// Takes the bytes of one whole frame; `None` if the checksum is wrong.
    pub fn check(bytes: Buffer, fingerprint: u32) -> Option<RawFrame> {
        let crc = crc32c::crc32c_append(fingerprint, &bytes[PREFIX_BYTES..]);
        (crc == u32_at(&bytes, 4)).then(|| RawFrame {
            seq: u64_at(&bytes, 8),
            bytes,
        })
    }

    /// The first sequence number it stands for; its own, unless it is a hole.
    pub fn first_seq(&self) -> u64 {
        if self.is_hole() && self.bytes.len() >= HEAD_BYTES + 8 {
            u64_at(&self.bytes, HEAD_BYTES)
        } else {
            self.seq
        }
    }

    /// Whether it stands for lost frames and has no rows.
    pub fn is_hole(&self) -> bool {
        u32_at(&self.bytes, 16) & HOLE != 0
    }

    /// The bytes as they are on disk.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The rows and the invalid rows; the arrays share this frame's memory.
    pub fn decode(
        &self,
        rows: &SchemaRef,
        invalid: &SchemaRef,
    ) -> Result<(RecordBatch, Option<RecordBatch>)> {
        let split = HEAD_BYTES + u32_at(&self.bytes, 20) as usize;
        let batch = decode_message(
            &self.bytes.slice_with_length(HEAD_BYTES, split - HEAD_BYTES),
            rows,
        )?;
        if split == self.bytes.len() {
            return Ok((batch, None));
        }
        Ok((batch, Some(decode_message(&self.bytes.slice(split), invalid)?)))
    }
}

/// Decodes one encapsulated message: continuation marker, metadata length, metadata, body.
fn decode_message(message: &Buffer, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let malformed = |what: String| ArrowError::IpcError(format!("not a record batch message: {what}"));
    if message.len() < 8 {
        return Err(malformed(format!("{} bytes", message.len())));
    }
    let body = 8 + u32_at(message, 4) as usize;
    let metadata = message
        .get(8..body)
        .ok_or_else(|| malformed("metadata is cut off".into()))?;
    let metadata = root_as_message(metadata).map_err(|e| malformed(e.to_string()))?;
    let batch = metadata
        .header_as_record_batch()
        .ok_or_else(|| malformed("another type of message".into()))?;
    let no_dictionaries = HashMap::new();
    arrow::ipc::reader::read_record_batch(
        &message.slice(body),
        batch,
        schema.clone(),
        &no_dictionaries,
        None,
        &metadata.version(),
    )
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
