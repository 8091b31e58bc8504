//! Rows as JSON: an array of objects with every column in every row, times as RFC 3339 with `Z`.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::error::ArrowError;
use arrow::json::writer::{JsonArray, LineDelimited, WriterBuilder};

/// Every time is UTC; columns carry no zone, so the writer adds it.
const TIMESTAMP: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

/// The rows of all batches, in order.
pub fn json(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut text = Vec::new();
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_timestamp_format(TIMESTAMP.into())
        .build::<_, JsonArray>(&mut text);
    for batch in batches.iter().filter(|b| b.num_rows() > 0) {
        writer.write(&readable(batch)?)?;
    }
    writer.finish()?;
    drop(writer);
    if text.is_empty() {
        text.extend_from_slice(b"[]");
    }
    Ok(text)
}

/// The rows of a batch, one object per line.
pub fn lines(batch: &RecordBatch) -> Result<String, ArrowError> {
    let mut text = Vec::new();
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .with_timestamp_format(TIMESTAMP.into())
        .build::<_, LineDelimited>(&mut text);
    writer.write(&readable(batch)?)?;
    writer.finish()?;
    drop(writer);
    String::from_utf8(text).map_err(|e| ArrowError::JsonError(e.to_string()))
}

/// The last `limit` rows of a batch.
pub fn last(batch: RecordBatch, limit: usize) -> RecordBatch {
    let skip = batch.num_rows().saturating_sub(limit);
    batch.slice(skip, batch.num_rows() - skip)
}

/// Bytes become text where JSON has none: invalid input, which is most often text, stays legible.
fn readable(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if is_bytes(column.data_type()) {
            fields.push(Arc::new(Field::new(
                field.name(),
                DataType::Utf8,
                field.is_nullable(),
            )));
            columns.push(lossy_text(column)?);
        } else {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn is_bytes(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

fn lossy_text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let bytes = cast(column, &DataType::Binary)?;
    let text = bytes.as_binary::<i32>().iter();
    let text: StringArray = text.map(|raw| raw.map(String::from_utf8_lossy)).collect();
    Ok(Arc::new(text))
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Float64Array, Int64Array, TimestampMicrosecondArray};
    use arrow::record_batch::RecordBatch;
    use serde_json::json;

    use super::*;

    fn batch() -> RecordBatch {
        let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![
            0,
            1_763_899_200_000_000,
            1_763_899_200_250_000,
        ]));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let rate: ArrayRef = Arc::new(Float64Array::from(vec![0.25, f64::NAN, 1.0]));
        let raw: ArrayRef = Arc::new(BinaryArray::from(vec![&b"{"[..], b"\xff", b""]));
        RecordBatch::try_from_iter([("at", at), ("n", n), ("rate", rate), ("raw", raw)]).expect("one length")
    }

    #[test]
    fn every_column_is_in_every_row() {
        let text = json(&[batch(), batch().slice(0, 0)]).expect("json");
        let rows: serde_json::Value = serde_json::from_slice(&text).expect("valid");
        let expect = json!([
            {"at": "1970-01-01T00:00:00Z", "n": 1, "rate": 0.25, "raw": "{"},
            {"at": "2025-11-23T12:00:00Z", "n": null, "rate": null, "raw": "\u{fffd}"},
            {"at": "2025-11-23T12:00:00.250Z", "n": 3, "rate": 1.0, "raw": ""},
        ]);
        assert_eq!(rows, expect);
    }

    #[test]
    fn no_rows_are_an_empty_array() {
        assert_eq!(json(&[]).expect("json"), b"[]");
        assert_eq!(json(&[batch().slice(0, 0)]).expect("json"), b"[]");
    }

    #[test]
    fn the_last_rows_are_kept() {
        assert_eq!(last(batch(), 1), batch().slice(2, 1));
        assert_eq!(last(batch(), 9), batch());
    }
}
