//! `componentize FOLDER MODULE...`: makes a component of each core module, which must carry its
//! component type as the bindings of a language embed it, and puts it into the folder. The name is
//! the module's with `-` for `_`. A component that is there already is written only if it differs,
//! so that its time says when it changed.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use wit_component::ComponentEncoder;

fn main() -> Result<()> {
    let mut arguments = env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments.next().context("say a folder, then the modules")?;
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    for module in arguments {
        let bytes = fs::read(&module).with_context(|| format!("read {}", module.display()))?;
        let component =
            componentize(&bytes).with_context(|| format!("componentize {}", module.display()))?;
        let target = folder.join(file_name(&module)?);
        if fs::read(&target).is_ok_and(|there| there == component) {
            continue;
        }
        // A reader sees the old component or the new one, never a part.
        let partial = target.with_extension("partial");
        fs::write(&partial, &component).with_context(|| format!("write {}", partial.display()))?;
        fs::rename(&partial, &target).with_context(|| format!("write {}", target.display()))?;
    }
    Ok(())
}

fn componentize(module: &[u8]) -> Result<Vec<u8>> {
    ensure!(module.starts_with(b"\0asm"), "not a WASM module");
    ComponentEncoder::default().validate(true).module(module)?.encode()
}

fn file_name(module: &Path) -> Result<OsString> {
    let stem = module.file_stem().and_then(|stem| stem.to_str()).context("not a file name")?;
    Ok(format!("{}.wasm", stem.replace('_', "-")).into())
}
