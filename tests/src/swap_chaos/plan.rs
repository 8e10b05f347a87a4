//! What is to happen, from a seed.

use std::time::Duration;

use crate::{random::Random, versions::Candidate};

/// How far apart swaps begin.
pub const INTERVAL: Duration = Duration::from_secs(2);

/// When the first trouble comes.
const FIRST_TROUBLE_AT: Duration = Duration::from_secs(8);
/// How far apart troubles are meant to be, at least, and by how much more at most.
const CALM_MIN: Duration = Duration::from_secs(14);
const CALM_MORE_MAX: Duration = Duration::from_secs(8);
/// How long somebody is away at most: half of the time so short that others don't notice.
const AWAY_MAX: Duration = Duration::from_secs(9);

/// How many good ones come with all the bad ones.
const GOOD_ONES: usize = Candidate::BAD.len() / 2;

/// A module for both agents at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swap {
    /// When, from the start.
    pub at: Duration,
    /// Its version, which no other has. The module that agents start with has 0.
    pub version: u32,
    /// What it is.
    pub candidate: Candidate,
}

/// What happens to agents and brokers meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// An agent is killed, and started again.
    Kill {
        /// Which one.
        agent: usize,
        /// When it comes back.
        away: Duration,
    },
    /// Both agents are killed, and started again.
    KillBoth,
    /// A broker is killed, and started again.
    RestartBroker {
        /// Which one.
        node: usize,
    },
    /// An agent leaves the group, so that the other one gets its partitions, and joins it again.
    Leave {
        /// Which one.
        agent: usize,
    },
}

/// What is to happen. The same duration and seed give the same plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Decides everything.
    pub seed: u64,
    /// The swaps, one each [`INTERVAL`]. Every kind of candidate comes before any comes again.
    pub swaps: Vec<Swap>,
    /// The troubles, with their moments from the start.
    pub troubles: Vec<(Duration, Trouble)>,
}

impl Plan {
    /// A plan for so long.
    #[must_use]
    pub fn new(duration: Duration, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let swaps = swaps(duration, &mut random);
        Self { seed, swaps, troubles: troubles(duration, &mut random) }
    }

    /// Whether it is long enough that each bad candidate has to come to the end that is its own; in a
    /// shorter one a trouble may have come upon the only one of its kind.
    #[must_use]
    pub fn shows_each(&self) -> bool {
        self.swaps.len() >= 4 * Candidate::BAD.len()
    }

    /// The version after the last one.
    #[must_use]
    pub fn next_version(&self) -> u32 {
        self.swaps.last().map_or(1, |swap| swap.version + 1)
    }
}

fn swaps(duration: Duration, random: &mut Random) -> Vec<Swap> {
    let (mut swaps, mut deck) = (Vec::new(), Vec::new());
    let mut at = Duration::ZERO;
    for version in 1.. {
        at += INTERVAL;
        if at > duration {
            break;
        }
        if deck.is_empty() {
            deck.extend(Candidate::BAD);
            deck.extend([Candidate::GOOD; GOOD_ONES]);
            shuffle(&mut deck, random);
        }
        let candidate = deck.pop().expect("it was filled just now");
        swaps.push(Swap { at, version, candidate });
    }
    swaps
}

fn troubles(duration: Duration, random: &mut Random) -> Vec<(Duration, Trouble)> {
    let (mut troubles, mut deck) = (Vec::new(), Vec::new());
    let mut at = FIRST_TROUBLE_AT;
    while at < duration {
        if deck.is_empty() {
            deck.extend([
                Trouble::Kill { agent: 0, away: Duration::ZERO },
                Trouble::Kill { agent: 1, away: random.duration(AWAY_MAX) },
                Trouble::KillBoth,
                Trouble::RestartBroker { node: usize::from(random.once_in(2)) },
                Trouble::Leave { agent: usize::from(random.once_in(2)) },
            ]);
            shuffle(&mut deck, random);
        }
        // Inside of any phase of a swap.
        let moment = at + random.duration(INTERVAL);
        troubles.push((moment, deck.pop().expect("it was filled just now")));
        at = moment + CALM_MIN + random.duration(CALM_MORE_MAX);
    }
    troubles
}

fn shuffle<T>(deck: &mut [T], random: &mut Random) {
    for index in (1..deck.len()).rev() {
        let other = random.within(0..index as u64 + 1);
        deck.swap(index, usize::try_from(other).expect("an index"));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let of = |seed| Plan::new(Duration::from_secs(300), seed);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1).swaps, of(2).swaps);
        assert_ne!(of(1).troubles, of(2).troubles);
    }

    #[test]
    fn five_minutes_have_all_of_everything_many_times() {
        let plan = Plan::new(Duration::from_secs(300), 1);
        assert_eq!((plan.swaps.len(), plan.next_version()), (150, 151));
        assert!(plan.shows_each());
        for candidate in Candidate::BAD {
            let times = plan.swaps.iter().filter(|swap| swap.candidate == candidate).count();
            assert_eq!(times, 10, "{candidate:?}");
        }
        let kinds: BTreeSet<_> = plan
            .troubles
            .iter()
            .map(|(_, trouble)| std::mem::discriminant(trouble))
            .map(|k| format!("{k:?}"))
            .collect();
        assert!(kinds.len() == 4 && plan.troubles.len() >= 12, "{:?}", plan.troubles);
        assert!(plan.troubles.is_sorted_by_key(|(at, _)| *at));
    }

    #[test]
    fn half_a_minute_has_every_kind_of_candidate() {
        let plan = Plan::new(Duration::from_secs(30), 5);
        let kinds: BTreeSet<_> = plan.swaps.iter().map(|swap| swap.candidate).collect();
        assert_eq!(kinds.len(), Candidate::BAD.len() + 1);
        assert!(!plan.shows_each());
    }
}
