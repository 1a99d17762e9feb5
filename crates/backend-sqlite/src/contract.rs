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
use deltalakedb_catalog_core::error::{ReadResult, Result, WriteResult, WriteState};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState, NewSkipSegment,
    NewTable, Page, SkipIndex, SkipPage, Snapshot, TableRecord, TombstoneRecord,
};

use deltalakedb_catalog_core::registry::{Record, RecordKey, RecordWrite, RegistryOutcome};

use super::{SqliteBackend, audit, commit, import, outbox, reads, registry, schema, skip, tables};
use crate::commit::{FILE_WEIGHT_BYTES, weight};
use crate::errors::DbResult;
use crate::schema::SCHEMA_VERSION;
use crate::session::{Db, Session};
use crate::worker::Write;

#[async_trait]
impl SchemaBackend for SqliteBackend {
    async fn info(&self) -> ReadResult<BackendInfo> {
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
            keeps_audit: true,
        })
    }

    async fn migrate(&self, now: TimestampMs) -> WriteResult<()> {
        let write = Write {
            doing: "creating or upgrading the schema",
            weight_bytes: 4096,
            needs_schema: false,
            work: move |db: Db<'_>| schema::migrate(db.conn, &db.shared.options, now),
        };
        Ok(self.workers.write(write, |changed| *changed).await.map(|_| ())?)
    }
}

#[async_trait]
impl OperateBackend for SqliteBackend {
    fn pool_stats(&self) -> Option<PoolStats> {
        self.workers.stats()
    }

    async fn close(&self) -> WriteResult<()> {
        self.workers.close().await;
        Ok(())
    }
}

#[async_trait]
impl AuditBackend for SqliteBackend {
    async fn audit_record(&self, entry: &AuditEntry) -> WriteResult<()> {
        let entry = entry.clone();
        Ok(self.write("writing to the audit", move |db| audit::keep(db, &entry)).await?)
    }

    async fn audit_list(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<AuditCursor>,
        limit: usize,
    ) -> ReadResult<Page<AuditRow, AuditCursor>> {
        let filter = filter.clone();
        Ok(self
            .read_one("reading the audit", move |db| audit::list(db, &filter, order, after, limit))
            .await?)
    }
}

#[async_trait]
impl RegistryBackend for SqliteBackend {
    async fn registry_get(&self, key: &RecordKey) -> ReadResult<Option<Record>> {
        let key = key.clone();
        Ok(self.read_one("reading the registry", move |db| registry::get(db, &key)).await?)
    }

    async fn registry_list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> ReadResult<Page<Record, String>> {
        let (kind, after) = (kind.to_owned(), after.map(str::to_owned));
        Ok(self
            .read_one("listing the registry", move |db| {
                registry::list(db, &kind, after.as_deref(), limit)
            })
            .await?)
    }

    async fn registry_write(
        &self,
        writes: &[RecordWrite],
        at: TimestampMs,
        entry: Option<&AuditEntry>,
    ) -> WriteResult<RegistryOutcome> {
        RecordWrite::check(writes)?;
        let (writes, entry) = (writes.to_vec(), entry.cloned());
        let bytes = writes.iter().flat_map(|write| &write.body).map(String::len).sum::<usize>();
        Ok(self
            .write_weighing("writing to the registry", 4096 + bytes, move |db| {
                registry::write(db, &writes, at, entry.as_ref())
            })
            .await?)
    }

    async fn registry_all(
        &self,
        after: Option<&RecordKey>,
        limit: usize,
    ) -> ReadResult<Page<Record, RecordKey>> {
        let after = after.cloned();
        Ok(self
            .read_one("listing the registry", move |db| registry::all(db, after.as_ref(), limit))
            .await?)
    }

    async fn registry_load(&self, records: &[Record], revision: i64) -> WriteResult<bool> {
        let records = records.to_vec();
        let bytes = records.iter().map(|record| record.body.len()).sum::<usize>();
        Ok(self
            .write_weighing("filling the registry", 4096 + bytes, move |db| {
                registry::load(db, &records, revision)
            })
            .await?)
    }

    async fn registry_revision(&self) -> ReadResult<i64> {
        Ok(self.read_one("reading the registry", registry::revision).await?)
    }
}

#[async_trait]
impl TableBackend for SqliteBackend {
    fn note_change(&self, _table_id: TableId) {}

