//! Modules that mean harm: each is refused or stopped within its limit, with its own error, and
//! the process and its other instances go on.

mod answers;
mod harness;
mod random;
mod refused;
mod spent;
mod stopped;
mod wasi;
