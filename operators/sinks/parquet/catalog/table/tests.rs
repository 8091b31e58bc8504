//! Tables as they are created and changed, without a catalog.

use arrow::datatypes::DataType;
use serde_json::{Value, json};

use super::*;

type Columns<'a> = &'a [(&'a str, DataType)];

fn table(options: Value, columns: Columns<'_>, levels: &[(&str, Option<&Field>)]) -> Result<Option<Table>> {
    let options: ParquetOptions = serde_json::from_value(options).unwrap();
    let fields = columns
        .iter()
        .map(|(name, of)| Field::new(*name, of.clone(), true));
    let location = options.path.parse().unwrap();
    Table::new(
        &options,
        &location,
        &Schema::new(fields.collect::<Vec<_>>()),
        levels,
    )
}

const BY_DAY: [(&str, Option<&Field>); 3] = [("year", None), ("month", None), ("day", None)];

fn clicks(projection: bool, columns: Columns<'_>) -> Table {
    let options = json!({ "path": "s3://lake/raw/clicks", "catalog": "glue", "database": "ads",
        "projection": projection });
    table(options, columns, &BY_DAY).unwrap().unwrap()
}

/// A table as the catalog shows it after `input`.
fn found(input: &TableInput) -> aws_sdk_glue::types::Table {
    aws_sdk_glue::types::Table::builder()
        .name(&input.name)
        .set_partition_keys(input.partition_keys.clone())
        .set_storage_descriptor(input.storage_descriptor.clone())
        .set_parameters(input.parameters.clone())
        .build()
        .unwrap()
}

fn columns(input: &TableInput) -> Vec<(&str, &str)> {
    let columns = input.storage_descriptor().unwrap().columns().iter();
    columns
        .map(|c| (c.name.as_str(), c.r#type.as_deref().unwrap()))
        .collect()
}

#[test]
fn a_table_that_is_right_is_left_alone_and_one_that_lacks_columns_gets_them() {
    let first = clicks(false, &[("id", DataType::Utf8), ("n", DataType::Int32)]);
    let input = first.input(&[]).unwrap();
    assert_eq!(columns(&input), [("id", "string"), ("n", "int")]);
    let there = found(&input);
    assert!(
        first
            .update(&there, &["year=2026/month=11/day=23"])
            .unwrap()
            .is_none()
    );

    let second = clicks(
        false,
        &[
            ("Price", DataType::Float64),
            ("n", DataType::Int64),
            ("id", DataType::Utf8),
        ],
    );
    let input = second.update(&there, &[]).unwrap().unwrap();
    assert_eq!(
        columns(&input),
        [("id", "string"), ("n", "bigint"), ("price", "double")]
    );
    // The older pipeline still runs somewhere: its narrower files can be read, and nothing is taken away.
    assert!(first.update(&found(&input), &[]).unwrap().is_none());
}

#[test]
fn what_others_set_stays() {
    let table = clicks(false, &[("id", DataType::Utf8)]);
    let mut there = found(&table.input(&[]).unwrap());
    there.description = Some("clicks on ads".into());
    there.retention = 7;
    let parameters = there.parameters.get_or_insert_default();
    parameters.insert("owner".into(), "team".into());
    let wider = clicks(false, &[("id", DataType::Utf8), ("n", DataType::Int64)]);
    let input = wider.update(&there, &[]).unwrap().unwrap();
    assert_eq!((input.description(), input.retention), (Some("clicks on ads"), 7));
    assert_eq!(input.parameters().unwrap()["owner"], "team");
}

#[test]
fn a_projection_spans_the_years_that_hold_rows() {
    let table = clicks(true, &[("id", DataType::Utf8)]);
    let directories = ["year=2025/month=12/day=31", "year=2026/month=01/day=01"];
    let input = table.input(&directories).unwrap();
    let get = |name: &str| input.parameters().unwrap()[name].as_str();
    assert_eq!(get("projection.enabled"), "true");
    assert_eq!(get("projection.year.range"), "2025,2026");
    assert_eq!(get("projection.month.range"), "1,12");
    assert_eq!(get("projection.day.digits"), "2");
    assert_eq!(
        get("storage.location.template"),
        "s3://lake/raw/clicks/year=${year}/month=${month}/day=${day}/"
    );
    let there = found(&input);
    assert!(table.update(&there, &directories).unwrap().is_none());
    let none = format!("year={NO_VALUE}/month={NO_VALUE}/day={NO_VALUE}");
    assert!(table.update(&there, &[&none]).unwrap().is_none());
    let wider = table
        .update(&there, &["year=2023/month=01/day=01"])
        .unwrap()
        .unwrap();
    assert_eq!(wider.parameters().unwrap()["projection.year.range"], "2023,2026");

    let off = clicks(false, &[("id", DataType::Utf8)]);
    let input = off.update(&there, &[]).unwrap().unwrap();
    assert_eq!(input.parameters().unwrap()["projection.enabled"], "false");
}

#[test]
fn partitions_are_named_by_the_values_in_their_directories() {
    let ad = Field::new("ad", DataType::Utf8, true);
    let options = json!({ "path": "s3://lake/clicks", "catalog": "glue", "database": "ads" });
    let table = table(
        options,
        &[("n", DataType::Int64)],
        &[("ad", Some(&ad)), ("day", None)],
    );
    let partition = table.unwrap().unwrap().partition("ad=a%2Fb%3Dc/day=03").unwrap();
    assert_eq!(partition.values(), ["a/b=c", "03"]);
    let storage = partition.storage_descriptor().unwrap();
    assert_eq!(storage.location(), Some("s3://lake/clicks/ad=a%2Fb%3Dc/day=03/"));
}

#[test]
fn refuses_what_readers_could_not_read() {
    let id: Columns<'_> = &[("id", DataType::Utf8)];
    let ad = Field::new("ad", DataType::Utf8, true);
    let cases: [(Value, Columns<'_>, &[_], &str); 8] = [
        (
            json!({ "path": "lake/clicks", "catalog": "glue", "database": "ads" }),
            id,
            &BY_DAY,
            "s3://bucket/prefix",
        ),
        (
            json!({ "path": "s3://lake/clicks", "catalog": "glue" }),
            id,
            &BY_DAY,
            "needs a database",
        ),
        (
            json!({ "path": "s3://lake", "catalog": "glue", "database": "ads" }),
            id,
            &BY_DAY,
            "write table =",
        ),
        (
            json!({ "path": "s3://lake/Clicks", "catalog": "glue", "database": "ads" }),
            id,
            &BY_DAY,
            "small letters",
        ),
        (
            json!({ "path": "s3://lake/clicks", "projection": true }),
            id,
            &BY_DAY,
            "projection: of use with",
        ),
        (
            json!({ "path": "s3://lake/clicks", "catalog": "glue", "database": "ads" }),
            &[("n", DataType::UInt64)],
            &BY_DAY,
            "BIGINT",
        ),
        (
            json!({ "path": "s3://lake/clicks", "catalog": "glue", "database": "ads" }),
            &[("id", DataType::Utf8), ("ID", DataType::Utf8)],
            &BY_DAY,
            "two columns are \"id\"",
        ),
        (
            json!({ "path": "s3://lake/clicks", "catalog": "glue", "database": "ads", "projection": true }),
            id,
            &[("ad", Some(&ad))],
            "\"ad\" cannot be computed",
        ),
    ];
    for (options, columns, levels, expect) in cases {
        let error = table(options, columns, levels).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
}

#[test]
fn refuses_a_table_of_something_else() {
    let ours = clicks(false, &[("id", DataType::Utf8)]);
    let there = || found(&ours.input(&[]).unwrap());
    let mut elsewhere = there();
    elsewhere.storage_descriptor.as_mut().unwrap().location = Some("s3://other/".into());
    let mut json_files = there();
    json_files.storage_descriptor.as_mut().unwrap().serde_info = None;
    let mut by_hour = there();
    by_hour.partition_keys.as_mut().unwrap().pop();
    let mut number = there();
    let columns = number.storage_descriptor.as_mut().unwrap().columns.as_mut();
    columns.unwrap()[0].r#type = Some("int".into());
    let cases = [
        (
            elsewhere,
            "ads.clicks lies in s3://other/, not in s3://lake/raw/clicks/",
        ),
        (json_files, "is not made of Parquet files"),
        (by_hour, "is partitioned by year (string), month (string), not by"),
        (
            number,
            "column \"id\" of table ads.clicks is int, and would be string",
        ),
    ];
    for (there, expect) in cases {
        let error = ours.update(&there, &[]).unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
}
