//! The mirror's outbox: which versions are published, and who may publish the next ones.
//!
//! `{p}mirror.pending_since_ms` is the time at which the first unpublished version was enqueued, or
//! null. It is kept by every verb here and makes a claim cost what is pending, not what was ever
//! published.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::{
    ClaimRequest, Expired, Expiry, MirrorLease, MirrorTask, PublishFailure, Published,
};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorRow, MirrorState, Page, TableRecord};
use deltalakedb_catalog_core::support::{OutboxExpiry, count, fetch_limit, page};
use rusqlite::{CachedStatement, OptionalExtension, params};

use crate::audit;
use crate::errors::{DbError, DbResult};
use crate::rows::text::statements;
use crate::rows::{Table, corrupt, mirror_columns, mirror_row};
use crate::session::Db;
use crate::tables::{require_active, require_readable, require_table};

/// Tables whose next version may be published by ?2 at ?1: a lease holds before its end and
/// lapses at it.
macro_rules! claimable {
    () => {
        "{p}mirror m
         JOIN {p}tables t ON t.table_key = m.table_key
         JOIN {p}mirror_status s ON s.table_key = m.table_key
           AND s.version = coalesce(m.published_version + 1, 0)
         WHERE m.pending_since_ms IS NOT NULL AND m.mode = 'active' AND t.state = 'active'
           AND (m.lease_owner IS NULL OR m.lease_owner = ?2 OR m.lease_until_ms <= ?1)
           AND (s.retry_at_ms IS NULL OR s.retry_at_ms <= ?1)
           AND (?3 IS NULL OR t.id = ?3)"
    };
}

