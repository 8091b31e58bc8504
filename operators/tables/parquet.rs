//! Parquet: columns by name, cast to what is declared.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{Field, SchemaRef};
use arrow::util::display::array_value_to_string;
use bytes::Bytes;
use millstream_engine::config::did_you_mean;
use millstream_engine::{Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Rows of one batch, at most.
const BATCH_ROWS: usize = 65_536;

/// The rows of a file.
pub(super) fn decode(file: Bytes, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let broken = |e: &dyn std::fmt::Display| Error::config(format!("it is not valid Parquet: {e}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| broken(&e))?;
    let known: Vec<String> = reader
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    for field in schema.fields() {
        if !known.contains(field.name()) {
            let help = did_you_mean(field.name(), known.iter().map(String::as_str), '"', "columns");
            let help = help.map(|h| format!("; {h}")).unwrap_or_default();
            return Err(Error::config(format!(
                "no column is named {:?}{help}",
                field.name()
            )));
        }
    }
    let wanted = schema
        .fields()
        .iter()
        .filter_map(|f| known.iter().position(|k| k == f.name()));
    let mask = ProjectionMask::roots(reader.parquet_schema(), wanted);
    let reader = reader.with_projection(mask).with_batch_size(BATCH_ROWS);
    let mut batches = Vec::new();
    let mut before = 0;
    for rows in reader.build().map_err(|e| broken(&e))? {
        let rows = rows.map_err(|e| broken(&e))?;
        batches.push(fit(&rows, schema, before)?);
        before += rows.num_rows();
    }
    Ok(batches)
}

/// The rows in the declared columns. `before` is how many rows the file has before these.
fn fit(rows: &RecordBatch, schema: &SchemaRef, before: usize) -> Result<RecordBatch> {
    let column = |field: &Arc<Field>| match rows.column_by_name(field.name()) {
        Some(column) => convert(column, field, before),
        None => Ok(new_null_array(field.data_type(), rows.num_rows())),
    };
    let columns: Result<Vec<ArrayRef>> = schema.fields().iter().map(column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns?,
        &options,
    )?)
}

fn convert(column: &ArrayRef, field: &Field, before: usize) -> Result<ArrayRef> {
    let name = field.name();
    let lenient = CastOptions {
        safe: true,
        ..Default::default()
    };
    let cast = cast_with_options(column, field.data_type(), &lenient).map_err(|_| {
        let (have, want) = (column.data_type(), field.data_type());
        Error::config(format!("column {name:?} is {have} and cannot be made {want}"))
    })?;
    if cast.null_count() == column.null_count() && (field.is_nullable() || cast.null_count() == 0) {
        return Ok(cast);
    }
    let row =
        (0..cast.len()).find(|row| cast.is_null(*row) && (column.is_valid(*row) || !field.is_nullable()));
    let row = row.unwrap_or_default();
    let wrong = match column.is_valid(row) {
        true => {
            let value = array_value_to_string(column, row).unwrap_or_default();
            format!("{value:?} cannot be made {}", field.data_type())
        }
        false => "is null but declared not null".to_owned(),
    };
    Err(Error::config(format!(
        "row {}: {name:?} {wrong}",
        before + row + 1
    )))
}
