//! The RocksDB of a task.

use std::{
    cell::{Cell, RefCell},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rocksdb::{
    ColumnFamilyDescriptor, DEFAULT_COLUMN_FAMILY_NAME, ErrorKind, ReadOptions, WriteBatch,
    WriteOptions,
};
use sidestream_core::{
    column::Column,
    record::Changes,
    task::{Entries, Scan, StoreError},
};

use super::{
    read::SharedDatabase,
    resources::{Db, Families, OpenDb, Resources},
    task::Page,
};
use crate::lock::Held;

/// Where the position stands in the default column family.
pub const POSITION_KEY: &[u8] = b"position";
/// What stands before a store's name in the name of its column family.
pub const STORE_PREFIX: &str = "store-";

/// How many damaged databases of a task are kept for looking at.
const SET_ASIDE_MAX: usize = 2;
/// What stands between a database's name and the number it was set aside with.
const SET_ASIDE: &str = ".corrupt-";

/// A task's RocksDB, and how to open it again.
pub(super) struct Database {
    path: PathBuf,
    /// The column families of the task's stores.
    stores: Vec<String>,
    resources: Arc<Resources>,
    write: WriteOptions,
    /// `None` only while it is replaced, or when that failed.
    open: Option<OpenDb>,
    /// Where others than its owner find it.
    shared: SharedDatabase,
    /// What damage was found since it was opened.
    damage: RefCell<Option<String>>,
    /// Whether reading or writing failed since it was opened.
    failed: Cell<bool>,
}

impl Database {
    /// Opens a database, with the column families of these stores at least. One that is damaged is
    /// set aside and replaced by an empty one; then the second value says what was found.
    pub(super) fn open<'a>(
        path: PathBuf,
        stores: impl Iterator<Item = &'a str>,
        resources: &Arc<Resources>,
    ) -> Result<(Self, Option<String>), StoreError> {
        let mut database = Self {
            path,
            stores: stores.map(|name| format!("{STORE_PREFIX}{name}")).collect(),
            resources: Arc::clone(resources),
            write: Resources::write_options(),
            open: None,
            shared: SharedDatabase::default(),
            damage: RefCell::default(),
            failed: Cell::default(),
        };
        match database.try_open() {
            Ok(()) => Ok((database, None)),
            Err(StoreError::Corrupt { message, .. }) => {
                database.replace()?;
                Ok((database, Some(message)))
            }
            Err(error) => Err(error),
        }
    }

    fn try_open(&mut self) -> Result<(), StoreError> {
        let failed = |error| self.failed_open(&error);
        let options = self.resources.options().map_err(failed)?;
        let mut names = vec![DEFAULT_COLUMN_FAMILY_NAME.to_owned()];
        match self.is_there()? {
            // Families of stores that are in the pipeline no more have to be opened as well.
            true => names = Db::list_cf(&options, &self.path).map_err(failed)?,
            false => fs::create_dir_all(&self.path).map_err(|error| self.failed_io(&error))?,
        }
        for store in &self.stores {
            if !names.contains(store) {
                names.push(store.clone());
            }
        }
        let descriptors =
            names.iter().map(|name| ColumnFamilyDescriptor::new(name, options.clone()));
        let db = Db::open_cf_descriptors(&options, &self.path, descriptors).map_err(failed)?;
        let open = self.resources.register(Families { db, names });
        *self.shared.held() = open.weak();
        self.open = Some(open);
        Ok(())
    }

    /// Whether there is a database. `CURRENT` is the last file that RocksDB makes of a new one:
    /// without it, tables or logs are what is left of a database.
    fn is_there(&self) -> Result<bool, StoreError> {
        if self.path.join("CURRENT").exists() {
            return Ok(true);
        }
        let files = match fs::read_dir(&self.path) {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(self.failed_io(&error)),
        };
        let holds_data = |file: io::Result<fs::DirEntry>| {
            let path = file.ok()?.path();
            let extension = path.extension()?;
            Some(extension == "sst" || extension == "log")
        };
        match files.filter_map(holds_data).any(|data| data) {
            true => Err(corrupt("the file CURRENT is missing".to_owned())),
            false => Ok(false),
        }
    }

    /// Where others than its owner find it.
    pub(super) fn shared(&self) -> SharedDatabase {
        Arc::clone(&self.shared)
    }

    fn opened(&self) -> Result<&OpenDb, StoreError> {
        let closed = || StoreError::Failed(format!("{} is not open", self.path.display()));
        self.open.as_ref().ok_or_else(closed)
    }

    pub(super) fn get(&self, store: usize, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let open = self.opened()?;
        open.db.get_cf(&open.family(&self.stores[store]), key).map_err(|error| self.failed(&error))
    }

    pub(super) fn get_many(&self, store: usize, keys: &Column) -> Result<Column, StoreError> {
        let open = self.opened()?;
        let family = open.family(&self.stores[store]);
        let keys = keys.iter().map(Option::unwrap_or_default);
        let mut values = Column::default();
        for value in open.db.batched_multi_get_cf(&family, keys, false) {
            values.push(value.map_err(|error| self.failed(&error))?.as_deref());
        }
        Ok(values)
    }

    pub(super) fn scan(&self, store: usize, scan: &Scan) -> Result<Entries, StoreError> {
        let open = self.opened()?;
        let family = open.family(&self.stores[store]);
        let rows = |options| open.db.raw_iterator_cf_opt(&family, options);
        Page::new(scan).read(rows, |error| self.failed(error))
    }

    /// The position as it was written; `None` in a new database.
    pub(super) fn position(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.opened()?.db.get(POSITION_KEY).map_err(|error| self.failed(&error))
    }

    /// Writes changes of stores (by their indices) and the position, all or nothing.
    pub(super) fn apply<'a>(
        &self,
        changes: impl Iterator<Item = (usize, &'a Changes)>,
        position: &[u8],
    ) -> Result<(), StoreError> {
        let open = self.opened()?;
        let mut batch = WriteBatch::default();
        for (store, changes) in changes {
            let family = open.family(&self.stores[store]);
            for (key, value) in changes.keys.iter().zip(&changes.values) {
                let key = key.unwrap_or_default();
                match value {
                    Some(value) => batch.put_cf(&family, key, value),
                    None => batch.delete_cf(&family, key),
                }
            }
        }
        batch.put(POSITION_KEY, position);
        let bytes = batch.size_in_bytes();
        open.db.write_opt(batch, &self.write).map_err(|error| self.failed(&error))?;
        // That another database can't be flushed is for its own task to find out.
        if let Err(error) = self.resources.balance(bytes) {
            tracing::warn!(%error, "memtables can't be written to disk");
        }
        Ok(())
    }

    /// Empties a store, and writes a position that has it no more.
    pub(super) fn clear(&self, store: usize, position: &[u8]) -> Result<(), StoreError> {
        let empty = self.is_empty(store)?;
        let stored = self.position()?;
        if empty && stored.is_none_or(|stored| stored == position) {
            return Ok(());
        }
        self.apply(std::iter::empty(), position)?;
        match empty {
            true => Ok(()),
            false => self.remake(store).map_err(|error| self.failed(&error)),
        }
    }

    /// Drops a store's column family and makes it anew. Dropping is not in the log: what was
    /// written before has to be on disk first.
    fn remake(&self, store: usize) -> Result<(), rocksdb::Error> {
        let Some(open) = &self.open else { return Ok(()) };
        open.flush(true)?;
        open.db.drop_cf(&self.stores[store])?;
        open.db.create_cf(&self.stores[store], &self.resources.options()?)
    }

    /// Whether a store holds nothing.
    fn is_empty(&self, store: usize) -> Result<bool, StoreError> {
        let open = self.opened()?;
        let mut rows = open.db.raw_iterator_cf(&open.family(&self.stores[store]));
        rows.seek_to_first();
        rows.status().map_err(|error| self.failed(&error))?;
        Ok(!rows.valid())
    }

    /// Makes what was written survive a crash of the machine.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.opened()?.db.flush_wal(true).map_err(|error| self.failed(&error))
    }

    /// What damage was found since it was opened.
    pub(super) fn damage(&self) -> Option<String> {
        self.damage.borrow().clone()
    }

    /// Whether it could always be read and written since it was opened.
    pub(super) fn is_sound(&self) -> bool {
        self.open.is_some() && !self.failed.get()
    }

    /// Notes that what was read makes no sense.
    pub(super) fn found_damage(&self, message: String) -> StoreError {
        *self.damage.borrow_mut() = Some(message.clone());
        corrupt(message)
    }

    /// Sets the database aside and opens an empty one in its place.
    pub(super) fn replace(&mut self) -> Result<(), StoreError> {
        drop(self.open.take());
        set_aside(&self.path).map_err(|error| self.failed_io(&error))?;
        self.try_open()?;
        *self.damage.borrow_mut() = None;
        Ok(())
    }

    fn failed(&self, error: &rocksdb::Error) -> StoreError {
        match error.kind() {
            ErrorKind::Corruption => self.found_damage(error.to_string()),
            // A file that is gone, or shorter than it was.
            ErrorKind::IOError if error.as_ref().contains("No such file") => {
                self.found_damage(error.to_string())
            }
            _ => {
                self.failed.set(true);
                StoreError::Failed(format!("{}: {error}", self.path.display()))
            }
        }
    }

    /// As [`failed`](Self::failed), for opening: arguments of ours that don't fit what is on disk
    /// mean that what is on disk is damaged.
    fn failed_open(&self, error: &rocksdb::Error) -> StoreError {
        match error.kind() {
            ErrorKind::InvalidArgument | ErrorKind::NotSupported | ErrorKind::NotFound => {
                self.found_damage(error.to_string())
            }
            _ => self.failed(error),
        }
    }

    fn failed_io(&self, error: &io::Error) -> StoreError {
        StoreError::Failed(format!("{}: {error}", self.path.display()))
    }
}

