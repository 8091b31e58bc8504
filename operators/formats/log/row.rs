//! The rows of one table: every value of a row is checked before one of them is appended, so that a bad row leaves the
//! builders as they were.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder,
    Int32Builder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, SchemaRef};
use millstream_engine::{Error, Result};

use super::cell::{Cell, Made, Scratch, Takes};
use super::errors::Bad;
use super::paths::Paths;
use super::scan::{Kind, Raw};
use super::schema::{Column, From, SourceType, Table};
use crate::warehouse::types::SqlType;

/// The key under which a value is found that is no object.
const VALUE: &str = "value";

/// Collects rows of one table.
pub(super) struct Rows {
    schema: SchemaRef,
    columns: Vec<Out>,
    cells: Vec<Cell>,
    /// What had to be rewritten of the row.
    scratch: Scratch,
    rows: usize,
    bytes: usize,
}

/// A column and the values appended to it so far.
struct Out {
    name: String,
    takes: Takes,
    needs_value: bool,
    place: Place,
    builder: Builder,
}

/// Where a value is.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A slot of the line.
    Line(usize),
    /// A slot of the element.
    Element(usize),
    /// A slot, and if nothing is there, the whole of what the row is made of.
    Value {
        slot: usize,
        of: Whole,
        objects: bool,
    },
    Index,
    FileName,
    Nothing,
}

/// What a row is made of.
#[derive(Clone, Copy, Debug)]
enum Whole {
    /// A slot of the line.
    Line(usize),
    Element,
}

/// What a row is made from.
pub(super) struct Input<'a> {
    /// The line, and the slots in it.
    pub text: &'a str,
    pub line: &'a [Raw],
    /// The element, its slots, and its place in the list.
    pub element: Option<(Raw, &'a [Raw], Index)>,
    pub file: &'a str,
}

/// The place of an element.
#[derive(Clone, Copy, Debug)]
pub(super) enum Index {
    Number(u64),
    /// The key in a sparse list.
    Key(Raw),
}

impl Rows {
    /// Prepares for a table: its paths get slots.
    pub fn new(table: &Table, line: &mut Paths, element: &mut Paths) -> Rows {
        let alone = table
            .columns
            .iter()
            .filter(|c| matches!(c.from, From::Row(_)))
            .count()
            == 1;
        let columns = table.columns.iter().map(|column| {
            let place = place(table, column, alone, line, element);
            Out::new(column, place)
        });
        let columns: Vec<Out> = columns.collect();
        Rows {
            schema: table.arrow(),
            cells: vec![Cell::Null; columns.len()],
            columns,
            scratch: Scratch::default(),
            rows: 0,
            bytes: 0,
        }
    }

    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a row, or says why it is none.
    pub fn push(&mut self, input: &Input<'_>) -> Result<(), Bad> {
        self.scratch.clear();
        for (column, cell) in self.columns.iter().zip(&mut self.cells) {
            let found = column.cell(input, &mut self.scratch);
            *cell = found.map_err(|bad| Bad {
                detail: format!("column {:?}: {}", column.name, bad.detail),
                ..*bad
            })?;
        }
        for (column, cell) in self.columns.iter_mut().zip(&self.cells) {
            self.bytes += column.builder.append(*cell, input.text, &self.scratch);
        }
        self.rows += 1;
        Ok(())
    }

    /// Takes the rows appended so far.
    pub fn finish(&mut self) -> Result<RecordBatch> {
        (self.rows, self.bytes) = (0, 0);
        let columns = self.columns.iter_mut().map(|c| c.builder.finish()).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|e| Error::bug(format!("rows are checked before they are appended: {e}")))
    }
}

fn place(table: &Table, column: &Column, alone: bool, line: &mut Paths, element: &mut Paths) -> Place {
    let in_element = table.source_type != SourceType::Dict;
    let path = match &column.from {
        From::Nothing => return Place::Nothing,
        From::FileName => return Place::FileName,
        From::Index => return Place::Index,
        From::Line(path) => return Place::Line(line.slot(path)),
        From::Row(path) => path,
    };
    let below_source = || [&table.source[..], path].concat();
    let is_value = path.len() == 1 && path[0] == VALUE;
    // An object without such a member is the value only where nothing else is asked of it.
    let objects = column.is_json && alone;
    match (in_element, is_value) {
        (true, false) => Place::Element(element.slot(path)),
        (true, true) => Place::Value {
            slot: element.slot(path),
            of: Whole::Element,
            objects,
        },
        (false, true) if !table.source.is_empty() => Place::Value {
            slot: line.slot(&below_source()),
            of: Whole::Line(line.slot(&table.source)),
            objects,
        },
        (false, _) => Place::Line(line.slot(&below_source())),
    }
}

impl Out {
    fn new(column: &Column, place: Place) -> Out {
        let of = column.sql.of;
        Out {
            name: column.name.clone(),
            takes: Takes {
                of,
                json: column.is_json,
            },
            needs_value: column.needs_value() && column.from != From::Nothing,
            place,
            builder: Builder::new(of),
        }
    }

