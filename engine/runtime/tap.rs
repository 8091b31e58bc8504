//! The latest rows of a stream, for people who look: the API, the console page.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::sync::broadcast;

/// Rows kept per stream: a screenful many times over.
pub const TAP_ROWS: usize = 1_000;
/// Batches a slow follower may be behind before it misses some.
const TAP_FOLLOWED_BATCHES: usize = 256;

/// The latest rows of one stream. Cheap to clone; publishing costs one short lock per batch.
#[derive(Clone, Debug)]
pub struct Tap {
    schema: SchemaRef,
    kept: Arc<Mutex<VecDeque<RecordBatch>>>,
    follow: broadcast::Sender<RecordBatch>,
}

impl Tap {
    /// An empty tap.
    pub fn new(schema: SchemaRef) -> Tap {
        Tap {
            schema,
            kept: Arc::default(),
            follow: broadcast::Sender::new(TAP_FOLLOWED_BATCHES),
        }
    }

    /// Columns of the stream.
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Keeps the end of `rows`.
    pub fn publish(&self, rows: &RecordBatch) {
        let count = rows.num_rows().min(TAP_ROWS);
        let rows = rows.slice(rows.num_rows() - count, count);
        let mut kept = self.kept.lock().expect("nothing panics while it holds a tap");
        kept.push_back(rows.clone());
        let mut total: usize = kept.iter().map(RecordBatch::num_rows).sum();
        while kept
            .front()
            .is_some_and(|first| total - first.num_rows() >= TAP_ROWS)
        {
            total -= kept.pop_front().map_or(0, |first| first.num_rows());
        }
        drop(kept);
        // Nobody following is the usual case.
        let _ = self.follow.send(rows);
    }

    /// The latest rows, oldest first, `limit` at most.
    pub fn latest(&self, limit: usize) -> Vec<RecordBatch> {
        let kept = self.kept.lock().expect("nothing panics while it holds a tap");
        let mut left = limit;
        let mut latest = Vec::new();
        for rows in kept.iter().rev() {
            let count = rows.num_rows().min(left);
            if count == 0 {
                break;
            }
            latest.push(rows.slice(rows.num_rows() - count, count));
            left -= count;
        }
        latest.reverse();
        latest
    }

    /// Follows the stream from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<RecordBatch> {
        self.follow.subscribe()
    }
}
