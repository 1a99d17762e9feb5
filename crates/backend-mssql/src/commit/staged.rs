//! A commit that is too large for one request: a transaction of several requests.

use deltalakedb_catalog_core::action::FileKey;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, HeadRule, Rejection, TableCommit,
};
use deltalakedb_catalog_core::commit::CommitBody;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::TableState;
use deltalakedb_catalog_core::support::{count, end_of_time};

use super::request::{lock_order, table_of, takes_name_twice};
use super::token::resolve_token;
use super::version::{Head, NewVersion, write_version};
use crate::errors::DbResult;
use crate::files::UnknownFile;
use crate::rows::text::statements;
use crate::rows::{Reader, big, bytes, corrupt, flag, id};
use crate::session::{Lease, Session};
use crate::tables::{first, insert_table, live_name, state_of};

statements! {
    INSERT_BATCH: "INSERT INTO {p}batches (token, committed_at_ms) VALUES (@P1, @P2)",
    /// Compare-and-set of the head, for one that must be exactly @P3.
    MOVE_EXACTLY: "SET NOCOUNT ON; DECLARE @n BIGINT;
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
    MOVE_APPEND: "SET NOCOUNT ON; DECLARE @n BIGINT;
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
    SET_FIRST_HEAD: "UPDATE {p}tables SET head_version = 0, head_timestamp_ms = @P2
        WHERE id = @P1",
    /// Takes the row of the outbox, before anything is read of it: `pending_since_ms` is
    /// changed by workers too.
    MARK_PENDING: "UPDATE {p}mirror SET pending_since_ms = CASE WHEN mode = N'off'
            THEN pending_since_ms ELSE COALESCE(pending_since_ms, @P2) END
        WHERE table_id = @P1",
    ENQUEUE: "INSERT INTO {p}mirror_status (table_id, version, state, attempts,
            enqueued_at_ms)
        SELECT m.table_id, @P2, N'PENDING', 0, @P3 FROM {p}mirror m
        WHERE m.table_id = @P1 AND m.mode <> N'off'",
    TOTALS: "SELECT total_files, total_bytes FROM {p}commits
        WHERE table_id = @P1 AND version = @P2",
}

/// How the attempt to move a table's head ended.
enum Moved {
    /// The new version and its timestamp.
    To(Version, TimestampMs),
    /// The head that does not fulfil the rule.
    Not(Version),
    Rejected(Rejection),
}

/// Commits in several requests.
pub(crate) async fn commit(session: &Session, request: &CommitRequest) -> DbResult<CommitOutcome> {
    let bulk = session.bulk_allowed();
    match attempt(session, request).await {
        // The server refused a bulk load, and nothing was written: now rows go in lists of values.
        Err(error) if bulk && !session.bulk_allowed() && error.is_definite() => {
            attempt(session, request).await
        }
        other => other,
    }
}

async fn attempt(session: &Session, request: &CommitRequest) -> DbResult<CommitOutcome> {
    let mut lease = session.begin().await?;
    let answer = write(&mut lease, request).await;
    match answer {
        Ok(outcome @ CommitOutcome::Committed(_)) => lease.end(Ok(outcome)).await,
        Ok(refused) => {
            lease.rollback().await;
            Ok(refused)
        }
        Err(error) => lease.end(Err(error)).await,
    }
}

async fn write(lease: &mut Lease, request: &CommitRequest) -> DbResult<CommitOutcome> {
    if let Some(done) = resolve_token(lease, &request.token).await? {
        return Ok(CommitOutcome::Replayed(done));
    }
    let values = vec![bytes(request.token.as_str().as_bytes()), big(request.now.0)];
    lease.run(INSERT_BATCH, values).await?;
    let mut moved: Vec<Option<Moved>> = request.tables.iter().map(|_| None).collect();
    for index in lock_order(request) {
        let (Some(part), Some(slot)) = (request.tables.get(index), moved.get_mut(index)) else {
            continue;
        };
        *slot = Some(move_head(lease, request, index, part).await?);
    }
    let mut done = Vec::with_capacity(request.tables.len());
    for (index, (part, moved)) in request.tables.iter().zip(moved).enumerate() {
        let (version, timestamp) = match moved {
            Some(Moved::To(version, timestamp)) => (version, timestamp),
            Some(Moved::Not(head)) => return Ok(CommitOutcome::HeadMoved { index, head }),
            Some(Moved::Rejected(reason)) => {
                return Ok(CommitOutcome::Rejected { index, reason });
            }
            None => continue,
        };
        let table_id = table_of(part);
        let head = head_before(lease, table_id, version).await?;
        let body = CommitBody {
            first_line: Some(part.first_line.render(timestamp)),
            rest: part.rest.clone(),
        };
        let new = NewVersion {
            version,
            timestamp,
            token: Some((&request.token, count(index))),
            body: &body,
            index: &part.index,
            unknown: UnknownFile::Refuse,
        };
        if let Err(FileKey { path, dv_id }) = write_version(lease, table_id, head, &new).await? {
            let reason = Rejection::FileNotActive { path, dv_id };
            return Ok(CommitOutcome::Rejected { index, reason });
        }
        let values = vec![id(table_id), big(version.get()), big(request.now.0)];
        lease.run(ENQUEUE, values).await?;
        done.push(CommittedTable { table_id, version, timestamp });
    }
    Ok(CommitOutcome::Committed(done))
}

