//! Reads what is in stores on disk, while no agent has them open.
//!
//! A task's RocksDB is the folder `<state directory>/<application>/<sub-topology>_<partition>`;
//! the store `counts` is its column family `store-counts`; the key `position` of the default one
//! has the positions.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use rocksdb::{DB, IteratorMode, Options};

use crate::check::StoreCopy;

/// Reads all parts of a store in these state directories.
pub fn read_stores(directories: &[PathBuf], store: &str) -> Result<Vec<StoreCopy>> {
    let mut copies = Vec::new();
    for directory in directories {
        for application in folders(directory)? {
            for task in folders(&application)? {
                let Some(partition) = partition_of(&task) else { continue };
                let copy = read_task(&task, partition, store)
                    .with_context(|| format!("can't read {}", task.display()))?;
                copies.extend(copy);
            }
        }
    }
    Ok(copies)
}

fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            folders.push(path);
        }
    }
    Ok(folders)
}

/// The partition in a task's folder name; none for other folders, and for what was set aside.
fn partition_of(path: &Path) -> Option<i32> {
    let (subtopology, partition) = path.file_name()?.to_str()?.split_once('_')?;
    subtopology.parse::<u16>().ok()?;
    partition.parse().ok()
}

fn read_task(path: &Path, partition: i32, store: &str) -> Result<Option<StoreCopy>> {
    let options = Options::default();
    let families = DB::list_cf(&options, path)?;
    let family = format!("store-{store}");
    if !families.contains(&family) {
        return Ok(None);
    }
    let db = DB::open_cf_for_read_only(&options, path, &families, false)?;
    let position = match db.get(b"position")? {
        Some(bytes) => positions(&bytes)?.get(store).copied(),
        None => None,
    };
    let handle = db.cf_handle(&family).context("the column family was listed")?;
    let mut entries = BTreeMap::new();
    for entry in db.iterator_cf(handle, IteratorMode::Start) {
        let (key, value) = entry?;
        entries.insert(key.into_vec(), value.into_vec());
    }
    Ok(Some(StoreCopy { place: path.display().to_string(), partition, position, entries }))
}

/// The changelog offset of each store, as the agent writes it: version 2, time, inputs, stores.
fn positions(mut bytes: &[u8]) -> Result<BTreeMap<String, i64>> {
    let [version] = take(&mut bytes)?;
    ensure!(version == 2, "the position has the unknown version {version}");
    let _committed_at: [u8; 8] = take(&mut bytes)?;
    for _ in 0..u16::from_be_bytes(take(&mut bytes)?) {
        name(&mut bytes)?;
        let _offset: [u8; 8] = take(&mut bytes)?;
        let _topic_id: [u8; 16] = take(&mut bytes)?;
    }
    let mut positions = BTreeMap::new();
    for _ in 0..u16::from_be_bytes(take(&mut bytes)?) {
        let name = name(&mut bytes)?;
        positions.insert(name, i64::from_be_bytes(take(&mut bytes)?));
        let _topic_id: [u8; 16] = take(&mut bytes)?;
        let _leader_epoch: [u8; 4] = take(&mut bytes)?;
    }
    ensure!(bytes.is_empty(), "the position has {} bytes too many", bytes.len());
    Ok(positions)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk().context("the position ends too early")?;
    *bytes = rest;
    Ok(*head)
}

fn name(bytes: &mut &[u8]) -> Result<String> {
    let length = usize::from(u16::from_be_bytes(take(bytes)?));
    let (name, rest) = bytes.split_at_checked(length).context("the position ends too early")?;
    *bytes = rest;
    Ok(String::from_utf8(name.to_vec())?)
}
