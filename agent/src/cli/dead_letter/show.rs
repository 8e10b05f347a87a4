//! `sidestream dead-letter show`.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{arguments::LetterPlace, open, replay::nothing_at, text, watched};
use crate::{
    cli::{Exit, finding::Finding, output::Output},
    dead_letters::{PutBack, Shown},
};

pub(super) fn run(
    file: &Path,
    (letter, raw): (&LetterPlace, bool),
    output: &mut Output,
) -> Result<Exit, Vec<Finding>> {
    let mut letters = open(file)?;
    let place = letter.resolve(file, &letters)?;
    let shown = watched(file, |watch| letters.show(&place, watch))?;
    let Some(shown) = shown else { return Err(vec![nothing_at(&place)]) };
    match raw {
        true => output.bytes(shown.letter.value.as_deref().unwrap_or_default()),
        false => output.answer(&lines(&shown), &details(&shown)),
    }
    Ok(Exit::Ok)
}

fn lines(shown: &Shown) -> Vec<String> {
    let Shown { letter, put_back } = shown;
    let mut lines = vec![text::place(&letter.place), text::story(letter)];
    lines.push(match put_back {
        Some(PutBack { time, to }) => {
            format!("put back into {} at {}", text::clean(to, usize::MAX), text::time(*time))
        }
        None => "not put back".to_owned(),
    });
    for (name, value) in &letter.headers {
        let value = value.as_deref().map_or("(null)".to_owned(), text::one_line);
        lines.push(format!("header {}: {value}", text::one_line(name)));
    }
    lines.push(match &letter.key {
        Some(key) => format!("key: {}", text::one_line(key)),
        None => "no key".to_owned(),
    });
    lines.extend(match &letter.value {
        Some(value) => [vec!["value:".to_owned()], text::whole(value)].concat(),
        None => vec!["no value".to_owned()],
    });
    lines
}

fn details(shown: &Shown) -> Value {
    let Shown { letter, put_back } = shown;
    let mut told = text::letter_json(letter);
    text::insert_bytes(&mut told, "value", letter.value.as_deref());
    let headers = letter.headers.iter().map(|(name, value)| {
        let mut header = Map::new();
        header.insert("name".to_owned(), json!(String::from_utf8_lossy(name)));
        text::insert_bytes(&mut header, "value", value.as_deref());
        Value::Object(header)
    });
    told.insert("headers".to_owned(), headers.collect());
    let put_back = put_back.as_ref();
    let put_back =
        put_back.map(|PutBack { time, to }| json!({ "to": to, "time": text::time(*time) }));
    told.insert("put_back".to_owned(), json!(put_back));
    json!({ "letter": told })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_shown_whole() {
        let mut shown = Shown { letter: text::tests::letter(), put_back: None };
        let mut expected = [
            "bad:1:7",
            "trap in count (task 0_1), from words:1:107, 1970-01-01T00:00:05Z",
            "not put back",
            "header trace: 1",
            "header none: (null)",
            "key: k\\nk",
            "value:",
            "hex:00ff",
        ];
        assert_eq!(lines(&shown), expected);
        shown.put_back = Some(PutBack { time: 6_000, to: "words".to_owned() });
        expected[2] = "put back into words at 1970-01-01T00:00:06Z";
        assert_eq!(lines(&shown), expected);
        let details = &details(&shown)["letter"];
        assert_eq!(details["value_hex"], "00ff");
        assert_eq!(details["headers"][1]["value_hex"], Value::Null);
        assert_eq!(details["put_back"]["to"], "words");
    }
}
