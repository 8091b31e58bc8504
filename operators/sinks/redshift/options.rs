//! The keys of a `redshift` sink.

use std::path::PathBuf;
use std::time::Duration;

use chrono::Weekday;
use millstream_engine::pipeline::Span;
use millstream_engine::secret::Secret;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::aws::AwsOptions;
use crate::warehouse::types::Dialect;

/// The keys of a `redshift` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct RedshiftOptions {
    /// The warehouse: `postgres://user@host:port/database`. Its password stands in `password`.
    #[serde(default)]
    pub url: Option<String>,
    /// The user's password. It is never printed.
    #[serde(default)]
    pub password: Option<Secret>,
    /// Whose SQL the warehouse speaks.
    #[serde(default)]
    pub dialect: Dialect,
    /// How the connection is encrypted. Absent: `verify-full`, but `prefer` to this very machine.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// A file with the certificates (PEM) that vouch for the warehouse. Absent: those of the system.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// Reach Redshift through its Data API instead of `url`, with AWS credentials and without a connection.
    #[serde(default)]
    pub data_api: Option<DataApi>,
    /// The namespace of the table and of the ledger.
    #[serde(default = "default_schema")]
    #[schemars(length(min = 1))]
    pub schema: String,
    /// Name of the table. Absent: the last part of the input's name.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub table: Option<String>,
    /// Where rows wait to be loaded: `s3://bucket/prefix`, in the region of the warehouse. May be absent with
    /// `dialect = "postgres"`: rows then wait in the data directory.
    #[serde(default)]
    pub staging: Option<String>,
    /// The role in which Redshift reads the staged files, `arn:aws:iam::…:role/…` or `default`.
    #[serde(default)]
    pub iam_role: Option<String>,
    /// What rows do to those in the table. Absent: `replace` in a dated run, else `append`.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// With `mode = "merge"`: the columns that together name a row.
    #[serde(default)]
    pub key: Vec<String>,
    /// The column by which a run's date is replaced and rows grow old. Absent: in dated runs a column `run_date` is added.
    #[serde(default)]
    pub date_column: Option<String>,
    /// By what a dated run tells its rows in the table `pipeline_errors`, which many pipelines share, from those of others:
    /// the column `run_pipeline` has it. Absent: the name of the pipeline.
    #[serde(default)]
    #[schemars(length(min = 1, max = 255))]
    pub owner: Option<String>,
    /// Width of a text column whose type says nothing of it, in bytes.
    #[serde(default = "default_varchar_bytes")]
    #[schemars(range(min = 1, max = 65535))]
    pub varchar_bytes: u32,
    /// The column by which Redshift spreads rows over its nodes.
    #[serde(default)]
    pub distkey: Option<String>,
    /// How Redshift spreads rows over its nodes where it is not by a column.
    #[serde(default)]
    pub diststyle: Option<Diststyle>,
    /// The columns by which Redshift keeps rows in order.
    #[serde(default)]
    pub sortkey: Vec<String>,
    /// Rows of this many days are kept, the newest date included. Absent: all.
    #[serde(default)]
    #[schemars(range(min = 1, max = 36500))]
    pub retention_days: Option<u32>,
    /// When the space of deleted rows is given back after a load, once a day at most. Absent: on Saturdays (UTC) with
    /// `retention_days`, else never.
    #[serde(default)]
    pub vacuum: Option<Vacuum>,
    /// Have the statistics of the table renewed after each load.
    #[serde(default = "yes")]
    pub analyze: bool,
    /// In a streaming pipeline: rows are loaded at the first checkpoint after this long.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// A table over the lake that Redshift Spectrum reads in place.
    #[serde(default)]
    pub external: Option<External>,
    /// Where requests to S3 go.
    #[serde(flatten)]
    pub aws: AwsOptions,
}

/// How a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tls {
    /// Not at all.
    Disable,
    /// If the warehouse can; nobody vouches for it.
    Prefer,
    /// Always; nobody vouches for the warehouse.
    Require,
    /// Always, and its certificate must be good for its host name.
    VerifyFull,
}

/// The Redshift Data API.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataApi {
    /// Name of a provisioned cluster; this or `workgroup`.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Name of a serverless workgroup.
    #[serde(default)]
    pub workgroup: Option<String>,
    /// The database.
    pub database: String,
    /// The user of a provisioned cluster, whose temporary credentials are asked for.
    #[serde(default)]
    pub user: Option<String>,
    /// A secret of AWS Secrets Manager that holds user and password.
    #[serde(default)]
    pub secret_arn: Option<String>,
    /// Address of a service that stands in for the Data API, `http://host:port`. Absent: from the environment, else AWS.
    #[serde(default)]
    pub endpoint: Option<String>,
}

/// What rows do to those in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They are added. In a dated run the date's rows are replaced all the same, or a run made again would add its rows
    /// twice.
    Append,
    /// They replace those of the run's date.
    Replace,
    /// Each replaces the row with the same `key`.
    Merge,
}

/// How Redshift spreads rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Diststyle {
    /// As Redshift thinks best.
    Auto,
    /// In turns.
    Even,
    /// By `distkey`.
    Key,
    /// Every row on every node.
    All,
}

/// When the space of deleted rows is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "days of the week")]
pub enum Vacuum {
    /// Left to Redshift, which does it when it is idle.
    Never,
    /// Every day.
    Daily,
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Vacuum {
    /// Whether it is for that day.
    pub fn is_on(self, day: Weekday) -> bool {
        match self {
            Vacuum::Never => false,
            Vacuum::Daily => true,
            Vacuum::Monday => day == Weekday::Mon,
            Vacuum::Tuesday => day == Weekday::Tue,
            Vacuum::Wednesday => day == Weekday::Wed,
            Vacuum::Thursday => day == Weekday::Thu,
            Vacuum::Friday => day == Weekday::Fri,
            Vacuum::Saturday => day == Weekday::Sat,
            Vacuum::Sunday => day == Weekday::Sun,
        }
    }
}

/// A table over the lake that Redshift Spectrum reads in place.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// The external schema; it is created if it does not exist.
    pub schema: String,
    /// The database of the Glue catalog that the schema shows. Absent: named as the schema.
    #[serde(default)]
    pub database: Option<String>,
    /// Name of the external table. Absent: that of the sink's table and `_spectrum`.
    #[serde(default)]
    pub table: Option<String>,
    /// Where its Parquet files lie: `s3://bucket/prefix`.
    pub location: String,
    /// Its Hive partitions, as a dated run fills them: of `year`, `month`, `day`, `date`.
    #[serde(default)]
    pub partitions: Vec<Level>,
}

/// A level of partitions that follows from a run's date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "parts of a date")]
pub enum Level {
    Year,
    Month,
    Day,
    /// `2026-11-24`.
    Date,
}

fn default_schema() -> String {
    "public".into()
}

fn default_varchar_bytes() -> u32 {
    crate::warehouse::types::VARCHAR_MAX
}

fn yes() -> bool {
    true
}

fn default_interval() -> Span {
    Span(Duration::from_secs(15 * 60))
}
