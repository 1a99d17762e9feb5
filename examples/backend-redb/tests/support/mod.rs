//! How the suite gets databases: a file in a temporary folder.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use deltalakedb_backend_redb::RedbBackend;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_conformance::{Fixture, Harness};

pub(crate) fn harnesses() -> Vec<Arc<dyn Harness>> {
    vec![Arc::new(Redb)]
}

struct Redb;

#[async_trait]
impl Harness for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    async fn fresh(&self) -> Result<Fixture> {
        let folder = tempfile::tempdir().map_err(|e| {
            CatalogError::failed(format!("no temporary folder: {e}"), WriteState::NotApplied)
        })?;
        let path = folder.path().join("catalog.redb");
        let backend = Arc::new(RedbBackend::open(&path)?);
        Ok(Fixture::new(backend, path.to_string_lossy()).guarded_by(folder))
    }

    /// Within a process, all handles on a path share the database that redb locks.
    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        Ok(Some(Arc::new(RedbBackend::open(Path::new(&fixture.place))?)))
    }
}
