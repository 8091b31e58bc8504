//! Lines to the tables they feed.
//!
//! A line is walked once ([`super::scan`]), which notes where the wanted values are; then each table takes its rows from
//! the notes: what a row takes from the root of the line may stand behind the list it is in.

use std::sync::Arc;

use arrow::array::RecordBatch;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

use super::errors::{Bad, Budget, Errors, PIPELINE_ERRORS};
use super::paths::Paths;
use super::row::{Index, Input, Rows};
use super::scan::{self, Kind, List, Notes, Raw};
use super::schema::{LogSchema, SourceType};

/// Maps the lines of one file.
pub struct LogMapper {
    file: String,
    paths: Paths,
    notes: Notes,
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
    /// Of a list: its slot in the line, and its number.
    list: Option<(usize, usize)>,
    rows: Rows,
}

impl LogMapper {
    /// For the lines of `file`, of a run that began at `start`. Bad rows are taken from `budget`.
    pub fn new(schema: &LogSchema, file: &str, start: Timestamp, budget: Arc<Budget>) -> LogMapper {
        let (mut paths, mut notes) = (Paths::new(), Notes::default());
        let tables = schema.tables.iter().map(|table| {
            let list = (table.source_type != SourceType::Dict).then(|| {
                let list = paths.list(&table.source, notes.lists.len());
                if list == notes.lists.len() {
                    notes.lists.push(List::new());
                }
                (paths.slot(&table.source), list)
            });
            let mut nothing = Paths::new();
            let element = list.map_or(&mut nothing, |(_, list)| &mut notes.lists[list].paths);
            Mapped {
                name: table.name.as_str().into(),
                source_type: table.source_type,
                source: table.source.join("."),
                list,
                rows: Rows::new(table, &mut paths, element),
            }
        });
        let tables: Vec<Mapped> = tables.collect();
        notes.slots.resize(paths.slots(), Raw::default());
        LogMapper {
            file: file.into(),
            takes_lists: tables.iter().any(|t| t.list.is_some() && t.source.is_empty()),
            paths,
            notes,
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

    /// Takes the beginning of a line that is longer than anyone wants to hold: it is bad.
    ///
    /// # Errors
    /// As with [`LogMapper::push_line`].
    pub fn push_too_long(&mut self, start: &[u8], most: usize) -> Result<()> {
        self.lines += 1;
        let bad = Bad::new("too_long", format!("the line is longer than {most} bytes"));
        self.errors.push(self.lines, &bad, start)
    }

    /// Takes a line at which a file cannot be read any more.
    ///
    /// # Errors
    /// As with [`LogMapper::push_line`].
    pub fn push_unreadable(&mut self, why: &str) -> Result<()> {
        self.lines += 1;
        let bad = Bad::new("unreadable", why);
        self.errors.push(self.lines, &bad, b"")
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
        let root = scan::line(text, &mut self.paths, &mut self.notes)?;
        match root.kind {
            Kind::Object => Ok(text),
            Kind::Array if self.takes_lists => Ok(text),
            _ => Err(Bad::new("not_an_object", "a line is a JSON object")),
        }
    }

    fn rows_of(&mut self, text: &str) -> Result<()> {
        let (file, line, number) = (&self.file, &self.notes.slots, self.lines);
        let (lists, errors) = (&self.notes.lists, &mut self.errors);
        for table in &mut self.tables {
            let name = Arc::clone(&table.name);
            let mut refuse = |bad: Bad| {
                let detail = format!("table {name:?}: {}", bad.detail);
                errors.push(number, &Bad { detail, ..bad }, text.as_bytes())
            };
            match table.list {
                Some((slot, list)) => {
                    let of = (line[slot], &lists[list]);
                    table.elements(of, (text, line, file), &mut refuse)?;
                }
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
        (list, elements): (Raw, &List),
        (text, line, file): (&str, &[Raw], &str),
        refuse: &mut impl FnMut(Bad) -> Result<()>,
    ) -> Result<()> {
        match (self.source_type, list.kind) {
            (_, Kind::Missing | Kind::Null) => return Ok(()),
            (SourceType::List, Kind::Array) | (SourceType::SparseList, Kind::Object) => {}
            (of, _) => return refuse(wrong_source(&self.source, of)),
        }
        for (position, (key, whole, slots)) in elements.elements().enumerate() {
            let index = match list.kind {
                Kind::Object => Index::Key(key),
                _ => Index::Number(position as u64),
            };
            let input = Input {
                text,
                line,
                element: Some((whole, slots, index)),
                file,
            };
            self.rows.push(&input).or_else(&mut *refuse)?;
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
