//! Staged Parquet as the text of PostgreSQL's `COPY … FROM STDIN`: a line per row, tabs between values, `\N` for NULL.
//!
//! Text rather than the binary form, as it also fills a column whose type is another than the one it was created with.
//! See <https://www.postgresql.org/docs/current/sql-copy.html>.

use std::io::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType,
};
use arrow::temporal_conversions::date32_to_datetime;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use millstream_engine::{Error, Result};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::mpsc;

use super::stage::Place;

/// Rows turned into text at a time: some hundred kilobytes.
const ROWS: usize = 8192;

/// Texts that wait to be sent: decoding goes on meanwhile.
const WAITING: usize = 4;

/// The texts of a load's files, made by a task that ends when this is dropped.
pub(super) struct Texts(mpsc::Receiver<Result<Bytes>>);

impl Texts {
    /// Of no rows.
    pub fn none() -> Texts {
        Texts(mpsc::channel(1).1)
    }

    /// Of the files at `urls`, in order.
    pub fn of(place: Place, urls: Vec<String>) -> Texts {
        let (to, texts) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            for url in urls {
                let file = match place.read(&url).await {
                    Ok(file) => file,
                    Err(e) => return drop(to.send(Err(e)).await),
                };
                let into = to.clone();
                let done = tokio::task::spawn_blocking(move || {
                    if let Err(e) = write_texts(file, &into) {
                        drop(into.blocking_send(Err(e.within(url))));
                    }
                });
                if done.await.is_err() {
                    return drop(
                        to.send(Err(Error::bug("a task that reads staged rows is gone")))
                            .await,
                    );
                }
            }
        });
        Texts(texts)
    }

    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        self.0.recv().await
    }
}

fn write_texts(file: Bytes, to: &mpsc::Sender<Result<Bytes>>) -> Result<()> {
    let broken = |e: parquet::errors::ParquetError| Error::data(format!("no whole Parquet file: {e}"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(broken)?;
    for rows in reader.with_batch_size(ROWS).build().map_err(broken)? {
        let text = text(&rows?)?;
        if to.blocking_send(Ok(text)).is_err() {
            // Nobody waits for it any more.
            return Ok(());
        }
    }
    Ok(())
}

/// Writes the value of a row.
type Value<'a> = Box<dyn Fn(&mut Vec<u8>, usize) -> Result<()> + 'a>;

fn text(rows: &RecordBatch) -> Result<Bytes> {
    let columns: Vec<(&dyn Array, Value<'_>)> = rows
        .columns()
        .iter()
        .map(|column| Ok((column.as_ref(), value(column.as_ref())?)))
        .collect::<Result<_>>()?;
    let mut text = Vec::with_capacity(rows.num_rows() * columns.len() * 16);
    for row in 0..rows.num_rows() {
        for (i, (column, write)) in columns.iter().enumerate() {
            if i > 0 {
                text.push(b'\t');
            }
            if column.is_null(row) {
                text.extend_from_slice(b"\\N");
            } else {
                write(&mut text, row)?;
            }
        }
        text.push(b'\n');
    }
    Ok(text.into())
}

macro_rules! shown {
    ($column:expr, $of:ty) => {{
        let values = $column.as_primitive::<$of>();
        Box::new(move |to: &mut Vec<u8>, row| {
            write!(to, "{}", values.value(row)).map_err(no_room)?;
            Ok(())
        })
    }};
}

fn value(column: &dyn Array) -> Result<Value<'_>> {
    Ok(match column.data_type() {
        DataType::Int16 => shown!(column, Int16Type),
        DataType::Int32 => shown!(column, Int32Type),
        DataType::Int64 => shown!(column, Int64Type),
        DataType::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            // The shortest text that is read back as the same number, with an exponent where it is long otherwise.
            Box::new(move |to, row| write!(to, "{:?}", values.value(row)).map_err(no_room))
        }
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            Box::new(move |to, row| write!(to, "{:?}", values.value(row)).map_err(no_room))
        }
        DataType::Decimal128(_, _) => {
            let values = column.as_primitive::<Decimal128Type>();
            Box::new(move |to, row| write!(to, "{}", values.value_as_string(row)).map_err(no_room))
        }
        DataType::Boolean => {
            let values = column.as_boolean();
            Box::new(move |to, row| {
                to.push(if values.value(row) { b't' } else { b'f' });
                Ok(())
            })
        }
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            Box::new(move |to, row| escape(to, values.value(row)))
        }
        DataType::Date32 => {
            let values = column.as_primitive::<Date32Type>();
            Box::new(move |to, row| {
                let date = date32_to_datetime(values.value(row)).map(|at| at.date());
                let date = date.ok_or_else(|| Error::data("a date beyond what PostgreSQL holds"))?;
                write!(to, "{}", date.format("%Y-%m-%d")).map_err(no_room)
            })
        }
        DataType::Timestamp(_, _) => {
            let values = column.as_primitive::<TimestampMicrosecondType>();
            Box::new(move |to, row| timestamp(to, values.value(row)))
        }
        _ => {
            let values = ArrayFormatter::try_new(column, &FormatOptions::new())?;
            Box::new(move |to, row| escape(to, &values.value(row).to_string()))
        }
    })
}

