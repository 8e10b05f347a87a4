//! Brokers that answer what is rare: each answer comes through a proxy, which makes it so.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use sidestream::kafka::Config;
use sidestream_core::ports::TransactionError;
use sidestream_sim::contract::log::{OUTPUT, member::input};
use sidestream_tests::{
    broker::{Cluster, Options},
    proxy::{self, Api, Proxy},
    topics, wait,
};

use super::{PATIENCE, owner, seen, set_up, transaction};

const FENCED_INSTANCE_ID: i16 = 82;
/// How many bytes before its end the answer to a transaction's offsets has the error of its only
/// partition: two for the error, and one each for what the partition, the topic and the answer may
/// have further.
const OFFSETS_ERROR: usize = 5;

#[test]
fn a_member_whose_session_times_out_is_fenced_by_itself_and_joins_anew() -> Result<()> {
    const COORDINATOR_NOT_AVAILABLE: i16 = 15;
    let proxy = Proxy::start()?;
    let mut options = Options::behind(&proxy);
    let shortest = ("group.min.session.timeout.ms", "1000");
    options.properties.push((shortest.0.to_owned(), shortest.1.to_owned()));
    let _cluster = Cluster::start(&options)?;
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
    let proxy = Proxy::start()?;
    let _cluster = Cluster::start(&Options::behind(&proxy))?;
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
    let proxy = Proxy::start()?;
    let _cluster = Cluster::start(&Options::behind(&proxy))?;
    let (config, topology) = set_up(&proxy.bootstrap())?;
    let mut member = owner(&config, &topology)?;
    proxy.change(Api::FindCoordinator, u32::MAX, is_elsewhere);
    let began = Instant::now();
    let result = member.commit(&transaction(&member, "first", 1));
    assert!(matches!(result, Err(TransactionError::Unknown(_))), "{result:?}");
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
/// for, a group (0) or a transactional id (1). An answer goes on, after its length and the
/// correlation id, with the time to wait (4 bytes), the error (2), a message (2 and its length), the
/// broker's id (4), its host's name (2 and its length) and port (4).
fn is_elsewhere(request: &[u8], answer: &mut Vec<u8>) -> bool {
    const MESSAGE: usize = 14;
    const ID: i32 = 99;
    const PORT: i32 = 1;
    let length = answer.get(MESSAGE..).and_then(|rest| rest.first_chunk());
    let (Some(0), Some(length)) = (request.last(), length) else { return false };
    let id = MESSAGE + 2 + usize::try_from(i16::from_be_bytes(*length)).unwrap_or(0);
    let host = Ipv4Addr::LOCALHOST.to_string();
    answer.truncate(id);
    answer.extend(ID.to_be_bytes());
    answer.extend(u16::try_from(host.len()).expect("it is short").to_be_bytes());
    answer.extend(host.as_bytes());
    answer.extend(PORT.to_be_bytes());
    let length = i32::try_from(answer.len() - 4).expect("it is short");
    answer[..4].copy_from_slice(&length.to_be_bytes());
    true
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
