//! A module that is ready to be instantiated.

use std::{fmt, sync::Arc};

use sha2::{Digest as _, Sha256};
use sidestream_core::task::Failure;

use super::{
    bindings::ColumnarPre,
    engine::Shared,
    host::Host,
    instance::{Context, Guest},
    weight::Weight,
};

/// The sha256 of a module's file: which code it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of a file's content.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    /// Writes it as 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A world that modules are built for and the agent speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Records in columns: `columnar` of `wit/transform.wit`.
    Columnar,
}

impl World {
    /// The interface by which a component of this world is recognised.
    pub const EXPORT: &str = "sidestream:transform/transform@0.1.0";
}

impl fmt::Display for World {
    /// Writes the world's full name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Columnar => "sidestream:transform/columnar@0.1.0",
        })
    }
}

/// User code that was compiled and found to fit. Cheap to clone, and shared by all workers.
#[derive(Clone)]
pub struct Module {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) shared: Arc<Shared>,
    pub(super) name: String,
    pub(super) digest: Digest,
    pub(super) imports: Vec<String>,
    pub(super) weight: Weight,
    pub(super) code: Code,
}

/// The code of a module, by its world.
pub(super) enum Code {
    /// See [`World::Columnar`].
    Columnar(ColumnarPre<Host>),
}

impl Module {
    /// The name it was loaded under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Which code it is.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// Which world it was built for.
    #[must_use]
    pub fn world(&self) -> World {
        match self.inner.code {
            Code::Columnar(_) => World::Columnar,
        }
    }

    /// The names of the interfaces that it imports.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.inner.imports
    }

    /// Makes an instance for a task and initialises it, within the limits of a call. Fails with
    /// the module's own words if it can't work with `context`.
    pub fn instantiate(&self, context: &Context) -> Result<Guest, Failure> {
        Guest::new(self, context)
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.inner.name)
            .field("digest", &self.inner.digest)
            .finish_non_exhaustive()
    }
}
