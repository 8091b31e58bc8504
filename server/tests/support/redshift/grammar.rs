//! The statements that Redshift is asked, by its grammar and strictly: what is not one of them is refused, as is what
//! PostgreSQL would take and Redshift would not.
//!
//! After <https://docs.aws.amazon.com/redshift/latest/dg/c_SQL_commands.html>; only what a loader needs.

/// What a statement comes to.
#[derive(Debug, PartialEq, Eq)]
pub enum Statement {
    /// PostgreSQL does the same.
    Same(String),
    /// As above, but not in a transaction.
    Alone(String),
    Copy(Copy),
    /// An external schema or table, or a partition of one, which is only noted.
    External(String),
}

/// A COPY of Parquet by manifest.
#[derive(Debug, PartialEq, Eq)]
pub struct Copy {
    /// Quoted.
    pub into: String,
    pub manifest: String,
    pub role: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// In lower case.
    Word(String),
    /// With its quotes.
    Name(String),
    Text(String),
    Other(char),
}

/// Reads a statement.
pub fn parse(sql: &str) -> Result<Statement, String> {
    let tokens = tokens(sql)?;
    let mut at = Cursor { tokens: &tokens };
    let same = || Ok(Statement::Same(sql.into()));
    match at.word_of("a statement")?.as_str() {
        "begin" | "commit" | "rollback" => at.end().and_then(|()| same()),
        "set" => {
            at.words(&["timezone", "to"])?;
            at.text()?;
            at.end().and_then(|()| same())
        }
        "lock" => {
            let table = at.table()?;
            at.end()?;
            Ok(Statement::Same(format!(
                "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
            )))
        }
        "select" | "delete" | "insert" => {
            refuse_foreign_words(&tokens)?;
            same()
        }
        "create" => create(at, sql),
        "alter" => alter(at, sql),
        "drop" => {
            at.words(&["table"])?;
            at.table()?;
            at.end().and_then(|()| same())
        }
        "copy" => copy(at),
        "vacuum" => {
            at.words(&["delete", "only"])?;
            let table = at.table()?;
            at.end()?;
            Ok(Statement::Alone(format!("VACUUM {table}")))
        }
        "analyze" => {
            at.table()?;
            at.end().and_then(|()| same())
        }
        other => Err(format!("syntax error at or near \"{other}\"")),
    }
}

fn copy(mut at: Cursor<'_>) -> Result<Statement, String> {
    let into = at.table()?;
    at.words(&["from"])?;
    let manifest = at.text()?;
    at.words(&["iam_role"])?;
    let role = match at.next() {
        Some(Token::Text(role)) if role.starts_with("arn:aws:iam::") => role,
        Some(Token::Word(word)) if word == "default" => word,
        other => return Err(format!("IAM_ROLE {other:?} is no role")),
    };
    at.words(&["format", "as", "parquet", "manifest"])?;
    at.end()?;
    Ok(Statement::Copy(Copy { into, manifest, role }))
}

fn create(mut at: Cursor<'_>, sql: &str) -> Result<Statement, String> {
    match at.word_of("what is created")?.as_str() {
        "temporary" => {
            at.words(&["table"])?;
            let table = at.table()?;
            let columns = at.columns()?;
            at.end()?;
            Ok(Statement::Same(format!(
                "CREATE TEMPORARY TABLE {table} ({columns})"
            )))
        }
        "table" => {
            at.words(&["if", "not", "exists"])?;
            let table = at.table()?;
            let columns = at.columns()?;
            table_attributes(&mut at, &columns)?;
            Ok(Statement::Same(format!(
                "CREATE TABLE IF NOT EXISTS {table} ({columns})"
            )))
        }
        "external" => {
            match at.word_of("schema or table")?.as_str() {
                "schema" => {
                    at.words(&["if", "not", "exists"])?;
                    at.name()?;
                    at.words(&["from", "data", "catalog", "database"])?;
                    at.text()?;
                    at.words(&["iam_role"])?;
                    at.next();
                    at.words(&["create", "external", "database", "if", "not", "exists"])?;
                }
                "table" => {
                    at.table()?;
                    at.columns()?;
                    if at.if_word("partitioned") {
                        at.words(&["by"])?;
                        at.columns()?;
                    }
                    at.words(&["stored", "as", "parquet", "location"])?;
                    at.text()?;
                }
                other => return Err(format!("syntax error at or near \"{other}\"")),
            }
            at.end()?;
            Ok(Statement::External(sql.into()))
        }
        other => Err(format!("syntax error at or near \"{other}\"")),
    }
}

