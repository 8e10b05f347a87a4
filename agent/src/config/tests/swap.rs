//! How modules are replaced.

use super::{pipeline::Swap, *};

#[test]
fn a_swap_has_a_probation_without_being_told() {
    let expected = Swap {
        probation_records: 1_000,
        probation_time: Duration::from_secs(10),
        probation_time_max: Duration::from_secs(120),
        failure_ratio_max: 2.0,
        cpu_ratio_max: 3.0,
        memory_ratio_max: 3.0,
        output_ratio_max: None,
        versions_max: 5,
        watch: true,
    };
    assert_eq!(parse(HELLO).unwrap().swap, expected);
    assert_eq!(parse(&with("swap: {}")).unwrap().swap, expected);
    let pipeline = parse(&with(
        "\
swap:
  probation_records: ${WORKERS}
  probation_time: 0s
  probation_time_max: 1s
  failure_ratio_max: 1.5
  cpu_ratio_max: 10
  memory_ratio_max: 1.01
  output_ratio_max: 1000
  versions_max: 100
  watch: false
",
    ));
    let expected = Swap {
        probation_records: 3,
        probation_time: Duration::ZERO,
        probation_time_max: Duration::from_secs(1),
        failure_ratio_max: 1.5,
        cpu_ratio_max: 10.0,
        memory_ratio_max: 1.01,
        output_ratio_max: Some(1_000.0),
        versions_max: 100,
        watch: false,
    };
    assert_eq!(pipeline.unwrap().swap, expected);
}

#[test]
fn what_a_probation_goes_by_must_be_possible() {
    for (keys, expected) in [
        (
            "cpu_ratio_max: 1",
            "1:24: `swap.cpu_ratio_max` can't be `1`; write a number above 1 and up to 1000, such \
             as `2` or `1.5`",
        ),
        (
            "failure_ratio_max: .inf",
            "1:28: `swap.failure_ratio_max` can't be `.inf`; write a number above 1 and up to \
             1000, such as `2` or `1.5`",
        ),
        (
            "probation_records: 0",
            "1:28: `swap.probation_records` can't be `0`; write a whole number between 1 and \
             2147483647",
        ),
        (
            "probation_time_max: 0s",
            "1:29: `swap.probation_time_max` can't be zero; write at least `1ms`",
        ),
        (
            "probation_time_max: 5s",
            "1:29: `swap.probation_time_max` (5s) is less than `swap.probation_time` (10s); raise \
             the one, or lower the other",
        ),
        (
            "probation_time: 3m",
            "1:25: `swap.probation_time_max` (120s) is less than `swap.probation_time` (180s); \
             raise the one, or lower the other",
        ),
        (
            "versions_max: 101",
            "1:23: `swap.versions_max` is more than 100; lower it: each version has the size of a \
             module on disk",
        ),
        ("watch: yes", "1:16: `swap.watch` can't be `yes`; known here are `true`, `false`"),
        ("cpu_ratio: 2", "1:9: unknown key `cpu_ratio`; did you mean `cpu_ratio_max`?"),
    ] {
        check(&with(&format!("swap: {{ {keys} }}")), expected);
    }
}

#[test]
fn the_schema_tells_the_range_of_a_ratio() {
    let schema = schema();
    let ratio = &schema["$defs"]["SwapSection"]["properties"]["cpu_ratio_max"];
    assert_eq!(ratio["default"], 3);
    assert!(ratio.to_string().contains("\"exclusiveMinimum\":1,"), "{ratio}");
    assert!(ratio["description"].as_str().unwrap().starts_with("How many times the CPU time"));
}
