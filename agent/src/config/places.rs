//! Where keys stand in a pipeline file.

use std::collections::BTreeMap;

use crate::config::problem::Position;

/// Where keys stand in the file, by their names, such as `limits.revoke_time_max`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(pub(crate) BTreeMap<String, Position>);

impl Places {
    /// Where a key stands, if the file has it.
    pub(crate) fn given(&self, key: &str) -> Option<Position> {
        self.0.get(key).copied()
    }

    /// Where a key stands; the beginning of the file for one that has its default.
    pub(crate) fn of(&self, key: &str) -> Position {
        self.given(key).unwrap_or(Position { line: 1, column: 1 })
    }
}
