//! The part that keeps small named records: the registry.

use async_trait::async_trait;

use crate::audit::AuditEntry;
use crate::error::{ReadResult, WriteResult};
use crate::ids::TimestampMs;
use crate::model::Page;
use crate::registry::{Record, RecordKey, RecordWrite, RegistryOutcome};

/// Keeps named records, with one number that says how often they were written. Records are small, and not many: what
/// copies them holds all of them in memory.
///
/// The number is the registry's revision. It is a row of the database that each write locks or changes first, so that
/// writes are serial whatever the database's isolation is.
#[async_trait]
pub trait RegistryBackend: Send + Sync {
    /// A record; none if it was never written, or is deleted.
    ///
    /// 1. The body comes back exactly, whatever text is in it.
    /// 2. Keys are compared byte for byte: names that differ by case, by a space at the end or by an accent are two.
    async fn registry_get(&self, key: &RecordKey) -> ReadResult<Option<Record>>;

    /// Records of one kind by name, in the order of the bytes of UTF-8, a page at a time. `after` is the name that all
    /// names of the page come after.
    ///
    /// 1. `limit` is an upper bound; `next` is none exactly when nothing follows. Each record of the kind comes once,
    ///    and no other.
    /// 2. There need not be a record of the name `after`. A kind or a name that a [`RecordKey`] cannot have is
    ///    `InvalidInput`.
    async fn registry_list(
        &self,
        kind: &str,
        after: Option<&str>,
        limit: usize,
    ) -> ReadResult<Page<Record, String>>;

    /// Writes and deletes records. `at` is when, by the core's clock.
    ///
    /// 1. All writes of a call take effect, or none does. Each record that is there afterwards has the new revision of
    ///    the registry, and the time `at`.
    /// 2. An expectation that does not hold is a [`Conflict`](RegistryOutcome::Conflict): it has the first such record
    ///    in the order of the call. Nothing is written then.
    /// 3. The entry is kept in the audit in the same transaction: with the writes, and not without them. One with the
    ///    token of an earlier entry is not kept a second time, and the writes take effect all the same.
    /// 4. Writes that [`RecordWrite::check`] refuses, and an entry that [`AuditEntry::check`] refuses, are
    ///    `InvalidInput`, and nothing is written.
    /// 5. To delete a record that is not there is a write as any other, unless its revision was expected.
    /// 6. Calls at the same time are as calls one after the other: of several that expect the same of a record one is
    ///    written, and the others are conflicts. No write is lost, and no revision is given twice.
    async fn registry_write(
        &self,
        writes: &[RecordWrite],
        at: TimestampMs,
        entry: Option<&AuditEntry>,
    ) -> WriteResult<RegistryOutcome>;

    /// All records in the order of their keys, a page at a time: for copies and backups. A caller whose pages shall be of
    /// one moment reads the revision before the first and after the last one.
    ///
    /// 1. `limit` is an upper bound; `next` is none exactly when nothing follows. Each record comes once.
    async fn registry_all(
        &self,
        after: Option<&RecordKey>,
        limit: usize,
    ) -> ReadResult<Page<Record, RecordKey>>;

    /// Fills a registry to which nothing was written with records as they are, and their revision: for copies and
    /// backups. False if something was written to it before: then nothing is.
    ///
    /// 1. All records are there afterwards, each with its own revision and time, and the registry has `revision`; or
    ///    none is. Any number of records is one call.
    /// 2. A registry whose revision is not 0 stays as it is.
    /// 3. What [`Record::check`] refuses is `InvalidInput`, and nothing is written.
    async fn registry_load(&self, records: &[Record], revision: i64) -> WriteResult<bool>;

    /// The revision of the registry: so that a caller can ask whether what it remembers is still right.
    ///
    /// 1. 0 as long as nothing was written. It grows by one with each call that takes effect, also with one that only
    ///    deletes, and never otherwise.
    /// 2. A database that keeps no registry answers all calls of this part with `Unsupported`.
    async fn registry_revision(&self) -> ReadResult<i64>;
}
