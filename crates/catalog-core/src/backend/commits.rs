//! The part that commits.

use std::sync::Arc;

use async_trait::async_trait;

use crate::commit::{CommitIndex, FirstLine, Packed};
use crate::error::{ReadResult, Result, WriteResult};
use crate::ids::{CommitToken, TableId, TableName, TimestampMs, Version};
use crate::later::LaterAdds;
use crate::model::NewTable;

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
    /// [`request_in_memory`] first.
    pub later: Option<LaterAdds>,
}

impl TableCommit {
    /// Number of files that it adds.
    #[must_use]
    pub fn num_added(&self) -> usize {
        self.index.adds.len() + self.later.as_ref().map_or(0, LaterAdds::files)
    }
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
    /// (`barrier_version <= since`): for commits that only add files and read nothing, and for changes of the
    /// protocol that rest on protocol and metadata alone (which move the barrier).
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

/// What is so old that it goes: a page of a pass over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// What is older than this time goes.
    pub before: TimestampMs,
    /// The most that a page looks at; 0 is 1.
    pub limit: usize,
    /// Only count what would go, and write nothing.
    pub dry_run: bool,
}

/// What a page of a pass has removed, and where the next one starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired<C> {
    /// How many went, or would.
    pub removed: u64,
    /// Pass as `after` for the next page; none at the end.
    pub next: Option<C>,
}

/// A commit with all of its adds in memory, for a backend that does not read them in pages.
///
/// # Errors
/// Those of [`AddPages::next`](crate::later::AddPages::next).
pub async fn request_in_memory(mut request: CommitRequest) -> Result<CommitRequest> {
    for part in &mut request.tables {
        if let Some(later) = part.later.take() {
            let mut index = CommitIndex::clone(&part.index);
            index.adds.append(&mut later.all().await?);
            part.index = Arc::new(index);
        }
    }
    Ok(request)
}

/// Commits batches over any number of tables.
#[async_trait]
pub trait CommitBackend: Send + Sync {
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
    /// 11. On another head than its rule allows, a commit is `HeadMoved` with the head now. `Append` goes
    ///     on any head from `since` on, as long as metadata and protocol did not change.
    /// 12. The first line is rendered with the commit timestamp, and may be any text. All other bytes come
    ///     back exactly. A commit of a first line alone is a version.
    /// 13. A batch without a table, or with one twice, is `InvalidInput`. Each table gets its own timestamp.
    /// 14. A create with the name of a live table is `Rejected(NameTaken)`, with an id that exists
    ///     `Rejected(IdTaken)`; of racing creates of one name exactly one wins.
    async fn commit(&self, request: CommitRequest) -> WriteResult<CommitOutcome>;

    /// What a token wrote.
    ///
    /// 1. None if no commit with it took effect. That answer is final only if none is still running.
    /// 2. Every handle knows a token as soon as its commit was acknowledged.
    /// 3. A timestamp is that of history. At the base of an import it is the base's ([`BaseTail::timestamp`]),
    ///    whichever was stored first.
    ///
    /// [`BaseTail::timestamp`]: crate::model::BaseTail::timestamp
    async fn resolve_token(&self, token: &CommitToken) -> ReadResult<Option<Vec<CommittedTable>>>;

    /// Forgets tokens all of whose commits are older than a time: it looks at the next `limit` tokens after
    /// one, in the order of their bytes.
    ///
    /// 1. A token that was forgotten is as one that was never used: `resolve_token` is none, and a commit with
    ///    it is a new one.
    /// 2. A token with a commit of that time or later stays, and is `Replayed` as before.
    /// 3. A page looks at `limit` tokens at most, and `next` is none exactly when no token follows.
    /// 4. The commits lose their token and their place in the batch, and nothing else: bytes, lines of history
    ///    and files are as before. So it is with dropped tables, too.
    /// 5. The tokens of a table that is imported stay: other parts of their batches may be on their way.
    /// 6. A commit with such a token at the same time is `Replayed` with the whole batch, or is a new one.
    /// 7. A dry run answers the same, and writes nothing.
    async fn expire_tokens(
        &self,
        expiry: Expiry,
        after: Option<&CommitToken>,
    ) -> WriteResult<Expired<CommitToken>>;
}
