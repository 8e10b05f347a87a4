//! The task that an instance works for: what all handles of a transform share.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use crate::{
    bindings::sidestream::transform::{
        state::{Entries, KeyRange},
        telemetry::Level,
        types::{Batch, Context, Effects, Emits, Writes},
    },
    codec::{CodecError, Decode, Encode},
    emits::Room,
    failure::{Failure, Outcome},
    host::Host,
    output::Parts,
    overlay::Overlay,
    record::Record,
};

/// The row of a punctuation, which no record caused.
pub(crate) const NO_ROW: i32 = -1;

/// The end of the year 9999, as the agent has it.
const TIMESTAMP_MAX: i64 = 253_402_300_799_999;

/// What stream time takes a record's timestamp for: -1 unless it is a moment.
pub(crate) const fn time_told_by(timestamp: i64) -> i64 {
    match timestamp {
        0..=TIMESTAMP_MAX => timestamp,
        _ => -1,
    }
}

/// How many bytes of a store a call keeps at most; then it hands over what it wrote and forgets
/// the rest.
const OVERLAY_BYTES_MAX: usize = 4 << 20;

/// The task of an instance, and the call that is under way.
pub(crate) struct Task {
    pub(crate) context: Context,
    pub(crate) host: Box<dyn Host>,
    pub(crate) now: Cell<Now>,
    /// The stores whose values for all keys of a batch are asked for at its beginning.
    pub(crate) prefetched: RefCell<Vec<u32>>,
    counters: RefCell<Vec<(String, Rc<Cell<u64>>)>>,
    level_min: Cell<Option<Level>>,
    emits: RefCell<Emits>,
    room: Cell<Room>,
    overlays: RefCell<Vec<Overlay>>,
    key: RefCell<Vec<u8>>,
    value: RefCell<Vec<u8>>,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) row: i32,
    pub(crate) stream_time: i64,
    pub(crate) wall_clock: i64,
}

impl Task {
    pub(crate) fn new(context: Context, host: Box<dyn Host>) -> Self {
        let overlays = context.stores.iter().map(|_| Overlay::default()).collect();
        Self {
            context,
            host,
            now: Cell::new(Now { row: NO_ROW, stream_time: -1, wall_clock: -1 }),
            prefetched: RefCell::default(),
            counters: RefCell::default(),
            level_min: Cell::default(),
            emits: RefCell::new(Emits::with_room(Room::default())),
            room: Cell::default(),
            overlays: RefCell::new(overlays),
            key: RefCell::default(),
            value: RefCell::default(),
        }
    }

    /// Begins a call: nothing is known or done.
    pub(crate) fn begin(&self, now: Now) {
        self.now.set(now);
        self.level_min.set(None);
        self.overlays.borrow_mut().iter_mut().for_each(Overlay::clear);
        *self.emits.borrow_mut() = Emits::with_room(self.room.get());
        for (_, counter) in self.counters.borrow().iter() {
            counter.set(0);
        }
    }

    /// Ends a call that succeeded, and says what it did.
    pub(crate) fn end(&self) -> Effects {
        for (name, counter) in self.counters.borrow().iter() {
            let by = counter.take();
            if by > 0 {
                self.host.count(name, by);
            }
        }
        let emits = self.emits.replace(Emits::with_room(Room::default()));
        self.room.set(emits.room());
        Effects { emits, writes: self.take_writes() }
    }

    pub(crate) fn emit<K, V>(&self, output: u32, key: &K, value: &V) -> Outcome
    where
        K: Encode + ?Sized,
        V: Encode + ?Sized,
    {
        let cause = self.now.get().row;
        Ok(self.emits.borrow_mut().push(cause, output, key, value)?)
    }

    pub(crate) fn forward(&self, output: u32, record: &Record<'_>) {
        self.emits.borrow_mut().push_record(self.now.get().row, output, record);
    }

    pub(crate) fn forward_with<V: Encode + ?Sized>(
        &self,
        output: u32,
        record: &Record<'_>,
        value: &V,
    ) -> Outcome {
        let cause = self.now.get().row;
        Ok(self.emits.borrow_mut().push_with(cause, output, record, value)?)
    }

    pub(crate) fn send(&self, output: u32, parts: &Parts) {
        self.emits.borrow_mut().push_parts(self.now.get().row, output, parts);
    }

    /// Asks for the values of the keys of a batch in all stores that want that.
    pub(crate) fn prefetch_batch(&self, batch: &Batch) {
        for &store in self.prefetched.borrow().iter() {
            self.prefetch(store, batch.keys.rows().flatten());
        }
    }

