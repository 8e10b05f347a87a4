//! Images and containers by podman, with storage and settings of their own, so that nothing of a
//! test is left on the machine and nothing of the machine's matters to a test.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::tools;

/// Set on machines that can't run containers: what needs them is left out.
pub const WITHOUT: &str = "SIDESTREAM_WITHOUT_CONTAINERS";

/// The most files and processes that a container may have, if the machine allows that many.
const LIMIT_MAX: u64 = 20_000;

/// What to do where nothing of this works.
const HINT: &str = "no container can run here. `./dev setup` installs what that takes; a machine that \
                    can't run any (user namespaces or cgroups are missing) leaves these tests out \
                    with SIDESTREAM_WITHOUT_CONTAINERS=1";

/// Waits for the end of its input, which the system closes when this process ends, however it
/// ends. Then it ends all containers and removes the folder `$1`. Without root's rights, what is in
/// it belongs to users of podman's namespace, and a process keeps that namespace.
const GUARD: &str = r#"
trap '' INT TERM HUP
read -r _
podman pod rm --all --force --time 0
podman rm --all --force --time 0
if [ "$(id -u)" != 0 ]; then
  podman unshare rm -rf "$1/data"
  kill "$(cat "$1/tmp/pause.pid")"
fi
rm -rf "$1"
"#;

/// A place for images and containers. Dropping it ends and removes all of them.
#[derive(Debug)]
pub struct Containers {
    folder: PathBuf,
    guard: Child,
}

impl Containers {
    /// A place without any; none if the machine is said to have no containers.
    pub fn new() -> Result<Option<Self>> {
        if std::env::var_os(WITHOUT).is_some_and(|value| value == "1") {
            return Ok(None);
        }
        let folder = tempfile::Builder::new().prefix("sidestream-pod-").tempdir()?;
        let place = folder.path();
        fs::create_dir(place.join("runtime"))?;
        fs::set_permissions(place.join("runtime"), fs::Permissions::from_mode(0o700))?;
        fs::write(place.join("containers.conf"), settings(place)?)?;
        let path = |name| place.join(name).display().to_string();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{}\"\nrunroot = \"{}\"\n",
            path("images"),
            path("run"),
        );
        fs::write(place.join("storage.conf"), storage)?;
        let mut guard = command_in(place, Path::new("sh"));
        guard.args(["-c", GUARD, "guard"]).arg(place);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = guard.spawn().context("can't start a guard")?;
        // From here on the guard removes it.
        let containers = Self { folder: folder.keep(), guard };
        containers.podman(&["info"]).context(HINT)?;
        Ok(Some(containers))
    }

    /// A folder for files that go with the containers.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A program whose podman works in this place.
    #[must_use]
    pub fn command(&self, program: &Path) -> Command {
        command_in(&self.folder, program)
    }

    /// Runs podman, and gives what it wrote to standard output.
    pub fn podman(&self, arguments: &[&str]) -> Result<String> {
        output(self.command(Path::new("podman")).args(arguments))
    }

    /// Runs a container to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let always = ["run", "--rm", "--network", "host", "--read-only"];
        self.podman(&[&always, arguments].concat()).context(HINT)
    }

    /// Makes an image of a root file system in the cache.
    pub fn import(&self, root: &str, image: &str) -> Result<()> {
        let tar = tools::cached(&format!("images/{root}.tar"))?;
        self.podman(&["import", "--quiet", &tar.display().to_string(), image]).map(drop)
    }

    /// What a container wrote to its standard output and standard error.
    pub fn log(&self, container: &str) -> Result<String> {
        let output = self.command(Path::new("podman")).args(["logs", container]).output()?;
        Ok(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    }

    /// Whether a container's memory can be limited: not without root's rights under cgroups v1.
    pub fn limits_memory(&self) -> Result<bool> {
        let controllers = self.podman(&["info", "--format", "{{.Host.CgroupControllers}}"])?;
        Ok(controllers.contains("memory"))
    }

    /// A file of `/proc` about a container's first process, as its user namespace sees it.
    pub fn process_file(&self, container: &str, name: &str) -> Result<String> {
        let id = self.podman(&["inspect", container, "--format", "{{.State.Pid}}"])?;
        let path = format!("/proc/{}/{name}", id.trim());
        // Without root's rights, such processes are another user's.
        match self.podman(&["info", "--format", "{{.Host.Security.Rootless}}"])?.trim() {
            "true" => self.podman(&["unshare", "cat", &path]),
            _ => Ok(fs::read_to_string(path)?),
        }
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // It removes the folder; there is nobody to hear that it could not.
        drop(self.guard.wait());
    }
}

/// Runs a command to its end, and gives what it wrote to standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("can't run {command:?}"))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn command_in(folder: &Path, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("CONTAINERS_CONF", folder.join("containers.conf"));
    command.env("CONTAINERS_STORAGE_CONF", folder.join("storage.conf"));
    // Without root's rights, podman goes by these rather than by its files.
    command
        .env("XDG_DATA_HOME", folder.join("data"))
        .env("XDG_RUNTIME_DIR", folder.join("runtime"));
    command
}

/// Podman's settings: nothing that a machine without systemd, or within another container, lacks.
fn settings(folder: &Path) -> Result<String> {
    let mut ulimits = Vec::new();
    let limits = fs::read_to_string("/proc/self/limits")?;
    for (name, row) in [("nofile", "Max open files"), ("nproc", "Max processes")] {
        let limit = hard_limit(&limits, row).unwrap_or(u64::MAX).min(LIMIT_MAX);
        ulimits.push(format!("\"{name}={limit}:{limit}\""));
    }
    let mut text = String::new();
    writeln!(text, "[containers]\ndefault_ulimits = [{}]", ulimits.join(", "))?;
    writeln!(text, "log_driver = \"k8s-file\"\n[engine]\nruntime = \"runc\"")?;
    writeln!(text, "events_logger = \"file\"\nlock_type = \"file\"")?;
    // Its other folders go with that of the images: set here, the process that cleans up after a
    // container would look elsewhere, and podman wait 20 s for it.
    writeln!(text, "tmp_dir = \"{}\"", folder.join("tmp").display())?;
    Ok(text)
}

/// The third column of a row of `/proc/<process>/limits`; none if it is unlimited.
fn hard_limit(limits: &str, row: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(row))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_limits_are_read() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 4096                 files\n\
                      Max processes             unlimited            unlimited            processes\n";
        assert_eq!(hard_limit(limits, "Max open files"), Some(4096));
        assert_eq!(hard_limit(limits, "Max processes"), None);
    }
}
