use std::collections::BTreeMap;

use sidestream_core::topology::{OnError, Route, Start, TopicKind};

use super::*;
use crate::config::read_for_tests;

fn pipeline(transforms: &str) -> Pipeline {
    read_for_tests(&format!(
        "application: app\nkafka: {{bootstrap.servers: b}}\ntransforms:\n{transforms}"
    ))
}

fn plan_of(transforms: &str, topics: &[(&str, i32)]) -> Result<Plan, Vec<Problem>> {
    let topics: BTreeMap<_, _> = topics.iter().copied().collect();
    plan(&pipeline(transforms), &|name| topics.get(name).copied())
}

/// What is wrong with these transforms on these topics.
#[track_caller]
fn check(transforms: &str, topics: &[(&str, i32)], expected: &[&str]) {
    let problems = plan_of(transforms, topics).err().unwrap_or_default();
    let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{transforms}");
}

/// The sub-topologies as `partitions: transforms < inputs`, and the internal topics to create.
#[track_caller]
fn check_shape(transforms: &str, topics: &[(&str, i32)], shape: &[&str], create: &[&str]) {
    let plan = plan_of(transforms, topics).unwrap();
    let topology = &plan.topology;
    let subtopology = |sub: &sidestream_core::topology::Subtopology| {
        let transforms: Vec<_> = sub.transforms.iter().map(|t| t.name.as_str()).collect();
        let inputs: Vec<_> =
            sub.inputs.iter().map(|i| topology.topic(i.topic).name.as_str()).collect();
        format!("{}: {} < {}", sub.partitions, transforms.join(" "), inputs.join(" "))
    };
    let found: Vec<_> = topology.subtopologies.iter().map(subtopology).collect();
    assert_eq!(found, shape);
    let found: Vec<_> =
        plan.create.iter().map(|t| format!("{} {}", t.name, t.partitions)).collect();
    assert_eq!(found, create);
}

const WORD_COUNT: &str = "
  - {name: split, module: m, inputs: [lines], outputs: {words: {repartition: words}}}
  - {name: count, module: m, inputs: [repartition: words], stores: [counts], outputs: {counts: out}}
";

#[test]
fn two_stages_joined_by_a_repartition() {
    check_shape(
        WORD_COUNT,
        &[("lines", 3), ("out", 1)],
        &["3: split < lines", "3: count < app-words-repartition"],
        &["app-words-repartition 3", "app-counts-changelog 3"],
    );
    let given = WORD_COUNT.replace("repartition: words}}", "repartition: words, partitions: 8}}");
    check_shape(
        &given,
        &[("lines", 3), ("out", 1), ("app-words-repartition", 8)],
        &["3: split < lines", "8: count < app-words-repartition"],
        &["app-counts-changelog 8"],
    );
}

#[test]
fn what_shares_a_topic_or_hands_over_is_one_subtopology() {
    check_shape(
        "
  - {name: last, module: m, inputs: [{transform: first, output: o}, x], stores: [s]}
  - {name: other, module: m, inputs: [z]}
  - {name: first, module: m, inputs: [y], outputs: {o: }}
  - {name: beside, module: m, inputs: [y], stores: [t]}
",
        &[("x", 2), ("y", 2), ("z", 5)],
        &["2: first last beside < y x", "5: other < z"],
        &["app-s-changelog 2", "app-t-changelog 2"],
    );
}

#[test]
fn names_become_indices() {
    let plan = plan_of(
        "
  - {name: a, module: m, inputs: [{topic: x, start: latest}], stores: [s], outputs: {o: , p: {topic: out, latest_per_key: true}}}
  - {name: b, module: m, inputs: [y, {transform: a, output: o}], stores: [{name: t, kind: memory}, u]}
  - {name: c, module: m, inputs: [{transform: a, output: o}, {topic: x, start: latest}]}
",
        &[("x", 2), ("y", 2), ("out", 7)],
    );
    let plan = plan.unwrap();
    let [subtopology] = plan.topology.subtopologies.as_slice() else { panic!("one sub-topology") };
    let [x, y] = subtopology.inputs.as_slice() else { panic!("two inputs") };
    assert_eq!((x.start, y.start), (Start::Latest, Start::Earliest));
    let reader = |transform, input| sidestream_core::topology::Reader { transform, input };
    assert_eq!(x.readers, [reader(0, 0), reader(2, 1)]);
    assert_eq!(y.readers, [reader(1, 0)]);
    let [a, b, _] = subtopology.transforms.as_slice() else { panic!("three transforms") };
    assert_eq!(a.outputs[0].route, Route::Transforms(vec![reader(1, 1), reader(2, 0)]));
    let Route::Topic(out) = a.outputs[1].route else { panic!("a topic") };
    assert!(a.outputs[1].latest_per_key);
    assert_eq!(plan.topology.topic(out).partitions, 7);
    assert_eq!(b.inputs, ["y", "a"]);
    assert_eq!((a.stores.as_slice(), b.stores.as_slice()), (&[0][..], &[1, 2][..]));
    assert_eq!(plan.topology.topic(subtopology.stores[1].changelog).name, "app-t-changelog");
    assert_eq!(plan.stores, [[StoreKind::RocksDb, StoreKind::Memory, StoreKind::RocksDb]]);
    assert_eq!(plan.transforms, [[0, 1, 2]]);
}

