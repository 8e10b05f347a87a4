//! Compiles a module in a process of its own, within bounds of memory and time.
//!
//! That process is this program, told to compile: it reads the module from its standard input, and
//! writes the code, or what is wrong with the module, to its standard output. So a module that takes
//! too much blames only itself: its process is ended, and neither the agent nor the next module has
//! any of it.

use std::{
    io::{self, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, mpsc},
    thread::Builder,
    time::Duration,
};

use wasmtime::{Engine, InstanceAllocationStrategy};

use super::{
    Config,
    bounds::keep_to,
    cache::Compiled,
    config::{COMPILE_VERB, Compile},
    engine::settings,
};
use crate::lock::Held;

/// The exit codes of the process that compiles, beside 0 for code on its standard output.
const INVALID: u8 = 21;
const NO_MEMORY: u8 = 22;
const FAILED: u8 = 23;

/// The most threads that compile.
const THREADS_MAX: usize = 4;
/// What is kept of the process's standard error.
const SAID_BYTES_MAX: u64 = 16 << 10;
/// What of that a message has.
const SAID_CHARACTERS_MAX: usize = 300;

/// How a program says that it gets no memory: Rust's standard library, and the system.
const NO_MEMORY_SAID: [&str; 3] = ["memory allocation of", "Cannot allocate memory", "code: 12"];

/// Why there is no code.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// It took longer than it may.
    TooLong,
    /// It took more memory than it may.
    NoMemory,
    /// The system ended it, which it does for want of memory.
    Killed,
    /// The module is not as it should be.
    Invalid(String),
    /// The compiler failed, in this way: a fault of its own.
    Crashed(String),
    /// It could not be started.
    NotStarted(String),
}

/// Compiles one module at a time: what the bound of memory allows is there once. Each has all of its
/// time from when its turn comes.
#[derive(Debug, Default)]
pub(super) struct Compiler {
    turn: Mutex<()>,
}

impl Compiler {
    /// Compiles `module` for `engine`, as `config` says.
    pub(super) fn compile(
        &self,
        config: &Config,
        engine: &Engine,
        module: &[u8],
    ) -> Result<Compiled, Failed> {
        let code = match &config.compile {
            Compile::InThisProcess => engine
                .precompile_component(module)
                .map_err(|error| Failed::Invalid(format!("{error:#}")))?,
            Compile::InProcess(program) => {
                let _turn = self.turn.held();
                Process::start(program, config)?.compile(module, config.compile_time_max)?
            }
        };
        Ok(Compiled::by_compiler(code))
    }
}

/// The process that compiles. Dropping it ends it.
struct Process(Child);

impl Process {
    fn start(program: &Path, config: &Config) -> Result<Self, Failed> {
        // It has no business with what the agent's environment holds.
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(std::env::var_os("LD_LIBRARY_PATH").map(|at| ("LD_LIBRARY_PATH", at)));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.div_ceil(2).min(THREADS_MAX);
        let child = command
            .env("RAYON_NUM_THREADS", threads.to_string())
            // Without memory, a backtrace never ends.
            .env("RUST_BACKTRACE", "0")
            .args([COMPILE_VERB, &config.compile_memory_bytes_max.to_string()])
            // An interruption from the terminal is for the agent, which ends it then.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let child = child.map_err(|error| {
            let program = program.display();
            Failed::NotStarted(format!("can't start a process of `{program}` to compile: {error}"))
        })?;
        Ok(Self(child))
    }

    fn compile(mut self, module: &[u8], time_max: Duration) -> Result<Vec<u8>, Failed> {
        let no_thread =
            |error: io::Error| Failed::NotStarted(format!("can't start a thread: {error}"));
        let thread = |name: &str| Builder::new().name(name.to_owned());
        let pipes = (self.0.stdin.take(), self.0.stdout.take(), self.0.stderr.take());
        let (Some(mut input), Some(mut output), Some(errors)) = pipes else {
            return Err(Failed::NotStarted("the process that compiles has no pipes".to_owned()));
        };
        std::thread::scope(move |scope| {
            // Dropped before the threads are waited for: then they end.
            let mut process = self;
            let (ended, has_ended) = mpsc::channel();
            // If the process ends before it has read all, that shows in how it ended.
            let feed = move || drop(input.write_all(module));
            thread("compile-input").spawn_scoped(scope, feed).map_err(no_thread)?;
            let said = thread("compile-errors")
                .spawn_scoped(scope, move || read_start(errors))
                .map_err(no_thread)?;
            let read = move || {
                let mut code = Vec::new();
                let told = output.read_to_end(&mut code).map(|_| code);
                // Nobody listens any more if it took too long.
                drop(ended.send(told));
            };
            thread("compile-output").spawn_scoped(scope, read).map_err(no_thread)?;
            let Ok(code) = has_ended.recv_timeout(time_max) else { return Err(Failed::TooLong) };
            let status = process.0.wait();
            let said = said.join().unwrap_or_default();
            match (code, status) {
                (Ok(code), Ok(status)) => judge(status, code, &said),
                (Err(error), _) | (_, Err(error)) => Err(Failed::Crashed(error.to_string())),
            }
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already can't be killed, which is as good.
        drop((self.0.kill(), self.0.wait()));
    }
}

/// What came of it.
fn judge(status: ExitStatus, output: Vec<u8>, said: &str) -> Result<Vec<u8>, Failed> {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    match (code, status.signal()) {
        (Some(0), _) => Ok(output),
        (Some(INVALID), _) => Err(Failed::Invalid(String::from_utf8_lossy(&output).into_owned())),
        (Some(NO_MEMORY), _) => Err(Failed::NoMemory),
        _ if NO_MEMORY_SAID.iter().any(|words| said.contains(words)) => Err(Failed::NoMemory),
        (_, Some(libc::SIGKILL)) => Err(Failed::Killed),
        _ => {
            let said: Vec<&str> = said.split_whitespace().collect();
            let said: String = said.join(" ").chars().take(SAID_CHARACTERS_MAX).collect();
            Err(Failed::Crashed(format!("{status}; it said: {said}")))
        }
    }
}

/// Reads the beginning, and past the rest.
fn read_start(mut from: impl Read) -> String {
    let mut start = Vec::new();
    let read = from.by_ref().take(SAID_BYTES_MAX).read_to_end(&mut start);
    drop(read.and_then(|_| io::copy(&mut from, &mut io::sink()).map(drop)));
    String::from_utf8_lossy(&start).into_owned()
}

/// What the process does that is told to compile: bounds itself, reads a module, writes its code.
/// Returns its exit code.
pub fn compile_in_this_process(memory_bytes_max: u64) -> u8 {
    let mut module = Vec::new();
    let read = || -> io::Result<()> {
        keep_to(memory_bytes_max)?;
        io::stdin().lock().read_to_end(&mut module).map(drop)
    }();
    let (exit, output) = match read {
        Ok(()) => match compile(&module) {
            Ok(code) => (0, code),
            Err(error) => {
                let message = format!("{error:#}");
                let no_memory = NO_MEMORY_SAID.iter().any(|words| message.contains(words));
                (if no_memory { NO_MEMORY } else { INVALID }, message.into_bytes())
            }
        },
        Err(error) => {
            drop(writeln!(io::stderr(), "{error}"));
            return FAILED;
        }
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(&output).and_then(|()| stdout.flush()) {
        Ok(()) => exit,
        Err(_) => FAILED, // Nobody is there to hear why.
    }
}

fn compile(module: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let mut settings = settings(&Config::default());
    // Nothing is instantiated here; memory for instances would only be in the way.
    settings.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&settings)?.precompile_component(module)
}
