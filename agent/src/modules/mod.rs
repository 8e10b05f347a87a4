//! What modules there are: those of a pipeline, loaded; their files, which are watched; the versions of
//! them that are kept on disk; their compiled code, and its instances.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use sidestream_core::{
    record::TaskId,
    task::{Failure, FailureKind},
    topology::Topology,
};
use tracing::{info, warn};

pub(crate) mod code;
pub(crate) mod files;
pub(crate) mod measured;
pub(crate) mod versions;

use self::{
    code::Code,
    files::Watched,
    versions::{Choice, Version, Versions},
};
use crate::{
    config::{Pipeline, Position, open_regular, pipeline::Transform},
    control::{Events, now_ms},
    guest::{self, Digest, Engine, Module},
    plan::Plan,
    settings::guest_config,
    telemetry::metrics::Metrics,
};

/// A module can't be used. The variants say whose turn it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Build the module again.
    #[error("{source}")]
    Module {
        /// Where the pipeline file names it, if it does.
        at: Option<Position>,
        /// What is wrong with it.
        source: guest::Error,
    },
    /// Give the agent another module file.
    #[error("can't read the module {path}: {source}; correct `module` in the pipeline file")]
    ModuleFile {
        /// Where it should be.
        path: PathBuf,
        /// Where the pipeline file names it.
        at: Position,
        /// Why it can't be read.
        source: std::io::Error,
    },
    /// Look at the transform's configuration, or build its module again.
    #[error("the transform `{transform}` can't start: {failure}")]
    Initialise {
        /// Its name.
        transform: String,
        /// Where the pipeline file has it.
        at: Position,
        /// What the module said, or did.
        failure: Failure,
    },
    /// Look at the versions of modules in the state directory.
    #[error("{0}")]
    Versions(String),
}

impl From<versions::Error> for Error {
    fn from(error: versions::Error) -> Self {
        Self::Versions(error.to_string())
    }
}

impl Error {
    /// Where the pipeline file has what it is about.
    #[must_use]
    pub const fn at(&self) -> Option<Position> {
        match self {
            Self::Module { at, .. } => *at,
            Self::ModuleFile { at, .. } | Self::Initialise { at, .. } => Some(*at),
            Self::Versions(_) => None,
        }
    }
}

/// The modules of a pipeline, in the order of its transforms.
pub(crate) struct Modules<'a> {
    pub(crate) engine: Engine,
    pipeline: &'a Pipeline,
    versions: &'a Versions,
    events: &'a Events,
    modules: Vec<Module>,
    /// The content of the transforms' module files, whichever module they start with; none where
    /// it is still to be swapped in.
    files: Vec<Option<Digest>>,
}

impl<'a> Modules<'a> {
    /// Checks and compiles the module of every transform (or takes compiled code from the cache in
    /// the state directory): the version that ran last, or that of its file if there is none or it
    /// can't be used. All instances together may use `memory_total` bytes.
    pub(crate) fn load(
        pipeline: &'a Pipeline,
        memory_total: usize,
        versions: &'a Versions,
        events: &'a Events,
    ) -> Result<Self, Error> {
        let cache = Some(pipeline.state.directory.join("compiled"));
        let engine = engine(pipeline, memory_total, cache)?;
        let (modules, files) = (Vec::new(), Vec::new());
        let mut loaded = Self { engine, pipeline, versions, events, modules, files };
        for transform in &pipeline.transforms {
            let (module, file) = loaded.choose(transform)?;
            loaded.modules.push(module);
            loaded.files.push(file);
        }
        Ok(loaded)
    }

    /// What a transform begins with, and the content of its file if nothing is to be done with it.
    fn choose(&self, transform: &Transform) -> Result<(Module, Option<Digest>), Error> {
        let (name, versions) = (&transform.name, self.versions);
        let file = read_file(transform, self.pipeline)?;
        let digest = Digest::of(&file);
        if versions.give_up(name, digest)? {
            self.tell(name, "swap_refused", &format!(
                "`{}`: the process ended each time it was swapped in; it is not tried again until it \
                 changes, but by `sidestream swap`",
                transform.module.display()
            ));
        }
        let (version, file_digest) = match versions.choose(name, &file)? {
            Choice::File => return self.begin_with_file(transform, &file),
            Choice::FileInstead(reason) => {
                self.tell_of_file(transform, &reason);
                return self.begin_with_file(transform, &file);
            }
            Choice::Kept(version) => (version, Some(digest)),
            Choice::KeptUntilSwap(version) => (version, None),
        };
        match (self.module(&version.module, &version.name), file_digest) {
            (Ok(module), _) => {
                let Version { digest, name: from, .. } = &version;
                let is_new = file_digest.is_none();
                info!(transform = name, %digest, from, is_new, "begins with the version kept");
                Ok((module, file_digest))
            }
            (Err(error), None) => {
                self.tell_of_file(transform, &error.to_string());
                self.begin_with_file(transform, &file)
            }
            (Err(error), Some(_)) => {
                Err(versions.unusable(name, &version, error.to_string()).into())
            }
        }
    }