    fn cell(&self, input: &Input<'_>, scratch: &mut Scratch) -> Made {
        let raw = match self.place {
            Place::Line(slot) => input.line[slot],
            Place::Element(slot) => input
                .element
                .as_ref()
                .map_or(Raw::default(), |(_, slots, _)| slots[slot]),
            Place::Value { slot, of, objects } => whole_value(input, slot, of, objects),
            Place::Index => match input.element {
                Some((_, _, Index::Key(key))) => key,
                Some((_, _, Index::Number(number))) => match self.takes.integer(number) {
                    Some(cell) => return Ok(cell),
                    None => return self.written(&number.to_string(), Kind::Number, scratch),
                },
                None => Raw::default(),
            },
            Place::FileName => return self.written(input.file, Kind::String, scratch),
            Place::Nothing => return Ok(Cell::Null),
        };
        let cell = self.takes.cell(raw, input.text, scratch)?;
        match cell {
            Cell::Null if self.needs_value => {
                let is = if raw.kind == Kind::Null {
                    "is null"
                } else {
                    "is missing"
                };
                Err(Bad::new("missing_value", format!("{is}, and must have a value")).into())
            }
            cell => Ok(cell),
        }
    }

    /// The cell of a text that is not in the line.
    fn written(&self, text: &str, kind: Kind, scratch: &mut Scratch) -> Made {
        let raw = Raw {
            kind,
            escaped: false,
            start: 0,
            end: text.len() as u32,
        };
        Ok(match self.takes.cell(raw, text, scratch)? {
            Cell::Line(start, end) => {
                let to = &mut scratch.text;
                let from = to.len() as u32;
                to.push_str(&text[start as usize..end as usize]);
                Cell::Scratch(from, to.len() as u32)
            }
            cell => cell,
        })
    }
}

fn whole_value(input: &Input<'_>, slot: usize, of: Whole, objects: bool) -> Raw {
    let (member, whole) = match (of, &input.element) {
        (Whole::Line(whole), _) => (input.line[slot], input.line[whole]),
        (Whole::Element, Some((whole, slots, _))) => (slots[slot], *whole),
        (Whole::Element, None) => return Raw::default(),
    };
    match (member.kind, whole.kind) {
        (Kind::Missing, Kind::Object) if objects => whole,
        (_, Kind::Object) => member,
        _ => whole,
    }
}

/// Where the values of a column are collected.
enum Builder {
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder),
    Boolean(BooleanBuilder),
    Text(StringBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
}

impl Builder {
    fn new(of: SqlType) -> Builder {
        match of {
            SqlType::SmallInt => Builder::Int16(Int16Builder::new()),
            SqlType::Integer => Builder::Int32(Int32Builder::new()),
            SqlType::BigInt => Builder::Int64(Int64Builder::new()),
            SqlType::Real => Builder::Float32(Float32Builder::new()),
            SqlType::Double => Builder::Float64(Float64Builder::new()),
            SqlType::Decimal(..) => Builder::Decimal(Decimal128Builder::new().with_data_type(of.to_arrow())),
            SqlType::Boolean => Builder::Boolean(BooleanBuilder::new()),
            SqlType::Char(_) | SqlType::Varchar(_) | SqlType::Super => Builder::Text(StringBuilder::new()),
            SqlType::Date => Builder::Date(Date32Builder::new()),
            SqlType::Timestamp | SqlType::TimestampTz => {
                let DataType::Timestamp(_, zone) = of.to_arrow() else {
                    unreachable!("timestamps are timestamps in Arrow");
                };
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_timezone_opt(zone))
            }
        }
    }

    /// Appends a cell that was made for this column; gives back how many bytes it takes, about.
    fn append(&mut self, cell: Cell, line: &str, scratch: &Scratch) -> usize {
        match (self, cell) {
            (Builder::Text(b), Cell::Line(start, end)) => {
                b.append_value(&line[start as usize..end as usize]);
                return (end - start) as usize + size_of::<i32>();
            }
            (Builder::Text(b), Cell::Scratch(start, end)) => {
                b.append_value(&scratch.text[start as usize..end as usize]);
                return (end - start) as usize + size_of::<i32>();
            }
            // The cell was checked against the column's range when it was made.
            (Builder::Int16(b), Cell::Int(value)) => b.append_value(value as i16),
            (Builder::Int32(b), Cell::Int(value)) => b.append_value(value as i32),
            (Builder::Date(b), Cell::Int(value)) => b.append_value(value as i32),
            (Builder::Int64(b), Cell::Int(value)) => b.append_value(value),
            (Builder::Timestamp(b), Cell::Int(value)) => b.append_value(value),
            (Builder::Decimal(b), Cell::Wide(at)) => b.append_value(scratch.wide[at as usize]),
            (Builder::Float32(b), Cell::Float(value)) => b.append_value(value as f32),
            (Builder::Float64(b), Cell::Float(value)) => b.append_value(value),
            (Builder::Boolean(b), Cell::Bool(value)) => b.append_value(value),
            (Builder::Int16(b), _) => b.append_null(),
            (Builder::Int32(b), _) => b.append_null(),
            (Builder::Int64(b), _) => b.append_null(),
            (Builder::Float32(b), _) => b.append_null(),
            (Builder::Float64(b), _) => b.append_null(),
            (Builder::Decimal(b), _) => b.append_null(),
            (Builder::Boolean(b), _) => b.append_null(),
            (Builder::Text(b), _) => b.append_null(),
            (Builder::Date(b), _) => b.append_null(),
            (Builder::Timestamp(b), _) => b.append_null(),
        }
        size_of::<i64>()
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Int16(b) => Arc::new(b.finish()),
            Builder::Int32(b) => Arc::new(b.finish()),
            Builder::Int64(b) => Arc::new(b.finish()),
            Builder::Float32(b) => Arc::new(b.finish()),
            Builder::Float64(b) => Arc::new(b.finish()),
            Builder::Decimal(b) => Arc::new(b.finish()),
            Builder::Boolean(b) => Arc::new(b.finish()),
            Builder::Text(b) => Arc::new(b.finish()),
            Builder::Date(b) => Arc::new(b.finish()),
            Builder::Timestamp(b) => Arc::new(b.finish()),
        }
    }
}
