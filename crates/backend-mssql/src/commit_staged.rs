//! A commit that is too large for one request, and what of it an import shares: one version's
//! rows, in a transaction of several requests. New files go by the bulk protocol.

use deltalakedb_catalog_core::action::FileKey;
use deltalakedb_catalog_core::backend::{
    CommitOutcome, CommitRequest, CommitTarget, CommittedTable, HeadRule, Rejection, TableCommit,
};
use deltalakedb_catalog_core::commit::{CommitBody, CommitIndex};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::TableState;
use deltalakedb_catalog_core::support::{
    CHUNK_BYTES, body_len, count, end_of_time, stored_commit_info,
};

use crate::commit::{resolve_token, takes_name_twice, version};
use crate::commit_batch::{lock_order, table_of};
use crate::errors::DbResult;
use crate::files::{FileWriter, UnknownFile};
use crate::rows::{
    Reader, big, big_opt, bytes, flag, id, owned, text, text_key, text_opt, to_json,
};
use crate::session::{Lease, Session};
use crate::statements::Statements;
use crate::tables::{first, insert_table, live_name, state_of};

/// A table's head, as the transaction sees it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    /// Version and timestamp; none before the first.
    pub(crate) at: Option<(Version, TimestampMs)>,
    /// Files and bytes in the table.
    pub(crate) total_files: i64,
    pub(crate) total_bytes: i64,
}

/// One version's rows, besides those of the table itself.
pub(crate) struct NewVersion<'v> {
    pub(crate) version: Version,
    pub(crate) timestamp: TimestampMs,
    pub(crate) token: Option<(&'v CommitToken, i64)>,
    pub(crate) body: &'v CommitBody,
    pub(crate) index: &'v CommitIndex,
    pub(crate) unknown: UnknownFile,
}

/// What became of a table's row.
enum Moved {
    /// The new version and its timestamp.
    To(Version, TimestampMs),
    /// The head that does not fulfil the rule.
    Not(Version),
    Rejected(Rejection),
}

/// Commits in several requests.
pub(crate) async fn commit(
    session: &Session,
    sql: &Statements,
    request: &CommitRequest,
) -> DbResult<CommitOutcome> {
    let bulk = sql.bulk_allowed();
    match attempt(session, sql, request).await {
        // The server takes no bulk load, as it turned out. Nothing was written: another way.
        Err(error) if bulk && !sql.bulk_allowed() && error.is_definite() => {
            attempt(session, sql, request).await
        }
        other => other,
    }
}

async fn attempt(
    session: &Session,
    sql: &Statements,
    request: &CommitRequest,
) -> DbResult<CommitOutcome> {
    let mut lease = session.begin().await?;
    let answer = write(&mut lease, sql, request).await;
    match answer {
        Ok(outcome @ CommitOutcome::Committed(_)) => lease.end(Ok(outcome)).await,
        Ok(refused) => {
            lease.rollback().await;
            Ok(refused)
        }
        Err(error) => lease.end(Err(error)).await,
    }
}

async fn write(
    lease: &mut Lease,
    sql: &Statements,
    request: &CommitRequest,
) -> DbResult<CommitOutcome> {
    if let Some(done) = resolve_token(lease, sql, &request.token).await? {
        return Ok(CommitOutcome::Replayed(done));
    }
    let values = vec![bytes(request.token.as_str().as_bytes()), big(request.now.0)];
    lease.run(&sql.commit.insert_batch, values).await?;
    let mut moved: Vec<Option<Moved>> = request.tables.iter().map(|_| None).collect();
    for index in lock_order(request) {
        let (Some(part), Some(slot)) = (request.tables.get(index), moved.get_mut(index)) else {
            continue;
        };
        *slot = Some(move_head(lease, sql, request, index, part).await?);
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
        let head = head_before(lease, sql, table_id, version).await?;
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
        if let Err(FileKey { path, dv_id }) =
            write_version(lease, sql, table_id, head, &new).await?
        {
            let reason = Rejection::FileNotActive { path, dv_id };
            return Ok(CommitOutcome::Rejected { index, reason });
        }
        let values = vec![id(table_id), big(version.get()), big(request.now.0)];
        lease.run(&sql.commit.enqueue, values).await?;
        done.push(CommittedTable { table_id, version, timestamp });
    }
    Ok(CommitOutcome::Committed(done))
}

/// Registers a table, or moves its head by compare-and-set; then takes its row of the outbox.
async fn move_head(
    lease: &mut Lease,
    sql: &Statements,
    request: &CommitRequest,
    index: usize,
    part: &TableCommit,
) -> DbResult<Moved> {
    let now = request.now;
    let moved = match &part.target {
        CommitTarget::Create(new) => {
            if state_of(lease, sql, new.id).await?.is_some() {
                return Ok(Moved::Rejected(Rejection::IdTaken(new.id)));
            }
            if takes_name_twice(request, index).is_some()
                || live_name(lease, sql, &new.name).await?.is_some()
            {
                return Ok(Moved::Rejected(Rejection::NameTaken(new.name.clone())));
            }
            insert_table(lease, sql, new, TableState::Active, 0, false, now).await?;
            lease.run(&sql.commit.set_first_head, vec![id(new.id), big(now.0)]).await?;
            Moved::To(Version::ZERO, now)
        }
        CommitTarget::Existing { table_id, rule } => {
            let barrier = part.index.metadata.is_some() || part.index.protocol.is_some();
            compare_and_set(lease, sql, *table_id, *rule, barrier, now).await?
        }
    };
    if matches!(moved, Moved::To(..)) {
        let values = vec![id(table_of(part)), big(now.0)];
        lease.run(&sql.commit.mark_pending, values).await?;
    }
    Ok(moved)
}

