//! Repetition of calls on a busy database: the one policy of all that calls a backend.
//!
//! A call is made again while the database says that it is busy, [`MAX_ATTEMPTS`] times at most and as
//! long as `retry_timeout` allows ([`DEFAULT_TIMEOUT`]), unless the [`RetryPolicy`] says otherwise. All time counts, that of the calls too: one that
//! ran into its own time limit has used up its share. No attempt begins after that time, nor a pause
//! that would pass it; an attempt on its way is not cut short, as its own limit (`statement_timeout`) bounds it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use crate::env::{Clock, IdSource};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};

/// How often a call on a busy database is made: some seconds of pauses, see [`Retry::pause`].
///
/// On a cluster that takes writes everywhere, a writer may lose to those of another node for as
/// long as they keep at it: on three nodes of Galera with eight writers of one table, commits took
/// up to 31 attempts. It also sits out the restart of a server.
pub const MAX_ATTEMPTS: u32 = 60;
/// How long a call on a busy database is repeated, unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// First pause unless told otherwise, milliseconds; it doubles.
const FIRST_PAUSE_MS: i64 = 5;
/// Longest pause, in first pauses: who waits for longer than the others only loses more often.
const MAX_PAUSE: i64 = 50;

/// How often and how long calls on a busy database are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often a call is made at most; 0 counts as 1. Default [`MAX_ATTEMPTS`].
    pub attempts: u32,
    /// First pause; it doubles, up to 50 times its length. Default 5 ms.
    pub first_pause: Duration,
    /// How long a call is repeated at most; zero = not at all. Default [`DEFAULT_TIMEOUT`].
    pub timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy {
            attempts: MAX_ATTEMPTS,
            first_pause: Duration::from_millis(FIRST_PAUSE_MS.unsigned_abs()),
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

/// Time and chance, for pauses, and how long all of it may take.
#[derive(Debug, Clone)]
pub struct Retry {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    policy: RetryPolicy,
}

impl Retry {
    /// Pauses on this clock, with jitter from this source.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, ids: Arc<dyn IdSource>) -> Self {
        Retry { clock, ids, policy: RetryPolicy::default() }
    }

    /// The same with another time limit.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.policy.timeout = timeout;
        self
    }

    /// The same with another policy.
    #[must_use]
    pub fn with_policy(mut self, policy: RetryPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Makes a call again while the database is busy and nothing was written, within the bounds.
    ///
    /// # Errors
    /// The last one of the call; if it was made several times, or for as long as it may be, with how often
    /// and how long.
    pub async fn repeat<T, E, F, Fut>(&self, mut call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<CatalogError>,
    {
        let mut attempts = self.start();
        loop {
            match call().await.map_err(Into::into) {
                Err(e) if e.is_retryable() && e.write_state() == WriteState::NotApplied => {
                    if !attempts.again().await {
                        return Err(attempts.explain(e));
                    }
                    let attempt = attempts.failures - 1;
                    tracing::debug!(attempt, error = %e, "call goes again");
                }
                other => return other,
            }
        }
    }

    /// Begins to count: for calls that need more between two attempts than [`Retry::repeat`] does.
    #[must_use]
    pub fn start(&self) -> Attempts {
        Attempts { retry: self.clone(), begun: self.clock.monotonic(), failures: 0 }
    }

    /// Waits before a repetition; `attempt` counts from 0.
    pub async fn pause(&self, attempt: u32) {
        self.clock.sleep(self.length(attempt)).await;
    }

    fn length(&self, attempt: u32) -> Duration {
        let first = i64::try_from(self.policy.first_pause.as_millis()).unwrap_or(i64::MAX).max(1);
        let longest = first.saturating_mul(MAX_PAUSE);
        let ms = backoff_ms(first, longest, attempt, self.ids.fraction());
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }
}

/// Attempts at one thing that have failed in a row, and since when.
#[derive(Debug, Clone)]
pub struct Attempts {
    retry: Retry,
    begun: Duration,
    failures: u32,
}

impl Attempts {
    /// Counts a failure, and waits before the next attempt; false if there is to be none.
    pub async fn again(&mut self) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= self.retry.policy.attempts {
            return false;
        }
        let pause = self.retry.length(self.failures - 1);
        if self.spent().saturating_add(pause) > self.retry.policy.timeout {
            return false;
        }
        self.retry.clock.sleep(pause).await;
        true
    }

    /// Forgets the failures: what was done since shows that the database works.
    pub fn begin_anew(&mut self) {
        *self = self.retry.start();
    }

    /// How long it has been tried.
    #[must_use]
    pub fn spent(&self) -> Duration {
        self.retry.clock.monotonic().saturating_sub(self.begun)
    }

    /// The error of the last attempt with how often and how long it was tried.
    #[must_use]
    pub fn explain(&self, error: CatalogError) -> CatalogError {
        let CatalogError::Unavailable { message, retryable, write } = error else { return error };
        let times = match self.failures {
            0 | 1 => "once".to_owned(),
            times => format!("{times} times"),
        };
        let limit = if self.failures < self.retry.policy.attempts {
            format!("; retry_timeout allows {:.1} s", self.retry.policy.timeout.as_secs_f64())
        } else {
            String::new()
        };
        let spent = self.spent().as_secs_f64();
        CatalogError::Unavailable {
            message: format!("{message} (tried {times} in {spent:.1} s{limit})"),
            retryable,
            write,
        }
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
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use uuid::Uuid;

    use super::*;
    use deltalakedb_catalog_core::ids::TimestampMs;

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

    /// A clock that only goes on when it is told to, or slept on.
    #[derive(Debug, Default)]
    struct Told(AtomicU64);

    impl Told {
        fn pass(&self, time: Duration) {
            self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
        }
    }

    #[async_trait]
    impl Clock for Told {
        fn now(&self) -> TimestampMs {
            TimestampMs(i64::try_from(self.0.load(Ordering::Relaxed)).unwrap())
        }

        async fn sleep(&self, time: Duration) {
            self.pass(time);
        }
    }

    #[derive(Debug)]
    struct Half;

    impl IdSource for Half {
        fn uuid(&self) -> Uuid {
            Uuid::nil()
        }

        fn fraction(&self) -> f64 {
            0.5
        }
    }

    /// Calls that are busy after so long each: how many are made, how long it takes, and the error.
    async fn busy_after(each: Duration, limit: Option<Duration>) -> (u32, Duration, String) {
        let clock = Arc::new(Told::default());
        let mut retry = Retry::new(clock.clone(), Arc::new(Half));
        if let Some(limit) = limit {
            retry = retry.with_timeout(limit);
        }
        let mut calls = 0;
        let answer: Result<()> = retry
            .repeat(|| {
                calls += 1;
                clock.pass(each);
                async { Err(CatalogError::busy("the row is locked", WriteState::NotApplied)) }
            })
            .await;
        (calls, clock.monotonic(), answer.unwrap_err().to_string())
    }

    #[tokio::test]
    async fn calls_that_run_into_their_own_limit_are_not_repeated_for_an_hour() {
        let (calls, took, error) = busy_after(Duration::from_secs(60), None).await;
        assert_eq!((calls, took), (1, Duration::from_secs(60)), "{error}");
        assert!(error.contains("the row is locked (tried once in 60.0 s"), "{error}");
        assert!(error.contains("retry_timeout allows 60.0 s"), "{error}");

        let (calls, took, error) = busy_after(Duration::from_secs(10), None).await;
        assert_eq!(calls, 6, "{error}");
        assert!(took <= DEFAULT_TIMEOUT + Duration::from_secs(10), "{took:?}");
        assert!(error.contains("tried 6 times in 60."), "{error}");
    }

    #[tokio::test]
    async fn no_pause_passes_the_deadline() {
        for limit in (0..400).map(Duration::from_millis) {
            let (calls, took, error) = busy_after(Duration::ZERO, Some(limit)).await;
            assert!(took <= limit, "{took:?} of {limit:?}, {calls} calls: {error}");
        }
        let (calls, took, error) = busy_after(Duration::ZERO, Some(Duration::ZERO)).await;
        assert_eq!((calls, took), (1, Duration::ZERO), "{error}");
    }

    #[tokio::test]
    async fn attempts_are_bounded_too() {
        let (calls, took, error) = busy_after(Duration::ZERO, None).await;
        assert_eq!(calls, MAX_ATTEMPTS, "{error}");
        assert!(took < Duration::from_secs(15), "{took:?}");
        assert!(
            error.contains("tried 60 times in 1") && !error.contains("retry_timeout"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn count_and_first_pause_are_settings() {
        let run = async |attempts, first_pause| {
            let clock = Arc::new(Told::default());
            let policy = RetryPolicy { attempts, first_pause, ..RetryPolicy::default() };
            let retry = Retry::new(clock.clone(), Arc::new(Half)).with_policy(policy);
            let mut calls = 0;
            let answer: Result<()> = retry
                .repeat(|| {
                    calls += 1;
                    async { Err(CatalogError::busy("the row is locked", WriteState::NotApplied)) }
                })
                .await;
            (calls, clock.monotonic(), answer.unwrap_err().to_string())
        };
        let (calls, took, error) = run(3, Duration::from_millis(100)).await;
        // Three quarters of 100 and of 200.
        assert_eq!((calls, took), (3, Duration::from_millis(225)), "{error}");
        assert!(error.contains("tried 3 times") && !error.contains("retry_timeout"), "{error}");
        for none in [0, 1] {
            let (calls, took, error) = run(none, Duration::from_millis(100)).await;
            assert_eq!((calls, took), (1, Duration::ZERO), "{error}");
        }
        let (calls, took, error) = run(4, Duration::MAX).await;
        assert_eq!((calls, took), (1, Duration::ZERO), "no pause passes the deadline: {error}");
    }

    #[test]
    fn a_busy_database_is_given_some_seconds_and_no_more() {
        for (fraction, total_ms) in [(0.0, 6_000..8_000), (1.0, 12_000..15_000)] {
            let pauses = (0..MAX_ATTEMPTS - 1).map(|attempt| {
                backoff_ms(FIRST_PAUSE_MS, FIRST_PAUSE_MS * MAX_PAUSE, attempt, fraction)
            });
            let sum: i64 = pauses.sum();
            assert!(total_ms.contains(&sum), "{sum} ms");
        }
    }
}
