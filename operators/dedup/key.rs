//! A row's key as 128 bits.
//!
//! The hash is part of checkpoints, so it must be the same in every version:
//!
//! - Each key column adds its value: text and binary their length (8 bytes) and their bytes, a boolean one byte,
//!   numbers, timestamps and dates their little-endian bytes. Arrow's own row format does not promise to stay.
//! - BLAKE3 in keyed mode over these bytes; the first 16 bytes, as a little-endian number.
//! - The BLAKE3 key is derived from [`CONTEXT`] and the columns' names and types. So after a change of `key`
//!   in the file nothing matches what was remembered before, instead of something matching by accident.

use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, LargeStringArray, RecordBatch, StringArray, StringViewArray,
};
use arrow::datatypes::{Field, Schema};
use millstream_engine::{Error, Result};

/// Separates these hashes from all others made with BLAKE3. Never change it.
const CONTEXT: &str = "millstream dedup key, version 1";

/// How the keys of one source are hashed.
pub struct KeyHash {
    columns: Vec<usize>,
    derived: [u8; 32],
    scratch: Vec<u8>,
}

impl KeyHash {
    /// For the columns of `schema` with the given indices.
    pub fn new(schema: &Schema, columns: &[usize]) -> KeyHash {
        let mut named = Vec::new();
        for column in columns {
            let field = schema.field(*column);
            append_text(field.name().as_bytes(), &mut named);
            append_text(field.data_type().to_string().as_bytes(), &mut named);
        }
        KeyHash {
            columns: columns.to_vec(),
            derived: blake3::derive_key(CONTEXT, &named),
            scratch: Vec::new(),
        }
    }

    /// The hashes of the rows of a batch.
    pub fn of<'a>(&'a mut self, rows: &'a RecordBatch) -> Result<Hashes<'a>> {
        let values: Result<Vec<_>> = self.columns.iter().map(|c| Values::of(rows, *c)).collect();
        Ok(Hashes {
            values: values?,
            derived: &self.derived,
            scratch: &mut self.scratch,
        })
    }
}

/// The hashes of a batch.
pub struct Hashes<'a> {
    values: Vec<Values<'a>>,
    derived: &'a [u8; 32],
    scratch: &'a mut Vec<u8>,
}

impl Hashes<'_> {
    /// The hash of a row's key; none when a part of it is null.
    pub fn row(&mut self, row: usize) -> Option<u128> {
        self.scratch.clear();
        for values in &self.values {
            values.append(row, self.scratch)?;
        }
        let hash = blake3::keyed_hash(self.derived, self.scratch);
        let (half, _) = hash.as_bytes().split_first_chunk()?;
        Some(u128::from_le_bytes(*half))
    }
}

/// Refuses a column that cannot be part of a key.
pub fn check(field: &Field) -> Result<()> {
    let nothing = RecordBatch::new_empty(Arc::new(Schema::new(vec![field.clone()])));
    Values::of(&nothing, 0).map(drop)
}

enum Values<'a> {
    Text(&'a StringArray),
    LargeText(&'a LargeStringArray),
    TextView(&'a StringViewArray),
    Binary(&'a BinaryArray),
    Boolean(&'a BooleanArray),
    /// Values of one width, one after the other.
    Fixed {
        column: &'a dyn Array,
        bytes: &'a [u8],
        width: usize,
    },
}

impl<'a> Values<'a> {
    fn of(rows: &'a RecordBatch, index: usize) -> Result<Values<'a>> {
        use arrow::datatypes::*;
        let column = rows.column(index);
        let fixed = |bytes: &'a [u8], width| Values::Fixed { column, bytes, width };
        macro_rules! primitive {
            ($type:ty) => {{
                let values = column.as_primitive::<$type>().values();
                let width = size_of::<<$type as ArrowPrimitiveType>::Native>();
                fixed(&values.inner().as_slice()[..values.len() * width], width)
            }};
        }
        Ok(match column.data_type() {
            DataType::Utf8 => Values::Text(column.as_string()),
            DataType::LargeUtf8 => Values::LargeText(column.as_string()),
            DataType::Utf8View => Values::TextView(column.as_string_view()),
            DataType::Binary => Values::Binary(column.as_binary()),
            DataType::Boolean => Values::Boolean(column.as_boolean()),
            DataType::Int8 => primitive!(Int8Type),
            DataType::Int16 => primitive!(Int16Type),
            DataType::Int32 => primitive!(Int32Type),
            DataType::Int64 => primitive!(Int64Type),
            DataType::UInt8 => primitive!(UInt8Type),
            DataType::UInt16 => primitive!(UInt16Type),
            DataType::UInt32 => primitive!(UInt32Type),
            DataType::UInt64 => primitive!(UInt64Type),
            DataType::Float32 => primitive!(Float32Type),
            DataType::Float64 => primitive!(Float64Type),
            DataType::Date32 => primitive!(Date32Type),
            DataType::Timestamp(TimeUnit::Microsecond, None) => primitive!(TimestampMicrosecondType),
            other => {
                let name = rows.schema_ref().field(index).name();
                return Err(Error::config(format!(
                    "column {name:?} of type {other} cannot be part of a key; name columns of text, numbers, \
                     booleans or times"
                )));
            }
        })
    }

    fn append(&self, row: usize, to: &mut Vec<u8>) -> Option<()> {
        match self {
            Values::Text(column) if column.is_valid(row) => append_text(column.value(row).as_bytes(), to),
            Values::LargeText(column) if column.is_valid(row) => {
                append_text(column.value(row).as_bytes(), to)
            }
            Values::TextView(column) if column.is_valid(row) => append_text(column.value(row).as_bytes(), to),
            Values::Binary(column) if column.is_valid(row) => append_text(column.value(row), to),
            Values::Boolean(column) if column.is_valid(row) => to.push(column.value(row).into()),
            Values::Fixed { column, bytes, width } if column.is_valid(row) => {
                to.extend_from_slice(&bytes[row * width..][..*width]);
            }
            _ => return None,
        }
        Some(())
    }
}

/// The length goes first: "ab", "c" and "a", "bc" are different keys.
fn append_text(text: &[u8], to: &mut Vec<u8>) {
    to.extend_from_slice(&(text.len() as u64).to_le_bytes());
    to.extend_from_slice(text);
}