async fn compare_and_set(
    lease: &mut Lease,
    sql: &Statements,
    table: TableId,
    rule: HeadRule,
    barrier: bool,
    now: TimestampMs,
) -> DbResult<Moved> {
    let (statement, expected) = match rule {
        HeadRule::Exactly(head) => (&sql.commit.move_exactly, head),
        HeadRule::Append { since } => (&sql.commit.move_append, since),
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
async fn head_before(
    lease: &mut Lease,
    sql: &Statements,
    table: TableId,
    version: Version,
) -> DbResult<Head> {
    let Some(before) = version.previous() else { return Ok(Head::default()) };
    let sets = lease.run(&sql.commit.totals, vec![id(table), big(before.get())]).await?;
    let called = table.to_string();
    let Some(row) = first(&sets) else {
        return Err(crate::rows::corrupt(&called, Some(before.get()), "head", "it is missing"));
    };
    let r = Reader::new(row, &called, Some(before.get()));
    Ok(Head {
        // Only that there is one counts: its timestamp was looked at already.
        at: Some((before, TimestampMs(0))),
        total_files: r.i64(0)?,
        total_bytes: r.i64(1)?,
    })
}

/// Writes all rows of a version but the table's own. `Err` inside: a remove of a file that is not
/// active.
pub(crate) async fn write_version(
    lease: &mut Lease,
    sql: &Statements,
    table: TableId,
    head: Head,
    new: &NewVersion<'_>,
) -> DbResult<Result<Head, FileKey>> {
    let version = new.version.get();
    let index = new.index;
    let writer = FileWriter { sql, table, version };
    let total = head.at.map(|_| head.total_files);
    let delta = match writer.apply(lease, index, new.unknown, total).await? {
        Ok(delta) => delta,
        Err(key) => return Ok(Err(key)),
    };
    write_projection(lease, sql, table, version, index).await?;
    let after = Head {
        at: Some((new.version, new.timestamp)),
        total_files: head.total_files.saturating_add(delta.files),
        total_bytes: head.total_bytes.saturating_add(delta.bytes),
    };
    let values = vec![
        id(table),
        big(version),
        big(new.timestamp.0),
        new.token.map_or(tiberius::ColumnData::Binary(None), |(token, _)| {
            bytes(token.as_str().as_bytes())
        }),
        big_opt(new.token.map(|(_, position)| position)),
        big(count(index.adds.len())),
        big(count(index.removes.len())),
        big(index.added_bytes()),
        big(delta.bytes_removed),
        flag(index.metadata.is_some()),
        flag(index.protocol.is_some()),
        big(after.total_files),
        big(after.total_bytes),
        big(body_len(new.body)),
        text_opt(new.body.first_line.as_deref()),
        text_opt(stored_commit_info(new.body, index)),
    ];
    lease.run(&sql.commit.insert_commit, values).await?;
    insert_chunks(lease, sql, table, version, new.body).await?;
    Ok(Ok(after))
}

/// Protocol, metadata, application transactions and domain metadata of a version.
pub(crate) async fn write_projection(
    lease: &mut Lease,
    sql: &Statements,
    table: TableId,
    at: i64,
    index: &CommitIndex,
) -> DbResult<()> {
    let sql = &sql.commit;
    version(at)?;
    if let Some(protocol) = &index.protocol {
        let values = vec![id(table), big(at), owned(to_json(protocol)?)];
        lease.run(&sql.insert_protocol, values).await?;
    }
    if let Some(metadata) = &index.metadata {
        let values = vec![id(table), big(at), owned(to_json(metadata)?)];
        lease.run(&sql.insert_metadata, values).await?;
    }
    for txn in &index.txns {
        let values = vec![
            id(table),
            text_key(&txn.app_id),
            big(at),
            text(&txn.app_id),
            big(txn.version),
            big_opt(txn.last_updated),
        ];
        lease.run(&sql.insert_txn, values).await?;
    }
    for domain in &index.domain_metadata {
        let values = vec![
            id(table),
            text_key(&domain.domain),
            big(at),
            text(&domain.domain),
            flag(domain.removed),
            text(&domain.configuration),
        ];
        lease.run(&sql.insert_domain, values).await?;
    }
    Ok(())
}

/// Stores a commit's bytes.
pub(crate) async fn insert_chunks(
    lease: &mut Lease,
    sql: &Statements,
    table: TableId,
    version: i64,
    body: &CommitBody,
) -> DbResult<()> {
    for (number, chunk) in body.rest.zstd.chunks(CHUNK_BYTES).enumerate() {
        let values = vec![id(table), big(version), big(count(number)), bytes(chunk)];
        lease.run(&sql.commit.insert_chunk, values).await?;
    }
    Ok(())
}
