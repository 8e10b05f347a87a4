//! A task's state as user code sees it: the open transaction's writes over what is committed.

use std::cell::RefCell;

use crate::{
    column::Column,
    record::Changes,
    task::{
        Entries, Position, Scan, StateStore, StoreError,
        writes::{Mark, WriteBuffer, merged_scan},
    },
};

/// What a write holds besides its key and value: its places among the others and in the undo log.
const WRITE_BYTES: usize = 128;

/// All stores of a task. The default value has no stores; hosts that need to own it for a while
/// (as wasmtime's do) take it and put it back.
#[derive(Default)]
pub struct State {
    committed: Option<Box<dyn StateStore>>,
    buffers: Vec<WriteBuffer>,
    /// Whose writes those are that come next.
    writer: Writer,
    /// Why a read failed. User code hands on only that it failed, but damage has to be repaired.
    failed: RefCell<Option<StoreError>>,
}

/// Who writes: calls of processors, as the task counts them.
pub(super) type Writer = u32;

/// A moment in the writes of a transaction, to go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Savepoint(Vec<Mark>);

impl State {
    /// Puts a transaction without writes over the `stores` stores of `committed`.
    #[must_use]
    pub fn new(committed: Box<dyn StateStore>, stores: usize) -> Self {
        let buffers = (0..stores).map(|_| WriteBuffer::default()).collect();
        Self { committed: Some(committed), buffers, writer: 0, failed: RefCell::default() }
    }

    /// Gives the committed state back; open writes are lost.
    #[must_use]
    pub fn into_committed(self) -> Option<Box<dyn StateStore>> {
        self.committed
    }

    /// The committed state beneath the writes.
    pub fn committed(&mut self) -> &mut dyn StateStore {
        self.committed.as_deref_mut().expect("an open task has its state")
    }

    fn below(&self) -> &dyn StateStore {
        self.committed.as_deref().expect("an open task has its state")
    }

