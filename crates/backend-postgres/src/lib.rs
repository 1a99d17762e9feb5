//! PostgreSQL backend of deltalakedb.
//!
//! [`PostgresBackend`] implements [`CatalogBackend`] on PostgreSQL 11 or newer, and engines that
//! speak its protocol. Start with [`PostgresOptions::new`] and [`PostgresBackend::connect`], then
//! [`CatalogBackend::migrate`] once.
//!
//! A commit is one statement, over any number of tables (see `commit`); opening a table is another.
//! Nothing is set for a session. Poolers in transaction mode that do not know prepared statements
//! need [`PostgresOptions::statement_cache`] = 0.
#![forbid(unsafe_code)]

mod commit;
mod commit_sql;
mod errors;
mod files;
mod grants;
mod groups;
mod groups_queue;
mod groups_send;
mod groups_sql;
mod import;
mod import_run;
mod options;
mod outbox;
#[cfg(test)]
mod plan_tests;
mod reads;
mod rows;
mod schema;
mod session;
mod skip;
mod statements;
mod tables;

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
use deltalakedb_catalog_core::support::CLAIM_ROUNDS;

pub use grants::{GrantRole, grants};
pub use options::{PoolOptions, PostgresOptions, Secret, TlsMode, TlsOptions};

use schema::SCHEMA_VERSION;
use session::{Mode, Session};

/// A catalog in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresBackend {
    session: Arc<Session>,
}

impl PostgresBackend {
    /// Connects to a server. Our tables need not be there yet: [`CatalogBackend::migrate`] makes
    /// them.
    ///
    /// # Errors
    /// * `InvalidInput`: see [`PostgresOptions::validate`].
    /// * `Unsupported`: the server is older than PostgreSQL 11.
    /// * `Unavailable`: it cannot be reached, or refuses user, password or database.
    pub async fn connect(options: PostgresOptions) -> Result<Arc<PostgresBackend>> {
        Ok(Arc::new(PostgresBackend { session: Session::connect(options).await? }))
    }

    /// Closes all connections; calls that begin after it fail.
    pub async fn close(&self) {
        self.session.close().await;
    }
}

/// One call: begin, work, end.
macro_rules! call {
    ($self:ident, $mode:ident, $doing:literal, |$call:ident| $work:expr) => {{
        let mut call = $self.session.begin($doing, Mode::$mode).await?;
        let $call = &mut call;
        let result = $work.await;
        call.end(result).await
    }};
}

impl PostgresBackend {
    /// Tries to lease tables that this call has not leased yet; none if there are none.
    async fn claim_round(
        &self,
        request: &ClaimRequest,
        have: &[MirrorTask],
        wanted: usize,
    ) -> Result<Option<Vec<MirrorTask>>> {
        let mut found =
            call!(self, ReadOne, "looking for work", |call| outbox::candidates(call, request))?;
        found.retain(|id| have.iter().all(|task| task.table.id != *id));
        found.truncate(wanted);
        if found.is_empty() {
            return Ok(None);
        }
        let tasks =
            call!(self, Write, "claiming work", |call| outbox::claim(call, request, &found))?;
        Ok(Some(tasks))
    }
}

#[async_trait]
impl CatalogBackend for PostgresBackend {
    async fn info(&self) -> Result<BackendInfo> {
        let schema_version = if self.session.schema_is_right() {
            SCHEMA_VERSION
        } else {
            let doing = "reading the schema version";
            let mut call = self.session.unchecked(doing, Mode::ReadOne).await?;
            let found = schema::version(&mut call).await;
            let found = call.end(found).await?;
            self.session.saw_schema(found);
            found
        };
        let mut call = self.session.unchecked("asking what time it is", Mode::ReadOne).await?;
        let clock = schema::clock(&mut call).await;
        let clock = call.end(clock).await?;
        Ok(BackendInfo {
            kind: "postgres",
            server_version: self.session.server_version.get().cloned().unwrap_or_default(),
            schema_version,
            supported_schema_version: SCHEMA_VERSION,
            clock: Some(clock),
        })
    }

    async fn migrate(&self, now: TimestampMs) -> Result<()> {
        let doing = "creating or upgrading the schema";
        let mut call = self.session.unchecked(doing, Mode::Write).await?;
        let result = schema::migrate(&mut call, now).await;
        call.end(result).await
    }

    async fn get_table(&self, table: &TableRef) -> Result<Option<TableRecord>> {
        call!(self, ReadOne, "looking up a table", |call| tables::get_table(call, table))
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        call!(self, ReadOne, "listing tables", |call| tables::list_tables(
            call, filter, after, limit
        ))
    }

    async fn drop_table(&self, table_id: TableId, now: TimestampMs) -> Result<TableRecord> {
        call!(self, Write, "dropping a table", |call| tables::drop_table(call, table_id, now))
    }

    async fn undrop_table(&self, table_id: TableId, name: &TableName) -> Result<TableRecord> {
        call!(self, Write, "bringing a table back", |call| tables::undrop_table(
            call, table_id, name
        ))
    }

