//! What a checkpoint consists of.
//!
//! ```text
//! <epoch>-<crc>-<bytes>.state   Arrow IPC streams, one after the other
//! <epoch>.manifest.json         this module's Manifest and a checksum line; the checkpoint exists once this file does
//! ```
//!
//! A state file holds what has changed: a part that is the same as in the checkpoint before stays where it is, and
//! the manifest names the earlier file ([`crate::checkpoint::parts`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::message::Epoch;
use crate::sink::Committable;
use crate::source::Offsets;
use crate::time::Timestamp;

/// Version of the format; a newer one is refused, an older one is upgraded on reading, see
/// [`crate::checkpoint::upgrade`].
pub const FORMAT: u32 = 2;

/// A checkpoint. Immutable once written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`] at the time of writing.
    pub format: u32,
    /// Name of the pipeline.
    pub pipeline: String,
    /// Number of the checkpoint.
    pub epoch: Epoch,
    /// When it was made.
    pub at: Timestamp,
    /// Nothing was open: the pipeline had stopped or ended.
    pub last: bool,
    /// A fingerprint of every node, see [`crate::checkpoint::changes`]; none in checkpoints of early versions.
    #[serde(default)]
    pub nodes: BTreeMap<String, String>,
    /// How far each source was read.
    pub sources: BTreeMap<String, SourceState>,
    /// Where each operator's state is.
    pub state: Vec<StatePart>,
    /// The files that hold it, each named by a part: its own, and those of earlier checkpoints.
    pub files: Vec<StateFile>,
    /// What each sink was to publish.
    pub sinks: BTreeMap<String, Committable>,
}

/// How far a source was read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SourceState {
    /// The next thing to read, per partition.
    pub offsets: Offsets,
    /// The smallest watermark any of its partitions had sent.
    pub watermark: Option<Timestamp>,
}

/// A file of operator state. Immutable; its name says its content, so writers never meet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateFile {
    /// Its name in the store.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// CRC32 (IEEE) of its content.
    pub crc: u32,
}

/// A piece of operator state in a state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatePart {
    /// The task that had it.
    pub task: TaskId,
    /// Name of the operator in the task.
    pub operator: String,
    /// The operator's own label.
    pub label: String,
    /// Index of the file in the manifest's list.
    pub file: usize,
    /// First byte in the file.
    pub start: u64,
    /// Bytes in the file.
    pub bytes: u64,
}

/// A task that has state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskId {
    /// A partition of a source.
    Partition {
        /// The source.
        source: String,
        /// The partition.
        partition: String,
    },
    /// The task behind all partitions of a source that drops duplicates.
    Source(String),
    /// The task behind all partitions that finds the sessions of a window.
    Window(String),
    /// A query's global half.
    Query(String),
    /// A dedup of a stream.
    Dedup(String),
}
