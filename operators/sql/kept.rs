//! How many bytes of rows a query keeps until their windows close: counted over all of its halves, and
//! limited by its `state_limit`.
//!
//! Rows are kept where no aggregate stands right above a table. The limit is there so that such a query
//! fails by name instead of taking the process with it; a data error, because a restart alone changes
//! nothing. Rows on the edge between two halves are counted by neither; the edge has limits of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, RecordBatch};
use millstream_engine::pipeline::Bytes;
use millstream_engine::{Error, Result};

/// The limit of one query, and what its halves keep together.
#[derive(Debug)]
pub(super) struct StateLimit {
    query: Arc<str>,
    most: Bytes,
    kept: AtomicUsize,
}

impl StateLimit {
    /// Nothing kept yet.
    pub fn new(query: Arc<str>, most: Bytes) -> Arc<StateLimit> {
        let kept = AtomicUsize::new(0);
        Arc::new(StateLimit { query, most, kept })
    }
}

/// What one half keeps. Dropped with the half, it gives its share back: after a failure the next try starts
/// from nothing.
#[derive(Debug)]
pub(super) struct Kept {
    limit: Arc<StateLimit>,
    mine: usize,
}

impl Kept {
    /// A half that keeps nothing yet.
    pub fn new(limit: &Arc<StateLimit>) -> Kept {
        Kept {
            limit: Arc::clone(limit),
            mine: 0,
        }
    }

    /// Counts rows in; refuses them when the query then keeps more than its limit.
    pub fn add(&mut self, bytes: usize) -> Result<()> {
        self.mine += bytes;
        let total = self.limit.kept.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if total as u64 <= self.limit.most.0 {
            return Ok(());
        }
        let StateLimit { query, most, .. } = self.limit.as_ref();
        Err(Error::data(format!(
            "query {query:?} keeps more than {most} of rows until their windows close, its state_limit; aggregate \
             them, select fewer columns, filter earlier, use a smaller window, or raise `state_limit` in [sql.{query}]"
        )))
    }

    /// Counts rows out.
    pub fn remove(&mut self, bytes: usize) {
        let bytes = bytes.min(self.mine);
        self.mine -= bytes;
        self.limit.kept.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.remove(self.mine);
    }
}

/// Bytes of the rows themselves. What a batch shares with others it was cut from is counted by share, not
/// once for each.
pub(super) fn rows_bytes(rows: &RecordBatch) -> usize {
    let bytes = |column: &Arc<dyn Array>| {
        let data = column.to_data();
        data.get_slice_memory_size()
            .unwrap_or_else(|_| column.get_array_memory_size())
    };
    rows.columns().iter().map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_share_one_limit() {
        let limit = StateLimit::new(Arc::from("pairs"), Bytes(1 << 20));
        let (mut first, mut second) = (Kept::new(&limit), Kept::new(&limit));
        first.add(600 << 10).expect("below the limit");
        second.add(400 << 10).expect("below the limit");
        let refused = second.add(100 << 10).expect_err("above the limit").to_string();
        for words in [
            "\"pairs\"",
            "1MiB",
            "`state_limit` in [sql.pairs]",
            "smaller window",
        ] {
            assert!(refused.contains(words), "{refused}");
        }
        second.remove(300 << 10);
        second.add(100 << 10).expect("there is room again");
        drop(first);
        second.add(600 << 10).expect("what a half kept is gone with it");
    }
}
