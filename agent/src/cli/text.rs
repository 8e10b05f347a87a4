//! Text that others wrote, made fit for a terminal.

/// How much of a message that comes from an agent is shown.
pub(super) const MESSAGE_CHARS_MAX: usize = 4_096;

/// Whether a character steers a terminal or the direction of its text, instead of being seen.
pub(super) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// The beginning of a text, on one line; what would steer a terminal is escaped.
pub(super) fn clean(text: &str, chars_max: usize) -> String {
    let mut clean = String::new();
    let mut chars = text.chars();
    for c in chars.by_ref().take(chars_max) {
        match c {
            '\t' | '\n' | '\r' => clean.extend(c.escape_default()),
            c if steers(c) => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    if chars.next().is_some() {
        clean.push('…');
    }
    clean
}

/// A line of an answer: as [`clean`], whole.
pub(super) fn line(text: &str) -> String {
    clean(text, usize::MAX)
}

/// The beginning of a message of several lines, each but the first set in, so that none passes for
/// another message.
pub(super) fn message(text: &str) -> String {
    let mut shown: String = text.chars().take(MESSAGE_CHARS_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown.lines().map(line).collect::<Vec<_>>().join("\n    ")
}

/// A JSON text in which nothing steers a terminal; it says the same.
pub(super) fn json(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c) {
            // Beyond ASCII characters stand only within strings, where they may be escaped.
            number @ 0x7f..=0xffff if steers(c) => clean.push_str(&format!("\\u{number:04x}")),
            _ => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("a\x1b[2J\nb", 100), "a\\u{1b}[2J\\nb");
        assert_eq!(clean("größer", 4), "größ…");
        assert_eq!(
            line("swap \u{202e}tpek\u{9b}2J\u{2028}"),
            "swap \\u{202e}tpek\\u{9b}2J\\u{2028}"
        );
        assert_eq!(message("no\nok: kept\r"), "no\n    ok: kept\\r");
        let long = "x".repeat(3 * MESSAGE_CHARS_MAX);
        assert_eq!(message(&long).chars().count(), MESSAGE_CHARS_MAX + 1);
    }

    #[test]
    fn json_says_the_same_without_what_steers() {
        let value = serde_json::json!({ "ä\u{9b}\u{202e}": "\u{1b}\u{7f}\u{61c}😀" });
        let text = json(&value.to_string());
        assert!(!text.chars().any(steers), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
