//! The log when something is away, late, or doubled; at-least-once; and administration.

#[path = "log_faults/answers.rs"]
mod answers;
#[path = "log_faults/doubts.rs"]
mod doubts;
#[path = "log_faults/identity.rs"]
mod identity;
#[path = "log_faults/inputs.rs"]
mod inputs;
#[path = "log_faults/metadata.rs"]
mod metadata;

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::Result;
use sidestream::kafka::{Admin, Config, Creation, KafkaPorts, NewTopic, Properties};
use sidestream_core::{
    ports::{Ports, SourceEvent, Transaction, TransactionError},
    record::{Offset, TopicPartition},
    topology::Topology,
};
use sidestream_sim::contract::log::{
    CHANGELOG, INPUT, OUTPUT,
    member::{Member, changelog, input},
    topology,
};
use sidestream_tests::{
    broker::{self, Cluster, Options},
    follow::Follower,
    proxy::{self, Api, Proxy},
    topics, wait,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// What the broker behind a proxy stores beside an offset at most, in bytes: enough for the task of a
/// transform without stores or punctuations.
const METADATA_BYTES_MAX: usize = 75;

/// The broker behind a proxy that tests share, each alone: what a proxy does it does to all.
struct Behind {
    proxy: &'static Proxy,
    _alone: MutexGuard<'static, ()>,
}

impl Deref for Behind {
    type Target = Proxy;

    fn deref(&self) -> &Proxy {
        self.proxy
    }
}

/// Waits until no other test has it.
fn behind_proxy() -> Behind {
    static ALONE: Mutex<()> = Mutex::new(());
    static SHARED: OnceLock<(Proxy, Cluster)> = OnceLock::new();
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (proxy, _) = SHARED.get_or_init(|| {
        let proxy = Proxy::start().expect("a port is free");
        let mut options = Options::behind(&proxy);
        options.properties = [
            ("group.min.session.timeout.ms", "1000".to_owned()),
            ("offset.metadata.max.bytes", METADATA_BYTES_MAX.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        let cluster = Cluster::start(&options);
        (proxy, cluster.expect("the tests need a broker; `./dev setup` fetches it"))
    });
    proxy.begin_again();
    Behind { proxy, _alone: alone }
}

/// The contract's topology with topics of its own, and a configuration of its own.
fn set_up(bootstrap: &str) -> Result<(Config, Topology)> {
    let mut topology = topology();
    for topic in &mut topology.topics {
        topic.name = topics::unique(&topic.name);
        // Records of these tests are from 1970.
        topics::create(bootstrap, &topic.name, topic.partitions, &[("retention.ms", "-1")])?;
    }
    let servers = ("bootstrap.servers".to_owned(), bootstrap.to_owned());
    let config = Config {
        application: topics::unique("application"),
        identity: "agent".to_owned(),
        properties: Properties::from([servers]),
        revoke_time_max: Duration::from_secs(2),
        ..Config::default()
    };
    Ok((config, topology))
}

fn owner(config: &Config, topology: &Topology) -> Result<Member> {
    Ok(Member::owner(KafkaPorts::connect(config, topology, 0)?.into()))
}

/// A transaction with one output and the offset of one input.
fn transaction(member: &Member, value: &str, offset: Offset) -> Transaction<'static> {
    let mut transaction = member.transaction(input(0), offset);
    let outputs = &mut transaction.outputs;
    outputs.topics.push(OUTPUT);
    outputs.partitions.push(0);
    outputs.timestamps.push(1_000);
    outputs.keys.push(Some(b"key"));
    outputs.values.push(Some(value.as_bytes()));
    transaction
}

fn seen(bootstrap: &str, topology: &Topology) -> Result<Vec<String>> {
    let mut follower = Follower::new(bootstrap, &topology.topic(OUTPUT).name)?;
    let records = follower.read_to_end(PATIENCE)?;
    Ok(records.iter().map(|record| record.value_text()).collect())
}

#[test]
fn a_late_end_leaves_the_outcome_unknown_and_hurts_no_later_transaction() -> Result<()> {
    let proxy = behind_proxy();
    let (config, topology) = set_up(&proxy.bootstrap())?;
    let mut member = owner(&config, &topology)?;
    member.commit(&transaction(&member, "first", 1)).unwrap();
    proxy.hold(Api::EndTxn, 1, Duration::from_secs(4));
    let result = member.commit(&transaction(&member, "late", 2));
    assert!(matches!(result, Err(TransactionError::Unknown(_))), "{result:?}");
    member.retry(|ports| ports.sink.recover());
    assert_eq!(member.committed(input(0)).map(|committed| committed.offset), Some(1));
    member.ports.sink.produce(&transaction(&member, "second", 2).outputs).unwrap();
    wait::until_true("late delivery", PATIENCE, || Ok(proxy.delivered_late() == 1))?;
    member.commit(&transaction(&member, "third", 2)).unwrap();
    assert_eq!(seen(&proxy.bootstrap(), &topology)?, ["first", "second", "third"]);
    Ok(())
}

#[test]
fn an_end_that_was_carried_out_and_yet_refused_is_not_taken_as_an_abort() -> Result<()> {
    /// UNKNOWN_PRODUCER_ID, which tells a client to abort.
    const ERROR: i16 = 59;
    let proxy = behind_proxy();
    let (config, topology) = set_up(&proxy.bootstrap())?;
    let mut member = owner(&config, &topology)?;
    member.commit(&transaction(&member, "first", 1)).unwrap();
    proxy.change(Api::EndTxn, 1, |_, answer| proxy::fail(answer, 2, ERROR));
    let result = member.commit(&transaction(&member, "second", 2));
    assert!(matches!(result, Err(TransactionError::Unknown(_))), "{result:?}");
    assert_eq!(proxy.changed(), 1);
    member.retry(|ports| ports.sink.recover());
    assert_eq!(member.committed(input(0)).map(|committed| committed.offset), Some(2));
    member.commit(&transaction(&member, "third", 3)).unwrap();
    assert_eq!(seen(&proxy.bootstrap(), &topology)?, ["first", "second", "third"]);
    Ok(())
}

#[test]
fn a_broker_that_is_away_is_waited_for_and_said_so() -> Result<()> {
    let mut cluster = Cluster::start(&Options::default())?;
    let (config, topology) = set_up(&cluster.bootstrap())?;
    let mut member = owner(&config, &topology)?;
    // What is committed has to be there to be read on from.
    let mut inputs = transaction(&member, "input", 0).outputs;
    inputs.topics = vec![input(0).topic];
    member.ports.sink.produce(&inputs).unwrap();
    member.commit(&transaction(&member, "first", 1)).unwrap();
    // A cluster of one broker forgets the markers of a commit that it had not written when it was
    // killed: see the end of ARCHITECTURE.md.
    wait::until_true("end of the transaction", PATIENCE, || {
        let mut inputs = Follower::new(&cluster.bootstrap(), &topology.topic(INPUT).name)?;
        let ended = inputs.read_to_end(PATIENCE)?.len() == 1;
        Ok(ended && seen(&cluster.bootstrap(), &topology)? == ["first"])
    })?;
    assert_eq!(member.committed(input(0)).map(|committed| committed.offset), Some(1));
    cluster.kill(0)?;
    member.wait_for("the word that brokers are away", |member| member.away.0);
    let result = member.commit(&transaction(&member, "lost", 2));
    assert!(
        matches!(result, Err(TransactionError::Unknown(_) | TransactionError::Aborted(_))),
        "{result:?}"
    );
    let error = KafkaPorts::connect(&config, &topology, 1).err().expect("no broker is there");
    assert!(matches!(error, sidestream::kafka::Error::Unavailable(_)), "{error}");
    cluster.restart(0)?;
    member.wait_for("the word that brokers are back", |member| member.away == (false, 1));
    if let Err(TransactionError::Unknown(_)) = result {
        wait::until_true("recovery", PATIENCE, || Ok(member.ports.sink.recover().is_ok()))?;
    }
    member.wait_for("both partitions", |member| member.owned.len() == 2);
    let committed = member.committed(input(0)).map(|committed| committed.offset);
    assert_eq!(committed, Some(1));
    member.commit(&transaction(&member, "second", 2)).unwrap();
    assert_eq!(seen(&cluster.bootstrap(), &topology)?, ["first", "second"]);
    Ok(())
}

#[test]
fn who_leaves_before_it_owns_anything_is_told_so() -> Result<()> {
    let (config, topology) = set_up(&broker::shared().bootstrap())?;
    let mut ports = Ports::from(KafkaPorts::connect(&config, &topology, 0)?);
    ports.source.leave()?;
    let mut events = Vec::new();
    ports.source.poll(Duration::ZERO, &mut events)?;
    assert_eq!(events, [SourceEvent::Revoked]);
    ports.source.unassign()?;
    Ok(())
}

#[test]
fn at_least_once_delivers_then_commits() -> Result<()> {
    let bootstrap = broker::shared().bootstrap();
    let (config, topology) = set_up(&bootstrap)?;
    let config = Config { exactly_once: false, ..config };
    let mut member = owner(&config, &topology)?;
    member.exactly_once = false;
    let changes = sidestream_core::record::Changes {
        keys: [Some(b"key".as_slice())].into_iter().collect(),
        values: [None].into_iter().collect(),
    };
    for offset in 1..4 {
        let mut transaction = transaction(&member, &offset.to_string(), offset);
        transaction.changes = vec![(changelog(1), &changes)];
        let receipt = member.commit(&transaction).unwrap();
        let end = receipt.changelog_ends[0];
        assert_eq!((end.0, end.1), (changelog(1), offset));
        assert_eq!(
            member.committed(input(0)).map(|c| (c.offset, c.metadata)),
            Some((offset, format!("note {offset}"),))
        );
    }
    let foreign = sidestream_core::ports::Membership {
        generation: member.membership.generation + 1,
        ..member.membership.clone()
    };
    let refused = Transaction { membership: foreign, ..transaction(&member, "4", 4) };
    let result = member.commit(&refused);
    assert!(matches!(result, Err(TransactionError::Aborted(_))), "{result:?}");
    assert_eq!(seen(&bootstrap, &topology)?, ["1", "2", "3"]);
    Ok(())
}

#[test]
fn topics_are_created_described_and_purged() -> Result<()> {
    let bootstrap = broker::shared().bootstrap();
    let (config, topology) = set_up(&bootstrap)?;
    let admin = Admin::new(&config)?;
    let name = topics::unique("created");
    let settings = [("cleanup.policy", "compact"), ("delete.retention.ms", "604800000")];
    let configs = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let topic = NewTopic { name: name.clone(), partitions: 3, replication: None, configs };
    assert_eq!(admin.describe_topics(&[&name])?, BTreeMap::from([(name.clone(), None)]));
    let created = admin.create_topics(std::slice::from_ref(&topic))?;
    assert_eq!(created, BTreeMap::from([(name.clone(), Creation::Created)]));
    let info = admin.describe_topics(&[&name])?[&name].expect("it is there");
    assert_eq!(info.partitions, 3);
    let existed = admin.create_topics(&[topic])?;
    assert_eq!(existed, BTreeMap::from([(name.clone(), Creation::Existed)]));
    let found = admin.topic_configs(&name)?;
    for (name, value) in settings {
        assert_eq!(found.get(name).map(String::as_str), Some(value));
    }
    assert!(found.contains_key("retention.ms"), "defaults are told, too: {found:?}");
    admin.settle(&[config.transactional_id(7)])?;
    let without = Config { exactly_once: false, ..config.clone() };
    Admin::new(&without)?.settle(&[without.transactional_id(7)])?;

    let mut member = owner(&config, &topology)?;
    let bounds = member.ports.changelogs.bounds(&[changelog(0)], Duration::MAX)?;
    let described = admin.describe_topics(&[&topology.topic(CHANGELOG).name])?;
    let ids: Vec<_> = described.values().flatten().map(|topic| topic.id).collect();
    assert_eq!(ids, [bounds[0].clone().unwrap().topic_id]);
    for value in ["a", "b", "c"] {
        member.commit(&transaction(&member, value, 1)).unwrap();
    }
    member.ports.sink.purge(&[(TopicPartition::new(OUTPUT, 0), 4)]);
    wait::until_true("purge", PATIENCE, || Ok(seen(&bootstrap, &topology)? == ["c"]))?;
    Ok(())
}
