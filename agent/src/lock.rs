//! Locks whose holder may have panicked.
//!
//! What is behind the agent's locks is whole after each statement that changes it: counters, maps,
//! snapshots. A panic ends its worker; whoever else asks goes on to be answered.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Takes a mutex, from one who panicked too.
pub(crate) trait Held<T> {
    /// Waits for it.
    fn held(&self) -> MutexGuard<'_, T>;
}

impl<T> Held<T> for Mutex<T> {
    fn held(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a lock of readers and writers, from one who panicked too.
pub(crate) trait Shared<T> {
    /// Waits until nobody writes.
    fn reading(&self) -> RwLockReadGuard<'_, T>;
    /// Waits until nobody else reads or writes.
    fn writing(&self) -> RwLockWriteGuard<'_, T>;
}

impl<T> Shared<T> for RwLock<T> {
    fn reading(&self) -> RwLockReadGuard<'_, T> {
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_a_panicking_holder_left_is_there() {
        let both = Arc::new((Mutex::new(1), RwLock::new(2)));
        let theirs = Arc::clone(&both);
        let panicked = std::thread::spawn(move || {
            let (mut one, mut two) = (theirs.0.held(), theirs.1.writing());
            (*one, *two) = (3, 4);
            std::panic::resume_unwind(Box::new(()));
        });
        panicked.join().unwrap_err();
        assert_eq!((*both.0.held(), *both.1.reading()), (3, 4));
    }
}