/// Registers a table, or moves its head by compare-and-set; then takes its row of the outbox.
async fn move_head(
    lease: &mut Lease,
    request: &CommitRequest,
    index: usize,
    part: &TableCommit,
) -> DbResult<Moved> {
    let now = request.now;
    let moved = match &part.target {
        CommitTarget::Create(new) => {
            if state_of(lease, new.id).await?.is_some() {
                return Ok(Moved::Rejected(Rejection::IdTaken(new.id)));
            }
            if takes_name_twice(request, index).is_some()
                || live_name(lease, &new.name).await?.is_some()
            {
                return Ok(Moved::Rejected(Rejection::NameTaken(new.name.clone())));
            }
            insert_table(lease, new, TableState::Active, 0, false, now).await?;
            lease.run(SET_FIRST_HEAD, vec![id(new.id), big(now.0)]).await?;
            Moved::To(Version::ZERO, now)
        }
        CommitTarget::Existing { table_id, rule } => {
            let barrier = part.index.metadata.is_some() || part.index.protocol.is_some();
            compare_and_set(lease, *table_id, *rule, barrier, now).await?
        }
    };
    if matches!(moved, Moved::To(..)) {
        let values = vec![id(table_of(part)), big(now.0)];
        lease.run(MARK_PENDING, values).await?;
    }
    Ok(moved)
}

async fn compare_and_set(
    lease: &mut Lease,
    table: TableId,
    rule: HeadRule,
    barrier: bool,
    now: TimestampMs,
) -> DbResult<Moved> {
    let (statement, expected) = match rule {
        HeadRule::Exactly(head) => (MOVE_EXACTLY, head),
        HeadRule::Append { since } => (MOVE_APPEND, since),
    };
    let values = vec![id(table), big(now.0), big(expected.get()), flag(barrier)];
    let sets = lease.run(statement, values).await?;
    let not_found = Moved::Rejected(Rejection::TableNotFound(table));
    let Some(row) = first(&sets) else { return Ok(not_found) };
    let called = table.to_string();
    let r = Reader::new(row, &called, None);
    let active = r.text(1)? == TableState::Active.as_str();
    let Some(head) = r.opt_version(2)?.filter(|_| active) else { return Ok(not_found) };
    let timestamp = r.time(3)?;
    if r.i64(0)? == 1 {
        return Ok(Moved::To(head, timestamp));
    }
    let holds = match rule {
        HeadRule::Exactly(expected) => head == expected,
        HeadRule::Append { since } => r.version(4)? <= since,
    };
    if holds && timestamp.0 == i64::MAX {
        return Err(end_of_time(table).into());
    }
    Ok(Moved::Not(head))
}

/// Head and totals before this version.
async fn head_before(lease: &mut Lease, table: TableId, version: Version) -> DbResult<Head> {
    let Some(before) = version.previous() else { return Ok(Head::default()) };
    let sets = lease.run(TOTALS, vec![id(table), big(before.get())]).await?;
    let called = table.to_string();
    let Some(row) = first(&sets) else {
        return Err(corrupt(&called, Some(before.get()), "head", "it is missing"));
    };
    let r = Reader::new(row, &called, Some(before.get()));
    Ok(Head {
        // Only its version counts here: its timestamp was compared already.
        at: Some((before, TimestampMs(0))),
        total_files: r.i64(0)?,
        total_bytes: r.i64(1)?,
    })
}
