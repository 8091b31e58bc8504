//! The columns a row is decoded into: what JSON value each type takes.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use millstream_engine::{Error, Result};
use simd_json::{Node, StaticNode};

use super::RowError;
use super::values::{Gaps, Values};
use crate::formats::time::{self, Clock};

/// Room for the text of one value in an error message. A value may be as long as the body; the message
/// goes back to the client.
const SHOWN_CHARS: usize = 48;

/// One value of a row, checked for its column, before it is known whether the whole row is good.
/// Text stays where it is: the cell holds its number, which the tape or the query string resolves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell {
    Missing,
    Null,
    Text(u32),
    /// Integers, days of a date, microseconds of a timestamp.
    Int(i64),
    Float(f64),
    Bool(bool),
}

/// A column and the values appended to it so far.
pub(super) struct Column {
    pub name: String,
    pub nullable: bool,
    pub values: Values,
    /// Rows that have a value or a known gap.
    filled: usize,
    gaps: Gaps,
    pub clock: Clock,
}

impl Column {
    /// A column without values; an error of class config if its type cannot be read from JSON.
    pub fn new(field: &Field) -> Result<Column> {
        let values = Values::new(field.data_type()).ok_or_else(|| {
            Error::config(format!(
                "column {:?} has type {}, which cannot be read from JSON",
                field.name(),
                field.data_type()
            ))
        })?;
        Ok(Column {
            name: field.name().clone(),
            nullable: field.is_nullable(),
            values,
            filled: 0,
            gaps: Gaps::default(),
            clock: Clock::default(),
        })
    }

    /// The value of JSON node `node`, which is number `at` of the tape.
    pub fn cell(&self, node: &Node<'_>, at: u32) -> Result<Cell, RowError> {
        match (&self.values, node) {
            (_, Node::Static(StaticNode::Null)) => Ok(Cell::Null),
            (Values::Text(_), Node::String(_)) => Ok(Cell::Text(at)),
            (Values::Timestamp(_), Node::String(text)) => self.timestamp(text),
            (Values::Date(_), Node::String(text)) => self.date(text),
            (Values::Boolean(_), Node::Static(StaticNode::Bool(value))) => Ok(Cell::Bool(*value)),
            (Values::Float64(_), Node::Static(StaticNode::I64(value))) => Ok(Cell::Float(*value as f64)),
            (Values::Float64(_), Node::Static(StaticNode::U64(value))) => Ok(Cell::Float(*value as f64)),
            (Values::Float64(_), Node::Static(StaticNode::F64(value))) => Ok(Cell::Float(*value)),
            (Values::Int32(_) | Values::Int64(_) | Values::Timestamp(_), Node::Static(number)) => {
                self.integer(whole(number).ok_or_else(|| self.wrong_type(describe(node)))?)
            }
            _ => Err(self.wrong_type(describe(node))),
        }
    }

