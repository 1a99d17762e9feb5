//! The part that hands out versions to be published: a transactional outbox with leases.

use async_trait::async_trait;

use crate::audit::Act;
use crate::backend::{Expired, Expiry};
use crate::error::{ReadResult, WriteResult};
use crate::ids::{TableId, TimestampMs, Version};
use crate::model::{MirrorMode, MirrorRow, MirrorState, Page, TableRecord};

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

/// What became of versions that were leased.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Settlement<'s> {
    /// These are in `_delta_log/`, in order.
    Published(&'s [Published]),
    /// This one could not be published.
    Failed(&'s PublishFailure),
    /// Nothing: another worker may have the rest.
    Released,
}

/// Hands out versions to be published, and records what became of them.
#[async_trait]
pub trait OutboxBackend: Send + Sync {
    /// Leases tables that have unpublished versions, whose first unpublished version may be tried
    /// (`retry_at <= now`), whose mode is `Active`, which are not dropped or importing, and whose
    /// lease is free, lapsed or the owner's. Oldest work first.
    ///
    /// 1. Two workers never hold a lease on one table at a time.
    /// 2. Rows handed out become `InFlight` and count an attempt.
    /// 3. Oldest work first, at most `max_tables`, or only the table asked for; no dropped table.
    /// 4. A lease lapses at its `until`: then the table is free for others, with a higher epoch.
    async fn mirror_claim(&self, request: &ClaimRequest) -> WriteResult<Vec<MirrorTask>>;

    /// Extends a lease.
    ///
    /// 1. None, with nothing changed, if it was lost (another epoch).
    /// 2. A lease that was extended holds for its new time.
    async fn mirror_renew(
        &self,
        lease: &MirrorLease,
        now: TimestampMs,
        lease_ms: i64,
    ) -> WriteResult<Option<MirrorLease>>;

    /// Records what became of versions that a lease was for.
    ///
    /// 1. False, with nothing recorded, if the lease was lost (another epoch).
    /// 2. [`Settlement::Published`]: `published_version` grows by one at a time; a version out of order
    ///    is `InvalidInput`. The lease stays.
    /// 3. [`Settlement::Failed`]: the version becomes `Failed`, or the table's mode `Diverged`, and the
    ///    lease ends. A table whose mode is `Off` by now stays `Off`: its later versions have no rows.
    /// 4. [`Settlement::Released`]: rows in flight become `Pending`, and the lease ends.
    /// 5. The lease alone decides: a table that was dropped meanwhile is settled as any other.
    async fn mirror_settle(&self, lease: &MirrorLease, how: Settlement<'_>) -> WriteResult<bool>;

    /// Outbox rows, by (table id, version).
    ///
    /// 1. Of one table or all, in one state or all but complete; `next` is none exactly when nothing
    ///    follows.
    async fn mirror_rows(
        &self,
        table_id: Option<TableId>,
        state: Option<MirrorState>,
        after: Option<(TableId, Version)>,
        limit: usize,
    ) -> ReadResult<Page<MirrorRow, (TableId, Version)>>;

    /// Makes failed versions due now and a diverged table active again.
    ///
    /// 1. The answer is the number of rows that became due.
    /// 2. A diverged table takes commits meanwhile, and is published again after it.
    /// 3. `TableNotFound`, with nothing changed, if the table is not active.
    /// 4. It and its row in the audit (`mirror.retry`) are one, also if nothing was due.
    async fn mirror_retry(&self, table_id: TableId, act: &Act) -> WriteResult<u64>;

    /// Turns publishing on or off, or records that a foreign commit was seen (`Diverged`).
    ///
    /// 1. Turning it on enqueues every version after `published_version`.
    /// 2. Only a table whose mode is `Active` becomes `Diverged`: one that is `Off` stays `Off`.
    /// 3. While it is off, nothing is claimed nor recorded.
    /// 4. `TableNotFound`, with nothing changed, if the table is not active.
    /// 5. It and its row in the audit (`mirror.mode`) are one. A mode that the table has already writes none.
    async fn mirror_set_mode(
        &self,
        table_id: TableId,
        mode: MirrorMode,
        act: &Act,
    ) -> WriteResult<TableRecord>;

    /// Removes rows of versions that were published before a time: it looks at rows after one, by (table id,
    /// version), of all tables, dropped ones too.
    ///
    /// 1. A row goes if it is complete, its version is below the table's `published_version`, and it was
    ///    published before that time. Open rows stay, and so does the row of `published_version`.
    /// 2. A page removes `limit` rows at most and looks at about as many rows and tables; `next` is none once
    ///    nothing follows.
    /// 3. Publishing goes on as before: claims, settlements and modes do not miss such a row.
    /// 4. A dry run answers how many rows would go, and writes nothing.
    async fn mirror_expire(
        &self,
        expiry: Expiry,
        after: Option<(TableId, Version)>,
    ) -> WriteResult<Expired<(TableId, Version)>>;
}