    /// Asks for the values of those of `keys` that aren't known yet, all at once.
    pub(crate) fn prefetch<'k>(&self, store: u32, keys: impl Iterator<Item = &'k [u8]>) {
        self.with_overlay(store, |overlay| {
            let unknown = overlay.unknown(keys);
            if unknown.len() == 0 {
                return;
            }
            let values = self.host.get_many(store, &unknown);
            for (key, value) in unknown.rows().flatten().zip(values.rows()) {
                overlay.learn(key, value);
            }
        });
    }

    pub(crate) fn get<K, V>(&self, store: u32, key: &K) -> Result<Option<V>, Failure>
    where
        K: Encode + ?Sized,
        V: for<'v> Decode<'v>,
    {
        let key = encode(&self.key, key).map_err(|error| self.about_key(store, error))?;
        let (value, size) = self.with_overlay(store, |overlay| {
            if let Some(known) = overlay.get(&key) {
                return (known.map(V::decode).transpose(), 0);
            }
            let value = self.host.get(store, &key);
            overlay.learn(&key, value.as_deref());
            (value.as_deref().map(V::decode).transpose(), overlay.size())
        });
        self.key.replace(key);
        if size > OVERLAY_BYTES_MAX {
            self.hand_over();
        }
        value.map_err(|error| self.about_value(store, error))
    }

    /// Writes a value, or deletes with none.
    pub(crate) fn put<K, V>(&self, store: u32, key: &K, value: Option<&V>) -> Outcome
    where
        K: Encode + ?Sized,
        V: Encode + ?Sized,
    {
        let key = encode(&self.key, key).map_err(|error| self.about_key(store, error))?;
        let value = value.map(|value| encode(&self.value, value)).transpose();
        let value = value.map_err(|error| self.about_value(store, error))?;
        let size = self.with_overlay(store, |overlay| {
            overlay.write(&key, value.as_deref());
            overlay.size()
        });
        self.key.replace(key);
        self.value.replace(value.unwrap_or_default());
        if size > OVERLAY_BYTES_MAX {
            self.hand_over();
        }
        Ok(())
    }

    /// Some entries of a range, or of its part with a prefix, as of now.
    pub(crate) fn scan(&self, store: u32, prefix: Option<&[u8]>, range: &KeyRange) -> Entries {
        if self.with_overlay(store, |overlay| overlay.is_written()) {
            self.hand_over();
        }
        match prefix {
            Some(prefix) => self.host.scan_prefix(store, prefix, range),
            None => self.host.scan(store, range),
        }
    }

    /// A counter whose sum is handed over at the end of each call.
    pub(crate) fn counter(&self, name: &str) -> Rc<Cell<u64>> {
        let mut counters = self.counters.borrow_mut();
        if let Some((_, counter)) = counters.iter().find(|(other, _)| other == name) {
            return Rc::clone(counter);
        }
        let counter = Rc::default();
        counters.push((name.to_owned(), Rc::clone(&counter)));
        counter
    }

    /// The lowest level of log lines that anybody reads; asked for once in a call.
    pub(crate) fn level_min(&self) -> Level {
        let level = self.level_min.get().unwrap_or_else(|| self.host.level_min());
        self.level_min.set(Some(level));
        level
    }

    /// Hands over all that was written so far.
    fn hand_over(&self) {
        self.host.put_many(&self.take_writes());
        for overlay in self.overlays.borrow_mut().iter_mut() {
            if overlay.size() > OVERLAY_BYTES_MAX {
                overlay.clear();
            }
        }
    }

    fn take_writes(&self) -> Writes {
        let mut writes = Writes::new();
        for (overlay, store) in self.overlays.borrow_mut().iter_mut().zip(0..) {
            overlay.hand_over(store, &mut writes);
        }
        writes
    }

    fn with_overlay<T>(&self, store: u32, work: impl FnOnce(&mut Overlay) -> T) -> T {
        work(&mut self.overlays.borrow_mut()[store as usize])
    }

    fn about_key(&self, store: u32, error: CodecError) -> CodecError {
        error.of(format_args!("key for store `{}`", self.context.stores[store as usize]))
    }

    fn about_value(&self, store: u32, error: CodecError) -> Failure {
        error.of(format_args!("value of store `{}`", self.context.stores[store as usize])).into()
    }
}

/// Encodes into a buffer that is used again and again; the caller puts it back.
fn encode<T: Encode + ?Sized>(buffer: &RefCell<Vec<u8>>, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = buffer.take();
    bytes.clear();
    value.encode(&mut bytes)?;
    Ok(bytes)
}
