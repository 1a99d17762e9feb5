//! The commit of any size: tokens, refusals, and which way it goes.
//!
//! Isolation, at READ COMMITTED with row versions or without, and whatever hints do: a commit's
//! first statement on a table is the `UPDATE` of its row in `{p}tables` with the condition on the
//! head in its `WHERE`. An `UPDATE` waits for others that change the row and then looks at what
//! they committed, so of several commits to one table each sees the heads before it, and one whose
//! condition no longer holds changes nothing. The row stays locked to the end: no one else writes
//! rows of this table. Tables are taken in the order of their ids, so two commits do not wait for
//! each other; should a deadlock come about all the same, it is a retryable error and nothing is
//! written. Tokens, names, ids and versions are primary keys or unique indexes: a race that got
//! past the look at them ends as a duplicate key, never as two rows.
//!
//! [`crate::commit_batch`] sends a commit as one request, [`crate::commit_staged`] one that is too
//! large for it in several.

use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, Rejection,
};
use deltalakedb_catalog_core::commit::commit_info_object;
use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::{CommitToken, TableName, Version};
use deltalakedb_catalog_core::support::check_shape;

use crate::commit_batch::Plan;
use crate::commit_staged;
use crate::errors::{DbError, DbResult};
use crate::rows::{Reader, bytes};
use crate::session::{Lease, Session, Sets};
use crate::statements::{Statements, statements};
use crate::tables::{live_name, state_of};

statements! {
    /// Statements that write a version.
    CommitSql {
        token_is_known: "SELECT COUNT(*) AS known FROM {p}batches WHERE token = @P1;
            SELECT table_id, version, timestamp_ms FROM {p}commits
            WHERE token = @P1 ORDER BY batch_position",
        insert_batch: "INSERT INTO {p}batches (token, committed_at_ms) VALUES (@P1, @P2)",
        insert_commit: "INSERT INTO {p}commits (table_id, version, timestamp_ms, token,
                batch_position, num_added, num_removed, bytes_added, bytes_removed,
                changes_metadata, changes_protocol, total_files, total_bytes, has_body, body_len,
                first_line, commit_info)
            VALUES (@P1, @P2, @P3, @P4, @P5, @P6, @P7, @P8, @P9, @P10, @P11, @P12, @P13, 1, @P14,
                @P15, @P16)",
        insert_chunk: "INSERT INTO {p}commit_chunks (table_id, version, chunk_no, body)
            VALUES (@P1, @P2, @P3, @P4)",
        insert_protocol: "INSERT INTO {p}protocols (table_id, version, protocol)
            VALUES (@P1, @P2, @P3)",
        insert_metadata: "INSERT INTO {p}metadata (table_id, version, metadata)
            VALUES (@P1, @P2, @P3)",
        insert_txn: "INSERT INTO {p}txns (table_id, app_key, version, app_id, app_version,
                last_updated)
            VALUES (@P1, @P2, @P3, @P4, @P5, @P6)",
        insert_domain: "INSERT INTO {p}domain_metadata (table_id, domain_key, version, domain,
                removed, configuration)
            VALUES (@P1, @P2, @P3, @P4, @P5, @P6)",
        /// Compare-and-set of the head, for one that must be exactly @P3.
        move_exactly: "SET NOCOUNT ON; DECLARE @n BIGINT;
            UPDATE {p}tables SET head_version = head_version + 1,
                head_timestamp_ms = CASE WHEN head_timestamp_ms < @P2 THEN @P2
                    ELSE head_timestamp_ms + 1 END,
                barrier_version = CASE WHEN @P4 = 1 THEN head_version + 1
                    ELSE barrier_version END
            WHERE id = @P1 AND state = N'active' AND head_version = @P3
              AND head_timestamp_ms < 9223372036854775807;
            SET @n = @@ROWCOUNT;
            SELECT @n AS moved, state, head_version, head_timestamp_ms, barrier_version
            FROM {p}tables WHERE id = @P1",
        /// Compare-and-set of the head, for an append on any head whose barrier is not after @P3.
        move_append: "SET NOCOUNT ON; DECLARE @n BIGINT;
            UPDATE {p}tables SET head_version = head_version + 1,
                head_timestamp_ms = CASE WHEN head_timestamp_ms < @P2 THEN @P2
                    ELSE head_timestamp_ms + 1 END,
                barrier_version = CASE WHEN @P4 = 1 THEN head_version + 1
                    ELSE barrier_version END
            WHERE id = @P1 AND state = N'active' AND barrier_version <= @P3
              AND head_version IS NOT NULL AND head_timestamp_ms < 9223372036854775807;
            SET @n = @@ROWCOUNT;
            SELECT @n AS moved, state, head_version, head_timestamp_ms, barrier_version
            FROM {p}tables WHERE id = @P1",
        set_first_head: "UPDATE {p}tables SET head_version = 0, head_timestamp_ms = @P2
            WHERE id = @P1",
        /// Takes the row of the outbox, before anything is read of it: `pending_since_ms` is
        /// changed by workers too.
        mark_pending: "UPDATE {p}mirror SET pending_since_ms = CASE WHEN mode = N'off'
                THEN pending_since_ms ELSE COALESCE(pending_since_ms, @P2) END
            WHERE table_id = @P1",
        enqueue: "INSERT INTO {p}mirror_status (table_id, version, state, attempts,
                enqueued_at_ms)
            SELECT m.table_id, @P2, N'PENDING', 0, @P3 FROM {p}mirror m
            WHERE m.table_id = @P1 AND m.mode <> N'off'",
        totals: "SELECT total_files, total_bytes FROM {p}commits
            WHERE table_id = @P1 AND version = @P2",
    }
}

