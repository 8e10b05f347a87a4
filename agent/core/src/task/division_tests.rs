//! Batches of records that calls hang at, turn after turn.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use super::testing::{topology, transform};
use crate::{
    record::{Batch, Committed, Emits, PARTITION_BY_KEY, Records, TIMESTAMP_OF_CAUSE, TaskId},
    task::{
        Cost, Effects, Failure, FailureKind, Failures, Origins, Processor, Produced, Punctuation,
        Setup, Share, State, Stateless, Tally, Task, Turn, Wanted,
    },
    topology::{OnError, Output, Reader, Retry, Route, Topology},
};

const TASK: TaskId = TaskId { subtopology: 0, partition: 0 };

/// How long a call may take, and how long batches may be divided.
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
const DIVIDE_FOR: Duration = Duration::from_secs(8);

/// How many records a batch has, and how many the first transform hands over for each.
const RECORDS_MAX: usize = 16;
const HANDED_OVER: u8 = 32;

/// What a test knows of the calls of user code.
#[derive(Clone, Default)]
struct Calls {
    now: Rc<Cell<Duration>>,
    /// What went through, by record and which of those it caused.
    passed: Rc<RefCell<Vec<[u8; 2]>>>,
}

/// The first transform hands records over; calls of the second hang if one of them is bad.
struct Hanging {
    calls: Calls,
    is_first: bool,
    is_bad: fn([u8; 2]) -> bool,
    setup: Setup,
}

impl Processor for Hanging {
    fn setup(&self) -> &Setup {
        &self.setup
    }

    fn process(&mut self, batch: &Batch, _: &mut State) -> Result<Effects, Failure> {
        let mut emits = Emits::default();
        if self.is_first {
            for (row, value) in (0i32..).zip(&batch.records.values) {
                let record = value.expect("it has one")[0];
                (0..HANDED_OVER).for_each(|which| emit(&mut emits, row, [record, which]));
            }
            return Ok(Effects { emits, ..Effects::default() });
        }
        let values = batch.records.values.iter().map(|value| value.expect("it has one"));
        let values: Vec<[u8; 2]> = values.map(|value| [value[0], value[1]]).collect();
        if values.iter().any(|value| (self.is_bad)(*value)) {
            self.calls.now.set(self.calls.now.get() + CALL_TIME_MAX);
            let message = "it hangs".to_owned();
            return Err(Failure { kind: FailureKind::Deadline, record: None, message });
        }
        self.calls.passed.borrow_mut().extend(values);
        Ok(Effects::default())
    }

    fn punctuate(&mut self, _: &Punctuation, _: &mut State) -> Result<Effects, Failure> {
        Ok(Effects::default())
    }

    fn cost(&self) -> Cost {
        Cost::default()
    }
}

fn emit(emits: &mut Emits, cause: i32, value: [u8; 2]) {
    emits.causes.push(cause);
    emits.outputs.push(0);
    emits.keys.push(None);
    emits.values.push(Some(&value));
    emits.timestamps.push(TIMESTAMP_OF_CAUSE);
    emits.partitions.push(PARTITION_BY_KEY);
}

fn two_transforms() -> Topology {
    let route = Route::Transforms(vec![Reader { transform: 1, input: 0 }]);
    let handed_over = Output { name: "out".to_owned(), route, latest_per_key: false };
    topology(vec![
        transform("first", vec![handed_over], OnError::Skip),
        transform("then", Vec::new(), OnError::Skip),
    ])
}

fn records(from: u8) -> Records {
    let mut records = Records::default();
    for record in from..u8::try_from(RECORDS_MAX).expect("few") {
        records.offsets.push(record.into());
        records.timestamps.push(0);
        records.timestamp_types.push(0);
        records.keys.push(None);
        records.values.push(Some(&[record]));
    }
    records
}

/// A task whose second transform hangs at what `is_bad`.
struct Bench {
    task: Task<Hanging>,
    failures: Failures,
    calls: Calls,
    is_bad: fn([u8; 2]) -> bool,
    divide_for: Duration,
    epoch: u64,
}

impl Bench {
    fn new(is_bad: fn([u8; 2]) -> bool) -> Self {
        let committed = [Committed { offset: 0, metadata: String::new() }];
        let parts = (committed.as_slice(), Origins::default());
        let task = Task::new(TASK, Arc::new(two_transforms()), parts, Box::new(Stateless));
        let (failures, calls) = (Failures::default(), Calls::default());
        Self { task, failures, calls, is_bad, divide_for: DIVIDE_FOR, epoch: 0 }
    }

