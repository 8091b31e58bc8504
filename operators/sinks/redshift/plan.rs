//! A load as SQL: the statements of its transaction, in order. Pure.
//!
//! The ledger is locked before anything is read, so that of two processes that make the same load the second one finds
//! the first one's row. Redshift takes the snapshot that a transaction sees at its first statement that is not a LOCK.
//!
//! COPY of Parquet goes by position: it fills the table itself where the table has just the staged columns, in their
//! order and types. Otherwise, and to merge, it fills a temporary table, from which rows are inserted by name.

use chrono::{DateTime, Days, NaiveDate, Utc};
use millstream_engine::{Error, Result};

use super::columns::{Column, ROW_NUMBER, RUN_PIPELINE, written};
use super::evolve::{Existing, changes};
use super::sql::{TableName, date, ident, idents, text, time};
use super::table::{Load, Replace, Target};
use crate::warehouse::types::{Dialect, SqlType};

/// The temporary table; a session sees only its own.
const STAGE: &str = "millstream_stage";

/// Ledger rows that are kept of one life of a streaming sink: far more than its checkpoints can be apart from it.
const LEDGER_ROWS: u64 = 1000;

/// In the ledger, instead of a run: the day of a table's last vacuum.
const VACUUM: &str = "vacuum";

/// A step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A statement.
    Run(String),
    /// The transaction ends here, with nothing done, if this query has a row.
    Unless(String),
    /// The staged rows go in by this `COPY … FROM STDIN`.
    CopyIn(String),
}

/// A load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// Statements ahead of the transaction.
    pub before: Vec<String>,
    /// The transaction.
    pub within: Vec<Step>,
}

impl Steps {
    fn run(&mut self, statement: String) {
        self.within.push(Step::Run(statement));
    }
}

/// Creates the ledger.
pub(super) fn create_ledger(target: &Target) -> String {
    let ledger = target.ledger();
    format!(
        "CREATE TABLE IF NOT EXISTS {ledger} (\"pipeline\" varchar(255) not null, \"sink\" varchar(255) not null, \
         \"table_name\" varchar(255) not null, \"run\" varchar(64) not null, \"number\" bigint not null, \
         \"digest\" varchar(64) not null, \"rows\" bigint not null, \"loaded_at\" timestamp not null)"
    )
}

/// Asks the ledger for the digest of a load: of a date's newest, of a stream's by number.
pub(super) fn digest_of(target: &Target, load: &Load) -> String {
    let number = match load.date() {
        Some(_) => format!(" AND \"digest\" = {}", text(&load.digest)),
        None => format!(" AND \"number\" = {}", load.number),
    };
    format!(
        "SELECT \"digest\" FROM {} WHERE {}{number}",
        target.ledger(),
        of_run(target, load)
    )
}

fn of_run(target: &Target, load: &Load) -> String {
    format!(
        "\"pipeline\" = {} AND \"sink\" = {} AND \"table_name\" = {} AND \"run\" = {}",
        text(&target.pipeline),
        text(&target.sink),
        text(&target.name.table),
        text(&load.run)
    )
}

/// The steps of a load into a table that has the `existing` columns.
pub(super) fn steps(
    target: &Target,
    load: &Load,
    existing: Option<&[Existing]>,
    now: DateTime<Utc>,
) -> Result<Steps> {
    let mut steps = Steps::default();
    let ledger = target.ledger();
    steps.run(match target.dialect {
        Dialect::Redshift => format!("LOCK {ledger}"),
        Dialect::Postgres => format!("LOCK TABLE {ledger} IN EXCLUSIVE MODE"),
    });
    steps.within.push(Step::Unless(digest_of(target, load)));
    let changes = changes(
        &target.name,
        target.dialect,
        &target.keys,
        existing,
        &load.columns,
    )?;
    steps.before = changes.before;
    changes.within.into_iter().for_each(|change| steps.run(change));
    if let Some(date) = load.date() {
        delete_date(&mut steps, target, date)?;
    }
    if load.manifest.is_some() {
        rows(&mut steps, target, load, existing)?;
    }
    if let Some(days) = target.retention_days {
        delete_old(&mut steps, target, load, days, now)?;
    }
    note(&mut steps, target, load, now);
    Ok(steps)
}

fn date_column(target: &Target) -> Result<String> {
    let name = target.date_column.as_deref();
    name.map(ident)
        .ok_or_else(|| Error::bug("a load by date into a table without one"))
}

fn delete_date(steps: &mut Steps, target: &Target, day: NaiveDate) -> Result<()> {
    let (table, column) = (&target.name, date_column(target)?);
    let next = day + Days::new(1);
    let (from, to) = (date(day), date(next));
    let own = own(target).map(|own| format!(" AND {own}")).unwrap_or_default();
    steps.run(format!(
        "DELETE FROM {table} WHERE {column} >= {from} AND {column} < {to}{own}"
    ));
    Ok(())
}

