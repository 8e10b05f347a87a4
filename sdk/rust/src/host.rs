//! The agent as a transform sees it.

use crate::bindings::sidestream::transform::{
    state::{Entries, KeyRange},
    telemetry::Level,
    types::{BytesColumn, Writes},
};

/// What the agent offers to a module; the functions are those of the WIT package.
pub(crate) trait Host {
    fn get(&self, store: u32, key: &[u8]) -> Option<Vec<u8>>;
    fn get_many(&self, store: u32, keys: &BytesColumn) -> BytesColumn;
    fn put_many(&self, writes: &Writes);
    fn scan(&self, store: u32, range: &KeyRange) -> Entries;
    fn scan_prefix(&self, store: u32, prefix: &[u8], range: &KeyRange) -> Entries;
    fn level_min(&self) -> Level;
    fn log(&self, level: Level, message: &str);
    fn count(&self, name: &str, by: u64);
    fn observe(&self, name: &str, value: f64);
}

/// The agent around a WASM module.
#[cfg(target_arch = "wasm32")]
pub(crate) struct Agent;

#[cfg(target_arch = "wasm32")]
mod agent {
    use super::{Agent, BytesColumn, Entries, Host, KeyRange, Level, Writes};
    use crate::bindings::sidestream::transform::{state, telemetry};

    impl Host for Agent {
        fn get(&self, store: u32, key: &[u8]) -> Option<Vec<u8>> {
            state::get(store, key)
        }

        fn get_many(&self, store: u32, keys: &BytesColumn) -> BytesColumn {
            state::get_many(store, keys)
        }

        fn put_many(&self, writes: &Writes) {
            state::put_many(writes);
        }

        fn scan(&self, store: u32, range: &KeyRange) -> Entries {
            state::scan(store, range)
        }

        fn scan_prefix(&self, store: u32, prefix: &[u8], range: &KeyRange) -> Entries {
            state::scan_prefix(store, prefix, range)
        }

        fn level_min(&self) -> Level {
            telemetry::level_min()
        }

        fn log(&self, level: Level, message: &str) {
            telemetry::log(level, message);
        }

        fn count(&self, name: &str, by: u64) {
            telemetry::count(name, by);
        }

        fn observe(&self, name: &str, value: f64) {
            telemetry::observe(name, value);
        }
    }
}
