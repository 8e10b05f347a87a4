//! Seeds in which calls take time, of user code and of the log.

use std::time::Duration;

use sidestream_core::{task::Clock, worker::Config};

use crate::{
    plan::{AT_LEAST_ONCE, Faults, POSITION_AGE_MAX, Timeouts},
    prng::Prng,
};

/// One seed in so many has slow calls; in those little else fails.
const SLOW: u64 = 7;

/// How long calls take at most, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    /// A call of user code.
    pub(crate) guest: u64,
    /// A call of the log that is part of a commit, or is just handed over.
    pub(crate) log: u64,
    /// A look-up, unless it has to hurry.
    pub(crate) look_up: u64,
    /// How long a call takes that a record fails in, on top: as long as a call may take. 0 where
    /// none fails.
    pub(crate) hang: u64,
}

/// Schedules on top of the others where calls are slow, so that many are due at once.
pub(crate) const MORE_SCHEDULES: [(Clock, u64); 8] = [
    (Clock::StreamTime, 11),
    (Clock::StreamTime, 23),
    (Clock::WallClock, 1),
    (Clock::WallClock, 2),
    (Clock::WallClock, 5),
    (Clock::WallClock, 5),
    (Clock::WallClock, 7),
    (Clock::WallClock, 20),
];

impl Slow {
    /// Whether a seed has them, if it has nothing that forbids it.
    pub(crate) const fn is_drawn(seed: u64) -> bool {
        seed % SLOW == 3 && seed % AT_LEAST_ONCE != AT_LEAST_ONCE - 1
    }

    /// Those of a seed, with this timeout of transactions, and whether calls fail for good.
    pub(crate) fn draw(seed: u64, transaction: u64, fails: bool) -> Option<Self> {
        let (guest, log) = (transaction / 24, transaction / 40);
        let hang = Prng::new(seed ^ 0x04A6).between(transaction / 10, transaction / 2);
        let hang = if fails { hang } else { 0 };
        Self::is_drawn(seed).then_some(Self { guest, log, look_up: transaction, hang })
    }
}

/// How many times longer deletes are kept where calls are slow.
const LONG: u64 = 50;

/// A run in which calls are slow: whatever else takes time or has a call done again is left out.
pub(crate) fn slow_down(
    seed: u64,
    timeouts: &mut Timeouts,
    config: &mut Config,
    faults: &mut Faults,
) {
    let mut prng = Prng::new(seed ^ 0x510);
    (faults.transient, faults.initialise, faults.corrupt) = (0, 0, 0);
    (faults.pause, faults.stop, faults.leap, faults.restart) = (0, 0, 0, 0);
    // A restore must not take longer than deletes are kept.
    config.position_age_max = Duration::from_millis(LONG * POSITION_AGE_MAX);
    timeouts.delete_retention *= LONG;
    config.turn_time_max = Duration::from_millis(prng.between(5, timeouts.transaction / 8));
    if prng.coin() {
        // The interval alone would keep transactions short, or what they may hold.
        config.commit_interval = Duration::from_millis(prng.between(100, 4_000));
        config.uncommitted_bytes_max = 1 << 20;
    }
    if prng.coin() {
        // Few records fill a transaction, so that not every task has its turn in each.
        config.uncommitted_bytes_max = 200;
        config.batch_records_max = 2;
    }
}
