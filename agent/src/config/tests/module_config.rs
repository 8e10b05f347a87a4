//! What a module is configured with, and what comes from outside in it.

use super::*;

/// The hello pipeline with this configuration of its module; the first line of `config` is line 10.
fn configured(config: &str) -> String {
    format!("{HELLO}    config:\n{config}\n")
}

#[track_caller]
fn check_config(config: &str, expected: &str) {
    let pipeline = parse(&configured(config)).unwrap();
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!(json(&pipeline.transforms[0].config.0), json(expected), "of:\n{config}");
}

#[test]
fn variables_keep_their_types_and_quotes_make_text() {
    check_config("      a: ${WORKERS}", r#"{"a":3}"#);
    check_config("      a: ${NONE:-60000}", r#"{"a":60000}"#);
    check_config("      a: ${NONE:-${WORKERS}}", r#"{"a":3}"#);
    check_config("      a: ${NONE:-true}", r#"{"a":true}"#);
    check_config("      a: ${NONE:-0.5}", r#"{"a":0.5}"#);
    check_config("      a: ${PASSWORD}", r#"{"a":"hunter2"}"#);
    check_config("      a: ${NONE:-}", r#"{"a":""}"#);
    check_config("      a: '${WORKERS}'", r#"{"a":"3"}"#);
    check_config("      a: \"${WORKERS}\"", r#"{"a":"3"}"#);
    check_config("      a: ${WORKERS} times", r#"{"a":"3 times"}"#);
    check_config("      a: !!str ${WORKERS}", r#"{"a":"3"}"#);
    check_config("      a: |-\n        ${WORKERS}", r#"{"a":"3"}"#);
    check_config("      a: >-\n        ${WORKERS}", r#"{"a":"3"}"#);
    check_config("      a:\n        ${WORKERS}", r#"{"a":3}"#);
    check_config("      a: [x, y]\n      b:\n        - ${WORKERS}", r#"{"a":["x","y"],"b":[3]}"#);
    check_config(
        "      a: &n ${WORKERS}\n      b: *n\n      c: &t '${WORKERS}'\n      d: *t",
        r#"{"a":3,"b":3,"c":"3","d":"3"}"#,
    );
    check_config(
        "      base: &base { x: 1, y: 2 }\n      a: { <<: *base, y: 3 }",
        r#"{"base":{"x":1,"y":2},"a":{"x":1,"y":3}}"#,
    );
}

#[test]
fn values_of_every_kind_arrive_as_they_are() {
    check_config(
        "      { n: null, b: true, i: -3, u: 18446744073709551615, f: 1.5, s: '1', e: {}, l: [[]] }",
        r#"{"n":null,"b":true,"i":-3,"u":18446744073709551615,"f":1.5,"s":"1","e":{},"l":[[]]}"#,
    );
    check(
        &configured("      a: 1\n      a: 2"),
        "11:7: the key `a` is already there; remove one of them",
    );
    check(
        &configured("      a:\n        b: ${NONE}"),
        "11:12: `config.a.b`: the environment variable `NONE` is not set; set it, or give a default: `${NONE:-default}`",
    );
}
