//! The `kinesis` source: rows from an Amazon Kinesis data stream.
//!
//! Every shard is a partition (`lineage` says which may be read, `position` where reading stands). A `reader` per
//! shard asks for records at the shard's `pace` (`poll`) or is sent them (`fan_out`), and `decode` makes batches
//! of them. A batch ends between two records, so its offset is a sequence number.
//!
//! How it fails: what a record holds never stops the stream, it goes to `<source>.invalid`; refusals are waited
//! out; for all else the runtime reads again from the last offset. If the stream drops records or shards before
//! they were read, because its retention is shorter than this process was away, they are lost: counted as
//! `shards_gone` where that shows.

mod aggregate;
mod decode;
mod fan_out;
mod lag;
mod lineage;
mod options;
mod pace;
mod poll;
mod position;
mod reader;
mod source;
mod started;
mod stream;
mod unpack;

use std::sync::Arc;

use millstream_engine::Result;
use millstream_engine::source::{Source, SourceConnector, SourceContext, options as typed};

pub use self::options::KinesisOptions;
pub use self::pace::ShardLimits;
use self::source::KinesisSource;
use crate::formats::json::Decoder;

/// `type = "kinesis"`.
pub struct KinesisConnector {
    /// What a shard gives.
    pub limits: ShardLimits,
}

impl Default for KinesisConnector {
    /// For Kinesis itself.
    fn default() -> KinesisConnector {
        KinesisConnector {
            limits: ShardLimits::KINESIS,
        }
    }
}

impl SourceConnector for KinesisConnector {
    fn name(&self) -> &'static str {
        "kinesis"
    }

    fn identity(&self) -> &'static [&'static str] {
        &["stream", "region"]
    }

    fn options(&self) -> schemars::Schema {
        schemars::schema_for!(KinesisOptions)
    }

    fn check(&self, cx: &SourceContext) -> Result<()> {
        typed::<KinesisOptions>(&cx.options)?.check()?;
        Decoder::stamping_arrival(cx.schema.clone()).map(drop)
    }

    fn open(&self, cx: SourceContext) -> Result<Arc<dyn Source>> {
        self.check(&cx)?;
        let options: KinesisOptions = typed(&cx.options)?;
        let start = options.check()?;
        Ok(Arc::new(KinesisSource::new(options, start, self.limits, cx)))
    }
}
