//! Who changed a table, when and how.

use axum::extract::State;
use axum::{Extension, Json};
use deltalakedb::CommitFilter;
use deltalakedb::Version;
use deltalakedb::access::Role;
use deltalakedb::view::CommitView;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::cursor;
use crate::extract::{Asked, Named};
use crate::problem::{Answer, Problems};
use crate::routes::record;
use crate::state::{Caller, Service};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Commits at or after this time: RFC 3339, a date, or Unix milliseconds.
    #[param(min_length = 1)]
    from: Option<String>,
    /// Commits before this time.
    #[param(min_length = 1)]
    to: Option<String>,
    /// Most items; 100 if not given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(min_length = 1)]
    cursor: Option<String>,
}

/// A page of commits.
#[derive(Serialize, ToSchema)]
pub(crate) struct Commits {
    /// Newest first.
    commits: Vec<CommitView>,
    /// Where the next page starts; none at the end.
    next_cursor: Option<String>,
}

/// Commits of a table, newest first.
#[utoipa::path(get, path = "/v1/tables/{table}/history", tag = "tables",
    params(("table" = String, Path, description = "`namespace.table`, or its id."), Wanted),
    responses((status = 200, description = "A page.", body = Commits), Problems))]
pub(crate) async fn list(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Named(table): Named,
    Asked(wanted): Asked<Wanted>,
) -> Answer<Json<Commits>> {
    let limit = cursor::size(wanted.limit)?;
    let before: Option<Version> = cursor::read(wanted.cursor.as_deref())?;
    let filter = CommitFilter {
        from_time: wanted.from.as_deref().map(deltalakedb::time::parse).transpose()?,
        to_time: wanted.to.as_deref().map(deltalakedb::time::parse).transpose()?,
        ..CommitFilter::default()
    };
    let record = record(&service, &caller, Role::Read, &table).await?;
    let page = service.db().history_page(record.id, &filter, before, limit).await?;
    let next_cursor = page.next.as_ref().map(cursor::write).transpose()?;
    Ok(Json(Commits { commits: page.items.iter().map(CommitView::from).collect(), next_cursor }))
}
