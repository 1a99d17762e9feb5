//! Calls to the database, counted and logged: for those who want to see what a program does.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::delegate;
use deltalakedb_catalog_core::delegation::{CallError, Verb};

/// Calls of all catalogs of this process that are traced.
static CALLS: AtomicU64 = AtomicU64::new(0);
/// Those of them that the database was too busy for: they are made again.
static BUSY: AtomicU64 = AtomicU64::new(0);

/// What was counted since the process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Calls to databases.
    pub database_calls: u64,
    /// Those of them that were too busy, and are made again.
    pub retries: u64,
    /// Calls to the object stores (or folders) of published logs.
    pub store_calls: u64,
}

/// Calls so far, of catalogs that were opened while `info` was logged; others are not counted.
#[must_use]
pub fn counts() -> Counts {
    Counts {
        database_calls: CALLS.load(Ordering::Relaxed),
        retries: BUSY.load(Ordering::Relaxed),
        store_calls: deltalakedb_mirror::sink::traced_calls(),
    }
}

/// Around a backend, if somebody reads the log; else the backend itself.
pub(crate) fn traced(inner: Arc<dyn CatalogBackend>) -> Arc<dyn CatalogBackend> {
    if tracing::enabled!(tracing::Level::INFO) { Arc::new(TracedBackend { inner }) } else { inner }
}

struct TracedBackend {
    inner: Arc<dyn CatalogBackend>,
}

impl TracedBackend {
    async fn run<T, E: CallError>(
        &self,
        verb: Verb,
        answer: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        let call = verb.name();
        CALLS.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let answer = answer.await;
        let ms = start.elapsed().as_secs_f64() * 1_000.0;
        match &answer {
            Ok(_) => tracing::debug!(call, ms, "database"),
            Err(error) => {
                if error.is_retryable() {
                    BUSY.fetch_add(1, Ordering::Relaxed);
                }
                tracing::debug!(call, ms, %error, "database");
            }
        }
        answer
    }
}

impl fmt::Debug for TracedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

delegate!(
    SchemaBackend, TableBackend, ReadBackend, CommitBackend, SkipBackend, ImportBackend, OutboxBackend
    for TracedBackend => inner, around run
);
