//! What all guests of a process share: the engine, its clock, the budget, the compiler.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use wasmtime::component::{Component, HasSelf, Linker};

use super::{
    Config, Digest, Error, Module, World,
    bindings::{Columnar, ColumnarPre},
    cache::Cache,
    compiler::{Compiler, Failed},
    host::Host,
    imports,
    limits::Budget,
    module::{self, Code},
    wasi,
    weight::{self, Weight},
};

/// How often deadlines are looked at. A call may run this much longer than it may.
const TICK: Duration = Duration::from_millis(10);

/// How a component begins: `\0asm`, version 13 of layer 1. A core module has 1 of layer 0.
const MAGIC: [u8; 4] = *b"\0asm";
const COMPONENT: [u8; 4] = [0x0d, 0, 1, 0];
const CORE_MODULE: [u8; 4] = [1, 0, 0, 0];

/// Makes modules of files. One for a process; cheap to clone.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// What an engine and its modules and instances share.
pub(super) struct Shared {
    pub(super) engine: wasmtime::Engine,
    pub(super) config: Arc<Config>,
    pub(super) budget: Arc<Budget>,
    linker: Linker<Host>,
    cache: Option<Cache>,
    compiler: Compiler,
    _ticker: Ticker,
}

/// What to do if no thread or process can be started.
const MORE_THREADS: &str = "let the agent have more threads and processes, and start its own program \
    once more (`ulimit -u`, or `pids.max` of its container)";

impl Engine {
    /// Makes an engine. Fails if the cache's folder is not private, or if the machine can't run
    /// WebAssembly.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let engine =
            wasmtime::Engine::new(&settings(config)).map_err(|error| unrunnable(&error))?;
        let cache = match &config.cache_folder {
            Some(folder) => {
                Some(Cache::open(folder, config.cache_bytes_max, compatibility(&engine))?)
            }
            None => None,
        };
        let linker = linker(&engine).map_err(|error| unrunnable(&error))?;
        let ticker = Ticker::start(&engine).map_err(|error| no_ticker(&error))?;
        let shared = Shared {
            engine,
            config: Arc::new(config.clone()),
            budget: Arc::new(Budget::new(config.memory_total_bytes_max)),
            linker,
            cache,
            compiler: Compiler::default(),
            _ticker: ticker,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How much memory all instances have now, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.shared.budget.bytes()
    }

    /// Makes a module of a file's content; `name` is what messages call it. Compiles it, which
    /// takes milliseconds to seconds, unless the cache has it: not for a worker's thread.
    pub fn load(&self, bytes: &[u8], name: &str) -> Result<Module, Error> {
        self.make(bytes, name).map_err(Error::cleaned)
    }

    fn make(&self, bytes: &[u8], name: &str) -> Result<Module, Error> {
        let shared = &self.shared;
        recognise(bytes, name, shared.config.module_bytes_max)?;
        let weight = weigh(bytes, name, &shared.config)?;
        let digest = Digest::of(bytes);
        let component = self.component(bytes, name, &digest)?;
        let mut linker = shared.linker.clone();
        imports::check(name, &shared.engine, &component, &mut linker)?;
        let World::Columnar = imports::world(name, &shared.engine, &component)?;
        let ready = linker
            .instantiate_pre(&component)
            .map_err(|error| imports::mistyped(name, &shared.engine, &component, &error))?;
        let code = ColumnarPre::new(ready)
            .map_err(|error| imports::export(name, &format!("{error:#}")))?;
        let inner = module::Inner {
            shared: Arc::clone(shared),
            name: name.to_owned(),
            digest,
            imports: imports::names(&shared.engine, &component),
            weight,
            code: Code::Columnar(code),
        };
        Ok(Module { inner: Arc::new(inner) })
    }

    fn component(&self, bytes: &[u8], name: &str, digest: &Digest) -> Result<Component, Error> {
        let shared = &self.shared;
        let cached = shared.cache.as_ref().and_then(|cache| cache.load(&shared.engine, digest));
        if let Some(component) = cached {
            return Ok(component);
        }
        let compiled = shared
            .compiler
            .compile(&shared.config, &shared.engine, bytes)
            .map_err(|failed| not_compiled(failed, name, digest, bytes.len(), &shared.config))?;
        let component = compiled.component(&shared.engine).map_err(|error| {
            let how = format!("its code does not fit: {error:#}");
            not_compiled(Failed::Crashed(how), name, digest, bytes.len(), &shared.config)
        })?;
        if let Some(cache) = &shared.cache {
            cache.store(digest, &compiled);
        }
        Ok(component)
    }
}

