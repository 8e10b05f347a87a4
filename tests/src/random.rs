//! Random numbers from a seed, so that a run can be had again. (What the machine does between
//! them can't.)

use std::{ops::Range, time::Duration};

use sidestream_sim::prng::Prng;

/// The simulator's numbers, drawn as tests of the whole need them.
#[derive(Clone, Debug)]
pub struct Random(Prng);

impl Random {
    /// Numbers that depend on `seed` alone.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(Prng::new(seed))
    }

    /// Any number.
    pub const fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// A number in a range, which must not be empty.
    pub const fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.0.below(range.end - range.start)
    }

    /// A time below `limit`.
    pub fn duration(&mut self, limit: Duration) -> Duration {
        Duration::from_millis(self.within(0..u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)))
    }

    /// True once in `odds` times.
    pub const fn once_in(&mut self, odds: u64) -> bool {
        self.0.one_in(odds)
    }

    /// One of some things; small numbers are drawn more often than large ones, so that some keys
    /// are hot as in life.
    pub fn skewed(&mut self, count: u64) -> u64 {
        let highest = self.within(1..count + 1);
        self.within(0..highest)
    }
}
