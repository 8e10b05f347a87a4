//! One suite for each trait of the core.

pub mod processor;
