//! The calls to Kinesis, and what their failures mean for a reader.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::Builder;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::types::{
    ChildShard, ConsumerStatus, ShardFilter, ShardFilterType, ShardIteratorType, StartingPosition,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::DateTime;
use aws_smithy_types::error::display::DisplayErrorContext;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use tokio::sync::{Mutex, OnceCell};

use super::decode::Record;
use super::lineage::Shard;
use super::options::KinesisOptions;
use super::position::Position;
use crate::aws;

/// Shards in one answer of ListShards, at most: what it gives anyway.
const SHARDS_PER_PAGE: i32 = 1_000;

/// Records in one answer of GetRecords, at most: the most it gives.
const RECORDS_PER_READ: i32 = 10_000;

/// Why a read of a shard failed.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The shard, or the consumer, has given all it may for now.
    Refused(String),
    /// The answer takes long.
    Slow,
    /// The iterator is too old.
    Expired,
    /// There is no such shard.
    Gone,
    Other(Error),
}

/// A stream and how to reach it.
pub(super) struct Stream {
    pub options: KinesisOptions,
    client: OnceCell<Client>,
    /// The ARN of the consumer, once it is known.
    consumer: Mutex<Option<String>>,
}

impl Stream {
    pub fn new(options: KinesisOptions) -> Stream {
        Stream {
            options,
            client: OnceCell::new(),
            consumer: Mutex::default(),
        }
    }

    async fn client(&self) -> Result<&Client> {
        self.client
            .get_or_try_init(|| aws::kinesis(&self.options.aws))
            .await
    }

    /// The shards that were open at `since` or later; without it, all that the stream has.
    pub async fn shards(&self, since: Option<Timestamp>) -> Result<Vec<Shard>> {
        let client = self.client().await?;
        let name = &self.options.stream;
        let filter = since.map(|at| {
            let filter = ShardFilter::builder().r#type(ShardFilterType::FromTimestamp);
            filter.timestamp(date_time(at)).build()
        });
        let filter = filter.transpose().map_err(|e| Error::bug(e.to_string()))?;
        let mut shards = Vec::new();
        let mut token = None;
        loop {
            // A token stands for the stream and the filter, too.
            let list = client.list_shards().max_results(SHARDS_PER_PAGE);
            let list = match token.take() {
                Some(token) => list.next_token(token),
                None => list.stream_name(name).set_shard_filter(filter.clone()),
            };
            let page = list.send().await;
            let page = page.map_err(|e| aws::classify(e, format!("listing the shards of stream {name}")))?;
            shards.extend(page.shards.into_iter().flatten().map(|shard| {
                Shard {
                    id: shard.shard_id,
                    parents: [shard.parent_shard_id, shard.adjacent_parent_shard_id]
                        .into_iter()
                        .flatten()
                        .collect(),
                }
            }));
            match page.next_token {
                Some(next) => token = Some(next),
                None => return Ok(shards),
            }
        }
    }

