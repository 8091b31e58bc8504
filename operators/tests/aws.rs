//! The AWS sinks against a stand-in for AWS, read back through an independent client.
//!
//! The one test starts ministack on a free port, then runs the `inside_*` tests of this same file in a process of
//! their own, whose environment points at it: the environment is part of what is tested, and a process cannot
//! change its own. What they wrote is read back by boto3 and pyarrow.
#![allow(clippy::disallowed_methods, reason = "a test has no runtime to block")]

use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_engine::ErrorClass;
use millstream_engine::message::{Barrier, Epoch};
use millstream_engine::metrics::Counters;
use millstream_engine::sink::{Sink, SinkConnector, SinkContext};
use millstream_engine::table::{TableContext, TableLoader};
use millstream_engine::time::{Timestamp, timestamp_type};
use millstream_operators::sinks::cloudwatch::CloudwatchConnector;
use millstream_operators::sinks::parquet::ParquetConnector;
use millstream_operators::tables::FileTables;
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "aws/checkpoints.rs"]
mod checkpoints;
#[path = "aws/dated.rs"]
mod dated;
#[path = "aws/uploads.rs"]
mod uploads;

/// 2026-11-23T23:00:00Z.
const EVENING: i64 = 1_795_474_800_000_000;
const MINUTE: i64 = 60_000_000;
const DAY: i64 = 24 * 60 * MINUTE;

/// Rows that make a file of more than one part, written without compression.
const MANY: i64 = 5_000_000;

