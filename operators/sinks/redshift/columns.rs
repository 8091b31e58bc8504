//! The columns of a load: their names, types and attributes, as the table has them and as they are staged.
//!
//! They travel with what was staged, so that a load made after the pipeline has changed is still the load that was
//! prepared.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use millstream_engine::sink::SinkContext;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::options::RedshiftOptions;
use super::sql::{check_name, ident};
use crate::formats::log::NOOP;
use crate::warehouse::column::ColumnSql;
use crate::warehouse::types::{Dialect, SQL, SqlType};

/// The column that dated runs add where no `date_column` is named.
pub(super) const RUN_DATE: &str = "run_date";

/// The column that dated runs add to a table that several pipelines share: whose a row is.
pub(super) const RUN_PIPELINE: &str = "run_pipeline";

/// The staged column that says which of two rows of a load with one key came last.
pub(super) const ROW_NUMBER: &str = "millstream_row";

/// A column of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    pub name: String,
    /// Type and attributes in Redshift's words: `varchar(7) not null`.
    pub sql: String,
    /// Whether it is only declared: it is in the table, and what writes it is not this sink.
    #[serde(default)]
    pub noop: bool,
}

impl Column {
    /// Its type.
    pub fn of(&self) -> Result<SqlType> {
        Ok(self.parsed()?.of)
    }

    /// Its type and attributes.
    pub fn parsed(&self) -> Result<ColumnSql> {
        parsed(&self.name, &self.sql)
    }

    /// As it stands in CREATE TABLE.
    pub fn definition(&self, dialect: Dialect) -> Result<String> {
        Ok(format!("{} {}", ident(&self.name), self.parsed()?.sql(dialect)))
    }

    /// Its type in the staged files: what COPY takes from Parquet.
    pub fn staged(&self) -> Result<SqlType> {
        Ok(match self.of()? {
            SqlType::TimestampTz => SqlType::Timestamp,
            SqlType::Super => SqlType::Varchar(crate::warehouse::types::VARCHAR_MAX),
            other => other,
        })
    }
}

fn parsed(name: &str, sql: &str) -> Result<ColumnSql> {
    ColumnSql::parse(sql).map_err(|e| Error::config(format!("column {name:?}: {e}")))
}

/// What a stream's schema says of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns {
    pub columns: Vec<Column>,
    /// The column marked `distkey`.
    pub distkey: Option<String>,
    /// Columns marked `sortkey`.
    pub sortkey: Vec<String>,
}

impl Columns {
    /// The columns of the sink's input, by their `sql` metadata or else their Arrow type.
    pub fn of(cx: &SinkContext, options: &RedshiftOptions) -> Result<Columns> {
        let (mut columns, mut distkey, mut sortkey) = (Vec::new(), None, Vec::new());
        for field in cx.schema.fields() {
            let name = check_name(field.name(), options.dialect)?;
            let sql = match field.metadata().get(SQL) {
                Some(sql) => sql.clone(),
                None => by_type(field, options.varchar_bytes)?,
            };
            let mut column = parsed(field.name(), &sql)?;
            if std::mem::take(&mut column.distkey) {
                distkey = Some(name.clone());
            }
            if std::mem::take(&mut column.sortkey) {
                sortkey.push(name.clone());
            }
            let sql = column.sql(Dialect::Redshift);
            let noop = field.metadata().contains_key(NOOP);
            if columns.iter().any(|c: &Column| c.name == name) {
                return Err(Error::config(format!(
                    "column {name:?} is there twice, as Redshift does not tell upper case from lower; rename one in a query"
                )));
            }
            columns.push(Column { name, sql, noop });
        }
        Ok(Columns {
            columns,
            distkey,
            sortkey,
        })
    }
}

fn by_type(field: &Field, varchar_bytes: u32) -> Result<String> {
    let of = SqlType::of_field(field).map_err(|e| Error::config(format!("{e}; cast it in a query")))?;
    Ok(match of {
        SqlType::Varchar(_) => SqlType::Varchar(varchar_bytes).to_string(),
        other => other.to_string(),
    })
}

