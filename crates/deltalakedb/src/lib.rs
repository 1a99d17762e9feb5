//! Delta Lake's transaction log in a SQL database, published to a plain `_delta_log/`.
//!
//! One commit is one SQL transaction, over as many tables as it needs; opening a table is one
//! query; every commit is then published for every Delta reader there is.
//!
//! ```
//! use std::time::Duration;
//!
//! use deltalakedb::{Db, PublisherConfig, Result};
//! use futures::TryStreamExt;
//!
//! # fn main() -> Result<()> {
//! #     let run = run("memory://", "memory://crate/orders");
//! #     tokio::runtime::Runtime::new().unwrap().block_on(run)
//! # }
//! async fn run(catalog: &str, folder: &str) -> Result<()> {
//!     let db = Db::create(&catalog.parse()?).await?;
//!     let (db, worker) = db.publish_in_background(PublisherConfig::default());
//!
//!     let orders = db.create_table("shop.orders").location(folder).columns("id long").await?;
//! #   let add = r#"{"path":"1.parquet","partitionValues":{},"size":9,"modificationTime":1}"#;
//! #   let files = vec![serde_json::from_str(add).unwrap()];
//! #   let _ = r#"
//!     let files = orders.describe_files(["1.parquet"]).await?;
//! #   "#;
//!     let report = orders.append(files).token("load-1").await?;
//!     let orders = orders.at_commit(&report).await?;
//!     orders.wait_published(Duration::from_secs(30)).await?;
//!
//!     let files: Vec<_> = orders.files_matching("id = 7")?.try_collect().await?;
//!     assert_eq!(files[0].add.path, "1.parquet");
//!     let Err(error) = db.table("no.such_table").await else { panic!("there is one") };
//!     assert_eq!(error.code(), "table_not_found");
//!     worker.stop().await
//! }
//! ```
//!
//! [`Db::open`] takes the URL of a catalog. Which databases it can open is a matter of cargo
//! features: `sqlite` (default), `postgres`, `mysql` (MariaDB too), `mssql` (Azure SQL too); [`uri`]
//! says how their URLs look, and [`ServerUri::find_password`] where a password may come from. For
//! tables that are not in local folders there are `s3`, `azure` and `gcs`. With `deltalake` the whole API
//! of the crate of that name works on tables of catalogs. Two more features are on by default: `kernel`
//! compares imports and published logs with what the Delta kernel reads, `config` is [`Config`]. A lean
//! build is `default-features = false, features = ["sqlite"]`: no HTTP client is in it.
#![forbid(unsafe_code)]

pub mod access;
pub mod api;
pub mod audit;
pub mod background;
pub mod backup;
#[cfg(feature = "config")]
pub mod config;
pub mod copy;
pub mod db;
#[cfg(feature = "deltalake")]
pub mod deltalake;
pub mod doctor;
pub mod filter;
pub mod grants;
pub mod indexing;
pub mod maintain;
#[cfg(feature = "mssql")]
mod mssql;
#[cfg(feature = "mysql")]
mod mysql;
pub mod parquet_files;
#[cfg(feature = "postgres")]
mod postgres;
mod role;
#[cfg(feature = "deltalake")]
pub mod rows;
#[cfg(feature = "sqlite")]
mod sqlite;
pub mod system;
pub mod time;
pub mod traced;
pub mod uri;
pub mod view;
pub mod views;
pub mod watching;

pub use api::{
    AlterTable, Change, Changes, CreateTable, Freezing, IntoAt, IntoTableRef, Table, Target,
};
pub use background::{BackgroundMirror, CommitNotPublished, CommitPublishedError};
#[cfg(feature = "config")]
pub use config::Config;
pub use db::Db;
pub use deltalakedb_cache::{CacheKind, CacheStats, KindStats};
pub mod core {
    //! The layers below, as they are: the model and the contract of databases, and the engine on them.
    pub use deltalakedb_catalog_core::{
        action, audit, backend, commit, delegation, diagnosis, error, fields, frozen, ids, later,
        lenient, model, paths, registry, secrets, sink, support,
    };
    pub use deltalakedb_catalog_engine::{
        alter, canonical, catalog, conflict, env, fault, features, fence, freeze, measure, memory,
        pages, plan, predicate, retry, schema, signature, skew, skip,
    };
}
pub use deltalakedb_catalog_core::action::{Action, Add, Metadata, Protocol, Remove};
pub use deltalakedb_catalog_core::backend::{CommitFilter, CommittedTable, PoolStats, TableFilter};
pub use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
pub use deltalakedb_catalog_core::frozen::Frozen;
pub use deltalakedb_catalog_core::ids::{
    At, CommitToken, TableId, TableName, TableRef, TimestampMs, Version,
};
pub use deltalakedb_catalog_core::model::{
    CommitRecord, FileRecord, MirrorMode, Snapshot, TableRecord, TableState,
};
pub use deltalakedb_catalog_engine::catalog::{
    ChangeTarget, ChangedTable, CommitBatch, CommitEvent, CommitHook, CommitReport, FreezeReport,
    SwitchedTable, TableChange,
};
pub use deltalakedb_catalog_engine::conflict::{Conflict, ConflictKind, Reads};
pub use deltalakedb_catalog_engine::env::{NoProgress, Progress};
pub use deltalakedb_catalog_engine::predicate::{ColumnPath, CompareOp, Literal, Predicate};
pub use deltalakedb_catalog_engine::schema::{DataType, StructField, StructType};
pub use deltalakedb_catalog_engine::signature::UserName;
pub use deltalakedb_mirror as mirror;
pub use deltalakedb_mirror::publish::{Publisher, PublisherConfig, Waited};
pub use uri::{CatalogUri, Scheme, ServerUri, TableUri};
pub use watching::{CallEvent, MetricsSnapshot, Warmed};

// Pages of the book whose Rust is compiled with the doctests.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../../../docs/src/embedding/rust.md")]
mod page_on_embedding {}
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../../../docs/src/operate/metrics.md")]
mod page_on_metrics {}
#[cfg(all(doctest, feature = "deltalake"))]
#[doc = include_str!("../../../docs/src/embedding/deltalake.md")]
mod page_on_deltalake {}
