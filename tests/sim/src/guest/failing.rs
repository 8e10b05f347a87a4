//! When simulated user code fails, and how.

use sidestream_core::{
    record::TaskId,
    task::{Failure, FailureKind},
    topology::OnError,
};

use super::{POISON, Row, SimProcessor, failure};
use crate::{
    plan::FAILURES_MAX,
    poison::{self, Way},
    swap::Behaviour,
};

impl SimProcessor {
    /// Whether a record fails now: always if it is poison, else as often as the seed says.
    pub(super) fn check_failure(&self, row: &Row<'_>) -> Result<(), Failure> {
        self.check_leak(Some(row.row))?;
        let mut state = self.world.lock();
        if row.value.is_some_and(|value| state.plan.poison.contains(value)) {
            return Err(failure(FailureKind::Reject, Some(row.row), POISON));
        }
        if let Some(Way::Call(kind)) = poison::way(&state.plan, &self.name, row.stamp) {
            let named = matches!(kind, FailureKind::Reject | FailureKind::Retry);
            return Err(failure(kind, named.then_some(row.row), POISON));
        }
        self.check_version(row)?;
        let rate = state.faults().transient;
        let place = (self.task, self.transform, row.input, row.offset);
        let luck = mixed(state.plan.seed, place);
        if rate == 0 || !luck.is_multiple_of(rate) {
            return Ok(());
        }
        let failed = state.failed.entry(place).or_default();
        if *failed >= FAILURES_MAX - u32::from(luck & 1024 == 0) {
            return Ok(());
        }
        *failed += 1;
        if state.plan.named {
            return Err(failure(FailureKind::Retry, Some(row.row), "not now"));
        }
        if !state.strike(self.task) {
            return Ok(());
        }
        // What would be passed over at once must not fail by chance, unless it asks for another try.
        let is_final = self.on_error.then != OnError::Fail && self.on_error.retry.is_none();
        match luck >> 12 & 3 {
            _ if is_final => Err(failure(FailureKind::Retry, Some(row.row), "not now")),
            0 => Err(failure(FailureKind::Trap, None, "out of bounds")),
            1 => Err(failure(FailureKind::Deadline, None, "too slow")),
            2 => Err(failure(FailureKind::Retry, Some(row.row), "not now")),
            _ => Err(failure(FailureKind::Malformed, None, "nonsense")),
        }
    }

    /// Whether the version fails at a record where others don't.
    fn check_version(&self, row: &Row<'_>) -> Result<(), Failure> {
        match self.behaviour {
            Behaviour::TrapsAlways => Err(failure(FailureKind::Trap, None, "it always does")),
            Behaviour::TrapsAt(number) if self.records + row.row as u64 + 1 == number => {
                Err(failure(FailureKind::Trap, None, "it is worn out"))
            }
            Behaviour::Rejects(rate) => {
                let place = (self.task, self.transform, row.input, row.offset);
                match mixed(self.version, place).is_multiple_of(rate) {
                    true => Err(failure(FailureKind::Reject, Some(row.row), "not by this version")),
                    false => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// Whether the instance is used up by what it was given before.
    pub(super) fn check_leak(&self, row: Option<usize>) -> Result<(), Failure> {
        let Some((most, kind)) = self.world.lock().plan.leak else { return Ok(()) };
        if self.uses + (row.unwrap_or(0) as u64) < most {
            return Ok(());
        }
        let is_named = matches!(kind, FailureKind::Reject | FailureKind::Retry);
        Err(failure(kind, row.filter(|_| is_named), "used up"))
    }
}

/// A number that depends on all of a place.
fn mixed(seed: u64, place: (TaskId, usize, u32, i64)) -> u64 {
    let (task, transform, input, offset) = place;
    let parts = [
        u64::from(task.subtopology),
        u64::from(task.partition.unsigned_abs()),
        transform as u64,
        u64::from(input),
        offset.unsigned_abs(),
    ];
    let mix =
        |hash: u64, part: u64| (hash ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
    parts.into_iter().fold(seed ^ 0xA5A5, mix) >> 3
}
