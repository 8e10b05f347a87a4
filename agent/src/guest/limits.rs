//! What an instance takes of memory and tables, held to its limits and to the process's budget.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use sidestream_core::task::{Failure, FailureKind};
use wasmtime::ResourceLimiter;

use super::Config;

/// What a table's element costs the host, in bytes.
const TABLE_ELEMENT_BYTES: usize = 16;

/// The memory that all instances of a process share.
#[derive(Debug)]
pub(super) struct Budget {
    bytes_max: usize,
    bytes: AtomicUsize,
}

impl Budget {
    /// A budget of `bytes_max` bytes of which nothing is taken.
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: AtomicUsize::new(0) }
    }

    /// How many bytes are taken.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn reserve(&self, bytes: usize) -> bool {
        let grow = |taken: usize| taken.checked_add(bytes).filter(|&sum| sum <= self.bytes_max);
        self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).is_ok()
    }

    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A growth that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    /// Whether the instance's own limit stood against it, or what all share.
    pub(super) kind: FailureKind,
    /// Why, for people.
    pub(super) reason: String,
}

impl Denial {
    fn own(reason: String) -> Self {
        Self { kind: FailureKind::Limit, reason }
    }

    fn shared(reason: String) -> Self {
        Self { kind: FailureKind::Budget, reason }
    }

    /// As a failure of what needed it.
    pub(super) fn into_failure(self) -> Failure {
        Failure { kind: self.kind, record: None, message: self.reason }
    }
}

/// Counts what one instance takes, over all of its memories and tables. What it took goes back to
/// the budget when it is dropped.
#[derive(Debug)]
pub(super) struct Limiter {
    budget: Arc<Budget>,
    memory_bytes_max: usize,
    table_elements_max: usize,
    instances_max: usize,
    memories_max: usize,
    tables_max: usize,
    /// What its memories have, and what else the host keeps of it.
    memory_bytes: usize,
    table_elements: usize,
    last_growth: usize,
    denied: Option<Denial>,
}

impl Limiter {
    /// How many bytes its memories have, and what else the host keeps of it.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Limits for an instance that has nothing yet.
    pub(super) const fn new(budget: Arc<Budget>, config: &Config) -> Self {
        Self {
            budget,
            memory_bytes_max: config.memory_bytes_max,
            table_elements_max: config.table_elements_max,
            instances_max: config.instances_max,
            memories_max: config.memories_max,
            tables_max: config.tables_max,
            memory_bytes: 0,
            table_elements: 0,
            last_growth: 0,
            denied: None,
        }
    }

    /// Whether the budget leaves room for `count` more instances of this one's size.
    pub(super) fn leaves_room_for(&self, count: usize) -> bool {
        let wanted = self.memory_bytes.saturating_mul(count);
        self.budget.bytes().saturating_add(wanted) <= self.budget.bytes_max
    }

