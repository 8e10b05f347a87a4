//! Whether a task's state can be continued with what its changelogs and its group hold. What
//! can't is refused with a remedy, or rebuilt; never continued over a gap.

use std::time::Duration;

use super::{ChangelogBounds, Committed, Environment, Log, Slot, Worker, start::Step};
use crate::{
    record::{Offset, TaskId, Timestamp},
    task::{Position, StoreError, StorePosition, empty_position, store_positions},
};

/// What is to become of a task's state.
pub(super) enum Check {
    Continue(Position),
    Rebuild { store: usize, reason: String },
    Refuse(String),
}

/// Why a store must not be restored from a changelog, with what can be done.
fn refusal(
    changelog: &str,
    id: TaskId,
    found: Option<&StorePosition>,
    bounds: &ChangelogBounds,
) -> Option<String> {
    let partition = id.partition;
    let begin_anew = format!(
        "if the state may be lost, remove the state of task {id}, delete the topic `{changelog}` \
         and reset the group's offsets"
    );
    let offset = found.map_or(0, |found| found.offset);
    if found.is_some_and(|found| found.topic_id != bounds.topic_id) {
        Some(format!(
            "the changelog `{changelog}` was deleted and created again since the state of task \
             {id} was written; restore the topic, or {begin_anew}"
        ))
    } else if offset > bounds.end {
        Some(format!(
            "partition {partition} of the changelog `{changelog}` was truncated: it ends at \
             {}, but the state of task {id} is at {offset}; restore the topic, or {begin_anew}",
            bounds.end
        ))
    } else if offset < bounds.start {
        Some(format!(
            "partition {partition} of the changelog `{changelog}` has expired up to offset {}, \
             but the state of task {id} needs it from {offset}; a changelog must be compacted, \
             never deleted; restore the topic, or {begin_anew}",
            bounds.start
        ))
    } else {
        None
    }
}

/// Whether deletes that came after `position` may have been compacted away by `now`. One of a time
/// that is still to come says nothing of its age: a clock was ahead when it was written, or is behind
/// now. By less than half of the age that may be, that changes nothing.
pub(super) fn is_too_old(position: &Position, now: Timestamp, age_max: Duration) -> bool {
    let age = i128::from(now) - i128::from(position.committed_at);
    let age_max = i128::try_from(age_max.as_millis()).unwrap_or(i128::MAX);
    age > age_max || age < -(age_max / 2)
}

/// Why a store that lacks something is rebuilt, by the time of its position.
fn why_rebuilt(position: &Position, now: Timestamp, changelog: &str) -> String {
    match now.saturating_sub(position.committed_at) {
        age @ 0.. => {
            format!("its state is {age} ms old, so deletes may be missing from `{changelog}`")
        }
        ahead => format!(
            "its state was written {} ms after the time that the clock tells now, so nobody knows \
             how old it is, and deletes may be missing from `{changelog}`",
            ahead.saturating_neg()
        ),
    }
}

impl<L: Log, E: Environment> Worker<L, E> {
    /// Whether the state of a task can be continued with what is in its changelogs.
    pub(super) fn check_position(
        &mut self,
        id: TaskId,
        bounds: &[ChangelogBounds],
    ) -> Result<Check, StoreError> {
        let Some(Slot::Starting(starting)) = self.tasks.get(&id) else {
            return Err(StoreError::Busy);
        };
        let (Some(store), Step::Bounds(group)) = (&starting.store, &starting.step) else {
            return Err(StoreError::Busy);
        };
        let mut position = store_positions(store.as_ref(), bounds.len())?;
        let subtopology = self.topology.subtopology(id);
        let now = self.now.wall;
        let too_old = is_too_old(&position, now, self.config.position_age_max);
        // The marker of the task's own last transaction, of which no delete can be missing.
        let own_marker = Offset::from(self.config.exactly_once);
        for (index, (store, bounds)) in subtopology.stores.iter().zip(bounds).enumerate() {
            let changelog = &self.topology.topic(store.changelog).name;
            let found = position.stores[index].as_ref();
            if let Some(reason) = refusal(changelog, id, found, bounds) {
                return Ok(Check::Refuse(reason));
            }
            match found {
                Some(found) if too_old && found.offset + own_marker < bounds.end => {
                    return Ok(Check::Rebuild {
                        store: index,
                        reason: why_rebuilt(&position, now, changelog),
                    });
                }
                Some(_) => {}
                None => position.stores[index] = Some(empty_position(bounds.topic_id)),
            }
        }
        if self.config.exactly_once
            && let Some(reason) = self.ahead_of_group(id, &position, &group.committed)
        {
            return Ok(Check::Refuse(reason));
        }
        if too_old {
            // Each store lacks nothing, or is read from the beginning from now on: deletes that
            // are compacted away later are those of values that it never sees.
            position.committed_at = now;
        }
        Ok(Check::Continue(position))
    }

    /// Under exactly once the state can't know more than the group.
    fn ahead_of_group(
        &self,
        id: TaskId,
        position: &Position,
        committed: &[Committed],
    ) -> Option<String> {
        let inputs = &self.topology.subtopology(id).inputs;
        let mut offsets = inputs.iter().zip(&position.inputs).zip(committed);
        let ((input, state), group) = offsets.find(|((_, state), group)| **state > group.offset)?;
        let topic = &self.topology.topic(input.topic).name;
        Some(format!(
            "the state of task {id} holds records of partition {} of `{topic}` up to offset \
             {state}, but the group starts at {}: its offsets were reset or have expired; set \
             them to {state}, or remove the state of the task and its changelogs to begin anew",
            id.partition, group.offset
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_of_a_time_to_come_has_no_age_that_counts() {
        let (now, age_max) = (1_000_000, Duration::from_millis(1_000));
        for (committed_at, expected) in [
            (now - 1_001, true),
            (now - 1_000, false),
            (now, false),
            (now + 500, false),
            (now + 501, true),
            (Timestamp::MAX, true),
            (Timestamp::MIN, true),
        ] {
            let position = Position { committed_at, ..Position::default() };
            assert_eq!(is_too_old(&position, now, age_max), expected, "{committed_at}");
        }
        let position = Position { committed_at: Timestamp::MAX, ..Position::default() };
        assert!(!is_too_old(&position, Timestamp::MIN, Duration::MAX), "no age is too old then");
        assert!(why_rebuilt(&position, Timestamp::MIN, "a").contains("after the time"));
    }
}
