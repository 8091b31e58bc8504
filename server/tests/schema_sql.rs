//! The SQL that is written for tables: a real PostgreSQL runs it, and a parser of Redshift's SQL that is not ours reads
//! it, statement by statement, also what the cases of the `redshift` sink say to the warehouse.

#[path = "support/redshift/mod.rs"]
mod redshift;
mod support;

use std::path::Path;
use std::process::Command;

use redshift::postgres::Postgres;
use serde_json::json;
use support::{python_json, root};

/// Tables with everything that a column can say, and names that must be quoted.
const BEFORE: &str = r#"
version: 1
tables:
  "we ird":
    src: ''
    src_type: dict
    columns:
    - {log_key: a, name: 'q"uote', sql_attr: smallint not null default 3}
    - {log_key: b, sql_attr: 'numeric(10,2)'}
    - {log_key: c, sql_attr: character varying(9) default 'it''s' encode lzo distkey}
    - {log_key: d, sql_attr: double precision}
    - {log_key: e, sql_attr: float4}
    - {log_key: f, sql_attr: timestamp with time zone default '2026-11-23'}
    - {log_key: g, sql_attr: super}
    - {log_key: h, sql_attr: char(3) unique}
    - {log_key: i, sql_attr: date}
    - {log_key: order, sql_attr: bool primary key}
    sortkey_attr: [order, 'q"uote']
"#;

/// What is added to the table.
const ADDED: &str = "    - {log_key: j, sql_attr: varchar(5) not null default 'x'}\n    sortkey_attr:";

fn sql(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    let out = command.arg("schema").args(args).current_dir(dir).output();
    let out = out.expect("the binary starts");
    assert!(
        out.status.success(),
        "{args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("text")
}

#[test]
fn a_postgresql_makes_the_tables_and_lets_them_grow() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let after = BEFORE
        .replace("varying(9)", "varying(18)")
        .replace("    sortkey_attr:", ADDED);
    std::fs::write(dir.path().join("before.yaml"), BEFORE).expect("a writable directory");
    std::fs::write(dir.path().join("after.yaml"), after).expect("a writable directory");
    let postgres = Postgres::start();
    postgres.query("CREATE SCHEMA \"Ads\"");
    let to = ["--dialect", "postgres", "--namespace", "Ads"];
    postgres.query(&sql(dir.path(), &[&["ddl", "before.yaml"], &to[..]].concat()));
    postgres.query("INSERT INTO \"Ads\".\"we ird\" (\"order\") VALUES (true)");
    postgres.query(&sql(
        dir.path(),
        &[&["diff", "before.yaml", "after.yaml"], &to[..]].concat(),
    ));
    let rows = "SELECT \"q\"\"uote\" || c || j FROM \"Ads\".\"we ird\"";
    assert_eq!(postgres.value(rows).as_deref(), Some("3it'sx"));
    let width = "SELECT character_maximum_length FROM information_schema.columns WHERE column_name = 'c'";
    assert_eq!(postgres.value(width).as_deref(), Some("18"));
    assert_eq!(
        postgres
            .value("SELECT count(*) FROM \"Ads\".pipeline_errors")
            .as_deref(),
        Some("0")
    );
}

#[test]
fn a_parser_of_redshift_sql_reads_what_is_written() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let after = BEFORE
        .replace("varying(9)", "varying(18)")
        .replace("    sortkey_attr:", ADDED);
    std::fs::write(dir.path().join("before.yaml"), BEFORE).expect("a writable directory");
    std::fs::write(dir.path().join("after.yaml"), after).expect("a writable directory");
    let ddl = sql(dir.path(), &["ddl", "before.yaml", "--namespace", "ads"]);
    let read = python_json("schema_sql.py", &[&ddl], &[]);
    assert_eq!(read[0]["table"], "ads.pipeline_errors");
    assert_eq!(read[0]["sortkey"], json!(["starttime"]));
    assert_eq!(read[1]["table"], "ads.\"we ird\"");
    assert_eq!(read[1]["sortkey"], json!(["order", "q\"uote"]));
    assert_eq!(
        (&read[0]["distkey"], &read[1]["distkey"]),
        (&json!(null), &json!("c"))
    );
    let names: Vec<&str> = read[1]["columns"]
        .as_array()
        .expect("columns")
        .iter()
        .filter_map(|c| c[0].as_str())
        .collect();
    assert_eq!(
        names,
        ["q\"uote", "b", "c", "d", "e", "f", "g", "h", "i", "order"]
    );
    assert_eq!(read[1]["columns"][2][1], "varchar(9)");
    let diff = sql(
        dir.path(),
        &["diff", "before.yaml", "after.yaml", "--namespace", "ads"],
    );
    let read = python_json("schema_sql.py", &[&diff], &[]);
    let kinds: Vec<&str> = read
        .as_array()
        .expect("statements")
        .iter()
        .filter_map(|s| s["kind"].as_str())
        .collect();
    assert_eq!(kinds, ["Alter", "Alter"], "{diff}");
    assert_eq!(read[1]["columns"][0][0], "j");
}

#[test]
fn a_parser_of_redshift_sql_reads_every_load_of_the_cases() {
    let folder = root().join("operators/sinks/redshift/cases");
    let mut statements = Vec::new();
    for file in std::fs::read_dir(folder).expect("the cases of the sink") {
        let path = file.expect("a case").path();
        let text = std::fs::read_to_string(&path).expect("a case");
        let is_redshift = !text.contains("FROM STDIN") && !text.contains("LOCK TABLE");
        if path.extension().is_some_and(|e| e == "sql") && is_redshift && !text.starts_with("error") {
            let lines = text.lines().filter(|line| !line.starts_with("--"));
            statements.extend(lines.map(|line| line.trim_end_matches(';').to_owned()));
        }
    }
    for kind in [
        "CREATE TABLE",
        "ALTER TABLE",
        "COPY",
        "DELETE",
        "INSERT",
        "LOCK",
        "SELECT",
    ] {
        assert!(
            statements.iter().any(|s| s.starts_with(kind)),
            "no {kind} in the cases"
        );
    }
    redshift::check_statements(&statements);
}