#[test]
fn sinks_against_ministack() {
    let aws = Ministack::start();
    aws.python("s3.create_bucket(Bucket='lake'); out(1)");
    let midnight = Timestamp::now().0 / DAY * DAY - DAY;
    aws.run_inside("inside_parquet", midnight);
    aws.run_inside("uploads::inside_uploads", midnight);
    aws.run_inside("dated::inside_dated", midnight);
    aws.run_inside("inside_cloudwatch", midnight);
    aws.run_inside("inside_cloudwatch_in_doubt", midnight);
    aws.run_inside("checkpoints::inside_checkpoints", midnight);
    aws.run_inside("inside_errors", midnight);
    aws.python(
        "import gzip
s3.put_object(Bucket='lake', Key='tables/ads.csv.gz', Body=gzip.compress(b'ad,price\\na,1.5\\nb,\\n'))
s3.put_object(Bucket='lake', Key='tables/broken.csv', Body=b'ad,price\\na,much\\n')
out(1)",
    );
    aws.run_inside("inside_tables", midnight);

    let left: Vec<(String, String)> = serde_json::from_value(aws.python(checkpoints::FOUND)).unwrap();
    assert_eq!(
        left,
        checkpoints::LEFT.map(|(epoch, kind)| (epoch.into(), kind.into()))
    );

    let lake = aws.python(
        "keys = [o['Key'] for o in s3.list_objects_v2(Bucket='lake', Prefix='a/rows/')['Contents']]
rows = []
for key in keys:
    table = parquet.read_table(io.BytesIO(s3.get_object(Bucket='lake', Key=key)['Body'].read()))
    rows += table.column('n').to_pylist()
out({'rows': sorted(rows), 'dirs': sorted({k.rsplit('/', 1)[0] for k in keys}), 'files': len(keys)})",
    );
    assert_eq!(lake["rows"], json!((0..400).collect::<Vec<_>>()));
    assert_eq!(
        lake["dirs"],
        json!([
            "a/rows/year=2026/month=11/day=23",
            "a/rows/year=2026/month=11/day=24"
        ])
    );
    // The crash closes the files of both days, the end of the run those opened since.
    assert_eq!(lake["files"], json!(4));

    let large = aws.python(
        "key, = [o['Key'] for o in s3.list_objects_v2(Bucket='lake', Prefix='large/')['Contents']]
whole = s3.get_object(Bucket='lake', Key=key)['Body'].read()
n = parquet.read_table(io.BytesIO(whole)).column('n')
out({'rows': len(n), 'sum': pc.sum(n).as_py(), 'parts': s3.head_object(Bucket='lake', Key=key)['ETag'].count('-')})",
    );
    let sum: i64 = (0..MANY).map(scatter).sum();
    assert_eq!(large, json!({ "rows": MANY, "sum": sum, "parts": 1 }));

    assert_eq!(aws.python(dated::FOUND), dated::expected());

    let found = aws.python(uploads::FOUND);
    let expect = json!({ "lakes": uploads::expected(), "left": ["uploads/foreign.parquet"] });
    assert_eq!(found, expect);

    let metrics = aws.python(&format!(
        "import datetime
start = datetime.datetime.fromtimestamp({midnight} / 1e6, datetime.timezone.utc)
def ask(name, statistic, dimensions=[]):
    found = cw.get_metric_statistics(Namespace='Test/Ads', MetricName=name, Dimensions=dimensions, Period=86400,
        StartTime=start, EndTime=start + datetime.timedelta(days=1), Statistics=[statistic], Unit='Count')
    return sum(p[statistic] for p in found['Datapoints'])
ad = [{{'Name': 'Ad', 'Value': 'a1'}}]
out({{'clicks': ask('Clicks', 'Sum'), 'points': ask('Clicks', 'SampleCount'), 'of ad': ask('ByAd', 'Sum', ad),
      'set': [ask('Set', s) for s in ('SampleCount', 'Sum', 'Minimum', 'Maximum')]}})"
    ));
    // Minutes 0 to 1199 with as many clicks each; Ad is minute % 3; a set of 10 per minute.
    let of_ad: i64 = (0..1200).filter(|n| n % 3 == 1).sum();
    let expect = json!({ "clicks": 719_400.0, "points": 1200.0, "of ad": of_ad as f64,
        "set": [12_000.0, 719_400.0, 0.0, 1199.0] });
    assert_eq!(metrics, expect);

    // Every datapoint once, though each was promised to several lives of the sink.
    let samples = aws.python(&format!(
        "import datetime
start = datetime.datetime.fromtimestamp({midnight} / 1e6, datetime.timezone.utc)
def ask(name, ad=[]):
    found = cw.get_metric_statistics(Namespace='Test/Doubt', MetricName=name, Period=60, StartTime=start,
        EndTime=start + datetime.timedelta(hours=1), Statistics=['SampleCount', 'Sum'], Unit='Count',
        Dimensions=[{{'Name': 'Ad', 'Value': a}} for a in ad])
    return {{p['Timestamp'].minute: [p['SampleCount'], p['Sum']] for p in found['Datapoints']}}
of_ads = {{}}
for ad in ('a0', 'a1', 'a2'):
    of_ads |= ask('ByAd', [ad])
out({{'clicks': ask('Clicks'), 'set': ask('Set'), 'by ad': of_ads}})"
    ));
    let each = |samples: f64| {
        (0..40)
            .map(|n| (n.to_string(), json!([samples, n as f64])))
            .collect::<serde_json::Map<_, _>>()
    };
    assert_eq!(
        samples,
        json!({ "clicks": each(1.0), "set": each(10.0), "by ad": each(1.0) })
    );
}

#[tokio::test]
#[ignore = "run by sinks_against_ministack, in its environment"]
async fn inside_parquet() {
    let dir = TempDir::new().unwrap();
    let cx = context(rows(0..0), dir.path(), json!({ "path": "s3://lake/a/rows" }));
    let open = async || ParquetConnector.open(cx.clone()).await.unwrap();
    let mut sink = open().await;
    sink.write(rows(0..100)).await.unwrap();
    let what = sink.prepare(barrier(1, false)).await.unwrap();
    sink.write(rows(100..200)).await.unwrap();
    sink.commit(Epoch(1), what).await.unwrap();
    let what = sink.prepare(barrier(2, false)).await.unwrap();
    sink.write(rows(200..300)).await.unwrap();
    drop(sink);

    // Recovered twice, as by a crash in the midst of the first.
    open().await.commit(Epoch(2), what.clone()).await.unwrap();
    let mut sink = open().await;
    sink.commit(Epoch(2), what).await.unwrap();
    sink.write(rows(200..400)).await.unwrap();
    finish(sink, 3).await;
    let staged = std::fs::read_dir(dir.path().join("staging")).unwrap();
    assert_eq!(staged.count(), 0, "nothing stays staged");
    assert_eq!(cx.counters.get("files_published"), 4);
    assert_eq!(cx.counters.get("files_gone"), 0);

    let dir = TempDir::new().unwrap();
    let options = json!({ "path": "s3://lake/large", "partition_by": [], "compression": "none" });
    let mut sink = ParquetConnector
        .open(context(rows(0..0), dir.path(), options))
        .await
        .unwrap();
    let schema = Arc::new(Schema::new(vec![
        rows(0..0).schema().field(0).clone(),
        Field::new("n", DataType::Int64, false),
    ]));
    let t = Arc::new(TimestampMicrosecondArray::from_iter_values(0..MANY));
    let n = Arc::new(Int64Array::from_iter_values((0..MANY).map(scatter)));
    sink.write(RecordBatch::try_new(schema, vec![t, n]).unwrap())
        .await
        .unwrap();
    finish(sink, 1).await;
}

