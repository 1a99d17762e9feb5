//! The mirror's outbox: which versions are published, and who may publish the next ones.
//!
//! `{p}mirror.pending_since_ms` is the time at which the first unpublished version was enqueued, or
//! null. It is kept by every verb here and makes a claim cost what is pending, not what was ever
//! published. Whoever changes a table's outbox has locked its row of `{p}mirror` first; a commit
//! does so together with the head.

use deltalakedb_catalog_core::backend::{
    ClaimRequest, MirrorLease, MirrorTask, PublishFailure, Published,
};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorRow, MirrorState, Page, TableRecord};
use deltalakedb_catalog_core::support::{
    Claimable, attempts, check_gapless, fetch_limit, mirror_row, most_versions, next_version,
    not_waiting, out_of_order, outbox_start, page, table_id,
};
use sqlx::Row;

use crate::errors::DbResult;
use crate::rows::{MySqlFormat, mirror_columns};
use crate::session::literals::{Value, list};
use crate::session::writer::Writer;
use crate::session::{Call, first};
use crate::tables::{open_active, require_readable, require_table};

const ENQUEUE: &str =
    "INSERT INTO {p}mirror_status (table_id, version, state, attempts, enqueued_at_ms) VALUES ";
const MARK_PENDING: &str = "UPDATE {p}mirror SET pending_since_ms = ?
    WHERE table_id = ? AND pending_since_ms IS NULL";
const ENQUEUE_MISSING: &str = "INSERT INTO {p}mirror_status (table_id, version, state, attempts,
        enqueued_at_ms)
    SELECT c.table_id, c.version, 'PENDING', 0, ? FROM {p}commits c
    WHERE c.table_id = ? AND c.version >= ? AND NOT EXISTS (
        SELECT 1 FROM {p}mirror_status s WHERE s.table_id = c.table_id AND s.version = c.version)";
/// From the row of the first unpublished version.
const UPDATE_PENDING: &str = "UPDATE {p}mirror m SET m.pending_since_ms = (
        SELECT s.enqueued_at_ms FROM {p}mirror_status s
        WHERE s.table_id = m.table_id AND s.version = COALESCE(m.published_version + 1, 0))
    WHERE m.table_id = ?";
/// Tables whose next version may be published by an owner at a time: a lease holds before its end
/// and lapses at it. Values: owner, now, now.
///
/// Owners are compared as bytes: a collation would take `a ` for `a`.
macro_rules! claimable {
    () => {
        "SELECT STRAIGHT_JOIN m.table_id, m.published_version,
            COALESCE(CAST(m.lease_owner AS BINARY) = CAST(? AS BINARY), 0) AS same_holder,
            m.lease_epoch, s.attempts, m.pending_since_ms
        FROM {p}mirror m
        JOIN {p}tables t ON t.id = m.table_id
        JOIN {p}mirror_status s ON s.table_id = m.table_id
          AND s.version = COALESCE(m.published_version + 1, 0)
        WHERE m.pending_since_ms IS NOT NULL AND m.mode = 'active' AND t.state = 'active'
          AND (m.lease_owner IS NULL OR CAST(m.lease_owner AS BINARY) = CAST(? AS BINARY)
            OR m.lease_until_ms <= ?)
          AND (s.retry_at_ms IS NULL OR s.retry_at_ms <= ?)"
    };
}
const CLAIMABLE: &str = claimable!();
const NEXT_VERSIONS: &str = "SELECT version FROM {p}mirror_status
    WHERE table_id = ? AND version >= ? ORDER BY version LIMIT ?";
const LEASE: &str = "UPDATE {p}mirror SET lease_owner = ?, lease_epoch = ?, lease_until_ms = ?
    WHERE table_id = ?";
const START: &str = "UPDATE {p}mirror_status SET state = 'IN_FLIGHT', attempts = attempts + 1
    WHERE table_id = ? AND version >= ? AND version <= ?";
/// A holder is known by its name and epoch: whoever takes a lapsed lease has another one.
const HELD: &str = "SELECT COALESCE(published_version + 1, 0) FROM {p}mirror
    WHERE table_id = ? AND CAST(lease_owner AS BINARY) = CAST(? AS BINARY) AND lease_epoch = ?
    FOR UPDATE";
