//! The mirror's outbox: which versions are published, and who may publish the next ones.
//!
//! `{p}mirror.pending_since_ms` is the time at which the first unpublished version was enqueued, or
//! null. It is kept by every verb here and makes a claim cost what is pending, not what was ever
//! published.

use deltalakedb_catalog_core::backend::{
    ClaimRequest, MirrorLease, MirrorTask, PublishFailure, Published,
};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorRow, MirrorState, Page, TableRecord};
use deltalakedb_catalog_core::support::{fetch_limit, page};
use rusqlite::{OptionalExtension, params};

use crate::errors::{DbError, DbResult};
use crate::rows::text::statements;
use crate::rows::{corrupt, mirror_columns, mirror_row};
use crate::session::Db;
use crate::tables::{require_active, require_readable, require_table};

/// Tables whose next version may be published by ?2 at ?1: a lease holds before its end and
/// lapses at it.
macro_rules! claimable {
    () => {
        "{p}mirror m
         JOIN {p}tables t ON t.id = m.table_id
         JOIN {p}mirror_status s ON s.table_id = m.table_id
           AND s.version = coalesce(m.published_version + 1, 0)
         WHERE m.pending_since_ms IS NOT NULL AND m.mode = 'active' AND t.state = 'active'
           AND (m.lease_owner IS NULL OR m.lease_owner = ?2 OR m.lease_until_ms <= ?1)
           AND (s.retry_at_ms IS NULL OR s.retry_at_ms <= ?1)
           AND (?3 IS NULL OR m.table_id = ?3)"
    };
}

