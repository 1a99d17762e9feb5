//! What a case works with: a database of its own, a clock that stands in its hand, and shorthands.

use std::fmt::Display;
use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::Bytes;
use deltalakedb_catalog_core::action::{DomainMetadata, Txn};
use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{
    CatalogBackend, ClaimRequest, CommitFilter, CommitOutcome, CommitRequest, CommittedTable,
    Expiry, ImportEnd, MirrorTask, TableCommit,
};
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileRecord, MirrorRow, MirrorState, NewTable, Snapshot, TableRecord,
    TombstoneRecord,
};
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::change::{Change, new_table};
use crate::{Fixture, Harness};

/// Why a case stopped.
#[derive(Debug)]
pub enum Halt {
    /// It cannot run here.
    Skip(String),
    /// It failed.
    Fail(String),
}

/// What a case answers. Failed assertions panic.
pub type CaseResult<T = ()> = std::result::Result<T, Halt>;

impl<E: std::error::Error> From<E> for Halt {
    #[track_caller]
    fn from(error: E) -> Self {
        Halt::Fail(format!("{error} (at {}; {error:?})", Location::caller()))
    }
}

/// Ends a case as failed.
#[track_caller]
pub fn fail<T>(message: impl Display) -> CaseResult<T> {
    Err(Halt::Fail(format!("{message} (at {})", Location::caller())))
}

/// Version from a literal.
///
/// # Panics
/// If it is negative.
#[must_use]
pub fn v(version: i64) -> Version {
    Version::new(version).expect("a version of a test")
}

/// A name in the namespace `ns`.
///
/// # Panics
/// If it is not a valid name.
#[must_use]
pub fn name(table: &str) -> TableName {
    TableName::new("ns", table).expect("a name of a test")
}

/// Ends an import whose log is all published already.
///
/// # Errors
/// What the backend fails with.
pub async fn finish_import(
    db: &dyn CatalogBackend,
    id: TableId,
    now: TimestampMs,
) -> Result<TableRecord> {
    let published = db.get_table(&TableRef::Id(id)).await?.and_then(|table| table.head);
    db.import_finish(id, ImportEnd { published, ..ImportEnd::default() }, &Act::at(now))
        .await
        .plain()
}

/// What a committed batch wrote; any other outcome fails the case.
#[track_caller]
pub fn committed(outcome: CommitOutcome) -> CaseResult<Vec<CommittedTable>> {
    match outcome {
        CommitOutcome::Committed(tables) => Ok(tables),
        other => fail(format_args!("expected a commit, got {other:?}")),
    }
}

/// As [`committed`], for a batch of one table.
#[track_caller]
pub fn committed_one(outcome: CommitOutcome) -> CaseResult<CommittedTable> {
    match outcome {
        CommitOutcome::Committed(tables) if tables.len() == 1 => Ok(tables[0].clone()),
        other => fail(format_args!("expected a commit to one table, got {other:?}")),
    }
}

/// Calls again while the database is busy and nothing was written: what the core does for its
/// users. Bounded.
///
/// # Errors
/// Those of the call, and the last busy one.
pub async fn retrying<T, E: Into<CatalogError>, F: Future<Output = Result<T, E>>>(
    call: impl Fn() -> F,
) -> Result<T> {
    let mut left = 10_000;
    loop {
        match call().await.plain() {
            Err(e) if left > 0 && e.is_retryable() && e.write_state() == WriteState::NotApplied => {
                left -= 1;
                tokio::task::yield_now().await;
            }
            answer => return answer,
        }
    }
}

/// Runs calls as tasks that all start at once, and collects what they answer, in order.
///
/// # Errors
/// If one of them panics.
pub async fn together<T, F>(calls: impl IntoIterator<Item = F>) -> CaseResult<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let calls: Vec<F> = calls.into_iter().collect();
    let start = Arc::new(Barrier::new(calls.len()));
    let mut tasks = Vec::new();
    for call in calls {
        let start = start.clone();
        tasks.push(tokio::spawn(async move {
            start.wait().await;
            call.await
        }));
    }
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await?);
    }
    Ok(answers)
}

