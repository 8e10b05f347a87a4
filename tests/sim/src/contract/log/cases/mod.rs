//! The cases, by what they are about.

mod changelogs;
mod group;
mod input;
mod transactions;

pub use self::{changelogs::*, group::*, input::*, transactions::*};
