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
#[cfg(test)]
mod without_code;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sidestream_core::{record::TransformId, topology::Version, worker::Ratios};
use tokio::sync::mpsc;

use tracing::warn;

use self::updates::{End, Updates};
use crate::{
    config,
    control::{Refusal, now_ms, proto},
    guest::Digest,
    lock::Held,
    modules::{
        code::Codes,
        files::Change,
        versions::{self, Versions},
    },
    runtime::{board::Board, thread::Stop},
};

/// How often it is looked at what the workers have done.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// How often a swap that another one is in the way of is tried again.
const BUSY_INTERVAL: Duration = Duration::from_millis(200);

/// Swaps the modules of an agent.
pub(crate) struct Swapper {
    pub(crate) codes: Arc<Codes>,
    pub(crate) board: Arc<Board>,
    pub(crate) stop: Stop,
    pub(crate) versions: Versions,
    pub(crate) settings: config::pipeline::Swap,
    last_version: AtomicU64,
    /// The swap that is under way, and those that are unproven: one of a transform at most, but for
    /// one that is about to be taken back.
    active: Mutex<Vec<Arc<Current>>>,
}

/// A swap that is wanted.
pub(crate) struct Wish {
    pub(crate) transform: TransformId,
    /// The new module, and what messages call it.
    pub(crate) module: Vec<u8>,
    pub(crate) name: String,
    /// End with the plan.
    pub(crate) dry_run: bool,
    /// How much worse it may be without being taken back by itself; `None` if it ran before and
    /// somebody wants it back.
    pub(crate) probation: Option<Ratios>,
    /// It is this content of the transform's module file.
    pub(crate) file: Option<Digest>,
}

/// A swap that is not decided yet.
struct Current {
    transform: TransformId,
    /// Set while it is on probation: which module, its name, and since when.
    on_probation: OnceLock<(Digest, String, i64)>,
    /// Somebody wants it taken back, for this reason.
    take_back: OnceLock<&'static str>,
    /// Set once it is unproven, or has ended: it is in the way of no other one.
    told: OnceLock<End>,
}

impl Swapper {
    pub(crate) fn new(
        codes: Arc<Codes>,
        board: Arc<Board>,
        stop: Stop,
        versions: Versions,
        settings: config::pipeline::Swap,
    ) -> Arc<Self> {
        let (last_version, active) = (AtomicU64::new(0), Mutex::default());
        Arc::new(Self { codes, board, stop, versions, settings, last_version, active })
    }

