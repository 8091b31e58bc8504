//! How a table becomes another without being written again, or why it cannot: the one rule for schemas that are compared
//! and for loads that meet a table.
//!
//! Two things are done: columns are added at the end, and `varchar` is widened. Everything else is refused with what to
//! do, and then nothing is done. Redshift runs `ALTER COLUMN … TYPE` only outside of a transaction block.

use super::column::ColumnSql;
use super::ddl::{TableSql, identifier, quoted};
use super::types::Dialect;

/// Encodings whose columns Redshift does not widen.
const FIXED_ENCODINGS: [&str; 4] = ["bytedict", "runlength", "text255", "text32k"];

/// How much is known of the table there is. What is not known is not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// All of it, as it was made by a schema.
    All,
    /// Names and types, as the catalog of a warehouse shows them. Loads go by name, so the order does not matter to
    /// them, nor do columns that the rows do not have.
    Types,
}

/// A change of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Without a semicolon.
    pub sql: String,
    /// Whether it can stand in no transaction.
    pub alone: bool,
}

/// What it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evolution {
    /// In order. None are needed if there are none.
    pub statements: Vec<Statement>,
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

/// What makes `old` able to hold the rows of `new`; `table` is its name in SQL.
pub fn evolve(old: &TableSql, known: Known, new: &TableSql, table: &str, dialect: Dialect) -> Evolution {
    let mut evolving = Evolving {
        table: table.into(),
        known,
        dialect,
        found: Evolution::default(),
    };
    if known == Known::All {
        evolving.order(old, new);
        evolving.keys(old, new);
    }
    for (name, after) in &new.columns {
        if let Some(at) = evolving.position(old, name) {
            evolving.change(name, &old.columns[at].1, after);
        }
    }
    for (at, (name, column)) in new.columns.iter().enumerate() {
        let follows = known == Known::Types || at >= old.columns.len();
        if follows && evolving.position(old, name).is_none() {
            evolving.add(name, column, new);
        }
    }
    evolving.found
}

struct Evolving {
    table: String,
    known: Known,
    dialect: Dialect,
    found: Evolution,
}

impl Evolving {
    /// Refuses columns that went, came in between or moved.
    fn order(&mut self, old: &TableSql, new: &TableSql) {
        for (at, (name, _)) in old.columns.iter().enumerate() {
            let was_there = |at: usize| {
                let column = new.columns.get(at);
                column.is_some_and(|c| self.position(old, &c.0).is_some())
            };
            match self.position(new, name) {
                None => self.refuse(format!(
                    "column {name:?} is gone; keep it, with is_noop if nothing writes it any longer"
                )),
                Some(now) if now != at && was_there(at) => self.refuse(format!(
                    "column {name:?} was number {} and is number {}; keep the order",
                    at + 1,
                    now + 1
                )),
                Some(_) => {}
            }
        }
        for (name, _) in new.columns.iter().take(old.columns.len()) {
            if self.position(old, name).is_none() {
                self.refuse(format!(
                    "column {name:?} is new and not at the end; put it behind all columns there were"
                ));
            }
        }
    }

    /// Refuses another order of the rows.
    fn keys(&mut self, old: &TableSql, new: &TableSql) {
        let (from, to) = (&old.sortkey, &new.sortkey);
        let same = from.len() == to.len() && from.iter().zip(to).all(|(a, b)| self.same(a, b));
        if self.dialect == Dialect::Redshift && !same {
            let (from, to) = (named(from), named(to));
            self.refuse(format!(
                "it is sorted by {from}, not by {to}; keep the sort key, or make a new table"
            ));
        }
    }

    fn change(&mut self, name: &str, before: &ColumnSql, after: &ColumnSql) {
        let (from, to) = (before.of, after.of);
        if from.widens_to(to) {
            self.widen(name, before, after);
        } else if to.widens_to(from) {
            self.note(format!("column {name:?} stays {from}, which is wider than {to}"));
        } else if from != to {
            self.refuse(format!(
                "column {name:?} is {from} and cannot become {to}; add a column of another name"
            ));
        }
        if self.known == Known::All {
            self.attributes(name, before, after);
        }
    }

    fn attributes(&mut self, name: &str, before: &ColumnSql, after: &ColumnSql) {
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
        let redshift = self.dialect == Dialect::Redshift;
        let encoding = before.encode.as_deref().filter(|e| FIXED_ENCODINGS.contains(e));
        if let (Some(encoding), true) = (encoding, redshift) {
            let to = after.of;
            return self.refuse(format!(
                "column {name:?} cannot become {to} as it is encoded by {encoding}; add a column of another name"
            ));
        }
        if let (Some(key), true) = (before.key, redshift) {
            let to = after.of;
            return self.refuse(format!(
                "column {name:?} cannot become {to} as it is declared {key}"
            ));
        }
        let to = after.of.sql(self.dialect);
        let (table, column) = (&self.table, quoted(name));
        self.found.statements.push(Statement {
            sql: format!("ALTER TABLE {table} ALTER COLUMN {column} TYPE {to}"),
            alone: redshift,
        });
    }

    fn add(&mut self, name: &str, column: &ColumnSql, new: &TableSql) {
        let in_sortkey = new.sortkey.iter().any(|k| self.same(k, name));
        let redshift = self.dialect == Dialect::Redshift;
        if redshift && (column.distkey || in_sortkey) {
            return self.refuse(format!(
                "column {name:?} is new and cannot be a key of distribution or order"
            ));
        }
        if redshift && column.key.is_some() {
            return self.refuse(format!("column {name:?} is new and cannot be a key"));
        }
        let mut column = column.clone();
        if column.not_null && column.default.is_none() {
            column.not_null = false;
            self.note(format!(
                "column {name:?} is added without `not null`, as the rows there are have no value in it"
            ));
        }
        let (table, sql) = (&self.table, column.sql(self.dialect));
        self.found.statements.push(Statement {
            sql: format!("ALTER TABLE {table} ADD COLUMN {} {sql}", quoted(name)),
            alone: false,
        });
    }

    fn position(&self, table: &TableSql, name: &str) -> Option<usize> {
        table.columns.iter().position(|(other, _)| self.same(other, name))
    }

    /// Redshift folds even quoted names.
    fn same(&self, a: &str, b: &str) -> bool {
        match self.dialect {
            Dialect::Redshift => a.eq_ignore_ascii_case(b),
            Dialect::Postgres => a == b,
        }
    }

    fn note(&mut self, what: String) {
        self.found.notes.push(format!("{}: {what}", self.table));
    }

    fn refuse(&mut self, why: String) {
        self.found.refused.push(format!("{}: {why}", self.table));
    }
}

fn named(keys: &[String]) -> String {
    match keys {
        [] => "nothing".into(),
        _ => keys.iter().map(|k| identifier(k)).collect::<Vec<_>>().join(", "),
    }
}
