//! What `./dev setup` puts into the cache.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

/// The cache's folder: `SIDESTREAM_CACHE`, or `.cache/sidestream` of the user.
pub fn cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    set("SIDESTREAM_CACHE")
        .or_else(|| Some(set("HOME")?.join(".cache/sidestream")))
        .context("HOME is not set, and neither is SIDESTREAM_CACHE")
}

/// A file of the cache, which has to be there.
pub fn cached(path: &str) -> Result<PathBuf> {
    let file = cache()?.join(path);
    ensure!(file.exists(), "no {}: `./dev setup` makes it", file.display());
    Ok(file)
}
