//! The parts of the contract, on the state.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use deltalakedb_catalog_core::support::{prelude::*, step_in_memory};

use super::skip::SkipState;
use super::{MemoryBackend, SCHEMA_VERSION};

#[async_trait]
impl SchemaBackend for MemoryBackend {
    async fn info(&self) -> ReadResult<BackendInfo> {
        drop(self.open()?);
        Ok(BackendInfo {
            kind: "memory",
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: SCHEMA_VERSION,
            supported_schema_version: SCHEMA_VERSION,
            clock: *self.clock.lock().unwrap_or_else(PoisonError::into_inner),
            keeps_audit: true,
        })
    }

    async fn migrate(&self, _now: TimestampMs) -> WriteResult<()> {
        drop(self.open()?);
        Ok(())
    }
}

#[async_trait]
impl OperateBackend for MemoryBackend {
    fn pool_stats(&self) -> Option<PoolStats> {
        None
    }

    async fn close(&self) -> WriteResult<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}

#[async_trait]
impl TableBackend for MemoryBackend {
    fn note_change(&self, _table_id: TableId) {}

    async fn get_table(&self, table: &TableRef) -> ReadResult<Option<TableRecord>> {
        Ok(self.open()?.get_table(table))
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> ReadResult<Page<TableRecord, (TableName, TableId)>> {
        Ok(self.open()?.list_tables(filter, after, limit))
    }

    async fn drop_table(&self, table_id: TableId, act: &Act) -> WriteResult<TableRecord> {
        Ok(self.open()?.drop_table(table_id, act)?)
    }

    async fn undrop_table(
        &self,
        table_id: TableId,
        name: &TableName,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        Ok(self.open()?.undrop_table(table_id, name, act)?)
    }
}

#[async_trait]
impl ReadBackend for MemoryBackend {
    async fn snapshot(&self, table: &TableRef, at: At) -> ReadResult<Snapshot> {
        Ok(self.open()?.snapshot(table, at)?)
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<FileRecord, FileCursor>> {
        Ok(self.open()?.readable(table_id)?.list_files(version, after, limit))
    }

    async fn files_end(
        &self,
        _table_id: TableId,
        _version: Version,
        _after: FileCursor,
        _limit: usize,
    ) -> ReadResult<Option<FileCursor>> {
        drop(self.open()?);
        Ok(None)
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> ReadResult<Vec<FileRecord>> {
        let state = self.open()?;
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
    ) -> ReadResult<Page<TombstoneRecord, FileCursor>> {
        let state = self.open()?;
        Ok(state.readable(table_id)?.list_tombstones(version, deleted_after, after, limit))
    }

    async fn app_state(
        &self,
        table_id: TableId,
        version: Version,
        rows: AppRows,
    ) -> ReadResult<AppState> {
        Ok(self.open()?.readable(table_id)?.app_state(version, rows))
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> ReadResult<Page<CommitRecord, Version>> {
        Ok(self.open()?.readable(table_id)?.list_commits(filter, before, limit))
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> ReadResult<Vec<(CommitRecord, CommitBody)>> {
        Ok(self.open()?.readable(table_id)?.read_bodies(from, to, limit))
    }
}

#[async_trait]
impl CommitBackend for MemoryBackend {
    async fn commit(&self, request: CommitRequest) -> WriteResult<CommitOutcome> {
        let request = request_in_memory(request).await?;
        Ok(self.open()?.commit(request)?)
    }

    async fn resolve_token(&self, token: &CommitToken) -> ReadResult<Option<Vec<CommittedTable>>> {
        Ok(self.open()?.replayed(token))
    }

    async fn expire_tokens(
        &self,
        expiry: Expiry,
        after: Option<&CommitToken>,
    ) -> WriteResult<Expired<CommitToken>> {
        Ok(self.open()?.expire_tokens(expiry, after))
    }
}

#[async_trait]
impl SkipBackend for MemoryBackend {
    async fn skip_index(&self, table_id: TableId) -> ReadResult<SkipIndex> {
        let state = self.open()?;
        let mut index = state.skip.get(&table_id).map(SkipState::index).unwrap_or_default();
        if let (Some(table), Some(last)) = (state.tables.get(&table_id), index.segments.last()) {
            index.complete_to = table.record().head.filter(|_| table.ends_with(last.through));
        }
        Ok(index)
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> ReadResult<Vec<Option<Bytes>>> {
        let state = self.open()?;
        let skip = state.skip.get(&table_id);
        Ok(pages.iter().map(|page| skip.and_then(|skip| skip.page(*page))).collect())
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> WriteResult<bool> {
        Ok(self.open()?.skip.entry(table_id).or_default().replace(generation, remove, segment))
    }
}

#[async_trait]
impl ImportBackend for MemoryBackend {
    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> WriteResult<ImportProgress> {
        Ok(self.open()?.import_begin(table, base, base_from_json, now)?)
    }

    async fn import_step(
        &self,
        table_id: TableId,
        step: ImportStep,
    ) -> WriteResult<ImportProgress> {
        let step = step_in_memory(step).await?;
        Ok(self.open()?.import_step(table_id, step)?)
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        Ok(self.open()?.import_finish(table_id, end, act)?)
    }

    async fn import_abort(&self, table_id: TableId, act: &Act) -> WriteResult<()> {
        Ok(self.open()?.import_abort(table_id, act)?)
    }
}

#[async_trait]
impl OutboxBackend for MemoryBackend {
    async fn mirror_claim(&self, request: &ClaimRequest) -> WriteResult<Vec<MirrorTask>> {
        Ok(self.open()?.mirror_claim(request))
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> WriteResult<Option<MirrorLease>> {
        Ok(self.open()?.mirror_renew(lease, now, lease_ms))
    }

    async fn mirror_settle(&self, lease: &MirrorLease, how: Settlement<'_>) -> WriteResult<bool> {
        Ok(self.open()?.mirror_settle(lease, how)?)
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> ReadResult<Page<MirrorRow, (TableId, Version)>> {
        Ok(self.open()?.mirror_rows(table_id, state, after, limit)?)
    }

    async fn mirror_retry(&self, table_id: TableId, act: &Act) -> WriteResult<u64> {
        Ok(self.open()?.mirror_retry(table_id, act)?)
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        Ok(self.open()?.mirror_set_mode(table_id, mode, act)?)
    }

    async fn mirror_expire(
        &self,
        expiry: Expiry,
        after: Option<(TableId, Version)>,
    ) -> WriteResult<Expired<(TableId, Version)>> {
        Ok(self.open()?.mirror_expire(expiry, after))
    }
}
