//! The mirror's outbox: which versions are published, and who may publish the next ones.
//!
//! `{p}mirror.pending_since_ms` is the time at which the first unpublished version was enqueued, or
//! null. It is kept by every verb here and makes a claim cost what is pending, not what was ever
//! published.
//!
//! A commit writes its outbox row and then, always, the row of `{p}mirror`. A verb here locks that
//! row first and looks at the outbox in a later statement, so it sees the rows of every commit that
//! had the row before: with the snapshot of one statement it would not.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::{
    ClaimRequest, Expired, Expiry, MirrorLease, MirrorTask, PublishFailure, Published,
};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorRow, MirrorState, Page, TableRecord};
use deltalakedb_catalog_core::support::{OutboxExpiry, fetch_limit, page};
use sqlx::Row;
use uuid::Uuid;

use crate::audit;
use crate::errors::{DbError, DbResult};
use crate::rows::{Id, attempts, corrupt, key, mirror_columns, mirror_row};
use crate::session::{Args, Call, statements};
use crate::tables::{lock_active, require_readable, require_table};

/// Tables whose next version may be published by $2 at $1: a lease holds before its end and
/// lapses at it.
macro_rules! claimable {
    () => {
        "{p}mirror m
         JOIN {p}tables t ON t.table_key = m.table_key
         JOIN {p}mirror_status s ON s.table_key = m.table_key
           AND s.version = coalesce(m.published_version + 1, 0)
         WHERE m.pending_since_ms IS NOT NULL AND m.mode = 'active' AND t.state = 'active'
           AND (m.lease_owner IS NULL OR m.lease_owner = $2 OR m.lease_until_ms <= $1)
           AND (s.retry_at_ms IS NULL OR s.retry_at_ms <= $1)"
    };
}

/// Rows of the outbox in such a state, in the order of the tables' ids: of the tables from $5 to $6, after the row
/// of table $2 and version $3. Each table is a look into the index, which ends when the page is full.
macro_rules! rows {
    ($state:literal) => {
        concat!(
            "SELECT t.id AS table_id, r.*
            FROM {p}tables t CROSS JOIN LATERAL (SELECT ",
            mirror_columns!(),
            " FROM {p}mirror_status s
                WHERE s.table_key = t.table_key AND ",
            $state,
            "
                  AND s.version > CASE WHEN t.id = $2 THEN $3 ELSE -1 END
                ORDER BY s.version LIMIT $4) r
            WHERE t.id >= $5 AND t.id <= $6
            ORDER BY t.id, r.version LIMIT $4"
        )
    };
}

