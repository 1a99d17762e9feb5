//! Deletes expired files of a log (`delta.logRetentionDuration`, `delta.enableExpiredLogCleanup`).
//!
//! Only the published copy is deleted: the catalog keeps every commit. What goes are commits,
//! checksums and checkpoints before the newest checkpoint that the oldest retained version can be
//! read from; so every retained version can still be read, by every reader, after each single
//! deletion. A log of which the catalog does not have every such commit is left alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use deltalakedb_catalog_core::action::Metadata;
use deltalakedb_catalog_core::backend::{CatalogBackend, CommitFilter};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::retry::Retry;
use deltalakedb_catalog_core::sink::MirrorSink;

use crate::log::listing::LogName;
use crate::properties::{expired_log_cleanup, log_retention_ms};

/// Objects deleted at a time: the next checkpoint goes on.
const MAX_DELETED: usize = 1_000;
/// Commits looked at a call.
const COMMIT_PAGE: usize = 1_000;

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
    if !expired_log_cleanup(metadata) {
        return Ok(0);
    }
    let cutoff = now.plus_ms(log_retention_ms(metadata).saturating_neg());
    // Timestamps grow with versions: all up to the last one before it have expired.
    let expired = CommitFilter { to_time: Some(cutoff), ..CommitFilter::default() };
    let expired = retry.repeat(|| backend.list_commits(table_id, &expired, None, 1)).await?;
    let Some(last_expired) = expired.items.first().map(|commit| commit.version) else {
        return Ok(0);
    };
    // The head is always retained, however old it is.
    let oldest_retained = last_expired.next().min(published);
    let there = sink.list(None).await?;
    let names = || there.iter().map(|entry| (entry.name.as_str(), LogName::parse(&entry.name)));
    let keep_from = names()
        .filter_map(|(_, name)| match name {
            // Parts, and manifests that name sidecars, may be incomplete: only what is one file.
            LogName::Checkpoint(version) if version <= oldest_retained => Some(version),
            _ => None,
        })
        .max();
    let Some(keep_from) = keep_from else { return Ok(0) };
    let mut doomed: Vec<(Version, &str)> = Vec::new();
    let mut commits = BTreeSet::new();
    for (text, name) in names() {
        match name {
            LogName::Commit(version) if version < keep_from => {
                commits.insert(version);
                doomed.push((version, text));
            }
            LogName::Checksum(version)
            | LogName::Checkpoint(version)
            | LogName::CheckpointPart { version, .. }
                if version < keep_from =>
            {
                doomed.push((version, text));
            }
            _ => {}
        }
    }
    if !all_stored(backend, retry, table_id, &commits).await? {
        tracing::info!(%table_id, "the catalog lacks old commits of this log: it is not cleaned up");
        return Ok(0);
    }
    // Oldest first, and of a version the commit last: what is left is always the end of a log.
    doomed.sort_by_key(|(version, name)| {
        (*version, matches!(LogName::parse(name), LogName::Commit(_)))
    });
    doomed.truncate(MAX_DELETED);
    for (_, name) in &doomed {
        sink.delete(name).await?;
    }
    if !doomed.is_empty() {
        tracing::info!(%table_id, deleted = doomed.len(), %keep_from, "expired log files deleted");
    }
    Ok(doomed.len())
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
    let mut before = None;
    loop {
        let page =
            retry.repeat(|| backend.list_commits(table_id, &filter, before, COMMIT_PAGE)).await?;
        for commit in page.items.iter().filter(|commit| commit.has_body) {
            missing.remove(&commit.version);
        }
        before = page.next;
        if before.is_none() || missing.is_empty() {
            return Ok(missing.is_empty());
        }
    }
}

#[cfg(test)]
#[path = "cleanup_tests.rs"]
mod tests;
