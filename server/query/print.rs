//! Rows as a table for people, as JSON lines or as CSV.

use std::io::{self, Write};

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::api::rows;
use crate::cli::query::Format;
use crate::preview::print::legible;

/// Times are UTC, and look as they do in JSON.
const TIMESTAMP: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

/// Writes rows as they come.
pub struct Printer {
    format: Format,
    schema: SchemaRef,
    /// Of the columns of a table, known from its first rows: what is wider later on is out of line.
    widths: Option<Vec<usize>>,
    count: u64,
}

impl Printer {
    pub fn new(format: Format, schema: SchemaRef) -> Printer {
        Printer {
            format,
            schema,
            widths: None,
            count: 0,
        }
    }

    pub fn rows(&mut self, batch: &RecordBatch, to: &mut impl Write) -> io::Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let first = self.count == 0;
        self.count += batch.num_rows() as u64;
        match self.format {
            Format::Json => {
                let lines = rows::lines(batch).map_err(io::Error::other)?;
                for line in lines.lines() {
                    writeln!(to, "{line}")?;
                }
                Ok(())
            }
            Format::Csv => {
                if first {
                    self.csv_names(to)?;
                }
                csv_rows(batch, to)
            }
            Format::Table => self.table_rows(batch, to),
        }
    }

    /// What follows the last row.
    pub fn end(&mut self, to: &mut impl Write) -> io::Result<()> {
        match (self.format, self.count) {
            (Format::Csv, 0) => self.csv_names(to),
            (Format::Table, 1) => writeln!(to, "(1 row)"),
            (Format::Table, count) => {
                if count == 0 {
                    self.head(&[], to)?;
                }
                writeln!(to, "({count} rows)")
            }
            _ => Ok(()),
        }
    }

    fn table_rows(&mut self, batch: &RecordBatch, to: &mut impl Write) -> io::Result<()> {
        let shown = |cell: &Option<String>| cell.as_deref().map_or("NULL".into(), legible);
        let columns = texts(batch)?;
        let columns: Vec<Vec<String>> = columns
            .iter()
            .map(|column| column.iter().map(shown).collect())
            .collect();
        if self.widths.is_none() {
            self.head(&columns, to)?;
        }
        let widths = self.widths.as_deref().unwrap_or_default();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|column| column[row].as_str());
            self.line(cells, widths, to)?;
        }
        Ok(())
    }

    /// The names of the columns, as wide as the first rows.
    fn head(&mut self, columns: &[Vec<String>], to: &mut impl Write) -> io::Result<()> {
        let names: Vec<String> = self.schema.fields().iter().map(|f| legible(f.name())).collect();
        let widths = names.iter().enumerate().map(|(n, name)| {
            let cells = columns.get(n).into_iter().flatten().chain([name]);
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        });
        let widths: Vec<usize> = widths.collect();
        self.line(names.iter().map(String::as_str), &widths, to)?;
        let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
        writeln!(to, "{}", rules.join("  "))?;
        self.widths = Some(widths);
        Ok(())
    }

    fn line<'a>(
        &self,
        cells: impl Iterator<Item = &'a str>,
        widths: &[usize],
        to: &mut impl Write,
    ) -> io::Result<()> {
        let mut line = String::new();
        for ((cell, width), field) in cells.zip(widths).zip(self.schema.fields()) {
            match field.data_type().is_numeric() {
                true => line += &format!("{cell:>width$}  "),
                false => line += &format!("{cell:<width$}  "),
            }
        }
        writeln!(to, "{}", line.trim_end())
    }

    fn csv_names(&self, to: &mut impl Write) -> io::Result<()> {
        let names: Vec<String> = self.schema.fields().iter().map(|f| quoted(f.name())).collect();
        writeln!(to, "{}", names.join(","))
    }
}

fn csv_rows(batch: &RecordBatch, to: &mut impl Write) -> io::Result<()> {
    let columns = texts(batch)?;
    for row in 0..batch.num_rows() {
        let cells = columns
            .iter()
            .map(|column| column[row].as_deref().map(quoted).unwrap_or_default());
        let cells: Vec<String> = cells.collect();
        writeln!(to, "{}", cells.join(","))?;
    }
    Ok(())
}

/// The cells of each column; none for NULL.
fn texts(batch: &RecordBatch) -> io::Result<Vec<Vec<Option<String>>>> {
    let options = FormatOptions::new()
        .with_timestamp_format(Some(TIMESTAMP))
        .with_timestamp_tz_format(Some(TIMESTAMP));
    let column = |column: &ArrayRef| {
        let format = ArrayFormatter::try_new(column, &options)?;
        let cell = |row| {
            column
                .is_valid(row)
                .then(|| format.value(row).try_to_string())
                .transpose()
        };
        (0..column.len()).map(cell).collect::<Result<_, ArrowError>>()
    };
    let columns = batch.columns().iter().map(column);
    columns
        .collect::<Result<_, ArrowError>>()
        .map_err(io::Error::other)
}

/// RFC 4180. An empty text has quotes, which tell it from NULL.
fn quoted(text: &str) -> String {
    match text.is_empty() || text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}
