//! PostgreSQL backend of deltalakedb.
//!
//! [`PostgresBackend`] implements [`CatalogBackend`](deltalakedb_catalog_core::backend::CatalogBackend) on PostgreSQL 11 or newer, and engines that
//! speak its protocol. Start with [`PostgresOptions::new`] and [`PostgresBackend::connect`], then
//! [`migrate`](deltalakedb_catalog_core::backend::SchemaBackend::migrate) once.
//!
//! A commit is one statement, over any number of tables (see `commit`); opening a table is another.
//! Nothing is set for a session. Poolers in transaction mode that do not know prepared statements
//! need [`PostgresOptions::statement_cache`] = 0.
#![forbid(unsafe_code)]

mod added;
mod audit;
mod commit;
mod contract;
mod ddl;
mod diagnose;
mod errors;
mod files;
mod grants;
mod import;
mod layout;
mod options;
mod outbox;
#[cfg(test)]
mod plan_tests;
mod reads;
mod registry;
mod rows;
mod schema;
mod session;
mod skip;
mod tables;
mod tend;
mod upgrade;
mod views;

use std::sync::Arc;

use deltalakedb_catalog_core::error::Result;

pub use diagnose::diagnose;
pub use grants::{GrantRole, grants};
pub use options::{PoolOptions, PostgresOptions, Secret, TlsMode, TlsOptions};
pub use tend::tend;
pub use views::{drop_views, views};

use commit::Committer;
use ddl::SCHEMA_VERSION;
use session::{Mode, Session};

/// A catalog in a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresBackend {
    session: Arc<Session>,
    committer: Arc<Committer>,
}

impl PostgresBackend {
    /// Connects to a server. Our tables need not be there yet: [`migrate`](deltalakedb_catalog_core::backend::SchemaBackend::migrate) makes
    /// them.
    ///
    /// # Errors
    /// * `InvalidInput`: see [`PostgresOptions::validate`].
    /// * `Unsupported`: the server is older than PostgreSQL 11.
    /// * `Unavailable`: it cannot be reached, or refuses user, password or database.
    pub async fn connect(options: PostgresOptions) -> Result<Arc<PostgresBackend>> {
        let session = Session::connect(options, schema::look_again).await?;
        schema::check_server(&session).await?;
        session.fill_pool().await?;
        Ok(Arc::new(PostgresBackend { committer: Committer::new(&session), session }))
    }

    /// Makes the views of [`views`], or makes them anew: all or none.
    ///
    /// # Errors
    /// As of every call that writes. The login needs the right to create in the schema.
    pub async fn make_views(&self) -> Result<()> {
        let statements = views(&self.session.options)?;
        let mut call = schema::begin(&self.session, "making views", Mode::Write).await?;
        let result = call.simple(statements.join("\n")).await;
        call.end(result).await
    }

    /// Drops the views of [`views`]: all or none.
    ///
    /// # Errors
    /// `InvalidInput` naming other views that need them; as of every call that writes.
    pub async fn drop_views(&self) -> Result<()> {
        let mut call = schema::begin(&self.session, "dropping views", Mode::Write).await?;
        let result = views::drop_all(&mut call).await;
        call.end(result).await
    }

    /// Closes all connections; calls that begin after it fail.
    pub async fn close(&self) {
        self.session.close().await;
    }
}
