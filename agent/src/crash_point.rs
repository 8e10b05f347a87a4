//! Named points at which a process can be made to die, for tests of what a crash leaves behind.
//!
//! They do nothing unless the crate is built with the feature `crash-points`, which the tests' crate
//! switches on, and the environment variable `SIDESTREAM_CRASH_AT` names one: `name` dies at the first
//! pass, `name:3` at the third.

/// A point at which a process can be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashPoint {
    /// Records were handed to the producer; the transaction is open.
    AfterProduce,
    /// The transaction has its offsets.
    AfterOffsets,
    /// Everything is delivered; the end of the transaction is not asked for yet.
    BeforeEnd,
    /// The end of the transaction was answered; nobody here has heard of it yet.
    AfterEnd,
    /// The transaction is known to be committed; the store does not have it yet.
    BeforeApply,
    /// A part of a changelog was read in a restore.
    InRestore,
}

impl CrashPoint {
    /// Dies here, as by SIGKILL, if this point is armed and it is the pass asked for.
    pub fn pass(self) {
        #[cfg(feature = "crash-points")]
        armed::pass(self);
    }
}

#[cfg(feature = "crash-points")]
pub use self::armed::SWITCH;

#[cfg(feature = "crash-points")]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    use super::CrashPoint;

    /// The environment variable that arms a point.
    pub const SWITCH: &str = "SIDESTREAM_CRASH_AT";

    impl CrashPoint {
        /// All points.
        pub const ALL: [Self; 6] = [
            Self::AfterProduce,
            Self::AfterOffsets,
            Self::BeforeEnd,
            Self::AfterEnd,
            Self::BeforeApply,
            Self::InRestore,
        ];

        /// The name that [`SWITCH`] knows it by.
        #[must_use]
        pub const fn name(self) -> &'static str {
            match self {
                Self::AfterProduce => "after-produce",
                Self::AfterOffsets => "after-offsets",
                Self::BeforeEnd => "before-end",
                Self::AfterEnd => "after-end",
                Self::BeforeApply => "before-apply",
                Self::InRestore => "in-restore",
            }
        }
    }

    struct Armed {
        point: CrashPoint,
        passes_left: AtomicU64,
    }

    static ARMED: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let switch = std::env::var(SWITCH).ok()?;
        let (name, passes) = switch.split_once(':').unwrap_or((&switch, "1"));
        let point = CrashPoint::ALL.into_iter().find(|point| point.name() == name)?;
        Some(Armed { point, passes_left: AtomicU64::new(passes.parse().unwrap_or(1)) })
    });

    pub(super) fn pass(point: CrashPoint) {
        if let Some(armed) = &*ARMED
            && armed.point == point
            && armed.passes_left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            std::process::abort();
        }
    }
}
