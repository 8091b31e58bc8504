//! Checkpoints on a local disk.
//!
//! The state file is written and fsynced first. The manifest is written under a temporary name, fsynced and
//! then *linked* to its own name, which fails if that name exists: one writer owns an epoch. A torn or
//! corrupt checkpoint is passed over, with a warning, for the one before.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::store::{
    CheckpointStore, Restored, States, decode_manifest, decode_states, encode, encode_manifest, taken,
};
use crate::error::{Error, Result};
use crate::message::Epoch;

/// Checkpoints kept: the newest, and two to fall back to.
const KEPT: usize = 3;
const MANIFEST: &str = ".manifest.json";
const STATE: &str = ".state";

/// The checkpoints of one pipeline in a directory of their own.
#[derive(Clone, Debug)]
pub struct DiskStore {
    dir: PathBuf,
}

#[async_trait]
impl CheckpointStore for DiskStore {
    async fn save(&self, manifest: Manifest, states: States) -> Result<Manifest> {
        let store = self.clone();
        blocking(move || store.save_now(manifest, states)).await
    }

    async fn latest(&self) -> Result<Option<Restored>> {
        let store = self.clone();
        blocking(move || store.latest_now()).await
    }
}

impl DiskStore {
    /// Opens, creating the directory.
    pub fn open(dir: impl Into<PathBuf>) -> Result<DiskStore> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|e| at(&dir, e))?;
        Ok(DiskStore { dir })
    }

    fn save_now(&self, mut manifest: Manifest, states: States) -> Result<Manifest> {
        let bytes = encode(&mut manifest, states)?;
        let text = encode_manifest(&manifest)?;
        let target = self.path(manifest.epoch, MANIFEST);
        // Looked at first: the state file of a checkpoint that exists must not be touched.
        if !target.exists() {
            let state = self.path(manifest.epoch, STATE);
            write_durably(&state, &bytes).map_err(|e| at(&state, e))?;
            match self.create(&target, &text) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(at(&target, e)),
                Ok(()) => self.collect(manifest.epoch),
            }
        }
        // Ours, if an earlier try got this far and failed after it.
        if fs::read(&target).map_err(|e| at(&target, e))? != text {
            return Err(taken(target.display()));
        }
        self.sync().map_err(|e| at(&self.dir, e))?;
        Ok(manifest)
    }

    fn latest_now(&self) -> Result<Option<Restored>> {
        let epochs = self.epochs()?;
        let Some(&newest) = epochs.last() else {
            return Ok(None);
        };
        for epoch in epochs.into_iter().rev() {
            match self.read(epoch) {
                Ok(restored) => return Ok(Some(Restored { newest, ..restored })),
                Err(e @ (Error::Config(_) | Error::Retry { .. })) => return Err(e),
                Err(error) => tracing::warn!(%error, epoch = epoch.0, "passing over a damaged checkpoint"),
            }
        }
        Err(Error::config(format!(
            "{}: every checkpoint is damaged; put back a copy, or move the directory away to start from nothing",
            self.dir.display()
        )))
    }

    fn read(&self, epoch: Epoch) -> Result<Restored> {
        let path = self.path(epoch, MANIFEST);
        let text = read(&path)?;
        let manifest = decode_manifest(&text, &path.display().to_string())?;
        let path = self.path(epoch, STATE);
        let bytes = read(&path)?;
        let states = decode_states(&manifest, &bytes, &path.display().to_string())?;
        Ok(Restored {
            manifest,
            states,
            newest: epoch,
        })
    }

    fn epochs(&self) -> Result<Vec<Epoch>> {
        let mut epochs = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(|e| at(&self.dir, e))? {
            let name = entry.map_err(|e| at(&self.dir, e))?.file_name();
            let epoch = name.to_str().and_then(|n| n.strip_suffix(MANIFEST)?.parse().ok());
            epochs.extend(epoch.map(Epoch));
        }
        epochs.sort();
        Ok(epochs)
    }

    /// Conditional create: `text` under `target`, or an error if that exists. The name is durable after
    /// [`DiskStore::sync`].
    fn create(&self, target: &Path, text: &[u8]) -> io::Result<()> {
        let temporary = target.with_extension("tmp");
        write_durably(&temporary, text)?;
        // The state file's name must not come after the manifest's.
        self.sync()?;
        fs::hard_link(&temporary, target)?;
        fs::remove_file(&temporary)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// Deletes what is older than the kept checkpoints. Leftovers cost space, not correctness, so a failure
    /// is only logged.
    fn collect(&self, newest: Epoch) {
        let Ok(epochs) = self.epochs() else { return };
        let old = epochs.len().saturating_sub(KEPT);
        for epoch in epochs.into_iter().take(old).filter(|e| *e < newest) {
            for suffix in [MANIFEST, STATE] {
                let path = self.path(epoch, suffix);
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(%error, path = %path.display(), "cannot delete an old checkpoint");
                }
            }
        }
    }

    fn path(&self, epoch: Epoch, suffix: &str) -> PathBuf {
        self.dir.join(format!("{:020}{suffix}", epoch.0))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Error::bug(e.to_string()))?
}

