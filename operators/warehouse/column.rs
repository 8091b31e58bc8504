//! A column as SQL writes it behind its name: `varchar(7) not null default 'x' encode lzo distkey`.
//!
//! What Redshift takes is understood in any order, and whatever else is written is an error with the words that are
//! known, so that a slip is found before a warehouse finds it. See
//! <https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_TABLE_NEW.html>.

use millstream_engine::config::did_you_mean;

use super::types::{Dialect, SqlType, TypeError};

/// A type and what is said of its column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnSql {
    /// What it holds.
    pub of: SqlType,
    /// Whether it must have a value.
    pub not_null: bool,
    /// The expression that stands where no value is given.
    pub default: Option<String>,
    /// How Redshift packs it.
    pub encode: Option<String>,
    /// Whether rows are spread by it.
    pub distkey: bool,
    /// Whether rows are sorted by it.
    pub sortkey: bool,
    /// `primary key` or `unique`, which Redshift plans by but does not enforce.
    pub key: Option<&'static str>,
}

impl ColumnSql {
    /// A column that may be null and is nothing else.
    pub fn plain(of: SqlType) -> ColumnSql {
        ColumnSql {
            of,
            not_null: false,
            default: None,
            encode: None,
            distkey: false,
            sortkey: false,
            key: None,
        }
    }

    /// Parses what stands behind a column's name.
    ///
    /// # Errors
    /// What is wrong with it and what to write.
    pub fn parse(text: &str) -> Result<ColumnSql, TypeError> {
        let (of, mut rest) = SqlType::parse_prefix(text)?;
        let mut column = ColumnSql::plain(of);
        while !rest.is_empty() {
            rest = column.attribute(rest)?.trim_start();
        }
        Ok(column)
    }

    /// Takes the attribute that `text` begins with; what follows is given back.
    fn attribute<'t>(&mut self, text: &'t str) -> Result<&'t str, TypeError> {
        let (word, rest) = token(text);
        let lower = word.to_ascii_lowercase();
        let second = |expect: &str| {
            let (next, after) = token(rest);
            next.eq_ignore_ascii_case(expect).then_some(after)
        };
        match lower.as_str() {
            "not" if second("null").is_some() => {
                self.not_null = true;
                return Ok(second("null").unwrap_or_default());
            }
            "primary" if second("key").is_some() => {
                self.key = Some("primary key");
                self.not_null = true;
                return Ok(second("key").unwrap_or_default());
            }
            "null" => self.not_null = false,
            "unique" => self.key = Some("unique"),
            "distkey" => self.distkey = true,
            "sortkey" => self.sortkey = true,
            "default" => {
                let (expression, after) = expression(rest);
                if expression.is_empty() {
                    return Err(TypeError::new("`default` is followed by no value"));
                }
                self.default = Some(expression.into());
                return Ok(after);
            }
            "encode" => {
                let (encoding, after) = token(rest);
                if encoding.is_empty() {
                    return Err(TypeError::new("`encode` is followed by no encoding"));
                }
                self.encode = Some(encoding.to_ascii_lowercase());
                return Ok(after);
            }
            _ => {
                return Err(TypeError {
                    message: format!("{word:?} is no attribute of a column"),
                    help: did_you_mean(&lower, ATTRIBUTES.iter().copied(), '`', "attributes"),
                });
            }
        }
        Ok(rest)
    }

    /// What stands behind the column's name in `dialect`; the keys of distribution and order are the table's, not the
    /// column's.
    pub fn sql(&self, dialect: Dialect) -> String {
        let mut words = vec![self.of.sql(dialect)];
        words.extend(self.default.as_ref().map(|d| format!("default {d}")));
        match (self.key, self.not_null) {
            (Some("primary key"), _) | (_, false) => {}
            (_, true) => words.push("not null".into()),
        }
        words.extend(self.key.map(str::to_owned));
        if dialect == Dialect::Redshift {
            words.extend(self.encode.as_ref().map(|e| format!("encode {e}")));
        }
        words.join(" ")
    }
}

/// What may follow a type.
const ATTRIBUTES: &[&str] = &[
    "not null",
    "null",
    "default",
    "encode",
    "distkey",
    "sortkey",
    "primary key",
    "unique",
];

