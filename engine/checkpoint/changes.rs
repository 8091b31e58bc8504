//! What a changed pipeline file does to the state of its last checkpoint.
//!
//! A checkpoint holds a fingerprint of every node: of what its state depends on, and of nothing else, so that
//! a comment, a limit or an address can change freely. State of a node whose fingerprint is another, or which
//! is gone, fits nothing any more. It is never dropped silently: the start is refused, with the names of the
//! nodes, until each is named by `--reset`.
//!
//! | node | depends on |
//! |---|---|
//! | source | type, columns, event time, dedup, the keys its connector calls its identity |
//! | dedup | its definition, its input |
//! | window | its definition, its input |
//! | query | its text, its inputs, the columns of its reference tables |
//! | sink | type, name of its input, the keys its connector calls its identity |

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use serde_json::{Value, json};

use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::store::Restored;
use crate::error::{Error, Result};
use crate::plan::{Plan, SinkNode, SourceNode, WindowNode};
use crate::registry::Registry;

/// Resets every node.
pub const ALL: &str = "all";

/// A fingerprint of every node, such as `sql.clickthrough`.
pub fn fingerprints(plan: &Plan, registry: &Registry) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    // By the name under which nodes name their input.
    let mut streams: BTreeMap<String, String> = BTreeMap::new();
    for source in &plan.sources {
        let print = source_print(source, registry);
        streams.insert(source.name.clone(), print.clone());
        streams.insert(format!("{}.invalid", source.name), print.clone());
        all.insert(format!("source.{}", source.name), print);
    }
    // Queries are in order, but windows and dedups stand between them: each is ready once its inputs are.
    let mut dedups: Vec<_> = plan.dedups.iter().collect();
    let mut windows: Vec<_> = plan.windows.iter().collect();
    let mut queries: Vec<_> = plan.queries.iter().collect();
    loop {
        let before = all.len();
        dedups.retain(|it| {
            let Some(input) = streams.get(&it.input) else {
                return true;
            };
            let print = hash(&json!([input, it.event_time, it.dedup.key, it.dedup.within]));
            streams.insert(it.name.clone(), print.clone());
            all.insert(format!("dedup.{}", it.name), print);
            false
        });
        windows.retain(|window| {
            let Some(input) = streams.get(&window.input) else {
                return true;
            };
            let print = hash(&window_print(input, window));
            streams.insert(window.name.clone(), print.clone());
            streams.insert(format!("{}.late", window.name), print.clone());
            all.insert(format!("window.{}", window.name), print);
            false
        });
        queries.retain(|query| {
            let inputs = query.plan.inputs().iter().map(|i| streams.get(i));
            let Some(inputs) = inputs.collect::<Option<Vec<_>>>() else {
                return true;
            };
            let mut of = vec![json!(query.query), json!(inputs)];
            for table in query.plan.references() {
                let found = plan.tables.iter().find(|t| t.name == *table);
                of.push(json!([table, found.map(|t| columns_print(t.rows.schema()))]));
            }
            let print = hash(&Value::Array(of));
            streams.insert(query.name.clone(), print.clone());
            all.insert(format!("sql.{}", query.name), print);
            false
        });
        if all.len() == before {
            break;
        }
    }
    for sink in &plan.sinks {
        all.insert(format!("sink.{}", sink.name), sink_print(sink, registry));
    }
    all
}

/// A window that fires once has the print it had before any could fire again.
fn window_print(input: &str, window: &WindowNode) -> Value {
    match window.lateness {
        None => json!([input, window.window, window.event_time]),
        Some(lateness) => json!([input, window.window, window.event_time, lateness]),
    }
}

fn source_print(node: &SourceNode, registry: &Registry) -> String {
    let dedup = node.dedup.as_ref().map(|d| json!([d.key, d.within]));
    let connector = registry.sources.get(node.kind.as_str());
    let identity = identity(connector.map_or(&[], |c| c.identity()), &node.options);
    hash(&json!([
        node.kind,
        columns_print(&node.schema),
        node.event_time,
        dedup,
        identity
    ]))
}

