//! Values that depend on one another: times, sizes, security, and topics that make loops.

use super::*;

/// The hello pipeline with more Kafka properties; the first of them is line 3.
fn with_kafka(properties: &str) -> String {
    HELLO.replace("kafka:\n", &format!("kafka:\n{properties}\n"))
}

#[test]
fn the_transaction_timeout_follows_the_commit_interval() {
    let timeout = |lines: &str| parse(&with(lines)).unwrap().kafka.transaction_timeout;
    assert_eq!(timeout(""), Duration::from_secs(10));
    assert_eq!(timeout("commit_interval: 30s"), Duration::from_secs(66));
    assert_eq!(timeout("limits: { revoke_time_max: 20s }"), Duration::from_millis(21_200));
    let given = with_kafka("  producer: { transaction.timeout.ms: 40000 }");
    let given = parse(&format!("commit_interval: 30s\n{given}")).unwrap();
    assert_eq!(given.kafka.transaction_timeout, Duration::from_secs(40));
}

#[test]
fn times_that_can_not_go_together_are_told_with_both_places() {
    for (lines, properties, expected) in [
        (
            "commit_interval: 30s",
            "  transaction.timeout.ms: 35000",
            "4:3: `kafka.transaction.timeout.ms` (35000 ms) must be above `commit_interval` (30000 ms, line 1) and `limits.revoke_time_max` (5000 ms) together, or brokers abort each transaction before its commit; raise it above 35000, lower the others, or remove it: without it, it follows them",
        ),
        ("guarantee: at_least_once", "  transaction.timeout.ms: 1000", ""),
        (
            "limits: { revoke_time_max: 7s }",
            "  producer: { socket.timeout.ms: 7000 }",
            "4:15: `kafka.producer.socket.timeout.ms` (7000 ms) must be above `limits.revoke_time_max` (7000 ms, line 1), which a commit may take; raise the one, or lower the other",
        ),
        (
            "",
            "  socket.timeout.ms: 60000",
            "4:3: `kafka.socket.timeout.ms` (60000 ms) can't be above `transaction.timeout.ms` (10000 ms) of the producers; lower it, or give it to `kafka.consumer` and `kafka.admin` alone",
        ),
        ("", "  consumer: { socket.timeout.ms: 60000 }", ""),
        (
            "",
            "  producer: { transaction.timeout.ms: 20000, delivery.timeout.ms: 30000 }",
            "4:46: `kafka.producer.delivery.timeout.ms` (30000 ms) can't be above `kafka.producer.transaction.timeout.ms` (20000 ms, line 4); remove it: without it, it follows that one",
        ),
        (
            "",
            "  consumer: { session.timeout.ms: 3000, heartbeat.interval.ms: 3000 }",
            "4:41: `kafka.consumer.heartbeat.interval.ms` (3000 ms) must be below `kafka.consumer.session.timeout.ms` (3000 ms, line 4); lower it to a third of that, or remove it: without it, it follows that one",
        ),
        (
            "",
            "  consumer: { session.timeout.ms: 400000 }",
            "4:15: `kafka.consumer.session.timeout.ms` (400000 ms) can't be above `max.poll.interval.ms` (300000 ms); lower it, or raise the other as well",
        ),
        (
            "",
            "  consumer: { max.poll.interval.ms: 8000 }",
            "4:15: `kafka.consumer.max.poll.interval.ms` (8000 ms) can't be below `session.timeout.ms` (10000 ms); raise the one, or lower the other",
        ),
        (
            "limits: { batch_time_max: 30s }",
            "  consumer: { max.poll.interval.ms: 30000 }",
            "4:15: `kafka.consumer.max.poll.interval.ms` (30000 ms) must be above `limits.batch_time_max` (30000 ms, line 1) and `limits.revoke_time_max` (5000 ms) together, or a slow batch costs the agent its partitions; raise it above 35000",
        ),
    ] {
        check(&format!("{lines}\n{}", with_kafka(properties)), expected);
    }
    let pipeline = parse(&with_kafka("  consumer: { session.timeout.ms: 3000 }")).unwrap();
    assert_eq!(pipeline.kafka.session_timeout, Duration::from_secs(3));
}

#[test]
fn records_and_messages_follow_each_other() {
    let sizes = |lines: &str, properties: &str| {
        let pipeline = parse(&format!("{lines}\n{}", with_kafka(properties))).unwrap();
        (pipeline.limits.record_bytes_max, pipeline.kafka.message_bytes_max)
    };
    assert_eq!(sizes("", ""), (1_000_000, 1_048_000), "brokers take 1,048,588");
    assert_eq!(sizes("limits: { record_bytes_max: 4MB }", ""), (4_000_000, 4_048_000));
    assert_eq!(sizes("", "  message.max.bytes: 100000"), (98_976, 100_000));
    assert_eq!(sizes("", "  message.max.bytes: 1000"), (500, 1_000));
    assert_eq!(sizes("", "  message.max.bytes: 4000000"), (1_000_000, 4_000_000));
    let given = |properties: &str| {
        format!("limits: {{ record_bytes_max: 1MB }}\n{}", with_kafka(properties))
    };
    check(&given("  message.max.bytes: 1001024"), "");
    check(
        &given("  producer: { message.max.bytes: 1000000 }"),
        "4:15: `kafka.producer.message.max.bytes` (1000000 bytes) has no room for a record of `limits.record_bytes_max` (1000000 bytes, line 1) and its framing; raise it to 1001024 or more, lower the other, or remove either: it follows the other",
    );
    check(
        &with("limits: { record_bytes_max: 1GB, output_bytes_max: 1GB }\nmemory_max: 2GB"),
        "1:29: `limits.record_bytes_max` is more than any producer takes; write at most 999952000B",
    );
    check(
        &with("limits: { record_bytes_max: 17MiB }"),
        "1:29: `limits.record_bytes_max` is more than `limits.output_bytes_max`; raise `limits.output_bytes_max`, which is for all records of a batch",
    );
}

