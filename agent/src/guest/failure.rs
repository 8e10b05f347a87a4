//! What went wrong in a call, in the core's words.

use std::time::Duration;

use sidestream_core::task::{Failure, FailureKind};
use wasmtime::{Trap, WasmBacktrace};

use super::{Config, host::Host, instance::HANDLES_MAX, limits::Denial, text};

/// How many bytes of a message of wasmtime's are shown: it may quote names of the module.
const MESSAGE_BYTES_MAX: usize = 2 << 10;

/// How many functions of a backtrace are shown, and how many bytes of the name of each.
const FRAMES_MAX: usize = 6;
const FRAME_BYTES_MAX: usize = 80;

/// What a host function found wrong. It ends the call as a trap does.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Breach {
    kind: FailureKind,
    message: String,
}

impl Breach {
    /// The guest said something that makes no sense.
    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Malformed, message: message.into() }
    }

    /// The guest wanted too much.
    pub(super) fn limit(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Limit, message: message.into() }
    }

    /// The guest called what ends it, or what is closed to it.
    pub(super) fn trap(message: impl Into<String>) -> Self {
        Self { kind: FailureKind::Trap, message: message.into() }
    }

    /// What the host did for the guest took longer than a call may.
    pub(super) fn deadline(time_max: Duration) -> Self {
        Self { kind: FailureKind::Deadline, message: too_long(time_max) }
    }

    /// The state behind the guest failed.
    pub(super) fn state(error: &sidestream_core::task::StoreError) -> Self {
        Self { kind: FailureKind::State, message: error.to_string() }
    }

    /// As a failure of the call, when there is no backtrace to show.
    pub(super) fn into_failure(self) -> Failure {
        Failure { kind: self.kind, record: None, message: self.message }
    }
}

/// Says what a call that did not return came to: which limit, and where in the guest.
pub(super) fn from_trap(error: &wasmtime::Error, host: &mut Host, config: &Config) -> Failure {
    let denied = host.limiter.take_denied();
    let (kind, mut message) = match (error.downcast_ref::<Breach>(), error.downcast_ref::<Trap>()) {
        (Some(breach), _) => (breach.kind, breach.message.clone()),
        (None, Some(&trap)) => from_wasm_trap(trap, denied, config),
        (None, None) => from_host(error, denied, config),
    };
    if let Some(words) = host.telemetry.last_words() {
        message.push_str(&format!("; it said: {words}"));
    }
    if let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() {
        message.push_str(&frames(backtrace));
    }
    Failure { kind, record: None, message }
}

fn from_wasm_trap(trap: Trap, denied: Option<Denial>, config: &Config) -> (FailureKind, String) {
    match (trap, denied) {
        (Trap::Interrupt, _) => (FailureKind::Deadline, too_long(config.batch_time_max)),
        (Trap::StackOverflow, _) => (
            FailureKind::Limit,
            format!(
                "it used up its {} bytes of stack (`limits.guest_stack_max`)",
                config.stack_bytes_max
            ),
        ),
        (_, Some(denial)) => (denial.kind, denial.reason),
        (Trap::AllocationTooLarge, None) => {
            (FailureKind::Limit, "it allocated more than there can be".to_owned())
        }
        (
            Trap::StringOutOfBounds
            | Trap::ListOutOfBounds
            | Trap::InvalidDiscriminant
            | Trap::InvalidChar
            | Trap::UnalignedPointer,
            None,
        ) => (FailureKind::Malformed, trap.to_string()),
        (_, None) => (FailureKind::Trap, trap.to_string()),
    }
}

fn too_long(time_max: Duration) -> String {
    format!(
        "it ran longer than the {} ms of a call; give it smaller batches \
         (`limits.batch_records_max`) or more time (`limits.batch_time_max`)",
        time_max.as_millis()
    )
}

