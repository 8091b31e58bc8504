//! A checked schema: tables, where in a line their rows are, and what their columns hold.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use millstream_engine::config::Diagnostic;

use super::errors::{PIPELINE_ERRORS, error_schema, error_table};
use super::read::{self, Problems};
use super::tree::Tree;
use crate::warehouse::column::ColumnSql;
use crate::warehouse::ddl::TableSql;
use crate::warehouse::types::{SORTKEY, SQL, TABLE};

/// Key of a field's metadata: the column is declared and never written. What loads a table leaves it out.
pub const NOOP: &str = "noop";

/// The tables that lines of a log feed.
#[derive(Clone, Debug)]
pub struct LogSchema {
    /// From 1; another content is another version.
    pub version: i64,
    /// In order of their names; `pipeline_errors` is not among them.
    pub tables: Vec<Table>,
    /// What is odd and does no harm.
    pub warnings: Vec<Diagnostic>,
    /// What it was read from, in the form with `version` and `tables`.
    pub(super) tree: Tree,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The path from the root of a line to what its rows are made of; empty: the line.
    pub source: Vec<String>,
    /// What is there.
    pub source_type: SourceType,
    /// In order.
    pub columns: Vec<Column>,
    /// The columns it is sorted by, in order.
    pub sortkey: Vec<String>,
}

/// What a table's rows are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceType {
    /// A value; each line is one row.
    Dict,
    /// A list; each element is a row.
    List,
    /// An object whose keys are numbers; each member is a row.
    SparseList,
}

/// A column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What stands behind its name in SQL, as written, without `sortkey`.
    pub sql_attr: String,
    /// The same, understood.
    pub sql: ColumnSql,
    /// Where its value comes from.
    pub from: From,
    /// Whether the value is written as JSON, whatever it is.
    pub is_json: bool,
    /// Whether a row without a value is bad.
    pub is_mandatory: bool,
}

/// Where a column's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A path from what the row is made of.
    Row(Vec<String>),
    /// A path from the root of the line.
    Line(Vec<String>),
    /// The place in the list, from 0, or the key in the sparse list.
    Index,
    /// The name of the file that the line is in.
    FileName,
    /// Nowhere: it is declared, and something else writes it.
    Nothing,
}

impl LogSchema {
    /// Reads a schema in either form; `file` is its name in messages.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &str, text: &str) -> Result<LogSchema, Problems> {
        read::schema(file, text)
    }

    /// The YAML of it, in the form with `version` and `tables`.
    pub fn write(&self) -> String {
        self.tree.write()
    }

    /// What is written of it.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The schema of each table's rows, and of `pipeline_errors`, in order of their names.
    pub fn arrow(&self) -> Vec<(String, SchemaRef)> {
        let tables = self.tables.iter().map(|t| (t.name.clone(), t.arrow()));
        let errors = std::iter::once((PIPELINE_ERRORS.to_owned(), error_schema()));
        let mut all: Vec<_> = tables.chain(errors).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// The tables as SQL makes them, `pipeline_errors` too if wanted, in order of their names.
    pub fn sql(&self, with_errors: bool) -> Vec<TableSql> {
        let mut all: Vec<TableSql> = self.tables.iter().map(Table::sql).collect();
        if with_errors {
            all.push(error_table());
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

impl Table {
    /// The schema of its rows.
    pub fn arrow(&self) -> SchemaRef {
        let fields: Vec<Field> = self.columns.iter().map(Column::arrow).collect();
        Arc::new(Schema::new_with_metadata(
            fields,
            table_metadata(&self.name, &self.sortkey),
        ))
    }

    /// The table as SQL makes it.
    pub fn sql(&self) -> TableSql {
        let columns = self.columns.iter().map(|c| (c.name.clone(), c.sql.clone()));
        TableSql {
            name: self.name.clone(),
            columns: columns.collect(),
            sortkey: self.sortkey.clone(),
        }
    }
}

impl Column {
    fn arrow(&self) -> Field {
        let nullable = self.from == From::Nothing || !self.needs_value();
        let mut metadata = HashMap::from([(SQL.to_owned(), self.sql_attr.clone())]);
        if self.from == From::Nothing {
            metadata.insert(NOOP.into(), "true".into());
        }
        Field::new(&self.name, self.sql.of.to_arrow(), nullable).with_metadata(metadata)
    }

    /// Whether a row without a value is bad.
    pub fn needs_value(&self) -> bool {
        self.is_mandatory || self.sql.not_null
    }
}

/// What a table's schema says of the table.
pub(super) fn table_metadata(name: &str, sortkey: &[String]) -> HashMap<String, String> {
    let mut metadata = HashMap::from([(TABLE.to_owned(), name.to_owned())]);
    if !sortkey.is_empty() {
        metadata.insert(SORTKEY.into(), sortkey.join(","));
    }
    metadata
}
