//! Parquet: columns by name, cast to what is declared.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options, filter};
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::json::LineDelimitedWriter;
use arrow::util::display::array_value_to_string;
use millstream_engine::config::did_you_mean;
use millstream_engine::source::RECEIVED_AT;
use millstream_engine::{Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::schema::types::SchemaDescriptor;

use super::json::RowError;
use super::{Absent, BadRow, Piece, Place};

/// Which columns of a file are read: the declared ones.
///
/// # Errors
/// Of class data: a declared column is not there.
pub fn projection(
    file: &Schema,
    parquet: &SchemaDescriptor,
    schema: &SchemaRef,
    absent: Absent,
) -> Result<ProjectionMask> {
    let known: Vec<&str> = file.fields().iter().map(|f| f.name().as_str()).collect();
    let missing = |field: &&Arc<Field>| !known.contains(&field.name().as_str()) && !absent.allows(field);
    if let Some(field) = schema.fields().iter().find(missing) {
        let help = did_you_mean(field.name(), known.iter().copied(), '"', "columns");
        let help = help.map(|h| format!("; {h}")).unwrap_or_default();
        let name = field.name();
        return Err(Error::data(format!("no column is named {name:?}{help}")));
    }
    let wanted = schema
        .fields()
        .iter()
        .filter_map(|f| known.iter().position(|k| k == f.name()));
    Ok(ProjectionMask::roots(parquet, wanted))
}

/// The rows in the declared columns. `before` is how many rows the file has before these.
///
/// # Errors
/// Of class data: a column is of a type that cannot be made the declared one.
pub fn fit(rows: &RecordBatch, schema: &SchemaRef, before: u64, absent: Absent) -> Result<Piece> {
    let mut wrong = BTreeMap::new();
    let mut columns = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        columns.push(match (rows.column_by_name(field.name()), absent) {
            (Some(column), _) => convert(column, field, &mut wrong)?,
            (None, Absent::Filled(at)) if field.name() == RECEIVED_AT => {
                Arc::new(TimestampMicrosecondArray::from_value(at.0, rows.num_rows()))
            }
            (None, _) => new_null_array(field.data_type(), rows.num_rows()),
        });
    }
    if !wrong.is_empty() {
        let good = (0..rows.num_rows()).map(|row| Some(!wrong.contains_key(&row)));
        let good = BooleanArray::from_iter(good);
        for column in &mut columns {
            *column = filter(column, &good)?;
        }
    }
    let left = rows.num_rows() - wrong.len();
    let options = RecordBatchOptions::new().with_row_count(Some(left));
    let bad = wrong.into_iter().map(|(row, message)| BadRow {
        place: Place::Row(before + row as u64 + 1),
        error: RowError::new("wrong_type", message),
        raw: as_json(&rows.slice(row, 1)),
    });
    Ok(Piece {
        bad: bad.collect(),
        rows: RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?,
    })
}

/// The column as declared; tells of rows whose value cannot be.
fn convert(column: &ArrayRef, field: &Field, wrong: &mut BTreeMap<usize, String>) -> Result<ArrayRef> {
    let name = field.name();
    let lenient = CastOptions {
        safe: true,
        ..Default::default()
    };
    let cast = cast_with_options(column, field.data_type(), &lenient).map_err(|_| {
        let (have, want) = (column.data_type(), field.data_type());
        Error::data(format!("column {name:?} is {have} and cannot be made {want}"))
    })?;
    if cast.null_count() == column.null_count() && (field.is_nullable() || cast.null_count() == 0) {
        return Ok(cast);
    }
    for row in (0..cast.len()).filter(|row| cast.is_null(*row)) {
        let why = match column.is_valid(row) {
            true => {
                let value = array_value_to_string(column, row).unwrap_or_default();
                format!("{value:?} cannot be made {}", field.data_type())
            }
            false if field.is_nullable() => continue,
            false => "is null but declared not null".to_owned(),
        };
        wrong.entry(row).or_insert_with(|| format!("{name:?} {why}"));
    }
    Ok(cast)
}

/// A row for people; empty where it cannot be written as JSON.
fn as_json(row: &RecordBatch) -> Vec<u8> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    match writer.write(row).and_then(|()| writer.finish()) {
        Ok(()) => writer.into_inner().trim_ascii_end().to_vec(),
        Err(_) => Vec::new(),
    }
}
