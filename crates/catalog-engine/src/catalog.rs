//! The catalog as its users see it: a backend plus planning, conflict rules, retries and tokens.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use serde::Serialize;

use crate::conflict::{self, Conflict, ConflictKind, Isolation, Reads};
use crate::env::{Clock, IdSource};
use crate::fence::FenceChange;
use crate::lists::{FileList, History, Source, TableList, TombstoneList};
use crate::pages::pages;
use crate::plan::{LARGE_BYTES, Plan, PlanBase, PlanTarget, plan};
use crate::predicate::{Predicate, Pruner};
use crate::retry::{self, Retry};
use crate::signature::Signature;
use crate::skew::{DEFAULT_MAX_CLOCK_SKEW, Skew};
use crate::skip::{self, Maintained};
use deltalakedb_catalog_core::backend::{
    AppRows, BackendInfo, CatalogBackend, CommitFilter, CommitOutcome, CommitRequest, CommitTarget,
    CommittedTable, HeadRule, Rejection, TableCommit, TableFilter,
};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex, index_ndjson};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteError, WriteState};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::later::{LargeCommit, read_stored};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileRecord, MirrorMode, NewTable, Snapshot, TableRecord, TableState,
    TombstoneRecord,
};
use deltalakedb_catalog_core::secrets;

/// How often a commit is tried again after losing a race, or after a busy database.
const MAX_COMMIT_ATTEMPTS: u32 = 100;
/// Most commits that one commit is checked against when it is rebased.
const MAX_REBASE_COMMITS: i64 = 100_000;
/// Commits read per call while rebasing.
const REBASE_PAGE: usize = 256;
/// Heads of one batch that are read at a time: less than a pool has connections.
const HEADS_AT_A_TIME: usize = 4;

/// Table property: a commit waits, and after some seconds fails as busy, while so many versions are
/// not published. Without it the mirror may lag behind as far as it likes. Writers that commit at the
/// same moment may exceed it by their number.
pub const MAX_UNPUBLISHED: &str = "deltalakedb.maxUnpublishedVersions";

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
    /// ([`ConflictKind::VersionTaken`]), and so is a remove of a file that the table does not have
    /// ([`ConflictKind::ConcurrentDeleteDelete`]).
    Next {
        /// Table.
        table: TableRef,
        /// The version that the commit becomes.
        version: Version,
    },
    /// Puts a table's fence up or takes it away; the actions follow from its head, and those of the
    /// change must be empty.
    Fence {
        /// Table.
        table: TableRef,
        /// What to do.
        change: FenceChange,
    },
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
    retry_timeout: Duration,
    signature: Arc<Signature>,
    skew: Arc<Skew>,
}

/// Heads on which appends were planned, by table.
///
/// An append that reads nothing may go on top of any head: what it is planned on only has to have the
/// protocol and metadata that are in force, and the database refuses it if these have changed since
/// ([`HeadRule::Append`]). So the head that was read for an earlier one will do, and where tasks append
/// to one table all the time nobody has to read it. Only for tables that are named by their id: what a
/// name stands for must be looked up. Not for long: nothing tells this process that a table was given
/// another name, which its commits carry ([`crate::signature`]).
#[derive(Debug, Default)]
struct Heads(Mutex<HashMap<TableId, (TimestampMs, Arc<Snapshot>)>>);

impl Heads {
    /// Tables that are remembered; beyond, all are forgotten.
    const MOST: usize = 256;

    /// How long they are remembered, milliseconds.
    const MOST_MS: i64 = 60_000;

    fn get(&self, table: TableId, now: TimestampMs) -> Option<Arc<Snapshot>> {
        let heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (read, head) = heads.get(&table)?;
        let age_ms = now.0.saturating_sub(read.0);
        (0..Self::MOST_MS).contains(&age_ms).then(|| Arc::clone(head))
    }

