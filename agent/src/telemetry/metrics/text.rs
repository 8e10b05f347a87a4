//! The text in which Prometheus reads metrics, format 0.0.4.
//!
//! Written here since the client library's text is OpenMetrics alone, in which counters have other
//! names than their samples, and which `promtool check metrics` does not take.

use std::fmt::{Display, Write};

use super::{Histogram, Kind, Metric};

/// What a reader of metrics is sent, as its `Content-Type`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics as text.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a metric; its samples follow.
    pub fn metric(&mut self, metric: &Metric) {
        let Metric { name, kind, help, .. } = metric;
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {}", kind.name()));
    }

    /// A sample of a counter or gauge, with the values of its labels.
    pub fn sample(&mut self, metric: &Metric, labels: &[&str], value: impl Display) {
        debug_assert_ne!(metric.kind, Kind::Histogram, "{}", metric.name);
        self.series(metric, "", labels, None, value);
    }

    /// A metric with one sample and no label.
    pub fn single(&mut self, metric: &Metric, value: impl Display) {
        self.metric(metric);
        self.sample(metric, &[], value);
    }

    /// The samples of a histogram, with the values of its labels.
    pub fn histogram(&mut self, metric: &Metric, labels: &[&str], histogram: &Histogram) {
        let (buckets, sum) = histogram.snapshot();
        let mut count = 0;
        let bounds = histogram.bounds().iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, bucket) in bounds.zip(buckets) {
            count += bucket;
            self.series(metric, "_bucket", labels, Some(&bound), count);
        }
        self.series(metric, "_sum", labels, None, sum);
        self.series(metric, "_count", labels, None, count);
    }

    /// What was written.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    fn series(
        &mut self,
        metric: &Metric,
        suffix: &str,
        labels: &[&str],
        bound: Option<&str>,
        value: impl Display,
    ) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        self.0.push_str(metric.name);
        self.0.push_str(suffix);
        let named = metric.labels.iter().copied().zip(labels.iter().copied());
        let mut first = true;
        for (label, text) in named.chain(bound.map(|bound| ("le", bound))) {
            self.0.push(if first { '{' } else { ',' });
            first = false;
            self.0.push_str(label);
            self.0.push_str("=\"");
            push_escaped(&mut self.0, text);
            self.0.push('"');
        }
        self.line(format_args!("{} {value}", if first { "" } else { "}" }));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes it");
    }
}

fn push_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}