#[test]
fn several_outputs_of_one_transform_have_names_that_differ() {
    let plan = plan_of(
        "
  - {name: a, module: m, inputs: [x], outputs: {o: , p: }}
  - {name: b, module: m, inputs: [{transform: a, output: o}, {transform: a, output: p}]}
",
        &[("x", 1)],
    );
    assert_eq!(plan.unwrap().topology.subtopologies[0].transforms[1].inputs, ["a.o", "a.p"]);
}

#[test]
fn a_repartition_follows_what_it_is_read_with() {
    check_shape(
        "
  - {name: a, module: m, inputs: [x], outputs: {r: {repartition: r}}}
  - {name: b, module: m, inputs: [y, repartition: r]}
",
        &[("x", 3), ("y", 6)],
        &["3: a < x", "6: b < y app-r-repartition"],
        &["app-r-repartition 6"],
    );
}

#[test]
fn a_repartition_follows_the_widest_that_writes_it() {
    check_shape(
        "
  - {name: c, module: m, inputs: [repartition: r, repartition: q], outputs: {s: {repartition: s}}}
  - {name: d, module: m, inputs: [repartition: s]}
  - {name: a, module: m, inputs: [x], outputs: {r: {repartition: r}}}
  - {name: b, module: m, inputs: [y], outputs: {r: {repartition: r}, q: {repartition: q}}}
",
        &[("x", 3), ("y", 6)],
        &[
            "6: c < app-r-repartition app-q-repartition",
            "6: d < app-s-repartition",
            "3: a < x",
            "6: b < y",
        ],
        &["app-r-repartition 6", "app-q-repartition 6", "app-s-repartition 6"],
    );
}

#[test]
fn topics_must_be_there() {
    check(
        WORD_COUNT,
        &[],
        &[
            "the topic `lines`, which the pipeline reads, is not there; create it (`kafka-topics.sh --create --topic lines --partitions …`) or correct its name; the agent creates none but its own",
            "the topic `out`, which the pipeline writes, is not there; create it (`kafka-topics.sh --create --topic out --partitions …`) or correct its name; the agent creates none but its own",
        ],
    );
    assert_eq!(
        topic_names(&pipeline(WORD_COUNT)),
        ["app-counts-changelog", "app-words-repartition", "lines", "out"]
    );
}

#[test]
fn topics_read_together_must_agree() {
    check(
        "  - {name: a, module: m, inputs: [x, y]}\n",
        &[("x", 3), ("y", 4)],
        &[
            "topics that are read together differ in their partitions: `x` has 3, `y` has 4; give them equally many, or lead one of them through a `repartition`",
        ],
    );
    check(
        "  - {name: a, module: m, inputs: [x], outputs: {r: {repartition: r, partitions: 2}}}\n  - {name: b, module: m, inputs: [y, repartition: r]}\n",
        &[("x", 3), ("y", 4)],
        &[
            "topics that are read together differ in their partitions: `y` has 4, `r` has 2; give them equally many, or lead one of them through a `repartition`",
        ],
    );
}

#[test]
fn a_count_that_follows_from_itself_must_be_given() {
    let circle = "  - {name: a, module: m, inputs: [repartition: r], outputs: {q: {repartition: q, allow_loop: true}}}\n  - {name: b, module: m, inputs: [repartition: q], outputs: {r: {repartition: r}}}\n";
    check(
        circle,
        &[],
        &[
            "how many partitions the repartition `r` has follows from itself; give `partitions` where it is written",
            "how many partitions the repartition `q` has follows from itself; give `partitions` where it is written",
        ],
    );
    check(&circle.replace("repartition: r}}", "repartition: r, partitions: 2}}"), &[], &[]);
}

