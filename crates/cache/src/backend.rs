//! The parts of the contract that the cache is about; the schema's is passed on. A read may be answered from
//! memory, a write never is: it goes on, and what is remembered of its tables is forgotten.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::{
    AppRows, AppState, ClaimRequest, CommitBackend, CommitFilter, CommitOutcome, CommitRequest,
    CommitTarget, CommittedTable, Expired, Expiry, ImportBackend, ImportEnd, ImportProgress,
    ImportStep, MirrorLease, MirrorTask, OutboxBackend, ReadBackend, Settlement, SkipBackend,
    TableBackend, TableFilter,
};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::delegate;
use deltalakedb_catalog_core::error::{CatalogError, ReadResult, WriteResult};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState, NewSkipSegment,
    NewTable, Page, SkipIndex, SkipPage, Snapshot, TableRecord, TombstoneRecord,
};

use crate::CachedBackend;
use crate::entries::{Entry, Key};
use crate::flight::Join;
use crate::heads::Ticket;
use crate::lists::FilePage;
use crate::state::State;
use crate::stats::CacheKind;

/// A change under way: when it has ended, however it did, what is remembered of these tables is forgotten.
/// Also if nobody waits for its end any more: it may take effect.
struct Changing<'c> {
    state: &'c State,
    ids: Vec<TableId>,
    names: Vec<TableName>,
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.state.heads.forget(&self.ids, &self.names);
    }
}

impl CachedBackend {
    fn changing(&self, id: TableId) -> Changing<'_> {
        Changing { state: &self.state, ids: vec![id], names: Vec::new() }
    }

    async fn ask_table(&self, table: &TableRef) -> ReadResult<Option<TableRecord>> {
        let (state, source, asked) =
            (Arc::clone(&self.state), Arc::clone(&self.source), table.clone());
        let ask = move || async move {
            let ticket = state.heads.ticket();
            let row = source.inner.get_table(&asked).await?;
            match &row {
                Some(row) => state.read(ticket, row, None, source.for_readers),
                None => state.heads.missed(ticket, &asked),
            }
            Ok(row)
        };
        let joined = &self.state.counters.joined;
        self.source.tables.ask(table.clone(), Join::NotSent, joined, ask).await
    }

    async fn ask_snapshot(&self, table: &TableRef, at: At) -> ReadResult<Snapshot> {
        let (state, source, asked) =
            (Arc::clone(&self.state), Arc::clone(&self.source), table.clone());
        let ask = move || async move {
            let ticket = state.heads.ticket();
            let answer = source.inner.snapshot(&asked, at).await;
            match &answer {
                Ok(snapshot) => {
                    let files = Some(snapshot.num_files);
                    state.read(ticket, &snapshot.table, files, source.for_readers);
                    state.keep_snapshot(snapshot);
                }
                Err(error) => {
                    if matches!(error.get(), CatalogError::TableNotFound(_)) {
                        state.heads.missed(ticket, &asked);
                    }
                }
            }
            answer
        };
        let joined = &self.state.counters.joined;
        self.source.snapshots.ask((table.clone(), at), Join::NotSent, joined, ask).await
    }

    /// An answer from within the staleness that is allowed here.
    fn remembered<T>(&self, find: impl FnOnce(std::time::Duration) -> Option<T>) -> Option<T> {
        let found = self.state.asked(CacheKind::Heads, find(self.max_staleness?));
        if found.is_some() {
            self.state.counters.stale_hits.count();
        }
        found
    }
}

impl State {
    /// Remembers a row that the database gave.
    fn read(&self, ticket: Ticket, row: &TableRecord, files: Option<u64>, for_readers: bool) {
        self.saw(row, files);
        if for_readers {
            self.heads.learn(ticket, row);
        } else {
            self.heads.compare(ticket, row);
        }
    }
}

impl CachedBackend {
    /// What applications keep in a version that never changes: `Transactions` or `Domains`, each an entry of its own.
    async fn app_rows(
        &self,
        table_id: TableId,
        version: Version,
        rows: AppRows,
    ) -> ReadResult<AppState> {
        let key = Key::App(table_id, version, rows);
        if let Some(Entry::App(kept)) =
            self.state.asked(CacheKind::Apps, self.state.cache.get(&key))
        {
            return Ok(AppState::clone(&kept));
        }
        let (state, source) = (Arc::clone(&self.state), Arc::clone(&self.source));
        let ask = move || async move {
            let found = source.inner.app_state(table_id, version, rows).await?;
            state.cache.insert(key, Entry::App(Arc::new(found.clone())));
            Ok(found)
        };
        let joined = &self.state.counters.joined;
        self.state.app.ask((table_id, version, rows), Join::Any, joined, ask).await
    }
}

