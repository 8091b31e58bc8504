//! The table that the catalog is to show: what it looks like from the options and the stream, and what becomes of a
//! table that is already there.

use std::collections::HashMap;

use arrow::datatypes::{Field, Schema};
use aws_sdk_glue::types::{Column, PartitionInput, SerDeInfo, StorageDescriptor, TableInput};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use percent_encoding::percent_decode_str;

use super::super::options::ParquetOptions;
use super::super::partition::NO_VALUE;
use super::super::store::Location;
use super::hive;

const INPUT_FORMAT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat";
const OUTPUT_FORMAT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat";
const SERDE: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";

/// Parameter of a projected table: its years, `2025,2026`.
const YEARS: &str = "projection.year.range";

/// The directory levels of time: the range of their values and how many digits a value has.
const TIME_LEVELS: [(&str, &str, u8); 4] = [
    ("year", "", 4),
    ("month", "1,12", 2),
    ("day", "1,31", 2),
    ("hour", "0,23", 2),
];

/// A directory level: its name and Hive type.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    name: String,
    hive: String,
}

/// The table as this sink needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Table {
    pub database: String,
    pub name: String,
    /// `s3://bucket/prefix/`.
    location: String,
    /// Names and Hive types.
    columns: Vec<(String, String)>,
    levels: Vec<Level>,
    projection: bool,
}

impl Table {
    /// None where the sink has no catalog. Checks everything that can be without asking the catalog.
    pub fn new(
        options: &ParquetOptions,
        location: &Location,
        files: &Schema,
        levels: &[(&str, Option<&Field>)],
    ) -> Result<Option<Table>> {
        if options.catalog.is_none() {
            return without_catalog(options);
        }
        let Location::S3 { bucket, prefix } = location else {
            return Err(Error::config(
                "catalog: readers of the Glue catalog need a lake in S3; write path = \"s3://bucket/prefix\"",
            ));
        };
        let database = options.database.clone().ok_or_else(|| {
            Error::config("catalog: the Glue catalog needs a database; write database = \"…\"")
        })?;
        let last = prefix
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .unwrap_or_default();
        let table = Table {
            database: named("database", &database)?,
            name: named("table", options.table.as_deref().unwrap_or(last))?,
            location: format!("s3://{bucket}/{prefix}"),
            columns: files.fields().iter().map(|f| column(f)).collect::<Result<_>>()?,
            levels: levels
                .iter()
                .map(|(name, column)| level(name, *column))
                .collect::<Result<_>>()?,
            projection: options.projection,
        };
        table.check()?;
        Ok(Some(table))
    }

    fn check(&self) -> Result<()> {
        let names = self.columns.iter().map(|(name, _)| name);
        let names: Vec<&String> = names.chain(self.levels.iter().map(|l| &l.name)).collect();
        if let Some(twice) = (1..names.len()).find(|i| names[..*i].contains(&names[*i])) {
            return Err(Error::config(format!(
                "catalog: two columns are {:?} in the Glue catalog, which knows small letters only; rename one in a query",
                names[twice]
            )));
        }
        let is_time = |level: &&Level| TIME_LEVELS.iter().any(|(name, ..)| level.name == *name);
        match self.levels.iter().find(|level| !is_time(level)) {
            Some(level) if self.projection => Err(Error::config(format!(
                "projection: the values of {:?} cannot be computed; leave it out of partition_by, or projection out",
                level.name
            ))),
            _ => Ok(()),
        }
    }

    /// The table as it is created, with the years of `directories`.
    pub fn input(&self, directories: &[&str]) -> Result<TableInput> {
        let mut parameters = HashMap::from([
            ("EXTERNAL".into(), "TRUE".into()),
            ("classification".into(), "parquet".into()),
        ]);
        parameters.extend(self.projection_parameters());
        self.widen_years(&mut parameters, directories);
        let keys: Result<Vec<Column>> = self
            .levels
            .iter()
            .map(|l| glue_column(&l.name, &l.hive))
            .collect();
        TableInput::builder()
            .name(&self.name)
            .table_type("EXTERNAL_TABLE")
            .set_parameters(Some(parameters))
            .set_partition_keys(Some(keys?))
            .storage_descriptor(self.storage(self.glue_columns()?, self.location.clone()))
            .build()
            .map_err(incomplete)
    }

