//! The classic REST API of Unity Catalog, as far as engines need it to find and read tables:
//! <https://docs.unitycatalog.io/swagger-docs>. A namespace is a schema there; the catalog has one name.
//!
//! What clients read are the published files: a table is as far as its publishing is.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use deltalakedb::access::Role;
use deltalakedb::view::properties;
use deltalakedb::{
    At, CatalogError, DataType, Snapshot, StructType, TableFilter, TableName, TableRecord, TableRef,
};
use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cursor::{self, AfterTable};
use crate::extract::{Asked, Body};
use crate::problem::Failed;
use crate::routes::{open, record};
use crate::state::{Caller, Service};

/// Tables that are opened at the same time.
const AT_A_TIME: usize = 8;

/// All routes of it.
pub(crate) fn router() -> Router<Service> {
    let routes = Router::new()
        .route("/catalogs", get(catalogs))
        .route("/catalogs/{catalog}", get(catalog))
        .route("/schemas", get(schemas))
        .route("/schemas/{schema}", get(schema))
        .route("/tables", get(tables))
        .route("/tables/{table}", get(table))
        .route("/temporary-table-credentials", post(credentials))
        .route("/metastore_summary", get(summary));
    Router::new().nest("/api/2.1/unity-catalog", routes)
}

/// An error in the form of this API.
pub(crate) struct Refused(Failed);

type Answer = Result<Json<Value>, Refused>;

impl<E: Into<Failed>> From<E> for Refused {
    fn from(error: E) -> Refused {
        Refused(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let problem = self.0.0;
        let code = match problem.code.as_str() {
            "table_not_found" => "TABLE_DOES_NOT_EXIST",
            "no_such_schema" => "SCHEMA_DOES_NOT_EXIST",
            "no_such_catalog" => "CATALOG_DOES_NOT_EXIST",
            "invalid_input" => "INVALID_PARAMETER_VALUE",
            "unsupported" => "UNIMPLEMENTED",
            "forbidden" => "PERMISSION_DENIED",
            "busy" | "unavailable" | "schema" => "TEMPORARILY_UNAVAILABLE",
            _ => "INTERNAL_ERROR",
        };
        let status = StatusCode::from_u16(problem.status);
        let body = json!({ "error_code": code, "message": problem.detail, "details": [] });
        (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Json(body)).into_response()
    }
}

fn no_catalog(name: &str) -> Failed {
    let text = format!("catalog {name:?} is not here: this service has one catalog, see /catalogs");
    Failed::new(StatusCode::NOT_FOUND, "no_such_catalog", text)
}

/// The name of the one catalog; fails if another one is asked for.
fn known<'s>(service: &'s Service, asked: &str) -> Result<&'s str, Failed> {
    let name = service.settings().catalog_name.as_str();
    if asked == name { Ok(name) } else { Err(no_catalog(asked)) }
}

/// What follows `catalog.` in a full name.
fn within<'n>(service: &Service, full: &'n str) -> Result<&'n str, Failed> {
    let name = service.settings().catalog_name.as_str();
    let rest = full.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
    rest.ok_or_else(|| no_catalog(full.split('.').next().unwrap_or(full)))
}

fn catalog_info(name: &str) -> Value {
    json!({ "name": name, "id": name, "comment": "Delta tables whose log is in a SQL database", "properties": {} })
}

fn schema_info(catalog: &str, name: &str) -> Value {
    json!({
        "name": name, "catalog_name": catalog, "full_name": format!("{catalog}.{name}"),
        "schema_id": format!("{catalog}.{name}"), "comment": null, "properties": {},
    })
}

async fn catalogs(State(service): State<Service>) -> Json<Value> {
    let one = catalog_info(&service.settings().catalog_name);
    Json(json!({ "catalogs": [one], "next_page_token": null }))
}

async fn catalog(State(service): State<Service>, Path(name): Path<String>) -> Answer {
    Ok(Json(catalog_info(known(&service, &name)?)))
}

async fn summary(State(service): State<Service>) -> Json<Value> {
    let name = &service.settings().catalog_name;
    Json(json!({ "metastore_id": name, "name": name }))
}

