//! The catalog as its users see it: a backend plus planning, conflict rules, retries and tokens.

mod attempts;
mod event;
mod freezing;
mod heads;
mod part;
mod prepare;
mod registry;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, TryStreamExt};
use serde::Serialize;

use attempts::some_at_a_time;
use event::PlanTime;
pub use event::{ChangedTable, CommitEvent, CommitHook};
pub use freezing::{FreezeReport, SwitchedTable};
use heads::Heads;

use crate::conflict::Reads;
use crate::env::{Clock, IdSource};
use crate::fence::FenceChange;
use crate::lists::{FileList, History, Source, TableList, TombstoneList};
use crate::measure::Meters;
use crate::pages::pages;
use crate::predicate::{Predicate, Pruner};
use crate::retry::{Retry, RetryPolicy};
use crate::signature::Signature;
use crate::skew::{DEFAULT_MAX_CLOCK_SKEW, Skew};
use crate::skip::{self, Maintained};
use crate::spans;
use deltalakedb_catalog_core::audit::{Act, Actor, AuditEntry};
use deltalakedb_catalog_core::backend::{
    BackendInfo, CatalogBackend, CommitFilter, CommittedTable, TableFilter,
};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileRecord, MirrorMode, Page, Snapshot, TableRecord, TableState, TombstoneRecord,
};
use tracing::Instrument;

/// Table property: a commit waits, and after some seconds fails as busy, while so many versions are
/// not published. Without it the mirror may lag behind as far as it likes. Writers that commit at the
/// same moment may exceed it by their number.
pub const MAX_UNPUBLISHED: &str = "deltalakedb.maxUnpublishedVersions";

/// After all tables of a namespace: no name has larger bytes, and no id.
fn last_of(namespace: &str) -> Result<(TableName, TableId)> {
    let name = char::MAX.to_string().repeat(TableName::MAX_CHARS);
    Ok((TableName::new(namespace, name)?, TableId(uuid::Uuid::max())))
}

/// A commit over one or more tables.
#[derive(Debug, Clone, Default)]
pub struct CommitBatch {
    /// Idempotency token; a fresh one if none is given.
    pub token: Option<CommitToken>,
    /// One entry a table.
    pub tables: Vec<TableChange>,
}

/// What a batch does to one table.
#[derive(Debug, Clone)]
pub struct TableChange {
    /// Which table.
    pub target: ChangeTarget,
    /// The commit's actions, one a line, in the protocol's form. The bytes of each line are kept.
    pub ndjson: Vec<u8>,
    /// Where the bytes are from, for error texts: a file name, `stdin`, …
    pub origin: String,
    /// What the writer read.
    pub reads: Reads,
    /// `operation` of the `commitInfo` that is made if `ndjson` has none.
    pub operation: Option<String>,
}

/// A table to create or to change.
#[derive(Debug, Clone)]
pub enum ChangeTarget {
    /// Registers a table; the actions are its version 0.
    Create {
        /// Free name.
        name: TableName,
        /// URL of the table root.
        location: String,
        /// Options of the object store.
        storage_options: BTreeMap<String, String>,
        /// `Active` or `Off`.
        mirror: MirrorMode,
        /// Whether writers that do not go through the catalog are kept out (see [`crate::fence`]).
        fence: bool,
    },
    /// Adds a version.
    Existing {
        /// Table.
        table: TableRef,
        /// Version that the writer read; none = the head at the time of the call.
        read_version: Option<Version>,
    },
    /// Adds exactly this version: for writers that check and rebase by themselves. Nothing is rebased
    /// here; if the head is that version or a later one, it is a conflict
    /// ([`ConflictKind::VersionTaken`](crate::conflict::ConflictKind::VersionTaken)), and so is a remove of a file that the table does not have
    /// ([`ConflictKind::ConcurrentDeleteDelete`](crate::conflict::ConflictKind::ConcurrentDeleteDelete)).
    Next {
        /// Table.
        table: TableRef,
        /// The version that the commit becomes.
        version: Version,
    },
    /// Changes who may write to a table (see [`crate::fence`] and [`crate::freeze`]); the actions follow from
    /// its head, and those of the change must be empty.
    Fence {
        /// Table.
        table: TableRef,
        /// What to do.
        change: FenceChange,
    },
}

impl TableChange {
    /// A change of who may write to a table.
    fn of_fence(table: TableId, change: FenceChange) -> TableChange {
        TableChange {
            origin: change.operation().to_ascii_lowercase(),
            target: ChangeTarget::Fence { table: TableRef::Id(table), change },
            ndjson: Vec::new(),
            reads: Reads::default(),
            operation: None,
        }
    }
}

