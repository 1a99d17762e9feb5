//! MySQL and MariaDB backend of deltalakedb.
//!
//! [`MySqlBackend`] implements [`CatalogBackend`](deltalakedb_catalog_core::backend::CatalogBackend) on MySQL 8.0 or newer, MariaDB 10.6 or newer, and
//! engines that speak their protocol (Galera clusters, TiDB). Start with [`MySqlOptions::new`] and
//! [`MySqlBackend::connect`], then [`migrate`](deltalakedb_catalog_core::backend::SchemaBackend::migrate) once.
//!
//! Statements are sent as text, many in one message (see `literals`): a commit is three round
//! trips, also over many tables, and opening a table is one. Nothing is set for a session and
//! nothing is prepared, so poolers may sit between.
//!
//! On a Galera cluster, reads on one node see what was committed on another only if the server's
//! `wsrep_sync_wait` covers reads (1): set it on the nodes or for the login.
#![forbid(unsafe_code)]

mod audit;
mod commit;
mod contract;
mod diagnose;
mod errors;
mod files;
mod grants;
mod import;
mod options;
mod outbox;
mod reads;
mod registry;
mod rows;
mod schema;
mod session;
mod skip;
mod tables;
mod tend;
mod views;

use std::sync::Arc;

use deltalakedb_catalog_core::error::Result;

pub use diagnose::diagnose;
pub use grants::{GrantRole, grants};
pub use options::{MySqlOptions, PoolOptions, Secret, TlsMode, TlsOptions};
pub use tend::tend;
pub use views::{drop_views, views};

use schema::SCHEMA_VERSION;
use session::Session;

/// A catalog in a MySQL or MariaDB database.
#[derive(Debug)]
pub struct MySqlBackend {
    session: Arc<Session>,
}

impl MySqlBackend {
    /// Connects to a server. Our tables need not be there yet: [`migrate`](deltalakedb_catalog_core::backend::SchemaBackend::migrate) makes
    /// them.
    ///
    /// # Errors
    /// * `InvalidInput`: see [`MySqlOptions::validate`].
    /// * `Unsupported`: the server is older than MySQL 8.0 or MariaDB 10.6.
    /// * `Unavailable`: it cannot be reached, or refuses user, password or database.
    pub async fn connect(options: MySqlOptions) -> Result<Arc<MySqlBackend>> {
        Ok(Arc::new(MySqlBackend { session: Session::connect(options).await? }))
    }

    /// Makes the views of [`views`], or makes them anew, one after the other.
    ///
    /// # Errors
    /// As of every call that writes. The login needs the right to create views.
    pub async fn make_views(&self) -> Result<()> {
        self.run_views("making views", views(&self.session.options)?).await
    }

    /// Drops the views of [`views`], one after the other.
    ///
    /// # Errors
    /// As of every call that writes.
    pub async fn drop_views(&self) -> Result<()> {
        self.run_views("dropping views", drop_views(&self.session.options)?).await
    }

    async fn run_views(&self, doing: &'static str, statements: Vec<String>) -> Result<()> {
        for statement in statements {
            let mut call = schema::begin(&self.session, doing).await?;
            let result = call.run(statement).await.map(|_| ());
            call.end(result).await?;
        }
        Ok(())
    }

    /// Closes all connections; calls that begin after it fail.
    pub async fn close(&self) {
        self.session.close().await;
    }
}
