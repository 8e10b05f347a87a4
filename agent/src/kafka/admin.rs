//! Administration: topics, their configuration, transactional ids, purging.

use std::{
    collections::BTreeMap,
    ffi::CString,
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use sidestream_core::record::{Offset, TopicId, TopicPartition};

use super::{
    Error,
    config::{Config, Properties},
    connections::{NO_COORDINATOR, unanswered},
    names::Names,
    native::{
        Client, Code, Effect, Failure, NewTopicSpec, OffsetAt, PartitionList, ProducerClient,
    },
    offsets,
};

/// How often to look whether a new topic is visible.
const VISIBLE_INTERVAL: Duration = Duration::from_millis(20);

/// Looks at topics and creates them. Each call may block for the configured request timeout.
pub struct Admin {
    client: Client,
    config: Config,
}

/// A topic of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// How many partitions it has.
    pub partitions: i32,
    /// Its id, which a topic deleted and made again doesn't share.
    pub id: TopicId,
}

/// Where a partition ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnd {
    /// Before the first record of a transaction that is still open, or the end if there is none:
    /// what is behind it can't be read yet.
    pub stable: Offset,
    /// Behind its last record or marker.
    pub last: Offset,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many replicas; `None` for the brokers' default.
    pub replication: Option<i32>,
    /// Its configuration.
    pub configs: Properties,
}

/// What became of a topic that was to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It is new.
    Created,
    /// It was there already, maybe with other partitions or another configuration.
    Existed,
}

impl Admin {
    /// Makes the client; it connects in the background.
    pub fn new(config: &Config) -> Result<Self, Error> {
        config.validate()?;
        Ok(Self { client: config.admin_client()?, config: config.clone() })
    }

    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    pub(super) const fn request_timeout(&self) -> Duration {
        self.config.request_timeout
    }

    pub(super) const fn is_exactly_once(&self) -> bool {
        self.config.exactly_once
    }

    pub(super) fn application(&self) -> &str {
        &self.config.application
    }

    fn failed(&self, doing: &str, failure: &Failure) -> Error {
        let servers = self.config.properties.get("bootstrap.servers");
        let servers = servers.map_or("the brokers", String::as_str);
        let silence = format!("nothing was heard of {servers}");
        unanswered(&self.client, doing, failure, &silence).into()
    }

