//! A schema from lines of a log: which keys there are, what is under them, and how wide it is.
//!
//! Objects in objects are walked through, down to a depth; what is found at their ends becomes columns, named by the
//! path with `_` between its keys. Lists, and objects below the depth, become columns of JSON.
//!
//! By default widths are in bytes and have room to grow, and what does not fit together is told and given a column that
//! holds all of it ([`widen`]). For whoever compares with what the predecessor wrote, [`Options::compat`] sizes as it
//! did and stops where it stopped ([`compat`]).

mod compat;
mod walk;
mod widen;

use std::collections::BTreeSet;

use millstream_engine::{Error, Result};

use self::compat::Compat;
use self::widen::Widened;
use super::column::SOURCE_FILENAME;
use super::paths::Paths;
use super::scan::{self, Kind, Notes};
use super::schema::SourceType;
use super::tree::Tree;

/// What is wanted, in the words of the predecessor.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many levels of objects are walked through; below zero: all.
    pub depth: i64,
    /// Paths from the root whose values each row takes.
    pub foreign: Vec<String>,
    /// Paths from the source that are left out.
    pub exclude: Vec<String>,
    /// Paths from the source that are not walked through.
    pub prune: Vec<String>,
    /// Name of the table.
    pub table: String,
    /// The path to what rows are made of; empty: the line.
    pub source: String,
    /// What is there.
    pub source_type: SourceType,
    /// Whether each row says which file it is from.
    pub add_source_filename: bool,
    /// Whether types are those that the predecessor would have written.
    pub compat: bool,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Inferred {
    /// The table, to be put into a schema.
    pub table: Tree,
    /// What a person should look at.
    pub reports: Vec<String>,
}

/// Looks at lines.
pub struct Infer {
    options: Options,
    /// Nothing is noted by path: each member is looked at.
    paths: Paths,
    lines: u64,
    bad_lines: u64,
    reports: Vec<String>,
    found: Found,
}

enum Found {
    Compat(Compat),
    Widened(Widened),
}

/// Lines that are told of one by one.
const TOLD_LINES: u64 = 10;

impl Infer {
    /// With nothing seen.
    pub fn new(mut options: Options) -> Infer {
        options.foreign.sort();
        options.foreign.dedup();
        let found = match options.compat {
            true => Found::Compat(Compat::default()),
            false => Found::Widened(Widened::default()),
        };
        Infer {
            options,
            paths: Paths::new(),
            lines: 0,
            bad_lines: 0,
            reports: Vec::new(),
            found,
        }
    }

    /// Takes the next line.
    ///
    /// # Errors
    /// Of class data, where the predecessor stopped, and only if its types are wanted.
    pub fn push_line(&mut self, line: &[u8]) -> Result<()> {
        self.lines += 1;
        let looked = self.look(line);
        let Err(e) = looked else {
            return Ok(());
        };
        let e = e.within(format!("line {}", self.lines));
        if self.options.compat {
            return Err(e);
        }
        self.bad_lines += 1;
        if self.bad_lines <= TOLD_LINES {
            self.reports.push(format!("{e}; it is passed over"));
        }
        Ok(())
    }

    fn look(&mut self, line: &[u8]) -> Result<()> {
        let line = line.trim_ascii();
        if line.is_empty() && !self.options.compat {
            return Ok(());
        }
        let text = std::str::from_utf8(line).map_err(|e| Error::data(format!("this is not UTF-8: {e}")))?;
        let root = scan::line(text, &mut self.paths, &mut Notes::default());
        let root = root.map_err(|bad| Error::data(format!("this is not JSON: {}", bad.detail)))?;
        let is_list = root.kind == Kind::Array && self.options.source_type == SourceType::List;
        if root.kind != Kind::Object && !(is_list && self.options.source.is_empty()) {
            return Err(Error::data("this is not a JSON object"));
        }
        let walk = walk::Walk::new(text, &self.options, self.lines);
        match &mut self.found {
            Found::Compat(found) => walk.line(root, found),
            Found::Widened(found) => walk.line(root, found),
        }
    }

    /// The table of what was seen.
    ///
    /// # Errors
    /// Of class data, where the predecessor stopped, and only if its types are wanted.
    pub fn finish(mut self) -> Result<Inferred> {
        if self.bad_lines > TOLD_LINES {
            let more = self.bad_lines - TOLD_LINES;
            self.reports.push(format!("{more} more lines are passed over"));
        }
        let columns = match self.found {
            Found::Compat(found) => found.columns(&self.options)?,
            Found::Widened(found) => found.columns(&self.options, &mut self.reports),
        };
        let mut all = leading(&self.options);
        all.extend(columns);
        let source_type = match self.options.source_type {
            SourceType::Dict => "dict",
            SourceType::List => "list",
            SourceType::SparseList => "sparse_list",
        };
        let table = Tree::map([
            ("columns", Tree::List(all)),
            ("sortkey_attr", Tree::List(Vec::new())),
            ("src", Tree::text(self.options.source)),
            ("src_type", Tree::text(source_type)),
        ]);
        let reports = self.reports;
        Ok(Inferred { table, reports })
    }
}

/// Columns that are not looked for.
fn leading(options: &Options) -> Vec<Tree> {
    let mut columns = Vec::new();
    if options.source_type != SourceType::Dict {
        columns.push(Tree::map([
            ("is_mandatory", Tree::Bool(true)),
            ("log_key", Tree::text("index")),
            ("sql_attr", Tree::text("smallint not null")),
        ]));
    }
    if options.add_source_filename {
        columns.push(Tree::map([
            ("is_derived", Tree::Bool(true)),
            ("name", Tree::text(SOURCE_FILENAME)),
            ("sql_attr", Tree::text("varchar(4096)")),
        ]));
    }
    columns
}

/// Names that columns have before any is looked for.
fn leading_names(options: &Options) -> BTreeSet<String> {
    let index = (options.source_type != SourceType::Dict).then(|| "index".to_owned());
    let file = options.add_source_filename.then(|| SOURCE_FILENAME.to_owned());
    index.into_iter().chain(file).collect()
}

/// A column as it is written.
fn column(key: &str, name: &str, sql: &str, is_json: bool, is_foreign: bool) -> Tree {
    let mut entries = vec![("log_key", Tree::text(key)), ("sql_attr", Tree::text(sql))];
    if name != key {
        entries.push(("name", Tree::text(name)));
    }
    if is_json {
        entries.push(("is_json", Tree::Bool(true)));
    }
    if is_foreign {
        entries.push(("is_foreign", Tree::Bool(true)));
    }
    Tree::map(entries)
}
