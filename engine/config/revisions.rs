//! Results that come again: windows with `on_late = "update"` fire again for late rows, and who takes such
//! results must tell an earlier one from a later one of the same window.

use super::check::Checker;
use super::diagnostic::At;
use super::tree::Node;
use crate::plan::SinkNode;

/// The window that makes a stream give results again, if one does.
fn cause(checker: &Checker<'_>, input: &str) -> Option<String> {
    let windows = checker.plan.windows.iter();
    let mut own = windows.filter(|w| w.name == input && w.lateness.is_some());
    let own = own.next().map(|w| w.name.clone());
    own.or_else(|| checker.names.updating.get(input).cloned())
}

/// Notes that the rows of `inputs` are what `stream` is made from.
pub(super) fn follow(checker: &mut Checker<'_>, stream: &str, inputs: &[String]) {
    if let Some(window) = inputs.iter().find_map(|input| cause(checker, input)) {
        checker.names.updating.insert(stream.into(), window);
    }
}

/// Whether `stream` gives results again; if so, reports at `at` what would come of it.
pub(super) fn refuse(checker: &mut Checker<'_>, stream: &str, at: &At, what_then: &str) -> bool {
    let Some(window) = checker.names.updating.get(stream) else {
        return false;
    };
    let message = format!("`{stream}` gives a window's result again when rows come late: {what_then}");
    let help = format!("take the rows of the source instead, or leave `on_late` out of [window.{window}]");
    checker.problems.help(at, message, help);
    true
}

/// Reports a sink that cannot replace what it was given, where results come again.
pub(super) fn check_sink(checker: &mut Checker<'_>, node: &Node, sink: &SinkNode) {
    let Some(window) = checker.names.updating.get(&sink.input) else {
        return;
    };
    let sinks = &checker.registry.sinks;
    if sinks.get(sink.kind.as_str()).is_none_or(|s| s.takes_revisions()) {
        return;
    }
    let (kind, input) = (&sink.kind, &sink.input);
    let able = sinks.values().filter(|s| s.takes_revisions());
    let able: Vec<&str> = able.map(|s| s.name()).collect();
    let message = format!(
        "`{input}` gives a window's result again, as a higher `revision`, when rows come late, and a {kind} sink \
         cannot replace the one before"
    );
    let help = format!(
        "leave `on_late` and `allowed_lateness` out of [window.{window}], or send `{input}` to one of these sinks: {}",
        able.join(", ")
    );
    checker.problems.help(node.at_key("input"), message, help);
}
