//! Bytes to rows and back.

pub mod csv;
pub mod files;
pub mod json;
pub mod log;
pub mod parquet;
pub mod time;

use std::fmt;

use arrow::array::RecordBatch;
use arrow::datatypes::Field;
use millstream_engine::source::RECEIVED_AT;
use millstream_engine::time::Timestamp;

use self::json::RowError;

/// Rows of a file that are read together.
pub struct Piece {
    /// The good ones, in order.
    pub rows: RecordBatch,
    /// The others, in order.
    pub bad: Vec<BadRow>,
}

/// A row that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Where it stands.
    pub place: Place,
    /// What is wrong.
    pub error: RowError,
    /// Its text.
    pub raw: Vec<u8>,
}

/// Where a row stands in its file, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The line it starts in.
    Line(u64),
    /// Its number among the rows of a file that has no lines.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Line(n) => write!(f, "line {n}"),
            Place::Row(n) => write!(f, "row {n}"),
        }
    }
}

/// What becomes of declared columns that a file of columns does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// The file is refused.
    Refused,
    /// They are null, if they may be; `received_at` is this time.
    Filled(Timestamp),
}

impl Absent {
    /// Whether a file may be without a column.
    fn allows(self, field: &Field) -> bool {
        matches!(self, Absent::Filled(_)) && (field.is_nullable() || field.name() == RECEIVED_AT)
    }
}
