//! The parts of the contract: which room answers which call.

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::audit::{
    Act, AuditCursor, AuditEntry, AuditFilter, AuditOrder, AuditRow,
};
use deltalakedb_catalog_core::backend::{
    AppRows, AppState, AuditBackend, BackendInfo, ClaimRequest, CommitBackend, CommitFilter,
    CommitOutcome, CommitRequest, CommittedTable, Expired, Expiry, ImportBackend, ImportEnd,
    ImportProgress, ImportStep, MirrorLease, MirrorTask, OperateBackend, OutboxBackend, PoolStats,
    ReadBackend, RegistryBackend, SchemaBackend, Settlement, SkipBackend, TableBackend,
    TableFilter,
};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::{ReadResult, WriteResult};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState, NewSkipSegment,
    NewTable, Page, SkipIndex, SkipPage, Snapshot, TableRecord, TombstoneRecord,
};
use deltalakedb_catalog_core::registry::{Record, RecordKey, RecordWrite, RegistryOutcome};
use deltalakedb_catalog_core::support::claim_in_rounds;

use super::{
    MySqlBackend, SCHEMA_VERSION, audit, commit, import, outbox, reads, registry, schema, skip,
    tables,
};

/// One call: begin, work, end.
macro_rules! call {
    ($self:ident, $doing:literal, |$call:ident| $work:expr) => {{
        let mut call = schema::begin(&$self.session, $doing).await?;
        let $call = &mut call;
        let result = $work.await;
        match call.end(result).await {
            Err(error) => Err(schema::explained(&$self.session, error).await),
            done => done,
        }
    }};
}

#[async_trait]
impl SchemaBackend for MySqlBackend {
    async fn info(&self) -> ReadResult<BackendInfo> {
        let mut call = self.session.unchecked("reading the schema version").await?;
        let found = match schema::inspect(&mut call).await {
            Ok(found) => schema::clock(&mut call).await.map(|clock| (found, clock)),
            Err(error) => Err(error),
        };
        let (found, clock) = call.end(found).await?;
        schema::usable(found, &self.session.at)?;
        let server = self.session.server.get();
        Ok(BackendInfo {
            kind: "mysql",
            server_version: server.map(|server| server.version.clone()).unwrap_or_default(),
            schema_version: found.version(),
            supported_schema_version: SCHEMA_VERSION,
            clock,
            keeps_audit: true,
        })
    }

    async fn migrate(&self, now: TimestampMs) -> WriteResult<()> {
        let mut call = self.session.unchecked("creating or upgrading the schema").await?;
        let result = schema::migrate(&mut call, now).await;
        Ok(call.end(result).await?)
    }
}

#[async_trait]
impl OperateBackend for MySqlBackend {
    fn pool_stats(&self) -> Option<PoolStats> {
        Some(self.session.pool.stats())
    }

    async fn close(&self) -> WriteResult<()> {
        self.session.close().await;
        Ok(())
    }
}

#[async_trait]
impl AuditBackend for MySqlBackend {
    async fn audit_record(&self, entry: &AuditEntry) -> WriteResult<()> {
        Ok(call!(self, "writing to the audit", |call| audit::record(call, entry))?)
    }

    async fn audit_list(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<AuditCursor>,
        limit: usize,
    ) -> ReadResult<Page<AuditRow, AuditCursor>> {
        Ok(call!(self, "reading the audit", |call| audit::list(call, filter, order, after, limit))?)
    }
}

#[async_trait]
impl RegistryBackend for MySqlBackend {
    async fn registry_get(&self, key: &RecordKey) -> ReadResult<Option<Record>> {
        Ok(call!(self, "reading the registry", |call| registry::get(call, key))?)
    }

    async fn registry_list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> ReadResult<Page<Record, String>> {
        Ok(call!(self, "listing the registry", |call| registry::list(call, kind, after, limit))?)
    }

    async fn registry_write(
        &self,
        writes: &[RecordWrite],
        at: TimestampMs,
        entry: Option<&AuditEntry>,
    ) -> WriteResult<RegistryOutcome> {
        Ok(call!(self, "writing to the registry", |call| registry::write(call, writes, at, entry))?)
    }

