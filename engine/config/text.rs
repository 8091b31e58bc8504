//! String values: what they say, and where in the file each byte of it was written.
//!
//! The `toml` crate decodes strings but keeps only their outer range, and a SQL error points *into* a
//! multi-line string. So literals are decoded a second time here, remembering the origin of every byte;
//! `${VAR}` is then replaced on top of that, so that positions survive it.

use chrono::NaiveDate;

use super::diagnostic::{At, Problems};
use crate::schedule as dates;

/// A string value.
#[derive(Clone, Debug)]
pub(super) struct Text {
    /// What it says, variables replaced.
    pub value: String,
    /// For every byte of `value`, and for its end, the byte of the file it comes from.
    origin: Vec<usize>,
}

impl Text {
    /// Reads the literal at `at` of `file`, which the parser decoded to `decoded`, and replaces variables.
    /// None when a variable is wrong or missing; `problems` then says which.
    pub fn read(
        file: &str,
        at: &At,
        decoded: &str,
        vars: &dyn Fn(&str) -> Option<String>,
        problems: &mut Problems,
    ) -> Option<Text> {
        let literal = decode(file.get(at.clone()).unwrap_or_default(), at.start);
        let text = match literal.value == decoded {
            true => literal,
            // Whatever the parser read differently: every byte stands for the whole literal.
            false => Text {
                value: decoded.into(),
                origin: vec![at.start; decoded.len() + 1],
            },
        };
        match text.value.contains("${") {
            true => text.interpolate(vars, problems),
            false => Some(text),
        }
    }

    /// The range of the file that bytes `of` of the value were written at.
    pub fn at(&self, of: &At) -> At {
        let end = self.origin.len() - 1;
        let start = self.origin[of.start.min(end)];
        start..self.origin[of.end.min(end)].max(start)
    }

    /// Takes the value that was probably meant; all of it then stands where this one began.
    pub fn repair(&mut self, with: &str) {
        if self.value != with {
            let start = self.origin[0];
            self.value = with.into();
            self.origin = vec![start; with.len() + 1];
        }
    }

    fn empty() -> Text {
        Text {
            value: String::new(),
            origin: Vec::new(),
        }
    }

    fn push(&mut self, c: char, from: usize, verbatim: bool) {
        self.value.push(c);
        let step = usize::from(verbatim);
        self.origin.extend((0..c.len_utf8()).map(|i| from + i * step));
    }

    fn push_str(&mut self, text: &str, from: usize) {
        text.chars().for_each(|c| self.push(c, from, false));
    }

    fn copy(&mut self, of: &Text, range: At) {
        self.value.push_str(&of.value[range.clone()]);
        self.origin.extend_from_slice(&of.origin[range]);
    }

    fn interpolate(self, vars: &dyn Fn(&str) -> Option<String>, problems: &mut Problems) -> Option<Text> {
        let mut out = Text::empty();
        let before = problems.count();
        let mut done = 0;
        while let Some(dollar) = self.value[done..].find("${").map(|i| done + i) {
            if self.value[done..dollar].ends_with('$') {
                // `$${` stands for `${`.
                out.copy(&self, done..dollar - 1);
                out.copy(&self, dollar..dollar + 2);
                done = dollar + 2;
                continue;
            }
            out.copy(&self, done..dollar);
            let Some(close) = self.value[dollar..].find('}').map(|i| dollar + i) else {
                problems.help(
                    &self.at(&(dollar..dollar + 2)),
                    "`${` without `}`",
                    "write `$${` for a literal `${`",
                );
                return None;
            };
            let at = self.at(&(dollar..close + 1));
            if let Some(value) = variable(&self.value[dollar + 2..close], vars, &at, problems) {
                out.push_str(&value, at.start);
            }
            done = close + 1;
        }
        out.copy(&self, done..self.value.len());
        out.origin.extend(self.origin.last());
        (problems.count() == before).then_some(out)
    }
}

/// What `NAME` or `NAME:-default` stands for. Like a shell, an empty variable takes the default.
fn variable(
    inner: &str,
    vars: &dyn Fn(&str) -> Option<String>,
    at: &At,
    problems: &mut Problems,
) -> Option<String> {
    if let Some(value) = dates::variable(inner, NaiveDate::default()) {
        if let Err(why) = value {
            problems.add(at, why);
            return None;
        }
        return vars(inner);
    }
    let (name, default) = match inner.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inner, None),
    };
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if name.is_empty() || !letters || name.starts_with(|c: char| c.is_ascii_digit()) {
        problems.help(
            at,
            format!("`${{{inner}}}` does not name an environment variable"),
            "write `${NAME}` or `${NAME:-default}`, or `$${` for a literal `${`",
        );
        return None;
    }
    let value = match (vars(name), default) {
        (Some(value), Some(default)) if value.is_empty() => Some(default.to_owned()),
        (None, Some(default)) => Some(default.to_owned()),
        (value, _) => value,
    };
    if value.is_none() {
        problems.help(
            at,
            format!("the environment variable `{name}` is not set"),
            format!("set it, or give a default: `${{{name}:-…}}`"),
        );
    }
    value
}

