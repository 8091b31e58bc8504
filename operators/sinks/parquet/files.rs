//! The files that a sink writes at a time: one per directory of the lake, together within a limit of memory.
//!
//! At the limit the file that holds most writes its rows out as a row group, however small. What a file knows of the row
//! groups it has written counts, too; one that holds more of that than rows is closed instead.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use arrow::array::RecordBatch;
use millstream_engine::pipeline::Bytes;
use millstream_engine::{Error, Result};

use super::super::disk::{cannot, sync_dir};
use super::OPEN_FILES;
use super::file::{FileFormat, Finished, OpenFile, Promised};

/// Fsyncs at a time. A journal serves those that wait together at once: of a thousand files one after the other take
/// 5 s, eight at a time 0.2 s.
const SYNCS: usize = 8;

/// Files that grow, and those that are whole.
pub(super) struct Files {
    roll_bytes: u64,
    memory_limit: usize,
    /// Bytes that the open files take.
    memory: usize,
    writes: u64,
    /// By directory of the lake.
    pub open: BTreeMap<String, OpenFile>,
    /// Whole since the last checkpoint.
    pub finished: Vec<Finished>,
    /// Whole but not yet fsynced.
    pub unsynced: Vec<File>,
}

impl Files {
    /// No files yet; one is whole at `roll` bytes; all that are not take at most `memory` bytes between two writes.
    pub fn new(roll: Bytes, memory: Bytes) -> Files {
        Files {
            roll_bytes: roll.0,
            memory_limit: usize::try_from(memory.0).unwrap_or(usize::MAX),
            memory: 0,
            writes: 0,
            open: BTreeMap::new(),
            finished: Vec::new(),
            unsynced: Vec::new(),
        }
    }

    /// Writes rows, as they are stored, to the file of a directory, which `create` makes where none is open.
    pub fn write(
        &mut self,
        directory: String,
        rows: &RecordBatch,
        create: impl FnOnce(&str) -> Result<OpenFile>,
    ) -> Result<()> {
        if !self.open.contains_key(&directory) {
            self.make_room()?;
            let file = create(&directory)?;
            self.memory += file.memory();
            self.open.insert(directory.clone(), file);
        }
        let Some(file) = self.open.get_mut(&directory) else {
            return Err(Error::bug("a file that was just opened is not open"));
        };
        self.memory -= file.memory();
        file.write(rows)?;
        self.memory += file.memory();
        self.writes += 1;
        file.last_write = self.writes;
        if file.is_full(self.roll_bytes) {
            self.finish(&directory)?;
        }
        while self.memory > self.memory_limit && !self.open.is_empty() {
            self.relieve()?;
        }
        Ok(())
    }

    fn make_room(&mut self) -> Result<()> {
        if self.open.len() < OPEN_FILES {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, file)| file.last_write);
        match oldest.map(|(directory, _)| directory.clone()) {
            Some(directory) => self.finish(&directory),
            None => Ok(()),
        }
    }

    /// Frees what the largest file takes.
    fn relieve(&mut self) -> Result<()> {
        let largest = self.open.iter_mut().max_by_key(|(_, file)| file.memory());
        let Some((directory, file)) = largest else {
            return Ok(());
        };
        let all = file.memory();
        if file.row_group_memory() < all / 2 {
            let directory = directory.clone();
            return self.finish(&directory);
        }
        self.memory -= all;
        file.end_row_group()?;
        self.memory += file.memory();
        Ok(())
    }

    /// Makes the file of a directory whole, where one is open.
    pub fn finish(&mut self, directory: &str) -> Result<()> {
        if let Some(file) = self.open.remove(directory) {
            self.memory -= file.memory();
            let (finished, file) = file.finish()?;
            self.finished.push(finished);
            self.unsynced.push(file);
        }
        Ok(())
    }

    /// Makes the files whole that are `due`.
    pub fn finish_where(&mut self, due: impl Fn(&OpenFile) -> bool) -> Result<()> {
        let due: Vec<String> = self
            .open
            .iter()
            .filter(|(_, f)| due(f))
            .map(|(d, _)| d.clone())
            .collect();
        due.iter().try_for_each(|directory| self.finish(directory))
    }

    /// Makes every row so far a part of a file that is whole or can be promised; the promises of the latter.
    pub fn promise(&mut self, format: &FileFormat) -> Result<Vec<Promised>> {
        let mut open = Vec::with_capacity(self.open.len());
        for file in self.open.values_mut() {
            self.memory -= file.memory();
            let (promised, written) = file.promise(format)?;
            self.memory += file.memory();
            open.push(promised);
            self.unsynced.extend(written);
        }
        Ok(open)
    }

    /// Fsyncs what was written, and the directory that names the files.
    pub fn sync(&mut self, staging: &Path) -> Result<()> {
        let files = std::mem::take(&mut self.unsynced);
        if files.is_empty() {
            return Ok(());
        }
        let share = files.len().div_ceil(SYNCS);
        std::thread::scope(|threads| {
            let shares: Vec<_> = files
                .chunks(share)
                .map(|share| threads.spawn(|| share.iter().try_for_each(File::sync_all)))
                .collect();
            shares.into_iter().try_for_each(|share| {
                let synced = share.join();
                synced
                    .map_err(|_| Error::bug("a thread that fsyncs panicked"))?
                    .map_err(|e| cannot("sync", staging, e))
            })
        })?;
        sync_dir(staging)
    }
}

/// Where a file of that name lies, relative to the lake.
pub(super) fn key(directory: &str, name: &str) -> String {
    match directory {
        "" => name.into(),
        directory => format!("{directory}/{name}"),
    }
}

/// The directory of a key.
pub(super) fn directory_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The last level of a key.
pub(super) fn name_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or_default()
}
