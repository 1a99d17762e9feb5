//! A cache of table state, as a wrapper that implements [`CatalogBackend`].
//!
//! **What never changes.** The state of a table *at a version* is immutable, so entries need no
//! invalidation and several processes stay right without telling each other. Kept are pages of file lists
//! and whole lists (in Arrow columns; one at an older version is brought up to date with the commits
//! since), application transactions and domain metadata at a version, and pages of skipping indexes. A
//! version counts as immutable once the table was seen active with that version.
//!
//! **What changes.** Heads, rows of tables and the outbox are asked of the database each time by a
//! [`CachedBackend`] itself: commits may be planned on it. [`CachedBackend::reader`] is another view of
//! the same cache, for readers who may be told a head that is older by a stated time
//! ([`CacheOptions::head_max_staleness`]): it answers `get_table` and `snapshot` from memory if the
//! database was asked within that time. What this process wrote is never missed: whatever changes a
//! table through either view, and `note_change`, makes the next read ask.
//!
//! **Single flight.** Identical questions that are asked at the same time become one; about what changes,
//! nobody gets an answer to a question that was sent before the own call began.
//!
//! All entries are in one LRU. Weights are estimates in bytes, and the bound holds for their sum. Not in it:
//! the last 4,096 changes of this process (below 1 MB), and what callers hold.
#![forbid(unsafe_code)]

mod backend;
mod entries;
mod files;
mod flight;
mod head;
mod heads;
mod lists;
mod options;
mod state;
mod stats;

use std::sync::Arc;
use std::time::Duration;

use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::ids::{At, TableRef};
use deltalakedb_catalog_core::model::{Snapshot, TableRecord};

use crate::flight::Flights;
pub use crate::options::{CacheOptions, DEFAULT_CAPACITY_BYTES};
use crate::state::State;
pub use crate::stats::{CacheKind, CacheStats, KindStats};

/// A backend with a cache in front: a view of the cache.
#[derive(Debug, Clone)]
pub struct CachedBackend {
    state: Arc<State>,
    source: Arc<Source>,
    /// How old an answer about a head may be; none = the database is asked.
    max_staleness: Option<Duration>,
    /// Whether lists in memory may answer: those that were brought up to date say what the commits say. Who
    /// compares the database's rows with its commits must read the rows.
    lists: bool,
}

/// Who is asked what is not in memory, and the questions about what changes that are on their way there.
#[derive(Debug)]
struct Source {
    inner: Arc<dyn CatalogBackend>,
    /// Whether readers may be told what this one says of heads.
    for_readers: bool,
    tables: Flights<TableRef, Option<TableRecord>>,
    snapshots: Flights<(TableRef, At), Snapshot>,
}

impl Source {
    fn new(inner: Arc<dyn CatalogBackend>, for_readers: bool) -> Arc<Self> {
        Arc::new(Source {
            inner,
            for_readers,
            tables: Flights::default(),
            snapshots: Flights::default(),
        })
    }
}

impl CachedBackend {
    /// Wraps a backend with the default bounds.
    #[must_use]
    pub fn new(inner: Arc<dyn CatalogBackend>) -> Self {
        Self::with_options(inner, &CacheOptions::default())
    }

    /// Wraps a backend with a bound in bytes.
    #[must_use]
    pub fn with_capacity(inner: Arc<dyn CatalogBackend>, bytes: u64) -> Self {
        Self::with_options(
            inner,
            &CacheOptions { capacity_bytes: bytes, ..CacheOptions::default() },
        )
    }

    /// Wraps a backend. This view asks the database for every head, whatever the options say.
    #[must_use]
    pub fn with_options(inner: Arc<dyn CatalogBackend>, options: &CacheOptions) -> Self {
        CachedBackend {
            state: Arc::new(State::new(options)),
            source: Source::new(inner, true),
            max_staleness: None,
            lists: false,
        }
    }

    /// Two views of one cache: that of `primary`, and one for readers ([`CachedBackend::reader`]) that asks
    /// `replicas`, another view of the same database. What that one may lag behind by itself comes on top of
    /// [`CacheOptions::head_max_staleness`]. Changes through either make both ask again.
    #[must_use]
    pub fn split(
        primary: Arc<dyn CatalogBackend>,
        replicas: Arc<dyn CatalogBackend>,
        options: &CacheOptions,
    ) -> (Self, Self) {
        let state = Arc::new(State::new(options));
        let view = |source, max_staleness, lists| CachedBackend {
            state: Arc::clone(&state),
            source,
            max_staleness,
            lists,
        };
        let primary = view(Source::new(primary, false), None, false);
        (primary, view(Source::new(replicas, true), options.head_max_staleness, true))
    }

    /// The view for readers: lists of files may come from memory, and heads may be as much older as
    /// [`CacheOptions::head_max_staleness`] says. Nothing that decides about a write, or compares the
    /// database with anything else, may be read through it.
    #[must_use]
    pub fn reader(&self) -> Self {
        CachedBackend { max_staleness: self.state.max_staleness, lists: true, ..self.clone() }
    }

    /// What the cache has done, and what is in it. Its views share it.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        self.state.stats()
    }
}

#[cfg(test)]
mod tests;
