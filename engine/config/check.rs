//! What a schema cannot say about a pipeline: names that must resolve, columns that must exist, what
//! connectors demand of their keys and of the stream they take.
//!
//! A section that cannot be understood leaves its name behind, so that whoever refers to it is not blamed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{Field, Schema, SchemaRef};
use chrono::NaiveDate;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::columns;
use super::diagnostic::{At, Problems, did_you_mean};
use super::tree::{Entry, Node};
use super::{checkpoint, dedups, queries, rejected, revisions, schedule, tables, windows};
use crate::error::{Error, ErrorClass};
use crate::metrics::Counters;
use crate::pipeline::{SinkSpec, SourceSpec, TestSpec};
use crate::plan::{Dedup, Plan, SinkNode, SourceNode, Stream};
use crate::registry::Registry;
use crate::run::DatedRun;
use crate::secret::Secrets;
use crate::sink::SinkContext;
use crate::source::{RECEIVED_AT, SourceContext, invalid_schema};
use crate::time::timestamp_type;

/// Makes the plan of a file whose tree has been walked. What is wrong goes to `problems`.
pub(super) fn plan(root: &Node, registry: &Registry, date: NaiveDate, problems: &mut Problems) -> Plan {
    let mut checker = Checker {
        root,
        registry,
        problems,
        run: root.get("schedule").map(|_| DatedRun { date, attempt: 0 }),
        names: Names::default(),
        plan: empty_plan(),
    };
    checker.head();
    checker.names();
    checker.sources();
    checkpoint::read(&mut checker);
    schedule::read(&mut checker);
    tables::read(&mut checker);
    let windows = windows::read(&mut checker);
    let dedups = dedups::read(&mut checker);
    queries::plan(&mut checker, windows, dedups);
    checker.sinks();
    checker.tests();
    checker.plan
}

/// The plan as far as it is made, and what it is made from.
pub(super) struct Checker<'a> {
    pub root: &'a Node,
    pub registry: &'a Registry,
    pub problems: &'a mut Problems,
    /// What sources and sinks are told of the run, in a pipeline with a `[schedule]`.
    pub run: Option<DatedRun>,
    pub names: Names,
    pub plan: Plan,
}

/// The names of a file, also of sections that are wrong.
#[derive(Default)]
pub(super) struct Names {
    pub sources: BTreeSet<String>,
    pub dedups: BTreeSet<String>,
    pub windows: BTreeSet<String>,
    pub queries: BTreeSet<String>,
    pub tables: BTreeSet<String>,
    /// Sources, dedups, queries, `<source>.invalid`, `<window>.late`, `<sink>.rejected`.
    pub streams: BTreeSet<String>,
    /// Windows that drop their late rows.
    pub dropping: BTreeSet<String>,
    /// Sources of whose tables nothing is known, as they are wrong.
    pub untold: BTreeSet<String>,
    /// Streams whose rows come again for late rows, and the window that makes them.
    pub updating: BTreeMap<String, String>,
}

/// A named section that was understood.
pub(super) struct Section<'a, T> {
    pub name: &'a str,
    pub node: &'a Node,
    pub spec: T,
}

fn empty_plan() -> Plan {
    Plan {
        name: String::new(),
        description: None,
        sources: Vec::new(),
        dedups: Vec::new(),
        windows: Vec::new(),
        queries: Vec::new(),
        tables: Vec::new(),
        sinks: Vec::new(),
        streams: BTreeMap::new(),
        checkpoint_interval: Duration::ZERO,
        schedule: None,
        tests: Vec::new(),
        secrets: Secrets::default(),
    }
}

