//! Tables: list, create, show, drop, bring back.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use deltalakedb::access::Role;
use deltalakedb::view::{SnapshotView, TableView};
use deltalakedb::{StructType, TableFilter, TableName, TableRef, TableState};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::cursor::{self, AfterTable};
use crate::extract::{Asked, Body, Named, When, state_at};
use crate::problem::{Answer, Failed, Problems};
use crate::routes::{open, record};
use crate::state::{Caller, Service};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Only tables of this namespace.
    #[param(min_length = 1)]
    namespace: Option<String>,
    /// `active` (if not given), `dropped` or `importing`.
    #[param(value_type = Option<String>)]
    state: Option<TableState>,
    /// Most items; 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1)]
    cursor: Option<String>,
}

/// A page of tables.
#[derive(Serialize, ToSchema)]
pub(crate) struct Tables {
    /// By namespace and name.
    tables: Vec<TableView>,
    /// Where the next page starts; none at the end.
    next_cursor: Option<String>,
}

/// Tables that the caller may read: a page may be shorter than its limit.
#[utoipa::path(get, path = "/v1/tables", tag = "tables", params(Wanted),
    responses((status = 200, description = "A page.", body = Tables), Problems))]
pub(crate) async fn list(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Asked(wanted): Asked<Wanted>,
) -> Answer<Json<Tables>> {
    let limit = cursor::size(wanted.limit)?;
    let after: Option<AfterTable> = cursor::read(wanted.cursor.as_deref())?;
    let after = after.map(|AfterTable(name, id)| (name, id));
    if wanted.namespace.as_deref() == Some("") {
        return Err(Failed::invalid("namespace is empty: leave it out for all of them"));
    }
    let filter = TableFilter { namespace: wanted.namespace, state: wanted.state };
    let page = service.db().tables_page(&filter, after.as_ref(), limit).await?;
    let next = page.next.map(|(name, id)| cursor::write(&AfterTable(name, id))).transpose()?;
    let seen = page.items.iter().filter(|table| caller.may(Role::Read, &table.name));
    Ok(Json(Tables { tables: seen.map(TableView::from).collect(), next_cursor: next }))
}

/// A table to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTable {
    /// `namespace.table`.
    #[schema(min_length = 1)]
    name: String,
    /// Columns as text, as `id long not null, day date`. This or `schema`.
    #[schema(min_length = 1)]
    columns: Option<String>,
    /// Columns in Delta's JSON form of a schema.
    schema: Option<Value>,
    /// Partition columns, in order.
    #[serde(default)]
    partition_by: Vec<String>,
    /// What the table is for.
    description: Option<String>,
    /// Table properties.
    #[serde(default)]
    properties: BTreeMap<String, String>,
    /// URL of the table's folder, below a root of the service. Without it the service chooses a folder.
    location: Option<String>,
    /// Whether commits are published to the table's `_delta_log/`; true if not given.
    publish: Option<bool>,
}

/// Creates a table.
#[utoipa::path(post, path = "/v1/tables", tag = "tables", request_body = NewTable,
    params(("idempotency-key" = Option<String>, Header, description = "The same request with it again creates nothing, and answers the same. 1 to 128 printable ASCII characters.")),
    responses((status = 201, description = "It is created.", body = SnapshotView), Problems))]
pub(crate) async fn create(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    key: super::commits::Key,
    Body(new): Body<NewTable>,
) -> Answer<(StatusCode, Json<SnapshotView>)> {
    let name: TableName = new.name.parse().map_err(|e| Failed::invalid(format!("{e}")))?;
    caller.check(Role::Admin, &name)?;
    let db = service.db_for(&caller)?;
    // A repeated request finds the place that the first one chose.
    let known = match &key.given {
        Some(token) => db.resolve(token).await?,
        None => None,
    };
    if let Some(table) = known.as_ref().and_then(|tables| tables.first()) {
        let snapshot = db.table(table.table_id).await?;
        // Not even its name is told.
        if !caller.may(Role::Write, snapshot.name()) {
            return Err(super::commits::used_elsewhere());
        }
        let shown = SnapshotView::look(&db, snapshot.snapshot()).await?;
        return Ok((StatusCode::CREATED, Json(shown)));
    }
    let place = service.places().of_new_table(new.location.as_deref(), &name, db.ids().uuid())?;
    let mut table = db.create_table(&new.name).location(place).partition_by(new.partition_by);
    table = match (new.columns, new.schema) {
        (Some(columns), None) => table.columns(&columns),
        (None, Some(schema)) => table.schema(StructType::parse(&schema.to_string())?),
        _ => return Err(Failed::invalid("columns and schema: give one of them")),
    };
    if let Some(description) = new.description {
        table = table.description(description);
    }
    for (property, value) in new.properties {
        table = table.property(property, value);
    }
    if let Some(publish) = new.publish {
        table = table.mirror(publish);
    }
    if let Some(token) = &key.given {
        table = table.token(token.as_str());
    }
    let created = table.await?;
    // Another request with this key may have been first.
    if !caller.may(Role::Write, created.name()) {
        return Err(super::commits::used_elsewhere());
    }
    let shown = SnapshotView::look(&db, created.snapshot()).await?;
    Ok((StatusCode::CREATED, Json(shown)))
}

