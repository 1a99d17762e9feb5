//! Opens the SQLite backend for a catalog URL.

use std::sync::Arc;
use std::time::Duration;

use deltalakedb_backend_sqlite::{SqliteBackend, SqliteOptions};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::diagnosis::Diagnosis;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};

use crate::uri::SqliteUri;

pub(crate) async fn connect(uri: &SqliteUri, must_exist: bool) -> Result<Arc<dyn CatalogBackend>> {
    let mut options = options(uri);
    options.must_exist = must_exist;
    // Opening reads the file and may wait for a lock.
    match tokio::task::spawn_blocking(move || SqliteBackend::open(options)).await {
        Ok(opened) => Ok(opened?),
        Err(e) => Err(CatalogError::failed(
            format!("opening {uri:?} was interrupted: {e}"),
            WriteState::NotApplied,
        )),
    }
}

/// A look at the file, whose pages are checked for so long.
pub(crate) async fn diagnose(uri: &SqliteUri, limit: Duration) -> Result<Vec<Diagnosis>> {
    let options = options(uri);
    let look = move || deltalakedb_backend_sqlite::diagnose(&options, limit);
    match tokio::task::spawn_blocking(look).await {
        Ok(found) => found,
        Err(e) => Err(CatalogError::failed(
            format!("looking at {uri:?} was interrupted: {e}"),
            WriteState::NotApplied,
        )),
    }
}

/// What the URL says.
fn options(uri: &SqliteUri) -> SqliteOptions {
    let mut options = SqliteOptions::new(uri.path());
    if let Some(prefix) = uri.table_prefix() {
        prefix.clone_into(&mut options.table_prefix);
    }
    if let Some(readers) = uri.readers() {
        options.readers = readers;
    }
    if let Some(busy_timeout_ms) = uri.busy_timeout_ms() {
        options.busy_timeout_ms = busy_timeout_ms;
    }
    options
}
