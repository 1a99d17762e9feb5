//! The mirror's outbox: which versions are published, and who may publish the next ones.
//!
//! `{p}mirror.pending_since_ms` is the time at which the first unpublished version was enqueued, or
//! null. It is kept by every verb here and makes a claim cost what is pending, not what was ever
//! published. Whoever changes a table's outbox has locked its row of `{p}mirror` first; a commit
//! does so together with the head.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::{
    ClaimRequest, Expired, Expiry, MirrorLease, MirrorTask, PublishFailure, Published,
};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorRow, MirrorState, Page, TableRecord};
use deltalakedb_catalog_core::support::{
    Claimable, OutboxExpiry, attempts, check_gapless, fetch_limit, mirror_row, most_versions,
    next_version, not_waiting, out_of_order, outbox_start, page, table_id,
};
use sqlx::Row;

use crate::audit;
use crate::errors::DbResult;
use crate::rows::{MySqlFormat, TableKey, mirror_columns};
use crate::session::literals::{Value, list};
use crate::session::writer::Writer;
use crate::session::{Call, first};
use crate::tables::{open_active, require_readable, require_table};

const ENQUEUE: &str =
    "INSERT INTO {p}mirror_status (table_key, version, state, attempts, enqueued_at_ms) VALUES ";
const MARK_PENDING: &str = "UPDATE {p}mirror SET pending_since_ms = ?
    WHERE table_key = ? AND pending_since_ms IS NULL";
const ENQUEUE_MISSING: &str = "INSERT INTO {p}mirror_status (table_key, version, state, attempts,
        enqueued_at_ms)
    SELECT c.table_key, c.version, 'PENDING', 0, ? FROM {p}commits c
    WHERE c.table_key = ? AND c.version >= ? AND NOT EXISTS (
        SELECT 1 FROM {p}mirror_status s WHERE s.table_key = c.table_key AND s.version = c.version)";
/// From the row of the first unpublished version.
const UPDATE_PENDING: &str = "UPDATE {p}mirror m SET m.pending_since_ms = (
        SELECT s.enqueued_at_ms FROM {p}mirror_status s
        WHERE s.table_key = m.table_key AND s.version = COALESCE(m.published_version + 1, 0))
    WHERE m.table_key = ?";
/// Tables whose next version may be published by an owner at a time: a lease holds before its end
/// and lapses at it. Values: owner, owner, now, now.
///
/// Owners are compared as bytes: a collation would take `a ` for `a`.
macro_rules! claimable {
    ($tables:literal) => {
        concat!(
            "SELECT STRAIGHT_JOIN t.id, m.published_version,
                COALESCE(CAST(m.lease_owner AS BINARY) = CAST(? AS BINARY), 0) AS same_holder,
                m.lease_epoch, s.attempts, m.pending_since_ms, m.table_key
            FROM ",
            $tables,
            " JOIN {p}mirror_status s ON s.table_key = m.table_key
              AND s.version = COALESCE(m.published_version + 1, 0)
            WHERE m.pending_since_ms IS NOT NULL AND m.mode = 'active' AND t.state = 'active'
              AND (m.lease_owner IS NULL OR CAST(m.lease_owner AS BINARY) = CAST(? AS BINARY)
                OR m.lease_until_ms <= ?)
              AND (s.retry_at_ms IS NULL OR s.retry_at_ms <= ?)"
        )
    };
}
/// Of all tables, by what is pending.
const CLAIMABLE: &str = claimable!("{p}mirror m JOIN {p}tables t ON t.table_key = m.table_key");
/// Of tables that are asked for by id.
const CLAIMABLE_OF: &str = claimable!("{p}tables t JOIN {p}mirror m ON m.table_key = t.table_key");
const NEXT_VERSIONS: &str = "SELECT version FROM {p}mirror_status
    WHERE table_key = ? AND version >= ? ORDER BY version LIMIT ?";
