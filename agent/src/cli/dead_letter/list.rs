//! `sidestream dead-letter list`.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    arguments::{Choice, HowToList},
    open, text, watched,
};
use crate::{
    cli::{Exit, finding::Finding, output::Output},
    dead_letters::{Count, Listed, Listing},
};

/// How much of a message a line shows.
const MESSAGE_CHARS_MAX: usize = 200;

pub(super) fn run(
    file: &Path,
    choice: &Choice,
    list: &HowToList,
    output: &mut Output,
) -> Result<Exit, Vec<Finding>> {
    let mut letters = open(file)?;
    let limit = usize::try_from(list.limit).unwrap_or(usize::MAX);
    let selection = choice.selection();
    let listing = watched(file, |watch| letters.list(&selection, (limit, list.waiting), watch))?;
    output.answer(&lines(&listing), &details(&listing));
    Ok(Exit::Ok)
}

fn lines(listing: &Listing) -> Vec<String> {
    let mut lines = Vec::new();
    for Listed { letter, is_put_back } in &listing.letters {
        let state = if *is_put_back { "put back" } else { "waiting" };
        let key = letter
            .key
            .as_deref()
            .map_or("no key".to_owned(), |key| format!("key {}", text::one_line(key)));
        lines.push(format!(
            "{}  {state}, {}, {key}",
            text::place(&letter.place),
            text::story(letter)
        ));
        if !letter.message.is_empty() {
            lines.push(format!("    {}", text::clean(&letter.message, MESSAGE_CHARS_MAX)));
        }
    }
    if listing.more > 0 {
        lines.push(format!("and {} more; `--limit` shows more of them", listing.more));
    }
    if listing.counts.is_empty() {
        lines.push("no dead letters".to_owned());
    }
    lines.extend(text::foreign_marks(listing.foreign_marks));
    for Count { transform, exception, waiting, put_back } in &listing.counts {
        let (exception, place) = (text::clean(exception, MESSAGE_CHARS_MAX), place(transform));
        lines.push(format!("{exception} in {place}: {waiting} waiting, {put_back} put back"));
    }
    lines
}

fn place(transform: &str) -> String {
    match transform {
        "" => "an unnamed transform".to_owned(),
        name => text::clean(name, MESSAGE_CHARS_MAX),
    }
}

fn details(listing: &Listing) -> Value {
    let letter = |listed: &Listed| {
        let state = if listed.is_put_back { "put_back" } else { "waiting" };
        let mut letter = text::letter_json(&listed.letter);
        letter.insert("state".to_owned(), json!(state));
        Value::Object(letter)
    };
    let count = |count: &Count| {
        json!({
            "transform": count.transform,
            "exception": count.exception,
            "waiting": count.waiting,
            "put_back": count.put_back,
        })
    };
    json!({
        "letters": listing.letters.iter().map(letter).collect::<Vec<_>>(),
        "more": listing.more,
        "counts": listing.counts.iter().map(count).collect::<Vec<_>>(),
        "foreign_marks": listing.foreign_marks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_counts_and_what_is_left_out_are_told() {
        let letter = text::tests::letter();
        let count = Count {
            transform: "count".to_owned(),
            exception: "trap".to_owned(),
            waiting: 3,
            put_back: 1,
        };
        let listing = Listing {
            letters: vec![
                Listed { letter: letter.clone(), is_put_back: false },
                Listed { letter, is_put_back: true },
            ],
            more: 2,
            counts: vec![count],
            foreign_marks: 0,
        };
        let what = "trap in count (task 0_1), from words:1:107, 1970-01-01T00:00:05Z, key k\\nk";
        assert_eq!(
            lines(&listing),
            [
                &format!("bad:1:7  waiting, {what}"),
                "    unreachable\\u{1b}[2J",
                &format!("bad:1:7  put back, {what}"),
                "    unreachable\\u{1b}[2J",
                "and 2 more; `--limit` shows more of them",
                "trap in count: 3 waiting, 1 put back",
            ]
        );
        let details = details(&listing);
        assert_eq!(details["letters"][1]["state"], "put_back");
        assert_eq!(details["letters"][0]["source"]["offset"], 107);
        assert_eq!(details["counts"][0]["waiting"], 3);
        assert_eq!(lines(&Listing::default()), ["no dead letters"]);
    }
}
