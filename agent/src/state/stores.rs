//! The state of all tasks of the process.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sidestream_core::{
    column::Column,
    record::{Changes, TaskId},
    task::{Entries, Position, Scan, StateStore, StoreError},
};

use super::{
    Config, Error, TaskStores, directory::Directory, resources::Resources, task::TaskState,
};

/// Owns the state of every task of the process, and lends each to one worker at a time.
pub struct Stores {
    /// Where the application's tasks are.
    folder: PathBuf,
    identity: String,
    directory: Mutex<Directory>,
    resources: Arc<Resources>,
    tasks: Mutex<HashMap<TaskId, Place>>,
    kept_open_max: usize,
    kept_open_time_max: Duration,
}

/// Where an open state is. A task that isn't open has none.
enum Place {
    /// With a worker, or being opened or closed.
    Lent,
    /// Here, since then.
    Kept(Box<TaskState>, Instant),
}

/// The state of a task, lent to a worker. Dropping the store gives it back.
pub struct Opened {
    /// The state.
    pub store: Box<dyn StateStore>,
    /// Why the stores on disk are empty and have no position, if they were damaged: the damaged
    /// database was set aside.
    pub rebuilt: Option<String>,
}

/// What the state of the process takes and holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the cache: blocks, indices, filters and memtables.
    pub cache_bytes: usize,
    /// Bytes of memtables.
    pub memtable_bytes: usize,
    /// Tasks that workers hold.
    pub lent_tasks: usize,
    /// Tasks that were given back and are still open.
    pub kept_tasks: usize,
    /// Bytes of the stores in memory of the tasks that were given back.
    pub kept_memory_bytes: usize,
}

impl Stores {
    /// Locks the state directory and checks that its format is known.
    pub fn open_directory(config: &Config) -> Result<Arc<Self>, Error> {
        let directory = Directory::open(&config.directory, config.identity.as_deref())?;
        let resources = Resources::new(config.memory_bytes_max)
            .map_err(|error| Error::Unusable(format!("rocksdb can't be set up: {error}")))?;
        Ok(Arc::new(Self {
            folder: directory.path().join(folder_name(&config.application)),
            identity: directory.identity().to_owned(),
            directory: Mutex::new(directory),
            resources: Arc::new(resources),
            tasks: Mutex::default(),
            kept_open_max: config.kept_open_max,
            kept_open_time_max: config.kept_open_time_max,
        }))
    }

    /// Who the agent is, the same at every start: for `group.instance.id` and transactional ids.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Notes that the agent has `workers` workers; returns the most it ever had under this
    /// identity.
    pub fn raise_worker_count(&self, workers: u32) -> Result<u32, Error> {
        let mut directory = self.directory.lock().unwrap_or_else(PoisonError::into_inner);
        directory.raise_worker_count(workers)
    }

    /// Lends the state of a task. [`StoreError::Busy`] while another worker has it.
    ///
    /// A store that is new in the pipeline begins empty, without a position; one that is in the
    /// pipeline no more is left as it is, and forgotten by the next write.
    pub fn open(self: &Arc<Self>, task: TaskId, stores: &TaskStores) -> Result<Opened, StoreError> {
        let kept = match self.tasks().insert(task, Place::Lent) {
            Some(Place::Lent) => return Err(StoreError::Busy),
            Some(Place::Kept(state, _)) => Some(state),
            None => None,
        };
        // From here on the task is this worker's; dropping `lent` gives it back.
        let mut lent = Lent { owner: Arc::clone(self), task, state: kept };
        let rebuilt = lent.prepare(stores)?;
        self.close_old();
        Ok(Opened { store: Box::new(lent), rebuilt })
    }

    /// Takes back what [`open`](Self::open) lent; the same as dropping it.
    pub fn close(&self, store: Box<dyn StateStore>) {
        drop(store);
    }

    /// Closes for good what was given back longer ago than it is to be kept, or more than are to
    /// be kept. Also done whenever a task is opened or given back.
    pub fn close_old(&self) {
        for (task, state) in self.take_old() {
            drop(state);
            self.tasks().remove(&task);
        }
    }

