//! Committed state, in RocksDB and in memory.
