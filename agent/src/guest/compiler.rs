//! Compiles within a bound of time.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    time::Duration,
};

use wasmtime::{Engine, component::Component};

/// Why there is no code.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It took longer than it may.
    TooLong,
    /// The module is not as it should be.
    Invalid(String),
    /// There was no thread to compile in.
    NoThread(String),
}

/// Compiles one module at a time, each in a thread of its own.
///
/// A compilation can't be stopped. One that takes too long is left to end by itself, and nothing
/// else is compiled until then: so no more than one is ever left over.
#[derive(Debug, Default)]
pub(super) struct Compiler {
    turns: Arc<Turns>,
}

impl Compiler {
    /// Compiles `bytes`, or gives up after `time_max`.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        bytes: &[u8],
        time_max: Duration,
    ) -> Result<Component, Failed> {
        let (engine, bytes) = (engine.clone(), bytes.to_vec());
        let work = move || Component::from_binary(&engine, &bytes);
        match self.run(work, time_max)? {
            Ok(component) => Ok(component),
            Err(error) => Err(Failed::Invalid(format!("{error:#}"))),
        }
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        time_max: Duration,
    ) -> Result<T, Failed> {
        let turn = Turns::wait(&self.turns, time_max).ok_or(Failed::TooLong)?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("compile".to_owned());
        thread
            .spawn(move || {
                // Nobody listens any more if it took too long.
                drop(sender.send(work()));
                drop(turn);
            })
            .map_err(|error| Failed::NoThread(error.to_string()))?;
        receiver.recv_timeout(time_max).map_err(|error| match error {
            RecvTimeoutError::Timeout => Failed::TooLong,
            RecvTimeoutError::Disconnected => {
                Failed::Invalid("the compiler fails on it".to_owned())
            }
        })
    }
}

/// Whose turn it is: one thread's at a time.
#[derive(Debug, Default)]
struct Turns {
    taken: Mutex<bool>,
    changed: Condvar,
}

struct Turn(Arc<Turns>);

impl Turns {
    fn wait(turns: &Arc<Self>, time_max: Duration) -> Option<Turn> {
        let (mut taken, _) = turns
            .changed
            .wait_timeout_while(turns.lock(), time_max, |taken| *taken)
            .unwrap_or_else(PoisonError::into_inner);
        match *taken {
            true => None,
            false => {
                *taken = true;
                Some(Turn(Arc::clone(turns)))
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.lock() = false;
        self.0.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_takes_too_long_is_given_up_and_holds_the_turn() {
        let compiler = Compiler::default();
        let (release, held) = mpsc::channel::<()>();
        let endless = move || held.recv().is_ok();
        assert_eq!(compiler.run(endless, Duration::from_millis(20)), Err(Failed::TooLong));
        assert_eq!(compiler.run(|| 1, Duration::from_millis(20)), Err(Failed::TooLong));
        release.send(()).unwrap();
        assert_eq!(compiler.run(|| 2, LONG), Ok(2));
    }

    #[test]
    fn a_compiler_that_panics_is_an_error() {
        let compiler = Compiler::default();
        let panics = || -> u32 { std::panic::resume_unwind(Box::new("bug")) };
        assert!(matches!(compiler.run(panics, LONG), Err(Failed::Invalid(_))));
        assert_eq!(compiler.run(|| 2, LONG), Ok(2));
    }
}
