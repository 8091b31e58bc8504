//! `millstream schema infer`: lines on standard input, a schema on standard output, in the options of the predecessor.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use millstream_operators::formats::files::Packing;
use millstream_operators::formats::log::infer::{self, Options};
use millstream_operators::formats::log::{SourceType, merge};

use super::files;
use crate::cli::Exit;

/// What to look for.
#[derive(Args, Clone, Debug)]
pub struct Infer {
    /// How many levels of objects become columns of their own; -1: all
    #[arg(short, long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    depth: i64,
    /// A path from the root of a line whose value each row takes; may be given several times
    #[arg(short, long, value_name = "KEY")]
    foreign: Vec<String>,
    /// A path from the source that is left out; may be given several times
    #[arg(short, long, value_name = "KEY")]
    exclude: Vec<String>,
    /// Name of the table
    #[arg(short, long, value_name = "NAME", default_value = "some_name")]
    table: String,
    /// A path from the source that becomes one column of JSON; may be given several times
    #[arg(short, long, value_name = "KEY")]
    prune: Vec<String>,
    /// The path to what rows are made of; empty: the line
    #[arg(short, long, value_name = "PATH", default_value = "")]
    source: String,
    /// What is at the source: one row, a list of them, or an object of them whose keys are numbers
    #[arg(long, value_name = "TYPE", default_value = "dict")]
    source_type: SourceTypeName,
    /// Add a column with the name of the file that a row is from
    #[arg(long)]
    add_source_filename: bool,
    /// Put the table into this schema, in the place of one of the same name; the version is one more
    #[arg(long, value_name = "FILE")]
    merge_with_schema: Option<PathBuf>,
    /// Types and widths exactly as Mycroft's log2schema would write them, and stop where it would
    #[arg(long)]
    compat: bool,
}

/// What is at the source.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum SourceTypeName {
    /// One row.
    Dict,
    /// A list of rows.
    List,
    /// An object of rows, whose keys are numbers.
    SparseList,
}

pub fn run(wanted: &Infer) -> anyhow::Result<Exit> {
    let base = match wanted.merge_with_schema.as_deref().map(files::load) {
        None => None,
        Some(Ok(base)) => Some(base),
        Some(Err(exit)) => return Ok(exit),
    };
    let mut looking = infer::Infer::new(wanted.options());
    let mut lines = stdin()?;
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        looking.push_line(&line)?;
        line.clear();
    }
    let found = looking.finish()?;
    for report in &found.reports {
        eprintln!("note: {report}");
    }
    let schema = merge::with_table(base.as_ref(), &wanted.table, found.table);
    let comment = if wanted.compat { COMMENT } else { "" };
    print!("{comment}{}", schema.write());
    Ok(Exit::Ok)
}

/// What `--compat` puts ahead of a schema, as the predecessor did: how it is to be read, in our words.
const COMMENT: &str = "\
# tables:
#   <table>:
#     src: <path>               # from the root of a line to what rows are made of; '': the line
#     src_type: <type>          # dict: a row; list: a row per element; sparse_list: a row per numbered key
#     sortkey_attr: [<column>]  # what the table is sorted by
#     columns:
#     - log_key: <path>         # from the source to the value; index: the place in the list, value: an element itself
#       sql_attr: <type>        # and, behind it, distkey, not null, default ...
#       name: <column>          # where it is not the log_key
#       is_foreign: true        # log_key is a path from the root of the line
#       is_json: true           # written as JSON
#       is_mandatory: true      # a row without it is bad
#       is_derived: true        # from the row's origin: __source_filename__
#       is_noop: true           # declared, and written by something else
";

impl Infer {
    fn options(&self) -> Options {
        Options {
            depth: self.depth,
            foreign: self.foreign.clone(),
            exclude: self.exclude.clone(),
            prune: self.prune.clone(),
            table: self.table.clone(),
            source: self.source.clone(),
            source_type: match self.source_type {
                SourceTypeName::Dict => SourceType::Dict,
                SourceTypeName::List => SourceType::List,
                SourceTypeName::SparseList => SourceType::SparseList,
            },
            add_source_filename: self.add_source_filename,
            compat: self.compat,
        }
    }
}

/// Standard input, unpacked if it is packed.
fn stdin() -> anyhow::Result<Box<dyn BufRead>> {
    let mut first = Vec::new();
    std::io::stdin().lock().take(4).read_to_end(&mut first)?;
    let packing = Packing::of_bytes(&first);
    let whole = std::io::Cursor::new(first).chain(std::io::stdin());
    Ok(match packing {
        Some(packing) => Box::new(BufReader::new(packing.unpack(whole)?)),
        None => Box::new(BufReader::new(whole)),
    })
}
