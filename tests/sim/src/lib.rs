//! A deterministic simulator: the real worker and tasks over a simulated log, disk and processor,
//! with faults. The same seed gives the same run. And the contract suites of the core's traits,
//! which the simulated and the real adapters must pass.

#[allow(clippy::unwrap_used, clippy::panic, reason = "a suite panics where a contract is broken")]
pub mod contract;

mod age;
mod change;
mod check;
mod cluster;
#[cfg(test)]
mod contracts;
mod crew;
mod disk;
mod environment;
mod growth;
mod guest;
mod harm;
mod log;
mod loss;
mod odd;
mod pipeline;
mod places;
mod plan;
mod poison;
pub mod prng;
mod refusals;
mod run;
mod slow;
mod swap;
mod time;
mod trace;
mod world;

pub use self::run::{Outcome, Violation, run};
