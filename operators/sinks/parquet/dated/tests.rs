//! Runs of a date, one after the other, each dead at any step: the lake holds the rows of the last load, and nothing else
//! is touched.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use millstream_engine::ErrorClass;
use millstream_engine::sink::SinkConnector;
use millstream_engine::source::options;
use millstream_engine::time::timestamp_type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::super::super::test_context;
use super::super::ParquetConnector;
use super::*;

/// 2026-11-24T23:00:00Z.
const EVENING: i64 = 1_795_561_200_000_000;
const HOUR: i64 = 3_600_000_000;

/// Of each file one row, so that runs have several.
const TINY: &str = "1";

fn rows(n: std::ops::Range<i64>) -> RecordBatch {
    // Half of them are of the day after.
    let times = TimestampMicrosecondArray::from_iter_values(n.clone().map(|n| EVENING + n % 2 * 3 * HOUR));
    let kinds = Int64Array::from_iter_values(n.clone().map(|n| n % 2));
    let numbers = Int64Array::from_iter_values(n);
    let schema = Schema::new(vec![
        Field::new("t", timestamp_type(), false),
        Field::new("kind", DataType::Int64, false),
        Field::new("n", DataType::Int64, false),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![Arc::new(times), Arc::new(kinds), Arc::new(numbers)],
    )
    .unwrap()
}

struct Runs {
    dir: TempDir,
    partition_by: Value,
    attempt: u32,
}

impl Runs {
    fn new(partition_by: Value) -> Runs {
        Runs {
            dir: TempDir::new().unwrap(),
            partition_by,
            attempt: 0,
        }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("lake")
    }

    fn context(&self, date: &str) -> SinkContext {
        let options =
            json!({ "path": self.root(), "partition_by": self.partition_by, "roll": { "size": TINY } });
        let mut cx = test_context(rows(0..0).schema(), &self.dir.path().join("data"), options);
        cx.run = Some(DatedRun {
            date: date.parse().unwrap(),
            attempt: self.attempt,
        });
        cx
    }

    async fn open(&self, date: &str) -> DatedSink {
        let cx = self.context(date);
        let typed: ParquetOptions = options(&cx.options).unwrap();
        let layout = typed.plan(&cx).unwrap();
        let run = cx.run.clone().unwrap();
        DatedSink::open(cx, run, typed, layout).await.unwrap()
    }

    /// Each row in a file of its own; gives what stands in the manifest.
    async fn transform(&mut self, date: &str, n: std::ops::Range<i64>) -> Committable {
        self.attempt += 1;
        let mut sink = self.open(date).await;
        for n in n {
            sink.write(rows(n..n + 1)).await.unwrap();
        }
        let what = sink.prepare(barrier()).await.unwrap();
        serde_json::from_str(&serde_json::to_string(&what).unwrap()).unwrap()
    }

    async fn load(&self, date: &str, what: &Committable) -> Result<()> {
        self.open(date).await.commit(Epoch(1), what.clone()).await
    }

    async fn run(&mut self, date: &str, n: std::ops::Range<i64>) {
        let what = self.transform(date, n).await;
        self.load(date, &what).await.unwrap();
    }

    /// The names of all files, from the lake's directory on.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        walk(&self.root(), &mut files);
        let root = self.root();
        let below = |file: PathBuf| file.strip_prefix(&root).unwrap().display().to_string();
        let mut files: Vec<String> = files.into_iter().map(below).collect();
        files.sort();
        files
    }

    /// The rows in the directory of a day.
    fn numbers(&self, day: &str) -> Vec<i64> {
        let files = self.files().into_iter().filter(|file| file.contains(day));
        let mut all: Vec<i64> = files.flat_map(|file| read(&self.root().join(file))).collect();
        all.sort();
        all
    }
}

fn barrier() -> Barrier {
    Barrier {
        epoch: Epoch(1),
        last: true,
    }
}

fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => walk(&path, into),
            false => into.push(path),
        }
    }
}

fn read(file: &Path) -> Vec<i64> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap();
    let batches = reader.build().unwrap().map(|batch| batch.unwrap());
    let of = |batch: RecordBatch| {
        let numbers = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>();
        numbers.values().to_vec()
    };
    batches.flat_map(of).collect()
}

const DAY: &str = "2026-11-24";

#[tokio::test]
async fn a_run_replaces_what_earlier_ones_of_its_date_wrote_and_nothing_else() {
    for partition_by in [
        json!(["year", "month", "day"]),
        json!(["year", "month"]),
        json!([]),
        json!(["year", "month", "day", "kind"]),
        json!(["kind", "day"]),
    ] {
        let mut runs = Runs::new(partition_by.clone());
        runs.run("2026-11-23", 100..103).await;
        runs.run(DAY, 0..9).await;
        let others = [
            // Of another pipeline, of another sink, and of one that streams.
            "adsy-out-2026-11-24-0.parquet",
            "ads-out-2026-11-24-out-2026-11-24-0.parquet",
            "ads-out-64a1-1-0.parquet",
            "unrelated.parquet",
        ];
        let directory = runs.root().join(match partition_by.as_array().unwrap().len() {
            0 => "",
            2 if partition_by[0] == "kind" => "kind=0/day=24",
            2 => "year=2026/month=11",
            _ => "year=2026/month=11/day=24",
        });
        for name in others {
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(name), "not ours").unwrap();
        }
        let before = runs.files();
        for (n, expect) in [
            (0..4, 4),
            (0..12, 12),
            (0..12, 12),
            (50..51, 1),
            (0..0, 0),
            (7..9, 2),
        ] {
            runs.run(DAY, n.clone()).await;
            let files = runs.files();
            let of_date: Vec<&String> = files
                .iter()
                .filter(|f| f.contains("ads-out-2026-11-24-") && !f.contains("-out-2026-11-24-out-"))
                .collect();
            assert_eq!(of_date.len(), expect, "{partition_by} {n:?}");
            let mut numbers: Vec<i64> = of_date.iter().flat_map(|f| read(&runs.root().join(f))).collect();
            numbers.sort();
            assert_eq!(numbers, n.collect::<Vec<_>>(), "{partition_by}");
            let rest = |all: &[String]| -> Vec<String> {
                let ours =
                    |f: &&String| f.contains("ads-out-2026-11-24-") && !f.contains("-out-2026-11-24-out-");
                all.iter().filter(|f| !ours(f)).cloned().collect()
            };
            assert_eq!(rest(&files), rest(&before), "{partition_by}");
        }
    }
}

