//! What failed of a task: how often, when to try again, and which records were given up.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    record::Offset,
    task::{Division, Failure, FailureKind, dead_letter::Cut},
    topology::{ErrorPolicy, OnError, Retry},
};

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The record's: it is too large.
    Size,
    /// The record's: its time.
    Time,
    /// The record's: something else about it.
    Record,
    /// No record's, and no waiting ends it: a right that is missing, a policy of the topic.
    Lasting,
    /// The cluster's: a topic that is not there, a partition without a leader.
    Passing,
}

impl Fault {
    /// Whether a record is at fault.
    #[must_use]
    pub const fn is_of_record(self) -> bool {
        match self {
            Self::Size | Self::Time | Self::Record => true,
            Self::Lasting | Self::Passing => false,
        }
    }
}

/// The longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// The longest wait for something that is sure to be there again some time.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How often in a row work may be refused without a record to blame, and without being counted:
/// enough to halve the largest batch down to one record, and to tell apart what that one caused.
const VAGUE_MAX: u32 = 32;

/// How often batches are halved: down to one record.
const DROPS_MAX: u32 = 16;

/// A record as a transform of the task was given it, told by the input record it stems from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RecordId {
    /// An index into the transforms of the sub-topology.
    pub(crate) transform: u16,
    /// An index into the inputs of the sub-topology.
    pub(crate) input: u16,
    /// Which of the records that the transform was given for that one.
    pub(crate) sibling: u32,
    /// The offset of the input record.
    pub(crate) offset: Offset,
}

/// Failures that are not over yet.
///
/// A record that is known to have failed has a count of its own: a batch is retried whole, so that
/// one record may fail after others have passed, and what passed in the end must not use up the
/// attempts of what comes after it. Failures of no known record share a count, for all may be the
/// same one's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) retry_at: Duration,
    counts: BTreeMap<Option<RecordId>, Count>,
    /// How often work was dropped, less the commits since.
    drops: u32,
    /// How often that was for want of time to divide a batch, less the commits since.
    cuts: u32,
    /// The first and the last record of the smallest part of a batch that failed as a whole.
    suspects: Option<(RecordId, RecordId)>,
    /// Something up to these offsets was refused, and it is not known what.
    vague_until: Vec<Offset>,
    /// How often, since the last commit.
    vague: u32,
    /// How often in a row something was not there that the task needs.
    waits: u32,
}

/// What failed, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) record: Option<RecordId>,
    /// Once these offsets are committed, the failure is over; at the next commit if empty.
    pub(crate) over_at: Vec<Offset>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Count {
    attempts: u32,
    over_at: Vec<Offset>,
    given_up: Option<Failure>,
    /// What its dead letter lacks, since brokers refuse a whole one.
    cut: Cut,
}

/// What is to be done about a record that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Drop the transaction and try again later.
    Retry,
    /// Drop the transaction and stop the task.
    Stop,
    /// Go on without the record.
    GiveUp,
}

/// Says what is to be done about a record that failed for the `attempts`th time, by the policy of
/// its transform; `default` is the worker's own.
pub(crate) fn judge(
    policy: ErrorPolicy,
    kind: FailureKind,
    attempts: u32,
    default: Retry,
) -> Verdict {
    let attempts_max = match (policy.retry, policy.then) {
        (Some(retry), _) => retry.attempts_max,
        (None, OnError::Skip | OnError::DeadLetter(_)) if kind != FailureKind::Retry => 1,
        (None, OnError::Fail | OnError::Skip | OnError::DeadLetter(_)) => default.attempts_max,
    };
    match policy.then {
        _ if attempts < attempts_max => Verdict::Retry,
        OnError::Fail => Verdict::Stop,
        OnError::Skip | OnError::DeadLetter(_) => Verdict::GiveUp,
    }
}

impl Failures {
    /// Counts one more. Returns how often the same has failed now; the wait doubles each time.
    pub(crate) fn count(&mut self, now: Duration, backoff: Duration, failed: Failed) -> u32 {
        let count = self.counts.entry(failed.record).or_default();
        let doubled = backoff.saturating_mul(1 << count.attempts.min(16));
        self.retry_at = now + doubled.min(BACKOFF_MAX);
        count.attempts += 1;
        if !failed.over_at.is_empty() {
            count.over_at = failed.over_at;
        }
        count.attempts
    }

