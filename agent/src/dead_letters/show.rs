//! One letter, whole.

use std::ops::ControlFlow;

use sidestream_core::record::Timestamp;

use super::{Content, DeadLetters, End, Error, Letter, Part, Place, Progress, Watch};

/// A letter, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The letter.
    pub letter: Letter,
    /// When it was put back last, and where, if it was.
    pub put_back: Option<PutBack>,
}

/// That a letter was put back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// When.
    pub time: Timestamp,
    /// The topic that it was put into.
    pub to: String,
}

impl DeadLetters {
    /// The letter at a place; nothing if there is none.
    pub fn show(&mut self, place: &Place, watch: Watch<'_>) -> Result<Option<Shown>, Error> {
        let wanted = |topic: &str, number| topic == place.topic && number == place.partition;
        let mut parts = self.parts(End::Committed, wanted)?;
        parts.retain(|part| part.range.contains(&place.offset));
        let Some(part) = parts.pop() else { return Ok(None) };
        let Some(letter) = self.letter_at(place)? else { return Ok(None) };
        // Marks stand behind their letters.
        let part = Part { range: place.offset + 1..part.range.end, ..part };
        let mut progress = Progress::new(watch, std::slice::from_ref(&part), 1);
        let mut put_back = None;
        self.walk(&[part], &mut progress, &mut |_, content| {
            if let Content::Mark(mark) = content
                && mark.letter == place.offset
            {
                put_back = Some(PutBack { time: mark.time, to: mark.to });
            }
            Ok(())
        })?;
        Ok(Some(Shown { letter, put_back }))
    }

    fn letter_at(&mut self, place: &Place) -> Result<Option<Letter>, Error> {
        let (at, range) = ((place.topic.as_str(), place.partition), place.offset..place.offset + 1);
        let mut found = None;
        self.reader.read(at, range, &mut |record| {
            if let Content::Letter(letter) = Content::of(record, &place.topic, place.partition) {
                found = Some(*letter);
            }
            ControlFlow::Break(())
        })?;
        Ok(found)
    }
}
