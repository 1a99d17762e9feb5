//! What the mirror counts and times, over all catalogs of this process, see
//! [`deltalakedb_catalog_engine::measure`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deltalakedb_catalog_core::ids::TableId;
use deltalakedb_catalog_engine::measure::{Count, Series, Timer};

/// Tables whose drift has a series of its own; that of the others is one series, `other`.
pub const MOST_TABLES: usize = 1_000;
/// The counter of drift.
pub const DRIFT: &str = "mirror_parity_drift_total";

const fn store(call: &'static str) -> [Timer; 2] {
    let series = Series::new("dl_store_call_seconds").with("call", call);
    [Timer::new(series.with("outcome", "ok")), Timer::new(series.with("outcome", "error"))]
}

const fn ended(name: &'static str, outcome: &'static str) -> Series {
    Series::new(name).with("outcome", outcome)
}

/// Calls of log folders, in the order of [`StoreCall`].
static STORE: [[Timer; 2]; 4] = [store("put"), store("get"), store("list"), store("delete")];
static PUBLISH: [Timer; 3] = [
    Timer::new(ended("dl_publish_seconds", "ok")),
    Timer::new(ended("dl_publish_seconds", "error")),
    Timer::new(ended("dl_publish_seconds", "diverged")),
];
static ATTEMPTS: [Count; 3] = [
    Count::new(ended("dl_mirror_attempts_total", "ok")),
    Count::new(ended("dl_mirror_attempts_total", "error")),
    Count::new(ended("dl_mirror_attempts_total", "diverged")),
];
static PUBLISHED: Timer = Timer::new(Series::new("dl_mirror_published_seconds"));
static RECONCILED: [Count; 2] = [
    Count::new(ended("dl_mirror_reconciliation_attempts_total", "ok")),
    Count::new(ended("dl_mirror_reconciliation_attempts_total", "error")),
];
/// Drift by table, of the first [`MOST_TABLES`] tables that were looked at.
static DRIFTED: Mutex<BTreeMap<TableId, u64>> = Mutex::new(BTreeMap::new());
static OTHER_DRIFT: AtomicU64 = AtomicU64::new(0);

/// A call of a log folder.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StoreCall {
    Put,
    Get,
    List,
    Delete,
}

/// How an attempt to publish a version ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Attempt {
    Ok,
    Error,
    Diverged,
}

pub(crate) fn store_call(call: StoreCall, fine: bool, time: Duration) {
    if let Some(timer) = STORE.get(call as usize).and_then(|of| of.get(usize::from(!fine))) {
        timer.record(time);
    }
}

pub(crate) fn attempted(how: Attempt, time: Duration) {
    if let (Some(timer), Some(count)) = (PUBLISH.get(how as usize), ATTEMPTS.get(how as usize)) {
        timer.record(time);
        count.count();
    }
}

/// A version was recorded as published, so long after its commit.
pub(crate) fn published(after: Duration) {
    PUBLISHED.record(after);
}

pub(crate) fn reconciled(fine: bool) {
    if let Some(count) = RECONCILED.get(usize::from(!fine)) {
        count.count();
    }
}

fn lock() -> MutexGuard<'static, BTreeMap<TableId, u64>> {
    DRIFTED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A pass over a table found so many differences. None is counted too, so that the series is there.
pub(crate) fn drifted(table: TableId, differences: u64) {
    let mut tables = lock();
    let room = tables.len() < MOST_TABLES;
    let label = if let Some(total) = tables.get_mut(&table) {
        *total = total.saturating_add(differences);
        table.to_string()
    } else if room {
        tables.insert(table, differences);
        table.to_string()
    } else {
        OTHER_DRIFT.fetch_add(differences, Ordering::Relaxed);
        "other".to_owned()
    };
    drop(tables);
    metrics::counter!(DRIFT, "table_id" => label).increment(differences);
}

/// Goes on from totals that an earlier process had counted, of as many tables as have a series.
pub fn go_on_from(totals: &BTreeMap<TableId, u64>) {
    for (table, total) in totals {
        drifted(*table, *total);
    }
}

/// Differences between catalogs and published logs that passes of this process have found, by table; and those
/// of all other tables together.
#[must_use]
pub fn drift() -> (BTreeMap<TableId, u64>, u64) {
    (lock().clone(), OTHER_DRIFT.load(Ordering::Relaxed))
}

/// All that were used, of those that are timed.
pub fn timers() -> impl Iterator<Item = &'static Timer> {
    let timers = STORE.iter().flatten().chain(&PUBLISH).chain([&PUBLISHED]);
    timers.filter(|timer| timer.count() > 0)
}

/// All that were used, of those that are only counted.
pub fn counts() -> impl Iterator<Item = &'static Count> {
    ATTEMPTS.iter().chain(&RECONCILED).filter(|count| count.get() > 0)
}
