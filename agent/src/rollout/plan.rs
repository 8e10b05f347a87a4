//! What a swap would do: instances of the new module, and in what it differs from the running one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sidestream_core::{
    record::{TaskId, TransformId},
    task::{Clock, FailureKind, Processor, Setup},
    topology::Version,
};

use super::Swapper;
use crate::{control::proto::SwapPlan, guest::Module, modules::measured::Measured};

/// Instances of a version, for the tasks of each worker.
pub(super) struct Instances {
    pub(super) by_worker: Vec<BTreeMap<TaskId, Measured>>,
    /// How many tasks there are.
    tasks: usize,
    /// Of one of them.
    setup: Setup,
}

impl Instances {
    fn initialised(&self) -> usize {
        self.by_worker.iter().map(BTreeMap::len).sum()
    }

    fn memory_bytes(&self) -> usize {
        let all = self.by_worker.iter().flat_map(BTreeMap::values);
        all.map(|instance| instance.cost().memory_bytes).sum()
    }

    /// How far it went, for people.
    pub(super) fn summary(&self) -> String {
        format!("{} of {} tasks have an instance", self.initialised(), self.tasks)
    }
}

impl Swapper {
    /// Makes and initialises an instance for every task of every worker; while memory is short,
    /// for one of each worker at least. Fails with the module's own words.
    pub(super) fn initialise(
        &self,
        id: TransformId,
        version: Version,
    ) -> Result<Instances, String> {
        let mut found = Instances { by_worker: Vec::new(), tasks: 0, setup: Setup::default() };
        for (worker, board) in self.board.workers.iter().enumerate() {
            let view = board.view();
            let tasks = view.tasks.keys().filter(|task| task.subtopology == id.subtopology);
            let tasks: Vec<TaskId> = tasks.copied().collect();
            drop(view);
            found.tasks += tasks.len();
            let mut instances = BTreeMap::new();
            for task in tasks {
                match self.codes.instance(worker, task, id.transform, version) {
                    Ok(instance) => drop(instances.insert(task, instance)),
                    Err(f) if f.kind == FailureKind::Budget && !instances.is_empty() => break,
                    Err(failure) => return Err(format!("for task {task}: {failure}")),
                }
            }
            if let Some(instance) = instances.values().next() {
                found.setup = instance.setup().clone();
            }
            found.by_worker.push(instances);
        }
        if found.tasks == 0 {
            // No partition is here now; whether it initialises is to be known all the same.
            let task = TaskId { subtopology: id.subtopology, partition: 0 };
            let instance = self.codes.instance(0, task, id.transform, version);
            found.setup = instance.map_err(|failure| failure.to_string())?.setup().clone();
        }
        Ok(found)
    }

    /// What the swap of a transform would do.
    pub(super) fn plan(
        &self,
        id: TransformId,
        (from, to): (&Module, &Module),
        (module_bytes, loaded_in): (usize, Duration),
        instances: &Instances,
    ) -> SwapPlan {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        SwapPlan {
            transform: self.codes.of(id).name.clone(),
            from_digest: from.digest().to_string(),
            to_digest: to.digest().to_string(),
            world: to.world().to_string(),
            module_bytes: module_bytes as u64,
            load_ms: u64::try_from(loaded_in.as_millis()).unwrap_or(u64::MAX),
            tasks: number(instances.tasks),
            tasks_initialised: number(instances.initialised()),
            memory_bytes: instances.memory_bytes() as u64,
            differences: self.differences(id, from, to, &instances.setup),
            probation_records: self.settings.probation_records.into(),
            probation_ms: u64::try_from(self.settings.probation_time.as_millis())
                .unwrap_or(u64::MAX),
        }
    }

