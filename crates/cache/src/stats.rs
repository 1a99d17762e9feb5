//! What a cache has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a cache has done since it was made, and what is in it. The views of one cache share it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Questions that were answered without the database.
    pub hits: u64,
    /// Questions that the database was asked, although their answer might have been here.
    pub misses: u64,
    /// Those of the hits that are about the head of a table: answered within the staleness allowed.
    pub stale_hits: u64,
    /// Questions that were answered by what another caller asked the database at the same time.
    pub joined: u64,
    /// File lists that were brought up to date with what was added and removed since their version.
    pub refreshed: u64,
    /// Entries that had to go, because the cache was full or their time was over.
    pub evictions: u64,
    /// Entries.
    pub entries: u64,
    /// Sum of their weights, bytes (estimated).
    pub weight_bytes: u64,
}

impl std::ops::Add for CacheStats {
    type Output = CacheStats;

    fn add(self, other: CacheStats) -> CacheStats {
        CacheStats {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            stale_hits: self.stale_hits + other.stale_hits,
            joined: self.joined + other.joined,
            refreshed: self.refreshed + other.refreshed,
            evictions: self.evictions + other.evictions,
            entries: self.entries + other.entries,
            weight_bytes: self.weight_bytes + other.weight_bytes,
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) hits: Counter,
    pub(crate) misses: Counter,
    pub(crate) stale_hits: Counter,
    pub(crate) joined: Counter,
    pub(crate) refreshed: Counter,
    pub(crate) evictions: Counter,
}