    /// Keeps why a read failed, unless the state is as it should be.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match &result {
            Ok(_) | Err(StoreError::Slow(_)) => {}
            Err(error) => *self.failed.borrow_mut() = Some(error.clone()),
        }
        result
    }

    /// Why a read failed since this was asked last.
    pub fn take_failure(&mut self) -> Option<StoreError> {
        self.failed.take()
    }

    /// Whether a read failed since [`take_failure`](Self::take_failure) was asked last.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed.borrow().is_some()
    }

    /// How many stores there are.
    #[must_use]
    pub fn stores(&self) -> usize {
        self.buffers.len()
    }

    /// Reads a value.
    pub fn get(&self, store: usize, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.buffers[store].writes.get(key) {
            Some(write) => Ok(write.value.clone()),
            None => self.noted(self.below().get(store, key)),
        }
    }

    /// Reads a value for each row of `keys` (never null), in order.
    pub fn get_many(&self, store: usize, keys: &Column) -> Result<Column, StoreError> {
        let writes = &self.buffers[store].writes;
        if writes.is_empty() {
            return self.noted(self.below().get_many(store, keys));
        }
        let unknown: Column =
            keys.iter().filter(|key| !writes.contains_key(key.unwrap_or_default())).collect();
        let below = match unknown.is_empty() {
            true => Column::default(),
            false => self.noted(self.below().get_many(store, &unknown))?,
        };
        let mut below = below.iter();
        Ok(keys
            .iter()
            .map(|key| match writes.get(key.unwrap_or_default()) {
                Some(write) => write.value.as_deref(),
                None => below.next().expect("one value for each key asked for"),
            })
            .collect())
    }

    /// How many bytes a write holds until its transaction ends, however small it is.
    #[must_use]
    pub const fn write_bytes(key: usize, value: usize) -> usize {
        key.saturating_add(value).saturating_add(WRITE_BYTES)
    }

    /// Writes a value; `None` deletes.
    pub fn put(&mut self, store: usize, key: &[u8], value: Option<&[u8]>) {
        self.buffers[store].put(key, value, self.writer);
    }

    /// From now on it is `writer` that writes.
    pub(super) const fn written_by(&mut self, writer: Writer) {
        self.writer = writer;
    }

    /// Who wrote what the changes of all stores are.
    pub(super) fn writers(&self) -> impl Iterator<Item = Writer> {
        self.buffers.iter().flat_map(|buffer| buffer.writes.values()).map(|write| write.writer)
    }

    /// Who wrote a row of a store's changes last.
    pub(super) fn writer(&self, store: usize, row: usize) -> Option<Writer> {
        Some(self.buffers.get(store)?.writes.get_index(row)?.1.writer)
    }

    /// Reads entries in order of their keys' bytes.
    pub fn scan(&mut self, store: usize, scan: &Scan) -> Result<Entries, StoreError> {
        if self.buffers[store].writes.is_empty() {
            return self.noted(self.below().scan(store, scan));
        }
        self.buffers[store].index();
        self.noted(merged_scan(self.below(), store, &self.buffers[store], scan))
    }

    /// This moment in the open transaction.
    #[must_use]
    pub fn savepoint(&self) -> Savepoint {
        let mark = |buffer: &WriteBuffer| Mark { undo: buffer.undo.len(), bytes: buffer.bytes };
        Savepoint(self.buffers.iter().map(mark).collect())
    }

    /// Undoes every write since `savepoint`.
    pub fn rollback(&mut self, savepoint: &Savepoint) {
        for (buffer, &mark) in self.buffers.iter_mut().zip(&savepoint.0) {
            buffer.rollback(mark);
        }
    }

    /// How many bytes the open writes hold, with what it takes to undo them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffers.iter().map(|buffer| buffer.bytes + buffer.index_bytes).sum()
    }

    /// The changes of the open transaction, for each store, in the order of the first writes.
    #[must_use]
    pub fn changes(&self) -> Vec<Changes> {
        self.buffers.iter().map(WriteBuffer::changes).collect()
    }

    /// Makes `changes`, which were committed, part of the committed state and forgets the writes.
    pub fn apply(&mut self, changes: &[Changes], position: &Position) -> Result<(), StoreError> {
        self.clear();
        self.committed().apply(changes, position)
    }

    /// Forgets every write.
    pub fn clear(&mut self) {
        self.buffers.iter_mut().for_each(WriteBuffer::clear);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, ops::Bound, time::Duration};

    use super::*;
    use crate::{
        record::TopicId,
        task::writes::{INDEX_BYTES, WRITES_KEPT},
    };

    /// A store that reads pages of at most two entries, as a bounded one may.
    #[derive(Default)]
    struct Committed(BTreeMap<Vec<u8>, Vec<u8>>);

    impl StateStore for Committed {
        fn get(&self, _: usize, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(self.0.get(key).cloned())
        }

        fn get_many(&self, _: usize, keys: &Column) -> Result<Column, StoreError> {
            let value = |key: Option<&[u8]>| self.0.get(key.unwrap_or_default());
            Ok(keys.iter().map(|key| value(key).map(Vec::as_slice)).collect())
        }

        fn scan(&self, _: usize, scan: &Scan) -> Result<Entries, StoreError> {
            let range = self.0.range((scan.from.clone(), scan.to.clone()));
            let rows: Vec<_> = match scan.reverse {
                true => range.rev().take(3).collect(),
                false => range.take(3).collect(),
            };
            let more = rows.len() > 2;
            let rows = &rows[..rows.len().min(2)];
            let keys = rows.iter().map(|row| Some(row.0.as_slice())).collect();
            let values = rows.iter().map(|row| Some(row.1.as_slice())).collect();
            Ok(Entries { keys, values, more })
        }

        fn position(&self) -> Result<Position, StoreError> {
            Ok(Position::default())
        }

        fn apply(&mut self, changes: &[Changes], _: &Position) -> Result<(), StoreError> {
            for (key, value) in changes[0].keys.iter().zip(&changes[0].values) {
                let key = key.unwrap_or_default().to_vec();
                match value {
                    Some(value) => self.0.insert(key, value.to_vec()),
                    None => self.0.remove(&key),
                };
            }
            Ok(())
        }

        fn reset(&mut self, _: usize) -> Result<(), StoreError> {
            self.0.clear();
            Ok(())
        }

        fn flush(&mut self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn state(keys: &str) -> State {
        let entry = |key: u8| (vec![key], vec![key.to_ascii_uppercase()]);
        State::new(Box::new(Committed(keys.bytes().map(entry).collect())), 1)
    }

    fn scan(state: &mut State, reverse: bool, limit: usize) -> (String, bool) {
        let scan = Scan {
            from: Bound::Included(b"b".to_vec()),
            to: Bound::Unbounded,
            reverse,
            limit,
            bytes_max: usize::MAX,
            time_max: Duration::MAX,
        };
        let entries = state.scan(0, &scan).unwrap();
        (String::from_utf8(entries.keys.data().to_vec()).unwrap(), entries.more)
    }

    #[test]
    fn a_scan_merges_writes_with_pages_of_committed_entries() {
        let mut state = state("abdfhjl");
        for (key, value) in
            [(b"c", Some(&b"1"[..])), (b"d", None), (b"f", None), (b"z", Some(b"2"))]
        {
            state.put(0, key, value);
        }
        assert_eq!(scan(&mut state, false, 10), ("bchjlz".to_owned(), false));
        assert_eq!(scan(&mut state, true, 10), ("zljhcb".to_owned(), false));
        assert_eq!(scan(&mut state, false, 3), ("bch".to_owned(), true));
        state.put(0, b"e", Some(b"3"));
        assert_eq!(scan(&mut state, false, 3), ("bce".to_owned(), true));
    }

    #[test]
    fn a_savepoint_undoes_what_came_after_it_and_nothing_else() {
        let mut state = state("ab");
        state.written_by(1);
        state.put(0, b"a", Some(b"1"));
        let savepoint = state.savepoint();
        assert_eq!(scan(&mut state, false, 10).0, "b");
        let bytes = state.bytes();
        state.written_by(2);
        state.put(0, b"a", Some(b"2"));
        state.put(0, b"b", None);
        state.put(0, b"c", Some(b"3"));
        state.put(0, b"c", Some(b"4"));
        assert_eq!(state.writer(0, 0), Some(2));
        state.rollback(&savepoint);
        assert_eq!(state.writer(0, 0), Some(1));
        assert_eq!(state.get(0, b"a").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(state.get(0, b"b").unwrap().as_deref(), Some(&b"B"[..]));
        assert_eq!(state.get(0, b"c").unwrap(), None);
        assert_eq!(scan(&mut state, false, 10).0, "b");
        assert_eq!(state.changes()[0].len(), 1);
        assert_eq!(state.bytes(), bytes);
    }

    #[test]
    fn every_write_counts_and_what_many_took_is_given_back() {
        let mut state = state("");
        let savepoint = state.savepoint();
        let many = 10 * WRITES_KEPT;
        for n in 0..many {
            state.put(0, b"", None);
            state.put(0, &n.to_le_bytes(), None);
        }
        let writes = 2 * many * WRITE_BYTES + many * size_of::<usize>();
        assert_eq!(state.bytes(), writes);
        scan(&mut state, false, 1);
        assert!(state.bytes() > writes + many * INDEX_BYTES, "the index counts");
        state.rollback(&savepoint);
        let held = |state: &State| {
            let buffer = &state.buffers[0];
            buffer.undo.capacity().max(buffer.writes.capacity())
        };
        assert!(held(&state) <= 2 * WRITES_KEPT, "after a rollback");
        assert_eq!(state.bytes(), 0);
        (0..many).for_each(|n| state.put(0, &n.to_le_bytes(), None));
        assert!(held(&state) >= many);
        state.clear();
        assert!(held(&state) <= 2 * WRITES_KEPT, "after a transaction");
    }

    #[test]
    fn many_reads_see_writes_and_deletes() {
        let mut state = state("abc");
        state.put(0, b"b", None);
        state.put(0, b"x", Some(b"1"));
        let keys: Column =
            [b"a", b"b", b"x", b"y", b"c"].map(|key| Some(&key[..])).iter().copied().collect();
        let values = state.get_many(0, &keys).unwrap();
        let values: Vec<_> = values.iter().collect();
        assert_eq!(values, [Some(&b"A"[..]), None, Some(b"1"), None, Some(b"C")]);
        let changes = state.changes();
        let position = Position {
            stores: vec![Some(crate::task::empty_position(TopicId::default()))],
            ..Position::default()
        };
        state.apply(&changes, &position).unwrap();
        assert_eq!(state.get(0, b"x").unwrap().as_deref(), Some(&b"1"[..]));
        assert!(state.changes()[0].is_empty());
    }
}
