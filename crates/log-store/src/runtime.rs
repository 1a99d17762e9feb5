//! The runtime that catalogs live on.
//!
//! `deltalake` calls its object store from runtimes of its own making, and database pools must stay on
//! the one that opened them.

use std::future::Future;
use std::sync::OnceLock;

use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use tokio::runtime::{Builder, Runtime};

/// Threads of it: databases do the work, not these.
const THREADS: usize = 2;

fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            Builder::new_multi_thread()
                .worker_threads(THREADS)
                .thread_name("deltalakedb")
                .enable_all()
                .build()
        })
        .as_ref()
        .map_err(|e| {
            CatalogError::failed(format!("cannot start threads: {e}"), WriteState::NotApplied)
        })
}

/// Runs work on the runtime that catalogs are opened on, to its end: it is not cancelled with the
/// caller, as with any remote store.
///
/// # Errors
/// Those of the work; `Unavailable` if it panicked.
pub async fn run<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    runtime()?.spawn(work).await.map_err(|e| {
        CatalogError::failed(format!("work was broken off: {e}"), WriteState::Unknown)
    })?
}
