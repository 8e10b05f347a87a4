//! Passes records on as they came: key, value, headers and timestamp.

use sidestream_sdk::{Context, Outcome, Record};

fn pass_through(record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
    context.forward(record);
    Ok(())
}

sidestream_sdk::function!(pass_through);

#[cfg(test)]
mod tests {
    use sidestream_sdk::testing::{TestDriver, TestRecord};

    #[test]
    fn records_go_on_as_they_came() {
        let mut driver = TestDriver::builder().output("out").start_function(super::pass_through);
        let record = TestRecord::new("key", "value").timestamp(7).header("name", "x");
        driver.pipe([record.clone(), record.without_key().without_value()]).unwrap();
        let outputs = driver.outputs();
        assert_eq!((outputs[0].key::<&str>(), outputs[0].value::<&str>()), ("key", "value"));
        assert_eq!((&outputs[1].key, &outputs[1].value), (&None, &None));
        for output in outputs {
            assert_eq!((output.timestamp, output.header("name")), (7, "x"));
        }
    }
}
