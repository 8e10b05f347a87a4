//! Producing and committing.

use sidestream_core::{
    ports::{Membership, Refusal, Suspects, Transaction, TransactionError},
    record::{Committed, PARTITION_BY_KEY, TopicPartition},
    task::Fault,
};

use crate::contract::log::{
    Harness, OUTPUT,
    member::{Member, changelog, input},
    records::{changes, outputs, push, values},
    topology,
};

const fn output(partition: i32) -> TopicPartition {
    TopicPartition::new(OUTPUT, partition)
}

fn check_aborted<T: std::fmt::Debug>(result: &Result<T, TransactionError>) {
    assert!(matches!(result, Err(TransactionError::Aborted(_))), "{result:?}");
}

fn check_refused<T: std::fmt::Debug>(
    result: &Result<T, TransactionError>,
    fault: Fault,
    suspects: &Suspects,
) {
    let is_right = |refusal: &Refusal| refusal.fault == fault && refusal.suspects == *suspects;
    assert!(
        matches!(result, Err(TransactionError::Refused(refusal)) if is_right(refusal)),
        "{result:?}"
    );
}

/// What was produced before and in the commit becomes visible with it, the offsets and what was
/// stored beside them, too; not before.
pub fn a_commit_shows_outputs_and_offsets_together<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    member.ports.sink.produce(&outputs(output(0), &[(Some("k"), Some("early"))])).unwrap();
    assert_eq!(harness.read(output(0)).len(), 0);
    assert_eq!(member.committed(input(0)), None);
    let mut transaction = member.transaction(input(0), 7);
    transaction.outputs = outputs(output(0), &[(Some("k"), Some("late"))]);
    push(&mut transaction.outputs, OUTPUT, PARTITION_BY_KEY, 5, (Some("k"), Some("placed")));
    member.commit(&transaction).unwrap();
    let mut seen = values(&harness.read(output(0)));
    let other = values(&harness.read(output(1)));
    seen.extend(other);
    seen.sort();
    assert_eq!(seen, ["early", "late", "placed"]);
    let expected = Committed { offset: 7, metadata: "note 7".to_owned() };
    assert_eq!(member.committed(input(0)), Some(expected));
    assert_eq!(member.committed(input(1)), None);
}

/// A transaction that only read commits its offsets; also several in a row.
pub fn a_transaction_without_records_commits_its_offsets<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    for offset in 1..4 {
        member.commit_offset(input(1), offset).unwrap();
        assert_eq!(member.committed(input(1)).map(|committed| committed.offset), Some(offset));
    }
}

/// After an abort nothing is visible, and the next transaction goes its way.
pub fn an_aborted_transaction_leaves_nothing<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    member.abort();
    member.ports.sink.produce(&outputs(output(0), &[(Some("k"), Some("lost"))])).unwrap();
    member.abort();
    let mut transaction = member.transaction(input(0), 1);
    transaction.outputs = outputs(output(0), &[(Some("k"), Some("kept"))]);
    member.commit(&transaction).unwrap();
    assert_eq!(values(&harness.read(output(0))), ["kept"]);
    assert_eq!(member.committed(input(0)).map(|committed| committed.offset), Some(1));
}

/// A generation below 0 and an empty member id, which a broker would accept, are refused.
pub fn who_is_in_no_group_commits_nothing<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    let real = member.membership.clone();
    for membership in [
        Membership { generation: -1, ..real.clone() },
        Membership { member: String::new(), ..real.clone() },
        Membership::none(),
    ] {
        let refused = Transaction {
            outputs: outputs(output(0), &[(Some("k"), Some("lost"))]),
            membership,
            ..member.transaction(input(0), 1)
        };
        check_aborted(&member.commit(&refused));
    }
    assert_eq!(harness.read(output(0)).len(), 0);
    assert_eq!(member.committed(input(0)), None);
    member.commit_offset(input(0), 1).unwrap();
}

/// Who commits with the generation of before a rebalance commits nothing.
pub fn a_stale_generation_commits_nothing<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut first = Member::owner(harness.ports(0));
    let stale = first.membership.clone();
    let mut second = Member::new(harness.ports(1));
    first.wait_for_both(&mut second, "one partition each", |first, second| {
        first.owned.len() == 1 && second.owned.len() == 1
    });
    assert!(first.membership.generation > stale.generation);
    let partition = first.owned[0];
    let refused = Transaction {
        outputs: outputs(output(0), &[(Some("k"), Some("lost"))]),
        membership: stale,
        ..first.transaction(partition, 9)
    };
    check_aborted(&first.commit(&refused));
    assert_eq!(harness.read(output(0)).len(), 0);
    assert_eq!(first.committed(partition), None);
    first.commit_offset(partition, 1).unwrap();
}

/// A producer whose transactional id another one took can't tell what happened; made anew, it
/// goes on, and what was open is gone.
pub fn a_fenced_producer_is_unknown_until_it_recovers<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    member.ports.sink.produce(&outputs(output(0), &[(Some("k"), Some("lost"))])).unwrap();
    harness.fence(0);
    let mut transaction = member.transaction(input(0), 1);
    transaction.outputs = outputs(output(0), &[(Some("k"), Some("lost, too"))]);
    let result = member.commit(&transaction);
    assert!(matches!(result, Err(TransactionError::Unknown(_))), "{result:?}");
    assert_eq!(member.committed(input(0)), None);
    member.retry(|ports| ports.sink.recover());
    let mut transaction = member.transaction(input(0), 2);
    transaction.outputs = outputs(output(0), &[(Some("k"), Some("kept"))]);
    member.commit(&transaction).unwrap();
    assert_eq!(values(&harness.read(output(0))), ["kept"]);
    assert_eq!(member.committed(input(0)).map(|committed| committed.offset), Some(2));
}

