//! One task: the next versions of one table.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use deltalakedb_catalog_core::action::Metadata;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{MirrorLease, MirrorTask, PublishFailure, Published};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::{At, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{CommitRecord, Snapshot, TableRecord};
use deltalakedb_catalog_core::sink::MirrorSink;
use deltalakedb_catalog_engine::spans;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;
use tracing::field::Empty;

use super::Publisher;
use super::report::{PublishIssue, TableRun, TaskOutcome};
use crate::checkpoint::{write_checkpoint, write_last_checkpoint};
use crate::checksum::{self, Checksums, VersionChecksum, checksum_name};
use crate::cleanup::clean;
use crate::foreign::foreign_text;
use crate::measure::{self, Attempt};
use crate::properties::checkpoint_interval;
use crate::put::{ForeignBytes, Put, commit_name, digest, put_over_torn, torn_text};

/// Commit bodies read at a time.
const BODY_PAGE: usize = 32;
/// After so many attempts, a version whose checksum or checkpoint cannot be written is published
/// without: they make readers faster, commits are what they read.
const EXTRA_ATTEMPTS: u32 = 3;
/// Checksums that are on their way at a time. They need not wait for each other.
const CHECKSUMS_AT_A_TIME: usize = 8;

/// Text of a lost lease.
const TAKEN_OVER: &str = "another worker took the table over; it goes on where this one stopped";

/// Why a version could not be published.
struct Stopped {
    version: Version,
    error: String,
    diverged: bool,
}

/// Why work on a table ended early.
enum End {
    /// A version failed: to be recorded.
    Failed(Stopped),
    /// What was put from this version on could not be recorded, or maybe was.
    Unrecorded { version: Version, error: String },
    /// Another worker has the table: nothing can be recorded.
    LeaseLost { error: String },
}

/// How the checksum of a version went: an error to try again, or what a person is told.
struct Extra {
    version: Version,
    result: Result<Option<String>>,
}

/// Work on one task.
struct Work<'a> {
    publisher: &'a Publisher,
    table: &'a TableRecord,
    lease: &'a MirrorLease,
    sink: Arc<dyn MirrorSink>,
    attempts: u32,
    first: Version,
    /// Put, not yet recorded.
    put: Vec<Published>,
    /// Commit timestamps of what is put.
    committed: BTreeMap<Version, TimestampMs>,
    checksums: Checksums,
    /// Properties in force at the last checkpoint that was written, if any was.
    cleans: Option<Metadata>,
    /// Checksums on their way, of versions that are put.
    on_their_way: JoinSet<Extra>,
    run: TableRun,
    failures: Vec<PublishIssue>,
}

impl Publisher {
    /// Publishes a task's versions while its lease holds.
    pub(super) async fn publish(
        &self,
        task: MirrorTask,
        stop: Option<&watch::Receiver<bool>>,
    ) -> TaskOutcome {
        let span = tracing::trace_span!(
            "publish",
            table = %task.table.name,
            published = Empty,
            version = Empty,
            otel.status_code = Empty,
            error.type = Empty
        );
        let outcome = self.publish_task(task, stop).instrument(span.clone()).await;
        span.record("published", spans::number(outcome.run.published));
        if let Some(version) = outcome.run.published_version {
            span.record("version", version.get());
        }
        let failed = outcome.lost_lease || !outcome.failures.is_empty();
        spans::ended(&span, failed.then_some("publish_failed"));
        outcome
    }

