//! How a table becomes what the stream wants: created, or changed as [`crate::warehouse::evolve`] has it. Pure.

use millstream_engine::{Error, Result};

use super::columns::Column;
use super::sql::{TableName, ident, idents, text};
use super::table::Keys;
use crate::warehouse::column::ColumnSql;
use crate::warehouse::ddl::TableSql;
use crate::warehouse::evolve::{Known, Statement, evolve};
use crate::warehouse::types::{Dialect, SqlType};

/// A column that a table has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Existing {
    pub name: String,
    pub of: String,
}

/// The question whose answer [`existing`] reads.
pub(super) fn columns_of(table: &TableName) -> String {
    format!(
        "SELECT column_name, data_type, character_maximum_length, numeric_precision, numeric_scale \
         FROM information_schema.columns WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
        text(&table.schema),
        text(&table.table)
    )
}

/// The columns in an answer to [`columns_of`]; none where there is no table.
pub(super) fn existing(rows: &[Vec<Option<String>>]) -> Option<Vec<Existing>> {
    let column = |row: &Vec<Option<String>>| {
        let value = |i: usize| row.get(i).cloned().flatten().unwrap_or_default();
        let of = match value(1).as_str() {
            "character varying" if value(2).is_empty() => "text".into(),
            of @ ("character varying" | "character") => format!("{of}({})", value(2)),
            "numeric" if value(3).is_empty() => "numeric without limits".into(),
            "numeric" => format!("numeric({},{})", value(3), value(4)),
            other => other.into(),
        };
        Existing { name: value(0), of }
    };
    (!rows.is_empty()).then(|| rows.iter().map(column).collect())
}

/// What has to be done to a table before rows are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Ahead of the transaction, as Redshift widens columns in none. It does no harm if nothing follows.
    pub before: Vec<String>,
    /// In the transaction.
    pub within: Vec<String>,
}

/// From the columns that a table has to those that are wanted.
pub(super) fn changes(
    table: &TableName,
    dialect: Dialect,
    keys: &Keys,
    existing: Option<&[Existing]>,
    wanted: &[Column],
) -> Result<Changes> {
    let Some(existing) = existing else {
        return Ok(Changes {
            within: vec![create(table, dialect, keys, wanted)?],
            ..Changes::default()
        });
    };
    let old = held(table, dialect, existing, wanted)?;
    let new = wanted.iter().map(|c| Ok((c.name.clone(), c.parsed()?)));
    let new = table_of(table, new.collect::<Result<_>>()?);
    let evolution = evolve(&old, Known::Types, &new, &table.to_string(), dialect);
    if !evolution.refused.is_empty() {
        return Err(Error::config(format!(
            "{}; rename the column in a query, cast it, or change the table by hand",
            evolution.refused.join("; ")
        )));
    }
    let (before, within) = evolution.statements.into_iter().partition(|s| s.alone);
    let sql = |statements: Vec<Statement>| statements.into_iter().map(|s| s.sql).collect();
    Ok(Changes {
        before: sql(before),
        within: sql(within),
    })
}

fn table_of(table: &TableName, columns: Vec<(String, ColumnSql)>) -> TableSql {
    TableSql {
        name: table.table.clone(),
        columns,
        sortkey: Vec::new(),
    }
}

fn create(table: &TableName, dialect: Dialect, keys: &Keys, wanted: &[Column]) -> Result<String> {
    let definitions = wanted.iter().map(|c| c.definition(dialect));
    let definitions = definitions.collect::<Result<Vec<_>>>()?.join(", ");
    let mut create = format!("CREATE TABLE IF NOT EXISTS {table} ({definitions})");
    if dialect == Dialect::Redshift {
        if let Some(style) = keys.diststyle {
            create += &format!(" DISTSTYLE {}", format!("{style:?}").to_uppercase());
        }
        if let Some(column) = &keys.distkey {
            create += &format!(" DISTKEY ({})", ident(column));
        }
        if !keys.sortkey.is_empty() {
            create += &format!(" SORTKEY ({})", idents(keys.sortkey.iter().map(String::as_str)));
        }
    }
    Ok(create)
}

/// The columns there are, of those that are wanted: the types of others may be any.
fn held(table: &TableName, dialect: Dialect, existing: &[Existing], wanted: &[Column]) -> Result<TableSql> {
    let mut columns = Vec::new();
    for has in existing {
        let Some(wants) = wanted.iter().find(|c| c.name == has.name) else {
            continue;
        };
        let of = match (dialect, has.of.as_str(), wants.of()?) {
            // PostgreSQL's text has no width, and holds JSON here.
            (Dialect::Postgres, "text", of @ (SqlType::Varchar(_) | SqlType::Super)) => of,
            (Dialect::Postgres, "text", of) => return Err(unlike(table, has, of.sql(dialect))),
            (_, held, of) => held.parse().map_err(|_| unlike(table, has, of.sql(dialect)))?,
        };
        columns.push((has.name.clone(), ColumnSql::plain(of)));
    }
    Ok(table_of(table, columns))
}

fn unlike(table: &TableName, has: &Existing, wants: String) -> Error {
    Error::config(format!(
        "{table}: column {:?} is {} and cannot become {wants}; rename the column in a query, cast it, or change the \
         table by hand",
        has.name, has.of
    ))
}
