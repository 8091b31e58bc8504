//! Input that could not become rows, collected for a source's `.invalid` stream.

use std::sync::Arc;

use arrow::array::{BinaryBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use millstream_engine::source::invalid_schema;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

/// Bytes of one piece of input that are kept. Enough to see what a producer sends; a stream of bad bodies
/// must not fill the log with them.
pub const RAW_BYTES: usize = 64 << 10;

/// Collects rows of [`invalid_schema`] until [`InvalidRows::finish`].
#[derive(Default)]
pub struct InvalidRows {
    received_at: TimestampMicrosecondBuilder,
    origin: StringBuilder,
    reason: StringBuilder,
    raw: BinaryBuilder,
    bytes: usize,
    rows: usize,
}

impl InvalidRows {
    /// Appends one: when it came, from where, why it is no row, and its bytes, of which the first
    /// [`RAW_BYTES`] are kept.
    pub fn push(&mut self, at: Timestamp, origin: &str, reason: &str, raw: &[u8]) {
        let raw = &raw[..raw.len().min(RAW_BYTES)];
        self.received_at.append_value(at.0);
        self.origin.append_value(origin);
        self.reason.append_value(reason);
        self.raw.append_value(raw);
        self.bytes += raw.len() + origin.len() + reason.len();
        self.rows += 1;
    }

    /// Rows appended since the last [`InvalidRows::finish`].
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether nothing was appended since the last [`InvalidRows::finish`].
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// About how many bytes the appended rows take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes the rows, if there are any.
    pub fn finish(&mut self) -> Result<Option<RecordBatch>> {
        if self.is_empty() {
            return Ok(None);
        }
        self.rows = 0;
        self.bytes = 0;
        let columns = vec![
            Arc::new(self.received_at.finish()) as _,
            Arc::new(self.origin.finish()) as _,
            Arc::new(self.reason.finish()) as _,
            Arc::new(self.raw.finish()) as _,
        ];
        RecordBatch::try_new(invalid_schema(), columns)
            .map(Some)
            .map_err(|e| Error::bug(format!("invalid rows have the columns of their schema: {e}")))
    }
}
