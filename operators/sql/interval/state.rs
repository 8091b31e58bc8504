//! The rows of one stream that wait for their matches.
//!
//! Time is cut into slices, a quarter of the bound long. A slice holds its rows in batches, numbered through,
//! and an index from the hash of a key to its rows, the newest first, each pointing to the one before. A batch
//! that comes in is added to its slices as it is; small ones are put together, so that a trickle of single rows
//! does not become as many batches. When the watermark has passed a slice, it is dropped as a whole.
//!
//! Of a slice that the watermark is in the middle of, rows that are past are not found any more. On an outer
//! side they have to come out in time, so there the slice sorts its rows by time once (`Slice::due`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use millstream_engine::Result;

use super::bounds::Bounds;

/// Slices per bound. More would drop rows sooner and cost a look-up each.
const SLICES: i64 = 4;
/// Most slices per time that rows are kept, where that is far longer than the bound.
const MOST_SLICES: i64 = 64;
/// Shortest slice, in microseconds. A bound of nothing would make a slice of every instant.
const SHORTEST_SLICE: i64 = 1_000_000;
/// Batches are put together up to this many rows.
const MERGED_ROWS: usize = 8_192;
/// What the index takes per row, about.
const INDEX_BYTES: usize = 40;
/// No row: ends a chain.
const NONE: u32 = u32::MAX;

/// Rows on their way into the state, with what is known of them.
pub(super) struct Arrived<'a> {
    pub rows: &'a RecordBatch,
    pub times: &'a [i64],
    pub hashes: &'a [u64],
    /// Which rows have found a match already.
    pub matched: &'a [bool],
}

/// What is stored of one side.
pub(super) struct Kept {
    /// How long before the watermark rows are kept; negative when they must be ahead of it.
    reach: i64,
    slice: i64,
    outer: bool,
    /// By start.
    slices: BTreeMap<i64, Slice>,
    bytes: usize,
}

/// The rows of a slice of time.
pub(super) struct Slice {
    /// Their batches, and the number of the first row of each.
    batches: Vec<(u32, RecordBatch)>,
    times: Vec<i64>,
    /// The newest row of each hash.
    heads: HashMap<u64, u32, BuildHasherDefault<LowBits>>,
    /// The row before with the same hash.
    before: Vec<u32>,
    /// Whether a row has found a match; empty on a side where that does not matter.
    matched: Vec<bool>,
    /// Rows that have not come out yet, by time, once the watermark is inside.
    due: Option<BinaryHeap<Reverse<(i64, u32)>>>,
    bytes: usize,
}

