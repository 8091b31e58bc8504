//! From the YAML of a schema to a checked [`LogSchema`], or to everything that is wrong with it.
//!
//! What the predecessor read is read. What it passed over without a word (a key that is not known, a key that is there
//! twice, of which the last counts) is a warning; what it would have failed on later, in a job or in the warehouse, is
//! an error.

use std::fmt;

use millstream_engine::config::{Diagnostic, did_you_mean};

use super::column::{self, Columns};
use super::errors::PIPELINE_ERRORS;
use super::schema::{LogSchema, SourceType, Table};
use super::tree::Tree;
use super::yaml::{self, At, Key, Node, Value};

/// Bytes of a name in a warehouse.
const NAME_BYTES: usize = 127;

const ROOT_KEYS: &[&str] = &["version", "tables"];
const TABLE_KEYS: &[&str] = &["src", "src_type", "sortkey_attr", "columns"];
const OLD_TABLE_KEYS: &[&str] = &["src", "src_type", "sortkey_attr", "columns", "version"];
const SOURCE_TYPES: &[&str] = &["dict", "list", "sparse_list"];

/// Everything that is wrong with a file, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Diagnostic>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, diagnostic) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

/// Reads a schema in either form.
pub(super) fn schema(file: &str, text: &str) -> Result<LogSchema, Problems> {
    let mut found = Found {
        file,
        lines: text.lines().collect(),
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let schema = match yaml::parse(text) {
        Ok(Some(root)) => found.schema(&root),
        Ok(None) => {
            found.error(
                At { line: 1, column: 1 },
                "there is nothing in the file",
                Some(START.into()),
            );
            None
        }
        Err((at, why)) => {
            found.error(at, format!("this is not YAML: {why}"), None);
            None
        }
    };
    let Found { errors, warnings, .. } = found;
    match schema {
        Some(schema) if errors.is_empty() => Ok(LogSchema {
            warnings: of_places(sorted(warnings)),
            ..schema
        }),
        _ => Err(Problems(sorted(errors))),
    }
}

const START: &str = "write `version: 1` and `tables:`, or let `millstream schema infer` write it";

fn sorted(mut all: Vec<Diagnostic>) -> Vec<Diagnostic> {
    all.sort_by_key(|d| (d.line, d.column));
    all.dedup();
    all
}

/// One for each place: what an alias repeats is told once.
fn of_places(mut all: Vec<Diagnostic>) -> Vec<Diagnostic> {
    all.dedup_by_key(|d| (d.line, d.column));
    all
}

/// What is found on the way.
pub(super) struct Found<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl Found<'_> {
    pub fn error(&mut self, at: At, message: impl Into<String>, help: Option<String>) {
        let diagnostic = self.diagnostic(at, message.into(), help);
        self.errors.push(diagnostic);
    }

    pub fn warn(&mut self, at: At, message: impl Into<String>, help: Option<String>) {
        let diagnostic = self.diagnostic(at, message.into(), help);
        self.warnings.push(diagnostic);
    }

    fn diagnostic(&self, at: At, message: String, help: Option<String>) -> Diagnostic {
        let source_line = self.lines.get(at.line.saturating_sub(1)).copied();
        Diagnostic {
            file: self.file.into(),
            line: at.line,
            column: at.column,
            message,
            help,
            source_line: source_line.unwrap_or_default().into(),
            passing: false,
        }
    }

    fn schema(&mut self, root: &Node) -> Option<LogSchema> {
        let Value::Map(entries) = &root.value else {
            let message = format!("a schema is a mapping, not {}", root.kind());
            self.error(root.at, message, Some(START.into()));
            return None;
        };
        match is_new_form(entries) {
            true => self.new_form(root),
            false => self.old_form(entries),
        }
    }

    fn new_form(&mut self, root: &Node) -> Option<LogSchema> {
        let fields = self.fields(root, ROOT_KEYS, "a schema")?;
        let version = fields.get("version").map_or(1, |node| self.version(node));
        let Some(tables) = fields.get("tables") else {
            let help = Some("write `tables:` and below it a mapping of names to tables".into());
            self.error(root.at, "there are no tables", help);
            return None;
        };
        let Value::Map(tables) = &tables.value else {
            let message = format!("tables is a mapping of names to tables, not {}", tables.kind());
            self.error(tables.at, message, None);
            return None;
        };
        self.tables(tables, TABLE_KEYS, version)
    }

    /// The older form: the tables and nothing above them, each with a version of its own.
    fn old_form(&mut self, tables: &[(Key, Node)]) -> Option<LogSchema> {
        let mut version = 0;
        for (_, table) in tables {
            let Value::Map(entries) = &table.value else {
                continue;
            };
            let own = entries.iter().rev().find(|(k, _)| k.name == "version");
            version = version.max(own.map_or(1, |(_, node)| self.version(node)));
        }
        self.tables(tables, OLD_TABLE_KEYS, version)
    }

    fn version(&mut self, node: &Node) -> i64 {
        match node.value {
            Value::Int(version) if version >= 0 => version,
            _ => {
                let message = format!("version is a whole number, not {}", node.kind());
                self.error(node.at, message, Some("write `version: 1`".into()));
                1
            }
        }
    }

    fn tables(&mut self, entries: &[(Key, Node)], known: &[&str], version: i64) -> Option<LogSchema> {
        let mut tables: Vec<Table> = Vec::new();
        let mut trees = Vec::new();
        for (at, (key, node)) in entries.iter().enumerate() {
            self.name(key.at, &key.name, "table");
            if key.name.eq_ignore_ascii_case(PIPELINE_ERRORS) {
                let help = "name it otherwise; this one always exists and takes the bad rows";
                self.error(
                    key.at,
                    format!("table {PIPELINE_ERRORS:?} is ours"),
                    Some(help.into()),
                );
            }
            let others = entries[..at].iter();
            if let Some((other, _)) = others.rev().find(|(k, _)| k.name.eq_ignore_ascii_case(&key.name)) {
                let message = format!(
                    "table {:?} is there twice, first in line {}",
                    key.name, other.at.line
                );
                self.error(key.at, message, Some("names differ in more than capitals".into()));
            }
            if let Some((table, tree)) = self.table(&key.name, node, known) {
                trees.push((key.name.clone(), tree));
                tables.push(table);
            }
        }
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        let tree = Tree::map([
            ("version", Tree::Int(version)),
            ("tables", Tree::Map(trees.into_iter().collect())),
        ]);
        Some(LogSchema {
            version,
            tables,
            warnings: Vec::new(),
            tree,
        })
    }

    fn table(&mut self, name: &str, node: &Node, known: &[&str]) -> Option<(Table, Tree)> {
        let what = format!("table {name:?}");
        let fields = self.fields(node, known, &what)?;
        let source = match fields.get("src") {
            Some(node) => self.path_or_nothing(node, "src"),
            None => {
                let help = "write `src: ''` for the line itself, or a path such as `src: search.results`";
                self.error(node.at, format!("{what} has no src"), Some(help.into()));
                None
            }
        };
        let source_type = self.source_type(&fields, node.at, &what);
        let columns = match fields.get("columns") {
            Some(columns) => column::read(self, columns, &what, source_type),
            None => {
                let help = "write `columns:` and below it a list of columns";
                self.error(node.at, format!("{what} has no columns"), Some(help.into()));
                None
            }
        };
        let sortkey = fields
            .get("sortkey_attr")
            .and_then(|keys| self.texts(keys, "sortkey_attr"));
        let Columns {
            columns,
            trees,
            inline,
        } = columns?;
        let sortkey = self.sortkey(sortkey, inline, &columns, &what);
        let mut tree = Tree::from(node);
        if let Tree::Map(entries) = &mut tree {
            let names = sortkey.iter().map(|k| Tree::text(k.as_str()));
            entries.insert("sortkey_attr".into(), Tree::List(names.collect()));
            entries.insert("columns".into(), Tree::List(trees));
            entries.remove("version");
        }
        let table = Table {
            name: name.into(),
            source: source?,
            source_type: source_type?,
            columns,
            sortkey,
        };
        Some((table, tree))
    }

    fn source_type(&mut self, fields: &Fields<'_>, at: At, what: &str) -> Option<SourceType> {
        let Some(node) = fields.get("src_type") else {
            let help = "write `src_type: dict`, `list` or `sparse_list`";
            self.error(at, format!("{what} has no src_type"), Some(help.into()));
            return None;
        };
        let word = self.text(node, "src_type")?;
        let found = match word.as_str() {
            "dict" => SourceType::Dict,
            "list" => SourceType::List,
            "sparse_list" => SourceType::SparseList,
            other => {
                let help = did_you_mean(other, SOURCE_TYPES.iter().copied(), '`', "known");
                self.error(node.at, format!("unknown src_type {other:?}"), help);
                return None;
            }
        };
        Some(found)
    }

    /// The sort key: the table's own, or, where it has none, the columns that say `sortkey`.
    fn sortkey(
        &mut self,
        own: Option<Vec<(At, String)>>,
        inline: Vec<(At, String)>,
        columns: &[super::schema::Column],
        what: &str,
    ) -> Vec<String> {
        let own = own.unwrap_or_default();
        let in_own = |name: &str| own.iter().any(|(_, k)| k.eq_ignore_ascii_case(name));
        for (at, name) in inline.iter().filter(|(_, name)| !own.is_empty() && !in_own(name)) {
            let message = format!("{what} has a sortkey_attr, and column {name:?} says sortkey, too");
            let help = "put the column into sortkey_attr, or take the word away";
            self.error(*at, message, Some(help.into()));
        }
        for (at, name) in &own {
            if !columns.iter().any(|c| c.name.eq_ignore_ascii_case(name)) {
                let names = columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>();
                let help = did_you_mean(name, names, '`', "columns");
                self.error(
                    *at,
                    format!("{what} is sorted by {name:?}, which is no column"),
                    help,
                );
            }
        }
        let keys = if own.is_empty() { inline } else { own };
        keys.into_iter().map(|(_, name)| name).collect()
    }

    /// The members of a mapping; tells of those that are not known or are there twice.
    pub fn fields<'n>(&mut self, node: &'n Node, known: &[&str], what: &str) -> Option<Fields<'n>> {
        let Value::Map(entries) = &node.value else {
            self.error(node.at, format!("{what} is a mapping, not {}", node.kind()), None);
            return None;
        };
        for (at, (key, _)) in entries.iter().enumerate() {
            if !known.contains(&key.name.as_str()) {
                let help = did_you_mean(&key.name, known.iter().copied(), '`', "known");
                self.warn(
                    key.at,
                    format!("unknown key {:?} in {what} means nothing", key.name),
                    help,
                );
            } else if entries[at + 1..].iter().any(|(k, _)| k.name == key.name) {
                let help = "is a `-` missing in front of the next column? what stands last counts";
                let message = format!("{:?} is there twice in {what}", key.name);
                self.warn(key.at, message, Some(help.into()));
            }
        }
        Some(Fields(entries))
    }

    /// Checks a name of a warehouse.
    pub fn name(&mut self, at: At, name: &str, what: &str) {
        if name.is_empty() || name.len() > NAME_BYTES || name.contains('\0') {
            let message = format!("{what} {name:?} is no name; names have 1 to {NAME_BYTES} bytes");
            self.error(at, message, None);
        }
    }

    pub fn text(&mut self, node: &Node, what: &str) -> Option<String> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Int(number) => Some(number.to_string()),
            _ => {
                self.error(node.at, format!("{what} is a text, not {}", node.kind()), None);
                None
            }
        }
    }

    /// A list of texts, or one.
    fn texts(&mut self, node: &Node, what: &str) -> Option<Vec<(At, String)>> {
        match &node.value {
            Value::Null => Some(Vec::new()),
            Value::List(items) => {
                let texts = items.iter().map(|item| Some((item.at, self.text(item, what)?)));
                texts.collect()
            }
            _ => Some(vec![(node.at, self.text(node, what)?)]),
        }
    }

    fn path_or_nothing(&mut self, node: &Node, what: &str) -> Option<Vec<String>> {
        match &node.value {
            Value::Null => Some(Vec::new()),
            Value::Text(text) if text.is_empty() => Some(Vec::new()),
            _ => self.path(node, what),
        }
    }

    /// Keys with dots between them.
    pub fn path(&mut self, node: &Node, what: &str) -> Option<Vec<String>> {
        let text = self.text(node, what)?;
        let parts: Vec<String> = text.split('.').map(str::to_owned).collect();
        if parts.iter().any(String::is_empty) {
            let help = "write keys with one dot between two of them, such as `search.results`";
            self.error(node.at, format!("{what} {text:?} is no path"), Some(help.into()));
            return None;
        }
        Some(parts)
    }
}

/// Members of a mapping.
pub(super) struct Fields<'n>(&'n [(Key, Node)]);

impl<'n> Fields<'n> {
    /// The last of that name, as in Python.
    pub fn get(&self, name: &str) -> Option<&'n Node> {
        let mut found = self.0.iter().rev();
        found.find(|(key, _)| key.name == name).map(|(_, node)| node)
    }
}

/// A table named `version` or `tables` would be a mapping with columns.
fn is_new_form(entries: &[(Key, Node)]) -> bool {
    let is_table = |node: &Node| match &node.value {
        Value::Map(inner) => inner.iter().any(|(k, _)| k.name == "columns"),
        _ => false,
    };
    let named = |name: &str| entries.iter().any(|(k, n)| k.name == name && !is_table(n));
    entries.is_empty() || named("version") || named("tables")
}
