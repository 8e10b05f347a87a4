//! For tests of delivery: each record comes out once, stamped with headers that say where it was
//! (`input`, `partition`, `offset`), and with the count of its key so far, in decimal digits, as
//! its value. A record without a key counts as one with an empty key. The store is `stamps`.

use sidestream_sdk::{
    Context, Decimal, Outcome, Output, Record, Setup, SetupError, Store, Transform,
};

struct Stamp {
    counts: Store<Vec<u8>, Decimal<u64>>,
    outputs: Vec<Output<Vec<u8>, Decimal<u64>>>,
}

impl Transform for Stamp {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        let outputs = setup.outputs().iter().map(|name| setup.output(name));
        Ok(Self {
            outputs: outputs.collect::<Result<_, _>>()?,
            counts: setup.store("stamps")?.prefetched(),
        })
    }

    fn process(&mut self, record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
        let key = record.key_bytes().unwrap_or_default();
        let count = Decimal(self.counts.get(key)?.unwrap_or_default().0 + 1);
        self.counts.put(key, &count)?;
        for output in &self.outputs {
            let mut message = output.message().value(&count);
            if let Some(key) = record.key_bytes() {
                message = message.key(key);
            }
            message
                .header("input", context.input_name(record))
                .header("partition", &Decimal(record.partition()))
                .header("offset", &Decimal(record.offset()))
                .send()?;
        }
        Ok(())
    }
}

sidestream_sdk::transform!(Stamp);

#[cfg(test)]
mod tests {
    use sidestream_sdk::testing::{TestDriver, TestRecord};

    use super::*;

    #[test]
    fn each_record_says_where_it_was_and_how_many_there_were() {
        let builder = TestDriver::builder().input("a").input("b").output("out").store("stamps");
        let mut driver = builder.partition(4).start::<Stamp>().unwrap();
        let record = TestRecord::new("k", "x").header("own", "gone").timestamp(9);
        driver.pipe([record.clone().offset(30), record.clone().input("b")]).unwrap();
        driver.pipe([record.without_key()]).unwrap();
        let outputs = driver.outputs();
        let seen: Vec<(&str, &str, &str, &str)> = outputs
            .iter()
            .map(|o| (o.header("input"), o.header("partition"), o.header("offset"), o.value()))
            .collect();
        assert_eq!(seen, [("a", "4", "30", "1"), ("b", "4", "0", "2"), ("a", "4", "31", "1")]);
        assert_eq!((outputs[0].headers.len(), outputs[0].timestamp), (3, 9));
        assert_eq!(outputs[2].key, None);
    }
}
