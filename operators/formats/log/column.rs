//! The columns of a table, out of the YAML.

use millstream_engine::config::did_you_mean;

use super::read::{Fields, Found};
use super::schema::{Column, From, SourceType};
use super::tree::Tree;
use super::yaml::{At, Node, Value};
use crate::warehouse::column::ColumnSql;
use crate::warehouse::types::SqlType;

/// The derived columns there are.
pub(super) const SOURCE_FILENAME: &str = "__source_filename__";

/// The key that stands for the place in a list.
const INDEX: &str = "index";

const COLUMN_KEYS: &[&str] = &[
    "log_key",
    "sql_attr",
    "name",
    "is_foreign",
    "is_json",
    "is_mandatory",
    "is_derived",
    "is_noop",
];

/// What was read.
pub(super) struct Columns {
    pub columns: Vec<Column>,
    /// What is written of them: as they were read, without `sortkey`.
    pub trees: Vec<Tree>,
    /// Those that say `sortkey`.
    pub inline: Vec<(At, String)>,
}

/// Reads columns; nothing if one of them is wrong.
pub(super) fn read(
    found: &mut Found<'_>,
    node: &Node,
    table: &str,
    source_type: Option<SourceType>,
) -> Option<Columns> {
    let Value::List(items) = &node.value else {
        found.error(
            node.at,
            format!("columns of {table} are a list, not {}", node.kind()),
            None,
        );
        return None;
    };
    if items.is_empty() {
        found.error(node.at, format!("{table} has no columns"), None);
    }
    let mut all = Columns {
        columns: Vec::new(),
        trees: Vec::new(),
        inline: Vec::new(),
    };
    let mut distkeys = 0;
    for item in items {
        let Some(mut column) = one(found, item, table, source_type) else {
            continue;
        };
        if all
            .columns
            .iter()
            .any(|c| c.name.eq_ignore_ascii_case(&column.name))
        {
            let message = format!("column {:?} is there twice in {table}", column.name);
            let help = "give one of them another `name`; names differ in more than capitals";
            found.error(item.at, message, Some(help.into()));
        }
        distkeys += usize::from(column.sql.distkey);
        if column.sql.distkey && distkeys == 2 {
            let help = "a table is distributed by one column; take `distkey` away from the others";
            found.error(item.at, format!("{table} has two distkeys"), Some(help.into()));
        }
        let mut tree = Tree::from(item);
        if column.sql.sortkey {
            all.inline.push((item.at, column.name.clone()));
            column.sql_attr = without_sortkey(&column.sql_attr);
            column.sql.sortkey = false;
            if let Some(sql) = tree.get_mut("sql_attr") {
                *sql = Tree::text(column.sql_attr.as_str());
            }
        }
        all.trees.push(tree);
        all.columns.push(column);
    }
    (all.columns.len() == items.len()).then_some(all)
}

fn one(found: &mut Found<'_>, node: &Node, table: &str, source_type: Option<SourceType>) -> Option<Column> {
    let what = format!("a column of {table}");
    let fields = found.fields(node, COLUMN_KEYS, &what)?;
    let name = name(found, &fields, node.at, &what);
    let what = name
        .as_ref()
        .map_or(what, |name| format!("column {name:?} of {table}"));
    let mut flag = |key: &str| flag(found, &fields, key);
    let (is_json, is_mandatory) = (flag("is_json"), flag("is_mandatory"));
    let (is_foreign, is_derived, is_noop) = (flag("is_foreign"), flag("is_derived"), flag("is_noop"));
    let sql = sql(found, &fields, node.at, &what);
    let from = match (is_noop?, is_derived?) {
        (true, _) => Some(From::Nothing),
        (_, true) => derived(found, name.as_deref(), node.at, &what),
        _ => extracted(found, &fields, node.at, &what, is_foreign?, source_type),
    };
    let (sql_attr, sql) = sql?;
    if is_json? && !is_text(sql.of) {
        let help = "write a varchar, such as `sql_attr: varchar(65535)`";
        found.error(
            node.at,
            format!("{what} holds JSON, which {} does not", sql.of),
            Some(help.into()),
        );
        return None;
    }
    Some(Column {
        name: name?,
        is_json: is_json? || sql.of == SqlType::Super,
        sql_attr,
        sql,
        from: from?,
        is_mandatory: is_mandatory?,
    })
}