impl Shared {
    /// How many ticks a call may take.
    pub(super) fn call_ticks(&self) -> u64 {
        let ticks = self.config.batch_time_max.as_millis().div_ceil(TICK.as_millis());
        // The first tick may come at once.
        u64::try_from(ticks).unwrap_or(u64::MAX / 2) + 1
    }
}

/// What compiled code depends on must not depend on `config`: who compiles does not have it.
pub(super) fn settings(config: &Config) -> wasmtime::Config {
    let mut settings = wasmtime::Config::new();
    settings
        .wasm_component_model(true)
        // Measured: the default costs half a microsecond a call.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(config.stack_bytes_max)
        // The same input gives the same bits on any machine.
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true);
    grant(&mut settings);
    settings
}

/// Says of each proposal whether modules may use it, so that a later wasmtime grants nothing new.
fn grant(settings: &mut wasmtime::Config) {
    settings
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_multi_memory(true)
        .wasm_simd(true)
        .wasm_relaxed_simd(true)
        .wasm_extended_const(true)
        .wasm_tail_call(true)
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_gc(false)
        .wasm_stack_switching(false)
        .wasm_shared_everything_threads(false)
        .wasm_component_model_error_context(false)
        .wasm_component_model_gc(false)
        .wasm_component_model_map(false)
        .wasm_component_model_memory64(false)
        .wasm_component_model_fixed_length_lists(false)
        .wasm_component_model_implements(false);
}

/// What an instance of a module takes besides memories and tables; it must fit its memory.
fn weigh(bytes: &[u8], name: &str, config: &Config) -> Result<Weight, Error> {
    let too_much = |reason: String| Error::TooMuch { module: name.to_owned(), reason };
    let weight = weight::weigh(bytes, config.instances_max)
        .map_err(|weight::TooMuch(reason)| too_much(reason.into_owned()))?;
    match weight.bytes <= config.memory_bytes_max {
        true => Ok(weight),
        false => Err(too_much(format!(
            "its globals, functions and imports take {} bytes of each instance, more than the {} \
             that it may have in all (`limits.guest_memory_max`)",
            weight.bytes, config.memory_bytes_max
        ))),
    }
}

fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<Host>> {
    let mut linker = Linker::new(engine);
    Columnar::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
    wasi::add_to_linker(&mut linker)?;
    Ok(linker)
}