    /// The value that `text`, number `at` of the query string, writes.
    pub fn cell_of_text(&self, text: &str, at: u32) -> Result<Cell, RowError> {
        let wrong = || self.wrong_type(format!("{:?}", shown(text)));
        match self.values {
            Values::Text(_) => Ok(Cell::Text(at)),
            Values::Int32(_) | Values::Int64(_) => self.integer(text.parse().map_err(|_| wrong())?),
            Values::Float64(_) => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Cell::Float(value)),
                _ => Err(wrong()),
            },
            Values::Boolean(_) => match text {
                "true" | "1" => Ok(Cell::Bool(true)),
                "false" | "0" => Ok(Cell::Bool(false)),
                _ => Err(wrong()),
            },
            Values::Timestamp(_) => match text.parse() {
                Ok(millis) => self.integer(millis),
                Err(_) => self.timestamp(text),
            },
            Values::Date(_) => self.date(text),
        }
    }

    /// Appends a value that [`Column::cell`] made for this column, as that of `row`; `text` resolves the number of a text.
    /// What is missing or null leaves a gap.
    pub fn append<'a>(&mut self, row: usize, cell: Cell, text: impl Fn(u32) -> &'a str) {
        if matches!(cell, Cell::Missing | Cell::Null) {
            return;
        }
        self.begin(row);
        match (&mut self.values, cell) {
            (Values::Text(texts), Cell::Text(at)) => texts.push(text(at).as_bytes()),
            // The cell was checked against the column's range when it was made.
            (Values::Int32(values) | Values::Date(values), Cell::Int(value)) => values.push(value as i32),
            (Values::Int64(values) | Values::Timestamp(values), Cell::Int(value)) => values.push(value),
            (Values::Float64(values), Cell::Float(value)) => values.push(value),
            (Values::Boolean(values), Cell::Bool(value)) => values.append(value),
            _ => unreachable!("cells are made for the type of their column"),
        }
    }

    /// A value of `row` will be appended.
    #[inline]
    pub fn begin(&mut self, row: usize) {
        self.fill(row);
        self.filled = row + 1;
    }

    #[inline]
    fn fill(&mut self, rows: usize) {
        if self.filled < rows {
            self.gaps.append(self.filled..rows);
            self.values.extend_to(rows);
            self.filled = rows;
        }
    }

    /// Forgets the values behind the first `rows`.
    pub fn truncate(&mut self, rows: usize) {
        self.gaps.truncate(rows);
        self.values.truncate(rows);
        self.filled = self.filled.min(rows);
    }

    /// Takes the values of `rows` appended so far.
    pub fn finish(&mut self, rows: usize) -> Result<ArrayRef> {
        self.fill(rows);
        self.filled = 0;
        let nulls = self.gaps.finish(rows);
        self.values.finish(nulls)
    }

    fn integer(&self, value: i128) -> Result<Cell, RowError> {
        let fitting = match self.values {
            Values::Int32(_) => i32::try_from(value).ok().map(i64::from),
            Values::Timestamp(_) => i64::try_from(value).ok().and_then(time::timestamp_from_millis),
            _ => i64::try_from(value).ok(),
        };
        fitting.map(Cell::Int).ok_or_else(|| {
            RowError::new(
                "out_of_range",
                format!("{:?}: {value} does not fit {}", self.name, self.expected()),
            )
        })
    }

    fn timestamp(&self, text: &str) -> Result<Cell, RowError> {
        time::timestamp(text)
            .map(Cell::Int)
            .ok_or_else(|| self.bad("bad_timestamp", text, time::TIMESTAMP_LAYOUT))
    }

    fn date(&self, text: &str) -> Result<Cell, RowError> {
        time::date(text)
            .map(|days| Cell::Int(i64::from(days)))
            .ok_or_else(|| self.bad("bad_date", text, time::DATE_LAYOUT))
    }

    fn bad(&self, code: &'static str, text: &str, layout: &str) -> RowError {
        let message = format!("{:?}: {:?} is not {layout}", self.name, shown(text));
        RowError::new(code, message)
    }

    fn wrong_type(&self, got: String) -> RowError {
        let message = format!("{:?}: expected {}, got {got}", self.name, self.expected());
        RowError::new("wrong_type", message)
    }

    fn expected(&self) -> &'static str {
        match self.values {
            Values::Text(_) => "a string",
            Values::Int32(_) => "an integer of 32 bits",
            Values::Int64(_) => "an integer of 64 bits",
            Values::Float64(_) => "a number",
            Values::Boolean(_) => "true or false",
            Values::Timestamp(_) => "a timestamp",
            Values::Date(_) => "a date",
        }
    }
}

/// The number as an integer, if it is one. JSON has one kind of number, so `5.0` is five.
fn whole(number: &StaticNode) -> Option<i128> {
    match number {
        StaticNode::I64(value) => Some(i128::from(*value)),
        StaticNode::U64(value) => Some(i128::from(*value)),
        // Saturates outside the range of i128, which is out of range for every column too.
        StaticNode::F64(value) if value.fract() == 0.0 => Some(*value as i128),
        _ => None,
    }
}

fn describe(node: &Node<'_>) -> String {
    match node {
        Node::String(text) => format!("{:?}", shown(text)),
        Node::Object { .. } => "an object".into(),
        Node::Array { .. } => "an array".into(),
        Node::Static(value) => value.to_string(),
    }
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
