//! Files on a disk, read through the source: whole, from every place in them, damaged, and as they come and go.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::StreamExt;
use millstream_engine::ErrorClass;
use millstream_engine::metrics::Counters;
use millstream_engine::run::DatedRun;
use millstream_engine::source::{Offset, Offsets, PartitionId, Partitions};
use millstream_engine::time::timestamp_type;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::progress::has_ended;
use super::*;

mod logs;

/// Rows of a file: more than one piece of text holds.
const ROWS: i64 = 60_000;

fn schema() -> arrow::datatypes::SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("received_at", timestamp_type(), false),
    ]))
}

fn context(options: serde_json::Value) -> SourceContext {
    SourceContext {
        run: None,
        pipeline: "p".into(),
        name: "s".into(),
        schema: schema(),
        event_time: 2,
        options,
        data_dir: PathBuf::new(),
        stop: CancellationToken::new(),
        counters: Counters::detached(),
    }
}

fn source(options: serde_json::Value) -> Arc<dyn Source> {
    source_of(None, options)
}

/// The source of a dated run, or of a pipeline that streams.
fn source_of(run: Option<&str>, options: serde_json::Value) -> Arc<dyn Source> {
    let run = run.map(|date| DatedRun {
        date: date.parse().unwrap(),
        attempt: 1,
    });
    let cx = SourceContext {
        run,
        ..context(options)
    };
    FileConnector.check(&cx).unwrap();
    FileConnector.open(cx).unwrap()
}

/// What one partition gave.
#[derive(Debug, Default)]
struct Got {
    numbers: Vec<i64>,
    invalid: Vec<String>,
    offsets: Vec<(usize, Offset)>,
}

async fn read(source: &Arc<dyn Source>, id: &PartitionId, from: Offset) -> Got {
    let mut got = Got::default();
    let mut batches = source.read(id, Some(from));
    while let Some(batch) = batches.next().await {
        let batch = batch.unwrap();
        let numbers = batch.rows.column(0).as_primitive::<Int64Type>();
        got.numbers.extend(numbers.values());
        if let Some(invalid) = batch.invalid {
            let (origins, reasons) = (invalid.column(1).as_string::<i32>(), invalid.column(2));
            for (origin, reason) in origins.iter().zip(reasons.as_string::<i32>()) {
                let name = origin.unwrap().rsplit('/').next().unwrap();
                got.invalid.push(format!("{name} {}", reason.unwrap()));
            }
        }
        got.offsets.push((got.numbers.len(), batch.offset));
    }
    got
}

