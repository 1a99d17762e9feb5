//! The part that reads what was committed.

use async_trait::async_trait;

use crate::action::{DomainMetadata, Txn};
use crate::commit::CommitBody;
use crate::error::ReadResult;
use crate::ids::{At, TableId, TableRef, TimestampMs, Version};
use crate::model::{CommitRecord, FileCursor, FileRecord, Page, Snapshot, TombstoneRecord};

/// Most files that one [`ReadBackend::files_at`] asks for.
pub const MAX_FILES_AT: usize = 1_000;

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

/// Which rows [`ReadBackend::app_state`] reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppRows {
    /// Application transactions.
    Transactions,
    /// Domain metadata.
    Domains,
    /// Both.
    All,
}

impl AppRows {
    /// Whether application transactions are asked for.
    #[must_use]
    pub fn transactions(self) -> bool {
        self != AppRows::Domains
    }

    /// Whether domain metadata is asked for.
    #[must_use]
    pub fn domains(self) -> bool {
        self != AppRows::Transactions
    }
}

/// What applications keep in a table's state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AppState {
    /// Application transactions, by `appId`.
    pub transactions: Vec<Txn>,
    /// Domain metadata, by domain.
    pub domains: Vec<DomainMetadata>,
}

/// Reads tables at a version: state, files, history, bytes. Reads by id work on dropped tables as well.
#[async_trait]
pub trait ReadBackend: Send + Sync {
    /// Opens a table.
    ///
    /// 1. `At::Version` below the base or above the head is `VersionNotFound`, and so is
    ///    `At::Timestamp` before the base's commit timestamp.
    /// 2. Protocol, metadata and totals are those of exactly that version. Totals beyond 63 bits are the
    ///    largest value.
    /// 3. `At::Timestamp` is the latest version whose commit timestamp is not after that time.
    /// 4. A dropped table is opened by its id at every version, and never by name.
    async fn snapshot(&self, table: &TableRef, at: At) -> ReadResult<Snapshot>;

    /// Files of a table at a version, by cursor.
    ///
    /// 1. Rows with `added_version <= version < removed_version`, each once, also while other
    ///    commits add and remove files between two pages.
    /// 2. Within a version files keep the order of the commit, and each has every field that it had.
    async fn list_files(
        &self,
        table_id: TableId,
        version: Version,
        after: Option<FileCursor>,
        limit: usize,
    ) -> ReadResult<Page<FileRecord, FileCursor>>;

    /// Where the page that `list_files` gives for these arguments ends, if that is found at much less
    /// cost than the page, and other files follow. Then pages can be read at the same time.
    ///
    /// 1. The cursor of the page's last file, or none. A backend that cannot tell always says none.
    async fn files_end(
        &self,
        table_id: TableId,
        version: Version,
        after: FileCursor,
        limit: usize,
    ) -> ReadResult<Option<FileCursor>>;

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
    ) -> ReadResult<Vec<FileRecord>>;

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
    ) -> ReadResult<Page<TombstoneRecord, FileCursor>>;

    /// Rows of a table's state that belong to applications.
    ///
    /// 1. Of each application its latest transaction at that version, by `appId`.
    /// 2. Of each domain the metadata in force at that version, by domain. Removed ones are left out.
    /// 3. What was not asked for is empty.
    async fn app_state(
        &self,
        table_id: TableId,
        version: Version,
        rows: AppRows,
    ) -> ReadResult<AppState>;

    /// History, newest first.
    ///
    /// 1. `before` continues below that version; `next` is none exactly when nothing follows.
    /// 2. Bounds of versions are inclusive, `from_time` is too, `to_time` is exclusive.
    /// 3. A record says what its commit did. A remove without a size counts the bytes of its file. A base
    ///    whose JSON is gone has a record.
    async fn list_commits(
        &self,
        table_id: TableId,
        filter: &CommitFilter,
        before: Option<Version>,
        limit: usize,
    ) -> ReadResult<Page<CommitRecord, Version>>;

    /// Stored bytes of commits with `from <= version <= to`, ascending.
    ///
    /// 1. At most `limit`, and about 32 MiB compressed a call, but at least one. Versions without
    ///    bytes are left out.
    async fn read_bodies(
        &self,
        table_id: TableId,
        from: Version,
        to: Version,
        limit: usize,
    ) -> ReadResult<Vec<(CommitRecord, CommitBody)>>;
}