    /// What the table that is there must become; none if it is right as it is. What this sink does not know about it
    /// stays.
    pub fn update(
        &self,
        found: &aws_sdk_glue::types::Table,
        directories: &[&str],
    ) -> Result<Option<TableInput>> {
        let storage = found
            .storage_descriptor()
            .ok_or_else(|| self.not_ours("has no files"))?;
        self.check_found(found, storage)?;
        let columns = self.merged(storage.columns())?;
        let mut parameters = found.parameters.clone().unwrap_or_default();
        for (name, value) in self.projection_parameters() {
            parameters.insert(name, value);
        }
        if !self.projection && parameters.contains_key("projection.enabled") {
            parameters.insert("projection.enabled".into(), "false".into());
        }
        self.widen_years(&mut parameters, directories);
        if columns == storage.columns() && Some(&parameters) == found.parameters.as_ref() {
            return Ok(None);
        }
        let mut storage = storage.clone();
        storage.columns = Some(columns);
        TableInput::builder()
            .name(&self.name)
            .set_description(found.description.clone().filter(|text| !text.is_empty()))
            .set_owner(found.owner.clone().filter(|text| !text.is_empty()))
            .retention(found.retention)
            .set_table_type(found.table_type.clone())
            .set_parameters(Some(parameters))
            .set_partition_keys(found.partition_keys.clone())
            .storage_descriptor(storage)
            .build()
            .map(Some)
            .map_err(incomplete)
    }

    /// The partition of a directory of the lake, such as `year=2026/month=11`.
    pub fn partition(&self, directory: &str) -> Result<PartitionInput> {
        let value = |part: &str| {
            let (_, value) = part.split_once('=')?;
            Some(percent_decode_str(value).decode_utf8().ok()?.into_owned())
        };
        let values: Option<Vec<String>> = directory.split('/').map(value).collect();
        let values = values.filter(|values| values.len() == self.levels.len());
        let values =
            values.ok_or_else(|| Error::bug(format!("{directory:?} is no directory of partitions")))?;
        let location = format!("{}{directory}/", self.location);
        Ok(PartitionInput::builder()
            .set_values(Some(values))
            .storage_descriptor(self.storage(self.glue_columns()?, location))
            .build())
    }

    /// Whether the table has partitions at all.
    pub fn is_partitioned(&self) -> bool {
        !self.levels.is_empty()
    }

    /// The year of a directory, where the table's projection must know it.
    pub fn year(&self, directory: &str) -> Option<i32> {
        if !self.projection {
            return None;
        }
        let year = directory.split('/').find_map(|part| part.strip_prefix("year="))?;
        match year {
            NO_VALUE => None,
            year => year.parse().ok(),
        }
    }

    fn merged(&self, found: &[Column]) -> Result<Vec<Column>> {
        let mut columns = found.to_vec();
        for (name, new) in &self.columns {
            let Some(column) = columns.iter_mut().find(|c| c.name.eq_ignore_ascii_case(name)) else {
                columns.push(glue_column(name, new)?);
                continue;
            };
            let old = column.r#type.clone().unwrap_or_default();
            let common = hive::common(&old, new).ok_or_else(|| {
                Error::config(format!(
                    "catalog: column {name:?} of table {} is {old}, and would be {new}, as which its older files cannot \
                     be read; cast it in a query, give it another name, or write another path and table",
                    self.shown()
                ))
            })?;
            column.r#type = Some(common);
        }
        Ok(columns)
    }

    fn check_found(&self, found: &aws_sdk_glue::types::Table, storage: &StorageDescriptor) -> Result<()> {
        let serde = storage
            .serde_info()
            .and_then(|serde| serde.serialization_library());
        if serde != Some(SERDE) {
            return Err(self.not_ours("is not made of Parquet files"));
        }
        let there = storage.location().unwrap_or_default();
        if there.trim_end_matches('/') != self.location.trim_end_matches('/') {
            return Err(self.not_ours(&format!("lies in {there}, not in {}", self.location)));
        }
        let keys = found.partition_keys().iter().map(|key| Level {
            name: key.name.clone(),
            hive: key.r#type.clone().unwrap_or_default(),
        });
        let keys: Vec<Level> = keys.collect();
        if keys != self.levels {
            let why = format!(
                "is partitioned by {}, not by {}",
                shown(&keys),
                shown(&self.levels)
            );
            return Err(self.not_ours(&why));
        }
        Ok(())
    }

    fn not_ours(&self, why: &str) -> Error {
        Error::config(format!(
            "catalog: table {} {why}; write another table, or remove that one from the catalog",
            self.shown()
        ))
    }

    /// For messages.
    pub fn shown(&self) -> String {
        format!("{}.{}", self.database, self.name)
    }