    fn differences(&self, id: TransformId, from: &Module, to: &Module, new: &Setup) -> Vec<String> {
        let mut differences = Vec::new();
        if from.world() != to.world() {
            differences.push(format!("world: {} instead of {}", to.world(), from.world()));
        }
        differences.extend(import_differences(from.imports(), to.imports()));
        let task = TaskId { subtopology: id.subtopology, partition: 0 };
        // A running module that does not initialise any more is no reason to keep it.
        if let Ok(old) = self.codes.guest(from, task, id.transform) {
            differences.extend(setup_differences(old.setup(), new));
        }
        differences
    }
}

/// What a module imports and the one before does not, and the other way round. What is gone of WASI,
/// which comes with a language and not with anybody's wish, is summed up.
fn import_differences(old: &[String], new: &[String]) -> Vec<String> {
    let added = new.iter().filter(|name| !old.contains(name));
    let mut differences: Vec<String> = added.map(|name| format!("imports {name}")).collect();
    let gone = old.iter().filter(|name| !new.contains(name));
    let (wasi, others): (Vec<&String>, Vec<&String>) =
        gone.partition(|name| name.starts_with("wasi:"));
    differences.extend(others.iter().map(|name| format!("no longer imports {name}")));
    match wasi.as_slice() {
        [] => {}
        [name] => differences.push(format!("no longer imports {name}")),
        _ => {
            let package = |name: &&String| name.split('/').next().unwrap_or(name).to_owned();
            let packages: BTreeSet<String> = wasi.iter().map(package).collect();
            let packages = packages.into_iter().collect::<Vec<_>>().join(", ");
            let count = wasi.len();
            differences.push(format!("no longer imports {count} interfaces of {packages}"));
        }
    }
    differences
}

fn setup_differences(old: &Setup, new: &Setup) -> Vec<String> {
    let mut differences = Vec::new();
    if old.headers != new.headers {
        let now = if new.headers { "wants" } else { "no longer wants" };
        differences.push(format!("{now} the headers of its records"));
    }
    if old.schedules != new.schedules {
        let (old, new) = (schedules(old), schedules(new));
        differences.push(format!("punctuations: {new} instead of {old}"));
    }
    differences
}

fn schedules(setup: &Setup) -> String {
    if setup.schedules.is_empty() {
        return "none".to_owned();
    }
    let schedule = |schedule: &sidestream_core::task::Schedule| {
        let clock = match schedule.clock {
            Clock::StreamTime => "stream time",
            Clock::WallClock => "the wall clock",
        };
        format!("every {} ms of {clock}", schedule.interval.as_millis())
    };
    setup.schedules.iter().map(schedule).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use sidestream_core::task::Schedule;

    use super::*;

    #[test]
    fn what_a_module_asks_for_is_compared() {
        let plain = Setup::default();
        let schedule = Schedule { clock: Clock::StreamTime, interval: Duration::from_secs(5) };
        let asks = Setup { headers: true, schedules: vec![schedule] };
        assert!(setup_differences(&plain, &plain).is_empty());
        assert_eq!(
            setup_differences(&plain, &asks),
            [
                "wants the headers of its records",
                "punctuations: every 5000 ms of stream time instead of none"
            ]
        );
    }

    #[test]
    fn imports_of_wasi_that_are_gone_are_one_line() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let rust = names(&[
            "sidestream:transform/state@0.1.0",
            "wasi:cli/environment@0.2.3",
            "wasi:cli/exit@0.2.3",
            "wasi:io/error@0.2.3",
        ]);
        let bare = names(&["sidestream:transform/telemetry@0.1.0"]);
        assert!(import_differences(&rust, &rust).is_empty());
        assert_eq!(
            import_differences(&rust, &bare),
            [
                "imports sidestream:transform/telemetry@0.1.0",
                "no longer imports sidestream:transform/state@0.1.0",
                "no longer imports 3 interfaces of wasi:cli, wasi:io",
            ]
        );
        assert_eq!(import_differences(&bare, &rust).len(), 5, "what is new is named");
        assert_eq!(import_differences(&rust[2..3], &[]), ["no longer imports wasi:cli/exit@0.2.3"]);
    }
}
