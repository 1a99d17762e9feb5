//! Passing parts of the contract on, as [`delegate!`](crate::delegate) declares it.
//!
//! The signatures stand here a second time, once for all wrappers. No method of the contract has a body of
//! its own, so a new one compiles nowhere until it is here.

use std::fmt::{Debug, Display};

pub use async_trait::async_trait;
pub use bytes::Bytes;

use crate::backend::{AppRows, ImportStep, Settlement};
use crate::error::{CatalogError, Determinate, WriteError, WriteState};

/// What a call does, for wrappers that do the same around every call: a method of the contract, and which
/// of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the method, or the step, of that name")]
pub enum Verb {
    Info,
    Migrate,
    GetTable,
    ListTables,
    DropTable,
    UndropTable,
    Snapshot,
    ListFiles,
    FilesEnd,
    FilesAt,
    ListTombstones,
    AppState,
    AppTransactions,
    DomainMetadata,
    ListCommits,
    ReadBodies,
    Commit,
    ResolveToken,
    ExpireTokens,
    SkipIndex,
    SkipPages,
    SkipReplace,
    ImportBegin,
    ImportBase,
    ImportCommits,
    ImportFinish,
    ImportAbort,
    MirrorClaim,
    MirrorRenew,
    MirrorComplete,
    MirrorFail,
    MirrorRelease,
    MirrorRows,
    MirrorRetry,
    MirrorSetMode,
    MirrorExpire,
    Close,
    AuditRecord,
    AuditList,
    RegistryGet,
    RegistryList,
    RegistryWrite,
    RegistryAll,
    RegistryLoad,
    RegistryRevision,
}

impl Verb {
    /// All of them, in the order of their declaration.
    pub const ALL: [Verb; 45] = [
        Verb::Info,
        Verb::Migrate,
        Verb::GetTable,
        Verb::ListTables,
        Verb::DropTable,
        Verb::UndropTable,
        Verb::Snapshot,
        Verb::ListFiles,
        Verb::FilesEnd,
        Verb::FilesAt,
        Verb::ListTombstones,
        Verb::AppState,
        Verb::AppTransactions,
        Verb::DomainMetadata,
        Verb::ListCommits,
        Verb::ReadBodies,
        Verb::Commit,
        Verb::ResolveToken,
        Verb::ExpireTokens,
        Verb::SkipIndex,
        Verb::SkipPages,
        Verb::SkipReplace,
        Verb::ImportBegin,
        Verb::ImportBase,
        Verb::ImportCommits,
        Verb::ImportFinish,
        Verb::ImportAbort,
        Verb::MirrorClaim,
        Verb::MirrorRenew,
        Verb::MirrorComplete,
        Verb::MirrorFail,
        Verb::MirrorRelease,
        Verb::MirrorRows,
        Verb::MirrorRetry,
        Verb::MirrorSetMode,
        Verb::MirrorExpire,
        Verb::Close,
        Verb::AuditRecord,
        Verb::AuditList,
        Verb::RegistryGet,
        Verb::RegistryList,
        Verb::RegistryWrite,
        Verb::RegistryAll,
        Verb::RegistryLoad,
        Verb::RegistryRevision,
    ];

    /// What [`ReadBackend::app_state`](crate::backend::ReadBackend::app_state) reads.
    #[must_use]
    pub fn reading(rows: AppRows) -> Verb {
        match rows {
            AppRows::Transactions => Verb::AppTransactions,
            AppRows::Domains => Verb::DomainMetadata,
            AppRows::All => Verb::AppState,
        }
    }

    /// What [`ImportBackend::import_step`](crate::backend::ImportBackend::import_step) stores.
    #[must_use]
    pub fn importing(step: &ImportStep) -> Verb {
        match step {
            ImportStep::Base { .. } => Verb::ImportBase,
            ImportStep::Commits(_) => Verb::ImportCommits,
        }
    }

