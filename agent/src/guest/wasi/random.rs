//! Random numbers that are a function of the input and never come again for another call.
//!
//! They follow from the task, its code, and what a call begins with. So a record that is processed
//! again gets the same ones, on any machine, and no other record ever does: identifiers that are
//! made of them are unique. Whoever knows all that can tell them, so they keep no secret.

use sha2::{Digest as _, Sha256};
use sidestream_core::record::{Origin, Timestamp};

use crate::guest::failure::Breach;

/// The most bytes a guest gets from a random source in one call of the host.
const RANDOM_BYTES_MAX: u64 = 1 << 20;

/// Which call of an instance it is, among all that its task ever makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::guest) enum Call {
    /// The first one. Every instance of a task begins alike.
    Initialise,
    /// With a batch whose first record stems from there.
    Process(Origin),
    /// With a punctuation: its schedule and the time it was due.
    Punctuate(u32, Timestamp),
}

impl Call {
    /// What tells it from all others.
    fn hash(self, hasher: &mut Sha256) {
        match self {
            Self::Initialise => hasher.update([0]),
            Self::Process(Origin { punctuation, input, offset, sibling }) => {
                hasher.update([1]);
                hasher.update((input as u64).to_le_bytes());
                hasher.update(offset.to_le_bytes());
                hasher.update(sibling.to_le_bytes());
                if let Some((transform, schedule, time)) = punctuation {
                    hasher.update((transform as u64).to_le_bytes());
                    hasher.update(schedule.to_le_bytes());
                    hasher.update(time.to_le_bytes());
                }
            }
            Self::Punctuate(schedule, time) => {
                hasher.update([2]);
                hasher.update(schedule.to_le_bytes());
                hasher.update(time.to_le_bytes());
            }
        }
    }
}

/// A stream of random bytes for each call: SHA-256 of the seed, the call and a count.
#[derive(Debug)]
pub(super) struct Random {
    seed: [u8; 32],
    call: Call,
    blocks: u64,
    /// The last block, and how much of it was given out.
    block: [u8; 32],
    used: usize,
}

impl Random {
    pub(super) const fn new(seed: &[u8; 32], call: Call) -> Self {
        Self { seed: *seed, call, blocks: 0, block: [0; 32], used: 32 }
    }

    /// Begins the stream of another call.
    pub(super) const fn begin(&mut self, call: Call) {
        *self = Self::new(&self.seed, call);
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        const { assert!(32_usize.is_multiple_of(N), "a block is a number of them") };
        if self.used == self.block.len() {
            let mut hasher = Sha256::new();
            hasher.update(self.seed);
            hasher.update(self.blocks.to_le_bytes());
            self.call.hash(&mut hasher);
            self.block = hasher.finalize().into();
            self.blocks += 1;
            self.used = 0;
        }
        let taken = self.block[self.used..].first_chunk().expect("blocks are used up whole");
        self.used += N;
        *taken
    }

    /// The next number.
    pub(super) fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// The next bytes.
    pub(super) fn bytes(&mut self, count: u64) -> Result<Vec<u8>, Breach> {
        if count > RANDOM_BYTES_MAX {
            return Err(Breach::limit(format!(
                "it asked for {count} random bytes at a time and may ask for {RANDOM_BYTES_MAX}"
            )));
        }
        let count = usize::try_from(count).expect("a mebibyte fits");
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            bytes.extend_from_slice(&self.take::<8>());
        }
        bytes.truncate(count);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_from_the_seed_and_the_call() {
        let draw = |seed: u8, call| Random::new(&[seed; 32], call).bytes(100).unwrap();
        let record = |input, offset, sibling| {
            Call::Process(Origin { punctuation: None, input, offset, sibling })
        };
        let after = |transform, schedule, time| {
            let punctuation = Some((transform, schedule, time));
            Call::Process(Origin { punctuation, ..Origin::default() })
        };
        let calls = [
            Call::Initialise,
            record(0, 0, 0),
            record(1, 0, 0),
            record(0, 1, 0),
            record(0, 0, 1),
            after(0, 0, 0),
            after(1, 0, 0),
            after(0, 1, 0),
            after(0, 0, 1),
            Call::Punctuate(0, 0),
            Call::Punctuate(1, 0),
            Call::Punctuate(0, 1),
        ];
        let mut drawn = Vec::new();
        for (seed, call) in [1, 2].into_iter().flat_map(|seed| calls.map(|call| (seed, call))) {
            assert_eq!(draw(seed, call), draw(seed, call));
            assert_eq!(draw(seed, call).len(), 100);
            drawn.push(draw(seed, call)[..8].to_vec());
        }
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn.len(), 2 * calls.len(), "each call has its own");
    }

    #[test]
    fn a_call_goes_on_with_other_numbers() {
        let mut random = Random::new(&[1; 32], Call::Initialise);
        let first: Vec<_> = (0..100).map(|_| random.number()).collect();
        let mut sorted = first.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), first.len());
        random.begin(Call::Initialise);
        assert_eq!(random.number(), first[0]);
        assert!(random.bytes(RANDOM_BYTES_MAX + 1).is_err());
    }
}
