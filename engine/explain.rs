//! A plan for people: as text, as a Mermaid diagram, and as the graph that the console page draws.
//!
//! Everything here may end up on a screen or in a ticket, so connector options that look like secrets are
//! masked.

use std::fmt::Write;
use std::time::Duration;

use arrow::datatypes::Schema;
use serde_json::{Value, json};

use crate::config::columns::describe;
use crate::pipeline::LateRows;
use crate::plan::{Dedup, DedupNode, Plan, SinkNode, SourceNode, SqlNode, TableNode, WindowNode, rejected};
use crate::secret::{mask, mask_url};
use crate::window::Window;

/// The plan as text: sources, windows, what of each query runs where, sinks.
pub fn text(plan: &Plan) -> String {
    let mut out = format!("pipeline {}", plan.name);
    if let Some(description) = &plan.description {
        let _ = write!(out, ": {description}");
    }
    let _ = writeln!(out, "\ncheckpoint every {}", span(plan.checkpoint_interval));
    for source in &plan.sources {
        let _ = writeln!(out, "\nsource {} ({})", source.name, source.kind);
        lines(&mut out, 1, source_lines(source));
    }
    for dedup in &plan.dedups {
        let _ = writeln!(out, "\ndedup {} of {}", dedup.name, dedup.input);
        lines(
            &mut out,
            1,
            [format!(
                "{}, in a task of its own",
                once_per(&dedup.schema, &dedup.dedup)
            )],
        );
    }
    for window in &plan.windows {
        let _ = writeln!(out, "\nwindow {} over {}", window.name, window.input);
        lines(&mut out, 1, window_lines(window));
    }
    for table in &plan.tables {
        let _ = writeln!(out, "\ntable {}", table.name);
        lines(&mut out, 1, table_lines(table));
    }
    for query in &plan.queries {
        let _ = writeln!(out, "\nquery {}", query.name);
        query_text(&mut out, plan, query);
    }
    for sink in &plan.sinks {
        let _ = writeln!(out, "\nsink {} ({}) takes {}", sink.name, sink.kind, sink.input);
        lines(&mut out, 1, option_lines(&sink.options));
        let refused = rejected(&sink.name);
        if plan.streams.contains_key(&refused) {
            lines(&mut out, 1, [format!("rows it refuses: {refused}")]);
        }
    }
    out
}

fn query_text(out: &mut String, plan: &Plan, query: &SqlNode) {
    lines(out, 1, [format!("result: {}", describe(&query.plan.schema()))]);
    let explain = query.plan.explain();
    for (table, steps) in &explain.local {
        lines(out, 1, [format!("{}:", where_rows_arrive(plan, table))]);
        lines(out, 2, steps.iter().cloned());
    }
    if !explain.global.is_empty() {
        let windowed = |input: &String| plan.windows.iter().any(|w| w.name == *input);
        let when = match query.plan.inputs().iter().any(windowed) {
            true => "once, when a window closes:",
            false => "once, where the streams meet:",
        };
        lines(out, 1, [when.to_owned()]);
        lines(out, 2, explain.global);
    }
}

/// `in every partition of clicks (window clicks_by_minute)`, `after the dedup of clicks`, `after the result
/// of per_minute` or, where sessions are found, `behind all partitions of clicks (window visits)`.
fn where_rows_arrive(plan: &Plan, table: &str) -> String {
    let window = plan.windows.iter().find(|w| w.name == table);
    let stream = window.map_or(table, |w| w.input.as_str());
    let place = match (place_of(plan, stream), window.map(|w| &w.window)) {
        ("in every partition of", Some(Window::Session { .. })) => "behind all partitions of",
        (place, _) => place,
    };
    let over = window.map_or_else(String::new, |w| format!(" (window {})", w.name));
    format!("{place} {stream}{over}")
}

/// What runs where a stream is: its source's partitions, or the one task that makes it.
fn place_of(plan: &Plan, stream: &str) -> &'static str {
    let dedup = |s: &SourceNode| s.name == stream && s.dedup.is_some();
    if plan.sources.iter().any(dedup) {
        return "after the dedup of";
    }
    if plan.dedups.iter().any(|d| d.name == stream) {
        return "after the dedup";
    }
    match plan.queries.iter().find(|q| q.name == stream) {
        Some(query) if query.plan.explain().global.is_empty() => {
            let mut inputs = query.plan.inputs().iter();
            inputs.next().map_or("after", |input| place_of(plan, input))
        }
        Some(_) => "after the result of",
        None => "in every partition of",
    }
}

fn lines(out: &mut String, depth: usize, lines: impl IntoIterator<Item = String>) {
    for line in lines {
        let _ = writeln!(out, "{}{line}", "  ".repeat(depth));
    }
}

