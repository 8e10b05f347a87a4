//! How a transform's module is replaced while records flow.

use std::time::Duration;

use serde_json::json;

use crate::config::{
    problem::Problem,
    reader::Reader,
    section::{Bound, NOT_ZERO, section},
    setting::{Count, Ratio},
};

/// The most versions of a transform that can be kept.
const FEW: Bound<u32> = Bound {
    is_within: |versions| *versions <= 100,
    refusal: "is more than 100",
    remedy: "lower it: each version has the size of a module on disk",
    schema: || json!({ "maximum": 100 }),
};

section! {
    /// How a transform's module is replaced while records flow: the new one is on probation first, and
    /// the one before comes back by itself if the new one traps, fails or needs much more than it.
    #[derive(Default)]
    SwapSection("swap.") =>
    /// How a transform's module is replaced while records flow; ratios are finite and above one.
    Swap {
        /// How many records a new module processes on probation.
        probation_records: Count = "1000";
        /// How long a probation takes at least.
        probation_time: Duration = "10s";
        // A partition where little arrives keeps nobody waiting.
        /// How long a probation is waited for at most: a module that has seen fewer records by then is
        /// unproven, and is still taken back if it does worse when they come.
        probation_time_max: Duration = "2m" in NOT_ZERO;
        /// How many times the failures of the module before a new one may have, for each record, where a
        /// record is to be tried again. (One that the new module fails at and the one before does not
        /// takes it back at once.)
        failure_ratio_max: Ratio = "2";
        /// How many times the CPU time, for each record.
        cpu_ratio_max: Ratio = "3";
        /// How many times the memory, for each instance.
        memory_ratio_max: Ratio = "3";
        /// How many times the output bytes, for each record. Not looked at unless set: how much comes out
        /// says nothing of how well.
        output_ratio_max: Ratio;
        /// How many versions of a transform are kept for a rollback.
        versions_max: Count = "5" in FEW;
        /// Whether the module files are watched: a changed one is swapped in.
        watch: bool = "true";
    }
}

/// How modules are replaced.
pub(crate) fn swap(reader: &mut Reader<'_>, section: &SwapSection) -> Swap {
    let swap = section.read(reader);
    let given = section.probation_time_max.as_ref().or(section.probation_time.as_ref());
    if let Some(field) = given
        && swap.probation_time_max < swap.probation_time
    {
        reader.problems.push(Problem::new(
            field.at,
            format!(
                "`swap.probation_time_max` ({:?}) is less than `swap.probation_time` ({:?})",
                swap.probation_time_max, swap.probation_time
            ),
            "raise the one, or lower the other",
        ));
    }
    swap
}