    /// How often the same has failed.
    pub(crate) fn attempts(&self, record: Option<RecordId>) -> u32 {
        self.counts.get(&record).map_or(0, |count| count.attempts)
    }

    /// Remembers that a record is passed over, until that is committed: if the transaction is
    /// dropped, the record need not be found and tried again.
    pub(crate) fn give_up(&mut self, record: RecordId, over_at: Vec<Offset>, failure: Failure) {
        let count = self.counts.entry(Some(record)).or_default();
        (count.over_at, count.given_up) = (over_at, Some(failure));
    }

    /// Whether a record failed and that is not over; why it did if it was given up.
    pub(crate) fn known(&self, record: RecordId) -> Option<Option<&Failure>> {
        self.counts.get(&Some(record)).map(|count| count.given_up.as_ref())
    }

    /// Whether nothing failed that is not over.
    pub(crate) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Whether something failed or was refused and that is not over: such work has a transaction of
    /// its own, so that nobody else's is dropped with it.
    pub(crate) fn is_alone(&self) -> bool {
        !self.counts.is_empty() || !self.vague_until.is_empty()
    }

    /// Something was refused of what comes before these offsets, and it is not known what: it comes
    /// back in smaller transactions. Says whether that is worth it once more.
    pub(crate) fn vague(&mut self, retry_at: Duration, until: Vec<Offset>) -> bool {
        self.vague_until = until;
        self.vague += 1;
        self.retry_at = retry_at;
        self.vague <= VAGUE_MAX
    }

    /// Something is not there that the task needs for what comes before these offsets. Nothing
    /// failed. Returns how often that was so in a row; the wait doubles each time.
    pub(crate) fn wait(&mut self, now: Duration, backoff: Duration, until: Vec<Offset>) -> u32 {
        self.vague_until = until;
        self.retry_at = now + backoff.saturating_mul(1 << self.waits.min(16)).min(WAIT_MAX);
        self.waits += 1;
        self.waits
    }

    /// The dead letter of a record was refused: the next one is smaller. Says whether there is
    /// anything left to take away.
    pub(crate) fn cut(
        &mut self,
        record: Option<RecordId>,
        fault: Fault,
        over_at: Vec<Offset>,
    ) -> bool {
        let count = self.counts.entry(record).or_default();
        count.over_at = over_at;
        count.cut.deepen(fault)
    }

    /// Whether there is anything left to take away from the dead letter of a record.
    pub(crate) fn may_cut(&self, record: Option<RecordId>) -> bool {
        self.cut_of(record).deepen(Fault::Record)
    }

    /// What the dead letter of a record has to do without.
    pub(super) fn cut_of(&self, record: Option<RecordId>) -> Cut {
        self.counts.get(&record).map_or_else(Cut::default, |count| count.cut)
    }

    /// Work was dropped: the next batch is half as large, so that one that takes too long for a
    /// transaction comes to an end in parts.
    pub(crate) const fn dropped(&mut self) {
        if self.drops < DROPS_MAX {
            self.drops += 1;
        }
    }

    /// Whether work was dropped, and fewer commits than that have come since.
    pub(crate) const fn has_dropped(&self) -> bool {
        self.drops > 0
    }

    /// How many records a batch may have, of at most `max`.
    pub(crate) fn batch_records_max(&self, max: usize) -> usize {
        halved(max, self.drops)
    }

    /// There was no time to divide what comes before these offsets as far as needed, and the work
    /// was dropped: its parts begin half as large, in a transaction of its own.
    pub(crate) fn ran_out_of_time(&mut self, now: Duration, until: Vec<Offset>) {
        self.vague_until = until;
        self.retry_at = now;
        if self.cuts < DROPS_MAX {
            self.cuts += 1;
        }
    }

    /// A part of a batch from one record to another failed, and not one record is known to.
    pub(crate) const fn suspect(&mut self, first: RecordId, last: RecordId) {
        self.suspects = Some((first, last));
    }

    /// Between which records the one is, both included, that the last division was looking for.
    pub(crate) const fn suspects(&self) -> Option<(RecordId, RecordId)> {
        self.suspects
    }

    /// How a batch of at most `max` records is divided, until `ends_at`: it begins in parts if there
    /// was no time to divide one.
    pub(crate) fn division(&self, max: usize, ends_at: Duration) -> Division {
        let part_records_max = match self.cuts {
            0 => usize::MAX,
            cuts => halved(max, cuts),
        };
        Division {
            ends_at,
            part_records_max,
            is_smallest: part_records_max == 1 && self.batch_records_max(max) == 1,
            has_failed: false,
            judged: 0,
            is_out_of_time: false,
        }
    }

