//! Which letters were put back, in little memory.

use std::collections::BTreeMap;

use sidestream_core::record::Offset;

/// Offsets that one word holds.
const WORD_OFFSETS: i64 = 64;
/// The most words: about 40 bytes each, for 64 offsets that lie together.
const WORDS_MAX: usize = 1 << 20;

/// Offsets of many partitions; a bit for each, in words where there are some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    words: BTreeMap<(usize, i64), u64>,
    /// How many marks were found that no replay can have written.
    pub(super) foreign: u64,
}

impl Marks {
    /// Adds an offset of a partition, given by its number; says whether there was room.
    pub(super) fn insert(&mut self, partition: usize, offset: Offset) -> bool {
        let (word, bit) = place(offset);
        if self.words.len() >= WORDS_MAX && !self.words.contains_key(&(partition, word)) {
            return false;
        }
        *self.words.entry((partition, word)).or_default() |= bit;
        true
    }

    /// Whether the offset is one of them.
    pub(super) fn contains(&self, partition: usize, offset: Offset) -> bool {
        let (word, bit) = place(offset);
        self.words.get(&(partition, word)).is_some_and(|bits| bits & bit != 0)
    }
}

fn place(offset: Offset) -> (i64, u64) {
    (offset.div_euclid(WORD_OFFSETS), 1 << offset.rem_euclid(WORD_OFFSETS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_and_nothing_else() {
        let added = [0, 1, 63, 64, 1_000, 1_000_000_007];
        let mut marks = Marks::default();
        assert!(added.iter().all(|&offset| marks.insert(3, offset)));
        for offset in added.iter().flat_map(|&offset| [offset - 1, offset, offset + 1]) {
            assert_eq!(marks.contains(3, offset), added.contains(&offset), "{offset}");
            assert!(!marks.contains(2, offset));
        }
    }

    #[test]
    fn there_is_a_bound() {
        let mut marks = Marks::default();
        let mut offset = 0;
        while marks.insert(0, offset) {
            offset += WORD_OFFSETS;
        }
        assert_eq!(offset, WORD_OFFSETS * i64::try_from(WORDS_MAX).unwrap());
        assert!(marks.insert(0, 1), "where there is a word, there is room");
    }
}
