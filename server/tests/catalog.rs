//! Lakes in the Glue catalog through the real binary against an emulator: what the catalog says is enough to find every
//! row once, after kills, bad answers and changes of the pipeline.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::proxy::{self, Proxy};
use support::{Aws, Launch, Millstream, free_port, log, newest_manifest, post, python_json};

/// `$QUERY` is filled in.
const PIPELINE: &str = r#"
name = "shown"

[checkpoint]
interval = "500ms"

[source.rows]
type = "http"
path = "/rows"
event_time = "occurred_at"
[source.rows.columns]
id = "string not null"
occurred_at = "timestamp not null"
n = "int"
price = "double"

[sql.kept]
query = "$QUERY"

[sink.kept]
type = "parquet"
input = "kept"
path = "s3://lake/raw/kept"
roll = { interval = "1s" }
catalog = "glue"
database = "ads"

[sink.by_hour]
type = "parquet"
input = "rows"
path = "s3://lake/raw/rows"
partition_by = ["year", "month", "day", "hour"]
roll = { interval = "1s" }
catalog = "glue"
database = "made_by_us"
create_database = true
table = "by_hour"
projection = true
"#;

const FIRST: &str = "SELECT id, occurred_at, n FROM rows";
const WIDER: &str = "SELECT id, price AS Price, occurred_at, CAST(n AS BIGINT) AS n FROM rows";
const UNREADABLE: &str = "SELECT id, price, occurred_at, CAST(n AS VARCHAR) AS n FROM rows";

const ROWS: usize = 60;

/// Two days, two years.
const TIMES: [&str; 3] = [
    "2026-01-01T00:10:00",
    "2025-12-31T23:50:00",
    "2025-12-31T07:00:00",
];

/// Of the rows of the last request.
const LAST_TIME: &str = "2026-02-03T04:05:06";

/// All of them.
const ALL: usize = ROWS * 5;

fn time(n: usize) -> &'static str {
    match n < ROWS * 4 {
        true => TIMES[n % TIMES.len()],
        false => LAST_TIME,
    }
}

#[test]
fn what_the_catalog_says_is_enough_to_read_every_row_once() {
    let aws = Aws::start();
    python_json("bucket.py", &["lake"], &aws.env);
    python_json("catalog.py", &["database", "ads"], &aws.env);
    let proxy = Proxy::start(&aws.endpoint, proxy::NOW_AND_THEN);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let launch = launch(dir.path(), &aws, &proxy.url);

    // Killed with files published and others open, twice; the second life has one column more.
    for (life, query) in [FIRST, WIDER].into_iter().enumerate() {
        write(dir.path(), query);
        let it = Millstream::start(&launch);
        send(&it, life * 2);
        it.wait_for("files of this life", || {
            ["sink.kept", "sink.by_hour"]
                .iter()
                .all(|sink| it.node("shown", sink)["counts"]["files_published"].as_u64() >= Some(2))
        });
        send(&it, life * 2 + 1);
        it.kill();
    }
    // A file that is still open at the last checkpoint of a life is published, and its day shown, by the recovery.
    let text = PIPELINE.replace("$QUERY", WIDER);
    std::fs::write(
        dir.path().join("shown.toml"),
        text.replace("\"1s\" }", "\"1h\" }"),
    )
    .expect("a writable directory");
    let it = Millstream::start(&launch);
    send(&it, 4);
    it.wait_for("a checkpoint with the open files", || {
        let manifest = newest_manifest(dir.path(), "shown").to_string();
        [
            "month=02/day=03/shown-kept",
            "month=02/day=03/hour=04/shown-by_hour",
        ]
        .iter()
        .all(|open| manifest.contains(open))
    });
    it.kill();
    let it = Millstream::start(&launch);
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    assert!(proxy.spoilt() > 5, "only {} requests went wrong", proxy.spoilt());

    let show = python_json("catalog.py", &["show", "ads", "kept"], &aws.env);
    assert_eq!(show, shown_kept());
    let read = python_json("catalog.py", &["read", "ads", "kept"], &aws.env);
    assert_rows(&read["pyarrow"]);
    assert!(
        read["duckdb"] == read["pyarrow"],
        "duckdb reads other rows: {}",
        read["duckdb"]
    );

    let show = python_json("catalog.py", &["show", "made_by_us", "by_hour"], &aws.env);
    for (name, value) in projection() {
        assert_eq!(show["parameters"][name], value, "{name} in {show}");
    }
    // Readers that know no projection find the partitions, too.
    let partitions = show["partitions"].as_array().expect("a list");
    assert_eq!(partitions.len(), TIMES.len() + 1, "{show}");
    assert_eq!(
        partitions[0],
        json!([
            ["2025", "12", "31", "07"],
            "s3://lake/raw/rows/year=2025/month=12/day=31/hour=07/"
        ])
    );
    let read = python_json("catalog.py", &["read", "made_by_us", "by_hour"], &aws.env);
    assert_eq!(ids(&read["pyarrow"]), sorted((0..ALL).map(id)));

    a_type_that_older_files_do_not_have_is_refused(dir.path(), &aws);
    assert_eq!(
        python_json("catalog.py", &["show", "ads", "kept"], &aws.env),
        shown_kept()
    );
}

