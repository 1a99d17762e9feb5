//! Delta Lake's transaction log in a SQL database, published to a plain `_delta_log/`.
//!
//! One commit is one SQL transaction, over as many tables as it needs; opening a table is one
//! query; every commit is then published for every Delta reader there is.
#![forbid(unsafe_code)]

pub mod config;
pub mod db;
pub mod filter;
pub mod parquet_files;
#[cfg(feature = "sqlite")]
mod sqlite;
pub mod system;
pub mod uri;

pub use config::Config;
pub use db::Db;
pub use deltalakedb_catalog_core as core;
pub use deltalakedb_mirror as mirror;
pub use uri::{CatalogUri, Scheme, TableUri};
