//! What the tests of the whole share: real Kafka brokers, real agents, load, and a proxy.
//!
//! - [`broker`]: Apache Kafka on loopback, killed and restarted as a test likes.
//! - [`agent`]: `sidestream` processes, killed, frozen and restarted likewise.
//! - [`scene`]: a pipeline at work, with all of these; [`chaos`]: one under kills;
//!   [`swap_chaos`]: one whose module is swapped meanwhile.
//! - [`proxy`]: delivers the end of a transaction late.
//! - [`load`]: records at a steady pace, from a seed.
//! - [`checks`]: what any broker has to do.
//! - [`containers`], [`pod`], [`tools`]: images, the pod of `deploy`, and what `./dev setup` fetches.
//! - [`topics`], [`follow`], [`members`]: topics, what is in them, and who has them.
//! - [`word_count`], [`examples`], [`ticks`], [`at_least_once`], [`policies`]: pipelines, their load, and what it has to come to.
//! - [`modules`]: modules written by hand. [`versions`]: one module, well-behaved or not.
//! - [`process`], [`wait`], [`random`]: what these stand on.

pub mod agent;
pub mod at_least_once;
pub mod broker;
pub mod chaos;
pub mod checks;
pub mod containers;
pub mod examples;
pub mod follow;
pub mod load;
pub mod members;
pub mod modules;
pub mod operate;
pub mod pod;
pub mod policies;
pub mod process;
pub mod proxy;
pub mod random;
pub mod scene;
pub mod swap_chaos;
pub mod ticks;
pub mod tools;
pub mod topics;
pub mod versions;
pub mod wait;
pub mod word_count;
