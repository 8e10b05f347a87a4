//! Text from guests, made safe to show.

/// `text`, cut to at most `bytes_max` bytes, with control characters and ends of lines replaced by
/// spaces and characters that turn the direction of writing left out.
pub(super) fn clean(text: &str, bytes_max: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(bytes_max));
    for character in text.trim_end().chars() {
        let character = match character {
            '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{61c}' => continue,
            '\u{2028}' | '\u{2029}' => ' ',
            c if c.is_control() => ' ',
            c => c,
        };
        if clean.len() + character.len_utf8() > bytes_max {
            break;
        }
        clean.push(character);
    }
    clean
}

/// A metric's name: letters, digits and `_`, at most 64, not beginning with a digit. Anything else
/// becomes `_`; `None` for an empty name.
pub(super) fn metric_name(name: &str) -> Option<String> {
    let clean: String =
        name.chars().take(64).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    match clean.chars().next()? {
        first if first.is_ascii_digit() => Some(format!("_{clean}")),
        _ => Some(clean),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters_and_cleaned() {
        assert_eq!(clean("a\u{1b}[31mb\r\nc\n", 100), "a [31mb  c");
        assert_eq!(clean("ab\u{202e}cd\u{200e}\u{200f}\u{61c}e", 100), "abcde");
        assert_eq!(clean("a\u{2028}b\u{2029}c", 100), "a b c");
        assert_eq!(clean("ä\u{20ac}", 4), "ä");
        assert_eq!(clean("", 4), "");
    }

    #[test]
    fn metric_names_are_made_to_fit() {
        assert_eq!(metric_name("words_seen"), Some("words_seen".to_owned()));
        assert_eq!(metric_name("9 lives{a=\"b\"}"), Some("_9_lives_a__b__".to_owned()));
        assert_eq!(metric_name(""), None);
        assert_eq!(metric_name(&"x".repeat(1_000)), Some("x".repeat(64)));
    }
}
