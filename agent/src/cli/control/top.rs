//! `sidestream top`.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;

use super::{status, to_json};
use crate::{
    cli::output::Output,
    control::{
        client::{Client, Error},
        proto::{Input, Status, Transform},
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

/// Shows the status again and again, with how fast the agent goes; while no agent answers, that. Fails
/// if the last view has none.
pub(super) fn run(
    client: &mut Client,
    refresh: &Refresh,
    output: &mut Output,
) -> Result<(), Error> {
    let mut views = Views::default();
    for view in 1u64.. {
        let answer = client.status();
        let is_last = refresh.times.is_some_and(|times| view >= times);
        let (lines, json) = match (&answer, is_last) {
            (Ok(status), _) => (views.of(status, Instant::now()), to_json(status)),
            (Err(Error::Unreachable { .. }), false) => {
                let reason = answer.err().map_or(String::new(), |error| error.to_string());
                (views.away(&reason, Instant::now()), json!({ "away": reason }))
            }
            (Err(_), _) => return answer.map(drop),
        };
        output.view(&lines, &json);
        if is_last {
            break;
        }
        std::thread::park_timeout(Duration::from_secs(refresh.interval.into()));
    }
    Ok(())
}

/// What one view tells with the help of those before.
#[derive(Default)]
struct Views {
    before: Option<(Instant, Status)>,
    restores: Restores,
}

impl Views {
    /// Of an agent that answers.
    fn of(&mut self, status: &Status, now: Instant) -> Vec<String> {
        // An agent that was started anew counts anew.
        let before = self.before.take().filter(|(_, of)| of.started_at_ms == status.started_at_ms);
        let since = before.as_ref().map(|(at, of)| (now - *at, of));
        let mut lines = vec![headline(status, since)];
        lines.extend(status::brief_lines(status));
        lines.extend(status.transforms.iter().map(|transform| {
            let same = |of: &&Transform| of.name == transform.name;
            let before =
                since.and_then(|(time, of)| Some((time, of.transforms.iter().find(same)?)));
            work(transform, before)
        }));
        lines.extend(self.restores.lines(status));
        self.before = Some((now, status.clone()));
        lines
    }

    /// Of one that does not: for how long it has not, and what it did last.
    fn away(&self, reason: &str, now: Instant) -> Vec<String> {
        let Some((at, status)) = &self.before else {
            return vec![format!("{reason}; waiting for it")];
        };
        let seconds = (now - *at).as_secs();
        let mut lines = vec![format!("{reason}; waiting for it, this was {seconds} s ago:")];
        lines.extend(status::brief_lines(status));
        lines
    }
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

fn headline(status: &Status, since: Option<(Duration, &Status)>) -> String {
    let tasks = status.workers.iter().map(|worker| worker.tasks.len()).sum::<usize>();
    let lag: u64 = inputs(status).filter_map(|input| input.lag).sum();
    let restoring: u64 =
        status.workers.iter().flat_map(|w| &w.tasks).map(|task| task.restore_remaining).sum();
    let speed = since.map_or("-".to_owned(), |(time, before)| {
        // Tasks that came or went move the sum as well.
        let risen = (committed(status) - committed(before)).max(0) as f64;
        format!("{:.0}", risen / time.as_secs_f64().max(0.001))
    });
    format!("{tasks} tasks, {speed} offsets/s, lag {lag}, {restoring} offsets to restore")
}

/// What a transform has come to since the agent's start, and how much of a processor it takes.
fn work(transform: &Transform, since: Option<(Duration, &Transform)>) -> String {
    let Transform { name, records, failures, skipped, dead_lettered, cpu_ms, .. } = transform;
    let cpu = *cpu_ms as f64 / 1_000.0;
    let (mut speed, mut share) = (String::new(), String::new());
    if let Some((time, before)) = since {
        let seconds = time.as_secs_f64().max(0.001);
        let risen = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        speed = format!(" ({:.0}/s)", risen(*records, before.records));
        share = format!(" ({:.0} %)", risen(*cpu_ms, before.cpu_ms) / 10.0);
    }
    format!(
        "work of {name}: {records} records{speed}, {failures} failures, {skipped} skipped, \
         {dead_lettered} dead letters, {cpu:.1} s of processor time{share}"
    )
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

    /// An agent that has counted so much.
    fn counted(started_at_ms: i64, records: u64, cpu_ms: u64) -> Status {
        let transform = Transform {
            name: "count".to_owned(),
            records,
            failures: 2,
            skipped: 3,
            dead_lettered: 5,
            cpu_ms,
            ..Transform::default()
        };
        Status { started_at_ms, transforms: vec![transform], ..Status::default() }
    }

    #[test]
    fn each_transform_has_its_work_and_an_agent_that_is_away_is_waited_for() {
        let (mut views, start) = (Views::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let last = |lines: Vec<String>| lines.last().cloned().unwrap();
        assert_eq!(views.away("no agent answers", start), ["no agent answers; waiting for it"]);
        let first = "work of count: 100 records, 2 failures, 3 skipped, 5 dead letters, 1.5 s of \
                     processor time";
        assert_eq!(last(views.of(&counted(1, 100, 1_500), start)), first);
        let then = "work of count: 300 records (100/s), 2 failures, 3 skipped, 5 dead letters, \
                    2.0 s of processor time (25 %)";
        assert_eq!(last(views.of(&counted(1, 300, 2_000), after(2))), then);
        let away = views.away("no agent answers", after(9));
        assert_eq!(away[0], "no agent answers; waiting for it, this was 7 s ago:");
        assert!(away.len() > 1, "{away:?}");
        let anew = views.of(&counted(2, 100, 1_500), after(12));
        assert!(anew[0].contains("- offsets/s"), "{anew:?}");
        assert_eq!(last(anew), first, "it counts anew");
    }
}
