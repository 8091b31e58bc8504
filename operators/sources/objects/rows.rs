//! The rows of one object: bytes to batches, from a place in it to its end.
//!
//! Text is unpacked and decoded by a thread of its own, beside the download; Parquet is read range by range. Damage ends
//! an object: the rows in front of it are good, the rest is one invalid row that says why.

use std::io::{self, Cursor, Read};
use std::sync::Arc;

use ::parquet::arrow::ParquetRecordBatchStreamBuilder;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use futures::StreamExt;
use millstream_engine::metrics::Counters;
use millstream_engine::source::{SourceBatch, Tables};
use millstream_engine::{Error, ErrorClass, Result};
use tokio::sync::mpsc;

use super::logs::Log;
use super::options::Format;
use super::progress::{At, Object};
use super::store::{Failure, Store};
use crate::formats::files::{self, Packing};
use crate::formats::json::{self, Decoder};
use crate::formats::log;
use crate::formats::{Absent, Piece, Place, csv, parquet};
use crate::sources::invalid::InvalidRows;

/// Rows of Parquet in one batch: some milliseconds of work, so that barriers are not kept waiting.
const BATCH_ROWS: usize = 16_384;

/// The longest line, and the largest object that is no lines, in bytes: several are held in memory at a time.
const LONGEST_LINE: usize = 64 << 20;

/// Bytes that tell how an object is packed.
const MAGIC: usize = 4;

/// What is to be read.
pub(super) struct Job {
    pub store: Arc<Store>,
    pub schema: SchemaRef,
    pub format: Option<Format>,
    pub records: Option<String>,
    pub log: Option<Arc<Log>>,
    pub object: Object,
    pub at: At,
    pub counters: Counters,
}

/// Where batches go; closed when nobody wants them any more.
pub(super) type Batches = mpsc::Sender<Result<SourceBatch>>;

/// How it came to the end of an object.
enum Over {
    /// All of it is read.
    Read,
    /// Nobody wants it.
    Unwanted,
}

/// Reads what is left of an object; the last batch says that it has ended.
pub(super) async fn read(job: Job, to: Batches) {
    let job = Arc::new(job);
    let over = match job.format() {
        Format::Parquet => of_parquet(&job, &to).await,
        format => of_text(&job, format, &to).await,
    };
    let last = match over {
        Ok(Over::Unwanted) => return,
        Ok(Over::Read) => job.end(None),
        Err((line, e)) if e.class() == ErrorClass::Data && !job.is_over_budget() => job.end(Some((line, &e))),
        Err((_, e)) => Err(e),
    };
    // Nobody wants it: it will be read again.
    let _ = to.send(last).await;
}

/// An error, and the line or row it came after.
type Failed = (u64, Error);

impl Job {
    fn format(&self) -> Format {
        let named = || match files::format_of(&self.object.key)?.as_str() {
            "csv" => Some(Format::Csv),
            "parquet" | "pq" => Some(Format::Parquet),
            _ => None,
        };
        self.format.or_else(named).unwrap_or(Format::Ndjson)
    }

