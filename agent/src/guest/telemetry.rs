//! What a guest says and counts in a call, bounded and cleaned.

use std::sync::Arc;

use sidestream_core::task::{Level, LogLine, Sample, SampleValue, Telemetry};

use super::{Config, text};

/// Where a guest prints to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Standard output: lines at level info.
    Out,
    /// Standard error: lines at level warn.
    Err,
}

/// Collects the telemetry of a call.
#[derive(Debug)]
pub(super) struct Collector {
    config: Arc<Config>,
    lines: Vec<LogLine>,
    lines_dropped: u64,
    samples: Vec<Sample>,
    observations: usize,
    samples_dropped: u64,
    /// The metrics that the instance has used so far.
    names: Vec<String>,
    printed: [Vec<u8>; 2],
}

impl Collector {
    /// One that has nothing yet.
    pub(super) const fn new(config: Arc<Config>) -> Self {
        Self {
            config,
            lines: Vec::new(),
            lines_dropped: 0,
            samples: Vec::new(),
            observations: 0,
            samples_dropped: 0,
            names: Vec::new(),
            printed: [Vec::new(), Vec::new()],
        }
    }

    /// Takes a log line, if its level is kept.
    pub(super) fn log(&mut self, level: Level, message: &str) {
        if level < self.config.log_level_min {
            return;
        }
        if self.lines.len() >= self.config.log_lines_max {
            self.lines_dropped += 1;
            return;
        }
        let message = text::clean(message, self.config.log_line_bytes_max);
        self.lines.push(LogLine { level, message });
    }

    /// Adds to a counter. One sample stands for all additions of a call.
    pub(super) fn count(&mut self, name: &str, by: u64) {
        let Some(name) = self.metric(name) else { return };
        let sum = self.samples.iter_mut().find_map(|sample| match &mut sample.value {
            SampleValue::Count(sum) if sample.name == name => Some(sum),
            SampleValue::Count(_) | SampleValue::Observation(_) => None,
        });
        match sum {
            Some(sum) => *sum = sum.saturating_add(by),
            // Counters stand before observations, so that finding one does not pass those.
            None => self.samples.insert(0, Sample { name, value: SampleValue::Count(by) }),
        }
    }

    /// Takes an observation of a histogram; one that is infinite or no number is left out.
    pub(super) fn observe(&mut self, name: &str, value: f64) {
        if !value.is_finite() {
            return;
        }
        let Some(name) = self.metric(name) else { return };
        if self.observations >= self.config.observations_max {
            self.samples_dropped += 1;
            return;
        }
        self.observations += 1;
        self.samples.push(Sample { name, value: SampleValue::Observation(value) });
    }

    fn metric(&mut self, name: &str) -> Option<String> {
        let name = text::metric_name(name)?;
        if !self.names.contains(&name) {
            if self.names.len() >= self.config.metrics_max {
                self.samples_dropped += 1;
                return None;
            }
            self.names.push(name.clone());
        }
        Some(name)
    }

    /// Takes what was printed; each line becomes a log line.
    pub(super) fn print(&mut self, stream: Stream, bytes: &[u8]) {
        let mut parts = bytes.split(|&byte| byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            self.collect(stream, part);
            self.end_line(stream);
        }
        self.collect(stream, last);
    }

    fn collect(&mut self, stream: Stream, part: &[u8]) {
        let printed = &mut self.printed[stream as usize];
        let room = self.config.log_line_bytes_max.saturating_sub(printed.len());
        printed.extend_from_slice(&part[..part.len().min(room)]);
    }

    fn end_line(&mut self, stream: Stream) {
        let line = std::mem::take(&mut self.printed[stream as usize]);
        let level = match stream {
            Stream::Out => Level::Info,
            Stream::Err => Level::Warn,
        };
        if !line.is_empty() {
            self.log(level, &String::from_utf8_lossy(&line));
        }
    }

    /// The last complaint of a guest that trapped: that is where runtimes print their panics.
    pub(super) fn last_words(&mut self) -> Option<&str> {
        self.end_line(Stream::Err);
        let complaint = self.lines.iter().rev().find(|line| line.level >= Level::Warn);
        complaint.map(|line| line.message.as_str())
    }

    /// Gives what was collected and begins anew.
    pub(super) fn take(&mut self) -> Telemetry {
        self.end_line(Stream::Out);
        self.end_line(Stream::Err);
        let (lines, samples) = (self.lines_dropped, self.samples_dropped);
        if lines > 0 || samples > 0 {
            let message = format!("{lines} more lines and {samples} more samples were left out");
            self.lines.push(LogLine { level: Level::Warn, message });
        }
        (self.lines_dropped, self.samples_dropped, self.observations) = (0, 0, 0);
        Telemetry {
            lines: std::mem::take(&mut self.lines),
            samples: std::mem::take(&mut self.samples),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector() -> Collector {
        Collector::new(Arc::new(Config {
            log_lines_max: 2,
            log_line_bytes_max: 8,
            metrics_max: 2,
            observations_max: 2,
            ..Config::default()
        }))
    }

    fn lines(collector: &mut Collector) -> Vec<String> {
        collector.take().lines.into_iter().map(|line| line.message).collect()
    }

    #[test]
    fn lines_are_filtered_cut_and_counted() {
        let mut collector = collector();
        collector.log(Level::Debug, "unread");
        collector.log(Level::Info, "one line that is long");
        collector.log(Level::Info, "two");
        collector.log(Level::Info, "three");
        let expected = ["one line", "two", "1 more lines and 0 more samples were left out"];
        assert_eq!(lines(&mut collector), expected);
        assert!(lines(&mut collector).is_empty());
    }

    #[test]
    fn what_is_printed_becomes_lines() {
        let mut collector = collector();
        collector.print(Stream::Out, b"a\nlong");
        collector.print(Stream::Out, b"er than a line may be");
        collector.print(Stream::Err, b"\n\n");
        assert_eq!(lines(&mut collector), ["a", "longer t"]);
    }

    #[test]
    fn samples_are_summed_and_bounded() {
        let mut collector = collector();
        for value in [1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 2.0, 3.0] {
            collector.observe("size", value);
            collector.count("seen", 2);
            collector.count("third", 1);
        }
        let telemetry = collector.take();
        assert_eq!(telemetry.samples.len(), 3);
        let seen = Sample { name: "seen".to_owned(), value: SampleValue::Count(12) };
        assert_eq!(telemetry.samples[0], seen);
        assert_eq!(telemetry.lines.len(), 1);
    }
}
