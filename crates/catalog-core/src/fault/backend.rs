//! A backend whose calls fail on command.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Call, Director, Fault};
use crate::action::{DomainMetadata, Txn};
use crate::backend::{
    BackendInfo, CatalogBackend, ClaimRequest, CommitFilter, CommitOutcome, CommitRequest,
    CommittedTable, ImportEnd, ImportProgress, ImportedCommit, MirrorLease, MirrorTask,
    PublishFailure, Published, TableFilter,
};
use crate::commit::CommitBody;
use crate::error::Result;
use crate::ids::{At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version};
use crate::model::{
    BaseChunk, BaseTail, CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState,
    NewSkipSegment, NewTable, Page, SkipIndex, SkipPage, Snapshot, TableRecord, TombstoneRecord,
};

/// A method of [`CatalogBackend`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// [`CatalogBackend::info`].
    Info,
    /// [`CatalogBackend::migrate`].
    Migrate,
    /// [`CatalogBackend::get_table`].
    GetTable,
    /// [`CatalogBackend::list_tables`].
    ListTables,
    /// [`CatalogBackend::drop_table`].
    DropTable,
    /// [`CatalogBackend::undrop_table`].
    UndropTable,
    /// [`CatalogBackend::snapshot`].
    Snapshot,
    /// [`CatalogBackend::list_files`].
    ListFiles,
    /// [`CatalogBackend::files_at`].
    FilesAt,
    /// [`CatalogBackend::list_tombstones`].
    ListTombstones,
    /// [`CatalogBackend::app_transactions`].
    AppTransactions,
    /// [`CatalogBackend::domain_metadata`].
    DomainMetadata,
    /// [`CatalogBackend::list_commits`].
    ListCommits,
    /// [`CatalogBackend::read_bodies`].
    ReadBodies,
    /// [`CatalogBackend::commit`].
    Commit,
    /// [`CatalogBackend::resolve_token`].
    ResolveToken,
    /// [`CatalogBackend::skip_index`].
    SkipIndex,
    /// [`CatalogBackend::skip_pages`].
    SkipPages,
    /// [`CatalogBackend::skip_replace`].
    SkipReplace,
    /// [`CatalogBackend::import_begin`].
    ImportBegin,
    /// [`CatalogBackend::import_base`].
    ImportBase,
    /// [`CatalogBackend::import_commits`].
    ImportCommits,
    /// [`CatalogBackend::import_finish`].
    ImportFinish,
    /// [`CatalogBackend::import_abort`].
    ImportAbort,
    /// [`CatalogBackend::mirror_claim`].
    MirrorClaim,
    /// [`CatalogBackend::mirror_renew`].
    MirrorRenew,
    /// [`CatalogBackend::mirror_complete`].
    MirrorComplete,
    /// [`CatalogBackend::mirror_fail`].
    MirrorFail,
    /// [`CatalogBackend::mirror_release`].
    MirrorRelease,
    /// [`CatalogBackend::mirror_rows`].
    MirrorRows,
    /// [`CatalogBackend::mirror_retry`].
    MirrorRetry,
    /// [`CatalogBackend::mirror_set_mode`].
    MirrorSetMode,
}

/// What [`FaultyBackend`] goes around: a backend, or an `Arc` of one.
pub trait Wrapped: fmt::Debug + Send + Sync + 'static {
    /// The backend.
    fn backend(&self) -> &dyn CatalogBackend;
}

impl<B: CatalogBackend> Wrapped for B {
    fn backend(&self) -> &dyn CatalogBackend {
        self
    }
}

impl<B: CatalogBackend> Wrapped for Arc<B> {
    fn backend(&self) -> &dyn CatalogBackend {
        &**self
    }
}

impl Wrapped for Arc<dyn CatalogBackend> {
    fn backend(&self) -> &dyn CatalogBackend {
        &**self
    }
}

/// A backend that carries out a script of faults around another one.
///
/// ```
/// use deltalakedb_catalog_core::fault::{Fault, FaultyBackend, Verb};
/// use deltalakedb_catalog_core::memory::MemoryBackend;
/// // The first commit happens, but its answer is lost.
/// let backend = FaultyBackend::new(MemoryBackend::new(), |call| match (call.verb, call.nth) {
///     (Verb::Commit, 0) => Fault::LoseAnswer,
///     _ => Fault::None,
/// });
/// assert_eq!(backend.calls(Verb::Commit), 0);
/// ```
pub struct FaultyBackend<B> {
    inner: B,
    director: Director<Verb, Fault>,
}

impl<B> FaultyBackend<B> {
    /// Wraps a backend. The script is asked at every call, before it is carried out.
    pub fn new(inner: B, script: impl Fn(Call<Verb>) -> Fault + Send + Sync + 'static) -> Self {
        FaultyBackend { inner, director: Director::new(script) }
    }

    /// The backend without faults.
    pub fn inner(&self) -> &B {
        &self.inner
    }

    /// How often a method was called.
    pub fn calls(&self, verb: Verb) -> u64 {
        self.director.count(verb)
    }

    async fn run<T>(&self, verb: Verb, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.director.next(verb).around(&format!("{verb:?}"), call).await
    }
}

impl<B: fmt::Debug> fmt::Debug for FaultyBackend<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBackend").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Every method is written out: a new one of the trait does not compile until it is here.
#[async_trait]
impl<B: Wrapped> CatalogBackend for FaultyBackend<B> {
    async fn info(&self) -> Result<BackendInfo> {
        self.run(Verb::Info, self.inner.backend().info()).await
    }

