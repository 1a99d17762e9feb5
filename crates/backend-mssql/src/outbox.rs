//! The mirror's outbox: which versions are published, and who may publish the next ones.
//!
//! `{p}mirror.pending_since_ms` is the time at which the first unpublished version was enqueued, or
//! null: a claim costs what is pending, not what was ever published. Every verb that changes it,
//! and the commit, first takes the table's row in `{p}mirror` by an `UPDATE` and reads afterwards:
//! so each sees what the one before it committed, and no version is forgotten. Rows are taken in
//! the order of the tables' ids, a table's own row before that of its mirror, here and in commits:
//! so none waits in a circle.

use deltalakedb_catalog_core::backend::{
    ClaimRequest, Expired, Expiry, MirrorLease, MirrorTask, PublishFailure, Published,
};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TimestampMs, Version};
use deltalakedb_catalog_core::model::{MirrorMode, MirrorRow, MirrorState, Page, TableRecord};
use deltalakedb_catalog_core::support::{OutboxExpiry, page};
use tiberius::ColumnData;

use crate::errors::{DbError, DbResult};
use crate::rows::text::statements;
use crate::rows::{
    Reader, big, corrupt, id, mirror_columns, mirror_row, table_columns, table_record,
    table_source, text, text_key,
};
use crate::session::{Lease, Sets};
use crate::tables::{bounded, fetch, first, not_found, require_table, state_of};

/// Most tables in one claim, and most versions of one.
const MAX_CLAIM: usize = 10_000;

/// Tables whose next version may be published by @P2 at @P1: a lease holds before its end and
/// lapses at it.
macro_rules! claimable {
    () => {
        "FROM {p}mirror m
            JOIN {p}tables t ON t.id = m.table_id
            JOIN {p}mirror_status s ON s.table_id = m.table_id
              AND s.version = COALESCE(m.published_version + 1, 0)
         WHERE m.pending_since_ms IS NOT NULL AND m.mode = N'active' AND t.state = N'active'
           AND (m.lease_owner_key IS NULL OR m.lease_owner_key = @P2 OR m.lease_until_ms <= @P1)
           AND (s.retry_at_ms IS NULL OR s.retry_at_ms <= @P1)"
    };
}

