//! Another module takes a transform over while records flow: one swap at a time, on a thread of its
//! own, off the record path.
//!
//! The course of one (`course`): compile and check; compare with the module that runs; make and
//! initialise instances for every task of every worker; let each worker switch between two of its
//! transactions; watch the probation; write down what is kept, or have all workers take it back.
//! What is not kept is forgotten by a restart.

mod course;
mod plan;
mod updates;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sidestream_core::{record::TransformId, worker::Version};
use tokio::sync::mpsc;

use tracing::warn;

use self::updates::{End, Updates};
use super::{
    board::Board,
    code::Codes,
    files::Change,
    thread::Stop,
    versions::{self, Versions},
};
use crate::{
    config,
    control::{Refusal, now_ms, proto},
    guest::Digest,
};

/// How often it is looked at what the workers have done.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// How often a swap that another one is in the way of is tried again.
const BUSY_INTERVAL: Duration = Duration::from_millis(200);

/// Swaps the modules of an agent.
pub(super) struct Swapper {
    pub(super) codes: Arc<Codes>,
    pub(super) board: Arc<Board>,
    pub(super) stop: Stop,
    pub(super) versions: Versions,
    pub(super) settings: config::pipeline::Swap,
    last_version: AtomicU64,
    current: Mutex<Option<Arc<Current>>>,
}

/// A swap that is wanted.
pub(super) struct Wish {
    pub(super) transform: TransformId,
    /// The new module, and what messages call it.
    pub(super) module: Vec<u8>,
    pub(super) name: String,
    /// End with the plan.
    pub(super) dry_run: bool,
    /// Whether it may be taken back by itself; not if it ran before and somebody wants it back.
    pub(super) probation: bool,
}

/// The swap that is under way.
struct Current {
    transform: TransformId,
    /// Set while it is on probation: which module, its name, and since when.
    on_probation: OnceLock<(Digest, String, i64)>,
    /// Somebody wants it taken back.
    take_back: OnceLock<()>,
}