    async fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot> {
        call!(self, ReadOne, "opening a table", |call| reads::snapshot(call, table, at))
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<FileRecord, FileCursor>> {
        call!(self, ReadOne, "listing files", |call| reads::list_files(
            call, table_id, version, after, limit
        ))
    }

    async fn files_end(
        &self,
        table_id: TableId,
        version: Version,
        after: FileCursor,
        limit: usize,
    ) -> Result<Option<FileCursor>> {
        call!(self, ReadOne, "listing files", |call| reads::files_end(
            call, table_id, version, after, limit
        ))
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> Result<Vec<FileRecord>> {
        call!(self, ReadOne, "reading files", |call| skip::files_at(
            call, table_id, version, cursors
        ))
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<TombstoneRecord, FileCursor>> {
        call!(self, ReadOne, "listing tombstones", |call| reads::list_tombstones(
            call,
            table_id,
            version,
            deleted_after,
            after,
            limit
        ))
    }

    async fn app_transactions(&self, table_id: TableId, version: Version) -> Result<Vec<Txn>> {
        call!(self, ReadOne, "listing application transactions", |call| reads::app_transactions(
            call, table_id, version
        ))
    }

    async fn domain_metadata(
        &self,
        table_id: TableId,
        version: Version,
    ) -> Result<Vec<DomainMetadata>> {
        call!(self, ReadOne, "listing domain metadata", |call| reads::domain_metadata(
            call, table_id, version
        ))
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>> {
        call!(self, ReadOne, "listing commits", |call| reads::list_commits(
            call, table_id, filter, before, limit
        ))
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Result<Vec<(CommitRecord, CommitBody)>> {
        call!(self, ReadOne, "reading commits", |call| reads::read_bodies(
            call, table_id, from, to, limit
        ))
    }

    async fn commit(&self, request: CommitRequest) -> Result<CommitOutcome> {
        groups::commit(&self.session, request).await
    }

    async fn resolve_token(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        call!(self, ReadOne, "resolving a token", |call| commit::resolve_token(call, token))
    }

    async fn skip_index(&self, table_id: TableId) -> Result<SkipIndex> {
        call!(self, ReadOne, "reading the skipping index", |call| skip::index(call, table_id))
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> Result<Vec<Option<Bytes>>> {
        call!(self, ReadOne, "reading the skipping index", |call| skip::pages(
            call, table_id, pages
        ))
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> Result<bool> {
        call!(self, Write, "writing the skipping index", |call| skip::replace(
            call, table_id, generation, remove, segment
        ))
    }

    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        call!(self, Write, "beginning an import", |call| import::begin(
            call,
            table,
            base,
            base_from_json,
            now
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
        call!(self, Write, "importing a checkpoint", |call| import::store_base(
            call,
            table_id,
            (skip_files, skip_tombstones),
            &chunk,
            tail.as_ref()
        ))
    }

    async fn import_commits(
        &self,
        table_id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> Result<ImportProgress> {
        call!(self, Write, "importing commits", |call| import::store_commits(
            call, table_id, &commits
        ))
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        call!(self, Write, "finishing an import", |call| import::finish(call, table_id, end, now))
    }

    async fn import_abort(&self, table_id: TableId) -> Result<()> {
        call!(self, Write, "aborting an import", |call| import::abort(call, table_id))
    }

    async fn mirror_claim(&self, request: &ClaimRequest) -> Result<Vec<MirrorTask>> {
        let mut tasks: Vec<MirrorTask> = Vec::new();
        // What others took between the look and the transaction is made up for.
        for _ in 0..CLAIM_ROUNDS {
            let wanted = request.max_tables.saturating_sub(tasks.len());
            if wanted == 0 {
                break;
            }
            match self.claim_round(request, &tasks, wanted).await {
                Ok(Some(more)) => tasks.extend(more),
                Err(error) if tasks.is_empty() => return Err(error),
                // What was had is ours: the rest can wait for the next call.
                Ok(None) | Err(_) => break,
            }
        }
        Ok(tasks)
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> Result<Option<MirrorLease>> {
        call!(self, Write, "renewing a lease", |call| outbox::renew(call, lease, now, lease_ms))
    }

    async fn mirror_complete(&self, lease: &MirrorLease, done: &[Published]) -> Result<bool> {
        call!(self, Write, "recording published versions", |call| outbox::complete(
            call, lease, done
        ))
    }

    async fn mirror_fail(&self, lease: &MirrorLease, failure: &PublishFailure) -> Result<bool> {
        call!(self, Write, "recording a failure", |call| outbox::fail(call, lease, failure))
    }

    async fn mirror_release(&self, lease: &MirrorLease) -> Result<()> {
        call!(self, Write, "giving a lease up", |call| outbox::release(call, lease))
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> Result<Page<MirrorRow, (TableId, Version)>> {
        call!(self, ReadOne, "listing the outbox", |call| outbox::rows(
            call, table_id, state, after, limit
        ))
    }

    async fn mirror_retry(&self, table_id: TableId, now: TimestampMs) -> Result<u64> {
        call!(self, Write, "retrying publication", |call| outbox::retry(call, table_id, now))
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        call!(self, Write, "changing the mirror", |call| outbox::set_mode(
            call, table_id, mode, now
        ))
    }
}
