//! The few calls on which durability rests, behind a trait so that tests can make them fail.
//!
//! Everything else (opening, renaming, listing) goes through `std::fs` with [`io_error`], which sorts
//! failures by who must act.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_engine::{Error, Result};

/// Delay named to clients when the disk or the log is full. Space comes back with a checkpoint (10 s by
/// default), so sooner makes little sense and later would idle clients after it.
pub(super) const FULL_RETRY_AFTER: Duration = Duration::from_secs(2);

/// What the write path asks of the operating system.
pub(super) trait Disk: Send + Sync {
    /// Appends some of `slices` to `file`; how many bytes.
    fn write(&self, file: &File, slices: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Makes everything written to `file` durable, its length included.
    fn sync(&self, file: &File) -> io::Result<()>;
    /// Bytes that may still be written to the filesystem of `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// The real one.
pub(super) struct OsDisk;

impl Disk for OsDisk {
    fn write(&self, mut file: &File, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        file.write_vectored(slices)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// Writes all of `slices`, however many calls that takes.
pub(super) fn write_all(disk: &dyn Disk, file: &File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match disk.write(file, slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Makes creations, renames and removals in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` and what is missing above it, durably.
pub(super) fn create_dir(dir: &Path) -> Result<()> {
    let failed = |e| io_error("create directory", dir, e);
    let missing: Vec<PathBuf> = dir
        .ancestors()
        .take_while(|d| !d.as_os_str().is_empty() && !d.exists())
        .map(PathBuf::from)
        .collect();
    std::fs::create_dir_all(dir).map_err(failed)?;
    for parent in missing.iter().filter_map(|d| d.parent()) {
        let parent = if parent.as_os_str().is_empty() {
            Path::new(".")
        } else {
            parent
        };
        sync_dir(parent).map_err(failed)?;
    }
    Ok(())
}

/// Replaces the file at `path` with `bytes`: after a crash it holds either the old content or the new,
/// and after a return the new.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(TEMPORARY);
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// Extension of files that are being written and not yet renamed to what they are; removed on open.
pub(super) const TEMPORARY: &str = "tmp";

/// Whether the filesystem or a quota is exhausted: the one write error that passes by itself.
pub(super) fn is_full(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// An I/O error with what was done and where.
pub(super) fn io_error(what: &str, path: &Path, e: io::Error) -> Error {
    let message = format!("ingest log: cannot {what} {}: {e}", path.display());
    if is_full(&e) {
        return Error::Retry {
            message,
            after: Some(FULL_RETRY_AFTER),
        };
    }
    match e.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::NotFound
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::InvalidData
        | io::ErrorKind::Unsupported => Error::Config(message),
        _ => Error::retry(message),
    }
}
