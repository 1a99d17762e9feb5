//! Reads any `_delta_log/` from an object store, without the Delta kernel.
//!
//! * [`listing`]: which files there are, and from which of them the table is to be read.
//! * [`checkpoint`]: checkpoints of every kind as a stream of typed actions.
//! * [`commits`]: commit files as bytes plus index, with their timestamps.
//! * [`stats`]: struct statistics of checkpoints as the JSON text that `add.stats` holds.

mod columns;
mod object_reader;

pub mod checkpoint;
pub mod commits;
pub mod listing;
pub mod stats;

pub use checkpoint::{CheckpointReader, CheckpointTail, FileAction};
pub use commits::{CommitFile, CommitTimestamps, ReadCommit, read_commits};
pub use listing::{Base, Chain, ChainOptions, CheckpointFiles, CheckpointKind, LogListing};

use deltalakedb_catalog_core::error::{CatalogError, WriteState};

/// A failed read of the object store: temporary or not, nothing was written.
pub(crate) fn read_error(what: &str, error: &object_store::Error) -> CatalogError {
    CatalogError::failed(
        format!("cannot read {what}: {}", without_queries(&error.to_string())),
        WriteState::NotApplied,
    )
}

/// Cuts the query off every URL in a text: signed URLs carry their secret there.
fn without_queries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive(char::is_whitespace) {
        match (word.contains("://"), word.split_once('?')) {
            (true, Some((before, after))) => {
                out.push_str(before);
                out.push_str("?…");
                out.extend(after.chars().rev().take_while(|c| c.is_whitespace()));
            }
            _ => out.push_str(word),
        }
    }
    out
}
