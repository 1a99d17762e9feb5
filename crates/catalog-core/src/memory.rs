//! The contract of [`crate::backend`] in memory: the reference that the databases are compared with.
//!
//! One mutex over plain maps, so every call is atomic and serial by construction; a call validates
//! everything before it changes anything. Nothing survives the process. It is written to be read:
//! where a clause of the contract is in doubt, this code says what it means.

mod commit;
mod import;
mod outbox;
mod reads;
mod skip;
mod state;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::action::{DomainMetadata, Txn};
use crate::backend::{
    BackendInfo, CatalogBackend, ClaimRequest, CommitFilter, CommitOutcome, CommitRequest,
    CommittedTable, ImportEnd, ImportProgress, ImportedCommit, MirrorLease, MirrorTask,
    PublishFailure, Published, TableFilter,
};
use crate::commit::CommitBody;
use crate::error::Result;
use crate::ids::{At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version};
use crate::later::{in_memory, request_in_memory};
use crate::model::{
    BaseChunk, BaseTail, CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState,
    NewSkipSegment, NewTable, Page, SkipIndex, SkipPage, Snapshot, TableRecord, TombstoneRecord,
};
use skip::SkipState;
use state::State;

/// Version of the layout of the maps: it is what this program writes by definition.
const SCHEMA_VERSION: u32 = 1;

/// A catalog that lives in this value. Share it in an `Arc`; several holders are several handles
/// on one database.
#[derive(Default)]
pub struct MemoryBackend {
    state: Mutex<State>,
    clock: Mutex<Option<TimestampMs>>,
}

impl MemoryBackend {
    /// An empty catalog. It needs no `migrate`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What time it is from now on where the database runs; none, as at first: it has no clock of its own.
    pub fn set_clock(&self, time: Option<TimestampMs>) {
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }

    /// The state; a thread that panicked while it held the lock had changed nothing halfway, as
    /// calls validate first.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").finish_non_exhaustive()
    }
}

#[async_trait]
impl CatalogBackend for MemoryBackend {
    async fn info(&self) -> Result<BackendInfo> {
        Ok(BackendInfo {
            kind: "memory",
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: SCHEMA_VERSION,
            supported_schema_version: SCHEMA_VERSION,
            clock: *self.clock.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }

    async fn migrate(&self, _now: TimestampMs) -> Result<()> {
        Ok(())
    }

    async fn get_table(&self, table: &TableRef) -> Result<Option<TableRecord>> {
        Ok(self.state().get_table(table))
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        Ok(self.state().list_tables(filter, after, limit))
    }

    async fn drop_table(&self, table_id: TableId, now: TimestampMs) -> Result<TableRecord> {
        self.state().drop_table(table_id, now)
    }

    async fn undrop_table(&self, table_id: TableId, name: &TableName) -> Result<TableRecord> {
        self.state().undrop_table(table_id, name)
    }

    async fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot> {
        self.state().snapshot(table, at)
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<FileRecord, FileCursor>> {
        Ok(self.state().readable(table_id)?.list_files(version, after, limit))
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> Result<Vec<FileRecord>> {
        let state = self.state();
        Ok(match state.tables.get(&table_id) {
            Some(table) => {
                table.files_at(version).filter(|file| cursors.contains(&file.cursor)).collect()
            }
            None => Vec::new(),
        })
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<TombstoneRecord, FileCursor>> {
        let state = self.state();
        Ok(state.readable(table_id)?.list_tombstones(version, deleted_after, after, limit))
    }

    async fn app_transactions(&self, table_id: TableId, version: Version) -> Result<Vec<Txn>> {
        Ok(self.state().readable(table_id)?.app_transactions(version))
    }

    async fn domain_metadata(
        &self,
        table_id: TableId,
        version: Version,
    ) -> Result<Vec<DomainMetadata>> {
        Ok(self.state().readable(table_id)?.domain_metadata(version))
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>> {
        Ok(self.state().readable(table_id)?.list_commits(filter, before, limit))
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Result<Vec<(CommitRecord, CommitBody)>> {
        Ok(self.state().readable(table_id)?.read_bodies(from, to, limit))
    }

    async fn commit(&self, request: CommitRequest) -> Result<CommitOutcome> {
        let request = request_in_memory(request).await?;
        self.state().commit(request)
    }

    async fn resolve_token(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        Ok(self.state().replayed(token))
    }

    async fn skip_index(&self, table_id: TableId) -> Result<SkipIndex> {
        let state = self.state();
        let mut index = state.skip.get(&table_id).map(SkipState::index).unwrap_or_default();
        if let (Some(table), Some(last)) = (state.tables.get(&table_id), index.segments.last()) {
            index.complete_to = table.record.head.filter(|_| table.ends_with(last.through));
        }
        Ok(index)
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> Result<Vec<Option<Bytes>>> {
        let state = self.state();
        let skip = state.skip.get(&table_id);
        Ok(pages.iter().map(|page| skip.and_then(|skip| skip.page(*page))).collect())
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> Result<bool> {
        Ok(self.state().skip.entry(table_id).or_default().replace(generation, remove, segment))
    }

    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        self.state().import_begin(table, base, base_from_json, now)
    }

    async fn import_base(
        &self,
        table_id: TableId,
        skip_files: u64,
        skip_tombstones: u64,
        chunk: BaseChunk,
        tail: Option<BaseTail>,
    ) -> Result<ImportProgress> {
        self.state().import_base(table_id, skip_files, skip_tombstones, chunk, tail)
    }

    async fn import_commits(
        &self,
        table_id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> Result<ImportProgress> {
        let commits = in_memory(commits).await?;
        self.state().import_commits(table_id, commits)
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.state().import_finish(table_id, end, now)
    }

    async fn import_abort(&self, table_id: TableId) -> Result<()> {
        self.state().import_abort(table_id)
    }

    async fn mirror_claim(&self, request: &ClaimRequest) -> Result<Vec<MirrorTask>> {
        self.state().mirror_claim(request)
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> Result<Option<MirrorLease>> {
        Ok(self.state().mirror_renew(lease, now, lease_ms))
    }

    async fn mirror_complete(&self, lease: &MirrorLease, done: &[Published]) -> Result<bool> {
        self.state().mirror_complete(lease, done)
    }

    async fn mirror_fail(&self, lease: &MirrorLease, failure: &PublishFailure) -> Result<bool> {
        self.state().mirror_fail(lease, failure)
    }

    async fn mirror_release(&self, lease: &MirrorLease) -> Result<()> {
        self.state().mirror_release(lease);
        Ok(())
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> Result<Page<MirrorRow, (TableId, Version)>> {
        self.state().mirror_rows(table_id, state, after, limit)
    }

    async fn mirror_retry(&self, table_id: TableId, now: TimestampMs) -> Result<u64> {
        self.state().mirror_retry(table_id, now)
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.state().mirror_set_mode(table_id, mode, now)
    }
}