/// A file that is not there is damage; one that cannot be read just now is not.
fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Error::data(format!("{}: {e}", path.display())),
        _ => at(path, e),
    })
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn at(path: &Path, e: io::Error) -> Error {
    match e.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::retry(format!("{}: {e}; free some space", path.display()))
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Error::config(format!("{}: {e}", path.display()))
        }
        _ => Error::retry(format!("{}: {e}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::checkpoint::manifest::FORMAT;
    use crate::error::ErrorClass;
    use crate::time::Timestamp;

    fn manifest(epoch: u64, at: i64) -> Manifest {
        Manifest {
            format: FORMAT,
            pipeline: "p".into(),
            epoch: Epoch(epoch),
            at: Timestamp(at),
            last: false,
            nodes: BTreeMap::new(),
            sources: BTreeMap::new(),
            state: Vec::new(),
            state_bytes: 0,
            state_crc: 0,
            sinks: BTreeMap::new(),
        }
    }

    fn store(name: &str) -> DiskStore {
        let dir = std::env::temp_dir().join(format!("millstream-store-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        DiskStore::open(dir).expect("open")
    }

    fn latest(of: &DiskStore) -> (u64, u64) {
        let found = of.latest_now().expect("latest").expect("a checkpoint");
        (found.manifest.epoch.0, found.newest.0)
    }

    /// An answer that was lost must not look like another writer.
    #[test]
    fn the_same_save_again_succeeds_and_another_writer_is_refused() {
        let store = store("again");
        store.save_now(manifest(1, 10), States::new()).expect("save");
        store.save_now(manifest(1, 10), States::new()).expect("again");
        let refused = store.save_now(manifest(1, 11), States::new()).expect_err("taken");
        assert_eq!(refused.class(), ErrorClass::Data, "{refused}");
        let found = store.latest_now().expect("latest").expect("a checkpoint");
        assert_eq!(found.manifest.at, Timestamp(10), "the first writer's stands");
        let _ = fs::remove_dir_all(&store.dir);
    }

    #[test]
    fn a_damaged_newest_is_passed_over_and_its_number_not_used_again() {
        let store = store("damaged");
        assert!(store.latest_now().expect("latest").is_none());
        for epoch in 1..=2 {
            store.save_now(manifest(epoch, 10), States::new()).expect("save");
        }
        assert_eq!(latest(&store), (2, 2));
        fs::write(store.path(Epoch(2), MANIFEST), "{").expect("damage");
        assert_eq!(latest(&store), (1, 2));
        fs::write(store.path(Epoch(1), STATE), "x").expect("damage");
        let refused = store.latest_now().expect_err("nothing whole");
        assert_eq!(refused.class(), ErrorClass::Config, "{refused}");
        let _ = fs::remove_dir_all(&store.dir);
    }
}