    /// Processes a batch as the worker does. Returns whether there was time for it.
    fn turn(&mut self) -> bool {
        let Self { task, failures, calls, is_bad, divide_for, .. } = self;
        let began = calls.now.get();
        let records_max = failures.batch_records_max(RECORDS_MAX);
        let division = failures.division(RECORDS_MAX, began + *divide_for);
        let mut tallies = [Tally::default(); 2];
        let mut turn = Turn {
            wall_clock: 0,
            retry: Retry { attempts_max: 5, backoff: Duration::ZERO },
            make: &mut |wanted| {
                let is_first = matches!(wanted, Wanted::ToWork(0));
                let (calls, is_bad) = (calls.clone(), *is_bad);
                Ok(Hanging { calls, is_first, is_bad, setup: Setup::default() })
            },
            on_trial: Vec::new(),
            blame: None,
            failures,
            tallies: &mut tallies,
            share: Share {
                time: &|| calls.now.get(),
                ends_at: Duration::MAX,
                bytes_max: usize::MAX,
                handed_over: 0,
            },
            produced: Produced::default(),
            passed_over: false,
            broke: None,
            division,
        };
        let done = task.prepare(&mut turn).and_then(|()| task.process(records_max, &mut turn));
        let division = turn.division;
        assert!(calls.now.get() - began <= *divide_for + 2 * CALL_TIME_MAX, "it goes on too long");
        assert_eq!(
            done.is_err(),
            division.is_out_of_time,
            "nothing but want of time fails: {done:?}"
        );
        if done.is_err() {
            assert!(!division.is_vain(), "a try that comes to nothing");
            let positions = task.positions();
            failures.dropped();
            failures.ran_out_of_time(calls.now.get(), positions);
            task.drop_work();
        } else {
            let positions = task.positions();
            failures.settle(&positions, true);
            task.committed.offsets = positions;
        }
        done.is_ok()
    }

    /// Processes everything. Returns what went through, and how many turns that took.
    fn run(&mut self) -> (Vec<[u8; 2]>, u32) {
        let (mut passed, mut turns) = (Vec::new(), 0);
        let all = i64::try_from(RECORDS_MAX).expect("few");
        while self.task.committed_offsets()[0] < all {
            let next = self.task.committed_offsets()[0];
            self.epoch += 1;
            self.task.queues()[0].reset(next, self.epoch);
            let records = records(u8::try_from(next).expect("few"));
            assert!(self.task.push(0, records, self.epoch, all));
            self.calls.passed.borrow_mut().clear();
            if self.turn() {
                passed.append(&mut self.calls.passed.borrow_mut());
            }
            turns += 1;
            assert!(turns < 2_000, "it comes to no end");
        }
        (passed, turns)
    }
}

fn check(is_bad: fn([u8; 2]) -> bool, turns_max: u32) {
    let (passed, turns) = Bench::new(is_bad).run();
    let all = records(0).offsets.into_iter().map(|record| u8::try_from(record).expect("few"));
    let all = all.flat_map(|record| (0..HANDED_OVER).map(move |which| [record, which]));
    let expected: Vec<[u8; 2]> = all.filter(|value| !is_bad(*value)).collect();
    assert_eq!(passed, expected, "what does not fail goes through, in order");
    assert!(turns <= turns_max, "it took {turns} turns");
}

#[test]
fn where_nothing_fails_a_batch_is_one_turn() {
    check(|_| false, 1);
}

#[test]
fn a_division_goes_on_where_the_one_before_had_to_end() {
    // Nine halvings and two more calls to find one of 512, of which each turn has time for three.
    let mut bench = Bench::new(|[record, which]| record == 5 && which == 17);
    bench.divide_for = 3 * CALL_TIME_MAX - Duration::from_secs(1);
    let (passed, turns) = bench.run();
    assert_eq!(passed.len(), RECORDS_MAX * usize::from(HANDED_OVER) - 1);
    assert!(turns <= 6, "it took {turns} turns");
}

#[test]
fn however_many_records_hang_each_is_judged_in_a_bounded_number_of_turns() {
    check(|[record, which]| record == 5 && which == 17, 10);
    check(|[record, _]| record == 5, 60);
    check(|[_, which]| which % 2 == 1, 1_000);
    check(|_| true, 1_500);
}
