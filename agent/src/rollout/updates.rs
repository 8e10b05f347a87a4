//! What is told of a swap while it goes on.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{self, error::TrySendError};

use super::LOOK_INTERVAL;
use crate::control::proto::{SwapPhase, SwapPlan, SwapUpdate};

/// A swap has fewer updates.
const UPDATES_MAX: usize = 64;

/// How long a reader may leave updates unread.
const READER_TIME_MAX: Duration = Duration::from_secs(1);

/// What a swap came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was a dry run.
    Planned,
    /// The new module stays.
    Kept(String),
    /// The new module runs, and too few records came to say whether it stays.
    Unproven(String),
    /// The old module runs again.
    RolledBack(String),
    /// Nothing was replaced.
    Refused(String),
}

impl End {
    /// A word for events and metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Kept(_) => "kept",
            Self::Unproven(_) => "unproven",
            Self::RolledBack(_) => "rolled_back",
            Self::Refused(_) => "refused",
        }
    }

    /// Why it came to this.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Planned => "",
            Self::Kept(reason)
            | Self::Unproven(reason)
            | Self::RolledBack(reason)
            | Self::Refused(reason) => reason,
        }
    }
}

/// Tells whoever asked for a swap how it goes on; nobody may be there.
pub(crate) struct Updates(RefCell<Option<mpsc::Sender<SwapUpdate>>>);

impl Updates {
    /// With a reader.
    pub(super) fn new() -> (Self, mpsc::Receiver<SwapUpdate>) {
        let (sender, reader) = mpsc::channel(UPDATES_MAX);
        (Self(RefCell::new(Some(sender))), reader)
    }

    /// For a swap that nobody waits for.
    pub(crate) const fn to_nobody() -> Self {
        Self(RefCell::new(None))
    }

    /// Waits for a reader that is slow, but not for ever: it may stand still.
    fn send(&self, mut update: SwapUpdate) {
        let sender = self.0.borrow();
        let Some(sender) = sender.as_ref() else { return };
        let deadline = Instant::now() + READER_TIME_MAX;
        while let Err(TrySendError::Full(unsent)) = sender.try_send(update) {
            if Instant::now() >= deadline {
                return;
            }
            update = unsent;
            std::thread::park_timeout(LOOK_INTERVAL);
        }
    }

    /// A phase begins, or goes on.
    pub(super) fn tell(&self, phase: SwapPhase, message: &str) {
        self.send(SwapUpdate { phase: phase.into(), message: message.to_owned(), plan: None });
    }

    /// It is known what the swap would do.
    pub(super) fn plan(&self, plan: SwapPlan) {
        let message = String::new();
        self.send(SwapUpdate { phase: SwapPhase::Planned.into(), message, plan: Some(plan) });
    }

    /// The swap has ended, or is unproven: nothing is told any more. A plan was told already.
    pub(super) fn end(&self, end: &End) {
        let phase = match end {
            End::Planned => return,
            End::Kept(_) => SwapPhase::Kept,
            End::Unproven(_) => SwapPhase::Unproven,
            End::RolledBack(_) => SwapPhase::RolledBack,
            End::Refused(_) => SwapPhase::Refused,
        };
        self.tell(phase, end.reason());
        self.0.take();
    }
}
