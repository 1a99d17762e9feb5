//! Deletes expired files of a log (`delta.logRetentionDuration`, `delta.enableExpiredLogCleanup`).
//!
//! Only the published copy is deleted: the catalog keeps every commit. What goes are commits,
//! checksums and checkpoints before the newest checkpoint that the oldest retained version can be
//! read from; so every retained version can still be read, by every reader, after each single
//! deletion. A log of which the catalog does not have every such commit is left alone.
//!
//! Sidecars go with the versions in their names. Those of other writers have no version in their
//! names: they go once no checkpoint that is left names them (protocol section "Metadata Cleanup").

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use deltalakedb_catalog_core::action::Metadata;
use deltalakedb_catalog_core::backend::{CatalogBackend, CommitFilter};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, TableState};
use deltalakedb_catalog_core::sink::MirrorSink;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::pages::each_page;
use deltalakedb_catalog_engine::retry::Retry;
use futures::TryStreamExt;
use serde::Serialize;

use crate::log::checkpoint::sidecar_names;
use crate::log::listing::LogName;
use crate::ownership::refuse_foreign;
use crate::properties::{expired_log_cleanup, log_retention_ms};
use crate::sink::open_sink;

/// Objects deleted at a time: the next checkpoint goes on.
const MAX_DELETED: usize = 1_000;
/// Age from which on a sidecar that no checkpoint names is none that is still being written.
const ORPHAN_AGE_MS: i64 = 24 * 3_600_000;
/// Commits looked at a call.
const COMMIT_PAGE: usize = 1_000;

/// What has expired of a table's log, see [`clean_log`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CleanedLog {
    /// Table.
    pub table_id: TableId,
    /// Its name.
    pub name: TableName,
    /// Objects that have expired, and that no retained version needs.
    pub expired: usize,
    /// How many of them were deleted.
    pub deleted: usize,
    /// Why none is to be deleted, where a table's log is left alone.
    pub left: Option<String>,
}

/// Finds, and with `delete` deletes, what has expired of a table's published log: as publishing does where it
/// writes a checkpoint, for tables that have none to write. Workers may publish meanwhile, and others may do
/// the same: what goes is older than a checkpoint that stays, whoever looks.
///
/// # Errors
/// `TableNotFound`; `InvalidInput` for a table in whose log others have committed; those of the database and of
/// the store. Whatever was deleted by then may be.
pub async fn clean_log(catalog: &Catalog, table: &TableRef, delete: bool) -> Result<CleanedLog> {
    let catalog = &catalog.clone().on_primary();
    let record = catalog.table(table).await?;
    let mut report = CleanedLog {
        table_id: record.id,
        name: record.name.clone(),
        expired: 0,
        deleted: 0,
        left: None,
    };
    if record.state != TableState::Active {
        return Err(CatalogError::TableNotFound(table.to_string()));
    }
    let left = match (record.mirror, record.published_version) {
        (MirrorMode::Off, _) => Some("its publishing is turned off"),
        (MirrorMode::Diverged, _) => Some("a foreign commit stands in its log"),
        (MirrorMode::Active, None) => Some("nothing is published yet"),
        (MirrorMode::Active, Some(_)) => None,
    };
    let (None, Some(published)) = (left, record.published_version) else {
        report.left = left.map(str::to_owned);
        return Ok(report);
    };
    refuse_foreign(catalog, &record).await?;
    let head = catalog.snapshot(&TableRef::Id(record.id), At::Head).await?;
    let sink = open_sink(&record.location, &record.storage_options)?;
    let (backend, retry) = (catalog.backend(), Retry::of(catalog));
    loop {
        let now = catalog.clock().now();
        let metadata = &head.metadata;
        let expired = expired(backend, &retry, record.id, metadata, published, now, &*sink).await?;
        report.expired += expired.len();
        if !delete {
            return Ok(report);
        }
        for name in &expired {
            sink.delete(name).await?;
            report.deleted += 1;
        }
        if expired.len() < MAX_DELETED {
            return Ok(report);
        }
    }
}

