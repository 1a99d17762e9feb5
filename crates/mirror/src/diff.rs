//! Compares the catalog's state of a table with what its published log says.
//!
//! The log is read by the Delta kernel from the files alone, so the two sides share nothing: an
//! agreement means that every other Delta reader sees what the catalog says. Both are looked at at
//! the log's version; what the catalog has beyond it is lag, not drift. Besides the state, each
//! commit file in the log is compared byte for byte with the stored bytes of its version.

mod metrics;
mod report;
mod state;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::CommitFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{At, TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, MirrorMode, MirrorRow, MirrorState, Snapshot, TableRecord,
};
use deltalakedb_catalog_core::sink::MirrorSink;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::env::Progress;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::checksum::{Checksums, VersionChecksum, checksum_name};
use crate::foreign::{Desk, standing};
use crate::kernel::{KernelState, LogLocation, read_state};
use crate::log::listing::LogName;
use crate::put::commit_name;
use crate::sink::open_log_sink;
use crate::store::{log_location, normalize_location};
use deltalakedb_catalog_engine::retry::Retry;

pub use metrics::{metrics_json, metrics_prometheus};
pub use report::{
    ByteDrift, DiffReport, FieldDrift, FileDifference, FileDrift, FileDriftKind, MirrorStatus,
    Verdict, VersionList, VersionStatus,
};

/// Commit bodies read at a time.
const BODY_PAGE: usize = 64;
/// Log files read at a time.
const READS: usize = 16;
/// Versions listed in a report, at most, of each kind.
const MAX_VERSIONS: usize = 100;

/// What to compare, and how much of it to show.
#[derive(Debug, Clone)]
pub struct DiffOptions {
    /// Another `_delta_log/` than the table's own: an export, a copy.
    pub log_dir: Option<String>,
    /// Options of the object store of `log_dir`; none = the table's.
    pub storage_options: Option<BTreeMap<String, String>>,
    /// A log that is older than the catalog is fine for so long, seconds.
    pub lag_threshold_seconds: i64,
    /// So many data files may differ, and so many commit files have other bytes, without that being
    /// drift: they are reported, and the verdict is as if there were none.
    pub max_drift_files: u64,
    /// Files shown, at most; they are counted in full.
    pub shown_files: usize,
    /// Whether to compare each commit file byte for byte.
    pub compare_bytes: bool,
    /// The time that lag is measured at; none = the catalog's clock.
    pub now: Option<TimestampMs>,
}

impl Default for DiffOptions {
    fn default() -> Self {
        DiffOptions {
            log_dir: None,
            storage_options: None,
            lag_threshold_seconds: 0,
            max_drift_files: 0,
            shown_files: 20,
            compare_bytes: true,
            now: None,
        }
    }
}

/// Compares a table with its log.
///
/// # Errors
/// `TableNotFound`; those of the database and of the store. A log that cannot be understood is no
/// error but drift ([`DiffReport::log_error`]).
pub async fn diff(
    catalog: &Catalog,
    table: &TableRef,
    options: DiffOptions,
    progress: &dyn Progress,
) -> Result<DiffReport> {
    // A replica that lags would show differences that are none.
    let catalog = &catalog.clone().on_primary();
    // Order matters, as commits and publishing go on meanwhile: what is recorded as published is
    // looked at before the log, and the head after it. So a log that is ahead is foreign.
    let before = catalog.table(table).await?;
    let own = options.log_dir.is_none();
    let (location, log_dir) = match &options.log_dir {
        None => {
            let location = LogLocation::Table(before.location.clone());
            (location, log_location(&normalize_location(&before.location)?))
        }
        Some(dir) => (LogLocation::LogDir(dir.clone()), normalize_location(dir)?),
    };
    let store_options = options.storage_options.as_ref().unwrap_or(&before.storage_options);
    let sink = open_log_sink(&log_dir, store_options)?;

    let (state, log_error) = if sink.list(None).await?.iter().any(|e| is_state(&e.name)) {
        match read_state(location.clone(), store_options, None).await {
            Ok(state) => (Some(state), None),
            Err(e @ (CatalogError::Corrupt(_) | CatalogError::Unsupported(_))) => (None, Some(e)),
            Err(e) => return Err(e),
        }
    } else {
        (None, None)
    };
    let there = LogFiles::list(sink.as_ref()).await?;
    let head = catalog.snapshot(&TableRef::Id(before.id), At::Head).await?;
    let log_version = state.as_ref().map(|s| s.version).or(there.last);

    let mut report = DiffReport::new(&head, log_dir, own, log_version);
    report.log_error = log_error.as_ref().map(ToString::to_string);
    report.log_unsupported = matches!(log_error, Some(CatalogError::Unsupported(_)));
    let compare = Compare { catalog, retry: Retry::of(catalog), head: &head, progress };
    compare.lag(&mut report, &options).await?;
    if let Some(state) = state {
        compare.state(&mut report, state, &location, store_options, &options).await?;
    }
    compare.bytes(&mut report, &sink, &there, &before, options.compare_bytes).await?;
    let mut now = before;
    if own && compare.foreign(&report, sink.as_ref(), &there, &now).await? {
        now = catalog.table(&TableRef::Id(now.id)).await?;
    }
    report.mirror_status = compare.mirror_status(&now).await?;
    report.decide(options.lag_threshold_seconds, options.max_drift_files);
    Ok(report)
}

