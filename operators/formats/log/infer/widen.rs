//! Types with room to grow: a text may be twice as long as the longest that was seen, and numbers of a few digits may
//! get more. What does not fit together becomes a column that holds all of it, and is told.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::Result;

use super::super::scan::Kind;
use super::super::schema::SourceType;
use super::super::tree::Tree;
use super::walk::{Found, Notes};
use super::{Options, column, leading_names};
use crate::warehouse::types::VARCHAR_MAX;

/// The narrowest text.
const NARROWEST: usize = 16;

/// Bytes of a name in a warehouse.
const NAME_BYTES: usize = 127;

/// Values that fit `int2` and `int4` with room for a digit more, as with the predecessor.
const INT2: i128 = 9_999;
const INT4: i128 = 999_999_999;

/// Digits of a `decimal`.
const DECIMAL: i128 = 10_i128.pow(37);

/// What was seen, by key; of foreign keys first.
#[derive(Default)]
pub(super) struct Widened {
    seen: BTreeMap<(Origin, String), Seen>,
    nameless: BTreeMap<String, u64>,
}

/// Where a key starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Line,
    Row,
}

/// Kinds of values, in the order they are told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Bool,
    Int,
    Float,
    Text,
    List,
    Object,
}

#[derive(Default)]
struct Seen {
    /// How many of each kind, and the first line with one.
    kinds: BTreeMap<Of, (u64, u64)>,
    /// The longest, in bytes.
    bytes: usize,
    /// The largest, whatever its sign; none: beyond 128 bits.
    largest: Option<i128>,
    beyond: bool,
    /// Whether objects under the key are walked through, and the first line with one.
    walked: Option<u64>,
}

impl Notes for Widened {
    fn value(&mut self, key: &str, value: &Found<'_>, is_foreign: bool) -> Result<()> {
        let origin = if is_foreign { Origin::Line } else { Origin::Row };
        let seen = self.seen.entry((origin, key.into())).or_default();
        let of = match value.kind {
            Kind::Missing | Kind::Null => return Ok(()),
            Kind::True | Kind::False => Of::Bool,
            Kind::Number if value.text.contains(['.', 'e', 'E']) => Of::Float,
            Kind::Number => Of::Int,
            Kind::String => Of::Text,
            Kind::Array => Of::List,
            Kind::Object => Of::Object,
        };
        if of == Of::Int {
            match value.text.parse::<i128>() {
                Ok(number) => seen.largest = seen.largest.max(Some(number.saturating_abs())),
                Err(_) => seen.beyond = true,
            }
        }
        seen.bytes = seen.bytes.max(value.text.len());
        seen.kinds.entry(of).or_insert((0, value.line)).0 += 1;
        Ok(())
    }

    fn object(&mut self, key: &str, line: u64) {
        let seen = self.seen.entry((Origin::Row, key.into())).or_default();
        seen.walked.get_or_insert(line);
    }

    fn nameless(&mut self, name: &str, line: u64) {
        self.nameless.entry(name.into()).or_insert(line);
    }
}

impl Widened {
    /// The columns, foreign ones first, and what is to be told of them.
    pub fn columns(self, options: &Options, reports: &mut Vec<String>) -> Vec<Tree> {
        for (name, line) in &self.nameless {
            reports.push(format!(
                "line {line}: no path leads to key {name:?}; it is left out"
            ));
        }
        let mut names: BTreeSet<String> = leading_names(options);
        let mut columns = Vec::new();
        for ((origin, key), seen) in &self.seen {
            let is_foreign = *origin == Origin::Line;
            let twice = !is_foreign && options.source.is_empty() && options.foreign.contains(key);
            if twice || !self.reachable(key) {
                continue;
            }
            if !is_foreign && key == "index" && options.source_type != SourceType::Dict {
                reports.push(
                    "key \"index\" is the place in the list, so that of the elements is left out".into(),
                );
                continue;
            }
            let Some((sql, is_json)) = seen.column(key, reports) else {
                continue;
            };
            let name = free_name(key, &mut names, reports);
            columns.push(column(key, &name, &sql, is_json, is_foreign));
        }
        columns
    }

