//! What all views of one cache share.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use deltalakedb_catalog_core::backend::{AppRows, AppState};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, Version};
use deltalakedb_catalog_core::model::{FileCursor, SkipPage, Snapshot, TableRecord, TableState};
use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::entries::{Entry, Key, Seen, weight};
use crate::flight::Flights;
use crate::heads::{Heads, Jitter};
use crate::lists::{FileList, FilePage};
use crate::options::CacheOptions;
use crate::stats::{CacheKind, CacheStats, Counters};

/// Arguments of `list_files`.
pub(crate) type PageKey = (TableId, Version, Option<FileCursor>, usize);

/// Entries, and the questions about what never changes that are on their way.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) cache: Cache<Key, Entry>,
    pub(crate) heads: Heads,
    pub(crate) counters: Arc<Counters>,
    pub(crate) capacity_bytes: u64,
    /// What readers are allowed.
    pub(crate) max_staleness: Option<Duration>,
    /// Held while the lists of a table are replaced by newer ones.
    pub(crate) replacing: Mutex<()>,
    pub(crate) pages: Flights<PageKey, FilePage>,
    pub(crate) app: Flights<(TableId, Version, AppRows), AppState>,
    pub(crate) skip: Flights<(TableId, Vec<SkipPage>), Vec<Option<Bytes>>>,
    pub(crate) refreshes: Flights<(TableId, Version), Option<Arc<FileList>>>,
}

/// Ends entries after their time, each at another moment.
struct Ttl {
    ttl: Option<Duration>,
    jitter: Jitter,
}

impl Expiry<Key, Entry> for Ttl {
    fn expire_after_create(&self, _: &Key, _: &Entry, _: Instant) -> Option<Duration> {
        self.ttl.map(|ttl| self.jitter.of(ttl))
    }

    fn expire_after_update(
        &self,
        _: &Key,
        _: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.ttl.map(|ttl| self.jitter.of(ttl))
    }
}

impl State {
    pub(crate) fn new(options: &CacheOptions) -> Self {
        let counters = Arc::new(Counters::default());
        let evictions = Arc::clone(&counters);
        let mut cache = Cache::builder()
            .max_capacity(options.capacity_bytes)
            // What was just read is let in, whatever it pushes out: a list that was brought up to date, or
            // a head, must not be turned away because it is new.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|key, entry| u32::try_from(weight(key, entry)).unwrap_or(u32::MAX))
            .expire_after(Ttl { ttl: options.ttl, jitter: Jitter::default() })
            .eviction_listener(move |_, _, cause| {
                if cause.was_evicted() {
                    evictions.evictions.count();
                }
            });
        if let Some(idle) = options.idle {
            cache = cache.time_to_idle(idle);
        }
        let cache = cache.build();
        let heads = Heads::new(cache.clone(), options.head_max_staleness.is_some());
        State {
            cache,
            heads,
            counters,
            capacity_bytes: options.capacity_bytes,
            max_staleness: options.head_max_staleness,
            replacing: Mutex::default(),
            pages: Flights::default(),
            app: Flights::default(),
            skip: Flights::default(),
            refreshes: Flights::default(),
        }
    }

    pub(crate) fn stats(&self) -> CacheStats {
        self.cache.run_pending_tasks();
        let kinds = self.counters.kinds();
        CacheStats {
            hits: kinds.iter().map(|kind| kind.hits).sum(),
            misses: kinds.iter().map(|kind| kind.misses).sum(),
            kinds,
            stale_hits: self.counters.stale_hits.get(),
            joined: self.counters.joined.get(),
            refreshed: self.counters.refreshed.get(),
            evictions: self.counters.evictions.get(),
            entries: self.cache.entry_count(),
            weight_bytes: self.cache.weighted_size(),
            capacity_bytes: self.capacity_bytes,
        }
    }

    /// Counts a question that might have been answered from here.
    pub(crate) fn asked<T>(&self, kind: CacheKind, found: Option<T>) -> Option<T> {
        self.counters.asked(kind, found.is_some());
        found
    }

    /// What is known of the table, if this version of it never changes: it is there, and was so while the
    /// table was active. What is read of another one must not be kept: today's answer about a version of
    /// tomorrow, or of an import that is not finished. To be asked *before* the question is sent.
    pub(crate) fn known(&self, table_id: TableId, version: Version) -> Option<Seen> {
        self.seen(table_id).filter(|seen| seen.covers(version))
    }

    pub(crate) fn seen(&self, table_id: TableId) -> Option<Seen> {
        match self.cache.get(&Key::Seen(table_id)) {
            Some(Entry::Seen(seen)) => Some(seen),
            _ => None,
        }
    }

    /// Remembers which versions a table has.
    pub(crate) fn saw(&self, record: &TableRecord, files: Option<u64>) {
        let Some(head) = record.head.filter(|_| record.state == TableState::Active) else { return };
        let before = self.seen(record.id);
        let seen = Seen {
            base: record.base_version,
            head: before.map_or(head, |seen| seen.head.max(head)),
            files: files.or(before.and_then(|seen| seen.files)),
        };
        if before != Some(seen) {
            self.cache.insert(Key::Seen(record.id), Entry::Seen(seen));
        }
    }

    /// Keeps a snapshot for readers who may be told an older head.
    pub(crate) fn keep_snapshot(&self, snapshot: &Snapshot) {
        let key = Key::Snapshot(snapshot.table.id, snapshot.version);
        if self.heads.wanted()
            && snapshot.table.state == TableState::Active
            && !self.cache.contains_key(&key)
        {
            self.cache.insert(key, Entry::Snapshot(Arc::new(snapshot.clone())));
        }
    }

    /// A snapshot, if the table's row is not older than that and the rest is here.
    pub(crate) fn snapshot(&self, table: &TableRef, at: At, age: Duration) -> Option<Snapshot> {
        let row = self.heads.fresh(table, age)?;
        let head = row.head?;
        let version = match at {
            At::Head => head,
            At::Version(version) if row.base_version <= version && version <= head => version,
            At::Version(_) | At::Timestamp(_) => return None,
        };
        match self.cache.get(&Key::Snapshot(row.id, version)) {
            Some(Entry::Snapshot(kept)) => {
                let Snapshot {
                    table: _,
                    version,
                    timestamp,
                    ref protocol,
                    protocol_version,
                    ref metadata,
                    metadata_version,
                    num_files,
                    size_bytes,
                } = *kept;
                Some(Snapshot {
                    table: TableRecord::clone(&row),
                    version,
                    timestamp,
                    protocol: protocol.clone(),
                    protocol_version,
                    metadata: metadata.clone(),
                    metadata_version,
                    num_files,
                    size_bytes,
                })
            }
            _ => None,
        }
    }
}
