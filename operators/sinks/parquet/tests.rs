//! Crashes at every step: whatever is dropped, the lake ends with each row up to the checkpoint exactly once,
//! and replaying the rest completes it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, Schema};
use millstream_engine::ErrorClass;
use millstream_engine::time::timestamp_type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::test_context;
use super::*;
use arrow::datatypes::{DataType, Field};

/// 2026-11-23T23:00:00Z.
const EVENING: i64 = 1_795_474_800_000_000;
const DAY: i64 = 86_400_000_000;

fn schema() -> arrow::datatypes::SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("t", timestamp_type(), false),
        Field::new("n", DataType::Int64, false),
    ]))
}

/// Rows `n`, with even numbers on the first day and odd ones on the next.
fn rows(n: std::ops::Range<i64>) -> RecordBatch {
    let times = TimestampMicrosecondArray::from_iter_values(n.clone().map(|n| EVENING + n % 2 * DAY + n));
    let numbers = Int64Array::from_iter_values(n);
    RecordBatch::try_new(schema(), vec![Arc::new(times), Arc::new(numbers)]).unwrap()
}

struct Lake {
    dir: TempDir,
    options: Value,
}

impl Lake {
    fn new(options: Value) -> Lake {
        Lake {
            dir: TempDir::new().unwrap(),
            options,
        }
    }

    fn context(&self) -> SinkContext {
        let mut options = self.options.clone();
        options["path"] = json!(self.root());
        test_context(schema(), &self.dir.path().join("data"), options)
    }

    async fn open(&self) -> Box<dyn Sink> {
        ParquetConnector.open(self.context()).await.unwrap()
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("lake")
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        walk(&self.root(), &mut files);
        files.sort();
        files
    }

    fn published(&self) -> Vec<PathBuf> {
        self.files()
            .into_iter()
            .filter(|f| f.extension().is_some_and(|e| e == "parquet"))
            .collect()
    }

    /// Every `n` in the lake, in order.
    fn numbers(&self) -> Vec<i64> {
        let mut all: Vec<i64> = self.published().iter().flat_map(|f| read(f)).collect();
        all.sort();
        all
    }
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, into)
        } else {
            into.push(path)
        }
    }
}

fn read(file: &Path) -> Vec<i64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    assert_eq!(reader.schema().as_ref(), schema().as_ref());
    let batches = reader.build().unwrap();
    let mut numbers = Vec::new();
    for batch in batches {
        let batch = batch.unwrap();
        let (t, n) = (batch.column(0), batch.column(1).as_primitive::<Int64Type>());
        let t = t.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        for i in 0..n.len() {
            let n = n.value(i);
            assert_eq!(t.value(i), EVENING + n % 2 * DAY + n);
            let day = if n % 2 == 0 { "day=23" } else { "day=24" };
            assert!(file.ends_with(format!(
                "year=2026/month=11/{day}/{}",
                file.file_name().unwrap().display()
            )));
            numbers.push(n);
        }
    }
    numbers
}

fn barrier(epoch: u64, last: bool) -> Barrier {
    Barrier {
        epoch: Epoch(epoch),
        last,
    }
}

/// A checkpoint stands in a manifest as JSON text between two processes.
fn through_the_manifest(what: &Committable) -> Committable {
    serde_json::from_str(&serde_json::to_string(what).unwrap()).unwrap()
}

#[tokio::test]
async fn files_stay_open_over_checkpoints_and_appear_once() {
    let lake = Lake::new(json!({}));
    let mut sink = lake.open().await;
    for epoch in 1..=3 {
        let from = epoch as i64 * 10;
        sink.write(rows(from..from + 10)).await.unwrap();
        let what = sink.prepare(barrier(epoch, epoch == 3)).await.unwrap();
        sink.commit(Epoch(epoch), what.clone()).await.unwrap();
        sink.commit(Epoch(epoch), what).await.unwrap();
        assert_eq!(lake.published().len(), if epoch == 3 { 2 } else { 0 });
    }
    assert_eq!(lake.numbers(), (10..40).collect::<Vec<_>>());
    assert_eq!(lake.files(), lake.published(), "nothing stays staged");
}