    /// A transform begins with its module file, which is kept.
    fn begin_with_file(
        &self,
        transform: &Transform,
        file: &[u8],
    ) -> Result<(Module, Option<Digest>), Error> {
        let (name, from) = (&transform.name, transform.module.display().to_string());
        let module = self.module(file, &from).map_err(|error| of_file(transform, error))?;
        let digest = module.digest();
        info!(transform = name, %digest, from, "begins with its module file");
        self.versions.keep(name, file, &from, now_ms())?;
        self.versions.handled(name, digest)?;
        Ok((module, Some(digest)))
    }

    /// Lets transforms begin with their new module files where the version kept does not fit the
    /// pipeline, which may have changed with them.
    pub(crate) fn fit(&mut self, plan: &Plan) -> Result<(), Error> {
        for (transforms, subtopology) in plan.transforms.iter().zip(0u16..) {
            for (place, &index) in transforms.iter().enumerate() {
                if self.files[index].is_some() {
                    continue;
                }
                let transform = &self.pipeline.transforms[index];
                let task = TaskId { subtopology, partition: 0 };
                let tried = self.instantiate(index, &plan.topology, task, place);
                if let Err(failure) = tried {
                    self.tell_of_file(transform, &failure.to_string());
                    let file = read_file(transform, self.pipeline)?;
                    let (module, file) = self.begin_with_file(transform, &file)?;
                    (self.modules[index], self.files[index]) = (module, file);
                }
            }
        }
        Ok(())
    }

    /// Makes an instance, to see whether it can be made; want of memory says nothing about that.
    fn instantiate(
        &self,
        index: usize,
        topology: &Topology,
        task: TaskId,
        place: usize,
    ) -> Result<(), Failure> {
        let Pipeline { application, transforms, .. } = self.pipeline;
        let config = &transforms[index].config.0;
        let context = code::context(application, topology, task, place, config);
        match self.modules[index].instantiate(&context) {
            Err(failure) if failure.kind != FailureKind::Budget => Err(failure),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// A module; one that several transforms run is compiled once.
    fn module(&self, bytes: &[u8], name: &str) -> Result<Module, guest::Error> {
        let digest = Digest::of(bytes);
        match self.modules.iter().find(|known| known.digest() == digest) {
            Some(known) => Ok(known.clone()),
            None => self.engine.load(bytes, name),
        }
    }

    fn tell_of_file(&self, transform: &Transform, reason: &str) {
        self.tell(&transform.name, "module_file_instead", &format!(
            "it begins with its new module file `{}`, without probation, since the version kept \
             can't be used: {reason}",
            transform.module.display()
        ));
    }

    fn tell(&self, transform: &str, kind: &str, message: &str) {
        warn!(transform, "{message}");
        self.events.tell(kind, format!("`{transform}`: {message}"));
    }

    /// The module files of the pipeline, with the transforms that start with them.
    pub(crate) fn files(&self) -> Vec<Watched> {
        let mut files: Vec<Watched> = Vec::new();
        for (transform, digest) in self.pipeline.transforms.iter().zip(&self.files) {
            match files.iter_mut().find(|file| file.path == transform.module) {
                Some(file) => {
                    file.transforms.push(transform.name.clone());
                    file.seen = file.seen.filter(|_| digest.is_some());
                }
                None => files.push(Watched {
                    transforms: vec![transform.name.clone()],
                    path: transform.module.clone(),
                    seen: *digest,
                }),
            }
        }
        files
    }

    /// What each transform of each sub-topology runs.
    pub(crate) fn by_subtopology(&self, plan: &Plan, metrics: &Metrics) -> Vec<Vec<Code>> {
        let workers = self.pipeline.general.workers as usize;
        let code = |&transform: &usize| {
            let module = self.modules[transform].clone();
            let transform = &self.pipeline.transforms[transform];
            let metrics = metrics.transform(&transform.name);
            Code::new(&transform.name, &transform.config.0, module, metrics, workers)
        };
        plan.transforms.iter().map(|transforms| transforms.iter().map(code).collect()).collect()
    }
}

/// The engine for a pipeline's modules; without `cache_folder` it compiles every time.
pub(crate) fn engine(
    pipeline: &Pipeline,
    memory_total: usize,
    cache_folder: Option<PathBuf>,
) -> Result<Engine, Error> {
    Engine::new(&guest::Config { cache_folder, ..guest_config(pipeline, memory_total) })
        .map_err(|source| Error::Module { at: None, source })
}

/// Reads, checks and compiles the module file of a transform. Of a file that is too large, no more
/// is read than it takes to see that.
pub(crate) fn read(
    engine: &Engine,
    transform: &Transform,
    pipeline: &Pipeline,
) -> Result<Module, Error> {
    let file = read_file(transform, pipeline)?;
    let name = transform.module.display().to_string();
    engine.load(&file, &name).map_err(|error| of_file(transform, error))
}

fn of_file(transform: &Transform, source: guest::Error) -> Error {
    Error::Module { at: Some(transform.module_at), source }
}

fn read_file(transform: &Transform, pipeline: &Pipeline) -> Result<Vec<u8>, Error> {
    let path: &Path = &transform.module;
    let mut module = Vec::new();
    open_regular(path)
        .and_then(|file| {
            let bytes_max = pipeline.limits.module_bytes_max.saturating_add(1);
            file.take(bytes_max).read_to_end(&mut module)
        })
        .map_err(|source| Error::ModuleFile {
            path: path.to_owned(),
            at: transform.module_at,
            source,
        })?;
    Ok(module)
}