/// Each adds its own column, whoever is first.
#[test]
fn two_pipelines_that_write_one_table_show_the_columns_of_both() {
    let aws = Aws::start();
    python_json("bucket.py", &["lake"], &aws.env);
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::create_dir(dir.path().join("both")).expect("a writable directory");
    for column in ["a", "b"] {
        let text = format!(
            r#"
name = "{column}"
[source.rows]
type = "http"
path = "/{column}"
event_time = "occurred_at"
[source.rows.columns]
occurred_at = "timestamp not null"
{column} = "bigint"
[sink.lake]
type = "parquet"
input = "rows"
path = "s3://lake/both"
partition_by = []
catalog = "glue"
database = "ads"
create_database = true
"#
        );
        std::fs::write(dir.path().join(format!("both/{column}.toml")), text).expect("a writable directory");
    }
    let mut launch = launch(dir.path(), &aws, &aws.endpoint);
    launch.pipeline = "both";
    let it = Millstream::start(&launch);
    for (column, row) in [("a", json!({ "a": 1 })), ("b", json!({ "b": 2 }))] {
        let mut row = row;
        row["occurred_at"] = json!("2026-01-01T00:00:00Z");
        let (status, answer) = post(&it.ingest, &format!("/{column}"), &row.to_string());
        assert_eq!(status, 200, "{answer}");
    }
    assert_eq!(it.terminate(), 0, "{}", log(dir.path()));
    let show = python_json("catalog.py", &["show", "ads", "both"], &aws.env);
    let columns = show["columns"].as_array().expect("a list");
    assert_eq!(columns.len(), 3, "{show}");
    for column in ["a", "b"] {
        assert!(columns.contains(&json!([column, "bigint"])), "{show}");
    }
    assert_eq!(show["partitions"], json!([]));
    let all = [show["location"].as_str().expect("a place")];
    let rows = python_json("catalog.py", &[&["files"][..], &all[..]].concat(), &aws.env);
    assert_eq!(rows, json!(2), "files in {all:?}");
}

fn a_type_that_older_files_do_not_have_is_refused(dir: &Path, aws: &Aws) {
    write(dir, UNREADABLE);
    let said = refused(dir, aws);
    let says = "column \"n\" of table ads.kept is bigint, and would be string";
    assert!(said.contains(says), "{said}");
}

#[test]
fn a_database_that_does_not_exist_is_named() {
    let aws = Aws::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    write(dir.path(), FIRST);
    let said = refused(dir.path(), &aws);
    assert!(said.contains("there is no Glue database \"ads\""), "{said}");
}

/// What it logs where it does not start.
fn refused(dir: &Path, aws: &Aws) -> String {
    let mut child = support::spawn(&launch(dir, aws, &aws.endpoint), &[]);
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    log(dir).replace("\\\"", "\"")
}

