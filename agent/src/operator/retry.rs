//! Stopped tasks are tried again when an operator says so.

use std::time::{Duration, Instant};

use sidestream_core::{
    record::{Offset, TaskId, TopicPartition},
    topology::Topology,
    worker::TaskState,
};

use super::state_of;
use crate::{
    control::{Refusal, proto},
    runtime::{
        board::{Board, Instruction, TaskView, WorkerBoard},
        thread::Stop,
    },
};

/// How long it is waited for what comes of it: all attempts at a record, with the waits between
/// them, and a restore of little.
const TIME_MAX: Duration = Duration::from_secs(20);

/// How often it is looked at what the workers have done.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A task that was stopped.
struct Stopped<'a> {
    worker: &'a WorkerBoard,
    id: TaskId,
    stops: u64,
    offsets: Vec<Offset>,
}

/// Tries stopped tasks again, all unless some are `wanted`, and waits for what comes of it.
pub(crate) fn retry(
    (board, topology): (&Board, &Topology),
    stop: &Stop,
    wanted: &[String],
) -> Result<Vec<proto::Retried>, Refusal> {
    wanted.iter().try_for_each(|task| check(board, task))?;
    let mut stopped = Vec::new();
    for worker in &board.workers {
        let of_worker = stopped_of(worker, wanted);
        let tasks: Vec<TaskId> = of_worker.iter().map(|task| task.id).collect();
        if !tasks.is_empty() {
            worker.post(Instruction::Retry(tasks));
        }
        stopped.extend(of_worker);
    }
    let deadline = Instant::now() + TIME_MAX;
    while stopped.iter().any(|task| !task.is_decided(board, topology))
        && Instant::now() < deadline
        && !stop.is_requested()
    {
        std::thread::park_timeout(LOOK_INTERVAL);
    }
    Ok(stopped.iter().map(Stopped::outcome).collect())
}

/// Whether a task is here and stopped.
fn check(board: &Board, wanted: &str) -> Result<(), Refusal> {
    for worker in &board.workers {
        let view = worker.view();
        let Some(task) = view.tasks.iter().find(|(id, _)| id.to_string() == wanted) else {
            continue;
        };
        return match &task.1.state {
            TaskState::Failed(_) => Ok(()),
            state => {
                let state = state_of(state).name();
                Err(Refusal::Invalid(format!("task {wanted} is not stopped: it is {state}")))
            }
        };
    }
    let message = format!("task {wanted} is not here; `sidestream status` lists those that are");
    Err(Refusal::NotFound(message))
}

fn stopped_of<'a>(worker: &'a WorkerBoard, wanted: &[String]) -> Vec<Stopped<'a>> {
    let is_wanted = |id: &TaskId| wanted.is_empty() || wanted.contains(&id.to_string());
    let stopped = |(&id, task): (&TaskId, &TaskView)| {
        let is_stopped = matches!(task.state, TaskState::Failed(_));
        let (stops, offsets) = (task.stops, task.offsets.clone());
        (is_stopped && is_wanted(&id)).then_some(Stopped { worker, id, stops, offsets })
    };
    worker.view().tasks.iter().filter_map(stopped).collect()
}

impl Stopped<'_> {
    /// Whether it is known what came of it.
    fn is_decided(&self, board: &Board, topology: &Topology) -> bool {
        let view = self.worker.view();
        let Some(task) = view.tasks.get(&self.id) else { return true };
        match &task.state {
            TaskState::Failed(_) => task.stops > self.stops,
            TaskState::Running if task.failure.is_empty() => {
                task.offsets != self.offsets || has_read_all(board, topology, self.id, task)
            }
            _ => false,
        }
    }

    fn outcome(&self) -> proto::Retried {
        let view = self.worker.view();
        let (state, reason) = match view.tasks.get(&self.id) {
            None => (proto::TaskState::Unspecified, "it is not here any more".to_owned()),
            Some(task) => match &task.state {
                TaskState::Failed(reason) => (proto::TaskState::Failed, reason.clone()),
                state => (state_of(state), task.failure.clone()),
            },
        };
        proto::Retried { task: self.id.to_string(), state: state.into(), reason }
    }
}

/// Whether nothing is left that a task could read now, as far as that was looked up: what an open
/// transaction holds back may come at any time or never.
fn has_read_all(board: &Board, topology: &Topology, id: TaskId, task: &TaskView) -> bool {
    let inputs = &topology.subtopology(id).inputs;
    !task.offsets.is_empty()
        && inputs.iter().zip(&task.offsets).all(|(input, &at)| {
            board
                .end(TopicPartition::new(input.topic, id.partition))
                .is_some_and(|known| at >= known.end.stable)
        })
}
