//! The predecessor's types, with its widths and its refusals: a text is as wide as its JSON with quotes and escapes, a
//! null counts four, and a key with values of two types ends the work.

use std::collections::BTreeMap;

use millstream_engine::{Error, Result};

use super::super::scan::Kind;
use super::super::tree::Tree;
use super::walk::{Found, Notes};
use super::{Options, column, leading_names};

/// What was seen, by key.
#[derive(Default)]
pub(super) struct Compat(BTreeMap<String, Entry>);

struct Entry {
    of: Type,
    width: usize,
    is_foreign: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    None,
    Bool,
    Int,
    Long,
    Float,
    Text,
    List,
    Dict,
}

impl Notes for Compat {
    fn value(&mut self, key: &str, value: &Found<'_>, is_foreign: bool) -> Result<()> {
        let (of, width) = (Type::of(value), width(value));
        let entry = self.0.entry(key.into()).or_insert(Entry {
            of,
            width,
            is_foreign,
        });
        entry.of = entry.of.with(of).ok_or_else(|| {
            let before = entry.of;
            Error::data(format!(
                "{key:?} is {of:?} and was {before:?} before; leave out --compat to go on"
            ))
        })?;
        entry.width = entry.width.max(width);
        entry.is_foreign = is_foreign;
        Ok(())
    }
}

impl Type {
    fn of(value: &Found<'_>) -> Type {
        match value.kind {
            Kind::Missing | Kind::Null => Type::None,
            Kind::True | Kind::False => Type::Bool,
            Kind::Number if value.text.contains(['.', 'e', 'E']) => Type::Float,
            Kind::Number if value.text.parse::<i64>().is_ok() => Type::Int,
            Kind::Number => Type::Long,
            Kind::String => Type::Text,
            Kind::Array => Type::List,
            Kind::Object => Type::Dict,
        }
    }

    /// The type of a key with values of both: numbers take the wider one, and null is of any type.
    fn with(self, other: Type) -> Option<Type> {
        let rank = |of: Type| [Type::Int, Type::Long, Type::Float].iter().position(|t| *t == of);
        match (self, other) {
            (a, b) if a == b => Some(a),
            (Type::None, of) | (of, Type::None) => Some(of),
            (a, b) if rank(a)? < rank(b)? => Some(b),
            (a, _) => rank(other).map(|_| a),
        }
    }

    fn sql(self, width: usize) -> Option<String> {
        Some(match self {
            Type::None => return None,
            Type::Text => format!("varchar({width})"),
            Type::List | Type::Dict => "varchar(65535)".into(),
            Type::Int if width <= 4 => "int2".into(),
            Type::Int if width <= 9 => "int4".into(),
            Type::Int | Type::Long => "int8".into(),
            Type::Float => "float8".into(),
            Type::Bool => "bool".into(),
        })
    }
}

impl Compat {
    /// The columns, foreign ones first.
    pub fn columns(self, options: &Options) -> Result<Vec<Tree>> {
        let mut names = leading_names(options);
        let (mut foreign, mut others) = (Vec::new(), Vec::new());
        for (key, entry) in &self.0 {
            let Some(sql) = entry.of.sql(entry.width) else {
                continue;
            };
            let name = key.replace('.', "_");
            if !names.insert(name.clone()) {
                return Err(Error::data(format!(
                    "two columns are named {name:?}; leave out --compat to go on"
                )));
            }
            let is_json = matches!(entry.of, Type::List | Type::Dict);
            let column = column(key, &name, &sql, is_json, entry.is_foreign);
            match entry.is_foreign {
                true => foreign.push(column),
                false => others.push(column),
            }
        }
        foreign.append(&mut others);
        Ok(foreign)
    }
}

/// Characters of the JSON of a value, in ASCII. Of lists and objects nobody asks.
fn width(value: &Found<'_>) -> usize {
    let of_char = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        ' '..='~' => 1,
        c if (c as u32) < 0x1_0000 => 6,
        _ => 12,
    };
    match value.kind {
        Kind::String => 2 + value.text.chars().map(of_char).sum::<usize>(),
        _ => value.text.len(),
    }
}
