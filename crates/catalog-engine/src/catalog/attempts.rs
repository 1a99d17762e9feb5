//! From a batch to its report: attempts, lost races, lost answers.

use std::future::Future;
use std::time::Duration;

use deltalakedb_catalog_core::backend::{CommitOutcome, CommitRequest, CommittedTable};
use deltalakedb_catalog_core::delegation::Verb;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteError, WriteState};
use deltalakedb_catalog_core::ids::{At, CommitToken, TableRef};
use futures::stream::{self, StreamExt, TryStreamExt};
use tracing::{Instrument, Span};

use super::event::CommitEvent;
use super::part::{Part, refused, reject_duplicates};
use super::{Catalog, ChangeTarget, CommitBatch, CommitReport, TableChange};
use crate::conflict::{Conflict, ConflictKind, Isolation};
use crate::fence::FenceChange;
use crate::retry::Retry;
use crate::spans;

/// How often a commit is tried again after losing a race, or after a busy database.
const MAX_COMMIT_ATTEMPTS: u32 = 100;

/// Heads of one batch that are read at a time: less than a pool has connections.
const HEADS_AT_A_TIME: usize = 4;

impl Catalog {
    /// What a commit did, which the view that users read is told of.
    fn report(
        &self,
        token: CommitToken,
        replayed: bool,
        (attempts, begun): (u32, Duration),
        tables: Vec<CommittedTable>,
        working: &[Part<'_>],
    ) -> CommitReport {
        let time = self.clock.monotonic().saturating_sub(begun);
        for table in &tables {
            self.reader.note_change(table.table_id);
        }
        let user = self.signature().user.as_ref();
        let event = CommitEvent::new(&token, replayed, attempts, time, &tables, working, user);
        event.log();
        for hook in &self.hooks {
            hook.committed(&event);
        }
        CommitReport { token, replayed, attempts, tables }
    }

    /// Commits a batch: over all of its tables, or not at all.
    ///
    /// A lost race is rebased: the commit is checked against each commit that won (Delta's conflict
    /// rules) and tried on the new head, within a bound. A lost answer is resolved by the token.
    ///
    /// # Errors
    /// `Conflict`, `InvalidInput`, `Unsupported`, `TableFrozen`, `TableNotFound`, `TableExists`,
    /// `VersionNotFound` (the version read is not in the catalog), `CommitUnknown`. After all but
    /// the last, nothing was written.
    pub async fn commit(&self, batch: CommitBatch) -> Result<CommitReport> {
        let begun = self.clock.monotonic();
        let span = spans::commit(batch.tables.len());
        let answer = self.commit_from(batch, begun).instrument(span.clone()).await;
        if let Ok(CommitReport { replayed, attempts, tables, .. }) = &answer {
            span.record("replayed", replayed).record("attempts", i64::from(*attempts));
            if let [CommittedTable { version, .. }] = tables.as_slice() {
                span.record("version", version.get());
            }
        }
        spans::ended(&span, answer.as_ref().err().map(CatalogError::code));
        let how = answer.as_ref().map(|report| report.replayed);
        self.meters.committed(how, self.clock.monotonic().saturating_sub(begun));
        answer
    }

    async fn commit_from(&self, batch: CommitBatch, begun: Duration) -> Result<CommitReport> {
        let fresh = batch.token.is_none();
        let token = match batch.token {
            Some(token) => token,
            None => CommitToken::new(self.ids.uuid().as_hyphenated().to_string())?,
        };
        if batch.tables.is_empty() {
            return Err(CatalogError::invalid("a commit needs at least one table"));
        }
        if !fresh && let Some(tables) = self.resolve(&token).await? {
            return Ok(CommitReport { token, replayed: true, attempts: 0, tables });
        }
        let mut working: Vec<Part<'_>> = batch
            .tables
            .iter()
            .map(|change| Part {
                change,
                label: match &change.target {
                    ChangeTarget::Create { name, .. } => name.to_string(),
                    ChangeTarget::Existing { table, .. }
                    | ChangeTarget::Next { table, .. }
                    | ChangeTarget::Fence { table, .. } => table.to_string(),
                },
                new_id: None,
                table_id: None,
                plan: None,
                isolation: Isolation::default(),
                read_version: None,
                checked: None,
                pressure: None,
                on_remembered_head: false,
                reads_heads: false,
            })
            .collect();

        if let [part] = working.as_slice() {
            Span::current().record("table", &part.label);
        }
        self.check_clock().await?;
        let mut attempts = 0_u32;
        let retry = Retry::of(self);
        // In a row: a lost race shows that the database works.
        let mut failures = retry.start();
        let mut unknown = false;
        loop {
            attempts += 1;
            // The time that the database will take, unless a head is later.
            let now = self.clock.now();
            let parts = working.iter_mut().map(|part| self.prepare(part, &token, now)).collect();
            let tables = match some_at_a_time(parts).await {
                Ok(tables) => tables,
                Err(error) if unknown => {
                    return self.settle(token, (attempts, begun), error, &working).await;
                }
                Err(error) => return Err(error),
            };
            reject_duplicates(&working)?;
            let pressure = working.iter_mut().find_map(|part| part.pressure.take());
            let request = CommitRequest { token: token.clone(), now, tables };
            let outcome = match pressure {
                // Nothing was sent. Where an attempt before was in doubt, it may still be found.
                Some(text) => Err(CatalogError::busy(text, WriteState::NotApplied).into()),
                None => self.backend.commit(request).await,
            };
            let failure = match outcome {
                Ok(CommitOutcome::Committed(tables)) => {
                    return Ok(self.report(token, false, (attempts, begun), tables, &working));
                }
                Ok(CommitOutcome::Replayed(tables)) => {
                    // Our own lost answer is no replay in the caller's eyes.
                    return Ok(self.report(token, !unknown, (attempts, begun), tables, &working));
                }
                // What was remembered is out of date: no race was lost, there is nothing to wait for.
                Ok(
                    CommitOutcome::HeadMoved { index, .. } | CommitOutcome::Rejected { index, .. },
                ) if working.get_mut(index).is_some_and(|part| part.start_anew(&self.heads)) => {
                    continue;
                }
                Ok(CommitOutcome::HeadMoved { .. }) => None,
                Ok(CommitOutcome::Rejected { index, reason }) => {
                    let error = refused(working.get(index), reason);
                    // The name may be taken by an attempt of ours that was still running.
                    return if unknown {
                        self.settle(token, (attempts, begun), error, &working).await
                    } else {
                        Err(error)
                    };
                }
                Err(WriteError::Indeterminate(error)) => {
                    unknown = true;
                    if let Ok(Some(tables)) = self.resolve(&token).await {
                        return Ok(self.report(token, false, (attempts, begun), tables, &working));
                    }
                    Some(error.into())
                }
                Err(WriteError::Determinate(error)) if error.is_retryable() || unknown => {
                    Some(error.into())
                }
                Err(WriteError::Determinate(error)) => return Err(error.into()),
            };
            let goes_again = match &failure {
                _ if attempts >= MAX_COMMIT_ATTEMPTS => false,
                Some(_) => failures.again().await,
                None => {
                    retry.pause(attempts - 1).await;
                    failures.begin_anew();
                    true
                }
            };
            if !goes_again {
                let error = if let Some(error) = failure {
                    failures.explain(error)
                } else {
                    let labels: Vec<_> = working.iter().map(|w| w.label.as_str()).collect();
                    CatalogError::Conflict(Box::new(Conflict {
                        table: labels.join(", "),
                        read_version: None,
                        winning_version: None,
                        kind: ConflictKind::TooManyAttempts { attempts },
                    }))
                };
                if unknown {
                    return self.settle(token, (attempts, begun), error, &working).await;
                }
                return Err(error);
            }
            self.meters.again(Verb::Commit);
            tracing::debug!(attempts, %token, failed = failure.is_some(), "commit goes again");
        }
    }

    /// Refuses to commit with a clock that is too far ahead of the database's.
    async fn check_clock(&self) -> Result<()> {
        let asked = self.clock.now();
        if self.skew.is_due(asked) {
            match self.backend.info().await {
                Ok(info) => self.skew.compare(asked, &info),
                // The commit meets what is wrong with the database by itself. What was known of the clocks
                // before still holds.
                Err(error) => tracing::debug!(%error, "the clocks were not compared"),
            }
        }
        self.skew.check()
    }

    /// Changes who may write to a table. None if it is as wanted already.
    ///
    /// It is a change of the protocol: commits that were planned before and have not taken effect
    /// yet conflict with it.
    ///
    /// # Errors
    /// Those of [`Catalog::commit`].
    pub async fn change_fence(
        &self,
        table: &TableRef,
        change: FenceChange,
    ) -> Result<Option<CommitReport>> {
        let head = self.snapshot_on(&self.backend, table, At::Head).await?;
        if change.lines(&head)?.is_none() {
            return Ok(None);
        }
        let part = TableChange::of_fence(head.table.id, change);
        let batch = CommitBatch { token: None, tables: vec![part] };
        self.commit(batch).await.map(Some)
    }

    /// Ends a commit that cannot go on, and of which an earlier attempt was in doubt: the error
    /// speaks of the last attempt only.
    async fn settle(
        &self,
        token: CommitToken,
        (attempts, begun): (u32, Duration),
        error: CatalogError,
        working: &[Part<'_>],
    ) -> Result<CommitReport> {
        match self.resolve(&token).await {
            Ok(Some(tables)) => Ok(self.report(token, false, (attempts, begun), tables, working)),
            // Refused because of a state of the tables that the attempt in doubt cannot pass either:
            // what is not there by now does not come any more.
            Ok(None) if !matches!(error, CatalogError::Unavailable { .. }) => Err(error),
            _ => Err(CatalogError::CommitUnknown { token, message: error.to_string() }),
        }
    }

    /// What a token wrote; none if it wrote nothing (finally so once no commit with it is running).
    ///
    /// # Errors
    /// Those of the database.
    pub async fn resolve(&self, token: &CommitToken) -> Result<Option<Vec<CommittedTable>>> {
        self.repeat(|| self.backend.resolve_token(token)).await
    }
}

/// Answers of calls that are made a few at a time, in order; the first error in that order.
pub(super) async fn some_at_a_time<T>(
    calls: Vec<impl Future<Output = Result<T>>>,
) -> Result<Vec<T>> {
    stream::iter(calls).buffered(HEADS_AT_A_TIME).try_collect().await
}
