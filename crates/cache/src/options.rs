//! What a cache is told when it is made.

use std::time::Duration;

/// Sum of the weights of all entries unless told otherwise, bytes.
pub const DEFAULT_CAPACITY_BYTES: u64 = 64 << 20;

/// Bounds of a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheOptions {
    /// Sum of the weights of all entries, bytes. 0 = nothing is kept.
    pub capacity_bytes: u64,
    /// How old an answer about the head of a table may be for readers
    /// ([`CachedBackend::reader`](crate::CachedBackend::reader)), counted from before the question was
    /// sent; none = the database is asked each time. Entries end up to a fifth earlier, each at another
    /// moment, so that those of many tables and processes do not all end at once.
    pub head_max_staleness: Option<Duration>,
    /// How long an entry may be kept, whether or not it is used; none = as long as there is room. Up to
    /// a fifth earlier, as above. What an entry says never becomes wrong: this only gives memory back.
    pub ttl: Option<Duration>,
    /// How long an entry is kept that nobody uses; none = as long as there is room.
    pub idle: Option<Duration>,
}

impl Default for CacheOptions {
    fn default() -> Self {
        CacheOptions {
            capacity_bytes: DEFAULT_CAPACITY_BYTES,
            head_max_staleness: None,
            ttl: None,
            idle: Some(Duration::from_secs(3_600)),
        }
    }
}
