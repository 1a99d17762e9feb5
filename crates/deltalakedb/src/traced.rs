//! Calls to the database, counted and logged: for those who want to see what a program does.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;

use deltalakedb_catalog_core::action::{DomainMetadata, Txn};
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

/// Calls of all catalogs of this process that are traced.
static CALLS: AtomicU64 = AtomicU64::new(0);
/// Those of them that the database was too busy for: they are made again.
static BUSY: AtomicU64 = AtomicU64::new(0);

/// What was counted since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Calls to databases.
    pub database_calls: u64,
    /// Those of them that were too busy, and are made again.
    pub retries: u64,
    /// Calls to the object stores (or folders) of published logs.
    pub store_calls: u64,
}

/// Calls so far, of catalogs that were opened while `info` was logged; others are not counted.
#[must_use]
pub fn counts() -> Counts {
    Counts {
        database_calls: CALLS.load(Ordering::Relaxed),
        retries: BUSY.load(Ordering::Relaxed),
        store_calls: deltalakedb_mirror::sink::traced_calls(),
    }
}

/// Around a backend, if somebody reads the log; else the backend itself.
pub(crate) fn traced(inner: Arc<dyn CatalogBackend>) -> Arc<dyn CatalogBackend> {
    if tracing::enabled!(tracing::Level::INFO) { Arc::new(TracedBackend { inner }) } else { inner }
}

struct TracedBackend {
    inner: Arc<dyn CatalogBackend>,
}

impl TracedBackend {
    async fn run<T>(
        &self,
        call: &str,
        answer: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let answer = answer.await;
        let ms = start.elapsed().as_secs_f64() * 1_000.0;
        match &answer {
            Ok(_) => tracing::debug!(call, ms, "database"),
            Err(error) => {
                if error.is_retryable() {
                    BUSY.fetch_add(1, Ordering::Relaxed);
                }
                tracing::debug!(call, ms, %error, "database");
            }
        }
        answer
    }
}

impl fmt::Debug for TracedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Every method is written out: a new one of the trait does not compile until it is here.
#[async_trait]
impl CatalogBackend for TracedBackend {
    async fn info(&self) -> Result<BackendInfo> {
        self.run("info", self.inner.info()).await
    }

    async fn migrate(&self, now: TimestampMs) -> Result<()> {
        self.run("migrate", self.inner.migrate(now)).await
    }

    async fn get_table(&self, table: &TableRef) -> Result<Option<TableRecord>> {
        self.run("get_table", self.inner.get_table(table)).await
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        self.run("list_tables", self.inner.list_tables(filter, after, limit)).await
    }

    async fn drop_table(&self, table_id: TableId, now: TimestampMs) -> Result<TableRecord> {
        self.run("drop_table", self.inner.drop_table(table_id, now)).await
    }

    async fn undrop_table(&self, table_id: TableId, name: &TableName) -> Result<TableRecord> {
        self.run("undrop_table", self.inner.undrop_table(table_id, name)).await
    }

    async fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot> {
        self.run("snapshot", self.inner.snapshot(table, at)).await
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<FileRecord, FileCursor>> {
        self.run("list_files", self.inner.list_files(table_id, version, after, limit)).await
    }

    fn note_change(&self, table_id: TableId) {
        self.inner.note_change(table_id);
    }

    async fn files_end(
        &self,
        table_id: TableId,
        version: Version,
        after: FileCursor,
        limit: usize,
    ) -> Result<Option<FileCursor>> {
        self.run("files_end", self.inner.files_end(table_id, version, after, limit)).await
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> Result<Vec<FileRecord>> {
        self.run("files_at", self.inner.files_at(table_id, version, cursors)).await
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<TombstoneRecord, FileCursor>> {
        self.run(
            "list_tombstones",
            self.inner.list_tombstones(table_id, version, deleted_after, after, limit),
        )
        .await
    }

    async fn app_transactions(&self, table_id: TableId, version: Version) -> Result<Vec<Txn>> {
        self.run("app_transactions", self.inner.app_transactions(table_id, version)).await
    }

    async fn domain_metadata(
        &self,
        table_id: TableId,
        version: Version,
    ) -> Result<Vec<DomainMetadata>> {
        self.run("domain_metadata", self.inner.domain_metadata(table_id, version)).await
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>> {
        self.run("list_commits", self.inner.list_commits(table_id, filter, before, limit)).await
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Result<Vec<(CommitRecord, CommitBody)>> {
        self.run("read_bodies", self.inner.read_bodies(table_id, from, to, limit)).await
    }

    async fn commit(&self, request: CommitRequest) -> Result<CommitOutcome> {
        self.run("commit", self.inner.commit(request)).await
    }

    async fn resolve_token(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        self.run("resolve_token", self.inner.resolve_token(token)).await
    }

    async fn skip_index(&self, table_id: TableId) -> Result<SkipIndex> {
        self.run("skip_index", self.inner.skip_index(table_id)).await
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> Result<Vec<Option<Bytes>>> {
        self.run("skip_pages", self.inner.skip_pages(table_id, pages)).await
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> Result<bool> {
        let call = self.inner.skip_replace(table_id, generation, remove, segment);
        self.run("skip_replace", call).await
    }

    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        self.run("import_begin", self.inner.import_begin(table, base, base_from_json, now)).await
    }

    async fn import_base(
        &self,
        table_id: TableId,
        skip_files: u64,
        skip_tombstones: u64,
        chunk: BaseChunk,
        tail: Option<BaseTail>,
    ) -> Result<ImportProgress> {
        self.run(
            "import_base",
            self.inner.import_base(table_id, skip_files, skip_tombstones, chunk, tail),
        )
        .await
    }

    async fn import_commits(
        &self,
        table_id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> Result<ImportProgress> {
        self.run("import_commits", self.inner.import_commits(table_id, commits)).await
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.run("import_finish", self.inner.import_finish(table_id, end, now)).await
    }

    async fn import_abort(&self, table_id: TableId) -> Result<()> {
        self.run("import_abort", self.inner.import_abort(table_id)).await
    }

    async fn mirror_claim(&self, request: &ClaimRequest) -> Result<Vec<MirrorTask>> {
        self.run("mirror_claim", self.inner.mirror_claim(request)).await
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> Result<Option<MirrorLease>> {
        self.run("mirror_renew", self.inner.mirror_renew(lease, now, lease_ms)).await
    }

    async fn mirror_complete(&self, lease: &MirrorLease, done: &[Published]) -> Result<bool> {
        self.run("mirror_complete", self.inner.mirror_complete(lease, done)).await
    }

    async fn mirror_fail(&self, lease: &MirrorLease, failure: &PublishFailure) -> Result<bool> {
        self.run("mirror_fail", self.inner.mirror_fail(lease, failure)).await
    }

    async fn mirror_release(&self, lease: &MirrorLease) -> Result<()> {
        self.run("mirror_release", self.inner.mirror_release(lease)).await
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> Result<Page<MirrorRow, (TableId, Version)>> {
        self.run("mirror_rows", self.inner.mirror_rows(table_id, state, after, limit)).await
    }

    async fn mirror_retry(&self, table_id: TableId, now: TimestampMs) -> Result<u64> {
        self.run("mirror_retry", self.inner.mirror_retry(table_id, now)).await
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.run("mirror_set_mode", self.inner.mirror_set_mode(table_id, mode, now)).await
    }
}
