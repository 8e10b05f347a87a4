//! Reading assigned partitions.

use sidestream_core::{
    ports::FetchPosition,
    record::{Outputs, TimestampType},
    topology::Start,
};

use crate::contract::log::{
    End, Harness, INPUT,
    member::{Member, TIME_MAX, changelog, input},
    records::{outputs, push, texts},
    topology,
};

/// Writes values to a partition of the input.
fn write(harness: &mut impl Harness, partition: i32, values: &[&str], end: End) {
    let rows: Vec<_> = values.iter().map(|&value| (Some("key"), Some(value))).collect();
    harness.write(&outputs(input(partition), &rows), end);
}

fn read_values(member: &Member, partition: i32) -> Vec<String> {
    member.read(input(partition)).into_iter().map(|(_, value)| value).collect()
}

/// Records come in order, marked with the epoch of the assignment, and `next` follows them.
pub fn records_come_in_order_with_their_epoch<H: Harness>() {
    let mut harness = H::start(&topology());
    write(&mut harness, 0, &["a", "b", "c"], End::Committed);
    let mut member = Member::owner(harness.ports(0));
    member.wait_for("three records", |member| read_values(member, 0).len() == 3);
    assert_eq!(read_values(&member, 0), ["a", "b", "c"]);
    let mut next = 0;
    for fetched in member.fetched.iter().filter(|f| f.partition == input(0)) {
        assert_eq!(fetched.epoch, member.epoch);
        for &offset in &fetched.records.offsets {
            assert!(offset >= next, "{offset} comes after {next} was next");
            next = offset + 1;
        }
        assert!(fetched.next >= next, "{} is next, after {next}", fetched.next);
    }
}

/// After a seek nothing comes that was read before it, and everything from its offset on.
pub fn a_seek_reads_again_under_its_epoch<H: Harness>() {
    let mut harness = H::start(&topology());
    write(&mut harness, 0, &["a", "b", "c"], End::Committed);
    let mut member = Member::owner(harness.ports(0));
    for round in 0..5 {
        member.wait_for("the records", |member| !read_values(member, 0).is_empty());
        member.forget();
        let epoch = member.epoch + 1;
        member.epoch = epoch;
        let position = FetchPosition { partition: input(0), offset: 1, epoch };
        member.retry(|ports| ports.source.seek(&[position]));
        member.wait_for("the records again", |member| read_values(member, 0).len() == 2);
        assert_eq!(read_values(&member, 0), ["b", "c"], "round {round}");
        let epochs = member.fetched.iter().filter(|f| f.partition == input(0));
        assert!(epochs.map(|fetched| fetched.epoch).all(|found| found == epoch));
    }
}

/// A paused partition says nothing while others go on, and goes on where it was.
pub fn a_paused_partition_is_silent_and_loses_nothing<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::new(harness.ports(0));
    member.resumes = false;
    member.wait_for("both partitions", |member| member.owned.len() == 2);
    write(&mut harness, 0, &["a", "b"], End::Committed);
    write(&mut harness, 1, &["x"], End::Committed);
    member.retry(|ports| ports.source.resume(&[input(1)]));
    member.wait_for("the partition that is not paused", |m| read_values(m, 1).len() == 1);
    assert_eq!(read_values(&member, 0), [""; 0]);
    member.retry(|ports| ports.source.resume(&[input(0)]));
    member.wait_for("the other", |member| read_values(member, 0).len() == 2);
    member.retry(|ports| ports.source.pause(&[input(0)]));
    write(&mut harness, 0, &["c"], End::Committed);
    write(&mut harness, 1, &["y"], End::Committed);
    member.wait_for("the one that goes on", |member| read_values(member, 1).len() == 2);
    member.retry(|ports| ports.source.resume(&[input(0)]));
    member.wait_for("the last record", |member| read_values(member, 0).len() == 3);
    assert_eq!(read_values(&member, 0), ["a", "b", "c"]);
}

/// A partition that is paused when its end was told goes on with the very next record.
pub fn a_partition_paused_at_its_end_loses_nothing<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut member = Member::owner(harness.ports(0));
    let mut expected = Vec::new();
    for value in ["a", "b", "c"] {
        write(&mut harness, 0, &[value], End::Committed);
        expected.push(value);
        let count = expected.len();
        member.wait_for("the record", |member| read_values(member, 0).len() == count);
        member.wait_for("the end", |member| {
            let last = member.fetched.iter().rfind(|f| f.partition == input(0));
            last.is_some_and(|fetched| fetched.records.offsets.is_empty())
        });
        member.retry(|ports| ports.source.pause(&[input(0)]));
        write(&mut harness, 0, &["while paused"], End::Committed);
        expected.push("while paused");
        member.retry(|ports| ports.source.resume(&[input(0)]));
        let count = expected.len();
        member.wait_for("what came meanwhile", |m| read_values(m, 0).len() >= count);
        assert_eq!(read_values(&member, 0), expected);
    }
}

