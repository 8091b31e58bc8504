//! Dated runs against S3 and DynamoDB: what a run wrote is replaced by the next of its date, whatever happens between
//! its transform and its load, and nothing of others is touched.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{AsArray, UInt64Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use millstream_engine::run::DatedRun;
use millstream_engine::sink::Committable;
use millstream_operators::aws::AwsOptions;
use millstream_operators::sinks::dynamodb::DynamodbConnector;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::uploads::numbers;
use super::*;

const DATE: &str = "2026-11-24";

/// Rows of a file that is sent in parts, 16 bytes each.
const LARGE: i64 = 2_400_000;

/// What happens between transform and load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    Nothing,
    /// Somebody, such as a lifecycle rule, ends the uploads.
    Aborted,
    /// Another attempt is made from the start.
    Again,
}

#[tokio::test]
#[ignore = "run by sinks_against_ministack, in its environment"]
async fn inside_dated() {
    for (happening, ended) in [
        (Happening::Nothing, 0),
        (Happening::Aborted, 0),
        (Happening::Again, 1),
    ] {
        replaces(happening, ended).await;
    }
    is_emptied().await;
    files_of_loads_that_died().await;
    items().await;
    items_of_loads_that_died().await;
}

fn dated(cx: SinkContext, date: &str, attempt: u32) -> SinkContext {
    let date = date.parse().unwrap();
    SinkContext {
        run: Some(DatedRun { date, attempt }),
        ..cx
    }
}

fn lake(name: &str, disk: &TempDir, attempt: u32) -> SinkContext {
    let path = format!("s3://lake/dated/{name:?}");
    let options = json!({ "path": path.replace('"', ""), "compression": "none" });
    dated(context(rows(0..0), disk.path(), options), DATE, attempt)
}

async fn transform(cx: &SinkContext, connector: &dyn SinkConnector, rows: RecordBatch) -> Committable {
    let mut sink = connector.open(cx.clone()).await.unwrap();
    sink.write(rows).await.unwrap();
    sink.prepare(barrier(1, true)).await.unwrap()
}

async fn load(cx: &SinkContext, connector: &dyn SinkConnector, what: &Committable) {
    let mut sink = connector.open(cx.clone()).await.unwrap();
    sink.commit(Epoch(1), what.clone()).await.unwrap();
}

/// The rows of the first run, two by two the other way round: the file has the same length.
fn swapped() -> RecordBatch {
    let order = (0..LARGE as u64).map(|n| n ^ 1).collect::<UInt64Array>();
    take_record_batch(&numbers(0..LARGE), &order).unwrap()
}

/// Two runs with files of the same name and the same length.
async fn replaces(happening: Happening, ended: u64) {
    let name = format!("{happening:?}");
    let disk = TempDir::new().unwrap();
    let cx = lake(&name, &disk, 1);
    let what = transform(&cx, &ParquetConnector, numbers(0..LARGE)).await;
    load(&cx, &ParquetConnector, &what).await;
    let mut cx = lake(&name, &disk, 2);
    let mut what = transform(&cx, &ParquetConnector, swapped()).await;
    let upload = &what.0["files"][0]["upload"];
    assert!(
        upload["parts"].as_array().is_some_and(|parts| parts.len() >= 4),
        "sent ahead: {upload}"
    );
    let s3 = client().await;
    match happening {
        Happening::Nothing => {}
        Happening::Aborted => {
            let key = format!("dated/{name}/{}", what.0["files"][0]["key"].as_str().unwrap());
            let abort = s3.abort_multipart_upload().bucket("lake").key(key);
            let abort = abort.upload_id(upload["id"].as_str().unwrap());
            abort.send().await.unwrap();
        }
        Happening::Again => {
            cx = lake(&name, &disk, 3);
            what = transform(&cx, &ParquetConnector, swapped()).await;
        }
    }
    assert_eq!(cx.counters.get("uploads_ended"), ended, "{name}");
    // Dies after the object was made, and is made again.
    let staging = disk.path().join("staging");
    let staged = staging.join(what.0["files"][0]["staged"].as_str().unwrap());
    let copy = disk.path().join("copy");
    std::fs::copy(&staged, &copy).unwrap();
    load(&cx, &ParquetConnector, &what).await;
    std::fs::copy(&copy, &staged).unwrap();
    load(&cx, &ParquetConnector, &what).await;
    load(&cx, &ParquetConnector, &what).await;
    assert_eq!(std::fs::read_dir(&staging).unwrap().count(), 0, "{name}");
}

