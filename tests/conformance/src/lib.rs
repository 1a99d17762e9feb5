//! The conformance suite: what every backend of the catalog must do, by the numbered clauses of
//! [`deltalakedb_catalog_core::backend`].
//!
//! A backend of your own runs it from some thirty lines. In `tests/conformance.rs` of your crate,
//! with `harness = false` for that target:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use deltalakedb_catalog_core::backend::CatalogBackend;
//! use deltalakedb_catalog_core::error::Result;
//! use deltalakedb_catalog_engine::memory::MemoryBackend; // here: yours
//! use deltalakedb_conformance::{Fixture, Harness, run};
//!
//! struct Mine;
//!
//! #[async_trait]
//! impl Harness for Mine {
//!     fn name(&self) -> &str {
//!         "mine-2"
//!     }
//!
//!     async fn unavailable(&self) -> Option<String> {
//!         std::env::var("MINE_URL").is_err().then(|| "MINE_URL is not set".to_owned())
//!     }
//!
//!     async fn fresh(&self) -> Result<Fixture> {
//!         // A new, empty database or schema of which `place` is the address.
//!         Ok(Fixture::new(Arc::new(MemoryBackend::new()), "mine://server/schema_17"))
//!     }
//!
//!     async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
//!         // A second, independent handle on the database at `fixture.place`.
//!         Ok(Some(fixture.backend.clone()))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     run(vec![Arc::new(Mine)])
//! }
//! ```
//!
//! Cases are named `mine-2::commit::racing_writers_admit_one`, and the arguments are those of the
//! standard test runner (`cargo test --test conformance -- commit::racing`). Each case gets a
//! database from [`Harness::fresh`]. A case that cannot run is reported as ignored, with its reason,
//! and counted. `DL_REQUIRE=mine,…` (names up to the first `-`) turns an unavailable database into
//! a failure.
//!
//! [`run_oracle`] runs random sequences of operations on the backend and on the in-memory
//! reference, and compares every answer.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation here is a failed test: the runner reports it"
)]

pub mod change;
pub mod env;
pub mod fixture;
pub mod live;
pub mod views;

mod cases;
mod oracle;
mod runner;

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::Result;

pub use runner::{run, run_oracle};

/// How the suite gets databases of one kind.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// What its cases are filed under: `sqlite`, `postgres-15`.
    fn name(&self) -> &str;

    /// Why no database of this kind can be had here; none if it can.
    async fn unavailable(&self) -> Option<String> {
        None
    }

    /// Whether cases run one after another, as where making tables in one database disturbs
    /// transactions in others (Galera).
    fn one_at_a_time(&self) -> bool {
        false
    }

    /// A new, empty database (or schema) that no one else uses. `migrate` was not called on it.
    async fn fresh(&self) -> Result<Fixture>;

    /// A second, independent handle on the same database, as another process would open it; none
    /// where that is impossible.
    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>>;
}

/// A database for one case.
pub struct Fixture {
    /// The first handle.
    pub backend: Arc<dyn CatalogBackend>,
    /// Where it is, for [`Harness::reopen`].
    pub place: String,
    /// What is dropped with the database, after the handle: a temporary folder, a schema's guard.
    guard: Option<Box<dyn Any + Send + Sync>>,
}

impl Fixture {
    /// A database that needs no cleaning up.
    pub fn new(backend: Arc<dyn CatalogBackend>, place: impl Into<String>) -> Self {
        Fixture { backend, place: place.into(), guard: None }
    }

    /// Keeps a value until the database is no longer needed.
    #[must_use]
    pub fn guarded_by(mut self, guard: impl Any + Send + Sync) -> Self {
        self.guard = Some(Box::new(guard));
        self
    }

    /// What [`Fixture::guarded_by`] was given.
    #[must_use]
    pub fn guard(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.guard.as_deref()
    }
}
