//! What the project needs of a Kafka broker, as checks that any broker can be put through. The
//! embedded broker and Apache Kafka pass the same ones: that is what keeps the embedded one honest.
//!
//! Most go through librdkafka, as the agent does. What no client does on purpose (a sequence number
//! left out, a member of an old generation) goes over the wire by hand.
//!
//! Each check takes names of its own, so that they can run in any order and beside each other.

mod clients;
mod group_clients;
mod group_members;
mod group_offsets;
mod idempotence;
mod reading;
mod records;
mod settings;
mod topic_admin;
mod transaction_offsets;
mod transactions;
mod wire;

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// How long a broker may take for one answer; a machine that is busy compiling is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Something a broker has to do.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// Tries it on the broker at these `bootstrap.servers`.
    pub run: fn(&str) -> Result<()>,
}

/// A row of the table: a check is named as its function is.
macro_rules! checks {
    ($($room:ident :: $name:ident),* $(,)?) => {
        &[$(Check { name: stringify!($name), run: $room::$name }),*]
    };
}

/// Checks of how long something takes, to be run one by one.
pub const TIMED: &[Check] = checks![
    reading::a_waiting_reader_hears_at_once,
    reading::a_fetch_waits_for_as_long_as_it_says,
];

/// All others.
pub const ALL: &[Check] = checks![
    topic_admin::a_new_topic_is_seen_by_name_and_id,
    topic_admin::what_cannot_be_a_topic_is_refused,
    topic_admin::a_topic_that_is_only_validated_is_not_made,
    topic_admin::partitions_are_added_and_never_taken,
    topic_admin::a_deleted_topic_is_gone_and_comes_back_as_another,
    topic_admin::deleted_records_are_out_of_range,
    topic_admin::the_cluster_describes_itself,
    topic_admin::a_newer_client_hears_which_versions_there_are,
    settings::settings_are_told_back_with_defaults,
    settings::settings_are_changed_one_by_one_or_all,
    settings::settings_that_make_no_sense_are_refused,
    records::everything_about_a_record_is_kept,
    records::every_compression_goes_through,
    records::many_records_stay_in_order,
    records::who_wants_no_answer_gets_none,
    records::too_large_a_record_is_refused,
    records::a_compacted_topic_wants_keys,
    records::the_broker_gives_times_where_it_is_told_to,
    records::a_time_far_ahead_is_refused,
    records::damaged_batches_are_refused,
    reading::offsets_are_found_by_time,
    reading::a_fetch_keeps_to_its_limits,
    reading::what_is_not_there_is_refused_by_name,
    reading::epochs_of_leaders_end_where_the_log_does,
    idempotence::an_idempotent_producer_delivers_once_and_in_order,
    idempotence::a_repeated_batch_is_answered_as_before,
    idempotence::a_gap_in_the_sequence_is_refused,
    idempotence::an_old_epoch_is_refused,
    transactions::committed_records_become_visible_together,
    transactions::open_records_are_hidden_behind_the_last_stable_offset,
    transactions::aborted_records_are_never_seen,
    transactions::transactions_beside_each_other_end_on_their_own,
    transactions::a_marker_takes_an_offset,
    transactions::the_same_id_again_fences_and_aborts,
    transactions::a_zombie_cannot_write,
    transactions::a_transaction_runs_out_of_time,
    transactions::an_end_is_answered_again_and_never_turned,
    transactions::a_partition_must_be_added_first,
    transactions::transactions_are_listed_and_described,
    transaction_offsets::offsets_move_with_the_transaction_alone,
    transaction_offsets::pending_offsets_are_not_stable,
    transaction_offsets::a_member_of_an_old_generation_commits_nothing,
    transaction_offsets::offsets_want_the_member_and_its_place,
    group_offsets::offsets_are_kept_with_their_metadata,
    group_offsets::only_the_members_of_a_group_commit,
    group_offsets::groups_are_listed_described_and_deleted,
    group_clients::two_members_share_by_range,
    group_clients::two_members_share_cooperatively,
    group_clients::a_static_member_comes_back_to_its_partitions,
    group_members::a_generation_is_joined_and_synced,
    group_members::a_heartbeat_tells_of_a_rebalance,
    group_members::a_silent_member_is_dropped,
    group_members::a_static_member_takes_its_own_place,
    group_members::a_static_member_that_asks_for_other_topics_has_what_it_had,
    group_members::a_member_that_leaves_is_forgotten,
    group_members::what_cannot_be_a_member_is_refused,
];

/// How many checks run beside each other: mostly they wait.
const BESIDE_EACH_OTHER: usize = 4;

/// Puts a broker through all checks whose names contain `filter`, and tells what became of each;
/// fails with all that failed.
pub fn run(bootstrap: &str, filter: &str, tell: impl Fn(&str) + Sync) -> Result<()> {
    let failed = Mutex::new(Vec::new());
    let chosen = |check: &&Check| check.name.contains(filter);
    let try_one = |check: &Check| {
        let start = Instant::now();
        let outcome = (check.run)(bootstrap).context(check.name);
        let seconds = start.elapsed().as_secs_f64();
        let failure = outcome.err().map(|error| format!("{error:#}"));
        tell(&format!(
            "{seconds:6.2} s  {}{}",
            check.name,
            failure.as_ref().map_or("", |_| " FAILED")
        ));
        failed.lock().expect("no check panics under it").extend(failure);
    };
    TIMED.iter().filter(chosen).for_each(try_one);
    let next = Mutex::new(ALL.iter().filter(chosen));
    thread::scope(|scope| {
        for _ in 0..BESIDE_EACH_OTHER {
            scope.spawn(|| {
                let take = || next.lock().expect("no check panics under it").next();
                while let Some(check) = take() {
                    try_one(check);
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no check panics under it");
    anyhow::ensure!(failed.is_empty(), "{} checks failed:\n{}", failed.len(), failed.join("\n"));
    Ok(())
}
