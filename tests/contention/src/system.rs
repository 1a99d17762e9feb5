//! The real world: the system clock and the operating system's randomness.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_engine::env::{Clock, IdSource};
use uuid::Uuid;

/// The system's wall clock; sleeps on tokio.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> TimestampMs {
        let ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        TimestampMs(i64::try_from(ms).unwrap_or(i64::MAX))
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Random version-4 UUIDs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RandomIds;

impl IdSource for RandomIds {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    fn fraction(&self) -> f64 {
        // 32 random bits are exact in a double.
        let (bits, _, _, _) = Uuid::new_v4().as_fields();
        f64::from(bits) / (f64::from(u32::MAX) + 1.0)
    }
}
