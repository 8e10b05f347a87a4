//! Whose turn it is.

use crate::record::TaskId;

/// Which tasks worked last.
///
/// Healthy tasks share transactions; one of which something failed has its own, and may take all of
/// a turn for it, again and again. So the two kinds take turns: after a transaction of one that works
/// alone the healthy ones come first, and after theirs the next that works alone. Of a kind, the one
/// after that which worked last is first. So while a task with work waits, each other one passes it
/// at most once among those of its own kind, and the other kind has one turn for each of theirs, and
/// one more: of `n` tasks, others have fewer than `2 n` turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    together: Option<TaskId>,
    alone: Option<TaskId>,
    /// Whether the one that worked last worked alone.
    was_alone: bool,
}

/// A task, and whether it has to work alone.
pub(super) type Candidate = (TaskId, bool);

impl Turns {
    /// `tasks`, which are sorted, in the order in which they may work.
    pub(super) fn order(&self, tasks: impl Iterator<Item = Candidate>) -> Vec<Candidate> {
        let (alone, together): (Vec<_>, Vec<_>) = tasks.partition(|(_, is_alone)| *is_alone);
        let alone = beginning_after(self.alone, alone);
        let together = beginning_after(self.together, together);
        match self.was_alone {
            true => [together, alone].concat(),
            false => [alone, together].concat(),
        }
    }

    /// A task worked, whatever came of it.
    pub(super) const fn worked(&mut self, (id, is_alone): Candidate) {
        self.was_alone = is_alone;
        match is_alone {
            true => self.alone = Some(id),
            false => self.together = Some(id),
        }
    }
}

fn beginning_after(last: Option<TaskId>, mut tasks: Vec<Candidate>) -> Vec<Candidate> {
    let first = last.map_or(0, |last| tasks.partition_point(|(id, _)| *id <= last));
    tasks.rotate_left(first);
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(partition: i32) -> TaskId {
        TaskId { subtopology: 0, partition }
    }

    /// Who has which of so many turns, where each takes all of its turn and always has work.
    fn turns(alone: [bool; 5], times: usize) -> Vec<i32> {
        let mut turns = Turns::default();
        let had = (0..times).map(|_| {
            let next = turns.order((0..).zip(alone).map(|(place, is)| (task(place), is)))[0];
            turns.worked(next);
            next.0.partition
        });
        had.collect()
    }

    #[test]
    fn healthy_tasks_begin_after_the_one_that_worked_last() {
        assert_eq!(turns([false; 5], 7), [0, 1, 2, 3, 4, 0, 1]);
    }

    #[test]
    fn the_kinds_take_turns_and_so_do_the_tasks_of_each() {
        assert_eq!(turns([true, false, true, false, true], 9), [0, 1, 2, 3, 4, 1, 0, 3, 2]);
        assert_eq!(turns([true, true, true, true, false], 6), [0, 4, 1, 4, 2, 4]);
        assert_eq!(turns([false, false, true, false, false], 6), [2, 0, 2, 1, 2, 3]);
    }

    #[test]
    fn all_that_work_alone_have_turns_where_nobody_else_is() {
        assert_eq!(turns([true; 5], 7), [0, 1, 2, 3, 4, 0, 1]);
    }

    #[test]
    fn no_task_waits_for_long_whatever_becomes_of_the_others() {
        let tasks = 5;
        for seed in 0..200_u32 {
            let (mut turns, mut luck) = (Turns::default(), seed);
            let mut alone = [false; 5];
            let mut waits = [0; 5];
            for _ in 0..200 {
                let next = turns.order((0..).zip(alone).map(|(place, is)| (task(place), is)))[0];
                turns.worked(next);
                luck = luck.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let place = usize::try_from(next.0.partition).unwrap();
                // Only one that works can fail, or get over it.
                alone[place] = luck >> 16 & 1 == 1;
                waits.iter_mut().for_each(|turns| *turns += 1);
                waits[place] = 0;
                assert!(waits.iter().all(|turns| *turns < 2 * tasks), "{seed}: {waits:?}");
            }
        }
    }
}
