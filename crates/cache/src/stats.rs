//! What a cache has done.

use std::sync::atomic::{AtomicU64, Ordering};

/// What questions are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// Heads of tables.
    Heads,
    /// Lists of files.
    Files,
    /// Application transactions and domain metadata.
    Apps,
    /// Pages of skipping indexes.
    Index,
}

impl CacheKind {
    /// All of them.
    pub const ALL: [CacheKind; 4] =
        [CacheKind::Heads, CacheKind::Files, CacheKind::Apps, CacheKind::Index];

    /// As it is in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            CacheKind::Heads => "heads",
            CacheKind::Files => "files",
            CacheKind::Apps => "apps",
            CacheKind::Index => "index",
        }
    }
}

/// Questions of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct KindStats {
    /// Those that were answered without the database.
    pub hits: u64,
    /// Those that the database was asked.
    pub misses: u64,
}

/// What a cache has done since it was made, and what is in it. The views of one cache share it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
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
    /// Most that they may weigh, bytes.
    pub capacity_bytes: u64,
    /// Hits and misses, in the order of [`CacheKind::ALL`].
    pub kinds: [KindStats; 4],
}

impl CacheStats {
    /// Which part of the questions was answered without the database, `0.0..=1.0`; none before the first one.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let asked = self.hits.saturating_add(self.misses);
        // Digits beyond those of a double say nothing in a ratio.
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        (asked > 0).then(|| self.hits as f64 / asked as f64)
    }
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
            capacity_bytes: self.capacity_bytes + other.capacity_bytes,
            kinds: [0, 1, 2, 3].map(|kind: usize| KindStats {
                hits: self.kinds[kind].hits + other.kinds[kind].hits,
                misses: self.kinds[kind].misses + other.kinds[kind].misses,
            }),
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
    hits: [Counter; 4],
    misses: [Counter; 4],
    pub(crate) stale_hits: Counter,
    pub(crate) joined: Counter,
    pub(crate) refreshed: Counter,
    pub(crate) evictions: Counter,
}

impl Counters {
    /// Counts a question that was answered from here, or not.
    pub(crate) fn asked(&self, kind: CacheKind, found: bool) {
        let of = if found { &self.hits } else { &self.misses };
        if let Some(counter) = of.get(kind as usize) {
            counter.count();
        }
    }

    pub(crate) fn kinds(&self) -> [KindStats; 4] {
        [0, 1, 2, 3].map(|kind: usize| KindStats {
            hits: self.hits[kind].get(),
            misses: self.misses[kind].get(),
        })
    }
}
