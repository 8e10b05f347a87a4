use std::time::Duration;

use expect::{HELLO, with};
use pipeline::{GivesUp, Guarantee, OnError, Retry, Source, StoreKind, Target};

use super::*;

mod expect {
    pub(super) const HELLO: &str = "\
application: hello
kafka:
  bootstrap.servers: localhost:9092
transforms:
  - name: hello
    module: hello.wasm
    inputs: [names]
    outputs: { greetings: greetings }
";

    /// The hello pipeline with more lines before it.
    pub(super) fn with(lines: &str) -> String {
        format!("{lines}\n{HELLO}")
    }
}

const PROPERTIES: [&str; 4] =
    ["bootstrap.servers", "linger.ms", "fetch.wait.max.ms", "sasl.password"];

fn sources() -> Sources {
    let variables = [("BROKERS", "kafka:9092"), ("PASSWORD", "hunter2"), ("WORKERS", "3")];
    Sources {
        variables: variables.map(|(name, value)| (name.into(), value.into())).into(),
        folder: "/pipelines".into(),
        kafka_properties: Some(KafkaProperties {
            is_known: |name| PROPERTIES.contains(&name),
            names: PROPERTIES.map(Into::into).into(),
        }),
    }
}

fn parse(yaml: &str) -> Result<Pipeline, String> {
    let path = Path::new("pipeline.yaml");
    read(path, yaml, &sources())
        .map_err(|problems| Error::Refused { path: path.into(), problems }.to_string())
}

/// What is wrong with a pipeline, without the file's name: all of it.
#[track_caller]
fn check(yaml: &str, expected: &str) {
    let found = match parse(yaml) {
        Ok(_) => String::new(),
        Err(found) => found.replace("pipeline.yaml:", ""),
    };
    assert_eq!(found, expected, "in:\n{yaml}");
}

/// A pipeline of these transforms; the first line of `transforms` is line 4.
#[track_caller]
fn check_transforms(transforms: &str, expected: &str) {
    let head = "application: app\nkafka: {bootstrap.servers: b}\ntransforms:\n";
    check(&format!("{head}{transforms}"), expected);
}

#[test]
fn hello_world_is_eight_lines_and_the_rest_has_defaults() {
    assert_eq!(HELLO.lines().count(), 8);
    let pipeline = parse(HELLO).unwrap();
    assert_eq!(pipeline.application, "hello");
    assert_eq!(pipeline.kafka.common.get("bootstrap.servers"), Some("localhost:9092"));
    assert_eq!(pipeline.guarantee, Guarantee::ExactlyOnce);
    assert_eq!(pipeline.commit_interval, Duration::from_millis(100));
    assert_eq!(pipeline.workers, 1);
    assert_eq!(pipeline.state.directory, Path::new("/pipelines/sidestream-state/hello"));
    assert!(pipeline.shutdown.leave_on_stop);
    assert_eq!(pipeline.memory_bytes_max, 512 << 20);
    assert_eq!(pipeline.limits.retry_attempts_max, 5);
    let transform = &pipeline.transforms[0];
    assert_eq!(transform.module, Path::new("/pipelines/hello.wasm"));
    assert_eq!(transform.config.0, "{}");
    let start = Start::Earliest;
    assert_eq!(transform.inputs[0].source, Source::Topic { name: "names".into(), start });
    let name = "greetings".into();
    assert_eq!(transform.outputs[0].target, Target::Topic { name, latest_per_key: false });
}

