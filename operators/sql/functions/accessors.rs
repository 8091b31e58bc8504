//! `TUMBLE_START(…)`, `HOP_END(…)` and their like: what Flink has for the bounds of a window, as other names of
//! `window_start()` and `window_end()`.
//!
//! Here the window is declared beside the query, so the arguments that Flink wants are not needed. Where they
//! are written they must agree with the window: a query that was copied from elsewhere must not be cut otherwise
//! than it says.

use std::time::Duration;

use datafusion::sql::sqlparser::ast::{Expr, Interval, Value};
use datafusion::sql::sqlparser::tokenizer::Span;
use millstream_engine::sql::{SqlTable, WINDOW_END, WINDOW_START};
use millstream_engine::window::Window;

use super::dialect::text;

/// Name, what it stands for, the type of window it is for. The last three stand in a GROUP BY.
const ACCESSORS: [(&str, &str, &str); 9] = [
    ("tumble_start", WINDOW_START, "tumbling"),
    ("tumble_end", WINDOW_END, "tumbling"),
    ("hop_start", WINDOW_START, "hopping"),
    ("hop_end", WINDOW_END, "hopping"),
    ("session_start", WINDOW_START, "session"),
    ("session_end", WINDOW_END, "session"),
    ("tumble", WINDOW_START, "tumbling"),
    ("hop", WINDOW_START, "hopping"),
    ("session", WINDOW_START, "session"),
];

/// A call that was replaced.
pub(in crate::sql) struct Accessor {
    name: &'static str,
    /// The type of window it is for.
    kind: &'static str,
    arguments: Vec<Expr>,
    /// Where it stands.
    pub span: Span,
}

/// The function that a call stands for, and the call.
pub(super) fn accessor(name: &str, arguments: &[Expr], span: Span) -> Option<(&'static str, Accessor)> {
    let (name, stands_for, kind) = ACCESSORS.iter().find(|(known, ..)| *known == name)?;
    let accessor = Accessor {
        name,
        kind,
        arguments: arguments.to_vec(),
        span,
    };
    Some((stands_for, accessor))
}

/// The names.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    ACCESSORS.iter().map(|(name, ..)| *name)
}

impl Accessor {
    /// What does not agree with the window and the tables that are cut by it.
    pub fn disagrees<'t>(
        &self,
        window: Option<&Window>,
        mut tables: impl Iterator<Item = &'t SqlTable>,
    ) -> Option<String> {
        let name = self.name;
        let Some(window) = window else {
            return Some(format!(
                "{name}() has a meaning only for windows; select from a [window.NAME] of type {:?}",
                self.kind
            ));
        };
        let (kind, lengths) = shape(window);
        if kind != self.kind {
            return Some(format!(
                "{name}() is for {} windows, and this one is {kind}; write window_start() or window_end()",
                self.kind
            ));
        }
        let (time, written) = self.arguments.split_first()?;
        let column = match time {
            Expr::Identifier(ident) => Some(ident),
            Expr::CompoundIdentifier(parts) => parts.last(),
            _ => None,
        };
        let is_time = |table: &SqlTable| {
            let field = table.schema.field(table.event_time);
            column.is_some_and(|column| column.value.eq_ignore_ascii_case(field.name()))
        };
        if !tables.any(is_time) {
            return Some(format!(
                "{name}({time}, …): the window is not over that; it is over the event time of its input. Leave the \
                 arguments out"
            ));
        }
        let read: Vec<Option<Duration>> = written.iter().map(duration).collect();
        if read.iter().any(Option::is_none) {
            return Some(format!(
                "{name}() is given lengths that cannot be read; leave its arguments out"
            ));
        }
        let agree = read.len() == lengths.len() && read.iter().flatten().eq(lengths.iter().map(|(_, l)| l));
        let is = lengths
            .iter()
            .map(|(key, l)| format!("{key} = {:?}", humantime(*l)));
        let is = is.collect::<Vec<_>>().join(", ");
        (!agree)
            .then(|| format!("{name}() says otherwise than the window, which has {is}; change one of them"))
    }
}

/// A window's type and its lengths, in the order in which Flink's functions take them.
fn shape(window: &Window) -> (&'static str, Vec<(&'static str, Duration)>) {
    match window {
        Window::Tumbling { size, .. } => ("tumbling", vec![("size", *size)]),
        Window::Hopping { size, slide, .. } => ("hopping", vec![("slide", *slide), ("size", *size)]),
        Window::Cumulative { size, step, .. } => ("cumulative", vec![("step", *step), ("size", *size)]),
        Window::Session { gap, .. } => ("session", vec![("gap", *gap)]),
    }
}

/// The length of `INTERVAL '10' SECOND` or `INTERVAL '10 seconds'`.
fn duration(expr: &Expr) -> Option<Duration> {
    let Expr::Interval(Interval {
        value,
        leading_field,
        last_field: None,
        ..
    }) = expr
    else {
        return None;
    };
    let number = match value.as_ref() {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => number.clone(),
            Value::SingleQuotedString(text) => text.clone(),
            _ => return None,
        },
        other => text(other)?.to_owned(),
    };
    let unit = leading_field
        .as_ref()
        .map(|field| field.to_string().to_lowercase());
    let text = format!("{number} {}", unit.unwrap_or_default());
    text.trim()
        .parse::<millstream_engine::pipeline::Span>()
        .ok()
        .map(|span| span.0)
}

fn humantime(length: Duration) -> String {
    serde_json::to_value(millstream_engine::pipeline::Span(length))
        .ok()
        .and_then(|typed| typed.as_str().map(str::to_owned))
        .unwrap_or_default()
}