    fn active(&self) -> MutexGuard<'_, Vec<Arc<Current>>> {
        self.active.held()
    }

    fn is_active(&self, current: &Arc<Current>) -> bool {
        self.active().iter().any(|active| Arc::ptr_eq(active, current))
    }

    /// The swap of a transform whose version is on probation, if there is one.
    fn on_probation(&self, transform: TransformId) -> Option<Arc<Current>> {
        let active = self.active();
        let mut of_transform = active.iter().filter(|current| current.transform == transform);
        of_transform.find(|current| current.on_probation.get().is_some()).cloned()
    }

    /// How much worse a new version may be, but for what is `accepted`.
    pub(crate) fn ratios(&self, accepted: &[String]) -> Result<Ratios, Refusal> {
        let settings = &self.settings;
        let mut ratios = Ratios {
            failures: Some(settings.failure_ratio_max),
            cpu: Some(settings.cpu_ratio_max),
            memory: Some(settings.memory_ratio_max),
            output: settings.output_ratio_max,
        };
        for word in accepted {
            let ratio = match word.as_str() {
                "failures" => &mut ratios.failures,
                "cpu" => &mut ratios.cpu,
                "memory" => &mut ratios.memory,
                "output" => &mut ratios.output,
                _ => {
                    let message = "a swap can accept `failures`, `cpu`, `memory`, `output`";
                    return Err(Refusal::Invalid(format!("{message}, not `{word}`")));
                }
            };
            *ratio = None;
        }
        Ok(ratios)
    }

    fn next_version(&self) -> Version {
        self.last_version.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Finds a transform by its name.
    pub(crate) fn find(&self, name: &str) -> Result<TransformId, Refusal> {
        self.codes.find(name).ok_or_else(|| {
            let names: Vec<&str> = self.codes.names().collect();
            let there = names.join("`, `");
            Refusal::NotFound(format!("there is no transform `{name}`; there are: `{there}`"))
        })
    }

    /// Claims the right to swap, until what it gives is dropped. One that is unproven is not in the
    /// way.
    fn claim(self: &Arc<Self>, transform: TransformId) -> Result<Claim, Refusal> {
        let mut active = self.active();
        if let Some(busy) = active.iter().find(|current| current.told.get().is_none()) {
            let name = &self.codes.of(busy.transform).name;
            let how = match busy.on_probation.get() {
                Some(_) => "on probation: wait, or roll it back first",
                None => "under way: wait until it has ended",
            };
            return Err(Refusal::Busy(format!("a swap of `{name}` is {how}")));
        }
        let claimed = Arc::new(Current {
            transform,
            on_probation: OnceLock::new(),
            take_back: OnceLock::new(),
            told: OnceLock::new(),
        });
        active.push(Arc::clone(&claimed));
        Ok(Claim { swapper: Arc::clone(self), current: claimed })
    }

    /// Has the unproven version of a transform taken back that another swap is to replace.
    fn supersede(&self, current: &Current, updates: &Updates) {
        let is_other =
            |of: &Current| of.transform == current.transform && !std::ptr::eq(of, current);
        loop {
            let other = self.active().iter().find(|of| is_other(of)).cloned();
            let Some(other) = other else { return };
            if other.take_back.set("another swap replaces it before it was proven").is_ok() {
                updates.tell(proto::SwapPhase::Switching, "the unproven version is taken back");
            }
            std::thread::park_timeout(LOOK_INTERVAL);
        }
    }

    /// A module file has another content: swaps it in for each of its transforms, one after another,
    /// and remembers that this content was dealt with.
    pub(crate) fn take_file(self: &Arc<Self>, change: &Change) {
        for name in &change.transforms {
            let Some(transform) = self.codes.find(name) else { continue };
            if let Err(error) = self.versions.begin(name, change.digest) {
                warn!(transform = name, %error, "a restart amid this swap will not try it again");
            }
            let mut is_unproven = false;
            while !self.stop.is_requested() {
                let begun = self.ratios(&[]).and_then(|ratios| {
                    let wish = Wish {
                        transform,
                        module: change.module.clone(),
                        name: change.path.display().to_string(),
                        dry_run: false,
                        probation: Some(ratios),
                        file: Some(change.digest),
                    };
                    self.start(wish, Updates::to_nobody())
                });
                match begun {
                    Ok(current) => {
                        while current.told.get().is_none() && self.is_active(&current) {
                            std::thread::park_timeout(LOOK_INTERVAL);
                        }
                        is_unproven = matches!(current.told.get(), Some(End::Unproven(_)));
                        break;
                    }
                    Err(_) => std::thread::park_timeout(BUSY_INTERVAL),
                }
            }
            // A restart tries it again, and what ends the process until then is not its fault.
            if (is_unproven || self.stop.is_requested())
                && let Err(error) = self.versions.postpone(name, change.digest)
            {
                warn!(transform = name, %error, "this try of the module file counts as failed");
            }
            if self.stop.is_requested() {
                return;
            }
        }
    }

    /// Begins a swap on a thread of its own.
    pub(crate) fn begin(
        self: &Arc<Self>,
        wish: Wish,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal> {
        let (updates, reader) = Updates::new();
        self.start(wish, updates).map(|_| reader)
    }

    fn start(self: &Arc<Self>, wish: Wish, updates: Updates) -> Result<Arc<Current>, Refusal> {
        let claim = self.claim(wish.transform)?;
        let current = Arc::clone(&claim.current);
        in_thread(move || {
            let end = claim.swapper.run(&claim.current, &wish, &updates);
            if let Some(file) = wish.file {
                claim.swapper.dealt_with(wish.transform, file);
            }
            let current = Arc::clone(&claim.current);
            drop(claim); // Whoever hears of the end may begin the next.
            updates.end(&end);
            current.told.get_or_init(|| end);
        })?;
        Ok(current)
    }

    /// A module file was swapped in, or not. If the agent stops, its next start tries it; if the file
    /// has changed since, that is another swap's to say.
    fn dealt_with(&self, transform: TransformId, file: Digest) {
        let name = &self.codes.of(transform).name;
        if self.stop.is_requested() || !self.versions.is_undecided(name, file) {
            return;
        }
        if let Err(error) = self.versions.handled(name, file) {
            warn!(transform = name, %error, "a restart will take the module file for new");
        }
    }

    /// Goes back to a version that ran before: the one before the swap, while one is on probation.
    pub(crate) fn roll_back(
        self: &Arc<Self>,
        transform: TransformId,
        wanted: Option<&str>,
    ) -> Result<mpsc::Receiver<proto::SwapUpdate>, Refusal> {
        if let Some(current) = self.on_probation(transform) {
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
        let (dry_run, probation, file) = (false, None, None);
        self.begin(Wish { transform, module, name, dry_run, probation, file })
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
        current.take_back.get_or_init(|| "an operator took it back");
        let (updates, reader) = Updates::new();
        let (swapper, current) = (Arc::clone(self), Arc::clone(current));
        in_thread(move || {
            updates.tell(proto::SwapPhase::Switching, "the version on probation is taken back");
            while swapper.is_active(&current) {
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
    pub(crate) fn versions(&self, transform: TransformId) -> (Digest, Vec<proto::Version>) {
        let code = self.codes.of(transform);
        let current = self.on_probation(transform);
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
        self.swapper.active().retain(|current| !Arc::ptr_eq(current, &self.current));
    }
}

impl Current {
    fn goes_on_probation(&self, digest: Digest, name: &str) {
        self.on_probation.get_or_init(|| (digest, name.to_owned(), now_ms()));
    }
}
