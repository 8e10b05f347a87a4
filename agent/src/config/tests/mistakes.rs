//! Files as people write them by mistake: the message says which key it is, what is there, and how to
//! write it.

use super::*;

const HEAD: &str = "application: a\nkafka:\n  bootstrap.servers: b\n";

const LIST: &str = "a list: `- element` lines, or `[element]`";
const MAPPING: &str = "a mapping: `key: value` lines, or `{ key: value }`";

/// One transform with more keys; they begin in line 8.
fn more(keys: &str) -> String {
    format!("{HEAD}transforms:\n  - name: t\n    module: m\n    inputs: [x]\n{keys}\n")
}

#[test]
fn a_value_of_a_transform_that_has_the_wrong_shape_is_told_with_its_key_and_an_example() {
    for (file, expected) in [
        (
            more("").replace("[x]", "payments"),
            format!("7:13: `inputs` is the single value `payments`; write {LIST}; here `inputs: [payments]`"),
        ),
        (
            more("").replace("[x]", "{ topic: x }"),
            format!("7:13: `inputs` is a mapping; write {LIST}; here `inputs: [payments]`"),
        ),
        (
            more("").replace(" [x]", "\n   - x"),
            "7:11: `inputs` is empty; write it such as `inputs: [payments]`, or indent the lines that belong to it".into(),
        ),
        (
            more("    outputs: [alerts]"),
            format!("8:14: `outputs` is a list; write {MAPPING}; here `outputs: {{ alerts: alerts }}`"),
        ),
        (
            more("    outputs:\n      - alerts"),
            format!("9:7: `outputs` is a list; write {MAPPING}; here `outputs: {{ alerts: alerts }}`"),
        ),
        (
            more("    stores: counts"),
            format!("8:13: `stores` is the single value `counts`; write {LIST}; here `stores: [counts]`"),
        ),
        (
            more("    retry: 3"),
            format!("8:12: `retry` is the single value `3`; write {MAPPING}; here `retry: {{ attempts: 3 }}`"),
        ),
        (
            more("    config: 3"),
            format!("8:13: `config` is the single value `3`; write {MAPPING}; here `config: {{ limit: 3 }}`"),
        ),
        (
            more("    on_error: [skip]"),
            "8:5: `on_error` is a list; write a name or a mapping; here `on_error: { dead_letter: bad-records }`".into(),
        ),
    ] {
        check(&file, &expected);
    }
}

#[test]
fn a_value_at_the_top_that_has_the_wrong_shape_is_told_with_its_key_and_an_example() {
    let top =
        |lines: &str| format!("{lines}\n{HEAD}transforms: [{{name: t, module: m, inputs: [x]}}]\n");
    for (file, expected) in [
        (
            top("http: 9464"),
            format!("1:7: `http` is the single value `9464`; write {MAPPING}; here `http: {{ listen: 9464 }}`"),
        ),
        (
            top("memory_max: { a: 1 }"),
            "1:13: `memory_max` is a mapping; write a single value".into(),
        ),
        (
            HEAD.replace(" b\n", "\n    - k1:9092\n    - k2:9092\n"),
            "4:5: `bootstrap.servers` is a list; write one value with commas, such as `kafka-1:9092,kafka-2:9092`".into(),
        ),
        (
            HEAD.replace(" b\n", " [k1, k2]\n"),
            "3:22: `bootstrap.servers` is a list; write one value with commas, such as `kafka-1:9092,kafka-2:9092`".into(),
        ),
        (
            HEAD.replace("kafka:\n  bootstrap.servers: b", "kafka: k:9092"),
            format!("2:8: `kafka` is the single value `k:9092`; write {MAPPING}; here `kafka: {{ bootstrap.servers: k:9092 }}`"),
        ),
        (
            format!("{HEAD}transforms:\n  t:\n    module: m\n"),
            format!("5:3: `transforms` is a mapping; write {LIST}; here `transforms: [{{ name: shout, module: shout.wasm, inputs: [words] }}]`"),
        ),
        ("- a\n".into(), format!("1:1: this is a list; write {MAPPING}")),
        (
            HEAD.replace("  bootstrap.servers: b", "  sasl.password: [hush]"),
            "3:18: `sasl.password` is a list; write a single value".into(),
        ),
    ] {
        check(&file, &expected);
    }
}

