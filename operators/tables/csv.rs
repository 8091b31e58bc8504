//! CSV with a header. Values are written as in query strings; an empty field is null, but in a `string not null`
//! column it is the empty text.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use csv::{ErrorKind, ReaderBuilder, StringRecord, Trim};
use millstream_engine::config::did_you_mean;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use crate::formats::json::Decoder;

/// Rows of one batch, at most.
const BATCH_ROWS: usize = 65_536;

/// A column: where it stands in the file, its name, and whether an empty field is a text.
struct Field<'s> {
    at: usize,
    name: &'s str,
    keeps_empty: bool,
}

/// The rows of a file.
pub(super) fn decode(text: &[u8], schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let mut reader = ReaderBuilder::new().trim(Trim::Headers).from_reader(text);
    let fields = fields(reader.headers().map_err(|e| broken(&e))?, schema)?;
    let mut decoder = Decoder::new(Arc::clone(schema))?;
    let mut batches = Vec::new();
    let mut row = StringRecord::new();
    while reader.read_record(&mut row).map_err(|e| broken(&e))? {
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(fields.len());
        for field in &fields {
            let value = row.get(field.at).unwrap_or_default();
            if !value.is_empty() || field.keeps_empty {
                pairs.push((field.name.into(), value.into()));
            }
        }
        decoder.decode_pairs(&pairs, Timestamp::MIN).map_err(|e| {
            let line = row.position().map_or(0, csv::Position::line);
            Error::config(format!("line {line}: {}", e.message))
        })?;
        if decoder.len() == BATCH_ROWS {
            batches.push(decoder.finish()?);
        }
    }
    if !decoder.is_empty() {
        batches.push(decoder.finish()?);
    }
    Ok(batches)
}

/// Where the declared columns stand.
fn fields<'s>(header: &StringRecord, schema: &'s Schema) -> Result<Vec<Field<'s>>> {
    let mut fields = Vec::new();
    for field in schema.fields() {
        let name = field.name().as_str();
        let mut found = header.iter().enumerate().filter(|(_, h)| *h == name);
        let at = match (found.next(), found.next()) {
            (Some((at, _)), None) => at,
            (Some(_), Some(_)) => {
                return Err(Error::config(format!("line 1: two columns are named {name:?}")));
            }
            (None, _) => {
                let help = did_you_mean(name, header.iter().collect::<Vec<_>>(), '"', "columns");
                let help = help.map(|h| format!("; {h}")).unwrap_or_default();
                return Err(Error::config(format!(
                    "line 1: no column is named {name:?}{help}"
                )));
            }
        };
        fields.push(Field {
            at,
            name,
            keeps_empty: field.data_type() == &DataType::Utf8 && !field.is_nullable(),
        });
    }
    Ok(fields)
}

fn broken(e: &csv::Error) -> Error {
    let line = e.position().map_or(1, csv::Position::line);
    Error::config(match e.kind() {
        ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("line {line}: {len} fields, not {expected_len} as in the header")
        }
        ErrorKind::Utf8 { err, .. } => format!("line {line}: field {} is not UTF-8", err.field() + 1),
        _ => e.to_string(),
    })
}
