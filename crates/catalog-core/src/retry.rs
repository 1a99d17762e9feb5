//! Repetition of calls on a busy database: the one policy of all that calls a backend.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Catalog;
use crate::env::{Clock, IdSource};
use crate::error::{Result, WriteState};

/// How often a call on a busy database is made: some seconds of pauses, see [`Retry::pause`].
///
/// On a cluster that takes writes everywhere, a writer may lose to those of another node for as
/// long as they keep at it: on three nodes of Galera with eight writers of one table, commits took
/// up to 31 attempts. It also sits out the restart of a server.
pub const MAX_ATTEMPTS: u32 = 60;
/// First pause, milliseconds; it doubles.
const FIRST_PAUSE_MS: i64 = 5;
/// Longest pause, milliseconds: who waits for longer than the others only loses more often.
const MAX_PAUSE_MS: i64 = 250;

/// Time and chance, for pauses.
#[derive(Debug, Clone)]
pub struct Retry {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
}

impl Retry {
    /// Pauses on this clock, with jitter from this source.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        Retry { clock, ids }
    }

    /// With the clock and ids of a catalog.
    #[must_use]
    pub fn of(catalog: &Catalog) -> Self {
        Retry::new(Arc::clone(catalog.clock()), Arc::clone(catalog.ids()))
    }

    /// Makes a call again while the database is busy and nothing was written, within a bound.
    ///
    /// # Errors
    /// The last one of the call.
    pub async fn repeat<T, F, Fut>(&self, mut call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut attempt = 0;
        loop {
            match call().await {
                Err(e)
                    if e.is_retryable()
                        && e.write_state() == WriteState::NotApplied
                        && attempt + 1 < MAX_ATTEMPTS =>
                {
                    tracing::debug!(attempt, error = %e, "call goes again");
                    self.pause(attempt).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    /// Waits before a repetition; `attempt` counts from 0.
    pub async fn pause(&self, attempt: u32) {
        let ms = backoff_ms(FIRST_PAUSE_MS, MAX_PAUSE_MS, attempt, self.ids.fraction());
        self.clock.sleep(Duration::from_millis(u64::try_from(ms).unwrap_or(0))).await;
    }
}

/// Milliseconds: `first * 2^attempt`, at most `max`; between half of it and all of it, by `fraction`.
#[must_use]
pub fn backoff_ms(first: i64, max: i64, attempt: u32, fraction: f64) -> i64 {
    let doubled = 1_i64.checked_shl(attempt.min(62)).map_or(max, |f| first.saturating_mul(f));
    let half = doubled.clamp(1, max.max(1)) / 2;
    let jitter = Duration::from_millis(u64::try_from(half).unwrap_or(0))
        .mul_f64(fraction.clamp(0.0, 1.0))
        .as_millis();
    half.saturating_add(i64::try_from(jitter).unwrap_or(0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        assert_eq!(backoff_ms(500, 300_000, 0, 0.0), 250);
        assert_eq!(backoff_ms(500, 300_000, 0, 1.0), 500);
        assert_eq!(backoff_ms(500, 300_000, 3, 1.0), 4_000);
        for attempt in [10, 40, 63, 64, u32::MAX] {
            let ms = backoff_ms(500, 300_000, attempt, 0.5);
            assert_eq!(ms, 225_000, "{attempt}");
        }
        assert_eq!(backoff_ms(1, 1, 0, 0.0), 1);
    }

    #[test]
    fn a_busy_database_is_given_some_seconds_and_no_more() {
        for (fraction, total_ms) in [(0.0, 6_000..8_000), (1.0, 12_000..15_000)] {
            let pauses = (0..MAX_ATTEMPTS - 1)
                .map(|attempt| backoff_ms(FIRST_PAUSE_MS, MAX_PAUSE_MS, attempt, fraction));
            let sum: i64 = pauses.sum();
            assert!(total_ms.contains(&sum), "{sum} ms");
        }
    }
}
