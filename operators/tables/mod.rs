//! Reference tables in files: CSV, Parquet and JSON, on local disk or in S3.
//!
//! A file is read as a whole and every row of it must fit the declared columns: a join against a table with
//! holes would give wrong results without a word, so the first bad row is an error that names row and field.
//! Columns that are not declared are left out. Local files are best replaced by renaming, and objects are replaced
//! whole: what is read while it is being written is half a table.

use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use millstream_engine::source::options;
use millstream_engine::table::{TableContext, TableFormat, TableLoader};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use crate::aws::{self, AwsOptions};
use crate::formats::json::{Decoder, Reader};
use crate::formats::{Absent, Piece, csv, files, parquet};

/// Bytes of a table's file, packed and unpacked, at most. A table is held in memory, twice while it is replaced, and
/// every join hashes it; what is larger is a stream.
const TABLE_BYTES: u64 = 1 << 30;

/// Rows of Parquet that are read together.
const BATCH_ROWS: usize = 65_536;

/// Endings of names, and what they say.
const ENDINGS: [(&str, TableFormat); 6] = [
    ("csv", TableFormat::Csv),
    ("json", TableFormat::Json),
    ("jsonl", TableFormat::Json),
    ("ndjson", TableFormat::Json),
    ("parquet", TableFormat::Parquet),
    ("pq", TableFormat::Parquet),
];

/// Reads tables out of files and objects.
pub struct FileTables;

#[async_trait]
impl TableLoader for FileTables {
    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(AwsOptions)
    }

    fn check(&self, table: &TableContext) -> Result<()> {
        Location::of(&table.path)?;
        format(table)?;
        options::<AwsOptions>(&table.options)?.check()?;
        Decoder::new(Arc::clone(&table.schema)).map(drop)
    }

    async fn load(&self, table: &TableContext) -> Result<Vec<RecordBatch>> {
        let (path, schema, format) = (table.path.clone(), Arc::clone(&table.schema), format(table)?);
        let object = match Location::of(&path)? {
            Location::Local => None,
            Location::S3 { bucket, key } => Some(object(table, bucket, key).await?),
        };
        // Decoding takes the time of a core, and reading that of a disk.
        let decoded = tokio::task::spawn_blocking(move || {
            let from = match object {
                Some(bytes) => files::unpack(&path, Cursor::new(bytes)),
                None => files::open(Path::new(&path)),
            };
            from.map_err(|e| cannot_read(&path, &e))
                .and_then(|from| decode(from, format, &schema).map_err(|e| e.within(&path)))
        });
        decoded
            .await
            .map_err(|e| Error::bug(format!("reading a table: {e}")))?
    }
}

/// The rows of a file, for a table of its own without a name: `preview` reads the files it is given this way.
pub async fn load_file(path: &str, schema: SchemaRef) -> Result<Vec<RecordBatch>> {
    let table = TableContext {
        name: String::new(),
        path: path.into(),
        format: None,
        schema,
        options: serde_json::json!({}),
    };
    FileTables.load(&table).await
}

/// Where a table is.
enum Location<'a> {
    Local,
    S3 { bucket: &'a str, key: &'a str },
}

impl Location<'_> {
    fn of(path: &str) -> Result<Location<'_>> {
        let wrong = |why: &str| {
            Error::config(format!(
                "path {path:?} {why}; write a local path or s3://bucket/key"
            ))
        };
        match path.split_once("://") {
            None => Ok(Location::Local),
            Some(("s3", rest)) => match rest.split_once('/') {
                Some((bucket, key)) if !bucket.is_empty() && !key.is_empty() => {
                    Ok(Location::S3 { bucket, key })
                }
                _ => Err(wrong("names no object")),
            },
            Some((scheme, _)) => Err(wrong(&format!("begins with {scheme}://, which is not known"))),
        }
    }
}

fn format(table: &TableContext) -> Result<TableFormat> {
    let by_ending = || {
        let ending = files::format_of(&table.path)?;
        ENDINGS
            .iter()
            .find(|(known, _)| *known == ending)
            .map(|(_, f)| *f)
    };
    table.format.or_else(by_ending).ok_or_else(|| {
        Error::config(format!(
            "path {:?} does not say how its rows are written; add format = \"csv\", \"json\" or \"parquet\"",
            table.path
        ))
    })
}

async fn object(table: &TableContext, bucket: &str, key: &str) -> Result<Bytes> {
    let doing = || format!("reading {}", table.path);
    let client = aws::s3(&options(&table.options)?).await?;
    let got = client.get_object().bucket(bucket).key(key).send().await;
    let got = got.map_err(|e| aws::classify(e, doing()))?;
    if got
        .content_length()
        .is_some_and(|bytes| bytes as u64 > TABLE_BYTES)
    {
        return Err(too_large().within(&table.path));
    }
    let body = got.body.collect().await;
    let body = body.map_err(|e| Error::retry(format!("{}: {e}", doing())))?;
    Ok(body.into_bytes())
}

fn cannot_read(path: &str, e: &std::io::Error) -> Error {
    Error::config(format!("cannot read {path}: {e}"))
}

fn too_large() -> Error {
    Error::config(format!(
        "it is larger than {} MiB, the most that a table may have; let a stream bring its rows",
        TABLE_BYTES >> 20
    ))
}

fn decode(from: Box<dyn Read + Send>, format: TableFormat, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut bytes = Vec::new();
    from.take(TABLE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::config(format!("it cannot be read: {e}")))?;
    if bytes.len() as u64 > TABLE_BYTES {
        return Err(too_large());
    }
    let rows = match format {
        TableFormat::Csv => of_csv(bytes, schema),
        TableFormat::Json => of_json(bytes, schema),
        TableFormat::Parquet => of_parquet(bytes.into(), schema),
    };
    // What is wrong with a table its owner must put right.
    rows.map_err(|e| match e {
        Error::Data(why) => Error::Config(why),
        other => other,
    })
}

fn of_csv(bytes: Vec<u8>, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let mut reader = csv::Reader::open(Box::new(Cursor::new(bytes)), schema, Absent::Refused)?;
    std::iter::from_fn(|| reader.next(Timestamp::MIN).transpose())
        .map(|piece| whole(piece?))
        .collect()
}

fn of_json(bytes: Vec<u8>, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let decoder = Decoder::new(Arc::clone(schema))?;
    let mut reader = Reader::new(Box::new(Cursor::new(bytes)), decoder);
    std::iter::from_fn(|| reader.next(Timestamp::MIN).transpose())
        .map(|piece| whole(piece?))
        .collect()
}

fn of_parquet(file: Bytes, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let broken = |e: &dyn std::fmt::Display| Error::data(format!("it is not valid Parquet: {e}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| broken(&e))?;
    let mask = parquet::projection(reader.schema(), reader.parquet_schema(), schema, Absent::Refused)?;
    let reader = reader.with_projection(mask).with_batch_size(BATCH_ROWS);
    let mut batches = Vec::new();
    let mut before = 0;
    for rows in reader.build().map_err(|e| broken(&e))? {
        let rows = rows.map_err(|e| broken(&e))?;
        batches.push(whole(parquet::fit(&rows, schema, before, Absent::Refused)?)?);
        before += rows.num_rows() as u64;
    }
    Ok(batches)
}

/// The rows, if all of them are good.
fn whole(piece: Piece) -> Result<RecordBatch> {
    match piece.bad.first() {
        None => Ok(piece.rows),
        Some(bad) => Err(Error::data(format!("{}: {}", bad.place, bad.error.message))),
    }
}

#[cfg(test)]
mod tests;
