//! Rows that a sink refuses, for its stream `<sink>.rejected`: each as one line of JSON, with the reason.

use std::sync::Arc;

use arrow::array::{BinaryBuilder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder};
use millstream_engine::Result;
use millstream_engine::sink::SinkContext;
use millstream_engine::source::invalid_schema;
use millstream_engine::time::Timestamp;

use super::write_ndjson;

/// Collects refused rows until [`Sink::rejected`](millstream_engine::sink::Sink::rejected) asks for them. A sink
/// whose call may be made again refuses at the end of the call, when nothing can fail any more.
pub(crate) struct RejectedRows {
    /// The stream that the sink takes.
    origin: String,
    received_at: TimestampMicrosecondBuilder,
    origins: StringBuilder,
    reasons: StringBuilder,
    raw: BinaryBuilder,
    line: Vec<u8>,
    rows: usize,
}

impl RejectedRows {
    /// None so far; `origin` will be the sink's input.
    pub fn new(cx: &SinkContext) -> RejectedRows {
        RejectedRows {
            origin: cx.input.clone(),
            received_at: TimestampMicrosecondBuilder::new(),
            origins: StringBuilder::new(),
            reasons: StringBuilder::new(),
            raw: BinaryBuilder::new(),
            line: Vec::new(),
            rows: 0,
        }
    }

    /// Refuses row `row` of `rows` because of `reason`.
    pub fn push(&mut self, rows: &RecordBatch, row: usize, reason: &str) -> Result<()> {
        self.line.clear();
        write_ndjson(&rows.slice(row, 1), &mut self.line)?;
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        self.received_at.append_value(Timestamp::now().0);
        self.origins.append_value(&self.origin);
        self.reasons.append_value(reason);
        self.raw.append_value(line);
        self.rows += 1;
        Ok(())
    }

    /// Takes the rows, if there are any.
    pub fn take(&mut self) -> Option<RecordBatch> {
        if std::mem::take(&mut self.rows) == 0 {
            return None;
        }
        let columns = vec![
            Arc::new(self.received_at.finish()) as _,
            Arc::new(self.origins.finish()) as _,
            Arc::new(self.reasons.finish()) as _,
            Arc::new(self.raw.finish()) as _,
        ];
        let rows = RecordBatch::try_new(invalid_schema(), columns);
        Some(rows.expect("refused rows have the columns of their schema"))
    }
}
