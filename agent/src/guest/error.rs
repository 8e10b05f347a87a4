//! Why a file can't be used as a module.

use std::path::PathBuf;

use super::{Digest, World, text};

/// How much is shown of a name or message. Both may come from the module's file, whatever is in it.
const NAME_BYTES_MAX: usize = 512;
const MESSAGE_BYTES_MAX: usize = 2 << 10;

/// Why a module was not loaded. Nothing of it has run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Give the path of a WebAssembly component.
    #[error(
        "module `{module}` is not WebAssembly: it begins with {start}; build it as a component"
    )]
    NotWasm {
        /// The module.
        module: String,
        /// Its first bytes.
        start: String,
    },
    /// Copy or build it again.
    #[error("module `{module}` is cut off after {bytes} bytes: {message}; copy or build it again")]
    Truncated {
        /// The module.
        module: String,
        /// How much there is.
        bytes: usize,
        /// What is missing.
        message: String,
    },
    /// Turn it into a component.
    #[error(
        "module `{module}` is a core WebAssembly module, not a component: build it with \
         `cargo build --release --target wasm32-wasip2`, or turn it into a component with \
         `wasm-tools component new`"
    )]
    CoreModule {
        /// The module.
        module: String,
    },
    /// Build it again, with a tool chain that makes standard WebAssembly.
    #[error(
        "module `{module}` is not a valid component: {message}; build it again, for the target \
         wasm32-wasip2 or wasm32-unknown-unknown and without threads or other proposals switched on"
    )]
    Invalid {
        /// The module.
        module: String,
        /// What is wrong with it.
        message: String,
    },
    /// Make it smaller, or raise the limit.
    #[error(
        "module `{module}` has {bytes} bytes and may have {bytes_max}: make it smaller, or raise \
         `limits.module_bytes_max`"
    )]
    TooLarge {
        /// The module.
        module: String,
        /// How large it is.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Make it of less, or raise the limit.
    #[error("module `{module}` takes too much: {reason}")]
    TooMuch {
        /// The module.
        module: String,
        /// What it has too much of, and what to do.
        reason: String,
    },
    /// Make it smaller, or raise the limit.
    #[error(
        "module `{module}` was not compiled within {seconds} seconds: make it smaller, or raise \
         `limits.compile_time_max`"
    )]
    CompileTime {
        /// The module.
        module: String,
        /// The limit.
        seconds: f64,
    },
    /// Make it smaller, or raise the limit.
    #[error(
        "module `{module}` takes more than {bytes_max} bytes of memory to compile: make it smaller, \
         or raise `limits.compile_memory_max`"
    )]
    CompileMemory {
        /// The module.
        module: String,
        /// The limit.
        bytes_max: u64,
    },
    /// Make it smaller, or give the agent more memory.
    #[error(
        "module `{module}`: the system ended the process that compiled it, as it does for want of \
         memory: make the module smaller, or let the agent's container have \
         `limits.compile_memory_max` beside `memory_max`"
    )]
    CompileKilled {
        /// The module.
        module: String,
    },
    /// Report it.
    #[error(
        "the compiler fails on module `{module}` ({how}), which is a fault of this program: please \
         report it, with the module, whose sha256 is {digest}"
    )]
    Compiler {
        /// The module.
        module: String,
        /// Which code it is.
        digest: Digest,
        /// How it fails.
        how: String,
    },
    /// Remove what needs the import.
    #[error("module `{module}` imports `{import}`, which is not granted: {reason}")]
    Import {
        /// The module.
        module: String,
        /// What it imports.
        import: String,
        /// What is granted, or how the types differ.
        reason: String,
    },
    /// Build it for a world that the agent speaks.
    #[error(
        "module `{module}` does not export `{expected}` of the world `{world}`: {reason}",
        expected = World::EXPORT, world = World::Columnar
    )]
    Export {
        /// The module.
        module: String,
        /// What it exports instead, or how the types differ.
        reason: String,
    },
    /// Make the folder private, or choose another.
    #[error("the folder `{folder}` can't hold compiled code: {reason}", folder = folder.display())]
    Cache {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// The machine can't run WebAssembly as configured.
    #[error("WebAssembly can't be run here: {0}")]
    Engine(String),
}

impl Error {
    /// The same, with names and messages cut and cleaned: they go to terminals, logs and events.
    pub(super) fn cleaned(mut self) -> Self {
        let name = |text: &mut String| *text = text::clean(text, NAME_BYTES_MAX);
        let message = |text: &mut String| *text = text::clean(text, MESSAGE_BYTES_MAX);
        match &mut self {
            Self::NotWasm { module, start } => {
                name(module);
                message(start);
            }
            Self::Truncated { module, message: text, .. }
            | Self::Invalid { module, message: text }
            | Self::TooMuch { module, reason: text }
            | Self::Export { module, reason: text } => {
                name(module);
                message(text);
            }
            Self::Import { module, import, reason } => {
                name(module);
                name(import);
                message(reason);
            }
            Self::CoreModule { module }
            | Self::TooLarge { module, .. }
            | Self::CompileTime { module, .. }
            | Self::CompileMemory { module, .. }
            | Self::CompileKilled { module } => name(module),
            Self::Compiler { module, how: text, .. } => {
                name(module);
                message(text);
            }
            Self::Cache { reason: text, .. } | Self::Engine(text) => message(text),
        }
        self
    }
}
