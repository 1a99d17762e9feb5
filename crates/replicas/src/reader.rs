//! The contract: every method is written out, so that a new one cannot be forgotten.

use std::sync::Arc;

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

use crate::{ReplicaReader, as_new};

#[async_trait]
impl CatalogBackend for ReplicaReader {
    async fn info(&self) -> Result<BackendInfo> {
        self.primary.info().await
    }

    async fn migrate(&self, now: TimestampMs) -> Result<()> {
        self.primary.migrate(now).await
    }

    fn note_change(&self, table_id: TableId) {
        self.note_commit(table_id);
    }

    async fn get_table(&self, table: &TableRef) -> Result<Option<TableRecord>> {
        if let Some(known) = self.recent(table) {
            let known = &known;
            let answer = self
                .on_replica(|backend, _| async move {
                    let row = backend.get_table(table).await?;
                    Ok(row.filter(|row| as_new(row, known)))
                })
                .await;
            if let Some(row) = &answer {
                self.advance(row);
                return Ok(answer);
            }
        }
        let asked = self.now();
        let row = self.primary.get_table(table).await?;
        if let Some(row) = &row {
            self.learn(row, asked);
        }
        Ok(row)
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        self.primary.list_tables(filter, after, limit).await
    }

    async fn drop_table(&self, table_id: TableId, now: TimestampMs) -> Result<TableRecord> {
        self.primary.drop_table(table_id, now).await
    }

    async fn undrop_table(&self, table_id: TableId, name: &TableName) -> Result<TableRecord> {
        self.primary.undrop_table(table_id, name).await
    }

    async fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot> {
        if let (TableRef::Id(id), At::Version(version)) = (table, at) {
            let read =
                |backend: Arc<dyn CatalogBackend>| async move { backend.snapshot(table, at).await };
            if let Some(answer) = self.fixed(*id, version, read).await {
                return Ok(answer);
            }
        } else if let Some(known) = self.recent(table) {
            let known = &known;
            let answer = self
                .on_replica(|backend, _| async move {
                    let snapshot = backend.snapshot(table, at).await?;
                    Ok(Some(snapshot).filter(|s| as_new(&s.table, known)))
                })
                .await;
            if let Some(answer) = answer {
                self.advance(&answer.table);
                return Ok(answer);
            }
        }
        let asked = self.now();
        let snapshot = self.primary.snapshot(table, at).await?;
        self.learn(&snapshot.table, asked);
        Ok(snapshot)
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<FileRecord, FileCursor>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.list_files(table_id, version, after, limit).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.list_files(table_id, version, after, limit).await
    }

