//! Checks a file's tree against the schema: unknown keys, missing keys, types, words, formats.
//!
//! Covers the part of JSON Schema that schemars emits for configuration types. What it does not know
//! (`allOf`, `not`, `if`) it lets pass: deserializing the section reports it then, with less to say.
//! What it reports it also repairs, see `tree`.

use serde_json::{Map, Value as Json};

use super::columns;
use super::diagnostic::{At, Problems, did_you_mean, nearest};
use super::shape::{accepts, alternatives, described, kinds, largest, matches, sentence, tag_of, words};
use super::tree::{Entry, Node, Value};
use crate::pipeline::{Bytes, Span};

/// References and alternatives may nest this deep; a schema that refers to itself without end is a bug.
const MAX_DEPTH: usize = 64;

/// Checks `root` against `schema`, reports to `problems` and repairs `root`.
pub(super) fn check(root: &mut Node, schema: &Json, problems: &mut Problems) {
    let mut walk = Walk { schema, problems };
    walk.node(root, schema, &Path::root());
}

struct Walk<'a> {
    schema: &'a Json,
    problems: &'a mut Problems,
}

/// Where in the file the walk is: `source.clicks.dedup`.
struct Path {
    text: String,
    depth: usize,
}

impl Path {
    fn root() -> Path {
        Path {
            text: String::new(),
            depth: 0,
        }
    }

    fn key(&self, key: &str) -> Path {
        let dot = if self.text.is_empty() { "" } else { "." };
        Path {
            text: format!("{}{dot}{key}", self.text),
            depth: self.depth + 1,
        }
    }

    /// `in …`, or nothing at the top.
    fn inside(&self) -> String {
        match self.text.as_str() {
            "" => String::new(),
            path => format!(" in `{path}`"),
        }
    }

    fn name(&self) -> String {
        match self.text.as_str() {
            "" => "the pipeline".into(),
            path => format!("`{path}`"),
        }
    }
}

impl<'a> Walk<'a> {
    fn node(&mut self, node: &mut Node, schema: &'a Json, path: &Path) {
        let schema = self.resolve(schema);
        let Some(members) = schema.as_object() else { return };
        if matches!(node.value, Value::Broken) || path.depth > MAX_DEPTH {
            return;
        }
        if members.get("writeOnly") == Some(&Json::Bool(true)) {
            self.secret(node);
        }
        if let Some(options) = alternatives(members) {
            return self.alternatives(node, options, path);
        }
        if let Some(words) = words(members) {
            return self.word(node, &words, path);
        }
        if !accepts(members, node) {
            return self.wrong_type(node, members, path);
        }
        match &mut node.value {
            Value::Table(_) => self.table(node, members, path),
            Value::Array(items) => {
                for item in items.iter_mut() {
                    if let Some(schema) = members.get("items") {
                        self.node(item, schema, path);
                    }
                }
                self.least(node.items().len(), members.get("minItems"), "items", node, path);
            }
            Value::String(_) => self.string(node, members, path),
            Value::Integer(_) | Value::Float(_) => self.number(node, members, path),
            _ => {}
        }
    }

    /// Notes what must not be printed: what the text says, which is what the file says where no variable is in it.
    fn secret(&mut self, node: &Node) {
        if let Some(text) = node.text() {
            self.problems.secrets.add(&text.value);
        }
    }

