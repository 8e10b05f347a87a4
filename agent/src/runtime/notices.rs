//! What workers have to say, as log lines.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sidestream_core::{
    record::{TaskId, TransformId},
    task::PassedOver,
    topology::Topology,
    worker::{CommitNotice, Notice, TaskState},
};
use tracing::{debug, error, info, warn};

use super::{board::Board, said::Said};

/// How often one task's restore is told about.
const RESTORE_INTERVAL: Duration = Duration::from_secs(1);

/// Tells of one worker, without telling the same thing again and again.
pub(crate) struct Teller {
    worker: usize,
    board: Arc<Board>,
    topology: Arc<Topology>,
    restoring: BTreeMap<TaskId, Duration>,
    waiting: Option<String>,
    said: Said,
    /// What tasks wait for.
    held: BTreeMap<TaskId, String>,
}

impl Teller {
    /// One that tells at most `lines_max` lines of a transform in a second.
    pub(crate) fn new(
        worker: usize,
        board: Arc<Board>,
        topology: Arc<Topology>,
        lines_max: u32,
    ) -> Self {
        let (restoring, held) = (BTreeMap::new(), BTreeMap::new());
        Self { worker, board, topology, restoring, waiting: None, said: Said::new(lines_max), held }
    }

    /// Tells what happened in a turn that ended at `now` (since the start).
    pub(crate) fn tell(&mut self, notice: Notice, now: Duration) {
        let worker = self.worker;
        match notice {
            Notice::Task { task, state } => self.task(task, &state),
            Notice::Restoring { task, remaining } => self.restoring(task, remaining, now),
            Notice::Rebuilding { task, store, reason } => {
                let store = &self.topology.subtopology(task).stores[store].name;
                warn!(worker, %task, store, reason, "a store is rebuilt from its changelog");
            }
            Notice::CommitEnded { .. } => {} // A metric; what came of it is told by the others.
            Notice::Committed(commit) => self.committed(&commit, now),
            Notice::Dropped { reason } => {
                warn!(
                    worker,
                    reason, "the transaction was dropped; its records are processed again"
                );
            }
            Notice::Retrying { task, attempts, reason } => {
                warn!(worker, %task, attempts, reason, "a task failed and will be tried again");
            }
            Notice::Held { task, reason } => {
                if self.held.get(&task) != Some(&reason) {
                    warn!(worker, %task, reason, "a task waits");
                    self.held.insert(task, reason);
                }
            }
            Notice::Moved { task, reason } => warn!(worker, %task, reason, "going on after a gap"),
            Notice::Skipped { task, reason, .. } => {
                warn!(worker, %task, reason, "records are left out");
            }
            Notice::Swapped { transform, version } => {
                let (transform, module) = (self.transform(transform), self.board.names.of(version));
                info!(worker, transform, module, "another version has taken over");
            }
            Notice::Reverted { transform, version, reason } => {
                let (transform, module) = (self.transform(transform), self.board.names.of(version));
                warn!(worker, transform, module, reason, "a version was taken back");
            }
            Notice::Waiting(reason) => {
                if self.waiting.as_ref() != Some(&reason) {
                    warn!(worker, reason, "waiting");
                    self.waiting = Some(reason);
                }
            }
            Notice::Recovered => self.recovered(),
        }
    }

    fn transform(&self, id: TransformId) -> &str {
        let subtopology = &self.topology.subtopologies[usize::from(id.subtopology)];
        &subtopology.transforms[id.transform].name
    }

    fn recovered(&mut self) {
        if self.waiting.take().is_some() {
            info!(worker = self.worker, "what was waited for is there again");
        }
    }

    fn task(&mut self, task: TaskId, state: &TaskState) {
        let worker = self.worker;
        self.restoring.remove(&task);
        match state {
            TaskState::Failed(reason) => {
                error!(worker, %task, state = "failed", reason, "a task was stopped; others go on");
            }
            TaskState::Created => debug!(worker, %task, state = "created", "task"),
            TaskState::Restoring => info!(worker, %task, state = "restoring", "task"),
            TaskState::Running => info!(worker, %task, state = "running", "task"),
            TaskState::Suspended => debug!(worker, %task, state = "suspended", "task"),
            TaskState::Closed => info!(worker, %task, state = "closed", "task"),
        }
    }

