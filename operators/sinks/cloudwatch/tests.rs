//! Rows → datapoints as a table of cases, and how datapoints are cut into requests.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_engine::metrics::Counters;
use millstream_engine::time::timestamp_type;
use serde_json::{Value as Json, json};

use super::super::test_context;
use super::*;

/// One row per case: time, ad, n (integer), x (float).
type Row<'a> = (Option<i64>, Option<&'a str>, Option<i64>, Option<f64>);

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
    let row = (Some(7), Some("a"), Some(2), Some(0.5));
    let single = |v: f64| json!([{ "m": "X", "u": "Percent", "t": 7, "v": v }]);
    let long = "a".repeat(1025);
    let cases: Vec<(&Json, &Json, Row, Json, &str)> = vec![
        (&x, &none, row, single(0.5), ""),
        (
            &x,
            &by_ad,
            row,
            json!([{ "m": "X", "u": "Percent", "t": 7, "d": [["Ad", "a"]], "v": 0.5 }]),
            "",
        ),
        (&x, &none, (Some(7), None, None, Some(0.0)), single(0.0), ""),
        (
            &x,
            &none,
            (Some(7), None, None, Some(-(2f64.powi(360)))),
            single(-(2f64.powi(360))),
            "",
        ),
        (&x, &none, (Some(7), None, None, None), json!([]), "values_null"),
        (
            &x,
            &none,
            (Some(7), None, None, Some(f64::NAN)),
            json!([]),
            "values_not_a_number",
        ),
        (
            &x,
            &none,
            (Some(7), None, None, Some(f64::NEG_INFINITY)),
            json!([]),
            "values_not_a_number",
        ),
        (
            &x,
            &none,
            (Some(7), None, None, Some(2f64.powi(361))),
            json!([]),
            "values_out_of_range",
        ),
        (
            &x,
            &none,
            (Some(7), None, None, Some(-(2f64.powi(-361)))),
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
            (Some(7), None, None, Some(1.0)),
            json!([]),
            "dimensions_invalid",
        ),
        (
            &x,
            &by_ad,
            (Some(7), Some(" "), None, Some(1.0)),
            json!([]),
            "dimensions_invalid",
        ),
        (
            &x,
            &by_ad,
            (Some(7), Some(":a"), None, Some(1.0)),
            json!([]),
            "dimensions_invalid",
        ),
        (
            &x,
            &by_ad,
            (Some(7), Some("ä"), None, Some(1.0)),
            json!([]),
            "dimensions_invalid",
        ),
        (
            &x,
            &by_ad,
            (Some(7), Some(&long), None, Some(1.0)),
            json!([]),
            "dimensions_invalid",
        ),
        (
            &set,
            &none,
            row,
            json!([{ "m": "S", "u": "None", "t": 7, "v": { "n": 2.0, "sum": 0.5, "min": 0.5, "max": 0.5 } }]),
            "",
        ),
        (
            &set,
            &none,
            (Some(7), None, Some(0), None),
            json!([]),
            "values_null",
        ),
        (
            &set,
            &none,
            (Some(7), None, Some(-1), Some(1.0)),
            json!([]),
            "values_inconsistent",
        ),
        (
            &wrong_set,
            &none,
            (Some(7), None, Some(1), Some(2.0)),
            json!([]),
            "values_inconsistent",
        ),
    ];
    for (metrics, dimensions, row, expect, counted) in cases {
        let mapping = mapping(json!({ "metrics": metrics, "dimensions": dimensions })).unwrap();
        let counters = Counters::detached();
        let mut points = Vec::new();
        mapping.map(&batch(&[row]), &counters, &mut points).unwrap();
        assert_eq!(serde_json::to_value(&points).unwrap(), expect, "{row:?}");
        let back: Vec<Point> = serde_json::from_value(expect).unwrap();
        assert_eq!(back, points, "{row:?}");
        if !counted.is_empty() {
            assert_eq!(counters.get(counted), 1, "{row:?}");
        }
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
            "either value or statistics",
        ),
        (json!({ "metrics": [] }), "names no metric"),
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
