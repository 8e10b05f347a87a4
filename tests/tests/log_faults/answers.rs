//! Brokers that answer what is rare: each answer comes through a proxy, which makes it so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use kafka_protocol::{
    messages::{BrokerId, FindCoordinatorResponse},
    protocol::StrBytes,
};
use sidestream::kafka::{Config, Properties};
use sidestream_core::{
    ports::{Transaction, TransactionError},
    record::{Offset, Outputs},
};
use sidestream_sim::contract::log::{OUTPUT, member::input};
use sidestream_tests::{
    broker::{Cluster, Options},
    proxy::{self, Api},
    topics, wait,
};

use super::{PATIENCE, behind_proxy, owner, seen, set_up, transaction};

const FENCED_INSTANCE_ID: i16 = 82;
/// How many bytes before its end the answer to a transaction's offsets has the error of its only
/// partition: two for the error, and one each for what the partition, the topic and the answer may
/// have further.
const OFFSETS_ERROR: usize = 5;

#[test]
fn a_member_whose_session_times_out_is_fenced_by_itself_and_joins_anew() -> Result<()> {
    const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    let proxy = behind_proxy();
    let (config, topology) = set_up(&proxy.bootstrap())?;
    let config = Config { session_timeout: Duration::from_secs(2), ..config };
    let mut member = owner(&config, &topology)?;
    member.commit(&transaction(&member, "first", 1)).unwrap();

    // It does not poll meanwhile, as a worker that stands in a call.
    let fenced = Arc::new(AtomicBool::new(false));
    let seen_fenced = Arc::clone(&fenced);
    proxy.change(Api::Heartbeat, u32::MAX, move |_, answer| {
        seen_fenced.fetch_or(answer.ends_with(&FENCED_INSTANCE_ID.to_be_bytes()), Ordering::SeqCst);
        proxy::fail(answer, 2, COORDINATOR_NOT_AVAILABLE)
    });
    wait::until_true("fence", PATIENCE, || Ok(fenced.load(Ordering::SeqCst)))?;
    proxy.change_nothing();
    let result = member.commit(&transaction(&member, "lost", 2));
    assert!(matches!(result, Err(TransactionError::Aborted(_))), "{result:?}");

    member.wait_for("the loss", |member| member.owned.is_empty());
    member.wait_for("both partitions again", |member| member.owned.len() == 2);
    assert_eq!(member.committed(input(0)).map(|committed| committed.offset), Some(1));
    member.commit(&transaction(&member, "second", 2)).unwrap();
    assert_eq!(seen(&proxy.bootstrap(), &topology)?, ["first", "second"]);
    Ok(())
}

#[test]
fn refused_offsets_and_a_refused_abort_cost_a_transaction_and_nothing_else() -> Result<()> {
    const INVALID_TXN_STATE: i16 = 48;
    let proxy = behind_proxy();
    let (config, topology) = set_up(&proxy.bootstrap())?;
    let mut member = owner(&config, &topology)?;
    member.commit(&transaction(&member, "first", 1)).unwrap();

    // The member was fenced, and the producer learns of it first: whether that was by another process
    // is not for it to say.
    let refuse_offsets = || {
        proxy.change(Api::TxnOffsetCommit, 1, |_, answer| {
            proxy::fail(answer, OFFSETS_ERROR, FENCED_INSTANCE_ID)
        });
    };
    refuse_offsets();
    let result = member.commit(&transaction(&member, "second", 2));
    assert!(matches!(result, Err(TransactionError::Aborted(_))), "{result:?}");
    assert_eq!(proxy.changed(), 1);
    member.turn();
    member.commit(&transaction(&member, "second", 2)).unwrap();

    // The coordinator does not know of what is aborted.
    refuse_offsets();
    proxy.change(Api::EndTxn, 1, |_, answer| proxy::fail(answer, 2, INVALID_TXN_STATE));
    let result = member.commit(&transaction(&member, "third", 3));
    assert!(matches!(result, Err(TransactionError::Unknown(_))), "{result:?}");
    assert_eq!(proxy.changed(), 3);
    member.retry(|ports| ports.sink.recover());
    assert_eq!(member.committed(input(0)).map(|committed| committed.offset), Some(2));
    member.commit(&transaction(&member, "third", 3)).unwrap();
    assert_eq!(seen(&proxy.bootstrap(), &topology)?, ["first", "second", "third"]);
    Ok(())
}

