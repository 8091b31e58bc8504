//! Lines to the tables they feed.
//!
//! A line is walked once ([`super::scan`]), which notes where the wanted values are; then each table takes its rows from
//! the notes. Lists are walked a second time, element by element, as what a row takes from the root of the line may
//! stand behind them.

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use super::errors::{Bad, Budget, Errors, PIPELINE_ERRORS};
use super::paths::Paths;
use super::row::{Index, Input, Rows};
use super::scan::{self, Kind, Members, Raw};
use super::schema::{LogSchema, SourceType};

/// Maps the lines of one file.
pub struct LogMapper {
    file: String,
    paths: Paths,
    slots: Vec<Raw>,
    tables: Vec<Mapped>,
    errors: Errors,
    /// Whether a line may be a list.
    takes_lists: bool,
    lines: u64,
}

/// A table and the rows mapped so far.
struct Mapped {
    name: Arc<str>,
    source_type: SourceType,
    source: String,
    /// Where the list is in the line.
    list: Option<usize>,
    paths: Paths,
    slots: Vec<Raw>,
    rows: Rows,
}

impl LogMapper {
    /// For the lines of `file`, of a run that began at `start`. Bad rows are taken from `budget`.
    pub fn new(schema: &LogSchema, file: &str, start: Timestamp, budget: Arc<Budget>) -> LogMapper {
        let mut paths = Paths::new();
        let tables = schema.tables.iter().map(|table| {
            let mut element = Paths::new();
            let rows = Rows::new(table, &mut paths, &mut element);
            let in_list = table.source_type != SourceType::Dict;
            Mapped {
                name: table.name.as_str().into(),
                source_type: table.source_type,
                source: table.source.join("."),
                list: in_list.then(|| paths.slot(&table.source)),
                slots: vec![Raw::default(); element.slots()],
                paths: element,
                rows,
            }
        });
        let tables: Vec<Mapped> = tables.collect();
        LogMapper {
            file: file.into(),
            slots: vec![Raw::default(); paths.slots()],
            paths,
            takes_lists: tables.iter().any(|t| t.list.is_some() && t.source.is_empty()),
            tables,
            errors: Errors::new(file, start, budget),
            lines: 0,
        }
    }

    /// Goes on behind so many lines of the file.
    pub fn resume(mut self, lines: u64) -> LogMapper {
        self.lines = lines;
        self
    }

    /// Lines so far, with those that were passed over.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Rows since the last [`LogMapper::finish`], good and bad.
    pub fn rows(&self) -> usize {
        self.errors.rows() + self.tables.iter().map(|t| t.rows.rows()).sum::<usize>()
    }

    /// About how many bytes they take in memory.
    pub fn bytes(&self) -> usize {
        self.errors.bytes() + self.tables.iter().map(|t| t.rows.bytes()).sum::<usize>()
    }

    /// Takes the next line. A blank one has no rows.
    ///
    /// # Errors
    /// Of class data: there are more bad rows than the budget has.
    pub fn push_line(&mut self, line: &[u8]) -> Result<()> {
        self.lines += 1;
        let text = match self.lines {
            1 => line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line),
            _ => line,
        };
        let text = text.trim_ascii();
        if text.is_empty() {
            return Ok(());
        }
        match self.scan(text) {
            Ok(text) => self.rows_of(text),
            Err(bad) => self.errors.push(self.lines, &bad, text),
        }
    }

    /// Notes what is wanted of a line.
    fn scan<'l>(&mut self, line: &'l [u8]) -> Result<&'l str, Bad> {
        let text = std::str::from_utf8(line).map_err(|e| {
            let at = e.valid_up_to() + 1;
            Bad::new("invalid_text", format!("byte {at} of the line is not UTF-8"))
        })?;
        if u32::try_from(text.len()).is_err() {
            return Err(Bad::new("too_long", "a line has less than 4 GiB"));
        }
        let root = scan::line(text, &mut self.paths, &mut self.slots)?;
        match root.kind {
            Kind::Object => Ok(text),
            Kind::Array if self.takes_lists => Ok(text),
            _ => Err(Bad::new("not_an_object", "a line is a JSON object")),
        }
    }

    fn rows_of(&mut self, text: &str) -> Result<()> {
        let (file, line, errors, number) = (&self.file, &self.slots, &mut self.errors, self.lines);
        for table in &mut self.tables {
            let name = Arc::clone(&table.name);
            let mut refuse = |bad: Bad| {
                let detail = format!("table {name:?}: {}", bad.detail);
                errors.push(number, &Bad { detail, ..bad }, text.as_bytes())
            };
            match table.list {
                Some(list) => table.elements(line[list], (text, line, file), &mut refuse)?,
                None => {
                    let input = Input {
                        text,
                        line,
                        element: None,
                        file,
                    };
                    table.rows.push(&input).or_else(refuse)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the rows so far, by table; tables without any are left out.
    pub fn finish(&mut self) -> Result<Vec<(String, RecordBatch)>> {
        let mut batches = Vec::new();
        for table in self.tables.iter_mut().filter(|t| t.rows.rows() > 0) {
            let rows = table.rows.finish();
            let rows = rows.map_err(|e: Error| e.within(format!("table {:?}", table.name)))?;
            batches.push((table.name.to_string(), rows));
        }
        if self.errors.rows() > 0 {
            batches.push((PIPELINE_ERRORS.to_owned(), self.errors.finish()?));
        }
        Ok(batches)
    }
}

impl Mapped {
    /// Takes a row from each element of a list.
    fn elements(
        &mut self,
        list: Raw,
        (text, line, file): (&str, &[Raw], &str),
        refuse: &mut impl FnMut(Bad) -> Result<()>,
    ) -> Result<()> {
        match (self.source_type, list.kind) {
            (_, Kind::Missing | Kind::Null) => return Ok(()),
            (SourceType::List, Kind::Array) | (SourceType::SparseList, Kind::Object) => {}
            (of, _) => return refuse(wrong_source(&self.source, of)),
        }
        let mut members = Members::new(text, list);
        let mut position = 0;
        while let Some((key, value)) = members.next(&mut self.paths, &mut self.slots) {
            let index = match list.kind {
                Kind::Object => Index::Key(key),
                _ => Index::Number(position),
            };
            let input = Input {
                text,
                line,
                element: Some((value, &self.slots, index)),
                file,
            };
            self.rows.push(&input).or_else(&mut *refuse)?;
            position += 1;
        }
        Ok(())
    }
}

fn wrong_source(source: &str, of: SourceType) -> Bad {
    let expected = match of {
        SourceType::SparseList => "an object whose keys are numbers",
        _ => "a list",
    };
    let detail = match source {
        "" => format!("the line is not {expected}"),
        _ => format!("src {source:?} is not {expected}"),
    };
    Bad::new("wrong_source", detail)
}