/// What a token wrote.
pub(crate) async fn resolve_token(
    lease: &mut Lease,
    sql: &Statements,
    token: &CommitToken,
) -> DbResult<Option<Vec<CommittedTable>>> {
    let values = vec![bytes(token.as_str().as_bytes())];
    let sets = lease.run(&sql.commit.token_is_known, values).await?;
    let known = sets.first().and_then(|rows| rows.first());
    let known = known.map(|row| Reader::new(row, "batches", None).i64(0)).transpose()?;
    if known.is_none_or(|known| known == 0) {
        return Ok(None);
    }
    committed_rows(&sets).map(Some)
}

/// The second result set: table, version and timestamp.
pub(crate) fn committed_rows(sets: &Sets) -> DbResult<Vec<CommittedTable>> {
    let mut done = Vec::new();
    for row in sets.get(1).into_iter().flatten() {
        let r = Reader::new(row, "commits", None);
        done.push(CommittedTable {
            table_id: r.id(0)?,
            version: r.version(1)?,
            timestamp: r.time(2)?,
        });
    }
    Ok(done)
}

/// The `commitInfo` of a commit of ours, unless its first line holds it, whatever its timestamp.
pub(crate) fn apart(part: &deltalakedb_catalog_core::backend::TableCommit) -> Option<&str> {
    let line = part.first_line.render(deltalakedb_catalog_core::ids::TimestampMs(0));
    let in_first_line = commit_info_object(&line).is_some();
    part.index.commit_info.as_deref().filter(|_| !in_first_line)
}

/// Commits a batch.
pub(crate) async fn commit(
    session: &Session,
    sql: &Statements,
    request: &CommitRequest,
) -> DbResult<CommitOutcome> {
    if let Err(error) = check_shape(request) {
        let mut lease = session.lease().await?;
        return match resolve_token(&mut lease, sql, &request.token).await? {
            Some(done) => Ok(CommitOutcome::Replayed(done)),
            None => Err(error.into()),
        };
    }
    let plan = Plan::new(request)?;
    let answer = match plan.batch(session, sql)? {
        Some(batch) => {
            let mut lease = session.lease().await?;
            Box::pin(plan.send(&mut lease, batch)).await
        }
        None => Box::pin(commit_staged::commit(session, sql, request)).await,
    };
    match answer {
        Err(error) if error.is_duplicate() => {
            Box::pin(lost_race(session, sql, request, error)).await
        }
        other => other,
    }
}

/// What was there already: the token, a name, or an id. Nothing of this request was written.
async fn lost_race(
    session: &Session,
    sql: &Statements,
    request: &CommitRequest,
    error: DbError,
) -> DbResult<CommitOutcome> {
    let mut lease = session.lease().await?;
    if let Some(done) = resolve_token(&mut lease, sql, &request.token).await? {
        return Ok(CommitOutcome::Replayed(done));
    }
    for (index, part) in request.tables.iter().enumerate() {
        let CommitTarget::Create(new) = &part.target else { continue };
        let reason = if state_of(&mut lease, sql, new.id).await?.is_some() {
            Rejection::IdTaken(new.id)
        } else if live_name(&mut lease, sql, &new.name).await?.is_some() {
            Rejection::NameTaken(new.name.clone())
        } else {
            continue;
        };
        return Ok(CommitOutcome::Rejected { index, reason });
    }
    // The other one is gone again: the same request may succeed now.
    let message = error.into_catalog(session.place(), "committing").to_string();
    Err(CatalogError::busy(message, WriteState::NotApplied).into())
}

/// Of the tables that a request creates, one whose name an earlier one of the request has.
pub(crate) fn takes_name_twice(request: &CommitRequest, index: usize) -> Option<&TableName> {
    let name = |part: &'_ deltalakedb_catalog_core::backend::TableCommit| match &part.target {
        CommitTarget::Create(new) => Some(new.name.clone()),
        CommitTarget::Existing { .. } => None,
    };
    let part = request.tables.get(index)?;
    let CommitTarget::Create(new) = &part.target else { return None };
    let earlier = request.tables.iter().take(index);
    earlier.filter_map(name).any(|other| other == new.name).then_some(&new.name)
}

/// A stored version that must be one.
pub(crate) fn version(value: i64) -> DbResult<Version> {
    Version::new(value).map_err(DbError::from)
}