#[test]
fn internal_topics_that_are_there_must_fit() {
    check(
        WORD_COUNT,
        &[("lines", 3), ("out", 1), ("app-words-repartition", 2), ("app-counts-changelog", 2)],
        &[
            "the repartition topic `app-words-repartition` has 2 partitions, the pipeline needs 3; write `partitions: 2` at its output, or start under a new `application`: state is bound to its partition",
            "the changelog `app-counts-changelog` has 2 partitions, the pipeline needs 3; go back to inputs with 2 partitions, or start under a new `application`: state is bound to its partition",
        ],
    );
}

#[test]
fn internal_topics_must_be_configured_for_their_use() {
    let check = |kind, found: &[(&str, &str)], expected: &[&str]| {
        let topic = InternalTopic { name: "t".into(), partitions: 1, kind };
        let found = found.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let messages: Vec<_> =
            topic.check(&found).into_iter().map(|problem| problem.message).collect();
        assert_eq!(messages, expected);
    };
    check(
        TopicKind::Changelog,
        &[("cleanup.policy", "compact,delete"), ("delete.retention.ms", "86400000")],
        &[
            "the changelog `t` has cleanup.policy=compact,delete, it must have compact",
            "the changelog `t` has delete.retention.ms=86400000, it must have at least 604800000",
        ],
    );
    check(
        TopicKind::Changelog,
        &[("cleanup.policy", "compact"), ("delete.retention.ms", "604800001"), ("x", "y")],
        &[],
    );
    check(
        TopicKind::Repartition,
        &[("cleanup.policy", "delete"), ("retention.ms", "604800000")],
        &["the repartition topic `t` has retention.ms=604800000, it must have -1"],
    );
    for kind in [TopicKind::Changelog, TopicKind::Repartition] {
        let own: Vec<_> = settings(kind).iter().map(|s| (s.name, s.value)).collect();
        check(kind, &own, &[]);
    }
}

#[test]
fn dead_letters_get_a_topic_with_a_partition_for_each_of_the_widest_input() {
    let transforms = "
  - {name: a, module: m, inputs: [x], on_error: {dead_letter: bad}, retry: {attempts: 2}}
  - {name: b, module: m, inputs: [y], on_error: {dead_letter: bad}}
  - {name: c, module: m, inputs: [y], on_error: skip}
";
    let shape = &["3: a < x", "5: b c < y"];
    check_shape(transforms, &[("x", 3), ("y", 5)], shape, &["bad 5"]);
    check_shape(transforms, &[("x", 3), ("y", 5), ("bad", 2)], shape, &[]);
    let plan = plan_of(transforms, &[("x", 3), ("y", 5), ("bad", 2)]).unwrap();
    let topology = &plan.topology;
    let policy = |group: usize, place: usize| {
        let policy = topology.subtopologies[group].transforms[place].on_error;
        let topic = match policy.then {
            OnError::DeadLetter(topic) => topology.topic(topic).name.clone(),
            OnError::Fail => "fail".to_owned(),
            OnError::Skip => "skip".to_owned(),
        };
        (topic, policy.retry.map(|retry| (retry.attempts_max, retry.backoff.as_millis())))
    };
    assert_eq!(policy(0, 0), ("bad".to_owned(), Some((2, 100))));
    assert_eq!(policy(1, 0), ("bad".to_owned(), None));
    assert_eq!(policy(1, 1), ("skip".to_owned(), None));
    assert!(topic_names(&pipeline(transforms)).contains(&"bad".to_owned()));
    assert!(plan.internal.is_empty(), "it is the user's, and keeps the user's settings");
}

#[test]
fn a_topic_that_was_probably_meant_is_suggested() {
    let pipeline =
        pipeline("  - {name: a, module: m, inputs: [paymets, zzz], outputs: {o: payments}}\n");
    let there = ["payments".to_owned(), "orders".to_owned()];
    let problems = missing_topics(&pipeline, &|name| (name == "payments").then_some(1), &there);
    let remedies: Vec<_> = problems.iter().map(|problem| &problem.remedy[..25]).collect();
    assert_eq!(remedies, ["did you mean `payments`? ", "create it (`kafka-topics."]);
}
