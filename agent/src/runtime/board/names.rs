//! What people call the versions that workers know by number alone.

use std::{collections::VecDeque, sync::Mutex};

use sidestream_core::topology::Version;

use crate::{control::short_digest, lock::Held};

/// How many are remembered: those of swaps that workers may have something to say of still. There is
/// one at a time.
const NAMES_MAX: usize = 32;

/// The modules behind the last versions.
#[derive(Default)]
pub(crate) struct Names(Mutex<VecDeque<(Version, String)>>);

impl Names {
    /// A version is made of the module of this name and digest.
    pub(crate) fn note(&self, version: Version, module: &str, digest: &str) {
        let digest = short_digest(digest);
        let mut names = self.0.held();
        names.truncate(NAMES_MAX - 1);
        names.push_front((version, format!("{module} ({digest})")));
    }

    /// The module file and digest of a version, as `sidestream status` calls it.
    pub(crate) fn of(&self, version: Version) -> String {
        let names = self.0.held();
        let known = names.iter().find(|(of, _)| *of == version);
        known.map_or_else(|| format!("version {version}"), |(_, name)| name.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_number_of_versions_is_known_by_module_and_digest() {
        let names = Names::default();
        for version in 1..=40 {
            names.note(version, "count.wasm", &"3f".repeat(32));
        }
        assert_eq!(names.of(40), "count.wasm (3f3f3f3f3f3f)");
        assert_eq!(names.of(9), "count.wasm (3f3f3f3f3f3f)");
        assert_eq!(names.of(8), "version 8");
    }
}