#[test]
fn every_key_is_read() {
    let pipeline = parse(
        "\
application: all
kafka:
  bootstrap.servers: ${BROKERS}
  sasl.password: ${PASSWORD}
  consumer: { fetch.wait.max.ms: 5 }
  producer: { linger.ms: 1 }
guarantee: at_least_once
commit_interval: 2s
workers: ${WORKERS}
identity: pod-0
state: { directory: /data }
memory_max: 1GiB
limits: { batch_time_max: 5s, guest_memory_max: 128MiB, retry_attempts_max: 9 }
max_task_idle: 10ms
shutdown: { deadline: 3s }
log: { level: debug, format: json }
transforms:
  - name: split
    module: /modules/split.wasm
    inputs: [{ topic: lines, start: 2026-01-31T12:00:00Z }]
    outputs:
      words: { repartition: words, partitions: 4 }
      lengths:
    config: { limit: 3, token: \"${PASSWORD}\", nested: [{ of: \"x${WORKERS}\" }] }
  - name: count
    module: count.wasm
    inputs: [repartition: words]
    stores: [counts, { name: recent, kind: memory }]
    outputs: { counts: { topic: counts, latest_per_key: true } }
  - name: sum
    module: sum.wasm
    inputs: [{ transform: split, output: lengths }]
    on_error: { dead_letter: bad-lengths }
    retry: { attempts: 3, backoff: 2s }
",
    )
    .unwrap();
    assert_eq!(pipeline.kafka.common.get("sasl.password"), Some("hunter2"));
    assert_eq!(pipeline.kafka.consumer.get("fetch.wait.max.ms"), Some("5"));
    assert_eq!(pipeline.guarantee, Guarantee::AtLeastOnce);
    assert_eq!((pipeline.workers, pipeline.identity.as_deref()), (3, Some("pod-0")));
    assert_eq!(pipeline.state.directory, Path::new("/data"));
    assert!(!pipeline.shutdown.leave_on_stop);
    let [split, count, sum] = pipeline.transforms.as_slice() else { panic!("three transforms") };
    assert_eq!(split.module, Path::new("/modules/split.wasm"));
    assert_eq!(split.config.0, r#"{"limit":3,"nested":[{"of":"x3"}],"token":"hunter2"}"#);
    let start = Start::At(1_769_860_800_000);
    assert_eq!(split.inputs[0].source, Source::Topic { name: "lines".into(), start });
    let words = Target::Repartition { name: "words".into(), partitions: Some(4) };
    assert_eq!(split.outputs[0].target, words);
    assert_eq!(split.outputs[1].target, Target::Transforms);
    assert_eq!(count.inputs[0].source, Source::Repartition { name: "words".into() });
    assert_eq!(count.stores[0].kind, StoreKind::RocksDb);
    assert_eq!(count.stores[1].kind, StoreKind::Memory);
    let (transform, output) = ("split".into(), "lengths".into());
    assert_eq!(sum.inputs[0].source, Source::Transform { transform, output });
    assert!(matches!(&sum.on_error, OnError::DeadLetter { topic, .. } if topic == "bad-lengths"));
    let backoff = Some(Duration::from_secs(2));
    assert_eq!(sum.retry, Some(Retry { attempts: Some(3), backoff }));
    assert_eq!((&split.on_error, split.retry), (&OnError::GiveUp(GivesUp::Fail), None));
    assert!(!format!("{pipeline:?}").contains("hunter2"), "secrets are not shown");
}

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
        "2:1: the key `kafka` is missing; add `kafka: …`",
    );
    check(
        &HELLO.replace("[names]", "names"),
        "7:13: this has the wrong shape; write a list: `- element` lines, or `[element]`",
    );
    check(&HELLO.replace("names]", "[a]]"), "7:14: this is sequence; write a name or a mapping");
    check(
        &with("workers: 0"),
        "1:10: `workers` can't be `0`; write a whole number between 1 and 2147483647",
    );
    check(
        &with("commit_interval: 100"),
        "1:18: `commit_interval` can't be `100`; write a number and a unit, such as `100ms`, `1s` or `5m`",
    );
    check(
        &with("memory_max: 100"),
        "1:13: `memory_max` can't be `100`; write a number and a unit, such as `512MiB`, `64KiB` or `1GB`",
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
         2:13: `memory_max` can't be `lots`; write a number and a unit, such as `512MiB`, `64KiB` or `1GB`",
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
        "10:7: `config.a[1]`: the environment variable `NONE` is not set; set it, or give a default: `${NONE:-default}`",
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
        "1:1: `kafka` names no broker; add `bootstrap.servers: localhost:9092` to it",
    );
}

