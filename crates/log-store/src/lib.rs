//! The `deltalake` crate's log store over a [`Catalog`]: code that uses `DeltaTable` changes its URL
//! and nothing else.
//!
//! `deltalake` reads a table's log through an object store and commits by creating `N.json`. Here
//! `_delta_log/` of a table is *virtual*: what is listed and read there comes from the catalog, what
//! is created there is committed to it, and everything else is the table's real storage. Nothing of
//! the log needs to be published for it.
//!
//! # What `deltalake` asks of the log, and what it gets
//!
//! | asked | answer |
//! | --- | --- |
//! | list | the newest virtual checkpoint, and the commits after it; from an earlier version on, all commits |
//! | `_last_checkpoint`, `N.checkpoint.parquet` | made from the catalog's rows, never stored |
//! | read `N.json` | the commit as a writer through the catalog sees it (without the fence and in-commit timestamps, which the catalog puts into what is written) |
//! | create `N.json` | exactly version N in the catalog, in one SQL transaction, or `AlreadyExists` |
//! | create a checkpoint, `_last_checkpoint` | taken and dropped: the mirror publishes its own |
//! | delete from the log | nothing happens: expired files of the *published* log are the mirror's, and the catalog keeps every commit |
//! | anything else in the log | refused |
//!
//! This crate is the only one that knows the `deltalake` crate's API, which changes with its releases.
#![forbid(unsafe_code)]

mod context;
#[cfg(test)]
#[cfg(feature = "datafusion")]
mod doubt_tests;
#[cfg(feature = "datafusion")]
pub mod explain;
#[cfg(feature = "datafusion")]
pub mod fit;
mod logstore;
mod removes;
mod runtime;
#[cfg(feature = "datafusion")]
pub mod sql;
mod squash;
mod staging;
mod statistics;
mod store;
mod transaction;
mod virtual_log;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use deltalakedb_catalog_core::action::Metadata;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::TableName;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::conflict::FileFilter;

pub use deltalake;
pub use logstore::register;
pub use runtime::{end as end_runtime, run as on_runtime};
pub use transaction::Transaction;

/// Scheme of tables' URLs.
pub const SCHEME: &str = "delta+sql";
/// Storage option: where a table that does not exist yet is to be.
pub const LOCATION: &str = "deltalakedb.location";
/// Storage option: the folder or URL below which new tables are made, as `<namespace>/<table>`.
pub const WAREHOUSE: &str = "deltalakedb.warehouse";
/// Storage option: `false` makes new tables without the fence.
pub const FENCE: &str = "deltalakedb.fence";

/// A table's URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableAddress {
    /// The URL, to open the catalog by; may hold secrets.
    pub url: String,
    /// The catalog's URL for people: without secrets.
    pub catalog: String,
    /// The table in it.
    pub table: TableName,
}

/// Opens catalogs by their URLs. The facade implements it.
#[async_trait]
pub trait CatalogOpener: Debug + Send + Sync + 'static {
    /// Reads a table's URL, also in the form that the `url` crate gives it: without the colon of the
    /// inner scheme and without empty segments of the path.
    ///
    /// # Errors
    /// `InvalidInput`.
    fn address(&self, url: &str) -> Result<TableAddress>;

    /// Opens the catalog of an address, on the runtime of the log store. One that is open already may
    /// be given out again.
    ///
    /// # Errors
    /// Those of opening it.
    async fn open(&self, address: &TableAddress) -> Result<Catalog>;

    /// Reads the predicate of an operation, as files can be chosen by it; none if it cannot be.
    fn filter(&self, _predicate: &str, _metadata: &Metadata) -> Option<FileFilter> {
        None
    }

    /// Where new tables of a catalog are made if no option says so.
    fn default_warehouse(&self, _address: &TableAddress) -> Option<String> {
        None
    }
}

/// Options of a table, by their names.
type Options = BTreeMap<String, String>;

/// Shared [`CatalogOpener`].
pub type Opener = Arc<dyn CatalogOpener>;