fn no_room(e: std::io::Error) -> Error {
    Error::bug(format!("writing to memory: {e}"))
}

/// `2026-11-24 12:00:00.123456`. By hand, as it is a large part of all the work.
fn timestamp(to: &mut Vec<u8>, micros: i64) -> Result<()> {
    const DAY: i64 = 86_400_000_000;
    let days = i32::try_from(micros.div_euclid(DAY)).ok();
    let date = days.and_then(date32_to_datetime).map(|at| at.date());
    let date = date.ok_or_else(|| Error::data("a time beyond what PostgreSQL holds"))?;
    let (seconds, micros) = (micros.rem_euclid(DAY) / 1_000_000, micros.rem_euclid(1_000_000));
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    use chrono::Datelike;
    let (year, month, day) = (date.year(), date.month(), date.day());
    // PostgreSQL writes years before 1 as BC, which no row of ours should need.
    if year < 1 {
        return Err(Error::data(
            "a time before the year 1, which PostgreSQL writes in another way",
        ));
    }
    write!(
        to,
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}"
    )
    .map_err(no_room)
}

/// Text cannot hold a zero byte in PostgreSQL, nor in Redshift.
fn escape(to: &mut Vec<u8>, text: &str) -> Result<()> {
    for byte in text.bytes() {
        match byte {
            b'\\' => to.extend_from_slice(b"\\\\"),
            b'\t' => to.extend_from_slice(b"\\t"),
            b'\n' => to.extend_from_slice(b"\\n"),
            b'\r' => to.extend_from_slice(b"\\r"),
            0 => return Err(Error::data("a text with a zero byte, which no warehouse holds")),
            other => to.push(other),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
        TimestampMicrosecondArray,
    };

    use super::*;

    #[test]
    fn values_as_postgres_reads_them() {
        let decimal = Decimal128Array::from(vec![Some(-1205), None]).with_precision_and_scale(10, 2);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(i64::MIN), None])),
            Arc::new(Float64Array::from(vec![Some(1e300), Some(f64::NEG_INFINITY)])),
            Arc::new(decimal.unwrap()),
            Arc::new(BooleanArray::from(vec![true, false])),
            Arc::new(StringArray::from(vec![Some("a\tb\\\n"), Some("\\N")])),
            Arc::new(Date32Array::from(vec![Some(20781), Some(-1)])),
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(1_795_478_400_000_001),
                Some(-1),
            ])),
        ];
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        let rows = RecordBatch::try_from_iter(names.into_iter().zip(columns)).unwrap();
        let text = text(&rows).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&text),
            "-9223372036854775808\t1e300\t-12.05\tt\ta\\tb\\\\\\n\t2026-11-24\t2026-11-24 00:00:00.000001\n\
             \\N\t-inf\t\\N\tf\t\\\\N\t1969-12-31\t1969-12-31 23:59:59.999999\n"
        );
    }
}
