//! What user code says, as log lines: no more of them in a second than may be.

use std::{collections::BTreeMap, time::Duration};

use sidestream_core::{
    record::{TaskId, TransformId},
    task::{Level, LogLine},
};
use tracing::{debug, error, info, trace, warn};

/// How long lines are counted before the count begins anew.
const WINDOW: Duration = Duration::from_secs(1);

/// Holds the lines of each transform to a number in a second: whoever takes the log may stand still,
/// and the worker that writes it with them.
pub(crate) struct Said {
    lines_max: u32,
    transforms: BTreeMap<TransformId, Window>,
}

/// What a transform said in the second that runs.
#[derive(Clone, Copy, Debug)]
struct Window {
    began: Duration,
    told: u32,
    left_out: u64,
}

impl Said {
    pub(crate) const fn new(lines_max: u32) -> Self {
        Self { lines_max, transforms: BTreeMap::new() }
    }

    /// Tells the lines of a transform that there is room for at `now`.
    pub(crate) fn tell(
        &mut self,
        task: TaskId,
        place: usize,
        transform: &str,
        lines: &[LogLine],
        now: Duration,
    ) {
        let id = TransformId { subtopology: task.subtopology, transform: place };
        let (room, left_out) = self.take(id, lines.len(), now);
        if left_out > 0 {
            let lines_max = self.lines_max;
            warn!(
                target: "sidestream::guest", transform, left_out,
                "lines were left out: more than {lines_max} in a second \
                 (`limits.log_lines_per_second_max`)"
            );
        }
        lines.iter().take(room).for_each(|line| write(task, transform, line));
    }

    /// How many of `count` lines may be told now, and how many were left out in the second before.
    fn take(&mut self, id: TransformId, count: usize, now: Duration) -> (usize, u64) {
        let new = Window { began: now, told: 0, left_out: 0 };
        let window = self.transforms.entry(id).or_insert(new);
        let mut left_out = 0;
        if now >= window.began + WINDOW {
            left_out = window.left_out;
            *window = new;
        }
        let room = usize::try_from(self.lines_max - window.told).unwrap_or(usize::MAX).min(count);
        window.told += u32::try_from(room).expect("no more than there is room for");
        window.left_out += (count - room) as u64;
        (room, left_out)
    }
}

fn write(task: TaskId, transform: &str, line: &LogLine) {
    let message = line.message.as_str();
    match line.level {
        Level::Trace => trace!(target: "sidestream::guest", %task, transform, "{message}"),
        Level::Debug => debug!(target: "sidestream::guest", %task, transform, "{message}"),
        Level::Info => info!(target: "sidestream::guest", %task, transform, "{message}"),
        Level::Warn => warn!(target: "sidestream::guest", %task, transform, "{message}"),
        Level::Error => error!(target: "sidestream::guest", %task, transform, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_transform_has_its_lines_of_a_second() {
        let mut said = Said::new(10);
        let [one, other] = [0, 1].map(|transform| TransformId { subtopology: 0, transform });
        let at = Duration::from_millis;
        assert_eq!(said.take(one, 6, at(0)), (6, 0));
        assert_eq!(said.take(one, 6, at(999)), (4, 0));
        assert_eq!(said.take(one, 100, at(999)), (0, 0));
        assert_eq!(said.take(other, 6, at(999)), (6, 0));
        assert_eq!(said.take(one, 11, at(1_000)), (10, 102), "and says what was left out");
        assert_eq!(said.take(one, 0, at(5_000)), (0, 1));
        assert_eq!(said.take(one, 1, at(5_000)), (1, 0));
    }
}
