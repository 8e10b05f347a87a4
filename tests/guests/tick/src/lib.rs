//! For tests of fencing: works without any input. Every 50 ms of the wall clock it counts one up in
//! the store `ticks` and emits the count, in decimal digits, under its partition as the key.

use std::time::Duration;

use sidestream_sdk::{
    Clock, Context, Decimal, Outcome, Output, Punctuation, Record, Setup, SetupError, Store,
    Transform,
};

struct Tick {
    partition: Decimal<i32>,
    ticks: Store<String, Decimal<u64>>,
    output: Output<Decimal<i32>, Decimal<u64>>,
}

impl Transform for Tick {
    fn init(setup: &mut Setup) -> Result<Self, SetupError> {
        setup.schedule(Duration::from_millis(50), Clock::WallClock)?;
        Ok(Self {
            partition: Decimal(setup.partition()),
            ticks: setup.store("ticks")?,
            output: setup.output("ticks")?,
        })
    }

    fn process(&mut self, _: &Record<'_>, _: &mut Context<'_>) -> Outcome {
        Ok(())
    }

    fn punctuate(&mut self, _: &Punctuation, _: &mut Context<'_>) -> Outcome {
        let count = Decimal(self.ticks.get("count")?.unwrap_or_default().0 + 1);
        self.ticks.put("count", &count)?;
        self.output.emit(&self.partition, &count)
    }
}

sidestream_sdk::transform!(Tick);

#[cfg(test)]
mod tests {
    use sidestream_sdk::testing::TestDriver;

    use super::*;

    #[test]
    fn it_counts_the_time_without_records() {
        let builder = TestDriver::builder().partition(3).output("ticks").store("ticks");
        let mut driver = builder.start::<Tick>().unwrap();
        for _ in 0..3 {
            driver.advance_wall_clock(Duration::from_millis(50)).unwrap();
        }
        let outputs = driver.outputs();
        let counts: Vec<(&str, &str)> = outputs.iter().map(|o| (o.key(), o.value())).collect();
        assert_eq!(counts, [("3", "1"), ("3", "2"), ("3", "3")]);
    }
}
