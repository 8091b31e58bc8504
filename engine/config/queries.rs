//! Plans the queries, each after those it reads.
//!
//! The engine does not read SQL, so it learns what a query reads by trying: in rounds, whatever can be
//! planned with the tables there are is planned, and adds its result to the tables. What is left then is
//! wrong itself, waits for something that is, or reads itself around a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::check::{Checker, Section};
use super::dedups::{self, CheckedDedup};
use super::revisions;
use super::tables;
use super::tree::Node;
use super::windows::{self, CheckedWindow, how_to_keep_time};
use crate::pipeline::{Bytes, SqlSpec};
use crate::plan::{SqlNode, Stream};
use crate::sql::{SqlError, SqlPlan, SqlPlanner, SqlRequest, SqlTable};

/// Least `state_limit`: a batch of some thousand rows.
const LEAST_STATE_LIMIT: Bytes = Bytes(1 << 20);

/// Plans every query into the checker's plan and puts every window and every dedup there.
pub(super) fn plan(
    checker: &mut Checker<'_>,
    windows: Vec<CheckedWindow<'_>>,
    dedups: Vec<CheckedDedup<'_>>,
) {
    let queries = checker.sections::<SqlSpec>("sql");
    queries.iter().for_each(|query| state_limit(checker, query));
    let sql = checker.registry.sql.with_tables(tables::known(checker));
    let mut planner = Planner {
        sql,
        checker,
        windows,
        dedups,
        tables: Vec::new(),
        timeless: BTreeSet::new(),
        windowed: BTreeSet::new(),
    };
    planner.source_tables();
    let left = planner.rounds(queries);
    planner.report(&left);
    let order = |table: &str, name: &str| {
        checker
            .root
            .get(table)
            .map(|t| t.node.entries().iter().position(|e| e.key == name))
    };
    checker.plan.windows.sort_by_key(|w| order("window", &w.name));
    checker.plan.dedups.sort_by_key(|d| order("dedup", &d.name));
}

/// A limit that not even a batch of rows fits into is a slip of the unit.
fn state_limit(checker: &mut Checker<'_>, query: &Section<'_, SqlSpec>) {
    let limit = query.spec.state_limit;
    if limit < LEAST_STATE_LIMIT {
        let message = format!("`state_limit` is {limit}; it must be at least {LEAST_STATE_LIMIT}");
        let help = "write for example \"1GiB\"";
        checker
            .problems
            .help(query.node.at_key("state_limit"), message, help);
    }
}

struct Planner<'c, 'a, 'w> {
    sql: Arc<dyn SqlPlanner>,
    checker: &'c mut Checker<'a>,
    /// Windows that wait for the query they cut.
    windows: Vec<CheckedWindow<'w>>,
    /// Dedups that wait for the stream they take.
    dedups: Vec<CheckedDedup<'w>>,
    tables: Vec<SqlTable>,
    /// Planned queries that cannot be read by others: their result has no event time.
    timeless: BTreeSet<String>,
    /// Queries whose result comes, somewhere upstream, from windows.
    windowed: BTreeSet<String>,
}

/// A query and what the planner said of it last.
type Failed<'a> = (Section<'a, SqlSpec>, Vec<SqlError>);

impl<'a> Planner<'_, 'a, '_> {
    fn source_tables(&mut self) {
        let sources: Vec<String> = self.checker.plan.sources.iter().map(|s| s.name.clone()).collect();
        for name in sources {
            self.publish(&name);
            self.dedups_of(&format!("{name}.invalid"));
        }
    }

    /// Makes a stream, and the windows over it and its dedups, tables.
    fn publish(&mut self, name: &str) {
        let Some(stream) = self.checker.plan.streams.get(name).cloned() else {
            return;
        };
        match stream.event_time {
            Some(event_time) => self.tables.push(SqlTable {
                name: name.into(),
                schema: stream.schema.clone(),
                event_time,
                window: None,
                lateness: None,
            }),
            None => {
                self.timeless.insert(name.into());
            }
        }
        let over = |w: &mut CheckedWindow<'_>| w.input == name;
        let windows: Vec<_> = self.windows.extract_if(.., over).collect();
        let windowed = self.windowed.contains(name);
        for window in windows {
            let table = windows::place(self.checker, &window, &stream, windowed);
            self.tables.extend(table);
            self.dedups_of(&format!("{}.late", window.name));
        }
        self.dedups_of(name);
    }