/// The first words of what may follow a type: where an expression ends.
const STARTS: &[&str] = &[
    "not", "null", "default", "encode", "distkey", "sortkey", "primary", "unique",
];

/// A run of letters, a quoted text or one other character, with the brackets that follow at once; then the rest.
fn token(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let mut end = simple(text);
    while text[end..].starts_with("::") {
        end += 2 + simple(&text[end + 2..]);
    }
    if text[end..].starts_with('(') {
        end += bracketed(&text[end..]);
    }
    text.split_at(end)
}

fn simple(text: &str) -> usize {
    if text.starts_with('\'') {
        return quoted(text);
    }
    if text.starts_with('(') {
        return bracketed(text);
    }
    let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+' | '$');
    match text.find(|c: char| !word(c)) {
        Some(0) => text.chars().next().map_or(0, char::len_utf8),
        Some(end) => end,
        None => text.len(),
    }
}

/// Bytes of the text in quotes that `text` begins with; two quotes stand for one.
fn quoted(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\'' && chars.next_if(|(_, next)| *next == '\'').is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// Bytes up to the bracket that closes the one `text` begins with.
fn bracketed(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while let Some(c) = text[at..].chars().next() {
        at += match c {
            '\'' => quoted(&text[at..]),
            _ => c.len_utf8(),
        };
        depth = match c {
            '(' => depth + 1,
            ')' => depth - 1,
            _ => depth,
        };
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The expression that `text` begins with: its tokens up to the next attribute. `null` may be its first.
fn expression(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let mut end = 0;
    loop {
        let (word, rest) = token(&text[end..]);
        let starts = STARTS.iter().any(|s| word.eq_ignore_ascii_case(s));
        let is_value = end == 0 && word.eq_ignore_ascii_case("null");
        if word.is_empty() || (starts && !is_value) {
            return (text[..end].trim_end(), &text[end..]);
        }
        end = text.len() - rest.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_parsed_and_written_for_each_dialect() {
        for (text, redshift, postgres) in [
            ("int2", "smallint", "smallint"),
            (
                "varchar(7) not null distkey",
                "varchar(7) not null",
                "varchar(7) not null",
            ),
            (
                "TIMESTAMP NOT NULL sortkey",
                "timestamp not null",
                "timestamp not null",
            ),
            (
                "varchar(9) DEFAULT 'it''s not null' ENCODE LZO NOT NULL",
                "varchar(9) default 'it''s not null' not null encode lzo",
                "varchar(9) default 'it''s not null' not null",
            ),
            (
                "timestamp default getdate() encode az64",
                "timestamp default getdate() encode az64",
                "timestamp default getdate()",
            ),
            (
                "int default -1 + (2 * 3) unique",
                "integer default -1 + (2 * 3) unique",
                "integer default -1 + (2 * 3) unique",
            ),
            ("int default null", "integer default null", "integer default null"),
            (
                "varchar(3) default 'a'::varchar(3) null",
                "varchar(3) default 'a'::varchar(3)",
                "varchar(3) default 'a'::varchar(3)",
            ),
            ("int8 primary key", "bigint primary key", "bigint primary key"),
            ("super", "super", "text"),
        ] {
            let column = ColumnSql::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(column.sql(Dialect::Redshift), redshift, "{text}");
            assert_eq!(column.sql(Dialect::Postgres), postgres, "{text}");
            let mut again = ColumnSql::parse(redshift).expect("what we write");
            (again.sortkey, again.distkey) = (column.sortkey, column.distkey);
            assert_eq!(again, column, "{text}");
        }
    }

    #[test]
    fn slips_are_named() {
        for (text, expect) in [
            (
                "int2 distky",
                "\"distky\" is no attribute of a column | did you mean `distkey`?",
            ),
            ("int2 not", "\"not\" is no attribute of a column | "),
            ("int2 default", "`default` is followed by no value | "),
            ("int2 default not null", "`default` is followed by no value | "),
            ("int2 encode", "`encode` is followed by no encoding | "),
            ("int2; drop table x", "\";\" is no attribute of a column | "),
            ("UNKNOWN", "unknown type \"unknown\" | "),
        ] {
            let e = ColumnSql::parse(text).expect_err(text);
            let got = format!("{} | {}", e.message, e.help.unwrap_or_default());
            assert!(got.starts_with(expect), "{text:?}: {got}");
        }
    }
}