/// Which rows of a table that others write to are ours.
fn own(target: &Target) -> Option<String> {
    let own = || format!("{} = {}", ident(RUN_PIPELINE), text(&target.owner));
    target.shared.then(own)
}

/// Puts the staged rows into the table.
fn rows(steps: &mut Steps, target: &Target, load: &Load, existing: Option<&[Existing]>) -> Result<()> {
    let staged: Vec<&str> = written(&load.columns).map(|c| c.name.as_str()).collect();
    let table = &target.name;
    if let Replace::Key(key) = &target.replace {
        copy_to_stage(steps, target, load, true)?;
        delete_keys(steps, target, load, key)?;
        steps.run(insert_newest(target, load, key, &staged)?);
    } else if target.dialect == Dialect::Postgres {
        let copy = format!("COPY {table} ({}) FROM STDIN", idents(staged));
        steps.within.push(Step::CopyIn(copy));
        return Ok(());
    } else if is_positional(load, existing)? {
        steps.run(copy(&table.to_string(), target, load)?);
        return Ok(());
    } else {
        copy_to_stage(steps, target, load, false)?;
        let values = values(&load.columns, target.dialect)?;
        let columns = idents(staged);
        steps.run(format!(
            "INSERT INTO {table} ({columns}) SELECT {values} FROM {}",
            ident(STAGE)
        ));
    }
    steps.run(format!("DROP TABLE {}", ident(STAGE)));
    Ok(())
}

/// Whether the table will have just the staged columns, in their order and staged types.
fn is_positional(load: &Load, existing: Option<&[Existing]>) -> Result<bool> {
    for column in &load.columns {
        if column.noop || column.staged()? != column.of()? {
            return Ok(false);
        }
    }
    let Some(existing) = existing else {
        return Ok(true);
    };
    // New columns will stand at the end, in the order of the load.
    let has = existing.iter().map(|e| &e.name);
    let is_new = |c: &&Column| !existing.iter().any(|e| e.name == c.name);
    let will_have = has.chain(load.columns.iter().filter(is_new).map(|c| &c.name));
    Ok(will_have.eq(load.columns.iter().map(|c| &c.name)))
}

fn copy_to_stage(steps: &mut Steps, target: &Target, load: &Load, numbered: bool) -> Result<()> {
    let mut definitions = Vec::new();
    for column in written(&load.columns) {
        let of = match target.dialect {
            Dialect::Redshift => column.staged()?,
            Dialect::Postgres => column.of()?,
        };
        definitions.push(format!("{} {}", ident(&column.name), of.sql(target.dialect)));
    }
    if numbered {
        definitions.push(format!("{} bigint", ident(ROW_NUMBER)));
    }
    let stage = ident(STAGE);
    steps.run(format!(
        "CREATE TEMPORARY TABLE {stage} ({})",
        definitions.join(", ")
    ));
    match target.dialect {
        Dialect::Redshift => {
            let copy = copy(&stage, target, load)?;
            steps.run(copy);
        }
        Dialect::Postgres => steps
            .within
            .push(Step::CopyIn(format!("COPY {stage} FROM STDIN"))),
    }
    Ok(())
}

fn copy(into: &str, target: &Target, load: &Load) -> Result<String> {
    let manifest = load.manifest.as_deref().unwrap_or_default();
    let role = match target.iam_role.as_deref() {
        Some("default") => "default".into(),
        Some(arn) => text(arn),
        None => return Err(Error::bug("a COPY without a role")),
    };
    Ok(format!(
        "COPY {into} FROM {} IAM_ROLE {role} FORMAT AS PARQUET MANIFEST",
        text(manifest)
    ))
}

/// The staged values as those of the table's columns.
fn values(columns: &[Column], dialect: Dialect) -> Result<String> {
    let value = |column: &Column| {
        let name = ident(&column.name);
        Ok(match (column.of()?, dialect) {
            (SqlType::Super, Dialect::Redshift) => format!("JSON_PARSE({name})"),
            (SqlType::TimestampTz, Dialect::Redshift) => format!("{name} AT TIME ZONE 'UTC'"),
            _ => name,
        })
    };
    let values = written(columns).map(value).collect::<Result<Vec<String>>>()?;
    Ok(values.join(", "))
}

/// Rows make way for those of the same key; in a run of a date those of later dates do not.
fn delete_keys(steps: &mut Steps, target: &Target, load: &Load, key: &[String]) -> Result<()> {
    let (table, stage) = (&target.name, ident(STAGE));
    let held = ident(&table.table);
    let mut same = same_key(&held, &stage, key);
    if let Some(day) = load.date() {
        same += &format!(" AND {held}.{} < {}", date_column(target)?, date(day));
    }
    steps.run(format!("DELETE FROM {table} USING {stage} WHERE {same}"));
    Ok(())
}