    async fn publish_task(
        &self,
        task: MirrorTask,
        stop: Option<&watch::Receiver<bool>>,
    ) -> TaskOutcome {
        let MirrorTask { lease, table, versions, attempts } = task;
        let name = table.name.clone();
        let mut outcome = TaskOutcome {
            table_id: table.id,
            run: TableRun {
                name: name.clone(),
                published: 0,
                published_version: table.published_version,
                checkpoints: 0,
            },
            failures: Vec::new(),
            lost_lease: false,
        };
        let (Some(first), Some(last)) = (versions.first().copied(), versions.last().copied())
        else {
            self.release(&lease).await;
            return outcome;
        };
        let issue = |version, error, retry_at, diverged| PublishIssue {
            table_id: lease.table_id,
            name: name.clone(),
            version,
            error,
            retry_at,
            diverged,
            published: false,
        };
        let end = match self.sink(&table) {
            Err(e) => {
                let error = e.to_string();
                Err(End::Failed(Stopped { version: first, error, diverged: false }))
            }
            Ok(sink) => {
                let mut work = Work {
                    publisher: self,
                    table: &table,
                    lease: &lease,
                    sink,
                    attempts,
                    first,
                    put: Vec::new(),
                    committed: BTreeMap::new(),
                    checksums: Checksums::new(
                        Arc::clone(&self.backend),
                        self.retry.clone(),
                        table.id,
                    ),
                    cleans: None,
                    on_their_way: JoinSet::new(),
                    run: outcome.run.clone(),
                    failures: Vec::new(),
                };
                let end = tokio::select! {
                    biased;
                    end = work.all(first, last, stop) => end,
                    error = self.keep_lease(&lease) => Err(End::LeaseLost { error }),
                };
                outcome.run = work.run;
                outcome.failures = work.failures;
                end
            }
        };
        match end {
            Ok(()) => self.release(&lease).await,
            Err(End::LeaseLost { error }) => {
                outcome.lost_lease = true;
                let version = outcome.run.published_version.map_or(Version::ZERO, Version::next);
                outcome.failures.push(issue(version, error, None, false));
            }
            Err(End::Unrecorded { version, error }) => {
                let stopped = Stopped { version, error, diverged: false };
                let attempt = if version == first { attempts } else { 0 };
                let recorded = self.record_failure(&lease, &stopped, attempt).await;
                if matches!(recorded, Err(CatalogError::InvalidInput(_))) {
                    // It had been recorded as published: only the answer was lost.
                    self.release(&lease).await;
                }
                outcome.lost_lease = matches!(recorded, Ok(None));
                let retry_at = recorded.ok().flatten();
                outcome.failures.push(issue(version, stopped.error, retry_at, false));
            }
            Err(End::Failed(stopped)) => {
                // Attempts are counted for the first version; a later one failed for the first time.
                let attempt = if stopped.version == first { attempts } else { 0 };
                let recorded = self.record_failure(&lease, &stopped, attempt).await;
                outcome.lost_lease = matches!(recorded, Ok(None));
                let Stopped { version, error, diverged } = stopped;
                let retry_at = recorded.ok().flatten().filter(|_| !diverged);
                outcome.failures.push(issue(version, error, retry_at, diverged));
            }
        }
        outcome
    }

    /// Records a failure, which gives the lease up. Returns when the version is tried again; none
    /// if the lease was lost. After an error it is given up once the database answers.
    async fn record_failure(
        &self,
        lease: &MirrorLease,
        stopped: &Stopped,
        attempt: u32,
    ) -> Result<Option<TimestampMs>> {
        let Stopped { version, error, diverged } = stopped;
        let (table, version, diverged) = (lease.table_id, *version, *diverged);
        tracing::warn!(%table, %version, %error, diverged, "publishing failed");
        let retry_at = self.clock.now().plus_ms(self.backoff(attempt));
        let failure = PublishFailure { version, error: error.clone(), retry_at, diverged };
        match self.retry.repeat(|| self.backend.mirror_fail(lease, &failure)).await {
            Ok(recorded) => Ok(recorded.then_some(retry_at)),
            Err(error) => {
                tracing::warn!(%table, %version, %error, "the failure was not recorded");
                self.strand(lease);
                Err(error)
            }
        }
    }

    /// Gives a lease up. If that fails it lapses by itself.
    async fn release(&self, lease: &MirrorLease) {
        if let Err(error) = self.retry.repeat(|| self.backend.mirror_release(lease)).await {
            tracing::warn!(table = %lease.table_id, %error, "a lease was not given up");
            self.strand(lease);
        }
    }