    async fn get_table(&self, table: &TableRef) -> ReadResult<Option<TableRecord>> {
        let table = table.clone();
        Ok(self.read_one("looking up a table", move |db| tables::get_table(db, &table)).await?)
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> ReadResult<Page<TableRecord, (TableName, TableId)>> {
        let (filter, after) = (filter.clone(), after.cloned());
        Ok(self
            .read_one("listing tables", move |db| {
                tables::list_tables(db, &filter, after.as_ref(), limit)
            })
            .await?)
    }

    async fn drop_table(&self, table_id: TableId, act: &Act) -> WriteResult<TableRecord> {
        let act = act.clone();
        Ok(self.write("dropping a table", move |db| tables::drop_table(db, table_id, &act)).await?)
    }

    async fn undrop_table(
        &self,
        table_id: TableId,
        name: &TableName,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        let (name, act) = (name.clone(), act.clone());
        Ok(self
            .write("bringing a table back", move |db| {
                tables::undrop_table(db, table_id, &name, &act)
            })
            .await?)
    }
}

#[async_trait]
impl ReadBackend for SqliteBackend {
    async fn snapshot(&self, table: &TableRef, at: At) -> ReadResult<Snapshot> {
        let table = table.clone();
        Ok(self.read_one("opening a table", move |db| reads::snapshot(db, &table, at)).await?)
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<FileRecord, FileCursor>> {
        Ok(self
            .read("listing files", move |db| reads::list_files(db, table_id, version, after, limit))
            .await?)
    }

    async fn files_end(
        &self,
        table_id: TableId,
        version: Version,
        after: FileCursor,
        limit: usize,
    ) -> ReadResult<Option<FileCursor>> {
        Ok(self
            .read("listing files", move |db| reads::files_end(db, table_id, version, after, limit))
            .await?)
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> ReadResult<Vec<FileRecord>> {
        let cursors = cursors.to_vec();
        Ok(self
            .read("reading files", move |db| skip::files_at(db, table_id, version, &cursors))
            .await?)
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<TombstoneRecord, FileCursor>> {
        Ok(self
            .read("listing tombstones", move |db| {
                reads::list_tombstones(db, table_id, version, deleted_after, after, limit)
            })
            .await?)
    }

    async fn app_state(
        &self,
        table_id: TableId,
        version: Version,
        rows: AppRows,
    ) -> ReadResult<AppState> {
        let transactions = if rows.transactions() {
            self.read("listing application transactions", move |db| {
                reads::app_transactions(db, table_id, version)
            })
            .await?
        } else {
            Vec::new()
        };
        let domains = if rows.domains() {
            self.read("listing domain metadata", move |db| {
                reads::domain_metadata(db, table_id, version)
            })
            .await?
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
        let filter = filter.clone();
        Ok(self
            .read("listing commits", move |db| {
                reads::list_commits(db, table_id, &filter, before, limit)
            })
            .await?)
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> ReadResult<Vec<(CommitRecord, CommitBody)>> {
        Ok(self
            .read("reading commits", move |db| reads::read_bodies(db, table_id, from, to, limit))
            .await?)
    }
}

#[async_trait]
impl CommitBackend for SqliteBackend {
    async fn commit(&self, request: CommitRequest) -> WriteResult<CommitOutcome> {
        Ok(self.commit_request(request).await?)
    }

    async fn resolve_token(&self, token: &CommitToken) -> ReadResult<Option<Vec<CommittedTable>>> {
        let token = token.clone();
        Ok(self.read("resolving a token", move |db| commit::resolve_token(db, &token)).await?)
    }

    async fn expire_tokens(
        &self,
        expiry: Expiry,
        after: Option<&CommitToken>,
    ) -> WriteResult<Expired<CommitToken>> {
        let after = after.cloned();
        let work = |expiry| {
            let after = after.clone();
            move |db: Db<'_>| commit::expire_tokens(db, expiry, after.as_ref())
        };
        Ok(self.counted("forgetting tokens", expiry, work).await?)
    }
}

#[async_trait]
impl SkipBackend for SqliteBackend {
    async fn skip_index(&self, table_id: TableId) -> ReadResult<SkipIndex> {
        Ok(self.read("reading the skipping index", move |db| skip::index(db, table_id)).await?)
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> ReadResult<Vec<Option<Bytes>>> {
        let pages = pages.to_vec();
        Ok(self
            .read("reading the skipping index", move |db| skip::pages(db, table_id, &pages))
            .await?)
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> WriteResult<bool> {
        let (remove, segment) = (remove.to_vec(), segment.clone());
        let bytes = segment.pages.iter().map(Bytes::len).sum::<usize>() + segment.root.len();
        Ok(self
            .write_weighing("writing the skipping index", bytes, move |db| {
                skip::replace(db, table_id, generation, &remove, &segment)
            })
            .await?)
    }
}

#[async_trait]
impl ImportBackend for SqliteBackend {
    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> WriteResult<ImportProgress> {
        let table = table.clone();
        Ok(self
            .write("beginning an import", move |db| {
                import::begin(db, &table, base, base_from_json, now)
            })
            .await?)
    }

    async fn import_step(
        &self,
        table_id: TableId,
        step: ImportStep,
    ) -> WriteResult<ImportProgress> {
        Ok(match step {
            ImportStep::Base { skip_files, skip_tombstones, chunk, tail } => {
                let actions = chunk.files.len() + chunk.tombstones.len();
                let weight_bytes = actions.saturating_mul(FILE_WEIGHT_BYTES);
                self.write_weighing("importing a checkpoint", weight_bytes, move |db| {
                    import::store_base(
                        db,
                        table_id,
                        skip_files,
                        skip_tombstones,
                        &chunk,
                        tail.as_ref(),
                    )
                })
                .await?
            }
            ImportStep::Commits(commits) => {
                let weight_bytes = commits.iter().fold(0_usize, |sum, commit| {
                    let body = commit.body.rest.zstd.len();
                    sum.saturating_add(weight(&commit.index, commit.later.as_ref(), body))
                });
                self.write_weighing("importing commits", weight_bytes, move |db| {
                    import::store_commits(db, table_id, &commits)
                })
                .await?
            }
        })
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        let act = act.clone();
        Ok(self
            .write("finishing an import", move |db| import::finish(db, table_id, end, &act))
            .await?)
    }

    async fn import_abort(&self, table_id: TableId, act: &Act) -> WriteResult<()> {
        let act = act.clone();
        Ok(self.write("aborting an import", move |db| import::abort(db, table_id, &act)).await?)
    }
}

#[async_trait]
impl OutboxBackend for SqliteBackend {
    async fn mirror_claim(&self, request: &ClaimRequest) -> WriteResult<Vec<MirrorTask>> {
        Ok(self.claim(request).await?)
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> WriteResult<Option<MirrorLease>> {
        let lease = lease.clone();
        Ok(self
            .write("renewing a lease", move |db| outbox::renew(db, &lease, now, lease_ms))
            .await?)
    }

    async fn mirror_settle(&self, lease: &MirrorLease, how: Settlement<'_>) -> WriteResult<bool> {
        Ok(match how {
            Settlement::Published(done) => {
                let (lease, done) = (lease.clone(), done.to_vec());
                self.write("recording published versions", move |db| {
                    outbox::complete(db, &lease, &done)
                })
                .await?
            }
            Settlement::Failed(failure) => {
                let (lease, failure) = (lease.clone(), failure.clone());
                self.write("recording a failure", move |db| outbox::fail(db, &lease, &failure))
                    .await?
            }
            Settlement::Released => {
                let lease = lease.clone();
                self.write("giving a lease up", move |db| outbox::release(db, &lease)).await?
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
        Ok(self
            .read("listing the outbox", move |db| outbox::list(db, table_id, state, after, limit))
            .await?)
    }

    async fn mirror_retry(&self, table_id: TableId, act: &Act) -> WriteResult<u64> {
        let act = act.clone();
        Ok(self.write("retrying publication", move |db| outbox::retry(db, table_id, &act)).await?)
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        let act = act.clone();
        Ok(self
            .write("changing the mirror", move |db| outbox::set_mode(db, table_id, mode, &act))
            .await?)
    }

    async fn mirror_expire(
        &self,
        expiry: Expiry,
        after: Option<(TableId, Version)>,
    ) -> WriteResult<Expired<(TableId, Version)>> {
        let work = |expiry| move |db: Db<'_>| outbox::expire(db, expiry, after);
        Ok(self.counted("clearing the outbox", expiry, work).await?)
    }
}

impl SqliteBackend {
    /// A page of an expiry. A reader counts first what would go: the write lock is taken only if there is some.
    async fn counted<C: Send + 'static, W>(
        &self,
        doing: &'static str,
        expiry: Expiry,
        work: impl Fn(Expiry) -> W,
    ) -> Result<Expired<C>>
    where
        W: FnOnce(Db<'_>) -> DbResult<Expired<C>> + Send + 'static,
    {
        let counted = self.read(doing, work(Expiry { dry_run: true, ..expiry })).await?;
        if expiry.dry_run || counted.removed == 0 {
            return Ok(counted);
        }
        self.write(doing, work(expiry)).await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<MirrorTask>> {
        let asked = request.clone();
        let doing = "claiming work";
        if !self.read_one(doing, move |db| outbox::any_claimable(db, &asked)).await? {
            return Ok(Vec::new());
        }
        let request = request.clone();
        self.write(doing, move |db| outbox::claim(db, &request)).await
    }
}
