//! Why a file can't be used as a module.

use std::path::PathBuf;

use super::World;

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
        "module `{module}` is a core WebAssembly module, not a component: build it with the SDK, \
         or turn it into a component with `wasm-tools component new`"
    )]
    CoreModule {
        /// The module.
        module: String,
    },
    /// Build it again, with a tool chain that makes standard WebAssembly.
    #[error("module `{module}` is not a valid component: {message}")]
    Invalid {
        /// The module.
        module: String,
        /// What is wrong with it.
        message: String,
    },
    /// Make it smaller, or raise the limit.
    #[error("module `{module}` has {bytes} bytes, more than the {bytes_max} that it may have")]
    TooLarge {
        /// The module.
        module: String,
        /// How large it is.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// Make it smaller, or raise the limit.
    #[error(
        "module `{module}` was not compiled within {seconds} seconds; make it smaller or allow it \
         more time"
    )]
    CompileTime {
        /// The module.
        module: String,
        /// The limit.
        seconds: u64,
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
