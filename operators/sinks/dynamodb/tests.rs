//! Rows as items, and the outbox they wait in; with a service behind them: `server/tests/dynamodb.rs`.

use std::sync::Arc;

use arrow::array::{Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use millstream_engine::time::timestamp_type;
use serde_json::{Value, json};

use super::super::test_context;
use super::*;

/// Rows of (ad, until in hours, revision, clicks).
type Rows<'a> = &'a [(Option<&'a str>, i64, i64, i64)];

fn batch(rows: Rows<'_>) -> RecordBatch {
    let ads: StringArray = rows.iter().map(|r| r.0).collect();
    let until = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1 * 3_600_000_000));
    let revisions = Int64Array::from_iter_values(rows.iter().map(|r| r.2));
    let clicks = Int64Array::from_iter_values(rows.iter().map(|r| r.3));
    let schema = Schema::new(vec![
        Field::new("ad", DataType::Utf8, true),
        Field::new("until", timestamp_type(), false),
        Field::new("revision", DataType::Int64, false),
        Field::new("clicks", DataType::Int64, false),
    ]);
    let columns = vec![
        Arc::new(ads) as _,
        Arc::new(until) as _,
        Arc::new(revisions) as _,
        Arc::new(clicks) as _,
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn mapping(options: Value) -> Result<Mapping> {
    let mut options = options;
    options["table"] = json!("t");
    let cx = test_context(batch(&[]).schema(), std::path::Path::new(""), options.clone());
    Mapping::new(&cx, &serde_json::from_value(options).unwrap())
}

/// The clicks of the items that are put, in order.
fn put(options: Value, rows: Rows<'_>) -> Vec<String> {
    let items = mapping(options).unwrap().items(&batch(rows)).unwrap();
    let (items, passed_over) = newest(items.into_iter().flatten());
    assert_eq!(items.len() as u64 + passed_over, rows.len() as u64);
    let clicks = items
        .iter()
        .map(|i| i.attributes["clicks"].as_n().unwrap().clone());
    clicks.collect()
}

#[test]
fn of_rows_with_one_key_the_newest_is_put() {
    let rows: Rows<'_> = &[
        (Some("a"), 2, 0, 1),
        (Some("b"), 1, 0, 2),
        (Some("a"), 2, 1, 3),
        (Some("a"), 1, 7, 4),
        (Some("b"), 1, 0, 5),
    ];
    let cases = [
        (json!({ "key": ["ad"] }), vec!["4", "5"]),
        (json!({ "key": ["ad"], "version": "until" }), vec!["3", "5"]),
        (json!({ "key": ["ad", "until"] }), vec!["3", "5", "4"]),
        (json!({ "key": ["ad", "clicks"] }), vec!["1", "2", "3", "4", "5"]),
    ];
    for (options, expect) in cases {
        assert_eq!(put(options.clone(), rows), expect, "{options}");
    }
}

#[test]
fn keys_are_not_confused_where_their_texts_run_together() {
    let mapping = mapping(json!({ "key": ["ad", "clicks"] })).unwrap();
    let items = mapping
        .items(&batch(&[(Some("a1"), 0, 0, 2), (Some("a"), 0, 0, 12)]))
        .unwrap();
    let keys: Vec<String> = items.into_iter().map(|item| item.unwrap().key).collect();
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn what_dynamodb_would_refuse_is_found_before() {
    let large = "x".repeat(401 << 10);
    let rows = batch(&[
        (None, 0, 0, 0),
        (Some(""), 0, 0, 0),
        (Some(&large[..2049]), 0, 0, 0),
        (Some(&large[..2048]), 0, 0, 0),
    ]);
    let items = mapping(json!({ "key": ["ad"] })).unwrap().items(&rows).unwrap();
    let refused: Vec<&str> = items
        .iter()
        .filter_map(|item| item.as_ref().err().map(String::as_str))
        .collect();
    assert_eq!(
        refused,
        [
            "ad: NULL in the key",
            "ad: empty in the key",
            "ad: 2049 bytes in the key, which may have 2048"
        ]
    );
    let rows = batch(&[(Some(&large), 0, 0, 0)]);
    let items = mapping(json!({ "key": ["clicks"] }))
        .unwrap()
        .items(&rows)
        .unwrap();
    let why = items[0].as_ref().err().unwrap();
    assert!(
        why.starts_with("an item of 410") && why.ends_with("which may have 409600"),
        "{why}"
    );
}

#[test]
fn wrong_options_are_named() {
    let cases = [
        (json!({ "key": [] }), "name one column or two"),
        (json!({ "key": ["ad", "ad"] }), "two different ones"),
        (json!({ "key": ["ad", "until", "clicks"] }), "two different ones"),
        (json!({ "key": ["clicsk"] }), "did you mean \"clicks\"?"),
        (
            json!({ "key": ["ad"], "version": "til" }),
            "version: stream \"rows\" has no column",
        ),
    ];
    for (options, expect) in cases {
        let error = mapping(options).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
}

#[tokio::test]
async fn the_outbox_gives_back_what_it_took_in_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let mut outbox = Outbox::new(dir.path().join("sink"));
    let rows: Vec<_> = (0..10).map(|n| (Some("a"), 0, 0, n)).collect();
    outbox.append(&batch(&rows[..3])).unwrap();
    outbox.append(&batch(&[])).unwrap();
    outbox.append(&batch(&rows[3..])).unwrap();
    let sealed = outbox.seal(Epoch(7)).await.unwrap().unwrap();
    assert!(outbox.seal(Epoch(8)).await.unwrap().is_none());

    let mut chunks = Chunks::open(outbox.files.path(&sealed)).unwrap().unwrap();
    let mut clicks = Vec::new();
    while let Some(chunk) = chunks.next(4).await.unwrap() {
        let column = chunk.column(3).as_any().downcast_ref::<Int64Array>().unwrap();
        clicks.push(column.values().to_vec());
    }
    assert_eq!(clicks, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    outbox.files.remove(&sealed).unwrap();
    assert!(Chunks::open(outbox.files.path(&sealed)).unwrap().is_none());
}
