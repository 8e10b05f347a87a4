//! What a worker's thread is in, for whoever asks why its loop does not turn.

use std::sync::atomic::{AtomicU64, Ordering};

use sidestream_core::{record::TaskId, topology::Topology};

/// What a worker's thread is in now. Told by one store of a number around each call that may take
/// long: of modules (a batch at a time), of Kafka's client and of the store on disk.
#[derive(Debug, Default)]
pub(crate) struct Doing(AtomicU64);

/// A call that may take long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// A module processes a batch.
    Process,
    /// A module's punctuation.
    Punctuate,
    /// An instance of a module is made and initialised.
    Instantiate,
    /// The state of a task is opened.
    OpenState,
    /// The state of a task is written to disk and given back.
    CloseState,
    /// Records and news of the group are taken from Kafka's client.
    Poll,
    /// Partitions are taken, given back, paused, or read from another place.
    Assign,
    /// Offsets are looked up, of the group, of inputs or of changelogs.
    Offsets,
    /// Outputs are handed to the producer.
    Produce,
    /// The transaction is committed.
    Commit,
    /// The transaction is dropped.
    Abort,
    /// The transactional id is taken over anew.
    Recover,
    /// The group is left.
    Leave,
}

/// By the number of each call, from 1 on.
const CALLS: &[(Call, &str)] = &[
    (Call::Process, "processing a batch"),
    (Call::Punctuate, "in a punctuation"),
    (Call::Instantiate, "initialising a module"),
    (Call::OpenState, "opening the state"),
    (Call::CloseState, "writing the state to disk"),
    (Call::Poll, "polling Kafka's client"),
    (Call::Assign, "telling Kafka's client what to read"),
    (Call::Offsets, "looking offsets up at the brokers"),
    (Call::Produce, "handing outputs to Kafka's producer"),
    (Call::Commit, "committing to Kafka"),
    (Call::Abort, "dropping a transaction at the brokers"),
    (Call::Recover, "taking its transactional id over at the brokers"),
    (Call::Leave, "leaving the group"),
];

/// The transform of a call that is of none.
const NO_TRANSFORM: u8 = u8::MAX;
/// The bits of a partition's number; no topic has more.
const PARTITION_BITS: u32 = 24;

impl Doing {
    /// The thread begins a call; it is over when what is returned is dropped.
    pub(crate) fn begin(&self, call: Call) -> During<'_> {
        self.store(call, 0, NO_TRANSFORM, 0)
    }

    /// The thread begins a call for a task, maybe of one of its transforms.
    pub(crate) fn begin_of(
        &self,
        call: Call,
        task: TaskId,
        transform: Option<usize>,
    ) -> During<'_> {
        let transform = transform.and_then(|transform| u8::try_from(transform).ok());
        // A task of which nothing is known has number 0.
        let partition = u64::from(task.partition.unsigned_abs()) + 1;
        self.store(call, task.subtopology, transform.unwrap_or(NO_TRANSFORM), partition)
    }

    fn store(&self, call: Call, subtopology: u16, transform: u8, partition: u64) -> During<'_> {
        let number = CALLS.iter().position(|(of, _)| *of == call).map_or(0, |at| at as u64 + 1);
        let partition = partition & ((1 << PARTITION_BITS) - 1);
        let packed =
            number << 56 | u64::from(subtopology) << 40 | u64::from(transform) << 32 | partition;
        self.0.store(packed, Ordering::Relaxed);
        During(self)
    }

    /// What the thread is in, in words: call, transform and task.
    pub(crate) fn told(&self, topology: Option<&Topology>) -> Option<String> {
        let packed = self.0.load(Ordering::Relaxed);
        let byte = |shift: u32| (packed >> shift) as u8;
        let (_, words) = CALLS.get(usize::from(byte(56)).checked_sub(1)?)?;
        let mut told = (*words).to_owned();
        let (subtopology, partition) = ((packed >> 40) as u16, packed as u32);
        if partition == 0 {
            return Some(told);
        }
        let task = TaskId { subtopology, partition: partition as i32 - 1 };
        let subtopology = topology.and_then(|of| of.subtopologies.get(usize::from(subtopology)));
        if let Some(transform) = subtopology.and_then(|s| s.transforms.get(usize::from(byte(32)))) {
            told.push_str(&format!(" of `{}`", transform.name));
        }
        told.push_str(&format!(" for task {task}"));
        Some(told)
    }
}

/// A call that is under way.
pub(crate) struct During<'a>(&'a Doing);

impl Drop for During<'_> {
    fn drop(&mut self) {
        self.0.0.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_told_with_its_task_for_as_long_as_it_lasts() {
        let doing = Doing::default();
        assert_eq!(doing.told(None), None);
        for &(call, words) in CALLS {
            let during = doing.begin(call);
            assert_eq!(doing.told(None).as_deref(), Some(words));
            drop(during);
            assert_eq!(doing.told(None), None);
        }
        let task = TaskId { subtopology: 3, partition: 70_000 };
        let _during = doing.begin_of(Call::OpenState, task, None);
        assert_eq!(doing.told(None).as_deref(), Some("opening the state for task 3_70000"));
    }
}