/// Which page of a list is asked for. Clients send more than this.
#[derive(Deserialize)]
struct Listing {
    catalog_name: String,
    schema_name: Option<String>,
    max_results: Option<u32>,
    page_token: Option<String>,
}

impl Listing {
    /// 0 means that the server chooses, and so does leaving it out: as much as a page may have, since there are clients
    /// that never ask for the next one.
    fn size(&self) -> usize {
        let wanted = self.max_results.filter(|wanted| *wanted > 0);
        wanted.map_or(cursor::MOST, |wanted| wanted as usize).min(cursor::MOST)
    }

    /// Where it starts.
    fn token(&self) -> Option<&str> {
        self.page_token.as_deref().filter(|token| !token.is_empty())
    }
}

async fn schemas(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Asked(page): Asked<Listing>,
) -> Answer {
    let catalog = known(&service, &page.catalog_name)?;
    let after: Option<String> = cursor::read(page.token())?;
    let found = service.db().namespaces(after.as_deref(), page.size()).await?;
    let next = found.next.as_ref().map(cursor::write).transpose()?;
    let schemas: Vec<Value> = found
        .items
        .iter()
        .filter(|name| caller.sees(name))
        .map(|name| schema_info(catalog, name))
        .collect();
    Ok(Json(json!({ "schemas": schemas, "next_page_token": next })))
}

async fn schema(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Path(full): Path<String>,
) -> Answer {
    let name = within(&service, &full)?;
    let filter = TableFilter { namespace: Some(name.to_owned()), state: None };
    let page = service.db().tables_page(&filter, None, 1).await?;
    if page.items.is_empty() || !caller.sees(name) {
        let text = format!("schema {full:?} is not here: a schema is the namespace of a table");
        return Err(Failed::new(StatusCode::NOT_FOUND, "no_such_schema", text).into());
    }
    Ok(Json(schema_info(&service.settings().catalog_name, name)))
}

async fn tables(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Asked(page): Asked<Listing>,
) -> Answer {
    let catalog = known(&service, &page.catalog_name)?;
    let Some(schema) = page.schema_name.clone() else {
        return Err(Failed::invalid("schema_name is missing").into());
    };
    let after: Option<AfterTable> = cursor::read(page.token())?;
    let after = after.map(|AfterTable(name, id)| (name, id));
    let filter = TableFilter { namespace: Some(schema), state: None };
    let found = service.db().tables_page(&filter, after.as_ref(), page.size()).await?;
    let next = found.next.map(|(name, id)| cursor::write(&AfterTable(name, id))).transpose()?;
    let seen = found.items.into_iter().filter(|table| caller.may(Role::Read, &table.name));
    let open = seen.map(|record| opened(&service, record));
    let opened = futures::stream::iter(open).buffered(AT_A_TIME);
    let opened: Vec<Option<Snapshot>> = opened.try_collect().await?;
    let tables: Vec<Value> =
        opened.iter().flatten().map(|snapshot| table_info(catalog, snapshot)).collect();
    Ok(Json(json!({ "tables": tables, "next_page_token": next })))
}

