//! The ledger: how much of the log a durable checkpoint covers.
//!
//! The file `released` has two slots of one line, `released <seq> <crc32c>`: every frame with a smaller
//! sequence number may go; the larger slot counts. It is durable before any segment is unlinked, so a log that
//! starts late is either explained by its ledger or has lost a file. It also keeps sequence numbers rising when
//! every segment is gone.
//!
//! Slots are written in turn and in place, so a torn write leaves the number before it, and so that releasing
//! needs no space: writing a new file and renaming it fails on a full disk, which then stays full for ever.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use millstream_engine::{Error, Result};

use super::disk::{io_error, replace_file};

const FILE: &str = "released";
const SLOTS: usize = 2;
/// Slots do not share a page, nor a sector, so a torn write cannot hit both.
const SLOT_BYTES: usize = 4096;

/// Where the ledger of the log in `dir` is.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// The released sequence number; 0 when nothing ever was.
pub(super) fn load(dir: &Path) -> Result<u64> {
    let path = path(dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(io_error("read", &path, e)),
    };
    slots(&bytes).into_iter().flatten().max().ok_or_else(|| {
        Error::config(format!(
            "ingest log: the ledger {} is damaged; run `millstream log repair`, which moves it aside and keeps every \
             frame",
            path.display()
        ))
    })
}

/// The ledger of a log that is in use.
pub(super) struct Ledger {
    file: File,
    path: PathBuf,
    slot: usize,
}

impl Ledger {
    /// Opens the ledger of `dir`, which says `released`, or creates it.
    pub fn open(dir: &Path, released: u64) -> Result<Ledger> {
        let path = path(dir);
        let open = || {
            if !path.exists() {
                replace_file(&path, &slot_bytes(released).repeat(SLOTS))?;
            }
            let larger = slots(&fs::read(&path)?)[1] == Some(released);
            Ok((OpenOptions::new().write(true).open(&path)?, usize::from(!larger)))
        };
        let (file, slot) = open().map_err(|e| io_error("open", &path, e))?;
        Ok(Ledger { file, path, slot })
    }

    /// Makes `upto`, which is larger than any before, the released sequence number, durably.
    pub fn store(&mut self, upto: u64) -> Result<()> {
        let at = (self.slot * SLOT_BYTES) as u64;
        let write = self
            .file
            .write_all_at(&slot_bytes(upto), at)
            .and_then(|()| self.file.sync_data());
        write.map_err(|e| io_error("write", &self.path, e))?;
        self.slot = (self.slot + 1) % SLOTS;
        Ok(())
    }
}

/// A line and blank ones, so that the file is text.
fn slot_bytes(upto: u64) -> Vec<u8> {
    let mut slot = line(upto).into_bytes();
    slot.resize(SLOT_BYTES, b'\n');
    slot
}

fn line(upto: u64) -> String {
    format!("released {upto} {:08x}", crc32c::crc32c(&upto.to_le_bytes()))
}

fn slots(bytes: &[u8]) -> [Option<u64>; SLOTS] {
    std::array::from_fn(|i| parse(bytes.get(i * SLOT_BYTES..)?))
}

fn parse(slot: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(slot.split(|b| *b == b'\n').next()?).ok()?;
    let upto = text.split(' ').nth(1)?.parse().ok()?;
    (text == line(upto)).then_some(upto)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_torn_writes_and_detects_damage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), 0);
        for upto in [41, 4200, 123_456] {
            let released = load(dir.path()).unwrap();
            let mut ledger = Ledger::open(dir.path(), released).unwrap();
            let before = fs::read(path(dir.path())).unwrap();
            ledger.store(upto).unwrap();
            let after = fs::read(path(dir.path())).unwrap();
            assert_eq!(load(dir.path()).unwrap(), upto);
            for i in (0..before.len()).filter(|i| before[*i] != after[*i]) {
                let torn = [&after[..i], &before[i..]].concat();
                fs::write(path(dir.path()), torn).unwrap();
                assert_eq!(load(dir.path()).unwrap(), released, "torn at byte {i}");
            }
            let mut both = after.clone();
            (both[0], both[SLOT_BYTES]) = (b'R', b'R');
            for bad in [&both[..], b"", b"released 7"] {
                fs::write(path(dir.path()), bad).unwrap();
                assert!(load(dir.path()).is_err(), "damage went unnoticed");
            }
            fs::write(path(dir.path()), after).unwrap();
        }
    }
}