/// The one partition of a folder.
async fn only(source: &Arc<dyn Source>) -> (PartitionId, Offset) {
    let found = source.partitions(&Offsets::new()).await.unwrap();
    let [(id, from)] = &found.open[..] else {
        panic!("{found:?}")
    };
    (id.clone(), from.clone().unwrap())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn lines(numbers: std::ops::Range<i64>) -> String {
    let padding = "x".repeat(40);
    numbers
        .map(|n| format!("{{\"n\":{n},\"text\":\"{padding}\"}}\n"))
        .collect()
}

fn parquet(numbers: std::ops::Range<i64>) -> Vec<u8> {
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(
        numbers.clone().map(|n| n.to_string()),
    ));
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
    let rows = RecordBatch::try_from_iter([("n", numbers), ("text", texts)]).unwrap();
    let groups = WriterProperties::builder().set_max_row_group_row_count(Some(25_000));
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(groups.build())).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test]
async fn every_format_is_read_from_every_place() {
    let text = lines(0..ROWS);
    let csv: String = (0..ROWS).map(|n| format!("{n},\"a\n{n}\"\n")).collect();
    let csv = format!("n,text\n{csv}");
    let zstd = zstd::encode_all(text.as_bytes(), 1).unwrap();
    for (name, bytes) in [
        ("a.ndjson", text.clone().into_bytes()),
        ("a.gz", gzip(text.as_bytes())),
        // By its first bytes.
        ("a", gzip(text.as_bytes())),
        ("a.jsonl.zst", zstd),
        ("a.csv", csv.clone().into_bytes()),
        ("a.csv.gz", gzip(csv.as_bytes())),
        ("a.parquet", parquet(0..ROWS)),
        (
            "array.json",
            format!("[{}]", text.trim_end().replace('\n', ",\n")).into_bytes(),
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let source = source(json!({ "path": dir.path() }));
        let (id, start) = only(&source).await;
        let whole = read(&source, &id, start).await;
        assert_eq!(whole.numbers, (0..ROWS).collect::<Vec<_>>(), "{name}");
        assert_eq!(whole.invalid, [""; 0], "{name}");
        assert!(
            whole.offsets.len() > 2 || name == "array.json",
            "{name}: in one piece"
        );
        assert!(has_ended(&whole.offsets.last().unwrap().1), "{name}");
        for (seen, offset) in whole.offsets {
            let ended = has_ended(&offset);
            let rest = read(&source, &id, offset).await;
            assert_eq!(rest.numbers, whole.numbers[seen..], "{name} from {seen}");
            assert_eq!(rest.offsets.is_empty(), ended, "{name} from {seen}");
        }
    }
}

#[tokio::test]
async fn damage_costs_what_is_behind_it() {
    let two_members = |second: &[u8]| {
        let mut bytes = gzip(lines(0..10).as_bytes());
        bytes.extend_from_slice(second);
        bytes
    };
    let whole = gzip(lines(10..20).as_bytes());
    let mut wrong_sum = two_members(&whole);
    let sum = wrong_sum.len() - 6;
    wrong_sum[sum] ^= 0xff;
    let bad = "{\"n\":0}\n{\"n\":\"x\"}\n{\"n\":2}\n";
    for (name, bytes, rows, invalid) in [
        ("cut.gz", two_members(&whole[..12]), 10, "cut.gz:11 unreadable: "),
        ("sum.gz", wrong_sum, 20, "sum.gz:21 unreadable: "),
        ("text.gz", b"{\"n\":1}\n".to_vec(), 0, "text.gz:1 unreadable: "),
        ("rows.json", bad.into(), 2, "rows.json:2 wrong_type: \"n\": "),
        (
            "none.csv",
            b"m\n1\n".to_vec(),
            0,
            "none.csv:1 unreadable: line 1: no column is named \"n\"",
        ),
        (
            "cut.parquet",
            parquet(0..10)[..99].to_vec(),
            0,
            "cut.parquet:1 unreadable: it is not valid Parquet: ",
        ),
        ("empty.gz", Vec::new(), 0, ""),
    ] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        let source = source(json!({ "path": dir.path() }));
        let (id, start) = only(&source).await;
        let got = read(&source, &id, start).await;
        assert_eq!(got.numbers.len(), rows, "{name}: {:?}", got.invalid);
        match invalid {
            "" => assert_eq!(got.invalid, [""; 0], "{name}"),
            _ => assert!(
                got.invalid.len() == 1 && got.invalid[0].starts_with(invalid),
                "{:?}",
                got.invalid
            ),
        }
        assert!(has_ended(&got.offsets.last().unwrap().1), "{name}");
    }
}

#[tokio::test]
async fn a_file_that_goes_or_changes_while_it_waits_is_one_invalid_row() {
    type Deed = fn(&Path);
    let deeds: [(Deed, &str); 2] = [
        (|path| std::fs::remove_file(path).unwrap(), "removed"),
        (|path| std::fs::write(path, lines(0..3)).unwrap(), "overwritten"),
    ];
    for (deed, says) in deeds {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        std::fs::write(&path, lines(0..2)).unwrap();
        let source = source(json!({ "path": dir.path() }));
        let (id, start) = only(&source).await;
        deed(&path);
        let got = read(&source, &id, start).await;
        let expect = format!("a.json:1 unreadable: it was {says} before it was read to its end");
        assert_eq!((got.numbers.len(), got.invalid), (0, vec![expect]));
    }
}

