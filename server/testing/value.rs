//! One value that came out, and whether it is the one that was expected.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::compute::{CastOptions, cast};
use arrow::datatypes::{
    DataType, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_engine::time::Timestamp;

/// How a test says that it expects null, for which TOML has no word.
pub const NULL: &str = "NULL";

/// Floating-point results are equal within this fraction: sums depend on the order of the rows.
const RELATIVE: f64 = 1e-9;

/// A value of a result.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number.
    Float(f64),
    /// A point in time.
    Time(Timestamp),
    /// Text, and everything else as text.
    Text(String),
}

/// The values of a column, one per row.
pub fn cells(column: &ArrayRef) -> Result<Vec<Cell>, ArrowError> {
    use DataType::*;
    let cells = match column.data_type() {
        Null => vec![Cell::Null; column.len()],
        Boolean => each(column.as_boolean().iter(), Cell::Bool),
        Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 => {
            let column = cast(column, &Int64)?;
            each(column.as_primitive::<Int64Type>().iter(), |n| Cell::Int(n.into()))
        }
        UInt64 => {
            let column = cast(column, &Decimal128(20, 0))?;
            each(column.as_primitive::<Decimal128Type>().iter(), Cell::Int)
        }
        Float16 | Float32 | Float64 | Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => {
            let column = cast(column, &Float64)?;
            each(column.as_primitive::<Float64Type>().iter(), Cell::Float)
        }
        Timestamp(..) => {
            let column = cast(column, &Timestamp(TimeUnit::Microsecond, None))?;
            let times = column.as_primitive::<TimestampMicrosecondType>();
            each(times.iter(), |at| {
                Cell::Time(millstream_engine::time::Timestamp(at))
            })
        }
        _ => texts(column)?,
    };
    Ok(cells)
}

fn each<T>(values: impl Iterator<Item = Option<T>>, cell: impl Fn(T) -> Cell) -> Vec<Cell> {
    values.map(|v| v.map_or(Cell::Null, &cell)).collect()
}

/// Whatever has no case of its own, as Arrow shows it.
fn texts(column: &ArrayRef) -> Result<Vec<Cell>, ArrowError> {
    // Bytes that are text read better than hexadecimal digits.
    let lossless = CastOptions {
        safe: false,
        ..Default::default()
    };
    let as_text = match column.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            arrow::compute::cast_with_options(column, &DataType::Utf8, &lossless).ok()
        }
        _ => None,
    };
    let column = as_text.as_ref().unwrap_or(column);
    let options = FormatOptions::new();
    let text = ArrayFormatter::try_new(column, &options)?;
    let cell = |row| {
        if column.is_null(row) {
            Cell::Null
        } else {
            Cell::Text(text.value(row).to_string())
        }
    };
    Ok((0..column.len()).map(cell).collect())
}

impl Cell {
    /// Whether this is the expected value: numbers by value, floats within [`RELATIVE`], times however they
    /// are written, [`NULL`] for null.
    pub fn is(&self, expected: &toml::Value) -> bool {
        use toml::Value;
        match (self, expected) {
            (Cell::Null, Value::String(text)) => text == NULL,
            (Cell::Bool(a), Value::Boolean(b)) => a == b,
            (Cell::Int(a), Value::Integer(b)) => *a == i128::from(*b),
            (Cell::Int(a), Value::Float(b)) => near(*a as f64, *b),
            (Cell::Float(a), Value::Float(b)) => near(*a, *b),
            (Cell::Float(a), Value::Integer(b)) => near(*a, *b as f64),
            (Cell::Time(a), Value::String(text)) => time(text) == Some(*a),
            (Cell::Time(a), Value::Datetime(b)) => time(&b.to_string()) == Some(*a),
            (Cell::Text(a), Value::String(b)) => a == b,
            (Cell::Text(a), Value::Datetime(b)) => *a == b.to_string(),
            _ => false,
        }
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cell::Null => f.write_str(NULL),
            Cell::Bool(b) => b.fmt(f),
            Cell::Int(n) => n.fmt(f),
            Cell::Float(x) => write!(f, "{x:?}"),
            Cell::Time(at) => at.fmt(f),
            Cell::Text(text) => text.fmt(f),
        }
    }
}

