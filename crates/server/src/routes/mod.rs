//! All routes, and their description.

mod commits;
mod files;
mod health;
mod history;
mod mirror;
mod namespaces;
#[cfg(feature = "rows")]
mod rows;
mod tables;
mod unity;

use axum::Json;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use deltalakedb::access::Role;
use deltalakedb::{At, Snapshot, TableRecord, TableRef};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::problem::{Answer, Failed, Problem};
use crate::state::{Caller, Service};

/// The description without its routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "deltalakedb",
        description = "Delta tables whose transaction log is in a SQL database.\n\n\
            Times are Unix milliseconds, sizes are bytes. A table is named `namespace.table`, or by its id. \
            Errors are `application/problem+json`; `code` says which one it is, `retryable` whether the same request \
            may succeed soon.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Problem)),
    tags(
        (name = "service", description = "Whether the service works."),
        (name = "tables", description = "Tables, their states and files."),
        (name = "commits", description = "Changes of tables."),
        (name = "publishing", description = "How far `_delta_log/` is.")
    )
)]
struct Description;

/// The routes of a service.
pub(crate) fn router(service: Service) -> Router {
    let with_metrics = service.settings().metrics.is_some();
    let routes = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(namespaces::list))
        .routes(routes!(tables::list, tables::create))
        .routes(routes!(tables::show, tables::drop_table))
        .routes(routes!(tables::undrop))
        .routes(routes!(tables::version))
        .routes(routes!(tables::snapshot))
        .routes(routes!(files::list))
        .routes(routes!(history::list))
        .routes(routes!(mirror::status))
        .routes(routes!(mirror::compare))
        .routes(routes!(commits::commit));
    #[cfg(feature = "rows")]
    let routes = routes.routes(routes!(rows::list));
    let (router, description) = routes.split_for_parts();
    let mut router = router
        .merge(unity::router())
        .route("/openapi.json", get(move || std::future::ready(Json(description))))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method);
    if with_metrics {
        router = router.route("/metrics", get(health::metrics));
    }
    router.with_state(service)
}

/// Opens a table, if the caller may do this with it.
async fn open(
    service: &Service,
    caller: &Caller,
    role: Role,
    table: &TableRef,
    at: At,
) -> Answer<Snapshot> {
    caller.check_named(role, table)?;
    let snapshot = service.db().snapshot(table, at).await?;
    caller.check_found(role, table, &snapshot.table.name)?;
    Ok(snapshot)
}

/// The row of a table, if the caller may do this with it.
async fn record(
    service: &Service,
    caller: &Caller,
    role: Role,
    table: &TableRef,
) -> Answer<TableRecord> {
    caller.check_named(role, table)?;
    let record = service.db().catalog().table(table).await?;
    caller.check_found(role, table, &record.name)?;
    Ok(record)
}

async fn no_such_route() -> Failed {
    let text = "there is no such route: /openapi.json lists them";
    Failed::new(StatusCode::NOT_FOUND, "no_such_route", text)
}

async fn no_such_method() -> Failed {
    let text = "this route knows other methods: /openapi.json lists them";
    Failed::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text)
}
