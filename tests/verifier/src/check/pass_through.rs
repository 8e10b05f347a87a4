//! A pipeline that copies.

use super::sequence::differences;
use crate::{
    record::Topic,
    verdict::{Kind, Verdict},
};

/// Compares each partition of the output with the same one of the input, position by position:
/// key, value, headers and timestamp.
pub fn check_pass_through(input: &Topic, output: &Topic, verdict: &mut Verdict) {
    verdict.compared("output records", output.len());
    if input.partitions.len() != output.partitions.len() {
        let (input, output) = (input.partitions.len(), output.partitions.len());
        verdict.add(Kind::Unsettled, || {
            format!("the input has {input} partitions and the output {output}: not comparable")
        });
        return;
    }
    for (expected, actual) in input.partitions.iter().zip(&output.partitions) {
        for difference in differences(expected, actual, |a, b| a.says_the_same(b)) {
            verdict.add(difference.kind, || {
                let expected = difference.expected.map(|i| &expected[i]);
                let actual = difference.actual.map(|i| &actual[i]);
                let expected = expected.map(|r| format!("{} ({r})", input.place(r)));
                let actual = actual.map(|r| format!("{} ({r})", output.place(r)));
                match (expected, actual) {
                    (Some(expected), None) => format!("{expected} is not in {}", output.name),
                    (Some(expected), Some(actual)) => format!("{actual}, which is {expected}"),
                    (None, actual) => format!("{} is no input record", actual.unwrap_or_default()),
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::testing::{record, topic},
        record::Record,
    };

    fn records() -> Vec<Record> {
        (0..20).map(|n| record(&format!("key{}", n % 3), &format!("value{n}"))).collect()
    }

    fn verdict(change: impl Fn(&mut Vec<Record>)) -> Verdict {
        let mut output = records();
        change(&mut output);
        let mut verdict = Verdict::default();
        let input = topic("in", vec![records(), records()]);
        check_pass_through(&input, &topic("out", vec![records(), output]), &mut verdict);
        verdict
    }

    #[test]
    fn a_copy_is_good() {
        assert!(verdict(|_| {}).is_good());
    }

    #[test]
    fn every_way_to_tamper_is_found() {
        let lost = verdict(|output| drop(output.remove(5)));
        assert!(lost.has(Kind::Lost), "{lost}");
        let doubled = verdict(|output| output.insert(7, output[5].clone()));
        assert!(doubled.has(Kind::Doubled), "{doubled}");
        let reordered = verdict(|output| output.swap(5, 6));
        assert!(reordered.has(Kind::Reordered), "{reordered}");
        let invented = verdict(|output| output.push(record("x", "y")));
        assert!(invented.has(Kind::Invented), "{invented}");
        for change in [
            |record: &mut Record| record.key = None,
            |record: &mut Record| record.value = Some(b"other".to_vec()),
            |record: &mut Record| record.timestamp += 1,
            |record: &mut Record| record.headers.push(("more".into(), None)),
        ] {
            assert!(!verdict(|output| change(&mut output[5])).is_good());
        }
    }

    #[test]
    fn other_partitions_are_not_comparable() {
        let mut verdict = Verdict::default();
        check_pass_through(&topic("in", vec![vec![]]), &topic("out", vec![]), &mut verdict);
        assert!(verdict.has(Kind::Unsettled));
    }
}
