//! The world as the core sees it: time, randomness and progress are handed in.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use deltalakedb_catalog_core::ids::TimestampMs;

/// Time.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall-clock time.
    fn now(&self) -> TimestampMs;
    /// Time since some moment, for durations: a real clock's does not jump when the time of day is set.
    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.now().0).unwrap_or(0))
    }
    /// Waits.
    async fn sleep(&self, duration: Duration);
}

/// Randomness.
pub trait IdSource: Debug + Send + Sync + 'static {
    /// A fresh unique id.
    fn uuid(&self) -> Uuid;
    /// A number in `0.0..1.0`, for jitter.
    fn fraction(&self) -> f64;
}

/// Told how a long piece of work goes. All methods are cheap and never fail.
pub trait Progress: Send + Sync {
    /// A phase begins. `total` is none when it cannot be known; `unit` is a plural noun.
    fn begin(&self, what: &str, unit: &str, total: Option<u64>);
    /// So many more units are done.
    fn advance(&self, units: u64);
    /// The phase is over.
    fn end(&self);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _: &str, _: &str, _: Option<u64>) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
}