/// Everything that can be read of one table, for comparisons.
#[derive(Debug, Clone, PartialEq)]
pub struct TableDump {
    /// Its row.
    pub record: TableRecord,
    /// The head.
    pub snapshot: Snapshot,
    /// Files at the head.
    pub files: Vec<FileRecord>,
    /// All tombstones at the head.
    pub tombstones: Vec<TombstoneRecord>,
    /// Application transactions at the head.
    pub txns: Vec<Txn>,
    /// Domains at the head.
    pub domains: Vec<DomainMetadata>,
    /// History, newest first.
    pub commits: Vec<CommitRecord>,
    /// What is or would be published, by version.
    pub bodies: Vec<(Version, Bytes)>,
    /// Outbox rows that are not complete.
    pub outbox: Vec<MirrorRow>,
    /// Outbox rows that are.
    pub complete: Vec<MirrorRow>,
}

/// A database of its own for one case.
pub struct Env {
    harness: Arc<dyn Harness>,
    fixture: Fixture,
    clock: AtomicI64,
    ids: AtomicU64,
}

impl Env {
    /// The database of a fixture.
    #[must_use]
    pub fn new(harness: Arc<dyn Harness>, fixture: Fixture) -> Self {
        Env { harness, fixture, clock: AtomicI64::new(1_700_000_000_000), ids: AtomicU64::new(1) }
    }

    /// The backend under test.
    pub fn db(&self) -> &dyn CatalogBackend {
        &*self.fixture.backend
    }

    /// The backend under test, to hand to tasks.
    pub fn shared(&self) -> Arc<dyn CatalogBackend> {
        self.fixture.backend.clone()
    }

    /// Another handle on the same database: what another process would hold.
    ///
    /// # Errors
    /// `Skip` where the harness cannot make one.
    pub async fn reopen(&self) -> CaseResult<Arc<dyn CatalogBackend>> {
        match self.harness.reopen(&self.fixture).await? {
            Some(backend) => Ok(backend),
            None => Err(Halt::Skip("a second handle on the database is not possible".to_owned())),
        }
    }

    /// Both handles.
    ///
    /// # Errors
    /// As [`Env::reopen`].
    pub async fn two_handles(&self) -> CaseResult<[Arc<dyn CatalogBackend>; 2]> {
        Ok([self.shared(), self.reopen().await?])
    }

    /// Time: a second later at each call.
    pub fn now(&self) -> TimestampMs {
        TimestampMs(self.clock.fetch_add(1_000, Ordering::Relaxed))
    }

    /// A fresh id. Their order is not that of their making.
    pub fn id(&self) -> TableId {
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        TableId(Uuid::from_u64_pair(mixed, n))
    }

    /// A fresh token.
    ///
    /// # Panics
    /// Never: the text is valid.
    pub fn token(&self) -> CommitToken {
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        CommitToken::new(format!("token-{n}")).expect("a printable token")
    }

    /// A table to register in the namespace `ns`.
    pub fn new_table(&self, table: &str) -> NewTable {
        new_table(self.id(), name(table))
    }

    /// A batch with a fresh token, now.
    pub fn request(&self, tables: Vec<TableCommit>) -> CommitRequest {
        CommitRequest { token: self.token(), now: self.now(), tables }
    }