#[async_trait]
impl TableBackend for CachedBackend {
    fn note_change(&self, table_id: TableId) {
        self.state.heads.forget(&[table_id], &[]);
        self.source.inner.note_change(table_id);
    }

    async fn get_table(&self, table: &TableRef) -> ReadResult<Option<TableRecord>> {
        let row = self.remembered(|age| self.state.heads.fresh(table, age));
        match row {
            Some(row) => Ok(Some(TableRecord::clone(&row))),
            None => self.ask_table(table).await,
        }
    }

    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> ReadResult<Page<TableRecord, (TableName, TableId)>> {
        self.source.inner.list_tables(filter, after, limit).await
    }

    async fn drop_table(&self, table_id: TableId, act: &Act) -> WriteResult<TableRecord> {
        let _changing = self.changing(table_id);
        self.source.inner.drop_table(table_id, act).await
    }

    async fn undrop_table(
        &self,
        table_id: TableId,
        name: &TableName,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        let _changing =
            Changing { state: &self.state, ids: vec![table_id], names: vec![name.clone()] };
        self.source.inner.undrop_table(table_id, name, act).await
    }
}

#[async_trait]
impl ReadBackend for CachedBackend {
    async fn snapshot(&self, table: &TableRef, at: At) -> ReadResult<Snapshot> {
        match self.remembered(|age| self.state.snapshot(table, at, age)) {
            Some(snapshot) => Ok(snapshot),
            None => self.ask_snapshot(table, at).await,
        }
    }

    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<FilePage> {
        self.cached_files(table_id, version, after, limit).await
    }

    async fn files_end(
        &self,
        table_id: TableId,
        version: Version,
        after: FileCursor,
        limit: usize,
    ) -> ReadResult<Option<FileCursor>> {
        match self.kept_list(table_id, version) {
            Some(list) => Ok(list.end(after, limit.max(1))),
            None => self.source.inner.files_end(table_id, version, after, limit).await,
        }
    }

    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> ReadResult<Vec<FileRecord>> {
        if !self.lists {
            return self.source.inner.files_at(table_id, version, cursors).await;
        }
        match self.state.asked(CacheKind::Files, self.kept_list(table_id, version)) {
            Some(list) => Ok(list.at(cursors)),
            None => self.source.inner.files_at(table_id, version, cursors).await,
        }
    }

    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<TombstoneRecord, FileCursor>> {
        self.source.inner.list_tombstones(table_id, version, deleted_after, after, limit).await
    }

    async fn app_state(
        &self,
        table_id: TableId,
        version: Version,
        rows: AppRows,
    ) -> ReadResult<AppState> {
        if self.state.known(table_id, version).is_none() {
            return self.source.inner.app_state(table_id, version, rows).await;
        }
        if rows != AppRows::All {
            return self.app_rows(table_id, version, rows).await;
        }
        let transactions = self.app_rows(table_id, version, AppRows::Transactions).await?;
        let domains = self.app_rows(table_id, version, AppRows::Domains).await?.domains;
        Ok(AppState { domains, ..transactions })
    }

    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> ReadResult<Page<CommitRecord, Version>> {
        self.source.inner.list_commits(table_id, filter, before, limit).await
    }

    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> ReadResult<Vec<(CommitRecord, CommitBody)>> {
        self.source.inner.read_bodies(table_id, from, to, limit).await
    }
}

#[async_trait]
impl CommitBackend for CachedBackend {
    async fn commit(&self, request: CommitRequest) -> WriteResult<CommitOutcome> {
        let mut changing = Changing { state: &self.state, ids: Vec::new(), names: Vec::new() };
        for table in &request.tables {
            match &table.target {
                CommitTarget::Create(new) => {
                    changing.ids.push(new.id);
                    changing.names.push(new.name.clone());
                }
                CommitTarget::Existing { table_id, .. } => changing.ids.push(*table_id),
            }
        }
        let outcome = self.source.inner.commit(request).await;
        if let Ok(CommitOutcome::Replayed(tables)) = &outcome {
            // Maybe another process wrote it, and other tables.
            changing.ids.extend(tables.iter().map(|table| table.table_id));
        }
        outcome
    }

    async fn resolve_token(&self, token: &CommitToken) -> ReadResult<Option<Vec<CommittedTable>>> {
        let found = self.source.inner.resolve_token(token).await?;
        // Who is told that it was written must see it.
        if let Some(tables) = &found {
            let ids: Vec<TableId> = tables.iter().map(|table| table.table_id).collect();
            self.state.heads.forget(&ids, &[]);
        }
        Ok(found)
    }

    async fn expire_tokens(
        &self,
        expiry: Expiry,
        after: Option<&CommitToken>,
    ) -> WriteResult<Expired<CommitToken>> {
        // No line of history is kept here.
        self.source.inner.expire_tokens(expiry, after).await
    }
}

