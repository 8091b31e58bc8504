//! The source: shards found and handed out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_engine::metrics::Counters;
use millstream_engine::source::{
    Offset, Offsets, PartitionId, Partitions, Source, SourceBatch, SourceContext,
};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::lag::Lag;
use super::lineage::{Lineage, Shard};
use super::options::{KinesisOptions, Start};
use super::pace::ShardLimits;
use super::position::Position;
use super::reader::Reader;
use super::started;
use super::stream::Stream;

/// How often to look for shards that no end of another one announced: there should be none.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Shards are listed that were open this much before reading begins: Kinesis refuses a time that lies ahead by its
/// clock, and ours may be fast. Those that had closed by then have nothing to read and end at once.
const EARLIER: Duration = Duration::from_secs(3_600);

/// Answers of GetRecords that are on their way or being decoded. Each may have 10 MiB.
const READS_AT_ONCE: usize = 32;

/// A stream of Kinesis.
pub(super) struct KinesisSource {
    shared: Arc<Shared>,
    start: Start,
    data_dir: PathBuf,
}

/// What the readers of all shards share.
pub(super) struct Shared {
    pub stream: Stream,
    pub schema: SchemaRef,
    pub limits: ShardLimits,
    pub reads: Arc<Semaphore>,
    pub lag: Lag,
    pub counters: Counters,
    pub stop: CancellationToken,
    /// Children that ended shards named, until the stream lists them.
    children: Mutex<Vec<Shard>>,
}

impl KinesisSource {
    pub fn new(
        options: KinesisOptions,
        start: Start,
        limits: ShardLimits,
        cx: SourceContext,
    ) -> KinesisSource {
        let shared = Shared {
            stream: Stream::new(options),
            schema: cx.schema,
            limits,
            reads: Arc::new(Semaphore::new(READS_AT_ONCE)),
            lag: Lag::new(cx.counters.clone()),
            counters: cx.counters,
            stop: cx.stop,
            children: Mutex::default(),
        };
        KinesisSource {
            shared: Arc::new(shared),
            start,
            data_dir: cx.data_dir,
        }
    }

    /// Where shards begin of which nothing is known. `resumed`: there is a checkpoint.
    fn start(&self, resumed: bool) -> Result<Position> {
        if let Some(position) = self.start.position() {
            return Ok(position);
        }
        let stream = &self.shared.stream.options.stream;
        match started::known(&self.data_dir, stream)? {
            Some(at) => Ok(Position::At(at)),
            // The file was lost, the checkpoint was not: what came up since is all of later than the first start.
            None if resumed => Ok(Position::TrimHorizon),
            None => {
                let now = Timestamp::now();
                started::remember(&self.data_dir, stream, now)?;
                tracing::info!(stream, at = %now, "latest is from now on");
                Ok(Position::At(now))
            }
        }
    }
}

#[async_trait]
impl Source for KinesisSource {
    fn schema(&self) -> SchemaRef {
        self.shared.schema.clone()
    }

    async fn partitions(&self, read: &Offsets) -> Result<Partitions> {
        let read = read
            .iter()
            .map(|(shard, offset)| Ok((shard.0.clone(), Position::parse(offset)?)));
        let read = read.collect::<Result<BTreeMap<_, _>>>()?;
        let start = self.start(!read.is_empty())?;
        let since = match start {
            Position::At(at) => Some(at.minus(EARLIER)),
            _ => None,
        };
        let mut shards = self.shared.stream.shards(since).await?;
        self.shared.add_children(&mut shards, &read);
        let lineage = Lineage::of(&shards, &read, &start);
        let open = |(shard, at): (String, Position)| (PartitionId(shard), Some(at.offset()));
        Ok(Partitions {
            open: lineage.open.into_iter().map(open).collect(),
            forget: lineage.forget.into_iter().map(PartitionId).collect(),
            again: Some(LOOK_AGAIN),
        })
    }