    /// What [`OutboxBackend::mirror_settle`](crate::backend::OutboxBackend::mirror_settle) records.
    #[must_use]
    pub fn settling(how: &Settlement<'_>) -> Verb {
        match how {
            Settlement::Published(_) => Verb::MirrorComplete,
            Settlement::Failed(_) => Verb::MirrorFail,
            Settlement::Released => Verb::MirrorRelease,
        }
    }

    /// The name of the method, and of its step.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Verb::Info => "info",
            Verb::Migrate => "migrate",
            Verb::GetTable => "get_table",
            Verb::ListTables => "list_tables",
            Verb::DropTable => "drop_table",
            Verb::UndropTable => "undrop_table",
            Verb::Snapshot => "snapshot",
            Verb::ListFiles => "list_files",
            Verb::FilesEnd => "files_end",
            Verb::FilesAt => "files_at",
            Verb::ListTombstones => "list_tombstones",
            Verb::AppState => "app_state",
            Verb::AppTransactions => "app_state of transactions",
            Verb::DomainMetadata => "app_state of domains",
            Verb::ListCommits => "list_commits",
            Verb::ReadBodies => "read_bodies",
            Verb::Commit => "commit",
            Verb::ResolveToken => "resolve_token",
            Verb::ExpireTokens => "expire_tokens",
            Verb::SkipIndex => "skip_index",
            Verb::SkipPages => "skip_pages",
            Verb::SkipReplace => "skip_replace",
            Verb::ImportBegin => "import_begin",
            Verb::ImportBase => "import_step of the base",
            Verb::ImportCommits => "import_step of commits",
            Verb::ImportFinish => "import_finish",
            Verb::ImportAbort => "import_abort",
            Verb::MirrorClaim => "mirror_claim",
            Verb::MirrorRenew => "mirror_renew",
            Verb::MirrorComplete => "mirror_settle as published",
            Verb::MirrorFail => "mirror_settle as failed",
            Verb::MirrorRelease => "mirror_settle as released",
            Verb::MirrorRows => "mirror_rows",
            Verb::MirrorRetry => "mirror_retry",
            Verb::MirrorSetMode => "mirror_set_mode",
            Verb::MirrorExpire => "mirror_expire",
            Verb::Close => "close",
            Verb::AuditRecord => "audit_record",
            Verb::AuditList => "audit_list",
            Verb::RegistryGet => "registry_get",
            Verb::RegistryList => "registry_list",
            Verb::RegistryWrite => "registry_write",
            Verb::RegistryAll => "registry_all",
            Verb::RegistryLoad => "registry_load",
            Verb::RegistryRevision => "registry_revision",
        }
    }

    /// The name in metrics, which stays the same from version to version: one word in snake case.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Verb::AppTransactions => "app_transactions",
            Verb::DomainMetadata => "domain_metadata",
            Verb::ImportBase => "import_base",
            Verb::ImportCommits => "import_commits",
            Verb::MirrorComplete => "mirror_complete",
            Verb::MirrorFail => "mirror_fail",
            Verb::MirrorRelease => "mirror_release",
            other => other.name(),
        }
    }
}

/// An error of a method, whether it only reads or writes.
pub trait CallError: From<CatalogError> + Into<CatalogError> + Debug + Display + Send {
    /// Whether the engine may make the same call again.
    fn is_retryable(&self) -> bool;
    /// Whether the write may have happened.
    fn write_state(&self) -> WriteState;
    /// The stable code, see [`CatalogError::code`].
    fn code(&self) -> &'static str;
}

impl CallError for Determinate {
    fn is_retryable(&self) -> bool {
        Determinate::is_retryable(self)
    }

    fn write_state(&self) -> WriteState {
        WriteState::NotApplied
    }

    fn code(&self) -> &'static str {
        self.get().code()
    }
}

impl CallError for WriteError {
    fn is_retryable(&self) -> bool {
        WriteError::is_retryable(self)
    }

    fn write_state(&self) -> WriteState {
        WriteError::write_state(self)
    }

