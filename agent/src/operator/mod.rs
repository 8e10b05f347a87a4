//! What the control service asks of the agent.

use std::{
    ops::Bound,
    path::PathBuf,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use sidestream_core::{
    partitioner,
    record::{Offset, TaskId, TopicPartition},
    task::Scan,
    topology::Topology,
    worker::TaskState,
};
use tokio::sync::mpsc;
use tracing::info;

mod retry;
#[cfg(test)]
mod tests;

use crate::{
    control::{Operator, Page, Range, Refusal, now_ms, proto},
    rollout::{Swapper, Wish},
    runtime::{
        board::{Board, TaskView, WorkerBoard},
        thread::Stop,
    },
    state::{Found, Query, ReadError, Reading, Stores},
    telemetry::metrics::{CONTENT_TYPE, Text},
};

/// How long the name of a module may be that somebody swaps in.
const NAME_CHARACTERS_MAX: usize = 256;
/// How long a page of a store may take to pass over what was deleted.
const SCAN_TIME_MAX: Duration = Duration::from_secs(10);

/// The agent as those see it who watch and question it.
pub(crate) struct Desk {
    pub(crate) application: String,
    pub(crate) started_at_ms: i64,
    pub(crate) leave_on_stop: bool,
    pub(crate) board: Arc<Board>,
    pub(crate) stop: Stop,
    pub(crate) stores: Arc<Stores>,
    /// The transforms: name, file of the module, stores.
    pub(crate) transforms: Vec<(String, PathBuf, Vec<String>)>,
    /// Set once all workers run; before that, the agent is starting.
    pub(crate) running: OnceLock<Running>,
}

/// What an agent has that runs.
pub(crate) struct Running {
    pub(crate) topology: Arc<Topology>,
    pub(crate) swapper: Arc<Swapper>,
}

impl Desk {
    fn state(&self) -> proto::AgentState {
        match (self.stop.is_requested(), self.running.get()) {
            (true, _) => proto::AgentState::Draining,
            (false, Some(_)) => proto::AgentState::Running,
            (false, None) => proto::AgentState::Starting,
        }
    }

    fn transforms(&self) -> Vec<proto::Transform> {
        let swapper = self.running.get().map(|running| &running.swapper);
        let transform = |(name, module, stores): &(String, PathBuf, Vec<String>)| {
            let id = swapper.and_then(|swapper| swapper.codes.find(name));
            let known = swapper.zip(id).map(|(swapper, id)| swapper.versions(id));
            let (digest, versions) = known.unzip();
            let metrics = self.board.metrics.transform(name);
            let totals = metrics.map(|metrics| metrics.totals()).unwrap_or_default();
            proto::Transform {
                name: name.clone(),
                module: module.display().to_string(),
                digest: digest.map(|digest| digest.to_string()).unwrap_or_default(),
                stores: stores.clone(),
                versions: versions.unwrap_or_default(),
                records: totals.records,
                failures: totals.failures,
                skipped: totals.skipped,
                dead_lettered: totals.dead_lettered,
                cpu_ms: u64::try_from(totals.cpu.as_millis()).unwrap_or(u64::MAX),
            }
        };
        self.transforms.iter().map(transform).collect()
    }

    fn running(&self) -> Result<&Running, Refusal> {
        self.running.get().ok_or_else(|| Refusal::NotReady(self.board.starting()))
    }

    fn worker(&self, number: usize, worker: &WorkerBoard) -> proto::Worker {
        let turned = worker.turned_ago().as_millis();
        let topology = self.running.get().map(|running| running.topology.as_ref());
        let stands_in = worker.stands_in(topology);
        let view = worker.view();
        proto::Worker {
            number: u32::try_from(number).unwrap_or(u32::MAX),
            turned_ms_ago: u64::try_from(turned).unwrap_or(u64::MAX),
            waiting_for: view.waiting.as_ref().map(|of| of.reason.clone()).unwrap_or_default(),
            rests: worker.rests.load(Ordering::Acquire),
            doing: stands_in.map(|(_, call)| call).unwrap_or_default(),
            tasks: view.tasks.iter().map(|(&id, task)| self.task(topology, id, task)).collect(),
        }
    }

    fn task(&self, topology: Option<&Topology>, id: TaskId, task: &TaskView) -> proto::Task {
        let reason = match &task.state {
            TaskState::Failed(reason) => reason.clone(),
            _ => task.failure.clone(),
        };
        let mut told = proto::Task {
            id: id.to_string(),
            partition: id.partition,
            state: state_of(&task.state).into(),
            reason,
            stream_time_ms: task.stream_time,
            restore_remaining: task.restore_remaining,
            ..proto::Task::default()
        };
        if let Some(topology) = topology {
            let subtopology = topology.subtopology(id);
            told.transforms = subtopology.transforms.iter().map(|t| t.name.clone()).collect();
            told.stores = subtopology.stores.iter().map(|store| store.name.clone()).collect();
            let inputs = subtopology.inputs.iter().map(|input| input.topic).enumerate();
            told.inputs = inputs
                .map(|(index, topic)| {
                    let name = topology.topic(topic).name.clone();
                    let partition = TopicPartition::new(topic, id.partition);
                    self.input(name, partition, task.offsets.get(index).copied())
                })
                .collect();
        }
        told
    }

    fn input(&self, topic: String, of: TopicPartition, committed: Option<Offset>) -> proto::Input {
        let known = self.board.end(of);
        let end = known.map(|known| known.end.last);
        let behind = |(at, end): (i64, i64)| u64::try_from(end - at).unwrap_or(0);
        let held = known.and_then(|known| known.held_since.map(|since| (known.end, since)));
        proto::Input {
            topic,
            partition: of.partition,
            committed_offset: committed,
            end_offset: end,
            lag: committed.zip(end).map(behind),
            held_back: held.map_or(0, |(end, _)| behind((end.stable, end.last))),
            held_back_ms: held.map_or(0, |(_, since)| {
                u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
            }),
        }
    }

    /// The task of a partition that has a store, if its state can be read.
    fn find(&self, store: &str, partition: i32) -> Result<TaskId, Refusal> {
        let subtopology = self.subtopology(store)?;
        let id = TaskId { subtopology, partition };
        let here = self.board.workers.iter().find_map(|worker| {
            let view = worker.view();
            let task = view.tasks.get(&id)?;
            Some(match &task.state {
                TaskState::Running | TaskState::Suspended | TaskState::Failed(_) => Ok(id),
                TaskState::Created | TaskState::Closed => Err(Refusal::NotReady(format!(
                    "task {id} has just been assigned; ask again when `sidestream status` says \
                         that it runs"
                ))),
                TaskState::Restoring => {
                    let left = task.restore_remaining;
                    Err(Refusal::NotReady(format!(
                        "task {id} is being restored, {left} changelog offsets are left; ask again \
                         then"
                    )))
                }
            })
        });
        let elsewhere = format!(
            "task {id} of store `{store}` is not here, but at another agent of the application, if \
             it runs at all: ask that one; `sidestream status` tells the tasks of each"
        );
        here.unwrap_or(Err(Refusal::NotFound(elsewhere)))
    }

    fn subtopology(&self, store: &str) -> Result<u16, Refusal> {
        let topology = &self.running()?.topology;
        let mut subtopologies = topology.subtopologies.iter().zip(0u16..);
        let found = subtopologies.find(|(s, _)| s.stores.iter().any(|s| s.name == store));
        found.map(|(_, index)| index).ok_or_else(|| {
            let stores = topology.subtopologies.iter().flat_map(|s| &s.stores);
            let names: Vec<&str> = stores.map(|store| store.name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            Refusal::NotFound(format!("there is no store `{store}`; there are: {names}"))
        })
    }

    fn read(
        &self,
        store: &str,
        partition: i32,
        query: &Query,
    ) -> Result<(proto::Position, Found), Refusal> {
        let task = self.find(store, partition)?;
        let reading = self.stores.read(task, store, query).map_err(|error| {
            let message = format!("store `{store}` of task {task}: {error}");
            match error {
                ReadError::NotHere | ReadError::NoStore => Refusal::NotFound(message),
                ReadError::NotReady => Refusal::NotReady(message),
                ReadError::Store(_) => Refusal::Failed(message),
            }
        })?;
        let Reading { position, inputs, found } = reading;
        let input = |(topic, offset)| proto::InputPosition { topic, offset };
        let position = proto::Position {
            task: task.to_string(),
            partition,
            changelog_offset: position.offset,
            inputs: inputs.into_iter().map(input).collect(),
        };
        Ok((position, found))
    }
}

impl Operator for Desk {
    fn status(&self) -> proto::Status {
        let ready = self.ready();
        proto::Status {
            application: self.application.clone(),
            identity: self.stores.identity().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at_ms: self.started_at_ms,
            state: self.state().into(),
            paused: self.board.is_paused(),
            ready: ready.is_ok(),
            not_ready_reason: ready.err().unwrap_or_default(),
            live: self.live().is_ok(),
            transforms: self.transforms(),
            workers: self
                .board
                .workers
                .iter()
                .enumerate()
                .map(|(n, w)| self.worker(n, w))
                .collect(),
            // The service that answers knows it.
            http_address: String::new(),
        }
    }

    fn live(&self) -> Result<(), String> {
        self.running.get().map_or(Ok(()), |running| self.board.live(&running.topology))
    }

    fn ready(&self) -> Result<(), String> {
        match (self.state(), self.running.get()) {
            (proto::AgentState::Running, Some(running)) => self.board.works(&running.topology),
            (proto::AgentState::Starting, _) => Err(self.board.starting()),
            (state, _) => Err(format!("the agent is {}", state.name())),
        }
    }

    fn pause(&self, pause: bool) {
        info!(pause, "told over the control interface");
        self.board.pause(pause);
    }

    fn rests(&self) -> bool {
        self.running.get().is_some()
            && self.board.workers.iter().all(|worker| worker.rests.load(Ordering::Acquire))
    }

    fn drain(&self, leave: Option<bool>) {
        let leave = leave.unwrap_or(self.leave_on_stop);
        info!(leave, "draining, as told over the control interface");
        self.board.events.tell("draining", "told over the control interface");
        self.stop.request(leave);
    }

    fn retry(&self, tasks: &[String]) -> Result<Vec<proto::Retried>, Refusal> {
        info!(?tasks, "stopped tasks are tried again, as told over the control interface");
        retry::retry((&self.board, &self.running()?.topology), &self.stop, tasks)
    }

    fn owner(&self, store: &str, key: &[u8]) -> Result<proto::Owner, Refusal> {
        let subtopology = self.subtopology(store)?;
        let topology = &self.running()?.topology;
        let partitions = topology.subtopologies[usize::from(subtopology)].partitions;
        let partition = partitioner::partition(key, partitions);
        let id = TaskId { subtopology, partition };
        let here = self.board.workers.iter().any(|worker| worker.view().tasks.contains_key(&id));
        Ok(proto::Owner { task: id.to_string(), partition, here })
    }

    fn partitions(&self, store: &str) -> Result<Vec<i32>, Refusal> {
        let subtopology = self.subtopology(store)?;
        let mut partitions = Vec::new();
        for worker in &self.board.workers {
            let view = worker.view();
            let of_store = view.tasks.keys().filter(|task| task.subtopology == subtopology);
            partitions.extend(of_store.map(|task| task.partition));
        }
        partitions.sort_unstable();
        match partitions.is_empty() {
            true => Err(Refusal::NotFound(format!(
                "no task with store `{store}` is here: its tasks are at other agents of the \
                 application, or not assigned yet; `sidestream status` tells the tasks of each"
            ))),
            false => Ok(partitions),
        }
    }

    fn get(
        &self,
        store: &str,
        partition: i32,
        keys: &[Vec<u8>],
    ) -> Result<proto::Reading, Refusal> {
        let (position, found) = self.read(store, partition, &Query::Get(keys.to_vec()))?;
        let values = match found {
            Found::Values(values) => values,
            Found::Entries(_) => Vec::new(),
        };
        let values = values.into_iter().map(|value| proto::Value { value }).collect();
        Ok(proto::Reading { position: Some(position), values })
    }

    fn scan(&self, store: &str, partition: i32, range: &Range) -> Result<Page, Refusal> {
        let bound = |bound: &Bound<Vec<u8>>| bound.clone();
        let scan = Scan {
            from: bound(&range.from),
            to: bound(&range.to),
            reverse: range.reverse,
            limit: range.entries_max,
            bytes_max: range.bytes_max,
            time_max: SCAN_TIME_MAX,
        };
        let (position, found) = self.read(store, partition, &Query::Scan(scan))?;
        let Found::Entries(found) = found else { return Ok(Page::default()) };
        let entry = |(key, value): (Option<&[u8]>, Option<&[u8]>)| proto::Entry {
            key: key.unwrap_or_default().to_vec(),
            value: value.unwrap_or_default().to_vec(),
        };
        let entries = found.keys.iter().zip(&found.values).map(entry).collect();
        Ok(Page { position, entries, more: found.more })
    }

    fn swap(
        &self,
        request: proto::SwapRequest,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal> {
        let swapper = &self.running()?.swapper;
        let proto::SwapRequest { transform, module, name, dry_run, accept } = request;
        let transform = swapper.find(&transform)?;
        let probation = Some(swapper.ratios(&accept)?);
        // It comes into logs and onto terminals.
        let plain = name.chars().filter(|character| !character.is_control());
        let name = plain.take(NAME_CHARACTERS_MAX).collect();
        swapper.begin(Wish { transform, module, name, dry_run, probation, file: None })
    }

    fn rollback(
        &self,
        request: proto::RollbackRequest,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal> {
        let swapper = &self.running()?.swapper;
        let transform = swapper.find(&request.transform)?;
        let digest = Some(request.digest.as_str()).filter(|digest| !digest.is_empty());
        swapper.roll_back(transform, digest)
    }

    fn metrics(&self) -> (String, &'static str) {
        let mut text = Text::default();
        self.write_gauges(&mut text);
        self.board.metrics.write(&mut text);
        (text.into_string(), CONTENT_TYPE)
    }
}

/// A task's state as the control service and metrics name it.
pub(crate) fn state_of(state: &TaskState) -> proto::TaskState {
    match state {
        TaskState::Created => proto::TaskState::Created,
        TaskState::Restoring => proto::TaskState::Restoring,
        TaskState::Running => proto::TaskState::Running,
        TaskState::Suspended => proto::TaskState::Suspended,
        TaskState::Failed(_) => proto::TaskState::Failed,
        TaskState::Closed => proto::TaskState::Unspecified,
    }
}

impl Desk {
    /// What is as it is now, in metrics.
    fn write_gauges(&self, text: &mut Text) {
        use crate::telemetry::metrics::names;
        let status = self.status();
        text.metric(&names::INFO);
        text.sample(&names::INFO, &[&status.application, &status.version], 1);
        text.single(&names::READY, u8::from(status.ready));
        text.single(&names::LIVE, u8::from(status.live));
        text.single(&names::PAUSED, u8::from(status.paused));
        let tasks: Vec<&proto::Task> = status.workers.iter().flat_map(|w| &w.tasks).collect();
        text.metric(&names::TASKS);
        for state in [
            proto::TaskState::Created,
            proto::TaskState::Restoring,
            proto::TaskState::Running,
            proto::TaskState::Suspended,
            proto::TaskState::Failed,
        ] {
            let count = tasks.iter().filter(|task| task.state() == state).count();
            text.sample(&names::TASKS, &[&state.name()], count);
        }
        text.metric(&names::LAG);
        for input in tasks.iter().flat_map(|task| &task.inputs) {
            if let Some(lag) = input.lag {
                text.sample(&names::LAG, &[&input.topic, &input.partition.to_string()], lag);
            }
        }
        text.metric(&names::HELD_BACK);
        for input in tasks.iter().flat_map(|task| &task.inputs) {
            let labels = [input.topic.as_str(), &input.partition.to_string()];
            text.sample(&names::HELD_BACK, &labels, input.held_back);
        }
        text.metric(&names::STREAM_TIME_LAG);
        let now = now_ms();
        for task in &tasks {
            if let Some(time) = task.stream_time_ms {
                let seconds = (now - time).max(0) as f64 / 1_000.0;
                text.sample(&names::STREAM_TIME_LAG, &[&task.id], seconds);
            }
        }
        text.metric(&names::RESTORE_REMAINING);
        for task in &tasks {
            text.sample(&names::RESTORE_REMAINING, &[&task.id], task.restore_remaining);
        }
        self.write_stores(text);
    }

    fn write_stores(&self, text: &mut Text) {
        use crate::telemetry::metrics::names;
        let mut sizes = self.stores.sizes();
        sizes.sort_by(|a, b| (&a.store, a.task).cmp(&(&b.store, b.task)));
        text.metric(&names::STORE_BYTES);
        for size in &sizes {
            text.sample(&names::STORE_BYTES, &[&size.store, &size.task.to_string()], size.bytes);
        }
        text.metric(&names::STORE_KEYS);
        for size in &sizes {
            text.sample(&names::STORE_KEYS, &[&size.store, &size.task.to_string()], size.keys);
        }
        let usage = self.stores.usage();
        text.single(&names::CACHE_HITS, usage.cache_hits);
        text.single(&names::CACHE_MISSES, usage.cache_misses);
        text.single(&names::CACHE_BYTES, usage.cache_bytes);
        text.single(&names::MEMTABLE_BYTES, usage.memtable_bytes);
    }
}
