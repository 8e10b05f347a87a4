//! Compares what must be there, in order, with what is there.

use crate::verdict::Kind;

/// How far around the expected place something is looked for.
const WINDOW: usize = 1_000;

/// Something that is not as expected: `actual` is none where something is missing.
pub(super) struct Difference {
    pub(super) kind: Kind,
    pub(super) expected: Option<usize>,
    pub(super) actual: Option<usize>,
}

/// Compares two sequences. There is a difference exactly if they are not the same; what kind it is
/// said to be is what is likely.
pub(super) fn differences<T, U>(
    expected: &[T],
    actual: &[U],
    same: impl Fn(&T, &U) -> bool,
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut missing: Vec<usize> = Vec::new();
    let mut next = 0;
    for (place, item) in actual.iter().enumerate() {
        if expected.get(next).is_some_and(|expected| same(expected, item)) {
            next += 1;
            continue;
        }
        let differs = |kind, expected| Difference { kind, expected, actual: Some(place) };
        let is_item = |index: &usize| same(&expected[*index], item);
        let recent = missing.len().saturating_sub(WINDOW)..missing.len();
        if let Some(late) = recent.rev().find(|&late| is_item(&missing[late])) {
            found.push(differs(Kind::Reordered, Some(missing.remove(late))));
        } else if let Some(again) = (next.saturating_sub(WINDOW)..next).rev().find(is_item) {
            found.push(differs(Kind::Doubled, Some(again)));
        } else if let Some(ahead) = (next..expected.len().min(next + WINDOW)).find(is_item) {
            missing.extend(next..ahead);
            next = ahead + 1;
        } else {
            found.push(differs(Kind::Invented, None));
        }
    }
    missing.extend(next..expected.len());
    let lost = |index| Difference { kind: Kind::Lost, expected: Some(index), actual: None };
    found.extend(missing.into_iter().map(lost));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(expected: &str, actual: &str, kinds: &[Kind]) {
        let (expected, actual) = (expected.as_bytes(), actual.as_bytes());
        let found = differences(expected, actual, |a, b| a == b);
        assert_eq!(found.iter().map(|d| d.kind).collect::<Vec<_>>(), kinds);
    }

    #[test]
    fn each_kind_of_difference_is_found() {
        check("abc", "abc", &[]);
        check("", "", &[]);
        check("abc", "ac", &[Kind::Lost]);
        check("abc", "ab", &[Kind::Lost]);
        check("abc", "", &[Kind::Lost; 3]);
        check("abc", "abbc", &[Kind::Doubled]);
        check("abc", "abca", &[Kind::Doubled]);
        check("abc", "acb", &[Kind::Reordered]);
        check("abc", "axbc", &[Kind::Invented]);
        check("abc", "axc", &[Kind::Invented, Kind::Lost]);
    }

    #[test]
    fn whatever_is_changed_is_found() {
        let expected: Vec<u32> = (0..30).map(|n| n * 7 % 5).collect();
        for from in 0..30 {
            for to in 0..30 {
                let mut actual = expected.clone();
                let moved = actual.remove(from);
                let found =
                    |actual: &[u32]| !differences(&expected, actual, |a, b| a == b).is_empty();
                assert!(found(&actual));
                actual.insert(to, moved);
                assert_eq!(found(&actual), actual != expected);
                actual.push(1);
                assert!(found(&actual));
            }
        }
    }
}