/// The table after both lives: the columns of the first, the wider type of one, and the new one at the end.
fn shown_kept() -> Value {
    let place = |values: [&str; 3]| {
        let [year, month, day] = values;
        json!([
            values,
            format!("s3://lake/raw/kept/year={year}/month={month}/day={day}/")
        ])
    };
    let hive = "org.apache.hadoop.hive.ql.io.parquet";
    json!({
        "type": "EXTERNAL_TABLE",
        "columns": [["id", "string"], ["occurred_at", "timestamp"], ["n", "bigint"], ["price", "double"]],
        "keys": [["year", "string"], ["month", "string"], ["day", "string"]],
        "location": "s3://lake/raw/kept/",
        "formats": [
            format!("{hive}.MapredParquetInputFormat"),
            format!("{hive}.MapredParquetOutputFormat"),
            format!("{hive}.serde.ParquetHiveSerDe"),
        ],
        "parameters": { "EXTERNAL": "TRUE", "classification": "parquet" },
        "partitions": [place(["2025", "12", "31"]), place(["2026", "01", "01"]), place(["2026", "02", "03"])],
    })
}

fn projection() -> [(&'static str, &'static str); 7] {
    [
        ("projection.enabled", "true"),
        ("projection.year.range", "2025,2026"),
        ("projection.year.type", "integer"),
        ("projection.month.range", "1,12"),
        ("projection.day.digits", "2"),
        ("projection.hour.range", "0,23"),
        (
            "storage.location.template",
            "s3://lake/raw/rows/year=${year}/month=${month}/day=${day}/hour=${hour}/",
        ),
    ]
}

/// Every row once, as it was sent. Those of the first life have no price, but for the ones that the second read again from
/// the log.
fn assert_rows(found: &Value) {
    assert_eq!(ids(found), sorted((0..ALL).map(id)));
    let mut without = 0;
    for row in found.as_array().expect("a list of rows") {
        let n: usize = row["n"].as_str().and_then(|n| n.parse().ok()).expect("a number");
        let at = time(n);
        without += usize::from(row["price"].is_null());
        let price = match row["price"].is_null() && n < ROWS * 2 {
            true => Value::Null,
            false => json!(price(n).to_string()),
        };
        let expect = json!({ "id": id(n), "occurred_at": at.replace('T', " "), "n": n.to_string(), "price": price,
            "year": at[..4], "month": at[5..7], "day": at[8..10] });
        assert_eq!(row, &expect);
    }
    assert!(without >= ROWS, "only {without} rows are of the first life");
}

fn ids(rows: &Value) -> Vec<String> {
    let rows = rows.as_array().expect("a list of rows").iter();
    sorted(rows.map(|row| row["id"].as_str().expect("an id").into()))
}

fn sorted(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = texts.collect();
    texts.sort_unstable();
    texts
}

fn id(n: usize) -> String {
    format!("row-{n}")
}

fn price(n: usize) -> f64 {
    n as f64 + 0.5
}

fn write(dir: &Path, query: &str) {
    let text = PIPELINE.replace("$QUERY", query);
    std::fs::write(dir.join("shown.toml"), text).expect("a writable directory");
}

fn launch<'a>(dir: &'a Path, aws: &Aws, endpoint: &str) -> Launch<'a> {
    let mut env = aws.env.clone();
    env.push(("AWS_ENDPOINT_URL".into(), endpoint.into()));
    Launch {
        dir,
        pipeline: "shown.toml",
        port: free_port(),
        env,
    }
}

/// Posts the `number`th request's rows.
fn send(it: &Millstream, number: usize) {
    let rows = (number * ROWS..(number + 1) * ROWS).map(|n| {
        json!({ "id": id(n), "occurred_at": format!("{}Z", time(n)), "n": n,
            "price": price(n) })
    });
    let (status, answer) = post(&it.ingest, "/rows", &json!(rows.collect::<Vec<_>>()).to_string());
    assert_eq!(status, 200, "{answer}");
    assert!(answer.starts_with(r#"{"failed_count":0"#), "{answer}");
}
