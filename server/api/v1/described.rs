//! What the text of a schema says: its tables and their SQL, or everything that is wrong with it.

use millstream_engine::config::Diagnostic;
use millstream_operators::formats::log::{Column, LogSchema, Origin, SourceType, Table};
use millstream_operators::warehouse::ddl::PUBLIC;
use millstream_operators::warehouse::types::Dialect;
use serde_json::{Value, json};

use crate::api::error::ApiError;

/// Reads a schema.
///
/// # Errors
/// 422: everything that is wrong, each as `line:column: …`.
pub fn read(text: &str) -> Result<LogSchema, ApiError> {
    LogSchema::parse("schema", text)
        .map_err(|found| ApiError::problems(found.0.iter().map(problem).collect()))
}

/// Its tables, as forms and people want them.
pub fn described(schema: &LogSchema) -> Value {
    json!({
        "version": schema.version,
        "tables": schema.tables.iter().map(table).collect::<Vec<_>>(),
        "ddl": schema.sql(true).iter().map(|table| table.create(PUBLIC, Dialect::Redshift)).collect::<Vec<_>>(),
        "warnings": schema.warnings.iter().map(problem).collect::<Vec<_>>(),
    })
}

fn problem(found: &Diagnostic) -> String {
    let Diagnostic {
        line,
        column,
        message,
        help,
        ..
    } = found;
    match help {
        Some(help) => format!("{line}:{column}: {message}; {help}"),
        None => format!("{line}:{column}: {message}"),
    }
}

fn table(table: &Table) -> Value {
    json!({
        "name": table.name,
        "src": table.source.join("."),
        "src_type": match table.source_type {
            SourceType::Dict => "dict",
            SourceType::List => "list",
            SourceType::SparseList => "sparse_list",
        },
        "sortkey": table.sortkey,
        "columns": table.columns.iter().map(column).collect::<Vec<_>>(),
    })
}

fn column(column: &Column) -> Value {
    let (log_key, is_foreign) = match &column.from {
        Origin::Row(path) => (path.join("."), false),
        Origin::Line(path) => (path.join("."), true),
        Origin::Index => ("index".into(), false),
        Origin::FileName => ("__source_filename__".into(), false),
        Origin::Nothing => (String::new(), false),
    };
    json!({
        "name": column.name,
        "sql_attr": column.sql_attr,
        "log_key": log_key,
        "is_foreign": is_foreign,
        "is_json": column.is_json,
        "is_mandatory": column.is_mandatory,
        "is_derived": column.from == Origin::FileName,
        "is_noop": column.from == Origin::Nothing,
    })
}
