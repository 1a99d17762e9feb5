//! The contract between the engine and a database: narrow domain verbs, one call = one transaction.
//!
//! It has ten parts, each a trait of its own; [`CatalogBackend`] is all of them. A wrapper implements the
//! parts that it is about, and passes on the others by [`delegate!`](crate::delegate).
//!
//! Clauses of every method (`contract 1`, …):
//!
//! 1. No transaction handle crosses the traits. A call is atomic: after an error, a dropped future or
//!    a killed process, either all of its rows are there or none is.
//! 2. Backends never retry; they classify (`CatalogError::busy`, `WriteState`), and the engine retries.
//!    A method that only reads answers with a [`Determinate`](crate::error::Determinate) error: nothing was
//!    written. A method that writes answers with a [`WriteError`](crate::error::WriteError), which may be
//!    indeterminate: the write may have happened.
//! 3. Text from users is only ever bound as a parameter: any text is stored exactly, or refused as
//!    `InvalidInput` with nothing written.
//! 4. Reads see committed data only, and everything that was acknowledged before they began.
//! 5. A method on a table that does not exist is `TableNotFound`. Reads by id work on dropped tables.
//! 6. A table that is importing is hidden: `TableNotFound`, but for the import verbs, `get_table` and reads
//!    by id, which see what is stored so far (an import is validated before it is finished).
//! 7. Names, tokens, paths and deletion vectors are compared byte for byte. A file is its path and its
//!    deletion vector.
//! 8. Numbers of 64 bits, texts of megabytes, commits of ten thousand files and pages of any size are
//!    ordinary.
//!
//! `tests/conformance` has a case for each clause, by these numbers, and a test compares the two lists.

mod audit;
mod commits;
mod ext;
mod import;
mod operate;
mod outbox;
mod reads;
mod registry;
mod schema;
mod skipping;
mod tables;

use std::fmt::Debug;
use std::sync::Arc;

pub use audit::AuditBackend;
pub use commits::{
    CommitBackend, CommitOutcome, CommitRequest, CommitTarget, CommittedTable, Expired, Expiry,
    HeadRule, Rejection, TableCommit, request_in_memory,
};
pub use ext::CatalogBackendExt;
pub use import::{ImportBackend, ImportEnd, ImportProgress, ImportStep, ImportedCommit, in_memory};
pub use operate::{OperateBackend, PoolStats, Waits};
pub use outbox::{
    ClaimRequest, MirrorLease, MirrorTask, OutboxBackend, PublishFailure, Published, Settlement,
};
pub use reads::{AppRows, AppState, CommitFilter, MAX_FILES_AT, ReadBackend};
pub use registry::RegistryBackend;
pub use schema::{BackendInfo, SchemaBackend};
pub use skipping::{MAX_SKIP_PAGES, SkipBackend};
pub use tables::{TableBackend, TableFilter};

/// The parts, to call their methods on a type that is known: `use …::backend::parts::*`. On
/// `dyn CatalogBackend` they need not be imported.
pub mod parts {
    pub use super::{
        AuditBackend as _, CommitBackend as _, ImportBackend as _, OperateBackend as _,
        OutboxBackend as _, ReadBackend as _, RegistryBackend as _, SchemaBackend as _,
        SkipBackend as _, TableBackend as _,
    };
}

/// A database that holds catalogs: all parts of the contract. Each type with all parts is one.
pub trait CatalogBackend:
    SchemaBackend
    + TableBackend
    + ReadBackend
    + CommitBackend
    + SkipBackend
    + ImportBackend
    + OutboxBackend
    + OperateBackend
    + AuditBackend
    + RegistryBackend
    + Debug
    + Send
    + Sync
    + 'static
{
}

impl<B> CatalogBackend for B where
    B: SchemaBackend
        + TableBackend
        + ReadBackend
        + CommitBackend
        + SkipBackend
        + ImportBackend
        + OutboxBackend
        + OperateBackend
        + AuditBackend
        + RegistryBackend
        + Debug
        + Send
        + Sync
        + 'static
{
}

crate::delegate!(
    SchemaBackend, TableBackend, ReadBackend, CommitBackend, SkipBackend, ImportBackend, OutboxBackend,
    OperateBackend, AuditBackend, RegistryBackend
    for [B: CatalogBackend + ?Sized] Arc<B> => as_ref()
);