/// A run of two files, then one without rows; beside them others' objects.
async fn is_emptied() {
    let disk = TempDir::new().unwrap();
    let s3 = client().await;
    for key in ["test-out-2026-11-23-0.parquet", "test-out2-2026-11-24-0.parquet"] {
        let put = s3.put_object().bucket("lake");
        let put = put.key(format!("dated/empty/year=2026/month=11/day=24/{key}"));
        put.body(ByteStream::from_static(b"not ours"))
            .send()
            .await
            .unwrap();
    }
    let mut cx = lake("empty", &disk, 1);
    cx.options["roll"] = json!({ "size": "1" });
    cx.options["path"] = json!("s3://lake/dated/empty");
    let mut sink = ParquetConnector.open(cx.clone()).await.unwrap();
    for n in 0..2 {
        sink.write(numbers(n..n + 1)).await.unwrap();
    }
    let what = sink.prepare(barrier(1, true)).await.unwrap();
    load(&cx, &ParquetConnector, &what).await;
    let what = transform(&cx, &ParquetConnector, numbers(0..0)).await;
    load(&cx, &ParquetConnector, &what).await;
    load(&cx, &ParquetConnector, &what).await;
    assert_eq!(cx.counters.get("files_published"), 2);
    assert_eq!(cx.counters.get("files_removed"), 2);
}

/// A load of files that dies anywhere, and is made again.
async fn files_of_loads_that_died() {
    let (disk, s3) = (TempDir::new().unwrap(), client().await);
    let mut attempt = 0;
    let mut of = || {
        attempt += 1;
        let mut cx = lake("died", &disk, attempt);
        cx.options["path"] = json!("s3://lake/died");
        cx.options["roll"] = json!({ "size": "1" });
        cx
    };
    let files = async |cx: &SinkContext, from: i64, files: i64| {
        let mut sink = ParquetConnector.open(cx.clone()).await.unwrap();
        for n in from..from + files {
            sink.write(numbers(n..n + 1)).await.unwrap();
        }
        sink.prepare(barrier(1, true)).await.unwrap()
    };
    for polls in (0..).step_by(2) {
        let cx = of();
        let what = files(&cx, 0, 4).await;
        load(&cx, &ParquetConnector, &what).await;
        let cx = of();
        let (from, count) = (100 + polls as i64, [2, 6][polls / 2 % 2]);
        let what = files(&cx, from, count).await;
        let mut sink = ParquetConnector.open(cx.clone()).await.unwrap();
        let ended = die_after(polls, sink.commit(Epoch(1), what.clone())).await;
        drop(sink);
        load(&cx, &ParquetConnector, &what).await;
        assert_eq!(
            found(&s3).await,
            (from..from + count).map(scatter).collect(),
            "dead after {polls} polls"
        );
        assert_eq!(std::fs::read_dir(disk.path().join("staging")).unwrap().count(), 0);
        if ended {
            assert!(polls > 4, "it must have died before");
            return;
        }
    }
}

/// The numbers in all files of loads that died.
async fn found(s3: &Client) -> BTreeSet<i64> {
    let list = s3.list_objects_v2().bucket("lake").prefix("died/");
    let mut numbers = BTreeSet::new();
    for object in list.send().await.unwrap().contents() {
        let got = s3.get_object().bucket("lake").key(object.key().unwrap());
        let bytes = got
            .send()
            .await
            .unwrap()
            .body
            .collect()
            .await
            .unwrap()
            .into_bytes();
        let rows = ParquetRecordBatchReaderBuilder::try_new(bytes)
            .unwrap()
            .build()
            .unwrap();
        for batch in rows {
            let batch = batch.unwrap();
            let column = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>();
            assert!(column.values().iter().all(|n| numbers.insert(*n)), "a row twice");
        }
    }
    numbers
}

/// What Python must find: rows per lake, and the names that are left beside.
pub fn expected() -> Value {
    let sum: i64 = (0..LARGE).map(scatter).sum();
    let one =
        json!({ "files": ["test-out-2026-11-24-0.parquet"], "rows": LARGE, "sum": sum, "first": scatter(1) });
    json!({ "Nothing": one, "Aborted": one, "Again": one,
        "empty": { "files": ["test-out-2026-11-23-0.parquet", "test-out2-2026-11-24-0.parquet"] } })
}

/// How Python finds it.
pub const FOUND: &str = "lakes = {}
for o in s3.list_objects_v2(Bucket='lake', Prefix='dated/')['Contents']:
    _, name, *directory, file = o['Key'].split('/')
    assert directory == ['year=2026', 'month=11', 'day=24'], o['Key']
    lakes.setdefault(name, {'files': []})['files'].append(file)
    if name == 'empty':
        continue
    n = parquet.read_table(io.BytesIO(s3.get_object(Bucket='lake', Key=o['Key'])['Body'].read())).column('n')
    lakes[name] |= {'rows': len(n), 'sum': pc.sum(n).as_py(), 'first': n[0].as_py()}
out(lakes)";

