//! A source whose rows are in files.

use std::collections::VecDeque;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::anyhow;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use millstream_engine::plan::{Plan, SourceNode};
use millstream_engine::source::{Offset, Offsets, PartitionId, Partitions, Source, SourceBatch};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use millstream_operators::formats::json::{Decoder, Reader};
use millstream_operators::formats::{BadRow, Piece, files};
use millstream_operators::sources::invalid::InvalidRows;

use super::pace::Pace;
use super::{STDIN, near};

/// Rows that cannot be read, shown of each file; more hide the point.
const SHOWN: usize = 5;

/// The rows of some files, one after the other: one partition, read once.
pub struct FileRows {
    schema: SchemaRef,
    records: Option<String>,
    reading: Mutex<Option<Reading>>,
}

impl FileRows {
    /// A source like `node` of the plan, without rows.
    pub fn new(node: &SourceNode, plan: &Plan) -> FileRows {
        FileRows {
            schema: node.schema.clone(),
            records: node.options["records"].as_str().map(str::to_owned),
            reading: Mutex::new(Some(Reading {
                files: VecDeque::new(),
                batches: VecDeque::new(),
                pace: Pace::new(node, plan),
                read: 0,
            })),
        }
    }

    /// Adds the rows of a file; gives what will tell of those that cannot be read.
    pub fn add(&mut self, name: &str) -> anyhow::Result<Bad> {
        let decoder = Decoder::filling_arrival(self.schema.clone())?.enveloped(self.records.clone());
        let shown = if name == STDIN { "standard input" } else { name };
        let file = File {
            name: shown.to_owned(),
            reader: Reader::new(open(name)?, decoder),
            bad: Bad::of(shown),
        };
        let bad = file.bad.clone();
        let reading = self.reading.get_mut().ok().and_then(Option::as_mut);
        reading
            .ok_or_else(|| anyhow!("files are added before they are read"))?
            .files
            .push_back(file);
        Ok(bad)
    }
}

fn open(name: &str) -> anyhow::Result<Box<dyn Read + Send>> {
    if name == STDIN {
        return Ok(Box::new(std::io::stdin()));
    }
    let path = Path::new(name);
    files::open(path).map_err(|e| {
        let near = if path.exists() { String::new() } else { near(path) };
        anyhow!("cannot read {name}: {e}{near}")
    })
}

#[async_trait]
impl Source for FileRows {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    async fn partitions(&self, read: &Offsets) -> Result<Partitions> {
        Ok(Partitions::fixed([PartitionId("files".into())], read))
    }

    fn read(&self, _: &PartitionId, _: Option<Offset>) -> BoxStream<'static, Result<SourceBatch>> {
        let reading = self
            .reading
            .lock()
            .expect("nothing panics while it holds the files");
        let mut reading = reading;
        match reading.take() {
            // A bounded run reads each partition once, from its start. Reading blocks, as nothing else waits here.
            Some(reading) => stream::iter(reading).boxed(),
            None => stream::iter([Err(Error::bug("files are read once"))]).boxed(),
        }
    }

    async fn commit(&self, _: &Offsets) -> Result<()> {
        Ok(())
    }
}

/// What is left to read.
struct Reading {
    files: VecDeque<File>,
    /// Read already, for the next calls.
    batches: VecDeque<SourceBatch>,
    pace: Pace,
    read: u64,
}

struct File {
    name: String,
    reader: Reader,
    bad: Bad,
}

impl Iterator for Reading {
    type Item = Result<SourceBatch>;

    fn next(&mut self) -> Option<Result<SourceBatch>> {
        loop {
            if let Some(batch) = self.batches.pop_front() {
                return Some(Ok(batch));
            }
            let file = self.files.front_mut()?;
            let arrived = Timestamp::now();
            let piece = file.reader.next(arrived).map_err(|e| e.within(&file.name));
            let taken = match piece {
                Ok(Some(piece)) => self.take(piece, arrived),
                Ok(None) => {
                    self.files.pop_front();
                    Ok(())
                }
                Err(e) => Err(e),
            };
            if let Err(e) = taken {
                self.files.clear();
                return Some(Err(e));
            }
        }
    }
}

impl Reading {
    /// Makes batches of a piece of the first file; what is invalid comes with the first of them.
    fn take(&mut self, piece: Piece, arrived: Timestamp) -> Result<()> {
        let mut invalid = InvalidRows::default();
        if let Some(file) = self.files.front() {
            for row in &piece.bad {
                file.bad.add(row);
                let reason = format!("{}: {}", row.error.code, row.error.message);
                let origin = format!("{} {}", file.name, row.place);
                invalid.push(arrived, &origin, &reason, &row.raw);
            }
        }
        let mut invalid = invalid.finish()?;
        let mut cut = self.pace.cut(&piece.rows);
        if cut.is_empty() && invalid.is_some() {
            cut.push(piece.rows);
        }
        for rows in cut {
            self.read += 1;
            self.batches.push_back(SourceBatch {
                tables: Vec::new(),
                rows,
                invalid: invalid.take(),
                offset: Offset(self.read.to_string()),
            });
        }
        Ok(())
    }
}

/// The rows of a file that could not be read.
#[derive(Clone)]
pub struct Bad {
    file: String,
    seen: Arc<Mutex<(usize, Vec<String>)>>,
}

impl Bad {
    fn of(file: &str) -> Bad {
        Bad {
            file: file.into(),
            seen: Arc::default(),
        }
    }

    fn add(&self, row: &BadRow) {
        let mut seen = self.seen.lock().expect("nothing panics while it holds the rows");
        seen.0 += 1;
        if seen.1.len() < SHOWN {
            seen.1.push(format!("{}: {}", row.place, row.error.message));
        }
    }

    /// `3 rows of rows.jsonl could not be read: line 7: …; line 9: …`, if there were any.
    pub fn summary(&self) -> Option<String> {
        let seen = self.seen.lock().expect("nothing panics while it holds the rows");
        let (count, shown) = &*seen;
        let rows = match count {
            0 => return None,
            1 => "row",
            _ => "rows",
        };
        let more = match count - shown.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let file = &self.file;
        Some(format!(
            "{count} {rows} of {file} could not be read: {}{more}",
            shown.join("; ")
        ))
    }
}