statements! {
    CLAIMABLE: concat!("SELECT TOP (@P3) m.table_id ", claimable!(), "
        ORDER BY m.pending_since_ms, m.table_id"),
    CLAIMABLE_ONE: concat!("SELECT TOP (@P3) m.table_id ", claimable!(), "
        AND m.table_id = @P4"),
    /// The compare-and-set that decides who publishes a table; then its work, and its row. The
    /// table's row is taken first, as commits do: else the two would wait for each other.
    TAKE: concat!("SET NOCOUNT ON; DECLARE @n BIGINT, @first BIGINT, @last BIGINT;
        UPDATE {p}tables SET state = state WHERE id = @P1 AND state = N'active';
        SET @n = @@ROWCOUNT;
        IF @n = 1
        BEGIN
            UPDATE {p}mirror SET
                lease_epoch = CASE WHEN lease_owner_key = @P3 THEN lease_epoch
                    ELSE lease_epoch + 1 END,
                lease_owner = @P4, lease_owner_key = @P3, lease_until_ms = @P5
            WHERE table_id = @P1 AND mode = N'active' AND pending_since_ms IS NOT NULL
              AND (lease_owner_key IS NULL OR lease_owner_key = @P3 OR lease_until_ms <= @P2)
              AND EXISTS (SELECT 1 FROM {p}mirror_status s
                WHERE s.table_id = @P1 AND s.version = COALESCE(published_version + 1, 0)
                  AND (s.retry_at_ms IS NULL OR s.retry_at_ms <= @P2));
            SET @n = @@ROWCOUNT
        END;
        SELECT @first = COALESCE(published_version + 1, 0) FROM {p}mirror
        WHERE table_id = @P1;
        SELECT @last = MAX(w.version) FROM (SELECT TOP (@P6) version FROM {p}mirror_status
            WHERE table_id = @P1 AND version >= @first ORDER BY version) w;
        SELECT @n AS taken, m.lease_epoch, s.attempts, @first AS first_version
        FROM {p}mirror m JOIN {p}mirror_status s ON s.table_id = m.table_id
          AND s.version = @first
        WHERE m.table_id = @P1;
        SELECT version FROM {p}mirror_status
        WHERE table_id = @P1 AND version >= @first AND version <= @last ORDER BY version;
        IF @n = 1
            UPDATE {p}mirror_status SET state = N'IN_FLIGHT', attempts = attempts + 1
            WHERE table_id = @P1 AND version >= @first AND version <= @last;
        SELECT ", table_columns!(), " FROM ", table_source!(), " WHERE t.id = @P1"),
    /// A holder is known by its name and epoch: whoever takes a lapsed lease has another one.
    HOLD: "SET NOCOUNT ON; DECLARE @n BIGINT;
        UPDATE {p}mirror SET lease_epoch = lease_epoch
        WHERE table_id = @P1 AND lease_owner_key = @P2 AND lease_epoch = @P3;
        SET @n = @@ROWCOUNT;
        SELECT @n AS held, COALESCE(published_version + 1, 0) AS next_version
        FROM {p}mirror WHERE table_id = @P1",
    RENEW: "SET NOCOUNT ON; DECLARE @n BIGINT;
        UPDATE {p}mirror SET lease_until_ms = @P4
        WHERE table_id = @P1 AND lease_owner_key = @P2 AND lease_epoch = @P3;
        SET @n = @@ROWCOUNT;
        SELECT @n AS changed",
    COMPLETE: "SET NOCOUNT ON; DECLARE @n BIGINT;
        UPDATE {p}mirror_status SET state = N'COMPLETE', digest = @P3, published_at_ms = @P4,
            retry_at_ms = NULL, last_error = NULL
        WHERE table_id = @P1 AND version = @P2;
        SET @n = @@ROWCOUNT;
        SELECT @n AS changed",
    PUBLISH: "UPDATE {p}mirror SET published_version = @P2 WHERE table_id = @P1",
    /// From the row of the first unpublished version.
    UPDATE_PENDING: "DECLARE @next BIGINT, @since BIGINT;
        SELECT @next = COALESCE(published_version + 1, 0) FROM {p}mirror WHERE table_id = @P1;
        SELECT @since = MAX(enqueued_at_ms) FROM {p}mirror_status
        WHERE table_id = @P1 AND version = @next;
        UPDATE {p}mirror SET pending_since_ms = @since WHERE table_id = @P1",
    ENQUEUE_MISSING: "INSERT INTO {p}mirror_status (table_id, version, state, attempts,
            enqueued_at_ms)
        SELECT c.table_id, c.version, N'PENDING', 0, @P3 FROM {p}commits c
        WHERE c.table_id = @P1 AND c.version >= @P2 AND NOT EXISTS (
            SELECT 1 FROM {p}mirror_status s
            WHERE s.table_id = c.table_id AND s.version = c.version)",
    FAIL: "SET NOCOUNT ON; DECLARE @n BIGINT;
        UPDATE {p}mirror_status SET state = N'FAILED', last_error = @P3, retry_at_ms = @P4
        WHERE table_id = @P1 AND version = @P2 AND state <> N'COMPLETE';
        SET @n = @@ROWCOUNT;
        SELECT @n AS changed",
    /// A table that was switched off meanwhile stays off.
    DIVERGE: "UPDATE {p}mirror SET mode = N'diverged'
        WHERE table_id = @P1 AND mode = N'active'",
    GIVE_UP: "UPDATE {p}mirror SET lease_owner = NULL, lease_owner_key = NULL
        WHERE table_id = @P1",
    BACK_TO_PENDING: "UPDATE {p}mirror_status SET state = N'PENDING'
        WHERE table_id = @P1 AND state = N'IN_FLIGHT'",
    /// Takes an active table's row, so that commits wait: they look at the mirror's mode.
    LOCK_TABLE: "SET NOCOUNT ON; DECLARE @n BIGINT;
        UPDATE {p}tables SET state = state WHERE id = @P1 AND state = N'active';
        SET @n = @@ROWCOUNT;
        SELECT @n AS changed",
    RETRY: "SET NOCOUNT ON; DECLARE @n BIGINT;
        UPDATE {p}mirror SET mode = N'active' WHERE table_id = @P1 AND mode = N'diverged';
        UPDATE {p}mirror_status SET retry_at_ms = @P2
        WHERE table_id = @P1 AND state = N'FAILED';
        SET @n = @@ROWCOUNT;
        SELECT @n AS changed",
    SET_MODE: "UPDATE {p}mirror SET mode = @P2 WHERE table_id = @P1",
    /// Open rows, or those of one state.
    ROWS: concat!("SELECT TOP (@P4) ", mirror_columns!(), " FROM {p}mirror_status
        WHERE (state = @P1 OR (@P1 = N'' AND state IN (N'PENDING', N'IN_FLIGHT', N'FAILED')))
          AND (table_id > @P2 OR (table_id = @P2 AND version > @P3))
        ORDER BY table_id, version"),
    /// Tables from @P1 on, and their published versions.
    TABLES_PUBLISHED: "SELECT TOP (@P2) table_id, published_version FROM {p}mirror
        WHERE table_id >= @P1 ORDER BY table_id",
    /// The next rows of a table below a version, and whether each was published before a time.
    ROWS_PUBLISHED: "SELECT TOP (@P4) version, CASE WHEN state = N'COMPLETE'
            AND published_at_ms < @P5 THEN 1 ELSE 0 END AS old
        FROM {p}mirror_status WHERE table_id = @P1 AND version > @P2 AND version < @P3
        ORDER BY version",
    /// Those up to a version.
    DELETE_ROWS: "SET NOCOUNT ON; DECLARE @n BIGINT;
        DELETE FROM {p}mirror_status WHERE table_id = @P1 AND version > @P2 AND version <= @P3
            AND state = N'COMPLETE' AND published_at_ms < @P4;
        SET @n = @@ROWCOUNT;
        SELECT @n AS changed",
    ROWS_OF: concat!("SELECT TOP (@P4) ", mirror_columns!(), " FROM {p}mirror_status
        WHERE (state = @P1 OR (@P1 = N'' AND state IN (N'PENDING', N'IN_FLIGHT', N'FAILED')))
          AND table_id = @P5 AND (table_id > @P2 OR (table_id = @P2 AND version > @P3))
        ORDER BY table_id, version"),
}

/// The one number of an answer.
fn number(sets: &Sets) -> DbResult<i64> {
    first(sets).map_or(Ok(0), |row| Reader::new(row, "mirror", None).i64(0))
}

/// What names a lease in a statement.
fn lease_values(lease: &MirrorLease) -> Vec<ColumnData<'static>> {
    vec![id(lease.table_id), text_key(&lease.owner), big(lease.epoch)]
}

/// Tables that might be claimed: asked outside of a transaction, so that idle workers write
/// nothing.
pub(crate) async fn candidates(
    lease: &mut Lease,
    request: &ClaimRequest,
) -> DbResult<Vec<TableId>> {
    if request.max_tables == 0 {
        return Ok(Vec::new());
    }
    let most = i64::try_from(request.max_tables.min(MAX_CLAIM)).unwrap_or(1);
    let mut values = vec![big(request.now.0), text_key(&request.owner), big(most)];
    let sets = match request.only {
        None => lease.run(CLAIMABLE, values).await?,
        Some(only) => {
            values.push(id(only));
            lease.run(CLAIMABLE_ONE, values).await?
        }
    };
    sets.iter().flatten().map(|row| Reader::new(row, "mirror", None).id(0)).collect()
}

/// Leases what of the candidates still can be; none for the others.
pub(crate) async fn claim(
    lease: &mut Lease,
    request: &ClaimRequest,
    candidates: &[TableId],
) -> DbResult<Vec<Option<MirrorTask>>> {
    let mut ordered: Vec<(TableId, usize)> =
        candidates.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    ordered.sort_unstable();
    let mut tasks = Vec::new();
    for (table, place) in ordered {
        tasks.push((place, take(lease, request, table).await?));
    }
    // Oldest work first.
    tasks.sort_by_key(|(place, _)| *place);
    Ok(tasks.into_iter().map(|(_, task)| task).collect())
}

async fn take(
    lease: &mut Lease,
    request: &ClaimRequest,
    table_id: TableId,
) -> DbResult<Option<MirrorTask>> {
    let until = request.now.plus_ms(request.lease_ms);
    let most = i64::try_from(request.max_versions.clamp(1, MAX_CLAIM)).unwrap_or(1);
    let values = vec![
        id(table_id),
        big(request.now.0),
        text_key(&request.owner),
        text(&request.owner),
        big(until.0),
        big(most),
    ];
    let sets = lease.run(TAKE, values).await?;
    let called = table_id.to_string();
    let Some(row) = sets.first().and_then(|rows| rows.first()) else { return Ok(None) };
    let r = Reader::new(row, &called, None);
    if r.i64(0)? != 1 {
        return Ok(None);
    }
    let (epoch, attempts, start) = (r.i64(1)?, r.i64(2)?, r.i64(3)?);
    let mut versions = Vec::new();
    for row in sets.get(1).into_iter().flatten() {
        versions.push(Reader::new(row, &called, None).version(0)?);
    }
    let table = sets.get(2).and_then(|rows| rows.first()).map(table_record).transpose()?;
    let gapless = (start..).zip(&versions).all(|(expected, found)| expected == found.get());
    if versions.is_empty() || !gapless {
        return Err(corrupt(&called, Some(start), "outbox", "a version is missing in it"));
    }
    Ok(Some(MirrorTask {
        lease: MirrorLease { table_id, owner: request.owner.clone(), epoch, until },
        table: table.ok_or_else(|| not_found(table_id))?,
        versions,
        attempts: u32::try_from(attempts).map_err(|e| r.corrupt(2, e))?,
    }))
}

/// Takes the row of a leased table: the next version to publish; none if the lease is lost.
async fn hold(lease: &mut Lease, held: &MirrorLease) -> DbResult<Option<i64>> {
    let sets = lease.run(HOLD, lease_values(held)).await?;
    let Some(row) = first(&sets) else { return Ok(None) };
    let r = Reader::new(row, "mirror", None);
    Ok(if r.i64(0)? == 1 { Some(r.i64(1)?) } else { None })
}

pub(crate) async fn renew(
    lease: &mut Lease,
    held: &MirrorLease,
    now: TimestampMs,
    lease_ms: i64,
) -> DbResult<Option<MirrorLease>> {
    let until = now.plus_ms(lease_ms);
    let mut values = lease_values(held);
    values.push(big(until.0));
    let sent = crate::errors::Sent::Deciding;
    let sets = lease.query(RENEW, values, sent).await?;
    Ok((number(&sets)? == 1).then(|| MirrorLease { until, ..held.clone() }))
}

async fn invalid<T>(lease: &mut Lease, id: TableId, what: String) -> DbResult<T> {
    let name = require_table(lease, id).await?.name;
    Err(DbError::Catalog(CatalogError::invalid(format!("table '{name}': {what}"))))
}

pub(crate) async fn complete(
    lease: &mut Lease,
    held: &MirrorLease,
    done: &[Published],
) -> DbResult<bool> {
    let table = held.table_id;
    let Some(mut next) = hold(lease, held).await? else { return Ok(false) };
    for row in done {
        let in_order = row.version.get() == next && {
            let values = vec![id(table), big(next), text(&row.digest), big(row.at.0)];
            number(&lease.run(COMPLETE, values).await?)? == 1
        };
        if !in_order {
            let what =
                format!("version {} was published out of order, {next} comes next", row.version);
            return invalid(lease, table, what).await;
        }
        next = next.saturating_add(1);
    }
    if let Some(last) = done.last() {
        let values = vec![id(table), big(last.version.get())];
        lease.run(PUBLISH, values).await?;
        lease.run(UPDATE_PENDING, vec![id(table)]).await?;
    }
    Ok(true)
}

/// Frees a lease: its rows in flight wait again.
async fn give_up(lease: &mut Lease, table: TableId) -> DbResult<()> {
    lease.run(GIVE_UP, vec![id(table)]).await?;
    lease.run(BACK_TO_PENDING, vec![id(table)]).await?;
    Ok(())
}

pub(crate) async fn fail(
    lease: &mut Lease,
    held: &MirrorLease,
    failure: &PublishFailure,
) -> DbResult<bool> {
    let table = held.table_id;
    if hold(lease, held).await?.is_none() {
        return Ok(false);
    }
    let values =
        vec![id(table), big(failure.version.get()), text(&failure.error), big(failure.retry_at.0)];
    if number(&lease.run(FAIL, values).await?)? != 1 {
        let what = format!("version {} is not waiting to be published", failure.version);
        return invalid(lease, table, what).await;
    }
    if failure.diverged {
        lease.run(DIVERGE, vec![id(table)]).await?;
    }
    give_up(lease, table).await?;
    Ok(true)
}

pub(crate) async fn release(lease: &mut Lease, held: &MirrorLease) -> DbResult<bool> {
    let is_held = hold(lease, held).await?.is_some();
    if is_held {
        give_up(lease, held.table_id).await?;
    }
    Ok(is_held)
}

pub(crate) async fn list(
    lease: &mut Lease,
    table: Option<TableId>,
    state: Option<MirrorState>,
    after: Option<(TableId, Version)>,
    limit: usize,
) -> DbResult<Page<MirrorRow, (TableId, Version)>> {
    if let Some(table) = table
        && state_of(lease, table).await?.is_none()
    {
        return Err(not_found(table).into());
    }
    let (after_table, after_version) =
        after.map_or((TableId(uuid::Uuid::nil()), -1), |(table, version)| (table, version.get()));
    let mut values = vec![
        text(state.map_or("", MirrorState::as_str)),
        id(after_table),
        big(after_version),
        fetch(limit),
    ];
    let statement = match table {
        None => ROWS,
        Some(table) => {
            values.push(id(table));
            ROWS_OF
        }
    };
    let sets = lease.run(statement, values).await?;
    let items = sets.iter().flatten().map(mirror_row).collect::<DbResult<Vec<_>>>()?;
    Ok(page(items, bounded(limit), |row| (row.table_id, row.version)))
}

/// Removes rows of what was published long ago, or counts them. Nobody else changes a complete row.
pub(crate) async fn expire(
    lease: &mut Lease,
    expiry: Expiry,
    after: Option<(TableId, Version)>,
) -> DbResult<Expired<(TableId, Version)>> {
    let limit = bounded(expiry.limit);
    let mut page = OutboxExpiry::new(Expiry { limit, ..expiry }, after);
    let values = vec![id(page.first_table()), big(page.fetch_tables())];
    let tables = lease.run(TABLES_PUBLISHED, values).await?;
    for row in tables.iter().flatten() {
        let r = Reader::new(row, "mirror", None);
        let table = r.id(0)?;
        if !page.enters(table) {
            break;
        }
        let Some(published) = r.opt_i64(1)? else { continue };
        let after_version = page.after_version(table);
        let values = vec![
            id(table),
            big(after_version),
            big(published),
            big(page.rows()),
            big(expiry.before.0),
        ];
        let (mut looked_at, mut last, mut removed) = (0, None, 0);
        for row in lease.run(ROWS_PUBLISHED, values).await?.iter().flatten() {
            let r = Reader::new(row, "mirror_status", None);
            looked_at += 1;
            last = Some(r.i64(0)?);
            removed += u64::from(r.i64(1)? != 0);
        }
        if let (Some(last), true) = (last, !expiry.dry_run && removed > 0) {
            let values = vec![id(table), big(after_version), big(last), big(expiry.before.0)];
            let sets = lease.run(DELETE_ROWS, values).await?;
            removed = u64::try_from(super::outbox::number(&sets)?).unwrap_or(0);
        }
        if page.took(table, looked_at, last, removed)? {
            break;
        }
    }
    Ok(page.end())
}

/// Takes the row of an active table.
async fn lock_active(lease: &mut Lease, table: TableId) -> DbResult<()> {
    let sets = lease.run(LOCK_TABLE, vec![id(table)]).await?;
    if number(&sets)? == 1 { Ok(()) } else { Err(not_found(table).into()) }
}

pub(crate) async fn retry(lease: &mut Lease, table: TableId, now: TimestampMs) -> DbResult<u64> {
    lock_active(lease, table).await?;
    let sets = lease.run(RETRY, vec![id(table), big(now.0)]).await?;
    Ok(u64::try_from(number(&sets)?).unwrap_or(0))
}

pub(crate) async fn set_mode(
    lease: &mut Lease,
    table: TableId,
    mode: MirrorMode,
    now: TimestampMs,
) -> DbResult<TableRecord> {
    lock_active(lease, table).await?;
    if mode == MirrorMode::Diverged {
        lease.run(DIVERGE, vec![id(table)]).await?;
        return require_table(lease, table).await;
    }
    lease.run(SET_MODE, vec![id(table), text(mode.as_str())]).await?;
    if mode == MirrorMode::Active {
        let published = require_table(lease, table).await?.published_version;
        enqueue_missing(lease, table, published, now).await?;
    }
    require_table(lease, table).await
}

/// Enqueues every version after the published one that is not in the outbox yet.
pub(crate) async fn enqueue_missing(
    lease: &mut Lease,
    table: TableId,
    published: Option<Version>,
    now: TimestampMs,
) -> DbResult<()> {
    let next = published.map_or(0, |published| published.get().saturating_add(1));
    let values = vec![id(table), big(next), big(now.0)];
    lease.run(ENQUEUE_MISSING, values).await?;
    lease.run(UPDATE_PENDING, vec![id(table)]).await?;
    Ok(())
}