/// The columns that are staged.
pub(super) fn written(columns: &[Column]) -> impl Iterator<Item = &Column> + Clone {
    columns.iter().filter(|c| !c.noop)
}

/// How rows become what is staged.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    /// The staged files' schema, without the row number.
    pub schema: SchemaRef,
    types: Vec<SqlType>,
    /// Where in the rows they are.
    places: Vec<usize>,
}

impl Staged {
    pub fn new(columns: &[Column]) -> Result<Staged> {
        let types = written(columns).map(Column::of).collect::<Result<Vec<_>>>()?;
        let field = |c: &Column| Ok(Field::new(&c.name, stored(c.staged()?), true));
        let fields = written(columns).map(field).collect::<Result<Vec<_>>>()?;
        let places = (0..columns.len()).filter(|i| !columns[*i].noop);
        Ok(Staged {
            schema: Arc::new(Schema::new(fields)),
            types,
            places: places.collect(),
        })
    }

    /// The rows as they are staged. A value that the column's type does not hold is an error of the data.
    pub fn of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        const STRICT: CastOptions<'_> = CastOptions {
            safe: false,
            format_options: arrow::util::display::FormatOptions::new(),
        };
        let columns = self
            .places
            .iter()
            .zip(self.schema.fields())
            .map(|(place, field)| {
                cast_with_options(rows.column(*place), field.data_type(), &STRICT).map_err(|e| {
                    Error::data(format!(
                        "column {:?}: {e}; cast it, or take such rows out, in a query",
                        field.name()
                    ))
                })
            });
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }

    /// Why the warehouse would not take a row of [`Staged::of`]; none if it would.
    pub fn refusal(&self, rows: &RecordBatch, row: usize) -> Option<String> {
        self.types.iter().enumerate().find_map(|(i, of)| {
            let width = of.width()? as usize;
            let column = rows.column(i).as_string_opt::<i32>()?;
            let (name, text) = (self.schema.field(i).name(), column.value(row));
            match text.len() {
                _ if column.is_null(row) => None,
                bytes if bytes > width => {
                    Some(format!("{name}: {bytes} bytes of text, but the column is {of}"))
                }
                _ if text.contains('\0') => {
                    Some(format!("{name}: a zero byte, which no warehouse holds in a text"))
                }
                _ => None,
            }
        })
    }

    /// Whether some row may be refused: most batches need no look at their rows.
    pub fn may_refuse(&self, rows: &RecordBatch) -> bool {
        let longest = |column: &ArrayRef| {
            let offsets = column.as_string_opt::<i32>().map(|c| c.value_offsets());
            offsets.map_or(0, |o| o.windows(2).map(|w| w[1] - w[0]).max().unwrap_or(0)) as usize
        };
        let zero = |column: &ArrayRef| {
            column
                .as_string_opt::<i32>()
                .is_some_and(|c| c.value_data().contains(&0))
        };
        let widths = self.types.iter().map(|of| of.width());
        widths.zip(rows.columns()).any(|(width, column)| {
            width.is_some_and(|width| longest(column) > width as usize || zero(column))
        })
    }
}

fn stored(of: SqlType) -> DataType {
    match of.to_arrow() {
        DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Microsecond, None),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions() {
        use Dialect::{Postgres, Redshift};
        for (sql, dialect, expect) in [
            ("varchar(7) not null", Redshift, r#""a""b" varchar(7) not null"#),
            ("int8 encode az64", Redshift, r#""a""b" bigint encode az64"#),
            (
                "int8 encode az64 default (1 + 2)",
                Postgres,
                r#""a""b" bigint default (1 + 2)"#,
            ),
            ("super", Postgres, r#""a""b" text"#),
        ] {
            let column = Column {
                name: "a\"b".into(),
                sql: sql.into(),
                noop: false,
            };
            assert_eq!(
                column.definition(dialect).unwrap_or_else(|e| e.to_string()),
                expect
            );
        }
    }
}
