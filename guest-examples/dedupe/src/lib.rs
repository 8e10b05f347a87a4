//! Drops records whose key came before within a configured time, by the records' own timestamps.
//!
//! `seen` has the time at which each key was let through, `expiries` the same in the order in
//! which it ends, so that a punctuation by stream time finds what is over without looking at the
//! rest.

use std::time::Duration;

use serde::Deserialize;
use sidestream_sdk::{
    Clock, CodecError, Context, Counter, Decode, Encode, Outcome, Output, Punctuation, Record,
    Setup, SetupError, Store, Transform,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// For how long a key is remembered.
    within_ms: u64,
}

/// When a key is forgotten. Its bytes sort by time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expiry {
    time: u64,
    key: Vec<u8>,
}

impl Encode for Expiry {
    fn encode(&self, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        self.time.encode(bytes)?;
        self.key.encode(bytes)
    }
}

impl Decode<'_> for Expiry {
    fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let (time, key) =
            bytes.split_at_checked(8).ok_or_else(|| CodecError::new("shorter than a time"))?;
        Ok(Self { time: u64::decode(time)?, key: key.to_vec() })
    }
}

struct Dedupe {
    within_ms: u64,
    seen: Store<Vec<u8>, u64>,
    expiries: Store<Expiry, ()>,
    output: Output,
    dropped: Counter,
}

impl Transform for Dedupe {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        let Config { within_ms } = setup.config()?;
        setup.schedule(Duration::from_millis(within_ms.div_ceil(10)), Clock::StreamTime)?;
        Ok(Self {
            within_ms,
            seen: setup.store("seen")?.prefetched(),
            expiries: setup.store("expiries")?,
            output: setup.output("unique")?,
            dropped: setup.counter("records_dropped"),
        })
    }

    fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
        let key: &[u8] = record.key()?;
        let time = u64::try_from(record.timestamp()).unwrap_or(0);
        if self.seen.get(key)?.is_some_and(|seen| time.abs_diff(seen) < self.within_ms) {
            self.dropped.add(1);
            return Ok(());
        }
        self.seen.put(key, &time)?;
        self.expiries.put(&Expiry { time: time + self.within_ms, key: key.to_vec() }, &())?;
        self.output.forward(record);
        Ok(())
    }

    fn punctuate(&mut self, _: &Punctuation, context: &mut Context<'_>) -> Outcome {
        let now = u64::try_from(context.stream_time()).unwrap_or(0);
        let first_to_keep = Expiry { time: now + 1, key: Vec::new() };
        for entry in self.expiries.range(..first_to_keep)? {
            let (expiry, ()) = entry?;
            // The key may have come again meanwhile, and then ends later.
            let seen = self.seen.get(&expiry.key)?;
            if seen.is_some_and(|seen| seen + self.within_ms <= expiry.time) {
                self.seen.delete(&expiry.key)?;
            }
            self.expiries.delete(&expiry)?;
        }
        Ok(())
    }
}

sidestream_sdk::transform!(Dedupe);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sidestream_sdk::testing::{TestDriver, TestRecord};

    use super::*;

    fn driver() -> TestDriver {
        let config = BTreeMap::from([("within_ms", 100)]);
        let builder = TestDriver::builder().output("unique").store("seen").store("expiries");
        builder.config(config).start::<Dedupe>().unwrap()
    }

    fn times(driver: &mut TestDriver) -> Vec<i64> {
        driver.outputs().iter().map(|output| output.timestamp).collect()
    }

    fn at(key: &str, time: i64) -> TestRecord {
        TestRecord::new(key, "x").timestamp(time)
    }

    #[test]
    fn only_the_first_of_a_key_within_the_time_goes_on() {
        let mut driver = driver();
        driver.pipe([at("a", 0), at("a", 99), at("b", 99), at("a", 100), at("a", 50)]).unwrap();
        assert_eq!(times(&mut driver), [0, 99, 100]);
        assert_eq!(driver.counter("records_dropped"), 2);
    }

    #[test]
    fn what_is_over_is_forgotten_and_nothing_else() {
        let mut driver = driver();
        let many = (0..10).map(|n| at(&format!("{n}"), n));
        driver.pipe(many).unwrap();
        assert_eq!(driver.entries("seen").len(), 10);
        driver.pipe([at("later", 105)]).unwrap();
        let kept: Vec<_> = driver.entries("seen").into_iter().map(|(key, _)| key).collect();
        assert_eq!(kept, ["6", "7", "8", "9", "later"].map(|key| key.as_bytes().to_vec()));
        assert_eq!(driver.entries("expiries").len(), 5);
    }

    #[test]
    fn a_key_that_came_again_is_kept_until_its_new_time_is_over() {
        let mut driver = driver();
        // The second one comes late enough, in one batch with the first, before the punctuation.
        driver.pipe([at("a", 0), at("x", 9), at("a", 109)]).unwrap();
        assert_eq!(driver.get("seen", "a"), Some(109u64));
        driver.pipe([at("x", 208), at("a", 208)]).unwrap();
        assert_eq!(times(&mut driver), [0, 9, 109, 208]);
        driver.pipe([at("y", 400)]).unwrap();
        assert_eq!(driver.entries("seen").len(), 1);
        assert_eq!(driver.entries("expiries").len(), 1);
    }

    #[test]
    fn it_wants_to_know_for_how_long() {
        let builder = TestDriver::builder().output("unique").store("seen").store("expiries");
        let refusal = builder.start::<Dedupe>().map(|_| ()).unwrap_err();
        assert_eq!(refusal.to_string(), "config: missing field `within_ms` at line 1 column 2");
    }
}