const LEASE: &str = "UPDATE {p}mirror SET lease_owner = ?, lease_epoch = ?, lease_until_ms = ?
    WHERE table_key = ?";
const START: &str = "UPDATE {p}mirror_status SET state = 'IN_FLIGHT', attempts = attempts + 1
    WHERE table_key = ? AND version >= ? AND version <= ?";
/// A holder is known by its name and epoch: whoever takes a lapsed lease has another one.
const HELD: &str = "SELECT COALESCE(published_version + 1, 0), table_key FROM {p}mirror
    WHERE table_key = {key} AND CAST(lease_owner AS BINARY) = CAST(? AS BINARY) AND lease_epoch = ?
    FOR UPDATE";
const RENEW: &str = "UPDATE {p}mirror SET lease_until_ms = ?
    WHERE table_key = {key} AND CAST(lease_owner AS BINARY) = CAST(? AS BINARY) AND lease_epoch = ?";
const COMPLETE: &str = "UPDATE {p}mirror_status SET state = 'COMPLETE', digest = ?,
        published_at_ms = ?, retry_at_ms = NULL, last_error = NULL
    WHERE table_key = ? AND version = ?";
const PUBLISH: &str = "UPDATE {p}mirror SET published_version = ? WHERE table_key = ?";
const FAIL: &str = "UPDATE {p}mirror_status SET state = 'FAILED', last_error = ?, retry_at_ms = ?
    WHERE table_key = ? AND version = ? AND state <> 'COMPLETE'";
/// A table that was switched off meanwhile stays off.
const DIVERGE: &str =
    "UPDATE {p}mirror SET mode = 'diverged' WHERE table_key = ? AND mode = 'active'";
const GIVE_UP: &str = "UPDATE {p}mirror SET lease_owner = NULL WHERE table_key = ?";
const BACK_TO_PENDING: &str = "UPDATE {p}mirror_status SET state = 'PENDING'
    WHERE state = 'IN_FLIGHT' AND table_key = ?";
const RETRY: &str = "UPDATE {p}mirror_status SET retry_at_ms = ?
    WHERE state = 'FAILED' AND table_key = ?";
const ACTIVATE_DIVERGED: &str =
    "UPDATE {p}mirror SET mode = 'active' WHERE table_key = ? AND mode = 'diverged'";
const SET_MODE: &str = "UPDATE {p}mirror SET mode = ? WHERE table_key = ?";
/// Rows of one state of a table, in the order of an index. Values: state, table, version, limit.
const ROWS_OF: &str = concat!(
    "SELECT ",
    mirror_columns!(),
    " FROM {p}mirror_status s FORCE INDEX (by_state) STRAIGHT_JOIN {p}tables t
        ON t.table_key = s.table_key
    WHERE s.state = ? AND s.table_key = {key} AND s.version > ?
    ORDER BY s.version LIMIT ?"
);
/// Rows of one state of the tables after one, in the order of their ids: as many tables as rows are wanted,
/// and of each as many rows. Values: state, first table, the one that is done or null, limit, state, state,
/// limit, limit.
const ROWS_AFTER: &str = concat!(
    "SELECT ",
    mirror_columns!(),
    " FROM (SELECT o.id, o.table_key
        FROM (SELECT DISTINCT d.table_key FROM {p}mirror_status d FORCE INDEX (by_state)
            WHERE d.state = ?) has JOIN {p}tables o ON o.table_key = has.table_key
        WHERE o.id >= ? AND NOT (o.id <=> ?) ORDER BY o.id LIMIT ?) t
    STRAIGHT_JOIN {p}mirror_status s FORCE INDEX (by_state)
        ON s.state = ? AND s.table_key = t.table_key
    WHERE s.version <= COALESCE((SELECT v.version FROM {p}mirror_status v FORCE INDEX (by_state)
            WHERE v.state = ? AND v.table_key = t.table_key ORDER BY v.version LIMIT 1 OFFSET ?),
        9223372036854775807)
    ORDER BY t.id, s.version LIMIT ?"
);

