//! Checkpoints on a local disk.
//!
//! The state file is written and fsynced first. The manifest is written under a temporary name, fsynced and
//! then *linked* to its own name, which fails if that name exists: one writer owns an epoch. A torn or
//! corrupt checkpoint is passed over, with a warning, for the one before.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::checkpoint::garbage::{Named, TEMPORARY, epochs, garbage, kept};
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::parts::{Earlier, decode};
use crate::checkpoint::store::{
    CheckpointStore, MANIFEST, Restored, STATE, States, decode_manifest, encode_manifest, taken,
};
use crate::error::{Error, Result};
use crate::message::Epoch;

/// The checkpoints of one pipeline in a directory of their own.
#[derive(Clone, Debug)]
pub struct DiskStore {
    dir: PathBuf,
    known: Arc<Mutex<Known>>,
}

/// What is there, as far as this process has seen it.
#[derive(Debug, Default)]
struct Known {
    earlier: Earlier,
    named: Named,
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
        let known = Arc::default();
        Ok(DiskStore { dir, known })
    }

    fn save_now(&self, mut manifest: Manifest, states: States) -> Result<Manifest> {
        let mut known = self.known.lock().expect("nothing panics while it saves");
        let encoded = known.earlier.encode(&mut manifest, states)?;
        let text = encode_manifest(&manifest)?;
        let target = self.manifest(manifest.epoch);
        if !target.exists() {
            if let Some((file, bytes)) = &encoded.file {
                let state = self.dir.join(&file.name);
                write_durably(&state, bytes).map_err(|e| at(&state, e))?;
            }
            match self.create(manifest.epoch, &text) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(at(&target, e)),
                _ => {}
            }
        }
        // Ours, if an earlier try got this far and failed after it.
        if fs::read(&target).map_err(|e| at(&target, e))? != text {
            return Err(taken(target.display()));
        }
        self.sync().map_err(|e| at(&self.dir, e))?;
        let names = self.names()?;
        // The epoch was free because its checkpoint is long gone: a newer one says that we are the stale writer.
        if epochs(names.iter().map(String::as_str)).last() > Some(&manifest.epoch) {
            return Err(taken(target.display()));
        }
        known.earlier = encoded.next;
        known.named.learn(&manifest);
        self.collect(&names, &mut known.named);
        Ok(manifest)
    }

    fn latest_now(&self) -> Result<Option<Restored>> {
        let epochs = epochs(self.names()?.iter().map(String::as_str));
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
        let manifest = self.read_manifest(epoch)?;
        let files = manifest.files.iter().map(|file| read(&self.dir.join(&file.name)));
        let files: Vec<Vec<u8>> = files.collect::<Result<_>>()?;
        let decoded = decode(&manifest, &files, &self.dir.display().to_string())?;
        self.known.lock().expect("nothing panics while it saves").earlier = decoded.next;
        Ok(Restored {
            manifest,
            states: decoded.states,
            newest: epoch,
        })
    }

    fn read_manifest(&self, epoch: Epoch) -> Result<Manifest> {
        let path = self.manifest(epoch);
        let first_name = |epoch, _, _| format!("{epoch:020}{STATE}");
        decode_manifest(&read(&path)?, &path.display().to_string(), first_name)
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.dir).map_err(|e| at(&self.dir, e))?;
        entries
            .map(|entry| match entry {
                Ok(entry) => Ok(entry.file_name().to_string_lossy().into_owned()),
                Err(e) => Err(at(&self.dir, e)),
            })
            .collect()
    }

    /// Conditional create of a manifest: an error if it exists. The name is durable after [`DiskStore::sync`].
    fn create(&self, epoch: Epoch, text: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join(format!("{:020}{TEMPORARY}", epoch.0));
        write_durably(&temporary, text)?;
        // The state file's name must not come after the manifest's.
        self.sync()?;
        fs::hard_link(&temporary, self.manifest(epoch))?;
        fs::remove_file(&temporary)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// Deletes what no kept checkpoint needs. Leftovers cost space, not correctness, so a failure is only logged.
    fn collect(&self, names: &[String], named: &mut Named) {
        let epochs = epochs(names.iter().map(String::as_str));
        let kept = kept(&epochs);
        for epoch in named.unread(kept) {
            // One that cannot be read is warned about by recovery.
            if let Ok(manifest) = self.read_manifest(epoch) {
                named.learn(&manifest);
            }
        }
        for name in garbage(names.iter().map(String::as_str), kept, named.by(kept).as_ref()) {
            if let Err(error) = fs::remove_file(self.dir.join(name)) {
                tracing::warn!(%error, name, dir = %self.dir.display(), "cannot delete an old checkpoint");
            }
        }
    }

    fn manifest(&self, epoch: Epoch) -> PathBuf {
        self.dir.join(format!("{:020}{MANIFEST}", epoch.0))
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

    use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt64Array};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::checkpoint::manifest::{FORMAT, TaskId};
    use crate::error::ErrorClass;
    use crate::state::Snapshot;
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
            files: Vec::new(),
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
            store
                .save_now(manifest(epoch, 10), states(&[rows(epoch)]))
                .expect("save");
        }
        assert_eq!(latest(&store), (2, 2));
        fs::write(store.manifest(Epoch(2)), "{").expect("damage");
        assert_eq!(latest(&store), (1, 2));
        let files = store.read_manifest(Epoch(1)).expect("whole").files;
        fs::write(store.dir.join(&files[0].name), "x").expect("damage");
        let refused = store.latest_now().expect_err("nothing whole");
        assert_eq!(refused.class(), ErrorClass::Config, "{refused}");
        let _ = fs::remove_dir_all(&store.dir);
    }

    /// A process that was stopped for so long that its epoch's checkpoint has been made, used and deleted.
    #[test]
    fn a_stale_writer_is_refused_even_where_its_epoch_is_free_again() {
        let store = store("stale");
        let stale = DiskStore::open(&store.dir).expect("open");
        stale.save_now(manifest(1, 10), states(&[rows(1)])).expect("save");
        for epoch in 2..=6 {
            store
                .save_now(manifest(epoch, 20), states(&[rows(epoch)]))
                .expect("save");
        }
        assert!(!store.manifest(Epoch(2)).exists(), "it has been deleted");
        let refused = stale
            .save_now(manifest(2, 11), states(&[rows(2)]))
            .expect_err("stale");
        assert_eq!(refused.class(), ErrorClass::Data, "{refused}");
        assert_eq!(latest(&store), (6, 6));
        let _ = fs::remove_dir_all(&store.dir);
    }

    /// What does not change is written once, stays while a kept checkpoint names it, and is read back by another process,
    /// which does not write it again either.
    #[test]
    fn what_does_not_change_is_written_once() {
        let store = store("once");
        let (large, mut other) = (rows(10_000), DiskStore::open(&store.dir).expect("open"));
        let large_file = |store: &DiskStore| {
            let names = store.names().expect("names").into_iter();
            let bytes = |name: &String| fs::metadata(store.dir.join(name)).map_or(0, |m| m.len());
            names.filter(|name| bytes(name) > 50_000).collect::<Vec<_>>()
        };
        for epoch in 1..=8 {
            store
                .save_now(manifest(epoch, 10), states(&[large.clone(), rows(epoch)]))
                .expect("save");
            assert_eq!(large_file(&store).len(), 1);
            let found = other.latest_now().expect("latest").expect("a checkpoint");
            let parts: Vec<_> = found
                .states
                .into_values()
                .flat_map(|s| s.parts)
                .map(|p| p.rows)
                .collect();
            assert_eq!(parts, [large.clone(), rows(epoch)]);
        }
        let first = large_file(&store);
        assert!(first[0].starts_with(&format!("{:020}-", 1)), "{first:?}");
        // Manifest and state of three checkpoints, and the large file.
        assert_eq!(store.names().expect("names").len(), 7);
        for epoch in 9..=12 {
            other = DiskStore::open(&store.dir).expect("open");
            let found = other.latest_now().expect("latest").expect("a checkpoint");
            let parts: Vec<_> = found
                .states
                .into_values()
                .flat_map(|s| s.parts)
                .map(|p| p.rows)
                .collect();
            other
                .save_now(manifest(epoch, 10), states(&parts[..1]))
                .expect("save");
        }
        assert_eq!(large_file(&store), first);
        assert_eq!(store.names().expect("names").len(), 4, "{:?}", store.names());
        // Half of a file is not enough to keep it.
        other
            .save_now(manifest(13, 10), states(&[large.slice(0, 10), rows(1)]))
            .expect("save");
        for epoch in 14..=16 {
            other.save_now(manifest(epoch, 10), States::new()).expect("save");
        }
        assert_eq!(store.names().expect("names").len(), 3, "{:?}", store.names());
        let _ = fs::remove_dir_all(&store.dir);
    }

    /// A checkpoint as the first version of the format had it, written by that version: it is read, and what has not
    /// changed since need not be written again.
    #[test]
    fn a_checkpoint_of_the_first_format_is_read_and_gone_on_from() {
        let store = store("first");
        let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoint/testdata/format-1");
        let names = ["00000000000000000004.manifest.json", "00000000000000000004.state"];
        for name in names {
            fs::copy(old.join(name), store.dir.join(name)).expect("a copy");
        }
        let mut found = store.latest_now().expect("latest").expect("a checkpoint");
        assert_eq!((found.manifest.format, found.manifest.epoch), (FORMAT, Epoch(4)));
        let partition = TaskId::Partition {
            source: "clicks".into(),
            partition: "lane-1".into(),
        };
        let key = (partition, "sql.per_ad/local.0".to_string());
        let clicks = &found.states[&key].parts[0].rows;
        let ads = clicks.column(0).as_string::<i32>().iter().flatten();
        let counts = clicks.column(1).as_primitive::<Int64Type>().values();
        let clicks: Vec<_> = ads.zip(counts.iter().copied()).collect();
        assert_eq!(clicks, [("a", 2), ("b", 1)]);

        let states = |of: &Restored| -> States {
            let of = of.states.clone().into_iter();
            of.map(|((task, operator), state)| (task, operator, state))
                .collect()
        };
        for epoch in 5..=9 {
            let next = Manifest {
                epoch: Epoch(epoch),
                ..found.manifest.clone()
            };
            store.save_now(next, states(&found)).expect("save");
            let again = store.latest_now().expect("latest").expect("a checkpoint");
            assert_eq!(states(&again).len(), states(&found).len());
            assert_eq!(
                again.manifest.files, found.manifest.files,
                "nothing is written again"
            );
            found = again;
        }
        let names = store.names().expect("names");
        assert!(
            names.iter().any(|name| name == "00000000000000000004.state"),
            "{names:?}"
        );
        assert_eq!(names.len(), 4, "three manifests and the old file: {names:?}");
        let _ = fs::remove_dir_all(&store.dir);
    }

    fn rows(n: u64) -> RecordBatch {
        let numbers = UInt64Array::from_iter_values(0..n);
        RecordBatch::try_from_iter([("n", Arc::new(numbers) as ArrayRef)]).expect("rows")
    }

    fn states(parts: &[RecordBatch]) -> States {
        let mut of = Snapshot::default();
        for rows in parts {
            of.push("part", rows.clone());
        }
        vec![(TaskId::Query("q".into()), "sql.q/global".into(), of)]
    }
}
