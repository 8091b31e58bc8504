//! Reference tables: their columns, what their loader demands, and the rows that tests give them.

use std::sync::Arc;

use arrow::datatypes::Schema;

use super::check::{Checker, Section};
use super::columns;
use super::diagnostic::did_you_mean;
use super::tree::Node;
use crate::pipeline::TableSpec;
use crate::plan::TableNode;
use crate::table::{ReferenceTable, SharedTable};

/// Puts every table that is understood into the plan.
pub(super) fn read(checker: &mut Checker<'_>) {
    for Section { name, node, spec } in checker.sections::<TableSpec>("table") {
        if let Some(refresh) = spec.refresh {
            checker.positive(node, "refresh", refresh.0);
        }
        if node.get("columns").is_some_and(|c| c.node.is_whole()) && spec.columns.0.is_empty() {
            let help = "name those that queries use, such as `ad_id = \"string not null\"`";
            checker
                .problems
                .help(node.at_key("columns"), format!("`{name}` has no columns"), help);
        }
        let schema = Arc::new(Schema::new(columns::schema(&spec.columns.0)));
        let table = TableNode {
            name: name.into(),
            path: spec.path,
            format: spec.format,
            refresh: spec.refresh.map(|r| r.0),
            rows: SharedTable::new(schema),
            options: spec.options.into(),
        };
        let loader = checker.registry.tables.clone();
        let refused = match loader.filter(|_| node.is_whole()) {
            Some(loader) => loader.check(&table.context()).err(),
            None => None,
        };
        if let Some(error) = refused {
            checker.refused(node, &error);
        }
        checker.plan.tables.push(table);
    }
}

/// The tables as queries see them.
pub(super) fn known(checker: &Checker<'_>) -> Vec<ReferenceTable> {
    let table = |t: &TableNode| ReferenceTable {
        name: t.name.clone(),
        rows: t.rows.clone(),
    };
    checker.plan.tables.iter().map(table).collect()
}

/// The tables that a test gives rows to are there, with the columns it names.
pub(super) fn check_test(checker: &mut Checker<'_>, test: &Node) {
    for given in test.get("table").map_or(&[][..], |e| e.node.entries()) {
        let table = checker.plan.tables.iter().find(|t| t.name == given.key);
        match table.map(|t| t.rows.schema().clone()) {
            Some(schema) => checker.rows_of(&schema, given),
            // It was reported itself.
            None if checker.names.tables.contains(&given.key) => {}
            None => {
                let known = checker.names.tables.iter().map(String::as_str);
                let help = did_you_mean(&given.key, known, '`', "tables").unwrap_or_default();
                let message = format!("there is no table `{}`", given.key);
                checker.problems.help(&given.key_at, message, help);
            }
        }
    }
}
