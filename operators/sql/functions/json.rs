//! Values inside JSON texts, by path (crate `serde_json_path`, RFC 9535). The word `lax` of SQL/JSON paths may stand
//! before one. A text that is not JSON gives NULL.

use serde_json::Value as Json;
use serde_json_path::JsonPath;

use super::rows::Kind::{Literal, Text};
use super::rows::{Definition, Gives, Literals, PerRow, Value};

pub(super) const FUNCTIONS: &[Definition] = &[
    Definition {
        name: "json_value",
        takes: &[&[Text, Literal]],
        gives: Gives::Text,
        make: |literals| {
            at_path(literals, |found| match found {
                [Json::String(text)] => Some(Value::text(text.clone())),
                [one @ (Json::Number(_) | Json::Bool(_))] => Some(Value::text(one.to_string())),
                _ => None,
            })
        },
    },
    Definition {
        name: "json_query",
        takes: &[&[Text, Literal]],
        gives: Gives::Text,
        make: |literals| {
            at_path(literals, |found| match found {
                [] => None,
                [one @ (Json::Object(_) | Json::Array(_))] => Some(Value::text(one.to_string())),
                [_] => None,
                several => serde_json::to_string(several).ok().map(Value::text),
            })
        },
    },
    Definition {
        name: "json_exists",
        takes: &[&[Text, Literal]],
        gives: Gives::Boolean,
        make: |literals| at_path(literals, |found| Some(Value::Boolean(!found.is_empty()))),
    },
    Definition {
        name: "is_json",
        takes: &[&[Text]],
        gives: Gives::Boolean,
        make: |_| {
            Ok(Box::new(|row| {
                let parsed = serde_json::from_str::<serde::de::IgnoredAny>(row.text(0));
                Some(Value::Boolean(parsed.is_ok()))
            }))
        },
    },
];

/// What `value` makes of everything the path finds.
fn at_path(literals: &Literals<'_>, value: fn(&[&Json]) -> Option<Value<'static>>) -> Result<PerRow, String> {
    let Some(typed) = literals.text(1) else {
        return Ok(Box::new(|_| None));
    };
    let path = read_path(typed)?;
    Ok(Box::new(move |row| {
        let json: Json = serde_json::from_str(row.text(0)).ok()?;
        value(&path.query(&json).all())
    }))
}

fn read_path(typed: &str) -> Result<JsonPath, String> {
    let trimmed = typed.trim();
    if trimmed.starts_with("strict ") {
        return Err(format!(
            "{typed:?} is a strict path; leave the word out: what is not there is NULL"
        ));
    }
    let path = trimmed.strip_prefix("lax ").unwrap_or(trimmed).trim_start();
    JsonPath::parse(path)
        .map_err(|e| format!("{typed:?} is not a path: {e}; write for example '$.user.tags[0]'"))
}
