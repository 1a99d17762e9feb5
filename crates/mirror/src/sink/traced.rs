//! Calls to a log folder, counted and logged: for those who want to see what a program does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::sink::{MirrorSink, PutOutcome, Replaced, SinkEntry};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Calls to log folders since the process began, through sinks that were opened while `info` was
/// logged; others are not counted.
#[must_use]
pub fn traced_calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// Around a sink, if somebody reads the log; else the sink itself.
pub(super) fn traced(inner: Arc<dyn MirrorSink>) -> Arc<dyn MirrorSink> {
    if tracing::enabled!(tracing::Level::INFO) { Arc::new(TracedSink { inner }) } else { inner }
}

#[derive(Debug)]
struct TracedSink {
    inner: Arc<dyn MirrorSink>,
}

impl TracedSink {
    async fn run<T>(
        &self,
        call: &str,
        name: &str,
        answer: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let answer = answer.await;
        let ms = start.elapsed().as_secs_f64() * 1_000.0;
        match &answer {
            Ok(_) => tracing::debug!(call, name, ms, "store"),
            Err(error) => tracing::debug!(call, name, ms, %error, "store"),
        }
        answer
    }
}

/// Every method is written out: a new one of the trait does not compile until it is here.
#[async_trait]
impl MirrorSink for TracedSink {
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<PutOutcome> {
        self.run("put_if_absent", name, self.inner.put_if_absent(name, bytes)).await
    }

    async fn replace(&self, name: &str, expected: &[u8], bytes: Bytes) -> Result<Replaced> {
        self.run("replace", name, self.inner.replace(name, expected, bytes)).await
    }

    async fn put_replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.run("put_replace", name, self.inner.put_replace(name, bytes)).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.run("delete", name, self.inner.delete(name)).await
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        self.run("get", name, self.inner.get(name)).await
    }

    async fn list(&self, after: Option<&str>) -> Result<Vec<SinkEntry>> {
        self.run("list", after.unwrap_or_default(), self.inner.list(after)).await
    }

    async fn set_modified(&self, name: &str, time: TimestampMs) -> Result<()> {
        self.run("set_modified", name, self.inner.set_modified(name, time)).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
