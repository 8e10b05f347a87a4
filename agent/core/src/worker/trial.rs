//! Whether a version of a transform's code that is on probation does worse than the one before.

use std::time::Duration;

use crate::{
    record::TransformId,
    task::{OnTrial, Tally},
    topology::Version,
};

/// How much worse than the version before it a new one may be, as ratios; more brings the old one
/// back. What is `None` is not looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ratios {
    /// Failures a record, of those that the version before is not tried at: where a record is to be
    /// tried again. Records that the version rejects are not tried on the one before if it is `None`.
    pub failures: Option<f64>,
    /// Processor time a record.
    pub cpu: Option<f64>,
    /// Memory of an instance.
    pub memory: Option<f64>,
    /// Bytes emitted a record.
    pub output: Option<f64>,
}

/// How far a version on probation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probation {
    /// Which it is.
    pub version: Version,
    /// How many records it has processed and committed.
    pub records: u64,
}

/// Fewer records say little about what one takes.
const RECORDS_MIN: u64 = 256;

/// Less processor time says little about what a record takes; much more says it of few records too.
const CPU_MIN: Duration = Duration::from_millis(5);
const CPU_OF_FEW: Duration = Duration::from_millis(250);

/// So many failures are no accident.
const FAILURES_MIN: u64 = 5;

/// What everybody may have, whatever the version before had: failures a record, bytes of memory,
/// bytes emitted a record.
const FAILURES_FREE: f64 = 0.001;
const MEMORY_FREE: f64 = (2 << 20) as f64;
const OUTPUT_FREE: f64 = 16.0;

/// A version on probation.
#[derive(Debug)]
pub(super) struct Trial {
    pub(super) transform: TransformId,
    pub(super) version: Version,
    /// The version that comes back if this one fails, and what it did.
    pub(super) before: Version,
    pub(super) baseline: Tally,
    ratios: Option<Ratios>,
    /// Why it must go, whatever it takes.
    fault: Option<String>,
    /// How its code broke off first, where no record was to blame.
    broke: Option<String>,
    /// Its first failure of any kind.
    first_failure: Option<String>,
    /// Records that are committed.
    committed: u64,
    /// Records that had been processed at the last commit, or the last drop.
    seen: u64,
}

impl Trial {
    pub(super) const fn new(
        transform: TransformId,
        (version, before): (Version, Version),
        baseline: Tally,
        ratios: Option<Ratios>,
    ) -> Self {
        Self {
            transform,
            version,
            before,
            baseline,
            ratios,
            fault: None,
            broke: None,
            first_failure: None,
            committed: 0,
            seen: 0,
        }
    }

    /// Whether it is compared with the version before it, in the tasks of a sub-topology.
    pub(super) const fn is_compared_in(&self, subtopology: u16) -> bool {
        self.ratios.is_some() && self.transform.subtopology == subtopology
    }

    /// What a task has to know of it.
    pub(super) fn on_trial(&self) -> OnTrial {
        let may_reject = self.ratios.is_none_or(|ratios| ratios.failures.is_none());
        OnTrial { transform: self.transform.transform, before: self.before, may_reject }
    }

    /// Its code broke off, and no record is to blame.
    pub(super) fn broke(&mut self, how: String) {
        self.broke.get_or_insert(how);
    }

    /// Work of a task that it is compared in failed. With `fault`, that is what it has to go for.
    pub(super) fn failed(&mut self, reason: &str, fault: Option<&str>) {
        if let Some(fault) = fault {
            self.fault.get_or_insert_with(|| format!("{reason}; {fault}"));
        }
        self.first_failure.get_or_insert_with(|| reason.to_owned());
    }

    /// The open transaction came to its end, with what the version did so far.
    pub(super) const fn ended(&mut self, tally: &Tally, committed: bool) {
        if committed {
            self.committed += tally.ever - self.seen;
        }
        self.seen = tally.ever;
    }

    pub(super) const fn progress(&self) -> Probation {
        Probation { version: self.version, records: self.committed }
    }

    /// Why the version has failed, if it has.
    pub(super) fn verdict(&self, new: &Tally) -> Option<String> {
        let ratios = self.ratios?;
        if self.fault.is_some() {
            return self.fault.clone();
        }
        if new.breaks > 0 && self.baseline.breaks == 0 {
            let how = self.broke.as_deref().unwrap_or("its code broke off");
            return Some(how.to_owned());
        }
        let failed = self.failures(new, ratios).or_else(|| self.memory(new, ratios));
        failed.or_else(|| self.cpu(new, ratios)).or_else(|| self.output(new, ratios))
    }

