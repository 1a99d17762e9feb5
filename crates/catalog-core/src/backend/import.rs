//! The part that takes over the log of a table.

use std::sync::Arc;

use async_trait::async_trait;

use crate::audit::Act;
use crate::commit::{CommitBody, CommitIndex};
use crate::error::{Result, WriteResult};
use crate::ids::{CommitToken, TableId, TimestampMs, Version};
use crate::later::LaterAdds;
use crate::model::{BaseChunk, BaseTail, NewTable, TableRecord};

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
    /// backend reads them in pages, or calls [`in_memory`] first.
    pub later: Option<LaterAdds>,
    /// Token that another catalog ratified it under, with the table's place in that batch; none
    /// for a commit that is read from a log. Once stored, a commit with this token is `Replayed`.
    pub token: Option<(CommitToken, u32)>,
}

impl ImportedCommit {
    /// Number of files that it adds.
    #[must_use]
    pub fn num_added(&self) -> usize {
        self.index.adds.len() + self.later.as_ref().map_or(0, LaterAdds::files)
    }

    /// Sum of their sizes, bytes.
    #[must_use]
    pub fn added_bytes(&self) -> i64 {
        let later = self.later.as_ref().map_or(0, LaterAdds::bytes);
        self.index.added_bytes().saturating_add(later)
    }
}

/// A piece of an import.
#[expect(clippy::large_enum_variant, reason = "there is one at a time")]
#[derive(Debug, Clone)]
pub enum ImportStep {
    /// A chunk of the base state.
    Base {
        /// Files of the base that the caller knows to be stored.
        skip_files: u64,
        /// Tombstones of the base that the caller knows to be stored.
        skip_tombstones: u64,
        /// What is stored now.
        chunk: BaseChunk,
        /// The end of the base, with the last chunk.
        tail: Option<BaseTail>,
    },
    /// Commits, in the order of their versions.
    Commits(Arc<[ImportedCommit]>),
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

/// Commits with all of their adds in memory, for a backend that does not read them in pages.
///
/// # Errors
/// Those of [`AddPages::next`](crate::later::AddPages::next).
pub async fn in_memory(commits: Arc<[ImportedCommit]>) -> Result<Arc<[ImportedCommit]>> {
    if commits.iter().all(|commit| commit.later.is_none()) {
        return Ok(commits);
    }
    let mut whole = commits.to_vec();
    for commit in &mut whole {
        if let Some(later) = commit.later.take() {
            commit.index.adds.append(&mut later.all().await?);
        }
    }
    Ok(whole.into())
}

/// Takes over the log of a table, in steps that may be interrupted and continued.
#[async_trait]
pub trait ImportBackend: Send + Sync {
    /// Registers a table in state `Importing` whose state starts at `base` (0 with
    /// `base_from_json` = replay from version 0), or finds the import of this name and location
    /// that was interrupted.
    ///
    /// 1. A live table of this name is `TableExists`; an importing one with another location or
    ///    base too.
    /// 2. An import that was interrupted goes on where it stopped, also in another process.
    async fn import_begin(
        &self,
        table: &NewTable,
        base: Version,
        base_from_json: bool,
        now: TimestampMs,
    ) -> WriteResult<ImportProgress>;

    /// Stores the next piece of an import.
    ///
    /// 1. [`ImportStep::Base`]: unless the caller's positions equal the stored counts (another importer
    ///    was here), `InvalidInput`. With `tail` the base is done and the head is the base.
    /// 2. [`ImportStep::Commits`]: above the base they are applied (removes of unknown files become
    ///    tombstones only) and move the head; at or below it they are history. Applied versions
    ///    continue the head without a gap, else `InvalidInput`.
    /// 3. The timestamps of commits must grow strictly, else `InvalidInput`.
    /// 4. The tokens that come with commits are known from then on (see [`ImportedCommit::token`]).
    /// 5. What is stored is the same whether adds are in the index or come in pages
    ///    ([`ImportedCommit::later`]). If a page cannot be read, nothing is stored.
    /// 6. A token that comes with two batches, as it was forgotten and used again, is that of the newer one: a
    ///    table or a place that is there twice tells them apart.
    async fn import_step(&self, table_id: TableId, step: ImportStep)
    -> WriteResult<ImportProgress>;

    /// Makes the table `Active` (or `Dropped`), with `published_version` as told.
    ///
    /// 1. `Corrupt` without head, protocol or metadata.
    /// 2. `InvalidInput` if more is said to be published than there is.
    /// 3. Versions after `end.published` are enqueued at the time of the act, in the same transaction, unless the
    ///    mirror is `Off`.
    /// 4. The table was created when `end.created_at` says; with `end.dropped_at` it ends dropped, and
    ///    can be brought back.
    /// 5. Commits go on as after commits of our own.
    /// 6. It and its row in the audit (`import.finish`) are one.
    async fn import_finish(
        &self,
        table_id: TableId,
        end: ImportEnd,
        act: &Act,
    ) -> WriteResult<TableRecord>;

    /// Deletes an importing table and its rows.
    ///
    /// 1. Its name is free then. `TableNotFound` if it is not importing, and nothing is deleted.
    /// 2. It and its row in the audit (`import.abort`) are one. That row stays.
    async fn import_abort(&self, table_id: TableId, act: &Act) -> WriteResult<()>;
}
