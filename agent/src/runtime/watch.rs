//! What workers have to say, for the board, events and metrics.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sidestream_core::{
    record::{TaskId, TransformId},
    topology::{Topology, Version},
    worker::{CommitNotice, Notice, TaskState, Worker, WorkerError},
};

use super::{
    board::{Board, Instruction, SwapState, TaskView, WorkerBoard},
    environment::Environment,
};
use crate::telemetry::metrics::TransformMetrics;

/// How often it is written down how far the tasks are.
const POSITION_INTERVAL: Duration = Duration::from_millis(100);

/// Watches one worker.
pub(crate) struct Watcher {
    number: usize,
    board: Arc<Board>,
    topology: Arc<Topology>,
    /// For each sub-topology, what its transforms count.
    transforms: Vec<Vec<Option<Arc<TransformMetrics>>>>,
    /// What was left of each restore when it was last told.
    restoring: BTreeMap<TaskId, u64>,
    turns: u64,
    positions_at: Duration,
}

impl Watcher {
    pub(crate) fn new(number: usize, board: Arc<Board>, topology: Arc<Topology>) -> Self {
        let of = |name: &str| board.metrics.transform(name);
        let subtopologies = topology.subtopologies.iter();
        let transforms = subtopologies
            .map(|subtopology| subtopology.transforms.iter().map(|t| of(&t.name)).collect())
            .collect();
        let (restoring, positions_at) = (BTreeMap::new(), Duration::ZERO);
        Self { number, board, topology, transforms, restoring, turns: 0, positions_at }
    }

    /// Before a turn: tells the worker what was asked for; says whether that is to rest.
    pub(crate) fn instruct(&self, worker: &mut Worker<Environment>) -> Result<bool, WorkerError> {
        for instruction in self.own().take_mail() {
            match instruction {
                Instruction::Swap(swap) => worker.swap(*swap),
                Instruction::Keep(version) => {
                    if worker.keep(version) {
                        self.own().set_swap_state(version, SwapState::Kept);
                    }
                }
                Instruction::TakeBack { version, reason } => {
                    worker.revert(version, &reason)?;
                    self.own().set_swap_state(version, SwapState::TakenBack(reason));
                }
                Instruction::Retry(tasks) => worker.retry(&tasks),
            }
        }
        let paused = self.board.is_paused();
        match paused {
            true => worker.pause(),
            false => worker.resume(),
        }
        Ok(paused)
    }

    /// After a turn that ended at `now` (since the start) and was begun paused or not.
    pub(crate) fn turned(
        &mut self,
        worker: &Worker<Environment>,
        notices: &[Notice],
        paused: bool,
        now: Duration,
    ) {
        self.turns += 1;
        self.own().metrics.turns.store(self.turns, Ordering::Relaxed);
        notices.iter().for_each(|notice| self.told(notice));
        self.own().set_probations(&worker.probations());
        let rests = paused && !worker.has_open_work();
        // Positions first: who sees that it rests sees where.
        if now >= self.positions_at || (rests && !self.own().rests.load(Ordering::Relaxed)) {
            self.positions_at = now + POSITION_INTERVAL;
            self.own().set_positions(worker.is_assigned(), worker.task_positions());
        }
        self.own().rests.store(rests, Ordering::Release);
    }

    fn own(&self) -> &WorkerBoard {
        &self.board.workers[self.number]
    }

    /// Takes in one thing that happened.
    pub(super) fn told(&mut self, notice: &Notice) {
        match notice {
            Notice::Task { task, state } => self.task(*task, state),
            Notice::Restoring { task, remaining } => self.restoring(*task, *remaining),
            Notice::Rebuilding { task, store, reason } => {
                self.own().metrics.rebuilds.add(1);
                let store = &self.topology.subtopology(*task).stores[*store].name;
                self.event(Some(*task), "store_rebuilding", format!("{store}: {reason}"));
            }
            Notice::CommitEnded { error, took } => {
                self.own().metrics.commit(error.as_ref(), *took);
            }
            Notice::Committed(commit) => self.committed(commit),
            Notice::Dropped { reason } => {
                self.own().metrics.dropped.add(1);
                self.own().view().drop_one(reason);
                self.event(None, "transaction_dropped", reason);
            }
            Notice::Retrying { task, attempts, reason } => {
                if let Some(known) = self.own().view().tasks.get_mut(task) {
                    known.failure.clone_from(reason);
                }
                let message = format!("failed {attempts} times: {reason}");
                self.event(Some(*task), "task_retrying", message);
            }
            Notice::Held { task, reason } => self.held(*task, reason),
            Notice::Moved { task, reason } => self.event(Some(*task), "task_moved", reason),
            Notice::Skipped { task, reason, .. } => {
                self.event(Some(*task), "task_skipped", reason);
            }
            Notice::Swapped { transform, version } => self.swapped(*transform, *version, None),
            Notice::Reverted { transform, version, reason } => {
                self.swapped(*transform, *version, Some(reason));
            }
            Notice::Waiting(reason) => {
                let is_new = self.own().view().wait_for(reason);
                if is_new {
                    self.event(None, "waiting", reason);
                }
            }
            Notice::Recovered => {
                self.own().view().waiting = None;
                self.event(None, "recovered", "");
            }
        }
    }

