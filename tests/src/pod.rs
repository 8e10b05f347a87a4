//! The pod of the manifests in `deploy`, started by podman.

use std::{collections::BTreeMap, fmt::Write as _, path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    agent::{self, PATIENCE},
    broker,
    containers::{Containers, output},
    operate::http,
    tools, wait,
};

/// The pod's name.
pub const POD: &str = "word-count-0";

/// The agent's container.
pub const AGENT: &str = "word-count-0-sidestream";

/// The container of the application beside it.
pub const APPLICATION: &str = "word-count-0-application";

/// What a kubelet does to volumes for `fsGroup`: they belong to root and the group, which may write.
const PREPARE_VOLUMES: &str = "\
import os
for folder, mode in (('/volumes/state', 0o2775), ('/volumes/control', 0o2777)):
    os.chown(folder, 0, 65532)
    os.chmod(folder, mode)
";

/// A file or folder of `deploy`.
#[must_use]
pub fn deploy(path: &str) -> PathBuf {
    agent::root().join("deploy").join(path)
}

/// A Python that has what `deploy/pod.py` needs.
pub fn python() -> Result<Command> {
    Ok(Command::new(tools::cached("tools/kubernetes-validate/bin/python")?))
}

/// The pod of the manifests, in a place for containers.
#[derive(Debug)]
pub struct Pod<'a> {
    containers: &'a Containers,
    /// Where the agent answers over HTTP.
    address: String,
    description: String,
}

impl<'a> Pod<'a> {
    /// Describes the pod of the manifests, and prepares its volumes.
    pub fn new(containers: &'a Containers, bootstrap: &str) -> Result<Self> {
        let address = format!("127.0.0.1:{}", broker::free_port()?);
        let mut describe = python()?;
        describe
            .arg(deploy("pod.py"))
            .args(["--env", &format!("KAFKA_BOOTSTRAP_SERVERS={bootstrap}")])
            .args(["--env", &format!("HTTP_LISTEN={address}")]);
        if !containers.limits_memory()? {
            describe.arg("--without-limits");
        }
        let modules = ["split-words", "count-words"];
        describe.args(modules.map(|name| agent::modules().join(format!("{name}.wasm"))));
        let description = output(&mut describe)?;
        let file = containers.folder().join("pod.yaml");
        std::fs::write(&file, description)?;
        containers.run(&[
            "--user=0",
            "--volume=state-word-count-0:/volumes/state",
            "--volume=control-word-count-0:/volumes/control",
            "--entrypoint=python3",
            "word-count-application:0.1.0",
            "-c",
            PREPARE_VOLUMES,
        ])?;
        Ok(Self { containers, address, description: file.display().to_string() })
    }

    /// Starts it.
    pub fn play(&self) -> Result<()> {
        self.containers.podman(&["play", "kube", &self.description]).map(drop)
    }

    /// Ends it as a kubelet would, and checks that both ended well: the agent drained.
    pub fn stop(&self, grace_seconds: u64) -> Result<()> {
        let grace = grace_seconds.to_string();
        let ended = self.ended()?;
        self.containers.podman(&["pod", "stop", "--time", &grace, POD])?;
        for container in [AGENT, APPLICATION] {
            let state = ["inspect", container, "--format", "{{.State.Status}} {{.State.ExitCode}}"];
            let state = self.containers.podman(&state)?;
            ensure!(state.trim() == "exited 0", "{container}: {state}\n{}", self.told()?);
        }
        let drained = self.ended()?;
        ensure!(drained == ended.map(|count| count + 1), "{drained:?}\n{}", self.told()?);
        Ok(())
    }

    /// How often the agent's worker drained, the agent stopped, and the application stopped.
    fn ended(&self) -> Result<[usize; 3]> {
        let agent = self.containers.log(AGENT)?;
        let count = |text: &str, what: &str| text.matches(what).count();
        Ok([
            count(&agent, "\"message\":\"drained\""),
            count(&agent, "\"message\":\"stopped\""),
            count(&self.containers.log(APPLICATION)?, "{\"stopped\": true}"),
        ])
    }

    /// What a probe gets: the status code.
    pub fn probe(&self, path: &str) -> Result<u16> {
        Ok(http(&self.address, "GET", path)?.0)
    }

    /// Waits until a probe succeeds.
    pub fn wait_until(&self, path: &str) -> Result<()> {
        let answers = || Ok(self.probe(path)? == 200);
        wait::until_true(path, PATIENCE, answers).with_context(|| self.told().unwrap_or_default())
    }

    /// The counts that the application printed, by word, in the order it did.
    pub fn printed(&self) -> Result<BTreeMap<String, Vec<u64>>> {
        let mut printed: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for line in self.containers.log(APPLICATION)?.lines() {
            let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
            if let (Some(word), Some(count)) = (line["word"].as_str(), line["count"].as_u64()) {
                printed.entry(word.to_owned()).or_default().push(count);
            }
        }
        Ok(printed)
    }

    /// What both said last.
    pub fn told(&self) -> Result<String> {
        let mut told = String::new();
        for container in [AGENT, APPLICATION] {
            let log = self.containers.log(container)?;
            let lines: Vec<_> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(15)..].join("\n");
            writeln!(told, "{container} said last:\n{last}")?;
        }
        Ok(told)
    }

    /// Ends and removes it.
    pub fn down(&self) -> Result<()> {
        self.containers.podman(&["play", "kube", "--down", &self.description])?;
        let left = self.containers.podman(&["ps", "--all", "--quiet"])?;
        ensure!(left.trim().is_empty(), "containers are left: {left}");
        Ok(())
    }
}
