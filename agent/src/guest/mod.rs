//! User code, in wasmtime.
