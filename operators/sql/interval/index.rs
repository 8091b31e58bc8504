//! Rows by the hash of their key: the newest of each hash, and for each row the one before.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// No row: ends a chain.
const NONE: u32 = u32::MAX;

/// An index of rows numbered from 0.
#[derive(Default)]
pub(super) struct Index {
    /// The newest row of each hash.
    heads: HashMap<u64, u32, BuildHasherDefault<LowBits>>,
    /// The row before with the same hash.
    before: Vec<u32>,
}

impl Index {
    /// Rows in it, or left out.
    pub fn len(&self) -> usize {
        self.before.len()
    }

    /// Adds the next row.
    pub fn add(&mut self, hash: u64) {
        let before = self.heads.insert(hash, self.before.len() as u32);
        self.before.push(before.unwrap_or(NONE));
    }

    /// Leaves the next row out.
    pub fn leave_out(&mut self) {
        self.before.push(NONE);
    }

    /// The rows whose key has the given hash, newest first.
    pub fn rows_with(&self, hash: u64) -> impl Iterator<Item = u32> {
        let step = |row: u32| (row != NONE).then_some(row);
        let first = self.heads.get(&hash).copied();
        std::iter::successors(first, move |row| step(self.before[*row as usize]))
    }
}

/// Keys of the index are hashes already.
#[derive(Default)]
struct LowBits(u64);

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
