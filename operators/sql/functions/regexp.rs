//! What a pattern finds (crate `regex`, as DataFusion's own `regexp_…` functions).

use std::cell::RefCell;
use std::rc::Rc;

use regex::{CaptureLocations, Regex};

use super::rows::Kind::{Integer, Literal, Text};
use super::rows::{Definition, Gives, Literals, PerRow, Value};

pub(super) const FUNCTIONS: &[Definition] = &[Definition {
    name: "regexp_extract",
    takes: &[&[Text, Literal], &[Text, Literal, Integer]],
    gives: Gives::Text,
    make: extract,
}];

/// Patterns that a thread keeps. To compile one, and to build the automaton that finds its matches, takes as long as to
/// look through some thousand rows, and a batch may have a single one.
const KEPT_PATTERNS: usize = 32;

thread_local! {
    /// The last used is the last.
    static PATTERNS: RefCell<Vec<Rc<Pattern>>> = const { RefCell::new(Vec::new()) };
}

/// A pattern, and where to put what its groups find.
struct Pattern {
    typed: String,
    regex: Regex,
    groups: RefCell<CaptureLocations>,
}

impl Pattern {
    fn of(typed: &str) -> Result<Rc<Pattern>, String> {
        PATTERNS.with_borrow_mut(|kept| {
            let pattern = match kept.iter().position(|p| p.typed == typed) {
                Some(at) => kept.remove(at),
                None => Rc::new(Pattern::compiled(typed)?),
            };
            if kept.len() == KEPT_PATTERNS {
                kept.remove(0);
            }
            kept.push(Rc::clone(&pattern));
            Ok(pattern)
        })
    }

    fn compiled(typed: &str) -> Result<Pattern, String> {
        let regex = Regex::new(typed).map_err(|e| format!("{typed:?} is not a regular expression: {e}"))?;
        Ok(Pattern {
            typed: typed.to_owned(),
            groups: RefCell::new(regex.capture_locations()),
            regex,
        })
    }

    /// The group's part of the first match in a text.
    fn find<'t>(&self, group: usize, text: &'t str) -> Option<&'t str> {
        if group == 0 {
            return Some(self.regex.find(text)?.as_str());
        }
        let mut groups = self.groups.borrow_mut();
        self.regex.captures_read(&mut groups, text)?;
        let (from, to) = groups.get(group)?;
        Some(&text[from..to])
    }
}

/// The group's text in the first match; group 0, which it is when none is named, is the whole match.
fn extract(literals: &Literals<'_>) -> Result<PerRow, String> {
    let Some(typed) = literals.text(1) else {
        return Ok(Box::new(|_| None));
    };
    let pattern = Pattern::of(typed)?;
    let groups = pattern.regex.captures_len() as i64 - 1;
    if let Some(group) = literals.integer(2).filter(|group| !(0..=groups).contains(group)) {
        return Err(format!(
            "{typed:?} has no group {group}; it has {groups}, and 0 is the whole match"
        ));
    }
    Ok(Box::new(move |row| {
        let group = usize::try_from(row.integer(2).unwrap_or(0)).ok()?;
        pattern.find(group, row.text(0)).map(Value::text)
    }))
}
