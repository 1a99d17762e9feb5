//! Counts what the core absorbs: lost races and busy databases, by the events that it logs.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// What went again, and why.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Commits that found another head than the one they were checked against.
    pub lost_races: u64,
    /// Commits that met a busy or failing database: deadlocks, serialization failures, outages.
    pub busy_commits: u64,
    /// Other calls that did.
    pub busy_reads: u64,
}

impl Retries {
    /// Adds another worker's.
    pub fn add(&mut self, other: Retries) {
        self.lost_races += other.lost_races;
        self.busy_commits += other.busy_commits;
        self.busy_reads += other.busy_reads;
    }
}

#[derive(Debug, Default)]
struct Counts {
    lost_races: AtomicU64,
    busy_commits: AtomicU64,
    busy_reads: AtomicU64,
}

/// Where the events of this process are counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetryCounter(Arc<Counts>);

impl RetryCounter {
    /// Counts all events of this process from now on.
    pub(crate) fn install() -> anyhow::Result<RetryCounter> {
        let counter = RetryCounter::default();
        tracing::subscriber::set_global_default(counter.clone())?;
        Ok(counter)
    }

    pub(crate) fn read(&self) -> Retries {
        Retries {
            lost_races: self.0.lost_races.load(Ordering::Relaxed),
            busy_commits: self.0.busy_commits.load(Ordering::Relaxed),
            busy_reads: self.0.busy_reads.load(Ordering::Relaxed),
        }
    }
}

/// The fields by which the core's events are told apart.
#[derive(Default)]
struct Fields {
    /// `failed` of "commit goes again".
    failed: Option<bool>,
    message: String,
}

impl Visit for Fields {
    fn record_bool(&mut self, field: &Field, value: bool) {
        if field.name() == "failed" {
            self.failed = Some(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

impl Subscriber for RetryCounter {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
            && *metadata.level() <= Level::DEBUG
            && metadata.target().starts_with("deltalakedb_catalog_engine")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let count = match (fields.message.as_str(), fields.failed) {
            ("commit goes again", Some(false)) => &self.0.lost_races,
            ("commit goes again", _) => &self.0.busy_commits,
            ("call goes again", _) => &self.0.busy_reads,
            _ => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}