impl Swapper {
    pub(super) fn new(
        codes: Arc<Codes>,
        board: Arc<Board>,
        stop: Stop,
        versions: Versions,
        settings: config::pipeline::Swap,
    ) -> Arc<Self> {
        let (last_version, current) = (AtomicU64::new(0), Mutex::default());
        Arc::new(Self { codes, board, stop, versions, settings, last_version, current })
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Current>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_version(&self) -> Version {
        self.last_version.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Finds a transform by its name.
    pub(super) fn find(&self, name: &str) -> Result<TransformId, Refusal> {
        self.codes.find(name).ok_or_else(|| {
            let names: Vec<&str> = self.codes.names().collect();
            let there = names.join("`, `");
            Refusal::NotFound(format!("there is no transform `{name}`; there are: `{there}`"))
        })
    }

    /// Claims the right to swap, until what it gives is dropped.
    fn claim(self: &Arc<Self>, transform: TransformId) -> Result<Claim, Refusal> {
        let mut current = self.current();
        if let Some(busy) = &*current {
            let name = &self.codes.of(busy.transform).name;
            let how = match busy.on_probation.get() {
                Some(_) => "on probation: wait, or roll it back first",
                None => "under way: wait until it has ended",
            };
            return Err(Refusal::Busy(format!("a swap of `{name}` is {how}")));
        }
        let claimed =
            Current { transform, on_probation: OnceLock::new(), take_back: OnceLock::new() };
        let claimed = Arc::clone(current.insert(Arc::new(claimed)));
        Ok(Claim { swapper: Arc::clone(self), current: claimed })
    }

    /// Swaps, and returns what it came to. Takes as long as the probation.
    fn swap_and_wait(self: &Arc<Self>, wish: &Wish, updates: &Updates) -> Result<End, Refusal> {
        let claim = self.claim(wish.transform)?;
        Ok(claim.swapper.run(&claim.current, wish, updates))
    }

    /// A module file has another content: swaps it in for each of its transforms, one after another,
    /// and remembers that this content was dealt with.
    pub(super) fn take_file(self: &Arc<Self>, change: &Change) {
        for name in &change.transforms {
            let Some(transform) = self.codes.find(name) else { continue };
            let wish = Wish {
                transform,
                module: change.module.clone(),
                name: change.path.display().to_string(),
                dry_run: false,
                probation: true,
            };
            if let Err(error) = self.versions.begin(name, change.digest) {
                warn!(transform = name, %error, "a restart amid this swap will not try it again");
            }
            while !self.stop.is_requested() {
                match self.swap_and_wait(&wish, &Updates::to_nobody()) {
                    Ok(_) if self.stop.is_requested() => return, // The next start tries it.
                    Ok(_) => break,
                    Err(_) => std::thread::park_timeout(BUSY_INTERVAL),
                }
            }
            if let Err(error) = self.versions.handled(name, change.digest) {
                warn!(transform = name, %error, "a restart will take the module file for new");
            }
        }
    }

    /// Begins a swap on a thread of its own.
    pub(super) fn begin(
        self: &Arc<Self>,
        wish: Wish,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal> {
        let claim = self.claim(wish.transform)?;
        let (updates, reader) = Updates::new();
        in_thread(move || {
            let end = claim.swapper.run(&claim.current, &wish, &updates);
            drop(claim); // Whoever hears of the end may begin the next.
            updates.end(&end);
        })?;
        Ok(reader)
    }

    /// Goes back to a version that ran before: the one before the swap, while one is on probation.
    pub(super) fn roll_back(
        self: &Arc<Self>,
        transform: TransformId,
        wanted: Option<&str>,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal> {
        let current = self.current().clone().filter(|current| {
            current.transform == transform && current.on_probation.get().is_some()
        });
        if let Some(current) = current {
            return self.end_probation(&current, wanted);
        }
        let name = &self.codes.of(transform).name;
        let version = self.versions.read(name, wanted).map_err(|error| match error {
            versions::Error::Unknown { .. } | versions::Error::NoneBefore { .. } => {
                Refusal::NotFound(error.to_string())
            }
            versions::Error::Ambiguous { .. } => Refusal::Invalid(error.to_string()),
            versions::Error::Folder { .. }
            | versions::Error::Damaged { .. }
            | versions::Error::Newer { .. }
            | versions::Error::Module { .. }
            | versions::Error::Failed { .. } => Refusal::Failed(error.to_string()),
        })?;
        let versions::Version { module, name, .. } = version;
        self.begin(Wish { transform, module, name, dry_run: false, probation: false })
    }

    /// Has the version on probation taken back, and waits for that on a thread of its own.
    fn end_probation(
        self: &Arc<Self>,
        current: &Arc<Current>,
        wanted: Option<&str>,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal> {
        let (_, module) = self.codes.of(current.transform).running();
        let before = module.digest();
        if wanted.is_some_and(|wanted| !before.to_string().starts_with(wanted)) {
            return Err(Refusal::Busy(format!(
                "a swap is on probation: only the version before it, {before}, can be gone back to"
            )));
        }
        current.take_back.get_or_init(|| ());
        let (updates, reader) = Updates::new();
        let (swapper, current) = (Arc::clone(self), Arc::clone(current));
        in_thread(move || {
            let is_over = |now: &Option<Arc<Current>>| {
                now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, &current))
            };
            updates.tell(proto::SwapPhase::Switching, "the version on probation is taken back");
            while !is_over(&swapper.current()) {
                std::thread::park_timeout(LOOK_INTERVAL);
            }
            let running = swapper.codes.of(current.transform).running().1.digest();
            updates.end(&match running == before {
                true => End::Kept(format!("{before} runs again")),
                false => End::Refused(format!("{running} had passed its probation before that")),
            });
        })?;
        Ok(reader)
    }

    /// The digest of the module that a transform runs, and its versions, newest first.
    pub(super) fn versions(&self, transform: TransformId) -> (Digest, Vec<proto::Version>) {
        let code = self.codes.of(transform);
        let current = self.current().clone().filter(|current| current.transform == transform);
        let trial = current.as_ref().and_then(|current| current.on_probation.get());
        let running = trial.map_or_else(|| code.running().1.digest(), |(digest, ..)| *digest);
        let kept = self.versions.list(&code.name).into_iter();
        let kept = kept.map(|kept| (kept.digest(), kept.name, kept.since_ms));
        let others = kept.filter(|(digest, ..)| trial.is_none_or(|(of, ..)| of != digest));
        let all = trial.cloned().into_iter().chain(others);
        let version = |(digest, name, since_ms): (Digest, String, i64)| proto::Version {
            digest: digest.to_string(),
            since_ms,
            running: digest == running,
            on_probation: trial.is_some_and(|(of, ..)| *of == digest),
            name,
        };
        (running, all.map(version).collect())
    }
}

fn in_thread(run: impl FnOnce() + Send + 'static) -> Result<(), Refusal> {
    let thread = std::thread::Builder::new().name("swap".to_owned()).spawn(run);
    thread.map(drop).map_err(|error| Refusal::Failed(format!("no thread for a swap: {error}")))
}

/// The right to swap.
struct Claim {
    swapper: Arc<Swapper>,
    current: Arc<Current>,
}

impl Drop for Claim {
    fn drop(&mut self) {
        *self.swapper.current() = None;
    }
}

impl Current {
    fn goes_on_probation(&self, digest: Digest, name: &str) {
        self.on_probation.get_or_init(|| (digest, name.to_owned(), now_ms()));
    }
}
