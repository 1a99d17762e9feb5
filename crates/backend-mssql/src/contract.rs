//! The parts of the contract: which room answers which call.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::audit::{
    Act, AuditCursor, AuditEntry, AuditFilter, AuditOrder, AuditRow,
};
use deltalakedb_catalog_core::backend::{
    AppRows, AppState, AuditBackend, BackendInfo, ClaimRequest, CommitBackend, CommitFilter,
    CommitOutcome, CommitRequest, CommittedTable, Expired, Expiry, ImportBackend, ImportEnd,
    ImportProgress, ImportStep, ImportedCommit, MirrorLease, MirrorTask, OperateBackend,
    OutboxBackend, PoolStats, ReadBackend, RegistryBackend, SchemaBackend, Settlement, SkipBackend,
    TableBackend, TableFilter, in_memory,
};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::error::{CatalogError, ReadResult, Result, WriteResult};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState,
    NewSkipSegment, NewTable, Page, SkipIndex, SkipPage, Snapshot, TableRecord, TombstoneRecord,
};
use deltalakedb_catalog_core::registry::{Record, RecordKey, RecordWrite, RegistryOutcome};
use deltalakedb_catalog_core::support::{claim_in_rounds, no_audit, no_registry};

use super::{MssqlBackend, commit, import, outbox, reads, schema, skip, tables};
use crate::errors::DbError;
use crate::schema::SCHEMA_VERSION;

/// A call that reads, on one connection and without a transaction.
macro_rules! read {
    ($self:ident, $doing:expr, |$lease:ident| $work:expr) => {{
        let mut $lease = $self.lease($doing).await?;
        let answer = Box::pin($work).await;
        $self.explain(&mut $lease, $doing, answer).await
    }};
}

/// A call that writes, in a transaction of several requests.
macro_rules! write {
    ($self:ident, $doing:expr, |$lease:ident| $work:expr) => {{
        let mut $lease = match $self.session.begin().await {
            Ok(lease) => lease,
            Err(error) => return Err(error.into_catalog($self.session.place(), $doing).into()),
        };
        let answer = Box::pin($work).await;
        let answer = $lease.end(answer).await;
        $self.explain(&mut $lease, $doing, answer).await
    }};
}

#[async_trait]
impl SchemaBackend for MssqlBackend {
    async fn info(&self) -> ReadResult<BackendInfo> {
        let doing = "reading the schema version";
        let (schema_version, clock) =
            read!(self, doing, |lease| self.version_and_clock(&mut lease))?;
        Ok(BackendInfo {
            kind: "mssql",
            server_version: self.server_version.clone(),
            schema_version,
            supported_schema_version: SCHEMA_VERSION,
            clock,
            keeps_audit: false,
        })
    }

    async fn migrate(&self, now: TimestampMs) -> WriteResult<()> {
        let answer = schema::migrate(&self.session, now).await;
        let doing = "creating or upgrading the schema";
        Ok(answer.map_err(|error: DbError| error.into_catalog(self.session.place(), doing))?)
    }
}

#[async_trait]
impl OperateBackend for MssqlBackend {
    fn pool_stats(&self) -> Option<PoolStats> {
        Some(self.session.pool_stats())
    }

    async fn close(&self) -> WriteResult<()> {
        self.session.close();
        Ok(())
    }
}

/// The audit came with version 4 of the schema, which is not made here yet.
#[async_trait]
impl AuditBackend for MssqlBackend {
    async fn audit_record(&self, _entry: &AuditEntry) -> WriteResult<()> {
        Err(no_audit("SQL Server", SCHEMA_VERSION).into())
    }

    async fn audit_list(
        &self,
        _filter: &AuditFilter,
        _order: AuditOrder,
        _after: Option<AuditCursor>,
        _limit: usize,
    ) -> ReadResult<Page<AuditRow, AuditCursor>> {
        Err(no_audit("SQL Server", SCHEMA_VERSION).into())
    }
}

/// The registry came with version 5 of the schema.
#[async_trait]
impl RegistryBackend for MssqlBackend {
    async fn registry_get(&self, _key: &RecordKey) -> ReadResult<Option<Record>> {
        Err(no_registry("SQL Server", SCHEMA_VERSION).into())
    }

    async fn registry_list(
        &self,
        _kind: &str,
        _after: Option<&str>,
        _limit: usize,
    ) -> ReadResult<Page<Record, String>> {
        Err(no_registry("SQL Server", SCHEMA_VERSION).into())
    }

    async fn registry_write(
        &self,
        _writes: &[RecordWrite],
        _at: TimestampMs,
        _entry: Option<&AuditEntry>,
    ) -> WriteResult<RegistryOutcome> {
        Err(no_registry("SQL Server", SCHEMA_VERSION).into())
    }

