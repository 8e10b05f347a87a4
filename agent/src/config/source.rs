//! The text of a pipeline file, line by line.

use crate::config::problem::Position;

/// A pipeline file as it was written.
#[derive(Clone, Copy)]
pub(crate) struct Source<'a>(pub(crate) &'a str);

impl<'a> Source<'a> {
    /// A line, from one; empty if there is none.
    pub(crate) fn line(self, number: u64) -> &'a str {
        let index = usize::try_from(number).unwrap_or(0).wrapping_sub(1);
        self.0.lines().nth(index).unwrap_or_default()
    }

    /// What stands before a place in its line, and from there on.
    pub(crate) fn around(self, at: Position) -> (&'a str, &'a str) {
        let line = self.line(at.line);
        let column = usize::try_from(at.column).unwrap_or(1).saturating_sub(1);
        let index = line.char_indices().nth(column).map_or(line.len(), |(index, _)| index);
        line.split_at(index)
    }

    /// The place of the value, where a key with a value in its line is at `at`.
    pub(crate) fn value_at(self, at: Position) -> Position {
        let (_, text) = self.around(at);
        let is_key =
            |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        match text.split_once(": ").filter(|(key, _)| is_key(key)) {
            Some((key, _)) => Position { column: at.column + key.len() as u64 + 2, ..at },
            None => at,
        }
    }

    /// The last line before this one that says something, with its number.
    pub(crate) fn line_before(self, number: u64) -> Option<(u64, &'a str)> {
        let lines = (1..number).rev().map(|number| (number, self.line(number)));
        lines.into_iter().find(|(_, line)| !is_empty(line))
    }

    /// Whether the scalar that begins there has neither quotes nor a tag, and is no block of text.
    pub(crate) fn is_plain(self, at: Position) -> bool {
        let (before, value) = self.around(at);
        if value.starts_with(['\'', '"']) || before.contains('!') {
            return false;
        }
        let above = self.line_before(at.line).map_or("", |(_, line)| line);
        let above = above.trim_end().trim_end_matches(|c: char| matches!(c, '+' | '-' | '0'..='9'));
        !(before.trim().is_empty() && above.ends_with(['|', '>']))
    }
}

/// Whether a line says nothing.
pub(crate) fn is_empty(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// How many columns a line is indented.
pub(crate) fn indentation(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}
