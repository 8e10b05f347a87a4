//! `sidestream status`, for people.

use crate::control::proto::{Input, Status, Task, Worker};

/// What an agent does, in lines.
pub(super) fn lines(status: &Status) -> Vec<String> {
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
    for transform in &status.transforms {
        let digest = transform.digest.get(..12).unwrap_or("not loaded yet");
        lines.push(format!("transform {}: {} ({digest})", transform.name, transform.module));
    }
    for worker in &status.workers {
        lines.extend(of_worker(worker));
    }
    lines
}

fn of_worker(worker: &Worker) -> Vec<String> {
    let waits = match worker.waiting_for.as_str() {
        "" => String::new(),
        reason => format!(", waits: {reason}"),
    };
    let rests = if worker.rests { ", rests" } else { "" };
    let mut lines =
        vec![format!("worker {}: {} tasks{rests}{waits}", worker.number, worker.tasks.len())];
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
        line.push_str(&format!(" ({})", task.reason));
    }
    line
}

fn of_input(input: &Input) -> String {
    let number = |number: Option<String>| number.unwrap_or_else(|| "?".to_owned());
    format!(
        "{}-{} at {}, lag {}",
        input.topic,
        input.partition,
        number(input.committed_offset.map(|offset| offset.to_string())),
        number(input.lag.map(|lag| lag.to_string()))
    )
}
