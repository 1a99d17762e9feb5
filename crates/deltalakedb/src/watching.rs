//! Watching a catalog: metrics, hooks, and a warm cache.
//!
//! All numbers are there without further ado, see [`Db::metrics`]. A program that has installed a recorder of
//! the [`metrics`] crate before it opened the catalog has them in that recorder, too, by the names of
//! [`METRICS`]; it calls [`Db::export_gauges`] before each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use deltalakedb_cache::{CacheKind, CacheStats};
use deltalakedb_catalog_core::backend::PoolStats;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{At, TableRef};
use deltalakedb_catalog_engine::catalog::{CommitEvent, CommitHook};
use deltalakedb_catalog_engine::measure::{Count, Timer};
use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use crate::Db;

mod names;

pub use crate::traced::{CallEvent, SLOW_CALL};
pub use names::{METRICS, Metric, MetricKind, describe};

/// Tables that are warmed at a time.
const WARM_AT_A_TIME: usize = 4;

struct OnCommit<F>(F);

impl<F> fmt::Debug for OnCommit<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnCommit").finish_non_exhaustive()
    }
}

impl<F: Fn(&CommitEvent<'_>) + Send + Sync> CommitHook for OnCommit<F> {
    fn committed(&self, commit: &CommitEvent<'_>) {
        (self.0)(commit);
    }
}

/// One number with its labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Its name, one of [`METRICS`].
    pub name: &'static str,
    /// Its labels.
    pub labels: BTreeMap<&'static str, &'static str>,
    /// How often.
    pub count: u64,
    /// How long all together, seconds; none of what is only counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// All numbers at one moment, see [`Db::metrics`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricsSnapshot {
    /// What was counted and timed, if it happened at all: of this catalog since it was opened, and what the
    /// mirror did for all catalogs of this process.
    pub measured: Vec<Measured>,
    /// The connections.
    pub pool: Option<PoolStats>,
    /// The cache.
    pub cache: CacheStats,
    /// See [`CacheStats::hit_ratio`].
    pub cache_hit_ratio: Option<f64>,
}

impl MetricsSnapshot {
    /// How often something happened, over all series of a name that have this label.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> deltalakedb::Result<()> {
    /// let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
    /// db.create_table("t").location("memory://metrics/t").columns("id long").await?;
    /// let metrics = db.metrics();
    /// assert_eq!(metrics.count("dl_commits_total", Some(("outcome", "committed"))), 1);
    /// println!("{}", serde_json::to_string(&metrics).unwrap());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn count(&self, name: &str, label: Option<(&str, &str)>) -> u64 {
        let has = |m: &&Measured| {
            label.is_none_or(|(key, value)| m.labels.get(key).is_some_and(|is| *is == value))
        };
        let found = self.measured.iter().filter(|m| m.name == name).filter(has);
        found.map(|m| m.count).sum()
    }
}

fn timed(timer: &Timer) -> Measured {
    let (series, seconds) = (timer.series(), timer.total().as_secs_f64());
    let labels = series.labels().iter().copied().collect();
    Measured { name: series.name(), labels, count: timer.count(), seconds: Some(seconds) }
}

fn counted(count: &Count) -> Measured {
    let series = count.series();
    let labels = series.labels().iter().copied().collect();
    Measured { name: series.name(), labels, count: count.get(), seconds: None }
}

/// What [`Db::warm`] has read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Warmed {
    /// Tables that were read to their end.
    pub tables: u64,
    /// Their files.
    pub files: u64,
    /// Tables that could not be read, and why.
    pub failures: Vec<(String, String)>,
    /// Tables for which there was no time left.
    pub late: u64,
}

