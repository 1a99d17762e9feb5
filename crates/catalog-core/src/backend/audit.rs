//! The part that keeps what was done: the audit.

use async_trait::async_trait;

use crate::audit::{AuditCursor, AuditEntry, AuditFilter, AuditOrder, AuditRow};
use crate::error::{ReadResult, WriteResult};
use crate::model::Page;

/// Keeps rows about changes, which nothing deletes or alters.
///
/// The calls that change a table write a row about it themselves, in the same transaction: see
/// [`Act`](crate::audit::Act). Commits have no row here: their own rows say who, when and what.
#[async_trait]
pub trait AuditBackend: Send + Sync {
    /// Keeps a row about something that happens outside of the database, or that no other call keeps one about.
    ///
    /// 1. What was acknowledged comes back exactly, whatever text it is, under an id of its own.
    /// 2. An entry with the token of an earlier one writes nothing, also if both are written at the same time.
    /// 3. An entry that [`AuditEntry::check`] refuses is `InvalidInput`, and nothing is written.
    async fn audit_record(&self, entry: &AuditEntry) -> WriteResult<()>;

    /// Rows by (time, id), or from the newest back, a page at a time.
    ///
    /// Ids grow with the calls, but need not follow each other without a gap. The time is that of the caller's
    /// clock. A row becomes visible when its transaction ends, which may be after a later row: who follows the audit
    /// reads the last minutes again.
    ///
    /// 1. `limit` is an upper bound; `next` is none exactly when nothing follows. Each row comes once.
    /// 2. Each condition of the filter must hold. Text is compared byte for byte.
    /// 3. A row stays, whatever becomes of its table.
    async fn audit_list(
        &self,
        filter: &AuditFilter,
        order: AuditOrder,
        after: Option<AuditCursor>,
        limit: usize,
    ) -> ReadResult<Page<AuditRow, AuditCursor>>;
}
