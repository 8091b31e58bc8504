//! The lake as a table of the AWS Glue Data Catalog, so that Athena, Redshift Spectrum and EMR read it without a
//! crawler.
//!
//! The table is created, or given the columns it lacks, when the sink opens; a partition is registered at the commit
//! that publishes its first file, right after it. Both can be repeated: a commit that is made again after a crash finds
//! what it made. Which partitions are registered is remembered, so most commits ask the catalog nothing.
//!
//! Several sinks may write to one table. A change of the table names the version it started from, and is made again
//! from the newer one where somebody was faster.
//!
//! How it fails: a table of other files, partitions or types is an error of configuration. A catalog that is away keeps
//! the commit from ending; the files are in the lake by then, and the commit is tried again.

use std::collections::{BTreeSet, HashSet};

use aws_sdk_glue::Client;
use aws_sdk_glue::types::{DatabaseInput, ErrorDetail};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use millstream_engine::{Error, Result};

pub(super) use self::table::Table;
use super::options::ParquetOptions;
use crate::aws;

mod hive;
mod table;

/// Partitions of one request: the limit of BatchCreatePartition.
const REQUEST_PARTITIONS: usize = 100;

/// Partitions that are remembered, a year of hours; above that they are forgotten, which costs asking again.
const KNOWN_PARTITIONS: usize = 10_000;

/// How often a change of the table is tried against others before the runtime waits.
const CHANGES: usize = 5;

/// What passes by itself, beyond what AWS services have in common.
const RETRY: [&str; 5] = [
    "ConcurrentModificationException",
    "FederationSourceRetryableException",
    "InternalServiceException",
    "OperationTimeoutException",
    "ResourceNotReadyException",
];

/// The table of one sink in the catalog.
pub(super) struct Catalog {
    client: Client,
    table: Table,
    create_database: bool,
    /// Whether the table is there as it must be.
    ready: bool,
    /// Directories whose partitions are registered.
    known: HashSet<String>,
    /// Of a projected table: the years that its projection spans, as far as they came up.
    years: HashSet<i32>,
}

impl Catalog {
    /// Opens the catalog and sees to the table. A catalog that is away is asked again at the first commit.
    pub async fn open(options: &ParquetOptions, table: Table) -> Result<Catalog> {
        let client = aws::glue(&options.catalog_aws()).await?;
        let mut catalog = Catalog {
            client,
            table,
            create_database: options.create_database,
            ready: false,
            known: HashSet::new(),
            years: HashSet::new(),
        };
        match catalog.see_to_table(&[]).await {
            Err(error @ Error::Retry { .. }) => {
                tracing::warn!(%error, "the catalog is asked again at the first commit");
            }
            done => done?,
        }
        Ok(catalog)
    }

    /// Registers the partitions of directories that got files; how many are new.
    pub async fn register(&mut self, directories: &BTreeSet<String>) -> Result<u64> {
        let new: Vec<&str> = directories
            .iter()
            .map(String::as_str)
            .filter(|directory| !self.known.contains(*directory))
            .collect();
        let is_new_year = |d: &&str| self.table.year(d).is_some_and(|year| !self.years.contains(&year));
        if !self.ready || new.iter().any(is_new_year) {
            self.see_to_table(&new).await?;
        }
        if !self.table.is_partitioned() {
            return Ok(0);
        }
        let mut made = 0;
        for some in new.chunks(REQUEST_PARTITIONS) {
            made += self.create_partitions(some).await?;
            if self.known.len() + some.len() > KNOWN_PARTITIONS {
                self.known.clear();
            }
            self.known.extend(some.iter().map(|d| d.to_string()));
        }
        Ok(made)
    }

    /// Creates the table, or gives it what it lacks to show files in `directories`.
    async fn see_to_table(&mut self, directories: &[&str]) -> Result<()> {
        for _ in 0..CHANGES {
            if self.try_table(directories).await? {
                self.ready = true;
                self.years
                    .extend(directories.iter().filter_map(|d| self.table.year(d)));
                return Ok(());
            }
        }
        Err(Error::retry(format!(
            "{}: others change it all the time",
            self.place()
        )))
    }

