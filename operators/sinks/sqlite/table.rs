//! The table of a sink: what it looks like, and how a row gets into it.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use millstream_engine::sink::SinkContext;
use millstream_engine::sql::REVISION;
use millstream_engine::{Error, Result};
use rusqlite::Connection;
use rusqlite::types::Value;

use super::super::column_of;
use super::super::values::{is_binary, is_text};
use super::options::SqliteOptions;
use super::store::Failure;
use super::value::{flat, sql_type, value};

/// The column that says who wrote a row: `id` in the table of writers.
const WRITER: &str = "_writer";

/// What names are for the sink's own use.
const OURS: [&str; 2] = ["_millstream", "sqlite_"];

/// A table as a sink wants it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    name: String,
    columns: Vec<Column>,
    /// Indexes in `columns`.
    key: Vec<usize>,
    version: Option<usize>,
    revision: Option<usize>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    sql_type: &'static str,
}

impl Table {
    /// Checks the options against the stream.
    pub fn new(cx: &SinkContext, schema: &SchemaRef, options: &SqliteOptions) -> Result<Table> {
        let cx = SinkContext {
            schema: schema.clone(),
            ..cx.clone()
        };
        let name = options.table.to_lowercase();
        if name.is_empty() || OURS.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(Error::config(format!(
                "table: {:?} cannot be the name of a table; choose another",
                options.table
            )));
        }
        let mut key = Vec::new();
        for column in &options.key {
            let wanted = "a string, integer, time, date or binary";
            let index = column_of(&cx, "key", column, wanted, |f| {
                is_ordered(f) || is_binary(plain(f))
            })?;
            if key.contains(&index) {
                return Err(Error::config(format!("key: {column:?} is named twice")));
            }
            key.push(index);
        }
        if key.is_empty() {
            return Err(Error::config(
                "key: name the columns by which a row replaces another",
            ));
        }
        let version = options.version.as_ref().map(|name| {
            column_of(
                &cx,
                "version",
                name,
                "a string, integer, time or date",
                is_ordered,
            )
        });
        Ok(Table {
            name: options.table.clone(),
            columns: columns(&cx)?,
            key,
            version: version.transpose()?,
            revision: cx.schema.index_of(REVISION).ok(),
        })
    }

    /// Creates the table, or adds the columns that it lacks. An error of class config if there is one that cannot be
    /// written to.
    pub fn ready(&self, at: &Connection) -> Result<(), Failure> {
        let there = self.there(at)?;
        let statements = match there.is_empty() {
            true => self.create(),
            false => self.lacking(&there)?,
        };
        Ok(at.execute_batch(&statements)?)
    }

    /// Why the table has no place for each row; none where it has.
    pub fn refusals(&self, rows: &RecordBatch) -> Result<Vec<Option<String>>> {
        let columns = self.flat(rows)?;
        Ok((0..rows.num_rows())
            .map(|row| self.row(&columns, row).err())
            .collect())
    }

    /// Puts rows into the table, in their order; gives how many were written and how many were older than what was there.
    pub fn put(&self, at: &Connection, rows: &RecordBatch, writer: i64) -> Result<[u64; 2], Failure> {
        let columns = self.flat(rows)?;
        let mut put = at.prepare_cached(&self.upsert())?;
        let mut counts = [0, 0];
        for row in 0..rows.num_rows() {
            // What there is no place for was refused when it was written.
            let Ok(mut values) = self.row(&columns, row) else {
                continue;
            };
            values.push(Value::Integer(writer));
            let written = put.execute(rusqlite::params_from_iter(values))?;
            counts[usize::from(written == 0)] += 1;
        }
        Ok(counts)
    }

    /// Removes what a writer wrote.
    pub fn remove(&self, at: &Connection, writer: i64) -> Result<usize, rusqlite::Error> {
        let (table, index) = (quoted(&self.name), quoted(&format!("{}_{WRITER}", self.name)));
        at.execute_batch(&format!(
            "CREATE INDEX IF NOT EXISTS {index} ON {table}({WRITER})"
        ))?;
        at.execute(&format!("DELETE FROM {table} WHERE {WRITER} = ?1"), [writer])
    }

    fn flat(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        rows.columns().iter().map(flat).collect()
    }

    fn row(&self, columns: &[ArrayRef], row: usize) -> Result<Vec<Value>, String> {
        let mut values = Vec::with_capacity(columns.len() + 1);
        for (index, (of, column)) in self.columns.iter().zip(columns).enumerate() {
            let value = value(column, row).map_err(|why| format!("{}: {why}", of.name))?;
            if value == Value::Null {
                if self.key.contains(&index) {
                    return Err(format!("{}: NULL in the key", of.name));
                }
                if self.version == Some(index) {
                    return Err(format!("{}: NULL as the version", of.name));
                }
            }
            values.push(value);
        }
        Ok(values)
    }

    /// Name, type and place in the key (0: none) of the columns that the table has; empty if it does not exist.
    fn there(&self, at: &Connection) -> Result<Vec<(String, String, u32)>, rusqlite::Error> {
        let mut ask = at.prepare("SELECT name, type, pk FROM pragma_table_info(?1)")?;
        let rows = ask.query_map([&self.name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        rows.collect()
    }

    fn create(&self) -> String {
        let columns = self.columns.iter().enumerate().map(|(index, column)| {
            let not_null = if self.key.contains(&index) {
                " NOT NULL"
            } else {
                ""
            };
            format!("{} {}{not_null}, ", quoted(&column.name), column.sql_type)
        });
        format!(
            "CREATE TABLE {} ({}{WRITER} INTEGER NOT NULL, PRIMARY KEY ({})) STRICT, WITHOUT ROWID",
            quoted(&self.name),
            columns.collect::<String>(),
            self.key_names()
        )
    }

    /// The statements that add what is not there.
    fn lacking(&self, there: &[(String, String, u32)]) -> Result<String> {
        let named = |name: &str| there.iter().find(|(there, ..)| there.eq_ignore_ascii_case(name));
        let mut key: Vec<_> = there.iter().filter(|(_, _, place)| *place > 0).collect();
        key.sort_by_key(|(_, _, place)| *place);
        let has: Vec<&str> = key.iter().map(|(name, ..)| name.as_str()).collect();
        let wants: Vec<&str> = self.key.iter().map(|i| self.columns[*i].name.as_str()).collect();
        if has != wants {
            return Err(Error::config(format!(
                "table {:?} has the key {}, not {}; write it so, or name another table",
                self.name,
                has.join(", "),
                wants.join(", ")
            )));
        }
        if named(WRITER).is_none() {
            return Err(Error::config(format!(
                "table {:?} was not made by a sqlite sink; name another table",
                self.name
            )));
        }
        let mut add = String::new();
        for Column { name, sql_type } in &self.columns {
            match named(name) {
                None => {
                    add += &format!(
                        "ALTER TABLE {} ADD COLUMN {} {sql_type};",
                        quoted(&self.name),
                        quoted(name)
                    )
                }
                Some((_, has, _)) if has == sql_type => {}
                Some((_, has, _)) => {
                    return Err(Error::config(format!(
                        "column {name:?} of table {:?} is {has}, not {sql_type}; cast it in the query, or name another \
                         table",
                        self.name
                    )));
                }
            }
        }
        Ok(add)
    }

    fn upsert(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|c| quoted(&c.name)).collect();
        let marks = vec!["?"; names.len() + 1].join(", ");
        let set: Vec<String> = names.iter().map(|n| format!("{n} = excluded.{n}, ")).collect();
        format!(
            "INSERT INTO {} ({}, {WRITER}) VALUES ({marks}) ON CONFLICT ({}) DO UPDATE SET {}{WRITER} = excluded.{WRITER}{}",
            quoted(&self.name),
            names.join(", "),
            self.key_names(),
            set.concat(),
            self.unless_newer()
        )
    }

    /// The condition under which the row that is there is replaced.
    fn unless_newer(&self) -> String {
        let Some(version) = self.version else {
            return String::new();
        };
        let table = quoted(&self.name);
        let version = quoted(&self.columns[version].name);
        // Revisions are of one window: those of different ones say nothing about which is newer.
        let revision = self.revision.map(|index| quoted(&self.columns[index].name));
        let rank = |of: &str| match &revision {
            Some(revision) => format!("({of}.{version}, coalesce({of}.{revision}, 0))"),
            None => format!("{of}.{version}"),
        };
        format!(
            " WHERE {table}.{version} IS NULL OR {} >= {}",
            rank("excluded"),
            rank(&table)
        )
    }

    fn key_names(&self) -> String {
        let names: Vec<String> = self.key.iter().map(|i| quoted(&self.columns[*i].name)).collect();
        names.join(", ")
    }
}

fn columns(cx: &SinkContext) -> Result<Vec<Column>> {
    let mut columns: Vec<Column> = Vec::new();
    for field in cx.schema.fields() {
        let name = field.name();
        if name.eq_ignore_ascii_case(WRITER) {
            return Err(Error::config(format!(
                "input: a column {name:?} is for the sink's own use; give it another name in the query"
            )));
        }
        if let Some(other) = columns.iter().find(|c| c.name.eq_ignore_ascii_case(name)) {
            return Err(Error::config(format!(
                "input: columns {:?} and {name:?} have one name to SQLite; give one another name in the query",
                other.name
            )));
        }
        columns.push(Column {
            name: name.clone(),
            sql_type: sql_type(field.data_type()),
        });
    }
    Ok(columns)
}

/// A name as SQL takes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn plain(field: &Field) -> &DataType {
    match field.data_type() {
        DataType::Dictionary(_, values) => values,
        of => of,
    }
}

/// Whether SQLite puts values of the column in their order.
fn is_ordered(field: &Field) -> bool {
    let of = plain(field);
    of.is_integer() || is_text(of) || matches!(of, DataType::Timestamp(..) | DataType::Date32)
}