#[test]
fn amounts_must_be_possible() {
    check(
        &with("commit_interval: 0s"),
        "1:1: `commit_interval` can't be zero; write at least `1ms`",
    );
    check(
        &with("memory_max: 65MiB\nlimits: {guest_memory_max: 66MiB}"),
        "1:1: `limits.guest_memory_max` is more than `memory_max`, of which it is a part; lower it, or raise `memory_max`",
    );
    check_transforms("  []", "1:1: `transforms` is empty; add a transform");
}

#[test]
fn policies_are_checked() {
    let transform = |keys: &str| format!("  - {{name: a, module: m, inputs: [x], {keys}}}\n");
    for (keys, expected) in [
        ("on_error: skip", ""),
        ("on_error: fail, retry: {}", ""),
        ("on_error: {dead_letter: d}", ""),
        (
            "on_error: skpi",
            "4:49: `on_error` can't be `skpi`; did you mean `skip`? or write `{ dead_letter: topic }`",
        ),
        (
            "on_error: {dead_leter: d}",
            "4:50: unknown key `dead_leter`; did you mean `dead_letter`?",
        ),
        (
            "on_error: {dead_letter: a b}",
            "4:63: `dead_letter` can't be `a b`; use letters, digits, `.`, `_` and `-`",
        ),
        (
            "on_error: {dead_letter: x}",
            "4:63: the dead letters of `a` go to an input of the pipeline; give them a topic of their own; another pipeline may read it",
        ),
        (
            "on_error: {dead_letter: app-d-changelog}",
            "4:63: the topic name `app-d-changelog` is reserved for the agent's own topics; use another topic, or `repartition`",
        ),
        ("retry: {attempt: 3}", "4:47: unknown key `attempt`; did you mean `attempts`?"),
        (
            "retry: {attempts: 0}",
            "4:57: `retry.attempts` can't be `0`; write a whole number between 1 and 2147483647",
        ),
    ] {
        check_transforms(&transform(keys), expected);
    }
}

#[test]
fn names_are_unique() {
    check_transforms(
        "  - {name: a, module: m, inputs: [x], stores: [s]}\n  - {name: a, module: m, inputs: [y], stores: [t, {name: s}]}\n",
        "5:12: the transform `a` is already there, in line 4; give it a name of its own\n\
         5:51: the store `s` is already there, in line 4; give it a name of its own",
    );
}

#[test]
fn inputs_lead_somewhere() {
    let head = "  - {name: split, module: m, inputs: [x], outputs: {words: , lines: lines, keys: {repartition: keys}}}\n  - {name: k, module: m, inputs: [{repartition: keys}, {transform: split, output: words}]}\n";
    for (input, expected) in [
        ("{transform: splt, output: words}", "there is no transform `splt`; did you mean `split`?"),
        (
            "{transform: split, output: word}",
            "the transform `split` has no output `word`; did you mean `words`?",
        ),
        (
            "{transform: split, output: lines}",
            "the output `lines` of `split` goes to a topic; take it from that topic, or give the transform a second output",
        ),
        (
            "{transform: split, output: keys}",
            "the output `keys` of `split` goes to a topic; take it as `repartition`",
        ),
        ("{repartition: key}", "no output goes to the repartition `key`; did you mean `keys`?"),
        ("{transform: split, output: words}, {transform: split, output: words}", ""),
        (
            "{topic: y, transform: split, output: words}",
            "an input comes from one place; give one of `topic`, `transform` with `output`, and `repartition`",
        ),
        (
            "{}",
            "an input comes from one place; give one of `topic`, `transform` with `output`, and `repartition`",
        ),
    ] {
        let expected = match (input, expected) {
            (_, "") => {
                "6:70: the transform `b` has this input twice; remove one of them".to_owned()
            }
            _ => format!("6:35: {expected}"),
        };
        check_transforms(
            &format!("{head}  - {{name: b, module: m, inputs: [{input}]}}\n"),
            &expected,
        );
    }
    check_transforms(
        "  - {name: a, module: m, inputs: []}\n",
        "4:12: the transform `a` has no inputs; add a topic to `inputs`",
    );
}

