//! Where checkpoints are kept: the contract of every place, and the form they have there.

use std::collections::BTreeMap;

use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use async_trait::async_trait;

use crate::checkpoint::manifest::{FORMAT, Manifest, StatePart, TaskId};
use crate::error::{Error, Result};
use crate::message::Epoch;
use crate::state::{Snapshot, SnapshotPart};

/// The state of every operator, by task and name.
pub type States = Vec<(TaskId, String, Snapshot)>;

/// The checkpoints of one pipeline.
///
/// A store may be shared by processes that should not run at the same time but do: a slow write of one that
/// crashed, a stale twin. So creation is conditional, and one writer owns an epoch.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Makes a checkpoint durable; `manifest.state*` are filled in here. Whoever called with an error of
    /// class retry does not know whether it was made, and calls again with the same arguments: that must
    /// succeed. An epoch that another writer took is an error of class data, see [`taken`].
    async fn save(&self, manifest: Manifest, states: States) -> Result<Manifest>;

    /// The newest checkpoint that is whole; damaged ones are passed over with a warning. When there are
    /// checkpoints and all are damaged, that is an error of class configuration: to start from nothing
    /// would discard what they held, and only a person may decide that.
    async fn latest(&self) -> Result<Option<Restored>>;
}

/// A checkpoint read back.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The checkpoint.
    pub manifest: Manifest,
    /// The state of every operator; several parts of one operator stand together.
    pub states: BTreeMap<(TaskId, String), Snapshot>,
    /// The newest epoch that is taken: later than the manifest's when newer checkpoints are damaged. The
    /// next checkpoint is numbered after it.
    pub newest: Epoch,
}

/// The error for an epoch that another writer took. Not of class retry, since the epoch stays taken: the
/// pipeline starts again from the checkpoint that is there, which lost nothing and published nothing twice,
/// because only the owner of an epoch commits it.
pub fn taken(place: impl std::fmt::Display) -> Error {
    Error::data(format!(
        "{place}: another writer made this checkpoint first; if this happens again and again, two processes share the store"
    ))
}

/// The state file's bytes; fills in `manifest.state*` to match.
pub fn encode(manifest: &mut Manifest, states: States) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    manifest.state.clear();
    for (task, operator, snapshot) in states {
        for part in snapshot.parts {
            let start = bytes.len() as u64;
            let mut writer = StreamWriter::try_new(&mut bytes, &part.rows.schema())?;
            writer.write(&part.rows)?;
            writer.finish()?;
            drop(writer);
            manifest.state.push(StatePart {
                task: task.clone(),
                operator: operator.clone(),
                label: part.label,
                start,
                bytes: bytes.len() as u64 - start,
            });
        }
    }
    manifest.state_bytes = bytes.len() as u64;
    manifest.state_crc = crc32fast::hash(&bytes);
    Ok(bytes)
}

/// What the last line of a manifest starts with; the checksum (CRC32, IEEE) of the text before follows in
/// hexadecimal. A flipped digit of an offset is valid JSON too, so parsing is no check.
const CHECKSUM: &str = "crc32 ";

/// A manifest's text with its checksum line.
pub fn encode_manifest(manifest: &Manifest) -> Result<Vec<u8>> {
    let text = serde_json::to_vec_pretty(manifest).map_err(|e| Error::bug(e.to_string()))?;
    Ok(seal(text))
}

fn seal(mut text: Vec<u8>) -> Vec<u8> {
    let line = format!("\n{CHECKSUM}{:08x}\n", crc32fast::hash(&text));
    text.extend_from_slice(line.as_bytes());
    text
}

/// The text before the checksum line, if that is right.
fn unseal(sealed: &[u8]) -> Result<&[u8], &'static str> {
    let end = sealed.strip_suffix(b"\n").ok_or("torn")?;
    let line = end.iter().rposition(|b| *b == b'\n').ok_or("torn")?;
    let (text, line) = (&end[..line], &end[line + 1..]);
    match line == format!("{CHECKSUM}{:08x}", crc32fast::hash(text)).as_bytes() {
        true => Ok(text),
        false => Err("checksum mismatch"),
    }
}

/// Reads a manifest's text; `place` is for people. A newer format is an error of class configuration,
/// anything else that is wrong one of class data.
pub fn decode_manifest(text: &[u8], place: &str) -> Result<Manifest> {
    let text = unseal(text).map_err(|e| Error::data(format!("{place}: {e}")))?;
    let manifest: Manifest =
        serde_json::from_slice(text).map_err(|e| Error::data(format!("{place}: {e}")))?;
    if manifest.format > FORMAT {
        return Err(Error::config(format!(
            "{place}: written by a newer millstream (format {}, this one reads {FORMAT}); run that version",
            manifest.format
        )));
    }
    Ok(manifest)
}

/// The states in a state file's bytes; an error of class data when they are not what `manifest` says.
pub fn decode_states(
    manifest: &Manifest,
    bytes: &[u8],
    place: &str,
) -> Result<BTreeMap<(TaskId, String), Snapshot>> {
    if bytes.len() as u64 != manifest.state_bytes || crc32fast::hash(bytes) != manifest.state_crc {
        return Err(Error::data(format!("{place}: checksum mismatch")));
    }
    let mut states: BTreeMap<(TaskId, String), Snapshot> = BTreeMap::new();
    for part in &manifest.state {
        let range = part.start as usize..(part.start + part.bytes) as usize;
        let rows = bytes
            .get(range)
            .ok_or_else(|| Error::data(format!("{place}: a part lies outside the file")))?;
        let key = (part.task.clone(), part.operator.clone());
        let parts = &mut states.entry(key).or_default().parts;
        parts.push(decode_part(&part.label, rows)?);
    }
    Ok(states)
}

fn decode_part(label: &str, bytes: &[u8]) -> Result<SnapshotPart> {
    let mut reader = StreamReader::try_new(bytes, None)?;
    let rows = reader
        .next()
        .ok_or_else(|| Error::data("a state part holds no rows"))??;
    Ok(SnapshotPart {
        label: label.into(),
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_damage_to_a_manifest_passes() {
        let text = br#"{"epoch": 8, "offsets": {"lane-0": "4711"}}"#;
        let whole = seal(text.to_vec());
        assert_eq!(unseal(&whole), Ok(&text[..]));
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(unseal(&flipped).is_err(), "byte {at}");
            assert!(unseal(&whole[..at]).is_err(), "cut at {at}");
        }
    }
}