    /// Such that Athena computes the partitions. Its years are those that hold rows.
    fn projection_parameters(&self) -> HashMap<String, String> {
        let mut parameters = HashMap::new();
        if !self.projection || self.levels.is_empty() {
            return parameters;
        }
        let mut template = self.location.clone();
        let mut set = |name: String, value: &str| parameters.insert(name, value.into());
        set("projection.enabled".into(), "true");
        for Level { name, .. } in &self.levels {
            template += &format!("{name}=${{{name}}}/");
            let Some((_, range, digits)) = TIME_LEVELS.iter().find(|(known, ..)| known == name) else {
                continue;
            };
            set(format!("projection.{name}.type"), "integer");
            set(format!("projection.{name}.digits"), &digits.to_string());
            if !range.is_empty() {
                set(format!("projection.{name}.range"), range);
            }
        }
        set("storage.location.template".into(), &template);
        parameters
    }

    /// Lets the years of a projected table span those of `directories`.
    fn widen_years(&self, parameters: &mut HashMap<String, String>, directories: &[&str]) {
        if !self.projection || !self.levels.iter().any(|level| level.name == "year") {
            return;
        }
        let known = parameters.get(YEARS).and_then(|range| years(range));
        let of_rows = directories.iter().filter_map(|directory| self.year(directory));
        let mut all: Vec<i32> = known
            .into_iter()
            .flat_map(|(first, last)| [first, last])
            .chain(of_rows)
            .collect();
        if all.is_empty() {
            all.push(this_year());
        }
        let (first, last) = (all.iter().min(), all.iter().max());
        if let (Some(first), Some(last)) = (first, last) {
            parameters.insert(YEARS.into(), format!("{first},{last}"));
        }
    }

    fn glue_columns(&self) -> Result<Vec<Column>> {
        self.columns
            .iter()
            .map(|(name, hive)| glue_column(name, hive))
            .collect()
    }

    fn storage(&self, columns: Vec<Column>, location: String) -> StorageDescriptor {
        let serde = SerDeInfo::builder()
            .serialization_library(SERDE)
            .parameters("serialization.format", "1")
            .build();
        StorageDescriptor::builder()
            .set_columns(Some(columns))
            .location(location)
            .input_format(INPUT_FORMAT)
            .output_format(OUTPUT_FORMAT)
            .serde_info(serde)
            .build()
    }
}

fn without_catalog(options: &ParquetOptions) -> Result<Option<Table>> {
    let given = [
        ("database", options.database.is_some()),
        ("create_database", options.create_database),
        ("table", options.table.is_some()),
        ("projection", options.projection),
        ("catalog_region", options.catalog_region.is_some()),
        ("catalog_endpoint", options.catalog_endpoint.is_some()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((key, _)) => Err(Error::config(format!(
            "{key}: of use with catalog = \"glue\" only; add that, or leave {key} out"
        ))),
        None => Ok(None),
    }
}

/// A name that all readers of the catalog take.
fn named(key: &str, name: &str) -> Result<String> {
    // A database that is there may have a hyphen in its name, which queries must quote.
    let others = if key == "database" { "_-" } else { "_" };
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || others.contains(c);
    if name.is_empty() || name.len() > 255 || !name.chars().all(fits) {
        return Err(Error::config(format!(
            "{key}: {name:?} cannot be a name in the Glue catalog; write {key} = \"…\" with small letters, digits and _"
        )));
    }
    Ok(name.into())
}

fn column(field: &Field) -> Result<(String, String)> {
    let name = field.name().to_lowercase();
    match hive::type_of(field.data_type()) {
        Ok(hive) => Ok((name, hive)),
        Err(of) => Err(Error::config(format!(
            "catalog: column {:?} holds {of}, which readers of the Glue catalog do not know; cast it in a query, \
             an integer to BIGINT",
            field.name()
        ))),
    }
}

fn level(name: &str, of: Option<&Field>) -> Result<Level> {
    let (name, hive) = match of {
        // As text, values are what stands in the directory names, and sort as times do.
        None => (name.into(), "string".into()),
        Some(field) => column(field)?,
    };
    Ok(Level { name, hive })
}

fn glue_column(name: &str, hive: &str) -> Result<Column> {
    Column::builder()
        .name(name)
        .r#type(hive)
        .build()
        .map_err(incomplete)
}

fn incomplete(e: impl std::fmt::Display) -> Error {
    Error::bug(format!("an incomplete Glue table: {e}"))
}

fn years(range: &str) -> Option<(i32, i32)> {
    let (first, last) = range.split_once(',')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

fn this_year() -> i32 {
    use chrono::Datelike;
    chrono::DateTime::from_timestamp_micros(Timestamp::now().0).map_or(1970, |now| now.year())
}

/// `year (string), month (string)`.
fn shown(levels: &[Level]) -> String {
    let levels: Vec<String> = levels
        .iter()
        .map(|l| format!("{} ({})", l.name, l.hive))
        .collect();
    match levels.is_empty() {
        true => "nothing".into(),
        false => levels.join(", "),
    }
}

#[cfg(test)]
mod tests;
