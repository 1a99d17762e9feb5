//! The contract between the engine and a database: narrow domain verbs, one call = one transaction.
//!
//! It has seven parts, each a trait of its own; [`CatalogBackend`] is all of them. A wrapper implements the
//! parts that it is about, and passes on the others by [`delegate!`](crate::delegate).
//!
//! Rules for every method:
//!
//! * No transaction handle crosses the traits. A call is atomic: after an error, a dropped future or
//!   a killed process, either all of its rows are there or none is.
//! * Backends never retry; they classify (`CatalogError::busy`, `WriteState`). The engine retries.
//! * A method that only reads answers with a [`Determinate`](crate::error::Determinate) error: nothing was
//!   written. A method that writes answers with a [`WriteError`](crate::error::WriteError), which may be
//!   indeterminate: the write may have happened.
//! * Text from users is only ever bound as a parameter.
//! * Reads see committed data only, and everything that was acknowledged before they began.
//! * A method on a table that does not exist is `TableNotFound`. One that is importing is hidden:
//!   `TableNotFound` too, but for the import verbs, `get_table` and reads by id, which see what is
//!   stored so far (an import is validated before it is finished). Reads by id work on dropped
//!   tables as well.
//!
//! The numbered clauses of each method are what `tests/conformance` checks, by these numbers.

mod commits;
mod ext;
mod import;
mod outbox;
mod reads;
mod schema;
mod skipping;
mod tables;

use std::fmt::Debug;
use std::sync::Arc;

pub use commits::{
    CommitBackend, CommitOutcome, CommitRequest, CommitTarget, CommittedTable, HeadRule, Rejection,
    TableCommit, request_in_memory,
};
pub use ext::CatalogBackendExt;
pub use import::{ImportBackend, ImportEnd, ImportProgress, ImportStep, ImportedCommit, in_memory};
pub use outbox::{
    ClaimRequest, MirrorLease, MirrorTask, OutboxBackend, PublishFailure, Published, Settlement,
};
pub use reads::{AppRows, AppState, CommitFilter, MAX_FILES_AT, ReadBackend};
pub use schema::{BackendInfo, SchemaBackend};
pub use skipping::{MAX_SKIP_PAGES, SkipBackend};
pub use tables::{TableBackend, TableFilter};

/// The parts, to call their methods on a type that is known: `use …::backend::parts::*`. On
/// `dyn CatalogBackend` they need not be imported.
pub mod parts {
    pub use super::{
        CommitBackend as _, ImportBackend as _, OutboxBackend as _, ReadBackend as _,
        SchemaBackend as _, SkipBackend as _, TableBackend as _,
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
        + Debug
        + Send
        + Sync
        + 'static
{
}

crate::delegate!(
    SchemaBackend, TableBackend, ReadBackend, CommitBackend, SkipBackend, ImportBackend, OutboxBackend
    for [B: CatalogBackend + ?Sized] Arc<B> => as_ref()
);