    /// Makes the dedups of a stream tables.
    fn dedups_of(&mut self, name: &str) {
        let Some(stream) = self.checker.plan.streams.get(name).cloned() else {
            return;
        };
        let of = |d: &mut CheckedDedup<'_>| d.input == name;
        let dedups: Vec<_> = self.dedups.extract_if(.., of).collect();
        for dedup in dedups {
            if dedups::place(self.checker, &dedup, &stream) {
                if self.windowed.contains(name) {
                    self.windowed.insert(dedup.name.clone());
                }
                self.publish(&dedup.name);
            }
        }
    }

    /// Plans what can be planned; gives back what cannot.
    fn rounds(&mut self, queries: Vec<Section<'a, SqlSpec>>) -> Vec<Failed<'a>> {
        let mut waiting: Vec<Failed<'a>> = queries.into_iter().map(|q| (q, Vec::new())).collect();
        loop {
            let before = waiting.len();
            let mut failed = Vec::new();
            for (query, _) in waiting {
                match self.try_plan(&query) {
                    Ok(plan) => self.planned(&query, plan),
                    Err(errors) => failed.push((query, errors)),
                }
            }
            if failed.is_empty() || failed.len() == before {
                return failed;
            }
            waiting = failed;
        }
    }

    fn try_plan(&self, query: &Section<'_, SqlSpec>) -> Result<Arc<dyn SqlPlan>, Vec<SqlError>> {
        self.sql.plan(&SqlRequest {
            name: query.name,
            query: &query.spec.query,
            emit_empty: query.spec.emit_empty,
            state_limit: query.spec.state_limit,
            tables: &self.tables,
        })
    }

    fn planned(&mut self, query: &Section<'_, SqlSpec>, plan: Arc<dyn SqlPlan>) {
        let name = query.name;
        self.joins_streams(query, plan.as_ref());
        let windowed =
            |input: &String| self.checker.names.windows.contains(input) || self.windowed.contains(input);
        if plan.inputs().iter().any(windowed) {
            self.windowed.insert(name.into());
        }
        revisions::follow(self.checker, name, plan.inputs());
        if let [_, _, ..] = plan.inputs() {
            let what_then = "a join would match each of them";
            let at = query.node.at_key("query");
            plan.inputs()
                .iter()
                .any(|input| revisions::refuse(self.checker, input, at, what_then));
        }
        let stream = Stream {
            schema: plan.schema(),
            event_time: plan.event_time(),
        };
        self.checker.stream(name.into(), stream);
        self.checker.plan.queries.push(SqlNode {
            name: name.into(),
            query: query.spec.query.clone(),
            plan,
        });
        self.publish(name);
    }

    /// Results of windows carry the start of their window, which is over when they come. A join of streams by
    /// time would take them for late.
    fn joins_streams(&mut self, query: &Section<'_, SqlSpec>, plan: &dyn SqlPlan) {
        let inputs = plan.inputs();
        let is_window = |input: &String| self.checker.names.windows.contains(input);
        if inputs.len() < 2 || inputs.iter().any(is_window) {
            return;
        }
        if let Some(input) = inputs.iter().find(|i| self.windowed.contains(*i)) {
            let message =
                format!("`{input}` is made from windows; joins of such streams are not supported yet");
            let help = "join the windows in one query instead, or the streams before they are cut";
            let at = query.node.at_key("query");
            self.checker.problems.help(at, message, help);
        }
    }

    /// Reports why the queries that are left cannot be planned. Errors about something that was reported
    /// itself are left out.
    fn report(&mut self, left: &[Failed<'_>]) {
        let waits: BTreeMap<&str, BTreeSet<String>> = left
            .iter()
            .map(|(query, errors)| (query.name, self.waits_for(query, errors)))
            .collect();
        let before = self.checker.problems.count();
        let mut circled = BTreeSet::new();
        for (query, errors) in left {
            if let Some(circle) = circle(query.name, &waits).filter(|_| !circled.contains(query.name)) {
                self.circle(query, errors, &circle);
                circled.extend(circle);
            }
            for error in errors {
                if self.missing(query, error).is_empty() {
                    self.error(query, error);
                }
            }
        }
        // Nothing was reported, anywhere: then nothing is left out.
        if before == 0 && self.checker.problems.count() == 0 {
            for (query, errors) in left {
                errors.iter().for_each(|error| self.error(query, error));
            }
        }
    }

    fn error(&mut self, query: &Section<'_, SqlSpec>, error: &SqlError) {
        let at = place_of(query.node, error);
        let timeless = self.timeless.iter().find(|name| speaks_of(query, error, name));
        match timeless {
            Some(name) => {
                let message = format!("`{name}` cannot be read by a query: its result has no event time");
                let windowed = self.windowed.contains(name);
                self.checker
                    .problems
                    .help(&at, message, how_to_keep_time(name, windowed));
            }
            None => self.checker.problems.add(&at, error.message.clone()),
        }
    }

    fn circle(&mut self, query: &Section<'_, SqlSpec>, errors: &[SqlError], circle: &[String]) {
        let next = circle.get(1).map_or(query.name, String::as_str);
        let about = errors.iter().find(|e| speaks_of(query, e, next));
        let at = about.map_or_else(|| query.node.at.clone(), |e| place_of(query.node, e));
        let mut path = circle.to_vec();
        path.push(query.name.to_owned());
        let message = format!("`{}` reads its own result: {}", query.name, path.join(" reads "));
        self.checker
            .problems
            .help(&at, message, "a query can only read what does not depend on it");
    }

    /// Names that an error speaks of and that are in the file but not among the tables.
    fn missing(&self, query: &Section<'_, SqlSpec>, error: &SqlError) -> BTreeSet<String> {
        let names = &self.checker.names;
        let all = names.sources.iter().chain(&names.dedups);
        let all = all
            .chain(&names.windows)
            .chain(&names.queries)
            .chain(&names.tables);
        let reference = |name: &String| self.checker.plan.tables.iter().any(|t| t.name == *name);
        let known = |name: &String| self.tables.iter().any(|t| t.name == *name) || reference(name);
        let absent = |name: &&String| !known(name) && !self.timeless.contains(*name);
        all.filter(absent)
            .filter(|name| speaks_of(query, error, name))
            .cloned()
            .collect()
    }

    /// The queries that a query waits for, directly or through windows and dedups.
    fn waits_for(&self, query: &Section<'_, SqlSpec>, errors: &[SqlError]) -> BTreeSet<String> {
        let missing = errors.iter().flat_map(|e| self.missing(query, e));
        let input = |name: &str| {
            let window = self.windows.iter().find(|w| w.name == name).map(|w| &w.input);
            window.or_else(|| self.dedups.iter().find(|d| d.name == name).map(|d| &d.input))
        };
        let through = |mut name: String| {
            // Dedups that take their own rows are not among them, so this ends.
            while let Some(next) = input(&name) {
                name.clone_from(next);
            }
            name
        };
        missing.map(through).collect()
    }
}

/// Whether an error is about the table `name`.
fn speaks_of(query: &Section<'_, SqlSpec>, error: &SqlError, name: &str) -> bool {
    let place = error
        .at
        .clone()
        .and_then(|at| query.spec.query.get(at))
        .unwrap_or_default();
    let word = |text: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|w| w == name)
    };
    word(place) || word(&error.message)
}

fn place_of(section: &Node, error: &SqlError) -> super::diagnostic::At {
    let text = section.get("query").and_then(|e| e.node.text());
    match (&error.at, text) {
        (Some(at), Some(text)) => text.at(at),
        _ => section.at_key("query").clone(),
    }
}

/// The way from `start` back to itself, if there is one.
fn circle(start: &str, waits: &BTreeMap<&str, BTreeSet<String>>) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop() {
        for next in way
            .last()
            .and_then(|last| waits.get(last.as_str()))
            .into_iter()
            .flatten()
        {
            if next == start {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                let mut longer = way.clone();
                longer.push(next.clone());
                ways.push(longer);
            }
        }
    }
    None
}