    /// A task waits for something, as long as that is not there: told once.
    fn held(&self, task: TaskId, reason: &str) {
        let before = self
            .own()
            .view()
            .tasks
            .get_mut(&task)
            .map(|known| std::mem::replace(&mut known.failure, reason.to_owned()));
        if before.as_deref() != Some(reason) {
            self.event(Some(task), "waiting", reason);
        }
    }

    /// Another version of a transform took over, or was taken back for a reason.
    fn swapped(&self, transform: TransformId, version: Version, reverted: Option<&String>) {
        let subtopology = &self.topology.subtopologies[usize::from(transform.subtopology)];
        let name = &subtopology.transforms[transform.transform].name;
        let module = self.board.names.of(version);
        match reverted {
            None => self.event(None, "swap_taken_over", format!("`{name}`, {module}")),
            Some(reason) => {
                self.event(None, "swap_taken_back", format!("`{name}`, {module}: {reason}"));
            }
        }
        self.own().set_swap_state(
            version,
            reverted.map_or(SwapState::TakenOver, |reason| SwapState::TakenBack(reason.clone())),
        );
    }

    fn task(&mut self, task: TaskId, state: &TaskState) {
        self.restoring.remove(&task);
        let mut view = self.own().view();
        let remedied = remedied(task, state);
        let state = remedied.as_ref().unwrap_or(state);
        let (kind, reason) = match state {
            TaskState::Created => ("task_created", ""),
            TaskState::Restoring => ("task_restoring", ""),
            TaskState::Running => ("task_running", ""),
            TaskState::Suspended => ("task_suspended", ""),
            TaskState::Failed(reason) => ("task_failed", reason.as_str()),
            TaskState::Closed => ("task_closed", ""),
        };
        if *state == TaskState::Closed {
            view.tasks.remove(&task);
        } else {
            let known = view.tasks.entry(task).or_insert_with(|| TaskView {
                state: TaskState::Created,
                failure: String::new(),
                restore_remaining: 0,
                offsets: Vec::new(),
                stream_time: None,
                stops: 0,
            });
            known.stops += u64::from(matches!(state, TaskState::Failed(_)));
            known.state = state.clone();
            known.restore_remaining = 0;
        }
        match state {
            TaskState::Running => view.waiting = None,
            // What was dropped for it is dropped no more.
            TaskState::Failed(_) | TaskState::Closed => view.dropped = None,
            TaskState::Created | TaskState::Restoring | TaskState::Suspended => {}
        }
        drop(view);
        self.event(Some(task), kind, reason);
    }

    fn restoring(&mut self, task: TaskId, remaining: u64) {
        let before = self.restoring.insert(task, remaining).unwrap_or(remaining);
        self.own().metrics.restored.add(before.saturating_sub(remaining));
        if let Some(known) = self.own().view().tasks.get_mut(&task) {
            known.state = TaskState::Restoring;
            known.restore_remaining = remaining;
        }
    }

    fn committed(&self, commit: &CommitNotice) {
        let metrics = &self.own().metrics;
        metrics.records.add(commit.records);
        metrics.outputs.add(commit.outputs);
        metrics.changes.add(commit.changes);
        metrics.bytes.add(commit.bytes);
        let mut view = self.own().view();
        (view.waiting, view.dropped) = (None, None);
        for &(task, input, offset) in &commit.offsets {
            let Some(known) = view.tasks.get_mut(&task) else { continue };
            known.failure.clear();
            if let Some(at) = known.offsets.get_mut(input) {
                *at = offset;
            }
        }
        drop(view);
        for (task, transform, said) in &commit.telemetry {
            if let Some(of) = self.transform(*task, *transform) {
                of.samples(&said.samples);
            }
        }
        for passed in &commit.passed_over {
            if let Some(of) = self.transform(passed.task, passed.transform) {
                of.passed_over(passed.kind, passed.dead_letters.is_some(), passed.count);
            }
            let name = &self.topology.subtopology(passed.task).transforms[passed.transform].name;
            let (count, first) = (passed.count, &passed.first);
            let kind = match passed.dead_letters {
                Some(_) => "records_dead_lettered",
                None => "records_skipped",
            };
            let message = format!("{count} of `{name}`; the first: {first}");
            self.event(Some(passed.task), kind, message);
        }
    }

    fn transform(&self, task: TaskId, transform: usize) -> Option<&TransformMetrics> {
        self.transforms.get(usize::from(task.subtopology))?.get(transform)?.as_deref()
    }

    fn event(&self, task: Option<TaskId>, kind: &str, message: impl Into<String>) {
        let task = task.map_or(String::new(), |task| task.to_string());
        self.board.events.tell_of(self.number, task, kind, message);
    }
}

/// A task that was stopped, with what helps it.
fn remedied(task: TaskId, state: &TaskState) -> Option<TaskState> {
    match state {
        TaskState::Failed(reason) => Some(TaskState::Failed(format!(
            "{reason}; once that is put right, `sidestream retry {task}` tries it again"
        ))),
        _ => None,
    }
}
