//! `millstream log repair`: makes a damaged log one that opens again.
//!
//! It takes the log for itself and throws nothing away but a torn tail: bytes that are not frames go to
//! `<segment>.<offset>.corrupt`, good frames stay in their order, and a hole is put where frames were lost,
//! so that readers pass over it. Bytes are aside, durably, before a segment is replaced, so a repair that is
//! interrupted can be run again.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use millstream_engine::{Error, Result};

use super::check::{Corruption, corruption, end_of, gap, ledger_corruption, scan_all};
use super::disk::{TEMPORARY, io_error, sync_dir};
use super::frame::Encoded;
use super::ledger::{self, Ledger};
use super::open::{take_lock, truncate};
use super::scan::{Damage, Scan, scan_frames};
use super::segment::{self, Header};

/// What [`repair`] did.
#[derive(Clone, Debug, Default)]
pub struct RepairReport {
    /// Good frames there are now.
    pub frames: u64,
    /// Bytes cut off the end: a write that was interrupted.
    pub torn_tail_bytes: u64,
    /// What else was changed.
    pub repaired: Vec<Repaired>,
}

/// One repaired corruption.
#[derive(Clone, Debug)]
pub struct Repaired {
    /// What was wrong.
    pub was: Corruption,
    /// Where the bytes are now, if there were any.
    pub moved_to: Option<PathBuf>,
}

/// Makes the log in `dir` one that opens again: cuts a torn tail, moves damage aside and keeps every good
/// frame. Says what was lost. Fails with a configuration error while the log is in use.
pub fn repair(dir: &Path) -> Result<RepairReport> {
    if !dir.is_dir() {
        return Err(Error::config(format!(
            "there is no ingest log at {}",
            dir.display()
        )));
    }
    let _lock = take_lock(dir)?;
    segment::remove_temporaries(dir)?;
    let mut report = RepairReport::default();
    let released = repair_ledger(dir, &mut report)?;
    let scans = scan_all(dir, released)?;
    let headers = known_headers(&scans);
    let mut expected = released.max(1);
    for (at, scanned) in scans.iter().enumerate() {
        if let Some(was) = gap(scanned, expected, released) {
            fill_gap(dir, &was, &headers)?;
            report.repaired.push(Repaired { was, moved_to: None });
        }
        let following = scans.get(at + 1).map(|next| next.first_seq);
        repair_segment(dir, scanned, following, &headers, &mut report)?;
        expected = end_of(scanned, following).max(released);
    }
    sync_dir(dir).map_err(|e| io_error("sync", dir, e))?;
    Ok(report)
}

/// The released sequence number; a damaged ledger is moved aside for one that says that the log begins where
/// it does, since nobody knows better.
fn repair_ledger(dir: &Path, report: &mut RepairReport) -> Result<u64> {
    match ledger::load(dir) {
        Err(Error::Config(reason)) => {
            let was = ledger_corruption(dir, reason);
            let moved_to = Some(move_aside(&was.segment)?);
            report.repaired.push(Repaired { was, moved_to });
            let released = segment::list(dir)?.first().map_or(0, |(first_seq, _)| *first_seq);
            Ledger::open(dir, released)?;
            Ok(released)
        }
        released => released,
    }
}

/// One header for each pair of schemas in the log.
fn known_headers(scans: &[Scan]) -> Vec<Header> {
    let headers = scans.iter().filter_map(|s| s.header.clone());
    headers
        .map(|h| (h.fingerprint, h))
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .collect()
}

fn repair_segment(
    dir: &Path,
    found: &Scan,
    following: Option<u64>,
    headers: &[Header],
    report: &mut RepairReport,
) -> Result<()> {
    let salvaged = match &found.header {
        Some(_) => None,
        None => match salvage(found, headers)? {
            Some(salvaged) => Some(salvaged),
            None => return give_up(dir, found, following, headers, report),
        },
    };
    let scanned = salvaged.as_ref().unwrap_or(found);
    let Some(header) = &scanned.header else {
        return Ok(());
    };
    report.frames += scanned.frames;
    let mut repaired = Vec::new();
    if salvaged.is_some() {
        let was = Corruption {
            bytes: header.len(),
            lost: None,
            ..corruption(&found.path, &found.damage[0], None)
        };
        repaired.push(copy_aside(was)?);
    }
    let torn = if following.is_none() { scanned.tail() } else { None };
    let damage = &scanned.damage[..scanned.damage.len() - usize::from(torn.is_some())];
    for d in damage {
        repaired.push(copy_aside(corruption(&found.path, d, following))?);
    }
    report.torn_tail_bytes += torn.map_or(0, |d| d.bytes);
    if !repaired.is_empty() {
        rewrite(&found.path, header, &pieces(scanned, damage, following))?;
    } else if let Some(torn) = torn {
        truncate(&found.path, torn.offset)?;
    }
    report.repaired.append(&mut repaired);
    Ok(())
}

