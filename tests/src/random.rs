//! Random numbers from a seed, so that a run can be had again. (What the machine does between
//! them can't.)

use std::{ops::Range, time::Duration};

/// SplitMix64, by Sebastiano Vigna; public domain.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that depend on `seed` alone.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in a range, which must not be empty.
    pub const fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    /// A time below `limit`.
    pub fn duration(&mut self, limit: Duration) -> Duration {
        Duration::from_millis(self.within(0..u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
    }

    /// True once in `odds` times.
    pub const fn once_in(&mut self, odds: u64) -> bool {
        self.within(0..odds) == 0
    }

    /// One of some things; small numbers are drawn more often than large ones, so that some keys
    /// are hot as in life.
    pub fn skewed(&mut self, count: u64) -> u64 {
        let highest = self.within(1..count + 1);
        self.within(0..highest)
    }
}
