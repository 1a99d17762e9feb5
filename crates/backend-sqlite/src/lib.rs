//! SQLite backend of deltalakedb: a catalog in one file.
//!
//! [`SqliteBackend`] implements [`CatalogBackend`] on the SQLite that is built into the program.
//! Several processes may use one file at a time; it must lie on a local file system. Start with
//! [`SqliteOptions::new`] and [`SqliteBackend::open`], then [`SchemaBackend::migrate`] once.
//!
//! [`CatalogBackend`]: deltalakedb_catalog_core::backend::CatalogBackend
//! [`SchemaBackend::migrate`]: deltalakedb_catalog_core::backend::SchemaBackend::migrate
#![forbid(unsafe_code)]

mod audit;
mod commit;
mod contract;
mod diagnose;
mod errors;
mod files;
mod import;
mod options;
mod outbox;
mod pages;
mod readers;
mod reads;
mod registry;
mod rows;
mod schema;
mod session;
mod skip;
mod tables;
mod tend;
mod views;
mod worker;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use deltalakedb_catalog_core::error::Result;

pub use diagnose::diagnose;
pub use options::SqliteOptions;
pub use pages::copy_pages;
pub use tend::tend;
pub use views::{drop_views, views};

use errors::DbResult;
use session::{Db, Session};
use worker::{Workers, Write};

/// A catalog in a SQLite file.
///
/// Calls run on threads of this value, one that writes and up to [`SqliteOptions::readers`] that read,
/// and may be awaited on any executor. Dropping a call's future does not interrupt it. Dropping
/// the value blocks until what was begun is finished, and closes the file.
#[derive(Debug)]
pub struct SqliteBackend {
    workers: Workers,
}

/// Counters since the catalog was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteStats {
    /// Write transactions that were committed, each with one sync of the disk.
    pub write_transactions: u64,
    /// Writing calls that they contained: more than transactions where calls waited together.
    pub writes: u64,
}

impl SqliteBackend {
    /// Opens a file, and creates it unless `must_exist` or `read_only`. Not async: it blocks for
    /// some milliseconds, or up to the busy timeout while another process changes the file. Our
    /// tables are created by
    /// [`SchemaBackend::migrate`](deltalakedb_catalog_core::backend::SchemaBackend::migrate).
    ///
    /// # Errors
    /// * `InvalidInput`: see [`SqliteOptions::validate`].
    /// * `Schema`: the file is not a SQLite database or belongs to another program (nothing is
    ///   changed in it); with `must_exist` or `read_only` also if there is no catalog in it, or
    ///   one of another schema version.
    /// * `Unavailable`: it cannot be opened or written, or its file system does not support WAL.
    pub fn open(options: SqliteOptions) -> Result<Arc<SqliteBackend>> {
        let first = Session::open_first(options)?;
        Ok(Arc::new(SqliteBackend { workers: Workers::start(first)? }))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.workers.shared().path()
    }

    /// Counters since it was opened.
    pub fn stats(&self) -> SqliteStats {
        let shared = self.workers.shared();
        SqliteStats {
            write_transactions: shared.transactions.load(Ordering::Relaxed),
            writes: shared.jobs.load(Ordering::Relaxed),
        }
    }

    /// Makes the views of [`views`], or makes them anew.
    ///
    /// # Errors
    /// As of every call that writes.
    pub async fn make_views(&self) -> Result<()> {
        let statements = views(&self.workers.shared().options)?.concat();
        self.write("making views", move |db| Ok(db.conn.execute_batch(&statements)?)).await
    }

    /// Drops the views of [`views`].
    ///
    /// # Errors
    /// As of every call that writes.
    pub async fn drop_views(&self) -> Result<()> {
        let statements = drop_views(&self.workers.shared().options)?.concat();
        self.write("dropping views", move |db| Ok(db.conn.execute_batch(&statements)?)).await
    }

    /// A read of several statements.
    async fn read<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(Db<'_>) -> DbResult<T> + Send + 'static,
    ) -> Result<T> {
        self.workers.read(move |session| session.read(doing, work)).await
    }

    /// A read of one statement.
    async fn read_one<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(Db<'_>) -> DbResult<T> + Send + 'static,
    ) -> Result<T> {
        self.workers.read(move |session| session.read_one(doing, work)).await
    }

    /// A small write that stays whenever it succeeds.
    async fn write<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(Db<'_>) -> DbResult<T> + Send + 'static,
    ) -> Result<T> {
        self.write_weighing(doing, 4096, work).await
    }

    async fn write_weighing<T: Send + 'static>(
        &self,
        doing: &'static str,
        weight_bytes: usize,
        work: impl FnOnce(Db<'_>) -> DbResult<T> + Send + 'static,
    ) -> Result<T> {
        let write = Write { doing, weight_bytes, needs_schema: true, work };
        self.workers.write(write, |_| true).await
    }
}
