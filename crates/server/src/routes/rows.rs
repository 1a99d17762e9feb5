//! Rows of a table, streamed.

use arrow::array::RecordBatch;
use arrow::csv;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::writer::{LineDelimited, Writer, WriterBuilder};
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use deltalakedb::access::Role;
use deltalakedb::deltalake::explain::{self, Explained};
use deltalakedb::rows::{Select, portable, portable_schema};
use deltalakedb::{CatalogError, WriteState};
use futures::StreamExt;
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use crate::cursor;
use crate::extract::{Asked, Named, state_at};
use crate::problem::{Answer, Failed, Problems};
use crate::routes::files::VERSION_HEADER;
use crate::routes::open;
use crate::state::{Caller, Service};

/// Forms of rows, as clients ask for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Arrow,
    Ndjson,
    Csv,
}

impl Form {
    const ALL: [(Form, &'static str); 3] = [
        (Form::Arrow, "application/vnd.apache.arrow.stream"),
        (Form::Ndjson, "application/x-ndjson"),
        (Form::Csv, "text/csv"),
    ];

    /// The first form that the client takes; Arrow if it takes any.
    fn wanted(headers: &HeaderMap) -> Answer<(Form, &'static str)> {
        let mut kinds = Vec::new();
        for value in headers.get_all(ACCEPT) {
            let value = value.to_str().map_err(|_| Failed::invalid("Accept is no text"))?;
            kinds.extend(value.split(',').map(|kind| kind.split(';').next().unwrap_or("").trim()));
        }
        if kinds.is_empty() || kinds.iter().any(|kind| ["*/*", "application/*"].contains(kind)) {
            // What a client names goes before what it would take, too.
            let named = Form::ALL.iter().find(|(_, form)| kinds.contains(form));
            return Ok(*named.unwrap_or(&Form::ALL[0]));
        }
        let known = kinds.iter().find_map(|kind| Form::ALL.iter().find(|(_, form)| form == kind));
        known.copied().ok_or_else(|| {
            let forms = Form::ALL.map(|(_, form)| form).join(", ");
            let text = format!("rows come as one of {forms}: Accept names none of them");
            Failed::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", text)
        })
    }
}

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
    /// Columns, with commas; all if not given. A name with a comma or a quote in it stands in double quotes, as in CSV.
    #[param(min_length = 1)]
    columns: Option<String>,
    /// Only rows for which this SQL condition is true.
    #[serde(rename = "where")]
    #[param(rename = "where")]
    condition: Option<String>,
    /// At most so many rows.
    #[param(minimum = 0)]
    limit: Option<i64>,
}

/// Rows of a table at a version: an Arrow IPC stream, or NDJSON or CSV if `Accept` says so. The header
/// `delta-table-version` has the version. An answer that ends early ends without its last chunk.
#[utoipa::path(get, path = "/v1/tables/{table}/rows", tag = "tables",
    params(("table" = String, Path, description = "`namespace.table`, or its id."), Wanted),
    responses((status = 200, description = "The rows.", content((Vec<u8> = "application/vnd.apache.arrow.stream"), (String = "application/x-ndjson"), (String = "text/csv")),
        headers(("delta-table-version" = i64, description = "The version that the rows are of."))),
        (status = 406, description = "Accept names no form that rows have.", body = crate::Problem, content_type = "application/problem+json"), Problems))]
