//! What keeps a cluster from serving a pipeline, as far as it can be seen from outside: brokers that
//! are away, replicas that are missing, internal topics that can't be made.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    Admin, Error,
    error::call_failed,
    native::{Client, Partition},
};

/// How long one of the requests may take.
const TIME_MAX: Duration = Duration::from_secs(2);
/// How long to look into topics, one after another.
const TOPICS_TIME_MAX: Duration = Duration::from_secs(4);
/// How many troubles are told: of a broker that is away, each topic tells the same.
const TROUBLES_MAX: usize = 8;

/// The brokers' own topic of transactions, and of the offsets of groups.
const TRANSACTIONS: Internal = Internal {
    topic: "__transaction_state",
    holds: "transactions",
    replication: "transaction.state.log.replication.factor",
    in_sync_min: "transaction.state.log.min.isr",
};
const OFFSETS: Internal = Internal {
    topic: "__consumer_offsets",
    holds: "the offsets and members of groups",
    replication: "offsets.topic.replication.factor",
    in_sync_min: MIN_IN_SYNC,
};

/// How many replicas in sync a topic takes writes with.
const MIN_IN_SYNC: &str = "min.insync.replicas";

/// A topic that brokers make for themselves at first need.
#[derive(Clone, Copy)]
struct Internal {
    topic: &'static str,
    /// What it is for.
    holds: &'static str,
    /// The broker's setting of how many replicas it is made with.
    replication: &'static str,
    /// The broker's setting of how many of them have to be in sync for a write.
    in_sync_min: &'static str,
}

/// Something that keeps a cluster from serving a pipeline.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {remedy}")]
pub struct Trouble {
    /// What is wrong, and where.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Admin {
    /// What keeps the cluster from serving a pipeline with these topics; nothing if all is well, or
    /// it can't be told for want of rights. The first few, within some seconds.
    pub fn troubles(&self, topics: &[&str]) -> Result<Vec<Trouble>, Error> {
        let client = self.client();
        let failed = |failure| call_failed("looking at the cluster", &failure);
        let brokers = client.brokers(TIME_MAX).map_err(failed)?;
        let internal =
            if self.is_exactly_once() { &[TRANSACTIONS, OFFSETS][..] } else { &[OFFSETS] };
        let names = topics.iter().copied().chain(internal.iter().map(|of| of.topic));
        let names: Vec<&str> = names.collect();
        let found = client.partitions_of(&names, TIME_MAX).map_err(failed)?;
        let (mut troubles, since) = (Vec::new(), Instant::now());
        for (topic, partitions) in &found {
            if troubles.len() >= TROUBLES_MAX || since.elapsed() >= TOPICS_TIME_MAX {
                break;
            }
            let of = internal.iter().find(|of| of.topic == topic);
            let setting = of.map_or(MIN_IN_SYNC, |of| of.in_sync_min);
            troubles.extend(without_leader(topic, partitions));
            troubles.extend(self.out_of_sync(topic, partitions, setting));
        }
        let mut settings = None;
        for of in internal.iter().filter(|of| !found.contains_key(of.topic)) {
            let settings = settings.get_or_insert_with(|| settings_of_one(client, &brokers));
            troubles.extend(of.cannot_be_made(settings, brokers.len()));
        }
        troubles.truncate(TROUBLES_MAX);
        Ok(troubles)
    }

    /// Partitions of a topic that take no writes, since too few of their replicas are in sync.
    fn out_of_sync(&self, topic: &str, partitions: &[Partition], setting: &str) -> Option<Trouble> {
        let behind = |part: &&Partition| part.is_led && part.in_sync.len() < part.replicas.len();
        partitions.iter().find(behind)?;
        let configs = self.client().topic_configs(topic, TIME_MAX).ok()?;
        let wanted = configs.get(MIN_IN_SYNC)?.parse().ok()?;
        too_few_in_sync(topic, partitions, (wanted, setting))
    }
}

/// The settings of the first broker that tells them.
fn settings_of_one(client: &Client, brokers: &[i32]) -> BTreeMap<String, String> {
    let told = |&broker: &i32| client.broker_configs(broker, TIME_MAX).ok();
    brokers.first().and_then(told).unwrap_or_default()
}

