//! One swap, from the file's bytes to its end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sidestream_core::{record::TransformId, topology::Version, worker::Swap};
use tracing::{info, warn};

use super::{Current, End, LOOK_INTERVAL, Swapper, Updates, Wish, plan::Instances};
use crate::{
    control::{now_ms, proto::SwapPhase},
    guest::Module,
    runtime::board::{Instruction, SwapState, WorkerBoard},
};

/// How long all workers may take to come to the end of a transaction: as long as one whose brokers
/// are slow, several times.
const SWITCH_TIME_MAX: Duration = Duration::from_secs(60);

/// How often it is told how a probation goes on.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

impl Swapper {
    /// Runs a swap to its end, which is told to everybody but whoever asked for it. Where too few
    /// records come, that is told them too, and the end may be long in coming.
    pub(super) fn run(&self, current: &Current, wish: &Wish, updates: &Updates) -> End {
        let code = self.codes.of(wish.transform);
        let version = self.next_version();
        let end = self.swap(current, wish, version, updates);
        self.tell(wish, &end);
        let (metrics, events) = (&self.board.metrics, &self.board.events);
        if let Some(metrics) = metrics.transform(&code.name) {
            for (worker, pause) in code.pauses(version) {
                metrics.swap_pause(pause);
                let message = format!("`{}`: pause_us={}", code.name, pause.as_micros());
                events.tell_of(worker, String::new(), "swap_switched", message);
            }
        }
        for worker in &self.board.workers {
            worker.forget_swap(version);
        }
        end
    }

    /// Tells in the log, in events and in metrics what a swap came to.
    fn tell(&self, wish: &Wish, end: &End) {
        let transform = &self.codes.of(wish.transform).name;
        let (outcome, module, reason) = (end.name(), &wish.name, end.reason());
        match end {
            End::Planned | End::Kept(_) => info!(transform, module, outcome, reason, "swap"),
            End::Unproven(_) | End::RolledBack(_) | End::Refused(_) => {
                warn!(transform, module, outcome, reason, "swap");
            }
        }
        if let Some(metrics) = self.board.metrics.transform(transform) {
            metrics.swap(outcome);
        }
        let message = format!("`{transform}`, `{module}`: {reason}");
        self.board.events.tell(&format!("swap_{outcome}"), message);
    }

    fn swap(&self, current: &Current, wish: &Wish, version: Version, updates: &Updates) -> End {
        let code = self.codes.of(wish.transform);
        updates.tell(SwapPhase::Compiling, &wish.name);
        let started = Instant::now();
        let module = match self.codes.engine.load(&wish.module, &wish.name) {
            Ok(module) => module,
            Err(error) => return End::Refused(error.to_string()),
        };
        let size = (wish.module.len(), started.elapsed());
        updates.tell(SwapPhase::Initialising, "");
        self.board.names.note(version, module.name(), &module.digest().to_string());
        code.add(version, module.clone());
        let instances = match self.initialise(wish.transform, version) {
            Ok(instances) => instances,
            Err(reason) => {
                code.remove(version);
                return End::Refused(reason);
            }
        };
        updates.tell(SwapPhase::Initialising, &instances.summary());
        let (_, from) = code.running();
        updates.plan(self.plan(wish.transform, (&from, &module), size, &instances));
        if wish.dry_run {
            drop(instances);
            code.remove(version);
            return End::Planned;
        }
        self.supersede(current, updates);
        let (before, from) = code.running();
        if module.digest() == from.digest() {
            drop(instances);
            code.remove(version);
            return End::Kept(format!("{} runs already", module.digest()));
        }
        self.board.events.tell("swap_began", format!("`{}`: {}", code.name, module.digest()));
        updates.tell(SwapPhase::Switching, "");
        let failed = self.switch(wish, version, instances).and_then(|()| {
            current.goes_on_probation(module.digest(), &wish.name);
            self.watch_probation(current, wish, version, updates)?;
            self.keep(wish, version, &module)
        });
        match failed {
            Ok(()) => {
                if self.end_probation_everywhere(wish.transform, version) {
                    code.remove(before);
                }
                let records = self.records_on_probation(version);
                let (workers, seconds) =
                    (self.board.workers.len(), started.elapsed().as_secs_f64());
                let plural = if workers == 1 { "" } else { "s" };
                End::Kept(format!(
                    "it runs on {workers} worker{plural}, after {records} records on probation and \
                     {seconds:.1} s in all"
                ))
            }
            Err(reason) => {
                if self.take_back(version, &reason) {
                    code.remove(version);
                }
                End::RolledBack(reason)
            }
        }
    }