// Statements on `{p}mirror` and `{p}mirror_status`.
statements! {
    ENQUEUE_MISSING: concat!("INSERT INTO {p}mirror_status (table_key, version, state, attempts,
            enqueued_at_ms)
        SELECT c.table_key, c.version, 'PENDING', 0, $3 FROM {p}commits c
        WHERE c.table_key = ", key!(), " AND c.version >= $2 AND NOT EXISTS (
            SELECT 1 FROM {p}mirror_status s
            WHERE s.table_key = c.table_key AND s.version = c.version)"),
    /// From the row of the first unpublished version.
    UPDATE_PENDING: concat!("UPDATE {p}mirror m SET pending_since_ms = (
            SELECT s.enqueued_at_ms FROM {p}mirror_status s
            WHERE s.table_key = m.table_key
              AND s.version = coalesce(m.published_version + 1, 0))
        WHERE m.table_key = ", key!()),
    /// Looked for without locks: idle workers are in nobody's way.
    CANDIDATES: concat!("SELECT t.id FROM ", claimable!(), "
          AND ($3::uuid IS NULL OR t.id = $3)
        ORDER BY m.pending_since_ms, t.id LIMIT $4"),
    /// In one order, so that claims do not wait for each other in a circle.
    LOCK_MANY: "SELECT m.table_key FROM {p}mirror m
        WHERE m.table_key IN (SELECT table_key FROM {p}tables WHERE id = ANY ($1::uuid[]))
        ORDER BY m.table_key FOR UPDATE OF m",
    CLAIMABLE: concat!("SELECT t.id, m.published_version,
            coalesce(m.lease_owner = $2, false), m.lease_epoch, s.attempts
        FROM ", claimable!(), " AND t.id = ANY ($3::uuid[])
        ORDER BY m.pending_since_ms, t.id"),
    NEXT_VERSIONS: concat!("SELECT version FROM {p}mirror_status
        WHERE table_key = ", key!(), " AND version >= $2 ORDER BY version LIMIT $3"),
    LEASE: concat!("UPDATE {p}mirror SET lease_owner = $2, lease_epoch = $3, lease_until_ms = $4
        WHERE table_key = ", key!()),
    START: concat!("UPDATE {p}mirror_status SET state = 'IN_FLIGHT', attempts = attempts + 1
        WHERE table_key = ", key!(), " AND version >= $2 AND version <= $3"),
    /// A holder is known by its name and epoch: whoever takes a lapsed lease has another one.
    HELD: concat!("SELECT coalesce(published_version + 1, 0) FROM {p}mirror
        WHERE table_key = ", key!(), " AND lease_owner = $2 AND lease_epoch = $3 FOR UPDATE"),
    RENEW: concat!("UPDATE {p}mirror SET lease_until_ms = $4
        WHERE table_key = ", key!(), " AND lease_owner = $2 AND lease_epoch = $3"),
    COMPLETE: concat!("UPDATE {p}mirror_status s SET state = 'COMPLETE', digest = d.digest,
            published_at_ms = d.published_at, retry_at_ms = NULL, last_error = NULL
        FROM unnest($2::int8[], $3::text[], $4::int8[]) AS d (version, digest, published_at)
        WHERE s.table_key = ", key!(), " AND s.version = d.version"),
    PUBLISH: concat!("UPDATE {p}mirror SET published_version = $2 WHERE table_key = ", key!()),
    FAIL: concat!("UPDATE {p}mirror_status SET state = 'FAILED', last_error = $3, retry_at_ms = $4
        WHERE table_key = ", key!(), " AND version = $2 AND state <> 'COMPLETE'"),
    /// A table that was switched off meanwhile stays off.
    DIVERGE: concat!("UPDATE {p}mirror SET mode = 'diverged'
        WHERE table_key = ", key!(), " AND mode = 'active'"),
    SET_MODE: concat!("UPDATE {p}mirror SET mode = $2 WHERE table_key = ", key!()),
    GIVE_UP: concat!("UPDATE {p}mirror SET lease_owner = NULL WHERE table_key = ", key!()),
    BACK_TO_PENDING: concat!("UPDATE {p}mirror_status SET state = 'PENDING'
        WHERE table_key = ", key!(), " AND state <> 'COMPLETE' AND state = 'IN_FLIGHT'"),
    RETRY: concat!("UPDATE {p}mirror_status SET retry_at_ms = $2
        WHERE table_key = ", key!(), " AND state <> 'COMPLETE' AND state = 'FAILED'"),
    ACTIVATE_DIVERGED: concat!("UPDATE {p}mirror SET mode = 'active'
        WHERE table_key = ", key!(), " AND mode = 'diverged'"),
    /// The open states have an index of their own; `state <> 'COMPLETE'` selects it.
    ROWS_OPEN: rows!("s.state <> 'COMPLETE' AND ($1::text IS NULL OR s.state = $1)"),
    ROWS_COMPLETE: rows!("s.state = $1"),
    /// Tables from one on, their published versions, and whether they have rows below.
    TABLES_PUBLISHED: "SELECT t.id, m.published_version, EXISTS (SELECT 1 FROM {p}mirror_status s
            WHERE s.table_key = t.table_key AND s.version < m.published_version)
        FROM {p}tables t JOIN {p}mirror m ON m.table_key = t.table_key
        WHERE t.id >= $1 ORDER BY t.id LIMIT $2",
    /// The next rows of a table below a version, and whether each was published before a time.
    ROWS_PUBLISHED: concat!("SELECT version, state = 'COMPLETE' AND coalesce(published_at_ms < $5, false)
        FROM {p}mirror_status
        WHERE table_key = ", key!(), " AND version > $2 AND version < $3 ORDER BY version LIMIT $4"),
    DELETE_ROWS: concat!("DELETE FROM {p}mirror_status
        WHERE table_key = ", key!(), " AND version = ANY ($2::int8[]) AND state = 'COMPLETE'"),
}

/// Enqueues every version after the published one that is not.
pub(crate) async fn enqueue_missing(
    call: &mut Call,
    id: TableId,
    published: Option<Version>,
    now: TimestampMs,
) -> DbResult<()> {
    let next = published.map_or(0, |published| published.get().saturating_add(1));
    call.execute(ENQUEUE_MISSING, Args::of(id).bind(next).bind(now.0)).await?;
    call.execute(UPDATE_PENDING, Args::of(id)).await?;
    Ok(())
}

/// Tables that could be claimed, oldest work first.
pub(crate) async fn candidates(call: &mut Call, request: &ClaimRequest) -> DbResult<Vec<TableId>> {
    let args = Args::new()
        .bind(request.now.0)
        .text("the owner of a lease", &request.owner)
        .bind(request.only.map(Id::from))
        .bind(i64::try_from(request.max_tables).unwrap_or(i64::MAX));
    let rows = call.fetch(CANDIDATES, args).await?;
    rows.iter().map(|row| Ok(TableId(row.try_get::<Id, _>(0)?.0))).collect()
}

struct Claimable {
    table: TableId,
    published: Option<i64>,
    same_holder: bool,
    epoch: i64,
    attempts: u32,
}

/// Leases them, as far as nobody else has meanwhile.
pub(crate) async fn claim(
    call: &mut Call,
    request: &ClaimRequest,
    candidates: &[TableId],
) -> DbResult<Vec<MirrorTask>> {
    let ids: Vec<Id> = candidates.iter().map(|id| Id::from(*id)).collect();
    call.fetch(LOCK_MANY, Args::new().bind(&ids)).await?;
    let args = Args::new().bind(request.now.0).bind(request.owner.as_str()).bind(&ids);
    let mut found = Vec::new();
    for row in &call.fetch(CLAIMABLE, args).await? {
        found.push(Claimable {
            table: TableId(row.try_get::<Id, _>(0)?.0),
            published: row.try_get(1)?,
            same_holder: row.try_get(2)?,
            epoch: row.try_get(3)?,
            attempts: attempts(row.try_get(4)?),
        });
    }
    let mut tasks = Vec::with_capacity(found.len());
    for candidate in &found {
        tasks.push(take(call, request, candidate).await?);
    }
    Ok(tasks)
}

async fn take(
    call: &mut Call,
    request: &ClaimRequest,
    candidate: &Claimable,
) -> DbResult<MirrorTask> {
    let table_id = candidate.table;
    let epoch =
        if candidate.same_holder { candidate.epoch } else { candidate.epoch.saturating_add(1) };
    let until = request.now.plus_ms(request.lease_ms);
    let args = Args::of(table_id).bind(request.owner.as_str()).bind(epoch).bind(until.0);
    call.execute(LEASE, args).await?;

    let first = candidate.published.map_or(0, |published| published.saturating_add(1));
    let limit = i64::try_from(request.max_versions.max(1)).unwrap_or(i64::MAX);
    let mut versions: Vec<i64> = Vec::new();
    for row in &call.fetch(NEXT_VERSIONS, Args::of(table_id).bind(first).bind(limit)).await? {
        versions.push(row.try_get(0)?);
    }
    let gapless = (first..).zip(&versions).all(|(expected, found)| expected == *found);
    let (Some(last), true) = (versions.last(), gapless) else {
        return Err(corrupt(table_id, Some(first), "outbox", "a version is missing in it"));
    };
    call.execute(START, Args::of(table_id).bind(first).bind(*last)).await?;
    Ok(MirrorTask {
        lease: MirrorLease { table_id, owner: request.owner.clone(), epoch, until },
        table: require_table(call, table_id).await?,
        versions: versions
            .into_iter()
            .map(Version::new)
            .collect::<Result<_, deltalakedb_catalog_core::ids::InvalidId>>()?,
        attempts: candidate.attempts,
    })
}

fn lease_args(lease: &MirrorLease) -> Args {
    Args::of(lease.table_id).text("the owner of a lease", &lease.owner).bind(lease.epoch)
}

/// Locks a leased table; the next version to publish, none if the lease is lost.
async fn held(call: &mut Call, lease: &MirrorLease) -> DbResult<Option<i64>> {
    let row = call.fetch_optional(HELD, lease_args(lease)).await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

pub(crate) async fn renew(
    call: &mut Call,
    lease: &MirrorLease,
    now: TimestampMs,
    lease_ms: i64,
) -> DbResult<Option<MirrorLease>> {
    let until = now.plus_ms(lease_ms);
    let renewed = call.execute(RENEW, lease_args(lease).bind(until.0)).await?;
    Ok((renewed == 1).then(|| MirrorLease { until, ..lease.clone() }))
}

async fn invalid<T>(call: &mut Call, id: TableId, what: String) -> DbResult<T> {
    let name = require_table(call, id).await?.name;
    Err(DbError::Catalog(CatalogError::invalid(format!("table '{name}': {what}"))))
}

pub(crate) async fn complete(
    call: &mut Call,
    lease: &MirrorLease,
    done: &[Published],
) -> DbResult<bool> {
    let id = lease.table_id;
    let Some(first) = held(call, lease).await? else { return Ok(false) };
    for (next, row) in (first..).zip(done) {
        if row.version.get() != next {
            let what =
                format!("version {} was published out of order, {next} comes next", row.version);
            return invalid(call, id, what).await;
        }
    }
    let Some(last) = done.last() else { return Ok(true) };
    let versions: Vec<i64> = done.iter().map(|row| row.version.get()).collect();
    let digests: Vec<&str> = done.iter().map(|row| row.digest.as_str()).collect();
    let times: Vec<i64> = done.iter().map(|row| row.at.0).collect();
    let args = Args::of(id).bind(&versions).texts("the digest of a version", &digests).bind(&times);
    let known = call.execute(COMPLETE, args).await?;
    if usize::try_from(known).ok() != Some(done.len()) {
        let next = first.saturating_add(i64::try_from(known).unwrap_or(i64::MAX));
        let what =
            format!("version {} was published out of order, {next} comes next", last.version);
        return invalid(call, id, what).await;
    }
    call.execute(PUBLISH, Args::of(id).bind(last.version.get())).await?;
    call.execute(UPDATE_PENDING, Args::of(id)).await?;
    Ok(true)
}

/// Frees a lease: its rows in flight wait again.
async fn give_up(call: &mut Call, id: TableId) -> DbResult<()> {
    call.execute(GIVE_UP, Args::of(id)).await?;
    call.execute(BACK_TO_PENDING, Args::of(id)).await?;
    Ok(())
}

pub(crate) async fn fail(
    call: &mut Call,
    lease: &MirrorLease,
    failure: &PublishFailure,
) -> DbResult<bool> {
    let id = lease.table_id;
    if held(call, lease).await?.is_none() {
        return Ok(false);
    }
    let args = Args::of(id)
        .bind(failure.version.get())
        .text("the error of a version", &failure.error)
        .bind(failure.retry_at.0);
    if call.execute(FAIL, args).await? != 1 {
        let what = format!("version {} is not waiting to be published", failure.version);
        return invalid(call, id, what).await;
    }
    if failure.diverged {
        call.execute(DIVERGE, Args::of(id)).await?;
    }
    give_up(call, id).await?;
    Ok(true)
}

pub(crate) async fn release(call: &mut Call, lease: &MirrorLease) -> DbResult<bool> {
    let held = held(call, lease).await?.is_some();
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
    let (first, last) = table_id.map_or((Uuid::nil(), Uuid::max()), |id| (id.0, id.0));
    let (after_table, after_version) =
        after.map_or((Uuid::nil(), -1), |(id, version)| (id.0, version.get()));
    let complete = state == Some(MirrorState::Complete);
    let text = if complete { ROWS_COMPLETE } else { ROWS_OPEN };
    let args = Args::new()
        .bind(state.map(MirrorState::as_str))
        .bind(Id(after_table))
        .bind(after_version)
        .bind(fetch_limit(limit))
        .bind(Id(first.max(after_table)))
        .bind(Id(last));
    let rows = call.fetch(text, args).await?;
    let items = rows.iter().map(mirror_row).collect::<DbResult<Vec<_>>>()?;
    Ok(page(items, limit, |row| (row.table_id, row.version)))
}

/// Removes rows of what was published long ago, or counts them. Nobody else changes a complete row.
pub(crate) async fn expire(
    call: &mut Call,
    expiry: Expiry,
    after: Option<(TableId, Version)>,
) -> DbResult<Expired<(TableId, Version)>> {
    let mut page = OutboxExpiry::new(expiry, after);
    let args = Args::of(page.first_table()).bind(page.fetch_tables());
    for row in &call.fetch(TABLES_PUBLISHED, args).await? {
        let id = TableId(row.try_get::<Id, _>(0)?.0);
        if !page.enters(id) {
            break;
        }
        let published: Option<i64> = row.try_get(1)?;
        let (Some(published), true) = (published, row.try_get(2)?) else { continue };
        let args = Args::of(id)
            .bind(page.after_version(id))
            .bind(published)
            .bind(page.rows())
            .bind(expiry.before.0);
        let (mut looked_at, mut last, mut old) = (0, None, Vec::new());
        for row in &call.fetch(ROWS_PUBLISHED, args).await? {
            let version: i64 = row.try_get(0)?;
            looked_at += 1;
            last = Some(version);
            if row.try_get(1)? {
                old.push(version);
            }
        }
        let mut removed = u64::try_from(old.len()).unwrap_or(u64::MAX);
        if !expiry.dry_run && !old.is_empty() {
            removed = call.execute(DELETE_ROWS, Args::of(id).bind(&old)).await?;
        }
        if page.took(id, looked_at, last, removed)? {
            break;
        }
    }
    Ok(page.end())
}

pub(crate) async fn retry(call: &mut Call, id: TableId, act: &Act) -> DbResult<u64> {
    lock_active(call, id).await?;
    call.execute(ACTIVATE_DIVERGED, Args::of(id)).await?;
    let versions = call.execute(RETRY, Args::of(id).bind(act.at.0)).await?;
    let table = require_table(call, id).await?;
    audit::keep(call, &act.retried(&table, versions)).await?;
    Ok(versions)
}

pub(crate) async fn set_mode(
    call: &mut Call,
    id: TableId,
    mode: MirrorMode,
    act: &Act,
) -> DbResult<TableRecord> {
    lock_active(call, id).await?;
    let before = require_table(call, id).await?.mirror;
    if mode == MirrorMode::Diverged {
        call.execute(DIVERGE, Args::of(id)).await?;
    } else {
        let args = Args::of(id).bind(mode.as_str());
        call.execute(SET_MODE, args).await?;
    }
    if mode == MirrorMode::Active {
        let published = require_table(call, id).await?.published_version;
        enqueue_missing(call, id, published, act.at).await?;
    }
    let after = require_table(call, id).await?;
    if let Some(entry) = act.mode_changed(before, &after) {
        audit::keep(call, &entry).await?;
    }
    Ok(after)
}