    /// False if somebody else was faster.
    async fn try_table(&self, directories: &[&str]) -> Result<bool> {
        let Some(found) = self.get().await? else {
            return self.create(directories).await;
        };
        let Some(input) = self.table.update(&found, directories)? else {
            return Ok(true);
        };
        let update = self
            .client
            .update_table()
            .database_name(&self.table.database)
            .set_version_id(found.version_id)
            .table_input(input);
        match update.send().await {
            Ok(_) => {
                tracing::info!(
                    table = self.table.shown(),
                    "changed a table of the catalog to show what the sink writes"
                );
                Ok(true)
            }
            Err(e) if is(&e, "ConcurrentModificationException") => Ok(false),
            Err(e) => Err(self.classify(e, "changing")),
        }
    }

    async fn get(&self) -> Result<Option<aws_sdk_glue::types::Table>> {
        let get = self
            .client
            .get_table()
            .database_name(&self.table.database)
            .name(&self.table.name);
        match get.send().await {
            Ok(found) => Ok(found.table),
            // The table, or its database.
            Err(e) if is(&e, "EntityNotFoundException") => Ok(None),
            Err(e) => Err(self.classify(e, "reading")),
        }
    }

    async fn create(&self, directories: &[&str]) -> Result<bool> {
        let create = self
            .client
            .create_table()
            .database_name(&self.table.database)
            .table_input(self.table.input(directories)?);
        match create.send().await {
            Ok(_) => {
                tracing::info!(table = self.table.shown(), "created a table in the catalog");
                Ok(true)
            }
            Err(e) if is(&e, "AlreadyExistsException") => Ok(false),
            Err(e) if is(&e, "EntityNotFoundException") => {
                self.create_database().await?;
                Ok(false)
            }
            Err(e) => Err(self.classify(e, "creating")),
        }
    }

    async fn create_database(&self) -> Result<()> {
        let database = &self.table.database;
        if !self.create_database {
            return Err(Error::config(format!(
                "database: there is no Glue database {database:?} in this region; create it, or write create_database = \
                 true"
            )));
        }
        let input = DatabaseInput::builder().name(database).build();
        let input = input.map_err(|e| Error::bug(format!("an incomplete Glue database: {e}")))?;
        match self.client.create_database().database_input(input).send().await {
            Err(e) if !is(&e, "AlreadyExistsException") => Err(self.classify(e, "creating the database of")),
            _ => Ok(()),
        }
    }

    async fn create_partitions(&self, directories: &[&str]) -> Result<u64> {
        let inputs: Result<Vec<_>> = directories.iter().map(|d| self.table.partition(d)).collect();
        let create = self
            .client
            .batch_create_partition()
            .database_name(&self.table.database)
            .table_name(&self.table.name)
            .set_partition_input_list(Some(inputs?));
        let answer = create.send().await;
        let answer = answer.map_err(|e| self.classify(e, "registering partitions of"))?;
        let mut made = directories.len() as u64;
        for failed in answer.errors() {
            let detail = failed.error_detail();
            if detail.and_then(ErrorDetail::error_code) != Some("AlreadyExistsException") {
                return Err(self.not_registered(failed.partition_values(), detail));
            }
            made -= 1;
        }
        Ok(made)
    }

    fn not_registered(&self, values: &[String], detail: Option<&ErrorDetail>) -> Error {
        let code = detail.and_then(ErrorDetail::error_code).unwrap_or_default();
        let said = detail.and_then(ErrorDetail::error_message).unwrap_or_default();
        let message = format!(
            "registering partition {} of {}: {code}: {said}",
            values.join("/"),
            self.place()
        );
        match RETRY.contains(&code) {
            true => Error::retry(message),
            false => Error::config(message),
        }
    }

    fn classify<E>(&self, e: SdkError<E, HttpResponse>, doing: &str) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let passes = e.code().is_some_and(|code| RETRY.contains(&code));
        let error = aws::classify(e, format!("{doing} {}", self.place()));
        match passes {
            true => Error::retry(error.to_string()),
            false => error,
        }
    }

    fn place(&self) -> String {
        format!("Glue table {}", self.table.shown())
    }
}

fn is<E: ProvideErrorMetadata>(e: &SdkError<E, HttpResponse>, code: &str) -> bool {
    e.code() == Some(code)
}
