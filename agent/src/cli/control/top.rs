//! `sidestream top`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clap::Args;

use super::{status, to_json};
use crate::{
    cli::output::Output,
    control::{
        client::{Client, Error},
        proto::{Input, Status},
    },
};

/// How many characters a bar has.
const BAR_LENGTH: usize = 30;

/// How often, and how many times.
#[derive(Clone, Copy, Debug, Args)]
pub struct Refresh {
    /// Seconds from one view to the next.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub interval: u16,
    /// End after so many views; without it at ctrl-c.
    #[arg(long)]
    pub times: Option<u64>,
}

/// Shows the status again and again, with how fast the agent goes.
pub(super) fn run(
    client: &mut Client,
    refresh: &Refresh,
    output: &mut Output,
) -> Result<(), Error> {
    let mut before: Option<(Instant, i64)> = None;
    let mut restores = Restores::default();
    for view in 1u64.. {
        let status = client.status()?;
        let now = (Instant::now(), committed(&status));
        let speed = before.map(|before| speed(before, now));
        before = Some(now);
        let mut lines = vec![headline(&status, speed)];
        lines.extend(status::brief_lines(&status));
        lines.extend(restores.lines(&status));
        output.view(&lines, &to_json(&status));
        if refresh.times.is_some_and(|times| view >= times) {
            break;
        }
        std::thread::park_timeout(Duration::from_secs(refresh.interval.into()));
    }
    Ok(())
}

/// How far the restores are that are under way.
#[derive(Default)]
struct Restores {
    /// For each task that restores, how much was left when that was seen first.
    whole: BTreeMap<String, u64>,
}

impl Restores {
    /// A bar for each task that restores.
    fn lines(&mut self, status: &Status) -> Vec<String> {
        let tasks = status.workers.iter().flat_map(|worker| &worker.tasks);
        let left: BTreeMap<&str, u64> = tasks
            .filter(|task| task.restore_remaining > 0)
            .map(|task| (task.id.as_str(), task.restore_remaining))
            .collect();
        self.whole.retain(|task, _| left.contains_key(task.as_str()));
        let bar = |(task, left): (&str, u64)| {
            let whole = self.whole.entry(task.to_owned()).or_insert(left);
            *whole = left.max(*whole);
            let done = (*whole - left) as f64 / *whole as f64;
            let full = (done * BAR_LENGTH as f64) as usize;
            let (full, rest) = ("#".repeat(full), "-".repeat(BAR_LENGTH - full));
            format!("restore {task:<7} [{full}{rest}] {:3.0} %, {left} left", 100.0 * done)
        };
        left.into_iter().map(bar).collect()
    }
}

fn inputs(status: &Status) -> impl Iterator<Item = &Input> {
    status.workers.iter().flat_map(|worker| &worker.tasks).flat_map(|task| &task.inputs)
}

/// All committed offsets together: their rise is how many records were processed.
fn committed(status: &Status) -> i64 {
    inputs(status).filter_map(|input| input.committed_offset).sum()
}

fn speed(before: (Instant, i64), now: (Instant, i64)) -> f64 {
    let seconds = (now.0 - before.0).as_secs_f64().max(0.001);
    // Tasks that came or went move the sum as well.
    (now.1 - before.1).max(0) as f64 / seconds
}

fn headline(status: &Status, speed: Option<f64>) -> String {
    let tasks = status.workers.iter().map(|worker| worker.tasks.len()).sum::<usize>();
    let lag: u64 = inputs(status).filter_map(|input| input.lag).sum();
    let restoring: u64 =
        status.workers.iter().flat_map(|w| &w.tasks).map(|task| task.restore_remaining).sum();
    let speed = speed.map_or("-".to_owned(), |speed| format!("{speed:.0}"));
    format!("{tasks} tasks, {speed} offsets/s, lag {lag}, {restoring} offsets to restore")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::proto::{Task, Worker};

    fn restoring(left: &[(&str, u64)]) -> Status {
        let task = |&(id, restore_remaining): &(&str, u64)| Task {
            id: id.to_owned(),
            restore_remaining,
            ..Task::default()
        };
        let tasks = left.iter().map(task).collect();
        Status { workers: vec![Worker { tasks, ..Worker::default() }], ..Status::default() }
    }

    #[test]
    fn a_restore_has_a_bar_until_it_is_done() {
        let mut restores = Restores::default();
        let begun = restores.lines(&restoring(&[("0_1", 3_000), ("0_2", 0)]));
        let empty = "-".repeat(30);
        assert_eq!(begun, [format!("restore 0_1     [{empty}]   0 %, 3000 left")]);
        let later = restores.lines(&restoring(&[("0_1", 1_000)]));
        let (full, rest) = ("#".repeat(20), "-".repeat(10));
        assert_eq!(later, [format!("restore 0_1     [{full}{rest}]  67 %, 1000 left")]);
        assert!(restores.lines(&restoring(&[("0_1", 0)])).is_empty());
        let again = restores.lines(&restoring(&[("0_1", 10)]));
        assert!(again[0].ends_with("  0 %, 10 left"), "{again:?}");
    }
}
