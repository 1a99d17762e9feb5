//! SQL Server backend of deltalakedb: a catalog in SQL Server 2019 or later, or Azure SQL.
//!
//! [`MssqlBackend`] implements [`CatalogBackend`] on the `tiberius` driver. Start with
//! [`MssqlOptions::from_url`] or [`MssqlOptions::new`], [`MssqlBackend::connect`], and
//! [`CatalogBackend::migrate`] once.
//!
//! It is right at READ COMMITTED with and without row versions. With them readers and writers do
//! not wait for each other, and cannot become each other's deadlock victims; Azure SQL has them by
//! default, elsewhere an administrator turns `READ_COMMITTED_SNAPSHOT` on for the database
//! (<https://learn.microsoft.com/sql/t-sql/statements/alter-database-transact-sql-set-options>).
#![forbid(unsafe_code)]

mod batch;
mod commit;
mod commit_batch;
mod commit_heads;
mod commit_staged;
mod errors;
mod file_rows;
mod files;
mod grants;
mod import;
mod options;
mod outbox;
mod prelogin;
mod reads;
mod rows;
mod schema;
mod server;
mod session;
mod skip;
mod statements;
mod tables;
mod url;

#[cfg(test)]
mod tests;

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
use deltalakedb_catalog_core::later::{in_memory, request_in_memory};
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState,
    NewSkipSegment, NewTable, Page, SkipIndex, SkipPage, Snapshot, TableRecord, TombstoneRecord,
};
use deltalakedb_catalog_core::support::CLAIM_ROUNDS;

pub use grants::{GrantRole, grants};
pub use options::{Encrypt, MssqlOptions, PoolOptions, TlsOptions};

use errors::{DbError, DbResult};
use schema::SCHEMA_VERSION;
use session::{Dial, Lease, Session, Tcp};
use statements::{Names, Statements};

/// A catalog in SQL Server.
///
/// Calls use a pool of connections. Dropping a call's future closes its connection, and the server
/// undoes what was not committed.
#[derive(Debug)]
pub struct MssqlBackend {
    session: Session,
    sql: Statements,
    server_version: String,
}

/// A call that reads, on one connection and without a transaction.
macro_rules! read {
    ($self:ident, $doing:expr, |$lease:ident| $work:expr) => {{
        let mut $lease = $self.lease($doing).await?;
        let answer = Box::pin($work).await;
        $self.told(&mut $lease, $doing, answer).await
    }};
}

/// A call that writes, in a transaction of several requests.
macro_rules! write {
    ($self:ident, $doing:expr, |$lease:ident| $work:expr) => {{
        let mut $lease = match $self.session.begin().await {
            Ok(lease) => lease,
            Err(error) => return Err(error.into_catalog($self.session.place(), $doing)),
        };
        let answer = Box::pin($work).await;
        let answer = $lease.end(answer).await;
        $self.told(&mut $lease, $doing, answer).await
    }};
}

impl MssqlBackend {
    /// Connects, and looks at the server. Our tables need not exist yet:
    /// [`CatalogBackend::migrate`] creates them.
    ///
    /// # Errors
    /// * `InvalidInput`: see [`MssqlOptions::validate`].
    /// * `Unsupported`: the server is older than SQL Server 2019.
    /// * `Unavailable`: it cannot be reached, refuses the login or the encryption, or has no such
    ///   database.
    pub async fn connect(options: MssqlOptions) -> Result<Arc<MssqlBackend>> {
        Self::connect_over(options, Arc::new(Tcp)).await
    }

    pub(crate) async fn connect_over(
        options: MssqlOptions,
        dial: Arc<dyn Dial>,
    ) -> Result<Arc<MssqlBackend>> {
        options.validate()?;
        let session = Session::new(&options, dial)?;
        let names = Names { schema: options.schema.clone(), prefix: options.table_prefix.clone() };
        let server_version = server::look(&session, options.pool.min_connections)
            .await
            .map_err(|error| error.into_catalog(session.place(), "connecting"))?;
        Ok(Arc::new(MssqlBackend { session, sql: Statements::new(names), server_version }))
    }

    async fn lease(&self, doing: &str) -> Result<Lease> {
        let lease = self.session.lease().await;
        lease.map_err(|error| error.into_catalog(self.session.place(), doing))
    }