fn is_text(of: SqlType) -> bool {
    matches!(of, SqlType::Varchar(_) | SqlType::Char(_) | SqlType::Super)
}

/// `name`, or else `log_key`.
fn name(found: &mut Found<'_>, fields: &Fields<'_>, at: At, what: &str) -> Option<String> {
    let named = fields.get("name").filter(|n| !matches!(&n.value, Value::Null));
    let named = named.filter(|n| !matches!(&n.value, Value::Text(t) if t.is_empty()));
    match named.or(fields.get("log_key")) {
        Some(node) => {
            let name = found.text(node, "a name")?;
            found.name(node.at, &name, "column");
            Some(name)
        }
        None => {
            let help = "write `log_key:`, the path to its value, or `name:`";
            found.error(
                at,
                format!("{what} has neither log_key nor name"),
                Some(help.into()),
            );
            None
        }
    }
}

fn flag(found: &mut Found<'_>, fields: &Fields<'_>, key: &str) -> Option<bool> {
    match fields.get(key).map(|node| (node, &node.value)) {
        None | Some((_, Value::Null)) => Some(false),
        Some((_, Value::Bool(value))) => Some(*value),
        Some((node, _)) => {
            found.error(
                node.at,
                format!("{key} is true or false, not {}", node.kind()),
                None,
            );
            None
        }
    }
}

fn sql(found: &mut Found<'_>, fields: &Fields<'_>, at: At, what: &str) -> Option<(String, ColumnSql)> {
    let Some(node) = fields.get("sql_attr") else {
        let help = "write its type, such as `sql_attr: varchar(64)`";
        found.error(at, format!("{what} has no sql_attr"), Some(help.into()));
        return None;
    };
    let text = found.text(node, "sql_attr")?;
    match ColumnSql::parse(&text) {
        Ok(sql) => Some((text.trim().to_owned(), sql)),
        Err(e) => {
            found.error(node.at, format!("sql_attr {text:?}: {}", e.message), e.help);
            None
        }
    }
}

fn derived(found: &mut Found<'_>, name: Option<&str>, at: At, what: &str) -> Option<From> {
    match name? {
        SOURCE_FILENAME => Some(From::FileName),
        other => {
            let help = did_you_mean(other, [SOURCE_FILENAME], '`', "derived columns");
            found.error(at, format!("{what} is derived, but nobody derives it"), help);
            None
        }
    }
}

fn extracted(
    found: &mut Found<'_>,
    fields: &Fields<'_>,
    at: At,
    what: &str,
    is_foreign: bool,
    source_type: Option<SourceType>,
) -> Option<From> {
    let Some(node) = fields.get("log_key") else {
        // Without a name either, that was said already.
        if fields.get("name").is_some() {
            let help = "write `log_key:`, the path to its value, or one of is_derived and is_noop";
            found.error(at, format!("{what} has no log_key"), Some(help.into()));
        }
        return None;
    };
    let path = found.path(node, "log_key")?;
    let in_list = source_type.is_some_and(|t| t != SourceType::Dict);
    match (is_foreign, in_list && path.len() == 1 && path[0] == INDEX) {
        (true, _) => Some(From::Line(path)),
        (false, true) => Some(From::Index),
        (false, false) => Some(From::Row(path)),
    }
}

/// The text without the word `sortkey`, which is known to be in it.
fn without_sortkey(sql: &str) -> String {
    let lower = sql.to_ascii_lowercase();
    match lower.rfind("sortkey") {
        Some(at) => {
            let rest = sql[at + "sortkey".len()..].trim_start();
            format!("{} {rest}", sql[..at].trim_end()).trim_end().to_owned()
        }
        None => sql.to_owned(),
    }
}
