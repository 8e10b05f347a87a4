//! Several members.

use crate::contract::log::{
    Harness, OUTPUT,
    member::{Member, input},
    records::{outputs, values},
    topology,
};
use sidestream_core::record::TopicPartition;

/// Who leaves is told of the last revocation, may commit in it, and the other member owns
/// everything without waiting for a session to end.
pub fn who_leaves_is_followed_at_once<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut first = Member::owner(harness.ports(0));
    let mut second = Member::new(harness.ports(1));
    first.wait_for_both(&mut second, "one partition each", |first, second| {
        first.owned.len() == 1 && second.owned.len() == 1
    });
    let partition = first.owned[0];
    first.before_revoke = Some((partition, 3));
    first.retry(|ports| ports.source.leave());
    first.wait_for_both(&mut second, "the last one to own all", |first, second| {
        first.owned.is_empty() && second.owned.len() == 2
    });
    assert!(matches!(first.at_revoke, Some(Ok(_))), "{:?}", first.at_revoke);
    assert_eq!(second.committed(partition).map(|committed| committed.offset), Some(3));
}

/// A member that is told to give its partitions up commits first; who owns them then goes on from
/// there.
pub fn a_revoked_member_may_still_commit<H: Harness>() {
    let mut harness = H::start(&topology());
    let rows: Vec<_> = ["a", "b", "c"].map(|value| (Some("k"), Some(value))).into();
    for partition in [0, 1] {
        harness.write(&outputs(input(partition), &rows), crate::contract::log::End::Committed);
    }
    let mut first = Member::owner(harness.ports(0));
    let count = |member: &Member, p| member.read(input(p)).len();
    first.wait_for("all records", |member| count(member, 0) == 3 && count(member, 1) == 3);
    let produced = TopicPartition::new(OUTPUT, 0);
    first.ports.sink.produce(&outputs(produced, &[(Some("k"), Some("kept"))])).unwrap();
    first.before_revoke = Some((input(1), 2));
    first.forget();
    let mut second = Member::new(harness.ports(1));
    first.wait_for_both(&mut second, "one partition each", |first, second| {
        first.owned.len() == 1 && second.owned.len() == 1
    });
    assert!(matches!(first.at_revoke, Some(Ok(_))), "{:?}", first.at_revoke);
    assert_eq!(values(&harness.read(produced)), ["kept"]);
    first.wait_for_both(&mut second, "the rest of the records", |first, second| {
        let read = |p| count(first, p) + count(second, p);
        read(0) >= 3 && read(1) >= 1
    });
    let mut rest = first.read(input(1));
    rest.extend(second.read(input(1)));
    assert_eq!(rest, [(2, "c".to_owned())]);
}

/// A process that comes back under its identity owns its partitions again and goes on at the
/// committed offsets; what its predecessor had open is gone.
pub fn a_process_that_comes_back_goes_on<H: Harness>() {
    let mut harness = H::start(&topology());
    let produced = TopicPartition::new(OUTPUT, 0);
    let mut first = Member::owner(harness.ports(0));
    first.commit_offset(input(0), 5).unwrap();
    first.ports.sink.produce(&outputs(produced, &[(Some("k"), Some("lost"))])).unwrap();
    drop(first);
    let mut again = Member::owner(harness.ports(0));
    assert_eq!(again.committed(input(0)).map(|committed| committed.offset), Some(5));
    let mut transaction = again.transaction(input(0), 6);
    transaction.outputs = outputs(produced, &[(Some("k"), Some("kept"))]);
    again.commit(&transaction).unwrap();
    assert_eq!(values(&harness.read(produced)), ["kept"]);
}
