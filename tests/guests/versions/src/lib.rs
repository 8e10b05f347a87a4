//! For tests of swaps: does what the module `stamp` does, says in a header `version` which version
//! of it this is, and works for a while on each record. Tests choose the version in the finished
//! module, and whether it behaves well.
//!
//! However it behaves, what it emits and writes is right: a version that was there for a while
//! leaves no other trace than its number, and the length of its values.

mod switches;

use std::hint::black_box;

use sidestream_sdk::{
    Context, Decimal, Outcome, Output, Record, Setup, SetupError, Store, Transform,
};

use switches::{Behaviour, Switches};

/// How often a number is stirred for each record: some 30 microseconds, several times what all else
/// takes, so that ten times of it are nearly ten times of the whole.
const ROUNDS: u64 = 20_000;

struct Versions {
    version: u32,
    conduct: Conduct,
    counts: Store<Vec<u8>, Decimal<u64>>,
    outputs: Vec<Output<Vec<u8>, String>>,
}

impl Versions {
    fn new(switches: Switches, setup: &Setup) -> Result<Self, SetupError> {
        let Switches { version, behaviour } = switches;
        let conduct = Conduct::begin(behaviour)?;
        let outputs = setup.outputs().iter().map(|name| setup.output(name));
        let outputs = outputs.collect::<Result<_, _>>()?;
        Ok(Self { version, conduct, outputs, counts: setup.store("stamps")?.prefetched() })
    }
}

/// How an instance behaves from record to record.
struct Conduct {
    behaviour: Behaviour,
    /// How many records it has seen.
    records: u32,
    kept: Vec<Vec<u8>>,
}

/// What is to be done for a record.
#[derive(Debug, PartialEq, Eq)]
struct Deed {
    rounds: u64,
    /// How many bytes its value has at least.
    width: usize,
}

impl Conduct {
    fn begin(behaviour: Behaviour) -> Result<Self, SetupError> {
        match behaviour {
            Behaviour::TrapAtInitialise => panic!("trapped as it was initialised, as it was told"),
            Behaviour::RejectAtInitialise => {
                Err(SetupError::new("it rejects every pipeline, as it was told"))
            }
            Behaviour::Good
            | Behaviour::TrapAt(_)
            | Behaviour::Slow(_)
            | Behaviour::Leak(_)
            | Behaviour::Grow(_) => Ok(Self { behaviour, records: 0, kept: Vec::new() }),
        }
    }

    fn next(&mut self) -> Deed {
        self.records = self.records.wrapping_add(1);
        let mut deed = Deed { rounds: ROUNDS, width: 0 };
        match self.behaviour {
            Behaviour::TrapAt(number) if number == self.records => {
                panic!("trapped at its record {number}, as it was told")
            }
            Behaviour::Slow(times) => deed.rounds *= u64::from(times),
            // Not zeros: memory that is only asked for would not be there.
            Behaviour::Leak(bytes) => self.kept.push(vec![1; bytes as usize]),
            Behaviour::Grow(bytes) => deed.width = bytes as usize,
            Behaviour::Good
            | Behaviour::TrapAtInitialise
            | Behaviour::RejectAtInitialise
            | Behaviour::TrapAt(_) => {}
        }
        deed
    }
}

/// Work whose result depends on all of it.
fn stir(rounds: u64, seed: u32) -> u64 {
    let step = |number: u64, _| (number ^ (number >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..rounds).fold(u64::from(seed), step)
}

impl Transform for Versions {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        let switches = Switches::read().ok_or("what was chosen for it makes no sense")?;
        Self::new(switches, setup)
    }

    fn process(&mut self, record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        let Deed { rounds, width } = self.conduct.next();
        black_box(stir(rounds, self.conduct.records));
        let key = record.key_bytes().unwrap_or_default();
        let count = self.counts.get(key)?.unwrap_or_default().0 + 1;
        self.counts.put(key, &Decimal(count))?;
        let value = format!("{count:0>width$}");
        for output in &self.outputs {
            let mut message = output.message().value(&value);
            if let Some(key) = record.key_bytes() {
                message = message.key(key);
            }
            message
                .header("input", context.input_name(record))
                .header("partition", &Decimal(record.partition()))
                .header("offset", &Decimal(record.offset()))
                .header("version", &Decimal(self.version))
                .send()?;
        }
        Ok(())
    }
}

sidestream_sdk::transform!(Versions);

#[cfg(test)]
mod tests {
    use sidestream_sdk::testing::{TestDriver, TestRecord};

    use super::*;

    /// The module with other switches; one letter and one number say which.
    struct Told<const LETTER: char, const PARAMETER: u32>(Versions);

