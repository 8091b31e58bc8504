//! The `firehose` sink: each row a JSON object on a line of its own, in a record of a Firehose delivery stream, so that
//! the files it lands have one row per line.
//!
//! At least once, see `puts`. Firehose keeps no order.

use async_trait::async_trait;
use aws_sdk_firehose::Client;
use aws_sdk_firehose::primitives::Blob;
use aws_sdk_firehose::types::Record as FirehoseRecord;
use millstream_engine::sink::{Sink, SinkConnector, SinkContext};
use millstream_engine::source::options;
use millstream_engine::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use super::only_streams;
use super::puts::{Limits, Put, Queueing, Record, Service, StreamSink, check_rows_per_record, one};
use crate::aws::{self, AwsOptions};

/// `type = "firehose"`.
pub struct FirehoseConnector;

/// The keys of a `firehose` sink.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct FirehoseOptions {
    /// Name of the delivery stream.
    #[schemars(length(min = 1))]
    pub delivery_stream: String,
    /// Rows of a record at most. The files that are landed are the same; Firehose bills records in steps of 5 KB, so
    /// small rows cost less together. One where a transformation takes each record for a row.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub rows_per_record: usize,
    /// Where its requests go.
    #[serde(flatten)]
    pub aws: AwsOptions,
}

#[async_trait]
impl SinkConnector for FirehoseConnector {
    fn name(&self) -> &'static str {
        "firehose"
    }

    fn identity(&self) -> &'static [&'static str] {
        &["delivery_stream", "region", "endpoint"]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(FirehoseOptions)
    }

    fn check(&self, cx: &SinkContext) -> Result<()> {
        only_streams(cx, "firehose", "appends to its files")?;
        let typed: FirehoseOptions = options(&cx.options)?;
        typed.aws.check()?;
        check_rows_per_record(typed.rows_per_record)
    }

    /// Those that no record holds.
    fn rejects(&self) -> bool {
        true
    }

    /// Whoever reads the files sees the rows' `revision`.
    fn takes_revisions(&self) -> bool {
        true
    }

    async fn open(&self, cx: SinkContext) -> Result<Box<dyn Sink>> {
        self.check(&cx)?;
        let typed: FirehoseOptions = options(&cx.options)?;
        let client = aws::firehose(&typed.aws).await?;
        let service = Firehose {
            client,
            stream: typed.delivery_stream,
        };
        let queueing = Queueing {
            rows_per_record: typed.rows_per_record,
            ordered: false,
        };
        Ok(Box::new(StreamSink::new(&cx, service, None, queueing)))
    }
}

struct Firehose {
    client: Client,
    stream: String,
}

#[async_trait]
impl Service for Firehose {
    /// Of `PutRecordBatch`.
    const LIMITS: Limits = Limits {
        records: 500,
        put_bytes: 4 << 20,
        record_bytes: 1_000 << 10,
        made_key_bytes: 0,
        ends_lines: true,
    };

    fn place(&self) -> String {
        format!("delivery stream {:?}", self.stream)
    }

    async fn put(&self, put: &Put) -> Result<Vec<Option<String>>> {
        let records = put.iter().map(|record| self.record(record));
        let request = self
            .client
            .put_record_batch()
            .delivery_stream_name(&self.stream)
            .set_records(Some(records.collect::<Result<_>>()?));
        let answer = request.send().await;
        let answer =
            answer.map_err(|e| aws::classify(e, format!("putting records into {}", self.place())))?;
        let refused = answer
            .request_responses
            .into_iter()
            .map(|record| record.error_code);
        Ok(refused.collect())
    }
}

impl Firehose {
    fn record(&self, record: &Record) -> Result<FirehoseRecord> {
        FirehoseRecord::builder()
            .data(Blob::new(record.data(&Self::LIMITS)))
            .build()
            .map_err(|e| Error::bug(format!("a record of {}: {e}", self.place())))
    }
}
