//! Datapoints on their way out, checkpoint by checkpoint, and what is known about each: not sent yet, sent, or *in
//! doubt*, when somebody may have sent it and not lived to say so.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use millstream_engine::message::Epoch;
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::super::disk::{cannot, create_dirs, sync_dir};
use super::points::Point;

/// The datapoints of a checkpoint. A checkpoint's promise holds its own, and those of earlier checkpoints that were
/// not known to be sent when it was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Prepared {
    #[serde(flatten)]
    pub id: PreparedId,
    #[serde(with = "text")]
    pub points: Vec<Point>,
    /// In doubt: if they have not shown by then, they were not sent.
    #[serde(skip)]
    pub settled: Option<Instant>,
}

/// Datapoints as one text of JSON: a promise is copied on its way into the manifest, and a tree of a hundred thousand
/// objects takes as long to copy as to send.
mod text {
    use serde::de::Error as _;
    use serde::ser::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Point;

    pub fn serialize<S: Serializer>(points: &[Point], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&serde_json::to_string(points).map_err(S::Error::custom)?)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Point>, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            /// By earlier versions.
            Points(Vec<Point>),
        }
        match Written::deserialize(from)? {
            Written::Text(text) => serde_json::from_str(&text).map_err(D::Error::custom),
            Written::Points(points) => Ok(points),
        }
    }
}

/// Names the datapoints of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PreparedId {
    pub epoch: Epoch,
    /// When they were prepared: a pipeline whose checkpoints were deleted counts its epochs from the start again.
    #[serde(default = "unknown")]
    made: Timestamp,
}

fn unknown() -> Timestamp {
    Timestamp::MIN
}

impl PreparedId {
    pub fn new(epoch: Epoch) -> PreparedId {
        PreparedId {
            epoch,
            made: Timestamp::now(),
        }
    }
}

/// Takes up a promise that an earlier life of the sink made: what follows `committed` is in doubt.
pub(super) fn adopt(
    promised: Vec<Prepared>,
    committed: Option<PreparedId>,
    settle: Duration,
) -> Vec<Prepared> {
    let done = promised.iter().position(|p| Some(p.id) == committed);
    let settled = Some(Instant::now() + settle);
    let rest = promised.into_iter().skip(done.map_or(0, |last| last + 1));
    rest.map(|p| Prepared { settled, ..p }).collect()
}

/// Remembers, on disk, the last datapoints that are known to be sent, so that a restart has nothing to doubt.
pub(super) struct Marker {
    dir: PathBuf,
}

impl Marker {
    pub fn new(dir: PathBuf) -> Marker {
        Marker { dir }
    }

    /// None where nothing is known, which only costs a read-back.
    pub fn read(&self) -> Option<PreparedId> {
        let text = fs::read(self.dir.join("committed")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// A failure is only logged: without the mark, the next life reads back.
    pub async fn write(&self, id: PreparedId) {
        let dir = self.dir.clone();
        let written = tokio::task::spawn_blocking(move || write(&dir, id)).await;
        let written = written.unwrap_or_else(|e| Err(Error::bug(format!("fsync task: {e}"))));
        if let Err(error) = written {
            tracing::warn!(%error, "cannot note what was sent; a restart will read it back");
        }
    }
}

fn write(dir: &Path, id: PreparedId) -> Result<()> {
    create_dirs(dir)?;
    let (temporary, target) = (dir.join("committed.tmp"), dir.join("committed"));
    let written = || -> io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&id)?)?;
        file.sync_all()?;
        fs::rename(&temporary, &target)
    };
    written().map_err(|e| cannot("write", &target, e))?;
    sync_dir(dir)
}
