//! Opens the SQLite backend for a catalog URL.

use std::sync::Arc;
use std::time::Duration;

use deltalakedb_backend_sqlite::{SqliteBackend, SqliteOptions, drop_views, views as views_of};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::diagnosis::{Diagnosis, Tended};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};

use crate::uri::SqliteUri;

pub(crate) async fn connect(uri: &SqliteUri, must_exist: bool) -> Result<Arc<dyn CatalogBackend>> {
    let mut options = options(uri);
    options.must_exist = must_exist;
    Ok(open(options).await?)
}

/// Statements that make the views, or drop them.
pub(crate) fn views(uri: &SqliteUri, make: bool) -> Result<Vec<String>> {
    let options = options(uri);
    if make { views_of(&options) } else { drop_views(&options) }
}

/// Makes the views, or drops them.
pub(crate) async fn set_views(uri: &SqliteUri, make: bool) -> Result<()> {
    let mut options = options(uri);
    options.must_exist = true;
    let backend = open(options).await?;
    if make { backend.make_views().await } else { backend.drop_views().await }
}

async fn open(options: SqliteOptions) -> Result<Arc<SqliteBackend>> {
    let path = options.path.clone();
    // Opening reads the file and may wait for a lock.
    match tokio::task::spawn_blocking(move || SqliteBackend::open(options)).await {
        Ok(opened) => opened,
        Err(e) => Err(CatalogError::failed(
            format!("opening '{}' was interrupted: {e}", path.display()),
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

/// What the file likes to have done, within a time.
pub(crate) async fn tend(uri: &SqliteUri, limit: Duration, dry_run: bool) -> Result<Tended> {
    let options = options(uri);
    let work = move || deltalakedb_backend_sqlite::tend(&options, limit, dry_run);
    match tokio::task::spawn_blocking(work).await {
        Ok(tended) => tended,
        Err(e) => Err(CatalogError::failed(
            format!("upkeep of {uri:?} was interrupted: {e}"),
            WriteState::Unknown,
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