    async fn files_end(
        &self,
        table_id: TableId,
        version: Version,
        after: FileCursor,
        limit: usize,
    ) -> Result<Option<FileCursor>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.files_end(table_id, version, after, limit).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.files_end(table_id, version, after, limit).await
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> Result<Vec<FileRecord>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.files_at(table_id, version, cursors).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.files_at(table_id, version, cursors).await
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<TombstoneRecord, FileCursor>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.list_tombstones(table_id, version, deleted_after, after, limit).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.list_tombstones(table_id, version, deleted_after, after, limit).await
    }

    async fn app_transactions(&self, table_id: TableId, version: Version) -> Result<Vec<Txn>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.app_transactions(table_id, version).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.app_transactions(table_id, version).await
    }

    async fn domain_metadata(
        &self,
        table_id: TableId,
        version: Version,
    ) -> Result<Vec<DomainMetadata>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.domain_metadata(table_id, version).await
        };
        if let Some(answer) = self.fixed(table_id, version, read).await {
            return Ok(answer);
        }
        self.primary.domain_metadata(table_id, version).await
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>> {
        // Without an upper bound the answer begins at the head, and only the primary knows it.
        let below = before.map(Version::previous);
        let bound = match (filter.to_version, below) {
            (Some(to), Some(Some(below))) => Some(to.min(below)),
            (to, None) => to,
            (None, Some(below)) => below,
            (Some(_), Some(None)) => None,
        };
        if let Some(bound) = bound {
            let read = |backend: Arc<dyn CatalogBackend>| async move {
                backend.list_commits(table_id, filter, before, limit).await
            };
            if let Some(answer) = self.fixed(table_id, bound, read).await {
                return Ok(answer);
            }
        }
        self.primary.list_commits(table_id, filter, before, limit).await
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Result<Vec<(CommitRecord, CommitBody)>> {
        let read = |backend: Arc<dyn CatalogBackend>| async move {
            backend.read_bodies(table_id, from, to, limit).await
        };
        if let Some(answer) = self.fixed(table_id, to, read).await {
            return Ok(answer);
        }
        self.primary.read_bodies(table_id, from, to, limit).await
    }

    async fn commit(&self, request: CommitRequest) -> Result<CommitOutcome> {
        self.primary.commit(request).await
    }

    async fn resolve_token(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        self.primary.resolve_token(token).await
    }

    async fn skip_index(&self, table_id: TableId) -> Result<SkipIndex> {
        // Derived data: an index that lags behind only rules out less.
        let answer = self
            .on_replica(|backend, _| async move {
                let index = backend.skip_index(table_id).await?;
                Ok(Some(index).filter(|index| self.saw_index(table_id, index.generation)))
            })
            .await;
        if let Some(answer) = answer {
            return Ok(answer);
        }
        let index = self.primary.skip_index(table_id).await?;
        self.saw_index(table_id, index.generation);
        Ok(index)
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> Result<Vec<Option<Bytes>>> {
        let answer = self
            .on_replica(|backend, _| async move {
                let found = backend.skip_pages(table_id, pages).await?;
                // The index may have come from elsewhere.
                Ok(Some(found).filter(|found| found.iter().all(Option::is_some)))
            })
            .await;
        match answer {
            Some(answer) => Ok(answer),
            None => self.primary.skip_pages(table_id, pages).await,
        }
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> Result<bool> {
        let replaced = self.primary.skip_replace(table_id, generation, remove, segment).await?;
        if replaced {
            self.saw_index(table_id, generation.saturating_add(1));
        }
        Ok(replaced)
    }

    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        self.primary.import_begin(table, base, base_from_json, now).await
    }

    async fn import_base(
        &self,
        table_id: TableId,
        skip_files: u64,
        skip_tombstones: u64,
        chunk: BaseChunk,
        tail: Option<BaseTail>,
    ) -> Result<ImportProgress> {
        self.primary.import_base(table_id, skip_files, skip_tombstones, chunk, tail).await
    }

    async fn import_commits(
        &self,
        table_id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> Result<ImportProgress> {
        self.primary.import_commits(table_id, commits).await
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.primary.import_finish(table_id, end, now).await
    }

    async fn import_abort(&self, table_id: TableId) -> Result<()> {
        self.primary.import_abort(table_id).await
    }

    async fn mirror_claim(&self, request: &ClaimRequest) -> Result<Vec<MirrorTask>> {
        self.primary.mirror_claim(request).await
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> Result<Option<MirrorLease>> {
        self.primary.mirror_renew(lease, now, lease_ms).await
    }

    async fn mirror_complete(&self, lease: &MirrorLease, done: &[Published]) -> Result<bool> {
        self.primary.mirror_complete(lease, done).await
    }

    async fn mirror_fail(&self, lease: &MirrorLease, failure: &PublishFailure) -> Result<bool> {
        self.primary.mirror_fail(lease, failure).await
    }

    async fn mirror_release(&self, lease: &MirrorLease) -> Result<()> {
        self.primary.mirror_release(lease).await
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> Result<Page<MirrorRow, (TableId, Version)>> {
        self.primary.mirror_rows(table_id, state, after, limit).await
    }

    async fn mirror_retry(&self, table_id: TableId, now: TimestampMs) -> Result<u64> {
        self.primary.mirror_retry(table_id, now).await
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.primary.mirror_set_mode(table_id, mode, now).await
    }
}
