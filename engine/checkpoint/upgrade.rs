//! Reads manifests that earlier versions wrote: each step takes one from a format to the next, as JSON, so that the
//! rest of the code knows the current format only. A checkpoint is upgraded when it is read; the next one is written
//! in the current format, and the old ones go with time.

use serde_json::{Value, json};

/// The name of a state file of format 1, from epoch, CRC and length; places differed in it.
pub type FirstName = fn(u64, u64, u64) -> String;

/// Brings a manifest to the current format.
pub fn upgrade(manifest: &mut Value, first_name: FirstName) {
    if manifest["format"] == json!(1) {
        to_second(manifest, first_name);
    }
}

/// Format 2: parts of the state may lie in files of earlier checkpoints. In format 1 there is one file, whose name the
/// manifest does not say.
fn to_second(manifest: &mut Value, first_name: FirstName) {
    let number = |key: &str| manifest[key].as_u64().unwrap_or_default();
    let (epoch, crc, bytes) = (number("epoch"), number("state_crc"), number("state_bytes"));
    let file = json!({ "name": first_name(epoch, crc, bytes), "bytes": bytes, "crc": crc });
    for part in manifest["state"].as_array_mut().into_iter().flatten() {
        part["file"] = json!(0);
    }
    // Without a part, nobody needs the file.
    let is_empty = manifest["state"].as_array().is_none_or(Vec::is_empty);
    manifest["files"] = if is_empty { json!([]) } else { json!([file]) };
    manifest["format"] = json!(2);
}
