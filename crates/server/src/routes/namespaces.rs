//! Namespaces: the first parts of tables' names.

use axum::extract::State;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::cursor;
use crate::extract::Asked;
use crate::problem::{Answer, Problems};
use crate::state::{Caller, Service};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Most items; 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1)]
    cursor: Option<String>,
}

/// A page of namespaces.
#[derive(Serialize, ToSchema)]
pub(crate) struct Namespaces {
    /// In the order of their bytes.
    namespaces: Vec<String>,
    /// Where the next page starts; none at the end.
    next_cursor: Option<String>,
}

/// Namespaces that have tables which the caller may see: a page may be shorter than its limit.
#[utoipa::path(get, path = "/v1/namespaces", tag = "tables", params(Wanted),
    responses((status = 200, description = "A page.", body = Namespaces), Problems))]
pub(crate) async fn list(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Asked(wanted): Asked<Wanted>,
) -> Answer<Json<Namespaces>> {
    let limit = cursor::size(wanted.limit)?;
    let after: Option<String> = cursor::read(wanted.cursor.as_deref())?;
    let page = service.db().namespaces(after.as_deref(), limit).await?;
    let next_cursor = page.next.as_ref().map(cursor::write).transpose()?;
    let namespaces = page.items.into_iter().filter(|name| caller.sees(name)).collect();
    Ok(Json(Namespaces { namespaces, next_cursor }))
}
