//! The sink on its own, one call at a time; killed and restarted as a process: `server/tests/serving.rs`.

use std::path::Path;

use arrow::array::{Int64Array, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use serde_json::{Value, json};

use super::super::test_context;
use super::*;

/// Rows of (ad, version, revision, clicks).
type Rows<'a> = &'a [(Option<&'a str>, i64, i64, u64)];

fn batch(rows: Rows<'_>) -> RecordBatch {
    let schema = Schema::new(vec![
        Field::new("ad", DataType::Utf8, true),
        Field::new("until", DataType::Int64, true),
        Field::new("revision", DataType::Int64, true),
        Field::new("clicks", DataType::UInt64, true),
    ]);
    let columns = vec![
        Arc::new(rows.iter().map(|r| r.0).collect::<StringArray>()) as _,
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1))) as _,
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2))) as _,
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|r| r.3))) as _,
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

fn context(dir: &Path, name: &str, options: &Value) -> SinkContext {
    let mut options = options.clone();
    options["table"] = json!("ads");
    options["path"] = json!(dir.join("serving.db"));
    SinkContext {
        name: name.into(),
        ..test_context(batch(&[]).schema(), &dir.join(name), options)
    }
}

async fn open(cx: SinkContext) -> Box<dyn Sink> {
    SqliteConnector::default().open(cx).await.unwrap()
}

async fn prepared(sink: &mut Box<dyn Sink>, epoch: u64, rows: Rows<'_>) -> Committable {
    if !rows.is_empty() {
        sink.write(batch(rows)).await.unwrap();
    }
    let barrier = Barrier {
        epoch: Epoch(epoch),
        last: false,
    };
    sink.prepare(barrier).await.unwrap()
}

async fn commit(sink: &mut Box<dyn Sink>, epoch: u64, what: &Committable) {
    sink.commit(Epoch(epoch), what.clone()).await.unwrap();
}

/// Ad and clicks of what is there, in the order of the keys.
fn there(dir: &Path) -> Vec<(String, i64)> {
    let at = Connection::open(dir.join("serving.db")).unwrap();
    let mut ask = at.prepare("SELECT ad, clicks FROM ads ORDER BY ad").unwrap();
    let rows = ask.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

fn expect(rows: &[(&str, i64)]) -> Vec<(String, i64)> {
    rows.iter()
        .map(|(ad, clicks)| (ad.to_string(), *clicks))
        .collect()
}

#[tokio::test]
async fn of_rows_with_one_key_the_newest_holds() {
    let cases = [
        (json!({ "key": ["ad"] }), 4),
        // Neither of an earlier version nor of an earlier revision.
        (json!({ "key": ["ad"], "version": "until" }), 3),
    ];
    for (options, clicks) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut sink = open(context(dir.path(), "a", &options)).await;
        let rows: Rows<'_> = &[(Some("x"), 2, 1, 1), (Some("x"), 2, 0, 2), (Some("x"), 2, 1, 3)];
        let first = prepared(&mut sink, 1, rows).await;
        commit(&mut sink, 1, &first).await;
        let second = prepared(&mut sink, 2, &[(Some("x"), 1, 9, 4)]).await;
        commit(&mut sink, 2, &second).await;
        assert_eq!(there(dir.path()), expect(&[("x", clicks)]), "{options}");
    }
}

/// Nothing is there before the commit. A commit made again after a crash, with its rows still on disk, changes nothing,
/// though another sink has replaced them since; one that was not made is made.
#[tokio::test]
async fn each_commit_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = json!({ "key": ["ad"] });
    let cx = context(dir.path(), "a", &options);
    let mut sink = open(cx.clone()).await;
    let first = prepared(&mut sink, 1, &[(Some("x"), 0, 0, 1), (Some("y"), 0, 0, 1)]).await;
    assert_eq!(there(dir.path()), []);
    let file = dir.path().join("a/outbox-1.arrow");
    let kept = std::fs::read(&file).unwrap();
    commit(&mut sink, 1, &first).await;
    assert!(!file.exists());
    assert_eq!(there(dir.path()), expect(&[("x", 1), ("y", 1)]));

    let mut other = open(context(dir.path(), "b", &options)).await;
    let theirs = prepared(&mut other, 1, &[(Some("x"), 0, 0, 7)]).await;
    commit(&mut other, 1, &theirs).await;
    // As if the process had died between the transaction and the removal.
    std::fs::write(&file, kept).unwrap();
    let mut sink = open(cx.clone()).await;
    commit(&mut sink, 1, &first).await;
    assert_eq!(there(dir.path()), expect(&[("x", 7), ("y", 1)]));
    assert!(!file.exists());

    // Two checkpoints, none of which is committed before the crash; and rows that no checkpoint has.
    prepared(&mut sink, 2, &[(Some("x"), 0, 0, 2)]).await;
    let both = prepared(&mut sink, 3, &[(Some("y"), 0, 0, 3)]).await;
    sink.write(batch(&[(Some("z"), 0, 0, 4)])).await.unwrap();
    let mut sink = open(cx).await;
    commit(&mut sink, 3, &both).await;
    assert_eq!(there(dir.path()), expect(&[("x", 2), ("y", 3)]));
    let left = std::fs::read_dir(dir.path().join("a")).unwrap().count();
    assert_eq!(left, 0, "nothing waits any more");
}

