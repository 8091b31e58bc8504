//! What a reference table is: rows that queries join, read as a whole, at the start and perhaps now and then
//! again.
//!
//! Whoever loads puts the rows into a [`SharedTable`]; whoever executes a query takes them from there, once per
//! batch or firing, so that new rows come in between two of those and never in the middle of one. A result
//! therefore depends on when the table was read: it is the one thing in a pipeline that a replay may find changed.

use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How the rows of a table's file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TableFormat {
    /// Comma-separated values; the first line names the columns.
    Csv,
    /// Parquet.
    Parquet,
    /// JSON: one row per line, or an array of rows.
    Json,
}

/// All rows of a table, as they were when it was read.
pub type TableRows = Arc<[RecordBatch]>;

/// The rows of a table now; cheap to clone, all clones are the same table.
#[derive(Clone, Debug)]
pub struct SharedTable {
    schema: SchemaRef,
    rows: Arc<RwLock<Option<TableRows>>>,
}

impl SharedTable {
    /// A table that has not been read.
    pub fn new(schema: SchemaRef) -> SharedTable {
        SharedTable {
            schema,
            rows: Arc::default(),
        }
    }

    /// Its columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Puts `rows`, in the table's schema, in place of those before.
    pub fn replace(&self, rows: Vec<RecordBatch>) {
        // Held for the length of an assignment, which cannot panic.
        *self.rows.write().unwrap_or_else(PoisonError::into_inner) = Some(rows.into());
    }

    /// Whether it has been read.
    pub fn is_loaded(&self) -> bool {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Its rows now. The runtime reads every table before it starts an operator.
    pub fn rows(&self) -> Result<TableRows> {
        let rows = self.rows.read().unwrap_or_else(PoisonError::into_inner);
        rows.clone()
            .ok_or_else(|| Error::bug("a table was queried before it was read"))
    }
}

/// A table that queries may name.
#[derive(Clone, Debug)]
pub struct ReferenceTable {
    /// The name in queries.
    pub name: String,
    /// Its rows.
    pub rows: SharedTable,
}

/// What a loader needs to know of a table.
#[derive(Clone, Debug)]
pub struct TableContext {
    /// Name of the table in the pipeline.
    pub name: String,
    /// A file, or `s3://bucket/key`.
    pub path: String,
    /// How its rows are written; absent: by the ending of `path`.
    pub format: Option<TableFormat>,
    /// Its columns.
    pub schema: SchemaRef,
    /// The keys that only the loader knows, as typed by its schema.
    pub options: serde_json::Value,
}

/// Reads tables.
#[async_trait]
pub trait TableLoader: Send + Sync {
    /// JSON Schema of the keys only this loader knows.
    fn options(&self) -> schemars::Schema;

    /// Checks without side effects what [`TableLoader::load`] would refuse; run by `millstream check`.
    fn check(&self, table: &TableContext) -> Result<()>;

    /// Reads all rows, in the table's schema. A file that is not there or is broken is an error of class config
    /// that names the row and the field; class retry is for services that are away.
    async fn load(&self, table: &TableContext) -> Result<Vec<RecordBatch>>;
}
