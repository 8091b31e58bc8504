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

/// Files that are whole and wait for the next checkpoint's fsync: each has a descriptor.
const MOST_UNSYNCED: usize = 256;

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
            if self.unsynced.len() >= MOST_UNSYNCED {
                let files = std::mem::take(&mut self.unsynced);
                let synced = files.iter().try_for_each(File::sync_all);
                synced.map_err(|e| cannot("sync", Path::new(directory), e))?;
            }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::file::properties::WriterProperties;
    use tempfile::TempDir;

    use super::*;

    const PARTITIONS: i64 = 1_000;
    const ROUNDS: i64 = 40;
    /// Of one partition in one round.
    const ROWS: i64 = 64;

    fn rows(from: i64, schema: &Arc<Schema>) -> RecordBatch {
        // Scattered, so that they take the space they would in life.
        let numbers =
            |salt: i64| (from..from + ROWS).map(move |n| (n ^ salt).wrapping_mul(0x5851_f42d_4c95_7f2d));
        let columns = [1, 2].map(|salt| Arc::new(Int64Array::from_iter_values(numbers(salt))) as _);
        RecordBatch::try_new(schema.clone(), columns.into()).unwrap()
    }

    /// Rows come for a thousand partitions in turn: the memory stays within its limit, no row is lost, and what gives
    /// way is the size of row groups. With a limit that not even empty files fit into, files are closed.
    #[test]
    fn a_thousand_partitions_stay_within_the_memory() {
        let schema = Arc::new(Schema::new(
            ["a", "b"]
                .map(|name| Field::new(name, DataType::Int64, false))
                .to_vec(),
        ));
        let format = FileFormat::new(&schema, &[], WriterProperties::default()).unwrap();
        for (limit, closes) in [(160_000_000, false), (8_000_000, true)] {
            let dir = TempDir::new().unwrap();
            let mut files = Files::new(Bytes(128_000_000), Bytes(limit));
            let mut named = 0;
            for round in 0..ROUNDS {
                for partition in 0..PARTITIONS {
                    let rows = rows((round * PARTITIONS + partition) * ROWS, &schema);
                    let create = |directory: &str| {
                        named += 1;
                        OpenFile::create(dir.path(), named.to_string(), directory.into(), &format)
                    };
                    files.write(partition.to_string(), &rows, create).unwrap();
                    assert!(files.memory as u64 <= limit, "{} of {limit}", files.memory);
                }
                let all: usize = files.open.values().map(OpenFile::memory).sum();
                assert_eq!(files.memory, all);
                if closes && round == 2 {
                    break;
                }
            }
            files.finish_where(|_| true).unwrap();
            assert_eq!(files.memory, 0);
            files.sync(dir.path()).unwrap();
            assert_eq!(files.finished.len() > PARTITIONS as usize, closes);
            let (mut rows, mut groups) = (0, 0);
            for file in &files.finished {
                let file = File::open(dir.path().join(&file.staged)).unwrap();
                let metadata = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
                rows += metadata.metadata().file_metadata().num_rows();
                groups += metadata.metadata().num_row_groups();
            }
            let rounds = if closes { 3 } else { ROUNDS };
            assert_eq!(rows, rounds * PARTITIONS * ROWS);
            assert!(closes || groups > files.finished.len(), "{groups} row groups");
        }
    }
}
