//! Registered tables: look up, list, drop, undrop.

use deltalakedb_catalog_core::audit::{Act, action};
use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TableName, TableRef, TimestampMs};
use deltalakedb_catalog_core::model::{NewTable, Page, TableRecord, TableState};
use deltalakedb_catalog_core::support::{fetch_limit, page};
use sqlx::Row;

use crate::audit;
use crate::errors::DbResult;
use crate::rows::{Id, table_columns, table_record, table_source, to_json};
use crate::session::{Args, Call, statements};

// Statements on `{p}tables` and `{p}mirror`.
statements! {
    BY_ID: concat!("SELECT ", table_columns!(), " FROM ", table_source!(), " WHERE t.id = $1"),
    BY_NAME: concat!("SELECT ", table_columns!(), " FROM ", table_source!(),
        " WHERE t.namespace = $1 AND t.name = $2 AND t.drop_marker = ''"),
    STATE: "SELECT state FROM {p}tables WHERE id = $1",
    /// Makes everyone else who changes the table wait: commits, drops, switches of the mirror.
    LOCK: "SELECT state FROM {p}tables WHERE id = $1 FOR UPDATE",
    LIVE_NAME: "SELECT 1 FROM {p}tables
        WHERE namespace = $1 AND name = $2 AND drop_marker = ''",
    LIST: concat!("SELECT ", table_columns!(), " FROM ", table_source!(),
        " WHERE (t.namespace, t.name, t.drop_marker) > ($1, $2, $3) AND t.state = $4
         ORDER BY t.namespace, t.name, t.drop_marker LIMIT $5"),
    LIST_NAMESPACE: concat!("SELECT ", table_columns!(), " FROM ", table_source!(),
        " WHERE t.namespace = $1 AND (t.name, t.drop_marker) > ($2, $3) AND t.state = $4
         ORDER BY t.name, t.drop_marker LIMIT $5"),
    INSERT: "INSERT INTO {p}tables (id, namespace, name, drop_marker, location,
            storage_options, state, created_at_ms, base_version, barrier_version,
            import_from_json, import_base_done)
        VALUES ($1, $2, $3, '', $4, $5, $6, $7, $8, $8, $9, $9)",
    INSERT_MIRROR: "INSERT INTO {p}mirror (table_key, mode, lease_epoch, lease_until_ms)
        SELECT table_key, $2::text, 0, 0 FROM {p}tables WHERE id = $1",
    /// A commit that holds the row is waited for, and then the condition is looked at again.
    MARK_DROPPED: "UPDATE {p}tables SET state = 'dropped', drop_marker = id::text,
            dropped_at_ms = $2
        WHERE id = $1 AND state = 'active'",
    UNDROP: "UPDATE {p}tables SET state = 'active', drop_marker = '', dropped_at_ms = NULL,
            namespace = $2, name = $3
        WHERE id = $1 AND state = 'dropped'",
}

pub(crate) fn not_found(id: TableId) -> CatalogError {
    CatalogError::TableNotFound(id.to_string())
}

pub(crate) async fn get_table(call: &mut Call, table: &TableRef) -> DbResult<Option<TableRecord>> {
    let row = match table {
        TableRef::Id(id) => call.fetch_optional(BY_ID, Args::of(*id)).await?,
        TableRef::Name(name) => call.fetch_optional(BY_NAME, name_args(name)).await?,
    };
    row.as_ref().map(table_record).transpose()
}

fn name_args(name: &TableName) -> Args {
    Args::new().bind(name.namespace()).bind(name.name())
}

/// The row of a table that is known to exist.
pub(crate) async fn require_table(call: &mut Call, id: TableId) -> DbResult<TableRecord> {
    get_table(call, &TableRef::Id(id)).await?.ok_or_else(|| not_found(id).into())
}

fn state(row: Option<sqlx::postgres::PgRow>) -> DbResult<Option<TableState>> {
    let Some(row) = row else { return Ok(None) };
    Ok(Some(TableState::parse(row.try_get(0)?)?))
}

/// The state of a table.
pub(crate) async fn state_of(call: &mut Call, id: TableId) -> DbResult<Option<TableState>> {
    state(call.fetch_optional(STATE, Args::of(id)).await?)
}

/// The state of a table, whose row nobody else changes until the transaction ends.
pub(crate) async fn lock(call: &mut Call, id: TableId) -> DbResult<Option<TableState>> {
    state(call.fetch_optional(LOCK, Args::of(id)).await?)
}

/// Fails unless the table exists: by id, dropped and importing ones can be read too.
pub(crate) async fn require_readable(call: &mut Call, id: TableId) -> DbResult<()> {
    match state_of(call, id).await? {
        Some(_) => Ok(()),
        None => Err(not_found(id).into()),
    }
}

/// Locks a table; fails unless it is active.
pub(crate) async fn lock_active(call: &mut Call, id: TableId) -> DbResult<()> {
    match lock(call, id).await? {
        Some(TableState::Active) => Ok(()),
        _ => Err(not_found(id).into()),
    }
}

/// Whether a live or importing table has this name.
async fn name_is_taken(call: &mut Call, name: &TableName) -> DbResult<bool> {
    Ok(call.fetch_optional(LIVE_NAME, name_args(name)).await?.is_some())
}

/// Registers a table. The caller has checked id and name.
pub(crate) async fn insert_table(
    call: &mut Call,
    new: &NewTable,
    state: TableState,
    base: i64,
    from_json: bool,
    now: TimestampMs,
) -> DbResult<()> {
    let id = Id::from(new.id);
    let args = Args::new()
        .bind(id)
        .bind(new.name.namespace())
        .bind(new.name.name())
        .text("location", &new.location)
        .bind(to_json(&new.storage_options)?)
        .bind(state.as_str())
        .bind(now.0)
        .bind(base)
        .bind(from_json);
    call.execute(INSERT, args).await?;
    call.execute(INSERT_MIRROR, Args::new().bind(id).bind(new.mirror.as_str())).await?;
    Ok(())
}

pub(crate) async fn list_tables(
    call: &mut Call,
    filter: &TableFilter,
    after: Option<&(TableName, TableId)>,
    limit: usize,
) -> DbResult<Page<TableRecord, (TableName, TableId)>> {
    let state = filter.state.unwrap_or(TableState::Active);
    // Among dropped tables the marker is the id, among others it is '' and the name is unique:
    // so (namespace, name, marker) orders like (namespace, name, id).
    let marker = |id: &TableId| match state {
        TableState::Dropped => id.to_string(),
        TableState::Active | TableState::Importing => String::new(),
    };
    let (namespace, name, after_marker) = match (filter.namespace.as_deref(), after) {
        (None, Some((name, id))) => (name.namespace(), name.name(), marker(id)),
        (None, None) => ("", "", String::new()),
        (Some(wanted), Some((name, id))) if name.namespace() == wanted => {
            (wanted, name.name(), marker(id))
        }
        (Some(wanted), Some((name, _))) if name.namespace() > wanted => {
            return Ok(Page { items: Vec::new(), next: None });
        }
        (Some(wanted), _) => (wanted, "", String::new()),
    };
    // No namespace holds what PostgreSQL cannot store.
    if namespace.contains('\0') {
        return Ok(Page { items: Vec::new(), next: None });
    }
    let text = if filter.namespace.is_some() { LIST_NAMESPACE } else { LIST };
    let args = Args::new()
        .bind(namespace)
        .bind(name)
        .bind(after_marker)
        .bind(state.as_str())
        .bind(fetch_limit(limit));
    let rows = call.fetch(text, args).await?;
    let items = rows.iter().map(table_record).collect::<DbResult<Vec<_>>>()?;
    Ok(page(items, limit, |table| (table.name.clone(), table.id)))
}

pub(crate) async fn drop_table(call: &mut Call, id: TableId, act: &Act) -> DbResult<TableRecord> {
    let changed = call.execute(MARK_DROPPED, Args::of(id).bind(act.at.0)).await?;
    if changed == 0 {
        return Err(not_found(id).into());
    }
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
    if lock(call, id).await? != Some(TableState::Dropped) {
        return Err(not_found(id).into());
    }
    let before = require_table(call, id).await?;
    if name_is_taken(call, name).await? {
        return Err(CatalogError::TableExists(name.clone()).into());
    }
    let args = Args::of(id).bind(name.namespace()).bind(name.name());
    match call.execute(UNDROP, args).await {
        Ok(_) => {
            let table = require_table(call, id).await?;
            audit::keep(call, &act.undropped(&before, &table)).await?;
            Ok(table)
        }
        // Someone else took the name since we looked.
        Err(error) if error.is_unique_violation() => {
            Err(CatalogError::TableExists(name.clone()).into())
        }
        Err(error) => Err(error),
    }
}
