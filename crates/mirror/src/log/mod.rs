//! Reads any `_delta_log/` from an object store, without the Delta kernel.
//!
//! * [`listing`]: which files there are, and from which of them the table is to be read.
//! * [`checkpoint`]: checkpoints of every kind as a stream of typed actions.
//! * [`commits`]: commit files as bytes plus index, with their timestamps.
//! * [`local`]: the same and the listing, of folders of this machine.
//! * [`stats`]: struct statistics of checkpoints as the JSON text that `add.stats` holds.

pub(crate) mod columns;
mod object_reader;

pub mod checkpoint;
pub mod commits;
pub mod listing;
pub mod local;
pub mod stats;

pub use checkpoint::{CheckpointReader, CheckpointTail, FileAction};
pub use commits::{CommitFile, CommitTimestamps, ReadCommit, read_commits};
pub use listing::{Base, Chain, ChainOptions, CheckpointFiles, CheckpointKind, LogListing};
pub use local::LocalLog;

use deltalakedb_catalog_core::error::{CatalogError, WriteState};

use crate::store::redact;

/// A failed read of the object store: temporary or not, nothing was written.
pub(crate) fn read_error(what: &str, error: &object_store::Error) -> CatalogError {
    CatalogError::failed(
        format!("cannot read {what}: {}", redact(&error.to_string())),
        WriteState::NotApplied,
    )
}
