//! Reads one shard, from where it is told to its end.
//!
//! What failures mean: a shard that refuses, and an iterator that is too old, are part of reading and do not end
//! it; a shard that is gone has ended; for all else the runtime reads again from the last offset.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use millstream_engine::source::SourceBatch;
use millstream_engine::{Error, Result};
use tokio::sync::OwnedSemaphorePermit;

use super::decode::{Decoding, Record};
use super::fan_out::FanOut;
use super::lineage::Shard;
use super::poll::Poll;
use super::position::Position;
use super::source::Shared;
use super::stream::Trouble;

/// What came of one read.
pub(super) struct Read {
    pub records: VecDeque<Record>,
    /// How far behind the newest record the reader is now.
    pub behind: Duration,
    /// Where reading goes on behind the records, if the service says so.
    pub next: Option<Position>,
    /// That the shard ends here, and its children as far as they are named.
    pub closed: Option<Vec<Shard>>,
    /// Leave to hold the records in memory.
    pub _leave: Option<OwnedSemaphorePermit>,
}

/// How records come.
enum Feed {
    Poll(Poll),
    FanOut(FanOut),
}

/// Reads one shard.
pub(super) struct Reader {
    shared: Arc<Shared>,
    shard: String,
    /// Behind what has left in batches.
    position: Position,
    decoding: Decoding,
    feed: Feed,
    read: Option<Read>,
}

impl Reader {
    /// The batches of a shard, from `position` on.
    pub fn batches(
        shared: Arc<Shared>,
        shard: String,
        position: Position,
    ) -> BoxStream<'static, Result<SourceBatch>> {
        match Reader::new(shared, shard, position) {
            Ok(reader) => {
                let next = |mut reader: Reader| async move {
                    let batch = reader.next().await.transpose()?;
                    Some((batch, reader))
                };
                stream::unfold(reader, next).boxed()
            }
            Err(e) => stream::once(async { Err(e) }).boxed(),
        }
    }

    fn new(shared: Arc<Shared>, shard: String, position: Position) -> Result<Reader> {
        let options = &shared.stream.options;
        Ok(Reader {
            decoding: Decoding::new(&shard, shared.schema.clone(), options.records.clone())?,
            feed: match &options.consumer {
                Some(consumer) => Feed::FanOut(FanOut::new(consumer.clone())),
                None => Feed::Poll(Poll::new(shared.limits)),
            },
            shared,
            shard,
            position,
            read: None,
        })
    }

    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        loop {
            if self.shared.stop.is_cancelled() || self.position == Position::End {
                return Ok(None);
            }
            if let Some(batch) = self.hand_on()? {
                return Ok(Some(batch));
            }
            let stop = self.shared.stop.clone();
            let read = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                read = self.ask() => read,
            };
            match read {
                Ok(read) => {
                    self.shared.lag.is(&self.shard, read.behind);
                    self.read = Some(read);
                }
                Err(Trouble::Refused(why)) => {
                    tracing::debug!(shard = self.shard, why, "waiting");
                    self.shared.counters.add("reads_refused", 1);
                    // Rows may be waiting that it may not have yet.
                    return self.decoding.empty(&self.position).map(Some);
                }
                Err(Trouble::Slow) => return self.decoding.empty(&self.position).map(Some),
                Err(Trouble::Expired) => self.shared.counters.add("iterators_reopened", 1),
                Err(Trouble::Gone) => return self.gone().await.map(Some),
                Err(Trouble::Other(e)) => return Err(e),
            }
        }
    }

    async fn ask(&mut self) -> Result<Read, Trouble> {
        match &mut self.feed {
            Feed::Poll(poll) => poll.read(&self.shared, &self.shard, &self.position).await,
            Feed::FanOut(fan_out) => fan_out.read(&self.shared, &self.shard, &self.position).await,
        }
    }

    /// The next batch of what was read; none when all of it has left.
    fn hand_on(&mut self) -> Result<Option<SourceBatch>> {
        let Some(read) = &mut self.read else {
            return Ok(None);
        };
        if let Some(batch) = self.decoding.batch(&mut read.records)? {
            self.position = Position::After(batch.offset.0.clone());
            return Ok(Some(batch));
        }
        let Some(read) = self.read.take() else {
            return Ok(None);
        };
        self.position = read.next.unwrap_or_else(|| self.position.clone());
        if let Some(children) = read.closed {
            return self.end(children).map(Some);
        }
        // A read may bring nothing though there is more.
        let behind = read.behind > Duration::ZERO;
        behind.then(|| self.decoding.empty(&self.position)).transpose()
    }

    fn end(&mut self, children: Vec<Shard>) -> Result<SourceBatch> {
        tracing::info!(shard = self.shard, "read to its end");
        self.position = Position::End;
        self.shared.lag.ends(&self.shard);
        self.shared.born(children);
        self.decoding.empty(&self.position)
    }

    /// The service does not find the shard. If the stream is there without it, its time is over.
    async fn gone(&mut self) -> Result<SourceBatch> {
        let stream = &self.shared.stream;
        let listed = stream.shards(None).await?;
        if listed.iter().any(|shard| shard.id == self.shard) {
            stream.forget_consumer().await;
            let shard = &self.shard;
            return Err(Error::retry(format!(
                "shard {shard} is listed but cannot be read"
            )));
        }
        tracing::warn!(
            shard = self.shard,
            "the stream does not have it any more; what was not read of it is lost"
        );
        self.shared.counters.add("shards_gone", 1);
        self.end(Vec::new())
    }
}