/// What compiled code depends on. A change of the hash between compilers of this program costs a
/// compilation, nothing else: wasmtime checks for itself as well.
fn compatibility(engine: &wasmtime::Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

fn recognise(bytes: &[u8], name: &str, bytes_max: usize) -> Result<(), Error> {
    let module = || name.to_owned();
    if bytes.len() > bytes_max {
        return Err(Error::TooLarge { module: module(), bytes: bytes.len(), bytes_max });
    }
    match (bytes.first_chunk(), bytes.get(4..).and_then(<[u8]>::first_chunk)) {
        (Some(&MAGIC), Some(&COMPONENT)) => Ok(()),
        (Some(&MAGIC), Some(&CORE_MODULE)) => Err(Error::CoreModule { module: module() }),
        (Some(&MAGIC), Some(version)) => Err(Error::Invalid {
            module: module(),
            message: format!("its version {version:02x?} is not known"),
        }),
        (Some(&MAGIC), None) => Err(Error::Truncated {
            module: module(),
            bytes: bytes.len(),
            message: "its version is missing".to_owned(),
        }),
        _ if MAGIC.starts_with(bytes) => Err(Error::Truncated {
            module: module(),
            bytes: bytes.len(),
            message: "there is next to nothing in it".to_owned(),
        }),
        _ => Err(Error::NotWasm {
            module: module(),
            start: format!("\"{}\"", bytes[..bytes.len().min(8)].escape_ascii()),
        }),
    }
}

/// The machine refuses what wasmtime needs.
fn unrunnable(error: &wasmtime::Error) -> Error {
    Error::Engine(format!(
        "{error:#}; it takes a 64-bit x86 or ARM processor, and address space to reserve (`ulimit -v \
         unlimited`)"
    ))
}

fn no_ticker(error: &std::io::Error) -> Error {
    Error::Engine(format!("no thread for deadlines: {error}; {MORE_THREADS}"))
}

fn not_compiled(
    failed: Failed,
    name: &str,
    digest: &Digest,
    bytes: usize,
    config: &Config,
) -> Error {
    let module = name.to_owned();
    match failed {
        Failed::TooLong => {
            Error::CompileTime { module, seconds: config.compile_time_max.as_secs_f64() }
        }
        Failed::NoMemory => {
            Error::CompileMemory { module, bytes_max: config.compile_memory_bytes_max }
        }
        Failed::Killed => Error::CompileKilled { module },
        Failed::Crashed(how) => Error::Compiler { module, digest: *digest, how },
        Failed::NotStarted(reason) => Error::Engine(format!("{reason}; {MORE_THREADS}")),
        Failed::Invalid(message) if is_cut_off(&message, bytes) => {
            Error::Truncated { module, bytes, message }
        }
        Failed::Invalid(message) => Error::Invalid { module, message },
    }
}

/// Whether the parser ran into the end of the file. It has no type for it.
fn is_cut_off(message: &str, bytes: usize) -> bool {
    message.contains("unexpected end") || message.contains(&format!("(bound = {bytes})"))
}

/// Moves the clock by which deadlines are kept, until it is dropped.
struct Ticker {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: &wasmtime::Engine) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let engine = engine.clone();
        let tick = move || {
            while stopped.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                engine.increment_epoch();
            }
        };
        let thread = std::thread::Builder::new().name("guest-ticker".to_owned()).spawn(tick)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the ticker does not panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        recognise(bytes, "m", 100).unwrap_err().to_string()
    }

    #[test]
    fn files_are_recognised() {
        assert!(recognise(b"\0asm\x0d\0\x01\0", "m", 100).is_ok());
        assert!(refusal(b"\0asm\x01\0\0\0").contains("core WebAssembly module"));
        assert!(refusal(b"\0asm\x09\0\0\0").contains("version"));
        assert!(refusal(b"\0asm\x0d").contains("cut off"));
        assert!(refusal(b"").contains("cut off"));
        assert!(refusal(b"(module)").contains("not WebAssembly"));
        assert!(refusal(&[0; 101]).contains("101 bytes"));
    }

    /// What a user is told of a module that did not compile.
    fn told(failed: Failed) -> String {
        not_compiled(failed, "m", &Digest::of(b"m"), 1_000, &Config::default()).to_string()
    }

    fn check_told(message: &str, parts: &[&str]) {
        for part in parts {
            assert!(message.contains(part), "no `{part}` in: {message}");
        }
    }

    #[test]
    fn a_compiler_that_fails_is_to_be_reported_with_the_module() {
        let digest = Digest::of(b"m").to_string();
        let crashed = told(Failed::Crashed("exit status: 101; it said: oh".to_owned()));
        check_told(&crashed, &["it said: oh", "fault of this program", "report it", &digest]);
    }

    #[test]
    fn a_module_with_threads_is_to_be_built_without_them() {
        let threads = wat::parse_str("(component (core module (memory 1 1 shared)))").unwrap();
        let engine = Engine::new(&Config::default()).unwrap();
        let error = engine.load(&threads, "m").err().unwrap();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        let target = "for the target wasm32-wasip2";
        check_told(&error.to_string(), &["threads", "build it again", target, "without threads"]);
    }

    #[test]
    fn what_the_machine_refuses_is_told_with_its_limit() {
        let none = || std::io::Error::from_raw_os_error(libc::EAGAIN);
        let threads = ["can't be run here", "`ulimit -u`", "`pids.max`"];
        check_told(&told(Failed::NotStarted("can't start a process".to_owned())), &threads);
        check_told(&no_ticker(&none()).to_string(), &threads);
        let memory = unrunnable(&wasmtime::Error::msg("mmap failed")).to_string();
        check_told(&memory, &["mmap failed", "64-bit x86 or ARM", "`ulimit -v unlimited`"]);
    }

    #[test]
    fn the_ticker_ends_with_its_engine() {
        let engine = Engine::new(&Config::default()).unwrap();
        let weak = Arc::downgrade(&engine.shared);
        drop(engine);
        assert!(weak.upgrade().is_none());
    }
}
