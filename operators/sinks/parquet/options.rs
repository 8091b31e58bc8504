//! The keys of a `parquet` sink.

use std::time::Duration;

use millstream_engine::pipeline::{Bytes, Span};
use millstream_engine::{Error, Result};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{ROW_GROUP_BYTES, ROW_GROUP_ROWS};
use crate::aws::AwsOptions;

/// The keys of a `parquet` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct ParquetOptions {
    /// The lake: a local path, `file:///path` or `s3://bucket/prefix`.
    pub path: String,
    /// Directory levels: `year`, `month`, `day`, `hour` of the event time in UTC, or a column, which is then
    /// left out of the files. In a dated run year, month and day are those of its date, whatever the event time.
    #[serde(default = "default_partition_by")]
    pub partition_by: Vec<String>,
    /// How pages are compressed.
    #[serde(default)]
    pub compression: Codec,
    /// Level of zstd, 1 (fast) to 22 (small).
    #[serde(default = "default_compression_level")]
    #[schemars(range(min = 1, max = 22))]
    pub compression_level: i32,
    /// When a file is closed and published.
    #[serde(default)]
    pub roll: Roll,
    /// Memory for rows that are encoded but not yet in their files, over all files of the sink. Where rows arrive for
    /// many partitions at once, less makes smaller row groups.
    #[serde(default = "default_memory")]
    pub memory: Bytes,
    /// The data catalog that shows the lake as a table, for a lake in S3.
    #[serde(default)]
    pub catalog: Option<CatalogKind>,
    /// The catalog's database.
    #[serde(default)]
    pub database: Option<String>,
    /// Create the database if it does not exist.
    #[serde(default)]
    pub create_database: bool,
    /// Name of the table in the catalog; absent: the last part of `path`.
    #[serde(default)]
    pub table: Option<String>,
    /// Let Athena find partitions by computing their names instead of asking the catalog for them. For levels of time
    /// only.
    #[serde(default)]
    pub projection: bool,
    /// AWS region of the catalog. Absent: that of the bucket.
    #[serde(default)]
    pub catalog_region: Option<String>,
    /// Address of a service that stands in for the catalog, `http://host:port`. Absent: from the environment, else AWS.
    #[serde(default)]
    pub catalog_endpoint: Option<String>,
    /// Where requests go whose path is in S3.
    #[serde(flatten)]
    pub aws: AwsOptions,
}

/// A data catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CatalogKind {
    /// The AWS Glue Data Catalog, from which Athena, Redshift Spectrum and EMR read.
    Glue,
}

/// How pages of a Parquet file are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Zstandard: small, and quick to read.
    #[default]
    Zstd,
    /// Snappy: larger, for readers without Zstandard.
    Snappy,
    /// Not at all.
    None,
}

/// When a Parquet file is closed and published.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Roll {
    /// At this size.
    #[serde(default = "default_roll_size")]
    pub size: Bytes,
    /// At the first checkpoint after this long, in wall-clock time since the file was opened.
    #[serde(default = "default_roll_interval")]
    pub interval: Span,
}

impl Default for Roll {
    fn default() -> Roll {
        Roll {
            size: default_roll_size(),
            interval: default_roll_interval(),
        }
    }
}

fn default_partition_by() -> Vec<String> {
    ["year", "month", "day"].map(String::from).into()
}

/// Of one core that takes rows, level 3 was 40 %, the largest part of all. Ids are most of the bytes of such rows;
/// where no string repeats, what level 3 looks for is not there, and its files were 4 % larger than those of level 1.
fn default_compression_level() -> i32 {
    1
}

/// Sixteen files with full row groups, or a thousand with row groups of 250 KB.
fn default_memory() -> Bytes {
    Bytes(256_000_000)
}

fn default_roll_size() -> Bytes {
    Bytes(128_000_000)
}

fn default_roll_interval() -> Span {
    Span(Duration::from_secs(15 * 60))
}

impl ParquetOptions {
    /// Where requests to the catalog go: in the name of the role that the bucket's are made in.
    pub(super) fn catalog_aws(&self) -> AwsOptions {
        AwsOptions {
            region: self.catalog_region.clone().or_else(|| self.aws.region.clone()),
            endpoint: self.catalog_endpoint.clone(),
            ..self.aws.clone()
        }
    }

    /// Checks without side effects what the clients would refuse.
    pub(super) fn check_addresses(&self) -> Result<()> {
        self.aws.check()?;
        self.catalog_aws()
            .check()
            .map_err(|e| e.within("catalog_endpoint"))
    }

    /// How files are written.
    pub(super) fn properties(&self) -> Result<WriterProperties> {
        let compression = match self.compression {
            Codec::Zstd => Compression::ZSTD(ZstdLevel::try_new(self.compression_level).map_err(|_| {
                Error::config(format!(
                    "compression_level: {} is not in 1 to 22",
                    self.compression_level
                ))
            })?),
            Codec::Snappy => Compression::SNAPPY,
            Codec::None => Compression::UNCOMPRESSED,
        };
        Ok(WriterProperties::builder()
            .set_compression(compression)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .set_created_by(concat!("millstream version ", env!("CARGO_PKG_VERSION")).into())
            .build())
    }
}
