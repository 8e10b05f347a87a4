//! What `wit/transform.wit` says, as Rust. Lists cross as slices of the core's columns on the way
//! in, and as vectors that become columns on the way out: each is copied once.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated; the WIT is its documentation"
)]

wasmtime::component::bindgen!({
    world: "columnar",
    path: "../wit",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
});