    /// Commits a batch with a fresh token; again while the database is busy.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn commit(&self, tables: Vec<TableCommit>) -> Result<CommitOutcome> {
        let request = self.request(tables);
        retrying(|| self.db().commit(request.clone())).await
    }

    /// Creates a table in the namespace `ns` with a change on top of protocol and metadata.
    ///
    /// # Errors
    /// If it is not committed.
    pub async fn create_with(&self, table: &str, change: Change) -> CaseResult<TableId> {
        let new = self.new_table(table);
        let id = new.id;
        committed(self.commit(vec![change.create(new)?]).await?)?;
        Ok(id)
    }

    /// Creates an empty table in the namespace `ns`.
    ///
    /// # Errors
    /// If it is not committed.
    pub async fn create(&self, table: &str) -> CaseResult<TableId> {
        self.create_with(table, Change::new()).await
    }

    /// Writes the next version of a table.
    ///
    /// # Errors
    /// If it is not committed.
    pub async fn write(&self, id: TableId, change: Change) -> CaseResult<CommittedTable> {
        let head = self.head(id).await?;
        committed_one(self.commit(vec![change.exactly(id, head)?]).await?)
    }

    /// The row of a table.
    ///
    /// # Errors
    /// If there is none.
    pub async fn record(&self, id: TableId) -> CaseResult<TableRecord> {
        match self.db().get_table(&TableRef::Id(id)).await? {
            Some(record) => Ok(record),
            None => fail(format_args!("table {id} is gone")),
        }
    }

    /// The head of a table.
    ///
    /// # Errors
    /// If there is none.
    pub async fn head(&self, id: TableId) -> CaseResult<Version> {
        match self.record(id).await?.head {
            Some(head) => Ok(head),
            None => fail(format_args!("table {id} has no head")),
        }
    }

    /// Opens a table by id.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn snapshot(&self, id: TableId, at: At) -> Result<Snapshot> {
        self.db().snapshot(&TableRef::Id(id), at).await.plain()
    }

    /// Files at a version, read in pages of 7.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn files(&self, id: TableId, version: Version) -> Result<Vec<FileRecord>> {
        all_files(self.db(), id, version, 7).await
    }

    /// Paths at a version, in the order of the list.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn paths(&self, id: TableId, version: Version) -> Result<Vec<String>> {
        Ok(self.files(id, version).await?.into_iter().map(|f| f.add.path).collect())
    }

    /// Tombstones at a version, read in pages of 3.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn tombstones(
        &self,
        id: TableId,
        version: Version,
        deleted_after: i64,
    ) -> Result<Vec<TombstoneRecord>> {
        all_tombstones(self.db(), id, version, TimestampMs(deleted_after), 3).await
    }

    /// Paths of tombstones at a version.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn buried(
        &self,
        id: TableId,
        version: Version,
        deleted_after: i64,
    ) -> Result<Vec<String>> {
        let tombstones = self.tombstones(id, version, deleted_after).await?;
        Ok(tombstones.into_iter().map(|t| t.remove.path).collect())
    }

    /// History, newest first.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn history(&self, id: TableId) -> Result<Vec<CommitRecord>> {
        all_commits(self.db(), id, &CommitFilter::default(), 5).await
    }

    /// The bytes of one version.
    ///
    /// # Errors
    /// If they are not stored.
    pub async fn body(&self, id: TableId, version: Version) -> CaseResult<Bytes> {
        let bodies = self.db().read_bodies(id, version, version, 10).await?;
        match bodies.as_slice() {
            [(record, body)] if record.version == version => Ok(body.published()?),
            other => fail(format_args!("expected the body of version {version}, got {other:?}")),
        }
    }

    /// Outbox rows of a table: in one state, or all but complete.
    ///
    /// # Errors
    /// Those of the backend.
    pub async fn outbox(
        &self,
        id: Option<TableId>,
        state: Option<MirrorState>,
    ) -> Result<Vec<MirrorRow>> {
        all_rows(self.db(), id, state, 4).await
    }

    /// Everything about one table.
    ///
    /// # Errors
    /// If something cannot be read.
    pub async fn dump(&self, id: TableId) -> CaseResult<TableDump> {
        Ok(dump(self.db(), id).await?)
    }

    /// A claim of everything by an owner, for ten seconds.
    pub fn claim_by(&self, owner: &str) -> ClaimRequest {
        ClaimRequest {
            owner: owner.to_owned(),
            now: self.now(),
            lease_ms: 10_000,
            max_tables: 100,
            max_versions: 100,
            only: None,
        }
    }

    /// Claims exactly one table.
    ///
    /// # Errors
    /// If none or several were given.
    pub async fn claim_one(&self, request: &ClaimRequest) -> CaseResult<MirrorTask> {
        let mut tasks = self.db().mirror_claim(request).await?;
        match (tasks.pop(), tasks.is_empty()) {
            (Some(task), true) => Ok(task),
            (task, _) => fail(format_args!("expected one task, got {tasks:?} and {task:?}")),
        }
    }
}

/// All files at a version, in pages.
///
/// # Errors
/// Those of the backend, and `Corrupt` where the paging contradicts itself.
pub async fn all_files(
    db: &dyn CatalogBackend,
    id: TableId,
    version: Version,
    limit: usize,
) -> Result<Vec<FileRecord>> {
    let mut out = Vec::new();
    let mut after = None;
    loop {
        let page = db.list_files(id, version, after, limit).await?;
        check_page(page.items.len(), page.next.is_some(), limit)?;
        out.extend(page.items);
        match page.next {
            None => return Ok(out),
            next => after = next,
        }
    }
}

/// All tombstones of a version, in pages.
///
/// # Errors
/// As [`all_files`].
pub async fn all_tombstones(
    db: &dyn CatalogBackend,
    id: TableId,
    version: Version,
    deleted_after: TimestampMs,
    limit: usize,
) -> Result<Vec<TombstoneRecord>> {
    let mut out = Vec::new();
    let mut after = None;
    loop {
        let page = db.list_tombstones(id, version, deleted_after, after, limit).await?;
        check_page(page.items.len(), page.next.is_some(), limit)?;
        out.extend(page.items);
        match page.next {
            None => return Ok(out),
            next => after = next,
        }
    }
}

