//! The state of operators as bytes, and back; written once, however many checkpoints hold it.
//!
//! Operators share with a snapshot what does not change: a closed window's partial results, a full chunk of keys. Such
//! a batch lies in the same memory as at the checkpoint before, and that is how it is known again; nothing is compared or
//! hashed. It is not written again: the new manifest names the earlier file. So that this does not keep files for a few
//! bytes of them, a file of which less than half is still of use is left, and its parts are written anew. A checkpoint
//! takes at most twice the room of its state.
//!
//! The price: a damaged file that several checkpoints name damages all of them.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{ArrayData, RecordBatch};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;

use crate::checkpoint::manifest::{Manifest, StateFile, StatePart, TaskId};
use crate::checkpoint::store::{STATE, States};
use crate::error::{Error, Result};
use crate::message::Epoch;
use crate::state::{Snapshot, SnapshotPart};

/// Most files that a checkpoint names beside its own. Every one of them is read by a recovery.
const EARLIER_FILES: usize = 32;

/// Where the batches of the last checkpoint lie, so that the next one need not write them again. It holds the batches:
/// as long as it does, their memory is not used for anything else.
#[derive(Debug, Default)]
pub struct Earlier(HashMap<Memory, Place>);

/// Addresses of everything a batch consists of.
type Memory = Vec<usize>;

#[derive(Clone, Debug)]
struct Place {
    rows: RecordBatch,
    file: StateFile,
    start: u64,
    bytes: u64,
}

/// A checkpoint's state, ready to be written.
#[derive(Debug)]
pub struct Encoded {
    /// Its own file; none when everything lies in earlier ones.
    pub file: Option<(StateFile, Vec<u8>)>,
    /// What the checkpoint after this one can refer to, once this one is durable.
    pub next: Earlier,
}

/// The states in a manifest's files.
#[derive(Debug)]
pub struct Decoded {
    /// By task and operator; several parts of one operator stand together.
    pub states: BTreeMap<(TaskId, String), Snapshot>,
    /// What the next checkpoint can refer to.
    pub next: Earlier,
}

impl Earlier {
    /// The bytes of what is new, and `manifest.state` and `manifest.files` filled in to match. The same arguments give
    /// the same bytes.
    pub fn encode(&self, manifest: &mut Manifest, states: States) -> Result<Encoded> {
        let reused = self.reused(&states);
        let mut bytes = Vec::new();
        let mut placed = Vec::new();
        for (task, operator, snapshot) in states {
            for SnapshotPart { label, rows } in snapshot.parts {
                let place = match self.find(&rows).filter(|p| reused.contains(&p.file.name)) {
                    Some(place) => (Some(place.file.clone()), place.start, place.bytes),
                    None => {
                        let start = bytes.len() as u64;
                        write(&mut bytes, &rows)?;
                        (None, start, bytes.len() as u64 - start)
                    }
                };
                placed.push(((task.clone(), operator.clone(), label), rows, place));
            }
        }
        let own = (!bytes.is_empty()).then(|| own_file(manifest.epoch, &bytes));
        (manifest.state, manifest.files) = (Vec::with_capacity(placed.len()), Vec::new());
        let mut next = Earlier::default();
        for ((task, operator, label), rows, (file, start, bytes)) in placed {
            let file = file.or_else(|| own.clone());
            let file = file.ok_or_else(|| Error::bug("a part of a checkpoint lies in no file"))?;
            manifest.state.push(StatePart {
                task,
                operator,
                label,
                file: index_of(&mut manifest.files, &file),
                start,
                bytes,
            });
            next.add(Place {
                rows,
                file,
                start,
                bytes,
            });
        }
        let file = own.map(|own| (own, bytes));
        Ok(Encoded { file, next })
    }

    /// Names of the earlier files that the new checkpoint goes on using.
    fn reused(&self, states: &States) -> Vec<String> {
        let mut live: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let parts = states.iter().flat_map(|(_, _, snapshot)| &snapshot.parts);
        for place in parts.filter_map(|part| self.find(&part.rows)) {
            let of = live.entry(&place.file.name).or_insert((0, place.file.bytes));
            of.0 += place.bytes;
        }
        let mut worthy: Vec<(u64, &str)> = live
            .into_iter()
            .filter(|(_, (live, all))| live * 2 >= *all)
            .map(|(name, (live, _))| (live, name))
            .collect();
        worthy.sort_unstable_by(|a, b| b.cmp(a));
        worthy.truncate(EARLIER_FILES);
        worthy.into_iter().map(|(_, name)| name.to_string()).collect()
    }

