//! Files of a table, streamed.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use deltalakedb::access::Role;
use deltalakedb::filter::parse_filter;
use deltalakedb::view::FileView;
use deltalakedb::{CatalogError, FileRecord};
use futures::StreamExt;
use futures::stream::BoxStream;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use crate::cursor;
use crate::extract::{Asked, Named, state_at};
use crate::problem::{Answer, Problems};
use crate::routes::open;
use crate::state::{Caller, Service};

/// The version that the files are of.
pub(super) const VERSION_HEADER: HeaderName = HeaderName::from_static("delta-table-version");
/// Files that become one piece of the body.
const PIECE: usize = 200;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// A version; the latest one if nothing is given.
    #[param(minimum = 0)]
    version: Option<i64>,
    /// The latest version at this time: RFC 3339, a date, or Unix milliseconds.
    #[param(min_length = 1)]
    timestamp: Option<String>,
    /// Only files that may hold rows for which this SQL condition is true: what partition values and statistics rule
    /// out is left out, and nothing else.
    #[serde(rename = "where")]
    #[param(rename = "where")]
    condition: Option<String>,
    /// At most so many.
    #[param(minimum = 0)]
    limit: Option<i64>,
}

/// Files of a table at a version, a JSON object a line, in the order in which they were added. The header
/// `delta-table-version` has the version. A list that ends early ends without the last chunk: the client's library
/// says so.
#[utoipa::path(get, path = "/v1/tables/{table}/files", tag = "tables",
    params(("table" = String, Path, description = "`namespace.table`, or its id."), Wanted),
    responses((status = 200, description = "The files.", body = FileView<'static>, content_type = "application/x-ndjson",
        headers(("delta-table-version" = i64, description = "The version that the files are of."))), Problems))]
pub(crate) async fn list(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Named(table): Named,
    Asked(wanted): Asked<Wanted>,
) -> Answer<Response> {
    let condition = wanted.condition.as_deref().map(parse_filter).transpose()?;
    let at = state_at(wanted.version, wanted.timestamp.as_deref())?;
    let db = service.db();
    let snapshot = open(&service, &caller, Role::Read, &table, at).await?;
    let files = match &condition {
        Some(condition) => db.files_matching(&snapshot, condition)?,
        None => db.files(snapshot.table.id, snapshot.version),
    };
    let files = files.take(cursor::most(wanted.limit)?.unwrap_or(usize::MAX)).boxed();
    // What is wrong at once is an answer of its own, and no list that breaks off.
    let mut files = files.peekable();
    if let Some(Err(_)) = std::pin::Pin::new(&mut files).peek().await
        && let Some(Err(error)) = files.next().await
    {
        return Err(error.into());
    }
    let until = Instant::now() + service.settings().stream_deadline;
    let mut answer = Response::new(Body::from_stream(lines(files.boxed(), until)));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(VERSION_HEADER, HeaderValue::from(snapshot.version.get()));
    Ok(answer)
}

/// Lines of JSON, some files a piece. After an error nothing follows, and the connection ends.
fn lines(
    files: BoxStream<'static, Result<FileRecord, CatalogError>>,
    until: Instant,
) -> impl futures::Stream<Item = Result<Vec<u8>, std::io::Error>> + Send + 'static {
    let pieces = files.ready_chunks(PIECE);
    futures::stream::try_unfold(pieces, move |mut pieces| async move {
        let Ok(piece) = tokio::time::timeout_at(until, pieces.next()).await else {
            tracing::warn!("a list of files took too long, and was ended");
            return Err(std::io::Error::from(std::io::ErrorKind::TimedOut));
        };
        let Some(piece) = piece else { return Ok(None) };
        let mut text = Vec::new();
        for file in piece {
            let file = file.map_err(|error| {
                tracing::warn!(code = error.code(), %error, "a list of files ended early");
                std::io::Error::other(error)
            })?;
            serde_json::to_writer(&mut text, &FileView::from(&file))?;
            text.push(b'\n');
        }
        Ok(Some((text, pieces)))
    })
}
