//! What letters there are, and how many.

use std::collections::BTreeMap;

use super::{Content, DeadLetters, End, Error, Letter, Progress, Selection, Watch};

/// The most kinds of letters that are counted each for itself.
const KINDS_MAX: usize = 1_000;
/// What transform and exception of all further kinds are called.
const OTHER_KINDS: &str = "(others)";
/// How much of a key is listed.
const KEY_BYTES_MAX: usize = 256;

/// Letters, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The first ones, by topic, partition and offset.
    pub letters: Vec<Listed>,
    /// How many more there are.
    pub more: u64,
    /// How many there are of each kind.
    pub counts: Vec<Count>,
    /// How many records say that a letter was put back, and were not written by a replay; they don't
    /// count.
    pub foreign_marks: u64,
}

/// A letter of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The letter, without its value and headers, and with the beginning of its key.
    pub letter: Letter,
    /// Whether it was put back.
    pub is_put_back: bool,
}

/// How many letters there are of one transform and exception.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The transform; empty if letters do not say.
    pub transform: String,
    /// The exception.
    pub exception: String,
    /// How many were not put back yet.
    pub waiting: u64,
    /// How many were put back.
    pub put_back: u64,
}

impl DeadLetters {
    /// Lists what is committed now: the first `limit` of the letters that are meant, without those
    /// that were put back if `waiting_only`, and counts all that are meant. Ends at the ends of the
    /// topics as they are at its start.
    pub fn list(
        &mut self,
        selection: &Selection,
        (limit, waiting_only): (usize, bool),
        watch: Watch<'_>,
    ) -> Result<Listing, Error> {
        let parts = self.parts(End::Committed, |topic, number| selection.reaches(topic, number))?;
        let mut progress = Progress::new(watch, &parts, 2);
        let marks = self.marks(&parts, &mut progress)?;
        let (mut listing, mut counts) = (Listing::default(), Counts::default());
        self.walk(&parts, &mut progress, &mut |part, content| {
            let Content::Letter(letter) = content else { return Ok(()) };
            if !selection.takes(&letter) {
                return Ok(());
            }
            let is_put_back = marks.contains(part, letter.place.offset);
            counts.add(&letter, is_put_back);
            match () {
                () if is_put_back && waiting_only => {}
                () if listing.letters.len() < limit => {
                    listing.letters.push(Listed { letter: shortened(*letter), is_put_back });
                }
                () => listing.more += 1,
            }
            Ok(())
        })?;
        listing.counts = counts.0.into_values().collect();
        listing.foreign_marks = marks.foreign;
        Ok(listing)
    }
}

#[derive(Default)]
struct Counts(BTreeMap<(String, String), Count>);

impl Counts {
    fn add(&mut self, letter: &Letter, is_put_back: bool) {
        let mut kind = (letter.transform.clone().unwrap_or_default(), letter.exception.clone());
        if self.0.len() >= KINDS_MAX && !self.0.contains_key(&kind) {
            kind = (OTHER_KINDS.to_owned(), OTHER_KINDS.to_owned());
        }
        let count = self.0.entry(kind).or_insert_with_key(|(transform, exception)| Count {
            transform: transform.clone(),
            exception: exception.clone(),
            ..Count::default()
        });
        match is_put_back {
            true => count.put_back += 1,
            false => count.waiting += 1,
        }
    }
}

fn shortened(mut letter: Letter) -> Letter {
    (letter.value, letter.headers) = (None, Vec::new());
    if let Some(key) = &mut letter.key {
        key.truncate(KEY_BYTES_MAX);
    }
    letter
}

#[cfg(test)]
mod tests {
    use super::{super::selection::tests::letter, *};

    #[test]
    fn kinds_are_counted_each_for_itself_up_to_a_bound() {
        let mut counts = Counts::default();
        for number in 0..2 * KINDS_MAX {
            let exception = format!("kind-{number}");
            counts.add(&Letter { exception, ..letter(0) }, number % 2 == 0);
        }
        counts.add(&Letter { exception: "kind-0".to_owned(), ..letter(0) }, false);
        assert_eq!(counts.0.len(), KINDS_MAX + 1);
        let count = |transform: &str, exception: &str| {
            let count = &counts.0[&(transform.to_owned(), exception.to_owned())];
            (count.waiting, count.put_back)
        };
        assert_eq!(count("count", "kind-0"), (1, 1));
        assert_eq!(count(OTHER_KINDS, OTHER_KINDS), (500, 500));
    }
}
