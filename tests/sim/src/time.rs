//! Time: how long calls take, clocks that jump and timestamps that are none, and what workers owe
//! each other in turns.

use std::{collections::BTreeMap, time::Duration};

use sidestream_core::{
    record::{TIMESTAMP_MAX, TaskId, Timestamp},
    task::Clock,
    worker::Notice,
};

use crate::{
    plan::{Faults, Plan},
    prng::Prng,
    swap::Owner,
    world::State,
};

/// One seed in so many has slow calls; in those little else fails.
const SLOW: u64 = 7;

/// One seed in so many has timestamps and wall clocks from the ends of their range.
const EXTREME: u64 = 6;

/// A year, in milliseconds.
const YEAR: i64 = 365 * 24 * 3_600_000;

/// How many turns others may have before a task that could work does.
const PASSED_OVER_MAX: u32 = 16;

/// How many punctuations may follow one another without a look at the log.
const PUNCTUATIONS_MAX: u32 = 500;

/// How late a wall-clock punctuation may be, in turns, in milliseconds, and in calls that others
/// have before it.
const TICK_TURNS_MAX: u32 = 20;
const TICK_LATE_MAX: u64 = 600;
const TICK_CALLS_MAX: u64 = 100;

/// How long calls take at most, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slow {
    /// A call of user code.
    pub(crate) guest: u64,
    /// A call of the log that is part of a commit, or is just handed over.
    pub(crate) log: u64,
    /// A look-up, unless it has to hurry.
    pub(crate) look_up: u64,
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
    /// Those of a seed, with this timeout of transactions.
    pub(crate) fn draw(seed: u64, transaction: u64) -> Option<Self> {
        let (guest, log) = (transaction / 24, transaction / 40);
        (seed % SLOW == 3).then_some(Self { guest, log, look_up: transaction })
    }
}

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

/// How far off a wall clock is that jumps by years, to the end of its range, or back.
pub(crate) fn odd_skew(prng: &mut Prng) -> i64 {
    let years = i64::try_from(prng.between(1, 60)).expect("few") * YEAR;
    match prng.below(6) {
        0 => i64::MAX,
        1 | 2 => years,
        3 => -years,
        _ => 0,
    }
}

/// What a worker did with its time.
#[derive(Debug, Default)]
pub(crate) struct TimeSheet {
    /// When the first call of user code of this turn began.
    began: Option<u64>,
    /// Batches and punctuations that began when the turn was over.
    late: u32,
    punctuations: u32,
    /// Tasks with records that could be processed, and how many turns others had since.
    waiting: BTreeMap<TaskId, u32>,
    worked: bool,
    /// Tasks that run: since when their wall clock was not told, and for how many turns.
    ticks: BTreeMap<TaskId, (u64, u32)>,
    /// Work was dropped: the worker may rest until it commits again.
    rests: bool,
}

impl TimeSheet {
    /// The worker looked at its log.
    pub(crate) const fn polled(&mut self) {
        (self.began, self.late, self.punctuations) = (None, 0, 0);
    }

    /// Records came for a task.
    pub(crate) fn delivered(&mut self, task: TaskId) {
        self.waiting.entry(task).or_default();
    }

    /// What was delivered counts no more.
    pub(crate) fn forget_waiting(&mut self) {
        self.waiting.clear();
    }

    /// A transform that reads inputs is called for a batch.
    pub(crate) fn processes(
        &mut self,
        task: TaskId,
        now: u64,
        turn_max: u64,
    ) -> Result<(), String> {
        self.waiting.remove(&task);
        self.worked = true;
        self.begins(now, turn_max)
    }

    /// A transform is punctuated, by the wall clock or not.
    pub(crate) fn punctuates(
        &mut self,
        (task, by_wall): (TaskId, bool),
        now: u64,
        turn_max: u64,
    ) -> Result<(), String> {
        self.punctuations += 1;
        if self.punctuations > PUNCTUATIONS_MAX {
            return Err(format!("{task} is punctuated without end"));
        }
        if let Some(tick) = self.ticks.get_mut(&task).filter(|_| by_wall) {
            *tick = (now, 0);
        }
        self.begins(now, turn_max)
    }

    fn begins(&mut self, now: u64, turn_max: u64) -> Result<(), String> {
        let began = *self.began.get_or_insert(now);
        if now > began + turn_max + 2 {
            self.late += 1;
        }
        // A batch that began in time may be followed by a punctuation of each clock.
        match self.late > 2 {
            true => Err(format!("a turn that began at {began} goes on at {now}")),
            false => Ok(()),
        }
    }

