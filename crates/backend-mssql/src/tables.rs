//! Registered tables: look up, list, drop, undrop.

use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TableName, TableRef, TimestampMs};
use deltalakedb_catalog_core::model::{NewTable, Page, TableRecord, TableState};
use deltalakedb_catalog_core::support::page;
use tiberius::{ColumnData, Row};

use crate::errors::{DbResult, Sent};
use crate::rows::text::statements;
use crate::rows::{
    Reader, big, bytes, flag, id, name_key, owned, table_columns, table_record, table_source, text,
    to_json,
};
use crate::session::{Lease, Sets};

/// A page is never longer, whatever was asked for.
const MAX_PAGE: usize = 1_000_000;

statements! {
    BY_ID: concat!("SELECT ", table_columns!(), " FROM ", table_source!(), " WHERE t.id = @P1"),
    BY_NAME: concat!("SELECT ", table_columns!(), " FROM ", table_source!(),
        " WHERE t.name_key = @P1 AND t.drop_marker = N''"),
    STATE: "SELECT state FROM {p}tables WHERE id = @P1",
    LIVE_NAME: "SELECT id FROM {p}tables WHERE name_key = @P1 AND drop_marker = N''",
    LIST: concat!("SELECT TOP (@P5) ", table_columns!(), " FROM ", table_source!(),
        " WHERE t.state = @P4 AND (t.namespace_utf8 > @P1
            OR (t.namespace_utf8 = @P1 AND t.name_utf8 > @P2)
            OR (t.namespace_utf8 = @P1 AND t.name_utf8 = @P2 AND t.id > @P3))
         ORDER BY t.namespace_utf8, t.name_utf8, t.id"),
    LIST_NAMESPACE: concat!("SELECT TOP (@P5) ", table_columns!(), " FROM ", table_source!(),
        " WHERE t.state = @P4 AND t.namespace_utf8 = @P1
            AND (t.name_utf8 > @P2 OR (t.name_utf8 = @P2 AND t.id > @P3))
         ORDER BY t.name_utf8, t.id"),
    INSERT: "INSERT INTO {p}tables (id, namespace, name, namespace_utf8, name_utf8, name_key,
            drop_marker, location, storage_options, state, created_at_ms, base_version,
            barrier_version, import_from_json, import_base_done, import_files,
            import_tombstones, import_live_files, import_live_bytes)
        VALUES (@P1, @P2, @P3, @P4, @P5, @P6, N'', @P7, @P8, @P9, @P10, @P11, @P11, @P12, @P12,
            0, 0, 0, 0)",
    INSERT_MIRROR: "INSERT INTO {p}mirror (table_id, mode, lease_epoch, lease_until_ms)
        VALUES (@P1, @P2, 0, 0)",
    /// One statement decides; the row is read again afterwards.
    MARK_DROPPED: concat!("SET NOCOUNT ON; DECLARE @n BIGINT;
        UPDATE {p}tables SET state = N'dropped', drop_marker = @P3, dropped_at_ms = @P2
        WHERE id = @P1 AND state = N'active';
        SET @n = @@ROWCOUNT;
        SELECT @n AS changed;
        SELECT ", table_columns!(), " FROM ", table_source!(), " WHERE t.id = @P1"),
    /// The unique index on (`name_key`, `drop_marker`) keeps the name from being taken twice.
    UNDROP: concat!("SET NOCOUNT ON; DECLARE @n BIGINT;
        UPDATE {p}tables SET state = N'active', drop_marker = N'', dropped_at_ms = NULL,
            namespace = @P2, name = @P3, namespace_utf8 = @P4, name_utf8 = @P5, name_key = @P6
        WHERE id = @P1 AND state = N'dropped';
        SET @n = @@ROWCOUNT;
        SELECT @n AS changed;
        SELECT ", table_columns!(), " FROM ", table_source!(), " WHERE t.id = @P1"),
}

pub(crate) fn not_found(id: TableId) -> CatalogError {
    CatalogError::TableNotFound(id.to_string())
}

/// The first row of the first result set.
pub(crate) fn first(sets: &Sets) -> Option<&Row> {
    sets.iter().flatten().next()
}

/// What a query fetches to know whether another page follows: one row more than the page.
pub(crate) fn fetch(limit: usize) -> ColumnData<'static> {
    big(deltalakedb_catalog_core::support::fetch_limit(bounded(limit)))
}

/// The length of a page.
pub(crate) fn bounded(limit: usize) -> usize {
    limit.clamp(1, MAX_PAGE)
}

pub(crate) async fn get_table(
    lease: &mut Lease,
    table: &TableRef,
) -> DbResult<Option<TableRecord>> {
    let sets = match table {
        TableRef::Id(table) => lease.run(BY_ID, vec![id(*table)]).await?,
        TableRef::Name(name) => lease.run(BY_NAME, vec![name_key(name)]).await?,
    };
    let record = first(&sets).map(table_record).transpose()?;
    // A name is found by its digest.
    Ok(record.filter(|record| match table {
        TableRef::Id(_) => true,
        TableRef::Name(name) => record.name == *name,
    }))
}

/// The row of a table that is known to exist.
pub(crate) async fn require_table(lease: &mut Lease, id: TableId) -> DbResult<TableRecord> {
    get_table(lease, &TableRef::Id(id)).await?.ok_or_else(|| not_found(id).into())
}

/// The state of a table.
pub(crate) async fn state_of(lease: &mut Lease, table: TableId) -> DbResult<Option<TableState>> {
    let sets = lease.run(STATE, vec![id(table)]).await?;
    let Some(row) = first(&sets) else { return Ok(None) };
    Ok(Some(TableState::parse(&Reader::new(row, "tables", None).text(0)?)?))
}

/// The id of the live or importing table that has this name.
pub(crate) async fn live_name(lease: &mut Lease, name: &TableName) -> DbResult<Option<TableId>> {
    let sets = lease.run(LIVE_NAME, vec![name_key(name)]).await?;
    first(&sets).map(|row| Reader::new(row, "tables", None).id(0)).transpose()
}

/// Registers a table. The caller has checked id and name; a race ends as a duplicate key.
pub(crate) async fn insert_table(
    lease: &mut Lease,
    new: &NewTable,
    state: TableState,
    base: i64,
    from_json: bool,
    now: TimestampMs,
) -> DbResult<()> {
    let values = vec![
        id(new.id),
        text(new.name.namespace()),
        text(new.name.name()),
        bytes(new.name.namespace().as_bytes()),
        bytes(new.name.name().as_bytes()),
        name_key(&new.name),
        text(&new.location),
        owned(to_json(&new.storage_options)?),
        text(state.as_str()),
        big(now.0),
        big(base),
        flag(from_json),
    ];
    lease.run(INSERT, values).await?;
    let values = vec![id(new.id), text(new.mirror.as_str())];
    lease.run(INSERT_MIRROR, values).await?;
    Ok(())
}

pub(crate) async fn list_tables(
    lease: &mut Lease,
    filter: &TableFilter,
    after: Option<&(TableName, TableId)>,
    limit: usize,
) -> DbResult<Page<TableRecord, (TableName, TableId)>> {
    let state = filter.state.unwrap_or(TableState::Active);
    let start = |id: Option<TableId>| id.map_or([0; 16], |id| *id.0.as_bytes());
    let (namespace, name, marker) = match (filter.namespace.as_deref(), after) {
        (None, Some((name, id))) => (name.namespace(), name.name(), start(Some(*id))),
        (None, None) => ("", "", start(None)),
        (Some(wanted), Some((name, id))) if name.namespace() == wanted => {
            (wanted, name.name(), start(Some(*id)))
        }
        (Some(wanted), Some((name, _))) if name.namespace() > wanted => {
            return Ok(Page { items: Vec::new(), next: None });
        }
        (Some(wanted), _) => (wanted, "", start(None)),
    };
    let by_namespace = filter.namespace.is_some();
    let statement = if by_namespace { LIST_NAMESPACE } else { LIST };
    let values = vec![
        bytes(namespace.as_bytes()),
        bytes(name.as_bytes()),
        bytes(&marker),
        text(state.as_str()),
        fetch(limit),
    ];
    let sets = lease.run(statement, values).await?;
    let items = sets.iter().flatten().map(table_record).collect::<DbResult<Vec<_>>>()?;
    Ok(page(items, bounded(limit), |table| (table.name.clone(), table.id)))
}

/// The answer of a statement that changes one table's state.
fn changed(sets: &Sets, table: TableId) -> DbResult<TableRecord> {
    let count = sets.first().and_then(|rows| rows.first());
    let count = count.map(|row| Reader::new(row, "tables", None).i64(0)).transpose()?;
    let row = sets.get(1).and_then(|rows| rows.first());
    match (count, row) {
        (Some(1), Some(row)) => table_record(row),
        _ => Err(not_found(table).into()),
    }
}

pub(crate) async fn drop_table(
    lease: &mut Lease,
    table: TableId,
    now: TimestampMs,
) -> DbResult<TableRecord> {
    let values = vec![id(table), big(now.0), owned(table.to_string())];
    let sets = lease.query(MARK_DROPPED, values, Sent::Deciding).await?;
    changed(&sets, table)
}

pub(crate) async fn undrop_table(
    lease: &mut Lease,
    table: TableId,
    name: &TableName,
) -> DbResult<TableRecord> {
    let values = vec![
        id(table),
        text(name.namespace()),
        text(name.name()),
        bytes(name.namespace().as_bytes()),
        bytes(name.name().as_bytes()),
        name_key(name),
    ];
    match lease.query(UNDROP, values, Sent::Deciding).await {
        Ok(sets) => changed(&sets, table),
        Err(error) if error.is_duplicate() => Err(CatalogError::TableExists(name.clone()).into()),
        Err(error) => Err(error),
    }
}
