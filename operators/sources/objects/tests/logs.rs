//! Logs: lines in files, read into the tables of a schema from every place in them.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Schema;
use millstream_engine::Error;

use super::*;

const SCHEMA: &str = "
version: 1
tables:
  lines:
    src: ''
    src_type: dict
    columns:
    - {log_key: n, sql_attr: int8 not null}
    - {name: __source_filename__, is_derived: true, sql_attr: varchar(4096)}
  items:
    src: items
    src_type: list
    columns:
    - {log_key: value, sql_attr: int8}
";

/// Lines of two tables, every thousandth of them bad.
fn log_lines(numbers: std::ops::Range<i64>) -> String {
    let line = |n: i64| match n % 1_000 {
        500 => "nonsense\n".to_owned(),
        _ => format!(
            "{{\"n\":{n},\"items\":[{n},{n}],\"padding\":\"{}\"}}\n",
            "x".repeat(40)
        ),
    };
    numbers.map(line).collect()
}

fn context(folder: &Path, max_errors: Option<u64>) -> SourceContext {
    SourceContext {
        schema: Arc::new(Schema::new(vec![Field::new(
            "received_at",
            timestamp_type(),
            false,
        )])),
        event_time: 0,
        options: json!({
            "path": folder.join("in"), "format": "log", "schema": folder.join("log.yaml"), "max_errors": max_errors,
        }),
        ..super::context(json!({}))
    }
}

/// A folder with a schema and files.
fn folder(schema: &str, files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("log.yaml"), schema).unwrap();
    std::fs::create_dir(folder.path().join("in")).unwrap();
    for (name, bytes) in files {
        std::fs::write(folder.path().join("in").join(name), bytes).unwrap();
    }
    folder
}

/// Numbers of a table, or the lines of bad rows, then what ended it; and the offset behind each batch with how much of
/// each there was then.
type Counts = BTreeMap<String, usize>;

async fn tables(
    source: &Arc<dyn Source>,
    id: &PartitionId,
    from: Offset,
) -> (BTreeMap<String, Vec<i64>>, Vec<(Counts, Offset)>, Option<Error>) {
    let (mut all, mut offsets) = (BTreeMap::<String, Vec<i64>>::new(), Vec::new());
    let mut batches = source.read(id, Some(from));
    while let Some(batch) = batches.next().await {
        let batch = match batch {
            Ok(batch) => batch,
            Err(e) => return (all, offsets, Some(e)),
        };
        assert_eq!((batch.rows.num_rows(), batch.invalid), (0, None));
        for (table, rows) in batch.tables {
            let column = if table == "pipeline_errors" { 2 } else { 0 };
            let numbers = rows.column(column).as_primitive::<Int64Type>();
            assert_eq!(numbers.null_count(), 0);
            all.entry(table).or_default().extend(numbers.values());
        }
        let counts = all.iter().map(|(table, rows)| (table.clone(), rows.len()));
        offsets.push((counts.collect(), batch.offset));
    }
    (all, offsets, None)
}

#[tokio::test]
async fn tables_are_read_from_every_place() {
    let text = log_lines(1..30_001);
    for (name, bytes) in [
        ("a.log", text.clone().into_bytes()),
        ("a.gz", gzip(text.as_bytes())),
        ("a", zstd::encode_all(text.as_bytes(), 1).unwrap()),
    ] {
        let folder = folder(SCHEMA, &[(name, &bytes)]);
        let cx = context(folder.path(), Some(30));
        FileConnector.check(&cx).unwrap();
        let streams = FileConnector.tables(&cx).unwrap().unwrap();
        let names: Vec<&str> = streams.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["items", "lines", "pipeline_errors"]);
        let source = FileConnector.open(cx).unwrap();
        let (id, start) = only(&source).await;
        let (whole, offsets, error) = tables(&source, &id, start).await;
        assert!(error.is_none() && offsets.len() > 3, "{error:?}");
        let bad: Vec<i64> = (0..30).map(|n| n * 1_000 + 500).collect();
        assert_eq!(whole["pipeline_errors"], bad);
        let good = (1..30_001).filter(|n| n % 1_000 != 500);
        assert_eq!(whole["lines"], good.clone().collect::<Vec<_>>());
        assert_eq!(whole["items"], good.flat_map(|n| [n, n]).collect::<Vec<_>>());
        for (counts, offset) in offsets.into_iter().step_by(2) {
            // Another run has a budget of its own.
            let again = FileConnector.open(context(folder.path(), None)).unwrap();
            let (rest, ..) = tables(&again, &id, offset).await;
            for (table, rows) in &whole {
                let before = counts.get(table).copied().unwrap_or_default();
                let rest = rest.get(table).map_or(&[][..], Vec::as_slice);
                assert_eq!(rest, &rows[before..], "{name}: {table} behind {before}");
            }
        }
    }
}

#[tokio::test]
async fn damage_is_an_error_row_and_a_budget_ends_the_run() {
    let text = log_lines(1..30_001);
    let mut cut = gzip(text.as_bytes());
    cut.truncate(cut.len() / 2);
    let folder = folder(SCHEMA, &[("a.gz", &cut)]);
    let source = FileConnector.open(context(folder.path(), None)).unwrap();
    let (id, start) = only(&source).await;
    let (read, offsets, error) = tables(&source, &id, start.clone()).await;
    assert!(error.is_none() && has_ended(&offsets.last().unwrap().1));
    let last = *read["lines"].last().unwrap();
    assert_eq!(*read["pipeline_errors"].last().unwrap(), last + 1);

    let source = FileConnector.open(context(folder.path(), Some(3))).unwrap();
    let (_, _, error) = tables(&source, &id, start).await;
    let error = error.expect("four bad rows are too many");
    assert_eq!(error.class(), ErrorClass::Data);
    let text = error.to_string();
    assert!(
        text.contains("max_errors is 3") && text.contains("a.gz:500: "),
        "{text}"
    );
}

#[test]
fn what_open_would_refuse_is_found_before() {
    let wrong = folder(
        "version: 1\ntables:\n  t: {src: '', src_type: dict, columns: [{log_key: a, sql_attr: int9}]}\n",
        &[],
    );
    let missing = tempfile::tempdir().unwrap();
    let path = |options: serde_json::Value| super::context(options);
    for (cx, expect) in [
        (
            context(wrong.path(), None),
            "log.yaml:3:65: sql_attr \"int9\": unknown type \"int9\"",
        ),
        (context(missing.path(), None), "cannot read schema"),
        (path(json!({"path": "in", "format": "log"})), "needs a schema"),
        (
            path(json!({"path": "in", "schema": "a.yaml"})),
            "schema is for format = \"log\"",
        ),
        (
            path(json!({"path": "in", "max_errors": 1})),
            "max_errors is for format = \"log\"",
        ),
        (
            path(json!({"path": "in", "format": "log", "schema": "a.yaml", "records": "r"})),
            "records is not for format = \"log\"",
        ),
        (
            path(json!({"path": "in", "format": "log", "schema": "s3://bucket"})),
            "names no object",
        ),
    ] {
        let error = FileConnector.check(&cx).unwrap_err();
        assert_eq!(error.class(), ErrorClass::Config);
        assert!(error.to_string().contains(expect), "{error}, not {expect}");
    }
}