/// A batch that took effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitReport {
    /// Token it is known by.
    pub token: CommitToken,
    /// Whether an earlier call with this token had written it.
    pub replayed: bool,
    /// Attempts it took.
    pub attempts: u32,
    /// New versions, in the order of the batch (of a replayed batch: by table id).
    pub tables: Vec<CommittedTable>,
}

/// A catalog. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Commits, and all that a commit rests on.
    backend: Arc<dyn CatalogBackend>,
    /// What users read; may lag behind within what it promises (read replicas).
    pub(crate) reader: Arc<dyn CatalogBackend>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    hooks: Vec<Arc<dyn CommitHook>>,
    heads: Arc<Heads>,
    retry: RetryPolicy,
    page_size: Option<usize>,
    signature: Arc<Signature>,
    actor: Arc<Actor>,
    skew: Arc<Skew>,
    meters: Arc<Meters>,
}

impl Catalog {
    /// A catalog on a backend, with time and randomness from outside.
    #[must_use]
    pub fn new(
        backend: Arc<dyn CatalogBackend>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
    ) -> Self {
        Catalog {
            reader: Arc::clone(&backend),
            backend,
            clock,
            ids,
            hooks: Vec::new(),
            heads: Arc::default(),
            retry: RetryPolicy::default(),
            page_size: None,
            signature: Arc::default(),
            actor: Arc::default(),
            skew: Arc::new(Skew::new(DEFAULT_MAX_CLOCK_SKEW)),
            meters: Arc::default(),
        }
    }

