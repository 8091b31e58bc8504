//! The JSON Schema of pipeline files: what editors complete from is what files are checked against.
//!
//! The types of [`crate::pipeline`] give the frame; the keys of each connector come from its own schema and
//! are merged into a branch per `type`, so that one document describes the whole format.

use serde_json::{Map, Value, json};

use crate::pipeline::PipelineFile;
use crate::registry::Registry;

/// Names of sources, dedups, windows, queries, tables and sinks: they are SQL identifiers, metric labels and
/// directories.
const NAME_PATTERN: &str = "^[a-z][a-z0-9_]*$";
/// The tables whose keys are names.
const NAMED: [&str; 6] = ["source", "dedup", "window", "sql", "table", "sink"];

/// JSON Schema (2020-12) of a pipeline file, with the keys of every connector in `registry`.
pub fn schema(registry: &Registry) -> Value {
    let mut root = schemars::schema_for!(PipelineFile).to_value();
    let sources: Vec<_> = registry.sources.iter().map(|(n, c)| (*n, c.options())).collect();
    let sinks: Vec<_> = registry.sinks.iter().map(|(n, c)| (*n, c.options())).collect();
    merge(&mut root, "SourceSpec", "source", sources);
    merge(&mut root, "SinkSpec", "sink", sinks);
    let loader = registry.tables.as_ref().map(|loader| loader.options());
    merge_tables(&mut root, loader);
    for table in NAMED {
        root["properties"][table]["propertyNames"] = json!({ "pattern": NAME_PATTERN });
    }
    root["title"] = json!("Millstream pipeline");
    root
}

/// Replaces the definition `spec` by one branch per connector.
fn merge(root: &mut Value, spec: &str, section: &str, connectors: Vec<(&str, schemars::Schema)>) {
    let Some(base) = root.pointer(&format!("/$defs/{spec}")).cloned() else {
        return;
    };
    let mut branches = Vec::new();
    for (kind, options) in connectors {
        let name = format!("{section}.{kind}");
        let options = adopt(root, &name, options.to_value());
        let branch = branch(&base, kind, options);
        branches.push(json!({ "$ref": format!("#/$defs/{name}") }));
        root["$defs"][name] = branch;
    }
    root["$defs"][spec] = json!({ "description": base["description"], "oneOf": branches });
}

/// Adds the keys of the loader, of which there is one at most, to the definition of tables.
fn merge_tables(root: &mut Value, loader: Option<schemars::Schema>) {
    let options = match loader {
        Some(options) => adopt(root, "table", options.to_value()),
        None => json!({ "properties": {} }),
    };
    let mut base = root["$defs"]["TableSpec"].take();
    let description = base["description"].take();
    base = extend(base, options);
    base["description"] = description;
    root["$defs"]["TableSpec"] = base;
}

/// The keys every section has and those of one connector, in one table.
fn branch(base: &Value, kind: &str, options: Value) -> Value {
    let mut branch = base.clone();
    branch["properties"]["type"]["const"] = json!(kind);
    extend(branch, options)
}

/// Adds the keys of `options`, and its description in place of the other.
fn extend(mut branch: Value, mut options: Value) -> Value {
    if let Some(text) = options.get("description") {
        branch["description"] = text.clone();
    }
    if let (Some(ours), Some(theirs)) = (
        object(&mut branch, "properties"),
        options["properties"].as_object(),
    ) {
        for (key, schema) in theirs {
            ours.entry(key).or_insert_with(|| schema.clone());
        }
    }
    let mut required = branch["required"].as_array().cloned().unwrap_or_default();
    required.extend(options["required"].as_array().cloned().unwrap_or_default());
    branch["required"] = json!(required);
    // A connector may describe its keys with combinators; then only it knows which keys there are.
    let mut open = false;
    for combinator in ["oneOf", "anyOf", "allOf"] {
        if let Some(inner) = options.as_object_mut().and_then(|o| o.remove(combinator)) {
            branch[combinator] = inner;
            open = true;
        }
    }
    branch["additionalProperties"] = json!(open);
    branch
}

fn object<'v>(of: &'v mut Value, key: &str) -> Option<&'v mut Map<String, Value>> {
    of.get_mut(key).and_then(Value::as_object_mut)
}

/// Moves the definitions of a connector's schema to the root. Where a name is taken by another definition,
/// all of the connector's take its name in front.
fn adopt(root: &mut Value, owner: &str, mut options: Value) -> Value {
    let Some(Value::Object(defs)) = options.as_object_mut().and_then(|o| o.remove("$defs")) else {
        return options;
    };
    let taken = |(name, def): (&String, &Value)| root["$defs"].get(name).is_some_and(|have| have != def);
    let prefix = match defs.iter().any(taken) {
        true => format!("{owner}."),
        false => String::new(),
    };
    for (name, mut def) in defs {
        rename(&mut def, &prefix);
        root["$defs"][format!("{prefix}{name}")] = def;
    }
    rename(&mut options, &prefix);
    options
}

/// Puts `prefix` before the name in every reference.
fn rename(schema: &mut Value, prefix: &str) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                match (key.as_str(), &value) {
                    ("$ref", Value::String(to)) => {
                        *value = json!(to.replace("#/$defs/", &format!("#/$defs/{prefix}")));
                    }
                    _ => rename(value, prefix),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(item, prefix)),
        _ => {}
    }
}