pub(crate) async fn list(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Named(table): Named,
    headers: HeaderMap,
    Asked(wanted): Asked<Wanted>,
) -> Answer<Response> {
    let (form, kind) = Form::wanted(&headers)?;
    let columns = wanted.columns.as_deref().map(column_names).transpose()?;
    let at = state_at(wanted.version, wanted.timestamp.as_deref())?;
    let snapshot = open(&service, &caller, Role::Read, &table, at).await?;
    let select = Select {
        columns: columns.as_deref(),
        filter: wanted.condition.as_deref().map(|text| ("where", text)),
        limit: cursor::most(wanted.limit)?,
    };
    let rows = select.of(service.db(), &snapshot).await?;
    let tables = explain::tables(rows.logical_plan());
    let schema = portable_schema(rows.schema().as_arrow());
    let failed = move |error| Failed::from(explain::rows(&tables, error));
    let mut batches = rows.execute_stream().await.map_err(&failed)?;
    // What is wrong at once is an answer of its own, and no rows that break off.
    let first = batches.next().await.transpose().map_err(&failed)?;
    let mut writer = RowWriter::new(form, &schema).map_err(|e| internal(&e))?;
    let begun = match &first {
        Some(batch) => writer.write(batch),
        None => writer.end(),
    };
    let begun = begun.map_err(|e| internal(&e))?;
    let until = Instant::now() + service.settings().stream_deadline;
    let rest = futures::stream::try_unfold(
        (batches, first.is_some().then_some(writer)),
        move |(mut batches, writer)| async move {
            let Some(mut writer) = writer else { return Ok(None) };
            let Ok(batch) = tokio::time::timeout_at(until, batches.next()).await else {
                tracing::warn!("rows took too long, and were ended");
                return Err(std::io::Error::from(std::io::ErrorKind::TimedOut));
            };
            let batch = batch.transpose().map_err(|error| {
                tracing::warn!(%error, "rows ended early");
                std::io::Error::other(error)
            })?;
            let (text, writer) = match batch {
                Some(batch) => (writer.write(&batch), Some(writer)),
                None => (writer.end(), None),
            };
            Ok(Some((text.map_err(std::io::Error::other)?, (batches, writer))))
        },
    );
    let whole = futures::stream::once(std::future::ready(Ok(begun))).chain(rest);
    let mut answer = Response::new(Body::from_stream(whole));
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(VERSION_HEADER, HeaderValue::from(snapshot.version.get()));
    Ok(answer)
}

/// Rows that cannot be written in a form: NDJSON and CSV lack some types.
fn internal(error: &ArrowError) -> Failed {
    Failed::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "unsupported",
        format!("the rows have no such form: {error}"),
    )
}

impl From<Explained> for Failed {
    fn from(explained: Explained) -> Failed {
        match explained {
            Explained::Catalog(error) => error.into(),
            Explained::Engine(text) => CatalogError::failed(
                format!("the query engine failed: {text}"),
                WriteState::NotApplied,
            )
            .into(),
        }
    }
}

/// Names with commas between them, as in a line of CSV.
fn column_names(text: &str) -> Answer<Vec<String>> {
    let reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let mut lines = reader.into_records();
    match (lines.next(), lines.next()) {
        (Some(Ok(names)), None) => Ok(names.iter().map(str::to_owned).collect()),
        _ => Err(Failed::invalid(
            "columns: give names with commas between them, as in one line of CSV",
        )),
    }
}

/// Writes rows, and hands out what is written so far.
enum RowWriter {
    Arrow(Box<StreamWriter<Vec<u8>>>, SchemaRef),
    Ndjson(Box<Writer<Vec<u8>, LineDelimited>>, SchemaRef),
    Csv { header: bool, schema: SchemaRef },
}

impl RowWriter {
    fn new(form: Form, schema: &SchemaRef) -> Result<RowWriter, ArrowError> {
        let schema = SchemaRef::clone(schema);
        Ok(match form {
            Form::Arrow => {
                RowWriter::Arrow(Box::new(StreamWriter::try_new(Vec::new(), &schema)?), schema)
            }
            Form::Ndjson => {
                let writer = WriterBuilder::new().with_explicit_nulls(true).build(Vec::new());
                RowWriter::Ndjson(Box::new(writer), schema)
            }
            Form::Csv => RowWriter::Csv { header: true, schema },
        })
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        match self {
            RowWriter::Arrow(writer, schema) => {
                writer.write(&portable(batch, schema)?)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            RowWriter::Ndjson(writer, schema) => {
                writer.write(&portable(batch, schema)?)?;
                Ok(std::mem::take(writer.get_mut()))
            }
            RowWriter::Csv { header, schema } => csv_of(header, &portable(batch, schema)?),
        }
    }

    fn end(&mut self) -> Result<Vec<u8>, ArrowError> {
        match self {
            RowWriter::Arrow(writer, _) => {
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()))
            }
            RowWriter::Ndjson(writer, _) => {
                writer.finish()?;
                Ok(std::mem::take(writer.get_mut()))
            }
            // Of no rows the names stand there all the same.
            RowWriter::Csv { header: true, schema } => {
                csv_of(&mut true, &RecordBatch::new_empty(SchemaRef::clone(schema)))
            }
            RowWriter::Csv { .. } => Ok(Vec::new()),
        }
    }
}

fn csv_of(header: &mut bool, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut text = Vec::new();
    csv::WriterBuilder::new().with_header(*header).build(&mut text).write(batch)?;
    *header = false;
    Ok(text)
}
