//! The modules of a pipeline, loaded.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use tracing::info;

use super::{Error, bytes, code::Code};
use crate::{
    config::Pipeline,
    guest::{self, Engine, Module},
    plan::Plan,
    telemetry::metrics::Metrics,
};

/// The modules of a pipeline, in the order of its transforms.
pub(super) struct Modules {
    pub(super) engine: Engine,
    modules: Vec<Module>,
}

impl Modules {
    /// Reads, checks and compiles every module (or takes compiled code from the cache in the state
    /// directory); all instances together may use `memory_total` bytes.
    pub(super) fn load(pipeline: &Pipeline, memory_total: usize) -> Result<Self, Error> {
        let cache = Some(pipeline.state.directory.join("compiled"));
        let engine = engine(pipeline, memory_total, cache)?;
        let mut modules: Vec<(&Path, Module)> = Vec::new();
        for transform in &pipeline.transforms {
            let path = transform.module.as_path();
            let known = modules.iter().find(|(known, _)| *known == path);
            let module = match known {
                Some((_, module)) => module.clone(),
                None => {
                    let module = read(&engine, path, pipeline)?;
                    info!(transform = transform.name, digest = %module.digest(), "module loaded");
                    module
                }
            };
            modules.push((path, module));
        }
        let modules = modules.into_iter().map(|(_, module)| module).collect();
        Ok(Self { engine, modules })
    }

    /// The digests of the modules, in the order of the pipeline's transforms.
    pub(super) fn digests(&self) -> Vec<String> {
        self.modules.iter().map(|module| module.digest().to_string()).collect()
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
    let unreadable = |source| Error::ModuleFile { path: PathBuf::from(path), source };
    let mut module = Vec::new();
    File::open(path)
        .and_then(|file| {
            let bytes_max = pipeline.limits.module_bytes_max.saturating_add(1);
            file.take(bytes_max).read_to_end(&mut module)
        })
        .map_err(unreadable)?;
    Ok(engine.load(&module, &path.display().to_string())?)
}

fn config(pipeline: &Pipeline, memory_total: usize) -> guest::Config {
    let limits = &pipeline.limits;
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
        ..guest::Config::default()
    }
}
