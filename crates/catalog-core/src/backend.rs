//! The contract between the core and a database: narrow domain verbs, one call = one transaction.
//!
//! Rules for every method:
//!
//! * No transaction handle crosses the trait. A call is atomic: after an error, a dropped future or
//!   a killed process, either all of its rows are there or none is.
//! * Backends never retry; they classify (`CatalogError::busy`, `WriteState`). The core retries.
//! * Text from users is only ever bound as a parameter.
//! * Reads see committed data only, and everything that was acknowledged before they began.
//! * A method on a table that does not exist is `TableNotFound`. One that is importing is hidden:
//!   `TableNotFound` too, but for the import verbs, `get_table` and reads by id, which see what is
//!   stored so far (an import is validated before it is finished). Reads by id work on dropped
//!   tables as well.
//!
//! The numbered clauses in the docs are what `tests/conformance` checks, by these numbers.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::action::{DomainMetadata, Txn};
use crate::commit::{CommitBody, CommitIndex, FirstLine, Packed};
use crate::error::Result;
use crate::ids::{At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version};
use crate::later::LaterAdds;
use crate::model::{
    BaseChunk, BaseTail, CommitRecord, FileCursor, FileRecord, MirrorMode, MirrorRow, MirrorState,
    NewSkipSegment, NewTable, Page, SkipIndex, SkipPage, Snapshot, TableRecord, TableState,
    TombstoneRecord,
};

/// Most files that one [`CatalogBackend::files_at`] asks for.
pub const MAX_FILES_AT: usize = 1_000;
/// Most pages that one [`CatalogBackend::skip_pages`] asks for.
pub const MAX_SKIP_PAGES: usize = 500;

/// What one table takes part with in a commit.
#[derive(Debug, Clone)]
pub struct TableCommit {
    /// Which table, and on which head.
    pub target: CommitTarget,
    /// First line, rendered with the commit timestamp inside the transaction.
    pub first_line: FirstLine,
    /// The other lines.
    pub rest: Packed,
    /// Rows to write. Shared, as a commit that lost a race is sent again.
    pub index: Arc<CommitIndex>,
    /// More adds, of a commit that is too large to have its rows in memory: those of files after the ones of
    /// the index. A backend reads them in pages, or calls
    /// [`request_in_memory`](crate::later::request_in_memory) first.
    pub later: Option<LaterAdds>,
}

/// Where a table's part of a commit goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitTarget {
    /// Registers the table and writes its version 0.
    Create(NewTable),
    /// The next version of a table.
    Existing {
        /// Table.
        table_id: TableId,
        /// Condition on its head.
        rule: HeadRule,
    },
}

/// Compare-and-set condition on a table's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadRule {
    /// The head is exactly this version.
    Exactly(Version),
    /// Any head, as long as no commit after this version changed metadata or protocol
    /// (`barrier_version <= since`): for commits that only add files and read nothing.
    Append {
        /// The version that the writer read.
        since: Version,
    },
}

/// One batch: all of its tables get their commit, or none does.
#[derive(Debug, Clone)]
pub struct CommitRequest {
    /// Idempotency token.
    pub token: CommitToken,
    /// The core's clock. Each table's commit timestamp is `max(now, head timestamp + 1)`.
    pub now: TimestampMs,
    /// One entry a table; no table twice; at least one.
    pub tables: Vec<TableCommit>,
}

/// A version that a batch wrote.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CommittedTable {
    /// Table.
    pub table_id: TableId,
    /// Its new version.
    pub version: Version,
    /// Commit timestamp.
    pub timestamp: TimestampMs,
}

/// What became of a batch. Anything but `Committed` and `Replayed` wrote nothing at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Written, durable. In the order of the request.
    Committed(Vec<CommittedTable>),
    /// The token was committed before (maybe by a lost answer): what it wrote then.
    Replayed(Vec<CommittedTable>),
    /// A table's head does not fulfil its rule.
    HeadMoved {
        /// Index into the request's tables.
        index: usize,
        /// The head now.
        head: Version,
    },
    /// The commit can never be applied in this form.
    Rejected {
        /// Index into the request's tables.
        index: usize,
        /// Why.
        reason: Rejection,
    },
}