    /// Repeats calls on a busy database for so long at most, see [`crate::retry`]. Default
    /// [`crate::retry::DEFAULT_TIMEOUT`]; zero repeats none.
    ///
    /// A catalog is cheap to clone, so this holds for one commit just as well:
    /// `catalog.clone().with_retry_timeout(short).commit(batch)`. The commit's steps (reading the head,
    /// sending it, asking what became of it) have this time each.
    #[must_use]
    pub fn with_retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry.timeout = timeout;
        self
    }

    /// Repeats calls on a busy database so often and for so long at most, see [`crate::retry`].
    #[must_use]
    pub fn with_retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// How often and how long calls on a busy database are repeated at most.
    #[must_use]
    pub fn retry_policy(&self) -> RetryPolicy {
        self.retry
    }

    /// Reads so many rows of a list (of files, tombstones, commits, tables) at a time, from 1 to 10000. By
    /// itself it is 2500 for files, 1000 for the others: a longer page takes more memory and saves little.
    #[must_use]
    pub fn with_page_size(mut self, rows: usize) -> Self {
        self.page_size = Some(rows.clamp(1, 10_000));
        self
    }

    /// How long calls on a busy database are repeated at most.
    #[must_use]
    pub fn retry_timeout(&self) -> Duration {
        self.retry.timeout
    }

    /// Commits of this catalog and of its clones made from now on carry this, see
    /// [`crate::signature`]. Without it they carry nothing.
    #[must_use]
    pub fn with_signature(mut self, signature: Signature) -> Self {
        let user = signature.user.as_ref().map(|user| user.as_str().to_owned());
        self.actor = Arc::new(Actor { user, ..Actor::clone(&self.actor) });
        self.signature = Arc::new(signature);
        self
    }

    /// The audit says of calls of this catalog, and of its clones made from now on, that they are from this host and
    /// program. Their user is that of the signature.
    #[must_use]
    pub fn with_actor(mut self, actor: Actor) -> Self {
        self.actor = Arc::new(Actor { user: self.actor.user.clone(), ..actor });
        self
    }

    /// On whose behalf calls are made, as the audit says it.
    #[must_use]
    pub fn actor(&self) -> &Actor {
        &self.actor
    }

    /// This moment, on behalf of the [`actor`](Catalog::actor).
    #[must_use]
    pub fn act(&self) -> Act {
        Act { at: self.clock.now(), by: Actor::clone(&self.actor) }
    }

    /// What commits are signed with.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Commits are refused while this machine's clock is further ahead of the database's than this (one
    /// hour unless told otherwise), see [`crate::skew`].
    #[must_use]
    pub fn with_max_clock_skew(mut self, max: Duration) -> Self {
        self.skew = Arc::new(Skew::new(max));
        self
    }

    /// Tells what the database said of itself to a question that was sent at `asked`, so that the first
    /// commit need not ask again what time it is there.
    pub fn note_info(&self, asked: TimestampMs, info: &BackendInfo) {
        self.skew.compare(asked, info);
    }

    /// Reads that users ask for go to `reader` from now on. It must be a view of the same database.
    /// Commits, and every read that decides about a write, stay on the backend.
    #[must_use]
    pub fn with_reader(mut self, reader: Arc<dyn CatalogBackend>) -> Self {
        self.reader = reader;
        self
    }

    /// Tells `hook`, too, of every commit of this catalog and of its clones made from now on.
    #[must_use]
    pub fn with_commit_hook(mut self, hook: Arc<dyn CommitHook>) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Counts and times into these numbers, which others may count into, too.
    #[must_use]
    pub fn with_meters(mut self, meters: Arc<Meters>) -> Self {
        self.meters = meters;
        self
    }

    /// What was counted and timed, of this catalog and its clones.
    #[must_use]
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// The same catalog with all of its reads on the backend, for work that must not see an old
    /// state: publishing, comparing, copying.
    #[must_use]
    pub fn on_primary(mut self) -> Self {
        self.reader = Arc::clone(&self.backend);
        self
    }

    /// What users read: the backend, unless [`Catalog::with_reader`] was called.
    #[must_use]
    pub fn reader(&self) -> &Arc<dyn CatalogBackend> {
        &self.reader
    }

    /// The backend underneath, which commits go to.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn CatalogBackend> {
        &self.backend
    }

    /// The clock in use.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The id source in use.
    #[must_use]
    pub fn ids(&self) -> &Arc<dyn IdSource> {
        &self.ids
    }

    // ---- reads ----

    /// The row of a table.
    ///
    /// # Errors
    /// `TableNotFound`; by name, a table that is being imported is `InvalidInput` and says so.
    pub async fn table(&self, table: &TableRef) -> Result<TableRecord> {
        self.table_on(&self.reader, table).await
    }

    async fn table_on(
        &self,
        backend: &Arc<dyn CatalogBackend>,
        table: &TableRef,
    ) -> Result<TableRecord> {
        let record = self
            .repeat(|| backend.get_table(table))
            .await?
            .ok_or_else(|| CatalogError::TableNotFound(table.to_string()))?;
        tracing::debug!(table = %record.name, id = %record.id, "table found");
        if record.state == TableState::Importing {
            return Err(CatalogError::invalid(format!(
                "table '{}' is being imported: wait for it, or finish it with \
                 `dl import --resume`",
                record.name
            )));
        }
        Ok(record)
    }

    /// Opens a table at a version or time.
    ///
    /// # Errors
    /// `TableNotFound`, `VersionNotFound`; by name, a table that is being imported is
    /// `InvalidInput` and says so.
    pub async fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot> {
        let begun = self.clock.monotonic();
        let span = spans::open(table);
        let answer = self.snapshot_on(&self.reader, table, at).instrument(span.clone()).await;
        if let Ok(snapshot) = &answer {
            span.record("version", snapshot.version.get());
        }
        spans::ended(&span, answer.as_ref().err().map(CatalogError::code));
        self.meters.opened(answer.as_ref().err(), self.clock.monotonic().saturating_sub(begun));
        answer
    }

    async fn snapshot_on(
        &self,
        backend: &Arc<dyn CatalogBackend>,
        table: &TableRef,
        at: At,
    ) -> Result<Snapshot> {
        match self.repeat(|| backend.snapshot(table, at)).await {
            Ok(found) => {
                tracing::debug!(table = %found.table.name, version = %found.version, "table opened");
                Ok(found)
            }
            Err(CatalogError::TableNotFound(name)) => {
                // An import in progress is hidden from reads, but not from its owner's error.
                self.table_on(backend, table).await?;
                Err(CatalogError::TableNotFound(name))
            }
            other => other,
        }
    }

    /// Several tables as of one instant: there was a moment at which each of these versions was the
    /// latest one of its table. In the order of `tables`.
    ///
    /// Versions only grow, so tables whose heads were read, and then all read again and found the same,
    /// were at these versions together in between. While one of them changes they are read once more.
    ///
    /// # Errors
    /// Those of [`Catalog::snapshot`]; `Unavailable` and retryable if the tables never stood still for
    /// as long as it takes to read their heads.
    pub async fn snapshots_at_once(&self, tables: &[TableRef]) -> Result<Vec<Snapshot>> {
        /// How often heads are read.
        const ATTEMPTS: u32 = 1_000;
        // What decides is what is true: a replica may show tables of different moments.
        let first = tables.iter().map(|table| self.snapshot_on(&self.backend, table, At::Head));
        let first: Vec<Snapshot> = some_at_a_time(first.collect()).await?;
        let ids: Vec<TableRef> = first.iter().map(|head| TableRef::Id(head.table.id)).collect();
        let mut heads: Vec<Version> = first.into_iter().map(|head| head.version).collect();
        for attempt in 0..ATTEMPTS {
            // All of these are asked after all answers of the round before.
            let asked = ids.iter().map(|id| self.table_on(&self.backend, id));
            let found: Vec<TableRecord> = some_at_a_time(asked.collect()).await?;
            let now: Vec<Version> =
                found.iter().zip(&heads).map(|(table, head)| table.head.unwrap_or(*head)).collect();
            let still = now == heads;
            heads = now;
            if still {
                let at = |(id, head): (&TableRef, &Version)| (id.clone(), At::Version(*head));
                let wanted: Vec<(TableRef, At)> = ids.iter().zip(&heads).map(at).collect();
                let snapshots =
                    wanted.iter().map(|(id, at)| self.snapshot_on(&self.backend, id, *at));
                return some_at_a_time(snapshots.collect()).await;
            }
            if attempt > ATTEMPTS / 10 {
                Retry::of(self).pause(0).await;
            }
        }
        Err(CatalogError::busy(
            "these tables are written to all the time: no instant was found at which they could be \
             read together"
                .to_owned(),
            WriteState::NotApplied,
        ))
    }

    /// Files of a table at a version, streamed in pages.
    pub fn files(
        &self,
        table_id: TableId,
        version: Version,
    ) -> BoxStream<'static, Result<FileRecord>> {
        pages(FileList { source: self.source(&self.reader), table_id, version })
    }

    /// Files of a snapshot that may hold rows for which a predicate is true, streamed in pages. Left out
    /// is what partition values and statistics rule out, and nothing else.
    ///
    /// # Errors
    /// `InvalidInput` where the predicate does not fit the table (see [`Pruner::new`]).
    pub fn files_matching(
        &self,
        snapshot: &Snapshot,
        predicate: &Predicate,
    ) -> Result<BoxStream<'static, Result<FileRecord>>> {
        let pruner = Pruner::new(&snapshot.metadata, predicate)?;
        let files =
            skip::files_matching(Arc::clone(&self.reader), Retry::of(self), snapshot, pruner);
        let span = spans::plan(&snapshot.table.name);
        Ok(PlanTime::around(files, Arc::clone(&self.meters), Arc::clone(&self.clock), span))
    }

    /// Gives a table that was imported the index that was made meanwhile, see [`Feed`](skip::Feed); if
    /// that is not its index (any more), nothing happens.
    ///
    /// # Errors
    /// Those of the database; `TableNotFound`.
    pub async fn adopt_index(&self, table_id: TableId, fed: skip::Fed) -> Result<Maintained> {
        skip::adopt(&*self.backend, &Retry::of(self), table_id, fed).await
    }

    /// Brings a table's skipping index up to date, see [`skip::maintain`].
    ///
    /// # Errors
    /// Those of the database; `TableNotFound`.
    pub async fn maintain_index(&self, table_id: TableId) -> Result<Maintained> {
        skip::maintain(&*self.backend, &Retry::of(self), table_id).await
    }

    /// Tombstones that a checkpoint of `version` carries, streamed in pages.
    pub fn tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
    ) -> BoxStream<'static, Result<TombstoneRecord>> {
        pages(TombstoneList { source: self.source(&self.reader), table_id, version, deleted_after })
    }

    /// History, newest first, streamed in pages.
    pub fn history(
        &self,
        table_id: TableId,
        filter: CommitFilter,
    ) -> BoxStream<'static, Result<CommitRecord>> {
        pages(History { source: self.source(&self.reader), table_id, filter })
    }

    /// Tables, by name, streamed in pages.
    pub fn tables(&self, filter: TableFilter) -> BoxStream<'static, Result<TableRecord>> {
        self.tables_on(&self.reader, filter)
    }

    /// One page of [`tables`](Catalog::tables), after the table where the page before ended.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn tables_page(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Result<Page<TableRecord, (TableName, TableId)>> {
        self.repeat(|| self.reader.list_tables(filter, after, limit)).await
    }

    /// One page of [`history`](Catalog::history), below the version where the page before ended.
    ///
    /// # Errors
    /// `TableNotFound`; those of the database.
    pub async fn history_page(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>> {
        self.repeat(|| self.reader.list_commits(table_id, filter, before, limit)).await
    }

    /// Namespaces of active tables, by their bytes, after the one where the page before ended. It asks once a
    /// namespace, however many tables that has.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn namespaces(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<String, String>> {
        let filter = TableFilter { namespace: None, state: Some(TableState::Active) };
        let mut after = after.map(last_of).transpose()?;
        let mut items = Vec::new();
        loop {
            let page = self.tables_page(&filter, after.as_ref(), 1).await?;
            let Some(table) = page.items.first() else { return Ok(Page { items, next: None }) };
            if items.len() == limit {
                let next = items.last().cloned();
                return Ok(Page { items, next });
            }
            let namespace = table.name.namespace().to_owned();
            after = Some(last_of(&namespace)?);
            items.push(namespace);
        }
    }

    fn tables_on(
        &self,
        backend: &Arc<dyn CatalogBackend>,
        filter: TableFilter,
    ) -> BoxStream<'static, Result<TableRecord>> {
        pages(TableList { source: self.source(backend), filter })
    }

    fn source(&self, backend: &Arc<dyn CatalogBackend>) -> Source {
        Source { backend: Arc::clone(backend), retry: Retry::of(self), page_size: self.page_size }
    }

    // ---- tables ----

    /// Drops a table. Its rows and files stay until purged; `undrop_table` brings it back.
    ///
    /// # Errors
    /// `TableNotFound`; `TableFrozen`.
    pub async fn drop_table(&self, table: &TableRef) -> Result<TableRecord> {
        // Which table is dropped is decided on what is true now.
        let record = self.table_on(&self.backend, table).await?;
        if record.state == TableState::Active {
            let by_id = TableRef::Id(record.id);
            let head = self.snapshot_on(&self.backend, &by_id, At::Head).await?;
            self.refuse_frozen(&head).await?;
        }
        let act = self.act();
        let dropped = self.repeat(|| self.backend.drop_table(record.id, &act)).await?;
        self.reader.note_change(dropped.id);
        self.heads.forget(dropped.id);
        Ok(dropped)
    }

    /// Brings a dropped table back, under its old or a new name. By name: the one dropped last.
    ///
    /// # Errors
    /// `TableNotFound`, `TableExists`.
    pub async fn undrop_table(
        &self,
        table: &TableRef,
        new_name: Option<TableName>,
    ) -> Result<TableRecord> {
        let record = match table {
            TableRef::Id(_) => self.repeat(|| self.backend.get_table(table)).await?,
            TableRef::Name(name) => {
                let filter = TableFilter {
                    namespace: Some(name.namespace().to_owned()),
                    state: Some(TableState::Dropped),
                };
                let mut dropped = self.tables_on(&self.backend, filter);
                let mut latest: Option<TableRecord> = None;
                while let Some(found) = dropped.try_next().await? {
                    if &found.name == name
                        && latest.as_ref().is_none_or(|l| found.dropped_at > l.dropped_at)
                    {
                        latest = Some(found);
                    }
                }
                latest
            }
        };
        let record = record.ok_or_else(|| CatalogError::TableNotFound(table.to_string()))?;
        let name = new_name.unwrap_or_else(|| record.name.clone());
        let act = self.act();
        let back = self.repeat(|| self.backend.undrop_table(record.id, &name, &act)).await?;
        self.reader.note_change(back.id);
        self.heads.forget(back.id);
        Ok(back)
    }

    /// Keeps a row in the audit about something that no call of the database keeps one about: a vacuum, a repair, a
    /// right that was given. It is on behalf of the [`actor`](Catalog::actor). A database without an audit keeps none.
    ///
    /// # Errors
    /// `InvalidInput` for an action or a detail that [`AuditEntry::check`] refuses; those of the database.
    pub async fn record(
        &self,
        action: &str,
        table: Option<&TableRecord>,
        detail: &serde_json::Value,
    ) -> Result<()> {
        let entry = AuditEntry {
            table_id: table.map(|table| table.id),
            table_name: table.map(|table| table.name.to_string()),
            ..self.entry(action, detail)?
        };
        match self.repeat(|| self.backend.audit_record(&entry)).await {
            Err(CatalogError::Unsupported(why)) => {
                tracing::debug!(action, why, "not in the audit");
                Ok(())
            }
            other => other,
        }
    }

    /// Repeats a call while the database is busy, within a bound.
    pub(crate) async fn repeat<T, E, F, Fut>(&self, call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<CatalogError>,
    {
        Retry::of(self).repeat(call).await
    }
}

impl Retry {
    /// With the clock, ids and time limit of a catalog.
    #[must_use]
    pub fn of(catalog: &Catalog) -> Self {
        Retry::new(Arc::clone(catalog.clock()), Arc::clone(catalog.ids()))
            .with_policy(catalog.retry_policy())
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
