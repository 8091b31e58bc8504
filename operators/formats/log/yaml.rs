//! YAML with the place of everything in it. Repeated keys are kept, so that they can be told of.

use std::collections::HashMap;

use saphyr::{Scalar, ScalarStyle};
use saphyr_parser::{Event, Marker, Parser, Span};

/// Values in one file, at most: aliases of aliases grow without bound.
const MAX_NODES: usize = 1_000_000;

/// Lists and mappings in each other, at most. A schema needs six.
const MAX_DEPTH: usize = 64;

/// A place in the text, counted from 1, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub line: usize,
    pub column: usize,
}

impl From<&Marker> for At {
    fn from(of: &Marker) -> At {
        At {
            line: of.line(),
            column: of.col() + 1,
        }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub at: At,
    pub value: Value,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(String),
    Text(String),
    List(Vec<Node>),
    /// In order, repeated keys too.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub at: At,
    pub name: String,
}

impl Node {
    /// What the value is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Where the text stops being YAML, and why.
pub(super) type Broken = (At, String);

/// Reads the first document; nothing if there is none.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Broken> {
    let mut loader = Loader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
    };
    loop {
        match loader.next()? {
            (Event::StreamEnd, _) => return Ok(None),
            (Event::StreamStart | Event::Nothing, _) => {}
            (Event::DocumentStart(_), _) => {
                let first = loader.next()?;
                return loader.node(first, 0).map(Some);
            }
            (_, span) => return Err(((&span.start).into(), "a document was expected".into())),
        }
    }
}

struct Loader<'t> {
    parser: Parser<'t, saphyr_parser::StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
}

impl<'t> Loader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Broken> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => Err((e.marker().into(), e.info().to_owned())),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, (event, span): (Event<'t>, Span), depth: usize) -> Result<Node, Broken> {
        let at = At::from(&span.start);
        if depth > MAX_DEPTH {
            return Err((
                at,
                format!("more than {MAX_DEPTH} lists and mappings in each other"),
            ));
        }
        self.count(at, 1)?;
        let (value, anchor) = match event {
            Event::Alias(of) => {
                let node = self.anchors.get(&of).cloned();
                let node = node.ok_or((at, "an alias of nothing".to_owned()))?;
                self.count(at, size(&node))?;
                return Ok(Node { at, ..node });
            }
            Event::Scalar(text, style, anchor, _) => (scalar(&text, style), anchor),
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            _ => return Err((at, "a value was expected".into())),
        };
        let node = Node { at, value };
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Broken> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                event => items.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Broken> {
        let (mut entries, mut merged) = (Vec::new(), Vec::new());
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => break,
                (Event::Scalar(name, ..), span) => Key {
                    at: (&span.start).into(),
                    name: name.into_owned(),
                },
                (_, span) => return Err(((&span.start).into(), "a key must be a text".into())),
            };
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            match key.name.as_str() {
                "<<" => merged.push(value),
                _ => entries.push((key, value)),
            }
        }
        // What is merged stands back behind what is written here.
        for (key, value) in merged.into_iter().flat_map(entries_of) {
            if !entries.iter().any(|(k, _): &(Key, Node)| k.name == key.name) {
                entries.push((key, value));
            }
        }
        Ok(Value::Map(entries))
    }

    fn count(&mut self, at: At, more: usize) -> Result<(), Broken> {
        self.nodes += more;
        match self.nodes > MAX_NODES {
            true => Err((at, format!("more than {MAX_NODES} values"))),
            false => Ok(()),
        }
    }
}

fn entries_of(node: Node) -> Vec<(Key, Node)> {
    match node.value {
        Value::Map(entries) => entries,
        Value::List(items) => items.into_iter().flat_map(entries_of).collect(),
        _ => Vec::new(),
    }
}

fn size(node: &Node) -> usize {
    match &node.value {
        Value::List(items) => 1 + items.iter().map(size).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| size(node)).sum::<usize>(),
        _ => 1,
    }
}

/// YAML 1.1, which the predecessor read, has more words for true and false than YAML 1.2.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.into());
    }
    match text {
        "" => return Value::Null,
        "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Value::Bool(true),
        "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Value::Bool(false),
        _ => {}
    }
    match Scalar::parse_from_cow(text.into()) {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Bool(value),
        Scalar::Integer(value) => Value::Int(value),
        Scalar::FloatingPoint(_) => Value::Float(text.into()),
        Scalar::String(text) => Value::Text(text.into_owned()),
    }
}
