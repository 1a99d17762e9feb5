//! SQLite backend of deltalakedb: a catalog in one file.
//!
//! [`SqliteBackend`] implements [`CatalogBackend`] on the SQLite that is built into the program.
//! Several processes may use one file at a time; it must lie on a local file system. Start with
//! [`SqliteOptions::new`] and [`SqliteBackend::open`], then [`CatalogBackend::migrate`] once.
#![forbid(unsafe_code)]

mod commit;
mod errors;
mod files;
mod import;
mod options;
mod outbox;
mod readers;
mod reads;
mod rows;
mod schema;
mod session;
mod skip;
mod statements;
mod tables;
mod worker;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::action::{DomainMetadata, Txn};
use deltalakedb_catalog_core::backend::{
    BackendInfo, CatalogBackend, ClaimRequest, CommitFilter, CommitOutcome, CommitRequest,
    CommittedTable, ImportEnd, ImportProgress, ImportedCommit, MirrorLease, MirrorTask,
    PublishFailure, Published, TableFilter,
};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex};
use deltalakedb_catalog_core::error::{Result, WriteState};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::later::LaterAdds;
use deltalakedb_catalog_core::model::{
    BaseChunk, BaseTail, CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState,
    NewSkipSegment, NewTable, Page, SkipIndex, SkipPage, Snapshot, TableRecord, TombstoneRecord,
};

pub use options::SqliteOptions;

use errors::DbResult;
use schema::SCHEMA_VERSION;
use session::{Db, Session};
use worker::{Workers, Write};

/// A file or remove is about this much in rows and indexes, bytes: for the size of groups.
const FILE_WEIGHT_BYTES: usize = 512;

/// A catalog in a SQLite file.
///
/// Calls run on threads of this value, one that writes and up to [`SqliteOptions::readers`] that read,
/// and may be awaited on any executor. Dropping a call's future does not interrupt it. Dropping
/// the value blocks until what was begun is finished, and closes the file.
#[derive(Debug)]
pub struct SqliteBackend {
    workers: Workers,
}

/// Counters since the catalog was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteStats {
    /// Write transactions that were committed, each with one sync of the disk.
    pub write_transactions: u64,
    /// Writing calls that they contained: more than transactions where calls waited together.
    pub writes: u64,
}

impl SqliteBackend {
    /// Opens a file, and creates it unless `must_exist` or `read_only`. Not async: it blocks for
    /// some milliseconds, or up to the busy timeout while another process changes the file. Our
    /// tables are created by [`CatalogBackend::migrate`].
    ///
    /// # Errors
    /// * `InvalidInput`: see [`SqliteOptions::validate`].
    /// * `Schema`: the file is not a SQLite database or belongs to another program (nothing is
    ///   changed in it); with `must_exist` or `read_only` also if there is no catalog in it, or
    ///   one of another schema version.
    /// * `Unavailable`: it cannot be opened or written, or its file system does not support WAL.
    pub fn open(options: SqliteOptions) -> Result<Arc<SqliteBackend>> {
        let first = Session::open_first(options)?;
        Ok(Arc::new(SqliteBackend { workers: Workers::start(first)? }))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.workers.shared().path()
    }

    /// Counters since it was opened.
    pub fn stats(&self) -> SqliteStats {
        let shared = self.workers.shared();
        SqliteStats {
            write_transactions: shared.transactions.load(Ordering::Relaxed),
            writes: shared.jobs.load(Ordering::Relaxed),
        }
    }

    /// A read of several statements.
    async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(Db<'_>) -> DbResult<T> + Send + 'static,
    ) -> Result<T> {
        self.workers.read(move |session| session.read(doing, work)).await
    }

    /// A read of one statement.
    async fn read_one<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(Db<'_>) -> DbResult<T> + Send + 'static,
    ) -> Result<T> {
        self.workers.read(move |session| session.read_one(doing, work)).await
    }

    /// A small write that stays whenever it succeeds.
    async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(Db<'_>) -> DbResult<T> + Send + 'static,
    ) -> Result<T> {
        self.write_weighing(doing, 4096, work).await
    }

