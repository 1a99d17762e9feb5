//! An opened catalog.

use std::ops::Deref;
use std::sync::Arc;

use deltalakedb_cache::CachedBackend;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::catalog::Catalog;
use deltalakedb_catalog_core::env::{Clock, IdSource};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_mirror::publish::{Publisher, PublisherConfig};

use crate::system::{RandomIds, SystemClock};
use crate::uri::{CatalogUri, Scheme};

/// A catalog that a URL opened: backend, cache, clock and mirror put together.
///
/// Derefs to [`Catalog`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    catalog: Catalog,
    uri: CatalogUri,
}

impl Deref for Db {
    type Target = Catalog;

    fn deref(&self) -> &Catalog {
        &self.catalog
    }
}

impl Db {
    /// Opens a catalog that exists.
    ///
    /// # Errors
    /// `Schema` if it was never initialised (it says how), belongs to another program or is newer;
    /// `Unavailable` if it cannot be reached.
    pub async fn open(uri: &CatalogUri) -> Result<Db> {
        let db = Db::assemble(uri, connect(uri, true).await?);
        let info = db.backend().info().await?;
        if info.schema_version < info.supported_schema_version {
            return Err(CatalogError::Schema(if info.schema_version == 0 {
                format!("{uri} holds no catalog yet: make one with `dl init --catalog {uri}`")
            } else {
                format!(
                    "the catalog in {uri} has schema version {}, this program needs {}: upgrade it \
                     with `dl init --catalog {uri}`",
                    info.schema_version, info.supported_schema_version
                )
            }));
        }
        Ok(db)
    }

    /// Opens a catalog, creating or upgrading its tables.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub async fn create(uri: &CatalogUri) -> Result<Db> {
        let db = Db::assemble(uri, connect(uri, false).await?);
        db.backend().migrate(db.clock().now()).await?;
        Ok(db)
    }

    fn assemble(uri: &CatalogUri, backend: Arc<dyn CatalogBackend>) -> Db {
        let cached: Arc<dyn CatalogBackend> = Arc::new(CachedBackend::new(backend));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn IdSource> = Arc::new(RandomIds);
        Db { catalog: Catalog::new(cached, clock, ids), uri: uri.clone() }
    }

    /// The catalog itself.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Where it is.
    #[must_use]
    pub fn uri(&self) -> &CatalogUri {
        &self.uri
    }

    /// A worker that publishes this catalog's commits.
    #[must_use]
    pub fn publisher(&self, config: PublisherConfig) -> Publisher {
        Publisher::new(
            Arc::clone(self.backend()),
            Arc::clone(self.clock()),
            Arc::clone(self.ids()),
            config,
        )
    }
}

async fn connect(uri: &CatalogUri, must_exist: bool) -> Result<Arc<dyn CatalogBackend>> {
    match uri.scheme() {
        #[cfg(feature = "sqlite")]
        Scheme::Sqlite => crate::sqlite::connect(uri, must_exist).await,
        #[cfg(not(feature = "sqlite"))]
        Scheme::Sqlite => Err(CatalogError::Unsupported(format!(
            "{uri} needs the cargo feature `sqlite`, which this build does not have"
        ))),
        Scheme::Memory => {
            let _ = must_exist;
            Ok(Arc::new(deltalakedb_catalog_core::memory::MemoryBackend::new()))
        }
    }
}
