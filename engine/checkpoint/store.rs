//! Where checkpoints are kept: the contract of every place, and the form they have there.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::checkpoint::manifest::{FORMAT, Manifest, TaskId};
use crate::checkpoint::upgrade::{FirstName, upgrade};
use crate::error::{Error, Result};
use crate::message::Epoch;
use crate::state::Snapshot;

/// The state of every operator, by task and name.
pub type States = Vec<(TaskId, String, Snapshot)>;

/// Checkpoints kept: the newest, and two to fall back to.
pub const KEPT: usize = 3;

/// What the names of manifests end with.
pub const MANIFEST: &str = ".manifest.json";

/// What the names of state files end with.
pub const STATE: &str = ".state";

/// The checkpoints of one pipeline.
///
/// A store may be shared by processes that should not run at the same time but do: a slow write of one that
/// crashed, a stale twin. So creation is conditional, and one writer owns an epoch.
#[async_trait]
pub trait CheckpointStore: Send + Sync {
    /// Makes a checkpoint durable; `manifest.state` and `manifest.files` are filled in here. Whoever called with an error of
    /// class retry does not know whether it was made, and calls again with the same arguments: that must
    /// succeed. An epoch that another writer took, or one that is older than the newest there is, is an error of
    /// class data, see [`taken`].
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

/// Reads a manifest's text; `place` is for people, `first_name` gives the state file's name in checkpoints of format 1.
/// A newer format is an error of class configuration, anything else that is wrong one of class data.
pub fn decode_manifest(text: &[u8], place: &str, first_name: FirstName) -> Result<Manifest> {
    let damaged = |e: String| Error::data(format!("{place}: {e}"));
    let text = unseal(text).map_err(|e| damaged(e.into()))?;
    let mut value: serde_json::Value = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
    let format = value["format"].as_u64().unwrap_or_default();
    if format > u64::from(FORMAT) {
        return Err(Error::config(format!(
            "{place}: written by a newer millstream (format {format}, this one reads {FORMAT}); run that version"
        )));
    }
    upgrade(&mut value, first_name);
    serde_json::from_value(value).map_err(|e| damaged(e.to_string()))
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

    #[test]
    fn a_newer_format_is_for_a_newer_version() {
        let text = seal(format!(r#"{{"format": {}}}"#, FORMAT + 1).into_bytes());
        let error = decode_manifest(&text, "here", |_, _, _| String::new()).expect_err("newer");
        assert!(matches!(error, Error::Config(_)), "{error}");
        assert!(error.to_string().contains("run that version"), "{error}");
    }
}