/// Reads a segment whose header is damaged under the schemas of the others; frames only pass under their
/// own.
fn salvage(found: &Scan, headers: &[Header]) -> Result<Option<Scan>> {
    let failed = |e| io_error("read", &found.path, e);
    for header in headers {
        let file = File::open(&found.path).map_err(failed)?;
        let scanned =
            scan_frames(&found.path, file, header.at(found.first_seq), found.bytes).map_err(failed)?;
        if scanned.frames > 0 {
            return Ok(Some(scanned));
        }
    }
    Ok(None)
}

/// Moves a segment aside that nothing can be read from.
fn give_up(
    dir: &Path,
    found: &Scan,
    following: Option<u64>,
    headers: &[Header],
    report: &mut RepairReport,
) -> Result<()> {
    let was = corruption(&found.path, &found.damage[0], following);
    let moved_to = Some(move_aside(&found.path)?);
    fill_gap(dir, &was, headers)?;
    report.repaired.push(Repaired { was, moved_to });
    Ok(())
}

/// Puts a segment with nothing but a hole where whole segments are missing.
fn fill_gap(dir: &Path, missing: &Corruption, headers: &[Header]) -> Result<()> {
    let (Some((first, last)), Some(like)) = (missing.lost, headers.first()) else {
        return Ok(());
    };
    rewrite(
        &segment::path_of(dir, first),
        &like.at(first),
        &[Piece::Hole(first, last)],
    )
}

/// What a repaired segment is made of.
enum Piece {
    /// Bytes of the damaged one: offset and length.
    Good(u64, u64),
    /// The first and the last lost frame.
    Hole(u64, u64),
}

/// The good frames of a segment with holes between them.
fn pieces(scanned: &Scan, damage: &[Damage], following: Option<u64>) -> Vec<Piece> {
    let good = scanned
        .good
        .iter()
        .map(|(offset, bytes)| ((*offset, 1), Piece::Good(*offset, *bytes)));
    let holes = damage.iter().filter_map(|d| {
        let (first, last) = corruption(&scanned.path, d, following).lost?;
        Some(((d.offset, 0), Piece::Hole(first, last)))
    });
    let mut pieces: Vec<_> = good.chain(holes).collect();
    pieces.sort_by_key(|(at, _)| *at);
    pieces.into_iter().map(|(_, piece)| piece).collect()
}

/// Replaces the segment at `path`, durably, by `pieces` of what is there.
fn rewrite(path: &Path, header: &Header, pieces: &[Piece]) -> Result<()> {
    let temporary = path.with_extension(TEMPORARY);
    let write = || -> io::Result<()> {
        let mut to = BufWriter::new(File::create(&temporary)?);
        to.write_all(header.as_slice())?;
        for piece in pieces {
            match piece {
                Piece::Good(offset, bytes) => copy_range(path, *offset, *bytes, &mut to)?,
                Piece::Hole(first, last) => {
                    let hole = Encoded::hole(*first, *last, header.fingerprint).map_err(io::Error::other)?;
                    hole.parts().try_for_each(|part| to.write_all(part))?;
                }
            }
        }
        to.into_inner()?.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))
    };
    write().map_err(|e| io_error("rewrite", path, e))
}

fn copy_range(from: &Path, offset: u64, bytes: u64, to: &mut impl Write) -> io::Result<()> {
    let mut file = File::open(from)?;
    file.seek(SeekFrom::Start(offset))?;
    let copied = io::copy(&mut file.take(bytes), to)?;
    if copied == bytes {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Copies the bytes of some damage, if it has any, to a file of their own, durably.
fn copy_aside(was: Corruption) -> Result<Repaired> {
    if was.bytes == 0 {
        return Ok(Repaired { was, moved_to: None });
    }
    let path = aside(&was.segment, was.offset);
    let copy = || {
        let mut file = File::create(&path)?;
        copy_range(&was.segment, was.offset, was.bytes, &mut file)?;
        file.sync_all()
    };
    copy().map_err(|e| io_error("write", &path, e))?;
    Ok(Repaired {
        was,
        moved_to: Some(path),
    })
}

/// Moves a whole file aside.
fn move_aside(path: &Path) -> Result<PathBuf> {
    let to = aside(path, 0);
    fs::rename(path, &to).map_err(|e| io_error("move aside", path, e))?;
    Ok(to)
}

/// A name that is not taken, for what was at `offset` of the file at `path`.
fn aside(path: &Path, offset: u64) -> PathBuf {
    let name = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let numbered = |n: u32| match n {
        0 => path.with_file_name(format!("{name}.{offset}.{CORRUPT}")),
        n => path.with_file_name(format!("{name}.{offset}-{n}.{CORRUPT}")),
    };
    (0..)
        .map(numbered)
        .find(|p| !p.exists())
        .unwrap_or_else(|| numbered(u32::MAX))
}

/// Extension of files that hold what was moved aside.
const CORRUPT: &str = "corrupt";

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Repaired { was, moved_to } in &self.repaired {
            write!(f, "repaired: {was}")?;
            match moved_to {
                Some(path) => writeln!(f, "; its bytes are in {}", path.display())?,
                None => writeln!(f)?,
            }
        }
        if self.torn_tail_bytes > 0 {
            writeln!(f, "cut off a torn tail of {} bytes", self.torn_tail_bytes)?;
        }
        writeln!(f, "{} frames kept", self.frames)
    }
}