    async fn migrate(&self, now: TimestampMs) -> Result<()> {
        self.run(Verb::Migrate, self.inner.backend().migrate(now)).await
    }

    async fn get_table(&self, table: &TableRef) -> Result<Option<TableRecord>> {
        self.run(Verb::GetTable, self.inner.backend().get_table(table)).await
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        self.run(Verb::ListTables, self.inner.backend().list_tables(filter, after, limit)).await
    }

    async fn drop_table(&self, table_id: TableId, now: TimestampMs) -> Result<TableRecord> {
        self.run(Verb::DropTable, self.inner.backend().drop_table(table_id, now)).await
    }

    async fn undrop_table(&self, table_id: TableId, name: &TableName) -> Result<TableRecord> {
        self.run(Verb::UndropTable, self.inner.backend().undrop_table(table_id, name)).await
    }

    async fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot> {
        self.run(Verb::Snapshot, self.inner.backend().snapshot(table, at)).await
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<FileRecord, FileCursor>> {
        self.run(Verb::ListFiles, self.inner.backend().list_files(table_id, version, after, limit))
            .await
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> Result<Vec<FileRecord>> {
        self.run(Verb::FilesAt, self.inner.backend().files_at(table_id, version, cursors)).await
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
            Verb::ListTombstones,
            self.inner.backend().list_tombstones(table_id, version, deleted_after, after, limit),
        )
        .await
    }

    async fn app_transactions(&self, table_id: TableId, version: Version) -> Result<Vec<Txn>> {
        self.run(Verb::AppTransactions, self.inner.backend().app_transactions(table_id, version))
            .await
    }

    async fn domain_metadata(
        &self,
        table_id: TableId,
        version: Version,
    ) -> Result<Vec<DomainMetadata>> {
        self.run(Verb::DomainMetadata, self.inner.backend().domain_metadata(table_id, version))
            .await
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>> {
        self.run(
            Verb::ListCommits,
            self.inner.backend().list_commits(table_id, filter, before, limit),
        )
        .await
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Result<Vec<(CommitRecord, CommitBody)>> {
        self.run(Verb::ReadBodies, self.inner.backend().read_bodies(table_id, from, to, limit))
            .await
    }

    async fn commit(&self, request: CommitRequest) -> Result<CommitOutcome> {
        self.run(Verb::Commit, self.inner.backend().commit(request)).await
    }

    async fn resolve_token(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        self.run(Verb::ResolveToken, self.inner.backend().resolve_token(token)).await
    }

    async fn skip_index(&self, table_id: TableId) -> Result<SkipIndex> {
        self.run(Verb::SkipIndex, self.inner.backend().skip_index(table_id)).await
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> Result<Vec<Option<Bytes>>> {
        self.run(Verb::SkipPages, self.inner.backend().skip_pages(table_id, pages)).await
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> Result<bool> {
        let call = self.inner.backend().skip_replace(table_id, generation, remove, segment);
        self.run(Verb::SkipReplace, call).await
    }

    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        self.run(
            Verb::ImportBegin,
            self.inner.backend().import_begin(table, base, base_from_json, now),
        )
        .await
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
            Verb::ImportBase,
            self.inner.backend().import_base(table_id, skip_files, skip_tombstones, chunk, tail),
        )
        .await
    }

    async fn import_commits(
        &self,
        table_id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> Result<ImportProgress> {
        self.run(Verb::ImportCommits, self.inner.backend().import_commits(table_id, commits)).await
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.run(Verb::ImportFinish, self.inner.backend().import_finish(table_id, end, now)).await
    }

    async fn import_abort(&self, table_id: TableId) -> Result<()> {
        self.run(Verb::ImportAbort, self.inner.backend().import_abort(table_id)).await
    }

    async fn mirror_claim(&self, request: &ClaimRequest) -> Result<Vec<MirrorTask>> {
        self.run(Verb::MirrorClaim, self.inner.backend().mirror_claim(request)).await
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> Result<Option<MirrorLease>> {
        self.run(Verb::MirrorRenew, self.inner.backend().mirror_renew(lease, now, lease_ms)).await
    }

    async fn mirror_complete(&self, lease: &MirrorLease, done: &[Published]) -> Result<bool> {
        self.run(Verb::MirrorComplete, self.inner.backend().mirror_complete(lease, done)).await
    }

    async fn mirror_fail(&self, lease: &MirrorLease, failure: &PublishFailure) -> Result<bool> {
        self.run(Verb::MirrorFail, self.inner.backend().mirror_fail(lease, failure)).await
    }

    async fn mirror_release(&self, lease: &MirrorLease) -> Result<()> {
        self.run(Verb::MirrorRelease, self.inner.backend().mirror_release(lease)).await
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> Result<Page<MirrorRow, (TableId, Version)>> {
        self.run(Verb::MirrorRows, self.inner.backend().mirror_rows(table_id, state, after, limit))
            .await
    }

    async fn mirror_retry(&self, table_id: TableId, now: TimestampMs) -> Result<u64> {
        self.run(Verb::MirrorRetry, self.inner.backend().mirror_retry(table_id, now)).await
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.run(Verb::MirrorSetMode, self.inner.backend().mirror_set_mode(table_id, mode, now))
            .await
    }
}