const RENEW: &str = "UPDATE {p}mirror SET lease_until_ms = ?
    WHERE table_id = ? AND CAST(lease_owner AS BINARY) = CAST(? AS BINARY) AND lease_epoch = ?";
const COMPLETE: &str = "UPDATE {p}mirror_status SET state = 'COMPLETE', digest = ?,
        published_at_ms = ?, retry_at_ms = NULL, last_error = NULL
    WHERE table_id = ? AND version = ?";
const PUBLISH: &str = "UPDATE {p}mirror SET published_version = ? WHERE table_id = ?";
const FAIL: &str = "UPDATE {p}mirror_status SET state = 'FAILED', last_error = ?, retry_at_ms = ?
    WHERE table_id = ? AND version = ? AND state <> 'COMPLETE'";
/// A table that was switched off meanwhile stays off.
const DIVERGE: &str =
    "UPDATE {p}mirror SET mode = 'diverged' WHERE table_id = ? AND mode = 'active'";
const GIVE_UP: &str = "UPDATE {p}mirror SET lease_owner = NULL WHERE table_id = ?";
const BACK_TO_PENDING: &str = "UPDATE {p}mirror_status SET state = 'PENDING'
    WHERE state = 'IN_FLIGHT' AND table_id = ?";
const RETRY: &str = "UPDATE {p}mirror_status SET retry_at_ms = ?
    WHERE state = 'FAILED' AND table_id = ?";
const ACTIVATE_DIVERGED: &str =
    "UPDATE {p}mirror SET mode = 'active' WHERE table_id = ? AND mode = 'diverged'";
const SET_MODE: &str = "UPDATE {p}mirror SET mode = ? WHERE table_id = ?";
/// Rows of one state, of which there is an index in the order of the list. Values: state, table,
/// table, version.
const ROWS: &str = concat!(
    "SELECT ",
    mirror_columns!(),
    " FROM {p}mirror_status
    WHERE state = ? AND table_id >= ? AND (table_id > ? OR version > ?)"
);

/// Puts a new version into the outbox, in the transaction that commits it.
pub(crate) async fn enqueue(
    out: &mut Writer<'_>,
    id: TableId,
    version: Version,
    now: TimestampMs,
) -> DbResult<()> {
    let pending = MirrorState::Pending.as_str();
    let values = [id.into(), version.get().into(), pending.into(), 0.into(), now.0.into()];
    out.row(ENQUEUE, &values).await?;
    out.push(MARK_PENDING, &[now.0.into(), id.into()]).await
}

/// Enqueues every version after the published one that is not.
pub(crate) async fn enqueue_missing(
    call: &mut Call,
    id: TableId,
    published: Option<Version>,
    now: TimestampMs,
) -> DbResult<()> {
    let next = next_version(published);
    call.execute(ENQUEUE_MISSING, &[now.0.into(), id.into(), next.into()]).await?;
    call.execute(UPDATE_PENDING, &[id.into()]).await?;
    Ok(())
}

fn claimable(call: &Call, request: &ClaimRequest) -> String {
    let session = &call.session;
    let owner = Value::Text(&request.owner);
    let now = Value::Int(request.now.0);
    let mut sql = session.sql(CLAIMABLE, &[owner, owner, now, now]);
    if let Some(only) = request.only {
        sql.push_str(&session.sql(" AND m.table_id = ?", &[only.into()]));
    }
    sql
}

/// Tables with work, the oldest first. Looked for without locks: idle workers are in nobody's way.
pub(crate) async fn candidates(call: &mut Call, request: &ClaimRequest) -> DbResult<Vec<TableId>> {
    let limit = i64::try_from(request.max_tables).unwrap_or(i64::MAX);
    let oldest = " ORDER BY m.pending_since_ms, m.table_id LIMIT ?";
    let sql = claimable(call, request) + &call.session.sql(oldest, &[limit.into()]);
    let sets = call.run(sql).await?;
    let rows = sets.first().into_iter().flat_map(|set| &set.rows);
    Ok(rows.map(|row| table_id::<MySqlFormat>(row, 0)).collect::<Result<_>>()?)
}

