//! SQL Server backend of deltalakedb: a catalog in SQL Server 2019 or later, or Azure SQL.
//!
//! [`MssqlBackend`] implements [`CatalogBackend`] on the `tiberius` driver. Start with
//! [`MssqlOptions::from_url`] or [`MssqlOptions::new`], [`MssqlBackend::connect`], and
//! [`SchemaBackend::migrate`] once.
//!
//! It is right at READ COMMITTED with and without row versions. With them readers and writers do
//! not wait for each other, and cannot become each other's deadlock victims; Azure SQL has them by
//! default, elsewhere an administrator turns `READ_COMMITTED_SNAPSHOT` on for the database
//! (<https://learn.microsoft.com/sql/t-sql/statements/alter-database-transact-sql-set-options>).
//!
//! [`CatalogBackend`]: deltalakedb_catalog_core::backend::CatalogBackend
//! [`SchemaBackend::migrate`]: deltalakedb_catalog_core::backend::SchemaBackend::migrate
#![forbid(unsafe_code)]

mod commit;
mod contract;
mod errors;
mod files;
mod grants;
mod import;
mod options;
mod outbox;
mod reads;
mod rows;
mod schema;
mod session;
mod skip;
mod tables;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::TimestampMs;

pub use grants::{GrantRole, grants};
pub use options::{Encrypt, MssqlOptions, PoolOptions, TlsOptions};

use errors::DbResult;
use session::stream::{Dial, Tcp};
use session::{Lease, Session, server};

/// A catalog in SQL Server.
///
/// Calls use a pool of connections. Dropping a call's future closes its connection, and the server
/// undoes what was not committed.
#[derive(Debug)]
pub struct MssqlBackend {
    session: Session,
    server_version: String,
}

impl MssqlBackend {
    /// Connects, and looks at the server. Our tables need not exist yet:
    /// [`SchemaBackend::migrate`](deltalakedb_catalog_core::backend::SchemaBackend::migrate)
    /// creates them.
    ///
    /// # Errors
    /// * `InvalidInput`: see [`MssqlOptions::validate`].
    /// * `Unsupported`: the server is older than SQL Server 2019.
    /// * `Unavailable`: it cannot be reached, refuses the login or the encryption, or has no such
    ///   database.
    pub async fn connect(options: MssqlOptions) -> Result<Arc<MssqlBackend>> {
        Self::connect_over(options, Arc::new(Tcp)).await
    }

    pub(crate) async fn connect_over(
        options: MssqlOptions,
        dial: Arc<dyn Dial>,
    ) -> Result<Arc<MssqlBackend>> {
        options.validate()?;
        let session = Session::new(&options, dial)?;
        let server_version = server::look(&session, options.pool.min_connections)
            .await
            .map_err(|error| error.into_catalog(session.place(), "connecting"))?;
        Ok(Arc::new(MssqlBackend { session, server_version }))
    }

    async fn lease(&self, doing: &str) -> Result<Lease> {
        let lease = self.session.lease().await;
        lease.map_err(|error| error.into_catalog(self.session.place(), doing))
    }

    /// The answer as the caller sees it. After an error that says that a table is missing, the
    /// version of the schema is read: our tables may be missing or too new. So it is after an error
    /// of an unknown number: servers that are not SQL Server have numbers of their own.
    async fn explain<T>(&self, lease: &mut Lease, doing: &str, answer: DbResult<T>) -> Result<T> {
        let place = self.session.place();
        let error = match answer {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if (error.is_missing() || error.is_unknown())
            && let Ok(version) = schema::inspect(lease, place).await
        {
            schema::require(version, place, &self.session.names().prefix)?;
        }
        Err(error.into_catalog(place, doing))
    }

    async fn schema_version(&self, lease: &mut Lease) -> DbResult<u32> {
        schema::inspect(lease, self.session.place()).await
    }

    async fn version_and_clock(&self, lease: &mut Lease) -> DbResult<(u32, Option<TimestampMs>)> {
        let version = self.schema_version(lease).await?;
        Ok((version, schema::clock(lease).await?))
    }
}
