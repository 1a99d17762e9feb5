//! What a run did.

use std::collections::BTreeMap;

use deltalakedb_catalog_core::ids::{TableId, TableName, TimestampMs, Version};
use serde::Serialize;

/// What a run did, over all tables.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RunReport {
    /// Versions that are published and recorded now.
    pub published: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// What went wrong, in the order in which it happened. A table that failed twice is in it twice.
    pub failures: Vec<PublishIssue>,
    /// Tables in whose log a foreign commit was found; their publishing has stopped.
    pub diverged: u64,
    /// Leases that another worker took over while a table was worked on.
    pub lost_leases: u64,
    /// Versions that are in the outbox and not published, at the end of the run (of `run_once`):
    /// they failed, wait for their time, diverged, or another worker has them. Counted to 10,000.
    pub unpublished: u64,
    /// Per table that was worked on.
    pub tables: BTreeMap<TableId, TableRun>,
}

/// What a run did with one table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TableRun {
    /// Its name.
    pub name: TableName,
    /// Versions that are published and recorded now.
    pub published: u64,
    /// The last of them.
    pub published_version: Option<Version>,
    /// Checkpoints written.
    pub checkpoints: u64,
}

/// Something that went wrong with a version.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PublishIssue {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// Version.
    pub version: Version,
    /// What happened and what to do.
    pub error: String,
    /// When it is tried again; none if it is not.
    pub retry_at: Option<TimestampMs>,
    /// Whether a foreign commit stands there.
    pub diverged: bool,
    /// Whether the version is published all the same: only its checkpoint could not be made.
    pub published: bool,
}

/// What one task did.
#[derive(Debug)]
pub(super) struct TaskOutcome {
    pub(super) table_id: TableId,
    pub(super) run: TableRun,
    pub(super) failures: Vec<PublishIssue>,
    pub(super) lost_lease: bool,
}

impl RunReport {
    pub(super) fn add(&mut self, task: TaskOutcome) {
        self.published += task.run.published;
        self.checkpoints += task.run.checkpoints;
        self.lost_leases += u64::from(task.lost_lease);
        self.diverged += task.failures.iter().map(|f| u64::from(f.diverged)).sum::<u64>();
        self.failures.extend(task.failures);
        match self.tables.get_mut(&task.table_id) {
            None => {
                self.tables.insert(task.table_id, task.run);
            }
            Some(run) => {
                run.name = task.run.name;
                run.published += task.run.published;
                run.checkpoints += task.run.checkpoints;
                run.published_version = run.published_version.max(task.run.published_version);
            }
        }
    }
}