    /// The answer as the caller sees it. A missing table is looked into: is it ours that is
    /// missing, or too new? So is an error of an unknown number: servers that are not SQL Server
    /// have some of their own.
    async fn told<T>(&self, lease: &mut Lease, doing: &str, answer: DbResult<T>) -> Result<T> {
        let place = self.session.place();
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if (error.is_missing() || error.is_unknown())
            && let Ok(version) = schema::inspect(lease, &self.sql, place).await
        {
            schema::require(version, place, &self.sql.names.prefix)?;
        }
        Err(error.into_catalog(place, doing))
    }

    /// Tries to lease tables that are not leased by this call yet; an entry for each that was
    /// tried, none for one that another owner got.
    async fn claim_round(
        &self,
        request: &ClaimRequest,
        have: &[MirrorTask],
    ) -> Result<Vec<Option<MirrorTask>>> {
        let doing = "claiming work";
        let mut found =
            read!(self, doing, |lease| outbox::candidates(&mut lease, &self.sql, request))?;
        found.retain(|id| have.iter().all(|task| task.table.id != *id));
        found.truncate(request.max_tables.saturating_sub(have.len()));
        if found.is_empty() {
            return Ok(Vec::new());
        }
        write!(self, doing, |lease| outbox::claim(&mut lease, &self.sql, request, &found))
    }

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
            &self.sql,
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
            &mut lease, &self.sql, table_id, commits
        ))
    }

    async fn schema_version(&self, lease: &mut Lease) -> DbResult<u32> {
        schema::inspect(lease, &self.sql, self.session.place()).await
    }

    async fn version_and_clock(&self, lease: &mut Lease) -> DbResult<(u32, Option<TimestampMs>)> {
        let version = self.schema_version(lease).await?;
        Ok((version, schema::clock(lease, &self.sql).await?))
    }
}

#[async_trait]
impl CatalogBackend for MssqlBackend {
    async fn info(&self) -> Result<BackendInfo> {
        let doing = "reading the schema version";
        let (schema_version, clock) =
            read!(self, doing, |lease| self.version_and_clock(&mut lease))?;
        Ok(BackendInfo {
            kind: "mssql",
            server_version: self.server_version.clone(),
            schema_version,
            supported_schema_version: SCHEMA_VERSION,
            clock,
        })
    }

    async fn migrate(&self, now: TimestampMs) -> Result<()> {
        let answer = schema::migrate(&self.session, &self.sql, now).await;
        let doing = "creating or upgrading the schema";
        answer.map_err(|error: DbError| error.into_catalog(self.session.place(), doing))
    }

    async fn get_table(&self, table: &TableRef) -> Result<Option<TableRecord>> {
        read!(self, "looking up a table", |lease| tables::get_table(&mut lease, &self.sql, table))
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        read!(self, "listing tables", |lease| tables::list_tables(
            &mut lease, &self.sql, filter, after, limit
        ))
    }

    async fn drop_table(&self, table_id: TableId, now: TimestampMs) -> Result<TableRecord> {
        read!(self, "dropping a table", |lease| tables::drop_table(
            &mut lease, &self.sql, table_id, now
        ))
    }

    async fn undrop_table(&self, table_id: TableId, name: &TableName) -> Result<TableRecord> {
        read!(self, "bringing a table back", |lease| tables::undrop_table(
            &mut lease, &self.sql, table_id, name
        ))
    }