    /// What the state takes and holds now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = Usage {
            cache_bytes: self.resources.cache_bytes(),
            memtable_bytes: self.resources.memtable_bytes(),
            ..Usage::default()
        };
        for place in self.tasks().values() {
            match place {
                Place::Lent => usage.lent_tasks += 1,
                Place::Kept(state, _) => {
                    usage.kept_tasks += 1;
                    usage.kept_memory_bytes += state.memory_bytes();
                }
            }
        }
        usage
    }

    /// Takes what is to be closed. It counts as lent until it is closed: a database must not be
    /// opened twice.
    fn take_old(&self) -> Vec<(TaskId, Box<TaskState>)> {
        let mut tasks = self.tasks();
        let mut kept: Vec<_> = tasks
            .iter()
            .filter_map(|(&task, place)| match place {
                Place::Lent => None,
                Place::Kept(state, since) => Some((*since, task, state.is_sound())),
            })
            .collect();
        kept.sort_unstable();
        let excess = kept.len().saturating_sub(self.kept_open_max);
        let is_old = |since: Instant| since.elapsed() >= self.kept_open_time_max;
        let mut old = Vec::new();
        for (index, (since, task, sound)) in kept.into_iter().enumerate() {
            if (index < excess || is_old(since) || !sound)
                && let Some(Place::Kept(state, _)) = tasks.insert(task, Place::Lent)
            {
                old.push((task, state));
            }
        }
        old
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<TaskId, Place>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("rebuilt", &self.rebuilt).finish_non_exhaustive()
    }
}

/// The application's folder: its id, with `%` and two hexadecimal digits for each byte that is not
/// at home in a file name everywhere.
fn folder_name(application: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let mut name = String::new();
    for (index, byte) in application.bytes().enumerate() {
        // A dot in front would hide it, or leave the state directory.
        match plain(byte) && (index > 0 || byte != b'.') {
            true => name.push(char::from(byte)),
            false => name.push_str(&format!("%{byte:02X}")),
        }
    }
    // The agent's own files are in the same directory.
    match ["lock", "format", "identity", "identity.new", "format.new", ""].contains(&name.as_str())
    {
        true => format!("%{name}"),
        false => name,
    }
}

/// A state that a worker has. Gives it back when it is dropped.
struct Lent {
    owner: Arc<Stores>,
    task: TaskId,
    /// `None` only before it is opened.
    state: Option<Box<TaskState>>,
}

impl Lent {
    /// Makes sure that the state is open, has these stores, and is not damaged. Says why it is
    /// empty if it was.
    fn prepare(&mut self, stores: &TaskStores) -> Result<Option<String>, StoreError> {
        if let Some(mut state) =
            self.state.take().filter(|state| state.stores() == stores && state.is_sound())
        {
            let damage = state.damage();
            if damage.is_some() {
                state.replace()?;
            }
            self.state = Some(state);
            return Ok(damage);
        }
        let path = self.owner.folder.join(self.task.to_string());
        let (state, rebuilt) = TaskState::open(stores, path, &self.owner.resources)?;
        self.state = Some(Box::new(state));
        Ok(rebuilt)
    }

    fn state(&self) -> &TaskState {
        self.state.as_deref().expect("lent only when it is open")
    }

    fn state_mut(&mut self) -> &mut TaskState {
        self.state.as_deref_mut().expect("lent only when it is open")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        match self.state.take() {
            Some(state) => {
                let place = Place::Kept(state, Instant::now());
                self.owner.tasks().insert(self.task, place);
                self.owner.close_old();
            }
            None => {
                self.owner.tasks().remove(&self.task);
            }
        }
    }
}

impl StateStore for Lent {
    fn get(&self, store: usize, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.state().get(store, key)
    }

    fn get_many(&self, store: usize, keys: &Column) -> Result<Column, StoreError> {
        self.state().get_many(store, keys)
    }

    fn scan(&self, store: usize, scan: &Scan) -> Result<Entries, StoreError> {
        self.state().scan(store, scan)
    }

    fn position(&self) -> Result<Position, StoreError> {
        self.state().position()
    }

    fn apply(&mut self, changes: &[Changes], position: &Position) -> Result<(), StoreError> {
        self.state_mut().apply(changes, position)
    }

    fn reset(&mut self, store: usize) -> Result<(), StoreError> {
        self.state_mut().reset(store)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.state_mut().flush()
    }
}