    fn find(&self, rows: &RecordBatch) -> Option<&Place> {
        let place = self.0.get(&memory(rows)?)?;
        // The same memory may be read as another type.
        (place.rows.schema_ref() == rows.schema_ref() && place.rows.num_rows() == rows.num_rows())
            .then_some(place)
    }

    fn add(&mut self, place: Place) {
        if let Some(memory) = memory(&place.rows) {
            self.0.insert(memory, place);
        }
    }
}

/// The states that a manifest names; `read` has the content of each of `manifest.files`, in order. An error of class
/// data when it is not what the manifest says.
pub fn decode(manifest: &Manifest, read: &[impl AsRef<[u8]>], place: &str) -> Result<Decoded> {
    let damaged = |name: &str, what: &str| Error::data(format!("{place}: {name}: {what}"));
    for (file, bytes) in manifest.files.iter().zip(read) {
        let bytes = bytes.as_ref();
        if bytes.len() as u64 != file.bytes || crc32fast::hash(bytes) != file.crc {
            return Err(damaged(&file.name, "checksum mismatch"));
        }
    }
    let mut decoded = Decoded {
        states: BTreeMap::new(),
        next: Earlier::default(),
    };
    for part in &manifest.state {
        let (Some(file), Some(bytes)) = (manifest.files.get(part.file), read.get(part.file)) else {
            return Err(damaged("a part", "lies in no file"));
        };
        let range = part.start as usize..(part.start + part.bytes) as usize;
        let bytes = bytes.as_ref().get(range);
        let bytes = bytes.ok_or_else(|| damaged(&file.name, "a part lies outside the file"))?;
        let rows = read_one(bytes)?;
        decoded.next.add(Place {
            rows: rows.clone(),
            file: file.clone(),
            start: part.start,
            bytes: part.bytes,
        });
        let key = (part.task.clone(), part.operator.clone());
        decoded.states.entry(key).or_default().push(&part.label, rows);
    }
    Ok(decoded)
}

/// What an operator's rows lie in; none for rows without columns, which have no memory to be known by.
fn memory(rows: &RecordBatch) -> Option<Memory> {
    let mut memory = Vec::new();
    for column in rows.columns() {
        addresses(&column.to_data(), &mut memory);
    }
    (!memory.is_empty()).then_some(memory)
}

fn addresses(of: &ArrayData, into: &mut Memory) {
    into.extend([
        of.offset(),
        of.len(),
        usize::from(of.nulls().is_some()),
        of.buffers().len(),
    ]);
    if let Some(nulls) = of.nulls() {
        into.extend([nulls.buffer().as_ptr() as usize, nulls.offset()]);
    }
    into.extend(of.buffers().iter().map(|buffer| buffer.as_ptr() as usize));
    for child in of.child_data() {
        addresses(child, into);
    }
}

fn own_file(epoch: Epoch, bytes: &[u8]) -> StateFile {
    let (crc, length) = (crc32fast::hash(bytes), bytes.len() as u64);
    StateFile {
        name: format!("{:020}-{crc:08x}-{length}{STATE}", epoch.0),
        bytes: length,
        crc,
    }
}

fn index_of(files: &mut Vec<StateFile>, file: &StateFile) -> usize {
    files.iter().position(|known| known == file).unwrap_or_else(|| {
        files.push(file.clone());
        files.len() - 1
    })
}

fn write(bytes: &mut Vec<u8>, rows: &RecordBatch) -> Result<()> {
    let mut writer = StreamWriter::try_new(bytes, rows.schema_ref())?;
    writer.write(rows)?;
    Ok(writer.finish()?)
}

fn read_one(bytes: &[u8]) -> Result<RecordBatch> {
    let mut rows = StreamReader::try_new(bytes, None)?;
    let rows = rows
        .next()
        .ok_or_else(|| Error::data("a state part holds no rows"))?;
    Ok(rows?)
}