/// Leases them, as far as nobody else has meanwhile.
pub(crate) async fn claim(
    call: &mut Call,
    request: &ClaimRequest,
    candidates: &[TableId],
) -> DbResult<Vec<MirrorTask>> {
    let session = call.session.clone();
    let claimable = claimable(call, request);
    // Looked at again, locked in one order: what another worker took meanwhile is left out.
    let lock = session.sql(
        "SELECT STRAIGHT_JOIN t.id FROM {p}tables t JOIN {p}mirror m ON m.table_id = t.id
        WHERE t.id IN (",
        &[],
    );
    let ids = list(candidates.iter().map(|id| (*id).into()));
    let lock = format!("{lock}{ids}) ORDER BY t.id FOR UPDATE");
    let again = format!("{claimable} AND m.table_id IN ({ids})");
    let sets = call.open(&format!("{lock}; {again}")).await?;
    let mut found = Vec::new();
    for row in sets.get(1).into_iter().flat_map(|set| &set.rows) {
        let pending_since: i64 = row.try_get(5)?;
        let candidate = Claimable {
            table: table_id::<MySqlFormat>(row, 0)?,
            published: row.try_get(1)?,
            same_holder: row.try_get(2)?,
            epoch: row.try_get(3)?,
            attempts: attempts(row.try_get(4)?),
        };
        found.push((pending_since, candidate));
    }
    found.sort_by_key(|(pending_since, candidate)| (*pending_since, candidate.table));
    let mut tasks = Vec::with_capacity(found.len());
    for (_, candidate) in found {
        tasks.push(take(call, request, &candidate).await?);
    }
    Ok(tasks)
}

async fn take(
    call: &mut Call,
    request: &ClaimRequest,
    candidate: &Claimable,
) -> DbResult<MirrorTask> {
    let id = candidate.table;
    let (first, lease) = (candidate.first(), candidate.lease(request));
    let session = call.session.clone();
    let statements = [
        session.sql(NEXT_VERSIONS, &[id.into(), first.into(), most_versions(request).into()]),
        session.sql(
            LEASE,
            &[(&lease.owner).into(), lease.epoch.into(), lease.until.0.into(), id.into()],
        ),
    ];
    let sets = call.run(statements.join("; ")).await?;
    let mut versions = Vec::new();
    for row in sets.first().into_iter().flat_map(|set| &set.rows) {
        versions.push(row.try_get::<i64, _>(0)?);
    }
    let last = check_gapless(id, first, &versions)?;
    call.execute(START, &[id.into(), first.into(), last.into()]).await?;
    Ok(candidate.task(lease, require_table(call, id).await?, &versions)?)
}

/// Opens a transaction and locks a leased table; the next version to publish, none if the lease is
/// lost.
async fn open_held(call: &mut Call, lease: &MirrorLease) -> DbResult<Option<i64>> {
    let values = [lease.table_id.into(), (&lease.owner).into(), lease.epoch.into()];
    let held = call.session.sql(HELD, &values);
    match first(&call.open(&held).await?) {
        Some(row) => Ok(Some(row.try_get(0)?)),
        None => Ok(None),
    }
}

pub(crate) async fn renew(
    call: &mut Call,
    lease: &MirrorLease,
    now: TimestampMs,
    lease_ms: i64,
) -> DbResult<Option<MirrorLease>> {
    let until = now.plus_ms(lease_ms);
    call.open("SELECT 1").await?;
    let values = [until.0.into(), lease.table_id.into(), (&lease.owner).into(), lease.epoch.into()];
    let renewed = call.execute(RENEW, &values).await?;
    Ok((renewed == 1).then(|| MirrorLease { until, ..lease.clone() }))
}

pub(crate) async fn complete(
    call: &mut Call,
    lease: &MirrorLease,
    done: &[Published],
) -> DbResult<bool> {
    let table = lease.table_id;
    let Some(mut next) = open_held(call, lease).await? else { return Ok(false) };
    for some in done.chunks(500) {
        let mut sql = String::new();
        for row in some {
            let values =
                [(&row.digest).into(), row.at.0.into(), table.into(), row.version.get().into()];
            sql.push_str(&call.session.sql(COMPLETE, &values));
            sql.push_str("; ");
        }
        let sets = call.run(sql.trim_end_matches("; ").to_owned()).await?;
        for (position, row) in some.iter().enumerate() {
            let known = sets.get(position).is_some_and(|set| set.affected == 1);
            if row.version.get() != next || !known {
                let record = require_table(call, table).await?;
                return Err(out_of_order(&record, row.version, next).into());
            }
            next = next.saturating_add(1);
        }
    }
    if let Some(last) = done.last() {
        call.execute(PUBLISH, &[last.version.get().into(), table.into()]).await?;
        call.execute(UPDATE_PENDING, &[table.into()]).await?;
    }
    Ok(true)
}

/// Frees a lease: its rows in flight wait again.
async fn give_up(call: &mut Call, table: TableId) -> DbResult<()> {
    call.execute(GIVE_UP, &[table.into()]).await?;
    call.execute(BACK_TO_PENDING, &[table.into()]).await?;
    Ok(())
}

pub(crate) async fn fail(
    call: &mut Call,
    lease: &MirrorLease,
    failure: &PublishFailure,
) -> DbResult<bool> {
    let table = lease.table_id;
    if open_held(call, lease).await?.is_none() {
        return Ok(false);
    }
    let values = [
        (&failure.error).into(),
        failure.retry_at.0.into(),
        table.into(),
        failure.version.get().into(),
    ];
    if call.execute(FAIL, &values).await? != 1 {
        let record = require_table(call, table).await?;
        return Err(not_waiting(&record, failure.version).into());
    }
    if failure.diverged {
        call.execute(DIVERGE, &[table.into()]).await?;
    }
    give_up(call, table).await?;
    Ok(true)
}

pub(crate) async fn release(call: &mut Call, lease: &MirrorLease) -> DbResult<bool> {
    let held = open_held(call, lease).await?.is_some();
    if held {
        give_up(call, lease.table_id).await?;
    }
    Ok(held)
}

pub(crate) async fn rows(
    call: &mut Call,
    table_id: Option<TableId>,
    state: Option<MirrorState>,
    after: Option<(TableId, Version)>,
    limit: usize,
) -> DbResult<Page<MirrorRow, (TableId, Version)>> {
    if let Some(id) = table_id {
        require_readable(call, id).await?;
    }
    let (after_table, after_version) = outbox_start(after);
    let open = [MirrorState::Pending, MirrorState::InFlight, MirrorState::Failed];
    let states = state.map_or(open.to_vec(), |state| vec![state]);
    let session = call.session.clone();
    // Each state is in the order of the list in an index: a page of each is merged.
    let mut statements = Vec::with_capacity(states.len());
    for state in states {
        let values =
            [state.as_str().into(), after_table.into(), after_table.into(), after_version.into()];
        let mut sql = session.sql(ROWS, &values);
        if let Some(id) = table_id {
            sql.push_str(&session.sql(" AND table_id = ?", &[id.into()]));
        }
        let order = " ORDER BY table_id, version LIMIT ?";
        statements.push(sql + &session.sql(order, &[fetch_limit(limit).into()]));
    }
    let mut items = Vec::new();
    for row in call.read(&statements.join("; ")).await?.iter().flat_map(|set| &set.rows) {
        items.push(mirror_row::<MySqlFormat>(row)?);
    }
    items.sort_unstable_by_key(|row| (row.table_id, row.version));
    Ok(page(items, limit, |row| (row.table_id, row.version)))
}

pub(crate) async fn retry(call: &mut Call, id: TableId, now: TimestampMs) -> DbResult<u64> {
    open_active(call, id).await?;
    call.execute(ACTIVATE_DIVERGED, &[id.into()]).await?;
    call.execute(RETRY, &[now.0.into(), id.into()]).await
}

pub(crate) async fn set_mode(
    call: &mut Call,
    id: TableId,
    mode: MirrorMode,
    now: TimestampMs,
) -> DbResult<TableRecord> {
    open_active(call, id).await?;
    if mode == MirrorMode::Diverged {
        call.execute(DIVERGE, &[id.into()]).await?;
        return require_table(call, id).await;
    }
    call.execute(SET_MODE, &[mode.as_str().into(), id.into()]).await?;
    if mode == MirrorMode::Active {
        let published = require_table(call, id).await?.published_version;
        enqueue_missing(call, id, published, now).await?;
    }
    require_table(call, id).await
}
