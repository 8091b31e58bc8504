//! The files in which rows wait to be sent, one per checkpoint. What stands in them is the sink's affair.
//!
//! A file is written under the name of an open one, and is there under its checkpoint's name only when it is whole and
//! on disk.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use millstream_engine::message::Epoch;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::disk::{cannot, create_dirs, remove_files, sync_dir};

/// What the names of all outbox files start with.
const PREFIX: &str = "outbox-";

/// The rows of one checkpoint, fsynced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    /// The checkpoint, by which the file is named.
    pub epoch: Epoch,
}

/// The files of one sink.
pub(super) struct OutboxFiles {
    dir: PathBuf,
    extension: &'static str,
}

impl OutboxFiles {
    pub fn new(dir: PathBuf, extension: &'static str) -> OutboxFiles {
        OutboxFiles { dir, extension }
    }

    /// Creates the file of the checkpoint to come.
    pub fn create(&self) -> Result<File> {
        create_dirs(&self.dir)?;
        let path = self.open_path();
        File::create(&path).map_err(|e| cannot("create", &path, e))
    }

    /// Makes the open file durable; `finish` writes what is still to be written, and blocks.
    pub async fn seal(
        &self,
        epoch: Epoch,
        finish: impl FnOnce(&Path) -> Result<File> + Send + 'static,
    ) -> Result<Sealed> {
        let sealed = Sealed { epoch };
        let (from, to, dir) = (self.open_path(), self.path(&sealed), self.dir.clone());
        let done = tokio::task::spawn_blocking(move || {
            let file = finish(&from)?;
            file.sync_all().map_err(|e| cannot("sync", &from, e))?;
            fs::rename(&from, &to).map_err(|e| cannot("rename", &from, e))?;
            sync_dir(&dir)
        });
        done.await.map_err(|e| Error::bug(format!("fsync task: {e}")))??;
        Ok(sealed)
    }

    /// Where the rows of a checkpoint lie.
    pub fn path(&self, of: &Sealed) -> PathBuf {
        self.named(&of.epoch.0.to_string())
    }

    /// Where the rows of the checkpoint to come lie.
    pub fn open_path(&self) -> PathBuf {
        self.named("open")
    }

    /// Removes the rows of a checkpoint.
    pub fn remove(&self, of: &Sealed) -> Result<()> {
        let path = self.path(of);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(cannot("remove", &path, e)),
            _ => Ok(()),
        }
    }

    /// Removes everything.
    pub fn clear(&self) -> Result<()> {
        remove_files(&self.dir, PREFIX, |_| true)
    }

    fn named(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{PREFIX}{name}.{}", self.extension))
    }
}

/// A file that cannot be read now.
pub(super) fn unreadable(path: &Path, e: impl std::fmt::Display) -> Error {
    Error::retry(format!("cannot read {}: {e}", path.display()))
}
