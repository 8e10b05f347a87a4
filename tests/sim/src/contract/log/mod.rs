//! What all [`Ports`] must do. Each case is a function over a [`Harness`]; [`log_contract!`] makes
//! tests of them.
//!
//! [`log_contract!`]: crate::log_contract

mod cases;
pub mod member;
mod records;

use sidestream_core::{
    ports::Ports,
    record::{Outputs, Records, TopicIndex, TopicPartition},
    topology::{
        Input, OnOutOfRange, Reader, Start, Store, Subtopology, Topic, TopicKind, Topology,
    },
};

pub use self::cases::*;

/// The input of the contract's topology: two partitions.
pub const INPUT: TopicIndex = TopicIndex(0);
/// Its output: two partitions.
pub const OUTPUT: TopicIndex = TopicIndex(1);
/// Its changelog: two partitions.
pub const CHANGELOG: TopicIndex = TopicIndex(2);

/// Ports to test, with a view of them from outside.
pub trait Harness {
    /// Makes the topics, empty. Their names may be changed, their number and order not.
    fn start(topology: &Topology) -> Self;

    /// The ports of worker `worker` in a process of its own. Called again for the same number, it
    /// is a process under the same identity.
    fn ports(&mut self, worker: usize) -> Ports;

    /// Another process takes the transactional id of `worker` over, then goes away.
    fn fence(&mut self, worker: usize);

    /// Another application writes records in a transaction, all to partitions that are given.
    fn write(&mut self, outputs: &Outputs, end: End);

    /// Commits what was written with [`End::Open`].
    fn commit_open(&mut self);

    /// What a read-committed reader sees of a partition, from its start.
    fn read(&mut self, partition: TopicPartition) -> Records;
}

/// What becomes of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is committed.
    Committed,
    /// It is aborted.
    Aborted,
    /// It stays open until [`Harness::commit_open`].
    Open,
}

/// The topology of all cases.
#[must_use]
pub fn topology() -> Topology {
    let topic = |name: &str, kind| Topic { name: name.to_owned(), partitions: 2, kind };
    Topology {
        topics: vec![
            topic("input", TopicKind::External),
            topic("output", TopicKind::External),
            topic("changelog", TopicKind::Changelog),
        ],
        subtopologies: vec![Subtopology {
            partitions: 2,
            inputs: vec![Input {
                topic: INPUT,
                start: Start::Earliest,
                on_out_of_range: OnOutOfRange::Fail,
                readers: vec![Reader { transform: 0, input: 0 }],
            }],
            transforms: Vec::new(),
            stores: vec![Store { name: "store".to_owned(), changelog: CHANGELOG }],
        }],
    }
}

/// Makes a test of each case of the contract, for a harness.
#[macro_export]
macro_rules! log_contract {
    ($harness:ty) => {
        $crate::log_contract!($harness:
            records_come_in_order_with_their_epoch,
            a_seek_reads_again_under_its_epoch,
            a_paused_partition_is_silent_and_loses_nothing,
            a_partition_paused_at_its_end_loses_nothing,
            nulls_headers_and_timestamps_go_through,
            a_commit_shows_outputs_and_offsets_together,
            a_transaction_without_records_commits_its_offsets,
            an_aborted_transaction_leaves_nothing,
            aborted_input_is_not_read,
            who_is_in_no_group_commits_nothing,
            a_stale_generation_commits_nothing,
            a_fenced_producer_is_unknown_until_it_recovers,
            recovery_settles_what_was_open,
            the_end_of_a_changelog_counts_what_is_not_committed,
            a_restore_reaches_the_end_past_markers_and_aborted_records,
            a_restore_waits_for_what_is_not_committed,
            a_restore_starts_where_it_is_told,
            changes_and_deletes_come_back_from_the_changelog,
            starts_are_found,
            a_change_that_is_too_large_is_refused_by_row,
            the_bounds_of_inputs_are_told_with_their_topics,
            a_place_that_is_gone_is_told_once_and_others_are_read_on,
            what_changelogs_are_told_of_inputs_comes_back,
            receipts_say_where_changes_end,
            a_record_for_no_partition_is_refused_by_row,
            a_record_that_is_too_large_is_refused,
            a_refused_row_is_counted_over_all_outputs_of_the_transaction,
            who_leaves_is_followed_at_once,
            a_revoked_member_may_still_commit,
            a_process_that_comes_back_goes_on,
        );
    };
    ($harness:ty: $($case:ident,)*) => {
        $(
            #[test]
            fn $case() {
                $crate::contract::log::$case::<$harness>();
            }
        )*
    };
}