    impl<const LETTER: char, const PARAMETER: u32> Transform for Told<LETTER, PARAMETER> {
        fn init(setup: &mut Setup) -> Result<Self, SetupError> {
            let behaviour = match LETTER {
                'i' => Behaviour::TrapAtInitialise,
                'r' => Behaviour::RejectAtInitialise,
                't' => Behaviour::TrapAt(PARAMETER),
                's' => Behaviour::Slow(PARAMETER),
                'l' => Behaviour::Leak(PARAMETER),
                'o' => Behaviour::Grow(PARAMETER),
                _ => Behaviour::Good,
            };
            Ok(Self(Versions::new(Switches { version: 7, behaviour }, setup)?))
        }

        fn process(&mut self, record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
            self.0.process(record, context)
        }
    }

    fn start<T: Transform + 'static>() -> Result<TestDriver, SetupError> {
        let builder = TestDriver::builder().output("out").output("copies").store("stamps");
        builder.partition(4).start::<T>()
    }

    fn records(count: usize) -> Vec<TestRecord> {
        vec![TestRecord::new("k", "x"); count]
    }

    #[test]
    fn each_record_comes_out_with_its_place_count_and_version() {
        let mut driver = start::<Told<'g', 0>>().unwrap();
        driver.pipe([TestRecord::new("k", "x").offset(30), TestRecord::new("k", "y")]).unwrap();
        let outputs = driver.outputs();
        let seen: Vec<(&str, &str, &str, &str, &str, &str)> = outputs
            .iter()
            .map(|o| {
                let header = |name| o.header(name);
                let place = (header("input"), header("partition"), header("offset"));
                (o.output.as_str(), place.0, place.1, place.2, header("version"), o.value())
            })
            .collect();
        assert_eq!(
            seen,
            [
                ("out", "input", "4", "30", "7", "1"),
                ("copies", "input", "4", "30", "7", "1"),
                ("out", "input", "4", "31", "7", "2"),
                ("copies", "input", "4", "31", "7", "2"),
            ]
        );
        assert_eq!(driver.entries("stamps"), [(b"k".to_vec(), b"2".to_vec())]);
    }

    #[test]
    fn as_it_is_built_it_says_version_0() {
        let mut driver = start::<Versions>().unwrap();
        driver.pipe(records(1)).unwrap();
        assert_eq!(driver.outputs()[0].header::<&str>("version"), "0");
    }

    #[test]
    #[should_panic(expected = "trapped as it was initialised")]
    fn it_traps_when_it_is_initialised() {
        drop(start::<Told<'i', 0>>());
    }

    #[test]
    fn it_rejects_its_pipeline_with_words() {
        let error = start::<Told<'r', 0>>().err().unwrap();
        assert_eq!(error.to_string(), "it rejects every pipeline, as it was told");
    }

    #[test]
    fn it_does_not_trap_before_its_time() {
        let mut driver = start::<Told<'t', 4>>().unwrap();
        driver.pipe(records(3)).unwrap();
        assert_eq!(driver.outputs().len(), 6);
    }

    #[test]
    #[should_panic(expected = "trapped at its record 4")]
    fn it_traps_at_a_record_counted_over_its_batches() {
        let mut driver = start::<Told<'t', 4>>().unwrap();
        driver.pipe(records(3)).unwrap();
        drop(driver.pipe(records(1)));
    }

    #[test]
    fn grown_values_are_the_same_numbers() {
        let mut driver = start::<Told<'o', 500>>().unwrap();
        driver.pipe(records(2)).unwrap();
        let outputs = driver.outputs();
        let value: &str = outputs[2].value();
        assert_eq!((value.len(), value.parse()), (500, Ok(2)));
        assert_eq!(driver.entries("stamps"), [(b"k".to_vec(), b"2".to_vec())]);
    }

    fn conduct(behaviour: Behaviour) -> Conduct {
        Conduct::begin(behaviour).unwrap()
    }

    #[test]
    fn slow_ones_do_the_same_work_so_many_times() {
        let deed = conduct(Behaviour::Slow(10)).next();
        assert_eq!(deed.rounds, 10 * conduct(Behaviour::Good).next().rounds);
        let outputs = |mut driver: TestDriver| {
            driver.pipe(records(3)).unwrap();
            driver.outputs()
        };
        let good = outputs(start::<Told<'g', 0>>().unwrap());
        assert_eq!(outputs(start::<Told<'s', 10>>().unwrap()), good);
    }

    #[test]
    fn leaking_ones_keep_what_they_leak() {
        let mut leaking = conduct(Behaviour::Leak(1_000));
        let mut good = conduct(Behaviour::Good);
        for _ in 0..5 {
            assert_eq!(good.next(), leaking.next());
        }
        assert_eq!(leaking.kept.concat(), [1; 5_000]);
        assert!(good.kept.is_empty());
    }

    #[test]
    fn each_round_counts() {
        let stirred: Vec<_> = (0..100).map(|rounds| stir(rounds, 1)).collect();
        let distinct: std::collections::BTreeSet<_> = stirred.iter().collect();
        assert_eq!(stirred.len(), distinct.len());
    }
}