    /// Describes topics by name; `None` for one that is not there.
    pub fn describe_topics(
        &self,
        names: &[&str],
    ) -> Result<BTreeMap<String, Option<TopicInfo>>, Error> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let described = self
            .client
            .describe_topics(names, self.config.request_timeout)
            .and_then(|described| described.into_iter().collect::<Result<Vec<_>, _>>())
            .map_err(|failure| self.failed("describing topics", &failure))?;
        Ok(names
            .iter()
            .zip(described)
            .map(|(&name, topic)| {
                let info =
                    topic.map(|topic| TopicInfo { partitions: topic.partitions, id: topic.id });
                (name.to_owned(), info)
            })
            .collect())
    }

    /// The names of all topics that may be seen; none if no broker answers.
    #[must_use]
    pub fn topic_names(&self) -> Vec<String> {
        self.client.topic_names(self.config.request_timeout)
    }

    /// Reads a topic's configuration, the brokers' defaults included.
    pub fn topic_configs(&self, name: &str) -> Result<Properties, Error> {
        self.client
            .topic_configs(name, self.config.request_timeout)
            .map_err(|failure| self.failed("reading a topic's configuration", &failure))
    }

    /// Where these partitions end; `None` for one whose leader does not answer now.
    pub fn end_offsets(
        &self,
        partitions: &[(&str, i32)],
    ) -> Result<Vec<Option<PartitionEnd>>, Error> {
        // The end that is read last can only be further on.
        let stable = self.ends(partitions, true)?;
        let last = self.ends(partitions, false)?;
        let end = |(stable, last): (Option<Offset>, Option<Offset>)| {
            let (stable, last) = stable.zip(last)?;
            Some(PartitionEnd { stable, last: last.max(stable) })
        };
        Ok(stable.into_iter().zip(last).map(end).collect())
    }

    fn ends(
        &self,
        partitions: &[(&str, i32)],
        committed_only: bool,
    ) -> Result<Vec<Option<Offset>>, Error> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let mut list = PartitionList::new();
        for &(topic, partition) in partitions {
            let topic = CString::new(topic)
                .map_err(|_| Error::Fatal(format!("{topic:?} is no name for a topic")))?;
            list.add(&topic, partition, -1);
        }
        let timeout = self.config.request_timeout;
        let ends =
            offsets::look_up(&self.client, list, (OffsetAt::Latest, committed_only), timeout)
                .map_err(|failure| self.failed("looking ends up", &failure))?;
        Ok(ends.into_iter().map(Result::ok).collect())
    }

    /// Creates topics, and returns once they are visible. What was there already is left as it
    /// is and told; any other failure is an error, after which some may have been created.
    pub fn create_topics(&self, topics: &[NewTopic]) -> Result<BTreeMap<String, Creation>, Error> {
        if topics.is_empty() {
            return Ok(BTreeMap::new());
        }
        let outcomes = self.request_topics(topics, Effect::Lasting)?;
        let mut creations = BTreeMap::new();
        for (name, outcome) in outcomes {
            let creation = creation(&name, outcome)?;
            creations.insert(name, creation);
        }
        self.wait_until_visible(topics)?;
        Ok(creations)
    }

    /// What keeps brokers from creating topics, for this user. Creates none.
    pub fn check_creation(&self, topics: &[NewTopic]) -> Result<Vec<String>, Error> {
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        let mut problems = Vec::new();
        for (name, outcome) in self.request_topics(topics, Effect::CheckOnly)? {
            match creation(&name, outcome) {
                Ok(_) => {}
                Err(Error::Fatal(why)) => problems.push(why),
                Err(error) => return Err(error),
            }
        }
        Ok(problems)
    }

    fn request_topics(
        &self,
        topics: &[NewTopic],
        effect: Effect,
    ) -> Result<BTreeMap<String, Result<(), Failure>>, Error> {
        let specs: Vec<_> = topics
            .iter()
            .map(|topic| NewTopicSpec {
                name: &topic.name,
                partitions: topic.partitions,
                replication: topic.replication.unwrap_or(-1),
                configs: &topic.configs,
            })
            .collect();
        self.client
            .create_topics(&specs, effect, self.config.request_timeout)
            .map_err(|failure| self.failed("creating topics", &failure))
    }

    fn wait_until_visible(&self, topics: &[NewTopic]) -> Result<(), Error> {
        let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
        let since = Instant::now();
        loop {
            let described = self.describe_topics(&names);
            if let Ok(described) = &described
                && described.values().all(Option::is_some)
            {
                return Ok(());
            }
            if since.elapsed() > self.config.request_timeout {
                described?;
                return Err(Error::Unavailable("new topics did not become visible".to_owned()));
            }
            thread::sleep(VISIBLE_INTERVAL);
        }
    }

    /// Ends whatever transactions these transactional ids have open, and fences their owners:
    /// for those of workers that there are no longer.
    pub fn settle(&self, transactional_ids: &[String]) -> Result<(), Error> {
        if !self.config.exactly_once {
            // Whoever uses no transactions needs no right to. What is left of a time when the
            // pipeline did ends by its timeout.
            return Ok(());
        }
        for id in transactional_ids {
            let producer = ProducerClient::new(self.config.producer_with_id(id)?);
            producer.init_transactions(self.config.request_timeout).map_err(|failure| {
                let doing = "settling old transactions";
                unanswered(producer.client(), doing, &failure, NO_COORDINATOR)
            })?;
        }
        Ok(())
    }
}

fn creation(name: &str, outcome: Result<(), Failure>) -> Result<Creation, Error> {
    match outcome {
        Ok(()) => Ok(Creation::Created),
        Err(failure) if failure.code == Code::RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS => {
            Ok(Creation::Existed)
        }
        Err(failure) => match failure.code {
            Code::RD_KAFKA_RESP_ERR__TIMED_OUT
            | Code::RD_KAFKA_RESP_ERR__TRANSPORT
            | Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT
            | Code::RD_KAFKA_RESP_ERR_NOT_CONTROLLER => {
                Err(Error::Unavailable(format!("creating topic {name}: {failure}")))
            }
            _ => Err(Error::Fatal(format!(
                "topic {name} can't be created: {failure}; create it by hand or let the agent's \
                 user create it"
            ))),
        },
    }
}

/// Deletes records that are not needed any more, on a thread of its own. What comes while it is
/// busy is dropped: the next purge says more.
pub(super) struct Purger(SyncSender<Vec<(TopicPartition, Offset)>>);

impl Purger {
    /// Starts the thread; it ends when the purger is dropped.
    pub(super) fn start(config: &Config, names: Names) -> Result<Self, Error> {
        let client = config.admin_client()?;
        let timeout = config.request_timeout;
        let (sender, receiver) = sync_channel::<Vec<(TopicPartition, Offset)>>(1);
        let purge = move || {
            for below in receiver {
                let mut list = PartitionList::new();
                for (partition, offset) in below {
                    list.add(names.c_name(partition.topic), partition.partition, offset);
                }
                if let Err(failure) = client.delete_records(&list, timeout) {
                    tracing::debug!(%failure, "purging was not done");
                }
            }
        };
        thread::Builder::new()
            .name("purge".to_owned())
            .spawn(purge)
            .map_err(|error| Error::Unavailable(format!("a thread can't be started: {error}")))?;
        Ok(Self(sender))
    }

    /// Asks for a purge, if none waits already.
    pub(super) fn purge(&self, below: &[(TopicPartition, Offset)]) {
        if let Err(TrySendError::Disconnected(_)) = self.0.try_send(below.to_vec()) {
            tracing::warn!("the purging thread has ended");
        }
    }
}