statements! {
    ENQUEUE: "INSERT INTO {p}mirror_status (table_id, version, state, attempts,
            enqueued_at_ms)
        VALUES (?1, ?2, 'PENDING', 0, ?3)",
    ENQUEUE_MISSING: "INSERT INTO {p}mirror_status (table_id, version, state, attempts,
            enqueued_at_ms)
        SELECT c.table_id, c.version, 'PENDING', 0, ?3 FROM {p}commits c
        WHERE c.table_id = ?1 AND c.version >= ?2 AND NOT EXISTS (
            SELECT 1 FROM {p}mirror_status s
            WHERE s.table_id = c.table_id AND s.version = c.version)",
    MARK_PENDING: "UPDATE {p}mirror SET pending_since_ms = ?2
        WHERE table_id = ?1 AND pending_since_ms IS NULL",
    /// From the row of the first unpublished version.
    UPDATE_PENDING: "UPDATE {p}mirror SET pending_since_ms = (
            SELECT s.enqueued_at_ms FROM {p}mirror_status s
            WHERE s.table_id = {p}mirror.table_id
              AND s.version = coalesce({p}mirror.published_version + 1, 0))
        WHERE table_id = ?1",
    ANY_CLAIMABLE: concat!("SELECT 1 FROM ", claimable!(), " LIMIT 1"),
    CLAIMABLE: concat!("SELECT m.table_id, m.published_version, m.lease_owner, m.lease_epoch,
            s.attempts
        FROM ", claimable!(), " ORDER BY m.pending_since_ms, m.table_id LIMIT ?4"),
    LEASE: "UPDATE {p}mirror SET lease_owner = ?2, lease_epoch = ?3, lease_until_ms = ?4
        WHERE table_id = ?1",
    NEXT_VERSIONS: "SELECT version FROM {p}mirror_status
        WHERE table_id = ?1 AND version >= ?2 ORDER BY version LIMIT ?3",
    START: "UPDATE {p}mirror_status SET state = 'IN_FLIGHT', attempts = attempts + 1
        WHERE table_id = ?1 AND version >= ?2 AND version <= ?3",
    /// A holder is known by its name and epoch: whoever takes a lapsed lease has another one.
    HELD: "SELECT coalesce(published_version + 1, 0) FROM {p}mirror
        WHERE table_id = ?1 AND lease_owner = ?2 AND lease_epoch = ?3",
    RENEW: "UPDATE {p}mirror SET lease_until_ms = ?4
        WHERE table_id = ?1 AND lease_owner = ?2 AND lease_epoch = ?3",
    COMPLETE: "UPDATE {p}mirror_status SET state = 'COMPLETE', digest = ?3,
            published_at_ms = ?4, retry_at_ms = NULL, last_error = NULL
        WHERE table_id = ?1 AND version = ?2",
    PUBLISH: "UPDATE {p}mirror SET published_version = ?2 WHERE table_id = ?1",
    FAIL: "UPDATE {p}mirror_status SET state = 'FAILED', last_error = ?3, retry_at_ms = ?4
        WHERE table_id = ?1 AND version = ?2 AND state <> 'COMPLETE'",
    /// A table that was switched off meanwhile stays off.
    DIVERGE: "UPDATE {p}mirror SET mode = 'diverged'
        WHERE table_id = ?1 AND mode = 'active'",
    SET_MODE: "UPDATE {p}mirror SET mode = ?2 WHERE table_id = ?1",
    GIVE_UP: "UPDATE {p}mirror SET lease_owner = NULL WHERE table_id = ?1",
    BACK_TO_PENDING: "UPDATE {p}mirror_status INDEXED BY {p}mirror_status_open
        SET state = 'PENDING'
        WHERE table_id = ?1 AND state <> 'COMPLETE' AND state = 'IN_FLIGHT'",
    RETRY: "UPDATE {p}mirror_status INDEXED BY {p}mirror_status_open
        SET retry_at_ms = ?2
        WHERE table_id = ?1 AND state <> 'COMPLETE' AND state = 'FAILED'",
    ACTIVATE_DIVERGED: "UPDATE {p}mirror SET mode = 'active'
        WHERE table_id = ?1 AND mode = 'diverged'",
    /// The open states have an index of their own; `state <> 'COMPLETE'` selects it.
    ROWS_OPEN: concat!("SELECT ", mirror_columns!(), " FROM {p}mirror_status
            INDEXED BY {p}mirror_status_open
        WHERE state <> 'COMPLETE' AND (?1 IS NULL OR state = ?1)
          AND (table_id, version) > (?2, ?3)
        ORDER BY table_id, version LIMIT ?4"),
    ROWS_OPEN_OF: concat!("SELECT ", mirror_columns!(), " FROM {p}mirror_status
            INDEXED BY {p}mirror_status_open
        WHERE state <> 'COMPLETE' AND (?1 IS NULL OR state = ?1)
          AND table_id = ?5 AND (table_id, version) > (?2, ?3)
        ORDER BY table_id, version LIMIT ?4"),
    ROWS_COMPLETE: concat!("SELECT ", mirror_columns!(), " FROM {p}mirror_status
        WHERE state = ?1 AND (table_id, version) > (?2, ?3)
        ORDER BY table_id, version LIMIT ?4"),
    ROWS_COMPLETE_OF: concat!("SELECT ", mirror_columns!(), " FROM {p}mirror_status
        WHERE state = ?1 AND table_id = ?5 AND (table_id, version) > (?2, ?3)
        ORDER BY table_id, version LIMIT ?4"),
}

/// Puts a new version into the outbox, in the transaction that commits it.
pub(crate) fn enqueue(db: Db<'_>, id: TableId, version: Version, now: TimestampMs) -> DbResult<()> {
    let table = id.to_string();
    db.execute(ENQUEUE, params![table, version.get(), now.0])?;
    db.execute(MARK_PENDING, params![table, now.0])?;
    Ok(())
}

/// Whether a claim would find anything: asked by a reader first, so that idle workers do not take
/// the write lock.
pub(crate) fn any_claimable(db: Db<'_>, request: &ClaimRequest) -> DbResult<bool> {
    let only = request.only.map(|id| id.to_string());
    let mut statement = db.prepare(ANY_CLAIMABLE)?;
    Ok(request.max_tables > 0 && statement.exists(params![request.now.0, request.owner, only])?)
}

pub(crate) fn claim(db: Db<'_>, request: &ClaimRequest) -> DbResult<Vec<MirrorTask>> {
    let only = request.only.map(|id| id.to_string());
    let limit = i64::try_from(request.max_tables).unwrap_or(i64::MAX);
    let found: Vec<Claimable> = db
        .prepare(CLAIMABLE)?
        .query_map(params![request.now.0, request.owner, only, limit], |row| {
            Ok(Claimable {
                table: row.get(0)?,
                published: row.get(1)?,
                owner: row.get(2)?,
                epoch: row.get(3)?,
                attempts: row.get(4)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    found.into_iter().map(|candidate| take(db, request, &candidate)).collect()
}

struct Claimable {
    table: String,
    published: Option<i64>,
    owner: Option<String>,
    epoch: i64,
    attempts: u32,
}

fn take(db: Db<'_>, request: &ClaimRequest, candidate: &Claimable) -> DbResult<MirrorTask> {
    let table = &candidate.table;
    let table_id: TableId = table.parse().map_err(|e| corrupt(table, None, "table_id", e))?;
    let same_holder = candidate.owner.as_deref() == Some(request.owner.as_str());
    let epoch = if same_holder { candidate.epoch } else { candidate.epoch.saturating_add(1) };
    let until = request.now.plus_ms(request.lease_ms);
    db.execute(LEASE, params![table, request.owner, epoch, until.0])?;

    let first = candidate.published.map_or(0, |published| published.saturating_add(1));
    let limit = i64::try_from(request.max_versions.max(1)).unwrap_or(i64::MAX);
    let versions: Vec<i64> = db
        .prepare(NEXT_VERSIONS)?
        .query_map(params![table, first, limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let gapless = (first..).zip(&versions).all(|(expected, found)| expected == *found);
    let (Some(last), true) = (versions.last(), gapless) else {
        return Err(corrupt(table, Some(first), "outbox", "a version is missing in it"));
    };
    db.execute(START, params![table, first, last])?;
    Ok(MirrorTask {
        lease: MirrorLease { table_id, owner: request.owner.clone(), epoch, until },
        table: require_table(db, table_id)?,
        versions: versions
            .into_iter()
            .map(Version::new)
            .collect::<Result<_, deltalakedb_catalog_core::ids::InvalidId>>()?,
        attempts: candidate.attempts,
    })
}

/// The next version to publish of a leased table; none if the lease is lost.
fn held(db: Db<'_>, lease: &MirrorLease) -> DbResult<Option<i64>> {
    Ok(db
        .prepare(HELD)?
        .query_row(params![lease.table_id.to_string(), lease.owner, lease.epoch], |row| row.get(0))
        .optional()?)
}

pub(crate) fn renew(
    db: Db<'_>,
    lease: &MirrorLease,
    now: TimestampMs,
    lease_ms: i64,
) -> DbResult<Option<MirrorLease>> {
    let until = now.plus_ms(lease_ms);
    let renewed =
        db.execute(RENEW, params![lease.table_id.to_string(), lease.owner, lease.epoch, until.0])?;
    Ok((renewed == 1).then(|| MirrorLease { until, ..lease.clone() }))
}

fn invalid<T>(db: Db<'_>, id: TableId, what: String) -> DbResult<T> {
    let name = require_table(db, id)?.name;
    Err(DbError::Catalog(CatalogError::invalid(format!("table '{name}': {what}"))))
}

pub(crate) fn complete(db: Db<'_>, lease: &MirrorLease, done: &[Published]) -> DbResult<bool> {
    let table = lease.table_id.to_string();
    let Some(mut next) = held(db, lease)? else { return Ok(false) };
    for row in done {
        let in_order = row.version.get() == next
            && db.execute(COMPLETE, params![table, next, row.digest, row.at.0])? == 1;
        if !in_order {
            return invalid(
                db,
                lease.table_id,
                format!("version {} was published out of order, {next} comes next", row.version),
            );
        }
        next = next.saturating_add(1);
    }
    if let Some(last) = done.last() {
        db.execute(PUBLISH, params![table, last.version.get()])?;
        db.execute(UPDATE_PENDING, [&table])?;
    }
    Ok(true)
}

/// Frees a lease: its rows in flight wait again.
fn give_up(db: Db<'_>, table: &str) -> DbResult<()> {
    db.execute(GIVE_UP, [table])?;
    db.execute(BACK_TO_PENDING, [table])?;
    Ok(())
}

pub(crate) fn fail(db: Db<'_>, lease: &MirrorLease, failure: &PublishFailure) -> DbResult<bool> {
    let table = lease.table_id.to_string();
    if held(db, lease)?.is_none() {
        return Ok(false);
    }
    let failed =
        db.execute(FAIL, params![table, failure.version.get(), failure.error, failure.retry_at.0])?;
    if failed != 1 {
        let what = format!("version {} is not waiting to be published", failure.version);
        return invalid(db, lease.table_id, what);
    }
    if failure.diverged {
        db.execute(DIVERGE, params![table])?;
    }
    give_up(db, &table)?;
    Ok(true)
}

pub(crate) fn release(db: Db<'_>, lease: &MirrorLease) -> DbResult<bool> {
    let held = held(db, lease)?.is_some();
    if held {
        give_up(db, &lease.table_id.to_string())?;
    }
    Ok(held)
}

pub(crate) fn list(
    db: Db<'_>,
    table_id: Option<TableId>,
    state: Option<MirrorState>,
    after: Option<(TableId, Version)>,
    limit: usize,
) -> DbResult<Page<MirrorRow, (TableId, Version)>> {
    if let Some(id) = table_id {
        require_readable(db, id)?;
    }
    let (after_table, after_version) =
        after.map_or((String::new(), -1), |(id, version)| (id.to_string(), version.get()));
    let complete = state == Some(MirrorState::Complete);
    let text = match (complete, table_id) {
        (false, None) => ROWS_OPEN,
        (false, Some(_)) => ROWS_OPEN_OF,
        (true, None) => ROWS_COMPLETE,
        (true, Some(_)) => ROWS_COMPLETE_OF,
    };
    let mut statement = db.prepare(text)?;
    statement.raw_bind_parameter(1, state.map(MirrorState::as_str))?;
    statement.raw_bind_parameter(2, after_table)?;
    statement.raw_bind_parameter(3, after_version)?;
    statement.raw_bind_parameter(4, fetch_limit(limit))?;
    if let Some(id) = table_id {
        statement.raw_bind_parameter(5, id.to_string())?;
    }
    let mut rows = statement.raw_query();
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(mirror_row(row)?);
    }
    Ok(page(items, limit, |row| (row.table_id, row.version)))
}

pub(crate) fn retry(db: Db<'_>, id: TableId, now: TimestampMs) -> DbResult<u64> {
    require_active(db, id)?;
    let table = id.to_string();
    db.execute(ACTIVATE_DIVERGED, [&table])?;
    let rows = db.execute(RETRY, params![table, now.0])?;
    Ok(u64::try_from(rows).unwrap_or(u64::MAX))
}

pub(crate) fn set_mode(
    db: Db<'_>,
    id: TableId,
    mode: MirrorMode,
    now: TimestampMs,
) -> DbResult<TableRecord> {
    require_active(db, id)?;
    let table = id.to_string();
    if mode == MirrorMode::Diverged {
        db.execute(DIVERGE, [&table])?;
        return require_table(db, id);
    }
    db.execute(SET_MODE, params![table, mode.as_str()])?;
    if mode == MirrorMode::Active {
        enqueue_missing(db, id, require_table(db, id)?.published_version, now)?;
    }
    require_table(db, id)
}

/// Enqueues every version after the published one that is not.
pub(crate) fn enqueue_missing(
    db: Db<'_>,
    id: TableId,
    published: Option<Version>,
    now: TimestampMs,
) -> DbResult<()> {
    let table = id.to_string();
    let next = published.map_or(0, |published| published.get().saturating_add(1));
    db.execute(ENQUEUE_MISSING, params![table, next, now.0])?;
    db.execute(UPDATE_PENDING, [&table])?;
    Ok(())
}
