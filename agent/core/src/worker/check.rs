//! Whether a task's state can be continued with what its changelogs and its group hold. What
//! can't is refused with a remedy, or rebuilt; never continued over a gap.

use std::time::Duration;

use super::{Environment, Notice, Now, Slot, Worker, start::Group};
use crate::{
    ports::Bounds,
    record::{Committed, Offset, TaskId, Timestamp, TopicId, TopicPartition},
    task::{
        InputPosition, Mark, Position, StoreError, StorePosition, empty_position, store_positions,
    },
    topology::{Input, OnOutOfRange, TopicKind},
};

/// What a person can do about a place in an input that is not there any more.
const INPUT_REMEDY: &str = "write `on_out_of_range: earliest` (or `latest`) at this input to go on \
                            where it is there, and start the agents again; or stop all of them and \
                            begin anew with `sidestream reset --pipeline FILE`, once their sessions \
                            have ended (`session.timeout.ms`, 10 s; before that brokers refuse a \
                            reset with UNKNOWN_MEMBER_ID)";

/// The same, for a topic of the agent's own.
const REPARTITION_REMEDY: &str = "stop all agents and begin anew with `sidestream reset --pipeline \
                                  FILE`";

/// What a person can do about state that can't be continued.
const BEGIN_ANEW: &str = "if the state may be lost, stop all agents and begin anew with `sidestream \
                          reset --pipeline FILE`";

/// What has to be waited for before a group's offsets can be set by hand.
const SESSIONS: &str = "once the agents are stopped and their sessions have ended \
                        (`session.timeout.ms`, 10 s; before that brokers refuse with \
                        UNKNOWN_MEMBER_ID)";

/// Where an input is read on.
pub(super) enum Place {
    /// Where the group's offset says.
    Here(Committed),
    /// The group has no offset.
    Nowhere,
    /// What the group's offset stands for is not there any more.
    Lost {
        /// Why.
        reason: String,
        /// What can be done.
        remedy: &'static str,
        /// What is still true of what is stored beside the offset.
        metadata: String,
    },
}

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
    bounds: &Bounds,
) -> Option<String> {
    let partition = id.partition;
    let offset = found.map_or(0, |found| found.offset);
    if found.is_some_and(|found| found.topic_id != bounds.topic_id) {
        Some(made_again(changelog, id))
    } else if offset > bounds.end {
        Some(format!(
            "partition {partition} of the changelog `{changelog}` was truncated: it ends at \
             {}, but the state of task {id} is at {offset}; restore the topic, or {BEGIN_ANEW}",
            bounds.end
        ))
    } else if offset < bounds.start {
        Some(format!(
            "partition {partition} of the changelog `{changelog}` has expired up to offset {}, \
             but the state of task {id} needs it from {offset}; a changelog must be compacted, \
             never deleted; restore the topic, or {BEGIN_ANEW}",
            bounds.start
        ))
    } else {
        None
    }
}

fn made_again(changelog: &str, id: TaskId) -> String {
    format!(
        "the changelog `{changelog}` was deleted and created again since the state of task {id} \
         was written; restore the topic, or {BEGIN_ANEW}"
    )
}

/// Whether deletes that came after `position` may have been compacted away by `now`. One of a time
/// that is still to come says nothing of its age: a clock was ahead when it was written, or is behind
/// now. By less than half of the age that may be, that changes nothing.
fn is_too_old(position: &Position, now: Timestamp, age_max: Duration) -> bool {
    let (age, age_max) = (age(position, now), milliseconds(age_max));
    age > age_max || age < -(age_max / 2)
}

/// The same, for what a restore that began at `began` has read by `now`. The clock that went further
/// tells how long that took: the wall clock may have been set meanwhile, which makes nothing younger
/// and says nothing against what was read, and the other one stands still in a machine that sleeps.
pub(super) fn is_too_slow(position: &Position, began: Now, now: Now, age_max: Duration) -> bool {
    let took = milliseconds(now.monotonic.saturating_sub(began.monotonic));
    let by_wall_clock = i128::from(now.wall) - i128::from(began.wall);
    age(position, began.wall) + took.max(by_wall_clock) > milliseconds(age_max)
}

/// How old a position is by the wall clock, in milliseconds.
fn age(position: &Position, now: Timestamp) -> i128 {
    i128::from(now) - i128::from(position.committed_at)
}