    fn keep(&self, head: &Snapshot, now: TimestampMs) {
        let mut heads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if heads.len() >= Self::MOST {
            heads.clear();
        }
        heads.insert(head.table.id, (now, Arc::new(head.clone())));
    }

    fn forget(&self, table: TableId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&table);
    }
}

/// Told of every batch that a catalog has committed.
pub trait CommitHook: std::fmt::Debug + Send + Sync {
    /// `files` is how many files the batch added. Must not block: the answer to the writer waits for it.
    fn committed(&self, tables: &[CommittedTable], files: usize);
}

/// One table of a batch on its way through the attempts.
struct Working<'a> {
    change: &'a TableChange,
    label: String,
    /// Chosen once, so that attempts create the same table.
    new_id: Option<TableId>,
    table_id: Option<TableId>,
    plan: Option<Plan>,
    isolation: Isolation,
    read_version: Option<Version>,
    /// Head up to which this commit is known not to conflict.
    checked: Option<Version>,
    /// Why the commit has to wait: too much is not published yet.
    pressure: Option<String>,
    /// Whether it was planned on a head that was read for another commit.
    remembered: bool,
    /// Whether that was tried: it is not tried again.
    fresh: bool,
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
            retry_timeout: retry::DEFAULT_TIMEOUT,
            signature: Arc::default(),
            skew: Arc::new(Skew::new(DEFAULT_MAX_CLOCK_SKEW)),
        }
    }

    /// Repeats calls on a busy database for so long at most, see [`retry`]. Default
    /// [`retry::DEFAULT_TIMEOUT`]; zero repeats none.
    ///
    /// A catalog is cheap to clone, so this holds for one commit just as well:
    /// `catalog.clone().with_retry_timeout(short).commit(batch)`. The commit's steps (reading the head,
    /// sending it, asking what became of it) have this time each.
    #[must_use]
    pub fn with_retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry_timeout = timeout;
        self
    }

    /// How long calls on a busy database are repeated at most.
    #[must_use]
    pub fn retry_timeout(&self) -> Duration {
        self.retry_timeout
    }

    /// Commits of this catalog and of its clones made from now on carry this, see
    /// [`crate::signature`]. Without it they carry nothing.
    #[must_use]
    pub fn with_signature(mut self, signature: Signature) -> Self {
        self.signature = Arc::new(signature);
        self
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
        self.snapshot_on(&self.reader, table, at).await
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
        Ok(skip::files_matching(Arc::clone(&self.reader), Retry::of(self), snapshot, pruner))
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

    fn tables_on(
        &self,
        backend: &Arc<dyn CatalogBackend>,
        filter: TableFilter,
    ) -> BoxStream<'static, Result<TableRecord>> {
        pages(TableList { source: self.source(backend), filter })
    }

    fn source(&self, backend: &Arc<dyn CatalogBackend>) -> Source {
        Source { backend: Arc::clone(backend), retry: Retry::of(self) }
    }

    // ---- tables ----

    /// Drops a table. Its rows and files stay until purged; `undrop_table` brings it back.
    ///
    /// # Errors
    /// `TableNotFound`.
    pub async fn drop_table(&self, table: &TableRef) -> Result<TableRecord> {
        // Which table is dropped is decided on what is true now.
        let record = self.table_on(&self.backend, table).await?;
        let now = self.clock.now();
        let dropped = self.repeat(|| self.backend.drop_table(record.id, now)).await?;
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
        let back = self.repeat(|| self.backend.undrop_table(record.id, &name)).await?;
        self.reader.note_change(back.id);
        self.heads.forget(back.id);
        Ok(back)
    }

    // ---- commit ----

    /// What a commit did, which the view that users read is told of.
    fn report(
        &self,
        token: CommitToken,
        replayed: bool,
        attempts: u32,
        tables: Vec<CommittedTable>,
        working: &[Working<'_>],
    ) -> CommitReport {
        let mut labels = working.iter().map(|part| part.label.as_str());
        for table in &tables {
            self.reader.note_change(table.table_id);
            let label = if replayed { None } else { labels.next() };
            tracing::info!(
                table = label.unwrap_or_default(),
                id = %table.table_id,
                version = %table.version,
                %token,
                replayed,
                attempts,
                "committed"
            );
        }
        let plans = working.iter().filter_map(|part| part.plan.as_ref());
        let files = plans.map(Plan::num_added).sum();
        for hook in &self.hooks {
            hook.committed(&tables, files);
        }
        CommitReport { token, replayed, attempts, tables }
    }

    /// Commits a batch: over all of its tables, or not at all.
    ///
    /// A lost race is rebased: the commit is checked against each commit that won (Delta's conflict
    /// rules) and tried on the new head, within a bound. A lost answer is resolved by the token.
    ///
    /// # Errors
    /// `Conflict`, `InvalidInput`, `Unsupported`, `TableNotFound`, `TableExists`,
    /// `VersionNotFound` (the version read is not in the catalog), `CommitUnknown`. After all but
    /// the last, nothing was written.
    pub async fn commit(&self, batch: CommitBatch) -> Result<CommitReport> {
        let fresh = batch.token.is_none();
        let token = match batch.token {
            Some(token) => token,
            None => CommitToken::new(self.ids.uuid().as_hyphenated().to_string())?,
        };
        if batch.tables.is_empty() {
            return Err(CatalogError::invalid("a commit needs at least one table"));
        }
        if !fresh && let Some(tables) = self.resolve(&token).await? {
            return Ok(CommitReport { token, replayed: true, attempts: 0, tables });
        }
        let mut working: Vec<Working<'_>> = batch
            .tables
            .iter()
            .map(|change| Working {
                change,
                label: match &change.target {
                    ChangeTarget::Create { name, .. } => name.to_string(),
                    ChangeTarget::Existing { table, .. }
                    | ChangeTarget::Next { table, .. }
                    | ChangeTarget::Fence { table, .. } => table.to_string(),
                },
                new_id: None,
                table_id: None,
                plan: None,
                isolation: Isolation::default(),
                read_version: None,
                checked: None,
                pressure: None,
                remembered: false,
                fresh: false,
            })
            .collect();

        self.check_clock().await?;
        let mut attempts = 0_u32;
        let retry = Retry::of(self);
        // In a row: a lost race shows that the database works.
        let mut failures = retry.start();
        let mut unknown = false;
        loop {
            attempts += 1;
            // The time that the database will take, unless a head is later.
            let now = self.clock.now();
            let parts = working.iter_mut().map(|part| self.prepare(part, &token, now)).collect();
            let tables = match some_at_a_time(parts).await {
                Ok(tables) => tables,
                Err(error) if unknown => {
                    return self.settle(token, attempts, error, &working).await;
                }
                Err(error) => return Err(error),
            };
            reject_duplicates(&working)?;
            let pressure = working.iter_mut().find_map(|part| part.pressure.take());
            let request = CommitRequest { token: token.clone(), now, tables };
            let outcome = match pressure {
                // Nothing was sent. Where an attempt before was in doubt, it may still be found.
                Some(text) => Err(CatalogError::busy(text, WriteState::NotApplied).into()),
                None => self.backend.commit(request).await,
            };
            let failure = match outcome {
                Ok(CommitOutcome::Committed(tables)) => {
                    return Ok(self.report(token, false, attempts, tables, &working));
                }
                Ok(CommitOutcome::Replayed(tables)) => {
                    // Our own lost answer is no replay in the caller's eyes.
                    return Ok(self.report(token, !unknown, attempts, tables, &working));
                }
                // What was remembered is out of date: no race was lost, there is nothing to wait for.
                Ok(
                    CommitOutcome::HeadMoved { index, .. } | CommitOutcome::Rejected { index, .. },
                ) if working.get_mut(index).is_some_and(|part| part.start_anew(&self.heads)) => {
                    continue;
                }
                Ok(CommitOutcome::HeadMoved { .. }) => None,
                Ok(CommitOutcome::Rejected { index, reason }) => {
                    let error = refused(working.get(index), reason);
                    // The name may be taken by an attempt of ours that was still running.
                    return if unknown {
                        self.settle(token, attempts, error, &working).await
                    } else {
                        Err(error)
                    };
                }
                Err(WriteError::Indeterminate(error)) => {
                    unknown = true;
                    if let Ok(Some(tables)) = self.resolve(&token).await {
                        return Ok(self.report(token, false, attempts, tables, &working));
                    }
                    Some(error.into())
                }
                Err(WriteError::Determinate(error)) if error.is_retryable() || unknown => {
                    Some(error.into())
                }
                Err(WriteError::Determinate(error)) => return Err(error.into()),
            };
            let goes_again = match &failure {
                _ if attempts >= MAX_COMMIT_ATTEMPTS => false,
                Some(_) => failures.again().await,
                None => {
                    retry.pause(attempts - 1).await;
                    failures.begin_anew();
                    true
                }
            };
            if !goes_again {
                let error = if let Some(error) = failure {
                    failures.explain(error)
                } else {
                    let labels: Vec<_> = working.iter().map(|w| w.label.as_str()).collect();
                    CatalogError::Conflict(Box::new(Conflict {
                        table: labels.join(", "),
                        read_version: None,
                        winning_version: None,
                        kind: ConflictKind::TooManyAttempts { attempts },
                    }))
                };
                if unknown {
                    return self.settle(token, attempts, error, &working).await;
                }
                return Err(error);
            }
            tracing::debug!(attempts, %token, failed = failure.is_some(), "commit goes again");
        }
    }

    /// Refuses to commit with a clock that is too far ahead of the database's.
    async fn check_clock(&self) -> Result<()> {
        let asked = self.clock.now();
        if self.skew.is_due(asked) {
            match self.backend.info().await {
                Ok(info) => self.skew.compare(asked, &info),
                // The commit meets what is wrong with the database by itself. What was known of the clocks
                // before still holds.
                Err(error) => tracing::debug!(%error, "the clocks were not compared"),
            }
        }
        self.skew.check()
    }

    /// Puts a table's fence up or takes it away. None if it is as wanted already.
    ///
    /// It is a change of the protocol: commits that were planned before and have not taken effect
    /// yet conflict with it.
    ///
    /// # Errors
    /// Those of [`Catalog::commit`].
    pub async fn change_fence(
        &self,
        table: &TableRef,
        change: FenceChange,
    ) -> Result<Option<CommitReport>> {
        let head = self.snapshot_on(&self.backend, table, At::Head).await?;
        if change.lines(&head)?.is_none() {
            return Ok(None);
        }
        let part = TableChange {
            target: ChangeTarget::Fence { table: TableRef::Id(head.table.id), change },
            ndjson: Vec::new(),
            origin: change.operation().to_ascii_lowercase(),
            reads: Reads::default(),
            operation: None,
        };
        let batch = CommitBatch { token: None, tables: vec![part] };
        self.commit(batch).await.map(Some)
    }

    /// Ends a commit that cannot go on, and of which an earlier attempt was in doubt: the error
    /// speaks of the last attempt only.
    async fn settle(
        &self,
        token: CommitToken,
        attempts: u32,
        error: CatalogError,
        working: &[Working<'_>],
    ) -> Result<CommitReport> {
        match self.resolve(&token).await {
            Ok(Some(tables)) => Ok(self.report(token, false, attempts, tables, working)),
            // Refused because of a state of the tables that the attempt in doubt cannot pass either:
            // what is not there by now does not come any more.
            Ok(None) if !matches!(error, CatalogError::Unavailable { .. }) => Err(error),
            _ => Err(CatalogError::CommitUnknown { token, message: error.to_string() }),
        }
    }

    /// What a token wrote; none if it wrote nothing (finally so once no commit with it is running).
    ///
    /// # Errors
    /// Those of the database.
    pub async fn resolve(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        self.repeat(|| self.backend.resolve_token(token)).await
    }

    /// Brings one table of a batch up to the current head.
    async fn prepare(
        &self,
        part: &mut Working<'_>,
        token: &CommitToken,
        now: TimestampMs,
    ) -> Result<TableCommit> {
        let change = part.change;
        let target = match &change.target {
            ChangeTarget::Create { name, location, storage_options, mirror, fence } => {
                secrets::check_options(storage_options)?;
                let id = *part.new_id.get_or_insert_with(|| TableId(self.ids.uuid()));
                part.table_id = Some(id);
                if part.plan.is_none() {
                    let target = PlanTarget::New { fence: *fence };
                    part.plan = Some(self.plan(change, target, token, name)?);
                }
                CommitTarget::Create(NewTable {
                    id,
                    name: name.clone(),
                    location: location.clone(),
                    storage_options: storage_options.clone(),
                    mirror: *mirror,
                })
            }
            ChangeTarget::Fence { table, change: fence } => {
                let head = self.head_for(part, table).await?;
                let Some(ndjson) = fence.lines(&head)? else {
                    return Err(CatalogError::invalid(format!(
                        "the fence of table '{}' is {} already",
                        part.label,
                        if *fence == FenceChange::Raise { "up" } else { "down" }
                    )));
                };
                let base = PlanBase {
                    lowers_fence: *fence != FenceChange::Raise,
                    ..plan_base(&head, now)
                };
                let (target, reads) = (PlanTarget::On(base), Reads::default());
                let operation = Some(fence.operation());
                let mut plan = plan(&change.origin, &ndjson, target, &reads, operation, token)?;
                self.signature.sign(&mut plan, &head.table.name);
                part.plan = Some(plan);
                let rule = HeadRule::Exactly(head.version);
                CommitTarget::Existing { table_id: head.table.id, rule }
            }
            ChangeTarget::Next { table, version } => {
                let head = self.head_for(part, table).await?;
                part.pressure = back_pressure(&head);
                if head.version >= *version {
                    return Err(part.conflict(Some(*version), ConflictKind::VersionTaken));
                }
                if head.version.next() != *version {
                    return Err(CatalogError::VersionNotFound {
                        table: part.label.clone(),
                        version: (version.get() - 1).to_string(),
                        earliest: head.table.base_version,
                        latest: head.version,
                    });
                }
                part.read_version = Some(head.version);
                let base = PlanTarget::On(plan_base(&head, now));
                part.plan = Some(self.plan(change, base, token, &head.table.name)?);
                let rule = HeadRule::Exactly(head.version);
                CommitTarget::Existing { table_id: head.table.id, rule }
            }
            ChangeTarget::Existing { table, read_version } => {
                // An attempt on what is remembered is made once: whatever became of it.
                if !part.start_anew(&self.heads)
                    && let Some(append) = self.append(part, table, *read_version, token, now)
                {
                    return Ok(append);
                }
                let head = self.head_for(part, table).await?;
                part.pressure = back_pressure(&head);
                let read = *part.read_version.get_or_insert(read_version.unwrap_or(head.version));
                if read > head.version || read < head.table.base_version {
                    return Err(CatalogError::VersionNotFound {
                        table: part.label.clone(),
                        version: read.to_string(),
                        earliest: head.table.base_version,
                        latest: head.version,
                    });
                }
                if part.plan.as_ref().is_none_or(|plan| plan.exact) {
                    let base = PlanTarget::On(plan_base(&head, now));
                    let plan = self.plan(change, base, token, &head.table.name)?;
                    part.isolation = Isolation::for_commit(
                        head.metadata.property("delta.isolationLevel"),
                        plan.only_rearranges,
                    );
                    part.plan = Some(plan);
                }
                let blind = part.plan.as_ref().is_some_and(|p| p.blind_append);
                let from = part.checked.unwrap_or(read);
                // A blind append has nothing to check but the barrier.
                let barrier_moved = head.table.barrier_version > from;
                if head.version > from && (!blind || barrier_moved) {
                    self.check_winners(part, head.table.id, from, head.version).await?;
                }
                part.checked = Some(head.version);
                self.check_applications(part, &head).await?;
                let rule = if blind {
                    self.heads.keep(&head, now);
                    HeadRule::Append { since: head.version }
                } else {
                    HeadRule::Exactly(head.version)
                };
                CommitTarget::Existing { table_id: head.table.id, rule }
            }
        };
        let plan =
            part.plan.as_ref().ok_or_else(|| CatalogError::invalid("commit without a plan"))?;
        Ok(TableCommit {
            target,
            first_line: plan.first_line.clone(),
            rest: plan.rest.clone(),
            index: Arc::clone(&plan.index),
            later: plan.later.clone(),
        })
    }

    /// The plan of a change, signed.
    fn plan(
        &self,
        change: &TableChange,
        target: PlanTarget<'_>,
        token: &CommitToken,
        table: &TableName,
    ) -> Result<Plan> {
        let operation = change.operation.as_deref();
        let mut plan =
            plan(&change.origin, &change.ndjson, target, &change.reads, operation, token)?;
        self.signature.sign(&mut plan, table);
        Ok(plan)
    }

    /// An append that reads nothing, on a head that is remembered; none if there is no such head, if this is
    /// no such append, or not the first attempt.
    fn append(
        &self,
        part: &mut Working<'_>,
        table: &TableRef,
        read_version: Option<Version>,
        token: &CommitToken,
        now: TimestampMs,
    ) -> Option<TableCommit> {
        let change = part.change;
        let &TableRef::Id(id) = table else { return None };
        if part.fresh
            || part.table_id.is_some()
            || read_version.is_some()
            || !change.reads.is_blind()
        {
            return None;
        }
        let head = self.heads.get(id, now)?;
        if head.metadata.property(MAX_UNPUBLISHED).is_some() {
            return None;
        }
        // Whatever is wrong with it may be wrong with what is remembered only.
        let base = PlanTarget::On(plan_base(&head, now));
        let plan = self.plan(change, base, token, &head.table.name).ok()?;
        if !plan.blind_append || plan.exact {
            return None;
        }
        let rule = HeadRule::Append { since: head.version };
        let commit = TableCommit {
            target: CommitTarget::Existing { table_id: id, rule },
            first_line: plan.first_line.clone(),
            rest: plan.rest.clone(),
            index: Arc::clone(&plan.index),
            later: plan.later.clone(),
        };
        part.table_id = Some(id);
        part.plan = Some(plan);
        part.remembered = true;
        Some(commit)
    }

    /// The head that a part of a batch goes on: of the table that it was found to be at first.
    async fn head_for(&self, part: &mut Working<'_>, table: &TableRef) -> Result<Snapshot> {
        let by_id = part.table_id.map(TableRef::Id);
        // A commit is planned and checked on the primary only.
        let asked = by_id.as_ref().unwrap_or(table);
        let head = match self.snapshot_on(&self.backend, asked, At::Head).await {
            Err(CatalogError::TableNotFound(_)) if by_id.is_some() => {
                return Err(part.conflict(None, ConflictKind::TableDropped));
            }
            other => other?,
        };
        if head.table.state != TableState::Active {
            return Err(match by_id {
                Some(_) => part.conflict(None, ConflictKind::TableDropped),
                None => CatalogError::TableNotFound(table.to_string()),
            });
        }
        part.table_id = Some(head.table.id);
        if let Some(warning) = self.skew.warning(&head, self.clock.now()) {
            tracing::warn!("{warning}");
        }
        Ok(head)
    }

    /// Checks a commit against `from < version <= to`.
    async fn check_winners(
        &self,
        part: &Working<'_>,
        table_id: TableId,
        from: Version,
        to: Version,
    ) -> Result<()> {
        let Some(plan) = &part.plan else { return Ok(()) };
        if to.get() - from.get() > MAX_REBASE_COMMITS {
            return Err(CatalogError::invalid(format!(
                "commit to table '{}' was planned on version {from}, the head is {to}: more than \
                 {MAX_REBASE_COMMITS} commits lie between; read the table again",
                part.label
            )));
        }
        let mut next = from.next();
        while next <= to {
            let bodies =
                self.repeat(|| self.backend.read_bodies(table_id, next, to, REBASE_PAGE)).await?;
            if bodies.is_empty() {
                return Err(CatalogError::corrupt(format!(
                    "table '{}': commits {next} to {to} have no stored bytes, so nothing can be checked \
                     against them. Nothing was committed; restore the catalog from a backup",
                    part.label
                )));
            }
            for (record, body) in bodies {
                // What is not there cannot be checked, and may conflict.
                if record.version != next {
                    return Err(CatalogError::corrupt(format!(
                        "table '{}': commit {next} has no stored bytes, so nothing can be checked \
                         against it. Nothing was committed; restore the catalog from a backup",
                        part.label
                    )));
                }
                let origin = format!("table '{}', version {}", part.label, record.version);
                let found = if body.rest.raw_len < LARGE_BYTES as u64 {
                    let winner = index_ndjson(&origin, &body.published()?)?;
                    conflict::check(&plan.index, &part.change.reads, part.isolation, &winner)
                } else {
                    check_large(&plan.index, &part.change.reads, part.isolation, &origin, &body)
                        .await?
                };
                if let Some(kind) = found {
                    return Err(part.conflict(Some(record.version), kind));
                }
                next = record.version.next();
            }
        }
        Ok(())
    }

    /// An application's version only moves forward: writing one again is a duplicate.
    async fn check_applications(&self, part: &Working<'_>, head: &Snapshot) -> Result<()> {
        let Some(plan) = part.plan.as_ref().filter(|p| !p.index.txns.is_empty()) else {
            return Ok(());
        };
        let state = self
            .repeat(|| self.backend.app_state(head.table.id, head.version, AppRows::Transactions))
            .await?;
        for txn in &plan.index.txns {
            if let Some(old) = state.transactions.iter().find(|r| r.app_id == txn.app_id)
                && old.version >= txn.version
            {
                let kind = ConflictKind::TransactionApplied {
                    app_id: txn.app_id.clone(),
                    wanted: txn.version,
                    recorded: old.version,
                };
                return Err(part.conflict(None, kind));
            }
        }
        Ok(())
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
            .with_timeout(catalog.retry_timeout())
    }
}

/// Answers of calls that are made a few at a time, in order; the first error in that order.
async fn some_at_a_time<T>(calls: Vec<impl Future<Output = Result<T>>>) -> Result<Vec<T>> {
    stream::iter(calls).buffered(HEADS_AT_A_TIME).try_collect().await
}

/// [`conflict::check`] against a winner that is too large to be in memory.
async fn check_large(
    current: &CommitIndex,
    reads: &Reads,
    isolation: Isolation,
    origin: &str,
    winner: &CommitBody,
) -> Result<Option<ConflictKind>> {
    let LargeCommit { index, later, .. } = read_stored(origin, winner)?;
    if let Some(kind) = conflict::check_changes(&index) {
        return Ok(Some(kind));
    }
    if conflict::appends_matter(current, reads, isolation, &index) {
        let mut pages = later.pages()?;
        while let Some(page) = pages.next().await? {
            if let Some(kind) = conflict::check_adds(reads, &page) {
                return Ok(Some(kind));
            }
        }
    }
    Ok(conflict::check_rest(current, reads, isolation, &index))
}

/// Why a commit has to wait for the mirror, if the table asks for that (see [`MAX_UNPUBLISHED`]).
fn back_pressure(head: &Snapshot) -> Option<String> {
    let bound: i64 = head.metadata.property(MAX_UNPUBLISHED)?.trim().parse().ok()?;
    let stopped = match head.table.mirror {
        MirrorMode::Off => return None,
        MirrorMode::Active => "",
        MirrorMode::Diverged => ", and publishing has stopped: a foreign commit stands in its log",
    };
    let published = head.table.published_version.map_or(-1, Version::get);
    let waiting = head.version.get() - published;
    (bound > 0 && waiting >= bound).then(|| {
        format!(
            "table '{}' has {waiting} versions that are not published yet{stopped}; \
             {MAX_UNPUBLISHED} is {bound}: commits wait until there are fewer",
            head.table.name
        )
    })
}

/// A head as the base of a plan, for a request of this time.
fn plan_base(head: &Snapshot, now: TimestampMs) -> PlanBase<'_> {
    PlanBase {
        protocol: &head.protocol,
        metadata: &head.metadata,
        next_version: head.version.next(),
        next_timestamp: now.max(head.timestamp.plus_ms(1)),
        lowers_fence: false,
    }
}

