//! Groups of librdkafka's consumers.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{
    PATIENCE,
    clients::{config, topic},
};
use crate::topics;

/// A consumer that has subscribed.
pub(super) struct Member {
    pub(super) consumer: BaseConsumer,
}

impl Member {
    pub(super) fn new(
        bootstrap: &str,
        group: &str,
        topic: &str,
        settings: &[(&str, &str)],
    ) -> Result<Self> {
        let mut config = config(bootstrap, &[("group.id", group)]);
        config
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "300")
            .set("partition.assignment.strategy", "range");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let consumer: BaseConsumer = config.create()?;
        consumer.subscribe(&[topic])?;
        Ok(Self { consumer })
    }

    fn share(&self) -> Result<usize> {
        // Rebalances are served by polling.
        self.consumer.poll(Duration::from_millis(10)).transpose()?;
        Ok(self.consumer.assignment()?.count())
    }
}

/// Waits until each member has as many partitions as it should.
pub(super) fn wait_for_shares(members: &[&Member], expected: &[usize]) -> Result<()> {
    let start = Instant::now();
    loop {
        let shares = members.iter().map(|member| member.share()).collect::<Result<Vec<_>>>()?;
        if shares == expected {
            return Ok(());
        }
        ensure!(start.elapsed() < PATIENCE, "shares are {shares:?} instead of {expected:?}");
    }
}

fn two_members_share(bootstrap: &str, settings: &[(&str, &str)]) -> Result<()> {
    let topic = topic(bootstrap, "shared", 4, &[])?;
    let group = topics::unique("shared");
    let first = Member::new(bootstrap, &group, &topic, settings)?;
    wait_for_shares(&[&first], &[4])?;
    let second = Member::new(bootstrap, &group, &topic, settings)?;
    wait_for_shares(&[&first, &second], &[2, 2])?;
    // Closing it leaves the group.
    drop(second);
    wait_for_shares(&[&first], &[4])
}

pub(super) fn two_members_share_by_range(bootstrap: &str) -> Result<()> {
    two_members_share(bootstrap, &[])
}

pub(super) fn two_members_share_cooperatively(bootstrap: &str) -> Result<()> {
    two_members_share(bootstrap, &[("partition.assignment.strategy", "cooperative-sticky")])
}

/// How soon a static member is back: far below a session.
const BACK_WITHIN: Duration = Duration::from_secs(4);

pub(super) fn a_static_member_comes_back_to_its_partitions(bootstrap: &str) -> Result<()> {
    let topic = topic(bootstrap, "back", 4, &[])?;
    let group = topics::unique("back");
    let member =
        |instance| Member::new(bootstrap, &group, &topic, &[("group.instance.id", instance)]);
    // Not the list itself: librdkafka does not end a client while one of its lists is held.
    let partitions = |member: &Member| {
        let assignment = member.consumer.assignment()?;
        anyhow::Ok(assignment.elements().iter().map(|own| own.partition()).collect::<Vec<_>>())
    };
    let (first, second) = (member("first")?, member("second")?);
    wait_for_shares(&[&first, &second], &[2, 2])?;
    let before = partitions(&second)?;
    // A static member does not leave when it is closed.
    drop(second);
    let start = Instant::now();
    let second = member("second")?;
    wait_for_shares(&[&second], &[2])?;
    ensure!(start.elapsed() < BACK_WITHIN, "back after {:?}", start.elapsed());
    let after = partitions(&second)?;
    ensure!(after == before, "{before:?}, then {after:?}");
    wait_for_shares(&[&first, &second], &[2, 2])
}
