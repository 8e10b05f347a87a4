//! Reads the values of a pipeline file: references replaced, scalars as what they are. Keeps what is
//! wrong with them, and where they stand.

use std::path::PathBuf;

use crate::config::{
    interpolate::Sources,
    places::Places,
    problem::{Position, Problem},
    scalar::Field,
    setting::{Name, Setting, Text},
    source::Source,
};

/// Reads values, keeps what is wrong with them.
pub(crate) struct Reader<'a> {
    pub(crate) sources: &'a Sources,
    pub(crate) source: Source<'a>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) places: Places,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(sources: &'a Sources, source: Source<'a>) -> Self {
        Self { sources, source, problems: Vec::new(), places: Places::default() }
    }

    /// Reads a scalar.
    pub(crate) fn required<T: Setting>(&mut self, key: &str, field: &Field<T>) -> Option<T::Value> {
        self.places.0.insert(key.to_owned(), field.at);
        let text = self.text(key, &field.text, field.at)?;
        match T::parse(&text) {
            Ok(value) => Some(value),
            Err(expected) => {
                let message = format!("`{key}` can't be `{}`", field.text);
                self.problems.push(Problem::new(field.at, message, expected));
                None
            }
        }
    }

    /// What `read` reads, unless it refuses a part of it: then nothing may be concluded from the default
    /// that stands in its place.
    pub(crate) fn whole<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> Option<T> {
        let before = self.problems.len();
        let value = read(self);
        (self.problems.len() == before).then_some(value)
    }

    /// Replaces the references in a text.
    pub(crate) fn text(&mut self, key: &str, text: &str, at: Position) -> Option<String> {
        match self.sources.interpolate(text) {
            Ok(text) => Some(text),
            Err(missing) => {
                let message = format!("`{key}`: {}", missing.message);
                self.problems.push(Problem::new(at, message, missing.remedy));
                None
            }
        }
    }

    /// Reads a path; a relative one starts at the file's folder.
    pub(crate) fn path(&mut self, key: &str, field: &Field<Text>) -> Option<PathBuf> {
        self.required(key, field).map(|path| self.absolute(&path))
    }

    /// A path that starts at the file's folder if it is relative.
    pub(crate) fn absolute(&self, path: &str) -> PathBuf {
        self.sources.folder.join(path)
    }

    /// Reads a name that stands alone.
    pub(crate) fn name(&mut self, key: &str, written: &str, at: Position) -> Option<String> {
        let text = self.text(key, written, at)?;
        match Name::parse(&text) {
            Ok(name) => Some(name),
            Err(expected) => {
                let message = format!("`{key}` can't be `{written}`");
                self.problems.push(Problem::new(at, message, expected));
                None
            }
        }
    }
}
