//! Is sent records with SubscribeToShard: enhanced fan-out.
//!
//! A subscription lasts five minutes at most, and is then renewed from where it ended. One consumer has one
//! subscription of a shard: a second one within five seconds is refused, later it takes over. So two processes
//! that use one consumer take turns and both make little progress; each needs a consumer of its own.

use std::time::Duration;

use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::types::{SubscribeToShardEvent, SubscribeToShardEventStream};
use tokio::time::Instant;

use super::poll::millis;
use super::position::Position;
use super::reader::Read;
use super::source::Shared;
use super::stream::{Trouble, broken};

/// From one subscription to the next, at least: earlier, the service refuses.
const BETWEEN_SUBSCRIPTIONS: Duration = Duration::from_secs(5);

/// After a refusal: the subscription of an earlier run lasts a few seconds longer than the run.
const AFTER_REFUSAL: Duration = Duration::from_secs(1);

/// Is sent the records of one shard.
pub(super) struct FanOut {
    consumer: String,
    /// When it may subscribe again.
    due: Instant,
    subscription: Option<Box<SubscribeToShardOutput>>,
}

impl FanOut {
    pub fn new(consumer: String) -> FanOut {
        FanOut {
            consumer,
            due: Instant::now(),
            subscription: None,
        }
    }

    /// The next records of `shard`. Without a subscription it gets one from `position` on.
    pub async fn read(&mut self, shared: &Shared, shard: &str, position: &Position) -> Result<Read, Trouble> {
        loop {
            let subscription = match &mut self.subscription {
                Some(subscription) => subscription,
                None => {
                    let new = self.subscribe(shared, shard, position).await?;
                    self.subscription.insert(Box::new(new))
                }
            };
            match subscription.event_stream.recv().await {
                Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => {
                    return Ok(read(event));
                }
                // Of a kind that is not known yet.
                Ok(Some(_)) => {}
                Ok(None) => self.subscription = None,
                Err(e) => {
                    self.subscription = None;
                    return Err(broken(e, shared.stream.shown(shard)));
                }
            }
        }
    }

    async fn subscribe(
        &mut self,
        shared: &Shared,
        shard: &str,
        position: &Position,
    ) -> Result<SubscribeToShardOutput, Trouble> {
        tokio::time::sleep_until(self.due).await;
        let asked = Instant::now();
        let got = shared.stream.subscribe(&self.consumer, shard, position).await;
        self.due = match &got {
            Err(Trouble::Refused(_)) => asked + AFTER_REFUSAL,
            _ => asked + BETWEEN_SUBSCRIPTIONS,
        };
        got
    }
}

/// An empty number, or children, say that the shard has ended.
fn read(event: SubscribeToShardEvent) -> Read {
    let children = event.child_shards.unwrap_or_default();
    let next = event.continuation_sequence_number;
    let closed = next.is_empty() || !children.is_empty();
    Read {
        records: event.records.into_iter().map(Into::into).collect(),
        behind: millis(event.millis_behind_latest),
        next: (!next.is_empty()).then_some(Position::After(next)),
        closed: closed.then(|| children.into_iter().map(Into::into).collect()),
        _leave: None,
    }
}