#[test]
fn security_that_nothing_switches_on_is_noticed() {
    check(
        &with_kafka("  sasl.username: me\n  sasl.password: hush"),
        "3:3: `kafka.sasl.username` has no effect: without `security.protocol` the agent neither signs in nor encrypts; add `security.protocol` to `kafka`: `sasl_ssl` or `sasl_plaintext`",
    );
    check(
        &with_kafka("  ssl.ca.location: ca.pem"),
        "3:3: `kafka.ssl.ca.location` has no effect: without `security.protocol` the agent neither encrypts nor looks at certificates; add `security.protocol` to `kafka`: `ssl` or `sasl_ssl`",
    );
    check(
        &with_kafka("  producer: { sasl.username: me }"),
        "3:15: `kafka.producer.sasl.username` has no effect: without `security.protocol` the agent neither signs in nor encrypts; add `security.protocol` to `kafka.producer`: `sasl_ssl` or `sasl_plaintext`",
    );
    check(&with_kafka("  security.protocol: SASL_SSL\n  sasl.mechanism: PLAIN"), "");
    check(
        &with_kafka("  security.protocol: SASL_SSL\n  sasl.username: me"),
        "3:3: `kafka.security.protocol` has the clients sign in, and nothing says how; add `sasl.mechanism`, such as `SCRAM-SHA-512`, `PLAIN` or `OAUTHBEARER`",
    );
    check(&with_kafka("  security.protocol: plaintext\n  sasl.username: me"), "");
    check(&with_kafka("  sasl.username: ''\n  ssl.ca.location: ${NONE:-}"), "");
    let each = ["consumer", "producer", "admin"]
        .map(|client| format!("  {client}: {{ security.protocol: ssl }}\n"))
        .concat();
    check(&with_kafka(&format!("{each}  ssl.ca.location: ca.pem")), "");
}

#[test]
fn values_of_properties_are_checked_and_never_told() {
    check(
        &with_kafka("  linger.ms: ${PASSWORD}"),
        "3:14: `kafka.linger.ms` can't be `${PASSWORD}`; write a number between 0 and 900000",
    );
    for (property, instead) in [
        ("ssl.truststore.location: x.jks", "use `ssl.ca.location`, a file in PEM"),
        ("sasl.jaas.config: x", "use `sasl.username` and `sasl.password`"),
        ("max.poll.records: 5", "use `limits.batch_records_max`"),
    ] {
        let name = property.split_once(':').unwrap().0;
        check(
            &with_kafka(&format!("  {property}")),
            &format!(
                "3:3: `kafka.{name}` is no property of librdkafka, but of Java's clients; {instead}"
            ),
        );
    }
}

#[test]
fn a_transform_does_not_read_what_it_writes_unless_it_may() {
    const REMEDY: &str = "write to another topic, or add `allow_loop: true` to the output if every record leaves the loop some time";
    check_transforms(
        "  - {name: a, module: m, inputs: [x], outputs: {o: x}}\n",
        &format!("4:49: the transform `a` reads its own output, the topic `x`; {REMEDY}"),
    );
    check_transforms(
        "  - {name: a, module: m, inputs: [x, repartition: r], outputs: {o: {repartition: r}}}\n",
        &format!("4:65: the transform `a` reads its own output, the repartition `r`; {REMEDY}"),
    );
    let circle = |last: &str| {
        format!(
            "  - {{name: a, module: m, inputs: [x], outputs: {{o: }}}}\n\
             \x20 - {{name: b, module: m, inputs: [{{transform: a, output: o}}], outputs: {{o: y}}}}\n\
             \x20 - {{name: c, module: m, inputs: [y], outputs: {{p: z, o: {last}}}}}\n"
        )
    };
    check_transforms(
        &circle("x"),
        &format!(
            "5:73: what `b` writes to the topic `y` comes back to it, by way of `c`, `a`; {REMEDY}"
        ),
    );
    for allowed in ["{topic: x, allow_loop: true}", "w"] {
        check_transforms(&circle(allowed), "");
    }
    check_transforms(
        "  - {name: a, module: m, inputs: [x], outputs: {o: {allow_loop: true}}}\n",
        "4:65: `allow_loop` is only for an output with `topic` or `repartition`; remove `allow_loop`",
    );
}

#[test]
fn all_parts_of_the_memory_are_told_at_once() {
    check(
        &with("memory_max: 1MiB"),
        "1:13: `memory_max` is less than a part of it: `limits.guest_memory_max`, `limits.uncommitted_bytes_max`, `limits.buffered_bytes_max`; raise it to 64MiB or more, or lower these",
    );
}
