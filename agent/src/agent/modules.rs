//! The modules of a pipeline, loaded.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use tracing::info;

use super::{
    Error, bytes,
    code::Code,
    files::Watched,
    versions::{Choice, Versions},
};
use crate::{
    config::Pipeline,
    control::now_ms,
    guest::{self, Digest, Engine, Module},
    plan::Plan,
    telemetry::metrics::Metrics,
};

/// The modules of a pipeline, in the order of its transforms.
pub(super) struct Modules {
    pub(super) engine: Engine,
    modules: Vec<Module>,
    /// The content of the transforms' module files, whichever module they start with; none where
    /// it is still to be swapped in.
    files: Vec<Option<Digest>>,
}

impl Modules {
    /// Checks and compiles the module of every transform (or takes compiled code from the cache in
    /// the state directory): that of its file, or the one that was swapped in last. All instances
    /// together may use `memory_total` bytes.
    pub(super) fn load(
        pipeline: &Pipeline,
        memory_total: usize,
        versions: &Versions,
    ) -> Result<Self, Error> {
        let cache = Some(pipeline.state.directory.join("compiled"));
        let engine = engine(pipeline, memory_total, cache)?;
        let (mut modules, mut files): (Vec<Module>, Vec<_>) = (Vec::new(), Vec::new());
        for transform in &pipeline.transforms {
            let file = read_file(&transform.module, pipeline)?;
            let file_digest = Digest::of(&file);
            let (bytes, name) = match versions.choose(&transform.name, &file)? {
                Choice::File => (file, transform.module.display().to_string()),
                Choice::Kept(version) => (version.module, version.name),
            };
            let digest = Digest::of(&bytes);
            let known = modules.iter().find(|known| known.digest() == digest);
            let module = match known {
                Some(module) => module.clone(),
                None => engine.load(&bytes, &name)?,
            };
            let is_file = digest == file_digest;
            info!(transform = transform.name, %digest, name, is_file, "module loaded");
            versions.keep(&transform.name, &bytes, &name, now_ms())?;
            modules.push(module);
            if versions.is_undecided(&transform.name, file_digest) {
                files.push(None);
            } else {
                versions.handled(&transform.name, file_digest)?;
                files.push(Some(file_digest));
            }
        }
        Ok(Self { engine, modules, files })
    }

    /// The module files of the pipeline, with the transforms that start with them.
    pub(super) fn files(&self, pipeline: &Pipeline) -> Vec<Watched> {
        let mut files: Vec<Watched> = Vec::new();
        for (transform, digest) in pipeline.transforms.iter().zip(&self.files) {
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
    pub(super) fn by_subtopology(
        &self,
        pipeline: &Pipeline,
        plan: &Plan,
        metrics: &Metrics,
    ) -> Vec<Vec<Code>> {
        let workers = pipeline.workers as usize;
        let code = |&transform: &usize| {
            let module = self.modules[transform].clone();
            let transform = &pipeline.transforms[transform];
            let metrics = metrics.transform(&transform.name);
            Code::new(&transform.name, &transform.config.0, module, metrics, workers)
        };
        plan.transforms.iter().map(|transforms| transforms.iter().map(code).collect()).collect()
    }
}

/// The engine for a pipeline's modules; without `cache_folder` it compiles every time.
pub(super) fn engine(
    pipeline: &Pipeline,
    memory_total: usize,
    cache_folder: Option<PathBuf>,
) -> Result<Engine, Error> {
    Ok(Engine::new(&guest::Config { cache_folder, ..config(pipeline, memory_total) })?)
}

/// Reads, checks and compiles a module. Of a file that is too large, no more is read than it takes
/// to see that.
pub(super) fn read(engine: &Engine, path: &Path, pipeline: &Pipeline) -> Result<Module, Error> {
    Ok(engine.load(&read_file(path, pipeline)?, &path.display().to_string())?)
}

fn read_file(path: &Path, pipeline: &Pipeline) -> Result<Vec<u8>, Error> {
    let unreadable = |source| Error::ModuleFile { path: PathBuf::from(path), source };
    let mut module = Vec::new();
    File::open(path)
        .and_then(|file| {
            let bytes_max = pipeline.limits.module_bytes_max.saturating_add(1);
            file.take(bytes_max).read_to_end(&mut module)
        })
        .map_err(unreadable)?;
    Ok(module)
}

fn config(pipeline: &Pipeline, memory_total: usize) -> guest::Config {
    let limits = &pipeline.limits;
    let default = guest::Config::default();
    guest::Config {
        module_bytes_max: bytes(limits.module_bytes_max),
        compile_time_max: limits.compile_time_max,
        memory_bytes_max: bytes(limits.guest_memory_bytes_max),
        memory_total_bytes_max: memory_total,
        calls_at_once_max: pipeline.workers as usize,
        table_elements_max: limits.guest_table_elements_max as usize,
        stack_bytes_max: bytes(limits.guest_stack_bytes_max),
        call_time_max: limits.batch_time_max,
        output_bytes_max: bytes(limits.output_bytes_max),
        record_bytes_max: bytes(limits.record_bytes_max),
        // A module may ask for what all records of its batch need at once.
        get_keys_max: default.get_keys_max.max(limits.batch_records_max as usize),
        ..default
    }
}