impl<'a> Checker<'a> {
    /// The sections of a table, in the order of the file.
    pub fn sections<T: DeserializeOwned>(&mut self, table: &str) -> Vec<Section<'a, T>> {
        let root = self.root;
        let entries: &'a [Entry] = root.get(table).map_or(&[], |e| e.node.entries());
        let section = |entry: &'a Entry| {
            let spec = self.read(&entry.node)?;
            Some(Section {
                name: &entry.key,
                node: &entry.node,
                spec,
            })
        };
        entries.iter().filter_map(section).collect()
    }

    /// A section as its type. The walk has reported what is wrong with it; where it has found nothing wrong
    /// in the whole file, the type demands something the schema does not say.
    pub fn read<T: DeserializeOwned>(&mut self, node: &Node) -> Option<T> {
        match serde_json::from_value(node.json()?) {
            Ok(spec) => Some(spec),
            Err(e) if self.problems.count() == 0 => {
                self.problems.add(&node.at, e.to_string());
                None
            }
            Err(_) => None,
        }
    }

    fn head(&mut self) {
        let root = self.root;
        let text = |key: &str| root.get(key).and_then(|e| e.node.text()).map(|t| t.value.clone());
        self.plan.name = text("name").unwrap_or_default();
        self.plan.description = text("description");
        let empty = |table: &str| {
            root.get(table)
                .is_none_or(|e| e.node.is_whole() && e.node.entries().is_empty())
        };
        if empty("source") {
            let example = "add `[source.impressions]` with `type = \"http\"`, `path` and `columns`";
            self.problems.help(&(0..0), "the pipeline has no source", example);
        }
        if empty("sink") {
            let example = "add `[sink.out]` with `type = \"console\"` and `input`";
            self.problems.help(&(0..0), "the pipeline has no sink", example);
        }
    }

    /// A duration that must not be zero.
    pub fn positive(&mut self, section: &Node, key: &str, value: Duration) {
        if value.is_zero() {
            let message = format!("`{key}` must be longer than zero");
            self.problems
                .help(section.at_key(key), message, "write for example \"10s\"");
        }
    }

    fn names(&mut self) {
        let root = self.root;
        let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
        let kinds_by_table = [
            ("source", "source"),
            ("dedup", "dedup"),
            ("window", "window"),
            ("sql", "query"),
            ("table", "table"),
        ];
        for (table, kind) in kinds_by_table {
            for entry in root.get(table).map_or(&[][..], |e| e.node.entries()) {
                if let Some(other) = kinds.insert(&entry.key, kind) {
                    let message = format!("`{}` is a {kind} and a {other}", entry.key);
                    let help =
                        "sources, dedups, windows and queries are the tables of SQL: give each its own name";
                    self.problems.help(&entry.key_at, message, help);
                }
                let late = entry.node.get("late").and_then(|e| e.node.text());
                if kind == "window" && late.is_some_and(|t| t.value == "drop") {
                    self.names.dropping.insert(entry.key.clone());
                }
                self.names.add(kind, &entry.key);
            }
        }
        rejected::names(self);
    }

    fn sources(&mut self) {
        let without_columns = self.without_columns();
        for section in self.sections::<SourceSpec>("source") {
            if without_columns.contains(section.name) {
                continue;
            }
            let mut fields = columns::schema(&section.spec.columns.0);
            let event_time = self.event_time(&section, &mut fields);
            let schema = Arc::new(Schema::new(fields));
            let Section { name, node, spec } = section;
            self.positive(node, "idle_after", spec.idle_after.0);
            let dedup = spec.dedup.and_then(|d| {
                let node = &node.get("dedup")?.node;
                self.dedup(node, &schema, event_time, d.within.0)
            });
            let mut source = SourceNode {
                name: name.into(),
                kind: spec.kind,
                schema: schema.clone(),
                event_time,
                max_out_of_orderness: spec.max_out_of_orderness.0,
                idle_after: spec.idle_after.0,
                max_future: spec.max_future.0,
                dedup,
                tables: Vec::new(),
                options: spec.options.into(),
            };
            self.check_source(node, &source);
            source.tables = self.source_tables(node, &source);
            self.stream(
                name.into(),
                Stream {
                    schema,
                    event_time: Some(event_time),
                },
            );
            self.stream(
                format!("{name}.invalid"),
                Stream {
                    schema: invalid_schema(),
                    event_time: Some(0),
                },
            );
            self.plan.sources.push(source);
        }
    }

    /// Reports sources without columns, but for those that feed tables of their own; gives their names.
    fn without_columns(&mut self) -> BTreeSet<String> {
        let root = self.root;
        let entries = root.get("source").map_or(&[][..], |e| e.node.entries());
        let without = |entry: &&Entry| {
            let node = &entry.node;
            !node.entries().is_empty() && node.get("columns").is_none() && !self.may_feed_tables(entry)
        };
        let without: Vec<&Entry> = entries.iter().filter(without).collect();
        for entry in &without {
            let message = format!("`source.{}` has no key `columns`", entry.key);
            let help = "`columns`: the columns, each `\"<type>\"` or `\"<type> not null\"`; types: string, bigint, int, \
                        double, boolean, timestamp, date";
            self.problems.help(&entry.node.at, message, help);
        }
        without.into_iter().map(|entry| entry.key.clone()).collect()
    }

    /// Whether a source feeds tables of its own; also where that cannot be told, as the source is wrong.
    fn may_feed_tables(&self, source: &Entry) -> bool {
        let spec = source.node.json();
        let spec: Option<SourceSpec> = spec.and_then(|json| serde_json::from_value(json).ok());
        let Some(spec) = spec else { return false };
        let Some(connector) = self.registry.sources.get(spec.kind.as_str()) else {
            return false;
        };
        let fields = vec![Field::new(RECEIVED_AT, timestamp_type(), false)];
        let context = self.source_context(&source.key, Arc::new(Schema::new(fields)), 0, spec.options.into());
        !matches!(connector.tables(&context), Ok(None))
    }

    pub fn stream(&mut self, name: String, stream: Stream) {
        self.plan.streams.insert(name, stream);
    }

    /// Index of the event-time column. Where the file gets it wrong the fields are made right, so that
    /// windows and queries are checked all the same.
    fn event_time(&mut self, section: &Section<'_, SourceSpec>, fields: &mut Vec<Field>) -> usize {
        let named = section.spec.event_time.as_deref();
        let name = named.unwrap_or(RECEIVED_AT);
        let Some(index) = fields.iter().position(|f| f.name() == name) else {
            if named.is_some() {
                let known: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
                let help = did_you_mean(name, known, '`', "columns").unwrap_or_default();
                let message = format!("`{}` has no column `{name}`", section.name);
                self.problems
                    .help(section.node.at_key("event_time"), message, help);
            }
            let arrival = fields.iter().position(|f| f.name() == RECEIVED_AT);
            return arrival.unwrap_or_else(|| {
                fields.push(Field::new(RECEIVED_AT, timestamp_type(), false));
                fields.len() - 1
            });
        };
        let field = &fields[index];
        if field.data_type() != &timestamp_type() || field.is_nullable() {
            let column = section.node.get("columns").and_then(|c| c.node.get(name));
            if let Some(column) = column.filter(|c| c.node.is_whole()) {
                let message = match field.data_type() == &timestamp_type() {
                    true => format!("the event time `{name}` may be null"),
                    false => format!("the event time `{name}` is not a timestamp"),
                };
                self.problems
                    .help(&column.node.at, message, "write \"timestamp not null\"");
            }
            fields[index] = Field::new(name, timestamp_type(), false);
        }
        index
    }

    /// The `key` and `within` of a table.
    pub fn dedup(
        &mut self,
        node: &Node,
        schema: &SchemaRef,
        event_time: usize,
        within: Duration,
    ) -> Option<Dedup> {
        self.positive(node, "within", within);
        let keys = node.get("key")?.node.items();
        if keys.is_empty() {
            let help = "name the columns that together tell rows apart";
            self.problems
                .help(node.at_key("key"), "`key` names no column", help);
        }
        let indices: Vec<Option<usize>> = keys.iter().map(|key| self.column(schema, key)).collect();
        let key = indices.into_iter().collect::<Option<Vec<_>>>()?;
        let refused = self.registry.sql.dedup(schema, event_time, &key, within);
        if let Err(error) = refused {
            self.refused(node, &error);
        }
        Some(Dedup { key, within })
    }

    /// Index of the column that a string of the file names.
    pub fn column(&mut self, schema: &Schema, name: &Node) -> Option<usize> {
        let typed = name.text()?.value.as_str();
        self.column_at(schema, typed, &name.at)
    }

    fn column_at(&mut self, schema: &Schema, typed: &str, at: &At) -> Option<usize> {
        let index = schema.index_of(typed).ok();
        if index.is_none() {
            let known: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            let help = did_you_mean(typed, known, '`', "columns").unwrap_or_default();
            self.problems
                .help(at, format!("there is no column `{typed}`"), help);
        }
        index
    }

    fn check_source(&mut self, node: &Node, source: &SourceNode) {
        let Some(connector) = self.registry.sources.get(source.kind.as_str()) else {
            return;
        };
        let context = self.context_of(source);
        if let Some(error) = node
            .is_whole()
            .then(|| connector.check(&context))
            .and_then(Result::err)
        {
            self.refused(node, &error);
        }
    }

    /// The tables that a source feeds, whose streams are made here.
    fn source_tables(&mut self, node: &Node, source: &SourceNode) -> Vec<String> {
        let Some(connector) = self.registry.sources.get(source.kind.as_str()) else {
            return Vec::new();
        };
        if !node.is_whole() {
            return Vec::new();
        }
        let tables = match connector.tables(&self.context_of(source)) {
            Ok(tables) => tables,
            Err(error) => {
                // What is wrong with the source has been said. What is away now may have been there a moment ago.
                if matches!(error.class(), ErrorClass::Retry { .. }) {
                    self.refused(node, &error);
                }
                self.names.untold.insert(source.name.clone());
                return Vec::new();
            }
        };
        let mut names = Vec::new();
        for (table, schema) in tables.unwrap_or_default() {
            let stream = format!("{}.{table}", source.name);
            self.names.streams.insert(stream.clone());
            self.stream(
                stream,
                Stream {
                    schema,
                    event_time: None,
                },
            );
            names.push(table);
        }
        if !names.is_empty() {
            // Its rows are those of the tables.
            self.names.streams.remove(&source.name);
            self.names.streams.remove(&format!("{}.invalid", source.name));
        }
        names
    }

    fn context_of(&self, source: &SourceNode) -> SourceContext {
        let SourceNode {
            name,
            schema,
            event_time,
            options,
            ..
        } = source;
        self.source_context(name, schema.clone(), *event_time, options.clone())
    }

    fn source_context(
        &self,
        name: &str,
        schema: SchemaRef,
        event_time: usize,
        options: serde_json::Value,
    ) -> SourceContext {
        SourceContext {
            run: self.run.clone(),
            pipeline: self.plan.name.clone(),
            name: name.into(),
            schema,
            event_time,
            options,
            data_dir: PathBuf::new(),
            stop: CancellationToken::new(),
            counters: Counters::detached(),
        }
    }

    /// Reports what a connector says of its section, at the value or key it quotes.
    pub fn refused(&mut self, node: &Node, error: &Error) {
        let message = error.to_string();
        let quoted = quoted(&message);
        let at = quoted.iter().find_map(|q| find(node, q)).unwrap_or(&node.at);
        match error.class() {
            ErrorClass::Retry { .. } => self.problems.passing(at, message),
            _ => self.problems.add(at, message),
        }
    }

    fn sinks(&mut self) {
        rejected::streams(self);
        for Section { name, node, spec } in self.sections::<SinkSpec>("sink") {
            let options: serde_json::Value = spec.options.into();
            for (name, input) in self.inputs(name, &spec.input) {
                let known = self.input(node, &input);
                let sink = SinkNode {
                    name,
                    kind: spec.kind.clone(),
                    input,
                    options: options.clone(),
                };
                if known && node.is_whole() {
                    self.check_sink(node, &sink);
                    revisions::check_sink(self, node, &sink);
                }
                self.plan.sinks.push(sink);
            }
        }
        rejected::circles(self);
    }

    /// The sinks that a section stands for, and their inputs: one, or with `log.*` one per table of the source.
    pub fn inputs(&self, sink: &str, input: &str) -> Vec<(String, String)> {
        let source = input.strip_suffix(".*");
        let source = source.and_then(|name| self.plan.sources.iter().find(|s| s.name == name));
        match source {
            Some(source) if !source.tables.is_empty() => {
                let of = |table: &String| (format!("{sink}.{table}"), format!("{}.{table}", source.name));
                source.tables.iter().map(of).collect()
            }
            _ => vec![(sink.into(), input.into())],
        }
    }

    /// Whether a sink's input is a stream; if not, reports what it should be.
    fn input(&mut self, node: &Node, input: &str) -> bool {
        if self.names.streams.contains(input) {
            return true;
        }
        let at = node.at_key("input");
        if self.names.windows.contains(input) {
            let message = format!("`{input}` is a window, not a stream");
            let late = match self.names.dropping.contains(input) {
                true => "are dropped".to_owned(),
                false => format!("are `{input}.late`"),
            };
            let help = format!("a query over `{input}` makes a stream; its late rows {late}");
            self.problems.help(at, message, help);
        } else if self.names.tables.contains(input) {
            let message = format!("`{input}` is a table, not a stream");
            let help = format!("a query that joins a stream with `{input}` makes a stream");
            self.problems.help(at, message, help);
        } else {
            self.no_stream(at, input);
        }
        false
    }

    /// Reports a stream that does not exist.
    pub fn no_stream(&mut self, at: &At, typed: &str) {
        let source = typed.split_once('.').map_or(typed, |(source, _)| source);
        if self.names.untold.contains(source) {
            return;
        }
        let window = typed.strip_suffix(".late");
        if let Some(window) = window.filter(|w| self.names.dropping.contains(*w)) {
            let message = format!("there is no stream `{typed}`: the window drops its late rows");
            let help = format!("write `late = \"side\"` in [window.{window}]");
            self.problems.help(at, message, help);
            return;
        }
        if rejected::refuses_nothing(self, at, typed) {
            return;
        }
        let known = self.names.streams.iter().map(String::as_str);
        let help = did_you_mean(typed, known, '`', "streams").unwrap_or_default();
        self.problems
            .help(at, format!("there is no stream `{typed}`"), help);
    }

    fn check_sink(&mut self, node: &Node, sink: &SinkNode) {
        let Some(connector) = self.registry.sinks.get(sink.kind.as_str()) else {
            return;
        };
        let Some(stream) = self.plan.streams.get(&sink.input) else {
            return;
        };
        let context = SinkContext {
            run: self.run.clone(),
            pipeline: self.plan.name.clone(),
            name: sink.name.clone(),
            input: sink.input.clone(),
            schema: stream.schema.clone(),
            event_time: stream.event_time,
            options: sink.options.clone(),
            data_dir: PathBuf::new(),
            counters: Counters::detached(),
        };
        if let Err(error) = connector.check(&context) {
            self.refused(node, &error);
        }
    }

    fn tests(&mut self) {
        let root = self.root;
        for test in root.get("test").map_or(&[][..], |e| e.node.items()) {
            for input in test.get("input").map_or(&[][..], |e| e.node.entries()) {
                match self.names.sources.contains(&input.key) {
                    // Lines have what keys they like.
                    true if self.feeds_tables(&input.key) => {}
                    true => self.rows(input),
                    false => {
                        let known = self.names.sources.iter().map(String::as_str);
                        let help = did_you_mean(&input.key, known, '`', "sources").unwrap_or_default();
                        let message = format!("there is no source `{}`", input.key);
                        self.problems.help(&input.key_at, message, help);
                    }
                }
            }
            tables::check_test(self, test);
            for expect in test.get("expect").map_or(&[][..], |e| e.node.entries()) {
                match self.names.streams.contains(&expect.key) {
                    true if rejected::of_a_test(self, expect) => {}
                    true => self.rows(expect),
                    false => self.no_stream(&expect.key_at, &expect.key),
                }
            }
            let spec = self.read::<TestSpec>(test);
            self.plan.tests.extend(spec);
        }
    }

    fn feeds_tables(&self, source: &str) -> bool {
        let sources = &self.plan.sources;
        sources.iter().any(|s| s.name == source && !s.tables.is_empty())
    }

    /// The columns of a test's rows exist.
    fn rows(&mut self, of: &Entry) {
        if let Some(stream) = self.plan.streams.get(&of.key).cloned() {
            self.rows_of(&stream.schema, of);
        }
    }

    /// The columns of rows that a test gives are in `schema`.
    pub fn rows_of(&mut self, schema: &Schema, of: &Entry) {
        for cell in of.node.items().iter().flat_map(Node::entries) {
            self.column_at(schema, &cell.key, &cell.key_at);
        }
    }
}

