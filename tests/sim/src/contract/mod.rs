//! One suite for each trait of the core.

pub mod log;
pub mod processor;
pub mod store;
