//! Delta Lake's transaction log in a SQL database, published to a plain `_delta_log/`.
//!
//! One commit is one SQL transaction, over as many tables as it needs; opening a table is one
//! query; every commit is then published for every Delta reader there is.
//!
//! [`Db::open`] takes the URL of a catalog. Which databases it can open is a matter of cargo
//! features: `sqlite` (default), `postgres`, `mysql` (MariaDB too), `mssql` (Azure SQL too); [`uri`]
//! says how their URLs look, and [`ServerUri::find_password`] where a password may come from. For
//! tables that are not in local folders there are `s3`, `azure` and `gcs`. With `deltalake` the whole API
//! of the crate of that name works on tables of catalogs.
#![forbid(unsafe_code)]

pub mod api;
pub mod background;
#[cfg(feature = "config")]
pub mod config;
pub mod copy;
pub mod db;
#[cfg(feature = "deltalake")]
pub mod deltalake;
pub mod filter;
pub mod grants;
pub mod indexing;
#[cfg(feature = "mssql")]
mod mssql;
#[cfg(feature = "mysql")]
mod mysql;
pub mod parquet_files;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
pub mod system;
pub mod traced;
pub mod uri;

pub use api::{Change, Changes, CreateTable, IntoAt, IntoTableRef, Table, Target};
#[cfg(feature = "config")]
pub use config::Config;
pub use db::Db;
pub use deltalakedb_cache::CacheStats;
pub use deltalakedb_catalog_core as core;
pub use deltalakedb_catalog_core::action::{Action, Add, Metadata, Protocol, Remove};
pub use deltalakedb_catalog_core::catalog::{CommitBatch, CommitHook, CommitReport};
pub use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
pub use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
pub use deltalakedb_catalog_core::schema::StructType;
pub use deltalakedb_mirror as mirror;
pub use uri::{CatalogUri, Scheme, ServerUri, TableUri};