    fn code(&self) -> &'static str {
        match self {
            WriteError::Determinate(error) => error.get().code(),
            WriteError::Indeterminate(error) if error.retryable => "busy",
            WriteError::Indeterminate(_) => "unavailable",
        }
    }
}

/// Passes parts of the contract on to what a wrapper holds.
///
/// `delegate!(TableBackend, ImportBackend for Wrapper => inner)` implements these parts: each method calls
/// that of `self.inner`. With `around method`, each call goes through
/// `self.method(verb, call).await`, where `verb` is a [`Verb`](crate::delegation::Verb) and `call` a future
/// that does nothing until it is polled. Generic wrappers give their parameters first:
/// `delegate!(TableBackend for [B: CatalogBackend] Wrapper<B> => inner)`.
#[macro_export]
macro_rules! delegate {
    ($($part:ident),+ for [$($gen:tt)*] $type:ty => $($rest:tt)+) => {
        $crate::__delegate_each!([$($part)+] [$($gen)*] [$type] $($rest)+);
    };
    ($($part:ident),+ for $type:ty => $($rest:tt)+) => {
        $crate::__delegate_each!([$($part)+] [] [$type] $($rest)+);
    };
}

/// One part after the other, for [`delegate!`](crate::delegate).
#[doc(hidden)]
#[macro_export]
macro_rules! __delegate_each {
    ([] $($rest:tt)*) => {};
    ([$part:ident $($more:ident)*] $gen:tt $type:tt $inner:ident $(. $field:ident)* $(($($call:tt)*))? $(, around $around:ident)?) => {
        $crate::__delegate_part!($part $gen $type [$inner $(. $field)* $(($($call)*))?] [$($around)?]);
        $crate::__delegate_each!([$($more)*] $gen $type $inner $(. $field)* $(($($call)*))? $(, around $around)?);
    };
}

/// One call, for [`delegate!`](crate::delegate).
#[doc(hidden)]
#[macro_export]
macro_rules! __delegate_call {
    ($self:ident [$($inner:tt)+] [] $verb:expr, $method:ident ($($arg:ident)*)) => {
        $self.$($inner)+.$method($($arg),*).await
    };
    ($self:ident [$($inner:tt)+] [$around:ident] $verb:expr, $method:ident ($($arg:ident)*)) => {
        $self.$around($verb, $self.$($inner)+.$method($($arg),*)).await
    };
}