/// Tables from one on, and their published versions. Values: first table, limit.
const TABLES_PUBLISHED: &str = "SELECT STRAIGHT_JOIN t.id, t.table_key, m.published_version
    FROM {p}tables t JOIN {p}mirror m ON m.table_key = t.table_key
    WHERE t.id >= ? ORDER BY t.id LIMIT ?";
/// The next rows of a table below a version, and whether each was published before a time.
const ROWS_PUBLISHED: &str =
    "SELECT version, state = 'COMPLETE' AND COALESCE(published_at_ms < ?, 0)
    FROM {p}mirror_status WHERE table_key = ? AND version > ? AND version < ?
    ORDER BY version LIMIT ?";
const DELETE_ROWS: &str = "DELETE FROM {p}mirror_status
    WHERE table_key = ? AND state = 'COMPLETE' AND version IN (";

/// Puts a new version into the outbox, in the transaction that commits it.
pub(crate) async fn enqueue(
    out: &mut Writer<'_>,
    table: TableKey,
    version: Version,
    now: TimestampMs,
) -> DbResult<()> {
    let pending = MirrorState::Pending.as_str();
    let values = [table.into(), version.get().into(), pending.into(), 0.into(), now.0.into()];
    out.row(ENQUEUE, &values).await?;
    out.push(MARK_PENDING, &[now.0.into(), table.into()]).await
}

/// Enqueues every version after the published one that is not.
pub(crate) async fn enqueue_missing(
    call: &mut Call,
    table: TableKey,
    published: Option<Version>,
    now: TimestampMs,
) -> DbResult<()> {
    let next = next_version(published);
    call.execute(ENQUEUE_MISSING, &[now.0.into(), table.into(), next.into()]).await?;
    call.execute(UPDATE_PENDING, &[table.into()]).await?;
    Ok(())
}

fn claimable(call: &Call, text: &str, request: &ClaimRequest) -> String {
    let owner = Value::Text(&request.owner);
    let now = Value::Int(request.now.0);
    call.session.sql(text, &[owner, owner, now, now])
}

/// Tables with work, the oldest first. Looked for without locks: idle workers are in nobody's way.
pub(crate) async fn candidates(call: &mut Call, request: &ClaimRequest) -> DbResult<Vec<TableId>> {
    let limit = i64::try_from(request.max_tables).unwrap_or(i64::MAX);
    let mut sql = match request.only {
        None => claimable(call, CLAIMABLE, request),
        Some(only) => {
            claimable(call, CLAIMABLE_OF, request)
                + &call.session.sql(" AND t.id = ?", &[only.into()])
        }
    };
    let oldest = " ORDER BY m.pending_since_ms, t.id LIMIT ?";
    sql.push_str(&call.session.sql(oldest, &[limit.into()]));
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
    let claimable = claimable(call, CLAIMABLE_OF, request);
    // Looked at again, locked in one order: what another worker took meanwhile is left out.
    let lock = session.sql(
        "SELECT STRAIGHT_JOIN t.id FROM {p}tables t JOIN {p}mirror m ON m.table_key = t.table_key
        WHERE t.id IN (",
        &[],
    );
    let ids = list(candidates.iter().map(|id| (*id).into()));
    let lock = format!("{lock}{ids}) ORDER BY t.id FOR UPDATE");
    let again = format!("{claimable} AND t.id IN ({ids})");
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
        found.push((pending_since, candidate, TableKey::Is(row.try_get(6)?)));
    }
    found.sort_by_key(|(pending_since, candidate, _)| (*pending_since, candidate.table));
    let mut tasks = Vec::with_capacity(found.len());
    for (_, candidate, key) in found {
        tasks.push(take(call, request, &candidate, key).await?);
    }
    Ok(tasks)
}

async fn take(
    call: &mut Call,
    request: &ClaimRequest,
    candidate: &Claimable,
    key: TableKey,
) -> DbResult<MirrorTask> {
    let id = candidate.table;
    let (first, lease) = (candidate.first(), candidate.lease(request));
    let session = call.session.clone();
    let statements = [
        session.sql(NEXT_VERSIONS, &[key.into(), first.into(), most_versions(request).into()]),
        session.sql(
            LEASE,
            &[(&lease.owner).into(), lease.epoch.into(), lease.until.0.into(), key.into()],
        ),
    ];
    let sets = call.run(statements.join("; ")).await?;
    let mut versions = Vec::new();
    for row in sets.first().into_iter().flat_map(|set| &set.rows) {
        versions.push(row.try_get::<i64, _>(0)?);
    }
    let last = check_gapless(id, first, &versions)?;
    call.execute(START, &[key.into(), first.into(), last.into()]).await?;
    Ok(candidate.task(lease, require_table(call, id).await?, &versions)?)
}

/// Opens a transaction and locks a leased table; the next version to publish, none if the lease is
/// lost.
async fn open_held(call: &mut Call, lease: &MirrorLease) -> DbResult<Option<(i64, TableKey)>> {
    let values = [lease.table_id.into(), (&lease.owner).into(), lease.epoch.into()];
    let held = call.session.sql(HELD, &values);
    match first(&call.open(&held).await?) {
        Some(row) => Ok(Some((row.try_get(0)?, TableKey::Is(row.try_get(1)?)))),
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
    let Some((mut next, table)) = open_held(call, lease).await? else { return Ok(false) };
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
                let record = require_table(call, lease.table_id).await?;
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
async fn give_up(call: &mut Call, table: TableKey) -> DbResult<()> {
    call.execute(GIVE_UP, &[table.into()]).await?;
    call.execute(BACK_TO_PENDING, &[table.into()]).await?;
    Ok(())
}

pub(crate) async fn fail(
    call: &mut Call,
    lease: &MirrorLease,
    failure: &PublishFailure,
) -> DbResult<bool> {
    let Some((_, table)) = open_held(call, lease).await? else { return Ok(false) };
    let values = [
        (&failure.error).into(),
        failure.retry_at.0.into(),
        table.into(),
        failure.version.get().into(),
    ];
    if call.execute(FAIL, &values).await? != 1 {
        let record = require_table(call, lease.table_id).await?;
        return Err(not_waiting(&record, failure.version).into());
    }
    if failure.diverged {
        call.execute(DIVERGE, &[table.into()]).await?;
    }
    give_up(call, table).await?;
    Ok(true)
}

pub(crate) async fn release(call: &mut Call, lease: &MirrorLease) -> DbResult<bool> {
    let Some((_, table)) = open_held(call, lease).await? else { return Ok(false) };
    give_up(call, table).await?;
    Ok(true)
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
    let wanted = fetch_limit(limit);
    let open = [MirrorState::Pending, MirrorState::InFlight, MirrorState::Failed];
    let states = state.map_or(open.to_vec(), |state| vec![state]);
    let session = call.session.clone();
    // What is left of the table where the last page ended, then the tables after it. Of each state the rows
    // of a table are in the order of the list in an index: a page of each is merged.
    let (after_table, after_version) = outbox_start(after);
    let first = table_id.or(after.map(|(table, _)| table));
    // Of another table than the one asked for all come after the cursor, or none.
    let after_version = match table_id {
        Some(id) if id > after_table => -1,
        Some(id) if id < after_table => i64::MAX,
        _ => after_version,
    };
    let mut messages = Vec::with_capacity(2);
    if let Some(id) = first {
        let of = |state: &MirrorState| {
            let values = [state.as_str().into(), id.into(), after_version.into(), wanted.into()];
            session.sql(ROWS_OF, &values)
        };
        messages.push(states.iter().map(of).collect::<Vec<_>>().join("; "));
    }
    if table_id.is_none() {
        let done = after.map(|(table, _)| table);
        let after = |state: &MirrorState| {
            let (state, wanted) = (state.as_str().into(), wanted.into());
            let (from, done) = (after_table.into(), done.into());
            let values = [state, from, done, wanted, state, state, wanted, wanted];
            session.sql(ROWS_AFTER, &values)
        };
        messages.push(states.iter().map(after).collect::<Vec<_>>().join("; "));
    }
    let mut items = Vec::new();
    for message in messages {
        for row in call.read(&message).await?.iter().flat_map(|set| &set.rows) {
            items.push(mirror_row::<MySqlFormat>(row)?);
        }
        if items.len() > limit {
            break;
        }
    }
    items.sort_unstable_by_key(|row| (row.table_id, row.version));
    Ok(page(items, limit, |row| (row.table_id, row.version)))
}

/// Removes rows of what was published long ago, or counts them. Nobody else changes a complete row.
pub(crate) async fn expire(
    call: &mut Call,
    expiry: Expiry,
    after: Option<(TableId, Version)>,
) -> DbResult<Expired<(TableId, Version)>> {
    let session = call.session.clone();
    let mut page = OutboxExpiry::new(expiry, after);
    let values = [page.first_table().into(), page.fetch_tables().into()];
    let tables = call.read(&session.sql(TABLES_PUBLISHED, &values)).await?;
    if !expiry.dry_run {
        call.open("SELECT 1").await?;
    }
    for row in tables.iter().flat_map(|set| &set.rows) {
        let id = table_id::<MySqlFormat>(row, 0)?;
        if !page.enters(id) {
            break;
        }
        let table = TableKey::Is(row.try_get(1)?);
        let Some(published) = row.try_get::<Option<i64>, _>(2)? else { continue };
        let values = [
            expiry.before.0.into(),
            table.into(),
            page.after_version(id).into(),
            published.into(),
            page.rows().into(),
        ];
        let (mut looked_at, mut last, mut old) = (0, None, Vec::new());
        let sets = call.run(session.sql(ROWS_PUBLISHED, &values)).await?;
        for row in sets.iter().flat_map(|set| &set.rows) {
            let version: i64 = row.try_get(0)?;
            looked_at += 1;
            last = Some(version);
            if row.try_get::<i64, _>(1)? != 0 {
                old.push(version);
            }
        }
        let mut removed = u64::try_from(old.len()).unwrap_or(u64::MAX);
        if !expiry.dry_run && !old.is_empty() {
            let versions = list(old.iter().map(|version| Value::Int(*version)));
            let delete = session.sql(DELETE_ROWS, &[table.into()]) + &versions + ")";
            removed = call.run(delete).await?.first().map_or(0, |set| set.affected);
        }
        if page.took(id, looked_at, last, removed)? {
            break;
        }
    }
    Ok(page.end())
}

pub(crate) async fn retry(call: &mut Call, id: TableId, act: &Act) -> DbResult<u64> {
    let table = open_active(call, id).await?;
    call.execute(ACTIVATE_DIVERGED, &[table.into()]).await?;
    let versions = call.execute(RETRY, &[act.at.0.into(), table.into()]).await?;
    let record = require_table(call, id).await?;
    audit::keep(call, &act.retried(&record, versions)).await?;
    Ok(versions)
}

pub(crate) async fn set_mode(
    call: &mut Call,
    id: TableId,
    mode: MirrorMode,
    act: &Act,
) -> DbResult<TableRecord> {
    let table = open_active(call, id).await?;
    let before = require_table(call, id).await?.mirror;
    if mode == MirrorMode::Diverged {
        call.execute(DIVERGE, &[table.into()]).await?;
    } else {
        call.execute(SET_MODE, &[mode.as_str().into(), table.into()]).await?;
    }
    if mode == MirrorMode::Active {
        let published = require_table(call, id).await?.published_version;
        enqueue_missing(call, table, published, act.at).await?;
    }
    let after = require_table(call, id).await?;
    if let Some(entry) = act.mode_changed(before, &after) {
        audit::keep(call, &entry).await?;
    }
    Ok(after)
}