    /// Whether more rows were bad than may be: then it is no damage to one object.
    fn is_over_budget(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.is_over_budget())
    }

    /// A batch of a part; `at` is behind it.
    fn batch(&self, part: Part, at: At) -> Result<SourceBatch> {
        let piece = match part {
            Part::Rows(piece) => piece,
            Part::Tables(tables) => return Ok(self.tables(tables, at)),
        };
        let mut invalid = InvalidRows::default();
        for row in &piece.bad {
            let (Place::Line(n) | Place::Row(n)) = row.place;
            let reason = format!("{}: {}", row.error.code, row.error.message);
            invalid.push(self.object.modified, &self.origin(n), &reason, &row.raw);
        }
        Ok(SourceBatch {
            rows: piece.rows,
            invalid: invalid.finish()?,
            tables: Vec::new(),
            offset: self.object.offset(at),
        })
    }

    fn tables(&self, tables: Tables, at: At) -> SourceBatch {
        SourceBatch {
            rows: RecordBatch::new_empty(Arc::clone(&self.schema)),
            invalid: None,
            tables,
            offset: self.object.offset(at),
        }
    }

    /// The last batch: nothing more, or why nothing more can be read.
    fn end(&self, damage: Option<(u64, &Error)>) -> Result<SourceBatch> {
        let mut invalid = InvalidRows::default();
        self.counters.add("objects_ended", 1);
        if let Some((line, e)) = damage {
            let origin = self.origin(line + 1);
            tracing::warn!(origin, error = %e, "the rest of an object cannot be read");
            let reason = format!("unreadable: {e}");
            self.counters.add("objects_damaged", 1);
            if let Some(log) = &self.log {
                let name = self.store.url(&self.object.key);
                return Ok(self.tables(log.unreadable(&name, line, &e.to_string())?, At::End));
            }
            invalid.push(self.object.modified, &origin, &reason, b"");
        }
        Ok(SourceBatch {
            rows: RecordBatch::new_empty(Arc::clone(&self.schema)),
            invalid: invalid.finish()?,
            tables: Vec::new(),
            offset: self.object.offset(At::End),
        })
    }

    fn origin(&self, line: u64) -> String {
        format!("{}:{line}", self.store.url(&self.object.key))
    }

    fn absent(&self) -> Absent {
        Absent::Filled(self.object.modified)
    }

    fn start(&self) -> u64 {
        match self.at {
            At::Start | At::End => 0,
            At::Byte { line, .. } | At::Unpacked { line, .. } => line,
            At::Row(row) => row,
        }
    }
}

async fn of_text(job: &Arc<Job>, format: Format, to: &Batches) -> Result<Over, Failed> {
    let from = match (job.at, format) {
        // The header of CSV is at the start.
        (At::Byte { byte, .. }, Format::Ndjson | Format::Log) => byte,
        _ => 0,
    };
    let download = job.store.download(&job.object, from).await;
    let download = download.map_err(|e| (job.start(), e))?;
    let (job, to) = (Arc::clone(job), to.clone());
    let (bytes, failure) = (download.bytes, download.failure);
    let decoding = tokio::task::spawn_blocking(move || {
        let mut at = job.start();
        let over = decode(&job, format, bytes, &to, &mut at);
        over.map_err(|e| (at, failure.or(e)))
    });
    let (decoded, ()) = tokio::join!(decoding, download.work);
    decoded.map_err(|e| (0, Error::bug(format!("decoding an object: {e}"))))?
}

/// Reads text to its end; `line` follows.
fn decode(
    job: &Job,
    format: Format,
    bytes: Box<dyn Read + Send>,
    to: &Batches,
    line: &mut u64,
) -> Result<Over> {
    let mut text = Text::open(job, format, bytes)?;
    while let Some(part) = text.next(job)? {
        let at = text.at();
        if to.blocking_send(job.batch(part, at)).is_err() {
            return Ok(Over::Unwanted);
        }
        *line = text.position().0;
    }
    Ok(Over::Read)
}

/// What is read together.
enum Part {
    Rows(Piece),
    Tables(Tables),
}

/// A reader of text, at a place.
struct Text {
    reader: TextReader,
    packed: bool,
}

enum TextReader {
    Json(Box<json::Reader>),
    Csv(Box<csv::Reader>),
    Log(Box<log::Reader>),
}

