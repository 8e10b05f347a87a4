//! Makes Rust of the control service's description, without `protoc`.

#![allow(clippy::print_stdout, reason = "this is how a build script speaks to cargo")]

use std::{env, error::Error, fs, path::PathBuf};

/// The description, below the folder of all descriptions.
const CONTROL: &str = "sidestream/control/v1/control.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.open_file(CONTROL)?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("control.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .type_attribute(".", "#[derive(serde::Serialize)]")
        .field_attribute("Status.state", "#[serde(serialize_with = \"names::agent_state\")]")
        .field_attribute("Task.state", "#[serde(serialize_with = \"names::task_state\")]")
        .field_attribute("Retried.state", "#[serde(serialize_with = \"names::task_state\")]")
        .field_attribute("SwapUpdate.phase", "#[serde(serialize_with = \"names::swap_phase\")]")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