    /// Follows references to definitions.
    fn resolve(&self, mut schema: &'a Json) -> &'a Json {
        for _ in 0..MAX_DEPTH {
            let Some(to) = schema.get("$ref").and_then(Json::as_str) else {
                break;
            };
            let Some(next) = self.schema.pointer(to.trim_start_matches('#')) else {
                break;
            };
            schema = next;
        }
        schema
    }

    /// A choice: by the tag that tells the branches apart, else by the kind of value.
    fn alternatives(&mut self, node: &mut Node, options: &'a [Json], path: &Path) {
        let options: Vec<&Json> = options.iter().map(|o| self.resolve(o)).collect();
        let is_null = |o: &&&Json| o.get("type").and_then(Json::as_str) == Some("null");
        let real: Vec<&Json> = options.iter().filter(|o| !is_null(o)).copied().collect();
        if let Some(tag) = tag_of(&real) {
            return self.tagged(node, &real, tag, path);
        }
        let words: Option<Vec<&str>> =
            real.iter()
                .map(|o| o.as_object().and_then(words))
                .try_fold(Vec::new(), |mut all, words| {
                    all.extend(words?);
                    Some(all)
                });
        if let Some(words) = words.filter(|w| !w.is_empty()) {
            return self.word(node, &words, path);
        }
        let fits = |o: &&&Json| o.as_object().is_none_or(|m| accepts(m, node));
        let fitting: Vec<&Json> = real.iter().filter(fits).copied().collect();
        match fitting.as_slice() {
            [] => self.wrong_type_of(node, &real, path),
            [one] => self.node(node, one, path),
            many => self.best(node, many, path),
        }
    }

    /// Takes the alternative with the fewest problems.
    fn best(&mut self, node: &mut Node, options: &[&'a Json], path: &Path) {
        let attempt = |option: &&'a Json| {
            let mut copy = node.clone();
            let mut problems = Problems::default();
            let mut walk = Walk {
                schema: self.schema,
                problems: &mut problems,
            };
            walk.node(&mut copy, option, path);
            (problems, copy)
        };
        let best = options
            .iter()
            .map(attempt)
            .min_by_key(|(problems, _)| problems.count());
        if let Some((problems, copy)) = best {
            *node = copy;
            self.problems.append(problems);
        }
    }

    /// A table whose key `tag` says which of `options` it is.
    fn tagged(&mut self, node: &mut Node, options: &[&'a Json], tag: &str, path: &Path) {
        let kind = |o: &&'a Json| o["properties"][tag]["const"].as_str();
        let known: Vec<&str> = options.iter().filter_map(kind).collect();
        let Value::Table(entries) = &node.value else {
            return self.wrong_type_of(node, options, path);
        };
        let at = entries.iter().find(|e| e.key == tag);
        let typed = at.and_then(|e| e.node.text()).map(|t| t.value.clone());
        if let Some(entry) = at.filter(|e| e.node.text().is_none() && e.node.is_whole()) {
            let message = format!(
                "{} must be a string, not {}",
                path.key(tag).name(),
                entry.node.kind()
            );
            let help = did_you_mean("", known.iter().copied(), '"', "known types");
            report(self.problems, &entry.node.at, message, help);
        }
        let chosen = match (&typed, at) {
            (Some(typed), Some(entry)) if !known.contains(&typed.as_str()) => {
                let section = path.text.split('.').next().unwrap_or_default();
                let message = format!("there is no {section} of type \"{typed}\"");
                let help = did_you_mean(typed, known.iter().copied(), '"', "known types");
                report(self.problems, &entry.node.at, message, help);
                nearest(typed, known.iter().copied()).map(str::to_owned)
            }
            _ => typed,
        };
        match options
            .iter()
            .find(|o| chosen.is_some() && kind(o) == chosen.as_deref())
        {
            Some(branch) => {
                set_text(node, tag, chosen.unwrap_or_default());
                self.node(node, branch, path);
            }
            None => self.common(node, options, tag, path),
        }
    }

    /// Checks only what all of `options` agree on.
    fn common(&mut self, node: &mut Node, options: &[&'a Json], tag: &str, path: &Path) {
        let Some(first) = options.first().and_then(|o| o["properties"].as_object()) else {
            return;
        };
        let shared = |key: &str| options.iter().all(|o| o["properties"].get(key) == first.get(key));
        let required = |key: &str| {
            let names = |o: &&Json| {
                o["required"]
                    .as_array()
                    .is_some_and(|r| r.iter().any(|n| n == key))
            };
            options.iter().all(names)
        };
        let missing = |(key, _): &(&String, &Json)| required(key) && node.get(key).is_none();
        for (key, schema) in first.iter().filter(missing) {
            self.missing(node, key, schema, path);
        }
        for entry in entries_mut(node) {
            if let Some(schema) = first
                .get(&entry.key)
                .filter(|_| shared(&entry.key) && entry.key != tag)
            {
                let path = path.key(&entry.key);
                self.node(&mut entry.node, schema, &path);
            }
        }
    }

    fn table(&mut self, node: &mut Node, members: &'a Map<String, Json>, path: &Path) {
        let known = members.get("properties").and_then(Json::as_object);
        let others = members.get("additionalProperties");
        if others == Some(&Json::Bool(false)) {
            self.unknown_keys(node, known, path);
        }
        self.names(node, members, path);
        for key in members
            .get("required")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
        {
            if let Some(key) = key.as_str().filter(|k| node.get(k).is_none()) {
                let schema = known.and_then(|k| k.get(key)).unwrap_or(&Json::Null);
                self.missing(node, key, schema, path);
            }
        }
        for entry in entries_mut(node) {
            if let Some(schema) = known.and_then(|k| k.get(&entry.key)).or(others) {
                let path = path.key(&entry.key);
                self.node(&mut entry.node, schema, &path);
            }
        }
    }

    /// Reports unknown keys; takes the nearest known one where it is not there, else drops the entry.
    fn unknown_keys(&mut self, node: &mut Node, known: Option<&Map<String, Json>>, path: &Path) {
        let known: Vec<&str> = known
            .into_iter()
            .flat_map(|k| k.keys())
            .map(String::as_str)
            .collect();
        let present: Vec<String> = node.entries().iter().map(|e| e.key.clone()).collect();
        let Value::Table(entries) = &mut node.value else {
            return;
        };
        entries.retain_mut(|entry| {
            if known.contains(&entry.key.as_str()) {
                return true;
            }
            let message = format!("unknown key `{}`{}", entry.key, path.inside());
            let help = did_you_mean(&entry.key, known.iter().copied(), '`', "known keys");
            report(self.problems, &entry.key_at, message, help);
            let free = known.iter().copied().filter(|n| !present.iter().any(|p| p == n));
            let meant = nearest(&entry.key, free).map(str::to_owned);
            let found = meant.is_some();
            entry.key = meant.unwrap_or_default();
            found
        });
    }

    /// Keys that are names have a pattern of their own.
    fn names(&mut self, node: &Node, members: &Map<String, Json>, path: &Path) {
        let Some(names) = members.get("propertyNames").and_then(Json::as_object) else {
            return;
        };
        for entry in node.entries() {
            if !matches(names, &entry.key) {
                let message = format!("`{}` cannot be a name in `[{}]`", entry.key, path.text);
                let help = "write lower-case letters, digits and `_`, a letter first";
                self.problems.help(&entry.key_at, message, help);
            }
        }
    }

    fn missing(&mut self, node: &Node, key: &str, schema: &'a Json, path: &Path) {
        let message = format!("{} has no key `{key}`", path.name());
        let what = schema
            .get("description")
            .or_else(|| self.resolve(schema).get("description"));
        let help = what
            .and_then(Json::as_str)
            .map(|what| format!("`{key}`: {}", sentence(what)));
        report(self.problems, &node.at, message, help);
    }

    fn string(&mut self, node: &mut Node, members: &Map<String, Json>, path: &Path) {
        let Some(text) = node.text().map(|t| t.value.clone()) else {
            return;
        };
        let format = members.get("format").and_then(Json::as_str).unwrap_or_default();
        let wrong = match format {
            "duration" => text.parse::<Span>().err(),
            "bytes" => text.parse::<Bytes>().err(),
            "column-type" => return self.column_type(node, &text, path),
            _ if !matches(members, &text) => Some(format!(
                "\"{text}\" does not match {}",
                members.get("pattern").and_then(Json::as_str).unwrap_or_default()
            )),
            _ => None,
        };
        match wrong {
            // The parsers say what is wrong, then, after a semicolon, what to write.
            Some(wrong) => {
                let (what, help) = match wrong.split_once("; ") {
                    Some((what, help)) => (what, Some(help.to_owned())),
                    None => (wrong.as_str(), described(members)),
                };
                report(self.problems, &node.at, format!("{}: {what}", path.name()), help);
                node.value = Value::Broken;
            }
            None => self.least(
                text.chars().count(),
                members.get("minLength"),
                "characters",
                node,
                path,
            ),
        }
    }

    fn column_type(&mut self, node: &mut Node, text: &str, path: &Path) {
        let Err(unknown) = columns::parse(text) else {
            return;
        };
        report(
            self.problems,
            &node.at,
            format!("{}: {}", path.name(), unknown.message),
            Some(unknown.help),
        );
        match unknown.meant {
            Some(meant) => replace_text(node, &meant),
            None => node.value = Value::Broken,
        }
    }

    fn number(&mut self, node: &mut Node, members: &Map<String, Json>, path: &Path) {
        let value = match node.value {
            Value::Integer(i) => i as f64,
            Value::Float(f) => f,
            _ => return,
        };
        let width = members.get("format").and_then(Json::as_str).and_then(largest);
        let limit = |key: &str| members.get(key).and_then(Json::as_f64);
        let outside = [
            limit("minimum").filter(|l| value < *l).map(|l| ("at least", l)),
            limit("maximum")
                .or(width)
                .filter(|l| value > *l)
                .map(|l| ("at most", l)),
            limit("exclusiveMinimum")
                .filter(|l| value <= *l)
                .map(|l| ("more than", l)),
        ];
        for (words, bound) in outside.into_iter().flatten() {
            let message = format!("{} must be {words} {bound}, not {value}", path.name());
            report(self.problems, &node.at, message, described(members));
            node.value = Value::Broken;
        }
    }

    fn least(&mut self, have: usize, least: Option<&Json>, what: &str, node: &Node, path: &Path) {
        let least = least.and_then(Json::as_u64).unwrap_or(0);
        if (have as u64) < least {
            let message = match least {
                1 => format!("{} must not be empty", path.name()),
                _ => format!("{} must have at least {least} {what}", path.name()),
            };
            self.problems.add(&node.at, message);
        }
    }

    /// One of a few words.
    fn word(&mut self, node: &mut Node, words: &[&str], path: &Path) {
        let help = |typed: &str| did_you_mean(typed, words.iter().copied(), '"', "one of");
        let Some(typed) = node.text().map(|t| t.value.clone()) else {
            let message = format!("{} must be a string, not {}", path.name(), node.kind());
            report(self.problems, &node.at, message, help(""));
            node.value = Value::Broken;
            return;
        };
        if words.contains(&typed.as_str()) {
            return;
        }
        let message = format!("{} cannot be \"{typed}\"", path.name());
        report(self.problems, &node.at, message, help(&typed));
        match nearest(&typed, words.iter().copied()) {
            Some(meant) => replace_text(node, meant),
            None => node.value = Value::Broken,
        }
    }

    fn wrong_type(&mut self, node: &mut Node, members: &Map<String, Json>, path: &Path) {
        let wanted = kinds(members);
        let message = format!("{} must be {wanted}, not {}", path.name(), node.kind());
        report(self.problems, &node.at, message, described(members));
        node.value = Value::Broken;
    }

    fn wrong_type_of(&mut self, node: &mut Node, options: &[&Json], path: &Path) {
        let mut wanted: Vec<String> = options.iter().filter_map(|o| o.as_object()).map(kinds).collect();
        wanted.dedup();
        let help = options.iter().find_map(|o| o.as_object().and_then(described));
        let message = format!(
            "{} must be {}, not {}",
            path.name(),
            wanted.join(" or "),
            node.kind()
        );
        report(self.problems, &node.at, message, help);
        node.value = Value::Broken;
    }
}

fn report(problems: &mut Problems, at: &At, message: String, help: Option<String>) {
    match help {
        Some(help) => problems.help(at, message, help),
        None => problems.add(at, message),
    }
}

fn entries_mut(node: &mut Node) -> &mut [Entry] {
    match &mut node.value {
        Value::Table(entries) => entries,
        _ => &mut [],
    }
}

fn replace_text(node: &mut Node, with: &str) {
    if let Value::String(text) = &mut node.value {
        text.repair(with);
    }
}

fn set_text(node: &mut Node, key: &str, with: String) {
    for entry in entries_mut(node).iter_mut().filter(|e| e.key == key) {
        replace_text(&mut entry.node, &with);
    }
}