impl Names {
    fn add(&mut self, kind: &str, name: &str) {
        let (set, streams) = match kind {
            "source" => (
                &mut self.sources,
                vec![name.to_owned(), format!("{name}.invalid")],
            ),
            "dedup" => (&mut self.dedups, vec![name.to_owned()]),
            "window" if self.dropping.contains(name) => (&mut self.windows, Vec::new()),
            "window" => (&mut self.windows, vec![format!("{name}.late")]),
            "table" => (&mut self.tables, Vec::new()),
            _ => (&mut self.queries, vec![name.to_owned()]),
        };
        set.insert(name.to_owned());
        self.streams.extend(streams);
    }
}

/// What a message quotes, in any of three kinds of quotes.
fn quoted(message: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for quote in ['"', '`', '\''] {
        // Between every odd and the following even quote.
        found.extend(message.split(quote).skip(1).step_by(2));
    }
    found
}

/// Where `wanted` stands in a section: as a value, else as a key.
fn find<'n>(node: &'n Node, wanted: &str) -> Option<&'n At> {
    fn value<'n>(node: &'n Node, wanted: &str) -> Option<&'n At> {
        if node.text().is_some_and(|t| t.value == wanted) {
            return Some(&node.at);
        }
        let inside = node.items().iter().chain(node.entries().iter().map(|e| &e.node));
        inside.into_iter().find_map(|n| value(n, wanted))
    }
    fn key<'n>(node: &'n Node, wanted: &str) -> Option<&'n At> {
        let own = node.get(wanted).map(|e| &e.key_at);
        let inside = || node.items().iter().chain(node.entries().iter().map(|e| &e.node));
        own.or_else(|| inside().find_map(|n| key(n, wanted)))
    }
    value(node, wanted).or_else(|| key(node, wanted))
}
