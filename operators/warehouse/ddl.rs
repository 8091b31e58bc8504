//! How a table is made: `CREATE TABLE ns.name("column" type …) DISTKEY(a) SORTKEY(a, b)`.
//!
//! Names are quoted where SQL needs it, columns always. Redshift folds quoted names to small letters unless told
//! otherwise, so two names that differ only in that are one.

use super::column::ColumnSql;
use super::types::Dialect;

/// The namespace that goes without saying.
pub const PUBLIC: &str = "public";

/// A table as it is, or as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSql {
    /// Its name, without namespace.
    pub name: String,
    /// In order.
    pub columns: Vec<(String, ColumnSql)>,
    /// What it is sorted by, in order.
    pub sortkey: Vec<String>,
}

impl TableSql {
    /// The statement that makes it, without a semicolon.
    pub fn create(&self, namespace: &str, dialect: Dialect) -> String {
        let columns = self.columns.iter();
        let columns = columns.map(|(name, column)| format!(" {} {}", quoted(name), column.sql(dialect)));
        let columns: Vec<String> = columns.collect();
        let mut sql = format!(
            "CREATE TABLE {}(\n{}\n)",
            qualified(namespace, &self.name),
            columns.join(",\n")
        );
        let distkey = self.columns.iter().find(|(_, column)| column.distkey);
        if let (Some((name, _)), Dialect::Redshift) = (distkey, dialect) {
            sql.push_str(&format!(" DISTKEY({})", identifier(name)));
        }
        if dialect == Dialect::Redshift && !self.sortkey.is_empty() {
            let keys: Vec<String> = self.sortkey.iter().map(|k| identifier(k)).collect();
            sql.push_str(&format!(" SORTKEY({})", keys.join(", ")));
        }
        sql
    }
}

/// A table's name behind its namespace, where that is not public.
pub fn qualified(namespace: &str, table: &str) -> String {
    match namespace.eq_ignore_ascii_case(PUBLIC) || namespace.is_empty() {
        true => identifier(table),
        false => format!("{}.{}", identifier(namespace), identifier(table)),
    }
}

/// A name in double quotes.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in single quotes.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name, quoted where it must be: it is a word of SQL, or has other characters than small letters, digits and `_`.
pub fn identifier(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    match starts && name.chars().all(plain) && !RESERVED.contains(&name) {
        true => name.into(),
        false => quoted(name),
    }
}

/// Words that Redshift or PostgreSQL reserve:
/// <https://docs.aws.amazon.com/redshift/latest/dg/r_pg_keywords.html>.
const RESERVED: &[&str] = &[
    "aes128",
    "aes256",
    "all",
    "allowoverwrite",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "az64",
    "backup",
    "between",
    "binary",
    "blanksasnull",
    "both",
    "bytedict",
    "bzip2",
    "case",
    "cast",
    "check",
    "collate",
    "column",
    "concurrently",
    "connect",
    "constraint",
    "create",
    "credentials",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "current_user_id",
    "default",
    "deferrable",
    "deflate",
    "defrag",
    "delta",
    "delta32k",
    "desc",
    "disable",
    "distinct",
    "do",
    "else",
    "emptyasnull",
    "enable",
    "encode",
    "encrypt",
    "encryption",
    "end",
    "except",
    "explicit",
    "false",
    "fetch",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "globaldict256",
    "globaldict64k",
    "grant",
    "group",
    "gzip",
    "having",
    "identity",
    "ignore",
    "ilike",
    "in",
    "initially",
    "inner",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "language",
    "lateral",
    "leading",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "lun",
    "luns",
    "lzo",
    "lzop",
    "minus",
    "mostly16",
    "mostly32",
    "mostly8",
    "natural",
    "new",
    "not",
    "notnull",
    "null",
    "nulls",
    "off",
    "offline",
    "offset",
    "oid",
    "old",
    "on",
    "only",
    "open",
    "or",
    "order",
    "outer",
    "overlaps",
    "parallel",
    "partition",
    "percent",
    "permissions",
    "pivot",
    "placing",
    "primary",
    "raw",
    "readratio",
    "recover",
    "references",
    "rejectlog",
    "resort",
    "respect",
    "restore",
    "returning",
    "right",
    "select",
    "session_user",
    "similar",
    "snapshot",
    "some",
    "symmetric",
    "sysdate",
    "system",
    "table",
    "tag",
    "tdes",
    "text255",
    "text32k",
    "then",
    "timestamp",
    "to",
    "top",
    "trailing",
    "true",
    "truncatecolumns",
    "union",
    "unique",
    "unnest",
    "unpivot",
    "user",
    "using",
    "variadic",
    "verbose",
    "wallet",
    "when",
    "where",
    "window",
    "with",
    "without",
];
