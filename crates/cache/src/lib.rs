//! An LRU of what never changes, as a wrapper that implements [`CatalogBackend`].
//!
//! The state of a table *at a version* is immutable, so entries need no invalidation and several
//! processes stay right without telling each other. Cached are: short file pages, application
//! transactions and domain metadata at a version, and pages of skipping indexes. Everything that moves (heads, table rows, the
//! outbox) goes straight to the database.
//!
//! Weights are estimates in bytes; the bound holds for their sum.
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::action::{Add, DomainMetadata, NullableMap, Txn};
use deltalakedb_catalog_core::backend::{
    BackendInfo, CatalogBackend, ClaimRequest, CommitFilter, CommitOutcome, CommitRequest,
    CommittedTable, ImportEnd, ImportProgress, ImportedCommit, MirrorLease, MirrorTask,
    PublishFailure, Published, TableFilter,
};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState,
    NewSkipSegment, NewTable, Page, SkipIndex, SkipPage, Snapshot, TableRecord, TombstoneRecord,
};
use moka::sync::Cache;

/// Sum of the weights of all entries, bytes.
pub const DEFAULT_CAPACITY_BYTES: u64 = 64 << 20;
/// Longer pages are streamed past the cache: copying them costs more than it saves.
const MAX_CACHED_PAGE: usize = 2_000;
/// Tables whose head is remembered.
const MAX_HEADS: u64 = 100_000;

type FilePage = Page<FileRecord, FileCursor>;

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Files(TableId, Version, Option<FileCursor>, usize),
    Txns(TableId, Version),
    Domains(TableId, Version),
    Skip(TableId, SkipPage),
}

#[derive(Debug, Clone)]
enum Entry {
    Files(Arc<FilePage>),
    Txns(Arc<Vec<Txn>>),
    Domains(Arc<Vec<DomainMetadata>>),
    Skip(Bytes),
}

/// What a cache has done since it was made, and what is in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Questions that were answered without the database.
    pub hits: u64,
    /// Questions that the database was asked, although their answer might have been here.
    pub misses: u64,
    /// Entries that had to go, because the cache was full.
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
            evictions: self.evictions + other.evictions,
            entries: self.entries + other.entries,
            weight_bytes: self.weight_bytes + other.weight_bytes,
        }
    }
}

#[derive(Debug, Default)]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    evictions: AtomicU64,
}

/// A backend with a cache in front.
#[derive(Debug)]
pub struct CachedBackend {
    inner: Arc<dyn CatalogBackend>,
    cache: Cache<Key, Entry>,
    counters: Arc<Counters>,
    /// Highest version seen of each table: a version that does not exist yet is never cached.
    heads: Cache<TableId, Version>,
}

impl CachedBackend {
    /// Wraps a backend with the default bound.
    #[must_use]
    pub fn new(inner: Arc<dyn CatalogBackend>) -> Self {
        Self::with_capacity(inner, DEFAULT_CAPACITY_BYTES)
    }