    async fn registry_all(
        &self,
        after: Option<&RecordKey>,
        limit: usize,
    ) -> ReadResult<Page<Record, RecordKey>> {
        Ok(call!(self, "listing the registry", |call| registry::all(call, after, limit))?)
    }

    async fn registry_load(&self, records: &[Record], revision: i64) -> WriteResult<bool> {
        Ok(call!(self, "filling the registry", |call| registry::load(call, records, revision))?)
    }

    async fn registry_revision(&self) -> ReadResult<i64> {
        Ok(call!(self, "reading the registry", |call| registry::revision(call))?)
    }
}

#[async_trait]
impl TableBackend for MySqlBackend {
    fn note_change(&self, _table_id: TableId) {}

    async fn get_table(&self, table: &TableRef) -> ReadResult<Option<TableRecord>> {
        Ok(call!(self, "looking up a table", |call| tables::get_table(call, table))?)
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> ReadResult<Page<TableRecord, (TableName, TableId)>> {
        Ok(call!(self, "listing tables", |call| tables::list_tables(call, filter, after, limit))?)
    }

    async fn drop_table(&self, table_id: TableId, act: &Act) -> WriteResult<TableRecord> {
        Ok(call!(self, "dropping a table", |call| tables::drop_table(call, table_id, act))?)
    }

    async fn undrop_table(
        &self,
        table_id: TableId,
        name: &TableName,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        Ok(call!(self, "bringing a table back", |call| tables::undrop_table(
            call, table_id, name, act
        ))?)
    }
}

#[async_trait]
impl ReadBackend for MySqlBackend {
    async fn snapshot(&self, table: &TableRef, at: At) -> ReadResult<Snapshot> {
        Ok(call!(self, "opening a table", |call| reads::snapshot(call, table, at))?)
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<FileRecord, FileCursor>> {
        Ok(call!(self, "listing files", |call| reads::list_files(
            call, table_id, version, after, limit
        ))?)
    }

    async fn files_end(
        &self,
        _table_id: TableId,
        _version: Version,
        _after: FileCursor,
        _limit: usize,
    ) -> ReadResult<Option<FileCursor>> {
        Ok(None)
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> ReadResult<Vec<FileRecord>> {
        Ok(call!(self, "reading files", |call| skip::files_at(call, table_id, version, cursors))?)
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<TombstoneRecord, FileCursor>> {
        Ok(call!(self, "listing tombstones", |call| reads::list_tombstones(
            call,
            table_id,
            version,
            deleted_after,
            after,
            limit
        ))?)
    }

    async fn app_state(
        &self,
        table_id: TableId,
        version: Version,
        rows: AppRows,
    ) -> ReadResult<AppState> {
        let transactions = if rows.transactions() {
            call!(self, "listing application transactions", |call| reads::app_transactions(
                call, table_id, version
            ))?
        } else {
            Vec::new()
        };
        let domains = if rows.domains() {
            call!(self, "listing domain metadata", |call| reads::domain_metadata(
                call, table_id, version
            ))?
        } else {
            Vec::new()
        };
        Ok(AppState { transactions, domains })
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> ReadResult<Page<CommitRecord, Version>> {
        Ok(call!(self, "listing commits", |call| reads::list_commits(
            call, table_id, filter, before, limit
        ))?)
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> ReadResult<Vec<(CommitRecord, CommitBody)>> {
        Ok(call!(self, "reading commits", |call| reads::read_bodies(
            call, table_id, from, to, limit
        ))?)
    }
}

#[async_trait]
impl CommitBackend for MySqlBackend {
    async fn commit(&self, request: CommitRequest) -> WriteResult<CommitOutcome> {
        match commit::commit(&self.session, &request).await {
            Err(error) => Err(schema::explained(&self.session, error).await)?,
            Ok(outcome) => Ok(outcome),
        }
    }

    async fn resolve_token(&self, token: &CommitToken) -> ReadResult<Option<Vec<CommittedTable>>> {
        Ok(call!(self, "resolving a token", |call| commit::resolve_token(call, token))?)
    }

    async fn expire_tokens(
        &self,
        expiry: Expiry,
        after: Option<&CommitToken>,
    ) -> WriteResult<Expired<CommitToken>> {
        Ok(call!(self, "forgetting tokens", |call| commit::expire_tokens(call, expiry, after))?)
    }
}

#[async_trait]
impl SkipBackend for MySqlBackend {
    async fn skip_index(&self, table_id: TableId) -> ReadResult<SkipIndex> {
        Ok(call!(self, "reading the skipping index", |call| skip::index(call, table_id))?)
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> ReadResult<Vec<Option<Bytes>>> {
        Ok(call!(self, "reading the skipping index", |call| skip::pages(call, table_id, pages))?)
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> WriteResult<bool> {
        Ok(call!(self, "writing the skipping index", |call| skip::replace(
            call, table_id, generation, remove, segment
        ))?)
    }
}

#[async_trait]
impl ImportBackend for MySqlBackend {
    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> WriteResult<ImportProgress> {
        Ok(call!(self, "beginning an import", |call| import::begin(
            call,
            table,
            base,
            base_from_json,
            now
        ))?)
    }

    async fn import_step(
        &self,
        table_id: TableId,
        step: ImportStep,
    ) -> WriteResult<ImportProgress> {
        Ok(match step {
            ImportStep::Base { skip_files, skip_tombstones, chunk, tail } => {
                call!(self, "importing a checkpoint", |call| import::store_base(
                    call,
                    table_id,
                    (skip_files, skip_tombstones),
                    &chunk,
                    tail.as_ref()
                ))?
            }
            ImportStep::Commits(commits) => {
                call!(self, "importing commits", |call| import::store_commits(
                    call, table_id, &commits
                ))?
            }
        })
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        Ok(call!(self, "finishing an import", |call| import::finish(call, table_id, end, act))?)
    }

    async fn import_abort(&self, table_id: TableId, act: &Act) -> WriteResult<()> {
        Ok(call!(self, "aborting an import", |call| import::abort(call, table_id, act))?)
    }
}

#[async_trait]
impl OutboxBackend for MySqlBackend {
    async fn mirror_claim(&self, request: &ClaimRequest) -> WriteResult<Vec<MirrorTask>> {
        let look =
            || async { call!(self, "looking for work", |call| outbox::candidates(call, request)) };
        let lease = |found: Vec<TableId>| async move {
            call!(self, "claiming work", |call| outbox::claim(call, request, &found))
        };
        Ok(claim_in_rounds(request, look, lease).await?)
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> WriteResult<Option<MirrorLease>> {
        Ok(call!(self, "renewing a lease", |call| outbox::renew(call, lease, now, lease_ms))?)
    }

    async fn mirror_settle(&self, lease: &MirrorLease, how: Settlement<'_>) -> WriteResult<bool> {
        Ok(match how {
            Settlement::Published(done) => {
                call!(self, "recording published versions", |call| outbox::complete(
                    call, lease, done
                ))?
            }
            Settlement::Failed(failure) => {
                call!(self, "recording a failure", |call| outbox::fail(call, lease, failure))?
            }
            Settlement::Released => {
                call!(self, "giving a lease up", |call| outbox::release(call, lease))?
            }
        })
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> ReadResult<Page<MirrorRow, (TableId, Version)>> {
        Ok(call!(self, "listing the outbox", |call| outbox::rows(
            call, table_id, state, after, limit
        ))?)
    }

    async fn mirror_retry(&self, table_id: TableId, act: &Act) -> WriteResult<u64> {
        Ok(call!(self, "retrying publication", |call| outbox::retry(call, table_id, act))?)
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        Ok(call!(self, "changing the mirror", |call| outbox::set_mode(call, table_id, mode, act))?)
    }

    async fn mirror_expire(
        &self,
        expiry: Expiry,
        after: Option<(TableId, Version)>,
    ) -> WriteResult<Expired<(TableId, Version)>> {
        Ok(call!(self, "clearing the outbox", |call| outbox::expire(call, expiry, after))?)
    }
}
