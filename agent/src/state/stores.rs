//! The state of all tasks of the process.

use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use sidestream_core::{
    column::Column,
    record::{Changes, TaskId},
    task::{Entries, Position, Scan, StateStore, StoreError},
};

use super::{
    Config, Error, TaskStores,
    directory::Directory,
    read::{Query, ReadError, Reader, Reading},
    resources::Resources,
    task::TaskState,
};
use crate::lock::Held;

/// Owns the state of every task of the process, and lends each to one worker at a time.
pub struct Stores {
    /// Where the application's tasks are.
    folder: PathBuf,
    identity: String,
    directory: Mutex<Directory>,
    resources: Arc<Resources>,
    tasks: Mutex<HashMap<TaskId, Place>>,
    /// How others than the worker that has it read a task's state.
    readers: Mutex<HashMap<TaskId, Reader>>,
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
    /// How often a block was found in the cache since the process started.
    pub cache_hits: u64,
    /// How often one had to be read from disk.
    pub cache_misses: u64,
}

/// How large a store of a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSize {
    /// The task.
    pub task: TaskId,
    /// The store's name.
    pub store: String,
    /// Its bytes, on disk and in memory.
    pub bytes: u64,
    /// How many keys it has; an estimate for one on disk.
    pub keys: u64,
}

impl Stores {
    /// Locks the state directory and checks that its format is known.
    pub fn open_directory(config: &Config) -> Result<Arc<Self>, Error> {
        let directory = Directory::open(&config.directory, config.identity.as_deref())?;
        let resources = Resources::new(config.memory_bytes_max)
            .map_err(|error| Error::Unusable(format!("rocksdb can't be set up: {error}")))?;
        Ok(Arc::new(Self {
            folder: directory.folder(&folder_name(&config.application)),
            identity: directory.identity().to_owned(),
            directory: Mutex::new(directory),
            resources: Arc::new(resources),
            tasks: Mutex::default(),
            readers: Mutex::default(),
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
        let mut directory = self.directory.held();
        directory.raise_worker_count(workers)
    }

    /// What the agent's members asked their group for last, as it was noted; none if that is not
    /// known.
    #[must_use]
    pub fn subscription(&self) -> Option<String> {
        let directory = self.directory.held();
        directory.subscription().map(str::to_owned)
    }

    /// Notes what the agent's members ask their group for from now on, in one word.
    pub fn note_subscription(&self, subscription: &str) -> Result<(), Error> {
        let mut directory = self.directory.held();
        directory.note_subscription(subscription)
    }

    /// The folder with the state of all tasks of the application.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whose state is on disk: the folder names of tasks, those set aside as damaged included.
    pub fn on_disk(&self) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Failed { action: "read", path: self.folder.clone(), source };
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.map_err(failed)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Removes the state of all tasks of the application from disk. None may be open.
    pub fn remove_all(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::Failed { action: "remove", path: self.folder.clone(), source: error })
            }
            Ok(()) | Err(_) => Ok(()),
        }
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
        self.readers().insert(task, lent.state().reader());
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
        let [cache_hits, cache_misses] = self.resources.cache_hits_and_misses();
        let mut usage = Usage {
            cache_hits,
            cache_misses,
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

    /// Reads committed state of a task that a worker has, beside that worker. What is read is of
    /// one moment; `query` has to be bounded.
    pub fn read(&self, task: TaskId, store: &str, query: &Query) -> Result<Reading, ReadError> {
        let reader = self.readers().get(&task).cloned();
        reader.ok_or(ReadError::NotHere)?.read(store, query)
    }

    /// How large each store of each task is that a worker has.
    #[must_use]
    pub fn sizes(&self) -> Vec<StoreSize> {
        let readers: Vec<_> =
            self.readers().iter().map(|(&task, reader)| (task, reader.clone())).collect();
        let of_task = |(task, reader): (TaskId, Reader)| {
            let sizes = reader.sizes().into_iter();
            sizes.map(move |(store, bytes, keys)| StoreSize { task, store, bytes, keys })
        };
        readers.into_iter().flat_map(of_task).collect()
    }

    fn readers(&self) -> MutexGuard<'_, HashMap<TaskId, Reader>> {
        self.readers.held()
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<TaskId, Place>> {
        self.tasks.held()
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
pub fn folder_name(application: &str) -> String {
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
    const OWN: [&str; 8] =
        ["lock", "format", "identity", "identity.new", "format.new", "compiled", "modules", ""];
    match OWN.contains(&name.as_str()) {
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
        self.owner.readers().remove(&self.task);
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
