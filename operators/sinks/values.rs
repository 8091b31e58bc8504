//! Values as a table takes them: text, bytes, and times as text that sorts as they do.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::*;
use arrow::temporal_conversions::date32_to_datetime;
use arrow::util::display::array_value_to_string;
use chrono::DateTime;

/// A time that sorts as text.
const TIMESTAMP: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

pub(super) fn is_text(of: &DataType) -> bool {
    matches!(of, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

pub(super) fn is_binary(of: &DataType) -> bool {
    use DataType::*;
    matches!(of, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
}

/// The value of a row as text.
pub(super) fn text(column: &ArrayRef, row: usize) -> Result<String, String> {
    Ok(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        _ => array_value_to_string(column, row).map_err(|e| e.to_string())?,
    })
}

/// The bytes of a binary value.
pub(super) fn bytes(column: &ArrayRef, row: usize) -> Vec<u8> {
    match column.data_type() {
        DataType::Binary => column.as_binary::<i32>().value(row).into(),
        DataType::LargeBinary => column.as_binary::<i64>().value(row).into(),
        DataType::FixedSizeBinary(_) => column.as_fixed_size_binary().value(row).into(),
        _ => column.as_binary_view().value(row).into(),
    }
}

/// A timestamp of a row, UTC to the microsecond: `2026-11-23T12:00:00.000000Z`.
pub(super) fn timestamp(column: &ArrayRef, unit: TimeUnit, row: usize) -> Result<String, String> {
    let at = match unit {
        TimeUnit::Second => {
            DateTime::from_timestamp(column.as_primitive::<TimestampSecondType>().value(row), 0)
        }
        TimeUnit::Millisecond => {
            DateTime::from_timestamp_millis(column.as_primitive::<TimestampMillisecondType>().value(row))
        }
        TimeUnit::Microsecond => {
            DateTime::from_timestamp_micros(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        TimeUnit::Nanosecond => Some(DateTime::from_timestamp_nanos(
            column.as_primitive::<TimestampNanosecondType>().value(row),
        )),
    };
    at.map(|at| at.format(TIMESTAMP).to_string())
        .ok_or_else(|| "a timestamp is beyond the calendar".into())
}

/// A date of a row: `2026-11-23`.
pub(super) fn date(column: &ArrayRef, row: usize) -> Result<String, String> {
    date32_to_datetime(column.as_primitive::<Date32Type>().value(row))
        .map(|at| at.format("%Y-%m-%d").to_string())
        .ok_or_else(|| "a date is beyond the calendar".into())
}
