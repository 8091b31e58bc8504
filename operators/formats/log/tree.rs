//! YAML to be written: blocks, with keys in alphabetical order, as the predecessor wrote it with PyYAML.

use std::collections::BTreeMap;
use std::fmt::Write;

use saphyr::Scalar;

use super::yaml::{Node, Value};

/// A value to be written.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number, as it was written.
    Float(String),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Tree>),
    /// A mapping, in order of its keys.
    Map(BTreeMap<String, Tree>),
}

impl Tree {
    /// A mapping of what is given.
    pub fn map<'k>(entries: impl IntoIterator<Item = (&'k str, Tree)>) -> Tree {
        Tree::Map(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
    }

    /// A text.
    pub fn text(of: impl Into<String>) -> Tree {
        Tree::Text(of.into())
    }

    /// A member of a mapping.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        match self {
            Tree::Map(entries) => entries.get(key),
            _ => None,
        }
    }

    /// A member of a mapping.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Tree> {
        match self {
            Tree::Map(entries) => entries.get_mut(key),
            _ => None,
        }
    }

    /// The text that it is.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The YAML of it.
    pub fn write(&self) -> String {
        let mut out = String::new();
        self.block(&mut out, 0);
        if !out.ends_with('\n') {
            out.push('\n');
        }
        out
    }

    /// Writes it on lines of its own, indented by `depth` blanks.
    fn block(&self, out: &mut String, depth: usize) {
        match self {
            Tree::Map(entries) if !entries.is_empty() => {
                for (at, (key, value)) in entries.iter().enumerate() {
                    if at > 0 {
                        indent(out, depth);
                    }
                    out.push_str(&scalar(key));
                    out.push(':');
                    value.behind_key(out, depth);
                }
            }
            Tree::List(items) if !items.is_empty() => {
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        indent(out, depth);
                    }
                    out.push_str("- ");
                    item.block(out, depth + 2);
                }
            }
            other => {
                out.push_str(&other.inline());
                out.push('\n');
            }
        }
    }

    fn behind_key(&self, out: &mut String, depth: usize) {
        match self {
            Tree::Map(entries) if !entries.is_empty() => {
                out.push('\n');
                indent(out, depth + 2);
                self.block(out, depth + 2);
            }
            // PyYAML does not indent a list below its key.
            Tree::List(items) if !items.is_empty() => {
                out.push('\n');
                indent(out, depth);
                self.block(out, depth);
            }
            other => {
                out.push(' ');
                out.push_str(&other.inline());
                out.push('\n');
            }
        }
    }

    fn inline(&self) -> String {
        match self {
            Tree::Null => "null".into(),
            Tree::Bool(value) => value.to_string(),
            Tree::Int(value) => value.to_string(),
            Tree::Float(text) => text.clone(),
            Tree::Text(text) => scalar(text),
            Tree::List(_) => "[]".into(),
            Tree::Map(_) => "{}".into(),
        }
    }
}

impl From<&Node> for Tree {
    fn from(of: &Node) -> Tree {
        match &of.value {
            Value::Null => Tree::Null,
            Value::Bool(value) => Tree::Bool(*value),
            Value::Int(value) => Tree::Int(*value),
            Value::Float(text) => Tree::Float(text.clone()),
            Value::Text(text) => Tree::Text(text.clone()),
            Value::List(items) => Tree::List(items.iter().map(Tree::from).collect()),
            Value::Map(entries) => {
                let entries = entries.iter().map(|(k, v)| (k.name.clone(), v.into()));
                Tree::Map(entries.collect())
            }
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n(' ', depth));
}

/// A text as it is, in single quotes where it would be something else, in double quotes where it has to be escaped.
fn scalar(text: &str) -> String {
    let printable = |c: char| matches!(c, ' '..='~');
    if !text.chars().all(printable) {
        return escaped(text);
    }
    match is_plain(text) {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

fn is_plain(text: &str) -> bool {
    let Some(first) = text.chars().next() else {
        return false;
    };
    let second_is_blank = text[1..].starts_with(' ') || text.len() == 1;
    let indicator = "#,[]{}&*!|>'\"%@`".contains(first) || ("-?:".contains(first) && second_is_blank);
    let broken = text.contains(": ") || text.contains(" #") || text.ends_with(':') || text.starts_with("---");
    let blank_ends = text.starts_with(' ') || text.ends_with(' ');
    !(indicator || broken || blank_ends || text.starts_with("...") || is_another_type(text))
}

/// Whether a plain text would be read as something else: by YAML 1.2, or by YAML 1.1, which PyYAML is.
fn is_another_type(text: &str) -> bool {
    const WORDS: [&str; 14] = [
        "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF", "=", "<<",
    ];
    WORDS.contains(&text)
        || !matches!(Scalar::parse_from_cow(text.into()), Scalar::String(_))
        || is_number_of_1_1(text)
}

/// Numbers and times that only YAML 1.1 knows: `1_000`, `0b1`, `010`, `12:30`, `2014-11-26`.
fn is_number_of_1_1(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    let Some(first) = digits.chars().next() else {
        return false;
    };
    let number = |c: char| c.is_ascii_digit() || matches!(c, '_' | ':' | '.');
    let binary = digits.strip_prefix("0b");
    let hex = digits.strip_prefix("0x");
    let is_date = text.len() == 10
        && text.as_bytes()[4] == b'-'
        && text.as_bytes()[7] == b'-'
        && text.chars().all(|c| c.is_ascii_digit() || c == '-');
    is_date
        || (first.is_ascii_digit() && digits.chars().all(number))
        || binary.is_some_and(|d| !d.is_empty() && d.chars().all(|c| matches!(c, '0' | '1' | '_')))
        || hex.is_some_and(|d| !d.is_empty() && d.chars().all(|c| c.is_ascii_hexdigit() || c == '_'))
}

fn escaped(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            _ => {
                let code = c as u32;
                let written = match code {
                    0..=0xff => write!(out, "\\x{code:02X}"),
                    0x100..=0xffff => write!(out, "\\u{code:04X}"),
                    _ => write!(out, "\\U{code:08X}"),
                };
                written.expect("writing to a String");
            }
        }
    }
    out.push('"');
    out
}
