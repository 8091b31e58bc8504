//! A load as SQL, by cases: `cases/<name>.json` says what there is, `cases/<name>.sql` what is said to the warehouse.
//!
//! With `UPDATE_CASES=1` the SQL is written anew, to be looked at.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use chrono::{DateTime, Utc};
use millstream_engine::run::DatedRun;
use millstream_engine::sink::{SinkConnector, SinkContext};
use serde_json::Value;

use super::evolve::existing;
use super::plan::{self, Step};
use super::table::Load;
use super::{RedshiftConnector, RedshiftOptions};
use crate::formats::log::NOOP;
use crate::sinks::test_context;

#[test]
fn loads_as_sql() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("sinks/redshift/cases");
    let files = std::fs::read_dir(&dir).expect("the cases");
    let mut cases: Vec<_> = files.map(|f| f.expect("a file").path()).collect();
    cases.retain(|path| path.extension().is_some_and(|e| e == "json"));
    cases.sort();
    assert!(cases.len() >= 8, "{cases:?}");
    for path in cases {
        let text = std::fs::read_to_string(&path).expect("a readable case");
        let case: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let said = said(&case).unwrap_or_else(|e| format!("error: {e}\n"));
        let expect = path.with_extension("sql");
        if std::env::var_os("UPDATE_CASES").is_some() {
            std::fs::write(&expect, &said).expect("a writable case");
        }
        let expect = std::fs::read_to_string(&expect).unwrap_or_default();
        assert_eq!(said, expect, "{}", path.display());
    }
}

fn said(case: &Value) -> millstream_engine::Result<String> {
    let cx = context(case);
    RedshiftConnector.check(&cx)?;
    let options: RedshiftOptions = millstream_engine::source::options(&cx.options)?;
    let checked = options.checked(&cx)?;
    let run = cx.run.as_ref().map(|run| run.date.to_string());
    let rows = case["rows"].as_u64().unwrap_or(3);
    let load = Load {
        dated: run.is_some(),
        run: run.unwrap_or_else(|| "64f".into()),
        number: case["number"].as_u64().unwrap_or(1),
        columns: checked.columns,
        manifest: (rows > 0).then(|| "s3://staging/it's/1.manifest".into()),
        rows,
        digest: "abc".into(),
    };
    let has = case["existing"].as_array().map(|rows| {
        let value = |v: &Value| match v {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let row = |row: &Value| row.as_array().into_iter().flatten().map(value).collect();
        rows.iter().map(row).collect::<Vec<Vec<Option<String>>>>()
    });
    let has = has.as_deref().and_then(existing);
    let now: DateTime<Utc> = "2026-11-25T03:00:00Z".parse().expect("a time");
    let steps = plan::steps(&checked.target, &load, has.as_deref(), now)?;
    let mut said = String::new();
    for statement in &steps.before {
        said += &format!("-- before\n{statement};\n");
    }
    said += "BEGIN;\n";
    for step in &steps.within {
        said += &match step {
            Step::Run(sql) => format!("{sql};\n"),
            Step::Unless(sql) => format!("-- unless\n{sql};\n"),
            Step::CopyIn(sql) => format!("-- with rows\n{sql};\n"),
        };
    }
    Ok(said + "COMMIT;\n")
}

fn context(case: &Value) -> SinkContext {
    let field = |column: &Value| {
        let text = |key: &str| column[key].as_str().map(ToString::to_string);
        let of = match column["arrow"].as_str().unwrap_or("Utf8") {
            "Utf8" => DataType::Utf8,
            "Int64" => DataType::Int64,
            "Date32" => DataType::Date32,
            "Timestamp" => millstream_engine::time::timestamp_type(),
            "List" => DataType::new_list(DataType::Int64, true),
            other => panic!("{other} is no type of the cases"),
        };
        let sql = text("sql").map(|sql| ("sql".to_string(), sql));
        let noop = column["noop"].as_bool().filter(|noop| *noop);
        let noop = noop.map(|_| (NOOP.to_string(), "true".to_string()));
        let metadata = HashMap::from_iter(sql.into_iter().chain(noop));
        Field::new(text("name").expect("a name"), of, true).with_metadata(metadata)
    };
    let fields: Vec<Field> = case["columns"]
        .as_array()
        .expect("columns")
        .iter()
        .map(field)
        .collect();
    let sortkey = case["sortkey"]
        .as_str()
        .map(|keys| ("sortkey".to_string(), keys.to_string()));
    let schema = Schema::new(fields).with_metadata(HashMap::from_iter(sortkey));
    let cx = test_context(Arc::new(schema), Path::new("."), case["options"].clone());
    let run = case["date"].as_str().map(|date| DatedRun {
        date: date.parse().expect("a date"),
        attempt: 1,
    });
    SinkContext {
        input: case["input"].as_str().unwrap_or("log.people").into(),
        run,
        ..cx
    }
}