    async fn registry_all(
        &self,
        _after: Option<&RecordKey>,
        _limit: usize,
    ) -> ReadResult<Page<Record, RecordKey>> {
        Err(no_registry("SQL Server", SCHEMA_VERSION).into())
    }

    async fn registry_load(&self, _records: &[Record], _revision: i64) -> WriteResult<bool> {
        Err(no_registry("SQL Server", SCHEMA_VERSION).into())
    }

    async fn registry_revision(&self) -> ReadResult<i64> {
        Err(no_registry("SQL Server", SCHEMA_VERSION).into())
    }
}

#[async_trait]
impl TableBackend for MssqlBackend {
    fn note_change(&self, _table_id: TableId) {}

    async fn get_table(&self, table: &TableRef) -> ReadResult<Option<TableRecord>> {
        Ok(read!(self, "looking up a table", |lease| tables::get_table(&mut lease, table))?)
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> ReadResult<Page<TableRecord, (TableName, TableId)>> {
        Ok(read!(self, "listing tables", |lease| tables::list_tables(
            &mut lease, filter, after, limit
        ))?)
    }

    async fn drop_table(&self, table_id: TableId, act: &Act) -> WriteResult<TableRecord> {
        Ok(read!(self, "dropping a table", |lease| tables::drop_table(
            &mut lease, table_id, act.at
        ))?)
    }

    async fn undrop_table(
        &self,
        table_id: TableId,
        name: &TableName,
        _act: &Act,
    ) -> WriteResult<TableRecord> {
        Ok(read!(self, "bringing a table back", |lease| tables::undrop_table(
            &mut lease, table_id, name
        ))?)
    }
}

#[async_trait]
impl ReadBackend for MssqlBackend {
    async fn snapshot(&self, table: &TableRef, at: At) -> ReadResult<Snapshot> {
        Ok(read!(self, "opening a table", |lease| reads::snapshot(&mut lease, table, at))?)
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<FileRecord, FileCursor>> {
        Ok(read!(self, "listing files", |lease| reads::list_files(
            &mut lease, table_id, version, after, limit
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
        Ok(read!(self, "reading files", |lease| skip::files_at(
            &mut lease, table_id, version, cursors
        ))?)
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<TombstoneRecord, FileCursor>> {
        Ok(read!(self, "listing tombstones", |lease| reads::list_tombstones(
            &mut lease,
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
            read!(self, "listing application transactions", |lease| reads::app_transactions(
                &mut lease, table_id, version
            ))?
        } else {
            Vec::new()
        };
        let domains = if rows.domains() {
            read!(self, "listing domain metadata", |lease| reads::domain_metadata(
                &mut lease, table_id, version
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
        Ok(read!(self, "listing commits", |lease| reads::list_commits(
            &mut lease, table_id, filter, before, limit
        ))?)
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> ReadResult<Vec<(CommitRecord, CommitBody)>> {
        Ok(read!(self, "reading commits", |lease| reads::read_bodies(
            &mut lease, table_id, from, to, limit
        ))?)
    }
}

#[async_trait]
impl CommitBackend for MssqlBackend {
    async fn commit(&self, request: CommitRequest) -> WriteResult<CommitOutcome> {
        Ok(self.commit_request(request).await?)
    }

    async fn resolve_token(&self, token: &CommitToken) -> ReadResult<Option<Vec<CommittedTable>>> {
        Ok(read!(self, "resolving a token", |lease| commit::resolve_token(&mut lease, token))?)
    }

    async fn expire_tokens(
        &self,
        expiry: Expiry,
        after: Option<&CommitToken>,
    ) -> WriteResult<Expired<CommitToken>> {
        let doing = "forgetting tokens";
        Ok(write!(self, doing, |lease| commit::expire_tokens(&mut lease, expiry, after))?)
    }
}

#[async_trait]
impl SkipBackend for MssqlBackend {
    async fn skip_index(&self, table_id: TableId) -> ReadResult<SkipIndex> {
        let doing = "reading the skipping index";
        Ok(read!(self, doing, |lease| skip::index(&mut lease, table_id))?)
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> ReadResult<Vec<Option<Bytes>>> {
        let doing = "reading the skipping index";
        Ok(read!(self, doing, |lease| skip::pages(&mut lease, table_id, pages))?)
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> WriteResult<bool> {
        Ok(write!(self, "writing the skipping index", |lease| skip::replace(
            &mut lease, table_id, generation, remove, segment
        ))?)
    }
}

#[async_trait]
impl ImportBackend for MssqlBackend {
    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> WriteResult<ImportProgress> {
        Ok(write!(self, "beginning an import", |lease| import::begin(
            &mut lease,
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
                self.import_base(table_id, skip_files, skip_tombstones, chunk, tail).await?
            }
            ImportStep::Commits(commits) => self.import_commits(table_id, commits).await?,
        })
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        Ok(write!(self, "finishing an import", |lease| import::finish(
            &mut lease, table_id, end, act.at
        ))?)
    }

    async fn import_abort(&self, table_id: TableId, _act: &Act) -> WriteResult<()> {
        Ok(write!(self, "aborting an import", |lease| import::abort(&mut lease, table_id))?)
    }
}

#[async_trait]
impl OutboxBackend for MssqlBackend {
    async fn mirror_claim(&self, request: &ClaimRequest) -> WriteResult<Vec<MirrorTask>> {
        let doing = "claiming work";
        let look = || async { read!(self, doing, |lease| outbox::candidates(&mut lease, request)) };
        let lease = |found: Vec<TableId>| async move {
            let tasks = write!(self, doing, |lease| outbox::claim(&mut lease, request, &found))?;
            Ok::<Vec<MirrorTask>, CatalogError>(tasks.into_iter().flatten().collect())
        };
        Ok(claim_in_rounds(request, look, lease).await?)
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> WriteResult<Option<MirrorLease>> {
        Ok(read!(self, "renewing a lease", |conn| outbox::renew(&mut conn, lease, now, lease_ms))?)
    }

    async fn mirror_settle(&self, lease: &MirrorLease, how: Settlement<'_>) -> WriteResult<bool> {
        Ok(match how {
            Settlement::Published(done) => {
                write!(self, "recording published versions", |conn| outbox::complete(
                    &mut conn, lease, done
                ))?
            }
            Settlement::Failed(failure) => {
                write!(self, "recording a failure", |conn| outbox::fail(&mut conn, lease, failure))?
            }
            Settlement::Released => {
                write!(self, "giving a lease up", |conn| outbox::release(&mut conn, lease))?
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
        Ok(read!(self, "listing the outbox", |lease| outbox::list(
            &mut lease, table_id, state, after, limit
        ))?)
    }

    async fn mirror_retry(&self, table_id: TableId, act: &Act) -> WriteResult<u64> {
        Ok(write!(self, "retrying publication", |lease| outbox::retry(
            &mut lease, table_id, act.at
        ))?)
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        Ok(write!(self, "changing the mirror", |lease| outbox::set_mode(
            &mut lease, table_id, mode, act.at
        ))?)
    }

    async fn mirror_expire(
        &self,
        expiry: Expiry,
        after: Option<(TableId, Version)>,
    ) -> WriteResult<Expired<(TableId, Version)>> {
        Ok(write!(self, "clearing the outbox", |lease| outbox::expire(&mut lease, expiry, after))?)
    }
}

impl MssqlBackend {
    /// Stores a chunk of an import's base, in one transaction.
    async fn import_base_once(
        &self,
        table_id: TableId,
        skip_files: u64,
        skip_tombstones: u64,
        chunk: &BaseChunk,
        tail: Option<&BaseTail>,
    ) -> Result<ImportProgress> {
        write!(self, "importing a checkpoint", |lease| import::store_base(
            &mut lease,
            table_id,
            (skip_files, skip_tombstones),
            chunk,
            tail
        ))
    }

    /// Stores imported commits, in one transaction.
    async fn import_commits_once(
        &self,
        table_id: TableId,
        commits: &[ImportedCommit],
    ) -> Result<ImportProgress> {
        write!(self, "importing commits", |lease| import::store_commits(
            &mut lease, table_id, commits
        ))
    }

    async fn import_base(
        &self,
        table_id: TableId,
        skip_files: u64,
        skip_tombstones: u64,
        chunk: BaseChunk,
        tail: Option<BaseTail>,
    ) -> Result<ImportProgress> {
        let bulk = self.session.bulk_allowed();
        let answer = self
            .import_base_once(table_id, skip_files, skip_tombstones, &chunk, tail.as_ref())
            .await;
        if answer.is_err() && bulk && !self.session.bulk_allowed() {
            // The server refused a bulk load, and nothing was written: now rows go in lists of
            // values.
            return self
                .import_base_once(table_id, skip_files, skip_tombstones, &chunk, tail.as_ref())
                .await;
        }
        answer
    }

    async fn import_commits(
        &self,
        table_id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> Result<ImportProgress> {
        let commits = in_memory(commits).await?;
        let bulk = self.session.bulk_allowed();
        let answer = self.import_commits_once(table_id, &commits).await;
        if answer.is_err() && bulk && !self.session.bulk_allowed() {
            return self.import_commits_once(table_id, &commits).await;
        }
        answer
    }
}
