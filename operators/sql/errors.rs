//! What goes wrong, in our words: DataFusion's errors as [`SqlError`]s that point into the query text while
//! planning, and as engine errors that say who must act while running.

use std::ops::Range;

use datafusion::common::{Column, DataFusionError, SchemaError, Span};
use datafusion::sql::sqlparser;
use millstream_engine::Error;
use millstream_engine::sql::SqlError;

/// An error of a running query.
pub(super) fn failed(query: &str, error: DataFusionError) -> Error {
    let message = format!("query {query:?}: {}", tidy(&error.strip_backtrace()));
    match error.find_root() {
        DataFusionError::Internal(_) | DataFusionError::NotImplemented(_) => Error::bug(message),
        _ => Error::data(message),
    }
}

/// The text of a query, to find places in.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a>(pub &'a str);

impl Text<'_> {
    /// The byte at a line and column, both counted from 1 and in characters, as the parser does.
    fn byte(self, line: u64, column: u64) -> Option<usize> {
        let (line, column) = (line.checked_sub(1)? as usize, column.checked_sub(1)? as usize);
        let start = match line {
            0 => 0,
            n => self.0.match_indices('\n').nth(n - 1)?.0 + 1,
        };
        let rest = self.0[start..].split('\n').next()?;
        let within = rest
            .char_indices()
            .map(|(at, _)| at)
            .chain([rest.len()])
            .nth(column)?;
        Some(start + within)
    }

    /// The bytes of a span of the parser.
    pub fn bytes(self, span: sqlparser::tokenizer::Span) -> Option<Range<usize>> {
        let start = self.byte(span.start.line, span.start.column)?;
        let end = self.byte(span.end.line, span.end.column)?;
        (start < end).then_some(start..end)
    }

    fn of(self, span: Span) -> Option<Range<usize>> {
        let start = self.byte(span.start.line, span.start.column)?;
        let end = self.byte(span.end.line, span.end.column)?;
        (start < end).then_some(start..end)
    }

    /// The word, number or sign at a line and column.
    fn token_at(self, line: u64, column: u64) -> Option<Range<usize>> {
        let start = self.byte(line, column)?;
        let rest = &self.0[start..];
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let length = length.max(rest.chars().next().map_or(0, char::len_utf8));
        Some(start..start + length)
    }

    /// What DataFusion found wrong while parsing or planning.
    pub fn error(self, error: &DataFusionError) -> SqlError {
        let root = error.find_root();
        let span = error
            .diagnostic()
            .and_then(|d| d.span)
            .and_then(|span| self.of(span));
        match root {
            DataFusionError::SQL(parse, _) => self.parse_error(&parse.to_string()),
            DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
                SchemaError::FieldNotFound { field, valid_fields } => SqlError {
                    at: span.or_else(|| field.spans().first().and_then(|span| self.of(span))),
                    message: no_column(field, valid_fields),
                },
                other => SqlError {
                    message: tidy(&other.to_string()),
                    at: span,
                },
            },
            other => SqlError {
                message: plan_error(&other.strip_backtrace()),
                at: span,
            },
        }
    }

    /// The parser writes where it stopped at the end of its message.
    fn parse_error(self, message: &str) -> SqlError {
        let (what, place) = message.split_once(" at Line: ").unwrap_or((message, ""));
        let mut numbers = place
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|n| n.parse().ok());
        let at = numbers.next().zip(numbers.next());
        SqlError {
            message: tidy(what),
            at: at.and_then(|(line, column)| self.token_at(line, column)),
        }
    }
}

/// What the planner says only of its own parts, in terms of the query.
fn plan_error(message: &str) -> String {
    const SUBQUERIES: [&str; 3] = ["InSubquery(", "Exists(", "ScalarSubquery("];
    let of = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if of(&["does not support logical expression"]) && of(&SUBQUERIES) {
        return "a subquery stands where it cannot be computed; use it alone in WHERE or HAVING, or join with it"
            .to_owned();
    }
    // The two are volatile to the planner (see functions.rs), so no sort on them counts as one.
    if of(&["does not satisfy order requirements"]) && of(&["window_start()", "window_end()"]) {
        return "an aggregate cannot be ordered by window_start() or window_end(); order by the columns window_start \
                and window_end"
            .to_owned();
    }
    tidy(message)
}

fn no_column(field: &Column, valid: &[Column]) -> String {
    let of_same = valid
        .iter()
        .filter(|v| field.relation.is_none() || v.relation == field.relation);
    let names: Vec<&str> = of_same.map(|v| v.name.as_str()).collect();
    match names.is_empty() {
        true => format!("no column {:?} here", field.flat_name()),
        false => format!(
            "no column {:?} here{}",
            field.flat_name(),
            instead(&field.name, &names)
        ),
    }
}

/// What to write instead of a name that is not known: the nearest known one, or all of them.
pub(super) fn instead(name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|k| {
        (
            strsim::damerau_levenshtein(&name.to_lowercase(), &k.to_lowercase()),
            k,
        )
    });
    match near.min() {
        Some((distance, nearest)) if distance <= 1 + name.len() / 3 => format!("; did you mean {nearest:?}?"),
        Some(_) => format!("; there are {}", known.join(", ")),
        None => String::new(),
    }
}

/// A foreign message in our style: one line, lower case, without its category and full stop.
fn tidy(message: &str) -> String {
    const CATEGORIES: [&str; 9] = [
        "Error during planning: ",
        "Execution error: ",
        "Arrow error: ",
        "Optimizer rule ",
        "External error: ",
        "Schema error: ",
        "SQL error: ",
        "sql parser error: ",
        "This feature is not implemented: ",
    ];
    let mut text = message.trim();
    while let Some(rest) = CATEGORIES.iter().find_map(|c| text.strip_prefix(c)) {
        text = rest;
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_lowercase().chain([second]).chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}
