//! Two schemas of one log as one: what the first has stays as it is and where it is, and what the second has more comes
//! behind it. So the tables of the first can become those of the merged one.

use super::schema::{Column, From, LogSchema, Table};
use super::tree::Tree;
use crate::warehouse::ddl::{PUBLIC, qualified};
use crate::warehouse::evolve::{Known, evolve};
use crate::warehouse::types::{Dialect, SqlType};

/// What came of it.
#[derive(Clone, Debug)]
pub struct Merged {
    /// The schema, to be written.
    pub tree: Tree,
    /// What the second one had more.
    pub notes: Vec<String>,
    /// What the two do not agree on. If there is anything, the schema is not to be used.
    pub refused: Vec<String>,
}

/// Adds the tables, columns and widths of `other` to `base`; the version is one more.
pub fn merge(base: &LogSchema, other: &LogSchema) -> Merged {
    let mut merging = Merging {
        tree: base.tree().clone(),
        notes: Vec::new(),
        refused: Vec::new(),
    };
    for table in &other.tables {
        let tree = table_tree(other.tree(), &table.name);
        match base
            .tables
            .iter()
            .find(|t| t.name.eq_ignore_ascii_case(&table.name))
        {
            Some(before) => merging.table(before, table, tree),
            None => merging.new_table(&table.name, tree),
        }
    }
    set_version(&mut merging.tree, base.version.max(other.version) + 1);
    merging.check(base);
    Merged {
        tree: merging.tree,
        notes: merging.notes,
        refused: merging.refused,
    }
}

/// A schema with a table in it, in the place of one of the same name; the version is one more. Without a schema it is
/// the first.
pub fn with_table(base: Option<&LogSchema>, name: &str, table: Tree) -> Tree {
    let (mut tree, version) = match base {
        Some(base) => (base.tree().clone(), base.version),
        None => (Tree::map([("tables", Tree::map([]))]), 0),
    };
    if let Some(Tree::Map(tables)) = tree.get_mut("tables") {
        tables.insert(name.into(), table);
    }
    set_version(&mut tree, version + 1);
    tree
}

/// The same schema under another version.
pub fn versioned(mut tree: Tree, version: i64) -> Tree {
    set_version(&mut tree, version);
    tree
}

fn set_version(tree: &mut Tree, version: i64) {
    if let Tree::Map(entries) = tree {
        entries.insert("version".into(), Tree::Int(version));
    }
}

fn table_tree<'t>(of: &'t Tree, name: &str) -> &'t Tree {
    let table = of.get("tables").and_then(|tables| tables.get(name));
    table.expect("each table of a schema is in its tree")
}

struct Merging {
    tree: Tree,
    notes: Vec<String>,
    refused: Vec<String>,
}

impl Merging {
    /// Refuses what no table of `base` can become.
    fn check(&mut self, base: &LogSchema) {
        let merged = match LogSchema::parse("merged", &self.tree.write()) {
            Ok(merged) => merged.sql(false),
            Err(problems) => return self.refused.push(problems.to_string()),
        };
        for before in base.sql(false) {
            if let Some(after) = merged.iter().find(|t| t.name == before.name) {
                let name = qualified(PUBLIC, &after.name);
                let evolution = evolve(&before, Known::All, after, &name, Dialect::Redshift);
                self.refused.extend(evolution.refused);
            }
        }
    }

    fn new_table(&mut self, name: &str, tree: &Tree) {
        self.notes.push(format!("table {name:?} is added"));
        if let Some(Tree::Map(tables)) = self.tree.get_mut("tables") {
            tables.insert(name.into(), tree.clone());
        }
    }

    fn table(&mut self, before: &Table, after: &Table, tree: &Tree) {
        let name = &before.name;
        if (&before.source, before.source_type) != (&after.source, after.source_type) {
            self.refused.push(format!(
                "table {name:?} is made of {:?} ({:?}) in one and of {:?} ({:?}) in the other",
                before.source.join("."),
                before.source_type,
                after.source.join("."),
                after.source_type
            ));
            return;
        }
        let Some(Tree::List(trees)) = tree.get("columns") else {
            return;
        };
        for (column, tree) in after.columns.iter().zip(trees) {
            let at = before
                .columns
                .iter()
                .position(|c| c.name.eq_ignore_ascii_case(&column.name));
            match at {
                Some(at) => self.column(name, at, &before.columns[at], column),
                None => self.add(name, column, tree),
            }
        }
    }

    fn column(&mut self, table: &str, at: usize, before: &Column, after: &Column) {
        let place = format!("column {:?} of table {table:?}", before.name);
        if before.from != after.from && before.from != From::Nothing {
            self.refused
                .push(format!("{place} comes from another place in the other"));
            return;
        }
        let (from, to) = (before.sql.of, after.sql.of);
        if from.widens_to(to) {
            self.notes.push(format!("{place} is widened to {to}"));
            let sql = widened(&before.sql_attr, to);
            if let Some(tree) = self
                .columns(table)
                .and_then(|c| c.get_mut(at)?.get_mut("sql_attr"))
            {
                *tree = Tree::text(sql);
            }
        } else if from != to && !to.widens_to(from) {
            self.refused
                .push(format!("{place} is {from} in one and {to} in the other"));
        }
    }

    fn add(&mut self, table: &str, column: &Column, tree: &Tree) {
        self.notes
            .push(format!("column {:?} is added to table {table:?}", column.name));
        if let Some(columns) = self.columns(table) {
            columns.push(tree.clone());
        }
    }

    fn columns(&mut self, table: &str) -> Option<&mut Vec<Tree>> {
        match self.tree.get_mut("tables")?.get_mut(table)?.get_mut("columns")? {
            Tree::List(columns) => Some(columns),
            _ => None,
        }
    }
}

/// The text of a column with another type.
fn widened(sql: &str, to: SqlType) -> String {
    let rest = SqlType::parse_prefix(sql).map_or("", |(_, rest)| rest);
    format!("{to} {rest}").trim_end().to_owned()
}
