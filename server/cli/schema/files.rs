//! Schemas of logs in files: checked, merged, and as SQL.

use std::io::Read;
use std::path::{Path, PathBuf};

use millstream_engine::config::Diagnostic;
use millstream_operators::formats::log::{LogSchema, merge};
use millstream_operators::warehouse::ddl::qualified;
use millstream_operators::warehouse::evolve::{Evolution, Known, Statement, evolve};

use super::Sql;
use crate::cli::Exit;

/// A schema, or what is wrong with it on standard error. What is odd is told, too.
pub fn load(path: &Path) -> Result<LogSchema, Exit> {
    let name = path.display().to_string();
    let text = read(path).map_err(|e| {
        eprintln!("error: cannot read {name}: {e}");
        Exit::Invalid
    })?;
    match LogSchema::parse(&name, &text) {
        Ok(schema) => {
            tell(&schema.warnings, "warning: ");
            Ok(schema)
        }
        Err(problems) => {
            tell(&problems.0, "");
            eprintln!("{name}: {}", counted(problems.0.len(), "error"));
            Err(Exit::Invalid)
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    if path != Path::new("-") {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn tell(diagnostics: &[Diagnostic], kind: &str) {
    for diagnostic in diagnostics {
        eprintln!("{kind}{}", diagnostic.render());
    }
}

fn counted(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        _ => format!("{n} {what}s"),
    }
}

pub fn check(files: &[PathBuf]) -> anyhow::Result<Exit> {
    let mut exit = Exit::Ok;
    for file in files {
        match load(file) {
            Ok(schema) => {
                let columns = schema.tables.iter().map(|t| t.columns.len()).sum();
                let (tables, columns) = (counted(schema.tables.len(), "table"), counted(columns, "column"));
                println!(
                    "{}: ok, version {}, {tables}, {columns}",
                    file.display(),
                    schema.version
                );
            }
            Err(_) => exit = Exit::Invalid,
        }
    }
    Ok(exit)
}

pub fn merge(base: &Path, others: &[PathBuf]) -> anyhow::Result<Exit> {
    let mut merged = match load(base) {
        Ok(schema) => schema,
        Err(exit) => return Ok(exit),
    };
    let version = merged.version;
    for other in others {
        let name = other.display();
        let other = match load(other) {
            Ok(schema) => schema,
            Err(exit) => return Ok(exit),
        };
        let result = merge::merge(&merged, &other);
        for refused in &result.refused {
            eprintln!("error: {name}: {refused}");
        }
        if !result.refused.is_empty() {
            return Ok(Exit::Failed);
        }
        for note in &result.notes {
            eprintln!("note: {name}: {note}");
        }
        let text = merge::versioned(result.tree, version).write();
        merged = LogSchema::parse("the merged schema", &text).map_err(|e| anyhow::anyhow!("{e}"))?;
    }
    print!("{}", merge::versioned(merged.tree().clone(), version + 1).write());
    Ok(Exit::Ok)
}

pub fn ddl(file: &Path, sql: &Sql) -> anyhow::Result<Exit> {
    let schema = match load(file) {
        Ok(schema) => schema,
        Err(exit) => return Ok(exit),
    };
    for table in schema.sql(true) {
        println!("{};", table.create(&sql.namespace, sql.dialect()));
    }
    Ok(Exit::Ok)
}

pub fn diff(old: &Path, new: &Path, sql: &Sql) -> anyhow::Result<Exit> {
    let (old, new) = match (load(old), load(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(exit), _) | (_, Err(exit)) => return Ok(exit),
    };
    let found = difference(&old, &new, sql);
    for note in &found.notes {
        eprintln!("note: {note}");
    }
    for refused in &found.refused {
        eprintln!("error: {refused}");
    }
    if !found.refused.is_empty() {
        return Ok(Exit::Failed);
    }
    for statement in &found.statements {
        println!("{};", statement.sql);
    }
    Ok(Exit::Ok)
}

/// What makes the tables of one schema those of another. Tables that are gone stay.
fn difference(old: &LogSchema, new: &LogSchema, sql: &Sql) -> Evolution {
    let (namespace, dialect) = (sql.namespace.as_str(), sql.dialect());
    let (before, after) = (old.sql(false), new.sql(false));
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let mut all = Evolution::default();
    for table in &after {
        match before.iter().find(|t| same(&t.name, &table.name)) {
            Some(was) => {
                let name = qualified(namespace, &table.name);
                all.append(evolve(was, Known::All, table, &name, dialect));
            }
            None => all.statements.push(Statement {
                sql: table.create(namespace, dialect),
                alone: false,
            }),
        }
    }
    for table in before
        .iter()
        .filter(|t| !after.iter().any(|n| same(&n.name, &t.name)))
    {
        let name = qualified(namespace, &table.name);
        all.notes
            .push(format!("{name}: is in the schema no longer; the table stays"));
    }
    all
}
