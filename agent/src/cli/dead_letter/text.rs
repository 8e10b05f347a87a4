//! Letters as text and as JSON.

use serde_json::{Map, Value, json};

pub(super) use crate::cli::text::clean;
use crate::{
    cli::text::steers,
    dead_letters::{Letter, Place},
};

/// What marks bytes that are written in hexadecimal.
const HEX: &str = "hex:";
/// How much of a name or word that a header says is shown.
const WORD_CHARS_MAX: usize = 100;

/// A place as the command line takes it.
pub(super) fn place(place: &Place) -> String {
    format!("{}:{}:{}", clean(&place.topic, WORD_CHARS_MAX), place.partition, place.offset)
}

/// What happened to a letter, where, and when its record is from.
pub(super) fn story(letter: &Letter) -> String {
    let word = |text: &str| clean(text, WORD_CHARS_MAX);
    let mut story = word(&letter.exception);
    if let Some(transform) = &letter.transform {
        story.push_str(&format!(" in {}", word(transform)));
    }
    if let Some(task) = &letter.task {
        story.push_str(&format!(" (task {})", word(task)));
    }
    let source = letter.source.as_ref().map(place);
    let from = match (&letter.handed_over_by, source) {
        (None, Some(source)) => format!("from {source}"),
        (None, None) => "caused by a punctuation".to_owned(),
        (Some(by), Some(source)) => {
            format!("handed over by {} because of {source}", word(by))
        }
        (Some(by), None) => format!("handed over by {} in a punctuation", word(by)),
    };
    format!("{story}, {from}, {}", time(letter.timestamp))
}

/// A time for people and scripts.
pub(super) fn time(milliseconds: i64) -> String {
    match jiff::Timestamp::from_millisecond(milliseconds) {
        Ok(time) if milliseconds >= 0 => time.to_string(),
        _ => "no time".to_owned(),
    }
}

/// A letter without its value and headers.
pub(super) fn letter_json(letter: &Letter) -> Map<String, Value> {
    let source = letter.source.as_ref().map(|source| {
        json!({ "topic": source.topic, "partition": source.partition, "offset": source.offset })
    });
    let told = json!({
        "place": place(&letter.place),
        "topic": letter.place.topic,
        "partition": letter.place.partition,
        "offset": letter.place.offset,
        "timestamp_ms": letter.timestamp,
        "time": (letter.timestamp >= 0).then(|| time(letter.timestamp)),
        "transform": letter.transform,
        "task": letter.task,
        "source": source,
        "handed_over_by": letter.handed_over_by,
        "exception": letter.exception,
        "message": letter.message,
    });
    let Value::Object(mut told) = told else { return Map::new() };
    insert_bytes(&mut told, "key", letter.key.as_deref());
    told
}

/// Puts bytes into an object: as hexadecimal, and as text where they are some; both null for null.
pub(super) fn insert_bytes(object: &mut Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    let text = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    object.insert(name.to_owned(), json!(text));
    object.insert(format!("{name}_hex"), json!(bytes.map(hex)));
}

/// Bytes on one line: as text if they are some, else in hexadecimal.
pub(super) fn one_line(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => clean(text, usize::MAX),
        Err(_) => format!("{HEX}{}", hex(bytes)),
    }
}

/// That so many records are not what they say, if there are any.
pub(super) fn foreign_marks(count: u64) -> Option<String> {
    (count > 0).then(|| {
        format!(
            "{count} records say that a letter was put back which does not stand before them: no replay \
             wrote them, and they don't count; let the agents alone write to the dead-letter topic"
        )
    })
}

/// Bytes on many lines: as they are if they are text that a terminal can show, else in hexadecimal.
pub(super) fn whole(bytes: &[u8]) -> Vec<String> {
    let shows = |c: char| !steers(c) || matches!(c, '\n' | '\t');
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(shows) => {
            text.lines().map(|line| line.replace('\t', "    ")).collect()
        }
        Ok(_) | Err(_) => vec![format!("{HEX}{}", hex(bytes))],
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn letter() -> Letter {
        let place = |topic: &str, offset| Place { topic: topic.to_owned(), partition: 1, offset };
        Letter {
            place: place("bad", 7),
            timestamp: 5_000,
            exception: "trap".to_owned(),
            message: "unreachable\x1b[2J".to_owned(),
            transform: Some("count".to_owned()),
            task: Some("0_1".to_owned()),
            source: Some(place("words", 107)),
            handed_over_by: None,
            key: Some(b"k\nk".to_vec()),
            value: Some(vec![0, 255]),
            headers: vec![(b"trace".to_vec(), Some(b"1".to_vec())), (b"none".to_vec(), None)],
        }
    }

    #[test]
    fn a_story_says_where_the_record_came_from() {
        let by = Some("split".to_owned());
        let handed_over = Letter { handed_over_by: by.clone(), ..letter() };
        let both = Letter { handed_over_by: by, source: None, ..letter() };
        let caused = Letter { source: None, timestamp: -1, ..letter() };
        for (letter, expected) in [
            (letter(), "from words:1:107, 1970-01-01T00:00:05Z"),
            (handed_over, "handed over by split because of words:1:107, 1970-01-01T00:00:05Z"),
            (both, "handed over by split in a punctuation, 1970-01-01T00:00:05Z"),
            (caused, "caused by a punctuation, no time"),
        ] {
            assert_eq!(story(&letter), format!("trap in count (task 0_1), {expected}"));
        }
        let foreign = Letter { transform: None, task: None, ..letter() };
        assert!(story(&foreign).starts_with("trap, from words"), "as of Kafka Streams");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(one_line(b"a\tb"), "a\\tb");
        assert_eq!(one_line(b"\xff\x00"), "hex:ff00");
        assert_eq!(whole(b"a\n\tb"), ["a", "    b"]);
        assert_eq!(whole(b"a\x1bb"), ["hex:611b62"]);
        assert_eq!(whole("a\u{202e}".as_bytes()), ["hex:61e280ae"]);
        assert_eq!(whole(b"\xff"), ["hex:ff"]);
        assert_eq!((time(0), time(-1)), ("1970-01-01T00:00:00Z".to_owned(), "no time".to_owned()));
    }

    #[test]
    fn bytes_are_told_as_text_and_in_hexadecimal() {
        let mut object = Map::new();
        insert_bytes(&mut object, "text", Some(b"ab"));
        insert_bytes(&mut object, "bytes", Some(b"\xff"));
        insert_bytes(&mut object, "nothing", None);
        let expected = json!({
            "text": "ab", "text_hex": "6162",
            "bytes": null, "bytes_hex": "ff",
            "nothing": null, "nothing_hex": null,
        });
        assert_eq!(Value::Object(object), expected);
    }
}
