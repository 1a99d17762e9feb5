//! The JSON form of a schema.

use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{DataType, StructField, StructType, join};
use deltalakedb_catalog_core::error::{CatalogError, Result};

pub(super) fn parse(schema_string: &str) -> Result<StructType> {
    let value: Value = serde_json::from_str(schema_string)
        .map_err(|e| CatalogError::invalid(format!("the schema is not JSON: {e}")))?;
    match &value {
        Value::Object(object) if text(object, "type") == Some("struct") => read_struct("", object),
        _ => Err(CatalogError::invalid(
            "the schema is not a JSON object of \"type\":\"struct\" with \"fields\"",
        )),
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

fn fail<T>(path: &str, what: &str) -> Result<T> {
    Err(CatalogError::invalid(if path.is_empty() {
        format!("schema: {what}")
    } else {
        format!("schema, column '{path}': {what}")
    }))
}

fn read_struct(path: &str, object: &Map<String, Value>) -> Result<StructType> {
    let Some(Value::Array(list)) = object.get("fields") else {
        return fail(path, "a struct needs \"fields\", an array");
    };
    let mut fields = Vec::with_capacity(list.len());
    for (i, value) in list.iter().enumerate() {
        let Value::Object(field) = value else {
            return fail(path, &format!("field {} is not a JSON object", i + 1));
        };
        let Some(name) = text(field, "name") else {
            return fail(path, &format!("field {} has no \"name\"", i + 1));
        };
        let here = join(path, name);
        let data_type = read_type(&here, field.get("type"), "type")?;
        let metadata = match field.get("metadata") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(map)) => map.clone(),
            Some(_) => return fail(&here, "\"metadata\" is not a JSON object"),
        };
        fields.push(StructField {
            nullable: flag(&here, field, "nullable")?,
            name: name.to_owned(),
            data_type,
            metadata,
        });
    }
    Ok(StructType { fields })
}

/// A boolean whose absence means true: some writers leave it out.
fn flag(path: &str, object: &Map<String, Value>, key: &str) -> Result<bool> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(true),
        Some(Value::Bool(b)) => Ok(*b),
        Some(other) => fail(path, &format!("\"{key}\" is {other}, not true or false")),
    }
}

fn read_type(path: &str, value: Option<&Value>, key: &str) -> Result<DataType> {
    match value {
        Some(Value::String(name)) => read_name(path, name),
        Some(Value::Object(object)) => match text(object, "type") {
            Some("struct") => Ok(DataType::Struct(read_struct(path, object)?)),
            Some("array") => Ok(DataType::Array {
                element: Box::new(read_type(
                    &join(path, "element"),
                    object.get("elementType"),
                    "elementType",
                )?),
                contains_null: flag(path, object, "containsNull")?,
            }),
            Some("map") => Ok(DataType::Map {
                key: Box::new(read_type(&join(path, "key"), object.get("keyType"), "keyType")?),
                value: Box::new(read_type(
                    &join(path, "value"),
                    object.get("valueType"),
                    "valueType",
                )?),
                value_contains_null: flag(path, object, "valueContainsNull")?,
            }),
            Some(_) => Ok(DataType::Other(Value::Object(object.clone()).to_string())),
            None => fail(path, "a nested type without \"type\""),
        },
        Some(other) => fail(path, &format!("\"{key}\" is {other}, not a type")),
        None => fail(path, &format!("\"{key}\" is missing")),
    }
}

fn read_name(path: &str, name: &str) -> Result<DataType> {
    Ok(match name {
        "byte" => DataType::Byte,
        "short" => DataType::Short,
        "integer" => DataType::Integer,
        "long" => DataType::Long,
        "float" => DataType::Float,
        "double" => DataType::Double,
        "string" => DataType::String,
        "binary" => DataType::Binary,
        "boolean" => DataType::Boolean,
        "date" => DataType::Date,
        "timestamp" => DataType::Timestamp,
        "timestamp_ntz" => DataType::TimestampNtz,
        // Spark before 3.1 wrote "null".
        "void" | "null" => DataType::Void,
        "variant" => DataType::Variant,
        // Spark's default, which it leaves out.
        "decimal" => DataType::Decimal { precision: 10, scale: 0 },
        _ => match name.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')')) {
            Some(inside) => {
                let (precision, scale) = inside.split_once(',').unwrap_or((inside, "0"));
                match (precision.trim().parse(), scale.trim().parse()) {
                    (Ok(precision), Ok(scale)) => DataType::Decimal { precision, scale },
                    _ => {
                        return fail(
                            path,
                            &format!("bad type \"{name}\": decimal(precision,scale)"),
                        );
                    }
                }
            }
            None => DataType::Other(name.to_owned()),
        },
    })
}

pub(super) fn write(schema: &StructType) -> String {
    // Serializing maps with text keys into a string has no way to fail.
    serde_json::to_string(schema).unwrap_or_default()
}

impl Serialize for StructType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("StructType", 2)?;
        out.serialize_field("type", "struct")?;
        out.serialize_field("fields", &self.fields)?;
        out.end()
    }
}

impl Serialize for StructField {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("StructField", 4)?;
        out.serialize_field("name", &self.name)?;
        out.serialize_field("type", &self.data_type)?;
        out.serialize_field("nullable", &self.nullable)?;
        out.serialize_field("metadata", &self.metadata)?;
        out.end()
    }
}

impl Serialize for DataType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            DataType::Struct(fields) => fields.serialize(serializer),
            DataType::Array { element, contains_null } => {
                let mut out = serializer.serialize_struct("ArrayType", 3)?;
                out.serialize_field("type", "array")?;
                out.serialize_field("elementType", element)?;
                out.serialize_field("containsNull", contains_null)?;
                out.end()
            }
            DataType::Map { key, value, value_contains_null } => {
                let mut out = serializer.serialize_struct("MapType", 4)?;
                out.serialize_field("type", "map")?;
                out.serialize_field("keyType", key)?;
                out.serialize_field("valueType", value)?;
                out.serialize_field("valueContainsNull", value_contains_null)?;
                out.end()
            }
            // An object of an unknown kind; a name never parses as one.
            DataType::Other(text) if text.starts_with('{') => {
                match RawValue::from_string(text.clone()) {
                    Ok(raw) => raw.serialize(serializer),
                    Err(_) => serializer.serialize_str(text),
                }
            }
            simple => serializer.collect_str(simple),
        }
    }
}
