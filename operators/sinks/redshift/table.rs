//! Where rows go and what they do there: the checked form of the options, for one stream.

use chrono::NaiveDate;
use millstream_engine::sink::SinkContext;
use millstream_engine::source::ERRORS;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::columns::{Column, Columns, RUN_DATE, RUN_PIPELINE, Staged};
use super::options::{Diststyle, Mode, RedshiftOptions};
use super::sql::{TableName, check_name, check_text};
use crate::sinks::suggest;
use crate::warehouse::types::{Dialect, SORTKEY, SqlType, TABLE};

/// Name of the table that says what has been loaded.
pub(super) const LEDGER: &str = "millstream_ledger";

/// How Redshift lays the table out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Keys {
    pub distkey: Option<String>,
    pub diststyle: Option<Diststyle>,
    pub sortkey: Vec<String>,
}

/// Which rows of the table make way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Replace {
    /// None.
    Nothing,
    /// Those of the run's date.
    Date,
    /// Those with the key of a new row.
    Key(Vec<String>),
}

/// A sink's table.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub pipeline: String,
    pub sink: String,
    pub dialect: Dialect,
    pub name: TableName,
    pub keys: Keys,
    pub replace: Replace,
    /// The column of a row's date, where there is one.
    pub date_column: Option<String>,
    /// Other pipelines write to the table, too, as the bad rows of all logs are in one: a run replaces the rows of its
    /// date that are its owner's.
    pub shared: bool,
    /// Whose rows they are, in a shared table.
    pub owner: String,
    pub iam_role: Option<String>,
    pub retention_days: Option<u32>,
}

/// The run that a sink works for, where a pipeline has one per date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dated {
    pub date: NaiveDate,
    pub attempt: u32,
}

/// Rows that are loaded in one transaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Load {
    /// The date of a run; of a streaming pipeline the name of the sink's life.
    pub run: String,
    /// Which attempt at the date, or which load of that life.
    pub number: u64,
    /// Whether `run` is a date.
    pub dated: bool,
    pub columns: Vec<Column>,
    /// Where the list of the staged files is; none where there are no rows.
    pub manifest: Option<String>,
    pub rows: u64,
    /// Of everything above and of the files' contents.
    pub digest: String,
}

impl Load {
    /// The date that it replaces.
    pub fn date(&self) -> Option<NaiveDate> {
        self.run.parse().ok().filter(|_| self.dated)
    }
}

impl Target {
    /// Checks the options against the stream.
    pub fn new(cx: &SinkContext, options: &RedshiftOptions, dated: bool) -> Result<(Target, Vec<Column>)> {
        let Columns {
            columns,
            distkey,
            sortkey,
        } = Columns::of(cx, options)?;
        let dialect = options.dialect;
        let find = |key: &str, name: &str| column(cx, &columns, dialect, key, name);
        let keys = Keys {
            distkey: match &options.distkey {
                Some(name) => Some(find("distkey", name)?),
                None => distkey,
            },
            diststyle: options.diststyle,
            sortkey: sorted_by(cx, options, sortkey, &find)?,
        };
        check_style(&keys)?;
        let date_column = options.date_column.as_deref();
        let date_column = date_column.map(|name| find("date_column", name)).transpose()?;
        if let Some(name) = &date_column {
            check_date_column(&columns, name)?;
        }
        let replace = replaces(options, dated, &find)?;
        let of_errors = cx.input.ends_with(&format!(".{ERRORS}"));
        let shared = of_errors && replace == Replace::Date && date_column.is_none();
        if let Replace::Key(names) = &replace {
            for name in names {
                check_written(&columns, "key", name)?;
            }
        }
        let target = Target {
            pipeline: cx.pipeline.clone(),
            sink: cx.name.clone(),
            dialect,
            name: TableName {
                schema: check_name(&options.schema, dialect)?,
                table: check_name(table_name(cx, options), dialect)?,
            },
            keys,
            replace,
            date_column: date_column.clone().or(dated.then(|| RUN_DATE.into())),
            shared,
            owner: options.owner.clone().unwrap_or_else(|| cx.pipeline.clone()),
            iam_role: options.iam_role.clone(),
            retention_days: options.retention_days,
        };
        if target.retention_days.is_some() && target.date_column.is_none() {
            return Err(Error::config(
                "retention_days: rows of a streaming pipeline grow old by a column; name it in date_column",
            ));
        }
        for (key, of) in [
            ("the pipeline's name", &cx.pipeline),
            ("the sink's name", &cx.name),
            ("owner", &target.owner),
        ] {
            check_text(key, of)?;
        }
        let mut columns = columns;
        if dated && date_column.is_none() {
            if columns.iter().any(|c| c.name == RUN_DATE) {
                return Err(Error::config(format!(
                    "the stream has a column {RUN_DATE:?} of its own: name it in date_column, or rename it in a query"
                )));
            }
            columns.push(Column {
                name: RUN_DATE.into(),
                sql: "date".into(),
                noop: false,
            });
            columns.extend(shared.then(|| Column {
                name: RUN_PIPELINE.into(),
                sql: "varchar(255)".into(),
                noop: false,
            }));
        }
        Staged::new(&columns)?;
        Ok((target, columns))
    }

