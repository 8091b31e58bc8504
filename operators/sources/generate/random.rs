//! Random numbers that are functions of what they are for: SplitMix64 (Steele, Lea and Flood, 2014), started from
//! seed, row and column. So no row needs the rows before it, and a column that nobody asked for costs nothing.

/// A short sequence of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    /// The numbers for one column of one row.
    pub fn of(seed: u64, row: u64, column: u64) -> Random {
        let mut random = Random(seed);
        random.0 = random.next() ^ row;
        random.0 = random.next() ^ column;
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when there is none. The high half of the product is as good as even for bounds far
    /// below 2⁶⁴.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from 0 up to, without, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
