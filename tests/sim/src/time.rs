//! Time: how long calls take, and what workers owe each other in turns.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sidestream_core::{
    record::{Offset, TaskId, Timestamp},
    task::Clock,
    worker::Notice,
};

use crate::{
    harm::Harm,
    odd::YEAR,
    plan::{Faults, Plan},
    slow::{MORE_SCHEDULES, Slow},
    swap::Owner,
    world::State,
};

/// How many turns of a worker may come to nothing, one after another, where calls hang.
const VAIN_TURNS_MAX: u32 = 40;

/// How many calls may begin after the end of a turn: a batch that began in time may be followed by a
/// punctuation of each clock. Where calls hang, a record may be tried on a fresh instance before, and
/// where there are two readers of a batch, the second one may be late.
const LATE_MAX: u32 = 2;

/// How many turns others may have before a task that could work does.
const PASSED_OVER_MAX: u32 = 16;

/// How many turns with calls others may have, for each task there is, before one that has work has
/// its own. A turn is of healthy tasks or of one that works alone, in turns, and begins after the
/// one of its kind that worked last: so each other one comes at most once before, and the other kind
/// once for each of these.
const OTHERS_TURNS_MAX: u32 = 2;

/// How many punctuations may follow one another without a look at the log.
const PUNCTUATIONS_MAX: u32 = 500;

/// How late a wall-clock punctuation may be, in milliseconds and, after those, in turns.
const TICK_TURNS_MAX: u32 = 8;
const TICK_LATE_MAX: u64 = 600;

/// How many slow calls may come after the end of a turn: those of user code that began before, and
/// those of the log for a commit.
const CALLS_AFTER: u64 = 4;

/// How long a task waits after its first failure, and for what is not there, at most.
const BACKOFF_MAX: u64 = 30;
const WAIT_MAX: u64 = 5_000;

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
    /// Tasks that run: since when their wall clock was not told, and for how many turns it is late.
    ticks: BTreeMap<TaskId, (u64, u32)>,
    /// When the next step of a task that starts may be due only.
    starts_go_on_at: u64,
    /// Until when tasks wait for their next attempt, whatever becomes of them meanwhile.
    resting: BTreeMap<TaskId, u64>,
    /// Tasks that have committed calls since they run: how many turns with calls others had since
    /// their own. Before, they may have no schedules, which are dropped with the rest.
    others: BTreeMap<TaskId, Others>,
    /// Tasks that were called since work was dropped.
    tried: BTreeSet<TaskId>,
    /// Tasks that were called in this turn.
    called: BTreeSet<TaskId>,
    /// What they did to each other.
    pub(crate) harm: Harm,
    /// Work was dropped: the worker may rest until it commits again.
    rests: bool,
    /// Turns in a row that ended with a drop.
    vain: u32,
}

/// What a task that runs, and has punctuations that are due, sees of others.
#[derive(Clone, Copy, Debug, Default)]
struct Others {
    /// In so many turns since its own they were called, and it was not.
    turns: u32,
    /// Until then it waits for its next attempt.
    rests_until: u64,
}

/// How long a turn may last, in milliseconds, and how many calls may begin after that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnMax {
    milliseconds: u64,
    late: u32,
    /// Whether calls hang that records fail in.
    hangs: bool,
}

impl TimeSheet {
    /// The worker looked at its log.
    pub(crate) const fn polled(&mut self) {
        (self.began, self.late, self.punctuations) = (None, 0, 0);
    }

    /// Records came for a task, which waits for its turn if it runs.
    pub(crate) fn delivered(&mut self, task: TaskId) {
        if self.ticks.contains_key(&task) {
            self.waiting.entry(task).or_default();
        }
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
        turn_max: TurnMax,
    ) -> Result<(), String> {
        self.waiting.remove(&task);
        self.calls(task);
        self.worked = true;
        self.begins(now, turn_max)
    }

    /// A transform is called for what another one handed over.
    pub(crate) fn goes_on(&mut self, now: u64, turn_max: TurnMax) -> Result<(), String> {
        match turn_max.hangs {
            true => self.begins(now, turn_max),
            false => Ok(()),
        }
    }

    /// A transform is punctuated, by the wall clock or not.
    pub(crate) fn punctuates(
        &mut self,
        (task, by_wall): (TaskId, bool),
        now: u64,
        turn_max: TurnMax,
    ) -> Result<(), String> {
        self.punctuations += 1;
        self.calls(task);
        if self.punctuations > PUNCTUATIONS_MAX {
            return Err(format!("{task} is punctuated without end"));
        }
        if let Some(tick) = self.ticks.get_mut(&task).filter(|_| by_wall) {
            *tick = (now, 0);
        }
        self.begins(now, turn_max)
    }

    fn calls(&mut self, task: TaskId) {
        self.called.insert(task);
        self.harm.called(task);
        self.tried.insert(task);
        self.others.entry(task).and_modify(|others| *others = Others::default());
    }

