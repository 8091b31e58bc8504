//! When reading of a stream first began, for `start = "latest"`.
//!
//! Until the first checkpoint nothing says where reading stood, and "latest" at the next start would be another
//! place: what arrived in between would be lost. So the time of the first start is kept in a file of the source's
//! own, and from then on "latest" means what arrived then or later.

use std::io::{ErrorKind, Write};
use std::path::Path;

use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::formats::time::timestamp;

const FILE: &str = "started.json";

/// What the file says.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Started {
    /// The stream; another one begins anew.
    stream: String,
    /// RFC 3339.
    at: String,
}

/// When reading of `stream` first began, if that is known.
pub(super) fn known(dir: &Path, stream: &str) -> Result<Option<Timestamp>> {
    let file = dir.join(FILE);
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(cannot("read", &file, e)),
    };
    let started: Started = serde_json::from_slice(&text).map_err(|e| cannot("read", &file, e))?;
    match timestamp(&started.at) {
        Some(at) if started.stream == stream => Ok(Some(Timestamp(at))),
        Some(_) => Ok(None),
        None => Err(cannot("read", &file, format!("{:?} is not a time", started.at))),
    }
}

/// Remembers that it begins now.
pub(super) fn remember(dir: &Path, stream: &str, at: Timestamp) -> Result<()> {
    let file = dir.join(FILE);
    let started = Started {
        stream: stream.into(),
        at: at.to_string(),
    };
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let new = dir.join(format!("{FILE}.new"));
        let mut to = std::fs::File::create(&new)?;
        to.write_all(&serde_json::to_vec(&started)?)?;
        to.sync_all()?;
        std::fs::rename(&new, &file)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().map_err(|e| cannot("write", &file, e))
}

fn cannot(do_what: &str, file: &Path, e: impl std::fmt::Display) -> Error {
    let file = file.display();
    Error::config(format!(
        "cannot {do_what} {file}, which says when reading first began: {e}; check it, or remove it to begin anew"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_is_remembered_for_its_stream() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("sources/clicks");
        let at = Timestamp(1_795_435_200_123_456);
        assert_eq!(known(&dir, "clicks").unwrap(), None);
        remember(&dir, "clicks", at).unwrap();
        assert_eq!(known(&dir, "clicks").unwrap(), Some(at));
        assert_eq!(known(&dir, "others").unwrap(), None);
        std::fs::write(dir.join(FILE), "{").unwrap();
        assert!(known(&dir, "clicks").is_err());
    }
}