    async fn write_weighing<T: Send + 'static>(
        &self,
        doing: &'static str,
        weight_bytes: usize,
        work: impl FnOnce(Db<'_>) -> DbResult<T> + Send + 'static,
    ) -> Result<T> {
        let write = Write { doing, weight_bytes, needs_schema: true, work };
        self.workers.write(write, |_| true).await
    }
}

/// About how much a commit's rows take, bytes.
fn weight(index: &CommitIndex, later: Option<&LaterAdds>, body: usize) -> usize {
    (index.adds.len() + index.removes.len() + later.map_or(0, LaterAdds::files))
        .saturating_mul(FILE_WEIGHT_BYTES)
        .saturating_add(body)
        .saturating_add(1024)
}

#[async_trait]
impl CatalogBackend for SqliteBackend {
    async fn info(&self) -> Result<BackendInfo> {
        let read = |session: &Session| {
            session.schema_version().map_err(|e| {
                let path = session.shared.path();
                e.into_catalog(path, "reading the schema version", WriteState::NotApplied)
            })
        };
        Ok(BackendInfo {
            kind: "sqlite",
            server_version: rusqlite::version().to_owned(),
            schema_version: self.workers.read(read).await?,
            supported_schema_version: SCHEMA_VERSION,
            clock: None,
        })
    }

    async fn migrate(&self, now: TimestampMs) -> Result<()> {
        let write = Write {
            doing: "creating or upgrading the schema",
            weight_bytes: 4096,
            needs_schema: false,
            work: move |db: Db<'_>| schema::migrate(db, now),
        };
        self.workers.write(write, |changed| *changed).await.map(|_| ())
    }

    async fn get_table(&self, table: &TableRef) -> Result<Option<TableRecord>> {
        let table = table.clone();
        self.read_one("looking up a table", move |db| tables::get_table(db, &table)).await
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.read_one("listing tables", move |db| {
            tables::list_tables(db, &filter, after.as_ref(), limit)
        })
        .await
    }

    async fn drop_table(&self, table_id: TableId, now: TimestampMs) -> Result<TableRecord> {
        self.write("dropping a table", move |db| tables::drop_table(db, table_id, now)).await
    }

    async fn undrop_table(&self, table_id: TableId, name: &TableName) -> Result<TableRecord> {
        let name = name.clone();
        self.write("bringing a table back", move |db| tables::undrop_table(db, table_id, &name))
            .await
    }

