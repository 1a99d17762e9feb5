//! The file of a SQLite catalog.

use std::path::Path;

use deltalakedb_catalog_core::error::{CatalogError, Result};

use super::write::broken_off;
use crate::uri::{CatalogUri, Place};

/// Copies the file of a SQLite catalog to a new file by SQLite's own backup, while it is in use, and
/// returns its bytes. The copy is opened like any catalog. The other databases have tools of their own.
///
/// # Errors
/// `InvalidInput` if the catalog is in another database, or the new file is there already; those of
/// SQLite and of the system.
pub async fn copy_pages(catalog: &CatalogUri, file: &Path) -> Result<u64> {
    let Place::Sqlite(sqlite) = catalog.place() else {
        return Err(CatalogError::invalid(format!(
            "{catalog} is no file of SQLite: back it up to a folder (`dl backup FOLDER`), or with the \
             tools of {}",
            catalog.scheme().database()
        )));
    };
    let (path, file) = (sqlite.path().to_owned(), file.to_owned());
    tokio::task::spawn_blocking(move || deltalakedb_backend_sqlite::copy_pages(&path, &file))
        .await
        .map_err(|e| broken_off(&e))?
}