    /// An iterator that stands at `position`.
    pub async fn iterator(&self, shard: &str, position: &Position) -> Result<String, Trouble> {
        let client = self.client().await.map_err(Trouble::Other)?;
        let at = starting(position)?;
        let doing = format!("asking for an iterator of {}", self.shown(shard));
        let got = client
            .get_shard_iterator()
            .stream_name(&self.options.stream)
            .shard_id(shard)
            .shard_iterator_type(at.r#type)
            .set_starting_sequence_number(at.sequence_number)
            .set_timestamp(at.timestamp)
            .send()
            .await
            .map_err(|e| sorted(e, &doing))
            .map_err(|e| not_yet(e, position))?;
        let none = || Trouble::Other(Error::retry(format!("{doing}: the answer has none")));
        got.shard_iterator.ok_or_else(none)
    }

    /// What stands behind an iterator. Asked once: the pace of a shard is its reader's.
    pub async fn records(&self, shard: &str, iterator: &str) -> Result<GetRecordsOutput, Trouble> {
        let client = self.client().await.map_err(Trouble::Other)?;
        client
            .get_records()
            .shard_iterator(iterator)
            .limit(RECORDS_PER_READ)
            .customize()
            .config_override(Builder::new().retry_config(RetryConfig::disabled()))
            .send()
            .await
            .map_err(|e| sorted(e, format!("reading {}", self.shown(shard))))
    }

    /// Subscribes the consumer `name` to what stands behind `position`, for five minutes.
    pub async fn subscribe(
        &self,
        name: &str,
        shard: &str,
        position: &Position,
    ) -> Result<SubscribeToShardOutput, Trouble> {
        let client = self.client().await.map_err(Trouble::Other)?;
        client
            .subscribe_to_shard()
            .consumer_arn(self.consumer(name).await.map_err(Trouble::Other)?)
            .shard_id(shard)
            .starting_position(starting(position)?)
            .customize()
            .config_override(Builder::new().retry_config(RetryConfig::disabled()))
            .send()
            .await
            .map_err(|e| sorted(e, format!("subscribing {name} to {}", self.shown(shard))))
            .map_err(|e| not_yet(e, position))
    }

    async fn consumer(&self, name: &str) -> Result<String> {
        let mut known = self.consumer.lock().await;
        if let Some(arn) = known.as_ref() {
            return Ok(arn.clone());
        }
        let arn = self.find_consumer(name).await?;
        Ok(known.insert(arn).clone())
    }

    /// Looks for the consumer again at the next subscription: somebody may have removed it.
    pub async fn forget_consumer(&self) {
        *self.consumer.lock().await = None;
    }

    /// The ARN of a consumer, which is registered if there is none. It takes AWS some seconds to have it ready;
    /// until then this fails with class retry.
    async fn find_consumer(&self, name: &str) -> Result<String> {
        let client = self.client().await?;
        let stream = &self.options.stream;
        let doing = format!("looking for consumer {name} of stream {stream}");
        let summary = client.describe_stream_summary().stream_name(stream).send().await;
        let summary = summary.map_err(|e| aws::classify(e, &doing))?;
        let arn = summary.stream_description_summary.map(|s| s.stream_arn);
        let arn = arn.ok_or_else(|| Error::retry(format!("{doing}: the stream has no ARN")))?;
        let found = client
            .describe_stream_consumer()
            .stream_arn(&arn)
            .consumer_name(name)
            .send()
            .await;
        let consumer = match found {
            Ok(found) => found
                .consumer_description
                .map(|c| (c.consumer_arn, c.consumer_status)),
            Err(e) if e.code() == Some("ResourceNotFoundException") => {
                let doing = format!("registering consumer {name} of stream {stream}");
                let registered = client
                    .register_stream_consumer()
                    .stream_arn(arn)
                    .consumer_name(name);
                let registered = registered.send().await.map_err(|e| aws::classify(e, doing))?;
                tracing::info!(stream, consumer = name, "registered an enhanced fan-out consumer");
                registered.consumer.map(|c| (c.consumer_arn, c.consumer_status))
            }
            Err(e) => return Err(aws::classify(e, doing)),
        };
        match consumer {
            Some((arn, ConsumerStatus::Active)) => Ok(arn),
            _ => Err(Error::retry(format!("{doing}: it is not ready yet"))),
        }
    }

    /// A shard, for messages.
    pub fn shown(&self, shard: &str) -> String {
        format!("shard {shard} of stream {}", self.options.stream)
    }
}

impl From<aws_sdk_kinesis::types::Record> for Record {
    fn from(of: aws_sdk_kinesis::types::Record) -> Record {
        let arrived = of.approximate_arrival_timestamp.map(|at| {
            let micros = at.as_nanos() / 1_000;
            Timestamp(i64::try_from(micros).unwrap_or(i64::MAX))
        });
        Record {
            sequence: of.sequence_number,
            arrived: arrived.unwrap_or_else(Timestamp::now),
            data: of.data.into_inner().into(),
        }
    }
}

impl From<ChildShard> for Shard {
    fn from(of: ChildShard) -> Shard {
        Shard {
            id: of.shard_id,
            parents: of.parent_shards,
        }
    }
}

/// Where to start, in the words of both GetShardIterator and SubscribeToShard.
fn starting(position: &Position) -> Result<StartingPosition, Trouble> {
    let at = StartingPosition::builder();
    let at = match position {
        Position::TrimHorizon => at.r#type(ShardIteratorType::TrimHorizon),
        Position::At(time) => at
            .r#type(ShardIteratorType::AtTimestamp)
            .timestamp(date_time(*time)),
        Position::After(sequence) => at
            .r#type(ShardIteratorType::AfterSequenceNumber)
            .sequence_number(sequence),
        Position::End => return Err(Trouble::Other(Error::bug("reading behind the end of a shard"))),
    };
    at.build().map_err(|e| Trouble::Other(Error::bug(e.to_string())))
}

/// Whole milliseconds, the resolution of Kinesis; earlier rather than later.
fn date_time(at: Timestamp) -> DateTime {
    DateTime::from_millis(at.0.div_euclid(1_000))
}

fn sorted<E>(e: SdkError<E, HttpResponse>, doing: impl std::fmt::Display) -> Trouble
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let code = e.code().unwrap_or_default().to_owned();
    let error = aws::classify(e, doing);
    match code.as_str() {
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "KMSThrottlingException"
        | "ThrottlingException"
        // A subscription of an earlier run, which lasts some seconds longer than the run.
        | "ResourceInUseException" => Trouble::Refused(error.to_string()),
        "ExpiredIteratorException" => Trouble::Expired,
        "ResourceNotFoundException" => Trouble::Gone,
        _ => Trouble::Other(error),
    }
}

/// A subscription that ended with an error. Connections do not last for ever, so all but what
/// [`sorted`] knows is of class retry.
pub(super) fn broken<E, R>(e: SdkError<E, R>, shard: String) -> Trouble
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let code = e.code().unwrap_or_default().to_owned();
    let message = format!("the subscription to {shard} broke: {}", DisplayErrorContext(&e));
    match code.as_str() {
        "ResourceInUseException" => Trouble::Refused(message),
        "ResourceNotFoundException" => Trouble::Gone,
        _ => Trouble::Other(Error::retry(message)),
    }
}

/// A time that lies ahead by the clock of Kinesis will come: ours may be a little fast.
fn not_yet(trouble: Trouble, position: &Position) -> Trouble {
    match (trouble, position) {
        (Trouble::Other(e), Position::At(_)) if e.to_string().contains("InvalidArgumentException") => {
            Trouble::Other(Error::retry(e.to_string()))
        }
        (trouble, _) => trouble,
    }
}