    async fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot> {
        read!(self, "opening a table", |lease| reads::snapshot(&mut lease, &self.sql, table, at))
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<FileRecord, FileCursor>> {
        read!(self, "listing files", |lease| reads::list_files(
            &mut lease, &self.sql, table_id, version, after, limit
        ))
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> Result<Vec<FileRecord>> {
        read!(self, "reading files", |lease| skip::files_at(
            &mut lease, &self.sql, table_id, version, cursors
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
        read!(self, "listing tombstones", |lease| reads::list_tombstones(
            &mut lease,
            &self.sql,
            table_id,
            version,
            deleted_after,
            after,
            limit
        ))
    }

    async fn app_transactions(&self, table_id: TableId, version: Version) -> Result<Vec<Txn>> {
        read!(self, "listing application transactions", |lease| reads::app_transactions(
            &mut lease, &self.sql, table_id, version
        ))
    }

    async fn domain_metadata(
        &self,
        table_id: TableId,
        version: Version,
    ) -> Result<Vec<DomainMetadata>> {
        read!(self, "listing domain metadata", |lease| reads::domain_metadata(
            &mut lease, &self.sql, table_id, version
        ))
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>> {
        read!(self, "listing commits", |lease| reads::list_commits(
            &mut lease, &self.sql, table_id, filter, before, limit
        ))
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Result<Vec<(CommitRecord, CommitBody)>> {
        read!(self, "reading commits", |lease| reads::read_bodies(
            &mut lease, &self.sql, table_id, from, to, limit
        ))
    }

    async fn commit(&self, request: CommitRequest) -> Result<CommitOutcome> {
        let request = request_in_memory(request).await?;
        let answer = Box::pin(commit::commit(&self.session, &self.sql, &request)).await;
        let error = match answer {
            Ok(outcome) => return Ok(outcome),
            Err(error) => error,
        };
        if error.is_missing() {
            let mut lease = self.lease("committing").await?;
            return self.told(&mut lease, "committing", Err(error)).await;
        }
        Err(error.into_catalog(self.session.place(), "committing"))
    }

    async fn resolve_token(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        read!(self, "resolving a token", |lease| commit::resolve_token(
            &mut lease, &self.sql, token
        ))
    }

    async fn skip_index(&self, table_id: TableId) -> Result<SkipIndex> {
        let doing = "reading the skipping index";
        read!(self, doing, |lease| skip::index(&mut lease, &self.sql, table_id))
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> Result<Vec<Option<Bytes>>> {
        let doing = "reading the skipping index";
        read!(self, doing, |lease| skip::pages(&mut lease, &self.sql, table_id, pages))
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> Result<bool> {
        write!(self, "writing the skipping index", |lease| skip::replace(
            &mut lease, &self.sql, table_id, generation, remove, segment
        ))
    }

    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        write!(self, "beginning an import", |lease| import::begin(
            &mut lease,
            &self.sql,
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
        let bulk = self.sql.bulk_allowed();
        let answer = self
            .import_base_once(table_id, skip_files, skip_tombstones, &chunk, tail.as_ref())
            .await;
        if answer.is_err() && bulk && !self.sql.bulk_allowed() {
            // The server takes no bulk load, as it turned out. Nothing was written: another way.
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
        let bulk = self.sql.bulk_allowed();
        let answer = self.import_commits_once(table_id, &commits).await;
        if answer.is_err() && bulk && !self.sql.bulk_allowed() {
            return self.import_commits_once(table_id, &commits).await;
        }
        answer
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        write!(self, "finishing an import", |lease| import::finish(
            &mut lease, &self.sql, table_id, end, now
        ))
    }

    async fn import_abort(&self, table_id: TableId) -> Result<()> {
        write!(self, "aborting an import", |lease| import::abort(&mut lease, &self.sql, table_id))
    }

    async fn mirror_claim(&self, request: &ClaimRequest) -> Result<Vec<MirrorTask>> {
        let mut tasks: Vec<MirrorTask> = Vec::new();
        // What others took between the look and the transaction is made up for.
        for _ in 0..CLAIM_ROUNDS {
            match self.claim_round(request, &tasks).await {
                Ok(more) if more.is_empty() => break,
                Ok(more) => tasks.extend(more.into_iter().flatten()),
                Err(error) if tasks.is_empty() => return Err(error),
                // These are ours already: the rest can wait for the next call.
                Err(_) => break,
            }
            if tasks.len() >= request.max_tables {
                break;
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
        read!(self, "renewing a lease", |conn| outbox::renew(
            &mut conn, &self.sql, lease, now, lease_ms
        ))
    }

    async fn mirror_complete(&self, lease: &MirrorLease, done: &[Published]) -> Result<bool> {
        write!(self, "recording published versions", |conn| outbox::complete(
            &mut conn, &self.sql, lease, done
        ))
    }

    async fn mirror_fail(&self, lease: &MirrorLease, failure: &PublishFailure) -> Result<bool> {
        write!(self, "recording a failure", |conn| outbox::fail(
            &mut conn, &self.sql, lease, failure
        ))
    }

    async fn mirror_release(&self, lease: &MirrorLease) -> Result<()> {
        write!(self, "giving a lease up", |conn| outbox::release(&mut conn, &self.sql, lease))
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> Result<Page<MirrorRow, (TableId, Version)>> {
        read!(self, "listing the outbox", |lease| outbox::list(
            &mut lease, &self.sql, table_id, state, after, limit
        ))
    }

    async fn mirror_retry(&self, table_id: TableId, now: TimestampMs) -> Result<u64> {
        write!(self, "retrying publication", |lease| outbox::retry(
            &mut lease, &self.sql, table_id, now
        ))
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        write!(self, "changing the mirror", |lease| outbox::set_mode(
            &mut lease, &self.sql, table_id, mode, now
        ))
    }
}
