//! Rows → datapoints as a table of cases, and how datapoints are cut into requests.

use std::io::{BufRead, BufReader, Read, Write};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Float64Builder, Int64Array, ListBuilder, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use aws_sdk_cloudwatch::config::{BehaviorVersion, Credentials, Region};
use millstream_engine::metrics::Counters;
use millstream_engine::time::timestamp_type;
use serde_json::{Value as Json, json};

use super::super::test_context;
use super::refusal::Refusal;
use super::*;

/// One row per case: time, ad, n (integer), x (float).
type Row<'a> = (Option<i64>, Option<&'a str>, Option<i64>, Option<f64>);

const NOW: i64 = 1_795_474_800_000_000;

fn batch(rows: &[Row]) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("t", timestamp_type(), true),
        Field::new("ad", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
        Field::new("x", DataType::Float64, true),
    ]);
    let t: TimestampMicrosecondArray = rows.iter().map(|r| r.0).collect();
    let ad: StringArray = rows.iter().map(|r| r.1).collect();
    let n: Int64Array = rows.iter().map(|r| r.2).collect();
    let x: Float64Array = rows.iter().map(|r| r.3).collect();
    let columns: Vec<ArrayRef> = vec![Arc::new(t), Arc::new(ad), Arc::new(n), Arc::new(x)];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn mapping(mut options: Json) -> Result<Mapping> {
    options["namespace"] = json!("Test");
    let cx = test_context(batch(&[]).schema(), "/nowhere".as_ref(), options);
    Mapping::new(&cx, &millstream_engine::source::options(&cx.options)?)
}