    /// Wraps a backend with a bound in bytes.
    #[must_use]
    pub fn with_capacity(inner: Arc<dyn CatalogBackend>, bytes: u64) -> Self {
        let counters = Arc::new(Counters::default());
        let evictions = Arc::clone(&counters);
        let cache = Cache::builder()
            .max_capacity(bytes)
            .weigher(|_, entry: &Entry| u32::try_from(weight(entry)).unwrap_or(u32::MAX))
            .eviction_listener(move |_, _, cause| {
                if cause.was_evicted() {
                    evictions.evictions.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build();
        CachedBackend { inner, cache, counters, heads: Cache::new(MAX_HEADS) }
    }

    fn get(&self, key: &Key) -> Option<Entry> {
        let found = self.cache.get(key);
        let counter = if found.is_some() { &self.counters.hits } else { &self.counters.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        found
    }

    fn saw(&self, table_id: TableId, version: Option<Version>) {
        if let Some(version) = version
            && self.heads.get(&table_id).is_none_or(|seen| seen < version)
        {
            self.heads.insert(table_id, version);
        }
    }

    fn keep(&self, table_id: TableId, version: Version, key: Key, entry: impl FnOnce() -> Entry) {
        if self.heads.get(&table_id).is_some_and(|seen| version <= seen) {
            self.cache.insert(key, entry());
        }
    }

    /// What it has done, and what is in it.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.cache.run_pending_tasks();
        CacheStats {
            hits: self.counters.hits.load(Ordering::Relaxed),
            misses: self.counters.misses.load(Ordering::Relaxed),
            evictions: self.counters.evictions.load(Ordering::Relaxed),
            entries: self.cache.entry_count(),
            weight_bytes: self.cache.weighted_size(),
        }
    }
}

fn weight(entry: &Entry) -> usize {
    let map = |m: &NullableMap| {
        m.iter().map(|(k, v)| 64 + k.len() + v.as_ref().map_or(0, String::len)).sum::<usize>()
    };
    let add = |a: &Add| {
        256 + a.path.len()
            + a.stats.as_ref().map_or(0, String::len)
            + map(&a.partition_values)
            + a.tags.as_ref().map_or(0, map)
    };
    64 + match entry {
        Entry::Files(page) => page.items.iter().map(|f| add(&f.add)).sum::<usize>(),
        Entry::Skip(bytes) => bytes.len(),
        Entry::Txns(txns) => txns.iter().map(|t| 64 + t.app_id.len()).sum(),
        Entry::Domains(domains) => {
            domains.iter().map(|d| 64 + d.domain.len() + d.configuration.len()).sum()
        }
    }
}

#[async_trait]
impl CatalogBackend for CachedBackend {
    async fn info(&self) -> Result<BackendInfo> {
        self.inner.info().await
    }

    async fn migrate(&self, now: TimestampMs) -> Result<()> {
        self.inner.migrate(now).await
    }

    fn note_change(&self, table_id: TableId) {
        self.inner.note_change(table_id);
    }

    async fn get_table(&self, table: &TableRef) -> Result<Option<TableRecord>> {
        self.inner.get_table(table).await
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        self.inner.list_tables(filter, after, limit).await
    }

    async fn drop_table(&self, table_id: TableId, now: TimestampMs) -> Result<TableRecord> {
        self.inner.drop_table(table_id, now).await
    }

    async fn undrop_table(&self, table_id: TableId, name: &TableName) -> Result<TableRecord> {
        self.inner.undrop_table(table_id, name).await
    }

    async fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot> {
        let snapshot = self.inner.snapshot(table, at).await?;
        self.saw(snapshot.table.id, snapshot.table.head);
        Ok(snapshot)
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<FilePage> {
        if limit > MAX_CACHED_PAGE {
            return self.inner.list_files(table_id, version, after, limit).await;
        }
        let key = Key::Files(table_id, version, after, limit);
        if let Some(Entry::Files(page)) = self.get(&key) {
            return Ok(FilePage::clone(&page));
        }
        let page = self.inner.list_files(table_id, version, after, limit).await?;
        self.keep(table_id, version, key, || Entry::Files(Arc::new(page.clone())));
        Ok(page)
    }

    async fn files_end(
        &self,
        table_id: TableId,
        version: Version,
        after: FileCursor,
        limit: usize,
    ) -> Result<Option<FileCursor>> {
        self.inner.files_end(table_id, version, after, limit).await
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> Result<Vec<FileRecord>> {
        self.inner.files_at(table_id, version, cursors).await
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<TombstoneRecord, FileCursor>> {
        self.inner.list_tombstones(table_id, version, deleted_after, after, limit).await
    }

    async fn app_transactions(&self, table_id: TableId, version: Version) -> Result<Vec<Txn>> {
        let key = Key::Txns(table_id, version);
        if let Some(Entry::Txns(txns)) = self.get(&key) {
            return Ok(txns.to_vec());
        }
        let txns = self.inner.app_transactions(table_id, version).await?;
        self.keep(table_id, version, key, || Entry::Txns(Arc::new(txns.clone())));
        Ok(txns)
    }

    async fn domain_metadata(
        &self,
        table_id: TableId,
        version: Version,
    ) -> Result<Vec<DomainMetadata>> {
        let key = Key::Domains(table_id, version);
        if let Some(Entry::Domains(domains)) = self.get(&key) {
            return Ok(domains.to_vec());
        }
        let domains = self.inner.domain_metadata(table_id, version).await?;
        self.keep(table_id, version, key, || Entry::Domains(Arc::new(domains.clone())));
        Ok(domains)
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>> {
        self.inner.list_commits(table_id, filter, before, limit).await
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Result<Vec<(CommitRecord, CommitBody)>> {
        self.inner.read_bodies(table_id, from, to, limit).await
    }

    async fn commit(&self, request: CommitRequest) -> Result<CommitOutcome> {
        self.inner.commit(request).await
    }

    async fn resolve_token(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        self.inner.resolve_token(token).await
    }

    async fn skip_index(&self, table_id: TableId) -> Result<SkipIndex> {
        self.inner.skip_index(table_id).await
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> Result<Vec<Option<Bytes>>> {
        let key = |page: &SkipPage| Key::Skip(table_id, *page);
        let mut found: Vec<Option<Bytes>> = pages
            .iter()
            .map(|page| match self.get(&key(page)) {
                Some(Entry::Skip(bytes)) => Some(bytes),
                _ => None,
            })
            .collect();
        let pairs = pages.iter().zip(&found);
        let wanted: Vec<SkipPage> =
            pairs.filter(|(_, bytes)| bytes.is_none()).map(|(page, _)| *page).collect();
        if !wanted.is_empty() {
            let read = self.inner.skip_pages(table_id, &wanted).await?;
            let gaps = found.iter_mut().filter(|bytes| bytes.is_none());
            for ((gap, page), bytes) in gaps.zip(&wanted).zip(read) {
                if let Some(bytes) = &bytes {
                    self.cache.insert(key(page), Entry::Skip(bytes.clone()));
                }
                *gap = bytes;
            }
        }
        Ok(found)
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> Result<bool> {
        self.inner.skip_replace(table_id, generation, remove, segment).await
    }

    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        self.inner.import_begin(table, base, base_from_json, now).await
    }

    async fn import_base(
        &self,
        table_id: TableId,
        skip_files: u64,
        skip_tombstones: u64,
        chunk: BaseChunk,
        tail: Option<BaseTail>,
    ) -> Result<ImportProgress> {
        self.inner.import_base(table_id, skip_files, skip_tombstones, chunk, tail).await
    }

    async fn import_commits(
        &self,
        table_id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> Result<ImportProgress> {
        self.inner.import_commits(table_id, commits).await
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.inner.import_finish(table_id, end, now).await
    }

    async fn import_abort(&self, table_id: TableId) -> Result<()> {
        self.inner.import_abort(table_id).await
    }

    async fn mirror_claim(&self, request: &ClaimRequest) -> Result<Vec<MirrorTask>> {
        self.inner.mirror_claim(request).await
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> Result<Option<MirrorLease>> {
        self.inner.mirror_renew(lease, now, lease_ms).await
    }

    async fn mirror_complete(&self, lease: &MirrorLease, done: &[Published]) -> Result<bool> {
        self.inner.mirror_complete(lease, done).await
    }

    async fn mirror_fail(&self, lease: &MirrorLease, failure: &PublishFailure) -> Result<bool> {
        self.inner.mirror_fail(lease, failure).await
    }

    async fn mirror_release(&self, lease: &MirrorLease) -> Result<()> {
        self.inner.mirror_release(lease).await
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> Result<Page<MirrorRow, (TableId, Version)>> {
        self.inner.mirror_rows(table_id, state, after, limit).await
    }

    async fn mirror_retry(&self, table_id: TableId, now: TimestampMs) -> Result<u64> {
        self.inner.mirror_retry(table_id, now).await
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.inner.mirror_set_mode(table_id, mode, now).await
    }
}

#[cfg(test)]
mod tests;