    /// Renews a lease again and again; returns when it is lost, and how.
    async fn keep_lease(&self, lease: &MirrorLease) -> String {
        let third = u64::try_from(self.config.lease_ms / 3).unwrap_or(1).max(1);
        let mut until = lease.until;
        loop {
            self.clock.sleep(Duration::from_millis(third)).await;
            let now = self.clock.now();
            match self.backend.mirror_renew(lease, now, self.config.lease_ms).await {
                Ok(Some(renewed)) => until = renewed.until,
                // A failed renewal is tried again as long as the lease can still hold.
                Err(error) if now < until => tracing::warn!(%error, "a lease was not renewed"),
                Err(e) => return format!("the lease lapsed while the database failed: {e}"),
                Ok(None) => return TAKEN_OVER.to_owned(),
            }
            // A clock that does not wait must not keep the work from its turn.
            tokio::task::yield_now().await;
        }
    }
}

impl Work<'_> {
    /// All versions of the task, or as far as it goes; what was put is recorded in any case.
    async fn all(
        &mut self,
        first: Version,
        last: Version,
        stop: Option<&watch::Receiver<bool>>,
    ) -> Result<(), End> {
        let mut end = self.put_all(first, last, stop).await;
        // A failure of the first version counts, whichever came first.
        while let Err(earlier) = self.await_checksums(0).await {
            end = match end {
                Err(End::Failed(later)) => Err(earliest(later, earlier)),
                _ => Err(earlier),
            };
        }
        self.record().await?;
        if end.is_ok() {
            self.clean().await;
        }
        end
    }

    /// Deletes what has expired of the log, now that there is a new checkpoint. Best effort: what is
    /// left behind is found after the next one.
    async fn clean(&mut self) {
        let (Some(metadata), Some(published)) = (self.cleans.take(), self.run.published_version)
        else {
            return;
        };
        let Publisher { backend, retry, clock, .. } = self.publisher;
        let (id, now, sink) = (self.table.id, clock.now(), self.sink.as_ref());
        if let Err(error) = clean(backend, retry, id, &metadata, published, now, sink).await {
            tracing::warn!(table = %self.table.name, %error, "expired log files were not deleted");
        }
    }

    async fn put_all(
        &mut self,
        first: Version,
        last: Version,
        stop: Option<&watch::Receiver<bool>>,
    ) -> Result<(), End> {
        let Publisher { backend, retry, config, .. } = self.publisher;
        let mut next = first;
        while next <= last {
            let bodies = retry
                .repeat(|| backend.read_bodies(self.table.id, next, last, BODY_PAGE))
                .await
                .map_err(|e| failed(next, &e))?;
            if bodies.is_empty() {
                return Err(self.no_bytes(next));
            }
            for (record, body) in bodies {
                if stop.is_some_and(|stop| *stop.borrow()) {
                    return Ok(());
                }
                if record.version != next {
                    return Err(self.no_bytes(next));
                }
                let bytes = body.published().map_err(|e| failed(next, &e))?;
                self.timed_version(&record, &bytes).await?;
                self.committed.insert(next, record.timestamp);
                self.put.push(Published {
                    version: next,
                    digest: digest(&bytes),
                    at: self.publisher.clock.now(),
                });
                if self.put.len() >= config.complete_batch.max(1) {
                    self.await_checksums(0).await?;
                    self.record().await?;
                }
                next = next.next();
            }
        }
        Ok(())
    }

    fn no_bytes(&self, version: Version) -> End {
        End::Failed(Stopped {
            version,
            error: format!(
                "the catalog holds no bytes of version {version} of table '{}': its rows are \
                 damaged. Restore the catalog from a backup",
                self.table.name
            ),
            diverged: false,
        })
    }

    /// [`Work::publish_version`], timed: an attempt.
    async fn timed_version(&mut self, record: &CommitRecord, bytes: &Bytes) -> Result<(), End> {
        let clock = Arc::clone(&self.publisher.clock);
        let begun = clock.monotonic();
        let span = tracing::trace_span!(
            "publish_version",
            version = record.version.get(),
            otel.status_code = Empty,
            error.type = Empty
        );
        let end = self.publish_version(record, bytes).instrument(span.clone()).await;
        let how = match &end {
            Ok(()) => Attempt::Ok,
            Err(End::Failed(Stopped { diverged: true, .. })) => Attempt::Diverged,
            Err(_) => Attempt::Error,
        };
        spans::ended(
            &span,
            match how {
                Attempt::Ok => None,
                Attempt::Diverged => Some("diverged"),
                Attempt::Error => Some("publish_failed"),
            },
        );
        measure::attempted(how, clock.monotonic().saturating_sub(begun));
        end
    }

    /// `N.json`, its time, its checksum, and the checkpoint where one is due.
    ///
    /// The checksum is on its way when this returns; it has arrived before the checkpoint of its
    /// version is begun, and before the version is recorded.
    async fn publish_version(&mut self, record: &CommitRecord, bytes: &Bytes) -> Result<(), End> {
        let version = record.version;
        let name = commit_name(version);
        let found = put_over_torn(self.sink.as_ref(), &name, bytes, self.is_retry(version));
        match found.await.map_err(|e| failed(version, &e))? {
            Put::Created | Put::Same => {}
            Put::Foreign(foreign) => {
                let error = self.foreign(version, &name, foreign);
                return Err(End::Failed(Stopped { version, error, diverged: !foreign.torn }));
            }
        }
        if let Err(error) = self.sink.set_modified(&name, record.timestamp).await {
            // Readers that travel by file time see the time of publishing instead.
            tracing::warn!(table = %self.table.name, %version, %error, "file time not set");
        }
        let interval = match self.checksums.advance(record, bytes).await {
            Ok(snapshot) => checkpoint_interval(&snapshot.metadata),
            Err(error) => return Err(failed(version, &error)),
        };
        self.send_checksum(record).await?;
        if version == Version::ZERO || version.get() % interval != 0 {
            return Ok(());
        }
        self.await_checksums(0).await?;
        match self.checkpoint(version).await {
            Ok(()) => Ok(()),
            Err(error) => self.leave_out(version, "checkpoint", &error),
        }
    }

    /// Whether this version has been tried before, with a pause since.
    fn is_retry(&self, version: Version) -> bool {
        version == self.first && self.attempts > 0
    }

    /// What is to be done about a version whose extra file could not be written: try it all again,
    /// or publish the version without.
    fn leave_out(&mut self, version: Version, what: &str, error: &CatalogError) -> Result<(), End> {
        let passing = matches!(error, CatalogError::Unavailable { .. });
        let last = version == self.first && self.attempts + 1 >= EXTRA_ATTEMPTS;
        if passing && !last {
            return Err(failed(version, error));
        }
        self.remark(version, format!("the {what} of version {version} was left out: {error}"));
        Ok(())
    }

    /// Tells of a version that is published all the same.
    fn remark(&mut self, version: Version, error: String) {
        tracing::error!(table = %self.table.name, %version, %error, "published, but");
        self.failures.push(PublishIssue {
            table_id: self.table.id,
            name: self.table.name.clone(),
            version,
            error,
            retry_at: None,
            diverged: false,
            published: true,
        });
    }

    async fn send_checksum(&mut self, record: &CommitRecord) -> Result<(), End> {
        let Some(checksum) = self.checksums.checksum(record) else { return Ok(()) };
        self.await_checksums(CHECKSUMS_AT_A_TIME - 1).await?;
        let (sink, version) = (Arc::clone(&self.sink), record.version);
        let retry = self.is_retry(version);
        let work = async move {
            Extra { version, result: put_checksum(sink.as_ref(), version, &checksum, retry).await }
        };
        self.on_their_way.spawn(work.in_current_span());
        Ok(())
    }

    /// Waits until at most so many checksums are on their way.
    async fn await_checksums(&mut self, left: usize) -> Result<(), End> {
        while self.on_their_way.len() > left {
            let Some(done) = self.on_their_way.join_next().await else { break };
            let Extra { version, result } = match done {
                Ok(extra) => extra,
                Err(e) => {
                    let version = self.put.first().map_or(self.first, |put| put.version);
                    self.put.clear();
                    let error = format!("writing a checksum was broken off: {e}");
                    return Err(End::Failed(Stopped { version, error, diverged: false }));
                }
            };
            match result {
                Ok(None) => {}
                Ok(Some(remark)) => self.remark(version, remark),
                Err(error) => self.leave_out(version, "checksum", &error).inspect_err(|_| {
                    // From this version on, nothing is recorded.
                    self.put.retain(|put| put.version < version);
                })?,
            }
        }
        Ok(())
    }

    async fn checkpoint(&mut self, version: Version) -> Result<()> {
        let snapshot = self.snapshot(version).await?;
        let backend = self.publisher.backend.as_ref();
        let info = write_checkpoint(backend, &snapshot, self.sink.as_ref(), self.is_retry(version))
            .await?;
        self.run.checkpoints += u64::from(info.created);
        write_last_checkpoint(self.sink.as_ref(), &info).await?;
        self.cleans = Some(snapshot.metadata);
        Ok(())
    }

    async fn snapshot(&self, version: Version) -> Result<Snapshot> {
        let Publisher { backend, retry, .. } = self.publisher;
        let table = TableRef::Id(self.table.id);
        retry.repeat(|| backend.snapshot(&table, At::Version(version))).await
    }

    /// Records what was put.
    async fn record(&mut self) -> Result<(), End> {
        let (Some(first), Some(last)) =
            (self.put.first().map(|p| p.version), self.put.last().map(|p| p.version))
        else {
            return Ok(());
        };
        let Publisher { backend, retry, .. } = self.publisher;
        let recorded = retry.repeat(|| backend.mirror_complete(self.lease, &self.put)).await;
        match recorded {
            Ok(true) => {
                self.run.published += u64::try_from(self.put.len()).unwrap_or(u64::MAX);
                self.run.published_version = Some(last);
                tracing::debug!(table = %self.table.name, version = %last, "published");
                let now = self.publisher.clock.now();
                for put in self.put.drain(..) {
                    let Some(at) = self.committed.remove(&put.version) else { continue };
                    let ms = u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0);
                    measure::published(Duration::from_millis(ms));
                }
                Ok(())
            }
            Ok(false) => Err(End::LeaseLost { error: TAKEN_OVER.to_owned() }),
            Err(e) => Err(End::Unrecorded { version: first, error: e.to_string() }),
        }
    }

    fn foreign(&self, version: Version, name: &str, foreign: ForeignBytes) -> String {
        foreign_text(&self.table.name.to_string(), version, &self.sink.describe(), name, foreign)
    }
}

