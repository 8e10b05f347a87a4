//! What happened, and whether it may.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use super::lane::{Attempt, Outcome};
use crate::versions::{Behaviour, Candidate};

/// For how long after a trouble its traces are excused: queues that are full, instances that had
/// large batches.
const AFTERMATH: Duration = Duration::from_secs(4);

/// Something that happened to agents and brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// When it began, from the start.
    pub began: Duration,
    /// When all partitions had gone on again.
    pub ended: Duration,
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many records went in.
    pub records: u64,
    /// Each swap of each agent, as they were decided.
    pub attempts: Vec<Attempt>,
    /// For each switch of a worker, how long its record path stood still, and by which attempt.
    pub pauses: Vec<(usize, Duration)>,
    /// What happened meanwhile.
    pub disturbances: Vec<Disturbance>,
    /// How many agents were killed.
    pub kills: u64,
    /// How many brokers were killed and started again.
    pub broker_restarts: u64,
    /// How often an agent left the group and joined it again.
    pub leaves: u64,
}

impl Summary {
    /// The versions of which no record may be: no module of theirs can bring one about, or none
    /// ever ran.
    #[must_use]
    pub fn never(&self) -> BTreeSet<u32> {
        let mut never = BTreeMap::new();
        for attempt in &self.attempts {
            let silent = attempt.candidate.is_mute() || attempt.outcome.never_ran();
            *never.entry(attempt.version).or_insert(true) &= silent;
        }
        never.into_iter().filter(|(_, never)| *never).map(|(version, _)| version).collect()
    }

    /// What became of swaps that must not have.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let wrong = self.attempts.iter().filter(|attempt| {
            !is_allowed(attempt.candidate, &attempt.outcome, self.is_disturbed(attempt))
        });
        let mut complaints: Vec<_> = wrong.map(ToString::to_string).collect();
        for attempt in &self.attempts {
            let success = attempt.exit == Some(0);
            if attempt.exit.is_some() && success != (attempt.outcome == Outcome::Kept) {
                complaints.push(format!("{attempt}, with exit code {:?}", attempt.exit));
            }
        }
        complaints
    }

    /// The bad candidates that never came to the end that is theirs.
    #[must_use]
    pub fn missing(&self) -> Vec<Candidate> {
        let met = |candidate: &Candidate| {
            let mut of_it = self.attempts.iter().filter(|a| a.candidate == *candidate);
            of_it.any(|attempt| match attempt.outcome {
                Outcome::Refused(_) => candidate.is_refused(),
                Outcome::RolledBack(_) => !candidate.is_refused(),
                Outcome::Kept | Outcome::Busy | Outcome::Unknown(_) | Outcome::Late => false,
            })
        };
        Candidate::BAD.into_iter().filter(|candidate| !met(candidate)).collect()
    }

    fn is_disturbed(&self, attempt: &Attempt) -> bool {
        let mut disturbances = self.disturbances.iter();
        disturbances.any(|d| d.began <= attempt.ended && attempt.began <= d.ended + AFTERMATH)
    }
}

/// Whether a swap of a candidate may come to this.
fn is_allowed(candidate: Candidate, outcome: &Outcome, disturbed: bool) -> bool {
    match (candidate, outcome) {
        (_, Outcome::Late) => true,
        (_, Outcome::Busy | Outcome::Unknown(_)) => disturbed,
        (candidate, Outcome::Refused(_)) => disturbed || candidate.is_refused(),
        (candidate, Outcome::RolledBack(_)) if candidate.is_refused() => false,
        (Candidate::GOOD, Outcome::RolledBack(_)) => disturbed,
        (_, Outcome::RolledBack(_)) | (Candidate::GOOD, Outcome::Kept) => true,
        // Its record comes after its probation; then it is the policy's.
        (Candidate::Version(Behaviour::TrapAt(number)), Outcome::Kept) => number > 1,
        (candidate, Outcome::Kept) => disturbed && !candidate.is_refused(),
    }
}

/// The time that so many percent of these, which are sorted, don't exceed.
fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Pauses, from short to long.
struct Pauses(Vec<Duration>);

impl Pauses {
    fn of<'a>(pauses: impl Iterator<Item = &'a (usize, Duration)>) -> Self {
        let mut pauses: Vec<_> = pauses.map(|(_, pause)| *pause).collect();
        pauses.sort_unstable();
        Self(pauses)
    }
}