    fn failures(&self, new: &Tally, ratios: Ratios) -> Option<String> {
        if new.failures < FAILURES_MIN {
            return None;
        }
        let rate = |tally: &Tally| by_record(tally.failures as f64, tally);
        let before = rate(&self.baseline).max(FAILURES_FREE);
        let rise = FAILURES.rise(rate(new), before, ratios.failures)?;
        let first = self.first_failure.as_deref().unwrap_or("not known");
        Some(format!("{rise}; the first failure: {first}"))
    }

    fn memory(&self, new: &Tally, ratios: Ratios) -> Option<String> {
        if self.baseline.memory_bytes == 0 {
            return None;
        }
        let before = (self.baseline.memory_bytes as f64).max(MEMORY_FREE);
        MEMORY.rise(new.memory_bytes as f64, before, ratios.memory)
    }

    fn cpu(&self, new: &Tally, ratios: Ratios) -> Option<String> {
        let old = &self.baseline;
        let is_known = new.records >= RECORDS_MIN && new.cpu >= CPU_MIN;
        if old.records < RECORDS_MIN || old.cpu.is_zero() || !(is_known || new.cpu >= CPU_OF_FEW) {
            return None;
        }
        let micros = |tally: &Tally| by_record(tally.cpu.as_secs_f64() * 1e6, tally);
        CPU.rise(micros(new), micros(old), ratios.cpu)
    }

    fn output(&self, new: &Tally, ratios: Ratios) -> Option<String> {
        if self.baseline.records < RECORDS_MIN || new.records < RECORDS_MIN {
            return None;
        }
        let bytes = |tally: &Tally| by_record(tally.output_bytes as f64, tally);
        let before = bytes(&self.baseline).max(OUTPUT_FREE);
        OUTPUT.rise(bytes(new), before, ratios.output)
    }
}

/// What is compared: what messages call it, the key of its bound in the pipeline file, and the word
/// by which a swap is told to accept it.
struct Measure {
    what: &'static str,
    key: &'static str,
    word: &'static str,
}

const FAILURES: Measure =
    Measure { what: "failures a record", key: "failure_ratio_max", word: "failures" };
const CPU: Measure =
    Measure { what: "microseconds of processor time a record", key: "cpu_ratio_max", word: "cpu" };
const MEMORY: Measure =
    Measure { what: "bytes of an instance's memory", key: "memory_ratio_max", word: "memory" };
const OUTPUT: Measure =
    Measure { what: "bytes emitted a record", key: "output_ratio_max", word: "output" };

impl Measure {
    /// Says so if `new` is more than `ratio_max` times `old`, and what to do if that is right.
    fn rise(&self, new: f64, old: f64, ratio_max: Option<f64>) -> Option<String> {
        let (ratio_max, ratio) = (ratio_max?, new / old);
        let Self { what, key, word } = self;
        (ratio > ratio_max).then(|| {
            format!(
                "{what}: {new:.3}, {ratio:.1} times the {old:.3} from before, and \
                 `swap.{key}` is {ratio_max}; if that is as it should be, raise it, or swap with \
                 `--accept {word}`"
            )
        })
    }
}

