//! What librdkafka's clients are configured with: the design's choices, then the user's own
//! properties, which may change all but what exactly-once stands on.

use std::{collections::BTreeMap, fmt, time::Duration};

use super::{
    Error,
    native::{Client, Conf, Kind},
};

/// librdkafka's properties by name.
pub type Properties = BTreeMap<String, String>;

/// How to reach Kafka, and as whom. `Debug` shows the names of properties, never their values.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// The pipeline's application id: the consumer group, and the prefix of transactional ids.
    pub application: String,
    /// Who this agent is; kept across restarts. Its worker *n* is member `<identity>-<n>`.
    pub identity: String,
    /// How many workers share the memory; at least 1.
    pub workers: usize,
    /// Outputs, changelogs and offsets in one transaction (true), or idempotent producers (false).
    pub exactly_once: bool,
    /// librdkafka properties of every client; `bootstrap.servers` is needed.
    pub properties: Properties,
    /// Properties of consumers, over the common ones.
    pub consumer: Properties,
    /// Properties of producers, over the common ones.
    pub producer: Properties,
    /// Properties of administration, over the common ones.
    pub admin: Properties,
    /// After this long without a heartbeat a member's partitions go to others.
    pub session_timeout: Duration,
    /// After this long the broker aborts a transaction whose producer died.
    pub transaction_timeout: Duration,
    /// A commit that takes longer has an unknown outcome. Shorter than `socket.timeout.ms`, so
    /// that librdkafka never repeats the end of a transaction that a broker may still carry out.
    pub revoke_time_max: Duration,
    /// How long any other call may block.
    pub request_timeout: Duration,
    /// For how long after a lost connection, or after it has joined anew, a member that is fenced may
    /// be so by its own requests of before: as long as brokers may be away.
    pub rejoin_time_max: Duration,
    /// What a producer takes as one message, its framing included.
    pub message_bytes_max: u64,
    /// Bytes that the queues and buffers of all workers' clients hold together at most.
    pub queue_bytes_max: usize,
    /// Read the headers of records; costs a little for each record that has some.
    pub read_headers: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            application: String::new(),
            identity: String::new(),
            workers: 1,
            exactly_once: true,
            properties: Properties::new(),
            consumer: Properties::new(),
            producer: Properties::new(),
            admin: Properties::new(),
            session_timeout: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(10),
            revoke_time_max: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            rejoin_time_max: Duration::from_secs(60),
            message_bytes_max: 1_048_000,
            queue_bytes_max: 64 << 20,
            read_headers: true,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |properties: &Properties| properties.keys().cloned().collect::<Vec<_>>();
        f.debug_struct("Config")
            .field("application", &self.application)
            .field("identity", &self.identity)
            .field("workers", &self.workers)
            .field("exactly_once", &self.exactly_once)
            .field("properties", &names(&self.properties))
            .field("consumer", &names(&self.consumer))
            .field("producer", &names(&self.producer))
            .field("admin", &names(&self.admin))
            .finish_non_exhaustive()
    }
}

/// Properties that the user may not set otherwise, with the only value allowed ("" for none).
const FIXED: &[(&str, &str, &str)] = &[
    ("group.id", "", "the pipeline's application id is the consumer group"),
    ("group.instance.id", "", "it is made from the agent's identity"),
    ("transactional.id", "", "it is made from the application id and the agent's identity"),
    ("group.protocol", "classic", "the new protocol is not for static members that may be killed"),
    ("partition.assignment.strategy", "range", "it keeps co-partitioned inputs together"),
    ("enable.auto.commit", "false", "offsets are committed with the results"),
    ("auto.commit.enable", "false", "offsets are committed with the results"),
    ("enable.auto.offset.store", "false", "offsets are committed with the results"),
    ("isolation.level", "read_committed", "aborted records must not be processed"),
    ("enable.idempotence", "true", "records would be doubled or reordered"),
    ("enable.partition.eof", "", "the agent sets it where it needs it"),
    ("acks", "all", "committed records could be lost"),
    ("request.required.acks", "all", "committed records could be lost"),
    ("delivery.report.only.error", "false", "the agent needs the offsets of what it wrote"),
    ("allow.auto.create.topics", "false", "a mistyped topic would be created"),
];