/// History in pages, newest first.
///
/// # Errors
/// As [`all_files`].
pub async fn all_commits(
    db: &dyn CatalogBackend,
    id: TableId,
    filter: &CommitFilter,
    limit: usize,
) -> Result<Vec<CommitRecord>> {
    let mut out = Vec::new();
    let mut before = None;
    loop {
        let page = db.list_commits(id, filter, before, limit).await?;
        check_page(page.items.len(), page.next.is_some(), limit)?;
        out.extend(page.items);
        match page.next {
            None => return Ok(out),
            next => before = next,
        }
    }
}

/// Outbox rows in pages.
///
/// # Errors
/// As [`all_files`].
pub async fn all_rows(
    db: &dyn CatalogBackend,
    id: Option<TableId>,
    state: Option<MirrorState>,
    limit: usize,
) -> Result<Vec<MirrorRow>> {
    let mut out = Vec::new();
    let mut after = None;
    loop {
        let page = db.mirror_rows(id, state, after, limit).await?;
        check_page(page.items.len(), page.next.is_some(), limit)?;
        out.extend(page.items);
        match page.next {
            None => return Ok(out),
            next => after = next,
        }
    }
}

/// Forgets tokens page by page, to the end: how many, in how many pages.
///
/// # Errors
/// Those of the backend, and `Corrupt` where the paging contradicts itself.
pub async fn forget_tokens(db: &dyn CatalogBackend, expiry: Expiry) -> Result<(u64, usize)> {
    let (mut removed, mut pages, mut after) = (0, 0, None);
    loop {
        let page = db.expire_tokens(expiry, after.as_ref()).await?;
        check_page(usize::try_from(page.removed).unwrap_or(usize::MAX), false, expiry.limit)?;
        (removed, pages) = (removed + page.removed, pages + 1);
        match page.next {
            None => return Ok((removed, pages)),
            next if next <= after => return Err(CatalogError::corrupt("a page leads back")),
            next => after = next,
        }
    }
}

/// Removes rows of what was published page by page, to the end: how many.
///
/// # Errors
/// As [`forget_tokens`].
pub async fn clear_outbox(db: &dyn CatalogBackend, expiry: Expiry) -> Result<u64> {
    let (mut removed, mut after) = (0, None);
    loop {
        let page = db.mirror_expire(expiry, after).await?;
        check_page(usize::try_from(page.removed).unwrap_or(usize::MAX), false, expiry.limit)?;
        removed += page.removed;
        match page.next {
            None => return Ok(removed),
            next if next <= after => return Err(CatalogError::corrupt("a page leads back")),
            next => after = next,
        }
    }
}

/// A page is full where another one follows, and never fuller than asked for.
fn check_page(items: usize, more: bool, limit: usize) -> Result<()> {
    if items > limit || (more && items == 0) {
        return Err(CatalogError::corrupt(format!(
            "a page of at most {limit} has {items} items, and {} follows",
            if more { "another one" } else { "none" }
        )));
    }
    Ok(())
}

/// Everything that can be read of a table.
///
/// # Errors
/// Those of the backend.
pub async fn dump(db: &dyn CatalogBackend, id: TableId) -> Result<TableDump> {
    let record = db
        .get_table(&TableRef::Id(id))
        .await?
        .ok_or_else(|| CatalogError::TableNotFound(id.to_string()))?;
    let snapshot = db.snapshot(&TableRef::Id(id), At::Head).await?;
    let head = snapshot.version;
    let mut bodies = Vec::new();
    let mut from = Version::ZERO;
    loop {
        let some = db.read_bodies(id, from, head, 50).await?;
        let Some((last, _)) = some.last() else { break };
        from = last.version.next();
        for (record, body) in some {
            bodies.push((record.version, body.published()?));
        }
    }
    Ok(TableDump {
        record,
        snapshot,
        files: all_files(db, id, head, 50).await?,
        tombstones: all_tombstones(db, id, head, TimestampMs(i64::MIN), 50).await?,
        txns: db.app_transactions(id, head).await?,
        domains: db.domain_metadata(id, head).await?,
        commits: all_commits(db, id, &CommitFilter::default(), 50).await?,
        bodies,
        outbox: all_rows(db, Some(id), None, 50).await?,
        complete: all_rows(db, Some(id), Some(MirrorState::Complete), 50).await?,
    })
}