#[test]
fn rows_become_datapoints() {
    let x = json!([{ "name": "X", "value": "x", "unit": "Percent" }]);
    let set = json!([{ "name": "S", "statistics":
        { "sample_count": "n", "sum": "x", "minimum": "x", "maximum": "x" } }]);
    let wrong_set = json!([{ "name": "S", "statistics":
        { "sample_count": "n", "sum": "x", "minimum": "x", "maximum": "n" } }]);
    let by_ad = json!({ "Ad": "ad" });
    let none = json!({});
    let row = (Some(NOW), Some("a"), Some(2), Some(0.5));
    let single = |v: f64| json!([{ "m": "X", "u": "Percent", "t": NOW, "v": v }]);
    let single_at = |at: i64| json!([{ "m": "X", "u": "Percent", "t": at, "v": 1.0 }]);
    let long = "a".repeat(1025);
    let cases: Vec<(&Json, &Json, Row, Json, &str)> = vec![
        (&x, &none, row, single(0.5), ""),
        (
            &x,
            &by_ad,
            row,
            json!([{ "m": "X", "u": "Percent", "t": NOW, "d": [["Ad", "a"]], "v": 0.5 }]),
            "",
        ),
        (&x, &none, (Some(NOW), None, None, Some(0.0)), single(0.0), ""),
        (
            &x,
            &none,
            (Some(NOW), None, None, Some(-(2f64.powi(360)))),
            single(-(2f64.powi(360))),
            "",
        ),
        (&x, &none, (Some(NOW), None, None, None), json!([]), "values_null"),
        (
            &x,
            &none,
            (Some(NOW), None, None, Some(f64::NAN)),
            json!([]),
            "values_not_a_number",
        ),
        (
            &x,
            &none,
            (Some(NOW), None, None, Some(f64::NEG_INFINITY)),
            json!([]),
            "values_not_a_number",
        ),
        (
            &x,
            &none,
            (Some(NOW), None, None, Some(2f64.powi(361))),
            json!([]),
            "values_out_of_range",
        ),
        (
            &x,
            &none,
            (Some(NOW), None, None, Some(-(2f64.powi(-361)))),
            json!([]),
            "values_out_of_range",
        ),
        (
            &x,
            &none,
            (None, None, None, Some(1.0)),
            json!([]),
            "timestamps_null",
        ),
        (
            &x,
            &by_ad,
            (Some(NOW), None, None, Some(1.0)),
            json!([]),
            "dimensions_invalid",
        ),
        (
            &x,
            &by_ad,
            (Some(NOW), Some(" "), None, Some(1.0)),
            json!([]),
            "dimensions_invalid",
        ),
        (
            &x,
            &by_ad,
            (Some(NOW), Some(":a"), None, Some(1.0)),
            json!([]),
            "dimensions_invalid",
        ),
        (
            &x,
            &by_ad,
            (Some(NOW), Some("ä"), None, Some(1.0)),
            json!([]),
            "dimensions_invalid",
        ),
        (
            &x,
            &by_ad,
            (Some(NOW), Some(&long), None, Some(1.0)),
            json!([]),
            "dimensions_invalid",
        ),
        (
            &set,
            &none,
            row,
            json!([{ "m": "S", "u": "None", "t": NOW, "v": { "n": 2.0, "sum": 0.5, "min": 0.5, "max": 0.5 } }]),
            "",
        ),
        (
            &set,
            &none,
            (Some(NOW), None, Some(0), None),
            json!([]),
            "values_null",
        ),
        (
            &set,
            &none,
            (Some(NOW), None, Some(-1), Some(1.0)),
            json!([]),
            "values_inconsistent",
        ),
        (
            &x,
            &none,
            (Some(NOW - 1_206_000_000_000), None, None, Some(1.0)),
            single_at(NOW - 1_206_000_000_000),
            "",
        ),
        (
            &x,
            &none,
            (Some(NOW - 1_206_000_000_001), None, None, Some(1.0)),
            json!([]),
            "points_too_old",
        ),
        (
            &x,
            &none,
            (Some(NOW + 6_900_000_001), None, None, Some(1.0)),
            json!([]),
            "points_too_far_ahead",
        ),
        (
            &wrong_set,
            &none,
            (Some(NOW), None, Some(1), Some(2.0)),
            json!([]),
            "values_inconsistent",
        ),
    ];
    for (metrics, dimensions, row, expect, counted) in cases {
        let mapping = mapping(json!({ "metrics": metrics, "dimensions": dimensions })).unwrap();
        let counters = Counters::detached();
        let mut points = Vec::new();
        let accepted = Accepted::at(Timestamp(NOW));
        let refused = mapping
            .map(&batch(&[row]), &accepted, &counters, &mut points)
            .unwrap();
        assert_eq!(serde_json::to_value(&points).unwrap(), expect, "{row:?}");
        let back: Vec<Point> = serde_json::from_value(expect).unwrap();
        assert_eq!(back, points, "{row:?}");
        if !counted.is_empty() {
            assert_eq!(counters.get(counted), 1, "{row:?}");
        }
        let wrong = !counted.is_empty() && counted != "values_null";
        assert_eq!(refused.len(), usize::from(wrong), "{row:?}: {refused:?}");
    }
}