fn table_attributes(at: &mut Cursor<'_>, columns: &str) -> Result<(), String> {
    if at.if_word("diststyle") {
        let style = at.word_of("a style")?;
        if !["auto", "even", "key", "all"].contains(&style.as_str()) {
            return Err(format!("DISTSTYLE {style}"));
        }
    }
    let known = |name: &str| match columns.contains(&format!("{name} ")) {
        true => Ok(()),
        false => Err(format!("column {name} named in key does not exist")),
    };
    if at.if_word("distkey") {
        at.other('(')?;
        known(&at.name()?)?;
        at.other(')')?;
    }
    if at.if_word("sortkey") {
        at.other('(')?;
        loop {
            known(&at.name()?)?;
            if !at.if_other(',') {
                break;
            }
        }
        at.other(')')?;
    }
    at.end()
}

fn alter(mut at: Cursor<'_>, sql: &str) -> Result<Statement, String> {
    at.words(&["table"])?;
    let table = at.table()?;
    match at.word_of("add or alter")?.as_str() {
        "add" if at.if_word("if") => {
            at.words(&["not", "exists", "partition"])?;
            at.other('(')?;
            loop {
                at.name()?;
                at.other('=')?;
                at.text()?;
                if !at.if_other(',') {
                    break;
                }
            }
            at.other(')')?;
            at.words(&["location"])?;
            at.text()?;
            at.end()?;
            Ok(Statement::External(sql.into()))
        }
        "add" => {
            at.words(&["column"])?;
            let column = at.column()?;
            at.end()?;
            if column.contains("not null") && !column.contains("default") {
                return Err(
                    "ALTER TABLE ADD COLUMN defined as NOT NULL must have a non-null default expression"
                        .into(),
                );
            }
            Ok(Statement::Same(format!(
                "ALTER TABLE {table} ADD COLUMN {column}"
            )))
        }
        "alter" => {
            at.words(&["column"])?;
            let column = at.name()?;
            at.words(&["type", "varchar"])?;
            at.other('(')?;
            let width = at.word_of("a width")?;
            at.other(')')?;
            at.end()?;
            Ok(Statement::Alone(format!(
                "ALTER TABLE {table} ALTER COLUMN {column} TYPE varchar({width})"
            )))
        }
        other => Err(format!("syntax error at or near \"{other}\"")),
    }
}

/// What PostgreSQL knows and Redshift does not.
fn refuse_foreign_words(tokens: &[Token]) -> Result<(), String> {
    let words = [
        "returning",
        "conflict",
        "lateral",
        "tablesample",
        "filter",
        "materialized",
    ];
    let foreign = tokens.iter().find_map(|token| match token {
        Token::Word(word) if words.contains(&word.as_str()) => Some(word),
        _ => None,
    });
    foreign.map_or(Ok(()), |word| Err(format!("syntax error at or near \"{word}\"")))
}

struct Cursor<'a> {
    tokens: &'a [Token],
}