/// What the runtime knows of a source, and asks it.
struct Asking {
    source: Arc<dyn Source>,
    read: Offsets,
}

impl Asking {
    /// Opens what there is to read, and reads it to its end; gives the names, and those to forget.
    async fn step(&mut self) -> (String, String) {
        let Partitions { open, forget, .. } = self.source.partitions(&self.read).await.unwrap();
        let mut names = BTreeSet::new();
        for (id, from) in open {
            let got = read(&self.source, &id, from.unwrap()).await;
            names.insert(name(&id));
            self.read.insert(id, got.offsets.last().unwrap().1.clone());
        }
        let forgotten: BTreeSet<String> = forget.iter().map(name).collect();
        forget.iter().for_each(|id| drop(self.read.remove(id)));
        (join(names), join(forgotten))
    }
}

fn name(id: &PartitionId) -> String {
    let path = id.0.rsplit_once('@').unwrap().0;
    path.rsplit('/').next().unwrap().into()
}

fn join(names: BTreeSet<String>) -> String {
    names.into_iter().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn files_that_come_are_read_once_each() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, rows: i64| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, lines(0..rows)).unwrap();
    };
    let options = json!({ "path": dir.path(), "follow": true, "poll": "100ms" });
    let mut it = Asking {
        source: source(options.clone()),
        read: Offsets::new(),
    };
    put("a", 1);
    put("2026/11/b", 1);
    put(".c", 1);
    put("d.tmp", 1);
    assert_eq!(it.step().await, ("a b".into(), String::new()));
    // Renamed in, and older than anything known.
    std::fs::rename(dir.path().join("d.tmp"), dir.path().join("d")).unwrap();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1);
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path().join("d"))
        .unwrap();
    file.set_modified(old).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(110)).await;
    assert_eq!(it.step().await, ("d".into(), String::new()));
    // Overwritten; and another life of the process, which knows what the checkpoint does.
    put("a", 2);
    it.source = source(options);
    // The version that is gone is forgotten.
    assert_eq!(it.step().await, ("a".into(), "a".into()));
    std::fs::remove_file(dir.path().join("2026/11/b")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(110)).await;
    assert_eq!(it.step().await, (String::new(), "b".into()));
    assert_eq!(it.read.len(), 2);
}

#[tokio::test]
async fn a_source_that_does_not_follow_ends_and_opens_some_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..600 {
        std::fs::write(dir.path().join(format!("{n:03}")), lines(n..n + 1)).unwrap();
    }
    let source = source(json!({ "path": dir.path(), "include": "*[0-9]" }));
    let (mut read_to, mut asked, mut numbers) = (Offsets::new(), 0, Vec::new());
    loop {
        let found = source.partitions(&read_to).await.unwrap();
        assert!(found.open.len() <= 256);
        asked += 1;
        for (id, from) in found.open {
            let got = read(&source, &id, from.unwrap()).await;
            numbers.extend(got.numbers);
            read_to.insert(id, got.offsets.last().unwrap().1.clone());
        }
        if found.again.is_none() {
            break;
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..600).collect::<Vec<_>>());
    assert!(asked >= 3, "{asked}");
    // What was being read at a crash is named again, with its place.
    let half = Offset("row=3 size=9 modified=2026-03-01T12:30:45Z".into());
    let known = Offsets::from([(PartitionId("gone@1-1.0".into()), half.clone())]);
    let again = self::source(json!({ "path": dir.path() }))
        .partitions(&known)
        .await
        .unwrap();
    assert_eq!(again.open[0], (PartitionId("gone@1-1.0".into()), Some(half)));
}

