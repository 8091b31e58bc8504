//! Drops the rows of a source that a client sent again, or those of any stream whose key was seen before.
//!
//! ```toml
//! dedup = { key = ["impression_id"], within = "10m" }
//!
//! [dedup.first_clicks]
//! input = "attributed"
//! key = ["impression_id"]
//! within = "10m"
//! ```
//!
//! # What is promised
//!
//! A row *stands* at its event time, or at the watermark if it is behind that: a row that comes late is
//! remembered from when it came. Of rows with equal keys the first passes; each later one is dropped while the
//! watermark is less than `within` past where the first one stands. The key is forgotten at most `within / 8`
//! after that, and then a row with it passes again. So `within` must be as long as clients go on
//! retrying, in time of the stream; a quiet stream follows the wall clock. Rows that differ in anything but
//! their key are equal: the first one counts.
//!
//! A row with a null in its key cannot be told from others and always passes. Declare key columns `not null`.
//!
//! Rows stamped more than eight times `within` ahead of the watermark stand there instead, so that a
//! client with a wrong clock does not fill the memory for years.
//!
//! # How
//!
//! Retries come over other connections, so a source with `dedup` has one task behind all its partitions, as has
//! a `[dedup.x]` behind all tasks that make its input, and this operator is the first in it. Key columns are hashed to 128 bits (`key.rs`); the hashes are kept in one
//! set, and once more in the order in which they are forgotten (`seen.rs`).
//!
//! # How it fails
//!
//! Two keys with one hash lose a row. Among the most keys that can be remembered, 50 million, the odds of any
//! such pair are 4 in 10^24; the hash is cryptographic, so a client cannot make one up either. More keys than
//! that are a data error that stops the pipeline and says what to do, rather than forget some in silence.

mod key;
mod seen;
#[cfg(test)]
mod tests;

use std::time::Duration;

use arrow::array::{BooleanArray, BooleanBufferBuilder};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;
use async_trait::async_trait;
use millstream_engine::Result;
use millstream_engine::message::Batch;
use millstream_engine::operator::{Operator, Output};
use millstream_engine::state::Snapshot;
use millstream_engine::time::{Timestamp, micros};

use self::key::KeyHash;
use self::seen::Seen;
use crate::window::{WATERMARK, event_times, watermark_of, watermark_rows};

/// Most keys remembered. They take 35 to 50 bytes each, so at the limit some 2 GB, and 800 MB of every
/// checkpoint; ten minutes of 80,000 rows/s fit.
const KEYS: usize = 50_000_000;

/// What dropped rows are counted as.
const ROWS_DUPLICATE: &str = "rows_duplicate";

/// The operator that drops rows whose columns `key` were seen less than `within` before; `event_time` is the
/// index of the event-time column.
pub fn dedup_operator(
    schema: &Schema,
    event_time: usize,
    key: &[usize],
    within: Duration,
) -> Result<Box<dyn Operator>> {
    key.iter()
        .try_for_each(|column| key::check(schema.field(*column)))?;
    Ok(Box::new(Dedup::new(schema, event_time, key, within, KEYS)))
}

struct Dedup {
    key: KeyHash,
    event_time: usize,
    watermark: Timestamp,
    seen: Seen,
}

impl Dedup {
    fn new(schema: &Schema, event_time: usize, key: &[usize], within: Duration, limit: usize) -> Dedup {
        Dedup {
            key: KeyHash::new(schema, key),
            event_time,
            watermark: Timestamp::MIN,
            seen: Seen::new(micros(within), limit),
        }
    }
}

#[async_trait]
impl Operator for Dedup {
    fn on_batch(&mut self, _input: usize, batch: Batch, out: &mut Output) -> Result<()> {
        let times = event_times(&batch.rows, self.event_time)?;
        let mut hashes = self.key.of(&batch.rows)?;
        let rows = batch.rows.num_rows();
        let mut first = BooleanBufferBuilder::new(rows);
        for row in 0..rows {
            first.append(match hashes.row(row) {
                Some(hash) => self.seen.insert(hash, times.value(row), self.watermark)?,
                None => true,
            });
        }
        let first = first.finish();
        let duplicates = rows - first.count_set_bits();
        if duplicates == 0 {
            out.emit(batch);
        } else {
            out.count(ROWS_DUPLICATE, duplicates as u64);
            out.emit(filter_record_batch(&batch.rows, &BooleanArray::new(first, None))?);
        }
        Ok(())
    }

    async fn on_watermark(&mut self, at: Timestamp, _out: &mut Output) -> Result<()> {
        self.watermark = at;
        self.seen.forget(at);
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Snapshot> {
        let mut snapshot = Snapshot::default();
        snapshot.push(WATERMARK, watermark_rows(self.watermark)?);
        self.seen.snapshot(&mut snapshot)?;
        Ok(snapshot)
    }

    /// What any of several remembered is remembered; time goes on from the earliest watermark.
    fn restore(&mut self, from: Snapshot) -> Result<()> {
        let (times, keys): (Vec<_>, Vec<_>) = from.parts.into_iter().partition(|p| p.label == WATERMARK);
        let times: Result<Vec<_>> = times.iter().map(|part| watermark_of(&part.rows)).collect();
        self.watermark = times?.into_iter().min().unwrap_or(Timestamp::MIN);
        self.seen.restore(keys)
    }
}
