//! Two processes with one identity: the one that came later goes on, and the other ends with a remedy.

use std::time::Duration;

use anyhow::Result;
use sidestream::kafka::Config;
use sidestream_core::ports::PortError;
use sidestream_sim::contract::log::member::{Member, input};
use sidestream_tests::{broker, wait};

use super::{PATIENCE, behind_proxy, owner, set_up, transaction};

/// Takes turns of `other` until `member` ends. Returns what it says.
fn end_of(member: &mut Member, other: &mut Member) -> Result<String> {
    wait::until("the end of the other process", PATIENCE, || {
        other.turn();
        match member.ports.source.poll(Duration::from_millis(50), &mut Vec::new()) {
            Err(PortError::Fatal(message)) => Ok(Some(message)),
            Err(error) => anyhow::bail!("{error}"),
            Ok(()) => Ok(None),
        }
    })
}

/// `left` goes on, with a producer that it may have to take back, and `ended` commits nothing.
fn check(left: &mut Member, ended: &mut Member, told: &str) {
    assert!(told.contains("identity") && told.contains("stop one of the two"), "{told}");
    left.wait_for("both partitions", |member| member.owned.len() == 2);
    left.retry(|ports| ports.sink.recover());
    left.commit_offset(input(0), 1).expect("it is the one that is left");
    let result = ended.commit(&transaction(ended, "lost", 2));
    assert!(result.is_err(), "{result:?}");
    assert_eq!(left.committed(input(0)).map(|committed| committed.offset), Some(1));
}

#[test]
fn a_second_process_of_one_identity_ends_the_first_with_a_remedy() -> Result<()> {
    let (config, topology) = set_up(&broker::shared().bootstrap())?;
    let mut first = owner(&config, &topology)?;
    let mut second = owner(&config, &topology)?;
    let told = end_of(&mut first, &mut second)?;
    check(&mut second, &mut first, &told);
    Ok(())
}

#[test]
fn a_connection_that_was_lost_long_ago_keeps_no_second_process_away() -> Result<()> {
    let proxy = behind_proxy();
    let (config, topology) = set_up(&proxy.bootstrap())?;
    // Brokers close connections that were idle for some minutes. By then it is long ago.
    let config = Config { rejoin_time_max: Duration::ZERO, ..config };
    let mut first = owner(&config, &topology)?;
    proxy.cut();
    let mut second = owner(&config, &topology)?;
    let told = end_of(&mut first, &mut second)?;
    check(&mut second, &mut first, &told);
    Ok(())
}

#[test]
fn who_is_fenced_after_a_lost_connection_joins_anew_and_only_one_of_two_goes_on() -> Result<()> {
    let proxy = behind_proxy();
    let (config, topology) = set_up(&proxy.bootstrap())?;
    // However slow this machine is: it is not long ago.
    let config = Config { rejoin_time_max: 10 * PATIENCE, ..config };
    let mut first = owner(&config, &topology)?;
    proxy.cut();
    let mut second = owner(&config, &topology)?;
    let told = end_of(&mut second, &mut first)?;
    check(&mut first, &mut second, &told);
    Ok(())
}