/// None if it was dropped since it was listed.
async fn opened(service: &Service, record: TableRecord) -> Result<Option<Snapshot>, CatalogError> {
    match service.db().snapshot(&TableRef::Id(record.id), At::Head).await {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(CatalogError::TableNotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn table(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Path(full): Path<String>,
) -> Answer {
    let name: TableName = within(&service, &full)?.parse().map_err(CatalogError::from)?;
    let snapshot = open(&service, &caller, Role::Read, &TableRef::Name(name), At::Head).await?;
    Ok(Json(table_info(&service.settings().catalog_name, &snapshot)))
}

fn table_info(catalog: &str, snapshot: &Snapshot) -> Value {
    let (table, metadata) = (&snapshot.table, &snapshot.metadata);
    let (schema, name) = (table.name.namespace(), table.name.name());
    json!({
        "name": name,
        "catalog_name": catalog,
        "schema_name": schema,
        "full_name": format!("{catalog}.{schema}.{name}"),
        // Engines go by the published files.
        "table_type": "EXTERNAL",
        "data_source_format": "DELTA",
        "columns": columns(metadata.schema_string.as_str(), &metadata.partition_columns),
        "storage_location": table.location,
        "comment": metadata.description,
        "properties": properties(&metadata.configuration),
        "owner": null,
        "created_at": table.created_at,
        "updated_at": snapshot.timestamp,
        "table_id": table.id,
    })
}

/// Columns; none of a schema that this program cannot read: the published log has it.
fn columns(schema_string: &str, partition_columns: &[String]) -> Vec<Value> {
    let Ok(schema) = StructType::parse(schema_string) else { return Vec::new() };
    let raw: Value = serde_json::from_str(schema_string).unwrap_or_default();
    let column = |(position, field): (usize, &deltalakedb::StructField)| {
        let (precision, scale) = match field.data_type {
            DataType::Decimal { precision, scale } => (precision, scale),
            _ => (0, 0),
        };
        json!({
            "name": field.name,
            "type_text": type_text(&field.data_type),
            "type_json": raw["fields"][position].to_string(),
            "type_name": type_name(&field.data_type),
            "type_precision": precision,
            "type_scale": scale,
            "type_interval_type": null,
            "position": position,
            "comment": field.metadata.get("comment").and_then(Value::as_str),
            "nullable": field.nullable,
            "partition_index": partition_columns.iter().position(|name| *name == field.name),
        })
    };
    schema.fields.iter().enumerate().map(column).collect()
}

/// A type as Spark writes it.
fn type_text(data_type: &DataType) -> String {
    match data_type {
        DataType::Byte => "tinyint".to_owned(),
        DataType::Short => "smallint".to_owned(),
        DataType::Integer => "int".to_owned(),
        DataType::Long => "bigint".to_owned(),
        DataType::Array { element, .. } => format!("array<{}>", type_text(element)),
        DataType::Map { key, value, .. } => {
            format!("map<{},{}>", type_text(key), type_text(value))
        }
        DataType::Struct(inner) => {
            let field = |f: &deltalakedb::StructField| {
                let plain = f.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                let name =
                    if plain { f.name.clone() } else { format!("`{}`", f.name.replace('`', "``")) };
                format!("{name}:{}", type_text(&f.data_type))
            };
            format!("struct<{}>", inner.fields.iter().map(field).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn type_name(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Byte => "BYTE",
        DataType::Short => "SHORT",
        DataType::Integer => "INT",
        DataType::Long => "LONG",
        DataType::Float => "FLOAT",
        DataType::Double => "DOUBLE",
        DataType::Decimal { .. } => "DECIMAL",
        DataType::String => "STRING",
        DataType::Binary => "BINARY",
        DataType::Boolean => "BOOLEAN",
        DataType::Date => "DATE",
        DataType::Timestamp => "TIMESTAMP",
        DataType::TimestampNtz => "TIMESTAMP_NTZ",
        DataType::Void => "NULL",
        DataType::Variant => "VARIANT",
        DataType::Array { .. } => "ARRAY",
        DataType::Map { .. } => "MAP",
        DataType::Struct(_) => "STRUCT",
        DataType::Other(_) => "USER_DEFINED_TYPE",
    }
}

#[derive(Deserialize)]
struct Wish {
    table_id: String,
    operation: String,
}

/// Credentials for a table's files. Local files need none.
async fn credentials(
    State(service): State<Service>,
    Extension(caller): Extension<Caller>,
    Body(wish): Body<Wish>,
) -> Answer {
    if !["READ", "READ_WRITE"].contains(&wish.operation.as_str()) {
        return Err(Failed::invalid("operation is READ or READ_WRITE").into());
    }
    let id = wish.table_id.parse().map_err(|e| Failed::invalid(format!("table_id: {e}")))?;
    let role = if wish.operation == "READ" { Role::Read } else { Role::Write };
    let table = record(&service, &caller, role, &TableRef::Id(id)).await?;
    if table.location.starts_with("file:") {
        return Ok(Json(json!({ "expiration_time": i64::MAX })));
    }
    let error = CatalogError::Unsupported(format!(
        "the service hands out no credentials yet: give the client its own for {}",
        table.location
    ));
    Err(error.into())
}