/// A run of a date replaces what the date's run before wrote, whatever of it is still there, and nothing else; made
/// again after a crash, it changes nothing.
#[tokio::test]
async fn a_run_replaces_its_date() {
    let dir = tempfile::tempdir().unwrap();
    let options = json!({ "key": ["ad"] });
    type Run<'a> = (&'a str, Rows<'a>, Vec<(String, i64)>);
    let runs: [Run<'_>; 5] = [
        (
            "2026-11-22",
            &[(Some("a"), 0, 0, 1), (Some("b"), 0, 0, 1)],
            expect(&[("a", 1), ("b", 1)]),
        ),
        (
            "2026-11-23",
            &[(Some("b"), 0, 0, 2), (Some("c"), 0, 0, 2)],
            expect(&[("a", 1), ("b", 2), ("c", 2)]),
        ),
        // `b` is the later date's by now.
        (
            "2026-11-22",
            &[(Some("d"), 0, 0, 3)],
            expect(&[("b", 2), ("c", 2), ("d", 3)]),
        ),
        ("2026-11-23", &[], expect(&[("d", 3)])),
        ("2026-11-22", &[(Some("d"), 0, 0, 4)], expect(&[("d", 4)])),
    ];
    for (number, (date, rows, expect)) in runs.into_iter().enumerate() {
        let cx = context(dir.path(), &format!("run-{number}"), &options);
        let cx = SinkContext {
            name: "daily".into(),
            ..cx
        };
        let mut transform = open_run(&cx, date).await;
        let what = prepared(&mut transform, 1, rows).await;
        let mut load = open_run(&cx, date).await;
        commit(&mut load, 1, &what).await;
        assert_eq!(there(dir.path()), expect, "run {number}");
        let mut again = open_run(&cx, date).await;
        commit(&mut again, 1, &what).await;
        assert_eq!(there(dir.path()), expect, "run {number}, loaded again");
    }
}

async fn open_run(cx: &SinkContext, date: &str) -> Box<dyn Sink> {
    Box::new(SqliteSink::open(cx.clone(), None, date.into()).await.unwrap())
}

#[tokio::test]
async fn rows_without_a_place_are_refused_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(context(dir.path(), "a", &json!({ "key": ["ad"] }))).await;
    let rows: Rows<'_> = &[(None, 0, 0, 1), (Some("x"), 0, 0, u64::MAX), (Some("y"), 0, 0, 3)];
    let what = prepared(&mut sink, 1, rows).await;
    let refused = sink.rejected().expect("two rows");
    assert_eq!(refused.num_rows(), 2);
    let reasons = arrow::array::AsArray::as_string::<i32>(refused.column_by_name("reason").unwrap()).clone();
    assert_eq!(reasons.value(0), "ad: NULL in the key");
    assert!(
        reasons
            .value(1)
            .starts_with("clicks: 18446744073709551615 is beyond")
    );
    commit(&mut sink, 1, &what).await;
    assert_eq!(there(dir.path()), expect(&[("y", 3)]));
}

/// A table gets the columns that it lacks, and is refused where it is another one.
#[tokio::test]
async fn tables_that_are_there() {
    let made =
        "CREATE TABLE ads (ad TEXT NOT NULL, clicks INTEGER, _writer INTEGER NOT NULL, PRIMARY KEY (ad))";
    let cases = [
        (made.to_string(), None),
        (
            made.replace("_writer", "writer"),
            Some("was not made by a sqlite sink"),
        ),
        (
            made.replace("clicks INTEGER", "clicks TEXT"),
            Some("is TEXT, not INTEGER"),
        ),
        (
            made.replace("KEY (ad)", "KEY (clicks)"),
            Some("has the key clicks, not ad"),
        ),
    ];
    for (create, says) in cases {
        let dir = tempfile::tempdir().unwrap();
        let at = Connection::open(dir.path().join("serving.db")).unwrap();
        at.execute_batch(&create).unwrap();
        let connector = SqliteConnector::default();
        let opened = connector.open(context(dir.path(), "a", &json!({ "key": ["ad"] })));
        match (opened.await, says) {
            (Ok(mut sink), None) => {
                let what = prepared(&mut sink, 1, &[(Some("x"), 0, 0, 1)]).await;
                commit(&mut sink, 1, &what).await;
                assert_eq!(there(dir.path()), expect(&[("x", 1)]));
            }
            (Err(e), Some(says)) => assert!(e.to_string().contains(says), "{e}"),
            (opened, _) => panic!("{create}: {:?}", opened.err()),
        }
    }
}

#[test]
fn wrong_options_are_named() {
    let cases = [
        (json!({ "table": "t", "key": [] }), "key: name the columns"),
        (
            json!({ "table": "t", "key": ["ad", "ad"] }),
            "key: \"ad\" is named twice",
        ),
        (json!({ "table": "t", "key": ["add"] }), "did you mean \"ad\"?"),
        (
            json!({ "table": "_millstream_writers", "key": ["ad"] }),
            "table: ",
        ),
        (
            json!({ "table": "t", "key": ["ad"], "version": "none" }),
            "version: ",
        ),
    ];
    for (options, says) in cases {
        let cx = test_context(batch(&[]).schema(), Path::new(""), options.clone());
        let e = SqliteConnector::default().check(&cx).unwrap_err();
        assert!(e.to_string().contains(says), "{options}: {e}");
    }
}