    /// Forgets what `transform` failed at, and what failed of no known record: another version of
    /// its code may do better. Also what those after it failed at: it may hand them other records,
    /// which their places would be taken for.
    pub(crate) fn forget(&mut self, transform: usize) {
        let is_before = |record: &RecordId| usize::from(record.transform) < transform;
        self.counts.retain(|record, _| record.as_ref().is_some_and(is_before));
        self.retry_at = Duration::ZERO;
        (self.drops, self.cuts, self.vague, self.waits) = (0, 0, 0, 0);
        self.suspects = None;
        self.vague_until.clear();
    }

    /// Forgets the failures of what `committed` has passed. If records were, the next batch is twice
    /// as large, if batches were made smaller: where one record has failed, more may.
    pub(crate) fn settle(&mut self, committed: &[Offset], has_records: bool) {
        if has_records {
            self.drops = self.drops.saturating_sub(1);
            self.cuts = self.cuts.saturating_sub(1);
            (self.vague, self.waits) = (0, 0);
        }
        let is_over =
            |over_at: &[Offset]| over_at.iter().zip(committed).all(|(over, at)| at >= over);
        self.counts.retain(|_, count| !is_over(&count.over_at));
        if is_over(&self.vague_until) {
            self.vague_until.clear();
        }
        let next = |of: RecordId| committed.get(usize::from(of.input)).copied();
        if let Some((_, last)) = self.suspects
            && next(last).is_some_and(|next| next > last.offset)
        {
            self.suspects = None;
        }
    }
}

