//! Stores read what was written before, and ask the agent as seldom as they can.

use sidestream_sdk::{
    Context, Decimal, Failure, Outcome, Output, Record, Scan, Setup, SetupError, Store, Transform,
    testing::{TestDriver, TestRecord},
};

/// Does what the value of a record says: `put k v`, `delete k`, `get k`, `all`, `back`,
/// `range k k`, `prefix k`, `fail`.
struct Script {
    store: Store<String, String>,
    output: Output<String, String>,
}

impl Transform for Script {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        Ok(Self { store: setup.store("store")?, output: setup.output("out")? })
    }

    fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
        let words: Vec<&str> = record.value::<&str>()?.split(' ').collect();
        match words[..] {
            ["put", key, value] => self.store.put(key, value),
            ["delete", key] => self.store.delete(key),
            ["get", key] => {
                let value = self.store.get(key)?;
                self.output.emit("", value.as_deref().unwrap_or("nothing"))
            }
            ["all"] => self.say(self.store.all()),
            ["back"] => self.say(self.store.all().reverse()),
            ["range", lower, upper] => {
                self.say(self.store.range(lower.to_owned()..upper.to_owned())?)
            }
            ["prefix", prefix] => self.say(self.store.prefix(prefix)?),
            ["clear"] => self.store.all().try_for_each(|entry| self.store.delete(&entry?.0)),
            _ => Err(Failure::reject("no such command")),
        }
    }
}

impl Script {
    fn say(&self, scan: Scan<String, String>) -> Outcome {
        let entries: Result<Vec<_>, _> =
            scan.map(|entry| entry.map(|(key, value)| format!("{key}={value}"))).collect();
        self.output.emit("", &entries?.join(" "))
    }
}

fn driver() -> TestDriver {
    let builder = TestDriver::builder().output("out").store("store");
    builder.start::<Script>().expect("it has all it needs")
}

fn pipe(driver: &mut TestDriver, commands: &[&str]) -> Result<Vec<String>, String> {
    let records = commands.iter().map(|command| TestRecord::new("", *command));
    driver.pipe(records).map_err(|failure| failure.message)?;
    Ok(driver.outputs().iter().map(|output| output.value()).collect())
}

#[test]
fn a_batch_reads_its_own_writes_and_those_before() {
    let mut driver = driver();
    let commands = ["put a 1", "get a", "put a 22", "get a", "delete a", "get a", "put a 3"];
    assert_eq!(pipe(&mut driver, &commands).unwrap(), ["1", "22", "nothing"]);
    assert_eq!(driver.state_calls(), 0);
    assert_eq!(pipe(&mut driver, &["get a", "get b", "get a", "get b"]).unwrap().len(), 4);
    assert_eq!(driver.state_calls(), 2);
    assert_eq!(driver.get::<String>("store", "a").unwrap(), "3");
}

#[test]
fn scans_go_through_pages_in_either_direction() {
    let mut driver = driver();
    let keys = ["a1", "a2", "b1", "b2", "b3", "b4", "b5", "c1"];
    for key in keys {
        driver.put("store", key, "x");
    }
    let commands = ["all", "back", "range a2 b3", "range c b", "prefix b", "prefix d"];
    let said = pipe(&mut driver, &commands).unwrap();
    let of = |keys: &[&str]| keys.iter().map(|k| format!("{k}=x")).collect::<Vec<_>>().join(" ");
    let mut reversed = keys;
    reversed.reverse();
    let expected =
        [of(&keys), of(&reversed), of(&["a2", "b1", "b2"]), of(&[]), of(&keys[2..7]), of(&[])];
    assert_eq!(said, expected);
}

#[test]
fn scans_see_the_writes_of_their_own_batch() {
    let mut driver = driver();
    driver.put("store", "b", "old");
    driver.put("store", "c", "old");
    let commands = ["put a new", "delete b", "put c new", "all", "get b", "put b back", "all"];
    let said = pipe(&mut driver, &commands).unwrap();
    assert_eq!(said, ["a=new c=new", "nothing", "a=new b=back c=new"]);
}

#[test]
fn entries_may_be_deleted_while_a_scan_goes_through_them() {
    let mut driver = driver();
    for key in 0..20u8 {
        driver.put("store", &format!("{key:02}"), "x");
    }
    assert_eq!(pipe(&mut driver, &["put zz x", "clear", "all"]).unwrap(), [""]);
    assert!(driver.entries("store").is_empty());
}