    fn begins(&mut self, now: u64, turn_max: TurnMax) -> Result<(), String> {
        let began = *self.began.get_or_insert(now);
        if now > began + turn_max.milliseconds + 2 {
            self.late += 1;
        }
        match self.late > turn_max.late {
            true => Err(format!("a turn that began at {began} goes on at {now}")),
            false => Ok(()),
        }
    }

    /// The worker stood still in a call for so long until now, and could punctuate nobody. If that was
    /// a step of a task that starts, as those do that an unknown outcome sent back, the next step comes
    /// only as long after it.
    pub(crate) fn stood_still(&mut self, milliseconds: u64, now: u64) {
        self.ticks.values_mut().for_each(|(since, _)| *since += milliseconds);
        self.starts_go_on_at = self.starts_go_on_at.max(now + milliseconds);
    }

    /// The clock of the worker jumped, or its process stood still: what is due by it is due anew.
    pub(crate) fn disturbed(&mut self, now: u64) {
        self.ticks.values_mut().for_each(|tick| *tick = (tick.0.max(now), 0));
    }

    /// A task runs from now on, or does so no more.
    pub(crate) fn runs(&mut self, task: TaskId, now: u64, runs: bool) {
        self.others.remove(&task);
        self.tried.remove(&task);
        if runs {
            self.ticks.insert(task, (now, 0));
        } else {
            self.ticks.remove(&task);
            self.waiting.remove(&task);
        }
    }

    /// Which tasks have work is not known until they commit: those with open work begin again, as
    /// after a crash, or clocks jumped.
    pub(crate) fn forget_others(&mut self) {
        self.others.clear();
    }

    /// A task has committed. If it was called before, it has schedules now, whatever is dropped.
    fn committed(&mut self, task: TaskId) {
        if self.tried.contains(&task) {
            self.others.entry(task).or_default();
        }
    }

    /// A task is not tried again for a while.
    fn rests(&mut self, task: TaskId, until: u64) {
        self.resting.insert(task, until);
        self.others.entry(task).and_modify(|others| others.rests_until = until);
    }

    /// A turn is over: others must not be called in one after the other while a task has work.
    fn took_turns(&mut self, now: u64, tasks: usize) -> Result<(), String> {
        let called = std::mem::take(&mut self.called);
        let max = OTHERS_TURNS_MAX * u32::try_from(tasks).expect("few tasks");
        for (task, others) in &mut self.others {
            let waits = !called.contains(task) && now > others.rests_until;
            if waits && !called.is_empty() {
                others.turns += 1;
            }
            if others.turns > max {
                return Err(format!("{task} has work, but others had {} turns", others.turns));
            }
        }
        Ok(())
    }

