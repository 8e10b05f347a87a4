//! What a guest can call: the stores of its task, and telemetry.

use std::{
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use sidestream_core::{
    column::Column,
    record::Timestamp,
    task::{Effects, Entries, Level, Scan, State, StoreError, Telemetry},
};

use super::{
    Config, Output,
    answer::{self, Causes},
    bindings::sidestream::transform::{
        state as wit_state, telemetry as wit_telemetry,
        types::{self as wit, BytesColumnResult, Writes},
    },
    failure::Breach,
    limits::Limiter,
    telemetry::Collector,
    wasi::{Call, Surroundings},
};

/// Keys are looked up this many at a time, so that values that are too many are found out before
/// all of them are in memory.
const READ_ROWS: usize = 64;

/// What belongs to one instance on the host's side.
pub(super) struct Host {
    pub(super) limiter: Limiter,
    pub(super) telemetry: Collector,
    pub(super) surroundings: Surroundings,
    config: Arc<Config>,
    outputs: Vec<Output>,
    /// For each of the guest's stores, which of the task's it is.
    stores: Vec<usize>,
    /// The task's state, during a call.
    state: State,
    /// How many bytes this call wrote.
    written: usize,
    /// When the call began.
    began: Instant,
}

impl Host {
    /// A host for an instance that has not been called yet.
    pub(super) fn new(
        limiter: Limiter,
        surroundings: Surroundings,
        config: Arc<Config>,
        outputs: Vec<Output>,
        stores: Vec<usize>,
    ) -> Self {
        let telemetry = Collector::new(Arc::clone(&config));
        Self {
            limiter,
            telemetry,
            surroundings,
            config,
            outputs,
            stores,
            state: State::default(),
            written: 0,
            began: Instant::now(),
        }
    }

    /// Begins a call on `state`.
    pub(super) fn begin(&mut self, call: Call, state: State, wall_clock: Timestamp) {
        self.state = state;
        self.written = 0;
        self.began = Instant::now();
        self.limiter.begin();
        self.surroundings.begin(call, wall_clock);
    }

    /// Ends a call: gives the state back.
    pub(super) fn end(&mut self) -> State {
        std::mem::take(&mut self.state)
    }

    /// Makes what a guest answered happen, once all of it is seen to be sound.
    pub(super) fn finish(
        &mut self,
        answer: wit::Effects,
        causes: Causes<'_>,
    ) -> Result<Effects, Breach> {
        let emits = answer::emits(answer.emits, causes, &self.outputs, &self.config)?;
        self.write(answer.writes)?;
        Ok(Effects { emits, telemetry: self.take_telemetry() })
    }

    fn take_telemetry(&mut self) -> Telemetry {
        self.telemetry.take()
    }

    fn store(&self, store: u32) -> Result<usize, Breach> {
        let known = usize::try_from(store).ok().and_then(|store| self.stores.get(store));
        known.copied().ok_or_else(|| {
            Breach::malformed(format!(
                "it used store {store}: the transform has {} stores",
                self.stores.len()
            ))
        })
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Breach> {
        self.written = self.written.saturating_add(bytes);
        match self.written <= self.config.output_bytes_max {
            true => Ok(()),
            false => Err(Breach::limit(format!(
                "it wrote more than the {} bytes of a call (`limits.output_bytes_max`), {} of them \
                 for each change; write less in a call",
                self.config.output_bytes_max,
                State::write_bytes(0, 0)
            ))),
        }
    }

    /// What is left of the time of the call; code is stopped by its engine, and this is for what the
    /// host does for it.
    fn time_left(&self) -> Result<Duration, Breach> {
        let time_max = self.config.batch_time_max;
        match time_max.checked_sub(self.began.elapsed()) {
            Some(left) if !left.is_zero() => Ok(left),
            _ => Err(Breach::deadline(time_max)),
        }
    }

    fn write(&mut self, writes: Writes) -> Result<(), Breach> {
        let keys = answer::column(writes.keys, "writes.keys")?;
        let values = answer::column(writes.values, "writes.values")?;
        answer::rows("writes.keys", keys.len(), writes.stores.len())?;
        answer::rows("writes.values", values.len(), writes.stores.len())?;
        answer::no_nulls("writes.keys", &keys)?;
        answer::record_sizes("writes", &keys, &values, &self.config)?;
        let overhead = State::write_bytes(0, 0).saturating_mul(keys.len());
        self.charge((keys.data().len() + values.data().len()).saturating_add(overhead))?;
        for &store in &writes.stores {
            self.store(store)?;
        }
        for ((&store, key), value) in writes.stores.iter().zip(&keys).zip(&values) {
            let store = self.store(store)?;
            self.state.put(store, key.unwrap_or_default(), value);
        }
        Ok(())
    }

    fn read_many(&self, store: usize, keys: &Column) -> Result<Column, Breach> {
        if keys.len() > self.config.get_keys_max {
            return Err(Breach::limit(format!(
                "it asked for the values of {} keys at a time and may ask for {}; ask for fewer",
                keys.len(),
                self.config.get_keys_max
            )));
        }
        let mut values = Column::default();
        let mut rows = keys.iter();
        while values.len() < keys.len() {
            self.time_left()?;
            let some: Column = rows.by_ref().take(READ_ROWS).collect();
            let read = self.state.get_many(store, &some).map_err(|e| self.unread(&e))?;
            if values.bytes() + read.bytes() > self.config.memory_bytes_max {
                return Err(Breach::limit(format!(
                    "it asked for values of more than the {} bytes of memory that it may have \
                     (`limits.guest_memory_max`)",
                    self.config.memory_bytes_max
                )));
            }
            values.append(&read);
        }
        Ok(values)
    }

    fn scan_range(
        &mut self,
        store: u32,
        from: Bound<Vec<u8>>,
        to: Bound<Vec<u8>>,
        range: &wit_state::KeyRange,
    ) -> Result<wit_state::Entries, Breach> {
        let store = self.store(store)?;
        let limit = usize::try_from(range.limit).unwrap_or(usize::MAX);
        let limit = limit.min(self.config.scan_entries_max);
        let bytes_max = self.config.scan_bytes_max;
        let time_max = self.time_left()?;
        let scan = Scan { from, to, reverse: range.reverse, limit, bytes_max, time_max };
        let entries = match scan.is_empty() {
            true => Entries::default(),
            false => {
                let found = self.state.scan(store, &scan);
                found.map_err(|error| self.unread(&error))?
            }
        };
        Ok(wit_state::Entries {
            keys: lower(entries.keys),
            values: lower(entries.values),
            more: entries.more,
        })
    }

    fn unread(&self, error: &StoreError) -> Breach {
        match error {
            StoreError::Slow(_) => Breach::deadline(self.config.batch_time_max),
            StoreError::Busy | StoreError::Corrupt { .. } | StoreError::Failed(_) => {
                Breach::state(error)
            }
        }
    }
}

fn lower(column: Column) -> BytesColumnResult {
    let (data, lengths) = column.into_parts();
    BytesColumnResult { data, lengths }
}

fn bound(bound: &wit_state::KeyBound) -> Bound<Vec<u8>> {
    match bound {
        wit_state::KeyBound::Unbounded => Bound::Unbounded,
        wit_state::KeyBound::Included(key) => Bound::Included(key.clone()),
        wit_state::KeyBound::Excluded(key) => Bound::Excluded(key.clone()),
    }
}

/// The first key after all that begin with `prefix`; unbounded if there is none.
fn after_prefix(mut prefix: Vec<u8>) -> Bound<Vec<u8>> {
    while let Some(last) = prefix.pop() {
        if last < u8::MAX {
            prefix.push(last + 1);
            return Bound::Excluded(prefix);
        }
    }
    Bound::Unbounded
}

/// The higher of two lower ends.
fn higher(a: Bound<Vec<u8>>, b: Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    match (&a, &b) {
        (_, Bound::Unbounded) => a,
        (Bound::Unbounded, _) => b,
        (Bound::Included(x) | Bound::Excluded(x), Bound::Included(y)) if x >= y => a,
        (Bound::Included(x) | Bound::Excluded(x), Bound::Excluded(y)) if x > y => a,
        (_, Bound::Included(_) | Bound::Excluded(_)) => b,
    }
}

/// The lower of two upper ends.
fn lower_end(a: Bound<Vec<u8>>, b: Bound<Vec<u8>>) -> Bound<Vec<u8>> {
    match (&a, &b) {
        (_, Bound::Unbounded) => a,
        (Bound::Unbounded, _) => b,
        (Bound::Included(x) | Bound::Excluded(x), Bound::Included(y)) if x <= y => a,
        (Bound::Included(x) | Bound::Excluded(x), Bound::Excluded(y)) if x < y => a,
        (_, Bound::Included(_) | Bound::Excluded(_)) => b,
    }
}

impl wit::Host for Host {}

impl wit_state::Host for Host {
    fn get(&mut self, store: u32, key: Vec<u8>) -> wasmtime::Result<Option<Vec<u8>>> {
        let store = self.store(store)?;
        Ok(self.state.get(store, &key).map_err(|error| self.unread(&error))?)
    }

    fn get_many(
        &mut self,
        store: u32,
        keys: BytesColumnResult,
    ) -> wasmtime::Result<BytesColumnResult> {
        let store = self.store(store)?;
        let keys = answer::column(keys, "the keys of get-many")?;
        answer::no_nulls("the keys of get-many", &keys)?;
        Ok(lower(self.read_many(store, &keys)?))
    }

    fn put(&mut self, store: u32, key: Vec<u8>, value: Option<Vec<u8>>) -> wasmtime::Result<()> {
        let store = self.store(store)?;
        let value_bytes = value.as_ref().map_or(0, Vec::len);
        let bytes = key.len() + value_bytes;
        if bytes > self.config.record_bytes_max {
            return Err(Breach::limit(format!(
                "it put {bytes} bytes under one key and may put {} (`limits.record_bytes_max`)",
                self.config.record_bytes_max
            ))
            .into());
        }
        self.charge(State::write_bytes(key.len(), value_bytes))?;
        self.state.put(store, &key, value.as_deref());
        Ok(())
    }

    fn put_many(&mut self, writes: Writes) -> wasmtime::Result<()> {
        Ok(self.write(writes)?)
    }

    fn scan(
        &mut self,
        store: u32,
        range: wit_state::KeyRange,
    ) -> wasmtime::Result<wit_state::Entries> {
        Ok(self.scan_range(store, bound(&range.lower), bound(&range.upper), &range)?)
    }

    fn scan_prefix(
        &mut self,
        store: u32,
        prefix: Vec<u8>,
        range: wit_state::KeyRange,
    ) -> wasmtime::Result<wit_state::Entries> {
        let from = higher(bound(&range.lower), Bound::Included(prefix.clone()));
        let to = lower_end(bound(&range.upper), after_prefix(prefix));
        Ok(self.scan_range(store, from, to, &range)?)
    }
}

impl wit_telemetry::Host for Host {
    fn level_min(&mut self) -> wasmtime::Result<wit_telemetry::Level> {
        Ok(match self.config.log_level_min {
            Level::Trace => wit_telemetry::Level::Trace,
            Level::Debug => wit_telemetry::Level::Debug,
            Level::Info => wit_telemetry::Level::Info,
            Level::Warn => wit_telemetry::Level::Warn,
            Level::Error => wit_telemetry::Level::Error,
        })
    }

    fn log(&mut self, level: wit_telemetry::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            wit_telemetry::Level::Trace => Level::Trace,
            wit_telemetry::Level::Debug => Level::Debug,
            wit_telemetry::Level::Info => Level::Info,
            wit_telemetry::Level::Warn => Level::Warn,
            wit_telemetry::Level::Error => Level::Error,
        };
        self.telemetry.log(level, &message);
        Ok(())
    }

    fn count(&mut self, name: String, by: u64) -> wasmtime::Result<()> {
        self.telemetry.count(&name, by);
        Ok(())
    }

    fn observe(&mut self, name: String, value: f64) -> wasmtime::Result<()> {
        self.telemetry.observe(&name, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sidestream_core::task::Stateless;

    use super::{wit_state::Host as _, *};
    use crate::guest::limits::Budget;

    fn included(key: &[u8]) -> Bound<Vec<u8>> {
        Bound::Included(key.to_vec())
    }

    fn excluded(key: &[u8]) -> Bound<Vec<u8>> {
        Bound::Excluded(key.to_vec())
    }

    #[test]
    fn what_the_host_does_ends_with_the_time_of_the_call() {
        let config = Arc::new(Config { batch_time_max: Duration::ZERO, ..Config::default() });
        let limiter = Limiter::new(Arc::new(Budget::new(0)), &config);
        let mut host = Host::new(limiter, Surroundings::new(b""), config, Vec::new(), vec![0]);
        host.begin(Call::Initialise, State::new(Box::new(Stateless), 1), 0);
        let keys = BytesColumnResult { data: Vec::new(), lengths: vec![0] };
        let late = |error: wasmtime::Error| {
            let message = error.downcast::<Breach>().expect("it is a breach").to_string();
            assert!(message.contains("longer than the 0 ms of a call"), "{message}");
        };
        late(host.get_many(0, keys).unwrap_err());
        let range = wit_state::KeyRange {
            lower: wit_state::KeyBound::Unbounded,
            upper: wit_state::KeyBound::Unbounded,
            reverse: false,
            limit: 1,
        };
        late(host.scan(0, range).unwrap_err());
    }

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(after_prefix(b"ab".to_vec()), excluded(b"ac"));
        assert_eq!(after_prefix(vec![1, 255, 255]), excluded(&[2]));
        assert_eq!(after_prefix(vec![255]), Bound::Unbounded);
        assert_eq!(after_prefix(vec![]), Bound::Unbounded);
    }

    #[test]
    fn the_narrower_end_counts() {
        assert_eq!(higher(included(b"b"), excluded(b"b")), excluded(b"b"));
        assert_eq!(higher(excluded(b"b"), included(b"b")), excluded(b"b"));
        assert_eq!(higher(Bound::Unbounded, included(b"b")), included(b"b"));
        assert_eq!(lower_end(included(b"b"), excluded(b"b")), excluded(b"b"));
        assert_eq!(lower_end(excluded(b"b"), included(b"b")), excluded(b"b"));
        assert_eq!(lower_end(included(b"a"), excluded(b"b")), included(b"a"));
    }
}
