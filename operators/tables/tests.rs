//! Files as people and programs write them, good and broken.

use std::path::PathBuf;

use ::parquet::arrow::ArrowWriter;
use arrow::array::{ArrayRef, Int64Array, StringArray, StringViewArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::pretty::pretty_format_batches;
use millstream_engine::ErrorClass;
use millstream_engine::time::timestamp_type;

use super::*;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("ad", DataType::Utf8, false),
        Field::new("price", DataType::Float64, true),
        Field::new("since", timestamp_type(), true),
    ]))
}

fn context(path: &str) -> TableContext {
    TableContext {
        name: "ads".into(),
        path: path.into(),
        format: None,
        schema: schema(),
        options: serde_json::json!({}),
    }
}

/// Reads a file with these bytes; gives its rows as text, or the error after the file's name.
async fn read(name: &str, bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    let path = path.to_str().unwrap();
    match FileTables.load(&context(path)).await {
        Ok(rows) => {
            for batch in &rows {
                assert_eq!(batch.schema(), schema());
            }
            let table = pretty_format_batches(&rows).unwrap().to_string();
            let lines = table.lines().filter(|l| l.starts_with("| ")).skip(1);
            let cells = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join(" ");
            lines
                .map(|l| cells(l).trim().to_owned())
                .collect::<Vec<_>>()
                .join("; ")
        }
        Err(e) => {
            assert_eq!(e.class(), ErrorClass::Config, "{e}");
            let text = e.to_string();
            text.strip_prefix(&format!("{path}: "))
                .unwrap_or(&text)
                .to_owned()
        }
    }
}

fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(text.as_bytes()).unwrap();
    packed.finish().unwrap()
}

#[tokio::test]
async fn csv_and_json() {
    let noon = "2026-11-23T12:00:00";
    for (name, text, expect) in [
        (
            "a.csv",
            "ad,price,since\na,1.5,2026-11-23 12:00:00\nb,,\n",
            format!("a 1.5 {noon}; b"),
        ),
        // Columns in any order, others left out, quotes, a mark at the start, blank lines, an empty text.
        (
            "a.csv",
            "\u{feff}x, since ,ad,price\n1,,\"a,\"\"b\"\"\",2\n\n1,,,3\n",
            "a,\"b\" 2.0; 3.0".into(),
        ),
        ("a.csv", "ad,price,since\n", String::new()),
        ("a.csv", "", "line 1: no column is named \"ad\"".into()),
        (
            "a.csv",
            "ad,prize,since\n",
            "line 1: no column is named \"price\"; did you mean \"prize\"?".into(),
        ),
        (
            "a.csv",
            "ad,price,since,ad\n",
            "line 1: two columns are named \"ad\"".into(),
        ),
        (
            "a.csv",
            "ad,price,since\na,1,\nb,cheap,\n",
            "line 3: \"price\": ".into(),
        ),
        (
            "a.csv",
            "ad,price,since\na,1,\nb,1\n",
            "line 3: 2 fields, not 3 as in the header".into(),
        ),
        (
            "a.csv",
            "ad,price,since\na,1,soon\n",
            "line 2: \"since\": ".into(),
        ),
        (
            "a.json",
            "[{\"ad\":\"a\",\"price\":1,\"more\":2}]",
            "a 1.0".into(),
        ),
        (
            "a.jsonl",
            "{\"ad\":\"a\",\"price\":1}\n{\"ad\":\"b\"}\n",
            "a 1.0; b".into(),
        ),
        (
            "a.jsonl",
            "{\"ad\":\"a\",\"price\":1}\n\n{\"price\":2}\n",
            "line 3: \"ad\" is missing but declared not null".into(),
        ),
        (
            "a.json",
            "[{\"ad\":\"a\"},{\"ad\":7}]",
            "row 2: \"ad\": expected a string".into(),
        ),
        ("a.json", "[{\"ad\":", "invalid JSON: ".into()),
    ] {
        let got = read(name, text.as_bytes()).await;
        let fits = match expect.contains(':') && !expect.contains(noon) {
            true => got.starts_with(&expect),
            false => got == expect,
        };
        assert!(fits, "{text:?}: {got:?}, not {expect:?}");
        let packed = read(&format!("{name}.gz"), &gzip(text)).await;
        assert_eq!(packed, got, "{text:?} packed");
    }
    assert_eq!(
        read("a.csv", b"ad,price,since\n\xff,1,\n").await,
        "line 2: field 1 is not UTF-8"
    );
    assert!(
        read("a.csv.gz", b"plain")
            .await
            .starts_with("it cannot be read: ")
    );
}

fn parquet_of(columns: Vec<(&str, ArrayRef)>) -> Vec<u8> {
    let rows =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test]
async fn parquet_is_cast() {
    let ads: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "b"]));
    let prices: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let since = TimestampMillisecondArray::from(vec![Some(1_000), None]).with_timezone("UTC");
    let since: ArrayRef = Arc::new(since);
    let of = |columns: &[(&'static str, &ArrayRef)]| {
        parquet_of(columns.iter().map(|(n, c)| (*n, Arc::clone(c))).collect())
    };
    let good = of(&[
        ("since", &since),
        ("more", &ads),
        ("price", &prices),
        ("ad", &ads),
    ]);
    assert_eq!(read("a.parquet", &good).await, "a 1.0 1970-01-01T00:00:01; b");
    let without = of(&[("since", &since), ("ads", &ads), ("price", &prices)]);
    let says = "no column is named \"ad\"; did you mean \"ads\"?";
    assert!(read("a.parquet", &without).await.starts_with(says));
    let holes: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None]));
    let null = of(&[("since", &since), ("ad", &holes), ("price", &prices)]);
    assert_eq!(
        read("a.parquet", &null).await,
        "row 2: \"ad\" is null but declared not null"
    );
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["1", "cheap"]));
    let wrong = of(&[("since", &since), ("ad", &ads), ("price", &texts)]);
    assert_eq!(
        read("a.parquet", &wrong).await,
        "row 2: \"price\" \"cheap\" cannot be made Float64"
    );
    assert!(
        read("a.parquet", b"PAR1")
            .await
            .starts_with("it is not valid Parquet: ")
    );
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let error = FileTables.load(&context("/nowhere/ads.csv")).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Config);
    assert!(
        error.to_string().starts_with("cannot read /nowhere/ads.csv: "),
        "{error}"
    );
}

#[test]
fn places_and_formats_are_checked() {
    for (path, says) in [
        ("ads.csv", ""),
        ("s3://bucket/a/ads.parquet", ""),
        ("s3://bucket", "names no object"),
        ("s3:///ads.csv", "names no object"),
        ("gs://bucket/ads.csv", "begins with gs://"),
        ("ads", "does not say how its rows are written"),
        ("ads.xlsx", "does not say how its rows are written"),
    ] {
        match FileTables.check(&context(path)) {
            Ok(()) => assert_eq!(says, "", "{path}"),
            Err(e) => assert!(!says.is_empty() && e.to_string().contains(says), "{path}: {e}"),
        }
    }
    let mut with_format = context("ads.txt");
    with_format.format = Some(TableFormat::Csv);
    assert!(FileTables.check(&with_format).is_ok());
}