    /// The ledger.
    pub fn ledger(&self) -> TableName {
        TableName {
            schema: self.name.schema.clone(),
            table: LEDGER.into(),
        }
    }
}

fn table_name<'a>(cx: &'a SinkContext, options: &'a RedshiftOptions) -> &'a str {
    let last = || cx.input.rsplit('.').next().unwrap_or(&cx.input);
    let named = options.table.as_deref();
    let named = named.or_else(|| cx.schema.metadata().get(TABLE).map(String::as_str));
    named.unwrap_or_else(last)
}

/// The column that an option names.
fn column(cx: &SinkContext, columns: &[Column], dialect: Dialect, key: &str, name: &str) -> Result<String> {
    let folded = check_name(name, dialect)?;
    if columns.iter().any(|c| c.name == folded) {
        return Ok(folded);
    }
    Err(Error::config(format!(
        "{key}: stream {:?} has no column {name:?}; {}",
        cx.input,
        suggest(name, columns.iter().map(|c| c.name.as_str()))
    )))
}

fn sorted_by(
    cx: &SinkContext,
    options: &RedshiftOptions,
    marked: Vec<String>,
    find: &impl Fn(&str, &str) -> Result<String>,
) -> Result<Vec<String>> {
    if !options.sortkey.is_empty() {
        return options.sortkey.iter().map(|name| find("sortkey", name)).collect();
    }
    match cx.schema.metadata().get(SORTKEY) {
        Some(names) => {
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
            names.map(|name| find("sortkey", name)).collect()
        }
        None => Ok(marked),
    }
}

fn check_style(keys: &Keys) -> Result<()> {
    match (keys.diststyle, &keys.distkey) {
        (Some(Diststyle::Key), None) => Err(Error::config(
            "diststyle: key needs the column by which rows are spread; name it in distkey",
        )),
        (Some(Diststyle::Auto | Diststyle::Even | Diststyle::All), Some(column)) => {
            Err(Error::config(format!(
                "diststyle: rows are spread by column {column:?} already; write diststyle = \"key\", or take the distkey away"
            )))
        }
        _ => Ok(()),
    }
}

/// What goes by the values of a column needs one that is written.
fn check_written(columns: &[Column], key: &str, name: &str) -> Result<()> {
    match columns.iter().any(|c| c.name == name && c.noop) {
        true => Err(Error::config(format!(
            "{key}: column {name:?} is only declared (is_noop), so rows have no value in it; name another"
        ))),
        false => Ok(()),
    }
}

fn check_date_column(columns: &[Column], name: &str) -> Result<()> {
    check_written(columns, "date_column", name)?;
    let found = columns
        .iter()
        .find(|c| c.name == name)
        .map(Column::of)
        .transpose()?;
    match found {
        Some(SqlType::Date | SqlType::Timestamp | SqlType::TimestampTz) => Ok(()),
        of => Err(Error::config(format!(
            "date_column: column {name:?} is {}, neither a date nor a timestamp; cast it in a query",
            of.map(|of| of.to_string()).unwrap_or_default()
        ))),
    }
}

fn replaces(
    options: &RedshiftOptions,
    dated: bool,
    find: &impl Fn(&str, &str) -> Result<String>,
) -> Result<Replace> {
    if options.mode != Some(Mode::Merge) && !options.key.is_empty() {
        return Err(Error::config(
            "key: is for mode = \"merge\"; write that, too, or take the key away",
        ));
    }
    match options.mode {
        Some(Mode::Merge) if options.key.is_empty() => Err(Error::config(
            "mode: merge needs the columns that together name a row; name them in key",
        )),
        Some(Mode::Merge) => {
            let names = options.key.iter().map(|name| find("key", name));
            Ok(Replace::Key(names.collect::<Result<_>>()?))
        }
        _ if dated => Ok(Replace::Date),
        Some(Mode::Replace) => Err(Error::config(
            "mode: replace is for a pipeline with a [schedule], whose runs have a date; write append or merge",
        )),
        Some(Mode::Append) | None => Ok(Replace::Nothing),
    }
}
