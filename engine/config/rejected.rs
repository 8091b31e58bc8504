//! Rows that sinks refuse: the streams `<sink>.rejected`, which sinks take, and nothing else does.

use std::sync::Arc;

use super::check::Checker;
use super::diagnostic::At;
use super::tree::{Entry, Node};
use crate::plan::{Stream, rejected, rejecting_sink};
use crate::sink::SinkConnector;
use crate::source::invalid_schema;

/// Notes the streams of the sinks that refuse rows. One whose type is not known may be of any.
pub(super) fn names(checker: &mut Checker<'_>) {
    let all = sinks(checker);
    let refusing = all
        .iter()
        .filter(|s| connector(checker, s).is_none_or(|c| c.rejects()));
    let streams: Vec<String> = refusing.map(|s| rejected(&s.key)).collect();
    checker.names.streams.extend(streams);
}

/// Puts the streams into the plan: one of each sink that a section stands for.
pub(super) fn streams(checker: &mut Checker<'_>) {
    for sink in sinks(checker) {
        if !connector(checker, sink).is_some_and(|c| c.rejects()) {
            continue;
        }
        checker.names.streams.remove(&rejected(&sink.key));
        for (name, _) in checker.inputs(&sink.key, input(&sink.node).unwrap_or_default()) {
            let stream = Stream {
                schema: invalid_schema(),
                event_time: Some(0),
            };
            checker.names.streams.insert(rejected(&name));
            checker.stream(rejected(&name), stream);
        }
    }
}

/// Whether `typed` is a stream that a sink would make if it refused rows, which it does not; if so, reports it.
pub(super) fn refuses_nothing(checker: &mut Checker<'_>, at: &At, typed: &str) -> bool {
    let Some(name) = rejecting_sink(typed) else {
        return false;
    };
    let Some(sink) = sinks(checker).iter().find(|s| s.key == name) else {
        return false;
    };
    let kind = connector(checker, sink).map_or("", |c| c.name());
    let able = checker.registry.sinks.values().filter(|c| c.rejects());
    let able: Vec<&str> = able.map(|c| c.name()).collect();
    let message = format!("there is no stream `{typed}`: a {kind} sink takes every row");
    let help = format!("these sinks refuse rows: {}", able.join(", "));
    checker.problems.help(at, message, help);
    true
}

/// Whether what a test expects are rows that a sink refuses; if so, reports that there are none in a test.
pub(super) fn of_a_test(checker: &mut Checker<'_>, expect: &Entry) -> bool {
    let refused = rejecting_sink(&expect.key).is_some();
    if refused {
        let message = format!("`{}` is made by a sink, and tests run without sinks", expect.key);
        let help = "expect the rows of the stream that the sink takes";
        checker.problems.help(&expect.key_at, message, help);
    }
    refused
}

/// Reports sinks that take, directly or through others, what they refuse themselves.
pub(super) fn circles(checker: &mut Checker<'_>) {
    for sink in sinks(checker) {
        if takes_itself(checker, sink) {
            let message = format!("`{}` takes rows that it has refused itself", sink.key);
            let help = "send them to a sink that takes every row, such as parquet";
            checker.problems.help(sink.node.at_key("input"), message, help);
        }
    }
}

/// Whether the way from input to input leads back to the sink.
fn takes_itself(checker: &Checker<'_>, sink: &Entry) -> bool {
    let all = sinks(checker);
    let from = |of: &Entry| {
        let name = rejecting_sink(input(&of.node)?)?;
        all.iter().find(|s| s.key == name)
    };
    let mut at = from(sink);
    for _ in all {
        match at {
            Some(other) if other.key == sink.key => return true,
            Some(other) => at = from(other),
            None => return false,
        }
    }
    false
}

fn sinks<'a>(checker: &Checker<'a>) -> &'a [Entry] {
    let root = checker.root;
    root.get("sink").map_or(&[], |e| e.node.entries())
}

fn input(sink: &Node) -> Option<&str> {
    Some(sink.get("input")?.node.text()?.value.as_str())
}

fn connector<'c>(checker: &'c Checker<'_>, sink: &Entry) -> Option<&'c Arc<dyn SinkConnector>> {
    let kind = sink.node.get("type")?.node.text()?;
    checker.registry.sinks.get(kind.value.as_str())
}
