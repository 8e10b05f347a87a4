//! What a transform says about itself: log lines and metrics. They count when the agent's
//! transaction commits.

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};

use crate::task::Task;

pub use crate::bindings::sidestream::transform::telemetry::Level;

thread_local! {
    /// The task whose call is under way, or was last.
    static CURRENT: RefCell<Option<Rc<Task>>> = const { RefCell::new(None) };
}

pub(crate) fn enter(task: &Rc<Task>) {
    CURRENT.with_borrow_mut(|current| match current {
        Some(current) if Rc::ptr_eq(current, task) => {}
        _ => *current = Some(Rc::clone(task)),
    });
}

/// Whether anybody reads log lines of that level; the macros ask before they make one.
#[must_use]
pub fn enabled(level: Level) -> bool {
    CURRENT.with_borrow(|current| current.as_ref().is_some_and(|task| level >= task.level_min()))
}

/// Logs a line. See [`info!`](crate::info!) and its siblings.
pub fn log(level: Level, message: fmt::Arguments<'_>) {
    CURRENT.with_borrow(|current| {
        if let Some(task) = current {
            match message.as_str() {
                Some(text) => task.host.log(level, text),
                None => task.host.log(level, &message.to_string()),
            }
        }
    });
}

/// Logs a line of a given [`Level`], written as with [`format!`].
#[macro_export]
macro_rules! log {
    ($level:expr, $($message:tt)+) => {{
        let level: $crate::Level = $level;
        if $crate::telemetry::enabled(level) {
            $crate::telemetry::log(level, ::core::format_args!($($message)+));
        }
    }};
}

/// Logs a line for following a single record.
#[macro_export]
macro_rules! trace {
    ($($message:tt)+) => { $crate::log!($crate::Level::Trace, $($message)+) };
}

/// Logs a line for finding a fault.
#[macro_export]
macro_rules! debug {
    ($($message:tt)+) => { $crate::log!($crate::Level::Debug, $($message)+) };
}

/// Logs a line that is worth knowing.
#[macro_export]
macro_rules! info {
    ($($message:tt)+) => { $crate::log!($crate::Level::Info, $($message)+) };
}

/// Logs a line about what is wrong and dealt with.
#[macro_export]
macro_rules! warn {
    ($($message:tt)+) => { $crate::log!($crate::Level::Warn, $($message)+) };
}

/// Logs a line about what is wrong and not dealt with.
#[macro_export]
macro_rules! error {
    ($($message:tt)+) => { $crate::log!($crate::Level::Error, $($message)+) };
}

/// A sum of the transform's own; [`Setup::counter`](crate::Setup::counter) gives it.
#[derive(Clone, Debug)]
pub struct Counter {
    sum: Rc<Cell<u64>>,
}

impl Counter {
    pub(crate) fn new(task: &Task, name: &str) -> Self {
        Self { sum: task.counter(name) }
    }

    /// Adds to it.
    pub fn add(&self, by: u64) {
        self.sum.set(self.sum.get().saturating_add(by));
    }
}

/// A distribution of the transform's own; [`Setup::histogram`](crate::Setup::histogram) gives it.
#[derive(Clone)]
pub struct Histogram {
    task: Rc<Task>,
    name: Rc<str>,
}

impl Histogram {
    pub(crate) fn new(task: Rc<Task>, name: &str) -> Self {
        Self { task, name: name.into() }
    }

    /// Gives it a value.
    pub fn observe(&self, value: f64) {
        self.task.host.observe(&self.name, value);
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram").field("name", &self.name).finish_non_exhaustive()
    }
}
