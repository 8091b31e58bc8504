//! Tests of the log: what it promises (`promises`), what it does about damage (`damage`), and what it does when
//! the disk fails (`faults`). How fast it is: `benches/log.rs`.

mod damage;
mod faults;
mod promises;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::StreamExt;
use millstream_engine::source::invalid_schema;
use millstream_engine::{ErrorClass, Result};

use super::{Appended, Frame, Log, LogOptions, segment};

fn schema() -> SchemaRef {
    let (id, n) = (
        Field::new("id", DataType::Utf8, false),
        Field::new("n", DataType::Int64, true),
    );
    Arc::new(Schema::new(vec![id, n]))
}

/// Rows that say which batch they are of.
fn rows(batch: u64, count: usize) -> RecordBatch {
    let ids = StringArray::from_iter_values((0..count).map(|i| format!("batch {batch} row {i}")));
    let n = Int64Array::from_iter((0..count).map(|i| (i % 3 != 2).then_some(batch as i64)));
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(n)]).unwrap()
}

fn invalid(raw: &str) -> RecordBatch {
    let schema = invalid_schema();
    let at = TimestampMicrosecondArray::from(vec![7]).with_data_type(schema.field(0).data_type().clone());
    let text = |s: &str| Arc::new(StringArray::from(vec![s])) as ArrayRef;
    let raw = Arc::new(BinaryArray::from(vec![raw.as_bytes()]));
    RecordBatch::try_new(
        schema,
        vec![Arc::new(at), text("/x row 3"), text("not json"), raw],
    )
    .unwrap()
}

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        min_free_bytes: 0,
        ..LogOptions::new(dir.join("log"))
    }
}

fn open(options: &LogOptions) -> Log {
    Log::open(options.clone(), schema()).unwrap()
}

async fn durable(appended: Result<Appended>) -> u64 {
    let Appended { seq, durable } = appended.unwrap();
    durable.await.unwrap().unwrap();
    seq
}

/// Appends batches `range`, each one durable, and alone in its group, before the next.
async fn append(log: &Log, range: std::ops::RangeInclusive<u64>) {
    for batch in range {
        assert_eq!(durable(log.append(rows(batch, 5), None)).await, batch);
    }
}

/// Closes the log and reads all of it.
async fn drain(log: &Log, from: Option<u64>) -> Vec<Frame> {
    log.close();
    log.read(from).map(|frame| frame.unwrap()).collect().await
}

/// The frames' sequence numbers; checks that each has the rows appended under it.
fn seqs(frames: &[Frame]) -> Vec<u64> {
    for frame in frames {
        assert_eq!(
            frame.rows,
            rows(frame.seq, frame.rows.num_rows()),
            "rows of frame {}",
            frame.seq
        );
    }
    frames.iter().map(|f| f.seq).collect()
}

async fn reopened(options: &LogOptions) -> Vec<u64> {
    let log = open(options);
    seqs(&drain(&log, None).await)
}

fn message<T>(result: Result<T>, class: ErrorClass) -> String {
    let Err(e) = result else { panic!("it worked") };
    let same = std::mem::discriminant(&e.class()) == std::mem::discriminant(&class);
    assert!(same, "{e} is {:?}, not {class:?}", e.class());
    e.to_string()
}

fn segments(options: &LogOptions) -> Vec<PathBuf> {
    segment::list(&options.dir)
        .unwrap()
        .into_iter()
        .map(|(_, path)| path)
        .collect()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        // A segment may be renamed into place, or released, between the listing and the copy.
        match fs::copy(&path, to.join(path.file_name().unwrap())) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => panic!("{e}"),
        }
    }
}

const RETRY: ErrorClass = ErrorClass::Retry { after: None };
