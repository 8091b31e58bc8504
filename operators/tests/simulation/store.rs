//! A checkpoint store whose writes travel: they may land late, twice, out of order, torn, after the process
//! that sent them died, or without an answer. Creation is conditional, as on a disk or in S3.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use millstream_engine::checkpoint::manifest::Manifest;
use millstream_engine::checkpoint::parts::{Decoded, Earlier, decode};
use millstream_engine::checkpoint::store::{
    CheckpointStore, Restored, States, decode_manifest, encode_manifest, taken,
};
use millstream_engine::message::Epoch;
use millstream_engine::runtime::timer::Timer;
use millstream_engine::{Error, Result};

use crate::world::{Fault, INJECTED, Outside, VirtualTimer, World};

/// Why an encoded manifest can be read back.
const OURS: &str = "written by this store";

/// A manifest that landed half.
const TORN: &[u8] = b"{";

/// A checkpoint on its way.
#[derive(Clone)]
pub struct Write {
    lands: Duration,
    epoch: u64,
    manifest: Vec<u8>,
    /// Name and content of what of the state is new.
    state: Option<(String, Vec<u8>)>,
}

/// The checkpoints of a world's pipeline.
pub struct SimStore {
    world: Arc<World>,
    earlier: Mutex<Earlier>,
}

impl SimStore {
    /// For one process.
    pub fn new(world: Arc<World>) -> SimStore {
        SimStore {
            world,
            earlier: Mutex::default(),
        }
    }

    fn remember(&self, earlier: Earlier) {
        *self.earlier.lock().expect("nothing panics while it holds this") = earlier;
    }

    fn elapsed(&self) -> Duration {
        VirtualTimer(self.world.clone()).elapsed()
    }

    /// Sends a write; gives the time when it lands.
    fn send(&self, mut write: Write) -> Duration {
        write.lands += self.elapsed() + self.world.delay();
        let lands = write.lands;
        self.world.outside().writes.push(write);
        lands
    }

    /// Lets every write land whose time has come, in the order of landing.
    fn settle(&self) {
        let now = self.elapsed();
        let mut outside = self.world.outside();
        outside.writes.sort_by_key(|w| w.lands);
        let landed = outside.writes.partition_point(|w| w.lands <= now);
        let landed: Vec<Write> = outside.writes.drain(..landed).collect();
        for write in landed {
            // A first checkpoint that is torn is a configuration error, which a person has to solve.
            if write.manifest == TORN && outside.checkpoints.is_empty() {
                continue;
            }
            outside.states.extend(write.state);
            let entry = outside.checkpoints.entry(write.epoch);
            entry.or_insert(write.manifest);
        }
    }
}

#[async_trait]
impl CheckpointStore for SimStore {
    async fn save(&self, mut manifest: Manifest, states: States) -> Result<Manifest> {
        let earlier = &self.earlier;
        let encoded = earlier
            .lock()
            .expect("nothing panics while it holds this")
            .encode(&mut manifest, states)?;
        let text = encode_manifest(&manifest)?;
        let epoch = manifest.epoch.0;
        let write = Write {
            lands: Duration::ZERO,
            epoch,
            manifest: text.clone(),
            state: encoded.file.map(|(file, bytes)| (file.name, bytes)),
        };
        let fault = self.world.fault("store.save");
        match fault {
            Some(Fault::Refused) => return Err(Error::retry(format!("{INJECTED} at store.save"))),
            // It may still land, long after the process is gone; or half of it.
            Some(Fault::CrashBefore) => {
                let torn = self.world.below(2) == 0;
                let manifest = if torn { TORN.to_vec() } else { text };
                let lands = Duration::from_millis(self.world.below(30_000) as u64);
                self.send(Write {
                    lands,
                    manifest,
                    ..write
                });
                return self.world.die().await;
            }
            // Sent twice by a careful network.
            Some(Fault::Fatal) => {
                self.send(write.clone());
            }
            _ => {}
        }
        let lands = self.send(write);
        if fault == Some(Fault::AnswerLost) && self.world.below(2) == 0 {
            // The caller gives up before it lands.
            return Err(Error::retry(format!("{INJECTED}: no answer at store.save")));
        }
        self.world.wait(lands - self.elapsed()).await;
        self.settle();
        match fault {
            Some(Fault::CrashAfter) => return self.world.die().await,
            Some(Fault::AnswerLost) => return Err(Error::retry(format!("{INJECTED} at store.save"))),
            _ => {}
        }
        self.world.wait(self.world.delay()).await;
        let stands = self.world.outside().checkpoints.get(&epoch).map(|m| *m == text);
        match stands {
            Some(true) => {
                self.remember(encoded.next);
                Ok(manifest)
            }
            _ => Err(taken(epoch)),
        }
    }

    async fn latest(&self) -> Result<Option<Restored>> {
        self.world.call("store.latest", false, || Ok(())).await?;
        self.settle();
        let found = newest(&self.world.outside());
        Ok(found.map(|(restored, earlier)| {
            self.remember(earlier);
            restored
        }))
    }
}

/// The newest checkpoint that is whole.
pub fn newest(outside: &Outside) -> Option<(Restored, Earlier)> {
    let last = Epoch(*outside.checkpoints.last_key_value()?.0);
    outside.checkpoints.values().rev().find_map(|manifest| {
        let no_first = |_, _, _| String::new();
        let manifest = decode_manifest(manifest, "simulated", no_first).ok()?;
        let files = manifest
            .files
            .iter()
            .map(|file| outside.states.get(&file.name).expect(OURS));
        let files: Vec<_> = files.collect();
        let Decoded { states, next } = decode(&manifest, &files, "simulated").expect(OURS);
        let restored = Restored {
            manifest,
            states,
            newest: last,
        };
        Some((restored, next))
    })
}