/// Decodes a TOML string literal whose first byte is byte `start` of the file. The parser has accepted it,
/// so malformed input needs no message here; it only must not panic.
fn decode(raw: &str, start: usize) -> Text {
    let quote = raw.chars().next().unwrap_or('"');
    let long = raw.len() >= 6 && raw.chars().take(3).all(|c| c == quote);
    let delimiter = if long { 3 } else { 1 };
    let mut from = delimiter.min(raw.len());
    let end = raw.len().saturating_sub(delimiter).max(from);
    if long {
        let newline = ["\r\n", "\n"].into_iter().find(|n| raw[from..end].starts_with(n));
        from += newline.map_or(0, str::len);
    }
    let mut out = Text::empty();
    let mut rest = raw.get(from..end).unwrap_or_default();
    while let Some(c) = rest.chars().next() {
        let here = start + end - rest.len();
        if c == '\\' && quote == '"' {
            let (decoded, used) = escape(&rest[1..]);
            if let Some(decoded) = decoded {
                out.push(decoded, here, false);
            }
            rest = &rest[1 + used..];
        } else {
            out.push(c, here, true);
            rest = &rest[c.len_utf8()..];
        }
    }
    out.origin.push(start + end);
    out
}

/// The character that an escape stands for (none for a line-ending backslash) and how many bytes follow the
/// backslash.
fn escape(rest: &str) -> (Option<char>, usize) {
    let hex = |digits: usize| {
        let code = rest
            .get(1..1 + digits)
            .and_then(|d| u32::from_str_radix(d, 16).ok());
        match code.and_then(char::from_u32) {
            Some(c) => (Some(c), 1 + digits),
            None => (Some('\u{fffd}'), 1),
        }
    };
    match rest.chars().next() {
        Some('b') => (Some('\u{8}'), 1),
        Some('e') => (Some('\u{1b}'), 1),
        Some('f') => (Some('\u{c}'), 1),
        Some('n') => (Some('\n'), 1),
        Some('r') => (Some('\r'), 1),
        Some('t') => (Some('\t'), 1),
        Some('x') => hex(2),
        Some('u') => hex(4),
        Some('U') => hex(8),
        Some(c) if c.is_ascii_whitespace() => (None, rest.len() - rest.trim_ascii_start().len()),
        Some(c) => (Some(c), c.len_utf8()),
        None => (None, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str) -> (Text, String) {
        let at = file.find('=').unwrap() + 1..file.len();
        let decoded: toml::Table = file.parse().unwrap();
        let decoded = decoded["q"].as_str().unwrap().to_owned();
        let vars = |name: &str| (name == "SET").then(|| "value".to_owned());
        let mut problems = Problems::default();
        let text = Text::read(file, &at, &decoded, &vars, &mut problems).unwrap();
        (text, decoded)
    }

    /// Every form of string: the marker `X` is found where it stands in the file.
    #[test]
    fn positions_survive_every_form_of_literal() {
        for file in [
            r#"q="plain X""#,
            r#"q='literal \ X'"#,
            "q=\"\"\"\nfirst\nsecond X\n\"\"\"",
            "q=\"\"\"\r\nfirst\r\nsecond X\"\"\"",
            "q='''\nfirst ''quoted''\n  X'''",
            "q=\"\"\"joined \\\n     \n   X\"\"\"",
            r#"q="tab\t quote\" \\ \u00e9 \x41 \U0001F600 é X""#,
            r#"q="${SET} and ${NONE:-other X} then X""#,
        ] {
            let (text, decoded) = read(file);
            if !file.contains("${") {
                assert_eq!(text.value, decoded, "{file}");
            }
            let marker = text.value.rfind('X').unwrap();
            let at = text.at(&(marker..marker + 1));
            assert_eq!(at.start, file.rfind('X').unwrap(), "{file}");
            assert_eq!(&file[at], "X", "{file}");
        }
    }

    #[test]
    fn a_replaced_variable_points_at_its_name() {
        let file = r#"q="a ${SET} b $${SET}""#;
        let (text, _) = read(file);
        assert_eq!(text.value, "a value b ${SET}");
        let value = text.value.find("lue").unwrap();
        assert_eq!(text.at(&(value..value + 3)).start, file.find("${").unwrap());
    }
}