fn traffic(ads: &[(&str, i64)], day: &str) -> RecordBatch {
    let columns: [(&str, Arc<dyn Array>); 3] = [
        (
            "ad_id",
            Arc::new(StringArray::from_iter_values(ads.iter().map(|(ad, _)| ad))),
        ),
        (
            "day",
            Arc::new(StringArray::from_iter_values(ads.iter().map(|_| day))),
        ),
        (
            "clicks",
            Arc::new(Int64Array::from_iter_values(ads.iter().map(|(_, n)| *n))),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// Items that a run does not put any more are deleted, and only those of its date.
async fn items() {
    let disk = TempDir::new().unwrap();
    let options = json!({ "table": "traffic", "key": ["ad_id", "day"], "create": true });
    let of = |date: &str, attempt| {
        let dir = disk.path().join(date);
        dated(context(traffic(&[], ""), &dir, options.clone()), date, attempt)
    };
    let many: Vec<String> = (0..60).map(|n| format!("ad-{n}")).collect();
    let many: Vec<(&str, i64)> = many.iter().map(|ad| (ad.as_str(), 7)).collect();
    let steps: [(&str, &[(&str, i64)]); 7] = [
        ("2026-11-23", &[("a", 1), ("b", 2)]),
        (DATE, &[("a", 1), ("b", 2), ("c", 3)]),
        // Others, and other values.
        (DATE, &[("b", 20), ("d", 4)]),
        // More than one request deletes.
        (DATE, &many),
        (DATE, &[("e", 5)]),
        (DATE, &[]),
        (DATE, &[("f", 6), ("a", 9)]),
    ];
    let mut expect: BTreeMap<&str, &[(&str, i64)]> = BTreeMap::new();
    for (attempt, (date, ads)) in (1..).zip(steps) {
        let cx = of(date, attempt);
        let what = transform(&cx, &DynamodbConnector, traffic(ads, date)).await;
        let before = scan().await;
        let all = |expect: &BTreeMap<&str, &[(&str, i64)]>| {
            let items = expect.iter().flat_map(|(date, ads)| {
                ads.iter()
                    .map(move |(ad, n)| (format!("{ad} {date}"), n.to_string()))
            });
            items.collect::<BTreeMap<String, String>>()
        };
        assert_eq!(before, all(&expect), "not before the load");
        expect.insert(date, ads);
        for _ in 0..2 {
            load(&cx, &DynamodbConnector, &what).await;
            assert_eq!(scan().await, all(&expect), "{ads:?}");
        }
    }
}

/// A load that dies anywhere, and is not made again: another run of the date comes first, which knows of everything that
/// was put.
async fn items_of_loads_that_died() {
    let disk = TempDir::new().unwrap();
    let options = json!({ "table": "died", "key": ["ad_id", "day"], "create": true });
    let mut attempt = 0;
    let mut of = || {
        attempt += 1;
        dated(
            context(traffic(&[], ""), disk.path(), options.clone()),
            DATE,
            attempt,
        )
    };
    for polls in (0..).step_by(2) {
        let died = format!("died-{polls}");
        let cx = of();
        let what = transform(&cx, &DynamodbConnector, traffic(&[("a", 1), (&died, 1)], DATE)).await;
        let mut sink = DynamodbConnector.open(cx.clone()).await.unwrap();
        let ended = die_after(polls, sink.commit(Epoch(1), what.clone())).await;
        drop(sink);
        if polls % 4 == 0 {
            // Made again, and dead again.
            let mut sink = DynamodbConnector.open(cx).await.unwrap();
            die_after(polls / 2, sink.commit(Epoch(1), what)).await;
        }
        let last = format!("last-{polls}");
        let cx = of();
        let what = transform(&cx, &DynamodbConnector, traffic(&[(&last, 2)], DATE)).await;
        load(&cx, &DynamodbConnector, &what).await;
        let expect = BTreeMap::from([(format!("{last} {DATE}"), "2".to_owned())]);
        assert_eq!(scan_of("died").await, expect, "dead after {polls} polls");
        if ended {
            assert!(polls > 4, "it must have died before");
            return;
        }
    }
}

/// Polls so many times, then drops it; whether it ended before.
async fn die_after<T>(polls: usize, work: impl Future<Output = T>) -> bool {
    let mut work = std::pin::pin!(work);
    let mut polled = 0;
    std::future::poll_fn(|cx| {
        if polled == polls {
            return std::task::Poll::Ready(false);
        }
        polled += 1;
        work.as_mut().poll(cx).map(|_| true)
    })
    .await
}

async fn scan() -> BTreeMap<String, String> {
    scan_of("traffic").await
}

async fn scan_of(table: &str) -> BTreeMap<String, String> {
    let client = millstream_operators::aws::dynamodb(&AwsOptions::default())
        .await
        .unwrap();
    let Ok(found) = client.scan().table_name(table).consistent_read(true).send().await else {
        // Not before the first run.
        return BTreeMap::new();
    };
    let text = |item: &std::collections::HashMap<String, _>, name: &str| -> String {
        use aws_sdk_dynamodb::types::AttributeValue::{N, S};
        match &item[name] {
            S(text) | N(text) => text.clone(),
            other => panic!("{other:?}"),
        }
    };
    let items = found.items().iter();
    items
        .map(|item| {
            (
                format!("{} {}", text(item, "ad_id"), text(item, "day")),
                text(item, "clicks"),
            )
        })
        .collect()
}

async fn client() -> Client {
    millstream_operators::aws::s3(&AwsOptions::default())
        .await
        .unwrap()
}
