//! The files that a sink writes at a time: one per directory of the lake.

use std::collections::BTreeMap;
use std::fs::File;

use arrow::array::RecordBatch;
use millstream_engine::{Error, Result};

use super::OPEN_FILES;
use super::file::{Finished, OpenFile};

/// Files that grow, and those that are whole.
pub(super) struct Files {
    roll_bytes: u64,
    writes: u64,
    /// By directory of the lake.
    pub open: BTreeMap<String, OpenFile>,
    /// Whole but not yet published.
    pub finished: Vec<Finished>,
    /// Whole but not yet fsynced.
    pub unsynced: Vec<File>,
}

impl Files {
    /// No files yet; one is whole at `roll_bytes`.
    pub fn new(roll_bytes: u64) -> Files {
        Files {
            roll_bytes,
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
            self.open.insert(directory.clone(), file);
        }
        let Some(file) = self.open.get_mut(&directory) else {
            return Err(Error::bug("a file that was just opened is not open"));
        };
        file.write(rows)?;
        self.writes += 1;
        file.last_write = self.writes;
        if file.is_full(self.roll_bytes) {
            self.finish(&directory)?;
        }
        Ok(())
    }

    fn make_room(&mut self) -> Result<()> {
        if self.open.len() < OPEN_FILES {
            return Ok(());
        }
        let oldest = self
            .open
            .iter()
            .min_by_key(|(_, file)| file.last_write)
            .map(|(d, _)| d.clone());
        match oldest {
            Some(directory) => self.finish(&directory),
            None => Ok(()),
        }
    }

    /// Makes the file of a directory whole, where one is open.
    pub fn finish(&mut self, directory: &str) -> Result<()> {
        if let Some(file) = self.open.remove(directory) {
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