#[test]
fn offsets_whose_coordinator_is_not_to_be_found_cost_a_producer() -> Result<()> {
    /// What a commit may take, and what the client's call may take beyond it, and as much again.
    const BOUND: Duration = Duration::from_secs(8);
    let proxy = behind_proxy();
    let (config, topology) = set_up(&proxy.bootstrap())?;
    let mut member = owner(&config, &topology)?;
    proxy.change(Api::FindCoordinator, u32::MAX, is_elsewhere);
    let began = Instant::now();
    let result = member.commit(&transaction(&member, "first", 1));
    assert!(
        matches!(&result, Err(TransactionError::Unknown(why)) if why.contains("does not come back")),
        "{result:?}"
    );
    assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
    assert!(proxy.changed() > 0);
    proxy.change_nothing();
    member.retry(|ports| ports.sink.recover());
    assert_eq!(member.committed(input(0)), None);
    member.commit(&transaction(&member, "first", 1)).unwrap();
    assert_eq!(seen(&proxy.bootstrap(), &topology)?, ["first"]);
    Ok(())
}

/// Makes a broker that is nowhere the coordinator of a group. A request ends with what is looked
/// for: a group (0) or a transactional id (1).
fn is_elsewhere(request: &[u8], answer: &mut Vec<u8>) -> bool {
    const GROUP: u8 = 0;
    request.last() == Some(&GROUP)
        && proxy::edit::<FindCoordinatorResponse>(request, answer, |answer| {
            (answer.node_id, answer.port) = (BrokerId(99), 1);
            answer.host = StrBytes::from_static_str("127.0.0.1");
            true
        })
}

#[test]
fn a_gap_in_the_numbers_of_records_costs_a_transaction_and_nothing_else() -> Result<()> {
    /// The abort may come before the client has made its second request: it is tried again.
    const ROUNDS_MAX: usize = 50;
    let proxy = behind_proxy();
    // One request is on its way, and the next one is made and waits.
    let producer = [("max.in.flight", "1"), ("linger.ms", "0")];
    let producer = producer.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (config, topology) = set_up(&proxy.bootstrap())?;
    let config = Config { producer: Properties::from(producer), ..config };
    let mut member = owner(&config, &topology)?;
    let mut committed = Vec::new();
    let gap = loop {
        let round = committed.len() / 2 + 1;
        assert!(round <= ROUNDS_MAX, "no gap in {ROUNDS_MAX} rounds");
        let value = round.to_string();
        let both = Transaction {
            outputs: outputs(&[0, 1], &value),
            ..transaction(&member, &value, Offset::try_from(round)?)
        };
        let result = member.commit(&both);
        committed.extend([value.clone(), value]);
        if let Err(TransactionError::Aborted(why)) = &result {
            let why = why.clone();
            member.commit(&both).unwrap();
            break why;
        }
        result.unwrap();
        let held = proxy.held();
        proxy.hold(Api::Produce, 1, Duration::from_millis(200));
        member.ports.sink.produce(&outputs(&[0, 1], "dropped")).unwrap();
        wait::until_true("request", PATIENCE, || Ok(proxy.held() > held))?;
        member.abort();
    };
    assert!(gap.contains("sequence"), "{gap}");
    let mut seen = seen(&proxy.bootstrap(), &topology)?;
    seen.sort_by_key(|value| value.parse::<usize>().unwrap_or(0));
    assert_eq!(seen, committed);
    Ok(())
}

/// A record for each of these partitions.
fn outputs(partitions: &[i32], value: &str) -> Outputs {
    let mut outputs = Outputs::default();
    for &partition in partitions {
        outputs.topics.push(OUTPUT);
        outputs.partitions.push(partition);
        outputs.timestamps.push(1_000);
        outputs.keys.push(Some(b"key"));
        outputs.values.push(Some(value.as_bytes()));
    }
    outputs
}

#[test]
fn an_output_that_is_gone_is_not_made_by_who_writes_to_it() -> Result<()> {
    let mut options = Options::default();
    options.properties.push(("auto.create.topics.enable".to_owned(), "true".to_owned()));
    let cluster = Cluster::start(&options)?;
    let (config, topology) = set_up(&cluster.bootstrap())?;
    let mut member = owner(&config, &topology)?;
    member.commit(&transaction(&member, "first", 1)).unwrap();
    let name = &topology.topic(OUTPUT).name;
    topics::delete(&cluster.bootstrap(), name)?;
    for _ in 0..3 {
        member.turn();
        let result = member.commit(&transaction(&member, "second", 2));
        assert!(result.is_err(), "{result:?}");
        if let Err(TransactionError::Unknown(_)) = result {
            member.retry(|ports| ports.sink.recover());
        }
    }
    assert_eq!(topics::partition_count(&cluster.bootstrap(), name)?, None);
    Ok(())
}
