//! Properties of Java's clients and of Kafka Streams, and what stands for them here.

/// What to write instead of a property of Java's, if it is one.
pub(crate) fn foreign(name: &str) -> Option<&'static str> {
    FOREIGN.iter().find(|(known, _)| *known == name).map(|(_, instead)| *instead)
}

const FOREIGN: &[(&str, &str)] = &[
    // TLS and SASL.
    ("ssl.truststore.location", "use `ssl.ca.location`, a file in PEM"),
    ("ssl.truststore.certificates", "use `ssl.ca.pem`"),
    ("ssl.truststore.password", "remove it: `ssl.ca.location`, a file in PEM, needs none"),
    ("ssl.truststore.type", "remove it: `ssl.ca.location` is a file in PEM"),
    ("ssl.keystore.type", "remove it: `ssl.keystore.location` is a file in PKCS#12"),
    ("ssl.keystore.key", "use `ssl.key.pem`"),
    ("ssl.keystore.certificate.chain", "use `ssl.certificate.pem`"),
    ("ssl.protocol", "remove it: the versions are negotiated"),
    ("ssl.enabled.protocols", "remove it: the versions are negotiated"),
    ("sasl.jaas.config", "use `sasl.username` and `sasl.password`"),
    (
        "sasl.login.callback.handler.class",
        "use `sasl.oauthbearer.method: oidc` and what goes with it",
    ),
    (
        "sasl.client.callback.handler.class",
        "use `sasl.oauthbearer.method: oidc` and what goes with it",
    ),
    ("sasl.kerberos.service.name", "remove it: this build has no Kerberos"),
    // Clients.
    ("key.serializer", "remove it: modules get and give bytes"),
    ("value.serializer", "remove it: modules get and give bytes"),
    ("key.deserializer", "remove it: modules get and give bytes"),
    ("value.deserializer", "remove it: modules get and give bytes"),
    ("max.request.size", "use `message.max.bytes` of the producer"),
    ("buffer.memory", "use `queue.buffering.max.kbytes` of the producer"),
    ("max.block.ms", "remove it: the agent waits for as long as it takes"),
    ("max.poll.records", "use `limits.batch_records_max`"),
    ("fetch.max.wait.ms", "use `fetch.wait.max.ms`"),
    ("send.buffer.bytes", "use `socket.send.buffer.bytes`"),
    ("receive.buffer.bytes", "use `socket.receive.buffer.bytes`"),
    ("default.api.timeout.ms", "use `socket.timeout.ms`"),
    ("interceptor.classes", "remove it: there is no Java here"),
    ("metric.reporters", "remove it, and see `http` for metrics"),
    // Kafka Streams.
    ("application.id", "use `application`"),
    ("processing.guarantee", "use `guarantee`"),
    ("commit.interval.ms", "use `commit_interval`"),
    ("num.stream.threads", "use `workers`"),
    ("state.dir", "use `state.directory`"),
    ("max.task.idle.ms", "use `max_task_idle`"),
    ("num.standby.replicas", "remove it: there are no standby replicas"),
    ("cache.max.bytes.buffering", "use `memory_max`"),
    ("statestore.cache.max.bytes", "use `memory_max`"),
];
