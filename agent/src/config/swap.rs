//! How a transform's module is replaced while records flow.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    defaults,
    problem::{Position, Problem},
    reader::Reader,
    scalar::Field,
    setting::{Count, Ratio},
};

/// The most versions of a transform that can be kept: each has the size of a module on disk.
const VERSIONS_MAX: u32 = 100;

/// How a transform's module is replaced while records flow: the new one is on probation first, and
/// the one before comes back by itself if the new one traps, fails or needs much more than it.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SwapSection {
    /// How many records a new module processes on probation.
    #[schemars(extend("default" = 1_000))]
    pub probation_records: Option<Field<Count>>,
    /// How long a probation takes at least.
    #[schemars(extend("default" = defaults::PROBATION_TIME))]
    pub probation_time: Option<Field<Duration>>,
    /// How long a probation is waited for at most: a module that has seen fewer records by then is
    /// unproven, and is still taken back if it does worse when they come.
    #[schemars(extend("default" = defaults::PROBATION_TIME_MAX))]
    pub probation_time_max: Option<Field<Duration>>,
    /// How many times the failures of the module before a new one may have, for each record, where a
    /// record is to be tried again. (One that the new module fails at and the one before does not
    /// takes it back at once.)
    #[schemars(extend("default" = 2))]
    pub failure_ratio_max: Option<Field<Ratio>>,
    /// How many times the CPU time, for each record.
    #[schemars(extend("default" = 3))]
    pub cpu_ratio_max: Option<Field<Ratio>>,
    /// How many times the memory, for each instance.
    #[schemars(extend("default" = 3))]
    pub memory_ratio_max: Option<Field<Ratio>>,
    /// How many times the output bytes, for each record. Not looked at unless set: how much comes out
    /// says nothing of how well.
    pub output_ratio_max: Option<Field<Ratio>>,
    /// How many versions of a transform are kept for a rollback.
    #[schemars(extend("default" = 5))]
    pub versions_max: Option<Field<Count>>,
    /// Whether the module files are watched: a changed one is swapped in.
    #[schemars(extend("default" = true))]
    pub watch: Option<Field<bool>>,
}

/// How a transform's module is replaced while records flow.
#[derive(Clone, Debug, PartialEq)]
pub struct Swap {
    /// How many records a new module processes on probation, at least one.
    pub probation_records: u64,
    /// How long a probation takes at least.
    pub probation_time: Duration,
    /// After which time a module that has seen fewer records counts as unproven, no less than
    /// `probation_time`.
    pub probation_time_max: Duration,
    /// How many times the failures of the module before a new one may have, for each record; this
    /// and the other ratios are finite and above one.
    pub failure_ratio_max: f64,
    /// How many times the CPU time, for each record.
    pub cpu_ratio_max: f64,
    /// How many times the memory, for each instance.
    pub memory_ratio_max: f64,
    /// How many times the output bytes, for each record; not looked at unless set.
    pub output_ratio_max: Option<f64>,
    /// How many versions of a transform are kept for a rollback, at least one.
    pub versions_max: u32,
    /// Whether the module files are watched.
    pub watch: bool,
}

/// How modules are replaced.
#[rustfmt::skip]
pub(crate) fn swap(reader: &mut Reader<'_>, section: SwapSection) -> Swap {
    let time_at = section.probation_time_max.as_ref().or(section.probation_time.as_ref()).map(|field| field.at);
    let versions_at = section.versions_max.as_ref().map(|field| field.at);
    let swap = Swap {
        probation_records: reader.optional("swap.probation_records", section.probation_records, defaults::PROBATION_RECORDS).0.into(),
        probation_time: reader.optional("swap.probation_time", section.probation_time, defaults::PROBATION_TIME),
        probation_time_max: reader.optional("swap.probation_time_max", section.probation_time_max, defaults::PROBATION_TIME_MAX),
        failure_ratio_max: reader.optional("swap.failure_ratio_max", section.failure_ratio_max, defaults::FAILURE_RATIO_MAX).0,
        cpu_ratio_max: reader.optional("swap.cpu_ratio_max", section.cpu_ratio_max, defaults::CPU_RATIO_MAX).0,
        memory_ratio_max: reader.optional("swap.memory_ratio_max", section.memory_ratio_max, defaults::MEMORY_RATIO_MAX).0,
        output_ratio_max: section.output_ratio_max.and_then(|field| reader.required("swap.output_ratio_max", &field)).map(|ratio| ratio.0),
        versions_max: reader.optional("swap.versions_max", section.versions_max, defaults::VERSIONS_MAX).0,
        watch: reader.optional("swap.watch", section.watch, defaults::WATCH),
    };
    reader.problems.extend(time_at.and_then(|at| swap.time_problem(at)));
    reader.problems.extend(versions_at.and_then(|at| swap.versions_problem(at)));
    swap
}

impl Swap {
    fn time_problem(&self, at: Position) -> Option<Problem> {
        if self.probation_time_max.is_zero() {
            let message = "`swap.probation_time_max` can't be zero";
            return Some(Problem::new(at, message, "write at least `1ms`"));
        }
        (self.probation_time_max < self.probation_time).then(|| {
            Problem::new(
                at,
                format!(
                    "`swap.probation_time_max` ({:?}) is less than `swap.probation_time` ({:?})",
                    self.probation_time_max, self.probation_time
                ),
                "raise the one, or lower the other",
            )
        })
    }

    fn versions_problem(&self, at: Position) -> Option<Problem> {
        (self.versions_max > VERSIONS_MAX).then(|| {
            let message = format!("`swap.versions_max` is more than {VERSIONS_MAX}");
            Problem::new(at, message, "lower it: each version has the size of a module on disk")
        })
    }
}
