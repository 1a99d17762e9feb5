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

/// A runtime, and the process that it is of: threads do not come along into a forked child.
struct Started {
    process: u32,
    runtime: std::io::Result<Runtime>,
    /// That of a child.
    next: OnceLock<Box<Started>>,
}

impl Started {
    fn here() -> Started {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("deltalakedb")
            .enable_all()
            .build();
        Started { process: std::process::id(), runtime, next: OnceLock::new() }
    }
}

/// The runtime of this process. A forked child makes its own, and leaves the one that it has inherited alone. What
/// is looked at here has no lock that another thread could have held when the process was forked.
fn runtime() -> Result<&'static Runtime> {
    static FIRST: OnceLock<Started> = OnceLock::new();
    let mut started = FIRST.get_or_init(Started::here);
    while started.process != std::process::id() {
        started = started.next.get_or_init(|| Box::new(Started::here()));
    }
    started.runtime.as_ref().map_err(|e| {
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