#[tokio::test]
async fn a_stop_ends_a_stream_without_saying_that_the_file_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), lines(0..ROWS)).unwrap();
    let stop = CancellationToken::new();
    let cx = SourceContext {
        run: None,
        pipeline: "p".into(),
        name: "s".into(),
        schema: schema(),
        event_time: 2,
        options: json!({ "path": dir.path() }),
        data_dir: PathBuf::new(),
        stop: stop.clone(),
        counters: Counters::detached(),
    };
    let source = FileConnector.open(cx).unwrap();
    let (id, start) = only(&source).await;
    let mut batches = source.read(&id, Some(start));
    let first = batches.next().await.unwrap().unwrap();
    stop.cancel();
    assert!(batches.next().await.is_none());
    assert!(!has_ended(&first.offset));
}

#[test]
fn keys_are_checked() {
    let s3 = |more: serde_json::Value| {
        let mut options = json!({ "path": "s3://b/p" });
        options
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        typed::<S3Options>(&options).unwrap().check().map(drop)
    };
    for (more, says) in [
        (json!({}), ""),
        (json!({ "path": "s3://b" }), ""),
        (json!({ "path": "s3:///p" }), "names no bucket"),
        (json!({ "path": "s3://*/p" }), "names no bucket"),
        (json!({ "path": ["s3://b/p", "s3://b/q/*"] }), ""),
        (
            json!({ "path": ["s3://b/p", "s3://c/q"] }),
            "path: \"s3://c/q\" is not in bucket \"b\"",
        ),
        (json!({ "path": [] }), "path is an empty list"),
        (json!({ "include": "[" }), "include \"[\" is not a glob"),
        (json!({ "poll": "1ms" }), "poll must be at least 100ms"),
        (json!({ "notifications": "https://sqs/q" }), "add follow = true"),
        (
            json!({ "notifications": "q", "follow": true }),
            "is not the URL of a queue",
        ),
        (json!({ "notifications": "https://sqs/q", "follow": true }), ""),
    ] {
        match s3(more.clone()) {
            Ok(()) => assert_eq!(says, "", "{more}"),
            Err(e) => assert!(!says.is_empty() && e.to_string().contains(says), "{more}: {e}"),
        }
    }
    let file = |path: &str| typed::<FileOptions>(&json!({ "path": path })).unwrap().check();
    assert!(file("in/*.csv").is_ok() && file("file:///in").is_ok());
    assert!(
        file("s3://b/p")
            .unwrap_err()
            .to_string()
            .contains("is not on a disk")
    );
    assert!(file("").is_err());
}

#[tokio::test]
async fn several_paths_are_one_source_and_what_two_of_them_name_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let day = |day: &str| format!("{}/day={day}", dir.path().display());
    for (name, numbers) in [("23", 0..3), ("24", 3..5), ("25", 5..9)] {
        std::fs::create_dir(day(name)).unwrap();
        std::fs::write(day(name) + "/a.json", lines(numbers)).unwrap();
    }
    for (run, paths, expect) in [
        (None, json!([day("23"), day("24")]), Some(5)),
        (
            None,
            json!([day("23"), format!("{}/day=2[34]/*", dir.path().display())]),
            Some(5),
        ),
        // Nothing was written on the 26th: a date without rows, or a path that is misspelt.
        (Some("2026-11-25"), json!([day("25"), day("26")]), Some(4)),
        (None, json!([day("25"), day("26")]), None),
    ] {
        let source = source_of(run, json!({ "path": paths }));
        let found = source.partitions(&Offsets::new()).await;
        let Some(expect) = expect else {
            let error = found.unwrap_err();
            assert_eq!(error.class(), ErrorClass::Config);
            assert!(error.to_string().contains("day=26"), "{error}");
            continue;
        };
        let mut numbers = Vec::new();
        for (id, from) in found.unwrap().open {
            numbers.extend(read(&source, &id, from.unwrap()).await.numbers);
        }
        let distinct: BTreeSet<_> = numbers.iter().collect();
        assert_eq!((numbers.len(), distinct.len()), (expect, expect), "{paths}");
    }
}
