//! Registered tables: look up, list, drop, undrop.

use deltalakedb_catalog_core::audit::{Act, action};
use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableId, TableName, TableRef, TimestampMs};
use deltalakedb_catalog_core::model::{NewTable, Page, TableRecord, TableState};
use deltalakedb_catalog_core::support::{
    fetch_limit, page, table_list_start, table_record, to_json,
};
use sqlx::Row;

use crate::audit;
use crate::errors::DbResult;
use crate::rows::{MySqlFormat, TableKey, table_columns, table_source};
use crate::session::writer::Writer;
use crate::session::{Call, first};

const BY_ID: &str =
    concat!("SELECT ", table_columns!(), " FROM ", table_source!(), " WHERE t.id = ?");
const BY_NAME: &str = concat!(
    "SELECT ",
    table_columns!(),
    " FROM ",
    table_source!(),
    " WHERE t.namespace = ? AND t.name = ? AND t.drop_marker = ''"
);
/// Makes everyone else who changes the table wait: commits, drops, switches of the mirror.
pub(crate) const LOCK: &str = "SELECT state, table_key FROM {p}tables WHERE id = ? FOR UPDATE";
/// Tables after a place in the order (namespace, name, marker).
const LIST: &str = concat!(
    "SELECT ",
    table_columns!(),
    " FROM ",
    table_source!(),
    " WHERE t.namespace >= ? AND (t.namespace > ? OR t.name > ? OR (t.name = ? AND t.drop_marker > ?))
        AND t.state = ?
      ORDER BY t.namespace, t.name, t.drop_marker LIMIT ?"
);
const LIST_NAMESPACE: &str = concat!(
    "SELECT ",
    table_columns!(),
    " FROM ",
    table_source!(),
    " WHERE t.namespace = ? AND t.name >= ? AND (t.name > ? OR t.drop_marker > ?)
        AND t.state = ?
      ORDER BY t.name, t.drop_marker LIMIT ?"
);
const INSERT: &str = "INSERT INTO {p}tables (id, namespace, name, drop_marker, location,
        storage_options, state, created_at_ms, base_version, barrier_version, import_from_json,
        import_base_done)
    VALUES (?, ?, ?, '', ?, ?, ?, ?, ?, ?, ?, ?)";
const INSERT_MIRROR: &str =
    "INSERT INTO {p}mirror (table_key, mode, lease_epoch, lease_until_ms) VALUES (?, ?, 0, 0)";

pub(crate) fn not_found(id: TableId) -> CatalogError {
    CatalogError::TableNotFound(id.to_string())
}

pub(crate) async fn get_table(call: &mut Call, table: &TableRef) -> DbResult<Option<TableRecord>> {
    let row = match table {
        TableRef::Id(id) => call.row(BY_ID, &[(*id).into()]).await?,
        TableRef::Name(name) => {
            call.row(BY_NAME, &[name.namespace().into(), name.name().into()]).await?
        }
    };
    Ok(row.as_ref().map(table_record::<MySqlFormat>).transpose()?)
}

/// The row of a table that is known to exist.
pub(crate) async fn require_table(call: &mut Call, id: TableId) -> DbResult<TableRecord> {
    get_table(call, &TableRef::Id(id)).await?.ok_or_else(|| not_found(id).into())
}

/// The state of a table.
pub(crate) async fn state_of(call: &mut Call, id: TableId) -> DbResult<Option<TableState>> {
    match call.row("SELECT state FROM {p}tables WHERE id = ?", &[id.into()]).await? {
        Some(row) => Ok(Some(TableState::parse(row.try_get(0)?)?)),
        None => Ok(None),
    }
}

/// Opens a transaction that writes, and locks a table in it.
pub(crate) async fn open_locked(
    call: &mut Call,
    id: TableId,
) -> DbResult<Option<(TableState, TableKey)>> {
    let lock = call.session.sql(LOCK, &[id.into()]);
    let sets = call.open(&lock).await?;
    let Some(row) = first(&sets) else { return Ok(None) };
    Ok(Some((TableState::parse(row.try_get(0)?)?, TableKey::Is(row.try_get(1)?))))
}

