use sidestream_core::{
    ports::TransactionError,
    task::{FailureKind, Sample, SampleValue},
};

use super::*;

#[test]
fn the_page_of_metrics_is_the_list_in_the_code() {
    let page = include_str!("../METRICS.md");
    let table: Vec<&str> = page.lines().filter(|line| line.starts_with('|')).collect();
    let listed: Vec<String> = names::table().lines().map(str::to_owned).collect();
    assert_eq!(table, listed, "put this into METRICS.md:\n{}", names::table());
}

#[test]
fn names_follow_the_rules_of_prometheus() {
    for metric in names::ALL {
        let legal = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(legal(metric.name) && metric.labels.iter().all(|label| legal(label)));
        assert!(metric.name.starts_with("sidestream_"));
        let counts = metric.name.ends_with("_total");
        assert_eq!(counts, metric.kind == Kind::Counter, "{}", metric.name);
        assert_eq!(names::ALL.iter().filter(|other| other.name == metric.name).count(), 1);
    }
}

fn written(metrics: &Metrics) -> String {
    let mut text = Text::default();
    metrics.write(&mut text);
    text.into_string()
}

#[test]
fn what_was_counted_is_told() {
    let metrics = Metrics::new(2, ["split", "count"]);
    metrics.workers[1].records.add(7);
    metrics.workers[0].commit(None, Duration::from_millis(3));
    metrics.workers[0]
        .commit(Some(&TransactionError::Unknown(String::new())), Duration::from_secs(60));
    let count = metrics.transform("count").unwrap();
    count.call(7, Duration::from_millis(20), Duration::from_millis(15));
    count.failure(FailureKind::Trap);
    count.memory(0, 3 << 16);
    count.memory(3 << 16, 1 << 16);
    let sample = |name: &str, value| Sample { name: name.into(), value };
    count.samples(&[
        sample("seen", SampleValue::Count(2)),
        sample("seen", SampleValue::Count(3)),
        sample("size", SampleValue::Observation(12.5)),
    ]);
    let text = written(&metrics);
    for line in [
        "# TYPE sidestream_records_total counter",
        "sidestream_records_total{worker=\"0\"} 0",
        "sidestream_records_total{worker=\"1\"} 7",
        "sidestream_commits_total{worker=\"0\",outcome=\"committed\"} 1",
        "sidestream_commits_total{worker=\"0\",outcome=\"unknown\"} 1",
        "sidestream_commit_duration_seconds_bucket{worker=\"0\",le=\"0.0025\"} 0",
        "sidestream_commit_duration_seconds_bucket{worker=\"0\",le=\"0.005\"} 1",
        "sidestream_commit_duration_seconds_bucket{worker=\"0\",le=\"+Inf\"} 2",
        "sidestream_commit_duration_seconds_count{worker=\"0\"} 2",
        "sidestream_transform_records_total{transform=\"count\"} 7",
        "sidestream_guest_cpu_seconds_total{transform=\"count\"} 0.015",
        "sidestream_guest_memory_bytes{transform=\"count\"} 65536",
        "sidestream_failures_total{transform=\"count\",kind=\"trap\"} 1",
        "sidestream_module_counter_total{transform=\"count\",name=\"seen\"} 5",
        "sidestream_module_observations_sum{transform=\"count\",name=\"size\"} 12.5",
        "sidestream_module_observations_bucket{transform=\"count\",name=\"size\",le=\"100\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_module_that_makes_names_up_is_bounded() {
    let metrics = Metrics::new(1, ["wild"]);
    let wild = metrics.transform("wild").unwrap();
    for number in 0..MODULE_NAMES_MAX + 50 {
        wild.samples(&[Sample { name: format!("n{number}"), value: SampleValue::Count(1) }]);
    }
    let text = written(&metrics);
    let series = text.lines().filter(|line| line.starts_with("sidestream_module_counter_total{"));
    assert_eq!(series.count(), MODULE_NAMES_MAX);
    assert!(text.contains("sidestream_module_dropped_samples_total{transform=\"wild\"} 50\n"));
}

#[test]
fn labels_are_escaped() {
    let mut text = Text::default();
    text.sample(&names::TASKS, &["a\"b\\c\nd"], 1);
    assert_eq!(text.into_string(), "sidestream_tasks{state=\"a\\\"b\\\\c\\nd\"} 1\n");
}
