//! The second stage of word count: each occurrence of a word gives the word's new count, in
//! decimal digits.

use sidestream_sdk::{
    Context, Decimal, Outcome, Output, Record, Setup, SetupError, Store, Transform,
};

struct CountWords {
    counts: Store<String, Decimal<u64>>,
    output: Output<String, Decimal<u64>>,
}

impl Transform for CountWords {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        let counts = setup.store("counts")?.prefetched();
        Ok(Self { counts, output: setup.output("counts")? })
    }

    fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
        let word: &str = record.key()?;
        let count = self.counts.get(word)?.unwrap_or_default();
        let count = Decimal(count.0 + 1);
        self.counts.put(word, &count)?;
        self.output.emit(word, &count)
    }
}

sidestream_sdk::transform!(CountWords);

#[cfg(test)]
mod tests {
    use sidestream_sdk::testing::{TestDriver, TestRecord};

    use super::*;

    #[test]
    fn each_word_is_counted_on_its_own_and_across_batches() {
        let builder = TestDriver::builder().output("counts").store("counts");
        let mut driver = builder.start::<CountWords>().unwrap();
        driver.pipe(["to", "be", "to"].map(|word| TestRecord::new(word, ""))).unwrap();
        driver.pipe([TestRecord::new("to", "")]).unwrap();
        let outputs = driver.outputs();
        let counts: Vec<(&str, &str)> = outputs.iter().map(|o| (o.key(), o.value())).collect();
        assert_eq!(counts, [("to", "1"), ("be", "1"), ("to", "2"), ("to", "3")]);
        assert_eq!(driver.get("counts", "to"), Some(Decimal(3u64)));
        assert_eq!(driver.state_calls(), 2);
    }
}
