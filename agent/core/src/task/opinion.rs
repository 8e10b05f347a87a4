//! What a version of a transform's code on probation fails at is tried on the version before it.

use std::ops::Range;

use crate::{
    task::{
        Doer, Failure, FailureKind, Processor, RecordId, Turn, Verdict,
        division::Round,
        judge,
        routing::{self, Inbox},
        run::Task,
    },
    topology::Version,
};

/// A processor that a task needs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wanted {
    /// One of the version in force of a transform, an index into those of the sub-topology.
    ToWork(usize),
    /// One of the version before one on probation, to try something on that is undone.
    ToTry(OnTrial),
}

/// A version on probation, as the tasks see it that it is compared in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnTrial {
    /// An index into the transforms of the sub-topology.
    pub(crate) transform: usize,
    /// The version that comes back if this one fails.
    pub(crate) before: Version,
    /// What it rejects follows its policy without being tried on the version before.
    pub(crate) may_reject: bool,
}

/// Whose fault it is that a version on probation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The version's, and how that was seen: it has to go, and its policy applies to nothing.
    Version(String),
    /// The record's: the version before fails at it as well.
    Record,
}

impl Blame {
    /// How it was seen that it is the version's.
    pub(crate) fn of_version(&self) -> Option<&str> {
        match self {
            Self::Version(how) => Some(how),
            Self::Record => None,
        }
    }
}

impl<P: Processor> Task<P> {
    /// A version on probation failed at a part of an inbox. Hands the failure on if that is the
    /// version's fault, so that it goes and its policy applies to nothing.
    pub(super) fn ask_version_before(
        &mut self,
        on_trial: OnTrial,
        (inbox, part, named): (&Inbox, &Range<usize>, Option<usize>),
        failure: &Failure,
        round: &Round,
        turn: &mut Turn<'_, P>,
    ) -> Result<(), Failure> {
        let transform = on_trial.transform;
        let single = named.or_else(|| (part.len() == 1).then_some(part.start));
        let record = single.and_then(|row| round.roots.id(transform, inbox, row));
        let records = inbox.part(part, &round.roots);
        let fault = self.whose_fault(on_trial, (&records, record), failure, turn);
        let is_versions = matches!(fault, Some(Blame::Version(_)));
        turn.blame = fault.map(|fault| (transform, fault));
        if is_versions || self.state.has_failed() {
            self.blame(Some(Doer::new(transform, record)));
            return Err(failure.clone());
        }
        Ok(())
    }

    /// Tries what the version of a transform on probation failed at on the one before it, where that
    /// is to be known now: where the code broke off, and where it failed at a single record and
    /// asks for no other try. `None` also if the task's state can't be read.
    pub(super) fn whose_fault(
        &mut self,
        on_trial: OnTrial,
        (records, record): (&Inbox, Option<RecordId>),
        failure: &Failure,
        turn: &mut Turn<'_, P>,
    ) -> Option<Blame> {
        let is_due = match failure.kind {
            kind if kind.is_break() => true,
            _ if records.len() > 1 || on_trial.may_reject => false,
            FailureKind::Retry => {
                let policy = self.subtopology().transforms[on_trial.transform].on_error;
                let attempts = turn.failures.attempts(record) + 1;
                judge(policy, failure.kind, attempts, turn.retry) != Verdict::Retry
            }
            _ => true,
        };
        if !is_due {
            return None;
        }
        let remedy = match failure.kind.is_break() {
            true => "correct the module",
            false => "if the new one is to reject such records, swap with `--accept failures`",
        };
        Some(match self.passes_before(on_trial, records, turn)? {
            Ok(()) => Blame::Version(format!(
                "the version before succeeds at it, so nothing was passed over; {remedy}"
            )),
            Err(NotPassed::Failed(FailureKind::Retry)) if failure.kind != FailureKind::Retry => {
                Blame::Version(format!(
                    "the version before only asks for another try at it, so nothing was passed \
                     over; {remedy}"
                ))
            }
            Err(NotPassed::Failed(_)) => Blame::Record,
            Err(NotPassed::NotMade(why)) => Blame::Version(format!(
                "the version before could not be made to try it, so nothing was passed over: {why}"
            )),
        })
    }

    /// Lets the version before one on probation process `records`, and undoes that. `None` if the
    /// task's state can't be read.
    fn passes_before(
        &mut self,
        on_trial: OnTrial,
        records: &Inbox,
        turn: &mut Turn<'_, P>,
    ) -> Option<Result<(), NotPassed>> {
        let mut before = match (turn.make)(Wanted::ToTry(on_trial)) {
            Ok(before) => before,
            Err(failure) => return Some(Err(NotPassed::NotMade(failure))),
        };
        let savepoint = self.state.savepoint();
        let outcome = before.process(&records.batch, &mut self.state).and_then(|effects| {
            let transform = &self.subtopology().transforms[on_trial.transform];
            routing::check_partitions(&self.topology, transform, &effects.emits)
        });
        self.state.rollback(&savepoint);
        (!self.state.has_failed())
            .then(|| outcome.map_err(|failure| NotPassed::Failed(failure.kind)))
    }
}

/// Why the version before did not succeed at something.
enum NotPassed {
    /// It failed at it.
    Failed(FailureKind),
    /// There was no processor of it.
    NotMade(Failure),
}