/// So many records, halved so often: one at least, and no more if that is as often as can be.
fn halved(max: usize, times: u32) -> usize {
    if times < DROPS_MAX { (max >> times).max(1) } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Duration = Duration::from_millis(100);
    const DEFAULT: Retry = Retry { attempts_max: 5, backoff: BACKOFF };

    fn record(offset: Offset) -> RecordId {
        RecordId { transform: 0, input: 0, sibling: 0, offset }
    }

    fn fail(failures: &mut Failures, offset: Option<Offset>, over_at: &[Offset]) -> u32 {
        let failed = Failed { record: offset.map(record), over_at: over_at.to_vec() };
        failures.count(Duration::ZERO, BACKOFF, failed)
    }

    #[test]
    fn each_record_has_its_own_count_and_wait() {
        let mut failures = Failures::default();
        assert_eq!(fail(&mut failures, Some(3), &[10]), 1);
        assert_eq!(fail(&mut failures, Some(3), &[10]), 2);
        assert_eq!(failures.retry_at, 2 * BACKOFF);
        assert_eq!(fail(&mut failures, Some(7), &[10]), 1);
        assert_eq!(failures.retry_at, BACKOFF);
        assert_eq!(fail(&mut failures, Some(3), &[10]), 3, "others in between change nothing");
    }

    #[test]
    fn failures_of_no_known_record_are_one_sequence() {
        let mut failures = Failures::default();
        let counts = [5, 9, 12].map(|end| fail(&mut failures, None, &[end]));
        assert_eq!(counts, [1, 2, 3], "the batch grows while the same record may fail");
    }

    #[test]
    fn only_a_commit_beyond_what_failed_ends_its_count() {
        let mut failures = Failures::default();
        fail(&mut failures, Some(3), &[4, 20]);
        fail(&mut failures, None, &[9, 20]);
        failures.settle(&[3, 20], true);
        assert_eq!(fail(&mut failures, Some(3), &[4, 20]), 2);
        failures.settle(&[4, 20], true);
        assert_eq!(fail(&mut failures, Some(3), &[4, 20]), 1);
        assert_eq!(fail(&mut failures, None, &[9, 20]), 2);
    }

    #[test]
    fn the_wait_has_a_bound() {
        let mut failures = Failures::default();
        let last = (0..40).map(|_| fail(&mut failures, None, &[])).last();
        assert_eq!(last, Some(40));
        assert_eq!(failures.retry_at, BACKOFF_MAX);
    }

    #[test]
    fn what_was_given_up_is_known_until_that_is_committed() {
        let mut failures = Failures::default();
        let failure =
            Failure { kind: FailureKind::Trap, record: None, message: "unreachable".to_owned() };
        failures.give_up(record(3), vec![9], failure.clone());
        assert_eq!(failures.known(record(3)), Some(Some(&failure)));
        assert_eq!(failures.known(record(4)), None);
        failures.settle(&[8], true);
        assert!(!failures.is_empty());
        failures.settle(&[9], true);
        assert!(failures.is_empty());
    }

    #[test]
    fn what_a_transform_and_those_after_it_failed_at_is_forgotten() {
        let mut failures = Failures::default();
        let of = |transform| Failed {
            record: Some(RecordId { transform, ..record(3) }),
            over_at: vec![9],
        };
        let fail_at = |failures: &mut Failures, transform| {
            failures.count(Duration::ZERO, BACKOFF, of(transform))
        };
        (0..3).for_each(|transform| assert_eq!(fail_at(&mut failures, transform), 1));
        fail(&mut failures, None, &[9]);
        failures.forget(1);
        assert_eq!(failures.retry_at, Duration::ZERO);
        assert_eq!(fail(&mut failures, None, &[9]), 1);
        let counts = [0, 1, 2].map(|transform| fail_at(&mut failures, transform));
        assert_eq!(counts, [2, 1, 1], "what comes before it hands on the same as before");
    }

    #[test]
    fn batches_shrink_with_each_drop_and_grow_with_a_commit() {
        let mut failures = Failures::default();
        let sizes: Vec<usize> = (0..12)
            .map(|_| {
                failures.dropped();
                failures.batch_records_max(1_000)
            })
            .collect();
        assert_eq!(sizes[..3], [500, 250, 125]);
        assert_eq!(sizes[11], 1);
        (0..100).for_each(|_| failures.dropped());
        assert_eq!(failures.batch_records_max(1_000), 1);
        (0..8).for_each(|_| failures.settle(&[1], true));
        assert_eq!(failures.batch_records_max(1_000), 3);
        (0..8).for_each(|_| failures.settle(&[1], true));
        assert_eq!(failures.batch_records_max(1_000), 1_000);
    }

    #[test]
    fn what_there_was_no_time_for_comes_back_alone_in_parts_until_it_is_committed() {
        let mut failures = Failures::default();
        let parts = |failures: &Failures, max| {
            let Division { part_records_max, is_smallest, .. } =
                failures.division(max, Duration::ZERO);
            (part_records_max, is_smallest)
        };
        assert_eq!(parts(&failures, 1_000), (usize::MAX, false));
        let sizes: Vec<usize> = (0..20)
            .map(|_| {
                failures.ran_out_of_time(Duration::ZERO, vec![9]);
                parts(&failures, 1_000).0
            })
            .collect();
        assert_eq!(sizes[..3], [500, 250, 125]);
        assert_eq!(sizes[19], 1);
        assert_eq!(parts(&failures, 1 << 30), (1, false), "however large batches may be");
        (0..20).for_each(|_| failures.dropped());
        assert_eq!(parts(&failures, 1 << 30), (1, true), "batches are as small");
        assert!(failures.is_alone() && failures.is_empty(), "no record failed");
        failures.settle(&[8], true);
        assert!(failures.is_alone());
        failures.settle(&[9], true);
        assert!(!failures.is_alone());
        (0..14).for_each(|_| failures.settle(&[9], true));
        assert_eq!(parts(&failures, 1_000).0, usize::MAX);
    }

    #[test]
    fn a_policy_applies_at_once_unless_attempts_are_asked_for() {
        let own = Some(Retry { attempts_max: 3, backoff: BACKOFF });
        let policy = |retry, then| ErrorPolicy { retry, then };
        for (policy, kind, attempts_max, end) in [
            (policy(None, OnError::Fail), FailureKind::Reject, 5, Verdict::Stop),
            (policy(own, OnError::Fail), FailureKind::Trap, 3, Verdict::Stop),
            (policy(None, OnError::Skip), FailureKind::Trap, 1, Verdict::GiveUp),
            (policy(None, OnError::Skip), FailureKind::Retry, 5, Verdict::GiveUp),
            (policy(own, OnError::Skip), FailureKind::Retry, 3, Verdict::GiveUp),
            (policy(own, OnError::Skip), FailureKind::Reject, 3, Verdict::GiveUp),
        ] {
            for attempts in 1..=attempts_max {
                let expected = if attempts < attempts_max { Verdict::Retry } else { end };
                assert_eq!(judge(policy, kind, attempts, DEFAULT), expected, "{policy:?} {kind}");
            }
        }
    }
}
