//! What the RocksDBs of all tasks share: memory, threads, options.
//!
//! One cache holds blocks, indices and filters of every database, and memtables are charged to it
//! ([`MEMTABLE_SHARE`] of it at most), so that its capacity is the budget of the whole process.
//! RocksDB flushes the memtable of whoever writes when the common limit is near; with many tasks
//! of which few write, that one is small and the others never shrink; and it lets writers go on
//! while the disk is slower than they are. So [`Resources::balance`] flushes the databases that hold
//! most before that happens, and holds up the writer that went beyond the limit.
//!
//! # The log of RocksDB
//!
//! Writes go through its write-ahead log, without sync. Measured with 300 MB of state in 8 tasks,
//! killed when 27 MB (200,000 changes) were in memtables:
//!
//! | | with the log | without |
//! |---|---|---|
//! | a write, flushes and compaction included, CPU | 2.9 µs | 2.6 µs |
//! | opening after SIGKILL, CPU | 0.21-0.27 s | 0.05 s |
//! | then to restore from the changelog | nothing | 200,000 changes: 0.5 s, and Kafka's time |
//!
//! Without it, a restart costs more in total, needs the brokers for it, and the position of a task
//! that writes seldom would grow old, since nothing flushes its memtable. A tenth of a write is
//! cheap for that. Without sync, since only a machine's crash loses what was not synced, and then
//! the log ends early, for all column families at once: an older position with its state.

use std::{
    cmp::Reverse,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, DBCompressionType, DBWithThreadMode, Env,
    FlushOptions, LogLevel, LruCacheOptions, MultiThreaded, Options, WriteBufferManager,
    WriteOptions, properties,
    statistics::{StatsLevel, Ticker},
};

use crate::lock::Held;

/// A database whose column families can be changed while others use it.
pub(super) type Db = DBWithThreadMode<MultiThreaded>;

/// Memtables may take one part in this many of the budget.
const MEMTABLE_SHARE: usize = 4;
/// A single memtable is never larger: it bounds what is replayed after a crash.
const MEMTABLE_BYTES_MAX: usize = 16 << 20;
/// How much memory a memtable takes at a time. Small, because each of hundreds of memtables has
/// one such piece even when it is empty.
const ARENA_BLOCK_BYTES: usize = 16 << 10;
/// Threads that flush and compact, for all tasks together.
const BACKGROUND_THREADS: i32 = 2;
/// How many files each database keeps open. With files of [`FILE_BYTES`] a gigabyte has 16.
const OPEN_FILES_MAX: i32 = 64;
const FILE_BYTES: u64 = 64 << 20;
/// A file is compacted early if so many of a window of its entries are deletes, or that part of all.
const DELETED_OF_WINDOW: (usize, usize, f64) = (1 << 14, 1 << 13, 0.5);
const BLOCK_BYTES: usize = 4 << 10;
const BLOOM_BITS_PER_KEY: f64 = 10.0;
/// A cache this size has shards large enough for the indices and filters of such files.
const CACHE_SHARD_BITS: i32 = 3;

/// What all databases of a process share.
pub(super) struct Resources {
    cache: Cache,
    memtables: WriteBufferManager,
    env: Env,
    /// Every open database. Whoever uses one of them beside its owner holds this lock meanwhile,
    /// so that an owner that takes its database out of here is alone with it.
    open: Mutex<Vec<Weak<Families>>>,
    written_since_balance: AtomicUsize,
    /// What all options begin as: one object counts for all databases, since each takes almost a
    /// megabyte.
    counted: Options,
}

/// A database and the names of all its column families.
pub(super) struct Families {
    pub(super) db: Db,
    pub(super) names: Vec<String>,
}

/// An open database, known to [`Resources`]. It is closed when this is dropped.
pub(super) struct OpenDb {
    families: Option<Arc<Families>>,
    resources: Arc<Resources>,
}