#[tokio::test]
#[ignore = "run by sinks_against_ministack, in its environment"]
async fn inside_cloudwatch() {
    let midnight: i64 = std::env::var("TEST_MIDNIGHT").unwrap().parse().unwrap();
    let dir = TempDir::new().unwrap();
    let columns = |minutes| clicks(midnight, minutes);
    let options = cloudwatch_options("Test/Ads", "20s");
    let cx = context(columns(vec![]), dir.path(), options);
    let mut sink = CloudwatchConnector.open(cx.clone()).await.unwrap();
    sink.write(columns((0..700).collect())).await.unwrap();
    let first = sink.prepare(barrier(1, false)).await.unwrap();
    sink.write(columns((700..1200).collect())).await.unwrap();
    sink.commit(Epoch(1), first.clone()).await.unwrap();
    sink.commit(Epoch(1), first).await.unwrap();
    // Fifteen days old, and three days ahead.
    sink.write(columns(vec![-15 * 1440, 4 * 1440])).await.unwrap();
    let refused = sink.rejected().expect("both are refused");
    assert_eq!(refused.num_rows(), 2 + 1200, "once for all metrics of a row");
    finish(sink, 2).await;
    let counted = [
        "points_sent",
        "points_too_old",
        "points_too_far_ahead",
        "values_not_a_number",
    ];
    assert_eq!(counted.map(|what| cx.counters.get(what)), [3600, 3, 3, 1202]);
}

