//! Windows: which parameters each kind takes, and what their values must be to one another.

use std::time::Duration;

use arrow::datatypes::Schema;

use super::check::{Checker, Section};
use super::diagnostic::did_you_mean;
use super::revisions;
use super::tree::Node;
use crate::pipeline::{LateRows, OnLate, Span, WindowKind, WindowSpec};
use crate::plan::{Stream, WindowNode};
use crate::sql::{SqlTable, WINDOW_END, WINDOW_START};
use crate::window::Window;

/// Longest duration in a window. Starts and ends are microseconds in 64 bits: a century more or less leaves
/// every time between the years -290000 and 290000 in range.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Most windows that one row may belong to. Each costs a pane of state and a merge per result.
const MOST_OVERLAPS: u128 = 10_000;

/// What stands in for a length that is wrong, so that queries over the window are planned all the same.
const STAND_IN: Duration = Duration::from_secs(60);

const PARAMETERS: [&str; 6] = ["size", "slide", "step", "gap", "key", "offset"];

/// A window whose input may still have to be planned.
pub(super) struct CheckedWindow<'a> {
    pub name: String,
    pub input: String,
    pub window: Window,
    pub late: LateRows,
    pub lateness: Option<Duration>,
    pub node: &'a Node,
}

/// Reads all windows. Those whose input is no stream are reported and left out.
pub(super) fn read<'a>(checker: &mut Checker<'a>) -> Vec<CheckedWindow<'a>> {
    let sections = checker.sections::<WindowSpec>("window");
    let read = |section: Section<'a, WindowSpec>| {
        let lateness = Parameters::of(checker, &section).lateness();
        let window = Parameters::of(checker, &section).window();
        input_is_stream(checker, section.node, &section.spec.input).then(|| CheckedWindow {
            name: section.name.into(),
            input: section.spec.input,
            window,
            late: section.spec.late,
            lateness,
            node: section.node,
        })
    };
    sections.into_iter().filter_map(read).collect()
}

/// What to do for the result of `query` to have an event time; `windowed` when its rows come from windows.
pub(super) fn how_to_keep_time(query: &str, windowed: bool) -> String {
    match windowed {
        true => format!("let `{query}` select window_start() under another name: `window_start() AS at`"),
        false => format!("let `{query}` pass the event-time column of its source through"),
    }
}

/// Puts a window over a stream into the plan, with its late rows, and gives the table that queries see.
/// None when the stream cannot be cut into windows. `windowed` tells whether the stream itself is made from
/// windows.
pub(super) fn place(
    checker: &mut Checker<'_>,
    window: &CheckedWindow<'_>,
    stream: &Stream,
    windowed: bool,
) -> Option<SqlTable> {
    let CheckedWindow {
        name, input, node, ..
    } = window;
    let Some(event_time) = stream.event_time else {
        let message = format!("`{input}` has no event time, so it cannot be cut into windows");
        let help = how_to_keep_time(input, windowed);
        checker.problems.help(node.at_key("input"), message, help);
        return None;
    };
    let what_then = "windows over it would count it more than once";
    if revisions::refuse(checker, input, node.at_key("input"), what_then) {
        return None;
    }
    for reserved in [WINDOW_START, WINDOW_END] {
        if stream.schema.index_of(reserved).is_ok() {
            let message = format!("`{input}` has a column `{reserved}`, which windows add themselves");
            checker
                .problems
                .help(node.at_key("input"), message, "give the column another name");
        }
    }
    session_key(checker, node, &stream.schema);
    if window.late == LateRows::Side {
        let late = Stream {
            schema: stream.schema.clone(),
            event_time: Some(event_time),
        };
        checker.stream(format!("{name}.late"), late);
    }
    checker.plan.windows.push(WindowNode {
        name: name.clone(),
        input: input.clone(),
        window: window.window.clone(),
        event_time,
        late: window.late,
        lateness: window.lateness,
    });
    Some(SqlTable {
        name: name.clone(),
        schema: stream.schema.clone(),
        event_time,
        window: Some(window.window.clone()),
        lateness: window.lateness,
    })
}

