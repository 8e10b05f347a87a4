//! Keys and scalars: their types, references in them, and amounts.

use super::*;

#[test]
fn keys_and_types_are_checked() {
    check(
        &HELLO.replace("transforms", "transfroms"),
        "4:1: unknown key `transfroms`; did you mean `transforms`?",
    );
    check(
        &HELLO.replace("    module", "    modul"),
        "6:5: unknown key `modul`; did you mean `module`?",
    );
    check(
        &with("limits:\n  batch_time: 1s"),
        "2:3: unknown key `batch_time`; did you mean `batch_time_max`?",
    );
    check(&with("log: { levels: info }"), "1:8: unknown key `levels`; did you mean `level`?");
    check(
        &with("application: other"),
        "2:1: the key `application` is already there; remove one of them",
    );
    check(
        "application: hello\ntransforms: []\n",
        "2:1: the key `kafka` is missing; add `kafka: { bootstrap.servers: localhost:9092 }`",
    );
    check(
        &HELLO.replace("[names]", "names"),
        "7:13: `inputs` is the single value `names`; write a list: `- element` lines, or `[element]`; here `inputs: [names]`",
    );
    check(&HELLO.replace("names]", "[a]]"), "7:14: this is a list; write a name or a mapping");
    check(
        &with("workers: 0"),
        "1:10: `workers` can't be `0`; write a whole number between 1 and 2147483647",
    );
    check(
        &with("commit_interval: 100"),
        "1:18: `commit_interval` can't be `100`; write a number and a unit, such as `100ms`, `1s`, `5m` or `1h`",
    );
    check(
        &with("memory_max: 100"),
        "1:13: `memory_max` can't be `100`; write a whole number and a unit, such as `512MiB`, `64KiB` or `1GB`",
    );
    check(
        &with("guarantee: exactly_one"),
        "1:12: `guarantee` can't be `exactly_one`; did you mean `exactly_once`?",
    );
    check(
        &with("log: {level: loud}"),
        "1:14: `log.level` can't be `loud`; known here are `error`, `warn`, `info`, `debug`, `trace`",
    );
    check(
        &with("shutdown: {leave_on_stop: yes}"),
        "1:27: `shutdown.leave_on_stop` can't be `yes`; known here are `true`, `false`",
    );
    check(
        &HELLO.replace("hello\nkafka", "hello world\nkafka"),
        "1:14: `application` can't be `hello world`; use letters, digits, `.`, `_` and `-`",
    );
    check(
        &HELLO.replace("hello.wasm", ""),
        "6:11: there is no value; write one, or remove the key",
    );
}

#[test]
fn broken_yaml_is_told_with_its_place() {
    let found = parse("application: [hello\n").unwrap_err();
    assert!(found.starts_with("pipeline.yaml:"), "{found}");
    let bomb =
        "a: &a [1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a]\n".to_owned() + &"c: [*b,*b]\n".repeat(2_000);
    assert!(parse(&bomb).is_err());
    assert!(parse(&"[".repeat(100_000)).is_err());
    assert!(parse(&" ".repeat(2 << 20)).unwrap_err().contains("is larger"));
}

#[test]
fn several_problems_are_told_at_once() {
    check(
        &with("workers: many\nmemory_max: lots"),
        "1:10: `workers` can't be `many`; write a whole number between 1 and 2147483647\n\
         2:13: `memory_max` can't be `lots`; write a whole number and a unit, such as `512MiB`, `64KiB` or `1GB`",
    );
}

#[test]
fn references_are_checked_and_secrets_are_not_told() {
    check(
        &with("identity: ${HOST}"),
        "1:11: `identity`: the environment variable `HOST` is not set; set it, or give a default: `${HOST:-default}`",
    );
    check(
        &with("identity: ${file:/absent}"),
        "1:11: `identity`: the file `/absent` can't be used (No such file or directory (os error 2)); mount it there, or name another file",
    );
    check(
        &with("workers: ${PASSWORD}"),
        "1:10: `workers` can't be `${PASSWORD}`; write a whole number between 1 and 2147483647",
    );
    check(
        &with("log: {level: '${PASSWORD}'}"),
        "1:14: `log.level` can't be `${PASSWORD}`; known here are `error`, `warn`, `info`, `debug`, `trace`",
    );
    check(
        &format!("{HELLO}    config:\n      a: [x, '${{NONE}}']\n"),
        "10:14: `config.a[1]`: the environment variable `NONE` is not set; set it, or give a default: `${NONE:-default}`",
    );
}

#[test]
fn kafka_properties_are_checked() {
    check(
        &HELLO.replace("  boot", "  group.id: x\n  boot"),
        "3:3: `kafka.group.id` belongs to the agent; remove it: it is the `application`",
    );
    check(
        &HELLO.replace("  boot", "  linger: 5\n  boot"),
        "3:3: `kafka.linger` is no property of librdkafka; did you mean `linger.ms`?",
    );
    check(
        &HELLO.replace("  boot", "  consumr: 5\n  boot"),
        "3:3: `kafka.consumr` is no property of librdkafka; did you mean `consumer`?",
    );
    check(
        &HELLO.replace("  boot", "  admin: {zzzzzzzzz: 5}\n  boot"),
        "3:11: `kafka.admin.zzzzzzzzz` is no property of librdkafka; see the list of librdkafka's properties",
    );
    check(
        &HELLO.replace("bootstrap.servers: localhost:9092", "linger.ms: 5"),
        "3:3: `kafka` names no broker; add `bootstrap.servers: localhost:9092` to it",
    );
}

#[test]
fn amounts_must_be_possible() {
    check(
        &with("commit_interval: 0s"),
        "1:18: `commit_interval` can't be zero; write at least `1ms`",
    );
    check(
        &with("memory_max: 65MiB\nlimits: {guest_memory_max: 66MiB}"),
        "2:28: `limits.guest_memory_max` is more than `memory_max`, of which it is a part; lower it, or raise `memory_max`",
    );
    check_transforms("  []", "4:3: `transforms` is empty; add a transform");
}
