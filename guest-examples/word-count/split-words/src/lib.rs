//! The first stage of word count: a record for each word of a line, with the word as its key, so
//! that the repartition topic behind it brings all occurrences of a word to one task. A line that was
//! deleted, a null, has no words.

use sidestream_sdk::{Context, Outcome, Record};

fn split_words(record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
    let line: &str = record.value_or_null()?.unwrap_or_default();
    line.split_whitespace().try_for_each(|word| context.emit(word, ""))
}

sidestream_sdk::function!(split_words);

#[cfg(test)]
mod tests {
    use sidestream_sdk::testing::{TestDriver, TestRecord};

    #[test]
    fn a_line_becomes_its_words() {
        let mut driver = TestDriver::builder().output("words").start_function(super::split_words);
        let lines = ["  to be\tor not\nto be ", "", "größer"];
        driver.pipe(lines.map(|line| TestRecord::new("", line))).unwrap();
        let outputs = driver.outputs();
        let words: Vec<&str> = outputs.iter().map(|output| output.key()).collect();
        assert_eq!(words, ["to", "be", "or", "not", "to", "be", "größer"]);
    }

    #[test]
    fn a_line_that_was_deleted_has_no_words() {
        let mut driver = TestDriver::builder().output("words").start_function(super::split_words);
        let deleted = TestRecord::new("line", "").without_value();
        driver.pipe([deleted.without_key(), TestRecord::new("", "to be")]).unwrap();
        assert_eq!(driver.outputs().len(), 2);
    }

    #[test]
    fn a_line_that_is_no_text_is_rejected() {
        let mut driver = TestDriver::builder().output("words").start_function(super::split_words);
        let failure = driver.pipe([TestRecord::new("", b"\xff")]).unwrap_err();
        assert_eq!(failure.message, "value: not UTF-8 at byte 0");
    }
}
