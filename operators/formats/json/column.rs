//! The columns a row is decoded into: what JSON value each type takes, and the builder it goes to.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float64Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, TimeUnit};
use millstream_engine::{Error, Result};
use simd_json::{Node, StaticNode};

use super::RowError;
use crate::formats::time;

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
    kind: Kind,
    builder: Builder,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Text,
    Int32,
    Int64,
    Float64,
    Boolean,
    Timestamp,
    Date,
}

enum Builder {
    Text(StringBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float64(Float64Builder),
    Boolean(BooleanBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
}

impl Column {
    /// A column without values; an error of class config if its type cannot be read from JSON.
    pub fn new(field: &Field) -> Result<Column> {
        let (kind, builder) = match field.data_type() {
            DataType::Utf8 => (Kind::Text, Builder::Text(StringBuilder::new())),
            DataType::Int32 => (Kind::Int32, Builder::Int32(Int32Builder::new())),
            DataType::Int64 => (Kind::Int64, Builder::Int64(Int64Builder::new())),
            DataType::Float64 => (Kind::Float64, Builder::Float64(Float64Builder::new())),
            DataType::Boolean => (Kind::Boolean, Builder::Boolean(BooleanBuilder::new())),
            DataType::Timestamp(TimeUnit::Microsecond, None) => (
                Kind::Timestamp,
                Builder::Timestamp(TimestampMicrosecondBuilder::new()),
            ),
            DataType::Date32 => (Kind::Date, Builder::Date(Date32Builder::new())),
            other => {
                return Err(Error::config(format!(
                    "column {:?} has type {other}, which cannot be read from JSON",
                    field.name()
                )));
            }
        };
        Ok(Column {
            name: field.name().clone(),
            nullable: field.is_nullable(),
            kind,
            builder,
        })
    }

    /// The value of JSON node `node`, which is number `at` of the tape.
    pub fn cell(&self, node: &Node<'_>, at: u32) -> Result<Cell, RowError> {
        match (self.kind, node) {
            (_, Node::Static(StaticNode::Null)) => Ok(Cell::Null),
            (Kind::Text, Node::String(_)) => Ok(Cell::Text(at)),
            (Kind::Timestamp, Node::String(text)) => self.timestamp(text),
            (Kind::Date, Node::String(text)) => self.date(text),
            (Kind::Boolean, Node::Static(StaticNode::Bool(value))) => Ok(Cell::Bool(*value)),
            (Kind::Float64, Node::Static(StaticNode::I64(value))) => Ok(Cell::Float(*value as f64)),
            (Kind::Float64, Node::Static(StaticNode::U64(value))) => Ok(Cell::Float(*value as f64)),
            (Kind::Float64, Node::Static(StaticNode::F64(value))) => Ok(Cell::Float(*value)),
            (Kind::Int32 | Kind::Int64 | Kind::Timestamp, Node::Static(number)) => {
                self.integer(whole(number).ok_or_else(|| self.wrong_type(describe(node)))?)
            }
            _ => Err(self.wrong_type(describe(node))),
        }
    }

    /// The value that `text`, number `at` of the query string, writes.
    pub fn cell_of_text(&self, text: &str, at: u32) -> Result<Cell, RowError> {
        let wrong = || self.wrong_type(format!("{:?}", shown(text)));
        match self.kind {
            Kind::Text => Ok(Cell::Text(at)),
            Kind::Int32 | Kind::Int64 => self.integer(text.parse().map_err(|_| wrong())?),
            Kind::Float64 => match text.parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Cell::Float(value)),
                _ => Err(wrong()),
            },
            Kind::Boolean => match text {
                "true" | "1" => Ok(Cell::Bool(true)),
                "false" | "0" => Ok(Cell::Bool(false)),
                _ => Err(wrong()),
            },
            Kind::Timestamp => match text.parse() {
                Ok(millis) => self.integer(millis),
                Err(_) => self.timestamp(text),
            },
            Kind::Date => self.date(text),
        }
    }

    /// Appends a value that [`Column::cell`] made for this column; `text` resolves the number of a text.
    pub fn append<'a>(&mut self, cell: Cell, text: impl Fn(u32) -> &'a str) -> usize {
        match (&mut self.builder, cell) {
            (Builder::Text(b), Cell::Text(at)) => {
                let text = text(at);
                b.append_value(text);
                return text.len() + size_of::<i32>();
            }
            // The cell was checked against the column's range when it was made.
            (Builder::Int32(b), Cell::Int(value)) => b.append_value(value as i32),
            (Builder::Date(b), Cell::Int(value)) => b.append_value(value as i32),
            (Builder::Int64(b), Cell::Int(value)) => b.append_value(value),
            (Builder::Timestamp(b), Cell::Int(value)) => b.append_value(value),
            (Builder::Float64(b), Cell::Float(value)) => b.append_value(value),
            (Builder::Boolean(b), Cell::Bool(value)) => b.append_value(value),
            (Builder::Text(b), _) => b.append_null(),
            (Builder::Int32(b), _) => b.append_null(),
            (Builder::Int64(b), _) => b.append_null(),
            (Builder::Float64(b), _) => b.append_null(),
            (Builder::Boolean(b), _) => b.append_null(),
            (Builder::Timestamp(b), _) => b.append_null(),
            (Builder::Date(b), _) => b.append_null(),
        }
        size_of::<i64>()
    }

    /// Takes the values appended so far.
    pub fn finish(&mut self) -> ArrayRef {
        match &mut self.builder {
            Builder::Text(b) => Arc::new(b.finish()),
            Builder::Int32(b) => Arc::new(b.finish()),
            Builder::Int64(b) => Arc::new(b.finish()),
            Builder::Float64(b) => Arc::new(b.finish()),
            Builder::Boolean(b) => Arc::new(b.finish()),
            Builder::Timestamp(b) => Arc::new(b.finish()),
            Builder::Date(b) => Arc::new(b.finish()),
        }
    }

    fn integer(&self, value: i128) -> Result<Cell, RowError> {
        let fitting = match self.kind {
            Kind::Int32 => i32::try_from(value).ok().map(i64::from),
            Kind::Timestamp => i64::try_from(value).ok().and_then(time::timestamp_from_millis),
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
        match self.kind {
            Kind::Text => "a string",
            Kind::Int32 => "an integer of 32 bits",
            Kind::Int64 => "an integer of 64 bits",
            Kind::Float64 => "a number",
            Kind::Boolean => "true or false",
            Kind::Timestamp => "a timestamp",
            Kind::Date => "a date",
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
