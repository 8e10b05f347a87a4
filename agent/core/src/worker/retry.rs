//! Stopped tasks that are tried again.

use super::{Environment, Slot, Starting, TaskState, Worker};
use crate::record::TaskId;

impl<E: Environment> Worker<E> {
    /// Tries tasks again that were stopped: from what is committed, and with all attempts. Others
    /// are left as they are.
    pub fn retry(&mut self, tasks: &[TaskId]) {
        for &id in tasks {
            let Some(Slot::Failed(store)) = self.tasks.get_mut(&id) else { continue };
            let starting = store.take().map_or_else(Starting::new, Starting::again);
            self.tasks.insert(id, Slot::Starting(Box::new(starting)));
            self.failures.remove(&id);
            self.task_state(id, TaskState::Created);
        }
    }
}