/// A table at its latest version, or at another one.
#[utoipa::path(get, path = "/v1/tables/{table}", tag = "tables", params(("table" = String, Path, description = "`namespace.table`, or its id."), When),
    responses((status = 200, description = "The table.", body = SnapshotView), Problems))]
pub(crate) async fn show(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Named(table): Named,
    Asked(when): Asked<When>,
) -> Answer<Json<SnapshotView>> {
    look(&service, &caller, &table, &when).await
}

/// The same as the table itself: protocol, metadata and totals at a version.
#[utoipa::path(get, path = "/v1/tables/{table}/snapshot", tag = "tables", params(("table" = String, Path, description = "`namespace.table`, or its id."), When),
    responses((status = 200, description = "The table.", body = SnapshotView), Problems))]
pub(crate) async fn snapshot(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Named(table): Named,
    Asked(when): Asked<When>,
) -> Answer<Json<SnapshotView>> {
    look(&service, &caller, &table, &when).await
}

async fn look(
    service: &Service,
    caller: &Caller,
    table: &TableRef,
    when: &When,
) -> Answer<Json<SnapshotView>> {
    let at = state_at(when.version, when.timestamp.as_deref())?;
    let snapshot = open(service, caller, Role::Read, table, at).await?;
    Ok(Json(SnapshotView::look(service.db(), &snapshot).await?))
}

/// A version of a table.
#[derive(Serialize, ToSchema)]
pub(crate) struct VersionOf {
    /// The table's id.
    id: String,
    /// The version.
    version: i64,
    /// When it was committed.
    timestamp_ms: i64,
}

/// The latest version, or the one that was the latest at a time.
#[utoipa::path(get, path = "/v1/tables/{table}/version", tag = "tables", params(("table" = String, Path, description = "`namespace.table`, or its id."), When),
    responses((status = 200, description = "The version.", body = VersionOf), Problems))]
pub(crate) async fn version(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Named(table): Named,
    Asked(when): Asked<When>,
) -> Answer<Json<VersionOf>> {
    let at = state_at(when.version, when.timestamp.as_deref())?;
    let snapshot = open(&service, &caller, Role::Read, &table, at).await?;
    Ok(Json(VersionOf {
        id: snapshot.table.id.to_string(),
        version: snapshot.version.get(),
        timestamp_ms: snapshot.timestamp.0,
    }))
}

/// Drops a table. Its files, log and history stay, and its name becomes free.
#[utoipa::path(delete, path = "/v1/tables/{table}", tag = "tables", params(("table" = String, Path, description = "`namespace.table`, or its id.")),
    responses((status = 200, description = "It is dropped.", body = TableView), Problems))]
pub(crate) async fn drop_table(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Named(table): Named,
) -> Answer<Json<TableView>> {
    let db = service.db_for(&caller)?;
    let record = record(&service, &caller, Role::Admin, &table).await?;
    // The one that was looked at, whatever its name leads to by now.
    let dropped = db.drop_table(&TableRef::Id(record.id)).await?;
    Ok(Json(TableView::from(&dropped)))
}

/// How a table comes back.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Undrop {
    /// Another name than it had.
    #[schema(min_length = 1)]
    name: Option<String>,
}

/// Brings a dropped table back, under its old or another name. By name it is the one that was dropped last.
#[utoipa::path(post, path = "/v1/tables/{table}/undrop", tag = "tables", request_body = Undrop,
    params(("table" = String, Path, description = "Its id, or the name that it had.")),
    responses((status = 200, description = "It is back.", body = TableView), Problems))]
pub(crate) async fn undrop(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Named(table): Named,
    Body(undrop): Body<Undrop>,
) -> Answer<Json<TableView>> {
    let name = undrop.name.map(|name| name.parse()).transpose();
    let name: Option<TableName> = name.map_err(|e| Failed::invalid(format!("{e}")))?;
    let db = service.db_for(&caller)?;
    if let Some(name) = &name {
        caller.check(Role::Admin, name)?;
    }
    caller.check_named(Role::Admin, &table)?;
    if let TableRef::Id(_) = &table {
        let record = db.catalog().table(&table).await?;
        caller.check_found(Role::Admin, &table, &record.name)?;
    }
    let back = db.undrop_table(&table, name).await?;
    Ok(Json(TableView::from(&back)))
}
