//! How a table becomes another without being written again, or why it cannot.
//!
//! Two things are done: columns are added at the end, and `varchar` is widened. Everything else is refused with what to
//! do, and then nothing is done. Redshift runs `ALTER COLUMN … TYPE` only outside of a transaction block, and adds
//! `not null` columns only with a default.

use super::column::ColumnSql;
use super::ddl::{TableSql, identifier, qualified, quoted};
use super::types::Dialect;

/// Encodings whose columns Redshift does not widen.
const FIXED_ENCODINGS: [&str; 4] = ["bytedict", "runlength", "text255", "text32k"];

/// What it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evolution {
    /// Statements, in order, without semicolons. None are needed if there are none.
    pub statements: Vec<String>,
    /// What differs and needs nothing.
    pub notes: Vec<String>,
    /// Why it is not possible. If there are any, no statement may be run.
    pub refused: Vec<String>,
}

impl Evolution {
    /// Takes another's, behind its own.
    pub fn append(&mut self, other: Evolution) {
        self.statements.extend(other.statements);
        self.notes.extend(other.notes);
        self.refused.extend(other.refused);
    }
}

/// What makes `old` able to hold the rows of `new`.
pub fn evolve(old: &TableSql, new: &TableSql, namespace: &str, dialect: Dialect) -> Evolution {
    let mut evolving = Evolving {
        table: qualified(namespace, &new.name),
        dialect,
        found: Evolution::default(),
    };
    evolving.kept(old, new);
    for (name, before) in &old.columns {
        if let Some(at) = position(new, name) {
            evolving.change(name, before, &new.columns[at].1);
        }
    }
    let added = new.columns.iter().skip(old.columns.len());
    for (name, column) in added.filter(|(name, _)| position(old, name).is_none()) {
        evolving.add(name, column, new);
    }
    if dialect == Dialect::Redshift && !same_keys(&old.sortkey, &new.sortkey) {
        let (old, new) = (keys(&old.sortkey), keys(&new.sortkey));
        evolving.refuse(format!(
            "it is sorted by {old}, not by {new}; keep the sort key, or make a new table"
        ));
    }
    evolving.found
}

struct Evolving {
    table: String,
    dialect: Dialect,
    found: Evolution,
}

impl Evolving {
    /// Refuses columns that went, came in between or moved.
    fn kept(&mut self, old: &TableSql, new: &TableSql) {
        for (at, (name, _)) in old.columns.iter().enumerate() {
            match position(new, name) {
                None => self.refuse(format!(
                    "column {name:?} is gone; keep it, with is_noop if nothing writes it any longer"
                )),
                Some(now)
                    if now != at && new.columns.get(at).is_some_and(|c| position(old, &c.0).is_some()) =>
                {
                    self.refuse(format!(
                        "column {name:?} was number {} and is number {}; keep the order",
                        at + 1,
                        now + 1
                    ));
                }
                Some(_) => {}
            }
        }
        for (name, _) in new.columns.iter().take(old.columns.len()) {
            if position(old, name).is_none() {
                self.refuse(format!(
                    "column {name:?} is new and not at the end; put it behind all columns there were"
                ));
            }
        }
    }

    fn change(&mut self, name: &str, before: &ColumnSql, after: &ColumnSql) {
        let (from, to) = (before.of, after.of);
        if from.widens_to(to) {
            self.widen(name, before, after);
        } else if to.widens_to(from) {
            self.found.notes.push(format!(
                "{}: column {name:?} stays {from}, which is wider than {to}",
                self.table
            ));
        } else if from != to {
            self.refuse(format!(
                "column {name:?} is {from} and cannot become {to}; add a column of another name"
            ));
        }
        if before.not_null != after.not_null {
            let is = |not_null: bool| if not_null { "not null" } else { "null" };
            let (from, to) = (is(before.not_null), is(after.not_null));
            self.refuse(format!(
                "column {name:?} is {from} and cannot become {to}; keep it {from}"
            ));
        }
        if self.dialect == Dialect::Redshift && before.distkey != after.distkey {
            let is = if before.distkey { "is" } else { "is not" };
            self.refuse(format!(
                "column {name:?} {is} the distribution key; keep that, or make a new table"
            ));
        }
    }

    fn widen(&mut self, name: &str, before: &ColumnSql, after: &ColumnSql) {
        let encoding = before.encode.as_deref().filter(|e| FIXED_ENCODINGS.contains(e));
        if let (Some(encoding), Dialect::Redshift) = (encoding, self.dialect) {
            let to = after.of;
            return self.refuse(format!(
                "column {name:?} cannot become {to} as it is encoded by {encoding}; add a column of another name"
            ));
        }
        if let (Some(key), Dialect::Redshift) = (before.key, self.dialect) {
            let to = after.of;
            return self.refuse(format!(
                "column {name:?} cannot become {to} as it is declared {key}"
            ));
        }
        let to = after.of.sql(self.dialect);
        let (table, column) = (&self.table, quoted(name));
        let statement = format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE {to}");
        self.found.statements.push(statement);
    }

    fn add(&mut self, name: &str, column: &ColumnSql, new: &TableSql) {
        let in_sortkey = new.sortkey.iter().any(|k| same(k, name));
        let redshift = self.dialect == Dialect::Redshift;
        if redshift && (column.distkey || in_sortkey) {
            return self.refuse(format!(
                "column {name:?} is new and cannot be a key of distribution or order"
            ));
        }
        if column.not_null && column.default.is_none() {
            return self.refuse(format!(
                "column {name:?} is new and not null; give it a default, or let it be null"
            ));
        }
        if redshift && column.key.is_some() {
            return self.refuse(format!("column {name:?} is new and cannot be a key"));
        }
        let (table, sql) = (&self.table, column.sql(self.dialect));
        let statement = format!("ALTER TABLE {table} ADD COLUMN {} {sql}", quoted(name));
        self.found.statements.push(statement);
    }

    fn refuse(&mut self, why: String) {
        self.found.refused.push(format!("{}: {why}", self.table));
    }
}

fn position(table: &TableSql, name: &str) -> Option<usize> {
    table.columns.iter().position(|(other, _)| same(other, name))
}

/// Redshift folds names.
fn same(a: &str, b: &str) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn same_keys(a: &[String], b: &[String]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
}

fn keys(of: &[String]) -> String {
    match of {
        [] => "nothing".into(),
        _ => of.iter().map(|k| identifier(k)).collect::<Vec<_>>().join(", "),
    }
}