/// Whether a reader can make something of a log with this file.
fn is_state(name: &str) -> bool {
    matches!(
        LogName::parse(name),
        LogName::Commit(_)
            | LogName::Checkpoint(_)
            | LogName::CheckpointPart { .. }
            | LogName::UuidCheckpoint { .. }
    )
}

/// Commits in a log folder.
#[derive(Default)]
struct LogFiles {
    commits: BTreeSet<Version>,
    checksums: BTreeSet<Version>,
    /// Latest version of any commit or checkpoint.
    last: Option<Version>,
}

impl LogFiles {
    async fn list(sink: &dyn MirrorSink) -> Result<LogFiles> {
        let mut files = LogFiles::default();
        for entry in sink.list(None).await? {
            let version = match LogName::parse(&entry.name) {
                LogName::Commit(version) => {
                    files.commits.insert(version);
                    version
                }
                LogName::Checksum(version) => {
                    files.checksums.insert(version);
                    continue;
                }
                LogName::Checkpoint(version)
                | LogName::CheckpointPart { version, .. }
                | LogName::UuidCheckpoint { version, .. } => version,
                _ => continue,
            };
            files.last = files.last.max(Some(version));
        }
        Ok(files)
    }
}

/// A version's files, with the bytes that its commit should have.
struct Compared {
    record: CommitRecord,
    ours: Bytes,
    commit: Option<Bytes>,
    checksum: Option<Bytes>,
}

struct Compare<'a> {
    catalog: &'a Catalog,
    retry: Retry,
    head: &'a Snapshot,
    progress: &'a dyn Progress,
}