impl Resources {
    pub(super) fn new(memory_bytes_max: usize) -> Result<Self, rocksdb::Error> {
        let mut lru = LruCacheOptions::default();
        lru.set_capacity(memory_bytes_max);
        lru.set_num_shard_bits(CACHE_SHARD_BITS);
        let cache = Cache::new_lru_cache_opts(&lru);
        let memtables = WriteBufferManager::new_write_buffer_manager_with_cache(
            memory_bytes_max / MEMTABLE_SHARE,
            false,
            cache.clone(),
        );
        let mut env = Env::new()?;
        env.set_background_threads(BACKGROUND_THREADS);
        env.set_high_priority_background_threads(1);
        Ok(Self {
            cache,
            memtables,
            env,
            open: Mutex::default(),
            written_since_balance: AtomicUsize::new(0),
            counted: counted(),
        })
    }

    /// Bytes of blocks, indices, filters and memtables.
    pub(super) fn cache_bytes(&self) -> usize {
        self.cache.get_usage()
    }

    /// Bytes of memtables.
    pub(super) fn memtable_bytes(&self) -> usize {
        self.memtables.get_usage()
    }

    /// How often blocks were found in the cache, and not, since the process started.
    pub(super) fn cache_hits_and_misses(&self) -> [u64; 2] {
        [Ticker::BlockCacheHit, Ticker::BlockCacheMiss]
            .map(|kind| self.counted.get_ticker_count(kind))
    }

    /// The options of a database and of each of its column families.
    ///
    /// All column families are flushed together (`atomic_flush`): the position is in one of its
    /// own, and one that is flushed late would hold back the log of all others.
    pub(super) fn options(&self) -> Result<Options, rocksdb::Error> {
        // Replayed writes stay in the memtable: to flush them would delay the start.
        let mut options =
            self.counted.clone().get_options_from_string("avoid_flush_during_recovery=true")?;
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_env(&self.env);
        options.set_atomic_flush(true);
        options.set_paranoid_checks(true);
        options.set_write_buffer_manager(&self.memtables);
        options.set_write_buffer_size(
            (self.memtables.get_buffer_size() / 2).clamp(1 << 20, MEMTABLE_BYTES_MAX),
        );
        options.set_max_write_buffer_number(2);
        options.set_arena_block_size(ARENA_BLOCK_BYTES);
        options.set_max_background_jobs(BACKGROUND_THREADS);
        options.set_max_open_files(OPEN_FILES_MAX);
        options.set_max_file_opening_threads(1);
        options.set_table_cache_num_shard_bits(1);
        options.set_skip_stats_update_on_db_open(true);
        options.set_target_file_size_base(FILE_BYTES);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_manifest_preallocation_size(64 << 10);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        options.set_log_level(LogLevel::Warn);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(1 << 20);
        options.set_block_based_table_factory(&self.tables());
        // A range whose entries expired one after another is not read through for long.
        let (window, deleted, ratio) = DELETED_OF_WINDOW;
        options.add_compact_on_deletion_collector_factory(window, deleted, ratio);
        Ok(options)
    }

    fn tables(&self) -> BlockBasedOptions {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(&self.cache);
        tables.set_cache_index_and_filter_blocks(true);
        tables.set_cache_index_and_filter_blocks_with_high_priority(true);
        tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
        tables.set_block_size(BLOCK_BYTES);
        tables.set_bloom_filter(BLOOM_BITS_PER_KEY, false);
        tables.set_optimize_filters_for_memory(true);
        tables.set_format_version(6);
        tables
    }

    /// How changes are written: through the log, without waiting for the disk.
    pub(super) fn write_options() -> WriteOptions {
        WriteOptions::default()
    }

    /// Makes a database known, for [`balance`](Self::balance).
    pub(super) fn register(self: &Arc<Self>, families: Families) -> OpenDb {
        let families = Arc::new(families);
        self.open().push(Arc::downgrade(&families));
        OpenDb { families: Some(families), resources: Arc::clone(self) }
    }

