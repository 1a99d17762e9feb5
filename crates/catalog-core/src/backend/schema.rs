//! The part about the catalog's own tables in a database.

use async_trait::async_trait;

use crate::error::{ReadResult, WriteResult};
use crate::ids::TimestampMs;

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
    /// What time it is where the database runs, which commits are measured by; none
    /// if it has no clock but this process's.
    pub clock: Option<TimestampMs>,
    /// Whether it keeps an audit.
    pub keeps_audit: bool,
}

/// Creates, upgrades and describes the catalog's own tables.
#[async_trait]
pub trait SchemaBackend: Send + Sync {
    /// Which database this is and which schema it has.
    ///
    /// 1. It works on an empty database: then the schema version is 0.
    /// 2. A database with a clock of its own tells what time it is there.
    /// 3. It tells whether an audit is kept. One that keeps none writes no rows about what calls do, and answers
    ///    the calls of [`AuditBackend`](crate::backend::AuditBackend) with `Unsupported`.
    async fn info(&self) -> ReadResult<BackendInfo>;

    /// Creates or upgrades our tables.
    ///
    /// 1. Idempotent; two processes at once end with one schema.
    /// 2. A schema that is newer than this program, or tables of another program under our names,
    ///    is `Schema` and nothing is changed.
    /// 3. After it the database has the schema that this program writes.
    async fn migrate(&self, now: TimestampMs) -> WriteResult<()>;
}
