//! Compares what is published with what should be, cheaply, and puts back what is missing.
//!
//! One listing of the log and the stored lengths of the commits tell which commit files are missing
//! or have another size, and whether the newest checkpoint and `_last_checkpoint` are there. What is
//! missing is written with put-if-absent; what is there is never overwritten. Bytes and states are
//! compared by [`crate::diff`]. A commit of another program is recorded (see [`crate::foreign`]).
//!
//! Other engines and `delta.enableExpiredLogCleanup` delete old commits once a checkpoint covers
//! them: commits before the first one in the log are not missed.

use std::collections::BTreeMap;
use std::sync::Arc;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, Version};
use deltalakedb_catalog_core::model::TableRecord;
use deltalakedb_catalog_core::sink::MirrorSink;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::retry::Retry;
use deltalakedb_catalog_engine::spans;
use serde::Serialize;
use tracing::Instrument;
use tracing::field::Empty;

use crate::checkpoint::{
    LAST_CHECKPOINT, checkpoint_name, hinted_version, write_checkpoint, write_last_checkpoint,
};
use crate::foreign::Desk;
use crate::log::checkpoint::sidecar_names;
use crate::log::listing::LogName;
use crate::measure;
use crate::properties::checkpoint_interval;
use crate::put::{Put, commit_name, put};
use crate::sink::open_sink;

/// Commit bodies looked at a call.
const BODY_PAGE: usize = 256;
/// Findings kept of one table.
const MAX_FINDINGS: usize = 1_000;

/// What a comparison of one table found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReconcileReport {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// Commit files that should be there.
    pub expected: u64,
    /// What was wrong, all of it counted (`mirror_parity_drift_total`).
    pub drift: u64,
    /// Objects that were missing and are there again.
    pub republished: u64,
    /// What was wrong, ascending, to a bound.
    pub findings: Vec<Finding>,
}

/// Something that was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the object in the log folder.
    pub name: String,
    /// What is wrong with it.
    pub kind: FindingKind,
    /// Whether it is right now.
    pub repaired: bool,
}

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// It is not there.
    Missing,
    /// It has other bytes than the catalog's commit: another program wrote it.
    Different,
    /// A commit that the catalog does not know.
    Foreign,
}

impl ReconcileReport {
    /// What is still wrong.
    #[must_use]
    pub fn unrepaired(&self) -> u64 {
        self.drift - self.republished
    }

    fn add(&mut self, name: &str, kind: FindingKind, repaired: bool) {
        self.drift += 1;
        self.republished += u64::from(repaired);
        tracing::warn!(table = %self.name, name, ?kind, repaired, "mirror parity drift");
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding { name: name.to_owned(), kind, repaired });
        }
    }
}

/// Compares a table's log with what is recorded as published, and with `repair` puts back what is
/// missing.
///
/// Publishing may go on meanwhile: only what was published when the call began is looked at.
///
/// # Errors
/// `TableNotFound`; those of the database and of the store.
pub async fn reconcile(
    catalog: &Catalog,
    table: &TableRef,
    repair: bool,
) -> Result<ReconcileReport> {
    let catalog = &catalog.clone().on_primary();
    let span = tracing::trace_span!(
        "reconcile",
        %table,
        drift = Empty,
        otel.status_code = Empty,
        error.type = Empty
    );
    let answer = look(catalog, table, repair).instrument(span.clone()).await;
    if let Ok(report) = &answer {
        span.record("drift", spans::number(report.drift));
    }
    spans::ended(&span, answer.as_ref().err().map(CatalogError::code));
    match &answer {
        // A table that was dropped meanwhile was not looked at.
        Err(CatalogError::TableNotFound(_)) => {}
        Err(_) => measure::reconciled(false),
        Ok(report) => {
            measure::reconciled(true);
            measure::drifted(report.table_id, report.drift);
        }
    }
    answer
}