#[test]
fn writes_of_a_call_that_fails_are_undone_even_if_a_scan_needed_them() {
    let mut driver = driver();
    driver.put("store", "a", "before");
    let failure = pipe(&mut driver, &["put a after", "all", "put b x", "nonsense"]).unwrap_err();
    assert_eq!(failure, "no such command");
    assert_eq!(pipe(&mut driver, &["all"]).unwrap(), ["a=before"]);
}

#[test]
fn values_that_cannot_be_read_reject_the_record_and_name_the_store() {
    let mut driver = driver();
    driver.put("store", "a", b"\xff");
    for command in ["get a", "all"] {
        let failure = pipe(&mut driver, &[command]).unwrap_err();
        assert_eq!(failure, "value of store `store`: not UTF-8 at byte 0");
    }
}

struct Count {
    counts: Store<Vec<u8>, Decimal<u64>>,
}

impl Transform for Count {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        Ok(Self { counts: setup.store("counts")?.prefetched() })
    }

    fn process(&mut self, record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        let Some(key) = record.key_bytes() else { return Ok(()) };
        let count = self.counts.get(key)?.map_or(1, |count| count.0 + 1);
        self.counts.put(key, &Decimal(count))?;
        context.emit(key, &Decimal(count))
    }
}

#[test]
fn a_prefetched_store_is_asked_once_a_batch() {
    let builder = TestDriver::builder().output("out").store("counts");
    let mut driver = builder.start::<Count>().unwrap();
    driver.put("counts", "a", &Decimal(7));
    let keys = ["a", "b", "a", "c", "b", "a"];
    let mut records: Vec<_> = keys.iter().map(|key| TestRecord::new(*key, "")).collect();
    records.insert(3, TestRecord::new("", "").without_key());
    driver.pipe(records).unwrap();
    let counts: Vec<Decimal<u64>> = driver.outputs().iter().map(|output| output.value()).collect();
    assert_eq!(counts.map_to_numbers(), [8, 1, 9, 1, 2, 10]);
    assert_eq!(driver.state_calls(), 1);
    assert_eq!(driver.get("counts", "a"), Some(Decimal(10u64)));
}

trait Numbers {
    fn map_to_numbers(&self) -> Vec<u64>;
}

impl Numbers for Vec<Decimal<u64>> {
    fn map_to_numbers(&self) -> Vec<u64> {
        self.iter().map(|number| number.0).collect()
    }
}

#[test]
fn keys_that_are_known_to_be_needed_come_at_once() {
    struct Several {
        store: Store<String, u64>,
    }
    impl Transform for Several {
        fn init(setup: &mut Setup) -> Result<Self, SetupError> {
            Ok(Self { store: setup.store("store")? })
        }
        fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
            let words: Vec<&str> = record.value::<&str>()?.split(' ').collect();
            self.store.prefetch(words.iter().copied())?;
            for word in words {
                let count = self.store.get(word)?.unwrap_or(0) + 1;
                self.store.put(word, &count)?;
            }
            Ok(())
        }
    }
    let mut driver = TestDriver::builder().store("store").start::<Several>().unwrap();
    driver.pipe([TestRecord::new("", "a b a c"), TestRecord::new("", "c a")]).unwrap();
    assert_eq!(driver.state_calls(), 1);
    assert_eq!(driver.get("store", "a"), Some(3u64));
    assert_eq!(driver.get("store", "c"), Some(2u64));
}

#[test]
fn a_call_that_touches_much_hands_over_in_between() {
    struct Flood {
        store: Store<u64, Vec<u8>>,
    }
    impl Transform for Flood {
        fn init(setup: &mut Setup) -> Result<Self, SetupError> {
            Ok(Self { store: setup.store("store")? })
        }
        fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
            let value = [7u8; 10_000];
            for key in 0..record.value::<u64>()? {
                self.store.put(&key, &value[..])?;
            }
            match self.store.get(&0)? {
                Some(found) if found == value => Ok(()),
                _ => Err(Failure::reject("lost")),
            }
        }
    }
    let mut driver = TestDriver::builder().store("store").start::<Flood>().unwrap();
    driver.pipe([TestRecord::new("", &1_000u64)]).unwrap();
    assert_eq!(driver.entries("store").len(), 1_000);
    let calls = driver.state_calls();
    assert!((2..10).contains(&calls), "{calls}");
}