fn columns_print(schema: &Schema) -> Value {
    let columns = schema.fields().iter();
    let print = |f: &Arc<Field>| json!([f.name(), f.data_type().to_string(), f.is_nullable()]);
    columns.map(print).collect()
}

fn sink_print(node: &SinkNode, registry: &Registry) -> String {
    let connector = registry.sinks.get(node.kind.as_str());
    let identity = identity(connector.map_or(&[], |c| c.identity()), &node.options);
    hash(&json!([node.kind, node.input, identity]))
}

fn identity(keys: &[&str], options: &Value) -> Value {
    keys.iter()
        .map(|key| options.get(key).cloned().unwrap_or_default())
        .collect()
}

/// FNV-1a, 64 bits: the same in every version, on every machine.
fn hash(of: &Value) -> String {
    let fold = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let print = of.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, fold);
    format!("{print:016x}")
}

/// Makes a checkpoint fit the pipeline as it is now: drops what `reset` names, and fails when state is left
/// that fits nothing. Gives the nodes whose state was dropped.
pub fn reconcile(
    restored: &mut Restored,
    now: &BTreeMap<String, String>,
    reset: &[String],
) -> Result<Vec<String>> {
    let is_reset = |node: &String| reset.iter().any(|r| r == ALL || r == node);
    let (dropped, kept): (Vec<String>, Vec<String>) =
        with_state(&restored.manifest).into_iter().partition(is_reset);
    for node in &dropped {
        drop_state(restored, node);
    }
    let then = &restored.manifest.nodes;
    let unfit: Vec<(String, &str)> = kept
        .into_iter()
        .filter_map(|node| match (now.get(&node), then.get(&node)) {
            (None, _) => Some((node, "is gone")),
            (Some(now), Some(then)) if now != then => Some((node, "has changed")),
            // A checkpoint from before there were fingerprints.
            _ => None,
        })
        .collect();
    if unfit.is_empty() {
        return Ok(dropped);
    }
    let what: Vec<String> = unfit.iter().map(|(node, why)| format!("{node} {why}")).collect();
    let options: Vec<String> = unfit.iter().map(|(node, _)| format!("--reset {node}")).collect();
    Err(Error::config(format!(
        "the pipeline is not the one of checkpoint {}: {}; to go on without what the checkpoint holds for that, \
         start with {}; to keep it, start with the pipeline file as it was",
        restored.manifest.epoch.0,
        what.join(", "),
        options.join(" ")
    )))
}

/// The nodes for which a checkpoint holds something.
fn with_state(manifest: &Manifest) -> BTreeSet<String> {
    let mut nodes = BTreeSet::new();
    let sources = manifest.sources.iter().filter(|(_, s)| !s.offsets.is_empty());
    nodes.extend(sources.map(|(name, _)| format!("source.{name}")));
    nodes.extend(manifest.state.iter().map(|part| node_of(&part.operator).into()));
    let sinks = manifest.sinks.iter().filter(|(_, what)| !is_empty(&what.0));
    nodes.extend(sinks.map(|(name, _)| format!("sink.{name}")));
    nodes
}

fn is_empty(promise: &Value) -> bool {
    match promise {
        Value::Null => true,
        Value::Array(of) => of.is_empty(),
        Value::Object(of) => of.is_empty(),
        _ => false,
    }
}

/// Operators are named `<node>/<part>`.
fn node_of(operator: &str) -> &str {
    operator.split_once('/').map_or(operator, |(node, _)| node)
}

fn drop_state(restored: &mut Restored, node: &str) {
    if let Some(source) = node.strip_prefix("source.") {
        restored.manifest.sources.remove(source);
    }
    if let Some(sink) = node.strip_prefix("sink.") {
        restored.manifest.sinks.remove(sink);
    }
    restored
        .manifest
        .state
        .retain(|part| node_of(&part.operator) != node);
    restored
        .states
        .retain(|(_, operator), _| node_of(operator) != node);
}
