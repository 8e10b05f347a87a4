//! Transforms, and how records go from one to the next.

use super::*;

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
        "5:12: transforms hand records round in a circle: `a`, `b`; break it, or lead one of the outputs through a `repartition` with `allow_loop: true`",
    );
}

#[test]
fn transforms_agree_on_what_they_share() {
    check_transforms(
        "  - {name: a, module: m, inputs: [{topic: x, start: latest}]}\n  - {name: b, module: m, inputs: [x]}\n",
        "5:35: `a` starts elsewhere in the topic `x`; give both the same `start` and `on_out_of_range`",
    );
    check_transforms(
        "  - {name: a, module: m, inputs: [x], outputs: {r: {repartition: r, partitions: 3}}}\n  - {name: b, module: m, inputs: [y, repartition: r], outputs: {q: {repartition: r, partitions: 4, allow_loop: true}}}\n",
        "5:65: the repartition `r` has 3 partitions elsewhere, 4 here; give `partitions` once",
    );
}

#[test]
fn nothing_is_concluded_from_what_was_refused() {
    check_transforms(
        "  - {name: a, module: m, inputs: [{topic: x, start: latst}]}\n  - {name: b, module: m, inputs: [{topic: x, start: latest}]}\n",
        "4:53: `start` can't be `latst`; write `earliest`, `latest` or a time such as `2026-01-31T12:00:00Z`",
    );
    check_transforms(
        "  - {name: a, module: m, inputs: [x], outputs: {o: {topic: x, allow_loop: yes}}}\n",
        "4:75: `allow_loop` can't be `yes`; known here are `true`, `false`",
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
fn a_topic_is_written_in_one_way() {
    const REMEDY: &str = "give both outputs the same `latest_per_key`";
    let written = "so that records of a key would change places";
    check_transforms(
        "  - {name: a, module: m, inputs: [x], outputs: {o: {topic: t, latest_per_key: true}}}\n  - {name: b, module: m, inputs: [x], outputs: {o: t, p: {topic: t, latest_per_key: true}}}\n",
        &format!(
            "5:49: the topic `t` is written with `latest_per_key` and without (line 4), {written}; {REMEDY}"
        ),
    );
    check_transforms(
        "  - {name: a, module: m, inputs: [x], outputs: {o: {topic: t, latest_per_key: true}}, on_error: {dead_letter: t}}\n",
        "4:49: `t` is the topic of the dead letters of `a`; give the output a topic of its own",
    );
}