impl fmt::Display for Pauses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [half, most] = [50, 99].map(|percent| percentile(&self.0, percent));
        let longest = self.0.last().copied().unwrap_or_default();
        let count = self.0.len();
        write!(f, "{count} switches: p50 {half:.1?}, p99 {most:.1?}, longest {longest:.1?}")
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts = BTreeMap::<_, u64>::new();
        for attempt in &self.attempts {
            let what = match attempt.outcome {
                Outcome::Kept => "kept",
                Outcome::RolledBack(_) => "rolled back",
                Outcome::Refused(_) => "refused",
                Outcome::Busy => "not begun because another one was under way",
                Outcome::Unknown(_) => "not told the end of",
                Outcome::Late => "not begun in time",
            };
            *counts.entry(what).or_default() += 1;
        }
        let counts: Vec<_> = counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let (attempts, records) = (self.attempts.len(), self.records);
        write!(f, "{records} records in; {attempts} swaps: {}; ", counts.join(", "))?;
        write!(f, "pause of {}; ", Pauses::of(self.pauses.iter()))?;
        let calm = |(attempt, _): &&(usize, Duration)| !self.is_disturbed(&self.attempts[*attempt]);
        write!(f, "apart from troubles, of {}; ", Pauses::of(self.pauses.iter().filter(calm)))?;
        let Self { kills, broker_restarts, leaves, .. } = self;
        write!(f, "{kills} agents killed, {broker_restarts} brokers restarted, {leaves} agents ")?;
        write!(f, "left and came back")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn attempt(version: u32, candidate: Candidate, outcome: Outcome) -> Attempt {
        let exit = Some(if outcome == Outcome::Kept { 0 } else { 5 });
        let (began, ended) = (10 * SECOND, 11 * SECOND);
        Attempt { agent: 0, version, candidate, outcome, exit, began, ended }
    }

    fn reason() -> String {
        "because".to_owned()
    }

    fn complaints(candidate: Candidate, outcome: Outcome, disturbed_until: u32) -> usize {
        let disturbances = vec![Disturbance { began: SECOND, ended: disturbed_until * SECOND }];
        let attempts = vec![attempt(1, candidate, outcome)];
        Summary { attempts, disturbances, ..Summary::default() }.complaints().len()
    }

    #[test]
    fn what_must_not_be_is_complained_of() {
        let refused = || Outcome::Refused(reason());
        let rolled_back = || Outcome::RolledBack(reason());
        for candidate in Candidate::BAD {
            let expected = if candidate.is_refused() { refused() } else { rolled_back() };
            assert_eq!(complaints(candidate, expected, 2), 0, "{candidate:?}");
            let late_trap = candidate == Candidate::Version(Behaviour::TrapAt(1_000));
            let kept = complaints(candidate, Outcome::Kept, 2);
            assert_eq!(kept, usize::from(!late_trap), "{candidate:?}");
        }
        for outcome in [refused(), rolled_back(), Outcome::Busy, Outcome::Unknown(reason())] {
            assert_eq!(complaints(Candidate::GOOD, outcome.clone(), 2), 1, "{outcome}");
            assert_eq!(complaints(Candidate::GOOD, outcome, 7), 0);
        }
        assert_eq!(complaints(Candidate::GOOD, Outcome::Kept, 2), 0);
        // No trouble excuses these.
        assert_eq!(complaints(Candidate::WrongWorld, Outcome::Kept, 7), 1);
        assert_eq!(complaints(Candidate::Version(Behaviour::TrapAt(1)), Outcome::Kept, 7), 1);
        assert_eq!(complaints(Candidate::NotAModule, rolled_back(), 7), 1);
        assert_eq!(complaints(Candidate::Version(Behaviour::Slow(10)), Outcome::Kept, 7), 0);
    }

    #[test]
    fn an_exit_code_that_says_otherwise_is_complained_of() {
        let mut wrong = attempt(1, Candidate::GOOD, Outcome::Kept);
        wrong.exit = Some(5);
        let summary = Summary { attempts: vec![wrong], ..Summary::default() };
        assert_eq!(summary.complaints().len(), 1);
    }

    #[test]
    fn versions_that_never_ran_are_known() {
        let trap = Candidate::Version(Behaviour::TrapAt(1));
        let attempts = vec![
            attempt(1, Candidate::GOOD, Outcome::Kept),
            attempt(2, Candidate::GOOD, Outcome::Refused(reason())),
            attempt(2, Candidate::GOOD, Outcome::Late),
            attempt(3, Candidate::GOOD, Outcome::Busy),
            attempt(3, Candidate::GOOD, Outcome::Unknown(reason())),
            attempt(4, trap, Outcome::RolledBack(reason())),
        ];
        let summary = Summary { attempts, ..Summary::default() };
        assert_eq!(summary.never(), BTreeSet::from([2, 4]));
        assert_eq!(summary.missing().len(), Candidate::BAD.len() - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        let pauses: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&pauses, 50), Duration::from_millis(100));
        assert_eq!(percentile(&pauses, 99), Duration::from_millis(198));
        assert_eq!(percentile(&pauses[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 50), Duration::ZERO);
        let pauses = pauses.into_iter().map(|pause| (0, pause)).collect();
        let attempts = vec![attempt(1, Candidate::GOOD, Outcome::Kept)];
        let summary = Summary { attempts, pauses, ..Summary::default() }.to_string();
        assert!(summary.contains("200 switches: p50 100.0ms, p99 198.0ms"), "{summary}");
    }
}