/// Why a database refuses a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// A `remove` names a file that is not in the table at the head.
    FileNotActive {
        /// Its path.
        path: String,
        /// Its deletion vector, or empty.
        dv_id: String,
    },
    /// Create: the name belongs to a live or importing table.
    NameTaken(TableName),
    /// Create: the id exists.
    IdTaken(TableId),
    /// No such table, or it is dropped or importing.
    TableNotFound(TableId),
}

/// A commit of another engine, kept verbatim.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportedCommit {
    /// Version: for applied commits, exactly the next one.
    pub version: Version,
    /// In-commit timestamp, else the log file's modification time, adjusted to grow strictly.
    pub timestamp: TimestampMs,
    /// Bytes of `N.json`.
    pub body: CommitBody,
    /// Rows to write; ignored for commits at or below the base (history only).
    pub index: CommitIndex,
    /// More adds, of a commit that is too large to be in memory: rows of files after those of the index. A
    /// backend reads them in pages, or calls [`in_memory`](crate::later::in_memory) first.
    pub later: Option<LaterAdds>,
    /// Token that another catalog ratified it under, with the table's place in that batch; none
    /// for a commit that is read from a log. Once stored, a commit with this token is `Replayed`.
    pub token: Option<(CommitToken, u32)>,
}

/// How an import ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportEnd {
    /// Highest version that is in `_delta_log/`; none = nothing is published yet. Versions after it
    /// are enqueued unless the mirror is `Off`.
    pub published: Option<Version>,
    /// When the table was created; none = now, when the import began.
    pub created_at: Option<TimestampMs>,
    /// When it was dropped: then it ends in state `Dropped`. None = it is `Active`.
    pub dropped_at: Option<TimestampMs>,
}

/// How far an import is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportProgress {
    /// The row, in state `Importing`.
    pub table: TableRecord,
    /// Files of the base that are stored.
    pub base_files: u64,
    /// Tombstones of the base that are stored.
    pub base_tombstones: u64,
    /// Whether the base is complete (always true when the base is version 0 from JSON).
    pub base_done: bool,
    /// History-only commits (below or at the base) that are stored: the highest one.
    pub history_through: Option<Version>,
}

/// Which tables to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableFilter {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only this state; none = active ones.
    pub state: Option<TableState>,
}

/// Which commits to list, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitFilter {
    /// At or after this version.
    pub from_version: Option<Version>,
    /// At or before this version.
    pub to_version: Option<Version>,
    /// At or after this time.
    pub from_time: Option<TimestampMs>,
    /// Before this time.
    pub to_time: Option<TimestampMs>,
}

/// A worker asks for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// Unique per worker process and run; printable.
    pub owner: String,
    /// Now.
    pub now: TimestampMs,
    /// How long the lease holds, milliseconds.
    pub lease_ms: i64,
    /// At most so many tables.
    pub max_tables: usize,
    /// At most so many versions a table.
    pub max_versions: usize,
    /// Only this table.
    pub only: Option<TableId>,
}

/// The right to publish one table for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorLease {
    /// Table.
    pub table_id: TableId,
    /// Holder.
    pub owner: String,
    /// Grows with each change of holder: a stale holder's writes are refused by it.
    pub epoch: i64,
    /// When it lapses.
    pub until: TimestampMs,
}

/// Work: a table's next unpublished versions.
#[derive(Debug, Clone, PartialEq)]
pub struct MirrorTask {
    /// Lease.
    pub lease: MirrorLease,
    /// Table.
    pub table: TableRecord,
    /// Unpublished versions, consecutive, ascending, the first right after `published_version`.
    pub versions: Vec<Version>,
    /// Attempts that the first version has had before this one.
    pub attempts: u32,
}

/// A version that is in `_delta_log/` now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Version.
    pub version: Version,
    /// SHA-256 of the bytes, hex.
    pub digest: String,
    /// When.
    pub at: TimestampMs,
}

