//! COPY of Parquet by manifest, as Redshift does it: by position, with widths in bytes, all or nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::SinkExt;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use tokio_postgres::Client;

use super::grammar::Copy;
use super::postgres::simple;

/// A row of `stl_load_errors`.
pub struct LoadError {
    pub file: String,
    pub line: usize,
    pub column: String,
    pub reason: String,
}

pub enum Refused {
    /// Said to the client.
    Error(String),
    /// Written down.
    Load(LoadError),
}

impl From<String> for Refused {
    fn from(e: String) -> Refused {
        Refused::Error(e)
    }
}

/// A column of the table that is filled.
struct Column {
    name: String,
    of: String,
    not_null: bool,
}

/// Does it; the rows that were copied.
pub async fn copy(client: &Client, s3: &str, of: &Copy) -> Result<u64, Refused> {
    let columns = columns(client, &of.into).await?;
    let manifest: Value = serde_json::from_slice(&get(s3, &of.manifest).await?)
        .map_err(|e| format!("Manifest file is not in correct json format: {e}"))?;
    let entries = manifest["entries"]
        .as_array()
        .ok_or("Manifest file has no entries".to_string())?;
    if entries.is_empty() {
        return Err("Manifest file has no entries".to_string().into());
    }
    let copy = client.copy_in(&format!("COPY {} FROM STDIN", of.into)).await;
    let sink = copy.map_err(|e| e.to_string())?;
    let mut sink = std::pin::pin!(sink);
    let mut copied = 0;
    for entry in entries {
        let url = entry["url"]
            .as_str()
            .ok_or("a manifest entry without url".to_string())?;
        let Some(length) = entry["meta"]["content_length"].as_u64() else {
            return Err(
                format!("File {url} in manifest has no meta.content_length, which Parquet needs").into(),
            );
        };
        let bytes = get(s3, url).await?;
        if bytes.len() as u64 != length {
            return Err(format!("File {url} has {} bytes, the manifest says {length}", bytes.len()).into());
        }
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes));
        let reader = reader.and_then(|r| r.build()).map_err(|e| e.to_string())?;
        let mut line = 0;
        for rows in reader {
            let rows = rows.map_err(|e| e.to_string())?;
            check(&columns, &rows, url, line)?;
            line += rows.num_rows();
            copied += rows.num_rows() as u64;
            sink.send(bytes::Bytes::from(text(&rows)?))
                .await
                .map_err(|e| e.to_string())?;
        }
    }
    sink.finish().await.map_err(|e| format!("{e:?}"))?;
    Ok(copied)
}

async fn columns(client: &Client, table: &str) -> Result<Vec<Column>, String> {
    let rows = simple(
        client,
        &format!(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute \
             WHERE attrelid = to_regclass('{table}') AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        ),
    )
    .await
    .map_err(|e| e.to_string())?;
    let value = |row: &Vec<Option<String>>, i: usize| row[i].clone().unwrap_or_default();
    if rows.is_empty() {
        return Err(format!("Cannot COPY into nonexistent table {table}"));
    }
    let column = |row| Column {
        name: value(row, 0),
        of: value(row, 1),
        not_null: value(row, 2) == "t",
    };
    Ok(rows.iter().map(column).collect())
}

fn check(columns: &[Column], rows: &RecordBatch, file: &str, before: usize) -> Result<(), Refused> {
    if columns.len() != rows.num_columns() {
        return Err(format!(
            "Spectrum Scan Error. The number of columns in the file ({}) and in the table ({}) must match",
            rows.num_columns(),
            columns.len()
        )
        .into());
    }
    for (column, values) in columns.iter().zip(rows.columns()) {
        if !is_compatible(&column.of, values.data_type()) {
            return Err(format!(
                "Spectrum Scan Error. File '{file}' has an incompatible Parquet schema for column '{}'. Column type: {}, \
                 Parquet: {}",
                column.name,
                column.of,
                values.data_type()
            )
            .into());
        }
        let width = column
            .of
            .split_once('(')
            .and_then(|(_, w)| w.trim_end_matches(')').parse::<usize>().ok());
        for row in 0..rows.num_rows() {
            let reason = if values.is_null(row) {
                column
                    .not_null
                    .then(|| "Missing data for not-null field".to_string())
            } else if *values.data_type() == DataType::Utf8 {
                let bytes = values.as_string::<i32>().value(row).len();
                let too_wide = width.is_some_and(|width| bytes > width);
                too_wide.then(|| "String length exceeds DDL length".to_string())
            } else {
                None
            };
            if let Some(reason) = reason {
                return Err(Refused::Load(LoadError {
                    file: file.into(),
                    line: before + row + 1,
                    column: column.name.clone(),
                    reason,
                }));
            }
        }
    }
    Ok(())
}

fn is_compatible(column: &str, parquet: &DataType) -> bool {
    let column = column.split('(').next().unwrap_or_default();
    matches!(
        (column, parquet),
        ("smallint", DataType::Int16)
            | ("integer", DataType::Int32)
            | ("bigint", DataType::Int64)
            | ("real", DataType::Float32)
            | ("double precision", DataType::Float64)
            | ("numeric", DataType::Decimal128(_, _))
            | ("boolean", DataType::Boolean)
            | ("character" | "character varying", DataType::Utf8)
            | ("date", DataType::Date32)
            | ("timestamp without time zone", DataType::Timestamp(_, None))
    )
}

/// For PostgreSQL, by Arrow's own words.
fn text(rows: &RecordBatch) -> Result<Vec<u8>, String> {
    let options = FormatOptions::new().with_null("\\N");
    let columns: Vec<_> = rows
        .columns()
        .iter()
        .map(|c| ArrayFormatter::try_new(c, &options).map_err(|e| e.to_string()))
        .collect::<Result<_, _>>()?;
    let mut text = Vec::new();
    for row in 0..rows.num_rows() {
        let values = columns.iter().zip(rows.columns()).map(|(shown, column)| {
            let value = shown.value(row).to_string();
            match column.is_null(row) {
                true => value,
                false => value
                    .replace('\\', "\\\\")
                    .replace('\t', "\\t")
                    .replace('\n', "\\n")
                    .replace('\r', "\\r"),
            }
        });
        text.extend(values.collect::<Vec<_>>().join("\t").into_bytes());
        text.push(b'\n');
    }
    Ok(text)
}

/// An object of an emulator that asks for no signature.
async fn get(s3: &str, url: &str) -> Result<Vec<u8>, String> {
    let path = url
        .strip_prefix("s3://")
        .ok_or(format!("{url} is not in S3"))?
        .to_string();
    let host = s3.trim_start_matches("http://").to_string();
    let done = tokio::task::spawn_blocking(move || -> std::io::Result<Vec<u8>> {
        let mut socket = TcpStream::connect(&host)?;
        let head = format!("GET /{path} HTTP/1.0\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        socket.write_all(head.as_bytes())?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer)?;
        Ok(answer)
    });
    let answer = done
        .await
        .expect("it does not panic")
        .map_err(|e| e.to_string())?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    match head.split(' ').nth(1) {
        Some("200") if !head.contains("chunked") => Ok(answer[end + 4..].to_vec()),
        status => Err(format!(
            "S3ServiceException:The specified key does not exist.,Status {},Error NoSuchKey,{url}",
            status.unwrap_or("none")
        )),
    }
}
