//! How a table becomes what the stream wants: created, widened, or given new columns at its end. Pure.
//!
//! Nothing else is done to a table that has rows: another type, or a narrower one, is for a person to decide.

use millstream_engine::{Error, Result};

use super::columns::Column;
use super::sql::{TableName, ident, idents, text};
use super::table::Keys;
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
    let mut changes = Changes::default();
    let Some(existing) = existing else {
        changes.within.push(create(table, dialect, keys, wanted)?);
        return Ok(changes);
    };
    for column in wanted {
        let Some(has) = existing.iter().find(|e| e.name == column.name) else {
            let definition = column.definition(dialect, true)?;
            changes
                .within
                .push(format!("ALTER TABLE {table} ADD COLUMN {definition}"));
            continue;
        };
        if let Some(change) = widen(table, dialect, has, column)? {
            match dialect {
                Dialect::Redshift => changes.before.push(change),
                Dialect::Postgres => changes.within.push(change),
            }
        }
    }
    Ok(changes)
}

fn create(table: &TableName, dialect: Dialect, keys: &Keys, wanted: &[Column]) -> Result<String> {
    let definitions = wanted.iter().map(|c| c.definition(dialect, false));
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

fn widen(table: &TableName, dialect: Dialect, has: &Existing, wants: &Column) -> Result<Option<String>> {
    // PostgreSQL's text has no width, and holds JSON here.
    let is_text = dialect == Dialect::Postgres && has.of == "text";
    let of = wants.of()?;
    if is_text && matches!(of, SqlType::Varchar(_) | SqlType::Super) {
        return Ok(None);
    }
    let held: Option<SqlType> = has.of.parse().ok().filter(|_| !is_text);
    match held {
        Some(held) if of.fits(held) => Ok(None),
        Some(held) if held.widens_to(of) => Ok(Some(format!(
            "ALTER TABLE {table} ALTER COLUMN {} TYPE {}",
            ident(&has.name),
            of.sql(dialect)
        ))),
        _ => Err(Error::config(format!(
            "table {table} has column {} of type {}, but the stream's is {}: a column's type is not changed under its \
             rows; rename the column in a query, cast it, or change the table by hand",
            ident(&has.name),
            held.map_or(has.of.clone(), |held| held.sql(dialect)),
            of.sql(dialect)
        ))),
    }
}