impl Working<'_> {
    /// Forgets what it was planned on, if that was remembered: false if not.
    fn start_anew(&mut self, heads: &Heads) -> bool {
        if !self.remembered {
            return false;
        }
        if let Some(table) = self.table_id.take() {
            heads.forget(table);
        }
        self.plan = None;
        self.remembered = false;
        self.fresh = true;
        true
    }

    fn conflict(&self, winning_version: Option<Version>, kind: ConflictKind) -> CatalogError {
        CatalogError::Conflict(Box::new(Conflict {
            table: self.label.clone(),
            read_version: self.read_version,
            winning_version,
            kind,
        }))
    }
}

fn reject_duplicates(working: &[Working<'_>]) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut names = BTreeSet::new();
    for part in working {
        let fresh_name = match &part.change.target {
            ChangeTarget::Create { name, .. } => names.insert(name),
            ChangeTarget::Existing { .. }
            | ChangeTarget::Next { .. }
            | ChangeTarget::Fence { .. } => true,
        };
        if !fresh_name || part.table_id.is_some_and(|id| !seen.insert(id)) {
            return Err(CatalogError::invalid(format!(
                "table '{}' is in the batch twice: put its actions into one commit",
                part.label
            )));
        }
    }
    Ok(())
}

fn refused(part: Option<&Working<'_>>, reason: Rejection) -> CatalogError {
    let label = part.map_or("?", |p| p.label.as_str());
    match reason {
        // Who rebases by itself has read an older version, in which the file was.
        Rejection::FileNotActive { path, .. }
            if part.is_some_and(|p| matches!(p.change.target, ChangeTarget::Next { .. })) =>
        {
            let kind = ConflictKind::ConcurrentDeleteDelete { path };
            part.map_or_else(|| CatalogError::invalid(label), |p| p.conflict(None, kind))
        }
        Rejection::FileNotActive { path, dv_id } => CatalogError::invalid(format!(
            "{}: removes file '{path}'{}, which is not in table '{label}': a file is \
             removed by the path that it was added by, as it is written there. Nothing was written",
            part.map_or("commit", |p| p.change.origin.as_str()),
            if dv_id.is_empty() { String::new() } else { format!(" with deletion vector {dv_id}") },
        )),
        Rejection::NameTaken(name) => CatalogError::TableExists(name),
        Rejection::IdTaken(id) => {
            CatalogError::invalid(format!("table id {id} exists already: it must be random"))
        }
        Rejection::TableNotFound(_) => match part {
            Some(part) => part.conflict(None, ConflictKind::TableDropped),
            None => CatalogError::TableNotFound(label.to_owned()),
        },
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
