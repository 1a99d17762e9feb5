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
pub use config::Config;
pub use db::Db;
pub use deltalakedb_cache::CacheStats;
pub mod core {
    //! The layers below, as they are: the model and the contract of databases, and the engine on them.
    pub use deltalakedb_catalog_core::{
        action, backend, commit, delegation, error, fields, ids, later, lenient, model, paths,
        secrets, sink, support,
    };
    pub use deltalakedb_catalog_engine::{
        canonical, catalog, conflict, env, fault, features, fence, memory, plan, predicate, retry,
        schema, signature, skew, skip,
    };
}
pub use deltalakedb_catalog_core::action::{Action, Add, Metadata, Protocol, Remove};
pub use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
pub use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
pub use deltalakedb_catalog_engine::catalog::{CommitBatch, CommitHook, CommitReport};
pub use deltalakedb_catalog_engine::schema::StructType;
pub use deltalakedb_mirror as mirror;
pub use uri::{CatalogUri, Scheme, ServerUri, TableUri};

// Pages of the book whose Rust is compiled with the doctests.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../../../docs/src/embedding/rust.md")]
mod page_on_embedding {}
#[cfg(all(doctest, feature = "deltalake"))]
#[doc = include_str!("../../../docs/src/embedding/deltalake.md")]
mod page_on_deltalake {}