impl Text {
    fn open(job: &Job, format: Format, bytes: Box<dyn Read + Send>) -> Result<Text> {
        let unreadable = |e: io::Error| Error::data(e.to_string());
        let in_the_middle = matches!(job.at, At::Byte { .. }) && format != Format::Csv;
        let (mut bytes, packed) = match in_the_middle {
            true => (bytes, false),
            false => unpacked(&job.object.key, bytes).map_err(unreadable)?,
        };
        let place = match job.at {
            At::Byte { line, byte } | At::Unpacked { line, byte } => Some((line, byte)),
            At::Start | At::Row(_) | At::End => None,
        };
        let reader = match format {
            Format::Csv => {
                let mut reader = csv::Reader::open(bytes, &job.schema, job.absent())?;
                reader.skip(place.map_or(0, |(_, byte)| byte))?;
                TextReader::Csv(Box::new(reader))
            }
            _ => {
                if let (At::Unpacked { byte, .. }, false) = (job.at, in_the_middle) {
                    io::copy(&mut bytes.by_ref().take(byte), &mut io::sink()).map_err(unreadable)?;
                }
                if let Some(log) = &job.log {
                    let reader = log.reader(&job.store.url(&job.object.key), bytes, place);
                    let reader = TextReader::Log(Box::new(reader));
                    return Ok(Text { reader, packed });
                }
                let decoder = Decoder::filling_arrival(Arc::clone(&job.schema))?;
                let decoder = decoder.enveloped(job.records.clone());
                let reader = json::Reader::new(bytes, decoder).limit(LONGEST_LINE);
                TextReader::Json(Box::new(match place {
                    Some(place) => reader.resume(place),
                    None => reader,
                }))
            }
        };
        Ok(Text { reader, packed })
    }

    fn next(&mut self, job: &Job) -> Result<Option<Part>> {
        let piece = match &mut self.reader {
            TextReader::Json(reader) => reader.next(job.object.modified)?,
            TextReader::Csv(reader) => reader.next(job.object.modified)?,
            TextReader::Log(reader) => return Ok(reader.piece()?.map(Part::Tables)),
        };
        Ok(piece.map(Part::Rows))
    }

    fn position(&self) -> (u64, u64) {
        match &self.reader {
            TextReader::Json(reader) => reader.position(),
            TextReader::Csv(reader) => reader.position(),
            TextReader::Log(reader) => reader.position(),
        }
    }

    fn at(&self) -> At {
        let (line, byte) = self.position();
        match self.packed {
            true => At::Unpacked { line, byte },
            false => At::Byte { line, byte },
        }
    }
}

/// What bytes hold, by their name or by how they begin, and whether they were packed.
fn unpacked(name: &str, mut bytes: Box<dyn Read + Send>) -> io::Result<(Box<dyn Read + Send>, bool)> {
    let mut first = Vec::with_capacity(MAGIC);
    bytes.by_ref().take(MAGIC as u64).read_to_end(&mut first)?;
    let packing = Packing::of_bytes(&first).or_else(|| Packing::of_name(name));
    let empty = first.is_empty();
    let whole = Cursor::new(first).chain(bytes);
    match packing {
        Some(packing) if !empty => Ok((packing.unpack(whole)?, true)),
        _ => Ok((Box::new(whole), false)),
    }
}

async fn of_parquet(job: &Job, to: &Batches) -> Result<Over, Failed> {
    let failure = Failure::default();
    let mut row = job.start();
    let read = parquet_rows(job, &failure, to, &mut row).await;
    read.map_err(|e| (row, failure.or(e)))
}

async fn parquet_rows(job: &Job, failure: &Failure, to: &Batches, row: &mut u64) -> Result<Over> {
    let broken = |e: ::parquet::errors::ParquetError| Error::data(format!("it is not valid Parquet: {e}"));
    let file = job.store.ranges(&job.object, failure).await?;
    let reader = ParquetRecordBatchStreamBuilder::new(file).await.map_err(broken)?;
    let (columns, absent) = (Arc::clone(reader.schema()), job.absent());
    let mask = parquet::projection(&columns, reader.parquet_schema(), &job.schema, absent)?;
    let reader = reader.with_projection(mask).with_batch_size(BATCH_ROWS);
    let mut rows = reader.with_offset(*row as usize).build().map_err(broken)?;
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(broken)?;
        let piece = parquet::fit(&batch, &job.schema, *row, absent)?;
        let behind = *row + batch.num_rows() as u64;
        if to
            .send(job.batch(Part::Rows(piece), At::Row(behind)))
            .await
            .is_err()
        {
            return Ok(Over::Unwanted);
        }
        *row = behind;
    }
    Ok(Over::Read)
}