    /// Counts what the host keeps of the instance besides its memories and tables.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Denial> {
        self.memory(bytes)
    }

    /// Begins a call: what was refused before is not the reason for what happens in it.
    pub(super) fn begin(&mut self) {
        self.denied = None;
    }

    /// What was last refused, for people; forgets it.
    pub(super) fn take_denied(&mut self) -> Option<Denial> {
        self.denied.take()
    }

    fn memory(&mut self, growth: usize) -> Result<(), Denial> {
        let wanted = self.memory_bytes.saturating_add(growth);
        if wanted > self.memory_bytes_max {
            return Err(Denial::own(format!(
                "it wanted {wanted} bytes of memory and may have {} (`limits.guest_memory_max`)",
                self.memory_bytes_max
            )));
        }
        if !self.budget.reserve(growth) {
            return Err(Denial::shared(format!(
                "it wanted {growth} more bytes of memory, which the {} bytes that all instances \
                 together may have (a quarter of `memory_max`) don't leave",
                self.budget.bytes_max
            )));
        }
        self.memory_bytes = wanted;
        self.last_growth = growth;
        Ok(())
    }

    fn table(&mut self, growth: usize) -> Result<(), Denial> {
        let wanted = self.table_elements.saturating_add(growth);
        if wanted > self.table_elements_max {
            return Err(Denial::own(format!(
                "it wanted {wanted} elements in its tables and may have {} \
                 (`limits.guest_table_elements_max`)",
                self.table_elements_max
            )));
        }
        if !self.budget.reserve(growth * TABLE_ELEMENT_BYTES) {
            return Err(Denial::shared(format!(
                "it wanted {growth} more elements in its tables, which the {} bytes that all \
                 instances together may have (a quarter of `memory_max`) don't leave",
                self.budget.bytes_max
            )));
        }
        self.table_elements = wanted;
        self.last_growth = growth;
        Ok(())
    }

    /// Turns a refusal into a growth that fails in the guest. A language's runtime may live with
    /// that; if not, its trap is reported with this as the reason.
    fn note(&mut self, outcome: Result<(), Denial>) -> bool {
        match outcome {
            Ok(()) => true,
            Err(denial) => {
                self.denied = Some(denial);
                self.last_growth = 0;
                false
            }
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let outcome = self.memory(desired.saturating_sub(current));
        Ok(self.note(outcome))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let growth = std::mem::take(&mut self.last_growth);
        self.memory_bytes -= growth;
        self.budget.release(growth);
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let outcome = self.table(desired.saturating_sub(current));
        Ok(self.note(outcome))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        let growth = std::mem::take(&mut self.last_growth);
        self.table_elements -= growth;
        self.budget.release(growth * TABLE_ELEMENT_BYTES);
        Ok(())
    }

    fn instances(&self) -> usize {
        self.instances_max
    }

    fn tables(&self) -> usize {
        self.tables_max
    }

    fn memories(&self) -> usize {
        self.memories_max
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.budget.release(self.memory_bytes + self.table_elements * TABLE_ELEMENT_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(budget: &Arc<Budget>, memory_bytes_max: usize) -> Limiter {
        let config = Config { memory_bytes_max, table_elements_max: 10, ..Config::default() };
        Limiter::new(Arc::clone(budget), &config)
    }

    #[test]
    fn memories_count_together() {
        let budget = Arc::new(Budget::new(1_000));
        let mut limiter = limiter(&budget, 100);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.take_denied().unwrap().reason.contains("120 bytes"));
        assert!(limiter.memory_growing(60, 100, None).unwrap());
        assert_eq!(budget.bytes(), 100);
    }

    #[test]
    fn the_budget_is_shared_and_given_back() {
        let budget = Arc::new(Budget::new(100));
        let mut first = limiter(&budget, 100);
        let mut second = limiter(&budget, 100);
        assert!(first.memory_growing(0, 80, None).unwrap());
        assert!(!second.memory_growing(0, 80, None).unwrap());
        assert!(second.take_denied().unwrap().reason.contains("all instances"));
        drop(first);
        assert!(second.memory_growing(0, 80, None).unwrap());
        second.memory_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        assert_eq!(budget.bytes(), 0);
    }

    #[test]
    fn a_refusal_is_forgotten_when_a_call_begins() {
        let budget = Arc::new(Budget::new(1_000));
        let mut limiter = limiter(&budget, 100);
        assert!(!limiter.memory_growing(0, 200, None).unwrap());
        limiter.begin();
        assert_eq!(limiter.take_denied(), None);
    }

    #[test]
    fn tables_count_together() {
        let budget = Arc::new(Budget::new(1_000));
        let mut limiter = limiter(&budget, 100);
        assert!(limiter.table_growing(0, 6, None).unwrap());
        assert!(!limiter.table_growing(0, 6, None).unwrap());
        assert!(limiter.take_denied().unwrap().reason.contains("12 elements"));
        assert!(limiter.table_growing(6, 8, None).unwrap());
        limiter.table_grow_failed(wasmtime::Error::msg("no memory")).unwrap();
        assert_eq!(budget.bytes(), 6 * TABLE_ELEMENT_BYTES);
    }
}
