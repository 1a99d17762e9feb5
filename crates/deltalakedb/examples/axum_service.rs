//! A service that embeds a catalog: tables over HTTP, published in the background.
//!
//! `cargo run -p deltalakedb --example axum_service -- sqlite:///lake/catalog.db /lake 127.0.0.1:8080`
//!
//! | request | does |
//! | --- | --- |
//! | `PUT /tables/NAME` `{"columns": "id long, country string"}` | creates a table |
//! | `POST /tables/NAME/files` `{"files": ["1.parquet"], "token": "load-1"}` | adds files of its folder |
//! | `GET /tables/NAME/files?version=1&where=country='de'&limit=100` | lists files |
//! | `GET /tables/NAME/history?limit=100` | lists commits, newest first |
//!
//! On SIGTERM or Ctrl-C the service answers the requests that it has, ends its worker, and exits.
#![allow(clippy::print_stdout, reason = "it shows where it listens")]

use std::path::{Path as Folder, PathBuf};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use deltalakedb::{
    At, CatalogError, CommitRecord, Db, FileRecord, IntoAt, PublisherConfig, WriteState,
};
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::signal::ctrl_c;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Each request is answered within this time, or not at all.
const DEADLINE: Duration = Duration::from_secs(30);
/// Most bytes of a request's body.
const MAX_BODY: usize = 1024 * 1024;
/// Most items of a list.
const MAX_LISTED: usize = 1_000;

#[derive(Clone)]
struct Service {
    db: Db,
    lake: PathBuf,
}

/// An error of the catalog as an answer: its code decides on the status.
struct Failed(CatalogError);

impl From<CatalogError> for Failed {
    fn from(error: CatalogError) -> Failed {
        Failed(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let code = self.0.code();
        let status = match code {
            "invalid_input" => StatusCode::BAD_REQUEST,
            "table_not_found" | "version_not_found" => StatusCode::NOT_FOUND,
            "table_exists" | "conflict" => StatusCode::CONFLICT,
            "table_frozen" => StatusCode::LOCKED,
            "unsupported" => StatusCode::NOT_IMPLEMENTED,
            // The same request may be sent again; with its token it takes effect once.
            "busy" | "unavailable" | "commit_unknown" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(json!({ "code": code, "message": self.0.to_string() }))).into_response()
    }
}

#[derive(Deserialize)]
struct NewTable {
    columns: String,
}

async fn create(
    State(service): State<Service>,
    Path(name): Path<String>,
    Json(new): Json<NewTable>,
) -> Result<(StatusCode, Json<Value>), Failed> {
    // The name becomes a folder of the lake.
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || "._".contains(c)) {
        let text = "a table's name has letters, digits, dots and underscores here";
        return Err(Failed(CatalogError::InvalidInput(text.to_owned())));
    }
    let location = service.lake.join(&name).display().to_string();
    let table = service.db.create_table(&name).location(location).columns(&new.columns).await?;
    Ok((StatusCode::CREATED, Json(json!({ "location": table.location() }))))
}

#[derive(Deserialize)]
struct NewFiles {
    files: Vec<String>,
    /// A request that is sent again with the same token changes nothing.
    token: String,
}

async fn append(
    State(service): State<Service>,
    Path(name): Path<String>,
    Json(new): Json<NewFiles>,
) -> Result<Json<Value>, Failed> {
    let table = service.db.table(&name).await?;
    let files = table.describe_files(&new.files).await?;
    let report = table.append(files).token(new.token).await?;
    let table = table.at_commit(&report).await?;
    // From now on readers of the plain files see it, too.
    table.wait_published(DEADLINE).await?;
    Ok(Json(json!({ "version": table.version(), "replayed": report.replayed })))
}

#[derive(Deserialize)]
struct Listing {
    version: Option<i64>,
    #[serde(rename = "where")]
    condition: Option<String>,
    limit: Option<usize>,
}

async fn files(
    State(service): State<Service>,
    Path(name): Path<String>,
    Query(listing): Query<Listing>,
) -> Result<Json<Vec<FileRecord>>, Failed> {
    let at = listing.version.map_or(Ok(At::Head), IntoAt::into_at)?;
    let table = service.db.table_at(&name, at).await?;
    let files = match &listing.condition {
        Some(condition) => table.files_matching(condition)?,
        None => table.files(),
    };
    Ok(Json(files.take(listing.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED)).try_collect().await?))
}

async fn history(
    State(service): State<Service>,
    Path(name): Path<String>,
    Query(listing): Query<Listing>,
) -> Result<Json<Vec<CommitRecord>>, Failed> {
    let table = service.db.table(&name).await?;
    Ok(Json(
        table
            .history()
            .take(listing.limit.unwrap_or(MAX_LISTED).min(MAX_LISTED))
            .try_collect()
            .await?,
    ))
}

/// A commit that is cut off took effect as a whole or not at all: its token tells.
async fn in_time(request: Request, next: Next) -> Response {
    let late = || CatalogError::busy("the time is over: send it again", WriteState::Unknown);
    let answer = tokio::time::timeout(DEADLINE, next.run(request)).await;
    answer.unwrap_or_else(|_| Failed(late()).into_response())
}

/// Serves until it is told to stop. Port 0 is any that is free; which one, it prints.
pub(crate) async fn run(url: &str, lake: &Folder, address: &str) -> Result<(), Failure> {
    let db = Db::create(&url.parse()?).await?;
    let (db, worker) = db.publish_in_background(PublisherConfig::default());
    let app = Router::new()
        .route("/tables/{name}", put(create))
        .route("/tables/{name}/files", post(append).get(files))
        .route("/tables/{name}/history", get(history))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(in_time))
        .with_state(Service { db, lake: lake.to_owned() });

    let listener = TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    let stopping = told_to_stop().shared();
    // Clients that never end their requests do not hold it up.
    let late = stopping.clone().then(|()| tokio::time::sleep(DEADLINE));
    let serving = axum::serve(listener, app).with_graceful_shutdown(stopping);
    tokio::select! { served = serving => served?, () = late => {} }
    Ok(worker.stop().await?)
}

async fn told_to_stop() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        tokio::select! { _ = terminate.recv() => {}, _ = ctrl_c() => {} }
    }
    #[cfg(not(unix))]
    let _ = ctrl_c().await;
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, lake, address] = arguments.as_slice() else {
        return Err(
            "give the catalog's URL, the lake's folder, and the address to listen on".into()
        );
    };
    run(url, Folder::new(lake), address).await
}