#[test]
fn keys_of_inputs_and_outputs_go_together() {
    for (input, expected) in [
        (
            "{repartition: k, start: latest}",
            "4:59: `start` is only for an input with `topic`; remove `start`",
        ),
        (
            "{topic: k, start: late}",
            "4:53: `start` can't be `late`; write `earliest`, `latest` or a time such as `2026-01-31T12:00:00Z`",
        ),
        (
            "{topic: k, output: words}",
            "4:54: `output` is only for an input with `transform`; add `transform`, the name of the transform whose output it is",
        ),
        (
            "{transform: k}",
            "4:47: an input with `transform` needs `output`; add `output`, the name of the output to take",
        ),
        ("{topics: k}", "4:36: unknown key `topics`; did you mean `topic`?"),
    ] {
        check_transforms(&format!("  - {{name: a, module: m, inputs: [{input}]}}\n"), expected);
    }
    for (output, expected) in [
        (
            "{repartition: k, latest_per_key: true}",
            "4:85: `latest_per_key` is only for an output with `topic`; remove `latest_per_key`",
        ),
        (
            "{latest_per_key: true}",
            "4:69: `latest_per_key` is only for an output with `topic`; remove `latest_per_key`",
        ),
        (
            "{topic: k, partitions: 3}",
            "4:75: `partitions` is only for an output with `repartition`; remove `partitions`: the agent creates no other topics",
        ),
        (
            "{topic: k, repartition: k}",
            "4:52: an output goes to one place; give `topic` or `repartition`, or a second output for the other",
        ),
    ] {
        check_transforms(
            &format!("  - {{name: a, module: m, inputs: [x], outputs: {{o: {output}}}}}\n"),
            expected,
        );
    }
}

#[test]
fn outputs_lead_somewhere() {
    check_transforms(
        "  - {name: a, module: m, inputs: [x], outputs: {o: , p: {}, r: {repartition: r}}}\n",
        "4:49: the output `o` of `a` goes nowhere; give it a topic, or take it as an input of another transform\n\
         4:54: the output `p` of `a` goes nowhere; give it a topic, or take it as an input of another transform\n\
         4:61: nobody reads the repartition `r`; add an input with `repartition: r`, or remove the output",
    );
}

#[test]
fn records_do_not_go_in_circles() {
    check_transforms(
        "  - {name: z, module: m, inputs: [{transform: b, output: o}]}\n  - {name: a, module: m, inputs: [x, {transform: b, output: o}], outputs: {o: }}\n  - {name: b, module: m, inputs: [{transform: a, output: o}], outputs: {o: }}\n",
        "5:12: transforms hand records round in a circle: `a`, `b`; break it, or lead one of the outputs through a `repartition`",
    );
}

#[test]
fn transforms_agree_on_what_they_share() {
    check_transforms(
        "  - {name: a, module: m, inputs: [{topic: x, start: latest}]}\n  - {name: b, module: m, inputs: [x]}\n",
        "5:35: `a` starts elsewhere in the topic `x`; give both the same `start`",
    );
    check_transforms(
        "  - {name: a, module: m, inputs: [x], outputs: {r: {repartition: r, partitions: 3}}}\n  - {name: b, module: m, inputs: [y, repartition: r], outputs: {q: {repartition: r, partitions: 4}}}\n",
        "5:65: the repartition `r` has 3 partitions elsewhere, 4 here; give `partitions` once",
    );
}

#[test]
fn the_agent_keeps_some_topic_names_for_itself() {
    check_transforms(
        "  - {name: a, module: m, inputs: [app-s-changelog], outputs: {o: app-x-repartition}}\n",
        "4:35: the topic name `app-s-changelog` is reserved for the agent's own topics; use another topic, or `repartition`\n\
         4:63: the topic name `app-x-repartition` is reserved for the agent's own topics; use another topic, or `repartition`",
    );
}

