//! How often what failed, and when to try again.

use std::{collections::BTreeMap, time::Duration};

use crate::{record::Offset, task::FailedRecord};

/// The longest wait between two attempts.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Failures that are not over yet.
///
/// A record that its failure names has a count of its own: a batch is retried whole, so that one
/// record may fail after others have passed, and what passed in the end must not use up the
/// attempts of what comes after it. So a batch may be tried `attempts_max` times for each of its
/// records, at worst. Failures that name none share a count, for all may be the same record's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failures {
    pub(super) retry_at: Duration,
    counts: BTreeMap<Option<FailedRecord>, Count>,
}

/// What failed, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) record: Option<FailedRecord>,
    /// Once these offsets are committed, the failure is over; at the next commit if empty.
    pub(super) over_at: Vec<Offset>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Count {
    attempts: u32,
    over_at: Vec<Offset>,
}

impl Failures {
    /// Counts one more. Returns how often the same has failed now; the wait doubles each time.
    pub(super) fn count(&mut self, now: Duration, backoff: Duration, failed: Failed) -> u32 {
        let count = self.counts.entry(failed.record).or_default();
        let doubled = backoff.saturating_mul(1 << count.attempts.min(16));
        self.retry_at = now + doubled.min(BACKOFF_MAX);
        count.attempts += 1;
        if !failed.over_at.is_empty() {
            count.over_at = failed.over_at;
        }
        count.attempts
    }

    /// Forgets the failures of what `committed` has passed.
    pub(super) fn settle(&mut self, committed: &[Offset]) {
        self.counts
            .retain(|_, count| count.over_at.iter().zip(committed).any(|(over, at)| at < over));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Duration = Duration::from_millis(100);

    fn fail(failures: &mut Failures, offset: Option<Offset>, over_at: &[Offset]) -> u32 {
        let record = offset.map(|offset| FailedRecord { transform: 0, input: 0, offset });
        let failed = Failed { record, over_at: over_at.to_vec() };
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
    fn failures_that_name_no_record_are_one_sequence() {
        let mut failures = Failures::default();
        let counts = [5, 9, 12].map(|end| fail(&mut failures, None, &[end]));
        assert_eq!(counts, [1, 2, 3], "the batch grows while the same record may fail");
    }

    #[test]
    fn only_a_commit_beyond_what_failed_ends_its_count() {
        let mut failures = Failures::default();
        fail(&mut failures, Some(3), &[4, 20]);
        fail(&mut failures, None, &[9, 20]);
        failures.settle(&[3, 20]);
        assert_eq!(fail(&mut failures, Some(3), &[4, 20]), 2);
        failures.settle(&[4, 20]);
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
}
