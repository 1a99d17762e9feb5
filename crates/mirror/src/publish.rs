//! The outbox worker: publishes ratified versions to `_delta_log/`.
//!
//! A [`Publisher`] leases tables, and puts each table's unpublished versions in order: `N.json`
//! with put-if-absent, its modification time, the checkpoint and `_last_checkpoint` where they are
//! due, and only then records the version as published. Every step is safe to repeat: where the
//! object exists, its bytes are compared. So a crash between any two steps leaves work that the
//! next run finishes, and at every moment the published versions are a gapless prefix of the
//! ratified ones.
//!
//! Any number of publishers may run on one catalog. The lease keeps them apart; it is not what
//! makes them correct. A worker that goes on after losing it can only put the bytes that the new
//! holder puts, too, and cannot record anything (the lease's epoch has changed).

mod idle;
mod report;
mod table;
mod wait;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deltalakedb_catalog_core::audit::Actor;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{CatalogBackend, ClaimRequest, MirrorLease, MirrorTask};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, TableRef};
use deltalakedb_catalog_core::model::{TableRecord, TableState};
use deltalakedb_catalog_core::sink::MirrorSink;
use deltalakedb_catalog_engine::env::{Clock, IdSource};
use deltalakedb_catalog_engine::pages::each_page;
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use tokio::sync::{Notify, watch};

use crate::sink::open_sink;
use deltalakedb_catalog_engine::retry::{Retry, RetryPolicy, backoff_ms};

pub use report::{PublishIssue, RunReport, TableRun};
pub use wait::{Waited, wait_published};

/// Opened sinks that are kept for the next version, at most.
const MAX_SINKS: usize = 256;
/// Rows per page while what is left is counted; few in tests, which have several pages all the same.
const COUNTED_PAGE: usize = if cfg!(test) { 10 } else { 10_000 };
/// Longest pause of [`Publisher::run`] while the database does not answer, milliseconds: so long after it
/// answers again, publishing goes on. The longer pauses of [`PublisherConfig::max_backoff_ms`] are for a
/// table whose store fails.
const MAX_OUTAGE_PAUSE_MS: i64 = 5_000;
/// Leases that could not be given up, at most; the others lapse.
const MAX_STRANDED: usize = 1_024;

/// How a publisher works. The defaults are for production.
#[derive(Debug, Clone)]
pub struct PublisherConfig {
    /// How long a lease holds, milliseconds. It is renewed at a third of it, so it only matters
    /// after a crash: so long others wait before they take over.
    pub lease_ms: i64,
    /// Versions taken at a time from one table; other tables come in between.
    pub max_versions: usize,
    /// Tables published at a time.
    pub concurrency: usize,
    /// Versions recorded as published in one transaction.
    pub complete_batch: usize,
    /// First pause after a failure, milliseconds. It doubles with each attempt.
    pub first_backoff_ms: i64,
    /// Longest pause after a failure, milliseconds.
    pub max_backoff_ms: i64,
    /// How often [`Publisher::run`] looks for work that nobody woke it for, milliseconds.
    pub poll_ms: i64,
    /// How often [`Publisher::run`] looks whether another program has committed to the log of a table
    /// for which nothing waits, milliseconds; 0 = never. It costs one request to the store for each such
    /// table, interval and worker, spread over the interval.
    pub foreign_check_ms: i64,
}

impl Default for PublisherConfig {
    fn default() -> Self {
        PublisherConfig {
            lease_ms: 30_000,
            max_versions: 100,
            concurrency: 4,
            complete_batch: 16,
            first_backoff_ms: 500,
            max_backoff_ms: 300_000,
            poll_ms: 1_000,
            foreign_check_ms: 300_000,
        }
    }
}

/// Opens the sink of a table.
type SinkOpener = dyn Fn(&TableRecord) -> Result<Arc<dyn MirrorSink>> + Send + Sync;

/// An opened sink, and the location and options that it was opened with.
type OpenSink = (TableRecord, Arc<dyn MirrorSink>);

