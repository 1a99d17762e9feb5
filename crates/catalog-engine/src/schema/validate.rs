//! What the schema of a new table must keep.

use std::collections::BTreeMap;

use super::{BINARY, DataType, StructType, join};
use deltalakedb_catalog_core::error::{CatalogError, Result};

/// Characters that Parquet writers of Spark refuse in a name, and with them Delta where column
/// mapping is off.
const REFUSED: &str = " ,;{}()\n\t=";
/// Digits that a decimal can have.
const MAX_PRECISION: u8 = 38;

pub(super) fn validate_new(schema: &StructType, partition_columns: &[String]) -> Result<()> {
    check_struct("", schema)?;
    let mut seen: Vec<&str> = Vec::new();
    for column in partition_columns {
        let Some(field) = schema.field(column) else {
            let known: Vec<_> = schema.fields.iter().map(|f| f.name.as_str()).collect();
            return Err(CatalogError::invalid(format!(
                "unknown partition column '{column}': the schema has {}",
                known.join(", ")
            )));
        };
        if !field.data_type.is_primitive() {
            return Err(CatalogError::invalid(format!(
                "partition column '{column}' is of type {}: a table can only be partitioned by \
                 columns of a primitive type",
                field.data_type
            )));
        }
        partition_column(schema, column).map_err(CatalogError::invalid)?;
        if seen.contains(&column.as_str()) {
            return Err(CatalogError::invalid(format!(
                "partition column '{column}' is named twice"
            )));
        }
        seen.push(column);
    }
    if seen.len() == schema.fields.len() {
        return Err(CatalogError::invalid(
            "every column is a partition column: at least one must remain for the data files",
        ));
    }
    Ok(())
}

/// Whether values of the column can be written as text, and read back by every reader.
pub(super) fn partition_column(
    schema: &StructType,
    column: &str,
) -> std::result::Result<(), String> {
    match schema.field(column) {
        Some(field) if field.data_type == DataType::Binary => {
            Err(format!("partition column '{column}' is of type binary: {BINARY}"))
        }
        _ => Ok(()),
    }
}

fn check_struct(path: &str, fields: &StructType) -> Result<()> {
    if fields.fields.is_empty() {
        return Err(CatalogError::invalid(if path.is_empty() {
            "the schema has no columns: a table needs at least one".to_owned()
        } else {
            format!("column '{path}' is a struct without fields")
        }));
    }
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    for field in &fields.fields {
        let here = join(path, &field.name);
        if field.name.is_empty() {
            return Err(CatalogError::invalid(format!("column '{here}': a name cannot be empty")));
        }
        if let Some(bad) = field.name.chars().find(|c| REFUSED.contains(*c) || c.is_control()) {
            return Err(CatalogError::invalid(format!(
                "column '{}': the character {bad:?} cannot be in a name (nor can any of \
                 {REFUSED:?})",
                here.escape_debug()
            )));
        }
        if let Some(first) = names.insert(field.name.to_lowercase(), &field.name) {
            return Err(CatalogError::invalid(format!(
                "column '{here}' is there twice ('{first}' and '{}'): names differ by more than \
                 case",
                field.name
            )));
        }
        check_type(&here, &field.data_type)?;
    }
    Ok(())
}

pub(super) fn void_in_struct(path: &str, fields: &StructType, found: &mut Vec<String>) {
    for field in &fields.fields {
        void_in_type(&join(path, &field.name), &field.data_type, found);
    }
}

fn void_in_type(path: &str, data_type: &DataType, found: &mut Vec<String>) {
    match data_type {
        DataType::Void => found.push(path.to_owned()),
        DataType::Struct(fields) => void_in_struct(path, fields, found),
        DataType::Array { element, .. } => void_in_type(&join(path, "element"), element, found),
        DataType::Map { key, value, .. } => {
            void_in_type(&join(path, "key"), key, found);
            void_in_type(&join(path, "value"), value, found);
        }
        _ => {}
    }
}

fn check_type(path: &str, data_type: &DataType) -> Result<()> {
    match data_type {
        DataType::Struct(fields) => check_struct(path, fields),
        DataType::Array { element, .. } => check_type(&join(path, "element"), element),
        DataType::Map { key, value, .. } => {
            check_type(&join(path, "key"), key)?;
            check_type(&join(path, "value"), value)
        }
        DataType::Decimal { precision, scale } => {
            if (1..=MAX_PRECISION).contains(precision) && scale <= precision {
                return Ok(());
            }
            Err(CatalogError::invalid(format!(
                "column '{path}': {data_type} is out of range: a decimal has 1 to \
                 {MAX_PRECISION} digits, and its scale is at most as large"
            )))
        }
        DataType::Void => Err(CatalogError::invalid(format!(
            "column '{path}' is of type void, which no data file can hold: give it a type"
        ))),
        DataType::Other(name) => {
            Err(CatalogError::invalid(format!("column '{path}' is of the unknown type {name}")))
        }
        _ => Ok(()),
    }
}
