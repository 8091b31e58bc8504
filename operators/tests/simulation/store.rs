//! A checkpoint store whose writes travel: they may land late, twice, out of order, torn, after the process
//! that sent them died, or without an answer. Creation is conditional, as on a disk or in S3.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millstream_engine::checkpoint::manifest::Manifest;
use millstream_engine::checkpoint::store::{
    CheckpointStore, Restored, States, decode_manifest, decode_states, encode, encode_manifest, taken,
};
use millstream_engine::message::Epoch;
use millstream_engine::runtime::timer::Timer;
use millstream_engine::{Error, Result};

use crate::world::{Fault, INJECTED, Outside, VirtualTimer, World};

/// Why an encoded manifest can be read back.
const OURS: &str = "written by this store";

/// A checkpoint on its way.
#[derive(Clone)]
pub struct Write {
    lands: Duration,
    epoch: u64,
    manifest: Vec<u8>,
    state: Vec<u8>,
}

/// The checkpoints of a world's pipeline.
pub struct SimStore(pub Arc<World>);

impl SimStore {
    fn elapsed(&self) -> Duration {
        VirtualTimer(self.0.clone()).elapsed()
    }

    /// Sends a write; gives the time when it lands.
    fn send(&self, mut write: Write) -> Duration {
        write.lands += self.elapsed() + self.0.delay();
        let lands = write.lands;
        self.0.outside().writes.push(write);
        lands
    }

    /// Lets every write land whose time has come, in the order of landing.
    fn settle(&self) {
        let now = self.elapsed();
        let mut outside = self.0.outside();
        outside.writes.sort_by_key(|w| w.lands);
        let landed = outside.writes.partition_point(|w| w.lands <= now);
        let landed: Vec<Write> = outside.writes.drain(..landed).collect();
        for write in landed {
            let entry = outside.checkpoints.entry(write.epoch);
            entry.or_insert((write.manifest, write.state));
        }
    }
}

#[async_trait]
impl CheckpointStore for SimStore {
    async fn save(&self, mut manifest: Manifest, states: States) -> Result<Manifest> {
        let state = encode(&mut manifest, states)?;
        let text = encode_manifest(&manifest)?;
        let epoch = manifest.epoch.0;
        let write = Write {
            lands: Duration::ZERO,
            epoch,
            manifest: text.clone(),
            state,
        };
        let fault = self.0.fault("store.save");
        match fault {
            Some(Fault::Refused) => return Err(Error::retry(format!("{INJECTED} at store.save"))),
            // It may still land, long after the process is gone; or half of it.
            Some(Fault::CrashBefore) => {
                let torn = self.0.below(2) == 0;
                let manifest = if torn { b"{".to_vec() } else { text };
                let lands = Duration::from_millis(self.0.below(30_000) as u64);
                self.send(Write {
                    lands,
                    manifest,
                    ..write
                });
                return self.0.die().await;
            }
            // Sent twice by a careful network.
            Some(Fault::Fatal) => {
                self.send(write.clone());
            }
            _ => {}
        }
        let lands = self.send(write);
        if fault == Some(Fault::AnswerLost) && self.0.below(2) == 0 {
            // The caller gives up before it lands.
            return Err(Error::retry(format!("{INJECTED}: no answer at store.save")));
        }
        self.0.wait(lands - self.elapsed()).await;
        self.settle();
        match fault {
            Some(Fault::CrashAfter) => return self.0.die().await,
            Some(Fault::AnswerLost) => return Err(Error::retry(format!("{INJECTED} at store.save"))),
            _ => {}
        }
        self.0.wait(self.0.delay()).await;
        let stands = self.0.outside().checkpoints.get(&epoch).map(|(m, _)| *m == text);
        match stands {
            Some(true) => Ok(manifest),
            _ => Err(taken(epoch)),
        }
    }

    async fn latest(&self) -> Result<Option<Restored>> {
        self.0.call("store.latest", false, || Ok(())).await?;
        self.settle();
        Ok(newest(&self.0.outside()))
    }
}

/// The newest checkpoint that is whole.
pub fn newest(outside: &Outside) -> Option<Restored> {
    let last = Epoch(*outside.checkpoints.last_key_value()?.0);
    outside.checkpoints.values().rev().find_map(|(manifest, state)| {
        let manifest = decode_manifest(manifest, "simulated").ok()?;
        let states = decode_states(&manifest, state, "simulated").expect(OURS);
        Some(Restored {
            manifest,
            states,
            newest: last,
        })
    })
}
