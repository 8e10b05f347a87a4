//! Counts the records of each key: each one gives the key with its new count, in decimal digits.
//! Records without a key don't count; a counter says how many there were.

use sidestream_sdk::{
    Context, Counter, Decimal, Outcome, Output, Record, Setup, SetupError, Store, Transform,
};

struct Count {
    counts: Store<Vec<u8>, Decimal<u64>>,
    output: Output<Vec<u8>, Decimal<u64>>,
    without_key: Counter,
}

impl Transform for Count {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        Ok(Self {
            counts: setup.store("counts")?.prefetched(),
            output: setup.output("counts")?,
            without_key: setup.counter("records_without_key"),
        })
    }

    fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
        let Some(key) = record.key_bytes() else {
            self.without_key.add(1);
            return Ok(());
        };
        let count = self.counts.get(key)?.unwrap_or_default();
        let count = Decimal(count.0 + 1);
        self.counts.put(key, &count)?;
        self.output.emit(key, &count)
    }
}

sidestream_sdk::transform!(Count);

#[cfg(test)]
mod tests {
    use sidestream_sdk::testing::{TestDriver, TestRecord};

    use super::*;

    #[test]
    fn each_key_is_counted_on_its_own() {
        let builder = TestDriver::builder().output("counts").store("counts");
        let mut driver = builder.start::<Count>().unwrap();
        let record = |key: &[u8]| TestRecord::new(key, "x").timestamp(5);
        driver.pipe([record(b"a"), record(b"\xff"), record(b"a")]).unwrap();
        driver.pipe([record(b"").without_key(), record(b""), record(b"a")]).unwrap();
        let outputs = driver.outputs();
        let counts: Vec<(&[u8], &str)> = outputs.iter().map(|o| (o.key(), o.value())).collect();
        assert_eq!(
            counts,
            [(&b"a"[..], "1"), (b"\xff", "1"), (b"a", "2"), (b"", "1"), (b"a", "3")]
        );
        assert!(outputs.iter().all(|output| output.timestamp == 5));
        assert_eq!(driver.counter("records_without_key"), 1);
    }
}
