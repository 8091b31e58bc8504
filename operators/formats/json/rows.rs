//! One row at a time: find each field's column, check its value, and only then append, so that a bad row
//! leaves the builders as they were.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_engine::source::RECEIVED_AT;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use simd_json::Node;

use super::RowError;
use super::column::{Cell, Column};

/// Fields of a row whose order is remembered. Rows of one producer have their fields in one order, so the
/// column of field *k* is guessed from the row before, which costs one comparison instead of a lookup.
/// Fields beyond are looked up.
const GUESSES: usize = 256;

/// Where the field at one position of the last row went.
#[derive(Default)]
struct Guess {
    field: String,
    column: Option<usize>,
}

/// What becomes of the column `received_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is a column like any other.
    Given,
    /// It takes the time of arrival; no input can set it.
    Stamped,
    /// It takes the time of arrival where the input does not say.
    Filled,
}

/// The rows decoded since the last [`Rows::finish`].
pub(super) struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
    by_name: HashMap<String, usize>,
    /// The column that takes the time of arrival.
    arrival: Option<usize>,
    /// Whether it takes that only where the input does not say.
    fills: bool,
    guesses: Vec<Guess>,
    /// The row being checked; one cell per column.
    cells: Vec<Cell>,
    appended: usize,
    bytes: usize,
}

impl Rows {
    pub fn new(schema: SchemaRef, arrival: Arrival) -> Result<Rows> {
        let columns = schema
            .fields()
            .iter()
            .map(|field| Column::new(field))
            .collect::<Result<Vec<_>>>()?;
        let fills = arrival == Arrival::Filled;
        let arrival = match columns.iter().position(|c| c.name == RECEIVED_AT) {
            Some(at) if arrival != Arrival::Given => Some(at),
            _ => None,
        };
        let by_name = columns
            .iter()
            .enumerate()
            .filter(|(at, _)| fills || Some(*at) != arrival)
            .map(|(at, column)| (column.name.clone(), at))
            .collect();
        Ok(Rows {
            cells: vec![Cell::Missing; columns.len()],
            schema,
            columns,
            by_name,
            arrival,
            fills,
            guesses: Vec::new(),
            appended: 0,
            bytes: 0,
        })
    }

    /// Rows appended since the last [`Rows::finish`].
    pub fn appended(&self) -> usize {
        self.appended
    }

    /// About how much memory the appended rows take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends the row at `tape[at]`.
    pub fn push(&mut self, tape: &[Node<'_>], at: usize, arrived: Timestamp) -> Result<(), RowError> {
        let Node::Object { len, .. } = tape[at] else {
            return Err(RowError::new("not_an_object", "a row must be a JSON object"));
        };
        self.begin(arrived);
        let mut key = at + 1;
        for position in 0..len {
            let value = key + 1;
            if let Some(column) = self.column_of(position, text(tape, key)) {
                let cell = self.columns[column].cell(&tape[value], value as u32)?;
                self.set(column, cell)?;
            }
            key = value + nodes(&tape[value]);
        }
        self.end(arrived)?;
        self.append(|node| text(tape, node as usize));
        Ok(())
    }

    /// Appends the row that the pairs of a query string write.
    pub fn push_pairs(
        &mut self,
        pairs: &[(Cow<'_, str>, Cow<'_, str>)],
        arrived: Timestamp,
    ) -> Result<(), RowError> {
        self.begin(arrived);
        for (at, (name, value)) in pairs.iter().enumerate() {
            if let Some(&column) = self.by_name.get(name.as_ref()) {
                let cell = self.columns[column].cell_of_text(value, at as u32)?;
                self.set(column, cell)?;
            }
        }
        self.end(arrived)?;
        self.append(|at| &pairs[at as usize].1);
        Ok(())
    }

    /// Takes the rows appended so far.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        self.appended = 0;
        self.bytes = 0;
        RecordBatch::try_new(self.schema.clone(), columns)
            .map_err(|e| Error::bug(format!("rows are checked before they are appended: {e}")))
    }

    fn begin(&mut self, arrived: Timestamp) {
        self.cells.fill(Cell::Missing);
        if let Some(column) = self.arrival.filter(|_| !self.fills) {
            self.cells[column] = Cell::Int(arrived.0);
        }
    }

    fn end(&mut self, arrived: Timestamp) -> Result<(), RowError> {
        if let Some(column) = self.arrival.filter(|_| self.fills)
            && matches!(self.cells[column], Cell::Missing)
        {
            self.cells[column] = Cell::Int(arrived.0);
        }
        self.check()
    }

    fn set(&mut self, column: usize, cell: Cell) -> Result<(), RowError> {
        if !matches!(self.cells[column], Cell::Missing) {
            let message = format!("{:?} is given more than once", self.columns[column].name);
            return Err(RowError::new("duplicate_field", message));
        }
        self.cells[column] = cell;
        Ok(())
    }

    fn check(&self) -> Result<(), RowError> {
        for (column, cell) in self.columns.iter().zip(&self.cells) {
            let absent = match cell {
                Cell::Missing => "is missing",
                Cell::Null => "is null",
                _ => continue,
            };
            if !column.nullable {
                let message = format!("{:?} {absent} but declared not null", column.name);
                return Err(RowError::new("missing_field", message));
            }
        }
        Ok(())
    }

    fn append<'a>(&mut self, text: impl Fn(u32) -> &'a str) {
        for (column, cell) in self.columns.iter_mut().zip(&self.cells) {
            self.bytes += column.append(*cell, &text);
        }
        self.appended += 1;
    }

    /// The column of the field at `position`: as in the row before, if the name is the same.
    fn column_of(&mut self, position: usize, field: &str) -> Option<usize> {
        if let Some(guess) = self.guesses.get(position)
            && guess.field == field
        {
            return guess.column;
        }
        let column = self.by_name.get(field).copied();
        self.remember(position, field, column);
        column
    }

    fn remember(&mut self, position: usize, field: &str, column: Option<usize>) {
        // An unknown name is the client's text: it is compared next time, but a long one is not kept.
        const LONGEST_NAME: usize = 128;
        if position >= GUESSES || field.len() > LONGEST_NAME {
            return;
        }
        if self.guesses.len() <= position {
            self.guesses.resize_with(position + 1, Guess::default);
        }
        let guess = &mut self.guesses[position];
        guess.field.clear();
        guess.field.push_str(field);
        guess.column = column;
    }
}

/// Nodes of the tape that a value takes, itself included.
pub(super) fn nodes(value: &Node<'_>) -> usize {
    match value {
        Node::Object { count, .. } | Node::Array { count, .. } => count + 1,
        _ => 1,
    }
}

/// The text at `tape[at]`, where the format of the tape says there is one.
pub(super) fn text<'a>(tape: &[Node<'a>], at: usize) -> &'a str {
    match tape[at] {
        Node::String(text) => text,
        _ => unreachable!("object keys and text cells are strings"),
    }
}
