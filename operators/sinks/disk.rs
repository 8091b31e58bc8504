//! Files that sinks keep until they are published: made durable, and removed.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use millstream_engine::{Error, Result};

/// Makes names created in or moved into `dir` survive a power cut.
pub(super) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(|e| cannot("sync", dir, e))
}

/// As `mkdir -p`, with every new name made durable.
pub(super) fn create_dirs(dir: &Path) -> Result<()> {
    if dir.as_os_str().is_empty() || dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().unwrap_or(Path::new(""));
    create_dirs(parent)?;
    match fs::create_dir(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(cannot("create", dir, e)),
        _ if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        _ => sync_dir(parent),
    }
}

/// Removes the files of `dir` whose names start with `prefix` and satisfy `unwanted`.
pub(super) fn remove_files(dir: &Path, prefix: &str, unwanted: impl Fn(&str) -> bool) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(cannot("list", dir, e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| cannot("list", dir, e))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && unwanted(&name) {
            fs::remove_file(entry.path()).map_err(|e| cannot("remove", &entry.path(), e))?;
        }
    }
    Ok(())
}

/// An error of the disk under files that are not published yet. It is not tried again in place: a writer that failed
/// halfway is of no more use, and what it held is replayed from the checkpoint when the pipeline starts again. On a
/// full disk that happens by itself, with growing waits, until there is space; anything else stops the pipeline.
pub(super) fn cannot(do_what: &str, path: &Path, e: impl Display) -> Error {
    let (path, e) = (path.display(), e.to_string());
    if is_full(&e) {
        return Error::data(format!(
            "cannot {do_what} {path}: {e}; free some space: the pipeline goes on from its last checkpoint"
        ));
    }
    Error::config(format!(
        "cannot {do_what} {path}: {e}; check the disk and the directory's permissions, then start the pipeline again: \
         it resumes from its last checkpoint"
    ))
}

/// Told by the text that the operating system's errors end with, as Parquet hands them on as text only: ENOSPC and
/// EDQUOT, whose numbers are the same on every Linux.
fn is_full(e: &str) -> bool {
    e.contains("(os error 28)") || e.contains("(os error 122)")
}
