//! Everything pluggable: formats, the ingest log, sources, reference tables, dedup, windows, SQL and sinks.

pub mod aws;
pub mod checkpoint_s3;
pub mod client;
pub mod dedup;
pub mod formats;
pub mod log;
pub mod query;
pub mod sinks;
pub mod sources;
pub mod sql;
pub mod tables;
pub mod warehouse;
pub mod window;

use std::path::PathBuf;
use std::sync::Arc;

use millstream_engine::registry::Registry;

use crate::sources::http::{HttpConnector, Ingest};

/// Process-wide objects that connectors share.
#[derive(Clone, Default)]
pub struct Environment {
    /// The HTTP listener; none where nothing runs.
    pub ingest: Option<Arc<Ingest>>,
    /// The serving store of the process; none where nothing runs.
    pub serving: Option<PathBuf>,
}

/// The one list of what ships.
pub fn registry(env: Environment) -> Registry {
    let http = env.ingest.map_or_else(HttpConnector::unbound, HttpConnector::new);
    Registry::new(Arc::new(sql::DataFusionPlanner::new()))
        .source(http)
        .tables(tables::FileTables)
        .source(sources::generate::GenerateConnector)
        .source(sources::kinesis::KinesisConnector::default())
        .source(sources::objects::FileConnector)
        .source(sources::objects::S3Connector)
        .sink(sinks::cloudwatch::CloudwatchConnector)
        .sink(sinks::console::ConsoleConnector)
        .sink(sinks::dynamodb::DynamodbConnector)
        .sink(sinks::firehose::FirehoseConnector)
        .sink(sinks::http::HttpSinkConnector)
        .sink(sinks::kinesis::KinesisSinkConnector)
        .sink(sinks::parquet::ParquetConnector)
        .sink(sinks::redshift::RedshiftConnector)
        .sink(sinks::sqlite::SqliteConnector {
            default_path: env.serving,
        })
}
