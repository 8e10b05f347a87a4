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
        (Trap::Interrupt, _) => (FailureKind::Deadline, too_long(config.call_time_max)),
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

/// The innermost functions of a backtrace, without the hashes that compilers add.
fn frames(backtrace: &WasmBacktrace) -> String {
    let names: Vec<_> = backtrace
        .frames()
        .iter()
        .map(|frame| match frame.func_name() {
            Some(name) => function_name(name),
            None => format!("function {}", frame.func_index()),
        })
        .take(FRAMES_MAX)
        .collect();
    match names.is_empty() {
        true => String::new(),
        false => format!("; in {}", names.join(" < ")),
    }
}

fn function_name(name: &str) -> String {
    let without_hash = match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => {
            path
        }
        _ => name,
    };
    text::clean(without_hash, FRAME_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_functions_lose_their_hash() {
        assert_eq!(
            function_name("core::panicking::panic::h0123456789abcdef"),
            "core::panicking::panic"
        );
        assert_eq!(function_name("app::handle"), "app::handle");
        assert_eq!(function_name(&"x".repeat(1_000)).len(), FRAME_BYTES_MAX);
    }
}