/// The same; fails unless the table is active.
pub(crate) async fn open_active(call: &mut Call, id: TableId) -> DbResult<TableKey> {
    match open_locked(call, id).await? {
        Some((TableState::Active, key)) => Ok(key),
        _ => Err(not_found(id).into()),
    }
}

/// Fails unless the table exists: by id, dropped and importing ones can be read too.
pub(crate) async fn require_readable(call: &mut Call, id: TableId) -> DbResult<()> {
    match state_of(call, id).await? {
        Some(_) => Ok(()),
        None => Err(not_found(id).into()),
    }
}

/// Registers a table. The caller has checked id and name.
pub(crate) async fn insert_table(
    out: &mut Writer<'_>,
    new: &NewTable,
    state: TableState,
    base: i64,
    from_json: bool,
    now: TimestampMs,
) -> DbResult<()> {
    let storage_options = to_json(&new.storage_options)?;
    let values = [
        new.id.into(),
        new.name.namespace().into(),
        new.name.name().into(),
        (&new.location).into(),
        (&storage_options).into(),
        state.as_str().into(),
        now.0.into(),
        base.into(),
        base.into(),
        from_json.into(),
        from_json.into(),
    ];
    out.push(INSERT, &values).await?;
    out.push(INSERT_MIRROR, &[TableKey::Inserted.into(), new.mirror.as_str().into()]).await
}

pub(crate) async fn list_tables(
    call: &mut Call,
    filter: &TableFilter,
    after: Option<&(TableName, TableId)>,
    limit: usize,
) -> DbResult<Page<TableRecord, (TableName, TableId)>> {
    let state = filter.state.unwrap_or(TableState::Active);
    let Some(start) = table_list_start(filter, after) else {
        return Ok(Page { items: Vec::new(), next: None });
    };
    let (namespace, name, marker) =
        (start.namespace.into(), start.name.into(), (&start.marker).into());
    let (state, limited) = (state.as_str().into(), fetch_limit(limit).into());
    let sets = if let Some(wanted) = &filter.namespace {
        // A namespace with a space at its end is none, and would be compared without it.
        if wanted.trim() != wanted {
            return Ok(Page { items: Vec::new(), next: None });
        }
        call.query(LIST_NAMESPACE, &[namespace, name, name, marker, state, limited]).await?
    } else {
        let values = [namespace, namespace, name, name, marker, state, limited];
        call.query(LIST, &values).await?
    };
    let rows = sets.iter().flat_map(|set| &set.rows);
    let items = rows.map(table_record::<MySqlFormat>).collect::<Result<Vec<_>>>()?;
    Ok(page(items, limit, |table| (table.name.clone(), table.id)))
}

pub(crate) async fn drop_table(call: &mut Call, id: TableId, act: &Act) -> DbResult<TableRecord> {
    open_active(call, id).await?;
    let marker = id.to_string();
    call.execute(
        "UPDATE {p}tables SET state = 'dropped', drop_marker = ?, dropped_at_ms = ?
        WHERE id = ? AND state = 'active'",
        &[(&marker).into(), act.at.0.into(), id.into()],
    )
    .await?;
    let table = require_table(call, id).await?;
    audit::keep(call, &act.on(action::TABLE_DROP, &table)).await?;
    Ok(table)
}

pub(crate) async fn undrop_table(
    call: &mut Call,
    id: TableId,
    name: &TableName,
    act: &Act,
) -> DbResult<TableRecord> {
    if !matches!(open_locked(call, id).await?, Some((TableState::Dropped, _))) {
        return Err(not_found(id).into());
    }
    let before = require_table(call, id).await?;
    let taken = || CatalogError::TableExists(name.clone()).into();
    if get_table(call, &TableRef::Name(name.clone())).await?.is_some() {
        return Err(taken());
    }
    let done = call
        .execute(
            "UPDATE {p}tables SET state = 'active', drop_marker = '', dropped_at_ms = NULL,
                namespace = ?, name = ?
            WHERE id = ? AND state = 'dropped'",
            &[name.namespace().into(), name.name().into(), id.into()],
        )
        .await;
    match done {
        Ok(_) => {
            let table = require_table(call, id).await?;
            audit::keep(call, &act.undropped(&before, &table)).await?;
            Ok(table)
        }
        // Someone else took the name since we looked.
        Err(error) if error.is_duplicate() => Err(taken()),
        Err(error) => Err(error),
    }
}