#[tokio::test]
async fn all_rows_lie_in_the_directory_of_the_date_under_names_that_are_the_same_again() {
    let mut runs = Runs::new(json!(["year", "month", "day"]));
    runs.run(DAY, 0..3).await;
    let name = |n: i64| format!("year=2026/month=11/day=24/ads-out-2026-11-24-{n}.parquet");
    assert_eq!(runs.files(), [name(0), name(1), name(2)]);
    runs.run(DAY, 0..3).await;
    assert_eq!(runs.files(), [name(0), name(1), name(2)]);
    runs.partition_by = json!(["day", "kind"]);
    runs.run("2026-11-02", 0..3).await;
    assert_eq!(
        runs.files()[..3],
        [
            "day=02/kind=0/ads-out-2026-11-02-0.parquet",
            "day=02/kind=0/ads-out-2026-11-02-1.parquet",
            "day=02/kind=1/ads-out-2026-11-02-0.parquet"
        ]
    );
}

#[tokio::test]
async fn a_load_that_dies_anywhere_is_made_again() {
    for published in 0..=6 {
        for removed in [false, true] {
            let mut runs = Runs::new(json!(["year", "month", "day"]));
            runs.run(DAY, 0..9).await;
            let what = runs.transform(DAY, 20..26).await;
            assert_eq!(
                runs.numbers("day=24"),
                (0..9).collect::<Vec<_>>(),
                "not before the load"
            );
            let promise: Promise = serde_json::from_value(what.0.clone()).unwrap();
            let sink = runs.open(DAY).await;
            for file in &promise.files[..published] {
                sink.date.lake.publish(file, &sink.date.cx).await.unwrap();
            }
            if removed && published == promise.files.len() {
                fs::remove_file(
                    runs.root()
                        .join("year=2026/month=11/day=24/ads-out-2026-11-24-8.parquet"),
                )
                .unwrap();
            }
            drop(sink);
            for _ in 0..2 {
                runs.load(DAY, &what).await.unwrap();
                assert_eq!(
                    runs.numbers("day=24"),
                    (20..26).collect::<Vec<_>>(),
                    "{published}"
                );
                assert_eq!(runs.files().len(), 6, "nothing stays staged");
            }
        }
    }
}

#[tokio::test]
async fn a_transform_that_died_is_cleared_away_by_the_next() {
    let mut runs = Runs::new(json!(["year", "month", "day"]));
    runs.run("2026-11-25", 30..31).await;
    let other = runs.transform("2026-11-25", 40..42).await;
    runs.transform(DAY, 0..5).await;
    let mut dead = runs.open(DAY).await;
    dead.write(rows(0..3)).await.unwrap();
    drop(dead);
    // Of the next attempt nothing was written either.
    let what = runs.transform(DAY, 0..0).await;
    let staged = |date: &str| {
        runs.files()
            .iter()
            .filter(|f| f.starts_with(".inprogress") && f.contains(date))
            .count()
    };
    assert_eq!((staged(DAY), staged("2026-11-25")), (0, 2));
    runs.load(DAY, &what).await.unwrap();
    runs.load("2026-11-25", &other).await.unwrap();
    assert_eq!(runs.numbers("day=2"), [40, 41]);
}

#[tokio::test]
async fn rows_that_got_lost_after_they_were_prepared_do_not_cost_the_earlier_ones() {
    let mut runs = Runs::new(json!(["year", "month", "day"]));
    runs.run(DAY, 0..3).await;
    let what = runs.transform(DAY, 0..5).await;
    fs::remove_dir_all(runs.root().join(".inprogress")).unwrap();
    let error = runs.load(DAY, &what).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Data);
    assert!(error.to_string().contains("run the date again"), "{error}");
    assert_eq!(runs.numbers("day=24"), [0, 1, 2]);
}

#[tokio::test]
async fn a_path_that_changed_between_transform_and_load_changes_nothing() {
    let mut runs = Runs::new(json!([]));
    let what = runs.transform(DAY, 0..3).await;
    let mut cx = runs.context(DAY);
    cx.options["path"] = json!(runs.dir.path().join("elsewhere"));
    let mut moved = ParquetConnector.open(cx).await.unwrap();
    moved.commit(Epoch(1), what).await.unwrap();
    assert_eq!(runs.numbers(""), [0, 1, 2]);
}

#[test]
fn hours_are_refused() {
    let runs = Runs::new(json!(["year", "hour"]));
    let error = ParquetConnector.check(&runs.context(DAY)).unwrap_err();
    assert!(error.to_string().contains("which has no hour"), "{error}");
}