impl Kept {
    /// Nothing, of the given side.
    pub fn new(bounds: Bounds, side: usize, outer: bool) -> Kept {
        let (first, last) = bounds.partners(side);
        let width = last.saturating_sub(first) / SLICES;
        Kept {
            reach: last,
            slice: SHORTEST_SLICE.max(width).max(last / MOST_SLICES),
            outer,
            slices: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Rows before this have no match to come.
    pub fn cutoff(&self, watermark: i64) -> i64 {
        match watermark {
            i64::MIN | i64::MAX => watermark,
            at => at.saturating_sub(self.reach),
        }
    }

    /// Bytes kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The slices that hold times from `first` to `last`, and their starts.
    pub fn slices(&self, first: i64, last: i64) -> impl Iterator<Item = (i64, &Slice)> {
        let from = self.start_of(first);
        self.slices
            .range(from..=last.max(from))
            .map(|(start, slice)| (*start, slice))
    }

    /// The slice with a given start, which [`Kept::slices`] gave.
    pub fn slice(&self, start: i64) -> &Slice {
        &self.slices[&start]
    }

    /// Notes that a row of a slice has found a match.
    pub fn found(&mut self, start: i64, row: u32) {
        if let Some(slice) = self.slices.get_mut(&start).filter(|_| self.outer) {
            slice.matched[row as usize] = true;
        }
    }

    /// Keeps those rows that are marked in `keep`.
    pub fn store(&mut self, arrived: &Arrived<'_>, keep: &[bool]) -> Result<()> {
        let mut by_slice: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for (row, at) in arrived.times.iter().enumerate().filter(|(row, _)| keep[*row]) {
            by_slice.entry(self.start_of(*at)).or_default().push(row as u32);
        }
        for (start, rows) in by_slice {
            let batch = match rows.len() == arrived.times.len() {
                true => arrived.rows.clone(),
                false => take_record_batch(arrived.rows, &UInt32Array::from(rows.clone()))?,
            };
            let slice = self.slices.entry(start).or_insert_with(Slice::new);
            self.bytes -= slice.bytes;
            slice.add(batch, arrived, &rows, self.outer)?;
            self.bytes += slice.bytes;
        }
        Ok(())
    }

    /// The slices with rows that are now due, having found no match, and those rows. Then drops what is past.
    pub fn pass(&mut self, cutoff: i64, mut due: impl FnMut(&Slice, &[u32]) -> Result<()>) -> Result<()> {
        if self.outer {
            for slice in self.slices.range_mut(..cutoff).map(|(_, slice)| slice) {
                let rows = slice.due(cutoff);
                if !rows.is_empty() {
                    due(slice, &rows)?;
                }
            }
        }
        while let Some(entry) = self.slices.first_entry()
            && entry.key().saturating_add(self.slice) <= cutoff
        {
            self.bytes -= entry.remove().bytes;
        }
        Ok(())
    }

    /// Every batch there is, by start of its slice, with what its rows have found.
    pub fn batches(&self) -> impl Iterator<Item = (i64, &RecordBatch, &[bool])> {
        self.slices.iter().flat_map(|(start, slice)| {
            slice.batches.iter().map(|(first, batch)| {
                let rows = *first as usize..*first as usize + batch.num_rows();
                (*start, batch, slice.matched.get(rows).unwrap_or_default())
            })
        })
    }

    fn start_of(&self, at: i64) -> i64 {
        at.saturating_sub(at.rem_euclid(self.slice))
    }
}

impl Slice {
    fn new() -> Slice {
        Slice {
            batches: Vec::new(),
            times: Vec::new(),
            heads: HashMap::default(),
            before: Vec::new(),
            matched: Vec::new(),
            due: None,
            bytes: 0,
        }
    }

    /// The rows whose key has the given hash, newest first.
    pub fn rows_with(&self, hash: u64) -> impl Iterator<Item = u32> {
        let step = |row: u32| (row != NONE).then_some(row);
        let first = self.heads.get(&hash).copied();
        std::iter::successors(first, move |row| step(self.before[*row as usize]))
    }

    /// A row's event time.
    pub fn time(&self, row: u32) -> i64 {
        self.times[row as usize]
    }

    /// Where a row is: number of its batch, number within.
    pub fn locate(&self, row: u32) -> (usize, usize) {
        let batch = self.batches.partition_point(|(first, _)| *first <= row) - 1;
        (batch, (row - self.batches[batch].0) as usize)
    }

    /// A batch by its number.
    pub fn batch(&self, number: usize) -> &RecordBatch {
        &self.batches[number].1
    }

    fn add(&mut self, batch: RecordBatch, arrived: &Arrived<'_>, rows: &[u32], outer: bool) -> Result<()> {
        let first = self.times.len() as u32;
        for (row, from) in (first..).zip(rows) {
            let from = *from as usize;
            self.times.push(arrived.times[from]);
            let before = self.heads.insert(arrived.hashes[from], row);
            self.before.push(before.unwrap_or(NONE));
            if outer {
                self.matched.push(arrived.matched[from]);
            }
            if let Some(due) = &mut self.due {
                due.push(Reverse((arrived.times[from], row)));
            }
        }
        self.bytes += get_record_batch_memory_size(&batch) + rows.len() * INDEX_BYTES;
        self.batches.push((first, batch));
        self.merge()
    }

    /// Puts the last batches together while they are small and of about one size, so that a row is copied no
    /// more often than the logarithm of [`MERGED_ROWS`].
    fn merge(&mut self) -> Result<()> {
        while let [.., (_, a), (_, b)] = &self.batches[..]
            && a.num_rows() <= 2 * b.num_rows()
            && a.num_rows() + b.num_rows() <= MERGED_ROWS
        {
            let apart = get_record_batch_memory_size(a) + get_record_batch_memory_size(b);
            let merged = concat_batches(a.schema_ref(), [a, b])?;
            self.bytes = (self.bytes + get_record_batch_memory_size(&merged)).saturating_sub(apart);
            self.batches.pop();
            if let Some((_, last)) = self.batches.last_mut() {
                *last = merged;
            }
        }
        Ok(())
    }

    /// Takes the rows before `cutoff` that have found no match and have not been taken yet.
    fn due(&mut self, cutoff: i64) -> Vec<u32> {
        let matched = &self.matched;
        let due = self.due.get_or_insert_with(|| {
            let numbered = (0..).zip(&self.times).map(|(row, at)| Reverse((*at, row)));
            numbered.collect::<Vec<_>>().into()
        });
        let mut rows = Vec::new();
        while let Some(Reverse((at, row))) = due.peek().copied()
            && at < cutoff
        {
            due.pop();
            if !matched[row as usize] {
                rows.push(row);
            }
        }
        rows
    }
}

/// Keys of the index are hashes already.
#[derive(Default)]
pub(super) struct LowBits(u64);

impl Hasher for LowBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes, which are u64, are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