#[test]
fn a_key_in_the_wrong_place_is_told_where_it_belongs() {
    let top =
        |line: &str| format!("{HEAD}{line}\ntransforms: [{{name: t, module: m, inputs: [x]}}]\n");
    for (file, expected) in [
        (top("on_error: skip"), "4:1: unknown key `on_error`; it belongs to a transform"),
        (
            top("bootstrap.servers: b"),
            "4:1: unknown key `bootstrap.servers`; it belongs to `kafka`",
        ),
        (top("linger.ms: 5"), "4:1: unknown key `linger.ms`; it belongs to `kafka`"),
        (top("batch_time_max: 5s"), "4:1: unknown key `batch_time_max`; it belongs to `limits`"),
        (top("attempts: 5"), "4:1: unknown key `attempts`; it belongs to `retry` of a transform"),
        (
            top("repartition: r"),
            "4:1: unknown key `repartition`; it belongs to an input or an output",
        ),
        (top("num.stream.threads: 2"), "4:1: unknown key `num.stream.threads`; use `workers`"),
        (top("ouputs: {}"), "4:1: unknown key `ouputs`; known here are"),
        (more("    probation_time: 1s"), "8:5: unknown key `probation_time`; it belongs to `swap`"),
        (more("    workers: 2"), "8:5: unknown key `workers`; it belongs to the top of the file"),
        (
            more("    dead_letter: d"),
            "8:5: unknown key `dead_letter`; it belongs to `on_error` of a transform",
        ),
        (more("    ouputs: {}"), "8:5: unknown key `ouputs`; did you mean `outputs`?"),
    ] {
        let found = parse(&file).unwrap_err().replace("pipeline.yaml:", "");
        assert!(found.starts_with(expected), "{found}\nin:\n{file}");
    }
}

#[test]
fn indentation_is_told_with_the_line_of_the_key() {
    for (file, expected) in [
        (
            more("").replace("    inputs", "   inputs"),
            "7:4: `inputs` is indented by 3 spaces and so no part of what begins above, which needs it; indent it by 4 spaces",
        ),
        (
            more("").replace("    inputs", "     inputs"),
            "7:12: line 7 is indented by 5 spaces, line 6 by 4; indent keys that belong together equally",
        ),
        (
            HEAD.replace("b\n", "b\n linger.ms: 5\n"),
            "4:2: line 4 is indented by 1 spaces, line 3 by 2; indent keys that belong together equally",
        ),
        (
            more("").replace("  - name", "\t- name"),
            "5:2: there is a tab, which YAML does not take for indentation; use spaces",
        ),
        (
            more("").replace("    module", "\tmodule"),
            "5:11: there is a tab, which YAML does not take for indentation; use spaces",
        ),
        (
            HEAD.replace("  bootstrap", "bootstrap"),
            "2:6: `kafka` is empty; write it such as `kafka: { bootstrap.servers: localhost:9092 }`, or indent the lines that belong to it",
        ),
        (
            format!("{HEAD}transforms:\n  - name: t\n    module: m\n"),
            "6:5: the key `inputs` of a transform is missing; add `inputs: [payments]`",
        ),
    ] {
        check(&file, expected);
    }
}

#[test]
fn what_needs_quotes_is_told_so() {
    let braces = |reference: &str| {
        format!(
            "put quotes around the reference, `\"{reference}\"`: inside `{{…}}` and `[…]` its own braces end what is around it; or write one key a line"
        )
    };
    const MEANING: &str = "put quotes around the value: what it begins with has another meaning";
    for (file, expected) in [
        (
            more("    config: { within_ms: ${WINDOW_MS} }"),
            braces("${WINDOW_MS}"),
        ),
        (HEAD.replace("kafka:\n  bootstrap.servers: b", "kafka: { bootstrap.servers: ${KAFKA:-k} }"), braces("${KAFKA:-k}")),
        (more("").replace("[x]", "[${INPUT}]"), braces("${INPUT}")),
        (HEAD.replace("servers: b", "servers: @b"), MEANING.into()),
        (HEAD.replace("servers: b", "servers: %b"), MEANING.into()),
        (HEAD.replace("servers: b", "servers: *b"), MEANING.into()),
        (HEAD.replace("servers: b", "servers: b: c"), "mapping values are not allowed in this context; indent keys that belong together equally; a value with `: ` in it needs quotes".into()),
        (HEAD.replace("servers: b", "servers: \"b"), "close the quote".into()),
        (HEAD.replace("servers: b", "servers: #b"), "put quotes around it".into()),
        (HEAD.replace(": a", ": {{ .Values.name }}"), "render it first, for example with `helm template`".into()),
        (format!("{}---\na: b\n", more("")), "a pipeline is one document: remove one of them".into()),
        ("# nothing\n".into(), "write at least `application`, `kafka` and `transforms`".into()),
    ] {
        let found = parse(&file).err().unwrap_or_default();
        assert!(found.ends_with(&format!(" {expected}")), "{found}\nin:\n{file}");
    }
}