fn source_lines(source: &SourceNode) -> Vec<String> {
    if !source.tables.is_empty() {
        let tables = source
            .tables
            .iter()
            .map(|table| format!("{}.{table}", source.name));
        let mut lines = vec![format!("feeds {}", tables.collect::<Vec<_>>().join(", "))];
        lines.extend(option_lines(&source.options));
        return lines;
    }
    let mut lines = vec![
        format!("columns: {}", describe(&source.schema)),
        format!(
            "event time {}, rows at most {} out of order, idle after {}, at most {} ahead",
            source.schema.field(source.event_time).name(),
            span(source.max_out_of_orderness),
            span(source.idle_after),
            span(source.max_future),
        ),
    ];
    lines.extend(dedup_text(source));
    lines.push(format!("input that cannot become rows: {}.invalid", source.name));
    lines.extend(option_lines(&source.options));
    lines
}

fn dedup_text(source: &SourceNode) -> Option<String> {
    let dedup = source.dedup.as_ref()?;
    let once = once_per(&source.schema, dedup);
    Some(format!("{once}, in one task behind all partitions"))
}

fn once_per(schema: &Schema, dedup: &Dedup) -> String {
    let within = span(dedup.within);
    format!("once per {} within {within}", key_text(schema, dedup))
}

/// What fits in a box.
fn dedup_title(of: &DedupNode) -> String {
    format!("{}, {}", key_text(&of.schema, &of.dedup), span(of.dedup.within))
}

fn key_text(schema: &Schema, dedup: &Dedup) -> String {
    let name = |column: &usize| schema.field(*column).name().as_str();
    let keys: Vec<&str> = dedup.key.iter().map(name).collect();
    keys.join(", ")
}

fn window_lines(window: &WindowNode) -> Vec<String> {
    let mut lines = vec![window_text(&window.window)];
    lines.extend(window.lateness.map(|lateness| {
        format!(
            "fires again, as a revision, for rows that come up to {} after its end",
            span(lateness)
        )
    }));
    lines.push(match window.late {
        LateRows::Side => format!("rows that come too late: {}.late", window.name),
        LateRows::Drop => "rows that come too late are dropped".to_owned(),
    });
    lines
}

fn table_lines(table: &TableNode) -> Vec<String> {
    vec![
        format!("columns: {}", describe(table.rows.schema())),
        table_text(table),
    ]
}

/// `ads.csv, read at the start and every 10m`.
fn table_text(table: &TableNode) -> String {
    let again = match table.refresh {
        Some(refresh) => format!(" and every {}", span(refresh)),
        None => String::new(),
    };
    format!("{}, read at the start{again}", mask_url(&table.path))
}

fn window_text(window: &Window) -> String {
    let shifted = |offset: &Duration| match offset.is_zero() {
        true => String::new(),
        false => format!(", offset {}", span(*offset)),
    };
    match window {
        Window::Tumbling { size, offset } => format!("tumbling, {}{}", span(*size), shifted(offset)),
        Window::Hopping { size, slide, offset } => {
            format!(
                "hopping, {} every {}{}",
                span(*size),
                span(*slide),
                shifted(offset)
            )
        }
        Window::Cumulative { size, step, offset } => {
            format!(
                "cumulative, up to {} by {}{}",
                span(*size),
                span(*step),
                shifted(offset)
            )
        }
        Window::Session { gap, key } => format!("session of {}, gap {}", key.join(", "), span(*gap)),
    }
}

fn span(of: Duration) -> String {
    humantime::format_duration(of).to_string()
}

fn option_lines(options: &Value) -> Vec<String> {
    let masked = mask(options);
    let line = |(key, value): (&String, &Value)| format!("{key} = {value}");
    masked
        .as_object()
        .map_or_else(Vec::new, |o| o.iter().map(line).collect())
}

/// The plan as a [Mermaid](https://mermaid.js.org) flowchart.
pub fn mermaid(plan: &Plan) -> String {
    let graph = Graph::of(plan);
    let mut out = String::from("flowchart LR\n");
    for node in &graph.nodes {
        let (open, close) = match node.kind {
            "source" => ("([", "])"),
            "window" => ("[[", "]]"),
            "table" => ("[(", ")]"),
            "dedup" => ("{{", "}}"),
            "sink" => (">", "]"),
            _ => ("[", "]"),
        };
        let label = match node.kind {
            "sql" => node.name.to_owned(),
            _ => format!("{}<br/>{}", node.name, node.title),
        };
        let _ = writeln!(
            out,
            "  {}{open}\"{}\"{close}",
            diagram_id(&node.id),
            label.replace('"', "#quot;")
        );
    }
    for edge in &graph.edges {
        let (from, to) = (diagram_id(&edge.from), diagram_id(&edge.to));
        let _ = match edge.is_main {
            true => writeln!(out, "  {from} --> {to}"),
            false => writeln!(out, "  {from} -.->|\"{}\"| {to}", edge.stream),
        };
    }
    out
}

/// Mermaid reads dots in some places, and words such as `end` as its own.
fn diagram_id(id: &str) -> String {
    id.replace('.', "_")
}