fn session_key(checker: &mut Checker<'_>, node: &Node, schema: &Schema) {
    for name in node.get("key").map_or(&[][..], |e| e.node.items()) {
        checker.column(schema, name);
    }
}

fn input_is_stream(checker: &mut Checker<'_>, node: &Node, input: &str) -> bool {
    let names = &checker.names;
    let streams = names.sources.iter().chain(&names.dedups).chain(&names.queries);
    if streams.clone().any(|name| name == input) {
        return true;
    }
    let at = node.at_key("input");
    if names.windows.contains(input) {
        let message = format!("`{input}` is a window; a window cuts a stream");
        checker
            .problems
            .help(at, message, "name a source, a dedup or a query");
    } else if names.tables.contains(input) {
        let message = format!("`{input}` is a table; a window cuts a stream");
        checker
            .problems
            .help(at, message, "name a source, a dedup or a query");
    } else if names.streams.contains(input) {
        let message = format!("windows over a side stream such as `{input}` are not supported");
        checker
            .problems
            .help(at, message, "name a source, a dedup or a query");
    } else {
        let mut known: Vec<&str> = streams.map(String::as_str).collect();
        known.sort_unstable();
        let help = did_you_mean(input, known, '`', "sources, dedups and queries").unwrap_or_default();
        let message = format!("there is no source, dedup or query `{input}`");
        checker.problems.help(at, message, help);
    }
    false
}

/// The parameters of one window, while they are checked.
struct Parameters<'c, 'a, 's> {
    checker: &'c mut Checker<'a>,
    node: &'a Node,
    spec: &'s WindowSpec,
}

impl<'c, 'a, 's> Parameters<'c, 'a, 's> {
    fn of(checker: &'c mut Checker<'a>, section: &'s Section<'a, WindowSpec>) -> Self {
        Parameters {
            checker,
            node: section.node,
            spec: &section.spec,
        }
    }

    fn window(mut self) -> Window {
        let spec = self.spec;
        let (kind, needed, optional): (_, &[&str], &[&str]) = match spec.kind {
            WindowKind::Tumbling => ("tumbling", &["size"], &["offset"]),
            WindowKind::Hopping => ("hopping", &["size", "slide"], &["offset"]),
            WindowKind::Cumulative => ("cumulative", &["size", "step"], &["offset"]),
            WindowKind::Session => ("session", &["gap", "key"], &[]),
        };
        self.presence(kind, needed, optional);
        let offset = self.checked("offset", spec.offset, true).unwrap_or_default();
        let mut length = |key: &str, value: Option<Span>| self.checked(key, value, false);
        match spec.kind {
            WindowKind::Tumbling => Window::Tumbling {
                size: length("size", spec.size).unwrap_or(STAND_IN),
                offset,
            },
            WindowKind::Hopping => {
                let (size, slide) = (length("size", spec.size), length("slide", spec.slide));
                self.overlaps(size, slide, "slide");
                Window::Hopping {
                    size: size.unwrap_or(STAND_IN),
                    slide: slide.unwrap_or(STAND_IN),
                    offset,
                }
            }
            WindowKind::Cumulative => {
                let (size, step) = (length("size", spec.size), length("step", spec.step));
                self.overlaps(size, step, "step");
                self.multiple(size, step);
                Window::Cumulative {
                    size: size.unwrap_or(STAND_IN),
                    step: step.unwrap_or(STAND_IN),
                    offset,
                }
            }
            WindowKind::Session => Window::Session {
                gap: length("gap", spec.gap).unwrap_or(STAND_IN),
                key: spec.key.clone().unwrap_or_default(),
            },
        }
    }