    fn restoring(&mut self, task: TaskId, remaining: u64, now: Duration) {
        let told = self.restoring.get(&task);
        if told.is_none_or(|&told| now >= told + RESTORE_INTERVAL) {
            self.restoring.insert(task, now);
            info!(worker = self.worker, %task, remaining, "restoring from the changelog");
        }
    }

    fn committed(&mut self, commit: &CommitNotice, now: Duration) {
        self.recovered();
        let CommitNotice { records, outputs, changes, bytes, .. } = commit;
        debug!(worker = self.worker, records, outputs, changes, bytes, "committed");
        for (task, ..) in &commit.offsets {
            if self.held.remove(task).is_some() {
                info!(worker = self.worker, %task, "what the task waited for is there again");
            }
        }
        commit.passed_over.iter().for_each(|passed| self.passed_over(passed));
        for (task, place, said) in &commit.telemetry {
            let transform = &self.topology.subtopology(*task).transforms[*place].name;
            self.said.tell(*task, *place, transform, &said.lines, now);
        }
    }

    fn passed_over(&self, passed: &PassedOver) {
        let PassedOver { task, transform, kind, dead_letters, count, first } = passed;
        let worker = self.worker;
        let (kind, transform) =
            (kind.name(), &self.topology.subtopology(*task).transforms[*transform].name);
        match dead_letters {
            Some(topic) => {
                let topic = &self.topology.topic(*topic).name;
                warn!(
                    worker, %task, transform, kind, count, first, topic,
                    "records failed and went to the dead-letter topic"
                );
            }
            None => {
                warn!(worker, %task, transform, kind, count, first, "records failed and were skipped");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use sidestream_core::topology::{ErrorPolicy, Subtopology, Transform};

    use super::*;
    use crate::{lock::Held, runtime::watch::Watcher, telemetry::metrics::Metrics};

    fn topology() -> Arc<Topology> {
        let count = Transform {
            name: "count".to_owned(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            stores: Vec::new(),
            on_error: ErrorPolicy::default(),
        };
        let subtopology = Subtopology { transforms: vec![count], ..Subtopology::default() };
        Arc::new(Topology { subtopologies: vec![subtopology], ..Topology::default() })
    }

    /// What is logged meanwhile.
    fn logged(tell: impl FnOnce()) -> String {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&lines);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || Lines(Arc::clone(&writer)))
            .finish();
        tracing::subscriber::with_default(subscriber, tell);
        let lines = lines.held();
        String::from_utf8(lines.clone()).unwrap()
    }

    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.held().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn versions_are_told_by_module_file_and_digest() {
        let (board, topology) =
            (Arc::new(Board::new(Arc::new(Metrics::new(1, [])), Arc::default())), topology());
        board.names.note(6, "count-2.wasm", &"3f".repeat(32));
        let transform = TransformId { subtopology: 0, transform: 0 };
        let notices = [
            Notice::Swapped { transform, version: 6 },
            Notice::Reverted { transform, version: 6, reason: "it traps".to_owned() },
        ];
        let mut watcher = Watcher::new(0, Arc::clone(&board), Arc::clone(&topology));
        notices.iter().for_each(|notice| watcher.told(notice));
        let events = board.events.after(0, 9).events;
        let messages: Vec<&str> = events.iter().map(|event| event.message.as_str()).collect();
        let over = "`count`, count-2.wasm (3f3f3f3f3f3f)";
        assert_eq!(messages, [over, &format!("{over}: it traps")]);
        let mut teller = Teller::new(0, board, topology, 1);
        let lines = logged(|| notices.into_iter().for_each(|n| teller.tell(n, Duration::ZERO)));
        let named = lines.lines().filter(|line| line.contains("count-2.wasm (3f3f3f3f3f3f)"));
        assert_eq!(named.count(), 2, "{lines}");
        assert!(!lines.contains("version="), "{lines}");
    }
}
