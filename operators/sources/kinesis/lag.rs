//! How far a source reads behind the newest record, over all its shards.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use millstream_engine::metrics::Counters;

/// The lag of each shard that is being read; the source's is the largest.
pub(super) struct Lag {
    counters: Counters,
    shards: Mutex<BTreeMap<String, Duration>>,
}

impl Lag {
    pub fn new(counters: Counters) -> Lag {
        Lag {
            counters,
            shards: Mutex::default(),
        }
    }

    /// A shard's reader is `lag` behind.
    pub fn is(&self, shard: &str, lag: Duration) {
        self.change(|shards| {
            if let Some(known) = shards.get_mut(shard) {
                *known = lag;
            } else {
                shards.insert(shard.into(), lag);
            }
        });
    }

    /// A shard is not read any more.
    pub fn ends(&self, shard: &str) {
        self.change(|shards| {
            shards.remove(shard);
        });
    }

    fn change(&self, with: impl FnOnce(&mut BTreeMap<String, Duration>)) {
        let mut shards = self
            .shards
            .lock()
            .expect("nothing panics while it holds the lags");
        with(&mut shards);
        self.counters
            .behind(shards.values().max().copied().unwrap_or_default());
    }
}
