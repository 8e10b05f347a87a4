//! `sidestream top`.

use std::time::{Duration, Instant};

use clap::Args;

use super::{status, to_json};
use crate::{
    cli::output::Output,
    control::{
        client::{Client, Error},
        proto::{Input, Status},
    },
};

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
    for view in 1u64.. {
        let status = client.status()?;
        let now = (Instant::now(), committed(&status));
        let speed = before.map(|before| speed(before, now));
        before = Some(now);
        let mut lines = vec![headline(&status, speed)];
        lines.extend(status::brief_lines(&status));
        output.view(&lines, &to_json(&status));
        if refresh.times.is_some_and(|times| view >= times) {
            break;
        }
        std::thread::park_timeout(Duration::from_secs(refresh.interval.into()));
    }
    Ok(())
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
