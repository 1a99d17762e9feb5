//! The part for those who run a program: its connections, and the end of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::WriteResult;

/// The connections of a backend, at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct PoolStats {
    /// Most connections that there are at a time.
    pub limit: u64,
    /// Connections that a call uses.
    pub active: u64,
    /// Connections that rest.
    pub idle: u64,
    /// Calls that had to wait until another call gave its connection back, since the backend was opened.
    pub waits_total: u64,
    /// How long they waited, all together, microseconds.
    pub wait_us_total: u64,
}

/// Calls that waited for a connection, counted: for authors of backends.
#[derive(Debug, Default)]
pub struct Waits {
    total: AtomicU64,
    micros: AtomicU64,
}

impl Waits {
    /// Counts a call that has waited for so long.
    pub fn note(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.total.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The state of a pool with these connections.
    #[must_use]
    pub fn stats(&self, limit: usize, active: usize, idle: usize) -> PoolStats {
        let number = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        PoolStats {
            limit: number(limit),
            active: number(active),
            idle: number(idle),
            waits_total: self.total.load(Ordering::Relaxed),
            wait_us_total: self.micros.load(Ordering::Relaxed),
        }
    }
}

/// Tells of a backend's connections, and closes them.
#[async_trait]
pub trait OperateBackend: Send + Sync {
    /// The connections at this moment; none if the backend has no limited number of connections. It asks
    /// nobody, and never waits.
    ///
    /// 1. There is at least one connection at most, and no more are there than may be. What is counted
    ///    since the backend was opened never goes down.
    /// 2. A call that was answered uses no connection any more.
    fn pool_stats(&self) -> Option<PoolStats>;

    /// Closes the connections that rest, and the others when their calls have ended. Other handles on the
    /// same database go on.
    ///
    /// 1. A call that begins after it fails as `Unavailable`, not to be made again, and writes nothing. Its
    ///    message says that the catalog was closed.
    /// 2. A call that is under way when it begins ends as it would have, or fails as a whole.
    /// 3. It can be repeated.
    /// 4. Once it was polled, it takes effect: if its future is dropped then, calls that begin later fail, and
    ///    connections that are left are closed by themselves.
    async fn close(&self) -> WriteResult<()>;
}
