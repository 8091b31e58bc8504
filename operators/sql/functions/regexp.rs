//! What a pattern finds (crate `regex`, as DataFusion's own `regexp_…` functions).

use regex::Regex;

use super::rows::Kind::{Integer, Literal, Text};
use super::rows::{Definition, Gives, Literals, PerRow, Value};

pub(super) const FUNCTIONS: &[Definition] = &[Definition {
    name: "regexp_extract",
    takes: &[&[Text, Literal], &[Text, Literal, Integer]],
    gives: Gives::Text,
    make: extract,
}];

/// The group's text in the first match; group 0, which it is when none is named, is the whole match.
fn extract(literals: &Literals<'_>) -> Result<PerRow, String> {
    let Some(typed) = literals.text(1) else {
        return Ok(Box::new(|_| None));
    };
    let pattern = Regex::new(typed).map_err(|e| format!("{typed:?} is not a regular expression: {e}"))?;
    let groups = pattern.captures_len() as i64 - 1;
    if let Some(group) = literals.integer(2).filter(|group| !(0..=groups).contains(group)) {
        return Err(format!(
            "{typed:?} has no group {group}; it has {groups}, and 0 is the whole match"
        ));
    }
    Ok(Box::new(move |row| {
        let group = usize::try_from(row.integer(2).unwrap_or(0)).ok()?;
        let found = match group {
            0 => pattern.find(row.text(0)),
            _ => pattern.captures(row.text(0))?.get(group),
        };
        found.map(|found| Value::text(found.as_str()))
    }))
}
