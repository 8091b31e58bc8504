//! Asks for records with GetRecords, at the pace of the shard.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use millstream_engine::Error;
use tokio::time::Instant;

use super::pace::{Pace, ShardLimits};
use super::position::Position;
use super::reader::Read;
use super::source::Shared;
use super::stream::Trouble;

/// Asks one shard.
pub(super) struct Poll {
    pace: Pace,
    /// When it may be asked again.
    due: Instant,
    iterator: Option<String>,
}

impl Poll {
    pub fn new(limits: ShardLimits) -> Poll {
        Poll {
            pace: Pace::new(limits),
            due: Instant::now(),
            iterator: None,
        }
    }

    /// The next records of `shard`. Without an iterator it gets one that stands at `position`.
    pub async fn read(&mut self, shared: &Shared, shard: &str, position: &Position) -> Result<Read, Trouble> {
        tokio::time::sleep_until(self.due).await;
        let leave = Arc::clone(&shared.reads).acquire_owned().await;
        let leave =
            leave.map_err(|_| Trouble::Other(Error::bug("the readers' semaphore is never closed")))?;
        let asked = Instant::now();
        let got = self.ask(shared, shard, position).await;
        match &got {
            Ok(got) => self.due = asked + self.wait(got),
            Err(Trouble::Refused(_)) => self.due = asked + self.pace.refused(),
            Err(_) => self.iterator = None,
        }
        let got = got?;
        let closed = self
            .iterator
            .is_none()
            .then(|| got.child_shards.unwrap_or_default());
        Ok(Read {
            behind: millis(got.millis_behind_latest.unwrap_or_default()),
            records: got.records.into_iter().map(Into::into).collect(),
            next: None,
            closed: closed.map(|children| children.into_iter().map(Into::into).collect()),
            _leave: Some(leave),
        })
    }

    async fn ask(
        &mut self,
        shared: &Shared,
        shard: &str,
        position: &Position,
    ) -> Result<GetRecordsOutput, Trouble> {
        let iterator = match self.iterator.take() {
            Some(iterator) => iterator,
            None => shared.stream.iterator(shard, position).await?,
        };
        let got = shared.stream.records(shard, &iterator).await;
        self.iterator = match &got {
            Ok(got) => got.next_shard_iterator.clone(),
            Err(_) => Some(iterator),
        };
        got
    }

    fn wait(&mut self, got: &GetRecordsOutput) -> Duration {
        let bytes = got.records.iter().map(|record| record.data.as_ref().len()).sum();
        self.pace.after(bytes, got.millis_behind_latest > Some(0))
    }
}

/// A lag as the service names it.
pub(super) fn millis(of: i64) -> Duration {
    Duration::from_millis(u64::try_from(of).unwrap_or_default())
}