fn corrupt(message: String) -> StoreError {
    // All stores of a task share the database.
    StoreError::Corrupt { store: None, message }
}

/// Renames a damaged database, and deletes the oldest ones that were set aside before.
fn set_aside(path: &Path) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?.file_name();
        let number = entry.to_str().and_then(|entry| {
            entry.strip_prefix(&name)?.strip_prefix(SET_ASIDE)?.parse::<u32>().ok()
        });
        numbers.extend(number);
    }
    numbers.sort_unstable();
    let aside = |number: &u32| folder.join(format!("{name}{SET_ASIDE}{number}"));
    let excess = (numbers.len() + 1).saturating_sub(SET_ASIDE_MAX);
    for oldest in numbers.iter().take(excess) {
        fs::remove_dir_all(aside(oldest))?;
    }
    fs::rename(path, aside(&numbers.last().map_or(1, |last| last.saturating_add(1))))
}

/// Bounds a scan; `None` if no key can lie in it. RocksDB's lower bound is inclusive, its upper
/// one exclusive; the next key after any is that key and a zero byte.
pub(super) fn range(scan: &Scan) -> Option<ReadOptions> {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let next = |key: &Vec<u8>| [key.as_slice(), &[0]].concat();
    let from = match &scan.from {
        Included(key) => Some(key.clone()),
        Excluded(key) => Some(next(key)),
        Unbounded => None,
    };
    let to = match &scan.to {
        Included(key) => Some(next(key)),
        Excluded(key) => Some(key.clone()),
        Unbounded => None,
    };
    if let Some(to) = &to
        && from.as_deref().unwrap_or_default() >= to.as_slice()
    {
        return None;
    }
    let mut options = ReadOptions::default();
    if let Some(from) = from {
        options.set_iterate_lower_bound(from);
    }
    if let Some(to) = to {
        options.set_iterate_upper_bound(to);
    }
    Some(options)
}