impl Db {
    /// What was counted and timed, the pool and the cache: for programs without an exporter.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        use deltalakedb_mirror::measure;
        let meters = self.watch.meters();
        let timers = meters.timers().map(timed).chain(measure::timers().map(timed));
        let timers = timers.chain(crate::maintain::timers().map(timed));
        let counts = meters.counts().map(counted).chain(measure::counts().map(counted));
        let cache = self.cache_stats();
        MetricsSnapshot {
            measured: timers.chain(counts).collect(),
            pool: self.pool_stats(),
            cache_hit_ratio: cache.hit_ratio(),
            cache,
        }
    }

    /// Tells the recorder of the [`metrics`] crate the state of the pool and of the cache. To be called before
    /// each scrape; all other numbers are told when they change.
    pub fn export_gauges(&self) {
        // Up to 2^53 a double is exact.
        #[expect(clippy::cast_precision_loss, reason = "gauges are doubles")]
        let gauge = |value: u64| value as f64;
        if let Some(pool) = self.pool_stats() {
            metrics::gauge!("dl_pool_connections", "state" => "active").set(gauge(pool.active));
            metrics::gauge!("dl_pool_connections", "state" => "idle").set(gauge(pool.idle));
            metrics::gauge!("dl_pool_limit").set(gauge(pool.limit));
            metrics::counter!("dl_pool_waits_total").absolute(pool.waits_total);
        }
        let cache = self.cache_stats();
        for (kind, stats) in CacheKind::ALL.iter().zip(&cache.kinds) {
            metrics::counter!("dl_cache_hits_total", "kind" => kind.label()).absolute(stats.hits);
            metrics::counter!("dl_cache_misses_total", "kind" => kind.label())
                .absolute(stats.misses);
        }
        metrics::gauge!("dl_cache_weight_bytes").set(gauge(cache.weight_bytes));
        metrics::gauge!("dl_cache_capacity_bytes").set(gauge(cache.capacity_bytes));
        // Before the first question nothing was missed.
        metrics::gauge!("dl_cache_hit_ratio").set(cache.hit_ratio().unwrap_or(1.0));
    }

    /// The same with a hook for each call of the database, of all handles on this opened catalog. The hook must
    /// not block: the caller waits for it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> deltalakedb::Result<()> {
    /// let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
    /// let db = db.on_call(|call| println!("{} {}: {:?}", call.statement, call.outcome, call.time));
    /// # drop(db);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on_call(self, hook: impl Fn(&CallEvent) + Send + Sync + 'static) -> Self {
        self.watch.hear(Duration::ZERO, Arc::new(hook));
        self
    }

    /// The same with a hook for each call of the database that takes at least so long, see [`Db::on_call`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> deltalakedb::Result<()> {
    /// use std::time::Duration;
    /// let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
    /// let db = db.on_slow_call(Duration::from_millis(200), |call| {
    ///     eprintln!("{} took {:?}", call.statement, call.time);
    /// });
    /// # drop(db);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on_slow_call(
        self,
        threshold: Duration,
        hook: impl Fn(&CallEvent) + Send + Sync + 'static,
    ) -> Self {
        self.watch.hear(threshold, Arc::new(hook));
        self
    }

    /// The same with a hook for each commit of this handle and of its clones made from now on, see
    /// [`Db::with_commit_hook`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> deltalakedb::Result<()> {
    /// let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
    /// let db = db.on_commit(|commit| {
    ///     for change in commit.changes() {
    ///         println!("{} is at {}: +{} files", change.table, change.version, change.added);
    ///     }
    /// });
    /// db.create_table("t").location("memory://hooks/t").columns("id long").await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn on_commit(self, hook: impl Fn(&CommitEvent<'_>) + Send + Sync + 'static) -> Self {
        self.with_commit_hook(Arc::new(OnCommit(hook)))
    }

    /// Logs a warning for calls of the database that take at least so long, of all handles on this opened
    /// catalog; [`SLOW_CALL`] unless told otherwise. `Duration::MAX`: for none.
    #[must_use]
    pub fn with_slow_call_warning(self, threshold: Duration) -> Self {
        self.watch.warn_from(threshold);
        self
    }

    /// Reads the heads and file lists of tables, a few at a time, so that the cache has them; within a time.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> deltalakedb::Result<()> {
    /// use std::time::Duration;
    /// let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
    /// db.create_table("t").location("memory://warm/t").columns("id long").await?;
    /// let warmed = db.warm(["t".parse()?], Duration::from_secs(10)).await;
    /// assert_eq!((warmed.tables, warmed.late), (1, 0));
    /// # Ok(()) }
    /// ```
    pub async fn warm(
        &self,
        tables: impl IntoIterator<Item = TableRef>,
        limit: Duration,
    ) -> Warmed {
        let deadline = tokio::time::Instant::now().checked_add(limit);
        let reads = tables.into_iter().map(|table| async move {
            let read = self.read_all(&table);
            let answer = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline, read).await.ok(),
                None => Some(read.await),
            };
            (table.to_string(), answer)
        });
        let mut reads = futures::stream::iter(reads).buffer_unordered(WARM_AT_A_TIME);
        let mut warmed = Warmed::default();
        while let Some((table, answer)) = reads.next().await {
            match answer {
                Some(Ok(files)) => {
                    warmed.tables += 1;
                    warmed.files += files;
                }
                Some(Err(error)) => warmed.failures.push((table, error.to_string())),
                None => warmed.late += 1,
            }
        }
        warmed
    }

    async fn read_all(&self, table: &TableRef) -> Result<u64> {
        let head = self.snapshot(table, At::Head).await?;
        let files = self.files(head.table.id, head.version);
        files.try_fold(0, |n, _| std::future::ready(Ok(n + 1))).await
    }
}

#[cfg(test)]
#[path = "watching/tests.rs"]
mod tests;