    /// Lets every worker switch, and waits until all have. Fails if one takes the version back.
    fn switch(&self, wish: &Wish, version: Version, instances: Instances) -> Result<(), String> {
        for (worker, processors) in self.board.workers.iter().zip(instances.by_worker) {
            let (transform, probation) = (wish.transform, wish.probation);
            let swap = Swap { transform, version, processors, probation };
            worker.post(Instruction::Swap(Box::new(swap)));
        }
        let deadline = Instant::now() + SWITCH_TIME_MAX;
        loop {
            if self.have_switched(version)? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let seconds = SWITCH_TIME_MAX.as_secs();
                return Err(format!("not every worker ended its transaction within {seconds} s"));
            }
            std::thread::park_timeout(LOOK_INTERVAL);
        }
    }

    /// Whether every worker runs the version; why it does not stay, if one took it back.
    fn have_switched(&self, version: Version) -> Result<bool, String> {
        if self.stop.is_requested() {
            return Err("the agent stops".to_owned());
        }
        let mut all = true;
        for (number, worker) in self.board.workers.iter().enumerate() {
            match worker.swap_state(version) {
                Some(SwapState::TakenBack(reason)) => {
                    return Err(format!("worker {number}: {reason}"));
                }
                Some(SwapState::TakenOver | SwapState::Kept) => {}
                None => all = false,
            }
        }
        Ok(all)
    }

    /// Waits until the probation is passed. Fails with the reason why the version can't stay.
    fn watch_probation(
        &self,
        current: &Current,
        wish: &Wish,
        version: Version,
        updates: &Updates,
    ) -> Result<(), String> {
        if wish.probation.is_none() {
            return Ok(());
        }
        let (settings, started) = (&self.settings, Instant::now());
        let mut told_at = None;
        loop {
            self.have_switched(version)?;
            if let Some(&reason) = current.take_back.get() {
                return Err(reason.to_owned());
            }
            let (records, elapsed) = (self.records_on_probation(version), started.elapsed());
            if records >= u64::from(settings.probation_records)
                && elapsed >= settings.probation_time
            {
                return Ok(());
            }
            if elapsed >= settings.probation_time_max {
                self.is_unproven(current, wish, records, updates);
            } else if told_at.is_none_or(|at: Instant| at.elapsed() >= PROGRESS_INTERVAL) {
                told_at = Some(Instant::now());
                updates.tell(SwapPhase::Probation, &self.progress(records, elapsed));
            }
            std::thread::park_timeout(LOOK_INTERVAL);
        }
    }

    fn progress(&self, records: u64, elapsed: Duration) -> String {
        let settings = &self.settings;
        format!(
            "{records} of {} records, for {:.1} s (at least {:.1} s, unproven after {:.1} s)",
            settings.probation_records,
            elapsed.as_secs_f64(),
            settings.probation_time.as_secs_f64(),
            settings.probation_time_max.as_secs_f64()
        )
    }

    /// Tells once that too few records came. The probation goes on, and is in nobody's way.
    fn is_unproven(&self, current: &Current, wish: &Wish, records: u64, updates: &Updates) {
        if current.told.get().is_some() {
            return;
        }
        let settings = &self.settings;
        let end = End::Unproven(format!(
            "it runs, and has processed {records} of the {} records (`swap.probation_records`) that \
             a verdict takes, within {:?} (`swap.probation_time_max`); it is judged when more come, \
             `sidestream rollback` ends it, and a restart before that begins with the module before",
            settings.probation_records, settings.probation_time_max
        ));
        self.tell(wish, &end);
        current.told.get_or_init(|| end.clone());
        updates.end(&end);
    }

    fn records_on_probation(&self, version: Version) -> u64 {
        let workers = self.board.workers.iter();
        let of_worker =
            |worker: &WorkerBoard| worker.view().on_probation.get(&version).copied().unwrap_or(0);
        workers.map(of_worker).sum()
    }

    /// Writes down that the version stays: from then on it does.
    fn keep(&self, wish: &Wish, version: Version, module: &Module) -> Result<(), String> {
        let code = self.codes.of(wish.transform);
        self.versions
            .keep(&code.name, &wish.module, &wish.name, now_ms())
            .map_err(|error| format!("it can't be kept for a restart: {error}"))?;
        code.put_in_force(version, module.clone());
        Ok(())
    }

    /// Ends the probation in every worker. One that has taken the version back just before gets it
    /// again. Says whether all run it for good, which only an agent that stops is in the way of.
    fn end_probation_everywhere(&self, transform: TransformId, version: Version) -> bool {
        while !self.stop.is_requested() {
            let mut all = true;
            for worker in &self.board.workers {
                let state = worker.swap_state(version);
                all &= state == Some(SwapState::Kept);
                if worker.has_mail() {
                    continue;
                }
                match state {
                    Some(SwapState::TakenOver) => worker.post(Instruction::Keep(version)),
                    Some(SwapState::TakenBack(_)) => {
                        worker.view().swapped.remove(&version);
                        let (processors, probation) = (BTreeMap::new(), None);
                        let swap = Swap { transform, version, processors, probation };
                        worker.post(Instruction::Swap(Box::new(swap)));
                    }
                    Some(SwapState::Kept) | None => {}
                }
            }
            if all {
                return true;
            }
            std::thread::park_timeout(LOOK_INTERVAL);
        }
        false
    }

    /// Has all workers take the version back. Says whether all are known to have.
    fn take_back(&self, version: Version, reason: &str) -> bool {
        for worker in &self.board.workers {
            worker.post(Instruction::TakeBack { version, reason: reason.to_owned() });
        }
        let deadline = Instant::now() + SWITCH_TIME_MAX;
        let has_left = |worker: &WorkerBoard| {
            matches!(worker.swap_state(version), Some(SwapState::TakenBack(_)))
        };
        while !self.board.workers.iter().all(has_left) {
            if self.stop.is_requested() || Instant::now() >= deadline {
                return false;
            }
            std::thread::park_timeout(LOOK_INTERVAL);
        }
        true
    }
}
