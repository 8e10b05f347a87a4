//! Checks what Sidestream did, without any of its code.
//!
//! [`read`] takes what is in the topics and [`disk`] what is in the stores; [`check`] folds the
//! input by itself and compares. The checks are functions of what was read, so that they are
//! tested on data that is wrong in every way they look for. [`run`] puts both together, one
//! function for each kind of pipeline.

pub mod check;
pub mod disk;
pub mod read;
pub mod record;
pub mod run;
pub mod verdict;