#[async_trait]
impl SkipBackend for CachedBackend {
    async fn skip_index(&self, table_id: TableId) -> ReadResult<SkipIndex> {
        self.source.inner.skip_index(table_id).await
    }

    async fn skip_pages(
        &self,
        table_id: TableId,
        pages: &[SkipPage],
    ) -> ReadResult<Vec<Option<Bytes>>> {
        // While a table is imported it may be begun anew, under the same id.
        if self.state.seen(table_id).is_none() {
            return self.source.inner.skip_pages(table_id, pages).await;
        }
        let get = |page: &SkipPage| match self.state.cache.get(&Key::Skip(table_id, *page)) {
            Some(Entry::Skip(bytes)) => Some(bytes),
            _ => None,
        };
        let mut found: Vec<Option<Bytes>> =
            pages.iter().map(|page| self.state.asked(CacheKind::Index, get(page))).collect();
        let pairs = pages.iter().zip(&found);
        let wanted: Vec<SkipPage> =
            pairs.filter(|(_, bytes)| bytes.is_none()).map(|(page, _)| *page).collect();
        if !wanted.is_empty() {
            let (state, source, asked) =
                (Arc::clone(&self.state), Arc::clone(&self.source), wanted.clone());
            let ask = move || async move {
                let read = source.inner.skip_pages(table_id, &asked).await?;
                for (page, bytes) in asked.into_iter().zip(&read) {
                    if let Some(bytes) = bytes {
                        state.cache.insert(Key::Skip(table_id, page), Entry::Skip(bytes.clone()));
                    }
                }
                Ok(read)
            };
            let joined = &self.state.counters.joined;
            let read = self.state.skip.ask((table_id, wanted), Join::Any, joined, ask).await?;
            let gaps = found.iter_mut().filter(|bytes| bytes.is_none());
            for (gap, bytes) in gaps.zip(read) {
                *gap = bytes;
            }
        }
        Ok(found)
    }

    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> WriteResult<bool> {
        self.source.inner.skip_replace(table_id, generation, remove, segment).await
    }
}

#[async_trait]
impl ImportBackend for CachedBackend {
    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> WriteResult<ImportProgress> {
        let _changing =
            Changing { state: &self.state, ids: vec![table.id], names: vec![table.name.clone()] };
        self.source.inner.import_begin(table, base, base_from_json, now).await
    }

    async fn import_step(
        &self,
        table_id: TableId,
        step: ImportStep,
    ) -> WriteResult<ImportProgress> {
        let _changing = self.changing(table_id);
        self.source.inner.import_step(table_id, step).await
    }

    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        let mut changing = self.changing(table_id);
        let row = self.source.inner.import_finish(table_id, end, act).await?;
        changing.names.push(row.name.clone());
        Ok(row)
    }

    async fn import_abort(&self, table_id: TableId, act: &Act) -> WriteResult<()> {
        let _changing = self.changing(table_id);
        self.source.inner.import_abort(table_id, act).await
    }
}

#[async_trait]
impl OutboxBackend for CachedBackend {
    async fn mirror_claim(&self, request: &ClaimRequest) -> WriteResult<Vec<MirrorTask>> {
        self.source.inner.mirror_claim(request).await
    }

    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> WriteResult<Option<MirrorLease>> {
        self.source.inner.mirror_renew(lease, now, lease_ms).await
    }

    async fn mirror_settle(&self, lease: &MirrorLease, how: Settlement<'_>) -> WriteResult<bool> {
        // A lease that is given up changes no row of a table.
        let _changing = (how != Settlement::Released).then(|| self.changing(lease.table_id));
        self.source.inner.mirror_settle(lease, how).await
    }

    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> ReadResult<Page<MirrorRow, (TableId, Version)>> {
        self.source.inner.mirror_rows(table_id, state, after, limit).await
    }

    async fn mirror_retry(&self, table_id: TableId, act: &Act) -> WriteResult<u64> {
        let _changing = self.changing(table_id);
        self.source.inner.mirror_retry(table_id, act).await
    }

    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        act: &Act,
    ) -> WriteResult<TableRecord> {
        let _changing = self.changing(table_id);
        self.source.inner.mirror_set_mode(table_id, mode, act).await
    }

    async fn mirror_expire(
        &self,
        expiry: Expiry,
        after: Option<(TableId, Version)>,
    ) -> WriteResult<Expired<(TableId, Version)>> {
        self.source.inner.mirror_expire(expiry, after).await
    }
}

delegate!(SchemaBackend, OperateBackend, AuditBackend, RegistryBackend for CachedBackend => source.inner);
