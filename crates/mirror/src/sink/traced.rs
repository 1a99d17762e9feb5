//! Calls to a log folder, timed, counted and logged: for those who want to see what a program does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::sink::{MirrorSink, PutOutcome, Replaced, SinkEntry};
use deltalakedb_catalog_engine::spans;
use tracing::Instrument;
use tracing::field::Empty;

use crate::measure::{self, StoreCall};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Calls to log folders since the process began.
#[must_use]
pub fn traced_calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// Around a sink.
pub(super) fn traced(inner: Arc<dyn MirrorSink>) -> Arc<dyn MirrorSink> {
    Arc::new(TracedSink { inner })
}

#[derive(Debug)]
struct TracedSink {
    inner: Arc<dyn MirrorSink>,
}

impl TracedSink {
    async fn run<T>(
        &self,
        (call, kind): (&str, Option<StoreCall>),
        name: &str,
        answer: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let span = tracing::trace_span!(
            "store",
            call,
            otel.status_code = Empty,
            error.type = Empty
        );
        let answer = answer.instrument(span.clone()).await;
        spans::ended(&span, answer.as_ref().err().map(CatalogError::code));
        let time = start.elapsed();
        if let Some(kind) = kind {
            measure::store_call(kind, answer.is_ok(), time);
        }
        let ms = time.as_secs_f64() * 1_000.0;
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
        self.run(
            ("put_if_absent", Some(StoreCall::Put)),
            name,
            self.inner.put_if_absent(name, bytes),
        )
        .await
    }

    async fn replace(&self, name: &str, expected: &[u8], bytes: Bytes) -> Result<Replaced> {
        self.run(("replace", Some(StoreCall::Put)), name, self.inner.replace(name, expected, bytes))
            .await
    }

    async fn put_replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.run(("put_replace", Some(StoreCall::Put)), name, self.inner.put_replace(name, bytes))
            .await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.run(("delete", Some(StoreCall::Delete)), name, self.inner.delete(name)).await
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        self.run(("get", Some(StoreCall::Get)), name, self.inner.get(name)).await
    }

    async fn list(&self, after: Option<&str>) -> Result<Vec<SinkEntry>> {
        self.run(("list", Some(StoreCall::List)), after.unwrap_or_default(), self.inner.list(after))
            .await
    }

    async fn set_modified(&self, name: &str, time: TimestampMs) -> Result<()> {
        self.run(("set_modified", None), name, self.inner.set_modified(name, time)).await
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