/// A version that could not be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishFailure {
    /// Version.
    pub version: Version,
    /// What happened, without secrets.
    pub error: String,
    /// When to try again.
    pub retry_at: TimestampMs,
    /// A foreign commit stands there: the table's mode becomes `Diverged`.
    pub diverged: bool,
}

/// Totals for health checks.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BackendInfo {
    /// `memory`, `sqlite`, …
    pub kind: &'static str,
    /// Version text of the database.
    pub server_version: String,
    /// Version of our tables in it; 0 = not initialised.
    pub schema_version: u32,
    /// Version that this program writes.
    pub supported_schema_version: u32,
    /// What time it is where the database runs, which commits are measured by (see [`crate::skew`]); none
    /// if it has no clock but this process's.
    pub clock: Option<TimestampMs>,
}

/// A database that holds catalogs.
#[async_trait]
pub trait CatalogBackend: Debug + Send + Sync + 'static {
    // ---- schema ----

    /// Which database this is and which schema it has. Works on an empty database.
    async fn info(&self) -> Result<BackendInfo>;

    /// Creates or upgrades our tables.
    ///
    /// 1. Idempotent; two processes at once end with one schema.
    /// 2. A schema that is newer than this program, or tables of another program under our names,
    ///    is `Schema` and nothing is changed.
    async fn migrate(&self, now: TimestampMs) -> Result<()>;

    // ---- tables ----

    /// Told when this process has changed a table through another handle: what is remembered of the
    /// table's row is out of date. Views that may lag use it, so that nobody misses what they wrote
    /// themselves; the rest needs nothing.
    fn note_change(&self, table_id: TableId) {
        let _ = table_id;
    }

    /// The row of a table: by name a live (active or importing) one, by id any.
    async fn get_table(&self, table: &TableRef) -> Result<Option<TableRecord>>;

    /// Tables by (namespace, name, id), a page at a time.
    ///
    /// 1. `limit` is an upper bound; `next` is none exactly when nothing follows.
    async fn list_tables(
        &self,
        filter: &TableFilter,
        after: Option<&(TableName, TableId)>,
        limit: usize,
    ) -> Result<Page<TableRecord, (TableName, TableId)>>;

    /// Drops a table: `Active` to `Dropped`, its name becomes free, its rows stay.
    ///
    /// 1. A commit and a drop are serial: a commit after it is `Rejected(TableNotFound)`.
    /// 2. `TableNotFound` if it is not active.
    async fn drop_table(&self, table_id: TableId, now: TimestampMs) -> Result<TableRecord>;

    /// Brings a dropped table back, under its old or a new name.
    ///
    /// 1. `TableExists` if that name is taken; `TableNotFound` if it is not dropped.
    async fn undrop_table(&self, table_id: TableId, name: &TableName) -> Result<TableRecord>;

    // ---- reads ----

    /// Opens a table.
    ///
    /// 1. `At::Version` below the base or above the head is `VersionNotFound`, and so is
    ///    `At::Timestamp` before the base's commit timestamp.
    /// 2. Protocol, metadata and totals are those of exactly that version.
    async fn snapshot(&self, table: &TableRef, at: At) -> Result<Snapshot>;

    /// Files of a table at a version, by cursor.
    ///
    /// 1. Rows with `added_version <= version < removed_version`, each once, also while other
    ///    commits add and remove files between two pages.
    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<FileRecord, FileCursor>>;

    /// Where the page that `list_files` gives for these arguments ends, if that is found at much less
    /// cost than the page, and other files follow. Then pages can be read at the same time.
    ///
    /// 1. The cursor of the page's last file, or none.
    async fn files_end(
        &self,
        _table_id: TableId,
        _version: Version,
        _after: FileCursor,
        _limit: usize,
    ) -> Result<Option<FileCursor>> {
        Ok(None)
    }

    /// The files with these cursors that are in the table at a version, in their order. `cursors` are
    /// ascending, and at most [`MAX_FILES_AT`].
    ///
    /// 1. As `list_files`, of these alone: those that are not there at that version are left out. A
    ///    table that does not exist has no files.
    async fn files_at(
        &self,
        table_id: TableId,
        version: Version,
        cursors: &[FileCursor],
    ) -> Result<Vec<FileRecord>>;

    /// Tombstones that a checkpoint of `version` carries, by cursor.
    ///
    /// 1. Removed at or before `version`, `deletionTimestamp > deleted_after` (a missing one
    ///    counts as 0), not re-added with the same key by that version, each key once (its latest).
    async fn list_tombstones(
        &self,
        table_id: TableId,
        version: Version,
        deleted_after: TimestampMs,
        after: Option<FileCursor>,
        limit: usize,
    ) -> Result<Page<TombstoneRecord, FileCursor>>;

    /// Latest application transaction of each application at a version, by `appId`.
    async fn app_transactions(&self, table_id: TableId, version: Version) -> Result<Vec<Txn>>;

    /// Domain metadata in force at a version (removed ones left out), by domain.
    async fn domain_metadata(
        &self,
        table_id: TableId,
        version: Version,
    ) -> Result<Vec<DomainMetadata>>;

    /// History, newest first. `before` continues below that version.
    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> Result<Page<CommitRecord, Version>>;

    /// Stored bytes of commits with `from <= version <= to`, ascending, at most `limit` and about
    /// 32 MiB compressed a call (at least one). Versions without bytes are left out.
    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> Result<Vec<(CommitRecord, CommitBody)>>;

    // ---- commit ----

    /// Commits a batch over any number of tables.
    ///
    /// 1. All or nothing, over all tables.
    /// 2. A token that was committed is `Replayed`, whatever else the request says, and is checked
    ///    first; two requests with one token at the same time commit once.
    /// 3. Each version is head + 1: no gap, no version twice; racing writers with
    ///    `Exactly(v)` admit one.
    /// 4. Commit timestamps grow strictly.
    /// 5. A `remove` of a file that is not active is `Rejected(FileNotActive)`. Removes apply
    ///    before adds. An `add` whose key is active replaces that row (no tombstone).
    /// 6. Outbox rows of tables whose mirror is not `Off` are written in the same transaction.
    /// 7. Acknowledged = durable.
    /// 8. `barrier_version` becomes the new version if the index has metadata or protocol.
    /// 9. Which check fails first is by index in the request; `HeadMoved` before `FileNotActive`.
    /// 10. What is written is the same whether adds are in the index or come in pages
    ///     ([`TableCommit::later`]). If a page cannot be read, nothing is written.
    async fn commit(&self, request: CommitRequest) -> Result<CommitOutcome>;

    /// What a token wrote, or none. The answer is final only if no commit with it is still running.
    async fn resolve_token(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>>;

    // ---- skipping index ----

    /// The segments of a table's skipping index, in the order of what they cover: all of one moment. A
    /// table that does not exist has none.
    ///
    /// 1. [`complete_to`](SkipIndex::complete_to) may be none. Else it was the head at that same moment, when
    ///    no row of a file came after the last segment.
    async fn skip_index(&self, table_id: TableId) -> Result<SkipIndex>;

    /// Pages of a skipping index, in the order asked for, at most [`MAX_SKIP_PAGES`]; none for a page
    /// that is not there, as its segment was replaced.
    ///
    /// 1. A page never changes: two answers for one page are the same bytes, or none. Views that
    ///    remember pages may answer for a segment that was replaced.
    async fn skip_pages(&self, table_id: TableId, pages: &[SkipPage])
    -> Result<Vec<Option<Bytes>>>;

    /// Takes segments away, with their pages, and puts one in their place; its id is the new
    /// generation. False, with nothing changed, unless `generation` is the table's.
    ///
    /// 1. Of calls with one generation, also at the same time, one is true.
    /// 2. All or nothing. It does not make a commit fail, or start again.
    async fn skip_replace(
        &self,
        table_id: TableId,
        generation: i64,
        remove: &[i64],
        segment: &NewSkipSegment,
    ) -> Result<bool>;

    // ---- import ----

    /// Registers a table in state `Importing` whose state starts at `base` (0 with
    /// `base_from_json` = replay from version 0), or finds the import of this name and location
    /// that was interrupted.
    ///
    /// 1. A live table of this name is `TableExists`; an importing one with another location or
    ///    base too.
    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> Result<ImportProgress>;

    /// Stores a chunk of the base state; with `tail` the base is done and the head is the base.
    ///
    /// 1. `skip_files`/`skip_tombstones` are the caller's positions: unless they equal the stored
    ///    counts (another importer was here), `InvalidInput`.
    async fn import_base(
        &self,
        table_id: TableId,
        skip_files: u64,
        skip_tombstones: u64,
        chunk: BaseChunk,
        tail: Option<BaseTail>,
    ) -> Result<ImportProgress>;

    /// Stores commits: above the base they are applied (removes of unknown files become tombstones
    /// only) and move the head; at or below it they are history.
    ///
    /// 1. Applied versions continue the head without a gap, else `InvalidInput`.
    /// 2. The timestamps must grow strictly, else `InvalidInput`.
    /// 3. The tokens that come with commits are known from then on (see [`ImportedCommit::token`]).
    /// 4. What is stored is the same whether adds are in the index or come in pages
    ///    ([`ImportedCommit::later`]). If a page cannot be read, nothing is stored.
    async fn import_commits(
        &self,
        table_id: TableId,
        commits: Arc<[ImportedCommit]>,
    ) -> Result<ImportProgress>;

    /// Makes the table `Active` (or `Dropped`), with `published_version` as told.
    ///
    /// 1. `Corrupt` without head, protocol or metadata.
    /// 2. `InvalidInput` if more is said to be published than there is.
    /// 3. Versions after `end.published` are enqueued at `now`, in the same transaction, unless the
    ///    mirror is `Off`.
    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        now: TimestampMs,
    ) -> Result<TableRecord>;

    /// Deletes an importing table and its rows.
    async fn import_abort(&self, table_id: TableId) -> Result<()>;

    // ---- mirror outbox ----

    /// Leases tables that have unpublished versions, whose first unpublished version may be tried
    /// (`retry_at <= now`), whose mode is `Active`, which are not dropped or importing, and whose
    /// lease is free, lapsed or the owner's. Oldest work first.
    ///
    /// 1. Two workers never hold a lease on one table at a time.
    /// 2. Rows handed out become `InFlight` and count an attempt.
    async fn mirror_claim(&self, request: &ClaimRequest) -> Result<Vec<MirrorTask>>;

    /// Extends a lease; none if it was lost.
    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> Result<Option<MirrorLease>>;

    /// Records published versions in order.
    ///
    /// 1. False, with nothing recorded, if the lease was lost (another epoch).
    /// 2. `published_version` grows by one at a time; a version out of order is `InvalidInput`.
    async fn mirror_complete(&self, lease: &MirrorLease, done: &[Published]) -> Result<bool>;

    /// Records a failure (`Failed`, or mode `Diverged`) and gives the lease up.
    ///
    /// 1. A table whose mode is `Off` by now stays `Off`: its later versions have no rows.
    async fn mirror_fail(&self, lease: &MirrorLease, failure: &PublishFailure) -> Result<bool>;

    /// Gives a lease up; rows in flight become `Pending`.
    async fn mirror_release(&self, lease: &MirrorLease) -> Result<()>;

    /// Outbox rows, by (table id, version): of one table or all, in one state or all but complete.
    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> Result<Page<MirrorRow, (TableId, Version)>>;

    /// Makes failed versions due now and a diverged table active again. Returns the number of rows.
    async fn mirror_retry(&self, table_id: TableId, now: TimestampMs) -> Result<u64>;

    /// Turns publishing on or off, or records that a foreign commit was seen (`Diverged`).
    ///
    /// 1. Turning it on enqueues every version after `published_version`.
    /// 2. Only a table whose mode is `Active` becomes `Diverged`: one that is `Off` stays `Off`.
    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        now: TimestampMs,
    ) -> Result<TableRecord>;
}