impl Compare<'_> {
    fn table_id(&self) -> TableId {
        self.head.table.id
    }

    /// Versions that the log lacks at its end, and how old the first of them is.
    async fn lag(&self, report: &mut DiffReport, options: &DiffOptions) -> Result<()> {
        let first = report.log_version.map_or(Version::ZERO, Version::next);
        if first > self.head.version {
            return Ok(());
        }
        let unpublished = self.head.version.get() - first.get() + 1;
        report.unpublished_versions = u64::try_from(unpublished).unwrap_or(0);
        report.first_unpublished = Some(first);
        let filter = CommitFilter {
            from_version: Some(first),
            to_version: Some(first),
            ..Default::default()
        };
        let oldest = self.catalog.history(self.table_id(), filter).try_next().await?;
        // A version below an import's base may have no row: the base is the oldest that is known.
        let oldest = oldest.map_or(self.head.timestamp, |commit| commit.timestamp);
        let now = options.now.unwrap_or_else(|| self.catalog.clock().now());
        report.lag_ms = now.0.saturating_sub(oldest.0).max(0);
        report.lag_seconds = report.lag_ms / 1_000;
        Ok(())
    }

    /// State at the log's version, or at the head where the log is ahead.
    async fn state(
        &self,
        report: &mut DiffReport,
        mut log: KernelState,
        location: &LogLocation,
        store_options: &BTreeMap<String, String>,
        options: &DiffOptions,
    ) -> Result<()> {
        if log.version > self.head.version {
            match read_state(location.clone(), store_options, Some(self.head.version)).await {
                Ok(state) => log = state,
                Err(e @ CatalogError::Corrupt(_)) => {
                    report.log_error = Some(e.to_string());
                    return Ok(());
                }
                Err(e) => return Err(e),
            }
        }
        if log.version < self.head.table.base_version {
            report.log_error = Some(format!(
                "the log ends at version {}, and the catalog knows the table's state from version \
                 {} on: their states cannot be compared",
                log.version, self.head.table.base_version
            ));
            return Ok(());
        }
        let table = TableRef::Id(self.table_id());
        let ours = self.catalog.snapshot(&table, At::Version(log.version)).await?;
        report.compared_version = Some(log.version);
        report.protocol = state::protocol_drift(&ours.protocol, &log.protocol);
        report.metadata = state::metadata_drift(&ours.metadata, &log.metadata);
        let backend = self.catalog.backend();
        let txns =
            self.retry.repeat(|| backend.app_transactions(ours.table.id, log.version)).await?;
        let domains =
            self.retry.repeat(|| backend.domain_metadata(ours.table.id, log.version)).await?;
        report.metadata.extend(state::transaction_drift(txns, &log.txns));
        report.metadata.extend(state::domain_drift(domains, &log.domain_metadata));
        self.progress.begin("comparing", "files", Some(ours.num_files));
        let files = self.catalog.files(ours.table.id, log.version);
        let result = state::file_drift(files, log.files, options.shown_files, self.progress).await;
        self.progress.end();
        report.files = Some(result?);
        Ok(())
    }

    /// Commit files against stored bytes, and those that should be there and are not.
    async fn bytes(
        &self,
        report: &mut DiffReport,
        sink: &Arc<dyn MirrorSink>,
        there: &LogFiles,
        before: &TableRecord,
        compare: bool,
    ) -> Result<()> {
        let mut drift = ByteDrift::default();
        // Other engines clean up old commits once a checkpoint covers them: no drift.
        let first = there.commits.first().copied();
        let first = first.or(report.log_version.map(Version::next));
        let expected = if report.own_log { before.published_version } else { report.log_version };
        if let (Some(first), Some(expected)) = (first, expected.max(report.log_version)) {
            let filter = CommitFilter {
                from_version: Some(first),
                to_version: Some(expected),
                ..Default::default()
            };
            let mut history = self.catalog.history(self.table_id(), filter);
            while let Some(commit) = history.try_next().await? {
                if commit.has_body && !there.commits.contains(&commit.version) {
                    drift.missing.add(commit.version);
                }
            }
        } else if report.own_log && before.published_version.is_some() {
            // All of it is gone.
            let filter = CommitFilter { to_version: expected, ..Default::default() };
            let mut history = self.catalog.history(self.table_id(), filter);
            while let Some(commit) = history.try_next().await? {
                if commit.has_body {
                    drift.missing.add(commit.version);
                }
            }
        }
        for version in there.commits.range(self.head.version.next()..) {
            drift.foreign.add(*version);
        }
        if compare {
            self.compare_bytes(&mut drift, sink, there).await?;
        }
        let ByteDrift { missing, different, foreign, checksums, .. } = &mut drift;
        for versions in [missing, different, foreign, checksums] {
            versions.finish(MAX_VERSIONS);
        }
        report.bytes = drift;
        Ok(())
    }

    async fn compare_bytes(
        &self,
        drift: &mut ByteDrift,
        sink: &Arc<dyn MirrorSink>,
        there: &LogFiles,
    ) -> Result<()> {
        let ours: Vec<Version> = there.commits.range(..=self.head.version).copied().collect();
        let (Some(mut next), Some(last)) = (ours.first().copied(), ours.last().copied()) else {
            return Ok(());
        };
        self.progress.begin("comparing", "commit files", u64::try_from(ours.len()).ok());
        let backend = self.catalog.backend();
        let (id, base) = (self.table_id(), self.head.table.base_version);
        let mut checksums = Checksums::new(Arc::clone(backend), self.retry.clone(), id);
        loop {
            let bodies = self
                .retry
                .repeat(|| backend.read_bodies(self.table_id(), next, last, BODY_PAGE))
                .await?;
            let Some((end, _)) = bodies.last() else { break };
            let end = end.version;
            let found: Vec<Compared> = stream::iter(bodies)
                .filter(|(record, _)| {
                    futures::future::ready(there.commits.contains(&record.version))
                })
                .map(|(record, body)| {
                    let sink = Arc::clone(sink);
                    let version = record.version;
                    let with_checksum = version >= base && there.checksums.contains(&version);
                    async move {
                        let commit = sink.get(&commit_name(version)).await?;
                        let checksum = if with_checksum {
                            sink.get(&checksum_name(version)).await?
                        } else {
                            None
                        };
                        let ours = body.published()?;
                        Ok::<_, CatalogError>(Compared { record, ours, commit, checksum })
                    }
                })
                .buffered(READS)
                .try_collect()
                .await?;
            for Compared { record, ours, commit, checksum } in found {
                if let Some(theirs) = checksum {
                    checksums.advance(&record, &ours).await?;
                    let ours = checksums.checksum(&record);
                    let theirs = VersionChecksum::parse(&theirs);
                    // One that says nothing is passed over by readers; one that says something
                    // else is believed.
                    if ours.zip(theirs).is_none_or(|(ours, theirs)| !theirs.agrees_with(&ours)) {
                        drift.checksums.add(record.version);
                    }
                }
                // One that is gone by now was cleaned up since the listing.
                let Some(commit) = commit else { continue };
                drift.compared += 1;
                if commit != ours {
                    drift.different.add(record.version);
                }
                self.progress.advance(1);
            }
            if end >= last {
                break;
            }
            next = end.next();
        }
        self.progress.end();
        Ok(())
    }

    /// Records a commit of another program in the table's own log (see [`crate::foreign`]); whether
    /// there is one.
    async fn foreign(
        &self,
        report: &DiffReport,
        sink: &dyn MirrorSink,
        there: &LogFiles,
        before: &TableRecord,
    ) -> Result<bool> {
        let published = before.published_version;
        let differs = report.bytes.different.first.iter().copied();
        let Some(first) = differs
            .filter(|version| Some(*version) > published)
            .chain(there.commits.range(self.head.version.next()..).copied())
            .min()
        else {
            return Ok(false);
        };
        Desk::of(self.catalog, &self.retry)
            .look(self.table_id(), sink, first)
            .await
            .map(|found| found.is_some())
    }

    /// Outbox rows that are not complete, as many as a report shows, and the latest complete one.
    async fn mirror_status(&self, before: &TableRecord) -> Result<MirrorStatus> {
        let backend = self.catalog.backend();
        let id = self.table_id();
        let open =
            self.retry.repeat(|| backend.mirror_rows(Some(id), None, None, MAX_VERSIONS)).await?;
        let truncated = open.next.is_some();
        let mut rows = open.items;
        if let Some(published) = before.published_version {
            let after = published.previous().map(|version| (id, version));
            let latest = self
                .retry
                .repeat(|| backend.mirror_rows(Some(id), Some(MirrorState::Complete), after, 1))
                .await?;
            rows.extend(latest.items.into_iter().filter(|row| row.version == published));
        }
        rows.sort_by_key(|row| row.version);
        let mut versions: Vec<VersionStatus> = rows
            .into_iter()
            .map(|MirrorRow { version, state, attempts, last_error, .. }| VersionStatus {
                version,
                state,
                attempts,
                last_error,
            })
            .collect();
        if before.mirror == MirrorMode::Diverged {
            stopped(before, &mut versions);
        }
        Ok(MirrorStatus { mode: before.mirror, versions, truncated })
    }
}

/// The version at which a foreign commit stands has failed, whether or not the catalog has one there.
fn stopped(record: &TableRecord, versions: &mut Vec<VersionStatus>) {
    let next = record.published_version.map_or(Version::ZERO, Version::next);
    let error = standing(record);
    match versions.iter_mut().find(|status| status.version >= next) {
        Some(status) => {
            status.state = MirrorState::Failed;
            status.last_error.get_or_insert(error);
        }
        None => versions.push(VersionStatus {
            version: next,
            state: MirrorState::Failed,
            attempts: 0,
            last_error: Some(error),
        }),
    }
}

/// Whether lag is expected of a table: it is only of one that is to be published.
fn lag_counts(mode: MirrorMode, own_log: bool) -> bool {
    !own_log || mode != MirrorMode::Off
}

#[cfg(test)]
#[path = "diff/tests.rs"]
mod tests;