    async fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot> {
        let table = table.clone();
        self.read_one("opening a table", move |db| reads::snapshot(db, &table, at)).await
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<FileRecord, FileCursor>> {
        self.read("listing files", move |db| reads::list_files(db, table_id, version, after, limit))
            .await
    }

    async fn files_end(
        &self,
        table_id: TableId,
        version: Version,
        after: FileCursor,
        limit: usize,
    ) -> Result<Option<FileCursor>> {
        self.read("listing files", move |db| reads::files_end(db, table_id, version, after, limit))
            .await
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> Result<Vec<FileRecord>> {
        let cursors = cursors.to_vec();
        self.read("reading files", move |db| skip::files_at(db, table_id, version, &cursors)).await
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<TombstoneRecord, FileCursor>> {
        self.read("listing tombstones", move |db| {
            reads::list_tombstones(db, table_id, version, deleted_after, after, limit)
        })
        .await
    }

    async fn app_transactions(&self, table_id: TableId, version: Version) -> Result<Vec<Txn>> {
        self.read("listing application transactions", move |db| {
            reads::app_transactions(db, table_id, version)
        })
        .await
    }

    async fn domain_metadata(
        &self,
        table_id: TableId,
        version: Version,
    ) -> Result<Vec<DomainMetadata>> {
        self.read("listing domain metadata", move |db| {
            reads::domain_metadata(db, table_id, version)
        })
        .await
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>> {
        let filter = filter.clone();
        self.read("listing commits", move |db| {
            reads::list_commits(db, table_id, &filter, before, limit)
        })
        .await
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Result<Vec<(CommitRecord, CommitBody)>> {
        self.read("reading commits", move |db| reads::read_bodies(db, table_id, from, to, limit))
            .await
    }

    async fn commit(&self, request: CommitRequest) -> Result<CommitOutcome> {
        let weight_bytes = request.tables.iter().fold(0_usize, |sum, part| {
            sum.saturating_add(weight(&part.index, part.later.as_ref(), part.rest.zstd.len()))
        });
        let write = Write {
            doing: "committing",
            weight_bytes,
            needs_schema: true,
            work: move |db: Db<'_>| commit::commit(db, &request),
        };
        self.workers.write(write, |outcome| matches!(outcome, CommitOutcome::Committed(_))).await
    }

    async fn resolve_token(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        let token = token.clone();
        self.read("resolving a token", move |db| commit::resolve_token(db, &token)).await
    }

    async fn skip_index(&self, table_id: TableId) -> Result<SkipIndex> {
        self.read("reading the skipping index", move |db| skip::index(db, table_id)).await
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> Result<Vec<Option<Bytes>>> {
        let pages = pages.to_vec();
        self.read("reading the skipping index", move |db| skip::pages(db, table_id, &pages)).await
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> Result<bool> {
        let (remove, segment) = (remove.to_vec(), segment.clone());
        let bytes = segment.pages.iter().map(Bytes::len).sum::<usize>() + segment.root.len();
        self.write_weighing("writing the skipping index", bytes, move |db| {
            skip::replace(db, table_id, generation, &remove, &segment)
        })
        .await
    }

    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress> {
        let table = table.clone();
        self.write("beginning an import", move |db| {
            import::begin(db, &table, base, base_from_json, now)
        })
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
        let actions = chunk.files.len() + chunk.tombstones.len();
        let weight_bytes = actions.saturating_mul(FILE_WEIGHT_BYTES);
        self.write_weighing("importing a checkpoint", weight_bytes, move |db| {
            import::store_base(db, table_id, skip_files, skip_tombstones, &chunk, tail.as_ref())
        })
        .await
    }

    async fn import_commits(
        &self,
        table_id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> Result<ImportProgress> {
        let weight_bytes = commits.iter().fold(0_usize, |sum, commit| {
            let body = commit.body.rest.zstd.len();
            sum.saturating_add(weight(&commit.index, commit.later.as_ref(), body))
        });
        self.write_weighing("importing commits", weight_bytes, move |db| {
            import::store_commits(db, table_id, &commits)
        })
        .await
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.write("finishing an import", move |db| import::finish(db, table_id, end, now)).await
    }

    async fn import_abort(&self, table_id: TableId) -> Result<()> {
        self.write("aborting an import", move |db| import::abort(db, table_id)).await
    }

    async fn mirror_claim(&self, request: &ClaimRequest) -> Result<Vec<MirrorTask>> {
        let asked = request.clone();
        let doing = "claiming work";
        if !self.read_one(doing, move |db| outbox::any_claimable(db, &asked)).await? {
            return Ok(Vec::new());
        }
        let request = request.clone();
        self.write(doing, move |db| outbox::claim(db, &request)).await
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> Result<Option<MirrorLease>> {
        let lease = lease.clone();
        self.write("renewing a lease", move |db| outbox::renew(db, &lease, now, lease_ms)).await
    }

    async fn mirror_complete(&self, lease: &MirrorLease, done: &[Published]) -> Result<bool> {
        let (lease, done) = (lease.clone(), done.to_vec());
        self.write("recording published versions", move |db| outbox::complete(db, &lease, &done))
            .await
    }

    async fn mirror_fail(&self, lease: &MirrorLease, failure: &PublishFailure) -> Result<bool> {
        let (lease, failure) = (lease.clone(), failure.clone());
        self.write("recording a failure", move |db| outbox::fail(db, &lease, &failure)).await
    }

    async fn mirror_release(&self, lease: &MirrorLease) -> Result<()> {
        let lease = lease.clone();
        self.write("giving a lease up", move |db| outbox::release(db, &lease)).await
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> Result<Page<MirrorRow, (TableId, Version)>> {
        self.read("listing the outbox", move |db| outbox::list(db, table_id, state, after, limit))
            .await
    }

    async fn mirror_retry(&self, table_id: TableId, now: TimestampMs) -> Result<u64> {
        self.write("retrying publication", move |db| outbox::retry(db, table_id, now)).await
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> Result<TableRecord> {
        self.write("changing the mirror", move |db| outbox::set_mode(db, table_id, mode, now)).await
    }
}
