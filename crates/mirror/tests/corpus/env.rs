//! A catalog with the real time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::{Clock, IdSource};

#[derive(Debug)]
struct RealTime;

#[async_trait]
impl Clock for RealTime {
    fn now(&self) -> TimestampMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        TimestampMs(i64::try_from(since.as_millis()).unwrap())
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[derive(Debug)]
struct RealIds;

impl IdSource for RealIds {
    fn uuid(&self) -> uuid::Uuid {
        uuid::Uuid::new_v4()
    }

    fn fraction(&self) -> f64 {
        0.5
    }
}

/// A catalog on a backend.
pub(crate) fn catalog(backend: Arc<dyn CatalogBackend>) -> Catalog {
    Catalog::new(backend, Arc::new(RealTime), Arc::new(RealIds))
}