impl Cursor<'_> {
    fn next(&mut self) -> Option<Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first.clone())
    }

    fn unexpected<T>(&self, token: Option<Token>, wanted: &str) -> Result<T, String> {
        Err(format!("syntax error: {token:?} where {wanted} is expected"))
    }

    fn word_of(&mut self, wanted: &str) -> Result<String, String> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            other => self.unexpected(other, wanted),
        }
    }

    fn words(&mut self, wanted: &[&str]) -> Result<(), String> {
        for wanted in wanted {
            if self.word_of(wanted)? != *wanted {
                return Err(format!("syntax error: {} is expected", wanted.to_uppercase()));
            }
        }
        Ok(())
    }

    fn if_word(&mut self, word: &str) -> bool {
        let is = self.tokens.first() == Some(&Token::Word(word.into()));
        if is {
            self.next();
        }
        is
    }

    fn other(&mut self, wanted: char) -> Result<(), String> {
        match self.next() {
            Some(Token::Other(c)) if c == wanted => Ok(()),
            other => self.unexpected(other, &wanted.to_string()),
        }
    }

    fn if_other(&mut self, c: char) -> bool {
        let is = self.tokens.first() == Some(&Token::Other(c));
        if is {
            self.next();
        }
        is
    }

    fn name(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Name(name)) => Ok(name),
            other => self.unexpected(other, "a quoted name"),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        match self.next() {
            Some(Token::Text(text)) => Ok(text),
            other => self.unexpected(other, "a text"),
        }
    }

    fn table(&mut self) -> Result<String, String> {
        let first = self.name()?;
        match self.if_other('.') {
            true => Ok(format!("{first}.{}", self.name()?)),
            false => Ok(first),
        }
    }

    fn end(&mut self) -> Result<(), String> {
        match self.next() {
            None => Ok(()),
            other => self.unexpected(other, "the end"),
        }
    }

    /// `("a" int, …)` as PostgreSQL has it.
    fn columns(&mut self) -> Result<String, String> {
        self.other('(')?;
        let mut columns = vec![self.column()?];
        while self.if_other(',') {
            columns.push(self.column()?);
        }
        self.other(')')?;
        Ok(columns.join(", "))
    }

    fn column(&mut self) -> Result<String, String> {
        let name = self.name()?;
        let of = self.type_name()?;
        let mut column = format!("{name} {of}");
        loop {
            match self.tokens.first() {
                Some(Token::Word(word)) if word == "not" => {
                    self.words(&["not", "null"])?;
                    column += " not null";
                }
                Some(Token::Word(word)) if word == "encode" => {
                    self.next();
                    self.word_of("an encoding")?;
                }
                Some(Token::Word(word)) if word == "default" => {
                    self.next();
                    match self.next() {
                        Some(Token::Text(text)) => column += &format!(" default '{text}'"),
                        Some(Token::Word(word)) => column += &format!(" default {word}"),
                        other => return self.unexpected(other, "a default"),
                    }
                }
                _ => return Ok(column),
            }
        }
    }

    fn type_name(&mut self) -> Result<String, String> {
        let word = self.word_of("a type")?;
        match word.as_str() {
            "smallint" | "integer" | "bigint" | "real" | "boolean" | "date" | "timestamp" | "timestamptz" => {
                Ok(word)
            }
            "double" => self.words(&["precision"]).map(|()| "double precision".into()),
            "super" => Ok("jsonb".into()),
            "char" | "varchar" | "decimal" => {
                self.other('(')?;
                let mut of = format!("{word}({}", self.word_of("a width")?);
                if self.if_other(',') {
                    of += &format!(",{}", self.word_of("a scale")?);
                }
                self.other(')')?;
                Ok(of + ")")
            }
            other => Err(format!("type \"{other}\" does not exist")),
        }
    }
}

fn tokens(sql: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = sql.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '\'' | '"' => {
                let mut inside = String::new();
                loop {
                    match chars.next() {
                        Some(end) if end == c && chars.peek() == Some(&c) => {
                            chars.next();
                            inside.push(c);
                            inside.push(c);
                        }
                        Some(end) if end == c => break,
                        Some('\\') if c == '\'' => return Err("a backslash in a text".into()),
                        Some(other) => inside.push(other),
                        None => return Err(format!("unterminated {c}")),
                    }
                }
                tokens.push(match c {
                    '"' => Token::Name(format!("\"{inside}\"")),
                    _ => Token::Text(inside),
                });
            }
            c if c.is_alphanumeric() || c == '_' => {
                let mut word = c.to_lowercase().to_string();
                while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    word.extend(c.to_lowercase());
                }
                tokens.push(Token::Word(word));
            }
            ';' => return Err("more than one statement".into()),
            other => tokens.push(Token::Other(other)),
        }
    }
    Ok(tokens)
}