    /// How long the window fires again for late rows.
    fn lateness(mut self) -> Option<Duration> {
        let [lateness, on_late] = ["allowed_lateness", "on_late"].map(|key| self.node.get(key));
        let at = &lateness.or(on_late)?.key_at;
        let problems = &mut self.checker.problems;
        match (self.spec.kind, lateness, on_late) {
            (WindowKind::Session, ..) => {
                let message = "session windows do not fire again for late rows";
                let help = "leave out `allowed_lateness` and `on_late`, or use another type of window";
                problems.help(at, message, help);
            }
            (_, Some(_), None) => {
                let message = "`allowed_lateness` does not say what a late row does";
                problems.help(
                    at,
                    message,
                    "add `on_late = \"update\"`: the window fires again with it",
                );
            }
            (_, None, _) => {
                let message = "`on_late` does not say for how long";
                problems.help(at, message, "add for example `allowed_lateness = \"1h\"`");
            }
            // A value of `on_late` that is wrong has been reported.
            _ => {
                let OnLate::Update = self.spec.on_late?;
                return self.checked("allowed_lateness", self.spec.allowed_lateness, false);
            }
        }
        None
    }

    /// What the kind needs is there, what it does not take is not.
    fn presence(&mut self, kind: &str, needed: &[&str], optional: &[&str]) {
        let takes: Vec<&str> = needed.iter().chain(optional).copied().collect();
        let list = takes
            .iter()
            .map(|t| format!("`{t}`"))
            .collect::<Vec<_>>()
            .join(", ");
        for parameter in PARAMETERS {
            match self.node.get(parameter) {
                Some(entry) if !takes.contains(&parameter) => {
                    let message = format!("{kind} windows have no `{parameter}`");
                    self.checker
                        .problems
                        .help(&entry.key_at, message, format!("they take {list}"));
                }
                None if needed.contains(&parameter) => {
                    let message = format!("{kind} windows need `{parameter}`");
                    self.checker
                        .problems
                        .help(&self.node.at, message, format!("they take {list}"));
                }
                _ => {}
            }
        }
    }

    /// A length in range; none when it is missing, broken or reported here.
    fn checked(&mut self, key: &str, value: Option<Span>, zero: bool) -> Option<Duration> {
        let value = value?.0;
        let wrong = if value.is_zero() && !zero {
            "must be longer than zero"
        } else if value.subsec_nanos() % 1_000 != 0 {
            "must be whole microseconds, the precision of event time"
        } else if value > LONGEST {
            "must not be longer than a century"
        } else {
            return Some(value);
        };
        let at = self.node.at_key(key);
        let help = "write for example \"1m\"";
        self.checker.problems.help(at, format!("`{key}` {wrong}"), help);
        None
    }

    /// A window is at least one step long, and not ridiculously many.
    fn overlaps(&mut self, size: Option<Duration>, step: Option<Duration>, key: &str) {
        let (Some(size), Some(step)) = (size, step) else {
            return;
        };
        let at = self.node.at_key(key);
        if step > size {
            let message = format!("`{key}` is longer than `size`: rows in between would be in no window");
            let help = format!("make `{key}` at most {}", humantime::format_duration(size));
            self.checker.problems.help(at, message, help);
        } else if size.as_micros() / step.as_micros() > MOST_OVERLAPS {
            let message = format!("every row would be in more than {MOST_OVERLAPS} windows");
            self.checker
                .problems
                .help(at, message, format!("make `{key}` longer or `size` shorter"));
        }
    }

    fn multiple(&mut self, size: Option<Duration>, step: Option<Duration>) {
        let (Some(size), Some(step)) = (size, step) else {
            return;
        };
        if step <= size && size.as_micros() % step.as_micros() != 0 {
            let step = humantime::format_duration(step);
            let message = format!("`size` is not a multiple of `step` ({step})");
            let help = format!("cumulative windows grow by {step} at a time up to their size");
            self.checker
                .problems
                .help(self.node.at_key("size"), message, help);
        }
    }
}
