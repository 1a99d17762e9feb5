//! Registered tables: look up, list, drop, undrop.

use deltalakedb_catalog_core::audit::{Act, action};
use deltalakedb_catalog_core::backend::TableFilter;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::{TableId, TableName, TableRef, TimestampMs};
use deltalakedb_catalog_core::model::{NewTable, Page, TableRecord, TableState};
use deltalakedb_catalog_core::support::{fetch_limit, page};
use rusqlite::{OptionalExtension, params};

use crate::audit;
use crate::errors::DbResult;
use crate::rows::text::statements;
use crate::rows::{Table, table_columns, table_record, table_source, to_json};
use crate::session::Db;

statements! {
    BY_ID: concat!("SELECT ", table_columns!(), " FROM ", table_source!(), " WHERE t.id = ?1"),
    BY_NAME: concat!("SELECT ", table_columns!(), " FROM ", table_source!(),
        " WHERE t.namespace = ?1 AND t.name = ?2 AND t.drop_marker = ''"),
    STATE: "SELECT table_key, state FROM {p}tables WHERE id = ?1",
    LIVE_NAME: "SELECT 1 FROM {p}tables
        WHERE namespace = ?1 AND name = ?2 AND drop_marker = ''",
    LIST: concat!("SELECT ", table_columns!(), " FROM ", table_source!(),
        " WHERE (t.namespace, t.name, t.drop_marker) > (?1, ?2, ?3) AND t.state = ?4
         ORDER BY t.namespace, t.name, t.drop_marker LIMIT ?5"),
    LIST_NAMESPACE: concat!("SELECT ", table_columns!(), " FROM ", table_source!(),
        " WHERE t.namespace = ?1 AND (t.name, t.drop_marker) > (?2, ?3) AND t.state = ?4
         ORDER BY t.name, t.drop_marker LIMIT ?5"),
    INSERT: "INSERT INTO {p}tables (id, namespace, name, drop_marker, location,
            storage_options, state, created_at_ms, base_version, barrier_version,
            import_from_json, import_base_done)
        VALUES (?1, ?2, ?3, '', ?4, ?5, ?6, ?7, ?8, ?8, ?9, ?9)",
    INSERT_MIRROR: "INSERT INTO {p}mirror (table_key, mode, lease_epoch, lease_until_ms)
        VALUES (?1, ?2, 0, 0)",
    MARK_DROPPED: "UPDATE {p}tables SET state = 'dropped', drop_marker = id, dropped_at_ms = ?2
        WHERE id = ?1 AND state = 'active'",
    UNDROP: "UPDATE {p}tables SET state = 'active', drop_marker = '', dropped_at_ms = NULL,
            namespace = ?2, name = ?3
        WHERE id = ?1 AND state = 'dropped'",
}

pub(crate) fn not_found(id: TableId) -> CatalogError {
    CatalogError::TableNotFound(id.to_string())
}

pub(crate) fn get_table(db: Db<'_>, table: &TableRef) -> DbResult<Option<TableRecord>> {
    let (mut statement, mut rows);
    match table {
        TableRef::Id(id) => {
            statement = db.prepare(BY_ID)?;
            rows = statement.query([id.to_string()])?;
        }
        TableRef::Name(name) => {
            statement = db.prepare(BY_NAME)?;
            rows = statement.query([name.namespace(), name.name()])?;
        }
    }
    rows.next()?.map(table_record).transpose()
}

/// The row of a table that is known to exist.
pub(crate) fn require_table(db: Db<'_>, id: TableId) -> DbResult<TableRecord> {
    get_table(db, &TableRef::Id(id))?.ok_or_else(|| not_found(id).into())
}

/// A table and its state. The key holds as long as the transaction of the caller.
pub(crate) fn find(db: Db<'_>, id: TableId) -> DbResult<Option<(Table, TableState)>> {
    let found: Option<(i64, String)> = db
        .prepare(STATE)?
        .query_row([id.to_string()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((key, state)) = found else { return Ok(None) };
    Ok(Some((Table { key, id }, TableState::parse(&state)?)))
}

/// Fails unless the table exists: by id, dropped and importing ones can be read too.
pub(crate) fn require_readable(db: Db<'_>, id: TableId) -> DbResult<Table> {
    match find(db, id)? {
        Some((table, _)) => Ok(table),
        None => Err(not_found(id).into()),
    }
}

/// Fails unless the table is active.
pub(crate) fn require_active(db: Db<'_>, id: TableId) -> DbResult<Table> {
    match find(db, id)? {
        Some((table, TableState::Active)) => Ok(table),
        _ => Err(not_found(id).into()),
    }
}

/// Whether a live or importing table has this name.
pub(crate) fn name_is_taken(db: Db<'_>, name: &TableName) -> DbResult<bool> {
    Ok(db.prepare(LIVE_NAME)?.exists([name.namespace(), name.name()])?)
}

/// Registers a table. The caller has checked id and name.
pub(crate) fn insert_table(
    db: Db<'_>,
    new: &NewTable,
    state: TableState,
    base: i64,
    from_json: bool,
    now: TimestampMs,
) -> DbResult<Table> {
    db.execute(
        INSERT,
        params![
            new.id.to_string(),
            new.name.namespace(),
            new.name.name(),
            new.location,
            to_json(&new.storage_options)?,
            state.as_str(),
            now.0,
            base,
            from_json,
        ],
    )?;
    let table = Table { key: db.conn.last_insert_rowid(), id: new.id };
    db.execute(INSERT_MIRROR, params![table.key, new.mirror.as_str()])?;
    Ok(table)
}

pub(crate) fn list_tables(
    db: Db<'_>,
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
    let text = if filter.namespace.is_some() { LIST_NAMESPACE } else { LIST };
    let mut statement = db.prepare(text)?;
    let mut rows = statement.query(params![
        namespace,
        name,
        after_marker,
        state.as_str(),
        fetch_limit(limit)
    ])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push(table_record(row)?);
    }
    Ok(page(items, limit, |table| (table.name.clone(), table.id)))
}

pub(crate) fn drop_table(db: Db<'_>, id: TableId, act: &Act) -> DbResult<TableRecord> {
    let changed = db.execute(MARK_DROPPED, params![id.to_string(), act.at.0])?;
    if changed == 0 {
        return Err(not_found(id).into());
    }
    let table = require_table(db, id)?;
    audit::keep(db, &act.on(action::TABLE_DROP, &table))?;
    Ok(table)
}

pub(crate) fn undrop_table(
    db: Db<'_>,
    id: TableId,
    name: &TableName,
    act: &Act,
) -> DbResult<TableRecord> {
    let before = require_table(db, id)?;
    if before.state != TableState::Dropped {
        return Err(not_found(id).into());
    }
    if name_is_taken(db, name)? {
        return Err(CatalogError::TableExists(name.clone()).into());
    }
    db.execute(UNDROP, params![id.to_string(), name.namespace(), name.name()])?;
    let table = require_table(db, id)?;
    audit::keep(db, &act.undropped(&before, &table))?;
    Ok(table)
}
