//! Reading the parts of a JSON Schema that the walk needs.

use serde_json::{Map, Value as Json};

use super::tree::{Node, Value};

/// The branches of a choice.
pub(super) fn alternatives(members: &Map<String, Json>) -> Option<&Vec<Json>> {
    let of = members.get("oneOf").or_else(|| members.get("anyOf"))?;
    // Beside properties they narrow a table that only its connector understands.
    of.as_array().filter(|_| !members.contains_key("properties"))
}

/// The words a string may be: `enum`, or a single `const`.
pub(super) fn words(members: &Map<String, Json>) -> Option<Vec<&str>> {
    match (members.get("enum"), members.get("const")) {
        (Some(Json::Array(words)), _) => words.iter().map(Json::as_str).collect(),
        (None, Some(Json::String(word))) => Some(vec![word]),
        _ => None,
    }
}

/// The property that has a different constant in each of `options`.
pub(super) fn tag_of<'s>(options: &[&'s Json]) -> Option<&'s str> {
    let constant = |option: &Json, key: &str| option["properties"][key]["const"].is_string();
    let first = options.first()?.get("properties")?.as_object()?;
    let tag = |key: &&String| options.iter().all(|o| constant(o, key));
    first.keys().find(tag).map(String::as_str)
}

/// The values of `type`.
fn types(members: &Map<String, Json>) -> Vec<&str> {
    match members.get("type") {
        Some(Json::String(one)) => vec![one],
        Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Whether a value is of a kind that the schema takes.
pub(super) fn accepts(members: &Map<String, Json>, node: &Node) -> bool {
    let types = types(members);
    let is_time = |format: &Json| matches!(format.as_str(), Some("date-time" | "date" | "time"));
    let wanted: &[&str] = match node.value {
        Value::String(_) => &["string"],
        // TOML has a literal for what JSON writes as a string.
        Value::Datetime(_) if members.get("format").is_some_and(is_time) => &["string"],
        Value::Datetime(_) => &[],
        Value::Integer(_) => &["integer", "number"],
        Value::Float(_) => &["number"],
        Value::Boolean(_) => &["boolean"],
        Value::Array(_) => &["array"],
        Value::Table(_) => &["object"],
        Value::Broken => return true,
    };
    types.is_empty() || wanted.iter().any(|w| types.contains(w))
}

/// The kinds of value that a schema takes, in words of TOML.
pub(super) fn kinds(members: &Map<String, Json>) -> String {
    let word = |kind: &str| match kind {
        "string" => "a string",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "an array",
        "object" => "a table",
        _ => "something else",
    };
    let kinds: Vec<&str> = types(members)
        .into_iter()
        .filter(|k| *k != "null")
        .map(word)
        .collect();
    kinds.join(" or ")
}

/// The largest number of a format that schemars gives to Rust's integers.
pub(super) fn largest(format: &str) -> Option<f64> {
    match format {
        "uint8" => Some(f64::from(u8::MAX)),
        "uint16" => Some(f64::from(u16::MAX)),
        "uint32" => Some(f64::from(u32::MAX)),
        "int32" => Some(f64::from(i32::MAX)),
        _ => None,
    }
}

/// Whether a text matches the schema's pattern, if it has one.
pub(super) fn matches(members: &Map<String, Json>, text: &str) -> bool {
    let pattern = members.get("pattern").and_then(Json::as_str);
    // A pattern that does not compile is the connector's mistake, not the user's.
    pattern
        .and_then(|p| regex_lite::Regex::new(p).ok())
        .is_none_or(|p| p.is_match(text))
}

/// What the schema's documentation says, in a sentence.
pub(super) fn described(members: &Map<String, Json>) -> Option<String> {
    members.get("description").and_then(Json::as_str).map(sentence)
}

/// The first sentence of a doc comment, on one line, without its full stop.
pub(super) fn sentence(doc: &str) -> String {
    let line = doc.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let first = line.split(". ").next().unwrap_or_default();
    first.trim_end_matches('.').to_owned()
}
