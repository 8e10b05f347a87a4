//! A deterministic simulator: the real worker and tasks over a simulated log, disk and processor,
//! with faults. The same seed gives the same run. And the contract suites of the core's traits,
//! which the simulated and the real adapters must pass.

pub mod contract;