statements! {
    ENQUEUE: "INSERT INTO {p}mirror_status (table_key, version, state, attempts,
            enqueued_at_ms)
        VALUES (?1, ?2, 'PENDING', 0, ?3)",
    ENQUEUE_MISSING: "INSERT INTO {p}mirror_status (table_key, version, state, attempts,
            enqueued_at_ms)
        SELECT c.table_key, c.version, 'PENDING', 0, ?3 FROM {p}commits c
        WHERE c.table_key = ?1 AND c.version >= ?2 AND NOT EXISTS (
            SELECT 1 FROM {p}mirror_status s
            WHERE s.table_key = c.table_key AND s.version = c.version)",
    MARK_PENDING: "UPDATE {p}mirror SET pending_since_ms = ?2
        WHERE table_key = ?1 AND pending_since_ms IS NULL",
    /// From the row of the first unpublished version.
    UPDATE_PENDING: "UPDATE {p}mirror SET pending_since_ms = (
            SELECT s.enqueued_at_ms FROM {p}mirror_status s
            WHERE s.table_key = {p}mirror.table_key
              AND s.version = coalesce({p}mirror.published_version + 1, 0))
        WHERE table_key = ?1",
    ANY_CLAIMABLE: concat!("SELECT 1 FROM ", claimable!(), " LIMIT 1"),
    /// Only tables of one and the same millisecond are sorted.
    CLAIMABLE: concat!("SELECT t.id, m.table_key, m.published_version, m.lease_owner,
            m.lease_epoch, s.attempts
        FROM ", claimable!(), " ORDER BY m.pending_since_ms, t.id LIMIT ?4"),
    LEASE: "UPDATE {p}mirror SET lease_owner = ?2, lease_epoch = ?3, lease_until_ms = ?4
        WHERE table_key = ?1",
    NEXT_VERSIONS: "SELECT version FROM {p}mirror_status
        WHERE table_key = ?1 AND version >= ?2 ORDER BY version LIMIT ?3",
    START: "UPDATE {p}mirror_status SET state = 'IN_FLIGHT', attempts = attempts + 1
        WHERE table_key = ?1 AND version >= ?2 AND version <= ?3",
    /// A holder is known by its name and epoch: whoever takes a lapsed lease has another one.
    HELD: "SELECT t.table_key, coalesce(m.published_version + 1, 0)
        FROM {p}tables t JOIN {p}mirror m ON m.table_key = t.table_key
        WHERE t.id = ?1 AND m.lease_owner = ?2 AND m.lease_epoch = ?3",
    RENEW: "UPDATE {p}mirror SET lease_until_ms = ?4
        WHERE table_key = (SELECT table_key FROM {p}tables WHERE id = ?1)
          AND lease_owner = ?2 AND lease_epoch = ?3",
    COMPLETE: "UPDATE {p}mirror_status SET state = 'COMPLETE', digest = ?3,
            published_at_ms = ?4, retry_at_ms = NULL, last_error = NULL
        WHERE table_key = ?1 AND version = ?2",
    PUBLISH: "UPDATE {p}mirror SET published_version = ?2 WHERE table_key = ?1",
    FAIL: "UPDATE {p}mirror_status SET state = 'FAILED', last_error = ?3, retry_at_ms = ?4
        WHERE table_key = ?1 AND version = ?2 AND state <> 'COMPLETE'",
    /// A table that was switched off meanwhile stays off.
    DIVERGE: "UPDATE {p}mirror SET mode = 'diverged'
        WHERE table_key = ?1 AND mode = 'active'",
    SET_MODE: "UPDATE {p}mirror SET mode = ?2 WHERE table_key = ?1",
    GIVE_UP: "UPDATE {p}mirror SET lease_owner = NULL WHERE table_key = ?1",
    BACK_TO_PENDING: "UPDATE {p}mirror_status INDEXED BY {p}mirror_status_open
        SET state = 'PENDING'
        WHERE table_key = ?1 AND state <> 'COMPLETE' AND state = 'IN_FLIGHT'",
    RETRY: "UPDATE {p}mirror_status INDEXED BY {p}mirror_status_open
        SET retry_at_ms = ?2
        WHERE table_key = ?1 AND state <> 'COMPLETE' AND state = 'FAILED'",
    ACTIVATE_DIVERGED: "UPDATE {p}mirror SET mode = 'active'
        WHERE table_key = ?1 AND mode = 'diverged'",
    /// Tables with rows in open states, by id. One step of the recursion a table: the open states have
    /// an index of their own, and `state <> 'COMPLETE'` selects it.
    TABLES_OPEN: "WITH RECURSIVE waiting (table_key) AS (
            SELECT min(table_key) FROM {p}mirror_status INDEXED BY {p}mirror_status_open
            WHERE state <> 'COMPLETE'
            UNION ALL
            SELECT (SELECT min(n.table_key)
                FROM {p}mirror_status n INDEXED BY {p}mirror_status_open
                WHERE n.state <> 'COMPLETE' AND n.table_key > waiting.table_key)
            FROM waiting WHERE waiting.table_key IS NOT NULL)
        SELECT t.id, t.table_key FROM waiting JOIN {p}tables t ON t.table_key = waiting.table_key
        WHERE t.id >= ?1 ORDER BY t.id",
    /// All tables, by id.
    TABLES_ALL: "SELECT id, table_key FROM {p}tables WHERE id >= ?1 ORDER BY id",
    /// Tables from one on, and their published versions.
    TABLES_PUBLISHED: "SELECT t.id, t.table_key, m.published_version
        FROM {p}tables t JOIN {p}mirror m ON m.table_key = t.table_key
        WHERE t.id >= ?1 ORDER BY t.id LIMIT ?2",
    /// The next rows of a table below a version, and whether each was published before a time.
    ROWS_PUBLISHED: "SELECT version, state = 'COMPLETE' AND coalesce(published_at_ms < ?5, 0)
        FROM {p}mirror_status WHERE table_key = ?1 AND version > ?2 AND version < ?3
        ORDER BY version LIMIT ?4",
    DELETE_ROW: "DELETE FROM {p}mirror_status WHERE table_key = ?1 AND version = ?2",
    ROWS_OPEN: concat!("SELECT ", mirror_columns!(), " FROM {p}mirror_status
            INDEXED BY {p}mirror_status_open
        WHERE state <> 'COMPLETE' AND (?1 IS NULL OR state = ?1)
          AND table_key = ?2 AND version > ?3
        ORDER BY version LIMIT ?4"),
    ROWS_COMPLETE: concat!("SELECT ", mirror_columns!(), " FROM {p}mirror_status
        WHERE state = ?1 AND table_key = ?2 AND version > ?3
        ORDER BY version LIMIT ?4"),
}

/// Puts a new version into the outbox, in the transaction that commits it.
pub(crate) fn enqueue(
    db: Db<'_>,
    table: Table,
    version: Version,
    now: TimestampMs,
) -> DbResult<()> {
    db.execute(ENQUEUE, params![table.key, version.get(), now.0])?;
    db.execute(MARK_PENDING, params![table.key, now.0])?;
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
                id: row.get(0)?,
                key: row.get(1)?,
                published: row.get(2)?,
                owner: row.get(3)?,
                epoch: row.get(4)?,
                attempts: row.get(5)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    found.into_iter().map(|candidate| take(db, request, &candidate)).collect()
}

struct Claimable {
    id: String,
    key: i64,
    published: Option<i64>,
    owner: Option<String>,
    epoch: i64,
    attempts: u32,
}

fn take(db: Db<'_>, request: &ClaimRequest, candidate: &Claimable) -> DbResult<MirrorTask> {
    let id = &candidate.id;
    let table_id: TableId = id.parse().map_err(|e| corrupt(id, None, "id", e))?;
    let table = candidate.key;
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
        return Err(corrupt(id, Some(first), "outbox", "a version is missing in it"));
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

/// The key of a leased table and its next version to publish; none if the lease is lost.
fn held(db: Db<'_>, lease: &MirrorLease) -> DbResult<Option<(i64, i64)>> {
    let holder = params![lease.table_id.to_string(), lease.owner, lease.epoch];
    Ok(db.prepare(HELD)?.query_row(holder, |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
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
    let Some((table, mut next)) = held(db, lease)? else { return Ok(false) };
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
        db.execute(UPDATE_PENDING, [table])?;
    }
    Ok(true)
}

/// Frees a lease: its rows in flight wait again.
fn give_up(db: Db<'_>, table: i64) -> DbResult<()> {
    db.execute(GIVE_UP, [table])?;
    db.execute(BACK_TO_PENDING, [table])?;
    Ok(())
}

pub(crate) fn fail(db: Db<'_>, lease: &MirrorLease, failure: &PublishFailure) -> DbResult<bool> {
    let Some((table, _)) = held(db, lease)? else { return Ok(false) };
    let failed =
        db.execute(FAIL, params![table, failure.version.get(), failure.error, failure.retry_at.0])?;
    if failed != 1 {
        let what = format!("version {} is not waiting to be published", failure.version);
        return invalid(db, lease.table_id, what);
    }
    if failure.diverged {
        db.execute(DIVERGE, params![table])?;
    }
    give_up(db, table)?;
    Ok(true)
}

pub(crate) fn release(db: Db<'_>, lease: &MirrorLease) -> DbResult<bool> {
    let Some((table, _)) = held(db, lease)? else { return Ok(false) };
    give_up(db, table)?;
    Ok(true)
}

pub(crate) fn list(
    db: Db<'_>,
    table_id: Option<TableId>,
    state: Option<MirrorState>,
    after: Option<(TableId, Version)>,
    limit: usize,
) -> DbResult<Page<MirrorRow, (TableId, Version)>> {
    let complete = state == Some(MirrorState::Complete);
    let rows = Rows {
        statement: db.prepare(if complete { ROWS_COMPLETE } else { ROWS_OPEN })?,
        state,
        after,
        fetch: fetch_limit(limit),
        found: Vec::new(),
    };
    let found = match table_id {
        Some(id) => rows.of_one(require_readable(db, id)?)?,
        None => rows.of_all(db, if complete { TABLES_ALL } else { TABLES_OPEN })?,
    };
    Ok(page(found, limit, |row| (row.table_id, row.version)))
}

/// A page of rows, read table by table: callers know tables by their ids, rows by the keys.
struct Rows<'a> {
    statement: CachedStatement<'a>,
    state: Option<MirrorState>,
    after: Option<(TableId, Version)>,
    /// As many rows, and no more.
    fetch: i64,
    found: Vec<MirrorRow>,
}

impl<'a> Rows<'a> {
    fn of_one(mut self, table: Table) -> DbResult<Vec<MirrorRow>> {
        self.add(table)?;
        Ok(self.found)
    }

    fn of_all(mut self, db: Db<'a>, tables: &'static str) -> DbResult<Vec<MirrorRow>> {
        let first = self.after.map(|(id, _)| id.to_string()).unwrap_or_default();
        let mut statement = db.prepare(tables)?;
        let mut tables = statement.query([first])?;
        while self.left() > 0
            && let Some(row) = tables.next()?
        {
            let id: String = row.get(0)?;
            let id = id.parse().map_err(|e| corrupt(&id, None, "id", e))?;
            self.add(Table { key: row.get(1)?, id })?;
        }
        Ok(self.found)
    }

    fn left(&self) -> i64 {
        self.fetch.saturating_sub(count(self.found.len()))
    }

    fn add(&mut self, table: Table) -> DbResult<()> {
        let after = match self.after {
            Some((id, _)) if table.id < id => return Ok(()),
            Some((id, version)) if table.id == id => version.get(),
            _ => -1,
        };
        let state = self.state.map(MirrorState::as_str);
        let left = self.left();
        let mut rows = self.statement.query(params![state, table.key, after, left])?;
        while let Some(row) = rows.next()? {
            self.found.push(mirror_row(row, table.id)?);
        }
        Ok(())
    }
}

/// Removes rows of what was published long ago, or counts them.
pub(crate) fn expire(
    db: Db<'_>,
    expiry: Expiry,
    after: Option<(TableId, Version)>,
) -> DbResult<Expired<(TableId, Version)>> {
    let mut page = OutboxExpiry::new(expiry, after);
    let first = page.first_table().to_string();
    let tables: Vec<(String, i64, Option<i64>)> = db
        .prepare(TABLES_PUBLISHED)?
        .query_map(params![first, page.fetch_tables()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut rows = db.prepare(ROWS_PUBLISHED)?;
    for (id, key, published) in tables {
        let id: TableId = id.parse().map_err(|e| corrupt(&id, None, "id", e))?;
        if !page.enters(id) {
            break;
        }
        let Some(published) = published else { continue };
        let values = params![key, page.after_version(id), published, page.rows(), expiry.before.0];
        let found: Vec<(i64, bool)> = rows
            .query_map(values, |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()?;
        let mut removed = 0;
        for (version, _) in found.iter().filter(|(_, goes)| *goes) {
            removed += 1;
            if !expiry.dry_run {
                db.execute(DELETE_ROW, params![key, version])?;
            }
        }
        let last = found.last().map(|(version, _)| *version);
        if page.took(id, found.len().try_into().unwrap_or(u64::MAX), last, removed)? {
            break;
        }
    }
    Ok(page.end())
}

pub(crate) fn retry(db: Db<'_>, id: TableId, act: &Act) -> DbResult<u64> {
    let table = require_active(db, id)?;
    db.execute(ACTIVATE_DIVERGED, [table.key])?;
    let rows = db.execute(RETRY, params![table.key, act.at.0])?;
    let rows = u64::try_from(rows).unwrap_or(u64::MAX);
    audit::keep(db, &act.retried(&require_table(db, id)?, rows))?;
    Ok(rows)
}

pub(crate) fn set_mode(
    db: Db<'_>,
    id: TableId,
    mode: MirrorMode,
    act: &Act,
) -> DbResult<TableRecord> {
    let table = require_active(db, id)?;
    let before = require_table(db, id)?;
    if mode == MirrorMode::Diverged {
        db.execute(DIVERGE, [table.key])?;
    } else {
        db.execute(SET_MODE, params![table.key, mode.as_str()])?;
    }
    if mode == MirrorMode::Active {
        enqueue_missing(db, table, before.published_version, act.at)?;
    }
    let after = require_table(db, id)?;
    if let Some(entry) = act.mode_changed(before.mirror, &after) {
        audit::keep(db, &entry)?;
    }
    Ok(after)
}

/// Enqueues every version after the published one that is not.
pub(crate) fn enqueue_missing(
    db: Db<'_>,
    table: Table,
    published: Option<Version>,
    now: TimestampMs,
) -> DbResult<()> {
    let next = published.map_or(0, |published| published.get().saturating_add(1));
    db.execute(ENQUEUE_MISSING, params![table.key, next, now.0])?;
    db.execute(UPDATE_PENDING, [table.key])?;
    Ok(())
}