/// The share of a worker's memory that each of its clients gets, in percent.
const CONSUMER_PERCENT: usize = 45;
const PRODUCER_PERCENT: usize = 35;
const READER_PERCENT: usize = 20;
/// Below this librdkafka can't move one large batch.
const QUEUE_KILOBYTES_MIN: u64 = 1_024;

impl Config {
    /// Refuses what can't work, with the property and a remedy.
    pub fn validate(&self) -> Result<(), Error> {
        let sections = [&self.properties, &self.consumer, &self.producer, &self.admin];
        for (name, value) in sections.into_iter().flatten() {
            check_fixed(name, value)?;
        }
        for (section, kind) in sections.into_iter().zip(KINDS) {
            let bootstrap = [section, &self.properties].map(|p| p.get("bootstrap.servers"));
            if bootstrap.iter().flatten().all(|servers| servers.is_empty()) {
                return Err(Error::property(
                    "bootstrap.servers",
                    format!("the {kind} needs it: set it to host:port of a broker"),
                ));
            }
        }
        let given = |name: &str| self.producer.get(name).or_else(|| self.properties.get(name));
        let millis = |name| given(name).and_then(|value| value.parse().ok());
        let socket = millis("socket.timeout.ms").map(Duration::from_millis);
        let transaction = millis("transaction.timeout.ms").map(Duration::from_millis);
        let transaction = transaction.unwrap_or(self.transaction_timeout);
        if socket.unwrap_or(transaction) <= self.revoke_time_max {
            return Err(Error::property(
                "socket.timeout.ms",
                format!(
                    "it (or else the transaction timeout) must be above the {} ms that a commit may \
                     take (`limits.revoke_time_max`)",
                    self.revoke_time_max.as_millis()
                ),
            ));
        }
        Ok(())
    }

    /// After how long brokers abort a transaction of a worker: what the user says goes first.
    #[must_use]
    pub fn transaction_time_max(&self) -> Duration {
        let name = "transaction.timeout.ms";
        let own = self.producer.get(name).or_else(|| self.properties.get(name));
        let own = own.and_then(|value| value.parse().ok()).map(Duration::from_millis);
        own.unwrap_or(self.transaction_timeout)
    }

    /// The `group.instance.id` of a worker.
    pub(super) fn instance(&self, worker: usize) -> String {
        format!("{}-{worker}", self.identity)
    }

    /// The transactional id of a worker of this agent.
    #[must_use]
    pub fn transactional_id(&self, worker: usize) -> String {
        format!("{}-{}-{worker}", self.application, self.identity)
    }

    /// The group member of a worker.
    pub(super) fn member_client(&self, worker: usize) -> Result<Client, Error> {
        let mut settings = self.consumer_settings(CONSUMER_PERCENT);
        settings.extend(owned([
            ("group.instance.id", self.instance(worker).as_str()),
            ("partition.assignment.strategy", "range"),
            ("group.protocol", "classic"),
            ("session.timeout.ms", &millis(self.session_timeout)),
            ("heartbeat.interval.ms", &millis(self.session_timeout / 5)),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            // Behind a marker the end of a partition is told only when a fetch has waited.
            ("fetch.wait.max.ms", "100"),
        ]));
        client(Kind::Consumer, settings, [&self.properties, &self.consumer])
    }

    /// The reader of changelogs of a worker. It never joins the group, whose id it carries only
    /// because librdkafka assigns nothing to a consumer without one.
    pub(super) fn reader_client(&self) -> Result<Client, Error> {
        let mut own = self.consumer.clone();
        own.remove("auto.offset.reset");
        let mut settings = self.consumer_settings(READER_PERCENT);
        settings.extend(owned([
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            // A restore ends with the end of a partition, which mostly lies behind a marker.
            ("fetch.wait.max.ms", "10"),
        ]));
        client(Kind::Reader, settings, [&self.properties, &own])
    }

