//! Commits over one or more tables, each request one transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use deltalakedb::access::Role;
use deltalakedb::core::action::Action;
use deltalakedb::core::commit::parse_line;
use deltalakedb::core::predicate::Pruner;
use deltalakedb::filter::parse_filter;
use deltalakedb::{
    At, CatalogError, ChangeTarget, CommitBatch, CommitReport, CommitToken, Reads, TableChange,
    TableRef, Version,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::extract::Body;
use crate::places::check_files;
use crate::problem::{Answer, Failed, Problems};
use crate::routes::open;
use crate::state::{Caller, Service};

/// The header that makes a repeated request take effect once.
pub(crate) const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// Most tables of a commit.
const MOST_TABLES: usize = 1_000;

/// The idempotency key of a request: the token of its transaction.
pub(crate) struct Key {
    /// What the client sent.
    pub(crate) given: Option<CommitToken>,
}

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failed> {
        let mut values = parts.headers.get_all(&KEY_HEADER).iter();
        let Some(value) = values.next() else { return Ok(Key { given: None }) };
        if values.next().is_some() {
            return Err(Failed::invalid("idempotency-key stands twice"));
        }
        let text = value.to_str().map_err(|_| {
            Failed::invalid("idempotency-key has 1 to 128 printable ASCII characters")
        })?;
        let token = CommitToken::new(text).map_err(|e| Failed::invalid(format!("{e}")))?;
        Ok(Key { given: Some(token) })
    }
}

/// A commit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewCommit {
    /// The tables that change, each once: all of them, or none.
    #[schema(min_items = 1, max_items = 1000)]
    tables: Vec<NewChange>,
}

/// What changes in a table.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewChange {
    /// `namespace.table`, or its id.
    #[schema(min_length = 1)]
    table: String,
    /// The version that the writer read; the latest one if not given.
    #[schema(minimum = 0)]
    read_version: Option<i64>,
    /// What the writer read: others' commits since `read_version` are checked against it.
    #[serde(default)]
    reads: WhatIsRead,
    /// Name of the operation in the history, if the actions have no `commitInfo`.
    operation: Option<String>,
    /// Actions of the Delta protocol, each an object with one name: `{"add": {…}}`. They are stored as they are sent.
    #[schema(value_type = Vec<Object>)]
    actions: Vec<Box<RawValue>>,
}

/// What a writer read.
#[derive(Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum WhatIsRead {
    /// All of the table: the commit goes on `read_version` only if nothing changed that it could have read.
    #[default]
    WholeTable,
    /// Nothing: added files go on any version.
    Nothing,
    /// The rows for which this SQL condition is true.
    Where(String),
}

/// What a commit wrote.
#[derive(Serialize, ToSchema)]
pub(crate) struct Committed {
    /// The key by which the same request is recognised.
    idempotency_key: String,
    /// Whether an earlier request with this key had written it.
    replayed: bool,
    /// The tables, and their new versions.
    tables: Vec<CommittedVersion>,
}

/// A table's new version.
#[derive(Serialize, ToSchema)]
struct CommittedVersion {
    /// The table's id.
    id: String,
    /// The new version.
    version: i64,
    /// Its time.
    timestamp_ms: i64,
}

impl From<&CommitReport> for Committed {
    fn from(report: &CommitReport) -> Committed {
        let version = |table: &deltalakedb::CommittedTable| CommittedVersion {
            id: table.table_id.to_string(),
            version: table.version.get(),
            timestamp_ms: table.timestamp.0,
        };
        Committed {
            idempotency_key: report.token.as_str().to_owned(),
            replayed: report.replayed,
            tables: report.tables.iter().map(version).collect(),
        }
    }
}

/// Commits actions over one or more tables in one transaction.
#[utoipa::path(post, path = "/v1/commits", tag = "commits", request_body = NewCommit,
    params(("idempotency-key" = Option<String>, Header, description = "A request that is sent again with it takes effect once. 1 to 128 printable ASCII characters. The answer has one in any case.")),
    responses((status = 200, description = "It is committed.", body = Committed,
        headers(("idempotency-key" = String, description = "The key of this commit."))), Problems))]