/// Deletes what has expired of a table's log at `now`. Returns how many objects were deleted.
///
/// # Errors
/// Those of the database and of the store. Whatever was deleted by then may be.
pub(crate) async fn clean(
    backend: &Arc<dyn CatalogBackend>,
    retry: &Retry,
    table_id: TableId,
    metadata: &Metadata,
    published: Version,
    now: TimestampMs,
    sink: &dyn MirrorSink,
) -> Result<usize> {
    let doomed = expired(backend, retry, table_id, metadata, published, now, sink).await?;
    for name in &doomed {
        sink.delete(name).await?;
    }
    Ok(doomed.len())
}

/// Names of what has expired at `now`, to a bound, in the order in which they are to be deleted.
async fn expired(
    backend: &Arc<dyn CatalogBackend>,
    retry: &Retry,
    table_id: TableId,
    metadata: &Metadata,
    published: Version,
    now: TimestampMs,
    sink: &dyn MirrorSink,
) -> Result<Vec<String>> {
    if !expired_log_cleanup(metadata) {
        return Ok(Vec::new());
    }
    let cutoff = now.plus_ms(log_retention_ms(metadata).saturating_neg());
    // Timestamps grow with versions: all up to the last one before it have expired.
    let expired = CommitFilter { to_time: Some(cutoff), ..CommitFilter::default() };
    let expired = retry.repeat(|| backend.list_commits(table_id, &expired, None, 1)).await?;
    let Some(last_expired) = expired.items.first().map(|commit| commit.version) else {
        return Ok(Vec::new());
    };
    // The head is always retained, however old it is.
    let oldest_retained = last_expired.next().min(published);
    let there = sink.list(None).await?;
    let names: Vec<(&str, LogName)> =
        there.iter().map(|entry| (entry.name.as_str(), LogName::parse(&entry.name))).collect();
    let log = Listing {
        sink,
        modified: there.iter().map(|entry| (entry.name.as_str(), entry.modified)).collect(),
        has_sidecars: names.iter().any(|(_, name)| matches!(name, LogName::Sidecar(_))),
    };
    let Some(keep_from) = log.first_kept(&names, oldest_retained).await? else {
        return Ok(Vec::new());
    };
    let mut doomed: Vec<(Version, &str)> = Vec::new();
    let mut commits = BTreeSet::new();
    for (text, name) in &names {
        match name {
            LogName::Commit(version) if *version < keep_from => {
                commits.insert(*version);
                doomed.push((*version, text));
            }
            LogName::Checksum(version)
            | LogName::Checkpoint(version)
            | LogName::CheckpointPart { version, .. }
            | LogName::UuidCheckpoint { version, .. }
            | LogName::Sidecar(Some(version))
                if *version < keep_from =>
            {
                doomed.push((*version, text));
            }
            _ => {}
        }
    }
    for orphan in log.orphans(&names, keep_from, now).await {
        // After the checkpoints that named it.
        doomed.push((keep_from, orphan));
    }
    if !all_stored(backend, retry, table_id, &commits).await? {
        tracing::info!(%table_id, "the catalog lacks old commits of this log: it is not cleaned up");
        return Ok(Vec::new());
    }
    // Oldest first, and of a version the sidecars after what names them, and the commit last: what is
    // left is always the end of a log.
    doomed.sort_by_key(|(version, name)| {
        let rank = match LogName::parse(name) {
            LogName::Commit(_) => 2,
            LogName::Sidecar(_) => 1,
            _ => 0,
        };
        (*version, rank)
    });
    doomed.truncate(MAX_DELETED);
    if !doomed.is_empty() {
        tracing::info!(%table_id, expired = doomed.len(), %keep_from, "log files have expired");
    }
    Ok(doomed.into_iter().map(|(_, name)| name.to_owned()).collect())
}

