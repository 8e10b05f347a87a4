//! Tests of transforms without WASM, agent or broker: a [`TestDriver`] runs one as the agent
//! would, batch by batch, with stores in memory and clocks that you set.

mod builder;
mod driver;
mod emitted;
mod host;
mod record;

pub use builder::TestDriverBuilder;
pub use driver::{TestDriver, TestFailure};
pub use record::{TestOutput, TestRecord};
