//! Arrow values as attribute values.
//!
//! | column | attribute |
//! |---|---|
//! | integer, decimal, float | `N`, every digit |
//! | string | `S` |
//! | boolean | `BOOL` |
//! | timestamp | `S`, UTC to the microsecond: `2026-11-23T12:00:00.000000Z`, so that text sorts as time does |
//! | date, time of day | `S`: `2026-11-23`, `12:00:00` |
//! | binary | `B` |
//! | list | `L`, a NULL in it `NULL` |
//! | struct, map with strings as keys | `M` |
//! | NULL | the attribute is absent |

use std::collections::HashMap;
use std::fmt::{Display, LowerExp};

use arrow::array::{Array, ArrayRef, AsArray, StructArray};
use arrow::datatypes::*;
use arrow::util::display::array_value_to_string;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;

use super::super::values::{bytes, date, is_binary, is_text, text, timestamp};

/// Digits of a number that DynamoDB keeps.
const DIGITS: usize = 38;

/// A number other than 0 is smaller than the one and not smaller than the other.
const LARGEST: f64 = 1e126;
const SMALLEST: f64 = 1e-130;

/// Floats in this range are written without an exponent.
const PLAIN: std::ops::Range<f64> = 1e-6..1e16;

/// Whether values of the type can be attributes.
pub(super) fn is_supported(of: &DataType) -> bool {
    use DataType::*;
    match of {
        List(field) | LargeList(field) | FixedSizeList(field, _) => is_supported(field.data_type()),
        Struct(fields) => fields.iter().all(|f| is_supported(f.data_type())),
        Map(entries, _) => match entries.data_type() {
            Struct(pair) => is_text(pair[0].data_type()) && is_supported(pair[1].data_type()),
            _ => false,
        },
        Timestamp(..) | Time32(_) | Time64(_) | Date32 | Date64 | Boolean | Null => true,
        _ => of.is_numeric() || is_text(of) || is_binary(of),
    }
}

/// The value of a row; none for NULL. The error says why DynamoDB has no place for it.
pub(super) fn value(column: &ArrayRef, row: usize) -> Result<Option<AttributeValue>, String> {
    use DataType::*;
    if column.is_null(row) {
        return Ok(None);
    }
    let value = match column.data_type() {
        Null => return Ok(None),
        Boolean => AttributeValue::Bool(column.as_boolean().value(row)),
        Timestamp(unit, _) => AttributeValue::S(timestamp(column, *unit, row)?),
        Date32 => AttributeValue::S(date(column, row)?),
        List(_) => list(&column.as_list::<i32>().value(row))?,
        LargeList(_) => list(&column.as_list::<i64>().value(row))?,
        FixedSizeList(..) => list(&column.as_fixed_size_list().value(row))?,
        Struct(_) => AttributeValue::M(members(column.as_struct(), row)?),
        Map(..) => map(&column.as_map().value(row))?,
        of if of.is_numeric() => AttributeValue::N(number(column, row)?),
        of if is_binary(of) => AttributeValue::B(Blob::new(bytes(column, row))),
        _ => AttributeValue::S(text(column, row)?),
    };
    Ok(Some(value))
}

/// Bytes of a value as DynamoDB counts them.
pub(super) fn size(of: &AttributeValue) -> usize {
    match of {
        AttributeValue::S(text) => text.len(),
        AttributeValue::N(number) => number.len().div_ceil(2) + 1,
        AttributeValue::B(bytes) => bytes.as_ref().len(),
        AttributeValue::L(list) => 3 + list.iter().map(|v| 1 + size(v)).sum::<usize>(),
        AttributeValue::M(map) => 3 + map.iter().map(|(k, v)| 1 + k.len() + size(v)).sum::<usize>(),
        _ => 1,
    }
}

fn list(values: &ArrayRef) -> Result<AttributeValue, String> {
    // The place of a NULL in a list counts.
    let values = (0..values.len()).map(|i| Ok(value(values, i)?.unwrap_or(AttributeValue::Null(true))));
    Ok(AttributeValue::L(values.collect::<Result<_, String>>()?))
}

fn members(of: &StructArray, row: usize) -> Result<HashMap<String, AttributeValue>, String> {
    let mut members = HashMap::new();
    for (field, column) in of.fields().iter().zip(of.columns()) {
        if let Some(value) = value(column, row)? {
            members.insert(field.name().clone(), value);
        }
    }
    Ok(members)
}

fn map(entries: &StructArray) -> Result<AttributeValue, String> {
    let mut members = HashMap::new();
    for row in 0..entries.len() {
        let key = text(entries.column(0), row)?;
        if let Some(value) = value(entries.column(1), row)? {
            members.insert(key, value);
        }
    }
    Ok(AttributeValue::M(members))
}

