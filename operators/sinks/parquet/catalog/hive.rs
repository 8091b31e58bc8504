//! The types of the catalog, which are Hive's: what a column of the files is there, and when a column that had
//! one type may get another.

use arrow::datatypes::{DataType, Field};

/// The type under which readers of the catalog find a column of our Parquet files. The error is a type that they
/// could not read, or would read wrongly.
pub(super) fn type_of(of: &DataType) -> Result<String, &DataType> {
    use DataType::*;
    Ok(match of {
        Boolean => "boolean".into(),
        Int8 => "tinyint".into(),
        // Parquet stores small integers in 32 bits with their sign, so the next larger type holds them.
        Int16 | UInt8 => "smallint".into(),
        Int32 | UInt16 => "int".into(),
        Int64 => "bigint".into(),
        Float32 => "float".into(),
        Float64 => "double".into(),
        Utf8 | LargeUtf8 | Utf8View => "string".into(),
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => "binary".into(),
        Date32 => "date".into(),
        Timestamp(..) => "timestamp".into(),
        Decimal32(precision, scale) | Decimal64(precision, scale) | Decimal128(precision, scale)
            if *scale >= 0 =>
        {
            format!("decimal({precision},{scale})")
        }
        Dictionary(_, values) => type_of(values)?,
        List(item) | LargeList(item) | FixedSizeList(item, _) => {
            format!("array<{}>", type_of(item.data_type())?)
        }
        Map(entries, _) => match entries.data_type() {
            Struct(pair) if pair.len() == 2 => {
                let (key, value) = (type_of(pair[0].data_type())?, type_of(pair[1].data_type())?);
                format!("map<{key},{value}>")
            }
            _ => return Err(of),
        },
        Struct(fields) => {
            let members: Result<Vec<String>, _> = fields.iter().map(|f| member(f)).collect();
            format!("struct<{}>", members?.join(","))
        }
        // Among them unsigned integers of 32 and 64 bits, which readers take for signed ones.
        _ => return Err(of),
    })
}

fn member(field: &Field) -> Result<String, &DataType> {
    Ok(format!(
        "{}:{}",
        field.name().to_lowercase(),
        type_of(field.data_type())?
    ))
}

/// The type that files of both types can be read as; none if there is none.
pub(super) fn common(old: &str, new: &str) -> Option<String> {
    const INTEGERS: [&str; 4] = ["tinyint", "smallint", "int", "bigint"];
    const FLOATS: [&str; 2] = ["float", "double"];
    if old == new {
        return Some(old.into());
    }
    [&INTEGERS[..], &FLOATS[..]].iter().find_map(|wider| {
        let place = |of: &str| wider.iter().position(|w| *w == of);
        Some(wider[place(old)?.max(place(new)?)].into())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{Fields, TimeUnit};

    use super::*;

    #[test]
    fn types() {
        let field = |name: &str, of: DataType| Arc::new(Field::new(name, of, true));
        let pair: Fields = vec![field("Id", DataType::Utf8), field("n", DataType::Int64)].into();
        let entries = field("entries", DataType::Struct(pair.clone()));
        let cases = [
            (DataType::Boolean, Some("boolean")),
            (DataType::UInt8, Some("smallint")),
            (DataType::Int64, Some("bigint")),
            (DataType::Float32, Some("float")),
            (DataType::Utf8, Some("string")),
            (
                DataType::Timestamp(TimeUnit::Microsecond, None),
                Some("timestamp"),
            ),
            (DataType::Date32, Some("date")),
            (DataType::Decimal128(38, 10), Some("decimal(38,10)")),
            (
                DataType::List(field("item", DataType::Utf8)),
                Some("array<string>"),
            ),
            (DataType::Struct(pair), Some("struct<id:string,n:bigint>")),
            (DataType::Map(entries, false), Some("map<string,bigint>")),
            (DataType::UInt64, None),
            (DataType::UInt32, None),
            (DataType::Time64(TimeUnit::Microsecond), None),
            (DataType::List(field("item", DataType::UInt64)), None),
        ];
        for (of, expect) in cases {
            assert_eq!(type_of(&of).ok().as_deref(), expect, "{of}");
        }
    }

    #[test]
    fn files_of_two_types_are_read_as_the_wider_one() {
        let cases = [
            ("int", "bigint", Some("bigint")),
            ("bigint", "int", Some("bigint")),
            ("float", "double", Some("double")),
            ("string", "string", Some("string")),
            ("int", "double", None),
            ("string", "int", None),
            ("decimal(10,2)", "decimal(12,2)", None),
            ("timestamp", "date", None),
        ];
        for (old, new, expect) in cases {
            assert_eq!(common(old, new).as_deref(), expect, "{old} {new}");
        }
    }
}
