//! Rows as items: their keys, which of two rows with one key holds, and what DynamoDB would refuse.

use std::collections::HashMap;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use aws_sdk_dynamodb::types::{AttributeValue, ScalarAttributeType};
use millstream_engine::sink::SinkContext;
use millstream_engine::sql::REVISION;
use millstream_engine::{Error, Result};

use super::super::column_of;
use super::super::values::{is_binary, is_text};
use super::options::DynamodbOptions;
use super::value::{is_supported, size, value};

/// Bytes of an item at most.
const ITEM_BYTES: usize = 400 << 10;

/// Bytes of a partition key and of a sort key at most.
const KEY_BYTES: [usize; 2] = [2048, 1024];

/// What an item is put as.
pub(super) type Attributes = HashMap<String, AttributeValue>;

/// A row as DynamoDB takes it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Which of the rows it is.
    pub row: usize,
    /// The same for items of which one replaces the other.
    pub key: String,
    /// Its size as DynamoDB counts it.
    pub bytes: usize,
    pub attributes: Attributes,
    rank: Rank,
}

/// Of two rows with one key, that of the greater rank is newer; of equal ranks, the later row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(Option<Version>, Option<i64>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Number(i128),
    Text(String),
}

/// Which columns are what.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    names: Vec<String>,
    key: Vec<usize>,
    version: Option<usize>,
    revision: Option<usize>,
}

impl Mapping {
    /// Checks the options against the stream.
    pub fn new(cx: &SinkContext, options: &DynamodbOptions) -> Result<Mapping> {
        let [first, rest @ ..] = &options.key[..] else {
            return Err(Error::config("key: name one column or two"));
        };
        if rest.len() > 1 || rest.first() == Some(first) {
            return Err(Error::config(
                "key: name one column, or two different ones: the partition key and the sort key",
            ));
        }
        let key = options.key.iter().map(|name| {
            column_of(cx, "key", name, "a string, integer, time, date or binary", |f| {
                is_ordered(f) || is_binary(f.data_type())
            })
        });
        let version = options
            .version
            .as_ref()
            .map(|name| column_of(cx, "version", name, "a string, integer, time or date", is_ordered));
        for field in cx.schema.fields() {
            column_of(cx, "input", field.name(), "what an item can hold", |f| {
                is_supported(plain(f.data_type()))
            })?;
        }
        Ok(Mapping {
            names: cx.schema.fields().iter().map(|f| f.name().clone()).collect(),
            key: key.collect::<Result<_>>()?,
            version: version.transpose()?,
            revision: cx.schema.index_of(REVISION).ok(),
        })
    }

    /// The table's key attributes, partition key first.
    pub fn key_types(&self, cx: &SinkContext) -> Vec<(String, ScalarAttributeType)> {
        let types = self.key.iter().map(|i| {
            let field = cx.schema.field(*i);
            let of = match plain(field.data_type()) {
                of if of.is_integer() => ScalarAttributeType::N,
                of if is_binary(of) => ScalarAttributeType::B,
                _ => ScalarAttributeType::S,
            };
            (field.name().clone(), of)
        });
        types.collect()
    }

    /// The item of every row, or why DynamoDB would refuse it.
    pub fn items(&self, rows: &RecordBatch) -> Result<Vec<Result<Item, String>>> {
        let columns: Result<Vec<ArrayRef>> = rows
            .columns()
            .iter()
            .map(|column| match column.data_type() {
                DataType::Dictionary(_, values) => Ok(cast(column, values)?),
                _ => Ok(column.clone()),
            })
            .collect();
        let columns = columns?;
        Ok((0..rows.num_rows()).map(|row| self.item(&columns, row)).collect())
    }

    /// The key by which two items are the same, of an item that DynamoDB gave back.
    pub fn key_of(&self, attributes: &Attributes) -> String {
        let parts = self.key.iter().map(|i| match attributes.get(&self.names[*i]) {
            Some(AttributeValue::S(text) | AttributeValue::N(text)) => format!("{}:{text}", text.len()),
            Some(AttributeValue::B(bytes)) => format!("{:?}", bytes.as_ref()),
            _ => String::new(),
        });
        parts.collect()
    }

    fn item(&self, columns: &[ArrayRef], row: usize) -> Result<Item, String> {
        let mut attributes = Attributes::with_capacity(columns.len());
        let mut bytes = 0;
        for (name, column) in self.names.iter().zip(columns) {
            let value = value(column, row).map_err(|why| format!("{name}: {why}"))?;
            if let Some(value) = value {
                bytes += name.len() + size(&value);
                attributes.insert(name.clone(), value);
            }
        }
        if bytes > ITEM_BYTES {
            return Err(format!("an item of {bytes} bytes, which may have {ITEM_BYTES}"));
        }
        for (index, limit) in self.key.iter().zip(KEY_BYTES) {
            let name = &self.names[*index];
            match attributes.get(name).map(size) {
                None => return Err(format!("{name}: NULL in the key")),
                Some(0) => return Err(format!("{name}: empty in the key")),
                Some(bytes) if bytes > limit => {
                    return Err(format!(
                        "{name}: {bytes} bytes in the key, which may have {limit}"
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(Item {
            row,
            key: self.key_of(&attributes),
            bytes,
            rank: self.rank(&attributes)?,
            attributes,
        })
    }

    fn rank(&self, attributes: &Attributes) -> Result<Rank, String> {
        let attribute = |index: Option<usize>| index.and_then(|i| attributes.get(&self.names[i]));
        let version = match (self.version, attribute(self.version)) {
            (Some(index), None) => return Err(format!("{}: NULL as the version", self.names[index])),
            (_, Some(AttributeValue::N(number))) => number.parse().ok().map(Version::Number),
            (_, Some(AttributeValue::S(text))) => Some(Version::Text(text.clone())),
            _ => None,
        };
        let revision = match attribute(self.revision) {
            // Of one window: those of different ones say nothing about which is newer.
            Some(AttributeValue::N(number)) if version.is_some() => number.parse().ok(),
            _ => None,
        };
        Ok(Rank(version, revision))
    }
}

/// One item per key, each the newest of its key's: the last one where they rank alike. The second value is how many
/// were passed over.
pub(super) fn newest(items: impl Iterator<Item = Item>) -> (Vec<Item>, u64) {
    let (mut kept, mut places, mut passed_over) = (Vec::<Item>::new(), HashMap::new(), 0);
    for item in items {
        match places.get(&item.key) {
            None => {
                places.insert(item.key.clone(), kept.len());
                kept.push(item);
            }
            Some(&place) => {
                passed_over += 1;
                if item.rank >= kept[place].rank {
                    kept[place] = item;
                }
            }
        }
    }
    (kept, passed_over)
}

fn plain(of: &DataType) -> &DataType {
    match of {
        DataType::Dictionary(_, values) => values,
        of => of,
    }
}

/// Whether DynamoDB puts values of the column in their order.
fn is_ordered(field: &Field) -> bool {
    let of = plain(field.data_type());
    of.is_integer() || is_text(of) || matches!(of, DataType::Timestamp(..) | DataType::Date32)
}
