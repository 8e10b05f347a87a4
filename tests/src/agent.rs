//! Real `sidestream` processes: started on a pipeline file, killed, frozen and restarted on the
//! same state.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use sidestream::crash_point::{self, CrashPoint};

use crate::{
    process::{Process, Signal},
    wait,
};

/// How long an agent may take to start, stop, or say something: machines that test are busy.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// An agent on a folder of its own: its pipeline file, its state, its log. Dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    name: String,
    folder: PathBuf,
    /// What to remove if the test ends before the agent does.
    root: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// An agent that isn't running yet. `pipeline` is its file's text, in which `{bootstrap}`,
    /// `{name}`, `{state}` and `{modules}` stand for the broker, the agent's name, its state
    /// directory and the folder of the example modules.
    pub fn new(root: &Path, name: &str, bootstrap: &str, pipeline: &str) -> Result<Self> {
        let folder = root.join(name);
        std::fs::create_dir_all(&folder)?;
        let root = root.to_owned();
        let agent = Self { name: name.to_owned(), folder, root, process: None };
        agent.write_pipeline(bootstrap, pipeline)?;
        Ok(agent)
    }

    /// Gives it this pipeline file, with the same placeholders; what runs goes on as it is.
    pub fn write_pipeline(&self, bootstrap: &str, pipeline: &str) -> Result<()> {
        let text = pipeline
            .replace("{bootstrap}", bootstrap)
            .replace("{name}", &self.name)
            .replace("{state}", &self.state_directory().display().to_string())
            .replace("{modules}", &modules().display().to_string());
        Ok(std::fs::write(self.pipeline_file(), text)?)
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its state is.
    #[must_use]
    pub fn state_directory(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// The file it runs.
    #[must_use]
    pub fn pipeline_file(&self) -> PathBuf {
        self.folder.join("pipeline.yaml")
    }

    /// Starts it on what is in its folder.
    pub fn start(&mut self) -> Result<()> {
        self.spawn(None)
    }

    /// Starts it so that it dies by itself when it passes a point for the `passes`th time.
    pub fn start_armed(&mut self, point: CrashPoint, passes: u64) -> Result<()> {
        self.spawn(Some(format!("{}:{passes}", point.name())))
    }

    fn spawn(&mut self, crash_at: Option<String>) -> Result<()> {
        ensure!(!self.is_running()?, "{} is running already", self.name);
        let mut command = Command::new(binary()?);
        command.arg("run").arg(self.pipeline_file());
        match crash_at {
            Some(switch) => command.env(crash_point::SWITCH, switch),
            None => command.env_remove(crash_point::SWITCH),
        };
        let log = self.folder.join("log");
        self.process = Some(Process::spawn(&self.name, &mut command, &log, Some(&self.root))?);
        Ok(())
    }

    /// Whether it is running now.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(match &mut self.process {
            Some(process) => process.ended()?.is_none(),
            None => false,
        })
    }

    /// Ends it without a word.
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()
    }

    /// Freezes it.
    pub fn stop(&mut self) -> Result<()> {
        self.process()?.signal(Signal::Stop)
    }

    /// Thaws it.
    pub fn resume(&mut self) -> Result<()> {
        self.process()?.signal(Signal::Continue)
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process()?.signal(Signal::Terminate)?;
        self.wait_for_end()
    }

    /// Waits until it ends by itself.
    pub fn wait_for_end(&mut self) -> Result<ExitStatus> {
        self.process()?.wait_for_end(PATIENCE)
    }

    /// Its process id since its last start.
    pub fn process_id(&self) -> Result<u32> {
        Ok(self.process.as_ref().context("it was never started")?.id())
    }

    /// The most memory that it had since its last start, in bytes.
    pub fn peak_memory_bytes(&self) -> Result<u64> {
        self.process.as_ref().context("it was never started")?.peak_memory_bytes()
    }

    /// What it logged since its last start.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// The last lines it logged since its last start.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.as_ref().map(Process::log_tail).unwrap_or_default()
    }

    /// Waits until a line that it logged since its last start contains `text`, and gives that
    /// line.
    pub fn wait_for_log(&self, text: &str) -> Result<String> {
        let line = || Ok(self.log().lines().find(|line| line.contains(text)).map(str::to_owned));
        wait::until(&format!("log line with `{text}`"), PATIENCE, line)
            .with_context(|| format!("{} said last:\n{}", self.name, self.log_tail()))
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("{} was never started", self.name))
    }
}

/// The binary of this build; `./dev test` brings it up to date before the tests run.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error))
}

fn build() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let beside = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let binary = beside.context("this program is in no folder")?.join("sidestream");
    ensure!(binary.is_file(), "no {}: `cargo build --workspace --bins` makes it", binary.display());
    Ok(binary)
}

/// The folder of the example modules.
#[must_use]
pub fn modules() -> PathBuf {
    root().join("guest-examples/modules")
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests is a folder of it").to_owned()
}