fn number(column: &ArrayRef, row: usize) -> Result<String, String> {
    match column.data_type() {
        DataType::Float16 => float(f32::from(column.as_primitive::<Float16Type>().value(row))),
        // Its own shortest digits: as an f64, 0.1 would have eight more.
        DataType::Float32 => float(column.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        _ => {
            let text = array_value_to_string(column, row).map_err(|e| e.to_string())?;
            let digits = text.trim_start_matches(['-', '0', '.']);
            let digits = digits.chars().filter(char::is_ascii_digit).count();
            match digits > DIGITS {
                true => Err(format!("{text} has more than {DIGITS} digits")),
                false => Ok(text),
            }
        }
    }
}

/// The fewest digits that read back as the same value.
fn float<T: Display + LowerExp + Into<f64> + Copy>(value: T) -> Result<String, String> {
    let magnitude = value.into().abs();
    match magnitude {
        0.0 => Ok("0".into()),
        _ if PLAIN.contains(&magnitude) => Ok(value.to_string()),
        _ if (SMALLEST..LARGEST).contains(&magnitude) => Ok(format!("{value:e}")),
        _ => Err(format!(
            "{value:e} is beyond the numbers of DynamoDB, 1e-130 to 9.9e125"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;

    use super::*;

    fn one(column: impl Array + 'static) -> Result<Option<AttributeValue>, String> {
        value(&(Arc::new(column) as ArrayRef), 0)
    }

    #[test]
    fn values_keep_every_digit_and_times_sort() {
        let n = |text: &str| Ok(Some(AttributeValue::N(text.into())));
        let s = |text: &str| Ok(Some(AttributeValue::S(text.into())));
        let at = 1_795_474_800_000_000;
        let decimal = Decimal128Array::from(vec![-12_345_678_901_234_567_890_123_456_789_012_345_678_i128]);
        let cases = [
            (one(Int64Array::from(vec![i64::MIN])), n("-9223372036854775808")),
            (one(UInt64Array::from(vec![u64::MAX])), n("18446744073709551615")),
            (one(Float64Array::from(vec![0.1 + 0.2])), n("0.30000000000000004")),
            (one(Float64Array::from(vec![1e100])), n("1e100")),
            (one(Float64Array::from(vec![-0.0])), n("0")),
            (one(Float32Array::from(vec![0.1])), n("0.1")),
            (
                one(decimal.with_precision_and_scale(38, 10).unwrap()),
                n("-1234567890123456789012345678.9012345678"),
            ),
            (one(StringArray::from(vec![""])), s("")),
            (one(StringArray::from(vec![None::<&str>])), Ok(None)),
            (
                one(TimestampMicrosecondArray::from(vec![at])),
                s("2026-11-23T23:00:00.000000Z"),
            ),
            (
                one(TimestampMillisecondArray::from(vec![at / 1000 + 5])),
                s("2026-11-23T23:00:00.005000Z"),
            ),
            (one(Date32Array::from(vec![20_780])), s("2026-11-23")),
            (
                one(BooleanArray::from(vec![true])),
                Ok(Some(AttributeValue::Bool(true))),
            ),
            (
                one(BinaryArray::from(vec![&b"\x00\xff"[..]])),
                Ok(Some(AttributeValue::B(Blob::new(*b"\x00\xff")))),
            ),
            (one(Float64Array::from(vec![f64::NAN])), Err("NaN is beyond")),
            (one(Float64Array::from(vec![1e126])), Err("1e126 is beyond")),
            (one(Float64Array::from(vec![1e-131])), Err("1e-131 is beyond")),
        ];
        for (got, expect) in cases {
            match (got, expect) {
                (Err(got), Err(expect)) => assert!(got.starts_with(expect), "{got}"),
                (got, expect) => assert_eq!(got, expect.map_err(String::from)),
            }
        }
    }

    #[test]
    fn lists_keep_places_and_structs_leave_nulls_out() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
        let expect = AttributeValue::L(vec![AttributeValue::N("1".into()), AttributeValue::Null(true)]);
        assert_eq!(one(list), Ok(Some(expect)));
        let field = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
        let column = |text: Option<&str>| Arc::new(StringArray::from(vec![text])) as ArrayRef;
        let pair = StructArray::from(vec![(field("a"), column(Some("x"))), (field("b"), column(None))]);
        let expect = HashMap::from([("a".into(), AttributeValue::S("x".into()))]);
        assert_eq!(one(pair), Ok(Some(AttributeValue::M(expect))));
    }
}
