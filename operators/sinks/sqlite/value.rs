//! Arrow values as SQLite keeps them.
//!
//! | column | kept as |
//! |---|---|
//! | integer, boolean (0 or 1) | `INTEGER` |
//! | float | `REAL`; NaN as NULL, which is how SQLite itself reads it |
//! | string, decimal (every digit) | `TEXT` |
//! | timestamp | `TEXT`, UTC to the microsecond: `2026-11-23T12:00:00.000000Z`, so that text sorts as time does |
//! | date, time of day | `TEXT`: `2026-11-23`, `12:00:00` |
//! | binary | `BLOB` |
//! | list, struct, map | `TEXT`, JSON |
//! | NULL | `NULL` |

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::*;
use rusqlite::types::Value;

use super::super::values::{bytes, date, is_binary, text, timestamp};
use super::super::write_ndjson;
use millstream_engine::Result;

/// The type of a column in the table.
pub(super) fn sql_type(of: &DataType) -> &'static str {
    use DataType::*;
    match of {
        Dictionary(_, values) => sql_type(values),
        Float16 | Float32 | Float64 => "REAL",
        Boolean => "INTEGER",
        of if of.is_integer() => "INTEGER",
        of if is_binary(of) => "BLOB",
        _ => "TEXT",
    }
}

/// A column with values of one of the types above only: dictionaries as their values, what is nested as JSON.
pub(super) fn flat(column: &ArrayRef) -> Result<ArrayRef> {
    match column.data_type() {
        DataType::Dictionary(_, values) => Ok(cast(column, values)?),
        of if of.is_nested() => json(column),
        _ => Ok(column.clone()),
    }
}

/// The value of a row of a flat column. The error says why the table has no place for it.
pub(super) fn value(column: &ArrayRef, row: usize) -> Result<Value, String> {
    use DataType::*;
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        Null => Value::Null,
        Boolean => Value::Integer(column.as_boolean().value(row).into()),
        Int8 => Value::Integer(column.as_primitive::<Int8Type>().value(row).into()),
        Int16 => Value::Integer(column.as_primitive::<Int16Type>().value(row).into()),
        Int32 => Value::Integer(column.as_primitive::<Int32Type>().value(row).into()),
        Int64 => Value::Integer(column.as_primitive::<Int64Type>().value(row)),
        UInt8 => Value::Integer(column.as_primitive::<UInt8Type>().value(row).into()),
        UInt16 => Value::Integer(column.as_primitive::<UInt16Type>().value(row).into()),
        UInt32 => Value::Integer(column.as_primitive::<UInt32Type>().value(row).into()),
        UInt64 => {
            let number = column.as_primitive::<UInt64Type>().value(row);
            let fits = i64::try_from(number);
            Value::Integer(
                fits.map_err(|_| format!("{number} is beyond the integers of SQLite, 64 bits with sign"))?,
            )
        }
        Float16 => real(f32::from(column.as_primitive::<Float16Type>().value(row)).into()),
        Float32 => real(column.as_primitive::<Float32Type>().value(row).into()),
        Float64 => real(column.as_primitive::<Float64Type>().value(row)),
        Timestamp(unit, _) => Value::Text(timestamp(column, *unit, row)?),
        Date32 => Value::Text(date(column, row)?),
        of if is_binary(of) => Value::Blob(bytes(column, row)),
        _ => Value::Text(text(column, row)?),
    })
}

fn real(number: f64) -> Value {
    match number.is_nan() {
        true => Value::Null,
        false => Value::Real(number),
    }
}

/// Each value as JSON, by way of a row that has nothing else.
fn json(column: &ArrayRef) -> Result<ArrayRef> {
    const BEFORE: &str = "{\"v\":";
    let schema = Schema::new(vec![Field::new("v", column.data_type().clone(), true)]);
    let rows = RecordBatch::try_new(Arc::new(schema), vec![column.clone()])?;
    let mut lines = Vec::new();
    write_ndjson(&rows, &mut lines)?;
    let lines = String::from_utf8_lossy(&lines);
    let values = lines.lines().enumerate().map(|(row, line)| {
        let value = line.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix('}'));
        value.filter(|_| column.is_valid(row))
    });
    Ok(Arc::new(values.collect::<arrow::array::StringArray>()))
}

#[cfg(test)]
mod tests {
    use arrow::array::*;

    use super::*;

    fn one(column: impl Array + 'static) -> Result<Value, String> {
        value(&flat(&(Arc::new(column) as ArrayRef)).unwrap(), 0)
    }

    #[test]
    fn values_keep_every_digit_and_times_sort() {
        let text = |text: &str| Ok(Value::Text(text.into()));
        let decimal = Decimal128Array::from(vec![-12_345_678_901_234_567_890_i128]);
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
        let field = Arc::new(Field::new("a", DataType::Utf8, true));
        let pair = StructArray::from(vec![(
            field,
            Arc::new(StringArray::from(vec!["x\"y\n"])) as ArrayRef,
        )]);
        let dictionary: DictionaryArray<Int32Type> = ["seen"].into_iter().collect();
        let cases = [
            (
                one(Int64Array::from(vec![i64::MIN])),
                Ok(Value::Integer(i64::MIN)),
            ),
            (one(UInt64Array::from(vec![5])), Ok(Value::Integer(5))),
            (
                one(Float64Array::from(vec![0.1 + 0.2])),
                Ok(Value::Real(0.1 + 0.2)),
            ),
            (one(Float64Array::from(vec![f64::NAN])), Ok(Value::Null)),
            (
                one(decimal.with_precision_and_scale(38, 10).unwrap()),
                text("-1234567890.1234567890"),
            ),
            (one(StringArray::from(vec![""])), text("")),
            (one(StringArray::from(vec![None::<&str>])), Ok(Value::Null)),
            (
                one(TimestampMicrosecondArray::from(vec![1_795_474_800_000_000])),
                text("2026-11-23T23:00:00.000000Z"),
            ),
            (one(Date32Array::from(vec![20_780])), text("2026-11-23")),
            (one(BooleanArray::from(vec![true])), Ok(Value::Integer(1))),
            (
                one(BinaryArray::from(vec![&b"\x00\xff"[..]])),
                Ok(Value::Blob(vec![0, 255])),
            ),
            (one(list), text("[1,null]")),
            (one(pair), text(r#"{"a":"x\"y\n"}"#)),
            (one(dictionary), text("seen")),
        ];
        for (got, expect) in cases {
            assert_eq!(got, expect);
        }
        let beyond = one(UInt64Array::from(vec![u64::MAX])).unwrap_err();
        assert!(beyond.starts_with("18446744073709551615 is beyond"), "{beyond}");
    }
}
