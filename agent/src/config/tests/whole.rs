//! Whole files: the smallest, the largest, from disk, and their schema.

use super::{
    pipeline::{GivesUp, Guarantee, OnError, Retry, Source, StoreKind, Target},
    *,
};

#[test]
fn hello_world_is_eight_lines_and_the_rest_has_defaults() {
    assert_eq!(HELLO.lines().count(), 8);
    let pipeline = parse(HELLO).unwrap();
    assert_eq!(pipeline.application, "hello");
    assert_eq!(pipeline.kafka.common.get("bootstrap.servers"), Some("localhost:9092"));
    assert_eq!(pipeline.general.guarantee, Guarantee::ExactlyOnce);
    assert_eq!(pipeline.general.commit_interval, Duration::from_millis(100));
    assert_eq!(pipeline.general.workers, 1);
    assert_eq!(pipeline.state.directory, Path::new("/pipelines/sidestream-state/hello"));
    assert!(pipeline.shutdown.leave_on_stop);
    assert_eq!(pipeline.general.memory_max, 512 << 20);
    assert_eq!(pipeline.limits.retry_attempts_max, 5);
    let transform = &pipeline.transforms[0];
    assert_eq!(transform.module, Path::new("/pipelines/hello.wasm"));
    assert_eq!(transform.config.0, "{}");
    let start = Start::Earliest;
    let on_out_of_range = OnOutOfRange::Fail;
    let source = Source::Topic { name: "names".into(), start, on_out_of_range };
    assert_eq!(transform.inputs[0].source, source);
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
  security.protocol: sasl_ssl
  sasl.mechanism: PLAIN
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
    inputs: [{ topic: lines, start: 2026-01-31T12:00:00Z, on_out_of_range: latest }]
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
    assert_eq!(pipeline.general.guarantee, Guarantee::AtLeastOnce);
    assert_eq!(
        (pipeline.general.workers, pipeline.general.identity.as_deref()),
        (3, Some("pod-0"))
    );
    assert_eq!(pipeline.state.directory, Path::new("/data"));
    assert!(!pipeline.shutdown.leave_on_stop);
    let [split, count, sum] = pipeline.transforms.as_slice() else { panic!("three transforms") };
    assert_eq!(split.module, Path::new("/modules/split.wasm"));
    assert_eq!(split.config.0, r#"{"limit":3,"nested":[{"of":"x3"}],"token":"hunter2"}"#);
    let start = Start::At(1_769_860_800_000);
    let on_out_of_range = OnOutOfRange::Latest;
    let source = Source::Topic { name: "lines".into(), start, on_out_of_range };
    assert_eq!(split.inputs[0].source, source);
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
fn the_pipelines_of_the_readme_are_sound() {
    let readme = include_str!("../../../../README.md");
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let (whole, parts): (Vec<_>, Vec<_>) =
        blocks.partition(|block| block.starts_with("application:"));
    assert_eq!(whole.len(), 2);
    // Keys that the README tells one by one stand before the smallest of pipelines.
    let parts = parts.iter().map(|part| with(part));
    for pipeline in whole.into_iter().map(str::to_owned).chain(parts) {
        let outside = [("${file:/run/secrets/kafka-password}", "secret"), ("${HOSTNAME}", "host")];
        let pipeline = outside
            .iter()
            .fold(pipeline, |text, (reference, value)| text.replace(reference, value));
        let sources = Sources { kafka_properties: None, ..sources() };
        read(Path::new("pipeline.yaml"), &pipeline, &sources).unwrap();
    }
}

#[test]
fn a_file_is_read_from_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipeline.yaml");
    std::fs::write(folder.path().join("id"), "pod-7\n").unwrap();
    std::fs::write(&path, with("identity: ${file:id}")).unwrap();
    let pipeline = load(&path, Sources::default()).unwrap();
    assert_eq!(pipeline.general.identity.as_deref(), Some("pod-7"));
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
