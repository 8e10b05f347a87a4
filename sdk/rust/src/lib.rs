//! Transforms for Sidestream in Rust.
//!
//! A transform takes records in and gives records out, and may keep state; the Sidestream agent
//! runs it as a WASM module beside your application, each record exactly once. The smallest one is
//! a function:
//!
//! ```
//! use sidestream_sdk::{Context, Outcome, Record};
//!
//! fn shout(record: &Record<'_>, context: &mut Context<'_>) -> Outcome {
//!     let text: &str = record.value()?;
//!     context.forward_with(record, &text.to_uppercase())
//! }
//!
//! sidestream_sdk::function!(shout);
//! # fn main() {}
//! ```
//!
//! One that needs stores, named outputs, configuration or punctuations implements [`Transform`]:
//!
//! ```
//! use sidestream_sdk::{Context, Outcome, Output, Record, Setup, SetupError, Store, Transform};
//!
//! struct Count {
//!     counts: Store<String, u64>,
//!     output: Output<String, u64>,
//! }
//!
//! impl Transform for Count {
//!     fn init(setup: &mut Setup) -> Result<Self, SetupError> {
//!         let counts = setup.store("counts")?.prefetched();
//!         Ok(Self { counts, output: setup.output("counts")? })
//!     }
//!
//!     fn process(&mut self, record: &Record<'_>, _: &mut Context<'_>) -> Outcome {
//!         let key: &str = record.key()?;
//!         let count = self.counts.get(key)?.unwrap_or(0) + 1;
//!         self.counts.put(key, &count)?;
//!         self.output.emit(key, &count)
//!     }
//! }
//!
//! sidestream_sdk::transform!(Count);
//!
//! use sidestream_sdk::testing::{TestDriver, TestRecord};
//!
//! let driver = TestDriver::builder().output("counts").store("counts");
//! let mut driver = driver.start::<Count>().unwrap();
//! driver.pipe([TestRecord::new("a", "x"), TestRecord::new("a", "y")]).unwrap();
//! let counts: Vec<u64> = driver.outputs().iter().map(|record| record.value()).collect();
//! assert_eq!(counts, [1, 2]);
//! ```
//!
//! Such a crate has `crate-type = ["cdylib", "rlib"]`. Built with
//! `cargo build --release --target wasm32-wasip2` (after `rustup target add wasm32-wasip2`), it is a
//! component, which is what the agent takes; its logic is tested natively with [`testing`].
//!
//! # Time and chance
//!
//! Time stands still within a call. Random numbers (of a module that is built for `wasm32-wasip2`,
//! through the `rand` or `uuid` crates for example) follow from the application, the transform, the
//! module, the partition and the record that the call begins with: a record that is processed again
//! gets the same ones, on whatever machine, and no other record gets them. So identifiers that a call
//! makes of them are unique, but anybody who knows all that can tell them: they are no secrets and no
//! keys. What [`Transform::init`] draws is the same for every instance of a task, of which there are
//! many over time: draw in a call, not there.
//!
//! Records come in batches, in columns. The modules below in reading order: [`module`] takes a
//! batch apart, [`Record`] looks at its columns in place, [`Output`] and [`Store`] collect what is
//! emitted and written in columns again, and all of that leaves together.

pub mod codec;
mod column;
mod emits;
mod failure;
mod host;
pub mod module;
mod output;
mod overlay;
mod record;
mod scan;
mod setup;
mod store;
mod task;
pub mod telemetry;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod transform;

#[doc(hidden)]
#[rustfmt::skip]
#[allow(unsafe_code, reason = "generated: the canonical ABI of the component model")]
#[allow(
    warnings,
    missing_docs,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated"
)]
pub mod bindings;

pub use codec::{Codec, CodecError, Decimal, Decode, Encode, Json};
pub use failure::{Failure, FailureKind, Outcome};
pub use output::{Message, Output};
pub use record::{Headers, Input, Record, TimestampType};
pub use scan::Scan;
pub use setup::{Clock, Schedule, Setup, SetupError};
pub use store::Store;
pub use telemetry::{Counter, Histogram, Level};
pub use transform::{Context, Punctuation, Transform};
