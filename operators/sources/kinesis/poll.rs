//! Asks for records with GetRecords, at the pace of the shard.
//!
//! While there is more to read, the next answer is on its way when the rows of the last are being decoded.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use millstream_engine::Error;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pace::{Pace, ShardLimits};
use super::position::Position;
use super::reader::Read;
use super::source::Shared;
use super::stream::Trouble;

/// A call that takes longer, or that has waited so long for others, is spoken of: rows may be waiting behind it.
const SLOW: Duration = Duration::from_secs(1);

/// Asks one shard.
pub(super) struct Poll {
    pace: Pace,
    /// When it may be asked again.
    due: Instant,
    iterator: Option<String>,
    /// The call that is being made, if any. It ends with its owner.
    call: JoinSet<Call>,
}

/// A call that was made.
struct Call {
    began: Instant,
    iterator: Option<String>,
    got: Result<GetRecordsOutput, Trouble>,
    leave: Option<OwnedSemaphorePermit>,
}

impl Poll {
    pub fn new(limits: ShardLimits) -> Poll {
        Poll {
            pace: Pace::new(limits),
            due: Instant::now(),
            iterator: None,
            call: JoinSet::new(),
        }
    }

    /// The next records of `shard`. After [`Trouble::Slow`] the same call goes on. Without an iterator it gets one that stands at `position`.
    pub async fn read(
        &mut self,
        shared: &Arc<Shared>,
        shard: &str,
        position: &Position,
    ) -> Result<Read, Trouble> {
        if self.call.is_empty() {
            self.begin(shared, shard, position);
        }
        let overdue = self.due.max(Instant::now()) + SLOW;
        let call = tokio::select! {
            biased;
            call = self.call.join_next() => call,
            () = tokio::time::sleep_until(overdue) => return Err(Trouble::Slow),
        };
        let Some(Ok(call)) = call else {
            let e = Error::bug("a call to Kinesis was not made to its end");
            return Err(Trouble::Other(e));
        };
        self.iterator = call.iterator;
        match &call.got {
            Ok(got) => self.due = call.began + self.wait(got),
            Err(Trouble::Refused(_)) => self.due = call.began + self.pace.refused(),
            Err(_) => self.iterator = None,
        }
        let got = call.got?;
        let behind = millis(got.millis_behind_latest.unwrap_or_default());
        let closed = self.iterator.is_none();
        if !behind.is_zero() && !closed {
            self.begin(shared, shard, position);
        }
        let children = got.child_shards.unwrap_or_default();
        Ok(Read {
            behind,
            records: got.records.into_iter().map(Into::into).collect(),
            next: None,
            closed: closed.then(|| children.into_iter().map(Into::into).collect()),
            _leave: call.leave,
        })
    }

    /// Begins a call, to be made when it is due.
    fn begin(&mut self, shared: &Arc<Shared>, shard: &str, position: &Position) {
        let (shared, shard, position) = (shared.clone(), shard.to_owned(), position.clone());
        let (due, iterator) = (self.due, self.iterator.take());
        self.call.spawn(async move {
            tokio::time::sleep_until(due).await;
            let leave = shared.reads.clone().acquire_owned().await.ok();
            let began = Instant::now();
            let (iterator, got) = ask(&shared, &shard, iterator, &position).await;
            Call {
                began,
                iterator,
                got,
                leave,
            }
        });
    }

    fn wait(&mut self, got: &GetRecordsOutput) -> Duration {
        let bytes = got.records.iter().map(|record| record.data.as_ref().len()).sum();
        self.pace.after(bytes, got.millis_behind_latest > Some(0))
    }
}

/// Asks once; gives the iterator to go on with, too.
async fn ask(
    shared: &Shared,
    shard: &str,
    iterator: Option<String>,
    position: &Position,
) -> (Option<String>, Result<GetRecordsOutput, Trouble>) {
    let iterator = match iterator {
        Some(iterator) => iterator,
        None => match shared.stream.iterator(shard, position).await {
            Ok(iterator) => iterator,
            Err(e) => return (None, Err(e)),
        },
    };
    let got = shared.stream.records(shard, &iterator).await;
    let next = match &got {
        Ok(got) => got.next_shard_iterator.clone(),
        Err(_) => Some(iterator),
    };
    (next, got)
}

/// A lag as the service names it.
pub(super) fn millis(of: i64) -> Duration {
    Duration::from_millis(u64::try_from(of).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::kinesis::source::tests::shared;

    #[tokio::test]
    async fn a_reader_that_waits_for_others_says_so() {
        let shared = shared();
        let all = shared.reads.available_permits() as u32;
        let _others = shared.reads.clone().acquire_many_owned(all).await.unwrap();
        let mut poll = Poll::new(ShardLimits::KINESIS);
        for _ in 0..2 {
            let read = poll.read(&shared, "s-1", &Position::TrimHorizon).await;
            assert!(matches!(read, Err(Trouble::Slow)));
            assert_eq!(poll.call.len(), 1, "the call still waits");
        }
    }
}
