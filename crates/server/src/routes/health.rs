//! Whether the service works.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::{Answer, Failed, Problems};
use crate::state::Service;

/// So long the database may take to answer.
const PING_LIMIT: Duration = Duration::from_secs(2);

/// How a service is.
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, `ready`.
    status: &'static str,
}

/// Whether the process answers.
#[utoipa::path(get, path = "/health", tag = "service",
    responses((status = 200, description = "It does.", body = Health), Problems))]
pub(crate) async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether the database answers, and the catalog is there in this program's version.
#[utoipa::path(get, path = "/ready", tag = "service",
    responses((status = 200, description = "It does.", body = Health), Problems))]
pub(crate) async fn ready(State(service): State<Service>) -> Answer<Json<Health>> {
    service.db().ping(PING_LIMIT).await?;
    Ok(Json(Health { status: "ready" }))
}

/// Metrics in the text format of Prometheus.
pub(crate) async fn metrics(State(service): State<Service>) -> Result<Response, Failed> {
    let Some(metrics) = &service.settings().metrics else {
        return Ok(axum::http::StatusCode::NOT_FOUND.into_response());
    };
    let text = metrics.scrape(service.db()).await;
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}