/// One part, for [`delegate!`](crate::delegate).
#[doc(hidden)]
#[macro_export]
macro_rules! __delegate_part {
    (SchemaBackend [$($gen:tt)*] [$type:ty] $inner:tt $around:tt) => {
        #[$crate::delegation::async_trait]
        impl<$($gen)*> $crate::backend::SchemaBackend for $type {
            async fn info(&self) -> $crate::error::ReadResult<$crate::backend::BackendInfo> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::Info, info ())
            }
            async fn migrate(&self, now: $crate::ids::TimestampMs) -> $crate::error::WriteResult<()> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::Migrate, migrate (now))
            }
        }
    };
    (TableBackend [$($gen:tt)*] [$type:ty] $inner:tt $around:tt) => {
        #[$crate::delegation::async_trait]
        impl<$($gen)*> $crate::backend::TableBackend for $type {
            fn note_change(&self, table_id: $crate::ids::TableId) {
                $crate::__delegate_told!(self $inner note_change (table_id))
            }
            async fn get_table(&self, table: &$crate::ids::TableRef) -> $crate::error::ReadResult<Option<$crate::model::TableRecord>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::GetTable, get_table (table))
            }
            async fn list_tables(&self, filter: &$crate::backend::TableFilter, after: Option<&($crate::ids::TableName, $crate::ids::TableId)>, limit: usize) -> $crate::error::ReadResult<$crate::model::Page<$crate::model::TableRecord, ($crate::ids::TableName, $crate::ids::TableId)>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::ListTables, list_tables (filter after limit))
            }
            async fn drop_table(&self, table_id: $crate::ids::TableId, act: &$crate::audit::Act) -> $crate::error::WriteResult<$crate::model::TableRecord> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::DropTable, drop_table (table_id act))
            }
            async fn undrop_table(&self, table_id: $crate::ids::TableId, name: &$crate::ids::TableName, act: &$crate::audit::Act) -> $crate::error::WriteResult<$crate::model::TableRecord> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::UndropTable, undrop_table (table_id name act))
            }
        }
    };
    (ReadBackend [$($gen:tt)*] [$type:ty] $inner:tt $around:tt) => {
        #[$crate::delegation::async_trait]
        impl<$($gen)*> $crate::backend::ReadBackend for $type {
            async fn snapshot(&self, table: &$crate::ids::TableRef, at: $crate::ids::At) -> $crate::error::ReadResult<$crate::model::Snapshot> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::Snapshot, snapshot (table at))
            }
            async fn list_files(&self, table_id: $crate::ids::TableId, version: $crate::ids::Version, after: Option<$crate::model::FileCursor>, limit: usize) -> $crate::error::ReadResult<$crate::model::Page<$crate::model::FileRecord, $crate::model::FileCursor>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::ListFiles, list_files (table_id version after limit))
            }
            async fn files_end(&self, table_id: $crate::ids::TableId, version: $crate::ids::Version, after: $crate::model::FileCursor, limit: usize) -> $crate::error::ReadResult<Option<$crate::model::FileCursor>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::FilesEnd, files_end (table_id version after limit))
            }
            async fn files_at(&self, table_id: $crate::ids::TableId, version: $crate::ids::Version, cursors: &[$crate::model::FileCursor]) -> $crate::error::ReadResult<Vec<$crate::model::FileRecord>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::FilesAt, files_at (table_id version cursors))
            }
            async fn list_tombstones(&self, table_id: $crate::ids::TableId, version: $crate::ids::Version, deleted_after: $crate::ids::TimestampMs, after: Option<$crate::model::FileCursor>, limit: usize) -> $crate::error::ReadResult<$crate::model::Page<$crate::model::TombstoneRecord, $crate::model::FileCursor>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::ListTombstones, list_tombstones (table_id version deleted_after after limit))
            }
            async fn app_state(&self, table_id: $crate::ids::TableId, version: $crate::ids::Version, rows: $crate::backend::AppRows) -> $crate::error::ReadResult<$crate::backend::AppState> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::reading(rows), app_state (table_id version rows))
            }
            async fn list_commits(&self, table_id: $crate::ids::TableId, filter: &$crate::backend::CommitFilter, before: Option<$crate::ids::Version>, limit: usize) -> $crate::error::ReadResult<$crate::model::Page<$crate::model::CommitRecord, $crate::ids::Version>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::ListCommits, list_commits (table_id filter before limit))
            }
            async fn read_bodies(&self, table_id: $crate::ids::TableId, from: $crate::ids::Version, to: $crate::ids::Version, limit: usize) -> $crate::error::ReadResult<Vec<($crate::model::CommitRecord, $crate::commit::CommitBody)>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::ReadBodies, read_bodies (table_id from to limit))
            }
        }
    };
    (CommitBackend [$($gen:tt)*] [$type:ty] $inner:tt $around:tt) => {
        #[$crate::delegation::async_trait]
        impl<$($gen)*> $crate::backend::CommitBackend for $type {
            async fn commit(&self, request: $crate::backend::CommitRequest) -> $crate::error::WriteResult<$crate::backend::CommitOutcome> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::Commit, commit (request))
            }
            async fn resolve_token(&self, token: &$crate::ids::CommitToken) -> $crate::error::ReadResult<Option<Vec<$crate::backend::CommittedTable>>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::ResolveToken, resolve_token (token))
            }
            async fn expire_tokens(&self, expiry: $crate::backend::Expiry, after: Option<&$crate::ids::CommitToken>) -> $crate::error::WriteResult<$crate::backend::Expired<$crate::ids::CommitToken>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::ExpireTokens, expire_tokens (expiry after))
            }
        }
    };
    (SkipBackend [$($gen:tt)*] [$type:ty] $inner:tt $around:tt) => {
        #[$crate::delegation::async_trait]
        impl<$($gen)*> $crate::backend::SkipBackend for $type {
            async fn skip_index(&self, table_id: $crate::ids::TableId) -> $crate::error::ReadResult<$crate::model::SkipIndex> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::SkipIndex, skip_index (table_id))
            }
            async fn skip_pages(&self, table_id: $crate::ids::TableId, pages: &[$crate::model::SkipPage]) -> $crate::error::ReadResult<Vec<Option<$crate::delegation::Bytes>>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::SkipPages, skip_pages (table_id pages))
            }
            async fn skip_replace(&self, table_id: $crate::ids::TableId, generation: i64, remove: &[i64], segment: &$crate::model::NewSkipSegment) -> $crate::error::WriteResult<bool> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::SkipReplace, skip_replace (table_id generation remove segment))
            }
        }
    };
    (ImportBackend [$($gen:tt)*] [$type:ty] $inner:tt $around:tt) => {
        #[$crate::delegation::async_trait]
        impl<$($gen)*> $crate::backend::ImportBackend for $type {
            async fn import_begin(&self, table: &$crate::model::NewTable, base: $crate::ids::Version, base_from_json: bool, now: $crate::ids::TimestampMs) -> $crate::error::WriteResult<$crate::backend::ImportProgress> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::ImportBegin, import_begin (table base base_from_json now))
            }
            async fn import_step(&self, table_id: $crate::ids::TableId, step: $crate::backend::ImportStep) -> $crate::error::WriteResult<$crate::backend::ImportProgress> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::importing(&step), import_step (table_id step))
            }
            async fn import_finish(&self, table_id: $crate::ids::TableId, end: $crate::backend::ImportEnd, act: &$crate::audit::Act) -> $crate::error::WriteResult<$crate::model::TableRecord> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::ImportFinish, import_finish (table_id end act))
            }
            async fn import_abort(&self, table_id: $crate::ids::TableId, act: &$crate::audit::Act) -> $crate::error::WriteResult<()> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::ImportAbort, import_abort (table_id act))
            }
        }
    };
    (OutboxBackend [$($gen:tt)*] [$type:ty] $inner:tt $around:tt) => {
        #[$crate::delegation::async_trait]
        impl<$($gen)*> $crate::backend::OutboxBackend for $type {
            async fn mirror_claim(&self, request: &$crate::backend::ClaimRequest) -> $crate::error::WriteResult<Vec<$crate::backend::MirrorTask>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::MirrorClaim, mirror_claim (request))
            }
            async fn mirror_renew(&self, lease: &$crate::backend::MirrorLease, now: $crate::ids::TimestampMs, lease_ms: i64) -> $crate::error::WriteResult<Option<$crate::backend::MirrorLease>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::MirrorRenew, mirror_renew (lease now lease_ms))
            }
            async fn mirror_settle(&self, lease: &$crate::backend::MirrorLease, how: $crate::backend::Settlement<'_>) -> $crate::error::WriteResult<bool> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::settling(&how), mirror_settle (lease how))
            }
            async fn mirror_rows(&self, table_id: Option<$crate::ids::TableId>, state: Option<$crate::model::MirrorState>, after: Option<($crate::ids::TableId, $crate::ids::Version)>, limit: usize) -> $crate::error::ReadResult<$crate::model::Page<$crate::model::MirrorRow, ($crate::ids::TableId, $crate::ids::Version)>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::MirrorRows, mirror_rows (table_id state after limit))
            }
            async fn mirror_retry(&self, table_id: $crate::ids::TableId, act: &$crate::audit::Act) -> $crate::error::WriteResult<u64> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::MirrorRetry, mirror_retry (table_id act))
            }
            async fn mirror_set_mode(&self, table_id: $crate::ids::TableId, mode: $crate::model::MirrorMode, act: &$crate::audit::Act) -> $crate::error::WriteResult<$crate::model::TableRecord> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::MirrorSetMode, mirror_set_mode (table_id mode act))
            }
            async fn mirror_expire(&self, expiry: $crate::backend::Expiry, after: Option<($crate::ids::TableId, $crate::ids::Version)>) -> $crate::error::WriteResult<$crate::backend::Expired<($crate::ids::TableId, $crate::ids::Version)>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::MirrorExpire, mirror_expire (expiry after))
            }
        }
    };
    (OperateBackend [$($gen:tt)*] [$type:ty] $inner:tt $around:tt) => {
        #[$crate::delegation::async_trait]
        impl<$($gen)*> $crate::backend::OperateBackend for $type {
            fn pool_stats(&self) -> Option<$crate::backend::PoolStats> {
                $crate::__delegate_told!(self $inner pool_stats ())
            }
            async fn close(&self) -> $crate::error::WriteResult<()> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::Close, close ())
            }
        }
    };
    (AuditBackend [$($gen:tt)*] [$type:ty] $inner:tt $around:tt) => {
        #[$crate::delegation::async_trait]
        impl<$($gen)*> $crate::backend::AuditBackend for $type {
            async fn audit_record(&self, entry: &$crate::audit::AuditEntry) -> $crate::error::WriteResult<()> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::AuditRecord, audit_record (entry))
            }
            async fn audit_list(&self, filter: &$crate::audit::AuditFilter, order: $crate::audit::AuditOrder, after: Option<$crate::audit::AuditCursor>, limit: usize) -> $crate::error::ReadResult<$crate::model::Page<$crate::audit::AuditRow, $crate::audit::AuditCursor>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::AuditList, audit_list (filter order after limit))
            }
        }
    };
    (RegistryBackend [$($gen:tt)*] [$type:ty] $inner:tt $around:tt) => {
        #[$crate::delegation::async_trait]
        impl<$($gen)*> $crate::backend::RegistryBackend for $type {
            async fn registry_get(&self, key: &$crate::registry::RecordKey) -> $crate::error::ReadResult<Option<$crate::registry::Record>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::RegistryGet, registry_get (key))
            }
            async fn registry_list(&self, kind: &str, after: Option<&str>, limit: usize) -> $crate::error::ReadResult<$crate::model::Page<$crate::registry::Record, String>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::RegistryList, registry_list (kind after limit))
            }
            async fn registry_write(&self, writes: &[$crate::registry::RecordWrite], at: $crate::ids::TimestampMs, entry: Option<&$crate::audit::AuditEntry>) -> $crate::error::WriteResult<$crate::registry::RegistryOutcome> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::RegistryWrite, registry_write (writes at entry))
            }
            async fn registry_all(&self, after: Option<&$crate::registry::RecordKey>, limit: usize) -> $crate::error::ReadResult<$crate::model::Page<$crate::registry::Record, $crate::registry::RecordKey>> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::RegistryAll, registry_all (after limit))
            }
            async fn registry_load(&self, records: &[$crate::registry::Record], revision: i64) -> $crate::error::WriteResult<bool> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::RegistryLoad, registry_load (records revision))
            }
            async fn registry_revision(&self) -> $crate::error::ReadResult<i64> {
                $crate::__delegate_call!(self $inner $around $crate::delegation::Verb::RegistryRevision, registry_revision ())
            }
        }
    };
}

/// One call that is no future, for [`delegate!`](crate::delegate).
#[doc(hidden)]
#[macro_export]
macro_rules! __delegate_told {
    ($self:ident [$($inner:tt)+] $method:ident ($($arg:ident)*)) => {
        $self.$($inner)+.$method($($arg),*)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_words_in_snake_case_and_each_verb_has_its_own() {
        let labels: std::collections::BTreeSet<&str> =
            Verb::ALL.iter().map(|verb| verb.label()).collect();
        assert_eq!(labels.len(), Verb::ALL.len());
        for label in labels {
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{label}");
        }
        for (place, verb) in Verb::ALL.iter().enumerate() {
            assert_eq!(*verb as usize, place, "{verb:?}");
        }
    }
}
