//! Timestamps that are none, and wall clocks that jump.

use sidestream_core::record::{TIMESTAMP_MAX, Timestamp};

use crate::prng::Prng;

/// One seed in so many has timestamps and wall clocks from the ends of their range.
const EXTREME: u64 = 6;

/// A year, in milliseconds.
pub(crate) const YEAR: i64 = 365 * 24 * 3_600_000;

/// Whether timestamps and wall clocks of a seed come from the ends of their range.
pub(crate) const fn is_extreme(seed: u64) -> bool {
    seed % EXTREME == 2
}

/// Now and then a timestamp that nobody would call one.
pub(crate) fn odd_timestamp(prng: &mut Prng) -> Option<Timestamp> {
    let odd = [
        Timestamp::MAX,
        Timestamp::MAX - 1,
        Timestamp::MAX - 1_000,
        TIMESTAMP_MAX + 1,
        TIMESTAMP_MAX,
        -2,
        Timestamp::MIN + 1,
        Timestamp::MIN,
    ];
    prng.one_in(12).then(|| odd[prng.index(odd.len())])
}

/// How much of a wall clock's range is left where it has to go on after a jump.
const CLOCK_LEFT: i64 = 1_000 * YEAR;

/// How far off a wall clock is that jumps by years, to the end of its range, or back. At the very
/// end it would stand still, as no clock does, and tell no age: not where `ages` count.
pub(crate) fn odd_skew(prng: &mut Prng, ages: bool) -> i64 {
    let years = i64::try_from(prng.between(1, 60)).expect("few") * YEAR;
    match prng.below(6) {
        0 if ages => i64::MAX - CLOCK_LEFT,
        0 => i64::MAX,
        1 | 2 => years,
        3 => -years,
        _ => 0,
    }
}
