//! How many punctuations the modules of a task may ask for.

use std::{sync::Arc, time::Duration};

use super::{
    run::METADATA_BYTES_MAX,
    testing::{topology, transform},
};
use crate::{
    record::{Batch, Committed, TIMESTAMP_MAX, TaskId, Timestamp},
    task::{
        Clock, Cost, Effects, Failure, FailureKind, Failures, Origins, Processor, Produced,
        Punctuation, Schedule, Setup, Share, State, Stateless, Tally, Task, Turn,
    },
    topology::{OnError, Retry},
};

const TASK: TaskId = TaskId { subtopology: 0, partition: 0 };
/// The present, as such times are written.
const NOW: Timestamp = 1_800_000_000_000;
/// The most bytes that one more punctuation takes, with what separates it from the one before.
const ONE_MORE_BYTES_MAX: usize = 64;

/// Asks for punctuations, and does nothing else.
struct Asking(Setup);

impl Asking {
    fn for_as_many_as(count: usize) -> Self {
        let schedule = Schedule { clock: Clock::WallClock, interval: Duration::from_secs(60) };
        Self(Setup { schedules: vec![schedule; count], ..Setup::default() })
    }
}

impl Processor for Asking {
    fn setup(&self) -> &Setup {
        &self.0
    }

    fn process(&mut self, _: &Batch, _: &mut State) -> Result<Effects, Failure> {
        Ok(Effects::default())
    }

    fn punctuate(&mut self, _: &Punctuation, _: &mut State) -> Result<Effects, Failure> {
        Ok(Effects::default())
    }

    fn cost(&self) -> Cost {
        Cost::default()
    }
}

fn task() -> Task<Asking> {
    let committed = [Committed { offset: 0, metadata: String::new() }];
    let parts = (committed.as_slice(), Origins::default());
    Task::new(
        TASK,
        Arc::new(topology(vec![transform("asking", Vec::new(), OnError::Fail)])),
        parts,
        Box::new(Stateless),
    )
}

/// Has the task begin to work, with a module that asks for so many punctuations where it has none.
fn prepare(task: &mut Task<Asking>, count: usize) -> Result<(), Failure> {
    let mut failures = Failures::default();
    let division = failures.division(1, Duration::MAX);
    task.prepare(&mut Turn {
        wall_clock: NOW,
        retry: Retry { attempts_max: 1, backoff: Duration::ZERO },
        make: &mut |_| Ok(Asking::for_as_many_as(count)),
        on_trial: Vec::new(),
        blame: None,
        failures: &mut failures,
        tallies: &mut [Tally::default()],
        share: Share {
            time: &|| Duration::ZERO,
            ends_at: Duration::MAX,
            bytes_max: usize::MAX,
            handed_over: 0,
        },
        produced: Produced::default(),
        passed_over: false,
        broke: None,
        division,
    })
}

/// What the task stores beside its first offset now.
fn stored_bytes(task: &Task<Asking>) -> usize {
    let subtopology = task.topology.subtopology(TASK);
    task.open.time.encode(0).len() + task.origins().mark(subtopology, 0).len()
}

/// The most that is taken.
fn count_max() -> usize {
    let is_refused = |count: &usize| prepare(&mut task(), *count).is_err();
    (1..METADATA_BYTES_MAX).find(is_refused).expect("there is a limit") - 1
}

fn check_refusal(failure: &Failure) {
    assert_eq!((failure.kind, failure.record), (FailureKind::Initialise, None));
    for what in ["4096", "so many punctuations", "let them ask for fewer"] {
        assert!(failure.message.contains(what), "{failure} does not say {what:?}");
    }
}

#[test]
fn as_many_punctuations_are_taken_as_have_room_beside_an_offset_at_any_time() {
    let count = count_max();
    let mut full = task();
    prepare(&mut full, count).unwrap();
    // The longest that any time becomes.
    full.open.time.observe(0, TIMESTAMP_MAX);
    let due = std::iter::from_fn(|| full.open.time.take_due(Clock::WallClock, TIMESTAMP_MAX));
    assert_eq!(due.count(), count);
    let bytes = stored_bytes(&full);
    assert!(bytes <= METADATA_BYTES_MAX, "{count} punctuations take {bytes} bytes");
    assert!(count * ONE_MORE_BYTES_MAX > METADATA_BYTES_MAX, "{count} are not many");
    check_refusal(&prepare(&mut task(), count + 1).unwrap_err());
}

#[test]
fn what_a_version_that_takes_over_asks_for_is_refused_likewise() {
    let count = count_max();
    let mut task = task();
    prepare(&mut task, 1).unwrap();
    task.replace(0, Some(Asking::for_as_many_as(count)), NOW);
    prepare(&mut task, count).unwrap();
    task.replace(0, Some(Asking::for_as_many_as(count + 1)), NOW);
    check_refusal(&prepare(&mut task, count + 1).unwrap_err());
    // The version before comes back.
    task.drop_work();
    task.replace(0, None, NOW);
    prepare(&mut task, 1).unwrap();
    assert!(stored_bytes(&task) < 2 * ONE_MORE_BYTES_MAX);
}
