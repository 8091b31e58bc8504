//! Tables over the lake that Redshift Spectrum reads where they lie.

use chrono::{Datelike, NaiveDate};
use millstream_engine::{Error, Result};

use super::columns::{Column, RUN_DATE};
use super::options::{External, Level};
use super::sql::{TableName, check_name, check_text, ident, text};
use super::stage::split;
use super::table::Target;
use crate::warehouse::types::{Dialect, SqlType};

/// A checked external table.
pub(super) struct ExternalTable {
    pub name: TableName,
    database: String,
    location: String,
    levels: Vec<Level>,
    iam_role: String,
}

impl ExternalTable {
    pub fn new(of: &External, target: &Target) -> Result<ExternalTable> {
        if target.dialect != Dialect::Redshift {
            return Err(Error::config(
                "external: only Redshift has external tables; take it away",
            ));
        }
        let Some(iam_role) = &target.iam_role else {
            return Err(Error::config(
                "external: Redshift reads the lake in a role; name it in iam_role",
            ));
        };
        split(&of.location).map_err(|e| e.within("external.location"))?;
        check_text("external.location", &of.location)?;
        let database = of.database.as_ref().unwrap_or(&of.schema);
        check_text("external.database", database)?;
        let table = match &of.table {
            Some(table) => table.clone(),
            None => format!("{}_spectrum", target.name.table),
        };
        Ok(ExternalTable {
            name: TableName {
                schema: check_name(&of.schema, target.dialect)?,
                table: check_name(&table, target.dialect)?,
            },
            database: database.clone(),
            location: of.location.trim_end_matches('/').into(),
            levels: of.partitions.clone(),
            iam_role: match iam_role.as_str() {
                "default" => "default".into(),
                arn => text(arn),
            },
        })
    }

    /// Asks whether it is there.
    pub fn exists(&self) -> String {
        format!(
            "SELECT tablename FROM svv_external_tables WHERE schemaname = {} AND tablename = {}",
            text(&self.name.schema),
            text(&self.name.table)
        )
    }

    /// Creates it and its schema. Its columns are those of the table that the files have: not the date of the run, nor
    /// what the partitions say.
    pub fn create(&self, columns: &[Column]) -> Result<Vec<String>> {
        let levels: Vec<(&str, &str)> = self.levels.iter().map(|level| level.column()).collect();
        let mut definitions = Vec::new();
        for column in columns {
            if column.name != RUN_DATE && levels.iter().all(|(name, _)| *name != column.name) {
                let of = match column.of()? {
                    SqlType::TimestampTz => SqlType::Timestamp,
                    SqlType::Super => SqlType::Varchar(crate::warehouse::types::VARCHAR_MAX),
                    other => other,
                };
                definitions.push(format!("{} {}", ident(&column.name), of.sql(Dialect::Redshift)));
            }
        }
        let mut table = format!("CREATE EXTERNAL TABLE {} ({})", self.name, definitions.join(", "));
        if !levels.is_empty() {
            let levels = levels.iter().map(|(name, of)| format!("{} {of}", ident(name)));
            table += &format!(" PARTITIONED BY ({})", levels.collect::<Vec<_>>().join(", "));
        }
        table += &format!(
            " STORED AS PARQUET LOCATION {}",
            text(&format!("{}/", self.location))
        );
        let schema = format!(
            "CREATE EXTERNAL SCHEMA IF NOT EXISTS {} FROM DATA CATALOG DATABASE {} IAM_ROLE {} CREATE EXTERNAL DATABASE \
             IF NOT EXISTS",
            ident(&self.name.schema),
            text(&self.database),
            self.iam_role
        );
        Ok(vec![schema, table])
    }

    /// Adds the partition of a date.
    pub fn add_partition(&self, date: NaiveDate) -> Option<String> {
        let values: Vec<(&str, String)> = self
            .levels
            .iter()
            .map(|level| (level.column().0, level.value(date)))
            .collect();
        if values.is_empty() {
            return None;
        }
        let spec = values
            .iter()
            .map(|(name, value)| format!("{} = {}", ident(name), text(value)));
        let path = values.iter().map(|(name, value)| format!("{name}={value}"));
        Some(format!(
            "ALTER TABLE {} ADD IF NOT EXISTS PARTITION ({}) LOCATION {}",
            self.name,
            spec.collect::<Vec<_>>().join(", "),
            text(&format!(
                "{}/{}/",
                self.location,
                path.collect::<Vec<_>>().join("/")
            ))
        ))
    }
}

impl Level {
    fn column(self) -> (&'static str, &'static str) {
        match self {
            Level::Year => ("year", "char(4)"),
            Level::Month => ("month", "char(2)"),
            Level::Day => ("day", "char(2)"),
            Level::Date => ("date", "date"),
        }
    }

    fn value(self, date: NaiveDate) -> String {
        match self {
            Level::Year => format!("{:04}", date.year()),
            Level::Month => format!("{:02}", date.month()),
            Level::Day => format!("{:02}", date.day()),
            Level::Date => date.to_string(),
        }
    }
}
