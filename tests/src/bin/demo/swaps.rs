//! The demo's modules to swap in, and an operator who does it.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sidestream_tests::{agent, modules::Wat, operate, scene::Scene};

use crate::{PATIENCE, watch::Watch};

/// The transform that is swapped.
const TRANSFORM: &str = "count";

/// Another build of the module that runs: the same code, in a file with another digest.
pub(crate) fn new_build() -> Result<Vec<u8>> {
    /// A custom section, of which WebAssembly takes no notice: its name's length, and its name.
    const SECTION: &[u8] = b"\x0asidestream";
    let mut module = fs::read(agent::modules().join("count-words.wasm"))?;
    module.extend([0, u8::try_from(SECTION.len()).expect("it is short")]);
    module.extend(SECTION);
    Ok(module)
}

/// A module that initialises well, and traps at its first record.
pub(crate) fn trapping() -> Result<Vec<u8>> {
    Wat { process: "unreachable".to_owned(), ..Wat::default() }.component()
}

/// Swaps on one agent, looking on meanwhile; says what came of it and why.
pub(crate) fn swap(
    scene: &Scene,
    watch: &mut Watch,
    agent: usize,
    (file, module): (&Path, &[u8]),
) -> Result<(String, String)> {
    fs::write(file, module)?;
    let file = file.display().to_string();
    let state = scene.agents[agent].state_directory().display().to_string();
    let operator =
        thread::spawn(move || operate::run(&["swap", TRANSFORM, &file, "--state", &state]));
    watch.until("the swap has ended", PATIENCE, |_| operator.is_finished())?;
    watch.for_a_while(Duration::from_secs(1))?;
    let answer = operator.join().ok().context("the operator's thread")??;
    let told: Value = serde_json::from_str(&answer.text).with_context(|| answer.text.clone())?;
    let last = told["phases"].as_array().and_then(|phases| phases.last());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let outcome = text(&told["outcome"]);
    ensure!(!outcome.is_empty(), "{}", answer.text);
    Ok((outcome, last.map(|phase| text(&phase["message"])).unwrap_or_default()))
}
