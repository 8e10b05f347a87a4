//! For tests of failures: passes records on, but fails as configured for values that begin with
//! certain words: `{"trap": ["boom"], "reject": ["bad"], "retry": ["busy"]}`. It can also spin
//! until it is stopped, flood its host with more than a call may emit, and emit a record that is
//! too large for Kafka.
//!
//! Before that it does what must not be seen afterwards: it emits the record and, if it has a
//! store, notes the record's value there by its key and has that handed over early.

use serde::Deserialize;
use sidestream_sdk::{
    Context, Counter, Failure, Outcome, Record, Setup, SetupError, Store, Transform, info,
};

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    trap: Vec<String>,
    reject: Vec<String>,
    retry: Vec<String>,
    spin: Vec<String>,
    flood: Vec<String>,
    large: Vec<String>,
}

/// What a call emits at most in pipelines that flood: below this, which is little enough to be emitted
/// long before a call's deadline.
const FLOOD_BYTES: usize = 8 << 20;

/// What Kafka's client takes at most by default: less than this.
const LARGE_BYTES: usize = 1_500_000;

struct Poison {
    config: Config,
    seen: Option<Store<Vec<u8>, Vec<u8>>>,
    records: Counter,
}

impl Transform for Poison {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        let store = setup.stores().first().cloned();
        Ok(Self {
            config: setup.config()?,
            seen: store.map(|name| setup.store(&name)).transpose()?,
            records: setup.counter("records"),
        })
    }

    fn process(&mut self, record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        let value = record.value_bytes().unwrap_or_default();
        let is_one_of =
            |words: &[String]| words.iter().any(|word| value.starts_with(word.as_bytes()));
        self.records.add(1);
        info!("value of {} bytes at offset {}", value.len(), record.offset());
        context.forward(record);
        if let Some(seen) = &self.seen {
            let key = record.key_bytes().unwrap_or_default();
            seen.put(key, value)?;
            seen.prefix(key)?.next().transpose()?;
        }
        assert!(!is_one_of(&self.config.trap), "poisoned at offset {}", record.offset());
        if is_one_of(&self.config.reject) {
            return Err(Failure::reject(format_args!("poisoned at offset {}", record.offset())));
        }
        if is_one_of(&self.config.retry) {
            return Err(Failure::retry(format_args!("busy at offset {}", record.offset())));
        }
        if is_one_of(&self.config.flood) {
            let part = vec![b'x'; 64 << 10];
            for _ in 0..FLOOD_BYTES / part.len() {
                context.emit(&b"flood"[..], &part)?;
            }
        }
        if is_one_of(&self.config.large) {
            context.emit(&b"large"[..], &vec![b'x'; LARGE_BYTES])?;
        }
        while is_one_of(&self.config.spin) {
            std::hint::black_box(value);
        }
        Ok(())
    }
}

sidestream_sdk::transform!(Poison);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sidestream_sdk::{
        FailureKind,
        testing::{TestDriver, TestRecord},
    };

    use super::*;

    fn driver() -> TestDriver {
        let config = BTreeMap::from([
            ("trap", ["boom"]),
            ("reject", ["bad"]),
            ("retry", ["busy"]),
            ("large", ["large"]),
        ]);
        let builder = TestDriver::builder().output("out").store("seen").config(config);
        builder.start::<Poison>().unwrap()
    }

    #[test]
    fn poison_fails_and_leaves_nothing_behind() {
        let mut driver = driver();
        for (value, kind) in [("bad", FailureKind::Reject), ("busy", FailureKind::Retry)] {
            let records = ["fine", value, "fine"].map(|value| TestRecord::new("k", value));
            let failure = driver.pipe(records).unwrap_err();
            assert_eq!((failure.kind, failure.record), (kind, Some(1)));
        }
        assert!(driver.outputs().is_empty() && driver.entries("seen").is_empty());
        driver.pipe([TestRecord::new("k", "fine")]).unwrap();
        assert_eq!((driver.outputs().len(), driver.counter("records")), (1, 1));
        driver.pipe([TestRecord::new("k", "large: 1")]).unwrap();
        assert_eq!(driver.outputs().len(), 2, "its host has to refuse it");
    }

    #[test]
    #[should_panic(expected = "poisoned at offset 1")]
    fn some_poison_traps() {
        let records = ["fine", "boom"].map(|value| TestRecord::new("k", value));
        let _ = driver().pipe(records);
    }
}