fn without_leader(topic: &str, partitions: &[Partition]) -> Option<Trouble> {
    let mut gone = partitions.iter().filter(|part| !part.is_led);
    let first = gone.next()?;
    let more = others(gone.count());
    let replicas: Vec<String> = first.replicas.iter().map(ToString::to_string).collect();
    Some(Trouble {
        what: format!("no broker leads partition {}{more} of `{topic}`", first.number),
        remedy: format!("start the brokers that have it ({})", replicas.join(", ")),
    })
}

fn too_few_in_sync(
    topic: &str,
    partitions: &[Partition],
    (wanted, setting): (usize, &str),
) -> Option<Trouble> {
    // Brokers ask for no more than there are replicas.
    let lacks =
        |part: &&Partition| part.is_led && part.in_sync.len() < wanted.min(part.replicas.len());
    let mut lacking = partitions.iter().filter(lacks);
    let first = lacking.next()?;
    let (in_sync, replicas) = (first.in_sync.len(), first.replicas.len());
    let away = first.replicas.iter().filter(|broker| !first.in_sync.contains(broker));
    let away: Vec<String> = away.map(ToString::to_string).collect();
    Some(Trouble {
        what: format!(
            "`{topic}` takes no writes: partition {}{} has {in_sync} of {replicas} replicas in sync, \
             and {MIN_IN_SYNC} is {wanted}",
            first.number,
            others(lacking.count()),
        ),
        remedy: format!(
            "start the brokers that are missing ({}), or lower {setting}",
            away.join(", ")
        ),
    })
}

fn others(count: usize) -> String {
    match count {
        0 => String::new(),
        count => format!(" (and {count} more)"),
    }
}

impl Internal {
    /// Why brokers can't make the topic, if that is so.
    fn cannot_be_made(
        &self,
        settings: &BTreeMap<String, String>,
        brokers: usize,
    ) -> Option<Trouble> {
        let Self { topic, holds, replication, .. } = self;
        let wanted: usize = settings.get(*replication)?.parse().ok()?;
        let are = if brokers == 1 { "is 1 broker" } else { "are fewer brokers" };
        (wanted > brokers).then(|| Trouble {
            what: format!(
                "`{topic}`, where brokers keep {holds}, is not there and can't be made: {replication} \
                 is {wanted}, and there {are}"
            ),
            remedy: format!("set it to {brokers} in the brokers' configuration, or start more brokers"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(number: i32, is_led: bool, in_sync: &[i32]) -> Partition {
        Partition { number, is_led, replicas: vec![1, 2, 3], in_sync: in_sync.to_vec() }
    }

    #[test]
    fn partitions_without_leader_or_replicas_are_told_with_a_remedy() {
        let all = [partition(0, true, &[1, 2]), partition(1, true, &[1, 2, 3])];
        assert_eq!(without_leader("out", &all), None);
        assert_eq!(too_few_in_sync("out", &all, (2, MIN_IN_SYNC)), None);
        let some = [all[1].clone(), partition(1, false, &[]), partition(2, false, &[])];
        let told = without_leader("out", &some).unwrap().to_string();
        assert!(told.contains("partition 1 (and 1 more) of `out`") && told.contains("1, 2, 3"));
        let told = too_few_in_sync("out", &all, (3, MIN_IN_SYNC)).unwrap().to_string();
        for part in ["`out`", "partition 0 has 2 of 3", "min.insync.replicas is 3", "(3)"] {
            assert!(told.contains(part), "{part} in {told}");
        }
        let single = [Partition { replicas: vec![1], ..partition(0, true, &[1]) }];
        assert_eq!(too_few_in_sync("out", &single, (2, MIN_IN_SYNC)), None, "brokers take it");
    }

    #[test]
    fn an_internal_topic_that_needs_more_brokers_is_told() {
        let settings = |wanted: &str| {
            BTreeMap::from([(TRANSACTIONS.replication.to_owned(), wanted.to_owned())])
        };
        assert_eq!(TRANSACTIONS.cannot_be_made(&settings("3"), 3), None);
        assert_eq!(TRANSACTIONS.cannot_be_made(&BTreeMap::new(), 1), None, "it can't be told");
        let told = TRANSACTIONS.cannot_be_made(&settings("3"), 1).unwrap().to_string();
        for part in ["`__transaction_state`", "transaction.state.log.replication.factor is 3"] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}
