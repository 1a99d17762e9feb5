//! How far publishing is, and whether the published log says the same as the catalog.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use deltalakedb::access::Role;
use deltalakedb::mirror::diff::{DiffOptions, diff};
use deltalakedb::view::{MirrorView, plain};
use deltalakedb::{NoProgress, TableRef};
use serde::Deserialize;
use serde_json::Value;
use utoipa::IntoParams;

use crate::extract::{Asked, Named};
use crate::problem::{Answer, Failed, Problems};
use crate::routes::record;
use crate::state::{Caller, Service};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// How long a version may wait before `late` is true, seconds; 60 if not given.
    #[param(minimum = 0)]
    late_seconds: Option<i64>,
}

/// How far publishing of a table is.
#[utoipa::path(get, path = "/v1/tables/{table}/mirror", tag = "publishing",
    params(("table" = String, Path, description = "`namespace.table`, or its id."), Wanted),
    responses((status = 200, description = "How far it is.", body = MirrorView), Problems))]
pub(crate) async fn status(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Named(table): Named,
    Asked(wanted): Asked<Wanted>,
) -> Answer<Json<MirrorView>> {
    let db = service.db().clone().on_primary();
    let id = record(&service, &caller, Role::Read, &table).await?.id;
    let record = db.catalog().table(&TableRef::Id(id)).await?;
    let late = u64::try_from(wanted.late_seconds.unwrap_or(60));
    let late = late.map_err(|_| Failed::invalid("late_seconds is below 0"))?;
    let late = Duration::from_secs(late);
    Ok(Json(MirrorView::look(&db, &record, true, late).await?))
}

/// Compares the catalog with the table's published log, as the Delta kernel reads it, and commit files byte by byte.
#[utoipa::path(get, path = "/v1/tables/{table}/diff", tag = "publishing",
    params(("table" = String, Path, description = "`namespace.table`, or its id.")),
    responses((status = 200, description = "The report of `dl diff --format json`; `verdict` is `parity`, `lag_only` or `drift`.", body = Value), Problems))]
pub(crate) async fn compare(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Named(table): Named,
) -> Answer<Json<Value>> {
    let options = DiffOptions { compare_bytes: true, shown_files: 20, ..DiffOptions::default() };
    let table = TableRef::Id(record(&service, &caller, Role::Read, &table).await?.id);
    let report = diff(service.db(), &table, options, &NoProgress).await?;
    Ok(Json(plain(&report)))
}
