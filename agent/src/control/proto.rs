//! The control service's messages, made from `agent/proto`.

#![allow(missing_docs, reason = "the description in agent/proto says what each is")]
#![allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    unreachable_pub,
    unused_qualifications,
    reason = "made by a generator"
)]

tonic::include_proto!("sidestream.control.v1");

/// The description itself, for reflection.
pub(super) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/control.bin"));

/// Enumerations in JSON: their names, in small letters.
mod names {
    use serde::Serializer;

    use super::{AgentState, SwapPhase, TaskState};

    pub(super) fn agent_state<S: Serializer>(state: &i32, to: S) -> Result<S::Ok, S::Error> {
        let state = AgentState::try_from(*state).unwrap_or_default();
        to.serialize_str(&short(state.as_str_name(), "AGENT_STATE_"))
    }

    pub(super) fn task_state<S: Serializer>(state: &i32, to: S) -> Result<S::Ok, S::Error> {
        let state = TaskState::try_from(*state).unwrap_or_default();
        to.serialize_str(&short(state.as_str_name(), "TASK_STATE_"))
    }

    pub(super) fn swap_phase<S: Serializer>(phase: &i32, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&SwapPhase::try_from(*phase).unwrap_or_default().name())
    }

    pub(super) fn short(name: &str, prefix: &str) -> String {
        name.trim_start_matches(prefix).to_ascii_lowercase()
    }
}

impl TaskState {
    /// Its name in small letters, as in JSON and metrics.
    #[must_use]
    pub fn name(self) -> String {
        names::short(self.as_str_name(), "TASK_STATE_")
    }
}

impl AgentState {
    /// Its name in small letters, as in JSON.
    #[must_use]
    pub fn name(self) -> String {
        names::short(self.as_str_name(), "AGENT_STATE_")
    }
}

impl SwapPhase {
    /// Its name in small letters, as in JSON.
    #[must_use]
    pub fn name(self) -> String {
        names::short(self.as_str_name(), "SWAP_PHASE_")
    }

    /// Whether nothing comes after it: after the plan only in a swap that is not a dry run.
    #[must_use]
    pub const fn is_last(self, dry_run: bool) -> bool {
        match self {
            Self::Kept | Self::Unproven | Self::RolledBack | Self::Refused => true,
            Self::Planned => dry_run,
            Self::Unspecified
            | Self::Compiling
            | Self::Initialising
            | Self::Switching
            | Self::Probation => false,
        }
    }
}
