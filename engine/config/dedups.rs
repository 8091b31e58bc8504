//! Dedups: a stream without the rows whose key was seen before.

use std::time::Duration;

use super::check::Checker;
use super::revisions;
use super::tree::Node;
use crate::pipeline::DedupStreamSpec;
use crate::plan::{DedupNode, Stream, rejecting_sink};

/// A dedup whose input may still have to be planned.
pub(super) struct CheckedDedup<'a> {
    pub name: String,
    pub input: String,
    within: Duration,
    node: &'a Node,
}

/// Reads all dedups. Those whose input is no stream, or which take rows from themselves, are reported and left
/// out.
pub(super) fn read<'a>(checker: &mut Checker<'a>) -> Vec<CheckedDedup<'a>> {
    let mut read: Vec<CheckedDedup<'a>> = Vec::new();
    for section in checker.sections::<DedupStreamSpec>("dedup") {
        if input_is_stream(checker, section.node, &section.spec.input) {
            read.push(CheckedDedup {
                name: section.name.into(),
                input: section.spec.input,
                within: section.spec.within.0,
                node: section.node,
            });
        }
    }
    let circled: Vec<bool> = read
        .iter()
        .map(|it| !checker.names.sources.contains(&it.input) && takes_itself(it, &read))
        .collect();
    for (it, _) in read.iter().zip(&circled).filter(|(_, circled)| **circled) {
        let message = format!("`{}` takes its own rows", it.name);
        let help = "let the first dedup take the rows of a source or a query";
        checker.problems.help(it.node.at_key("input"), message, help);
    }
    let mut circled = circled.into_iter();
    read.retain(|_| !circled.next().unwrap_or_default());
    read
}

/// Puts a dedup of a stream into the plan, with its stream; false when the stream has no event time.
pub(super) fn place(checker: &mut Checker<'_>, it: &CheckedDedup<'_>, stream: &Stream) -> bool {
    let CheckedDedup {
        name, input, node, ..
    } = it;
    let Some(event_time) = stream.event_time else {
        let message =
            format!("`{input}` has no event time, so nothing says how long its keys are remembered");
        let help = "let the query pass the event-time column of its source through";
        checker.problems.help(node.at_key("input"), message, help);
        return false;
    };
    let what_then = "a dedup would drop all but the first";
    if revisions::refuse(checker, input, node.at_key("input"), what_then) {
        return false;
    }
    if let Some(dedup) = checker.dedup(node, &stream.schema, event_time, it.within) {
        checker.plan.dedups.push(DedupNode {
            name: name.clone(),
            input: input.clone(),
            schema: stream.schema.clone(),
            event_time,
            dedup,
        });
    }
    checker.stream(name.clone(), stream.clone());
    true
}

/// Whether the way from input to input leads back to the dedup.
fn takes_itself(it: &CheckedDedup<'_>, all: &[CheckedDedup<'_>]) -> bool {
    let mut at = it;
    for _ in all {
        if at.input == it.name {
            return true;
        }
        match all.iter().find(|d| d.name == at.input) {
            Some(next) => at = next,
            None => return false,
        }
    }
    false
}

fn input_is_stream(checker: &mut Checker<'_>, node: &Node, input: &str) -> bool {
    let names = &checker.names;
    let at = node.at_key("input");
    if names.streams.contains(input) {
        let refused = rejecting_sink(input).is_some();
        if refused {
            let message = format!("`{input}` is made by a sink; only sinks take it");
            let help = "let the dedup take the stream that the sink takes";
            checker.problems.help(at, message, help);
        }
        return !refused;
    }
    if names.windows.contains(input) {
        let message = format!("`{input}` is a window; a dedup takes a stream");
        let help = format!("put the dedup before the window, or let it take the late rows, `{input}.late`");
        checker.problems.help(at, message, help);
    } else if names.tables.contains(input) {
        let message = format!("`{input}` is a table; a dedup takes a stream");
        let help =
            format!("`SELECT DISTINCT` over `{input}` in the query that joins it leaves each row once");
        checker.problems.help(at, message, help);
    } else {
        checker.no_stream(at, input);
    }
    false
}