/// Null and empty keys and values, headers and timestamps arrive as they were written.
pub fn nulls_headers_and_timestamps_go_through<H: Harness>() {
    let mut harness = H::start(&topology());
    let mut written = Outputs::default();
    push(&mut written, INPUT, 0, 1_000, (None, None));
    push(&mut written, INPUT, 0, 999, (Some(""), Some("")));
    push(&mut written, INPUT, 0, 1_500_000_000_000, (Some("k"), Some("v")));
    written.headers.counts = vec![0, 2, 0];
    for (name, value) in [("h", Some("1")), ("h", None)] {
        written.headers.names.push(Some(name.as_bytes()));
        written.headers.values.push(value.map(str::as_bytes));
    }
    harness.write(&written, End::Committed);
    let mut member = Member::owner(harness.ports(0));
    let count = |member: &Member| member.read(input(0)).len();
    member.wait_for("three records", |member| count(member) == 3);
    let mut rows = Vec::new();
    for fetched in &member.fetched {
        let records = &fetched.records;
        let (keys, values) = (texts(&records.keys), texts(&records.values));
        let (names, contents) = (texts(&records.headers.names), texts(&records.headers.values));
        let mut headers = names.into_iter().flatten().zip(contents);
        for (row, (key, value)) in keys.into_iter().zip(values).enumerate() {
            assert_eq!(records.timestamp_types[row], TimestampType::CreateTime as u8);
            let count = records.headers.counts.get(row).map_or(0, |&count| count as usize);
            let headers: Vec<_> = headers.by_ref().take(count).collect();
            rows.push((records.timestamps[row], key, value, headers));
        }
    }
    let some = |text: &str| Some(text.to_owned());
    let headers = vec![("h".to_owned(), some("1")), ("h".to_owned(), None)];
    assert_eq!(
        rows,
        [
            (1_000, None, None, Vec::new()),
            (999, some(""), some(""), headers),
            (1_500_000_000_000, some("k"), some("v"), Vec::new()),
        ]
    );
}

/// Input of aborted transactions is not read.
pub fn aborted_input_is_not_read<H: Harness>() {
    let mut harness = H::start(&topology());
    write(&mut harness, 0, &["a"], End::Committed);
    write(&mut harness, 0, &["lost"], End::Aborted);
    write(&mut harness, 0, &["b"], End::Committed);
    let mut member = Member::owner(harness.ports(0));
    member.wait_for("two records", |member| read_values(member, 0).len() == 2);
    assert_eq!(read_values(&member, 0), ["a", "b"]);
}

/// Earliest, latest and a time are turned into offsets.
pub fn starts_are_found<H: Harness>() {
    let mut harness = H::start(&topology());
    write(&mut harness, 0, &["a", "b", "c"], End::Committed);
    let mut member = Member::owner(harness.ports(0));
    let mut find =
        |start| member.retry(|ports| ports.source.start_offset(input(0), start, TIME_MAX));
    assert_eq!(find(Start::Earliest), 0);
    assert_eq!(find(Start::At(0)), 0);
    assert_eq!(find(Start::At(1_001)), 1);
    assert_eq!(find(Start::At(1_002)), 2);
    // A marker stands behind the records, with a time of its own.
    for start in [Start::Latest, Start::At(5_000)] {
        let offset = find(start);
        assert!((3..=4).contains(&offset), "{start:?} is {offset}");
    }
}

/// Inputs have bounds as changelogs have, and ids that tell their topics apart.
pub fn the_bounds_of_inputs_are_told_with_their_topics<H: Harness>() {
    let mut harness = H::start(&topology());
    write(&mut harness, 0, &["a", "b", "c"], End::Committed);
    let mut member = Member::owner(harness.ports(0));
    let asked = [input(0), input(1)];
    let mut bounds = member.retry(|ports| ports.source.bounds(&asked, TIME_MAX));
    bounds.extend(member.retry(|ports| ports.changelogs.bounds(&[changelog(0)], TIME_MAX)));
    let bounds: Vec<_> = bounds.into_iter().map(|bounds| bounds.unwrap()).collect();
    assert_eq!((bounds[0].start, bounds[1].end), (0, 0));
    assert!((3..=4).contains(&bounds[0].end), "{bounds:?}");
    assert_eq!(bounds[0].topic_id, bounds[1].topic_id);
    assert!(bounds[0].topic_id.differs(bounds[2].topic_id), "{bounds:?}");
}

/// A partition that is read from where no records are any more says so, once; others come, and so
/// does it from where there are some.
pub fn a_place_that_is_gone_is_told_once_and_others_are_read_on<H: Harness>() {
    let mut harness = H::start(&topology());
    write(&mut harness, 0, &["a", "b", "c"], End::Committed);
    let mut member = Member::owner(harness.ports(0));
    member.wait_for("three records", |member| read_values(member, 0).len() == 3);
    member.commit_offset(input(0), 2).unwrap();
    member.ports.sink.purge(&[(input(0), 2)]);
    let starts = |member: &mut Member| {
        member.retry(|ports| ports.source.bounds(&[input(0)], TIME_MAX)).remove(0).unwrap().start
    };
    for _ in 0..1_000 {
        if starts(&mut member) == 2 {
            break;
        }
        member.turn();
    }
    assert_eq!(starts(&mut member), 2);
    let seek = |member: &mut Member, offset| {
        member.epoch += 1;
        let position = FetchPosition { partition: input(0), offset, epoch: member.epoch };
        member.retry(|ports| ports.source.seek(&[position]));
        member.forget();
    };
    seek(&mut member, 0);
    member.wait_for("the lost place", |member| !member.unreadable.is_empty());
    write(&mut harness, 1, &["other"], End::Committed);
    member.wait_for("the other partition", |member| read_values(member, 1) == ["other"]);
    assert_eq!(member.unreadable, [input(0)]);
    assert_eq!(read_values(&member, 0), Vec::<String>::new());
    seek(&mut member, 2);
    member.wait_for("what is there", |member| read_values(member, 0) == ["c"]);
    assert_eq!(member.unreadable, [input(0)]);
}