    /// The clock of the worker jumped, or it stood still: what is due by it is due anew.
    pub(crate) fn disturbed(&mut self, now: u64) {
        self.ticks.values_mut().for_each(|tick| *tick = (now, 0));
    }

    /// A task runs from now on, or does so no more.
    pub(crate) fn runs(&mut self, task: TaskId, now: u64, runs: bool) {
        if runs {
            self.ticks.insert(task, (now, 0));
        } else {
            self.ticks.remove(&task);
        }
    }

    /// A turn is over. A punctuation by the wall clock is due within some time.
    pub(crate) fn turned(&mut self, now: u64, due_within: Option<u64>) -> Result<(), String> {
        if std::mem::take(&mut self.worked) {
            self.waiting.values_mut().for_each(|turns| *turns += 1);
        }
        if let Some((task, turns)) =
            self.waiting.iter().find(|(_, turns)| **turns > PASSED_OVER_MAX)
        {
            return Err(format!("{task} has records, but others had {turns} turns"));
        }
        self.ticks.values_mut().for_each(|(_, turns)| *turns += 1);
        let silent = self.ticks.iter().find(|(_, (since, turns))| {
            due_within.is_some_and(|ms| now > since + ms) && *turns > TICK_TURNS_MAX
        });
        match silent {
            Some((task, (since, _))) => {
                Err(format!("{task} was not punctuated by the wall clock since {since}"))
            }
            None => Ok(()),
        }
    }
}

impl State {
    /// What a worker did with its time.
    pub(crate) fn time_sheet(&mut self, owner: Owner) -> &mut TimeSheet {
        self.time_sheets.entry(owner).or_default()
    }

    /// The longest turn that is held against workers: none in which time goes by unseen.
    pub(crate) fn turn_max(&self) -> u64 {
        match self.plan.is_timed() {
            true => milliseconds(self.plan.config.turn_time_max),
            false => u64::MAX / 2,
        }
    }

    /// Lets a slow call take its time.
    pub(crate) fn dawdle(&mut self, most: impl FnOnce(&Slow) -> u64) {
        if let Some(slow) = self.plan.slow {
            let milliseconds = self.prng.between(0, most(&slow));
            self.pass(milliseconds);
        }
    }

    /// The wall clock of a process jumps.
    pub(crate) fn jump(&mut self, pod: usize, skew: i64) {
        let now = self.now;
        self.note(pod, format_args!("its clock is off by {skew} ms"));
        self.pods[pod].skew = skew;
        let own = self.time_sheets.iter_mut().filter(|(owner, _)| owner.pod == pod);
        own.for_each(|(_, sheet)| sheet.disturbed(now));
    }

    /// A worker's turn is over.
    pub(crate) fn turned(&mut self, owner: Owner, notices: &[Notice], rests: bool) {
        let now = self.now;
        let drops = |notice: &Notice| matches!(notice, Notice::Dropped { .. });
        let commits = |notice: &Notice| matches!(notice, Notice::Committed(_));
        let (timed, interval) = (self.plan.is_timed(), self.plan.shape.wall_punctuation);
        let calls = self.plan.slow.map_or(0, |slow| TICK_CALLS_MAX * slow.guest);
        let due_within = interval.map(|interval| interval + TICK_LATE_MAX + calls);
        let due_within = due_within.filter(|_| self.plan.tasks_never_fail());
        let stands_still = self.clocks(owner.pod).wall == Timestamp::MAX;
        let sheet = self.time_sheet(owner);
        sheet.rests |= notices.iter().any(drops);
        if rests || sheet.rests || stands_still {
            sheet.disturbed(now);
            sheet.forget_waiting();
        }
        sheet.rests &= !notices.iter().any(commits);
        if !timed {
            sheet.forget_waiting();
        }
        if let Err(text) = sheet.turned(now, due_within) {
            self.violate(format_args!("{owner:?}: {text}"));
        }
    }
}

impl Plan {
    /// Whether workers are held to what their turns and transactions may take: only where time
    /// goes by in their own calls alone.
    pub(crate) fn is_timed(&self) -> bool {
        self.slow.is_some() && self.swaps.is_empty()
    }

    /// Whether no task rests for what it failed at.
    fn tasks_never_fail(&self) -> bool {
        let Faults { transient, initialise, corrupt, .. } = self.faults;
        let passes = self.shape.policies.rate == 0 && self.poison.is_empty();
        passes && self.swaps.is_empty() && (transient, initialise, corrupt) == (0, 0, 0)
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}
