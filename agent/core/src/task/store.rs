//! The border to committed state.

use std::{ops::Bound, time::Duration};

use crate::{
    column::Column,
    record::{Changes, Offset, Timestamp, TopicId},
};

/// The committed state of a task: all of its stores. The state room implements it over RocksDB
/// and memory; the agent owns it, and a task borrows it while it is open.
///
/// `store` arguments are indices into
/// [`Subtopology::stores`](crate::topology::Subtopology::stores).
pub trait StateStore: Send {
    /// Reads a value.
    fn get(&self, store: usize, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Reads a value for each row of `keys` (never null), in order.
    fn get_many(&self, store: usize, keys: &Column) -> Result<Column, StoreError>;

    /// Reads entries in order of their keys' bytes, at most `scan.limit` of them.
    fn scan(&self, store: usize, scan: &Scan) -> Result<Entries, StoreError>;

    /// The position of each store, `None` for one that holds nothing that can be continued.
    fn position(&self) -> Result<Position, StoreError>;

    /// Makes `changes` (one element for each store) and `position` part of the committed state,
    /// all of it or, after a crash, none.
    fn apply(&mut self, changes: &[Changes], position: &Position) -> Result<(), StoreError>;

    /// Empties `store` and forgets its position, so that it can be rebuilt from its changelog.
    /// A store that was corrupt is set aside, not destroyed.
    fn reset(&mut self, store: usize) -> Result<(), StoreError>;

    /// Makes what was applied survive a crash of the machine; called when the task is closed.
    fn flush(&mut self) -> Result<(), StoreError>;
}

/// The state of a task without stores.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stateless;

impl Stateless {
    fn nothing<T>() -> Result<T, StoreError> {
        Err(StoreError::Failed("the task has no stores".to_owned()))
    }
}

impl StateStore for Stateless {
    fn get(&self, _: usize, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Self::nothing()
    }

    fn get_many(&self, _: usize, _: &Column) -> Result<Column, StoreError> {
        Self::nothing()
    }

    fn scan(&self, _: usize, _: &Scan) -> Result<Entries, StoreError> {
        Self::nothing()
    }

    fn position(&self) -> Result<Position, StoreError> {
        Ok(Position::default())
    }

    fn apply(&mut self, _: &[Changes], _: &Position) -> Result<(), StoreError> {
        Ok(())
    }

    fn reset(&mut self, _: usize) -> Result<(), StoreError> {
        Self::nothing()
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Which entries to read, and in which order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The lower bound of the keys.
    pub from: Bound<Vec<u8>>,
    /// The upper bound of the keys.
    pub to: Bound<Vec<u8>>,
    /// Highest key first.
    pub reverse: bool,
    /// How many entries at most.
    pub limit: usize,
    /// How many bytes of keys and values at most; the first entry comes whatever its size.
    pub bytes_max: usize,
    /// How long it may take to pass over what was deleted, before it is [`StoreError::Slow`].
    pub time_max: Duration,
}

impl Scan {
    /// Whether no key can lie between its bounds (`BTreeMap::range` panics at such ones).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match (&self.from, &self.to) {
            (Bound::Included(from), Bound::Included(to)) => from > to,
            (
                Bound::Included(from) | Bound::Excluded(from),
                Bound::Included(to) | Bound::Excluded(to),
            ) => from >= to,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
        }
    }
}

/// Entries of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// Their keys.
    pub keys: Column,
    /// Their values, never null.
    pub values: Column,
    /// Whether the scan was cut short by its limits.
    pub more: bool,
}

/// What a task's stores stand for. Written in one batch with the state itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// For each store, how far its changelog is in it.
    pub stores: Vec<Option<StorePosition>>,
    /// For each input of the sub-topology, how far its records are in the stores: no less than this
    /// is, and exactly this after a commit. Empty if nothing is known.
    pub inputs: Vec<InputPosition>,
    /// A moment at which no changelog went on beyond the position, or at which an empty store
    /// began to be read from the beginning: the last commit, mostly. Deletes of what is in the
    /// stores were compacted for the first time after it.
    pub committed_at: Timestamp,
}

/// How far a changelog is in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePosition {
    /// The next offset of the changelog partition to apply.
    pub offset: Offset,
    /// The id of the changelog topic, so that one deleted and made again is recognised.
    pub topic_id: TopicId,
    /// The leader epoch of the last record applied, or -1; so that a truncated changelog is
    /// recognised.
    pub leader_epoch: i32,
}

/// How far an input is in the stores of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InputPosition {
    /// The next offset of the partition to read.
    pub offset: Offset,
    /// The id of the topic that the offset is of.
    pub topic_id: TopicId,
}

/// An offset of a topic that is not known.
impl From<Offset> for InputPosition {
    fn from(offset: Offset) -> Self {
        Self { offset, topic_id: TopicId::default() }
    }
}

/// Committed state could not be read or written. The variants say what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another worker of this process is still closing the task: try again later.
    #[error("the state of the task is still in use")]
    Busy,
    /// What is stored is damaged: [`StateStore::reset`] the store (all of them for `None`) and
    /// restore it from its changelog.
    #[error("the state is corrupt: {message}")]
    Corrupt {
        /// Which store.
        store: Option<usize>,
        /// What was found.
        message: String,
    },
    /// The disk is full, or can't be read or written: give the state back, open it again later, and
    /// stop the task if that goes on.
    #[error("the state can't be accessed: {0}")]
    Failed(String),
    /// What was asked for takes longer than it may; nothing is wrong with the state.
    #[error("reading the state took longer than {} ms", .0.as_millis())]
    Slow(Duration),
}
