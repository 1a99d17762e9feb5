//! Calls to the database, timed, counted and logged: for those who want to see what a program does.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::delegate;
use deltalakedb_catalog_core::delegation::{CallError, Verb};
use deltalakedb_catalog_engine::measure::{CallOutcome, Meters};
use deltalakedb_catalog_engine::spans;
use tracing::Instrument;
use tracing::field::Empty;

/// From so long on a call is slow, unless told otherwise.
pub const SLOW_CALL: Duration = Duration::from_secs(1);
/// Calls of all catalogs of this process.
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

/// Calls so far, of all catalogs of this process.
#[must_use]
pub fn counts() -> Counts {
    Counts {
        database_calls: CALLS.load(Ordering::Relaxed),
        retries: BUSY.load(Ordering::Relaxed),
        store_calls: deltalakedb_mirror::sink::traced_calls(),
    }
}

/// A call of the database that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallEvent {
    /// Which one, in snake case: `snapshot`, `commit`, `list_files`, …
    pub statement: &'static str,
    /// `ok`, `busy`, `unavailable`, `unknown` or `error`, see [`CallOutcome::label`].
    pub outcome: &'static str,
    /// The code of the error, if it failed.
    pub code: Option<&'static str>,
    /// How long it took.
    pub time: Duration,
}

pub(crate) type CallHook = Arc<dyn Fn(&CallEvent) + Send + Sync>;

/// What all handles of one opened catalog share: numbers and hooks.
pub(crate) struct Watch {
    meters: Arc<Meters>,
    slow_us: AtomicU64,
    is_heard: AtomicBool,
    /// Each with the time from which on it is told of a call.
    hooks: RwLock<Vec<(Duration, CallHook)>>,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            meters: Arc::default(),
            slow_us: AtomicU64::new(micros(SLOW_CALL)),
            is_heard: AtomicBool::new(false),
            hooks: RwLock::default(),
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Watch {
    pub(crate) fn meters(&self) -> Arc<Meters> {
        Arc::clone(&self.meters)
    }

    /// A call has ended.
    pub(crate) fn ended(
        &self,
        verb: Verb,
        outcome: CallOutcome,
        code: Option<&'static str>,
        time: Duration,
    ) {
        self.meters.call(verb, outcome, time);
        if micros(time) >= self.slow_us.load(Ordering::Relaxed) {
            tracing::warn!(
                target: "deltalakedb::slow",
                statement = verb.label(),
                outcome = outcome.label(),
                ms = time.as_secs_f64() * 1_000.0,
                "slow call of the database"
            );
        }
        if !self.is_heard.load(Ordering::Acquire) {
            return;
        }
        let event = CallEvent { statement: verb.label(), outcome: outcome.label(), code, time };
        // No lock is held while hooks run: they may add others.
        let hooks = self.hooks.read().unwrap_or_else(PoisonError::into_inner).clone();
        for (from, hook) in hooks {
            if time >= from {
                hook(&event);
            }
        }
    }

    /// Calls that take at least so long are warned of.
    pub(crate) fn warn_from(&self, threshold: Duration) {
        self.slow_us.store(micros(threshold), Ordering::Relaxed);
    }

    pub(crate) fn hear(&self, from: Duration, hook: CallHook) {
        self.hooks.write().unwrap_or_else(PoisonError::into_inner).push((from, hook));
        self.is_heard.store(true, Ordering::Release);
    }
}

/// Around a backend.
pub(crate) fn traced(
    inner: Arc<dyn CatalogBackend>,
    watch: &Arc<Watch>,
) -> Arc<dyn CatalogBackend> {
    Arc::new(TracedBackend { inner, watch: Arc::clone(watch) })
}

struct TracedBackend {
    inner: Arc<dyn CatalogBackend>,
    watch: Arc<Watch>,
}

impl TracedBackend {
    async fn run<T, E: CallError>(
        &self,
        verb: Verb,
        answer: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, E> {
        CALLS.fetch_add(1, Ordering::Relaxed);
        let start = Instant::now();
        let span = tracing::trace_span!(
            "call",
            statement = verb.label(),
            otel.kind = "client",
            otel.status_code = Empty,
            error.type = Empty
        );
        let answer = answer.instrument(span.clone()).await;
        let time = start.elapsed();
        spans::ended(&span, answer.as_ref().err().map(CallError::code));
        match &answer {
            Ok(_) => self.watch.ended(verb, CallOutcome::Ok, None, time),
            Err(error) => {
                if error.is_retryable() {
                    BUSY.fetch_add(1, Ordering::Relaxed);
                }
                self.watch.ended(verb, CallOutcome::of(error), Some(error.code()), time);
            }
        }
        let ms = time.as_secs_f64() * 1_000.0;
        match &answer {
            Ok(_) => tracing::debug!(call = verb.name(), ms, "database"),
            Err(error) => tracing::debug!(call = verb.name(), ms, %error, "database"),
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
    SchemaBackend, TableBackend, ReadBackend, CommitBackend, SkipBackend, ImportBackend, OutboxBackend,
    OperateBackend, AuditBackend, RegistryBackend
    for TracedBackend => inner, around run
);
