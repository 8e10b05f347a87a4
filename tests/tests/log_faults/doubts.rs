//! Places in doubt: where brokers say that a partition can't be read, it is read there once more before
//! that is believed.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::FetchResponse;
use sidestream_core::{
    ports::{FetchPosition, PortError},
    record::Offset,
};
use sidestream_sim::contract::log::{
    INPUT,
    member::{Member, input},
};
use sidestream_tests::{
    proxy::{self, Api, Proxy},
    wait,
};

use super::{PATIENCE, behind_proxy, owner, set_up, transaction};

const OFFSET_OUT_OF_RANGE: i16 = 1;
/// No place in a partition.
const NOWHERE: i64 = -1;

/// So many times it is said that the first partition can't be read where it is.
fn lose_place(proxy: &Proxy, times: u32) {
    proxy.change(Api::Fetch, times, |request, answer| {
        proxy::edit::<FetchResponse>(request, answer, |answer| {
            let all = answer.responses.iter_mut().flat_map(|topic| &mut topic.partitions);
            let mut first = all.filter(|at| at.partition_index == 0 && at.error_code == 0);
            let Some(first) = first.next() else { return false };
            first.error_code = OFFSET_OUT_OF_RANGE;
            first.high_watermark = NOWHERE;
            first.last_stable_offset = NOWHERE;
            first.log_start_offset = NOWHERE;
            first.records = Some(Bytes::new());
            true
        })
    });
}

/// Writes a record to each partition of the input.
fn write(member: &mut Member, value: &str) {
    let mut both = transaction(member, value, 1);
    let outputs = &mut both.outputs;
    outputs.topics = vec![INPUT; 2];
    outputs.partitions = vec![0, 1];
    outputs.timestamps = vec![1_000; 2];
    outputs.keys.push(Some(b"key"));
    outputs.values.push(Some(value.as_bytes()));
    member.commit(&both).expect("nothing is in the way");
}

fn wait_for_values(member: &mut Member, expected: &[&str]) {
    member.wait_for("the records", |member| {
        [0, 1].into_iter().all(|partition| member.read(input(partition)).len() >= expected.len())
    });
    for partition in [0, 1] {
        let read = member.read(input(partition));
        assert_eq!(read.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>(), expected);
    }
}

fn wait_for_end(member: &mut Member) {
    member.forget();
    member.wait_for("the end", |member| {
        let mut of_first = member.fetched.iter().filter(|fetched| fetched.partition == input(0));
        of_first.any(|fetched| fetched.records.offsets.is_empty())
    });
}

/// Reads the first partition from there on.
fn seek(member: &mut Member, offset: Offset) -> Result<(), PortError> {
    member.epoch += 1;
    let position = FetchPosition { partition: input(0), offset, epoch: member.epoch };
    member.ports.source.seek(&[position])
}

#[test]
fn doubts_of_a_partition_to_which_nothing_comes_do_not_add_up() -> Result<()> {
    let proxy = behind_proxy();
    let (config, topology) = set_up(&proxy.bootstrap())?;
    let mut member = owner(&config, &topology)?;
    wait_for_end(&mut member);
    for doubt in 1..=3 {
        lose_place(&proxy, 1);
        wait::until_true("a doubt", PATIENCE, || Ok(proxy.changed() == doubt))?;
        // Read there once more, it has its end there.
        wait_for_end(&mut member);
        assert!(member.unreadable.is_empty(), "lost after {doubt} doubts");
    }
    member.forget();
    write(&mut member, "comes");
    wait_for_values(&mut member, &["comes"]);
    // Where nothing else is said, that is believed; told once.
    lose_place(&proxy, u32::MAX);
    member.wait_for("the loss", |member| !member.unreadable.is_empty());
    proxy.change_nothing();
    write(&mut member, "later");
    member.wait_for("the other partition", |member| member.read(input(1)).len() == 2);
    assert_eq!((member.unreadable.as_slice(), member.read(input(0)).len()), (&[input(0)][..], 1));
    Ok(())
}

#[test]
fn an_assignment_that_the_client_refuses_is_made_again_until_it_is_taken() -> Result<()> {
    /// The client starts at no such place, and takes no assignment with one.
    const REFUSED: Offset = -5;
    let proxy = behind_proxy();
    let (config, topology) = set_up(&proxy.bootstrap())?;
    let mut member = owner(&config, &topology)?;
    write(&mut member, "before");
    wait_for_values(&mut member, &["before"]);
    lose_place(&proxy, u32::MAX);
    member.wait_for("the loss", |member| !member.unreadable.is_empty());
    proxy.change_nothing();
    write(&mut member, "after");

    // What is lost is assigned anew where it is to be read on, with all others.
    seek(&mut member, REFUSED)?;
    for attempt in 0..3 {
        let result = member.ports.source.poll(Duration::ZERO, &mut Vec::new());
        let is_refused =
            matches!(&result, Err(PortError::Unavailable(why)) if why.contains("assigning"));
        assert!(is_refused, "attempt {attempt}: {result:?}");
    }
    member.forget();
    seek(&mut member, 0)?;
    member.wait_for("all of the first", |member| member.read(input(0)).len() == 2);
    let second = member.read(input(1));
    assert!(second.len() <= 1, "{second:?}");
    write(&mut member, "last");
    member.wait_for("the last", |member| {
        [0, 1].into_iter().all(|at| member.read(input(at)).iter().any(|(_, value)| value == "last"))
    });
    let values = |member: &Member, at| -> Vec<String> {
        member.read(input(at)).into_iter().map(|(_, value)| value).collect()
    };
    assert_eq!(values(&member, 0), ["before", "after", "last"]);
    assert_eq!(values(&member, 1), ["after", "last"]);
    Ok(())
}