fn insert_newest(target: &Target, load: &Load, key: &[String], staged: &[&str]) -> Result<String> {
    let (table, stage) = (&target.name, ident(STAGE));
    let columns = idents(staged.iter().copied());
    let values = values(&load.columns, target.dialect)?;
    let mut insert = format!(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM (SELECT {columns}, ROW_NUMBER() OVER (PARTITION BY {} \
         ORDER BY {} DESC) AS \"millstream_rank\" FROM {stage}) AS \"newest\" WHERE \"newest\".\"millstream_rank\" = 1",
        idents(key.iter().map(String::as_str)),
        ident(ROW_NUMBER),
    );
    if load.date().is_some() {
        let same = same_key("\"held\"", "\"newest\"", key);
        insert += &format!(" AND NOT EXISTS (SELECT 1 FROM {table} AS \"held\" WHERE {same})");
    }
    Ok(insert)
}

fn same_key(a: &str, b: &str, key: &[String]) -> String {
    let same = key.iter().map(|name| format!("{a}.{0} = {b}.{0}", ident(name)));
    same.collect::<Vec<_>>().join(" AND ")
}

/// Of N days the newest is one. A date's run goes by the newest date there is, so that loading an old date again does
/// not depend on when that is; a streaming pipeline goes by today, as one row from the future would delete all others.
fn delete_old(steps: &mut Steps, target: &Target, load: &Load, days: u32, now: DateTime<Utc>) -> Result<()> {
    let (table, column) = (&target.name, date_column(target)?);
    let before = days.saturating_sub(1);
    let oldest = match load.date() {
        Some(_) => {
            let own = own(target).map(|own| format!(" WHERE {own}")).unwrap_or_default();
            format!("(SELECT CAST(MAX({column}) AS date) - {before} FROM {table}{own})")
        }
        None => date(now.date_naive() - Days::new(before.into())),
    };
    let own = own(target).map(|own| format!(" AND {own}")).unwrap_or_default();
    steps.run(format!("DELETE FROM {table} WHERE {column} < {oldest}{own}"));
    Ok(())
}

fn note(steps: &mut Steps, target: &Target, load: &Load, now: DateTime<Utc>) {
    let (ledger, run) = (target.ledger(), of_run(target, load));
    match load.date() {
        Some(_) => steps.run(format!("DELETE FROM {ledger} WHERE {run}")),
        None if load.number > LEDGER_ROWS => {
            let oldest = load.number - LEDGER_ROWS;
            steps.run(format!(
                "DELETE FROM {ledger} WHERE {run} AND \"number\" < {oldest}"
            ));
        }
        None => {}
    }
    let of = (load.run.as_str(), load.number);
    steps.run(insert(target, of, &load.digest, load.rows, now));
}

/// A row of the ledger.
fn insert(target: &Target, of: (&str, u64), digest: &str, rows: u64, now: DateTime<Utc>) -> String {
    let (ledger, (run, number)) = (target.ledger(), of);
    format!(
        "INSERT INTO {ledger} (\"pipeline\", \"sink\", \"table_name\", \"run\", \"number\", \"digest\", \"rows\", \
         \"loaded_at\") VALUES ({}, {}, {}, {}, {number}, {}, {rows}, {})",
        text(&target.pipeline),
        text(&target.sink),
        text(&target.name.table),
        text(run),
        text(digest),
        time(now)
    )
}

/// Asks the ledger whether the table has been vacuumed on a day, after whosever load.
pub(super) fn vacuumed_on(target: &Target, now: DateTime<Utc>) -> String {
    format!(
        "SELECT \"digest\" FROM {} WHERE {} AND \"digest\" = {}",
        target.ledger(),
        of_vacuum(target),
        text(&now.date_naive().to_string())
    )
}

/// Notes in the ledger that the table has been vacuumed, instead of when it was before.
pub(super) fn note_vacuum(target: &Target, now: DateTime<Utc>) -> [String; 2] {
    let ledger = target.ledger();
    let day = now.date_naive().to_string();
    [
        format!("DELETE FROM {ledger} WHERE {}", of_vacuum(target)),
        insert(target, (VACUUM, 0), &day, 0, now),
    ]
}

fn of_vacuum(target: &Target) -> String {
    let table = text(&target.name.table);
    format!("\"table_name\" = {table} AND \"run\" = {}", text(VACUUM))
}

/// Gives the space of deleted rows back.
pub(super) fn vacuum(table: &TableName, dialect: Dialect) -> String {
    match dialect {
        Dialect::Redshift => format!("VACUUM DELETE ONLY {table}"),
        Dialect::Postgres => format!("VACUUM {table}"),
    }
}

/// Renews the table's statistics.
pub(super) fn analyze(table: &TableName) -> String {
    format!("ANALYZE {table}")
}