#[test]
fn wrong_options_are_named() {
    let cases = [
        (
            json!({ "metrics": [{ "name": "X", "value": "y" }] }),
            "no column \"y\"",
        ),
        (
            json!({ "metrics": [{ "name": "X", "value": "ad" }] }),
            "not a number",
        ),
        (
            json!({ "metrics": [{ "name": "X", "value": "x", "unit": "count" }] }),
            "did you mean \"Count\"?",
        ),
        (
            json!({ "metrics": [{ "name": "X" }] }),
            "one of value, statistics and distribution",
        ),
        (json!({ "metrics": [] }), "names no metric"),
        (
            json!({ "metrics": [{ "name": "X", "value": "x" }], "dashboard": "Real time" }),
            "letters, digits",
        ),
        (
            json!({ "metrics": [{ "name": "Clicks", "value": "x" }],
                    "ratios": [{ "name": "R", "part": "Click", "whole": "Clicks" }] }),
            "did you mean \"Clicks\"?",
        ),
        (
            json!({ "metrics": [{ "name": "X", "value": "x" }], "dimensions": { "Ad": "ad" },
                    "ratios": [{ "name": "R", "part": "X", "whole": "X" }] }),
            "metrics without",
        ),
        (
            json!({ "metrics": [{ "name": "X", "value": "x", "dimensions": { "A": "t" } }] }),
            "cast it",
        ),
        (
            json!({ "metrics": [{ "name": "X", "value": "x" }], "timestamp": "n" }),
            "not a timestamp",
        ),
    ];
    for (options, expect) in cases {
        let error = mapping(options).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
}

#[test]
fn requests_keep_both_limits() {
    let point = |name: usize| Point {
        metric: "m".repeat(name),
        unit: "Count".into(),
        at: Timestamp(0),
        dimensions: Vec::new(),
        value: Value::Single(1.0),
    };
    assert_eq!(request_length(&vec![point(1); 2500]), REQUEST_POINTS);
    assert_eq!(request_length(&vec![point(1); 7]), 7);
    let wide = vec![point(10_000); 500];
    let length = request_length(&wide);
    assert!(
        length * 10_000 <= REQUEST_BYTES && (length + 2) * 10_200 > REQUEST_BYTES,
        "{length}"
    );
    assert_eq!(request_length(&[point(2 * REQUEST_BYTES)]), 1, "never stuck");
}

/// Lists of values, each with its count, as datapoints of at most 150 values.
#[test]
fn lists_become_datapoints() {
    type List<'a> = Option<&'a [Option<f64>]>;
    let lists = |of: List| {
        let mut builder = ListBuilder::new(Float64Builder::new());
        builder.append_option(of.map(|values| values.iter().copied()));
        builder.finish()
    };
    let times = Int64Array::from(vec![NOW]);
    let check = |values: List, counts: List, expect: Result<Vec<(usize, f64)>, Refusal>| {
        let columns: [(&str, ArrayRef); 3] = [
            ("t", cast(&times, &timestamp_type()).unwrap()),
            ("vs", Arc::new(lists(values))),
            ("ns", Arc::new(lists(counts))),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap();
        let metrics = json!([{ "name": "D", "distribution": { "values": "vs", "counts": "ns" } }]);
        let options = json!({ "namespace": "Test", "metrics": metrics });
        let cx = test_context(rows.schema(), "/nowhere".as_ref(), options);
        let mapping = Mapping::new(&cx, &millstream_engine::source::options(&cx.options).unwrap()).unwrap();
        let (counters, mut points) = (Counters::detached(), Vec::new());
        let accepted = Accepted::at(Timestamp(NOW));
        let refused = mapping.map(&rows, &accepted, &counters, &mut points).unwrap();
        let (got, why): (Vec<(usize, f64)>, _) = match &expect {
            Ok(_) => (points.iter().map(|p| (p.size(), p.samples())).collect(), None),
            Err(why) => (Vec::new(), Some(*why)),
        };
        assert_eq!(got, expect.unwrap_or_default());
        if let Some(why) = why {
            assert_eq!(counters.get(why.counter()), 1, "{why:?}");
            assert_eq!(refused.len(), usize::from(why.reason().is_some()), "{why:?}");
        }
        let json = serde_json::to_value(&points).unwrap();
        assert_eq!(serde_json::from_value::<Vec<Point>>(json).unwrap(), points);
    };
    let many: Vec<Option<f64>> = (0..301).map(|n| Some(f64::from(n))).collect();
    let twice = vec![Some(2.0); 301];
    let pieces = Ok(vec![(150, 300.0), (150, 300.0), (1, 2.0)]);
    check(Some(&many), Some(&twice), pieces);
    let (one, nan) = ([Some(1.0)], [Some(f64::NAN)]);
    check(
        Some(&[Some(1.0), None, Some(3.0)]),
        Some(&[Some(1.0); 3]),
        Ok(vec![(2, 2.0)]),
    );
    check(
        Some(&[Some(1.0), Some(2.0)]),
        Some(&[Some(0.0), Some(4.0)]),
        Ok(vec![(1, 4.0)]),
    );
    check(None, Some(&one), Err(Refusal::Null));
    check(Some(&[]), Some(&[]), Err(Refusal::Null));
    check(Some(&nan), Some(&one), Err(Refusal::NotANumber));
    check(Some(&one), None, Err(Refusal::Inconsistent));
    check(Some(&one), Some(&nan), Err(Refusal::Inconsistent));
    check(Some(&one), Some(&[Some(-1.0)]), Err(Refusal::Inconsistent));
    check(
        Some(&one),
        Some(&[Some(1.0), Some(1.0)]),
        Err(Refusal::Inconsistent),
    );
}

/// The largest request there is: compressed, and no larger than it is taken for.
#[tokio::test]
async fn a_large_request_is_compressed_and_within_the_estimate() {
    let values: Vec<f64> = (0..150).map(|n| 1.0 / f64::from(n + 3)).collect();
    let point = |number: usize| Point {
        metric: format!("Latency{number}"),
        unit: "Milliseconds".into(),
        at: Timestamp::now(),
        dimensions: vec![("Ad".into(), format!("a{number}"))],
        value: Value::Distribution {
            values: values.clone(),
            counts: values.clone(),
        },
    };
    let points: Vec<Point> = (0..100).map(point).collect();
    let points = points[..request_length(&points)].to_vec();
    let estimate: usize = points.iter().map(Point::request_bytes).sum();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = client(&format!("http://{}", listener.local_addr().unwrap()));
    let service = std::thread::spawn(move || one_request(&listener));
    let dir = tempfile::tempdir().unwrap();
    let options = json!({ "namespace": "Test", "metrics": [{ "name": "X", "value": "x" }] });
    let cx = test_context(batch(&[]).schema(), dir.path(), options);
    let mapping = Mapping::new(&cx, &millstream_engine::source::options(&cx.options).unwrap()).unwrap();
    let sink = CloudwatchSink {
        client,
        namespace: "Test".into(),
        high_resolution: false,
        settle: Duration::ZERO,
        mapping,
        points: Vec::new(),
        size: 0,
        rejected: RejectedRows::new(&cx),
        outbox: Vec::new(),
        marker: Marker::new(dir.path().into()),
        fresh: false,
        last: false,
        cx,
    };
    assert!(sink.send(&points).await.is_ok());
    let (head, body) = service.join().unwrap();
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(&body[..])
        .read_to_end(&mut plain)
        .unwrap();
    assert!(
        plain.len() <= estimate && plain.len() > estimate / 8,
        "{} bytes, {} compressed, taken for {estimate}",
        plain.len(),
        body.len()
    );
}

fn client(endpoint: &str) -> Client {
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(endpoint);
    Client::from_conf(config.build())
}

/// Takes one request and answers as CloudWatch does; gives its head, in small letters, and its body.
fn one_request(listener: &std::net::TcpListener) -> (String, Vec<u8>) {
    let mut socket = BufReader::new(listener.accept().unwrap().0);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(socket.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let head = head.to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |n| n.parse().unwrap())];
    socket.read_exact(&mut body).unwrap();
    while length.is_none() {
        let mut size = String::new();
        socket.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let from = body.len();
        body.resize(from + size + 2, 0);
        socket.read_exact(&mut body[from..]).unwrap();
        body.truncate(from + size);
        if size == 0 {
            break;
        }
    }
    let answer = "HTTP/1.1 200 OK\r\nsmithy-protocol: rpc-v2-cbor\r\ncontent-type: application/cbor\r\n\
                  content-length: 1\r\n\r\n\u{0}";
    let mut answer = answer.as_bytes().to_vec();
    *answer.last_mut().unwrap() = 0xa0;
    socket.get_mut().write_all(&answer).unwrap();
    (head, body)
}

/// A promise is read as it was written, and as earlier versions wrote it.
#[test]
fn promises_are_read_back() {
    let old = json!([{ "epoch": 3, "made": 7, "points": [{ "m": "X", "u": "Count", "t": 7, "d": [["Ad", "\"a\""]], "v": 0.5 }] }]);
    let read: Vec<Prepared> = serde_json::from_value(old).unwrap();
    let written = promise(&read).unwrap();
    assert!(written.0[0]["points"].is_string(), "{written:?}");
    let again: Vec<Prepared> = serde_json::from_value(written.0).unwrap();
    assert_eq!((again[0].id, &again[0].points), (read[0].id, &read[0].points));
    assert_eq!(
        again[0].points[0].dimensions,
        [("Ad".to_owned(), "\"a\"".to_owned())]
    );
}