#[tokio::test]
async fn a_crash_at_any_step_loses_and_repeats_nothing() {
    // A script of two checkpoints; `at` is the step before which the process dies.
    for roll in [json!({}), json!({ "size": "1" }), json!({ "interval": "0s" })] {
        for at in 0..=8 {
            let lake = Lake::new(json!({ "roll": roll }));
            let mut sink = lake.open().await;
            let mut durable: Option<(u64, Committable)> = None;
            let mut prepared = Committable::default();
            let mut covered = 0;
            for step in 0..at {
                match step {
                    0 => sink.write(rows(0..10)).await.unwrap(),
                    1 => prepared = sink.prepare(barrier(1, false)).await.unwrap(),
                    2 => (durable, covered) = (Some((1, through_the_manifest(&prepared))), 10),
                    3 => sink.write(rows(10..20)).await.unwrap(),
                    4 => sink.commit(Epoch(1), prepared.clone()).await.unwrap(),
                    5 => prepared = sink.prepare(barrier(2, false)).await.unwrap(),
                    6 => (durable, covered) = (Some((2, through_the_manifest(&prepared))), 20),
                    7 => sink.commit(Epoch(2), prepared.clone()).await.unwrap(),
                    _ => unreachable!(),
                }
            }
            drop(sink);

            // Recovery itself is cut short once: its second run must find what the first left.
            let mut epoch = 0;
            for _ in 0..2 {
                let mut sink = lake.open().await;
                if let Some((of, what)) = &durable {
                    epoch = *of;
                    sink.commit(Epoch(epoch), what.clone()).await.unwrap();
                    assert_eq!(lake.numbers(), (0..covered).collect::<Vec<_>>(), "{roll} {at}");
                    assert_eq!(lake.files(), lake.published(), "orphans stay: {roll} {at}");
                }
                sink.write(rows(covered..30)).await.unwrap();
            }

            let mut sink = lake.open().await;
            if let Some((of, what)) = &durable {
                sink.commit(Epoch(*of), what.clone()).await.unwrap();
            }
            sink.write(rows(covered..30)).await.unwrap();
            let what = sink.prepare(barrier(epoch + 1, true)).await.unwrap();
            sink.commit(Epoch(epoch + 1), what).await.unwrap();
            assert_eq!(lake.numbers(), (0..30).collect::<Vec<_>>(), "{roll} {at}");
            assert_eq!(lake.files(), lake.published(), "{roll} {at}");
        }
    }
}

#[tokio::test]
async fn what_follows_the_checkpoint_is_cut_off() {
    let lake = Lake::new(json!({}));
    let mut sink = lake.open().await;
    sink.write(rows(0..10)).await.unwrap();
    let what = sink.prepare(barrier(1, false)).await.unwrap();
    sink.write(rows(10..20)).await.unwrap();
    sink.prepare(barrier(2, false)).await.unwrap();
    drop(sink);
    let cx = lake.context();
    let mut sink = ParquetConnector.open(cx.clone()).await.unwrap();
    sink.commit(Epoch(1), what).await.unwrap();
    assert_eq!(lake.numbers(), (0..10).collect::<Vec<_>>());
    let bytes: u64 = lake.published().iter().map(|f| f.metadata().unwrap().len()).sum();
    assert_eq!(bytes, cx.counters.get("bytes_published"));
}

#[tokio::test]
async fn a_checkpoint_that_was_never_committed_is_covered_by_the_next() {
    let lake = Lake::new(json!({ "roll": { "interval": "0s" } }));
    let mut sink = lake.open().await;
    sink.write(rows(0..4)).await.unwrap();
    sink.prepare(barrier(1, false)).await.unwrap();
    sink.write(rows(4..8)).await.unwrap();
    let what = sink.prepare(barrier(2, false)).await.unwrap();
    drop(sink);
    lake.open().await.commit(Epoch(2), what).await.unwrap();
    assert_eq!(lake.numbers(), (0..8).collect::<Vec<_>>());
}