/// A new producer settles the open transaction of the one before; it is as if aborted.
pub fn recovery_settles_what_was_open<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    member.ports.sink.produce(&outputs(output(0), &[(Some("k"), Some("lost"))])).unwrap();
    member.retry(|ports| ports.sink.recover());
    let mut transaction = member.transaction(input(0), 1);
    transaction.outputs = outputs(output(0), &[(Some("k"), Some("kept"))]);
    member.commit(&transaction).unwrap();
    assert_eq!(values(&harness.read(output(0))), ["kept"]);
}

/// An output for a partition that is not there is refused, and its row named; that is not its fault.
/// The transaction is aborted, and the next goes its way.
pub fn a_record_for_no_partition_is_refused_by_row<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    // So that the partitions are known.
    let mut transaction = member.transaction(input(0), 1);
    transaction.outputs = outputs(output(0), &[(Some("k"), Some("first"))]);
    member.commit(&transaction).unwrap();
    let mut transaction = member.transaction(input(0), 2);
    transaction.outputs = outputs(output(0), &[(Some("k"), Some("lost"))]);
    push(&mut transaction.outputs, OUTPUT, 2, 5, (Some("k"), Some("nowhere")));
    let result = member.commit(&transaction);
    check_refused(&result, Fault::Passing, &Suspects::Outputs(vec![1]));
    member.abort();
    assert_eq!(member.committed(input(0)).map(|committed| committed.offset), Some(1));
    let mut transaction = member.transaction(input(0), 2);
    transaction.outputs = outputs(output(0), &[(Some("k"), Some("second"))]);
    member.commit(&transaction).unwrap();
    assert_eq!(values(&harness.read(output(0))), ["first", "second"]);
}

/// An output that no broker takes is refused at once or at the commit.
pub fn a_record_that_is_too_large_is_refused<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    let large = "x".repeat(3 << 20);
    let mut transaction = member.transaction(input(0), 1);
    transaction.outputs = outputs(output(0), &[(Some("k"), Some("small")), (None, Some(&large))]);
    let result = member.commit(&transaction);
    check_refused(&result, Fault::Size, &Suspects::Outputs(vec![1]));
    member.abort();
    assert_eq!(harness.read(output(0)).len(), 0);
    assert_eq!(member.committed(input(0)), None);
    member.commit_offset(input(0), 1).unwrap();
}

/// The row of a refused output counts what was produced before in the same transaction, and
/// nothing of an earlier one.
pub fn a_refused_row_is_counted_over_all_outputs_of_the_transaction<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    let small = outputs(output(0), &[(Some("k"), Some("small")), (None, Some("small"))]);
    member.ports.sink.produce(&small).unwrap();
    member.commit_offset(input(0), 1).unwrap();
    member.ports.sink.produce(&small).unwrap();
    member.abort();
    member.ports.sink.produce(&small).unwrap();
    let large = "x".repeat(3 << 20);
    let mut transaction = member.transaction(input(0), 2);
    transaction.outputs = outputs(output(0), &[(Some("k"), Some("small")), (None, Some(&large))]);
    let result = member.commit(&transaction);
    check_refused(&result, Fault::Size, &Suspects::Outputs(vec![3]));
    member.abort();
    assert_eq!(member.committed(input(0)).map(|committed| committed.offset), Some(1));
}

/// A change that no broker takes is refused, and its row named among its changelog's changes. That
/// holds for one that is written alone, and beside others.
pub fn a_change_that_is_too_large_is_refused_by_row<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    let large = "x".repeat(3 << 20);
    let (small, both) = (
        changes(&[("a", Some("1"))]),
        changes(&[("a", Some("1")), ("b", Some("2")), ("c", Some(&large))]),
    );
    let mut transaction = member.transaction(input(0), 1);
    transaction.changes = vec![(changelog(0), &small), (changelog(1), &both)];
    let mut suspects = None;
    for _ in 0..5 {
        // Where more than one is suspected, they are told apart when they come again.
        let result = member.commit(&transaction);
        let Err(TransactionError::Refused(refusal)) = result else { panic!("{result:?}") };
        assert_eq!(refusal.fault, Fault::Size);
        member.abort();
        suspects = Some(refusal.suspects);
        if suspects == Some(Suspects::Changes(changelog(1), vec![2])) {
            break;
        }
    }
    assert_eq!(suspects, Some(Suspects::Changes(changelog(1), vec![2])));
    assert_eq!(member.committed(input(0)), None);
    member.commit_offset(input(0), 1).unwrap();
}

/// A commit says where the last record of each changelog stands.
pub fn receipts_say_where_changes_end<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    let some = changes(&[("a", Some("1")), ("b", Some("2"))]);
    let none = changes(&[]);
    let mut transaction = member.transaction(input(0), 1);
    transaction.changes = vec![(changelog(0), &none), (changelog(1), &some)];
    let receipt = member.commit(&transaction).unwrap();
    let ends = receipt.changelog_ends;
    assert_eq!(ends, [(changelog(1), 2)]);
}
