//! Ids and physical names of columns (protocol section "Column Mapping").

use serde_json::Value;
use uuid::Uuid;

use crate::schema::{DataType, FIELD_ID, PHYSICAL_NAME, StructField, StructType};
use deltalakedb_catalog_core::action::Metadata;

/// Property that turns it on.
pub(super) const MODE: &str = "delta.columnMapping.mode";
/// Property of the highest id that was ever given to a column.
pub(super) const MAX_ID: &str = "delta.columnMapping.maxColumnId";

/// The highest id so far: of the property, and of the columns that are there.
pub(super) fn max_id(metadata: &Metadata, schema: &StructType) -> i64 {
    let mut max = metadata.property(MAX_ID).and_then(|id| id.parse().ok()).unwrap_or(0);
    // Visiting does not fail.
    let _ = schema.visit_fields(&mut |_, field| {
        max = max.max(field.metadata.get(FIELD_ID).and_then(Value::as_i64).unwrap_or(0));
        Ok(())
    });
    max
}

/// Gives ids and physical names to a field and what is in it, where they have none. `name` makes a physical
/// name of a logical one.
pub(super) fn assign(
    field: &mut StructField,
    next: &mut i64,
    name: &mut dyn FnMut(&str) -> String,
) {
    if !field.metadata.contains_key(FIELD_ID) {
        *next += 1;
        field.metadata.insert(FIELD_ID.to_owned(), Value::from(*next));
    }
    if !field.metadata.contains_key(PHYSICAL_NAME) {
        let physical = name(&field.name);
        field.metadata.insert(PHYSICAL_NAME.to_owned(), Value::from(physical));
    }
    within(&mut field.data_type, next, name);
}

fn within(data_type: &mut DataType, next: &mut i64, name: &mut dyn FnMut(&str) -> String) {
    match data_type {
        DataType::Struct(fields) => {
            for field in &mut fields.fields {
                assign(field, next, name);
            }
        }
        DataType::Array { element, .. } => within(element, next, name),
        DataType::Map { key, value, .. } => {
            within(key, next, name);
            within(value, next, name);
        }
        _ => {}
    }
}

/// A physical name that no column ever had.
pub(super) fn fresh(uuid: Uuid) -> String {
    format!("col-{}", uuid.as_hyphenated())
}