#[tokio::test]
async fn lost_checkpoints_never_overwrite_the_lake() {
    let lake = Lake::new(json!({}));
    for life in 0..2 {
        let mut sink = lake.open().await;
        sink.write(rows(life * 10..life * 10 + 10)).await.unwrap();
        let what = sink.prepare(barrier(1, true)).await.unwrap();
        sink.commit(Epoch(1), what).await.unwrap();
    }
    assert_eq!(lake.numbers(), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_moved_path_recovers_into_the_old_one() {
    let lake = Lake::new(json!({}));
    let mut sink = lake.open().await;
    sink.write(rows(0..4)).await.unwrap();
    let what = sink.prepare(barrier(1, false)).await.unwrap();
    drop(sink);
    let mut moved = lake.context();
    moved.options["path"] = json!(lake.dir.path().join("moved"));
    ParquetConnector
        .open(moved)
        .await
        .unwrap()
        .commit(Epoch(1), what)
        .await
        .unwrap();
    assert_eq!(lake.numbers(), (0..4).collect::<Vec<_>>());
}

#[tokio::test]
async fn more_partitions_than_files_close_the_oldest() {
    let lake = Lake::new(json!({ "partition_by": ["n"] }));
    let mut sink = lake.open().await;
    let many = OPEN_FILES as i64 + 10;
    sink.write(rows(0..many)).await.unwrap();
    let what = sink.prepare(barrier(1, false)).await.unwrap();
    let promise: Promise = serde_json::from_value(what.0.clone()).unwrap();
    assert_eq!((promise.open.len(), promise.finished.len()), (OPEN_FILES, 10));
    drop(sink);
    lake.open().await.commit(Epoch(1), what).await.unwrap();
    assert_eq!(lake.published().len(), many as usize);
}

#[tokio::test]
async fn what_fails_behind_the_sinks_back_fails_its_next_call() {
    let lake = Lake::new(json!({}));
    fs::write(lake.root(), "no directory").unwrap();
    let mut sink = lake.open().await;
    sink.write(rows(0..4)).await.unwrap();
    let error = sink.prepare(barrier(1, false)).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(error.to_string().contains("check the disk"), "{error}");
}

/// Whoever opens the lake next is alone with the staged files, also when the sink was dropped with rows in its queue.
#[tokio::test]
async fn a_dropped_sink_writes_no_more() {
    let lake = Lake::new(json!({ "partition_by": ["n"] }));
    let mut sink = lake.open().await;
    sink.prepare(barrier(1, false)).await.unwrap();
    for n in 0..3 {
        sink.write(rows(n * 300..n * 300 + 300)).await.unwrap();
    }
    drop(sink);
    let then = lake.files();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(lake.files(), then);
}

#[tokio::test]
async fn a_checkpoint_of_another_kind_of_sink_is_refused() {
    let lake = Lake::new(json!({}));
    let what = Committable(json!([{ "epoch": 1, "points": [] }]));
    let error = lake.open().await.commit(Epoch(1), what).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(error.to_string().contains("new name"), "{error}");
}

#[test]
fn wrong_options_are_named() {
    let cases = [
        (json!({ "path": "ftp://x" }), "s3://bucket/prefix"),
        (
            json!({ "path": "x", "partition_by": ["yaer"] }),
            "did you mean \"year\"?",
        ),
        (json!({ "path": "x", "compression_level": 40 }), "1 to 22"),
        (
            json!({ "path": "x", "roll": { "size": "lots" } }),
            "size in bytes",
        ),
    ];
    for (options, expect) in cases {
        let error = ParquetConnector
            .check(&test_context(schema(), Path::new("."), options))
            .unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config);
        assert!(error.to_string().contains(expect), "{error}");
    }
}