#[test]
fn a_file_is_read_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipeline.yaml");
    std::fs::write(folder.path().join("id"), "pod-7\n").unwrap();
    std::fs::write(&path, with("identity: ${file:id}")).unwrap();
    let pipeline = load(&path, Sources::default()).unwrap();
    assert_eq!(pipeline.identity.as_deref(), Some("pod-7"));
    assert_eq!(pipeline.transforms[0].module, folder.path().join("hello.wasm"));
    let error = load(&folder.path().join("absent"), Sources::default()).unwrap_err();
    assert!(error.to_string().contains("name a file that is there"), "{error}");
}

#[test]
fn the_schema_has_descriptions_and_defaults() {
    let schema = schema();
    let commit_interval = &schema["properties"]["commit_interval"];
    assert_eq!(commit_interval["default"], "100ms");
    assert!(commit_interval["description"].as_str().unwrap().starts_with("Commit this long"));
    assert_eq!(schema["additionalProperties"], false);
    let required = ["application", "kafka", "transforms"];
    assert_eq!(schema["required"], serde_json::json!(required));
}

#[test]
fn the_control_interface_listens_on_a_private_socket_unless_told_otherwise() {
    let pipeline = parse(HELLO).unwrap();
    let socket = "/pipelines/sidestream-state/hello/.control/socket".into();
    let private = Control { listen: Listen::Unix(socket), tls: None, token_file: None };
    assert_eq!((pipeline.control, pipeline.http), (private, None));
    let pipeline = parse(&with(
        "\
control:
  listen: 0.0.0.0:9465
  tls: { certificate: tls/crt.pem, key: /keys/key.pem }
  token_file: token
http: { listen: 9464 }
",
    ))
    .unwrap();
    let tls = Tls {
        certificate: "/pipelines/tls/crt.pem".into(),
        key: "/keys/key.pem".into(),
        client_ca: None,
    };
    let listen = Listen::Tcp("0.0.0.0:9465".parse().unwrap());
    let token_file = Some("/pipelines/token".into());
    assert_eq!(pipeline.control, Control { listen, tls: Some(tls), token_file });
    assert_eq!(pipeline.http, Some("127.0.0.1:9464".parse().unwrap()));
    for (address, listen) in [
        ("off", Listen::Off),
        ("unix:run/control", Listen::Unix("/pipelines/run/control".into())),
        ("localhost:1", Listen::Tcp("127.0.0.1:1".parse().unwrap())),
        ("'[::1]:1'", Listen::Tcp("[::1]:1".parse().unwrap())),
    ] {
        let pipeline = parse(&with(&format!("control: {{ listen: {address} }}"))).unwrap();
        assert_eq!(pipeline.control.listen, listen);
    }
}

#[test]
fn beyond_this_machine_the_control_interface_asks_who_is_there() {
    const REACHED: &str = "1:20: `control.listen` is 10.0.0.1:9465, which others than this machine \
        reach; add `control.tls`, and `control.token_file` or `control.tls.client_ca`; or listen \
        on 127.0.0.1";
    let tls = "tls: { certificate: c, key: k }";
    let refused = ["", ", token_file: t", &format!(", {tls}")];
    for more in refused {
        check(&with(&format!("control: {{ listen: 10.0.0.1:9465{more} }}")), REACHED);
    }
    let mutual = "tls: { certificate: c, key: k, client_ca: r }";
    for more in [format!("{tls}, token_file: t"), mutual.to_owned()] {
        check(&with(&format!("control: {{ listen: 10.0.0.1:9465, {more} }}")), "");
    }
    check(
        &with("control: { listen: off, tls: { certificate: c, key: k } }"),
        "1:20: `control.tls` is for an address and a port; set `control.listen` to one, or remove \
         `control.tls`",
    );
    check(
        &with(&format!("control: {{ listen: unix:/{} }}", "x".repeat(107))),
        &format!(
            "1:20: the control socket's path /{} has more than 107 bytes; set `control.listen` to \
             `unix:` and a shorter path, or to `off`",
            "x".repeat(107)
        ),
    );
    check(
        &with("control: { listens: off }"),
        "1:12: unknown key `listens`; did you mean `listen`?",
    );
    check(
        &with("http: { listen: here }"),
        "1:17: `http.listen` can't be `here`; write a port such as `9464`, or an address such as \
         `0.0.0.0:9464`",
    );
}
