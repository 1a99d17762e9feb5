//! Columns of type `void`, which other engines make: they hold nothing but null.

use delta::DeltaTable;
use delta::arrow::datatypes::{DataType as Arrow, Field, Schema};
use delta::logstore::CommitOrBytes;
use deltalakedb_catalog_core::ids::TableName;
use deltalakedb_catalog_engine::schema::{DataType, StructType};
use deltalakedb_log_store::{deltalake as delta, explain, fit};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Explained, Result, invalid};

/// Whether nothing but null is in the column, or in something in it.
#[must_use]
pub fn has_void(kind: &Arrow) -> bool {
    match kind {
        Arrow::Null => true,
        Arrow::Struct(fields) => fields.iter().any(|field| has_void(field.data_type())),
        Arrow::List(field) | Arrow::Map(field, _) => has_void(field.data_type()),
        _ => false,
    }
}

/// A value is not assigned to a column that makes null of it.
///
/// # Errors
/// `InvalidInput` for such a column.
pub fn takes_values(table: &TableName, field: &Field) -> Result<()> {
    if !has_void(field.data_type()) {
        return Ok(());
    }
    Err(invalid(format!(
        "table '{table}', column '{}' is of type void, which holds nothing but null: \
         `dl write --schema-mode merge` with rows that have the column gives it their type",
        field.name()
    )))
}

/// The table with the types of `target` in place of `void`: a commit of the transaction, if there is something
/// to change.
pub(super) async fn retyped(
    name: &TableName,
    mut table: DeltaTable,
    target: &Schema,
) -> Result<DeltaTable> {
    let state = table.snapshot().map_err(|e| explain::operation(name, e))?;
    let (version, mut metadata) = (state.version(), json!(state.metadata()));
    let mut schema = StructType::parse(metadata["schemaString"].as_str().unwrap_or_default())
        .map_err(Explained::Catalog)?;
    let mut changed = false;
    for field in &mut schema.fields {
        let Ok(new) = target.field_with_name(&field.name) else { continue };
        let Some(new) = fit::to_delta(new.data_type()) else { continue };
        changed |= retype(&mut field.data_type, &new);
    }
    if !changed {
        return Ok(table);
    }
    let mapped = metadata["configuration"]["delta.columnMapping.mode"].as_str();
    if mapped.is_some_and(|mode| mode != "none") {
        return Err(invalid(format!(
            "table '{name}' maps its columns to other names: a column of type void in it keeps its \
             type. Rename or drop it with the engine that made it"
        )));
    }
    if !has_ntz(&table, name)? && target.fields().iter().any(|field| is_ntz(field.data_type())) {
        return Err(invalid(format!(
            "table '{name}' has no column without time zones yet: give the column of type void \
             another type with --columns, as timestamp"
        )));
    }
    metadata["schemaString"] = Value::String(schema.to_json());
    let info = json!({ "commitInfo": { "operation": "WRITE", "operationParameters": {} } });
    let lines = format!("{info}\n{}\n", json!({ "metaData": metadata }));
    let log = table.log_store();
    log.write_commit_entry(version + 1, CommitOrBytes::LogBytes(lines.into()), Uuid::nil())
        .await
        .map_err(|e| explain::operation(name, e.into()))?;
    table.load().await.map_err(|e| explain::operation(name, e))?;
    Ok(table)
}

/// Whether the table's protocol has timestamps without zones.
fn has_ntz(table: &DeltaTable, name: &TableName) -> Result<bool> {
    let state = table.snapshot().map_err(|e| explain::operation(name, e))?;
    Ok(json!(state.protocol())["writerFeatures"]
        .as_array()
        .is_some_and(|features| features.iter().any(|feature| feature == "timestampNtz")))
}

fn is_ntz(kind: &Arrow) -> bool {
    match kind {
        Arrow::Timestamp(_, None) => true,
        Arrow::Struct(fields) => fields.iter().any(|field| is_ntz(field.data_type())),
        Arrow::List(field) | Arrow::Map(field, _) => is_ntz(field.data_type()),
        _ => false,
    }
}

/// Puts types in place of `void`. Whether there was one.
fn retype(mine: &mut DataType, new: &DataType) -> bool {
    match (mine, new) {
        (DataType::Void, DataType::Void) => false,
        (mine @ DataType::Void, new) => {
            *mine = new.clone();
            true
        }
        (DataType::Array { element: mine, .. }, DataType::Array { element: new, .. }) => {
            retype(mine, new)
        }
        (DataType::Map { key, value, .. }, DataType::Map { key: k, value: v, .. }) => {
            retype(key, k) | retype(value, v)
        }
        (DataType::Struct(mine), DataType::Struct(new)) => {
            let mut changed = false;
            for field in &mut mine.fields {
                if let Some(new) = new.field(&field.name) {
                    changed |= retype(&mut field.data_type, &new.data_type);
                }
            }
            changed
        }
        _ => false,
    }
}
