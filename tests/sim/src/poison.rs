//! Records that fail for good at transforms whose policy passes them over. Which ones, and how,
//! follows from the seed and their place, so that it is known what must come out.

use std::time::Duration;

use sidestream_core::{
    record::TopicIndex,
    task::FailureKind,
    topology::{ErrorPolicy, OnError, Retry},
};

use crate::{
    check::Stamp,
    pipeline::{CHAIN, COUNT, SUM},
    plan::{FAILURES_MAX, Plan},
    prng::Prng,
    slow::Slow,
};

/// How a record fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The call fails; it names the record for some kinds, as real modules do.
    Call(FailureKind),
    /// What it emits is refused.
    TooLarge,
    /// What it emits and is held back for its key is refused.
    TooLargeLatest,
    /// What it writes to its state is refused by the changelog; it emits nothing.
    TooLargeState,
}

impl Way {
    /// As what it is told.
    pub(crate) const fn kind(self) -> FailureKind {
        match self {
            Self::Call(kind) => kind,
            Self::TooLarge | Self::TooLargeLatest | Self::TooLargeState => FailureKind::Refused,
        }
    }
}

/// The policies of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    /// One record in so many fails at a transform that has a policy; none for 0.
    pub(crate) rate: u64,
    transforms: Vec<(&'static str, Option<Retry>, End)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Skip,
    DeadLetter,
}

impl Policies {
    /// Draws those of a seed.
    pub(crate) fn draw(seed: u64) -> Self {
        let mut prng = Prng::new(seed ^ 0x0D1E_D0FF);
        let rate = match Slow::is_drawn(seed) {
            true => prng.between(1, 4), // So that many calls hang in a row.
            false => prng.between(4, 20),
        };
        let mut policies = Self { rate, transforms: Vec::new() };
        for name in [COUNT, CHAIN, SUM] {
            let retry = prng.coin().then(|| Retry {
                attempts_max: FAILURES_MAX + 1 + u32::from(prng.coin()),
                backoff: Duration::from_millis(prng.between(0, 20)),
            });
            let end = [End::Skip, End::DeadLetter][prng.index(2)];
            if !prng.one_in(4) {
                policies.transforms.push((name, retry, end));
            }
        }
        policies
    }

    /// The policy of a transform, with `dead_letters` to send to.
    pub(crate) fn of(&self, transform: &str, dead_letters: TopicIndex) -> ErrorPolicy {
        let found = self.transforms.iter().find(|(name, ..)| *name == transform);
        found.map_or(ErrorPolicy::default(), |&(_, retry, end)| ErrorPolicy {
            retry,
            then: match end {
                End::Skip => OnError::Skip,
                End::DeadLetter => OnError::DeadLetter(dead_letters),
            },
        })
    }
}

/// How a record fails at a transform for good, if it does.
pub(crate) fn way(plan: &Plan, transform: &str, stamp: Stamp) -> Option<Way> {
    let policies = &plan.shape.policies;
    let (_, retry, _) = policies.transforms.iter().find(|(name, ..)| *name == transform)?;
    let luck = luck(plan.seed, transform, stamp);
    if policies.rate == 0 || !luck.is_multiple_of(policies.rate) {
        return None;
    }
    let mut ways = vec![
        Way::Call(FailureKind::Reject),
        Way::Call(FailureKind::Trap),
        Way::Call(FailureKind::Deadline),
        Way::Call(FailureKind::Limit),
        Way::Call(FailureKind::Malformed),
    ];
    if retry.is_some() {
        ways.push(Way::Call(FailureKind::Retry));
    }
    if plan.config.exactly_once && !plan.hangs() {
        // Where calls hang, transactions that are refused would take too long to come to an end. What others of its outputs were delivered is there to stay without transactions.
        ways.push(Way::TooLarge);
        ways.push(Way::TooLargeState);
        ways.extend((transform != CHAIN).then_some(Way::TooLargeLatest));
    }
    let place = usize::try_from((luck >> 20) % ways.len() as u64).expect("below a length");
    Some(ways[place])
}

/// A number that depends on all of a place.
fn luck(seed: u64, transform: &str, (input, partition, offset): Stamp) -> u64 {
    let name = transform.bytes().fold(7u64, |hash, byte| hash * 31 + u64::from(byte));
    let parts =
        [name, u64::from(input), u64::from(partition.unsigned_abs()), offset.unsigned_abs()];
    let mix =
        |hash: u64, part: u64| (hash ^ part).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(27);
    parts.into_iter().fold(seed ^ 0x5A5A, mix) >> 5
}