pub(crate) async fn commit(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    key: Key,
    Body(new): Body<NewCommit>,
) -> Answer<Response> {
    let db = service.db_for(&caller)?;
    let token = match key.given {
        Some(token) => token,
        None => CommitToken::new(db.ids().uuid().as_hyphenated().to_string())
            .map_err(|e| Failed::invalid(format!("{e}")))?,
    };
    if new.tables.is_empty() || new.tables.len() > MOST_TABLES {
        let text = format!("a commit has 1 to {MOST_TABLES} tables, not {}", new.tables.len());
        return Err(Failed::invalid(text));
    }
    let mut tables = Vec::with_capacity(new.tables.len());
    let mut names = BTreeMap::new();
    for change in new.tables {
        let name = change.table.clone();
        match change.into_change(&service, &caller).await {
            Ok(change) => {
                if let ChangeTarget::Existing { table, .. } = &change.target {
                    names.insert(table.to_string(), name);
                }
                tables.push(change);
            }
            // A request that took effect before is not wrong now: its tables may have changed since, and because of it.
            Err(failed) if failed.0.status == 403 => return Err(failed),
            Err(failed) => match db.resolve(&token).await? {
                Some(tables) => {
                    let report = CommitReport { token, replayed: true, attempts: 0, tables };
                    check_replayed(&service, &caller, &report).await?;
                    return Ok(answer(&report));
                }
                None => return Err(failed),
            },
        }
    }
    let batch = CommitBatch { token: Some(token.clone()), tables };
    // A client that goes away does not stop it half way, and a deadline does not make it unknown to us.
    let committing = tokio::spawn(async move { db.commit(batch).await });
    // The rest of the time is that of the request; a little less, so that the answer is this one.
    let limit = service.settings().deadline.mul_f64(0.9);
    let report = match tokio::time::timeout(limit, committing).await {
        Ok(Ok(report)) => report.map_err(|error| by_name(error, &names))?,
        Ok(Err(_)) | Err(_) => return Err(Failed::late(Some(token.as_str()))),
    };
    check_replayed(&service, &caller, &report).await?;
    Ok(answer(&report))
}

/// What a key of this request did before may have been done by somebody else: that is not told.
async fn check_replayed(service: &Service, caller: &Caller, report: &CommitReport) -> Answer<()> {
    if !report.replayed || caller.principal.is_none() {
        return Ok(());
    }
    for table in &report.tables {
        let record = service.db().catalog().table(&TableRef::Id(table.table_id)).await?;
        if !caller.may(Role::Write, &record.name) {
            return Err(used_elsewhere());
        }
    }
    Ok(())
}

/// An idempotency key that was used for what the caller may not know of.
pub(super) fn used_elsewhere() -> Failed {
    let text = "this idempotency key was used for a table that this key may not write to: choose another one";
    Failed::invalid(text)
}

/// A conflict names the table as the client did.
fn by_name(mut error: CatalogError, names: &BTreeMap<String, String>) -> CatalogError {
    if let CatalogError::Conflict(conflict) = &mut error
        && let Some(name) = names.get(&conflict.table)
    {
        conflict.table.clone_from(name);
    }
    error
}

fn answer(report: &CommitReport) -> Response {
    let mut answer = Json(Committed::from(report)).into_response();
    if let Ok(value) = HeaderValue::from_str(report.token.as_str()) {
        answer.headers_mut().insert(KEY_HEADER, value);
    }
    answer
}

impl NewChange {
    async fn into_change(self, service: &Service, caller: &Caller) -> Answer<TableChange> {
        let table: TableRef = self.table.parse().map_err(|e| Failed::invalid(format!("{e}")))?;
        let at = match self.read_version {
            Some(version) => {
                At::Version(Version::new(version).map_err(|e| Failed::invalid(format!("{e}")))?)
            }
            None => At::Head,
        };
        let snapshot = open(service, caller, Role::Write, &table, at).await?;
        let (ndjson, actions) = self.lines()?;
        check_files(&snapshot.table.location, &actions)?;
        let reads = match &self.reads {
            WhatIsRead::WholeTable => Reads::whole_table(),
            WhatIsRead::Nothing => Reads::default(),
            WhatIsRead::Where(condition) => {
                let pruner = Pruner::new(&snapshot.metadata, &parse_filter(condition)?)?;
                Reads {
                    matching: Some(Arc::new(move |add| pruner.may_match(add))),
                    ..Reads::default()
                }
            }
        };
        Ok(TableChange {
            target: ChangeTarget::Existing {
                table: TableRef::Id(snapshot.table.id),
                read_version: Some(snapshot.version),
            },
            ndjson,
            origin: format!("the actions of '{}'", self.table),
            reads,
            operation: self.operation,
        })
    }

    /// The actions, one a line, as they were sent, and as they are read.
    fn lines(&self) -> Answer<(Vec<u8>, Vec<Action>)> {
        let origin = format!("the actions of '{}'", self.table);
        let (mut ndjson, mut actions) = (Vec::new(), Vec::with_capacity(self.actions.len()));
        for (number, raw) in self.actions.iter().enumerate() {
            // Line ends of JSON are outside of its strings.
            let line = raw.get().replace(['\n', '\r'], " ");
            actions.push(parse_line(&origin, number + 1, &line)?);
            ndjson.extend_from_slice(line.as_bytes());
            ndjson.push(b'\n');
        }
        Ok((ndjson, actions))
    }
}
