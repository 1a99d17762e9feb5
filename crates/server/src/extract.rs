//! What requests carry, refused with a problem where it is wrong.

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Json, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use deltalakedb::core::ids::At;
use deltalakedb::{IntoAt, TableRef};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;

use crate::problem::{Answer, Failed};

/// A body of JSON.
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failed;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failed> {
        match Json::from_request(request, state).await {
            Ok(Json(body)) => Ok(Body(body)),
            Err(rejection) => Err(refused_body(&rejection)),
        }
    }
}

fn refused_body(rejection: &JsonRejection) -> Failed {
    let text = rejection.body_text();
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let text = "the body is larger than this service takes: send less at a time";
            Failed::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", text)
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Failed::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the body is JSON here: send `Content-Type: application/json`",
        ),
        _ => Failed::invalid(text),
    }
}

/// The query of a URL.
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failed> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        match query {
            Ok(Query(asked)) => Ok(Asked(asked)),
            Err(rejection) => Err(Failed::invalid(rejection.body_text())),
        }
    }
}

/// The table that the path of a URL names: `namespace.table`, or its id.
pub(crate) struct Named(pub(crate) TableRef);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failed> {
        let path: Result<Path<String>, PathRejection> =
            Path::from_request_parts(parts, state).await;
        let Path(text) = path.map_err(|rejection| Failed::invalid(rejection.body_text()))?;
        let table = text.parse().map_err(|error| Failed::invalid(format!("{error}")))?;
        Ok(Named(table))
    }
}

/// Which state of a table is meant: the latest one if nothing is said.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct When {
    /// A version.
    #[param(minimum = 0)]
    pub(crate) version: Option<i64>,
    /// The latest version at this time: RFC 3339, a date, or Unix milliseconds.
    #[param(min_length = 1)]
    pub(crate) timestamp: Option<String>,
}

/// The state that these two name.
pub(crate) fn state_at(version: Option<i64>, timestamp: Option<&str>) -> Answer<At> {
    match (version, timestamp) {
        (Some(_), Some(_)) => Err(Failed::invalid("version and timestamp: give one of them")),
        (Some(version), None) => Ok(version.into_at()?),
        (None, Some(time)) => Ok(At::Timestamp(deltalakedb::time::parse(time)?)),
        (None, None) => Ok(At::Head),
    }
}