/// An expected value as [`Cell`] shows it, so that the two stand comparable in one column.
pub fn shown(expected: &toml::Value, column: &DataType) -> String {
    let text = match expected {
        toml::Value::String(text) => text.clone(),
        toml::Value::Float(x) => format!("{x:?}"),
        other => other.to_string(),
    };
    match column {
        DataType::Timestamp(..) => time(&text).map_or(text, |at| at.to_string()),
        _ => text,
    }
}

/// `2026-11-23 12:00:00[.fraction]`, RFC 3339, or a date; UTC unless it says otherwise.
fn time(text: &str) -> Option<Timestamp> {
    let nanos = string_to_timestamp_nanos(text).ok()?;
    Some(Timestamp(nanos.div_euclid(1000)))
}

fn near(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= RELATIVE * a.abs().max(b.abs())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
        TimestampMicrosecondArray, UInt64Array,
    };

    use super::*;

    fn first(column: impl Array + 'static) -> Cell {
        let column: ArrayRef = Arc::new(column);
        cells(&column).expect("a known type").remove(0)
    }

    fn toml(text: &str) -> toml::Value {
        let mut table: toml::Table = toml::from_str(&format!("v = {text}")).expect("toml");
        table.remove("v").expect("v")
    }

    #[test]
    fn values_are_what_tests_say() {
        let noon = || TimestampMicrosecondArray::from(vec![1_763_899_200_500_000]);
        let yes = [
            (first(Int64Array::from(vec![3])), "3"),
            (first(Int64Array::from(vec![3])), "3.0"),
            (first(UInt64Array::from(vec![u64::MAX])), "1.8446744073709552e19"),
            (first(Float64Array::from(vec![0.1 + 0.2])), "0.3"),
            (first(Float64Array::from(vec![2.0])), "2"),
            (first(Float64Array::from(vec![f64::NAN])), "nan"),
            (first(Float64Array::from(vec![None])), "\"NULL\""),
            (first(StringArray::from(vec!["a b"])), "\"a b\""),
            (first(BooleanArray::from(vec![true])), "true"),
            (first(BinaryArray::from(vec![&b"{"[..]])), "\"{\""),
            (first(noon()), "\"2025-11-23 12:00:00.5\""),
            (first(noon()), "\"2025-11-23T12:00:00.500Z\""),
            (first(noon()), "\"2025-11-23T14:00:00.5+02:00\""),
            (first(noon()), "2025-11-23T12:00:00.5Z"),
            (first(noon()), "2025-11-23 12:00:00.5"),
            (first(Date32Array::from(vec![0])), "\"1970-01-01\""),
            (first(Date32Array::from(vec![0])), "1970-01-01"),
        ];
        for (cell, expected) in yes {
            assert!(cell.is(&toml(expected)), "{cell} is {expected}");
        }
    }

    #[test]
    fn other_values_are_not() {
        let no = [
            (first(Int64Array::from(vec![3])), "4"),
            (first(Int64Array::from(vec![3])), "\"3\""),
            (first(Int64Array::from(vec![3])), "\"NULL\""),
            (first(Int64Array::from(vec![None])), "0"),
            (first(Float64Array::from(vec![0.3])), "0.3000001"),
            (first(Float64Array::from(vec![f64::NAN])), "\"NULL\""),
            (first(StringArray::from(vec!["a"])), "\"A\""),
            (
                first(TimestampMicrosecondArray::from(vec![0])),
                "\"1970-01-01 00:00:01\"",
            ),
            (first(TimestampMicrosecondArray::from(vec![0])), "\"noon\""),
        ];
        for (cell, expected) in no {
            assert!(!cell.is(&toml(expected)), "{cell} is not {expected}");
        }
    }
}
