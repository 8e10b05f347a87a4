//! What a transform's code did and what that took, by which another version of it is compared.

use std::time::Duration;

use crate::task::{Cost, Effects, Failure};

/// Beyond so many records older ones count for less.
const RECORDS_MAX: u64 = 1 << 17;

/// What one version of a transform did in the tasks of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records that ever went through.
    pub ever: u64,
    /// Records that went through. This and what follows is halved now and then, so that it stands
    /// for what was lately.
    pub records: u64,
    /// Records that failed, each time they did.
    pub failures: u64,
    /// Calls in which the code broke off: it trapped, went over a limit, answered nonsense, or did
    /// not initialise.
    pub breaks: u64,
    /// The processor time of its calls.
    pub cpu: Duration,
    /// Bytes of the records it emitted.
    pub output_bytes: u64,
    /// The most memory that one of its instances had after a call.
    pub memory_bytes: usize,
}

impl Tally {
    /// A call came to an end.
    pub(crate) fn called(&mut self, outcome: &Result<Effects, Failure>, cost: Cost) {
        self.cpu += cost.cpu;
        self.memory_bytes = self.memory_bytes.max(cost.memory_bytes);
        if let Ok(effects) = outcome {
            self.output_bytes += effects.emits.bytes() as u64;
        }
    }

    /// Records went through.
    pub(crate) fn processed(&mut self, records: usize) {
        self.ever += records as u64;
        self.records += records as u64;
        if self.records > RECORDS_MAX {
            self.records /= 2;
            self.failures /= 2;
            self.breaks /= 2;
            self.cpu /= 2;
            self.output_bytes /= 2;
        }
    }

    /// The code broke off in a call.
    pub(crate) const fn broke(&mut self) {
        self.breaks += 1;
    }

    /// A record failed.
    pub(crate) const fn failed(&mut self) {
        self.failures += 1;
    }
}
