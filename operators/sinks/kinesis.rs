//! The `kinesis` sink: each row a JSON object in a record of a Kinesis data stream.
//!
//! At least once, see `puts`. With `partition_key` the rows of a key keep their order: each comes into the stream only
//! after all earlier ones have; a row that comes twice comes again after later ones, too.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use millstream_engine::sink::{Sink, SinkConnector, SinkContext};
use millstream_engine::source::options;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::only_streams;
use super::puts::{
    Limits, Put, Queueing, Record, Service, StreamSink, check_rows_per_record, key_column, one,
};
use crate::aws::{self, AwsOptions};

/// `type = "kinesis"`.
pub struct KinesisSinkConnector;

/// The keys of a `kinesis` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct KinesisSinkOptions {
    /// Name or ARN of the data stream.
    #[schemars(length(min = 1))]
    pub stream: String,
    /// The column whose value chooses the shard. Rows without a value are spread evenly, like all of them where this is
    /// absent.
    #[serde(default)]
    pub partition_key: Option<String>,
    /// Rows of a record at most, one per line, all of one key where there is a `partition_key`. More than one is for
    /// consumers that take JSON lines.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub rows_per_record: usize,
    /// Whether rows of one key keep their order. Of each key one record is on its way at a time then, which is a few
    /// dozen a second; `false`, or more `rows_per_record`, lets a key take more.
    #[serde(default = "yes")]
    pub ordered: bool,
    /// Where its requests go.
    #[serde(flatten)]
    pub aws: AwsOptions,
}

fn yes() -> bool {
    true
}

#[async_trait]
impl SinkConnector for KinesisSinkConnector {
    fn name(&self) -> &'static str {
        "kinesis"
    }

    fn identity(&self) -> &'static [&'static str] {
        &["stream", "region", "endpoint"]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(KinesisSinkOptions)
    }

    fn check(&self, cx: &SinkContext) -> Result<()> {
        only_streams(cx, "kinesis", "appends to its stream")?;
        let typed: KinesisSinkOptions = options(&cx.options)?;
        typed.aws.check()?;
        check_rows_per_record(typed.rows_per_record)?;
        key_column(cx, typed.partition_key.as_deref()).map(drop)
    }

    /// Those that no record holds.
    fn rejects(&self) -> bool {
        true
    }

    /// Whoever reads the stream sees the rows' `revision`.
    fn takes_revisions(&self) -> bool {
        true
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>> {
        self.check(&cx)?;
        let typed: KinesisSinkOptions = options(&cx.options)?;
        let key = key_column(&cx, typed.partition_key.as_deref())?;
        let client = aws::kinesis(&typed.aws).await?;
        let service = Kinesis {
            client,
            stream: typed.stream,
            // Anything that another life did not begin with.
            spread: AtomicU64::new(Timestamp::now().0 as u64),
        };
        let queueing = Queueing {
            rows_per_record: typed.rows_per_record,
            ordered: typed.ordered,
        };
        Ok(Box::new(StreamSink::new(&cx, service, key, queueing)))
    }
}

struct Kinesis {
    client: Client,
    stream: String,
    /// Makes the keys of records without one: Kinesis spreads by a hash, so any different ones do.
    spread: AtomicU64,
}

#[async_trait]
impl Service for Kinesis {
    /// Of `PutRecords`; a stream may be set to take records of up to 10 MiB, which is not made use of.
    const LIMITS: Limits = Limits {
        records: 500,
        put_bytes: 5 << 20,
        record_bytes: 1 << 20,
        made_key_bytes: 16,
        ends_lines: false,
    };

    fn place(&self) -> String {
        format!("stream {:?}", self.stream)
    }

    async fn put(&self, put: &Put) -> Result<Vec<Option<String>>> {
        let entries = put.iter().map(|record| self.entry(record));
        let request = self
            .client
            .put_records()
            .set_records(Some(entries.collect::<Result<_>>()?));
        let request = match self.stream.starts_with("arn:") {
            true => request.stream_arn(&self.stream),
            false => request.stream_name(&self.stream),
        };
        let answer = request.send().await;
        let answer =
            answer.map_err(|e| aws::classify(e, format!("putting records into {}", self.place())))?;
        let refused = answer.records.into_iter().map(|record| record.error_code);
        Ok(refused.collect())
    }
}

impl Kinesis {
    fn entry(&self, record: &Record) -> Result<PutRecordsRequestEntry> {
        let key = match &record.key {
            Some(key) => key.to_string(),
            None => format!("{:x}", self.spread.fetch_add(1, Ordering::Relaxed)),
        };
        PutRecordsRequestEntry::builder()
            .data(Blob::new(record.data(&Self::LIMITS)))
            .partition_key(key)
            .build()
            .map_err(|e| Error::bug(format!("a record of {}: {e}", self.place())))
    }
}