/// Publishes what is in the outbox.
pub struct Publisher {
    backend: Arc<dyn CatalogBackend>,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn IdSource>,
    config: PublisherConfig,
    retry: Retry,
    open: Box<SinkOpener>,
    sinks: Mutex<HashMap<TableId, OpenSink>>,
    owner: String,
    actor: Actor,
    claims: AtomicU64,
    wake: Notify,
    /// When this value was made, and the milliseconds from then to the last turn of [`Publisher::run`], plus
    /// one; 0 = it has not begun.
    made: Instant,
    turn: AtomicU64,
    /// Leases of work that has ended, which the database did not answer about: nobody else can have their
    /// tables until they are given up, or lapse.
    stranded: Mutex<Vec<MirrorLease>>,
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("owner", &self.owner)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Publisher {
    /// A worker on a catalog's backend.
    #[must_use]
    pub fn new(
        backend: Arc<dyn CatalogBackend>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        config: PublisherConfig,
    ) -> Self {
        let owner = format!("{}-{}", std::process::id(), ids.uuid().as_simple());
        Publisher {
            retry: Retry::new(Arc::clone(&clock), Arc::clone(&ids)),
            backend,
            clock,
            ids,
            config,
            open: Box::new(|table| open_sink(&table.location, &table.storage_options)),
            sinks: Mutex::default(),
            owner,
            actor: Actor {
                program: Some(concat!("deltalakedb ", env!("CARGO_PKG_VERSION")).to_owned()),
                ..Actor::default()
            },
            claims: AtomicU64::new(0),
            wake: Notify::new(),
            made: Instant::now(),
            turn: AtomicU64::new(0),
            stranded: Mutex::default(),
        }
    }

    /// Repeats calls on a busy database for so long at most, before a table is given up until later.
    #[must_use]
    pub fn with_retry_timeout(mut self, timeout: Duration) -> Self {
        self.retry = self.retry.with_timeout(timeout);
        self
    }

    /// Repeats calls on a busy database as this says, before a table is given up until later.
    #[must_use]
    pub fn with_retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = self.retry.with_policy(policy);
        self
    }

    /// The audit says of what this worker changes that it is on behalf of this one.
    #[must_use]
    pub fn with_actor(mut self, actor: Actor) -> Self {
        self.actor = actor;
        self
    }

    /// Opens sinks in another way than by the table's location: a wrapper, another place.
    #[must_use]
    pub fn with_sinks(
        mut self,
        open: impl Fn(&TableRecord) -> Result<Arc<dyn MirrorSink>> + Send + Sync + 'static,
    ) -> Self {
        self.open = Box::new(open);
        self
    }