async fn look(catalog: &Catalog, table: &TableRef, repair: bool) -> Result<ReconcileReport> {
    // Before the listing: what is published later does not count.
    let record = catalog.table(table).await?;
    let mut report = ReconcileReport {
        table_id: record.id,
        name: record.name.clone(),
        expected: 0,
        drift: 0,
        republished: 0,
        findings: Vec::new(),
    };
    let Some(published) = record.published_version else { return Ok(report) };
    let sink = open_sink(&record.location, &record.storage_options)?;
    let there: BTreeMap<String, u64> =
        sink.list(None).await?.into_iter().map(|e| (e.name, e.size_bytes)).collect();
    let work = Work { catalog, retry: Retry::of(catalog), record, sink, there, published, repair };
    work.commits(&mut report).await?;
    work.foreign(&mut report).await?;
    work.checkpoint(&mut report).await?;
    Ok(report)
}

struct Work<'a> {
    catalog: &'a Catalog,
    retry: Retry,
    record: TableRecord,
    sink: Arc<dyn MirrorSink>,
    there: BTreeMap<String, u64>,
    published: Version,
    repair: bool,
}

impl Work<'_> {
    /// First version whose commit file must be there: the first one that is, or, where none is, the
    /// first that the catalog has.
    fn first(&self) -> Version {
        self.there
            .keys()
            .find_map(|name| match LogName::parse(name) {
                LogName::Commit(version) => Some(version),
                _ => None,
            })
            .unwrap_or(Version::ZERO)
    }

    async fn commits(&self, report: &mut ReconcileReport) -> Result<()> {
        let backend = self.catalog.backend();
        let mut next = self.first();
        while next <= self.published {
            let bodies = self
                .retry
                .repeat(|| backend.read_bodies(self.record.id, next, self.published, BODY_PAGE))
                .await?;
            let Some((last, _)) = bodies.last() else { break };
            next = last.version.next();
            for (commit, body) in bodies {
                report.expected += 1;
                let name = commit_name(commit.version);
                let first_line = body.first_line.as_ref().map_or(0, |line| line.len() + 1);
                let size = u64::try_from(first_line).unwrap_or(0) + body.rest.raw_len;
                match self.there.get(&name) {
                    Some(found) if *found == size => {}
                    Some(_) => report.add(&name, FindingKind::Different, false),
                    None if !self.repair => report.add(&name, FindingKind::Missing, false),
                    None => match put(self.sink.as_ref(), &name, &body.published()?).await? {
                        Put::Created | Put::Same => {
                            self.sink.set_modified(&name, commit.timestamp).await?;
                            report.add(&name, FindingKind::Missing, true);
                        }
                        Put::Foreign(_) => report.add(&name, FindingKind::Different, false),
                    },
                }
            }
        }
        Ok(())
    }

    /// Commits after what is published that are not the catalog's.
    async fn foreign(&self, report: &mut ReconcileReport) -> Result<()> {
        // As of now: what was committed since the beginning is the catalog's own.
        let now = self.catalog.table(&TableRef::Id(self.record.id)).await?;
        let desk = Desk::of(self.catalog, &self.retry);
        let mut recorded = false;
        for name in self.there.keys() {
            let LogName::Commit(version) = LogName::parse(name) else { continue };
            if Some(version) <= now.published_version {
                continue;
            }
            let unknown = Some(version) > now.head;
            // The first one is recorded. One that the catalog has, too, is most likely being published.
            let foreign = if recorded {
                unknown
            } else {
                recorded = desk.look(self.record.id, self.sink.as_ref(), version).await?.is_some();
                recorded || unknown
            };
            if foreign {
                let kind = if unknown { FindingKind::Foreign } else { FindingKind::Different };
                report.add(name, kind, false);
            }
        }
        Ok(())
    }

    /// The newest checkpoint that is due, its sidecars, and the hint that leads to one.
    async fn checkpoint(&self, report: &mut ReconcileReport) -> Result<()> {
        let id = TableRef::Id(self.record.id);
        let head = self.catalog.snapshot(&id, At::Version(self.published)).await?;
        let interval = checkpoint_interval(&head.metadata);
        let due = self.published.get() / interval * interval;
        let newest = self
            .there
            .keys()
            .filter_map(|name| match LogName::parse(name) {
                LogName::Checkpoint(version)
                | LogName::CheckpointPart { version, .. }
                | LogName::UuidCheckpoint { version, .. } => Some(version),
                _ => None,
            })
            .filter(|version| *version <= self.published)
            .max();
        let readable = due > 0 && due >= self.record.base_version.get();
        if readable && newest.is_none_or(|newest| newest.get() < due) {
            let version = Version::new(due)?;
            let name =
                if self.repair { self.write(version).await? } else { checkpoint_name(version) };
            report.add(&name, FindingKind::Missing, self.repair);
            return Ok(());
        }
        if let Some(newest) = newest {
            self.sidecars(newest, report).await?;
        }
        let Some(newest) = newest else { return Ok(()) };
        // A hint that leads nowhere makes some readers fail; without one they list.
        let hint = self.sink.get(LAST_CHECKPOINT).await?;
        let hinted = hint.as_deref().and_then(hinted_version);
        let leads = hinted.is_some_and(|version| {
            self.there.keys().any(|name| {
                matches!(LogName::parse(name),
                    LogName::Checkpoint(v) | LogName::CheckpointPart { version: v, .. }
                    | LogName::UuidCheckpoint { version: v, .. } if v == version)
            })
        });
        if leads {
            return Ok(());
        }
        let kind = if hint.is_some() { FindingKind::Different } else { FindingKind::Missing };
        // One of several parts is another writer's.
        let ours = newest >= self.record.base_version
            && self.there.keys().any(|name| match LogName::parse(name) {
                LogName::Checkpoint(v) | LogName::UuidCheckpoint { version: v, .. } => v == newest,
                _ => false,
            });
        if self.repair && ours {
            if hinted.is_some() {
                // One that leads nowhere is not kept for being later.
                self.sink.put_replace(LAST_CHECKPOINT, bytes::Bytes::new()).await?;
            }
            self.write(newest).await?;
        }
        report.add(LAST_CHECKPOINT, kind, self.repair && ours);
        Ok(())
    }

    /// Writes what is missing of a version's checkpoint, and the hint. Returns its name.
    async fn write(&self, version: Version) -> Result<String> {
        let id = TableRef::Id(self.record.id);
        let snapshot = self.catalog.snapshot(&id, At::Version(version)).await?;
        let backend = self.catalog.backend().as_ref();
        let info = write_checkpoint(backend, &snapshot, self.sink.as_ref(), false).await?;
        write_last_checkpoint(self.sink.as_ref(), &info).await?;
        Ok(info.name)
    }

    /// Sidecars that a version's checkpoints need. The names of ours are digests: writing the
    /// checkpoint again puts back the very same.
    async fn sidecars(&self, version: Version, report: &mut ReconcileReport) -> Result<()> {
        let mut missing = Vec::new();
        for name in self.there.keys() {
            let LogName::UuidCheckpoint { version: of, .. } = LogName::parse(name) else {
                continue;
            };
            let bytes = if of == version { self.sink.get(name).await? } else { None };
            let Some(bytes) = bytes else { continue };
            match sidecar_names(name, bytes) {
                Ok(sidecars) => {
                    missing.extend(sidecars.into_iter().filter(|s| !self.there.contains_key(s)));
                }
                Err(_) => report.add(name, FindingKind::Different, false),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if self.repair && version >= self.record.base_version {
            self.write(version).await?;
        }
        for name in missing {
            let repaired = self.repair && self.sink.get(&name).await?.is_some();
            report.add(&name, FindingKind::Missing, repaired);
        }
        Ok(())
    }
}

/// What a pass over all tables found.
#[derive(Debug, Default, Serialize)]
pub struct ReconcilePass {
    /// Reports of tables.
    pub tables: Vec<ReconcileReport>,
    /// Tables that could not be looked at, and why.
    pub failures: Vec<(TableName, String)>,
}

impl ReconcilePass {
    /// All that was wrong.
    #[must_use]
    pub fn drift(&self) -> u64 {
        self.tables.iter().map(|table| table.drift).sum()
    }

    /// What still is.
    #[must_use]
    pub fn unrepaired(&self) -> u64 {
        self.tables.iter().map(ReconcileReport::unrepaired).sum()
    }
}

/// A pass over these tables; one that fails does not keep the others from their turn.
pub async fn reconcile_all(
    catalog: &Catalog,
    tables: &[TableRecord],
    repair: bool,
) -> ReconcilePass {
    let mut pass = ReconcilePass::default();
    for table in tables {
        match reconcile(catalog, &TableRef::Id(table.id), repair).await {
            Ok(report) => pass.tables.push(report),
            Err(CatalogError::TableNotFound(_)) => {}
            Err(error) => pass.failures.push((table.name.clone(), error.to_string())),
        }
    }
    pass
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