    fn read(&self, partition: &PartitionId, from: Option<Offset>) -> BoxStream<'static, Result<SourceBatch>> {
        let position = match from.as_ref().map(Position::parse) {
            Some(Ok(position)) => position,
            Some(Err(e)) => return stream::once(async { Err(e) }).boxed(),
            None => {
                let e = Error::bug("every shard is opened at a position");
                return stream::once(async { Err(e) }).boxed();
            }
        };
        Reader::batches(self.shared.clone(), partition.0.clone(), position)
    }

    /// The stream keeps records as long as it keeps them.
    async fn commit(&self, _: &Offsets) -> Result<()> {
        Ok(())
    }
}

impl Shared {
    /// A shard that ended named its children.
    pub fn born(&self, children: Vec<Shard>) {
        self.children().extend(children);
    }

    /// Adds those children that are neither listed nor read yet.
    fn add_children(&self, listed: &mut Vec<Shard>, read: &BTreeMap<String, Position>) {
        let mut children = self.children();
        children.retain(|child| !read.contains_key(&child.id) && !listed.iter().any(|l| l.id == child.id));
        // Both parents of a merge name it.
        children.sort_by(|a, b| a.id.cmp(&b.id));
        children.dedup_by(|a, b| a.id == b.id);
        listed.extend(children.iter().cloned());
    }

    fn children(&self) -> std::sync::MutexGuard<'_, Vec<Shard>> {
        let children = self.children.lock();
        children.expect("nothing panics while it holds the children")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use arrow::datatypes::Schema;
    use serde_json::json;

    use super::*;

    fn source(data_dir: PathBuf, start: Start) -> KinesisSource {
        let cx = SourceContext {
            run: None,
            pipeline: "p".into(),
            name: "s".into(),
            schema: Arc::new(Schema::empty()),
            event_time: 0,
            options: json!({}),
            data_dir,
            stop: CancellationToken::new(),
            counters: Counters::detached(),
        };
        let options = serde_json::from_value(json!({"stream": "clicks"})).unwrap();
        KinesisSource::new(options, start, ShardLimits::KINESIS, cx)
    }

    /// What readers share, of a source that nobody answers.
    pub fn shared() -> Arc<Shared> {
        source(PathBuf::new(), Start::TrimHorizon).shared
    }

    #[test]
    fn latest_is_the_same_moment_at_every_start() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("sources/s");
        let latest = || source(place.clone(), Start::Latest);
        let before = Timestamp::now();
        let Position::At(first) = latest().start(false).unwrap() else {
            panic!("latest is a time");
        };
        assert!(before <= first && first <= Timestamp::now());
        // Whether or not there was a checkpoint by then.
        assert_eq!(latest().start(false).unwrap(), Position::At(first));
        assert_eq!(latest().start(true).unwrap(), Position::At(first));
        std::fs::remove_dir_all(&place).unwrap();
        assert_eq!(latest().start(true).unwrap(), Position::TrimHorizon);
        let begun = source(place, Start::At(Timestamp(7)));
        assert_eq!(begun.start(true).unwrap(), Position::At(Timestamp(7)));
    }

    #[test]
    fn children_are_known_until_they_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let shared = source(dir.path().into(), Start::TrimHorizon).shared;
        let shard = |id: &str, parents: &[&str]| Shard {
            id: id.into(),
            parents: parents.iter().map(|p| p.to_string()).collect(),
        };
        let known = |listed: &[Shard], read: &[&str]| {
            let read = read.iter().map(|id| (id.to_string(), Position::End)).collect();
            let mut all = listed.to_vec();
            shared.add_children(&mut all, &read);
            all.into_iter().map(|shard| shard.id).collect::<Vec<_>>()
        };
        let merged = shard("m", &["a", "b"]);
        shared.born(vec![merged.clone()]);
        shared.born(vec![merged.clone()]);
        assert_eq!(known(&[shard("a", &[])], &["a", "b"]), ["a", "m"]);
        assert_eq!(known(std::slice::from_ref(&merged), &["a", "b"]), ["m"]);
        // It was listed; if it is not any more, its reader finds out why.
        assert_eq!(known(&[], &["a", "b"]), [""; 0]);
    }
}
