//! One swap, from the file's bytes to its end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sidestream_core::{
    record::TransformId,
    worker::{Ratios, Swap, Version},
};
use tracing::{info, warn};

use super::{Current, End, LOOK_INTERVAL, Swapper, Updates, Wish, plan::Instances};
use crate::{
    agent::board::{Instruction, SwapState, WorkerBoard},
    control::{now_ms, proto::SwapPhase},
    guest::Module,
};

/// How long all workers may take to come to the end of a transaction: as long as one whose brokers
/// are slow, several times.
const SWITCH_TIME_MAX: Duration = Duration::from_secs(60);

/// How often it is told how a probation goes on.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

impl Swapper {
    /// Runs a swap to its end, which is told to everybody but whoever asked for it.
    pub(super) fn run(&self, current: &Current, wish: &Wish, updates: &Updates) -> End {
        let code = self.codes.of(wish.transform);
        let version = self.next_version();
        let end = self.swap(current, wish, version, updates);
        let (kind, outcome) = (format!("swap_{}", end.name()), end.name());
        let (transform, module, reason) = (&code.name, &wish.name, end.reason());
        match &end {
            End::Planned | End::Kept(_) => info!(transform, module, outcome, reason, "swap"),
            End::RolledBack(_) | End::Refused(_) => {
                warn!(transform, module, outcome, reason, "swap");
            }
        }
        let (metrics, events) = (&self.board.metrics, &self.board.events);
        if let Some(metrics) = metrics.transform(transform) {
            metrics.swap(outcome);
            for (worker, pause) in code.pauses(version) {
                metrics.swap_pause(pause);
                let message = format!("`{transform}`: pause_us={}", pause.as_micros());
                events.tell_of(worker, String::new(), "swap_switched", message);
            }
        }
        events.tell(&kind, format!("`{transform}`, `{module}`: {reason}"));
        end
    }

    fn swap(&self, current: &Current, wish: &Wish, version: Version, updates: &Updates) -> End {
        let code = self.codes.of(wish.transform);
        let (before, from) = code.running();
        updates.tell(SwapPhase::Compiling, &wish.name);
        let started = Instant::now();
        let module = match self.codes.engine.load(&wish.module, &wish.name) {
            Ok(module) => module,
            Err(error) => return End::Refused(error.to_string()),
        };
        let size = (wish.module.len(), started.elapsed());
        if module.digest() == from.digest() && !wish.dry_run {
            return End::Kept(format!("{} runs already", module.digest()));
        }
        updates.tell(SwapPhase::Initialising, "");
        code.add(version, module.clone());
        let instances = match self.initialise(wish.transform, version) {
            Ok(instances) => instances,
            Err(reason) => {
                code.remove(version);
                return End::Refused(reason);
            }
        };
        updates.tell(SwapPhase::Initialising, &instances.summary());
        updates.plan(self.plan(wish.transform, (&from, &module), size, &instances));
        if wish.dry_run {
            drop(instances);
            code.remove(version);
            return End::Planned;
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
                let (records, time) = (self.records_on_probation(version), started.elapsed());
                End::Kept(format!(
                    "it runs on {} workers, {records} records in {:.1} s so far",
                    self.board.workers.len(),
                    time.as_secs_f64()
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
        let settings = &self.settings;
        let ratios = Ratios {
            failures: settings.failure_ratio_max,
            cpu: settings.cpu_ratio_max,
            memory: settings.memory_ratio_max,
            output: settings.output_ratio_max,
        };
        for (worker, processors) in self.board.workers.iter().zip(instances.by_worker) {
            let (transform, probation) = (wish.transform, wish.probation.then_some(ratios));
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
        if !wish.probation {
            return Ok(());
        }
        let started = Instant::now();
        let mut told_at = None;
        loop {
            self.have_switched(version)?;
            if current.take_back.get().is_some() {
                return Err("an operator took it back".to_owned());
            }
            let (records, elapsed) = (self.records_on_probation(version), started.elapsed());
            let settings = &self.settings;
            let enough = records >= settings.probation_records;
            if (enough && elapsed >= settings.probation_time)
                || elapsed >= settings.probation_time_max
            {
                return Ok(());
            }
            if told_at.is_none_or(|at: Instant| at.elapsed() >= PROGRESS_INTERVAL) {
                told_at = Some(Instant::now());
                let (wanted, least) =
                    (settings.probation_records, settings.probation_time.as_secs_f64());
                let elapsed = elapsed.as_secs_f64();
                let progress =
                    format!("{records} of {wanted} records, {elapsed:.1} of {least:.1} s");
                updates.tell(SwapPhase::Probation, &progress);
            }
            std::thread::park_timeout(LOOK_INTERVAL);
        }
    }

    fn records_on_probation(&self, version: Version) -> u64 {
        let workers = self.board.workers.iter();
        let of_worker = workers.filter_map(|worker| worker.view().probation);
        of_worker.filter(|of| of.version == version).map(|of| of.records).sum()
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
                        worker.view().swapped = None;
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