fn milliseconds(duration: Duration) -> i128 {
    i128::try_from(duration.as_millis()).unwrap_or(i128::MAX)
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

impl<E: Environment> Worker<E> {
    /// Where a partition is read on whose group's offset is `found`; `before` is the topic that
    /// its task has read here, if it did.
    pub(super) fn place(
        &self,
        TopicPartition { topic, partition }: TopicPartition,
        found: Option<&Committed>,
        before: TopicId,
        bounds: &Bounds,
    ) -> Place {
        let topic = self.topology.topic(topic);
        let (topic, remedy) = match topic.kind {
            TopicKind::Repartition => (&topic.name, REPARTITION_REMEDY),
            TopicKind::External | TopicKind::Changelog => (&topic.name, INPUT_REMEDY),
        };
        let of = found.map_or(before, |found| Mark::read(&found.metadata).input);
        if of.differs(bounds.topic_id) {
            let reason = format!(
                "the topic `{topic}` was deleted and created again since the group's offsets were \
                 committed, which stand for nothing in it"
            );
            return Place::Lost { reason, remedy, metadata: String::new() };
        }
        let Some(Committed { offset, metadata }) = found else { return Place::Nowhere };
        let Bounds { start, end, .. } = bounds;
        let what = if offset < start {
            format!("records from there up to {start} were deleted before they were read")
        } else if offset > end {
            format!("it was cut, and ends at {end}")
        } else {
            return Place::Here(Committed { offset: *offset, metadata: metadata.clone() });
        };
        let reason = format!(
            "partition {partition} of `{topic}` can't be read on from offset {offset}: {what}"
        );
        Place::Lost { reason, remedy, metadata: metadata.clone() }
    }

    /// Why a task must not begin with its changelogs: the group's offsets were committed with
    /// others, so that what their stores held is lost.
    pub(super) fn other_changelog(
        &self,
        id: TaskId,
        committed: &[Option<Committed>],
        bounds: &[Bounds],
    ) -> Option<String> {
        let marks = committed.iter().flatten().map(|committed| Mark::read(&committed.metadata));
        let marks: Vec<Mark> = marks.collect();
        let mut stores = self.topology.subtopology(id).stores.iter().zip(bounds);
        let (store, _) = stores.find(|(store, bounds)| {
            marks.iter().any(|mark| mark.is_of_another(&store.name, bounds.topic_id))
        })?;
        Some(made_again(&self.topology.topic(store.changelog).name, id))
    }

    /// Whether the state of a task can be continued with what is in its changelogs.
    pub(super) fn check_position(
        &mut self,
        id: TaskId,
        group: &Group,
        bounds: &[Bounds],
    ) -> Result<Check, StoreError> {
        let Some(Slot::Starting(starting)) = self.tasks.get(&id) else {
            return Err(StoreError::Busy);
        };
        let Some(store) = &starting.store else { return Err(StoreError::Busy) };
        let mut position = store_positions(store.as_ref(), bounds.len())?;
        let subtopology = self.topology.subtopology(id);
        let now = self.now.wall;
        let too_old = is_too_old(&position, now, self.config.position_age_max);
        // The marker of the task's own last transaction, of which no delete can be missing.
        let own_marker = Offset::from(self.config.exactly_once);
        let mut is_whole = true;
        for (index, (store, bounds)) in subtopology.stores.iter().zip(bounds).enumerate() {
            let changelog = &self.topology.topic(store.changelog).name;
            let found = position.stores[index].as_ref();
            if let Some(reason) = refusal(changelog, id, found, bounds) {
                return Ok(Check::Refuse(reason));
            }
            match found {
                Some(found) if found.offset + own_marker >= bounds.end => {}
                Some(_) if too_old => {
                    return Ok(Check::Rebuild {
                        store: index,
                        reason: why_rebuilt(&position, now, changelog),
                    });
                }
                Some(_) => is_whole = false,
                None => position.stores[index] = Some(empty_position(bounds.topic_id)),
            }
        }
        if let Some(reason) = self.disagrees(id, &position.inputs, group) {
            return Ok(Check::Refuse(reason));
        }
        if is_whole {
            // Each store lacks nothing, or is read from the beginning from now on: deletes that
            // are compacted away later are those of values that it never sees.
            position.committed_at = now;
        }
        Ok(Check::Continue(position))
    }

    /// Why a state that has seen this much of the inputs must not be continued with the group's
    /// offsets.
    pub(super) fn disagrees(
        &self,
        id: TaskId,
        seen: &[InputPosition],
        group: &Group,
    ) -> Option<String> {
        let mut seen = seen.iter().enumerate().take(group.committed.len());
        seen.find_map(|(place, seen)| {
            let input = &self.topology.subtopology(id).inputs[place];
            let topic = &self.topology.topic(input.topic).name;
            if group.moved.contains(&place) {
                None
            } else if seen.topic_id.differs(group.origins.input(place)) {
                let accepted = group.known.contains(&place)
                    || input.on_out_of_range != OnOutOfRange::Fail
                    || seen.offset == 0;
                (!accepted).then(|| {
                    format!(
                        "the state of task {id} holds records of a topic `{topic}` that was \
                         deleted and created again since; {INPUT_REMEDY}"
                    )
                })
            } else if !group.has(place) && seen.offset > 0 {
                self.without_offset((id, topic), seen.offset, group.committed[place].offset)
            } else {
                self.ahead_of_group((id, topic), seen.offset, group.committed[place].offset)
            }
        })
    }

    /// A state that has seen something had a group with offsets. Now that it has none, what an input
    /// `start`s with may lie beyond what comes next, which would be lost.
    fn without_offset(
        &self,
        (id, topic): (TaskId, &str),
        seen: Offset,
        start: Offset,
    ) -> Option<String> {
        if start <= seen {
            return self.ahead_of_group((id, topic), seen, start);
        }
        Some(format!(
            "the group has no offset of partition {} of `{topic}` any more and would begin at \
             {start}, but the state of task {id} holds records up to offset {seen}: those in \
             between would be lost; {SESSIONS}, set the offset to {seen} with \
             `kafka-consumer-groups.sh --reset-offsets` (or to {start}, to leave them out), or \
             empty the state too with `sidestream reset --pipeline FILE`",
            id.partition
        ))
    }

    /// What the inputs of a task are read on from, beyond what its state has seen, because somebody
    /// else than an agent has set the group's offsets. Agents mark theirs.
    pub(super) fn skipped(&self, id: TaskId, seen: &[InputPosition], group: &Group) -> Vec<Notice> {
        let inputs = &self.topology.subtopology(id).inputs;
        let skipped = |((place, input), seen): ((usize, &Input), &InputPosition)| {
            let to = group.committed[place].offset;
            let is_known = seen.offset > 0
                && !seen.topic_id.differs(group.origins.input(place))
                && !group.moved.contains(&place);
            let is_set = group.has(place) && !group.has_own(place);
            if !is_set || !is_known || seen.offset >= to {
                return None;
            }
            let partition = TopicPartition::new(input.topic, id.partition);
            let reason = format!(
                "the group's offset of partition {} of `{}` was set to {to} by somebody else than \
                 an agent, and the state knows of records up to offset {}: up to {} offsets are \
                 left out",
                id.partition,
                self.topology.topic(input.topic).name,
                seen.offset,
                to - seen.offset
            );
            let offsets = seen.offset..to;
            Some(Notice::Skipped { task: id, partition, offsets, reason })
        };
        inputs.iter().enumerate().zip(seen).filter_map(skipped).collect()
    }

    /// Under exactly once the state can't know more than the group. At least once it may, after a
    /// crash.
    fn ahead_of_group(
        &self,
        (id, topic): (TaskId, &str),
        seen: Offset,
        group: Offset,
    ) -> Option<String> {
        (self.config.exactly_once && seen > group).then(|| {
            format!(
                "the state of task {id} holds records of partition {} of `{topic}` up to offset \
                 {seen}, but the group starts at {group}: its offsets were reset or have expired, \
                 and records would count twice; {SESSIONS}, set them to {seen} with \
                 `kafka-consumer-groups.sh --reset-offsets`, or empty the state too with \
                 `sidestream reset --pipeline FILE`",
                id.partition
            )
        })
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

    #[test]
    fn how_long_a_restore_takes_is_told_by_the_clock_that_went_further() {
        let age_max = Duration::from_millis(1_000);
        let at = |monotonic, wall| Now { monotonic: Duration::from_millis(monotonic), wall };
        let (position, began) =
            (Position { committed_at: 900, ..Position::default() }, at(50, 1_000));
        for (now, expected) in [
            (at(950, 1_900), false),
            (at(951, 1_000), true),
            (at(951, -500_000), true),
            (at(60, -500_000), false),
            (at(60, Timestamp::MIN), false),
            (at(60, 1_901), true),
            (at(60, Timestamp::MAX), true),
        ] {
            assert_eq!(is_too_slow(&position, began, now, age_max), expected, "{now:?}");
        }
        assert!(!is_too_slow(&position, began, at(60, Timestamp::MAX), Duration::MAX));
    }
}
