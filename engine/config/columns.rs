//! Column types as typed: `"bigint"`, `"timestamp not null"`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};

use super::diagnostic::did_you_mean;
use super::diagnostic::nearest;
use crate::time::timestamp_type;

/// The types, as messages list them.
const TYPES: [&str; 7] = [
    "string",
    "int",
    "bigint",
    "double",
    "boolean",
    "timestamp",
    "date",
];

/// Words of other systems that can only mean one thing.
const ALIASES: [(&str, &str); 5] = [
    ("varchar", "string"),
    ("integer", "int"),
    ("long", "bigint"),
    ("float64", "double"),
    ("bool", "boolean"),
];

/// A column type that is none.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct UnknownType {
    pub message: String,
    pub help: String,
    /// What was probably meant.
    pub meant: Option<String>,
}

/// Arrow type and whether the column takes NULL.
pub(super) fn parse(text: &str) -> Result<(DataType, bool), UnknownType> {
    let words: Vec<String> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (name, rest) = words
        .split_first()
        .map_or(("", &[][..]), |(name, rest)| (*name, rest));
    let name = ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, name)| name);
    let not_null = if rest.first() == Some(&"not") {
        " not null"
    } else {
        ""
    };
    match (data_type(name), rest) {
        (Some(kind), []) => Ok((kind, true)),
        (Some(kind), ["not", "null"]) => Ok((kind, false)),
        (Some(_), rest) => Err(UnknownType {
            message: format!("\"{}\" after the column type is not understood", rest.join(" ")),
            help: format!("write \"{name}\" or \"{name} not null\""),
            meant: Some(format!("{name}{not_null}")),
        }),
        (None, _) => Err(UnknownType {
            message: format!("there is no column type \"{name}\""),
            help: did_you_mean(name, TYPES, '"', "types").unwrap_or_default(),
            meant: nearest(name, TYPES).map(|meant| format!("{meant}{not_null}")),
        }),
    }
}

fn data_type(name: &str) -> Option<DataType> {
    Some(match name {
        "string" => DataType::Utf8,
        "int" => DataType::Int32,
        "bigint" => DataType::Int64,
        "double" => DataType::Float64,
        "boolean" => DataType::Boolean,
        "timestamp" => timestamp_type(),
        "date" => DataType::Date32,
        _ => return None,
    })
}

/// The schema of columns as typed. One that cannot be read was reported already, and passes as text.
pub(super) fn schema(columns: &[(String, String)]) -> Vec<Field> {
    let field = |(name, text): &(String, String)| {
        let (kind, nullable) = parse(text).unwrap_or((DataType::Utf8, true));
        Field::new(name, kind, nullable)
    };
    columns.iter().map(field).collect()
}

/// The word for a type; Arrow's own where a pipeline file has none.
pub(crate) fn word(of: &DataType) -> String {
    let known = TYPES
        .into_iter()
        .find(|name| data_type(name).as_ref() == Some(of));
    known.map_or_else(|| of.to_string().to_lowercase(), str::to_owned)
}

/// `a string, b bigint not null`.
pub(crate) fn describe(schema: &Arc<Schema>) -> String {
    let column = |f: &Arc<Field>| {
        let not_null = if f.is_nullable() { "" } else { " not null" };
        format!("{} {}{not_null}", f.name(), word(f.data_type()))
    };
    schema.fields().iter().map(column).collect::<Vec<_>>().join(", ")
}
