//! `sidestream status`, for people.

use std::path::Path;

use crate::{
    cli::text::{MESSAGE_CHARS_MAX, clean},
    control::{
        proto::{Input, Status, Task, Transform, Version, Worker},
        short_digest,
    },
};

/// For how long a transaction has to hold an input back before it is worth a word, in seconds.
const HELD_SECONDS_MIN: u64 = 5;

/// What an agent does, in lines, with the versions of its transforms.
pub(super) fn lines(status: &Status) -> Vec<String> {
    lines_with(status, |transform| {
        let mut lines = vec![of_transform(transform)];
        // One alone is said already.
        if transform.versions.len() > 1 {
            lines.extend(transform.versions.iter().map(of_version));
        }
        lines
    })
}

/// What an agent does, in fewer lines.
pub(super) fn brief_lines(status: &Status) -> Vec<String> {
    lines_with(status, |transform| vec![of_transform(transform)])
}

fn lines_with(status: &Status, of_transform: fn(&Transform) -> Vec<String>) -> Vec<String> {
    let ready = match (status.ready, status.live) {
        (_, false) => "STUCK".to_owned(),
        (true, true) => "ready".to_owned(),
        (false, true) => format!("not ready: {}", status.not_ready_reason),
    };
    let paused = if status.paused { ", paused" } else { "" };
    let mut lines = vec![format!(
        "{} ({}), sidestream {}: {}{paused}, {ready}",
        status.application,
        status.identity,
        status.version,
        status.state().name()
    )];
    if !status.http_address.is_empty() {
        lines.push(format!("probes and metrics: http://{}", status.http_address));
    }
    lines.extend(status.transforms.iter().flat_map(of_transform));
    for worker in &status.workers {
        lines.extend(of_worker(worker));
    }
    lines
}

fn of_transform(transform: &Transform) -> String {
    let digest = match transform.digest.as_str() {
        "" => "not loaded yet",
        digest => short_digest(digest),
    };
    let probation = transform.versions.iter().any(|version| version.on_probation);
    let probation = if probation { ", on probation" } else { "" };
    let of = |path: &str| Path::new(path).file_name().map(ToOwned::to_owned);
    let running = transform.versions.iter().find(|version| version.running);
    let other = running.filter(|version| of(&version.name) != of(&transform.module));
    let (file, instead) = match other {
        Some(version) => (&version.name, format!(" instead of {}", transform.module)),
        None => (&transform.module, String::new()),
    };
    format!("transform {}: {file} ({digest}{probation}){instead}", transform.name)
}

fn of_version(version: &Version) -> String {
    let since = jiff::Timestamp::from_millisecond(version.since_ms).unwrap_or_default();
    let state = match (version.running, version.on_probation) {
        (_, true) => " runs, on probation",
        (true, false) => " runs",
        (false, false) => "",
    };
    format!("  version {} since {since:.0} {}{state}", short_digest(&version.digest), version.name)
}

fn of_worker(worker: &Worker) -> Vec<String> {
    let waits = match worker.waiting_for.as_str() {
        "" => String::new(),
        reason => format!(", waits: {reason}"),
    };
    let rests = if worker.rests { ", rests" } else { "" };
    let stands = match worker.doing.as_str() {
        "" => String::new(),
        call => format!(", has not turned for {} s: it is {call}", worker.turned_ms_ago / 1_000),
    };
    let mut lines = vec![format!(
        "worker {}: {} tasks{rests}{waits}{stands}",
        worker.number,
        worker.tasks.len()
    )];
    lines.extend(worker.tasks.iter().map(of_task));
    lines
}

fn of_task(task: &Task) -> String {
    let mut line = format!("  task {:<7} {:<10}", task.id, task.state().name());
    if task.restore_remaining > 0 {
        line.push_str(&format!(" {} changelog offsets left", task.restore_remaining));
    }
    let inputs: Vec<String> = task.inputs.iter().map(of_input).collect();
    line.push_str(&format!(" {}", inputs.join(", ")));
    if !task.reason.is_empty() {
        line.push_str(&format!(" ({})", clean(&task.reason, MESSAGE_CHARS_MAX)));
    }
    line
}

fn of_input(input: &Input) -> String {
    let number = |number: Option<String>| number.unwrap_or_else(|| "?".to_owned());
    let held = match (input.held_back, input.held_back_ms / 1_000) {
        (0, _) | (_, 0..HELD_SECONDS_MIN) => String::new(),
        (offsets, seconds) => format!(
            ", {offsets} of it held back for {seconds} s by a transaction that its producer has not \
             ended"
        ),
    };
    format!(
        "{}-{} at {}, lag {}{held}",
        input.topic,
        input.partition,
        number(input.committed_offset.map(|offset| offset.to_string())),
        number(input.lag.map(|lag| lag.to_string()))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(digest: &str, running: bool, on_probation: bool) -> Version {
        let (digest, name) = (digest.repeat(32), format!("{digest}.wasm"));
        Version { digest, since_ms: 1_700_000_000_000, running, on_probation, name }
    }

    fn check(versions: &[Version], brief: &str, all: &[&str]) {
        let digest = versions.first().map(|version| version.digest.clone()).unwrap_or_default();
        let (name, module) = ("count".to_owned(), "count.wasm".to_owned());
        let versions = versions.to_vec();
        let transform = Transform { name, module, digest, versions, ..Transform::default() };
        let status = Status { transforms: vec![transform], ..Status::default() };
        assert_eq!(brief_lines(&status)[1..], [brief]);
        assert_eq!(lines(&status)[1..], [&[brief], all].concat());
    }

    #[test]
    fn versions_are_listed_where_there_are_several() {
        check(&[], "transform count: count.wasm (not loaded yet)", &[]);
        let one = "transform count: 3f.wasm (3f3f3f3f3f3f) instead of count.wasm";
        check(&[version("3f", true, false)], one, &[]);
        check(
            &[version("3f", true, true), version("1b", false, false)],
            "transform count: 3f.wasm (3f3f3f3f3f3f, on probation) instead of count.wasm",
            &[
                "  version 3f3f3f3f3f3f since 2023-11-14T22:13:20Z 3f.wasm runs, on probation",
                "  version 1b1b1b1b1b1b since 2023-11-14T22:13:20Z 1b.wasm",
            ],
        );
    }
}
