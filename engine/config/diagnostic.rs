//! What is wrong with a pipeline file, and where.
//!
//! The checks collect [`Problems`] by byte range; only at the end do ranges become lines and columns.

use std::fmt;
use std::ops::Range;

use crate::secret::Secrets;

/// Something wrong in a pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file as named by the user.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    /// The line it is about, secrets covered.
    pub source_line: String,
    /// Something outside was away, such as S3: the file may be right, and is checked again later.
    pub passing: bool,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl Diagnostic {
    /// With the line it is about, underlined:
    ///
    /// ```text
    /// a.toml:3:1: unknown key `pth` in `source.clicks`
    ///   3 | pth = "/clicks"
    ///     | ^^^
    ///   help: did you mean `path`?
    /// ```
    pub fn render(&self) -> String {
        let line = self.source_line.as_str();
        let before: String = line.chars().take(self.column.saturating_sub(1)).collect();
        // Tabs stay tabs, so that the underline stands below what it is about at any tab width.
        let indent: String = before.chars().map(|c| if c == '\t' { c } else { ' ' }).collect();
        let carets = "^".repeat(token_width(line.get(before.len()..).unwrap_or_default()));
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let mut out = format!("{}:{}:{}: {}\n", self.file, self.line, self.column, self.message);
        out.push_str(&format!("  {number} | {line}\n  {gutter} | {indent}{carets}"));
        if let Some(help) = &self.help {
            out.push_str(&format!("\n  help: {help}"));
        }
        out
    }
}

/// Characters of the token that `rest` of a line begins with: a header, a quoted string, a word, or one.
fn token_width(rest: &str) -> usize {
    let close = match rest.chars().next() {
        Some('[') => Some(']'),
        Some(quote @ ('"' | '\'')) => Some(quote),
        _ => None,
    };
    if let Some(close) = close {
        let inner = rest.chars().skip(1).take_while(|c| *c != close).count();
        return (inner + 2).min(rest.trim_end().chars().count());
    }
    let word = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$' | '{' | '}' | ':');
    rest.chars().take_while(word).count().max(1)
}

/// Bytes of the file's text.
pub(super) type At = Range<usize>;

/// What is wrong so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems {
    all: Vec<Problem>,
    /// What must not be printed.
    pub secrets: Secrets,
}

#[derive(Clone, Debug)]
struct Problem {
    at: At,
    message: String,
    help: Option<String>,
    passing: bool,
}

impl Problems {
    /// Adds a problem that explains itself.
    pub fn add(&mut self, at: &At, message: impl Into<String>) {
        self.push(at, message.into(), None, false);
    }

    /// Adds a problem and what to do about it.
    pub fn help(&mut self, at: &At, message: impl Into<String>, help: impl Into<String>) {
        self.push(at, message.into(), Some(help.into()), false);
    }

    /// Adds a problem that may be over when the file is checked again.
    pub fn passing(&mut self, at: &At, message: impl Into<String>) {
        self.push(at, message.into(), None, true);
    }

    fn push(&mut self, at: &At, message: String, help: Option<String>, passing: bool) {
        self.all.push(Problem {
            at: at.clone(),
            message,
            help,
            passing,
        });
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Takes those of another check.
    pub fn append(&mut self, others: Problems) {
        self.all.extend(others.all);
        self.secrets.extend(&others.secrets);
    }

    /// Sorted by position, each once.
    pub fn into_diagnostics(mut self, file: &str, text: &str) -> Vec<Diagnostic> {
        self.all.sort_by_key(|p| (p.at.start, p.at.end));
        let mut out: Vec<Diagnostic> = Vec::new();
        for problem in self.all {
            let (line, column) = position(text, problem.at.start);
            let message = self.secrets.hide(&problem.message);
            let same = |d: &Diagnostic| (d.line, d.column, &d.message) == (line, column, &message);
            if !out.iter().any(same) {
                let source_line = text.lines().nth(line - 1).unwrap_or_default();
                out.push(Diagnostic {
                    file: file.into(),
                    line,
                    column,
                    message,
                    help: problem.help.map(|help| self.secrets.hide(&help)),
                    source_line: self.secrets.cover(source_line),
                    passing: problem.passing,
                });
            }
        }
        out
    }
}

/// Line and column, both from 1, of a byte.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let byte = (0..=byte.min(text.len()))
        .rev()
        .find(|b| text.is_char_boundary(*b));
    let before = &text[..byte.unwrap_or(0)];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.matches('\n').count() + 1;
    (line, before[line_start..].chars().count() + 1)
}

/// The one of `known` that was probably meant by `typed`.
pub(super) fn nearest<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let typed = typed.to_lowercase();
    // A third of the letters wrong is a slip; more is another word.
    let slip = |a: &str, b: &str| (a.chars().count().max(b.chars().count()) / 3).max(1);
    let starts =
        |k: &str| typed.len() >= 3 && (k.starts_with(&typed) || typed.starts_with(k) && k.len() >= 3);
    known
        .into_iter()
        .map(|k| (strsim::osa_distance(&typed, &k.to_lowercase()), k))
        .filter(|(distance, k)| *distance <= slip(&typed, k) || starts(k))
        .filter(|(distance, k)| *distance < k.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// `did you mean …? known: …`, as far as either is known.
pub fn did_you_mean<'k>(
    typed: &str,
    known: impl IntoIterator<Item = &'k str> + Clone,
    quote: char,
    what: &str,
) -> Option<String> {
    let quoted = |k: &str| format!("{quote}{k}{quote}");
    let all: Vec<String> = known.clone().into_iter().map(quoted).collect();
    let guess = nearest(typed, known).map(|k| format!("did you mean {}?", quoted(k)));
    let list = (!all.is_empty()).then(|| format!("{what}: {}", all.join(", ")));
    match (guess, list) {
        (Some(guess), Some(list)) => Some(format!("{guess} {list}")),
        (guess, list) => guess.or(list),
    }
}