/// Every minute, by number, has as many clicks, an ad of three, and a set of ten values.
fn clicks(midnight: i64, minutes: Vec<i64>) -> RecordBatch {
    let t = TimestampMicrosecondArray::from_iter_values(minutes.iter().map(|n| midnight + n * MINUTE));
    let ads = StringArray::from_iter_values(minutes.iter().map(|n| format!("a{}", n.rem_euclid(3))));
    let ten = Int64Array::from_iter_values(minutes.iter().map(|_| 10));
    let nan = Float64Array::from_iter_values(minutes.iter().map(|_| f64::NAN));
    let clicks = Int64Array::from_iter_values(minutes);
    let columns: [(&str, Arc<dyn Array>); 5] = [
        ("t", Arc::new(t)),
        ("ad", Arc::new(ads)),
        ("clicks", Arc::new(clicks)),
        ("ten", Arc::new(ten)),
        ("nan", Arc::new(nan)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn cloudwatch_options(namespace: &str, settle: &str) -> Value {
    json!({ "namespace": namespace, "settle": settle, "metrics": [
        { "name": "Clicks", "value": "clicks", "unit": "Count" },
        { "name": "ByAd", "value": "clicks", "unit": "Count", "dimensions": { "Ad": "ad" } },
        { "name": "Set", "unit": "Count",
          "statistics": { "sample_count": "ten", "sum": "clicks", "minimum": "clicks", "maximum": "clicks" } },
        { "name": "Never", "value": "nan" },
    ]})
}

/// One life of a sink after the other, each dead at another moment around a put.
#[tokio::test]
#[ignore = "run by sinks_against_ministack, in its environment"]
async fn inside_cloudwatch_in_doubt() {
    let midnight: i64 = std::env::var("TEST_MIDNIGHT").unwrap().parse().unwrap();
    let columns = |minutes: std::ops::Range<i64>| clicks(midnight, minutes.collect());
    let (disk, lost) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let context = |dir: &TempDir, settle: &str| {
        let options = cloudwatch_options("Test/Doubt", settle);
        context(columns(0..0), dir.path(), options)
    };
    let open = async |cx: &SinkContext| CloudwatchConnector.open(cx.clone()).await.unwrap();
    let sent_and_read_back =
        |cx: &SinkContext| ["points_sent", "points_read_back"].map(|what| cx.counters.get(what));

    let cx = context(&disk, "20s");
    let mut sink = open(&cx).await;
    sink.write(columns(0..10)).await.unwrap();
    let first = sink.prepare(barrier(1, false)).await.unwrap();
    sink.commit(Epoch(1), first.clone()).await.unwrap();
    assert_eq!(sent_and_read_back(&cx), [30, 0]);

    // Its mark says that all was sent; without the mark, CloudWatch says so.
    let cx = context(&disk, "20s");
    open(&cx).await.commit(Epoch(1), first.clone()).await.unwrap();
    assert_eq!(sent_and_read_back(&cx), [0, 0]);
    let cx = context(&lost, "0s");
    open(&cx).await.commit(Epoch(1), first.clone()).await.unwrap();
    assert_eq!(sent_and_read_back(&cx), [0, 30]);

    // Died with half of the datapoints sent: those of the even minutes, by a sink that promised only them.
    let mut sink = open(&context(&lost, "0s")).await;
    sink.write(clicks(midnight, (10..20).filter(|n| n % 2 == 0).collect()))
        .await
        .unwrap();
    finish(sink, 2).await;
    let mut sink = open(&context(&disk, "0s")).await;
    sink.commit(Epoch(1), first).await.unwrap();
    sink.write(columns(10..20)).await.unwrap();
    let second = sink.prepare(barrier(2, false)).await.unwrap();
    drop(sink);
    let cx = context(&disk, "0s");
    let mut sink = open(&cx).await;
    sink.commit(Epoch(2), second).await.unwrap();
    assert_eq!(sent_and_read_back(&cx), [15, 15]);

    // Died with nothing sent: as long as it is in doubt, nothing is sent, and it is promised again.
    sink.write(columns(20..30)).await.unwrap();
    let third = sink.prepare(barrier(3, false)).await.unwrap();
    drop(sink);
    let cx = context(&disk, "1h");
    let mut sink = open(&cx).await;
    sink.commit(Epoch(3), third).await.unwrap();
    sink.write(columns(30..40)).await.unwrap();
    let fourth = sink.prepare(barrier(4, false)).await.unwrap();
    sink.commit(Epoch(4), fourth.clone()).await.unwrap();
    assert_eq!(sent_and_read_back(&cx), [0, 0]);
    drop(sink);
    let cx = context(&disk, "1ms");
    let mut sink = open(&cx).await;
    sink.commit(Epoch(4), fourth).await.unwrap();
    finish(sink, 5).await;
    assert_eq!(sent_and_read_back(&cx), [60, 0]);
}

#[tokio::test]
#[ignore = "run by sinks_against_ministack, in its environment"]
async fn inside_tables() {
    let table = |key: &str| TableContext {
        name: "ads".into(),
        path: format!("s3://{key}"),
        format: None,
        schema: Arc::new(Schema::new(vec![
            Field::new("ad", DataType::Utf8, false),
            Field::new("price", DataType::Float64, true),
        ])),
        options: json!({}),
    };
    let rows = FileTables.load(&table("lake/tables/ads.csv.gz")).await.unwrap();
    let expect = RecordBatch::try_new(
        table("").schema,
        vec![
            Arc::new(StringArray::from(vec!["a", "b"])),
            Arc::new(Float64Array::from(vec![Some(1.5), None])),
        ],
    );
    assert_eq!(rows, [expect.unwrap()]);
    for (key, says) in [
        (
            "lake/tables/broken.csv",
            "s3://lake/tables/broken.csv: line 2: \"price\"",
        ),
        (
            "lake/tables/nothing.csv",
            "reading s3://lake/tables/nothing.csv: NoSuchKey",
        ),
        (
            "no-such-bucket/ads.csv",
            "reading s3://no-such-bucket/ads.csv: NoSuchBucket",
        ),
    ] {
        let error = FileTables.load(&table(key)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config, "{error}");
        assert!(error.to_string().starts_with(says), "{error}");
    }
}

#[tokio::test]
#[ignore = "run by sinks_against_ministack, in its environment"]
async fn inside_errors() {
    let nobody = format!(
        "http://{}",
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    );
    let cases = [
        (json!({ "path": "s3://no-such-bucket/x" }), ErrorClass::Config),
        (
            json!({ "path": "s3://lake/x", "endpoint": nobody }),
            ErrorClass::Retry { after: None },
        ),
    ];
    for (options, class) in cases {
        let dir = TempDir::new().unwrap();
        let mut sink = ParquetConnector
            .open(context(rows(0..0), dir.path(), options))
            .await
            .unwrap();
        sink.write(rows(0..1)).await.unwrap();
        let what = sink.prepare(barrier(1, true)).await.unwrap();
        let error = sink.commit(Epoch(1), what).await.unwrap_err();
        assert_eq!(error.class(), class, "{error}");
        assert!(error.to_string().contains("s3://"), "{error}");
    }
}

async fn finish(mut sink: Box<dyn Sink>, epoch: u64) {
    let what = sink.prepare(barrier(epoch, true)).await.unwrap();
    sink.commit(Epoch(epoch), what).await.unwrap();
}

fn barrier(epoch: u64, last: bool) -> Barrier {
    Barrier {
        epoch: Epoch(epoch),
        last,
    }
}

/// Numbers that neither a dictionary nor delta encoding makes small.
fn scatter(n: i64) -> i64 {
    n.wrapping_mul(0x5851_F42D_4C95_7F2D) >> 20
}

/// Rows `n`, with even numbers on the first day and odd ones on the next.
fn rows(n: std::ops::Range<i64>) -> RecordBatch {
    let t = TimestampMicrosecondArray::from_iter_values(n.clone().map(|n| EVENING + n % 2 * DAY + n));
    let schema = Schema::new(vec![
        Field::new("t", timestamp_type(), false),
        Field::new("n", DataType::Int64, false),
    ]);
    RecordBatch::try_new(
        Arc::new(schema),
        vec![Arc::new(t), Arc::new(Int64Array::from_iter_values(n))],
    )
    .unwrap()
}

fn context(like: RecordBatch, dir: &std::path::Path, options: Value) -> SinkContext {
    SinkContext {
        run: None,
        pipeline: "test".into(),
        name: "out".into(),
        input: "rows".into(),
        schema: like.schema(),
        event_time: Some(0),
        options,
        data_dir: dir.into(),
        counters: Counters::detached(),
    }
}

/// A stand-in for AWS, ended with the test.
struct Ministack {
    process: Child,
    endpoint: String,
    venv: PathBuf,
    _dir: TempDir,
}

impl Ministack {
    fn start() -> Ministack {
        let venv = std::env::var_os("MILLSTREAM_VENV")
            .map(PathBuf::from)
            .unwrap_or_else(|| {
                PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/millstream/venv")
            });
        let program = venv.join("bin/ministack");
        assert!(
            program.exists(),
            "{} is missing: run ./ci/test, which installs it, or set MILLSTREAM_VENV",
            program.display()
        );
        let dir = TempDir::new().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(program)
            .current_dir(&dir)
            .env("BIND_HOST", "127.0.0.1")
            .env("GATEWAY_PORT", address.port().to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let aws = Ministack {
            process,
            endpoint: format!("http://{address}"),
            venv,
            _dir: dir,
        };
        let patience = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            assert!(
                Instant::now() < patience,
                "ministack does not listen on {address}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        aws
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("AWS_ENDPOINT_URL", &self.endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_DEFAULT_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_CONFIG_FILE", "/dev/null")
            .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    }

    /// Runs one of the `inside_*` tests of this file.
    fn run_inside(&self, test: &str, midnight: i64) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", test])
            .env("TEST_MIDNIGHT", midnight.to_string());
        let output = self.environment(&mut command).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{errors}"
        );
    }

    /// Runs Python that calls `out` with what this returns.
    fn python(&self, script: &str) -> Value {
        let script = format!(
            "import boto3, io, json, os, pyarrow.compute as pc, pyarrow.parquet as parquet
s3, cw = boto3.client('s3'), boto3.client('cloudwatch')
def out(value): print(json.dumps(value), flush=True)
{script}
# Without the end of the interpreter: pyarrow's threads may abort it after the answer.
os._exit(0)"
        );
        let mut command = Command::new(self.venv.join("bin/python"));
        let output = self.environment(command.arg("-c").arg(script)).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Ministack {
    fn drop(&mut self) {
        // Failures leave nothing to clean up: the process is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
