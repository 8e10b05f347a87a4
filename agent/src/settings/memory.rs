//! One memory budget for the whole process, divided among those who use it.

/// What each may use, in bytes. Together they stay below the budget; what is left is for the
/// process itself: code, threads, allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Block caches and memtables of all stores.
    pub(crate) state: usize,
    /// Instances of modules.
    pub(crate) guests: usize,
    /// Queues and buffers of all Kafka clients.
    pub(crate) queues: usize,
    /// Outputs and state changes of one worker's open transaction.
    pub(crate) uncommitted: usize,
    /// Records of one partition that wait.
    pub(crate) buffered: usize,
}

/// What is asked for in the pipeline file; the budget goes before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) budget: usize,
    pub(crate) workers: usize,
    /// Partitions a worker may own at most.
    pub(crate) partitions: usize,
    pub(crate) uncommitted: usize,
    pub(crate) buffered: usize,
}

impl Wanted {
    /// Divides the budget: an eighth of it each for uncommitted work and for what waits, a quarter
    /// for state, a quarter for guests, an eighth for Kafka's queues; an eighth stays free.
    pub(crate) fn shares(self) -> Shares {
        let eighth = self.budget / 8;
        Shares {
            state: 2 * eighth,
            guests: 2 * eighth,
            queues: eighth,
            uncommitted: self.uncommitted.min(eighth / self.workers.max(1)).max(1),
            buffered: self.buffered.min(eighth / self.partitions.max(1)).max(64 << 10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_stay_below_the_budget_with_200_partitions() {
        let budget = 512 << 20;
        let wanted = Wanted {
            budget,
            workers: 2,
            partitions: 200,
            uncommitted: 64 << 20,
            buffered: 16 << 20,
        };
        let shares = wanted.shares();
        let sum = shares.state
            + shares.guests
            + shares.queues
            + 2 * shares.uncommitted
            + 200 * shares.buffered;
        assert!(sum <= budget, "{shares:?}");
    }
}