    /// After `bytes` were written somewhere: has the largest memtables flushed if all together
    /// come near their limit, and waits for it if they are beyond it. Looks only once for each
    /// sixteenth of the limit written.
    pub(super) fn balance(&self, bytes: usize) -> Result<(), rocksdb::Error> {
        let limit = self.memtables.get_buffer_size();
        let written = self.written_since_balance.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if written < limit / 16 {
            return Ok(());
        }
        self.written_since_balance.store(0, Ordering::Relaxed);
        let usage = self.memtables.get_usage();
        if usage < limit / 4 * 3 {
            return Ok(());
        }
        let wait = usage > limit;
        let open = self.open();
        let mut largest: Vec<_> = open
            .iter()
            .filter_map(Weak::upgrade)
            .map(|families| (families.memtable_bytes(wait), families))
            .collect();
        largest.sort_unstable_by_key(|(bytes, _)| Reverse(*bytes));
        let mut flushed = 0;
        for (bytes, families) in largest {
            let enough = match wait {
                true => self.memtables.get_usage() <= limit,
                false => flushed >= limit / 8,
            };
            if enough || bytes <= families.names.len() * ARENA_BLOCK_BYTES {
                break;
            }
            families.flush(wait)?;
            flushed += bytes;
        }
        Ok(())
    }

    fn open(&self) -> MutexGuard<'_, Vec<Weak<Families>>> {
        self.open.held()
    }
}

/// Options whose databases are counted together; counters alone, so that no clock is read.
fn counted() -> Options {
    let mut options = Options::default();
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    options
}

impl OpenDb {
    /// For those who read it beside its owner.
    pub(super) fn weak(&self) -> Weak<Families> {
        self.families.as_ref().map(Arc::downgrade).unwrap_or_default()
    }
}

impl std::ops::Deref for OpenDb {
    type Target = Families;

    fn deref(&self) -> &Families {
        self.families.as_ref().expect("a database is there until it is dropped")
    }
}

impl Drop for OpenDb {
    fn drop(&mut self) {
        if let Some(families) = self.families.take() {
            let mut open = self.resources.open();
            open.retain(|other| !other.ptr_eq(&Arc::downgrade(&families)));
            drop(open);
            // Readers hold it for one bounded call: it is closed when this returns.
            let mut families = families;
            while let Err(shared) = Arc::try_unwrap(families) {
                families = shared;
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    }
}

impl Families {
    pub(super) fn family(&self, name: &str) -> Arc<BoundColumnFamily<'_>> {
        self.db.cf_handle(name).expect("a column family is there until it is dropped")
    }

    /// Bytes of a column family, in files and in memory, and roughly how many keys it has.
    pub(super) fn size(&self, name: &str) -> Option<(u64, u64)> {
        let family = self.db.cf_handle(name)?;
        let value = |property| self.db.property_int_value_cf(&family, property).ok().flatten();
        let bytes = value(properties::LIVE_SST_FILES_SIZE)?
            + value(properties::CUR_SIZE_ALL_MEM_TABLES).unwrap_or(0);
        Some((bytes, value(properties::ESTIMATE_NUM_KEYS).unwrap_or(0)))
    }

    /// Writes all memtables into files, together; waits for it or not.
    pub(super) fn flush(&self, wait: bool) -> Result<(), rocksdb::Error> {
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        let families: Vec<_> = self.names.iter().filter_map(|n| self.db.cf_handle(n)).collect();
        let families: Vec<_> = families.iter().collect();
        self.db.flush_cfs_opt(&families, &options)
    }

    /// What the memtables take in memory: those written to now, or also those being flushed.
    fn memtable_bytes(&self, being_flushed_too: bool) -> usize {
        let property = match being_flushed_too {
            true => properties::CUR_SIZE_ALL_MEM_TABLES,
            false => properties::CUR_SIZE_ACTIVE_MEM_TABLE,
        };
        let bytes = |name: &String| {
            let family = self.db.cf_handle(name)?;
            self.db.property_int_value_cf(&family, property).ok()?
        };
        let bytes: u64 = self.names.iter().filter_map(bytes).sum();
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}