/// Of two failures the one of the lower version: versions are tried again from it on.
fn earliest(a: Stopped, b: End) -> End {
    match b {
        End::Failed(b) if b.version < a.version => End::Failed(b),
        End::Failed(_) => End::Failed(a),
        other => other,
    }
}

/// Puts a checksum. Returns what a person is told, if another one stands there that contradicts it.
async fn put_checksum(
    sink: &dyn MirrorSink,
    version: Version,
    ours: &VersionChecksum,
    is_retry: bool,
) -> Result<Option<String>> {
    let name = checksum_name(version);
    let bytes = checksum::encode(ours)?;
    let foreign = match put_over_torn(sink, &name, &bytes, is_retry).await? {
        Put::Created | Put::Same => return Ok(None),
        Put::Foreign(foreign) => foreign,
    };
    if foreign.torn {
        return Err(CatalogError::busy(
            torn_text(&sink.describe(), &name, foreign),
            WriteState::NotApplied,
        ));
    }
    // Another engine that reads our log may write checksums: as good as ours if they say the same.
    let found = sink.get(&name).await?;
    let agrees = found
        .as_deref()
        .and_then(VersionChecksum::parse)
        .is_some_and(|theirs| theirs.agrees_with(ours));
    Ok((!agrees).then(|| {
        format!(
            "'{}/{name}' is not the checksum of version {version} of this table: another program \
             wrote it, or it was damaged. It was left alone; delete it, and `dl mirror reconcile` \
             writes it anew",
            sink.describe()
        )
    }))
}

fn failed(version: Version, error: &CatalogError) -> End {
    End::Failed(Stopped { version, error: error.to_string(), diverged: false })
}
