//! The rows of one stream that wait for their matches.
//!
//! Time is cut into slices, a quarter of the bound long. A slice holds its rows in batches, numbered through,
//! and an index from the hash of a key to its rows (`index.rs`). A batch that comes in is added to its slices as it is;
//! small ones are put together, so that a trickle of single rows does not become as many batches. When the watermark
//! has passed a slice, it is dropped as a whole.
//!
//! The rows of one stream often wait for a moment only, because what they match came before: then they are dropped
//! before anybody looks for them. So a slice indexes its rows no sooner than when it is searched. And where few rows
//! look for their matches among many that are not indexed yet, it is the few that are indexed, and the many pass by;
//! not more often than [`SCANS`] times, so that it costs no more than the index would have.
//!
//! Of a slice that the watermark is in the middle of, rows that are past are not found any more. On an outer
//! side they have to come out in time, so there the slice sorts its rows by time once (`Slice::due`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use datafusion::physical_plan::spill::get_record_batch_memory_size;
use millstream_engine::Result;

use super::bounds::Bounds;
use super::index::Index;
use super::search::{Search, Step};

/// Slices per bound. More would drop rows sooner and cost a look-up each.
const SLICES: i64 = 4;
/// Most slices per time that rows are kept, where that is far longer than the bound.
const MOST_SLICES: i64 = 64;
/// Shortest slice, in microseconds. A bound of nothing would make a slice of every instant.
const SHORTEST_SLICE: i64 = 1_000_000;
/// Batches are put together up to this many rows. Beyond, a batch costs little beside its rows.
const MERGED_ROWS: usize = 1_024;
/// How often rows that are not indexed are passed by, and how many there must be for each that looks for them.
const SCANS: u32 = 4;
const SCANNED_PER_ROW: usize = 4;
/// What the index takes per row, about.
const INDEX_BYTES: usize = 40;

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
    /// By key, all rows but the last.
    index: Index,
    /// Hashes of the keys of the rows that are not indexed.
    hashes: Vec<u64>,
    /// How often those have been passed by.
    scans: u32,
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

    /// Goes on with the search of a slice which [`Kept::slices`] gave; see [`Slice::search`].
    pub fn search(
        &mut self,
        start: i64,
        search: &mut Search<'_>,
        at: Step,
        pairs: &mut Vec<(u32, u32)>,
    ) -> Option<Step> {
        self.slices.get_mut(&start)?.search(search, at, pairs)
    }

    /// Notes that a row of a slice has found a match.
    pub fn found(&mut self, start: i64, row: u32) {
        if let Some(slice) = self.slices.get_mut(&start).filter(|_| self.outer) {
            slice.matched[row as usize] = true;
        }
    }

    /// Keeps those rows that are marked in `keep`.
    pub fn store(&mut self, arrived: &Arrived<'_>, keep: &[bool]) -> Result<()> {
        let mut by_slice: Vec<(i64, Vec<u32>)> = Vec::new();
        // Neighbouring rows are mostly of one slice.
        let mut last = (0, 0..0);
        for (row, at) in arrived.times.iter().enumerate().filter(|(row, _)| keep[*row]) {
            if !last.1.contains(at) {
                let start = self.start_of(*at);
                let known = by_slice.iter().position(|(known, _)| *known == start);
                last = (
                    known.unwrap_or(by_slice.len()),
                    start..start.saturating_add(self.slice),
                );
                if known.is_none() {
                    by_slice.push((start, Vec::new()));
                }
            }
            by_slice[last.0].1.push(row as u32);
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
            index: Index::default(),
            hashes: Vec::new(),
            scans: 0,
            matched: Vec::new(),
            due: None,
            bytes: 0,
        }
    }

    /// Finds pairs of a row that looks for matches and one that is kept, with equal hashes and in time, from where
    /// the search stands. Where it stands when there are enough for now; nothing when it is at its end.
    fn search(&mut self, search: &mut Search<'_>, at: Step, pairs: &mut Vec<(u32, u32)>) -> Option<Step> {
        let at = match at {
            Step::Begin => self.begin(search),
            other => other,
        };
        let from = match at {
            Step::Unindexed(from) => {
                let first = self.index.len();
                let hashes = &self.hashes[from - first..];
                if let Some(next) = search.among(hashes, &self.times[from..], from, pairs) {
                    return Some(Step::Unindexed(next));
                }
                0
            }
            Step::Begin => 0,
            Step::Indexed(from) => from,
        };
        let next = search.in_index(&self.index, &self.times, from, pairs)?;
        Some(Step::Indexed(next))
    }

    fn begin(&mut self, search: &Search<'_>) -> Step {
        let waiting = self.hashes.len();
        if waiting == 0 {
            return Step::Indexed(0);
        }
        if self.scans < SCANS && waiting >= search.rows() * SCANNED_PER_ROW {
            self.scans += 1;
            return Step::Unindexed(self.index.len());
        }
        self.hashes.drain(..).for_each(|hash| self.index.add(hash));
        self.scans = 0;
        Step::Indexed(0)
    }

    /// Where a row is: number of its batch, number within.
    pub fn locate(&self, row: u32) -> (usize, usize) {
        let batch = self.batches.partition_point(|(first, _)| *first <= row) - 1;
        (batch, (row - self.batches[batch].0) as usize)
    }

    /// Its batches, in the order of their numbers.
    pub fn batches(&self) -> impl Iterator<Item = &RecordBatch> {
        self.batches.iter().map(|(_, batch)| batch)
    }

    fn add(&mut self, batch: RecordBatch, arrived: &Arrived<'_>, rows: &[u32], outer: bool) -> Result<()> {
        let first = self.times.len() as u32;
        for (row, from) in (first..).zip(rows) {
            let from = *from as usize;
            self.times.push(arrived.times[from]);
            self.hashes.push(arrived.hashes[from]);
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
