//! Names and texts in SQL.

use chrono::{DateTime, NaiveDate, Utc};
use millstream_engine::{Error, Result};

use crate::warehouse::types::Dialect;

/// A name, quoted.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names, quoted, with commas between them.
pub(super) fn idents<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(ident).collect();
    names.join(", ")
}

/// A text, quoted. Whether a backslash is one differs between warehouses, so none is let in ([`check_text`]).
pub(super) fn text(of: &str) -> String {
    format!("'{}'", of.replace('\'', "''"))
}

/// A date.
pub(super) fn date(of: NaiveDate) -> String {
    format!("'{}'", of.format("%Y-%m-%d"))
}

/// A time, UTC.
pub(super) fn time(of: DateTime<Utc>) -> String {
    format!("'{}'", of.format("%Y-%m-%d %H:%M:%S"))
}

/// The name as the warehouse knows it: Redshift folds even quoted names to lower case.
pub(super) fn check_name(name: &str, dialect: Dialect) -> Result<String> {
    let (longest, whose) = match dialect {
        Dialect::Redshift => (127, "Redshift"),
        Dialect::Postgres => (63, "PostgreSQL"),
    };
    if name.is_empty() || name.len() > longest || name.contains('\0') {
        return Err(Error::config(format!(
            "{name:?} is no name in {whose}, which takes 1 to {longest} bytes; rename it in a query"
        )));
    }
    Ok(match dialect {
        Dialect::Redshift => name.to_lowercase(),
        Dialect::Postgres => name.into(),
    })
}

/// Refuses what would not mean the same in every warehouse.
pub(super) fn check_text(key: &str, of: &str) -> Result<()> {
    match of.chars().find(|c| *c == '\\' || c.is_control()) {
        None => Ok(()),
        Some(c) => Err(Error::config(format!(
            "{key}: {of:?} holds {c:?}, which cannot stand in it"
        ))),
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TableName {
    pub schema: String,
    pub table: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", ident(&self.schema), ident(&self.table))
    }
}