fn by_record(amount: f64, tally: &Tally) -> f64 {
    amount / tally.records.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::TransformId;

    const RATIOS: Ratios =
        Ratios { failures: Some(2.0), cpu: Some(3.0), memory: Some(3.0), output: Some(3.0) };

    fn tally(records: u64) -> Tally {
        Tally {
            records,
            cpu: Duration::from_micros(20 * records),
            output_bytes: 100 * records,
            memory_bytes: 4 << 20,
            ..Tally::default()
        }
    }

    fn trial(old: Tally, ratios: Ratios) -> Trial {
        let transform = TransformId { subtopology: 0, transform: 0 };
        Trial::new(transform, (1, 0), old, Some(ratios))
    }

    fn verdict(old: Tally, new: Tally) -> Option<String> {
        trial(old, RATIOS).verdict(&new)
    }

    #[test]
    fn what_does_as_well_as_before_passes() {
        assert_eq!(verdict(tally(1_000), tally(1_000)), None);
        assert_eq!(verdict(tally(1_000), Tally::default()), None);
        assert_eq!(
            verdict(Tally::default(), tally(1_000)),
            None,
            "there is nothing to compare with"
        );
    }

    #[test]
    fn each_rise_is_found_and_named() {
        let old = tally(1_000);
        let rises = [
            ("failures", Tally { failures: 6, ..tally(1_000) }),
            ("memory", Tally { memory_bytes: 13 << 20, ..tally(10) }),
            ("processor", Tally { cpu: Duration::from_micros(61 * 1_000), ..tally(1_000) }),
            ("processor", Tally { cpu: Duration::from_millis(300), ..tally(2) }),
            ("emitted", Tally { output_bytes: 301_000, ..tally(1_000) }),
            ("broke", Tally { breaks: 1, ..tally(1) }),
        ];
        for (what, new) in rises {
            let found = verdict(old, new);
            assert!(found.as_ref().is_some_and(|found| found.contains(what)), "{what}: {found:?}");
        }
    }

    #[test]
    fn a_verdict_names_its_limit_what_was_measured_and_what_to_do() {
        let (old, many) = (tally(1_000), Tally { output_bytes: 950_000, ..tally(1_000) });
        assert_eq!(
            verdict(old, many).as_deref(),
            Some(
                "bytes emitted a record: 950.000, 9.5 times the 100.000 from before, and \
                 `swap.output_ratio_max` is 3; if that is as it should be, raise it, or swap with \
                 `--accept output`"
            )
        );
        let mut failing = trial(old, RATIOS);
        failing.failed("not now, at offset 7", None);
        failing.failed("not now, at offset 8", None);
        let said = failing.verdict(&Tally { failures: 6, ..tally(1_000) }).unwrap();
        assert!(said.contains("`swap.failure_ratio_max` is 2"), "{said}");
        assert!(said.ends_with("; the first failure: not now, at offset 7"), "{said}");
    }

    #[test]
    fn what_is_accepted_is_no_rise() {
        let old = tally(1_000);
        let worse = Tally {
            failures: 100,
            cpu: Duration::from_secs(1),
            output_bytes: 1 << 30,
            memory_bytes: 1 << 30,
            ..old
        };
        for ratios in [
            Ratios { failures: None, ..RATIOS },
            Ratios { cpu: None, ..RATIOS },
            Ratios { memory: None, ..RATIOS },
            Ratios { output: None, ..RATIOS },
        ] {
            assert!(trial(old, ratios).verdict(&worse).is_some(), "{ratios:?}");
        }
        assert_eq!(trial(old, Ratios::default()).verdict(&worse), None);
    }

    #[test]
    fn a_version_goes_for_the_first_fault() {
        let mut trial = trial(tally(1_000), Ratios::default());
        trial.failed("rejected", None);
        assert_eq!(trial.verdict(&tally(10)), None);
        trial.failed("rejected at 3", Some("the version before takes it"));
        trial.failed("rejected at 4", Some("the version before takes it"));
        let expected = Some("rejected at 3; the version before takes it".to_owned());
        assert_eq!(trial.verdict(&tally(10)), expected);
    }

    #[test]
    fn little_says_nothing() {
        let old = tally(1_000);
        let few = tally(100);
        assert_eq!(verdict(old, Tally { cpu: 50 * few.cpu, ..few }), None);
        assert_eq!(verdict(old, Tally { output_bytes: 99 * few.output_bytes, ..few }), None);
        assert_eq!(verdict(old, Tally { failures: 4, ..few }), None);
        let small = Tally { memory_bytes: 100_000, ..old };
        assert_eq!(verdict(small, Tally { memory_bytes: 1 << 20, ..few }), None);
    }

    #[test]
    fn what_failed_before_as_well_is_no_rise() {
        let old = Tally { failures: 10, breaks: 10, ..tally(1_000) };
        assert_eq!(verdict(old, Tally { failures: 15, breaks: 15, ..tally(1_000) }), None);
        assert!(verdict(old, Tally { failures: 25, breaks: 25, ..tally(1_000) }).is_some());
    }

    #[test]
    fn only_what_is_committed_counts_for_the_probation() {
        let transform = TransformId { subtopology: 0, transform: 0 };
        let mut trial = Trial::new(transform, (1, 0), Tally::default(), Some(RATIOS));
        for (ever, committed, expected) in [(10, true, 10), (25, false, 10), (30, true, 15)] {
            trial.ended(&Tally { ever, ..Tally::default() }, committed);
            assert_eq!(trial.progress(), Probation { version: 1, records: expected });
        }
    }
}