/// The plan as a graph: `{"pipeline", "nodes": [{"id", "kind", "name", "title", "detail"}], "edges":
/// [{"from", "to", "stream"}]}`. `kind` is source, window, table, sql or sink; `detail` depends on it.
pub fn json(plan: &Plan) -> Value {
    let graph = Graph::of(plan);
    let nodes: Vec<Value> = graph
        .nodes
        .iter()
        .map(|n| json!({ "id": n.id, "kind": n.kind, "name": n.name, "title": n.title, "detail": n.detail }))
        .collect();
    let edges: Vec<Value> = graph
        .edges
        .iter()
        .map(|e| json!({ "from": e.from, "to": e.to, "stream": e.stream }))
        .collect();
    json!({ "pipeline": plan.name, "description": plan.description, "nodes": nodes, "edges": edges })
}

struct Graph<'p> {
    nodes: Vec<GraphNode<'p>>,
    edges: Vec<GraphEdge>,
}

struct GraphNode<'p> {
    /// `<kind>.<name>`: a sink may have the name of a stream.
    id: String,
    kind: &'static str,
    name: &'p str,
    /// What it is, in a few words.
    title: String,
    detail: Value,
}

struct GraphEdge {
    from: String,
    to: String,
    stream: String,
    /// Not a side stream.
    is_main: bool,
}

impl<'p> Graph<'p> {
    fn of(plan: &'p Plan) -> Graph<'p> {
        let mut graph = Graph {
            nodes: Vec::new(),
            edges: Vec::new(),
        };
        for source in &plan.sources {
            graph.node("source", &source.name, source.kind.clone(), source_detail(source));
        }
        for dedup in &plan.dedups {
            graph.node("dedup", &dedup.name, dedup_title(dedup), dedup_detail(dedup));
            graph.edge(plan, &dedup.input, format!("dedup.{}", dedup.name));
        }
        for window in &plan.windows {
            graph.node(
                "window",
                &window.name,
                window_text(&window.window),
                window_detail(window),
            );
            graph.edge(plan, &window.input, format!("window.{}", window.name));
        }
        for table in &plan.tables {
            graph.node("table", &table.name, table_text(table), table_detail(table));
        }
        for query in &plan.queries {
            graph.node("sql", &query.name, "query".into(), query_detail(query));
            for input in query.plan.inputs().iter().chain(query.plan.references()) {
                graph.edge(plan, input, format!("sql.{}", query.name));
            }
        }
        for sink in &plan.sinks {
            graph.node("sink", &sink.name, sink.kind.clone(), sink_detail(sink));
            graph.edge(plan, &sink.input, format!("sink.{}", sink.name));
        }
        graph
    }

    fn node(&mut self, kind: &'static str, name: &'p str, title: String, detail: Value) {
        self.nodes.push(GraphNode {
            id: format!("{kind}.{name}"),
            kind,
            name,
            title,
            detail,
        });
    }

    /// An edge from whoever makes `stream` (a window's name stands for its rows).
    fn edge(&mut self, plan: &Plan, stream: &str, to: String) {
        let maker = stream.split('.').next().unwrap_or(stream);
        let kind = if plan.rejecting(stream).is_some() {
            "sink"
        } else if plan.sources.iter().any(|s| s.name == maker) {
            "source"
        } else if plan.dedups.iter().any(|d| d.name == maker) {
            "dedup"
        } else if plan.windows.iter().any(|w| w.name == maker) {
            "window"
        } else if plan.tables.iter().any(|t| t.name == maker) {
            "table"
        } else {
            "sql"
        };
        self.edges.push(GraphEdge {
            from: format!("{kind}.{maker}"),
            to,
            stream: stream.into(),
            is_main: maker == stream,
        });
    }
}

fn source_detail(source: &SourceNode) -> Value {
    json!({
        "type": source.kind,
        "columns": describe(&source.schema),
        "event_time": source.schema.field(source.event_time).name(),
        "max_out_of_orderness": span(source.max_out_of_orderness),
        "idle_after": span(source.idle_after),
        "dedup": dedup_text(source),
        "options": mask(&source.options),
    })
}

fn dedup_detail(dedup: &DedupNode) -> Value {
    json!({
        "input": dedup.input,
        "dedup": once_per(&dedup.schema, &dedup.dedup),
        "columns": describe(&dedup.schema),
    })
}

fn window_detail(window: &WindowNode) -> Value {
    json!({
        "input": window.input,
        "window": window_text(&window.window),
        "late": window.late,
        "allowed_lateness": window.lateness.map(span),
    })
}

fn table_detail(table: &TableNode) -> Value {
    json!({
        "columns": describe(table.rows.schema()),
        "path": mask_url(&table.path),
        "format": table.format,
        "refresh": table.refresh.map(span),
        "options": mask(&table.options),
    })
}

fn query_detail(query: &SqlNode) -> Value {
    json!({
        "columns": describe(&query.plan.schema()),
        "query": query.query.trim(),
        "explain": query.plan.explain(),
    })
}

fn sink_detail(sink: &SinkNode) -> Value {
    json!({ "type": sink.kind, "input": sink.input, "options": mask(&sink.options) })
}
