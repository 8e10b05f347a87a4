//! Which letters are meant.

use sidestream_core::record::Offset;

use super::{Letter, Place};

/// Which letters are meant: those that fit all that is set; all of them if nothing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those of this dead-letter topic.
    pub topic: Option<String>,
    /// Those of this transform.
    pub transform: Option<String>,
    /// Those with this word for what happened.
    pub exception: Option<String>,
    /// Those in partitions of this number.
    pub partition: Option<i32>,
    /// Those at this offset.
    pub offset: Option<Offset>,
    /// Those at one of these places; at any if there are none.
    pub places: Vec<Place>,
}

impl Selection {
    /// Whether letters in this partition may be meant.
    pub(super) fn reaches(&self, topic: &str, partition: i32) -> bool {
        let is_place = |place: &Place| place.topic == topic && place.partition == partition;
        fits(self.topic.as_deref(), Some(topic))
            && self.partition.is_none_or(|wanted| wanted == partition)
            && (self.places.is_empty() || self.places.iter().any(is_place))
    }

    /// Whether this letter is meant.
    pub(super) fn takes(&self, letter: &Letter) -> bool {
        self.reaches(&letter.place.topic, letter.place.partition)
            && self.offset.is_none_or(|wanted| wanted == letter.place.offset)
            && (self.places.is_empty() || self.places.contains(&letter.place))
            && fits(self.transform.as_deref(), letter.transform.as_deref())
            && fits(self.exception.as_deref(), Some(&letter.exception))
    }
}

fn fits(wanted: Option<&str>, found: Option<&str>) -> bool {
    wanted.is_none() || wanted == found
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The letter at `offset` of partition 1 of `bad`.
    pub(in super::super) fn letter(offset: Offset) -> Letter {
        let place = |topic: &str, offset| Place { topic: topic.to_owned(), partition: 1, offset };
        Letter {
            place: place("bad", offset),
            timestamp: 5,
            exception: "trap".to_owned(),
            message: "unreachable".to_owned(),
            transform: Some("count".to_owned()),
            task: Some("0_1".to_owned()),
            source: Some(place("words", 100 + offset)),
            handed_over_by: None,
            key: Some(b"key".to_vec()),
            value: None,
            headers: Vec::new(),
        }
    }

    #[test]
    fn all_that_is_set_has_to_fit() {
        let text = |text: &str| Some(text.to_owned());
        let all = Selection::default();
        for (takes, selection) in [
            (true, all.clone()),
            (true, Selection { transform: text("count"), ..all.clone() }),
            (false, Selection { transform: text("split"), ..all.clone() }),
            (true, Selection { exception: text("trap"), partition: Some(1), ..all.clone() }),
            (false, Selection { exception: text("trap"), partition: Some(2), ..all.clone() }),
            (true, Selection { offset: Some(7), ..all.clone() }),
            (false, Selection { offset: Some(8), ..all.clone() }),
            (false, Selection { topic: text("worse"), ..all.clone() }),
            (true, Selection { places: vec![letter(6).place, letter(7).place], ..all.clone() }),
            (false, Selection { places: vec![letter(6).place], ..all }),
        ] {
            assert_eq!(selection.takes(&letter(7)), takes, "{selection:?}");
        }
    }

    #[test]
    fn only_partitions_with_such_letters_are_read() {
        let place = letter(7).place;
        let selection = Selection { places: vec![place], ..Selection::default() };
        let reaches = [("bad", 1), ("bad", 2), ("worse", 1)].map(|(t, p)| selection.reaches(t, p));
        assert_eq!(reaches, [true, false, false]);
    }
}