/// A log as it was listed.
struct Listing<'a> {
    sink: &'a dyn MirrorSink,
    modified: BTreeMap<&'a str, TimestampMs>,
    has_sidecars: bool,
}

impl Listing<'_> {
    /// Version of the newest checkpoint that the oldest retained version can be read from.
    async fn first_kept(
        &self,
        names: &[(&str, LogName)],
        oldest_retained: Version,
    ) -> Result<Option<Version>> {
        let mut candidates: Vec<(Version, &str)> = names
            .iter()
            .filter_map(|(text, name)| match name {
                // Parts of others may be incomplete.
                LogName::Checkpoint(version) | LogName::UuidCheckpoint { version, .. }
                    if *version <= oldest_retained =>
                {
                    Some((*version, *text))
                }
                _ => None,
            })
            .collect();
        candidates.sort_unstable();
        for (version, name) in candidates.into_iter().rev() {
            let complete = match self.sidecars(name).await {
                Ok(sidecars) => sidecars.iter().all(|s| self.modified.contains_key(s.as_str())),
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => {
                    tracing::warn!(name, %error, "a checkpoint cannot be read: no log file before it goes");
                    false
                }
            };
            if complete {
                return Ok(Some(version));
            }
        }
        Ok(None)
    }

    /// Names of the sidecars of a checkpoint; all of them are none where there are no sidecars.
    async fn sidecars(&self, name: &str) -> Result<Vec<String>> {
        if !self.has_sidecars && matches!(LogName::parse(name), LogName::Checkpoint(_)) {
            return Ok(Vec::new());
        }
        match self.sink.get(name).await? {
            Some(bytes) => sidecar_names(name, bytes),
            None => Err(CatalogError::busy(format!("'{name}' went away"), WriteState::NotApplied)),
        }
    }

    /// Sidecars of other writers that nothing names any more. None, if that cannot be told.
    async fn orphans<'n>(
        &self,
        names: &[(&'n str, LogName)],
        keep_from: Version,
        now: TimestampMs,
    ) -> Vec<&'n str> {
        let written = now.plus_ms(-ORPHAN_AGE_MS);
        let mut orphans: BTreeSet<&str> = names
            .iter()
            .filter(|(text, name)| {
                *name == LogName::Sidecar(None)
                    && self.modified.get(text).is_some_and(|modified| *modified < written)
            })
            .map(|(text, _)| *text)
            .collect();
        if orphans.is_empty() {
            return Vec::new();
        }
        for (text, name) in names {
            let (LogName::Checkpoint(version) | LogName::UuidCheckpoint { version, .. }) = name
            else {
                continue;
            };
            if *version < keep_from {
                continue;
            }
            match self.sidecars(text).await {
                Ok(needed) => needed.iter().for_each(|name| {
                    orphans.remove(name.as_str());
                }),
                Err(_) => return Vec::new(),
            }
        }
        orphans.into_iter().collect()
    }
}

/// Whether the catalog has the bytes of all these commits.
async fn all_stored(
    backend: &Arc<dyn CatalogBackend>,
    retry: &Retry,
    table_id: TableId,
    versions: &BTreeSet<Version>,
) -> Result<bool> {
    let (Some(first), Some(last)) = (versions.first(), versions.last()) else { return Ok(true) };
    let filter = CommitFilter {
        from_version: Some(*first),
        to_version: Some(*last),
        ..CommitFilter::default()
    };
    let mut missing: BTreeSet<Version> = versions.clone();
    let filter = &filter;
    let mut pages = each_page(|before| {
        retry.repeat(move || backend.list_commits(table_id, filter, before, COMMIT_PAGE))
    });
    while let Some(commits) = pages.try_next().await? {
        for commit in commits.iter().filter(|commit| commit.has_body) {
            missing.remove(&commit.version);
        }
        if missing.is_empty() {
            break;
        }
    }
    Ok(missing.is_empty())
}

#[cfg(test)]
#[path = "cleanup_tests.rs"]
mod tests;
