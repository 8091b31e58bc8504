//! Rows that look for their matches among rows that are kept.

use std::cell::OnceCell;

use arrow::buffer::NullBuffer;

use super::index::Index;

/// Where the search of a slice stands.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// Nothing has been looked at.
    Begin,
    /// Among kept rows that are not indexed, at this one.
    Unindexed(usize),
    /// In the index, with this one of the rows that look for matches.
    Indexed(usize),
}

/// The rows that look for matches, and when those may stand.
pub(super) struct Search<'a> {
    times: &'a [i64],
    hashes: &'a [u64],
    /// Rows whose key can equal another; none: all.
    joinable: Option<&'a NullBuffer>,
    /// From when on a match may stand, after the row.
    before: i64,
    /// Until when, the instant included.
    after: i64,
    /// Kept rows before this are not found any more.
    cutoff: i64,
    /// Pairs that are enough for now.
    most: usize,
    by_hash: OnceCell<Index>,
}

impl<'a> Search<'a> {
    /// Of rows with these times and hashes, for matches from `before` to `after` their own time and at `cutoff` or
    /// later. Pauses when it has found `most` pairs.
    pub fn new(
        (times, hashes, joinable): (&'a [i64], &'a [u64], Option<&'a NullBuffer>),
        (before, after): (i64, i64),
        cutoff: i64,
        most: usize,
    ) -> Search<'a> {
        Search {
            times,
            hashes,
            joinable,
            before,
            after,
            cutoff,
            most,
            by_hash: OnceCell::new(),
        }
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// Looks each row up, from number `from` on. The next one when there are enough pairs.
    pub fn in_index(
        &self,
        index: &Index,
        times: &[i64],
        from: usize,
        pairs: &mut Vec<(u32, u32)>,
    ) -> Option<usize> {
        if index.len() == 0 {
            return None;
        }
        for row in (from..self.times.len()).filter(|row| self.is_joinable(*row)) {
            let found = index.rows_with(self.hashes[row]);
            let in_time = found.filter(|kept| self.is_in_time(row, times[*kept as usize]));
            pairs.extend(in_time.map(|kept| (row as u32, kept)));
            if pairs.len() >= self.most {
                return Some(row + 1);
            }
        }
        None
    }

    /// Looks kept rows up among the rows themselves. They are numbered from `first`; the next one when there are enough
    /// pairs.
    pub fn among(
        &self,
        hashes: &[u64],
        times: &[i64],
        first: usize,
        pairs: &mut Vec<(u32, u32)>,
    ) -> Option<usize> {
        let index = self.by_hash.get_or_init(|| self.index());
        for (kept, (hash, at)) in (first..).zip(hashes.iter().zip(times)) {
            let found = index.rows_with(*hash);
            let in_time = found.filter(|row| self.is_in_time(*row as usize, *at));
            pairs.extend(in_time.map(|row| (row, kept as u32)));
            if pairs.len() >= self.most {
                return Some(kept + 1);
            }
        }
        None
    }

    fn index(&self) -> Index {
        let mut index = Index::default();
        for (row, hash) in self.hashes.iter().enumerate() {
            match self.is_joinable(row) {
                true => index.add(*hash),
                false => index.leave_out(),
            }
        }
        index
    }

    fn is_joinable(&self, row: usize) -> bool {
        self.joinable.is_none_or(|nulls| nulls.is_valid(row))
    }

    fn is_in_time(&self, row: usize, kept: i64) -> bool {
        let at = self.times[row];
        let from = at.saturating_add(self.before).max(self.cutoff);
        (from..=at.saturating_add(self.after)).contains(&kept)
    }
}
