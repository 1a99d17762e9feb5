//! Errors as answers: `application/problem+json`.

use std::collections::BTreeMap;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use deltalakedb::{CatalogError, WriteState};
use serde::Serialize;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as Described, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// An answer that says why a request failed. <https://www.rfc-editor.org/rfc/rfc9457>
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `urn:deltalakedb:error:` and the code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// A code of the catalog's errors (`table_not_found`, `conflict`, `commit_unknown`, …), or one of the service:
    /// `unauthorized`, `forbidden`, `no_such_route`, `method_not_allowed`, `body_too_large`, `unsupported_media_type`, `unknown_host`, `deadline`,
    /// `internal`.
    pub code: String,
    /// What is wrong, where, and what to do.
    pub detail: String,
    /// Whether the same request may succeed soon.
    pub retryable: bool,
    /// Whether what was asked for may have happened all the same.
    pub may_have_happened: bool,
    /// The idempotency key of a commit whose outcome is not known: the same request with it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Problem {
        Problem {
            kind: format!("urn:deltalakedb:error:{code}"),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            code: code.to_owned(),
            detail: detail.into(),
            retryable: false,
            may_have_happened: false,
            idempotency_key: None,
        }
    }
}

/// An error on its way to a client.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) Box<Problem>);

pub(crate) type Answer<T> = Result<T, Failed>;

impl Failed {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Failed {
        Failed(Box::new(Problem::new(status, code, detail)))
    }

    /// Bad input, in a full sentence.
    pub(crate) fn invalid(detail: impl Into<String>) -> Failed {
        Failed::new(StatusCode::BAD_REQUEST, "invalid_input", detail)
    }

    /// A request that took too long. `key`: that of a commit, which may have taken effect.
    pub(crate) fn late(key: Option<&str>) -> Failed {
        let mut failed = Failed::new(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline",
            match key {
                Some(_) => {
                    "the time is over, and it is not known whether the commit took effect: send the same request \
                     again with this idempotency key, it takes effect at most once"
                }
                None => "the time is over: ask for less, or send it again",
            },
        );
        failed.0.retryable = true;
        failed.0.may_have_happened = key.is_some();
        failed.0.idempotency_key = key.map(str::to_owned);
        failed
    }
}

impl From<CatalogError> for Failed {
    fn from(error: CatalogError) -> Failed {
        let code = error.code();
        let mut problem = Problem::new(status_of(code), code, error.to_string());
        problem.retryable = error.is_retryable() || code == "commit_unknown";
        problem.may_have_happened = error.write_state() == WriteState::Unknown;
        if let CatalogError::CommitUnknown { token, .. } = &error {
            problem.idempotency_key = Some(token.as_str().to_owned());
        }
        if problem.status >= 500 {
            tracing::warn!(code, %error, "a request failed");
        }
        Failed(Box::new(problem))
    }
}

fn status_of(code: &str) -> StatusCode {
    match code {
        "invalid_input" => StatusCode::BAD_REQUEST,
        "table_not_found" | "version_not_found" => StatusCode::NOT_FOUND,
        "table_exists" | "conflict" => StatusCode::CONFLICT,
        "table_frozen" => StatusCode::LOCKED,
        "unsupported" => StatusCode::UNPROCESSABLE_ENTITY,
        // The same request may be sent again; with its key a commit takes effect once.
        "busy" | "unavailable" | "commit_unknown" | "schema" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let again = self.0.retryable;
        let mut answer = (status, Json(self.0)).into_response();
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if again && status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

/// The errors that any route may answer with, for the description of the routes.
pub(crate) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        [
            ("400", "The request is wrong; the detail says what."),
            ("401", "The service asks who calls, and does not know this key."),
            ("403", "The key has not the role for this."),
            ("404", "There is no such table, version or route."),
            ("405", "The route knows other methods."),
            ("409", "Another commit was first, or the name is taken."),
            ("413", "The body is too large."),
            ("415", "The body has another form than the route takes."),
            ("421", "The service is not known by this name."),
            ("422", "The table has a feature that this program does not have."),
            ("423", "The table is frozen."),
            ("500", "Stored data contradicts itself, or the program has a defect."),
            ("503", "The database did not do it now; see `retryable` and `may_have_happened`."),
            ("504", "The request took too long."),
        ]
        .into_iter()
        .map(|(status, text)| {
            let schema = Ref::from_schema_name("Problem");
            let content = ContentBuilder::new().schema(Some(schema)).build();
            let response = ResponseBuilder::new()
                .description(text)
                .content("application/problem+json", content)
                .build();
            (status.to_owned(), RefOr::T(response))
        })
        .collect()
    }
}