    /// A turn in which everything was dropped, or something committed. Those of the one kind must not
    /// go on for ever.
    fn came_to(&mut self, dropped: bool, committed: bool) -> Result<(), String> {
        self.vain = match (committed, dropped) {
            (true, _) => 0,
            (false, true) => self.vain + 1,
            (false, false) => self.vain,
        };
        match self.vain > VAIN_TURNS_MAX {
            true => Err(format!("{} turns came to nothing", self.vain)),
            false => Ok(()),
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
        for (task, (since, turns)) in &mut self.ticks {
            let rests = self.resting.get(task).copied().unwrap_or_default();
            let since = rests.max(self.starts_go_on_at).max(*since);
            // It may be that others had all of the time.
            let is_late = due_within.is_some_and(|ms| now > since.saturating_add(ms));
            *turns = if is_late { *turns + 1 } else { 0 };
        }
        let silent = self.ticks.iter().find(|(_, (_, turns))| *turns > TICK_TURNS_MAX);
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
    pub(crate) fn turn_max(&self) -> TurnMax {
        let own = milliseconds(self.plan.config.turn_time_max);
        let hangs = self.plan.hangs();
        let milliseconds = match self.plan.is_timed() {
            // A batch that began in time is divided for half of a transaction's time at most.
            true if hangs => own + self.plan.timeouts.transaction / 2,
            true => own,
            false => u64::MAX / 2,
        };
        let late = LATE_MAX + u32::from(hangs) + u32::from(self.plan.shape.spare.is_some());
        TurnMax { milliseconds, late, hangs }
    }

    /// Lets a slow call take its time.
    pub(crate) fn dawdle(&mut self, most: impl FnOnce(&Slow) -> u64) {
        if let Some(slow) = self.plan.slow {
            let milliseconds = self.prng.between(0, most(&slow));
            self.pass(milliseconds);
        }
    }

    /// Lets a call that fails take as long as one may.
    pub(crate) fn hang(&mut self) {
        if let Some(slow) = self.plan.slow.filter(|slow| slow.hang > 0) {
            self.pass(slow.hang);
        }
    }

    /// The wall clock of a process jumps.
    pub(crate) fn jump(&mut self, pod: usize, skew: i64) {
        self.note(pod, format_args!("its clock is off by {skew} ms"));
        self.pods[pod].skew = skew;
        self.disturb(pod);
    }

    /// What was due in a process is due anew.
    pub(crate) fn disturb(&mut self, pod: usize) {
        let now = self.now;
        let own = self.time_sheets.iter_mut().filter(|(owner, _)| owner.pod == pod);
        own.for_each(|(_, sheet)| {
            sheet.disturbed(now);
            sheet.forget_others();
        });
    }

    /// Nobody had a turn for long: what was due is due anew.
    pub(crate) fn stood_still(&mut self) {
        let now = self.now;
        self.time_sheets.values_mut().for_each(|sheet| sheet.disturbed(now));
    }

    /// The wall clock of a process is set back by a year.
    pub(crate) fn set_back(&mut self, pod: usize) {
        self.jump(pod, self.pods[pod].skew - YEAR);
    }

    /// A worker's turn is over.
    pub(crate) fn turned(&mut self, owner: Owner, notices: &[Notice], rests: bool) {
        let now = self.now;
        let drops = |notice: &Notice| matches!(notice, Notice::Dropped { .. });
        let commits = |notice: &Notice| matches!(notice, Notice::Committed(_));
        let (timed, interval) = (self.plan.is_timed(), self.plan.shape.wall_punctuation);
        let hangs = timed && self.plan.hangs();
        let slow = self.plan.slow.map_or(0, |slow| self.plan.ticks_wait(slow));
        let due_within = interval.map(|interval| interval + TICK_LATE_MAX + slow);
        let due_within = due_within.filter(|_| self.plan.tasks_never_fail());
        let (tasks, restarts) = (self.plan.tasks().len(), !self.plan.config.exactly_once);
        let stands_still = self.clocks(owner.pod).wall == Timestamp::MAX;
        let sheet = self.time_sheet(owner);
        let (dropped, committed) = (notices.iter().any(drops), notices.iter().any(commits));
        sheet.rests |= dropped;
        if rests || sheet.rests || stands_still {
            sheet.disturbed(now);
            sheet.forget_waiting();
        }
        if dropped {
            sheet.tried.clear();
        }
        for (task, ..) in notices.iter().flat_map(offsets) {
            sheet.committed(*task);
        }
        for (task, milliseconds) in notices.iter().filter_map(rest) {
            sheet.rests(task, now.saturating_add(milliseconds));
        }
        if stands_still || (dropped && restarts) {
            sheet.forget_others();
        }
        sheet.rests &= !committed;
        if !timed {
            sheet.forget_waiting();
        }
        let harmed = sheet.harm.told(notices);
        let comes_to = if hangs { sheet.came_to(dropped, committed) } else { Ok(()) };
        let took_turns = if timed { sheet.took_turns(now, tasks) } else { Ok(()) };
        if let Err(text) =
            comes_to.and(took_turns).and(harmed).and_then(|()| sheet.turned(now, due_within))
        {
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

    /// Whether calls hang that records fail in.
    pub(crate) fn hangs(&self) -> bool {
        self.slow.is_some_and(|slow| slow.hang > 0)
    }

    /// How long a punctuation by the wall clock may wait for others where calls are slow and more are
    /// due than there is time for: the one that waits longest comes first, one in each share of its
    /// task at least, and between two of those each other task has one.
    fn ticks_wait(&self, slow: Slow) -> u64 {
        let others = MORE_SCHEDULES.iter().filter(|(clock, _)| *clock == Clock::WallClock).count();
        let own = 1 + u64::from(self.shape.spare.is_some());
        let shares = (others as u64 + own) * self.tasks().len() as u64;
        let share = milliseconds(self.config.turn_time_max) + CALLS_AFTER * (slow.guest + slow.log);
        shares * share
    }

    /// Whether no task rests for what it failed at.
    fn tasks_never_fail(&self) -> bool {
        let Faults { transient, initialise, corrupt, .. } = self.faults;
        let passes = self.shape.policies.rate == 0 && self.poison.is_empty();
        passes && self.swaps.is_empty() && (transient, initialise, corrupt) == (0, 0, 0)
    }
}

/// The offsets that a notice says to be committed.
fn offsets(notice: &Notice) -> &[(TaskId, usize, Offset)] {
    match notice {
        Notice::Committed(commit) => &commit.offsets,
        _ => &[],
    }
}

/// Which task a notice says to wait, and how long at most.
fn rest(notice: &Notice) -> Option<(TaskId, u64)> {
    match notice {
        Notice::Retrying { task, attempts, .. } => Some((*task, BACKOFF_MAX << attempts.min(&11))),
        Notice::Held { task, .. } => Some((*task, WAIT_MAX)),
        _ => None,
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2)
}
