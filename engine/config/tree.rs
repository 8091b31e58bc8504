//! The file as a tree of values that remember where they stand, in the order of the file.
//!
//! The checks repair what they report: a misspelt key takes the name that was probably meant, a value
//! that cannot be used becomes [`Value::Broken`]. So one mistake makes one problem, and everything that
//! does not hang on it is checked as if it were right.

use std::borrow::Cow;

use serde_json::Map;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{At, Problems};
use super::text::Text;

/// A file is written by people; a megabyte is a mistake, and positions are kept for every byte of text.
const MAX_FILE_BYTES: usize = 1 << 20;

/// A value and where it stands. For a table with a header, where the header stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: At,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    String(Text),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Vec<Entry>),
    /// Reported already; stands for any value.
    Broken,
}

/// A key with its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: String,
    pub key_at: At,
    pub node: Node,
}

/// Parses a file. None when it is not TOML, so that nothing else can be said about it.
pub(super) fn parse(
    text: &str,
    vars: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Node> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes; the limit is {MAX_FILE_BYTES}", text.len());
        problems.help(&(0..0), message, "split it into several pipelines");
        return None;
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut readable = true;
    // Keys of a section that is there twice collide with those of the first: that is one mistake.
    let mut twice = 0..0;
    for error in &errors {
        let at = error.span().unwrap_or(text.len()..text.len());
        if error.message() != "duplicate key" {
            problems.add(&at, format!("not TOML: {}", error.message()));
            readable = false;
        } else if !twice.contains(&at.start) {
            twice = duplicate(text, &at, problems);
        }
    }
    let mut reader = Reader { text, vars, problems };
    readable.then(|| Node {
        at: 0..0,
        value: reader.table(table.into_inner()),
    })
}

/// Reports a key that is given twice. For a section, gives the range of its second time.
fn duplicate(text: &str, at: &At, problems: &mut Problems) -> At {
    let line = text[..at.start].rfind('\n').map_or(0, |newline| newline + 1);
    let help = "remove or rename one of the two";
    if !text[line..].trim_start().starts_with('[') {
        problems.help(at, format!("`{}` is given twice", &text[at.clone()]), help);
        return 0..0;
    }
    let header = text[line..].lines().next().unwrap_or_default().trim();
    problems.help(&(line..at.end), format!("`{header}` is there twice"), help);
    let rest = &text[at.end..];
    at.end..at.end + rest.find("\n[").unwrap_or(rest.len())
}

struct Reader<'a> {
    text: &'a str,
    vars: &'a dyn Fn(&str) -> Option<String>,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn table(&mut self, table: DeTable<'_>) -> Value {
        let mut entries: Vec<Entry> = table
            .into_iter()
            .map(|(key, value)| Entry {
                key_at: key.span(),
                key: key.into_inner().into_owned(),
                node: self.node(value),
            })
            .collect();
        // The crate's tables are sorted by name; columns and sections keep the order they are written in.
        entries.sort_by_key(|e| e.key_at.start);
        Value::Table(entries)
    }

    fn node(&mut self, value: Spanned<DeValue<'_>>) -> Node {
        let at = value.span();
        let value = match value.into_inner() {
            DeValue::String(s) => self.string(&at, s),
            DeValue::Integer(i) => {
                let digits = i64::from_str_radix(i.as_str(), i.radix()).ok();
                self.number(&at, digits.map(Value::Integer), "does not fit 64 bits")
            }
            DeValue::Float(f) => {
                let finite = f.as_str().parse().ok().filter(|f: &f64| f.is_finite());
                self.number(&at, finite.map(Value::Float), "is not a finite number")
            }
            DeValue::Boolean(b) => Value::Boolean(b),
            DeValue::Datetime(d) => Value::Datetime(d.to_string()),
            DeValue::Array(items) => Value::Array(items.into_iter().map(|i| self.node(i)).collect()),
            DeValue::Table(table) => self.table(table),
        };
        Node { at, value }
    }

    fn string(&mut self, at: &At, decoded: Cow<'_, str>) -> Value {
        match Text::read(self.text, at, &decoded, self.vars, self.problems) {
            Some(text) => Value::String(text),
            None => Value::Broken,
        }
    }

    fn number(&mut self, at: &At, value: Option<Value>, what: &str) -> Value {
        value.unwrap_or_else(|| {
            let typed = self.text.get(at.clone()).unwrap_or_default();
            self.problems.add(at, format!("{typed} {what}"));
            Value::Broken
        })
    }
}

impl Node {
    /// The entries of a table; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    /// The items of an array; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::Array(items) => items,
            _ => &[],
        }
    }

    /// A key of a table.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|e| e.key == key)
    }

    /// Where `key` has its value, or else where this table begins.
    pub fn at_key(&self, key: &str) -> &At {
        self.get(key).map_or(&self.at, |e| &e.node.at)
    }

    /// A string's text.
    pub fn text(&self) -> Option<&Text> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether nothing in it is broken.
    pub fn is_whole(&self) -> bool {
        match &self.value {
            Value::Broken => false,
            Value::Array(items) => items.iter().all(Node::is_whole),
            Value::Table(entries) => entries.iter().all(|e| e.node.is_whole()),
            _ => true,
        }
    }

    /// As JSON, without what is broken; dates and times become strings.
    pub fn json(&self) -> Option<serde_json::Value> {
        use serde_json::Value as Json;
        Some(match &self.value {
            Value::String(text) => Json::String(text.value.clone()),
            Value::Integer(i) => Json::from(*i),
            Value::Float(f) => Json::from(*f),
            Value::Boolean(b) => Json::Bool(*b),
            Value::Datetime(at) => Json::String(at.clone()),
            Value::Array(items) => Json::Array(items.iter().filter_map(Node::json).collect()),
            Value::Table(entries) => {
                let pair = |e: &Entry| Some((e.key.clone(), e.node.json()?));
                Json::Object(entries.iter().filter_map(pair).collect::<Map<_, _>>())
            }
            Value::Broken => return None,
        })
    }

    /// The word for the kind of value.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::String(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Boolean(_) => "a boolean",
            Value::Datetime(_) => "a date or time",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
            Value::Broken => "broken",
        }
    }
}