    /// Whether a path leads to a key: no name on the way is empty or has a dot.
    fn reachable(&self, key: &str) -> bool {
        !self.nameless.keys().any(|name| {
            let whole = key == name || key.ends_with(&format!(".{name}"));
            whole || key.starts_with(&format!("{name}.")) || key.contains(&format!(".{name}."))
        }) && !key.is_empty()
            && !key.ends_with('.')
    }
}

impl Seen {
    /// The type of the column, and whether it holds JSON; nothing, if there was no value.
    fn column(&self, key: &str, reports: &mut Vec<String>) -> Option<(String, bool)> {
        if self.kinds.is_empty() {
            if self.walked.is_none() {
                reports.push(format!("{key:?} is only ever null; it is left out"));
            }
            return None;
        }
        let has = |of: Of| self.kinds.contains_key(&of);
        let json = has(Of::List) || has(Of::Object) || self.walked.is_some();
        let numbers = self.kinds.keys().all(|of| matches!(of, Of::Int | Of::Float));
        let sql = match (json, self.kinds.len(), numbers) {
            (true, ..) => format!("varchar({VARCHAR_MAX})"),
            (_, _, true) if has(Of::Float) => "float8".into(),
            (_, 1, _) if has(Of::Bool) => "bool".into(),
            (_, 1, _) if has(Of::Int) && !self.beyond => self.integer(),
            _ => self.text(key, reports),
        };
        let kinds = self.kinds.len() + usize::from(self.walked.is_some() && !has(Of::Object));
        let one = kinds == 1 || (numbers && self.walked.is_none());
        let both_json = kinds == 2 && has(Of::List) && has(Of::Object);
        if !(one || both_json) {
            reports.push(self.conflict(key, &sql));
        }
        Some((sql, json))
    }

    fn integer(&self) -> String {
        match self.largest.unwrap_or_default() {
            n if n <= INT2 => "int2".into(),
            n if n <= INT4 => "int4".into(),
            n if n <= i128::from(i64::MAX) => "int8".into(),
            n if n < DECIMAL => "decimal(38,0)".into(),
            _ => format!("varchar({})", roomy(self.bytes)),
        }
    }

    fn text(&self, key: &str, reports: &mut Vec<String>) -> String {
        if self.bytes > VARCHAR_MAX as usize {
            reports.push(format!(
                "{key:?} has a value of {} bytes, and a column holds {VARCHAR_MAX}; such rows will be bad",
                self.bytes
            ));
        }
        format!("varchar({})", roomy(self.bytes))
    }

    fn conflict(&self, key: &str, sql: &str) -> String {
        let walked = self.walked.filter(|_| !self.kinds.contains_key(&Of::Object));
        let walked = walked.map(|line| format!("an object (first in line {line})"));
        let kinds = self.kinds.iter().map(|(of, (count, line))| {
            let what = match of {
                Of::Bool => "true or false",
                Of::Int => "an integer",
                Of::Float => "a float",
                Of::Text => "a text",
                Of::List => "a list",
                Of::Object => "an object",
            };
            format!("{what} ({count}, first in line {line})")
        });
        let all: Vec<String> = kinds.chain(walked).collect();
        format!("{key:?} is {}; it becomes {sql}", all.join(" and "))
    }
}

/// Twice the bytes, and up to the next power of two.
fn roomy(bytes: usize) -> usize {
    (2 * bytes)
        .next_power_of_two()
        .clamp(NARROWEST, VARCHAR_MAX as usize)
}

/// A name that no column has yet, whatever the capitals.
fn free_name(key: &str, names: &mut BTreeSet<String>, reports: &mut Vec<String>) -> String {
    let wanted = key.replace('.', "_");
    let base = &wanted[..wanted.floor_char_boundary(NAME_BYTES)];
    let numbered = |n: usize| match n {
        1 => base.to_owned(),
        n => {
            let ending = format!("_{n}");
            let most = base.floor_char_boundary(NAME_BYTES - ending.len());
            format!("{}{ending}", &base[..most.min(base.len())])
        }
    };
    let free = (1..)
        .map(numbered)
        .find(|name| !names.contains(&name.to_lowercase()));
    let name = free.expect("there are more numbers than columns");
    names.insert(name.to_lowercase());
    if name != wanted {
        reports.push(format!(
            "{key:?} becomes column {name:?}, as {wanted:?} is taken or too long"
        ));
    }
    name
}