    fn consumer_settings(&self, percent: usize) -> Properties {
        owned([
            ("group.id", self.application.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("allow.auto.create.topics", "false"),
            ("check.crcs", "true"),
            ("fetch.queue.backoff.ms", "1"),
            ("queued.min.messages", "5000"),
            ("max.partition.fetch.bytes", "262144"),
            ("queued.max.messages.kbytes", &self.kilobytes(percent).to_string()),
        ])
    }

    /// The producer of a worker.
    pub(super) fn producer_client(&self, worker: usize) -> Result<Client, Error> {
        self.producer_with_id(&self.transactional_id(worker))
    }

    /// A producer with this transactional id, if transactions are used.
    pub(super) fn producer_with_id(&self, transactional_id: &str) -> Result<Client, Error> {
        // More than librdkafka's own share: a message that no queue has room for waits for ever.
        let room = self.message_bytes_max.div_ceil(1_024) + 1;
        let queue = self.kilobytes(PRODUCER_PERCENT).max(room);
        let mut settings = owned([
            ("enable.idempotence", "true"),
            ("message.max.bytes", &self.message_bytes_max.to_string()),
            ("acks", "all"),
            ("partitioner", "murmur2_random"),
            ("linger.ms", "50"),
            ("batch.size", "1000000"),
            ("queue.buffering.max.kbytes", &queue.to_string()),
            // A topic that is gone would be made anew by the next question who leads it.
            ("allow.auto.create.topics", "false"),
        ]);
        if self.exactly_once {
            settings.extend(owned([
                ("transactional.id", transactional_id),
                ("transaction.timeout.ms", &millis(self.transaction_timeout)),
                ("socket.timeout.ms", &millis(self.socket_timeout())),
            ]));
        }
        client(Kind::Producer, settings, [&self.properties, &self.producer])
    }

    /// A client for administration.
    pub(super) fn admin_client(&self) -> Result<Client, Error> {
        let settings = owned([("allow.auto.create.topics", "false")]);
        client(Kind::Admin, settings, [&self.properties, &self.admin])
    }

    fn kilobytes(&self, percent: usize) -> u64 {
        let bytes = self.queue_bytes_max / self.workers.max(1) * percent / 100;
        (bytes as u64 / 1_024).max(QUEUE_KILOBYTES_MIN)
    }

    /// A producer's `socket.timeout.ms`: room for a commit that is slow, and a little less than a
    /// transaction has, so that a request can be repeated before it is aborted. A transaction may
    /// have much more time, where commits are rare; a dead connection is noticed as early.
    fn socket_timeout(&self) -> Duration {
        let most = self.transaction_timeout.saturating_sub(Duration::from_millis(100));
        most.min((self.revoke_time_max * 2).max(Duration::from_secs(10)))
    }
}

const KINDS: [&str; 4] = ["common section", "consumer", "producer", "admin client"];

fn check_fixed(name: &str, value: &str) -> Result<(), Error> {
    let Some((_, allowed, why)) = FIXED.iter().find(|(fixed, ..)| *fixed == name) else {
        return Ok(());
    };
    let same = value.eq_ignore_ascii_case(allowed) || (*allowed == "all" && value == "-1");
    match (same && !allowed.is_empty(), allowed.is_empty()) {
        (true, _) => Ok(()),
        (false, true) => Err(Error::property(name, format!("{why}: remove it"))),
        (false, false) => {
            Err(Error::property(name, format!("{why}: remove it, or set it to {allowed}")))
        }
    }
}

/// Later properties win over earlier ones, and the user's over all.
fn client(kind: Kind, settings: Properties, user: [&Properties; 2]) -> Result<Client, Error> {
    let mut all = settings;
    for properties in user {
        all.extend(properties.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    let mut conf = Conf::new();
    for (name, value) in &all {
        conf.set(name, value).map_err(|why| Error::property(name, why))?;
    }
    conf.into_client(kind).map_err(|why| Error::property("of a client", without_values(why, user)))
}

/// What librdkafka says, without values of the user's, which may be secret.
fn without_values(mut why: String, user: [&Properties; 2]) -> String {
    const SECRET_LENGTH_MIN: usize = 4;
    let mut values: Vec<_> = user
        .into_iter()
        .flatten()
        .filter(|(_, value)| value.len() >= SECRET_LENGTH_MIN && why.contains(value.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    values.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    for (name, value) in values {
        why = why.replace(&value, &format!("(the value of `{name}`)"));
    }
    why
}

fn owned<const N: usize>(settings: [(&str, &str); N]) -> Properties {
    settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn millis(duration: Duration) -> String {
    duration.as_millis().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let properties = owned([("bootstrap.servers", "127.0.0.1:1")]);
        let (application, identity) = ("app".to_owned(), "me".to_owned());
        Config { application, identity, properties, ..Config::default() }
    }

    fn check(change: impl FnOnce(&mut Config), expected: &str) {
        let mut config = config();
        change(&mut config);
        let found =
            config.validate().map_or_else(|error| error.to_string(), |()| "fine".to_owned());
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }

    fn set(properties: &mut Properties, name: &str, value: &str) {
        properties.insert(name.to_owned(), value.to_owned());
    }

    #[test]
    fn what_would_break_exactly_once_is_refused_by_name() {
        check(|_| {}, "fine");
        check(|c| set(&mut c.consumer, "enable.auto.commit", "true"), "enable.auto.commit");
        check(|c| set(&mut c.consumer, "isolation.level", "read_uncommitted"), "isolation.level");
        check(|c| set(&mut c.producer, "transactional.id", "x"), "remove it");
        check(|c| set(&mut c.properties, "group.protocol", "consumer"), "classic");
        check(
            |c| set(&mut c.consumer, "partition.assignment.strategy", "cooperative-sticky"),
            "partition.assignment.strategy",
        );
        check(|c| set(&mut c.producer, "acks", "-1"), "fine");
        check(|c| set(&mut c.producer, "acks", "1"), "acks");
        check(|c| set(&mut c.producer, "socket.timeout.ms", "5000"), "socket.timeout.ms");
        check(|c| c.properties.clear(), "bootstrap.servers");
    }

    #[test]
    fn every_client_takes_its_settings() {
        let config = config();
        config.member_client(0).unwrap();
        config.reader_client().unwrap();
        config.producer_client(0).unwrap();
        config.admin_client().unwrap();
        Config { exactly_once: false, ..config }.producer_client(1).unwrap();
    }

    #[test]
    fn an_unknown_property_is_named() {
        let mut config = config();
        set(&mut config.consumer, "fetch.mni.bytes", "1");
        let error = config.member_client(0).err().unwrap().to_string();
        assert!(error.contains("fetch.mni.bytes"), "{error}");
    }

    #[test]
    fn a_secret_in_the_wrong_place_is_not_shown() {
        for name in ["security.protocol", "sasl.mechanism", "ssl.ca.location", "linger.ms"] {
            let mut config = config();
            let sasl = [("security.protocol", "sasl_ssl"), ("sasl.mechanism", "PLAIN")];
            let user = [("sasl.username", "me"), ("sasl.password", "secret")];
            config.properties.extend(owned(sasl).into_iter().chain(owned(user)));
            set(&mut config.properties, name, "hunter2hunter2");
            let error = config.producer_client(0).err().unwrap().to_string();
            assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_queue_has_room_for_the_largest_message() {
        let message_bytes_max = 64_000_000;
        let mut config = Config { message_bytes_max, queue_bytes_max: 1 << 20, ..config() };
        config.producer_client(0).unwrap();
        config.transaction_timeout = Duration::from_secs(66);
        assert_eq!(config.socket_timeout(), Duration::from_secs(10));
        config.transaction_timeout = Duration::from_secs(6);
        assert_eq!(config.socket_timeout(), Duration::from_millis(5_900));
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut config = config();
        set(&mut config.properties, "sasl.password", "hush");
        let shown = format!("{config:?}");
        assert!(shown.contains("sasl.password") && !shown.contains("hush"), "{shown}");
    }
}
