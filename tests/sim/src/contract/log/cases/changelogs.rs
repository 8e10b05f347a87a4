//! Changelogs: their bounds and their restore.

use sidestream_core::{ports::Bounds, record::TopicPartition};

use crate::contract::log::{
    End, Harness,
    member::{Member, TIME_MAX, changelog, input},
    records::{changes, outputs, texts},
    topology,
};

fn bounds(member: &mut Member, partition: TopicPartition) -> Bounds {
    member
        .retry(|ports| ports.changelogs.bounds(&[partition], TIME_MAX))
        .remove(0)
        .expect("a partition that is there")
}

fn write(harness: &mut impl Harness, values: &[&str], end: End) {
    let rows: Vec<_> = values.iter().map(|&value| (Some("key"), Some(value))).collect();
    harness.write(&outputs(changelog(0), &rows), end);
}

/// Reads until the end that was asked for before.
fn restore_all(member: &mut Member, from: i64) -> Vec<Option<String>> {
    let end = bounds(member, changelog(0)).end;
    member.retry(|ports| ports.changelogs.read(changelog(0), from, -1));
    member.wait_for("the changelog's end", |member| {
        from == end || member.restored.get(&changelog(0)).is_some_and(|(_, next)| *next >= end)
    });
    member.retry(|ports| ports.changelogs.stop(changelog(0)));
    member
        .restored
        .remove(&changelog(0))
        .map_or_else(Vec::new, |(records, _)| texts(&records.values))
}

/// Bounds are those of all records, whatever becomes of them, and name the topic.
pub fn the_end_of_a_changelog_counts_what_is_not_committed<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    let empty = bounds(&mut member, changelog(0));
    assert_eq!((empty.start, empty.end), (0, 0));
    write(&mut harness, &["a", "b"], End::Open);
    let open = bounds(&mut member, changelog(0));
    assert_eq!((open.start, open.end, open.topic_id), (0, 2, empty.topic_id));
    harness.commit_open();
    // Markers are written after the commit has returned; who was given the records is past theirs.
    assert_eq!(restore_all(&mut member, 0).len(), 2);
    assert!(bounds(&mut member, changelog(0)).end > 2, "the marker counts, too");
}

/// A restore ends at the end though its last records are aborted and markers take offsets.
pub fn a_restore_reaches_the_end_past_markers_and_aborted_records<H: Harness>() {
    let mut harness = H::start(&topology());
    write(&mut harness, &["a", "b"], End::Committed);
    write(&mut harness, &["lost"], End::Aborted);
    write(&mut harness, &["c"], End::Committed);
    write(&mut harness, &["lost, too", "and this"], End::Aborted);
    let mut member = Member::owner(harness.ports(0));
    let value = |text: &str| Some(text.to_owned());
    assert_eq!(restore_all(&mut member, 0), [value("a"), value("b"), value("c")]);
}

/// Before a transaction ends, a restore stops below it and waits; then it goes on.
pub fn a_restore_waits_for_what_is_not_committed<H: Harness>() {
    let mut harness = H::start(&topology());
    write(&mut harness, &["a"], End::Committed);
    write(&mut harness, &["pending"], End::Open);
    let mut member = Member::owner(harness.ports(0));
    let end = bounds(&mut member, changelog(0)).end;
    member.retry(|ports| ports.changelogs.read(changelog(0), 0, -1));
    let read = |member: &Member| {
        member.restored.get(&changelog(0)).map_or(0, |(records, _)| records.keys.len())
    };
    member.wait_for("the committed record", |member| read(member) == 1);
    for _ in 0..20 {
        member.turn();
    }
    let (_, next) = &member.restored[&changelog(0)];
    assert!(*next < end, "the restore is at {next}, but the end {end} is not committed");
    harness.commit_open();
    member.wait_for("the end", |member| member.restored[&changelog(0)].1 >= end);
    assert_eq!(read(&member), 2);
}

/// A restore reads from its offset on, and may be started again.
pub fn a_restore_starts_where_it_is_told<H: Harness>() {
    let mut harness = H::start(&topology());
    write(&mut harness, &["a", "b", "c"], End::Committed);
    let mut member = Member::owner(harness.ports(0));
    let value = |text: &str| Some(text.to_owned());
    assert_eq!(restore_all(&mut member, 1), [value("b"), value("c")]);
    assert_eq!(restore_all(&mut member, 2), [value("c")]);
    assert_eq!(restore_all(&mut member, 0), [value("a"), value("b"), value("c")]);
    let end = bounds(&mut member, changelog(0)).end;
    assert_eq!(restore_all(&mut member, end), []);
}

/// Changes that were committed come back, deletes as null, and the receipt's end is where a
/// restore finds nothing more.
pub fn changes_and_deletes_come_back_from_the_changelog<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    let first = changes(&[("a", Some("1")), ("b", Some(""))]);
    let second = changes(&[("a", None)]);
    let mut end = 0;
    for (offset, changes) in [(1, &first), (2, &second)] {
        let mut transaction = member.transaction(input(0), offset);
        transaction.changes = vec![(changelog(0), changes)];
        let receipt = member.commit(&transaction).unwrap();
        end = receipt.changelog_ends[0].1;
    }
    let value = |text: &str| Some(text.to_owned());
    assert_eq!(restore_all(&mut member, 0), [value("1"), value(""), None]);
    assert_eq!(restore_all(&mut member, end), []);
}

/// The last change of a transaction carries what its changelog is told of the inputs, and no other.
pub fn what_changelogs_are_told_of_inputs_comes_back<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    let some = changes(&[("a", Some("1")), ("b", None)]);
    for (offset, seen) in [(1, "first"), (2, ""), (3, "third")] {
        let mut transaction = member.transaction(input(0), offset);
        transaction.changes = vec![(changelog(0), &some)];
        transaction.seen = vec![seen];
        member.commit(&transaction).unwrap();
    }
    assert_eq!(restore_all(&mut member, 0).len(), 6);
    assert_eq!(member.told, ["first", "third"]);
}
