//! Reading the lake as an independent reader would: plain Parquet files below one folder.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::rows::{Row, Stream, Uuid};

/// Calls `each` for every row of `stream` in the lake at `root`; returns the number of files.
///
/// Names that start with `.` or `_` or end in `.inprogress` are not part of the lake: they are being written.
pub fn read_stream(root: &Path, stream: Stream, mut each: impl FnMut(Row)) -> anyhow::Result<usize> {
    let folder = root.join(stream.name());
    if !folder.exists() {
        return Ok(0);
    }
    let files = files_below(&folder)?;
    for path in &files {
        read_file(path, stream, &mut each).with_context(|| path.display().to_string())?;
    }
    Ok(files.len())
}

fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(['.', '_']) || name.ends_with(".inprogress") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".parquet") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_file(path: &Path, stream: Stream, each: &mut impl FnMut(Row)) -> anyhow::Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let wanted = [stream.id_column(), "impression_id", "ad_id", "occurred_at"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
    for batch in builder.with_projection(mask).build()? {
        read_batch(&batch?, stream, each)?;
    }
    Ok(())
}

fn read_batch(batch: &RecordBatch, stream: Stream, each: &mut impl FnMut(Row)) -> anyhow::Result<()> {
    let text = |name: &str| column(batch, name, &DataType::Utf8);
    let (ids, impressions, ads) = (text(stream.id_column())?, text("impression_id")?, text("ad_id")?);
    let (ids, impressions, ads) = (
        ids.as_string::<i32>(),
        impressions.as_string::<i32>(),
        ads.as_string::<i32>(),
    );
    let times = column(
        batch,
        "occurred_at",
        &DataType::Timestamp(TimeUnit::Microsecond, None),
    )?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    for index in 0..batch.num_rows() {
        let uuid = |name: &str, text: &str| {
            Uuid::parse(text)
                .ok_or_else(|| anyhow!("{name} {text:?} is not a uuid, so not a row of loadgen's"))
        };
        each(Row {
            id: uuid("id", ids.value(index))?,
            impression: uuid("impression_id", impressions.value(index))?,
            ad: uuid("ad_id", ads.value(index))?,
            occurred_at: times.value(index),
        });
    }
    Ok(())
}

fn column(batch: &RecordBatch, name: &str, as_type: &DataType) -> anyhow::Result<arrow::array::ArrayRef> {
    let Some(column) = batch.column_by_name(name) else {
        bail!("has no column {name}")
    };
    // A time with a zone is cast to the same instant without one.
    let column = cast(column, as_type).with_context(|| format!("column {name} is {}", column.data_type()))?;
    if column.null_count() > 0 {
        bail!("column {name} has nulls");
    }
    Ok(column)
}
