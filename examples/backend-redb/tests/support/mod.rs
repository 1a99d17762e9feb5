//! How the suite gets databases: a file in a temporary folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use deltalakedb_backend_redb::RedbBackend;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_conformance::{Fixture, Harness};

pub(crate) fn harnesses() -> Vec<Arc<dyn Harness>> {
    vec![Arc::new(Redb::default())]
}

/// The handles that are open, by path: redb locks a file for the one that opened it.
#[derive(Default)]
struct Redb {
    open: Mutex<BTreeMap<String, Weak<RedbBackend>>>,
}

impl Redb {
    fn open(&self, path: &str) -> Result<Arc<RedbBackend>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = open.get(path).and_then(Weak::upgrade) {
            return Ok(found);
        }
        let opened = Arc::new(RedbBackend::open(Path::new(path))?);
        open.insert(path.to_owned(), Arc::downgrade(&opened));
        Ok(opened)
    }
}

#[async_trait]
impl Harness for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    async fn fresh(&self) -> Result<Fixture> {
        let folder = tempfile::tempdir().map_err(|e| {
            CatalogError::failed(format!("no temporary folder: {e}"), WriteState::NotApplied)
        })?;
        let path = folder.path().join("catalog.redb").to_string_lossy().into_owned();
        let backend = self.open(&path)?;
        Ok(Fixture::new(backend, path).guarded_by(folder))
    }

    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        Ok(Some(self.open(&fixture.place)?))
    }
}
