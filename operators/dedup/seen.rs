//! The keys that are remembered, bounded by time and number.
//!
//! One set answers whether a key is known. Beside it the same keys are kept in the order in which they are
//! forgotten: time is cut into slices an eighth of `within` long, and when the watermark has left a slice far
//! enough behind, its keys leave the set together. One lookup and one removal per key, whatever `within` is.
//!
//! Slices are also what a checkpoint holds. Their keys lie in chunks that never change once full and are
//! shared with snapshots, so a snapshot copies at most one chunk per slice.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, FixedSizeBinaryArray, RecordBatch};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema};
use millstream_engine::state::{Snapshot, SnapshotPart};
use millstream_engine::time::Timestamp;
use millstream_engine::{Error, Result};

/// Slices per `within`: keys are remembered up to an eighth longer than asked for.
const SLICES: i64 = 8;
/// How many times `within` ahead of the watermark a key may stand; that and [`SLICES`] bound the number
/// of slices to some eighty.
const AHEAD: i64 = 8;
/// Bytes of a key.
const WIDTH: usize = 16;
/// Bytes of a full chunk, 65,536 keys: what a snapshot may copy per slice, and the size of a part of a checkpoint.
const CHUNK_BYTES: usize = WIDTH << 16;

/// Which keys were seen lately.
pub struct Seen {
    within: i64,
    slice: i64,
    limit: usize,
    keys: HashSet<u128, BuildHasherDefault<LowBits>>,
    /// By the end of the slice.
    slices: BTreeMap<i64, Slice>,
}

/// The keys that are forgotten together.
#[derive(Default)]
struct Slice {
    full: Vec<Buffer>,
    open: Vec<u8>,
}

/// Where a part of a snapshot belongs.
#[derive(serde::Serialize, serde::Deserialize)]
struct PartLabel {
    slice_end: i64,
}

impl Seen {
    /// Remembers keys for `within` microseconds, `limit` of them at most.
    pub fn new(within: i64, limit: usize) -> Seen {
        Seen {
            within,
            slice: (within / SLICES + i64::from(within % SLICES > 0)).max(1),
            limit,
            keys: HashSet::default(),
            slices: BTreeMap::new(),
        }
    }

    /// Remembers a key that comes with a row of event time `at`; false when it is known already.
    pub fn insert(&mut self, key: u128, at: i64, watermark: Timestamp) -> Result<bool> {
        if !self.keys.insert(key) {
            return Ok(false);
        }
        if self.keys.len() > self.limit {
            return Err(self.too_many());
        }
        let end = match watermark {
            // Before the first watermark there is nothing to compare with; `forget` makes up for it.
            Timestamp::MIN => self.end_of(at),
            Timestamp(now) => self.end_of(at.max(now)).min(self.furthest(now)),
        };
        self.slices.entry(end).or_default().push(key);
        Ok(true)
    }

    /// Drops what a watermark makes useless.
    pub fn forget(&mut self, watermark: Timestamp) {
        let Timestamp(now) = watermark;
        while let Some(slice) = self.slices.first_entry()
            && *slice.key() <= now.saturating_sub(self.within)
        {
            for key in slice.remove().keys() {
                self.keys.remove(&key);
            }
        }
        // After a burst the set is far larger than what is in it.
        if self.keys.len() < self.keys.capacity() / 16 {
            self.keys.shrink_to(self.keys.len() * 2);
        }
        let furthest = self.furthest(now);
        for (_, slice) in self.slices.split_off(&furthest.saturating_add(1)) {
            let kept = self.slices.entry(furthest).or_default();
            slice.keys().for_each(|key| kept.push(key));
        }
    }

    /// Adds all keys to a snapshot.
    pub fn snapshot(&self, to: &mut Snapshot) -> Result<()> {
        for (end, slice) in &self.slices {
            let label = serde_json::to_string(&PartLabel { slice_end: *end })
                .map_err(|e| Error::bug(format!("a snapshot label: {e}")))?;
            let open = (!slice.open.is_empty()).then(|| Buffer::from(&slice.open[..]));
            for keys in slice.full.iter().cloned().chain(open) {
                to.push(&label, key_rows(keys)?);
            }
        }
        Ok(())
    }

    /// Takes back what [`Seen::snapshot`] gave, also of several at once, and with another `within`.
    pub fn restore(&mut self, from: Vec<SnapshotPart>) -> Result<()> {
        let labelled = from.into_iter().map(|part| {
            let label: PartLabel = serde_json::from_str(&part.label)
                .map_err(|e| Error::bug(format!("snapshot part {:?} is not dedup's: {e}", part.label)))?;
            Ok((label.slice_end, part.rows))
        });
        let mut parts = labelled.collect::<Result<Vec<_>>>()?;
        // A key that two remembered is kept for the longer time.
        parts.sort_by_key(|(end, _)| std::cmp::Reverse(*end));
        for (end, rows) in parts {
            for key in keys_of(&rows)? {
                if self.keys.insert(key) {
                    self.slices.entry(end).or_default().push(key);
                }
            }
        }
        Ok(())
    }

    /// End of the slice that holds `at`.
    fn end_of(&self, at: i64) -> i64 {
        at.saturating_sub(at.rem_euclid(self.slice))
            .saturating_add(self.slice)
    }

    /// End of the last slice there may be.
    fn furthest(&self, now: i64) -> i64 {
        self.end_of(now.saturating_add(self.within.saturating_mul(AHEAD)))
    }

    fn too_many(&self) -> Error {
        Error::data(format!(
            "more than {} keys within {:?}, which is all that dedup remembers; set a shorter `within`, which \
             also drops the keys that are older, or remove `dedup`",
            self.limit,
            std::time::Duration::from_micros(self.within.unsigned_abs())
        ))
    }
}

impl Slice {
    fn push(&mut self, key: u128) {
        self.open.extend_from_slice(&key.to_le_bytes());
        if self.open.len() == CHUNK_BYTES {
            self.full.push(Buffer::from_vec(std::mem::take(&mut self.open)));
        }
    }

    fn keys(&self) -> impl Iterator<Item = u128> {
        let full = self.full.iter().flat_map(|chunk| keys(chunk));
        full.chain(keys(&self.open))
    }
}

fn keys(of: &[u8]) -> impl Iterator<Item = u128> {
    let (keys, _) = of.as_chunks::<WIDTH>();
    keys.iter().map(|key| u128::from_le_bytes(*key))
}

fn key_rows(keys: Buffer) -> Result<RecordBatch> {
    let column = FixedSizeBinaryArray::try_new(WIDTH as i32, keys, None)?;
    let schema = Schema::new(vec![Field::new(
        "key",
        DataType::FixedSizeBinary(WIDTH as i32),
        false,
    )]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(column)])?)
}

fn keys_of(rows: &RecordBatch) -> Result<impl Iterator<Item = u128>> {
    let column = (rows.num_columns() == 1).then(|| rows.column(0));
    let column = column.and_then(|c| c.as_fixed_size_binary_opt());
    let column = column.filter(|c| c.value_length() == WIDTH as i32);
    let column = column.ok_or_else(|| Error::bug("dedup's part of a snapshot is not a column of keys"))?;
    Ok(keys(&column.values()[..column.len() * WIDTH]))
}

/// Keys are hashes already.
#[derive(Default)]
struct LowBits(u64);

impl Hasher for LowBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only keys, which are u128, are hashed");
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}
