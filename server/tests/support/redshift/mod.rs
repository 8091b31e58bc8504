//! Warehouses for tests: a real PostgreSQL, a Redshift stand-in before one, and a proxy that stops at a word.
#![allow(dead_code, reason = "each test file uses a part of it")]

mod copy;
pub mod data_api;
pub mod fates;
mod grammar;
pub mod postgres;
pub mod stand_in;

use super::support::python_json;

/// An independent parser knows every statement as Redshift's.
pub fn check_statements(statements: &[String]) {
    assert!(statements.len() > 10, "{statements:?}");
    let lines: Vec<String> = statements
        .iter()
        .map(|sql| serde_json::json!(sql).to_string())
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), lines.join("\n")).expect("a writable file");
    let unknown = python_json("redshift_sql.py", &[&file.path().display().to_string()], &[]);
    assert_eq!(unknown, serde_json::json!([]));
}