/// Errors of wasmtime that are neither: they have no types that could be asked for, but each says
/// what it is. What is not known is taken as an answer that doesn't fit its type.
fn from_host(
    error: &wasmtime::Error,
    denied: Option<Denial>,
    config: &Config,
) -> (FailureKind, String) {
    if let Some(denial) = denied {
        return (denial.kind, denial.reason);
    }
    let message = text::clean(&error.root_cause().to_string(), MESSAGE_BYTES_MAX);
    match over(&message, config) {
        Some(limit) => (FailureKind::Limit, limit),
        None => (FailureKind::Malformed, message),
    }
}

/// Which limit a message of wasmtime's is about, in words that say what to do.
fn over(message: &str, config: &Config) -> Option<String> {
    let has = |words: &str| message.contains(words);
    if has("fuel allocated for hostcalls has been exhausted") {
        return Some(format!(
            "it handed over more than the {} bytes of a call (`limits.output_bytes_max`); hand over \
             less in a call",
            config.output_bytes_max
        ));
    }
    if has("handle limit exceeded") {
        return Some(format!(
            "it held more than {HANDLES_MAX} handles; let go of those that it needs no more"
        ));
    }
    if has("resource limit exceeded") {
        return Some(format!(
            "it has more parts than it may: {} core instances, {} memories, {} tables; link it \
             from fewer modules",
            config.instances_max, config.memories_max, config.tables_max
        ));
    }
    has("exceeds memory limits").then(|| {
        format!(
            "it wanted more memory than the {} bytes that it may have (`limits.guest_memory_max`)",
            config.memory_bytes_max
        )
    })
}

/// The innermost functions of a backtrace. Those of Rust's own library, as of each panic, are left out
/// if others called them.
fn frames(backtrace: &WasmBacktrace) -> String {
    let names: Vec<_> = backtrace
        .frames()
        .iter()
        .map(|frame| match frame.func_name() {
            Some(name) => function_name(name),
            None => format!("function {}", frame.func_index()),
        })
        .collect();
    match told(names) {
        names if names.is_empty() => String::new(),
        names => format!("; in {}", names.join(" < ")),
    }
}

/// Of the functions that had called each other, innermost first, those that say where it was.
fn told(mut names: Vec<String>) -> Vec<String> {
    if names.iter().any(|name| !is_of_library(name)) {
        names.retain(|name| !is_of_library(name));
    }
    names.truncate(FRAMES_MAX);
    names
}

/// As people write it, without the hashes that compilers add.
fn function_name(name: &str) -> String {
    text::clean(&format!("{:#}", rustc_demangle::demangle(name)), FRAME_BYTES_MAX)
}

/// Whether a function is of Rust's own library or of what compilers put beneath it.
fn is_of_library(name: &str) -> bool {
    let path = name.trim_start_matches('<');
    [
        "alloc::",
        "core::",
        "std::",
        "__rust",
        "rust_begin_unwind",
        "rust_panic",
        "abort",
        "panic_abort",
    ]
    .iter()
    .any(|of| path.starts_with(of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_the_names_that_people_gave_them() {
        for (mangled, name) in [
            ("_ZN4core9panicking5panic17h0123456789abcdefE", "core::panicking::panic"),
            ("_RNvCsfLfy6EI15iL_7___rustc10rust_panic", "__rustc::rust_panic"),
            ("app::handle", "app::handle"),
            ("main.main", "main.main"),
        ] {
            assert_eq!(function_name(mangled), name);
        }
        assert_eq!(function_name(&"x".repeat(1_000)).len(), FRAME_BYTES_MAX);
    }

    #[test]
    fn of_a_panic_the_users_functions_are_told() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let panic =
            ["abort", "std::process::abort", "__rustc::rust_panic", "core::panicking::panic"];
        let called = ["<app::Rule as sdk::Transform>::process", "run"];
        assert_eq!(told(names(&[&panic[..], &called].concat())), names(&called));
        assert_eq!(told(names(&panic)), names(&panic), "better than nothing");
    }
}