    /// Tells [`Publisher::run`] that there is work now: call it after a commit of this process.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// How often [`Publisher::run`] looks for work.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.config.poll_ms).unwrap_or(1).max(1))
    }

    /// How long ago [`Publisher::run`] last had its turn; none before it begins. It has one at least once in
    /// [`Publisher::interval`], also while it waits for the database or for a store. More than some intervals
    /// show that it has ended, or that its threads are blocked.
    #[must_use]
    pub fn since_last_turn(&self) -> Option<Duration> {
        let turn = self.turn.load(Ordering::Relaxed);
        (turn > 0).then(|| self.made.elapsed().saturating_sub(Duration::from_millis(turn - 1)))
    }

    fn take_turn(&self) {
        let ms = u64::try_from(self.made.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.turn.store(ms.saturating_add(1), Ordering::Relaxed);
    }

    /// Takes a turn in each interval, for ever.
    async fn keep_turning(&self) {
        loop {
            self.take_turn();
            // Real time: whether the process works does not depend on what a clock says.
            tokio::time::sleep(self.interval()).await;
        }
    }

    /// Publishes everything that is due, of one table or of all, and returns.
    ///
    /// Versions whose retry time has not come, and tables that another worker holds, are left:
    /// [`RunReport::unpublished`] counts them.
    ///
    /// # Errors
    /// Those of the database. What could not be published is no error of the call: it is in
    /// [`RunReport::failures`].
    pub async fn run_once(&self, only: Option<TableId>) -> Result<RunReport> {
        let mut report = self.drain(only, None).await?;
        report.unpublished = self.count_unpublished(only).await?;
        Ok(report)
    }

    /// Publishes until told to stop: `true`, or the sender is gone. The version at hand is
    /// finished first, and leases are given up.
    ///
    /// A database that fails is logged and tried again. Tables for which nothing waits are looked at
    /// for commits of other programs meanwhile ([`PublisherConfig::foreign_check_ms`]); what is found
    /// is recorded as publishing itself does.
    ///
    /// # Errors
    /// None at present.
    pub async fn run(&self, stop: watch::Receiver<bool>) -> Result<()> {
        tokio::select! {
            ended = self.publish_all(stop) => ended,
            () = self.watch_idle() => Ok(()),
            () = self.keep_turning() => Ok(()),
        }
    }

    async fn publish_all(&self, mut stop: watch::Receiver<bool>) -> Result<()> {
        let mut outages = 0_u32;
        while !*stop.borrow_and_update() {
            let pause_ms = match self.drain(None, Some(&stop)).await {
                Ok(_) => {
                    outages = 0;
                    self.config.poll_ms
                }
                Err(error) => {
                    tracing::warn!(%error, "publishing waits: the catalog does not answer");
                    let (first, max) = (self.config.first_backoff_ms, self.config.max_backoff_ms);
                    let max = max.min(MAX_OUTAGE_PAUSE_MS);
                    let ms = backoff_ms(first, max, outages, self.ids.fraction());
                    outages = outages.saturating_add(1);
                    ms
                }
            };
            let pause = Duration::from_millis(u64::try_from(pause_ms).unwrap_or(1).max(1));
            tokio::select! {
                changed = stop.changed() => if changed.is_err() { break },
                () = self.wake.notified() => {}
                () = self.clock.sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Works until nothing can be claimed: up to `concurrency` tables at a time, oldest work first.
    async fn drain(
        &self,
        only: Option<TableId>,
        stop: Option<&watch::Receiver<bool>>,
    ) -> Result<RunReport> {
        // Once a round: a table whose failures cannot be recorded has a pause between two attempts.
        self.give_up_stranded().await;
        let mut report = RunReport::default();
        let mut running = FuturesUnordered::new();
        loop {
            let stopped = stop.is_some_and(|stop| *stop.borrow());
            let free = self.config.concurrency.max(1).saturating_sub(running.len());
            if !stopped && free > 0 {
                // What runs goes on meanwhile: it may be what the database waits for, in a transaction or with
                // the last connection.
                let mut claiming = pin!(self.claim(only, free));
                let claimed = loop {
                    tokio::select! {
                        claimed = &mut claiming => break claimed,
                        Some(done) = running.next() => report.add(done),
                    }
                };
                match claimed {
                    Ok(tasks) => {
                        for task in tasks {
                            running.push(self.publish(task, stop));
                        }
                    }
                    // What runs is finished first.
                    Err(error) if running.is_empty() => return Err(error),
                    Err(error) => tracing::warn!(%error, "claiming work failed"),
                }
            }
            match running.next().await {
                Some(done) => report.add(done),
                None => return Ok(report),
            }
        }
    }

    async fn claim(&self, only: Option<TableId>, max_tables: usize) -> Result<Vec<MirrorTask>> {
        // An owner may claim what it holds already. Each claim has an owner of its own, so that
        // tables which are being worked on are not handed out again.
        let claim = self.claims.fetch_add(1, Ordering::Relaxed);
        let request = ClaimRequest {
            owner: format!("{}-{claim}", self.owner),
            now: self.clock.now(),
            lease_ms: self.config.lease_ms,
            max_tables,
            max_versions: self.config.max_versions.max(1),
            only,
        };
        self.retry.repeat(|| self.backend.mirror_claim(&request)).await
    }

    /// Remembers a lease that could not be given up.
    fn strand(&self, lease: &MirrorLease) {
        let mut stranded = self.stranded.lock().unwrap_or_else(PoisonError::into_inner);
        if stranded.len() < MAX_STRANDED {
            stranded.push(lease.clone());
        }
    }

    /// Gives leases up that an outage has left behind, so that their tables need not wait until they lapse.
    /// One that has lapsed, and was taken by another worker, is that one's.
    async fn give_up_stranded(&self) {
        let take = || {
            let mut stranded = self.stranded.lock().unwrap_or_else(PoisonError::into_inner);
            stranded.pop()
        };
        while let Some(lease) = take() {
            if let Err(error) = self.backend.mirror_release(&lease).await {
                tracing::debug!(table = %lease.table_id, %error, "a lease is still not given up");
                self.strand(&lease);
                return;
            }
        }
    }

    /// Versions that wait, all of them, of tables that are not dropped: theirs wait for nothing.
    async fn count_unpublished(&self, only: Option<TableId>) -> Result<u64> {
        let mut waiting: BTreeMap<TableId, u64> = BTreeMap::new();
        let mut pages = each_page(|after| async move {
            self.retry.repeat(|| self.backend.mirror_rows(only, None, after, COUNTED_PAGE)).await
        });
        while let Some(rows) = pages.try_next().await? {
            for row in rows {
                *waiting.entry(row.table_id).or_default() += 1;
            }
        }
        let mut total = 0;
        for (id, versions) in waiting {
            let table = TableRef::Id(id);
            let record = self.retry.repeat(|| self.backend.get_table(&table)).await?;
            if record.is_some_and(|record| record.state == TableState::Active) {
                total += versions;
            }
        }
        Ok(total)
    }

    fn backoff(&self, attempt: u32) -> i64 {
        let (first, max) = (self.config.first_backoff_ms, self.config.max_backoff_ms);
        backoff_ms(first, max, attempt, self.ids.fraction())
    }

    /// The sink of a table: kept, as a client of a cloud store holds connections.
    fn sink(&self, table: &TableRecord) -> Result<Arc<dyn MirrorSink>> {
        if let Some(sink) = self.kept_sink(table) {
            return Ok(sink);
        }
        let sink = (self.open)(table)?;
        let mut sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        if sinks.len() >= MAX_SINKS {
            sinks.clear();
        }
        sinks.insert(table.id, (table.clone(), Arc::clone(&sink)));
        Ok(sink)
    }

    fn kept_sink(&self, table: &TableRecord) -> Option<Arc<dyn MirrorSink>> {
        let sinks = self.sinks.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, sink) = sinks.get(&table.id)?;
        let same =
            known.location == table.location && known.storage_options == table.storage_options;
        same.then(|| Arc::clone(sink))
    }
}

#[cfg(test)]
#[path = "publish/fault_tests.rs"]
mod fault_tests;
#[cfg(test)]
#[path = "publish/tests.rs"]
mod tests;
