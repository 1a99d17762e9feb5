//! Schemas of Delta tables (protocol section "Schema Serialization Format").
//!
//! A schema read from a log is kept as it is, types of newer writers included
//! ([`DataType::Other`]); [`StructType::validate_new`] is what a table of our own must pass.

mod json;
mod text;
mod validate;

use std::fmt;

use serde_json::{Map, Value};

use deltalakedb_catalog_core::error::{CatalogError, Result};

/// Why no file is written to a partition of binary values.
pub(crate) const BINARY: &str = "writers and readers do not agree on how its bytes are written as text, and \
                                 bytes that are no UTF-8 cannot be; partition by another column";

/// Key of a field's metadata: its name in data files, statistics and partition values.
pub const PHYSICAL_NAME: &str = "delta.columnMapping.physicalName";
/// Key of a field's metadata: its Parquet field id.
pub const FIELD_ID: &str = "delta.columnMapping.id";

/// Fields of a table, or of a nested struct.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StructType {
    /// The fields, in order.
    pub fields: Vec<StructField>,
}

/// A column, or a field of a nested struct.
#[derive(Debug, Clone, PartialEq)]
pub struct StructField {
    /// Logical name.
    pub name: String,
    /// Type.
    pub data_type: DataType,
    /// Whether it may be null.
    pub nullable: bool,
    /// Free-form metadata; keys of `delta.` belong to the protocol.
    pub metadata: Map<String, Value>,
}

/// Type of a column.
#[derive(Debug, Clone, PartialEq)]
pub enum DataType {
    /// `byte`: signed, 8 bits.
    Byte,
    /// `short`: signed, 16 bits.
    Short,
    /// `integer`: signed, 32 bits.
    Integer,
    /// `long`: signed, 64 bits.
    Long,
    /// `float`: IEEE 754, 32 bits.
    Float,
    /// `double`: IEEE 754, 64 bits.
    Double,
    /// `decimal(precision,scale)`.
    Decimal {
        /// Number of digits, 1 to 38.
        precision: u8,
        /// Digits after the point, at most `precision`.
        scale: u8,
    },
    /// `string`: UTF-8.
    String,
    /// `binary`.
    Binary,
    /// `boolean`.
    Boolean,
    /// `date`: days.
    Date,
    /// `timestamp`: microseconds, UTC.
    Timestamp,
    /// `timestamp_ntz`: microseconds without a time zone.
    TimestampNtz,
    /// `void`: always null, never stored in a data file.
    Void,
    /// `variant`: semi-structured.
    Variant,
    /// `array`.
    Array {
        /// Type of the elements.
        element: Box<DataType>,
        /// Whether an element may be null.
        contains_null: bool,
    },
    /// `map`.
    Map {
        /// Type of the keys, never null.
        key: Box<DataType>,
        /// Type of the values.
        value: Box<DataType>,
        /// Whether a value may be null.
        value_contains_null: bool,
    },
    /// `struct`.
    Struct(StructType),
    /// A type that no one here knows: its name, or its JSON object as text.
    Other(String),
}

impl DataType {
    /// Whether it is one value: not an array, map, struct or variant, nor unknown.
    #[must_use]
    pub fn is_primitive(&self) -> bool {
        !matches!(
            self,
            DataType::Variant
                | DataType::Array { .. }
                | DataType::Map { .. }
                | DataType::Struct(_)
                | DataType::Other(_)
        )
    }

    /// Whether it is a number.
    #[must_use]
    pub fn is_numeric(&self) -> bool {
        matches!(
            self,
            DataType::Byte
                | DataType::Short
                | DataType::Integer
                | DataType::Long
                | DataType::Float
                | DataType::Double
                | DataType::Decimal { .. }
        )
    }
}

impl fmt::Display for DataType {
    /// The protocol's name; nested types as in the text form: `array<string>`,
    /// `struct<street:string,zip:integer>`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            DataType::Byte => "byte",
            DataType::Short => "short",
            DataType::Integer => "integer",
            DataType::Long => "long",
            DataType::Float => "float",
            DataType::Double => "double",
            DataType::Decimal { precision, scale } => {
                return write!(f, "decimal({precision},{scale})");
            }
            DataType::String => "string",
            DataType::Binary => "binary",
            DataType::Boolean => "boolean",
            DataType::Date => "date",
            DataType::Timestamp => "timestamp",
            DataType::TimestampNtz => "timestamp_ntz",
            DataType::Void => "void",
            DataType::Variant => "variant",
            DataType::Array { element, contains_null } => {
                return write!(f, "array<{element}{}>", not_null(*contains_null));
            }
            DataType::Map { key, value, value_contains_null } => {
                return write!(f, "map<{key},{value}{}>", not_null(*value_contains_null));
            }
            DataType::Struct(fields) => {
                f.write_str("struct<")?;
                for (i, field) in fields.fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { "," };
                    write!(
                        f,
                        "{comma}{}:{}{}",
                        text::quoted(&field.name),
                        field.data_type,
                        not_null(field.nullable)
                    )?;
                }
                ">"
            }
            DataType::Other(name) => name,
        };
        f.write_str(name)
    }
}

fn not_null(nullable: bool) -> &'static str {
    if nullable { "" } else { " not null" }
}

impl fmt::Display for StructType {
    /// The text form: `id long not null, tags array<string>`. [`StructType::from_text`] reads it
    /// back; comments and other field metadata are left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, field) in self.fields.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(
                f,
                "{comma}{} {}{}",
                text::quoted(&field.name),
                field.data_type,
                not_null(field.nullable)
            )?;
        }
        Ok(())
    }
}

impl StructField {
    /// A field without metadata.
    #[must_use]
    pub fn new(name: impl Into<String>, data_type: DataType, nullable: bool) -> Self {
        StructField { name: name.into(), data_type, nullable, metadata: Map::new() }
    }

    /// Text in the field's metadata.
    #[must_use]
    pub fn metadata_text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).and_then(Value::as_str)
    }

    /// Name in data files, statistics and partition values under column mapping (protocol section
    /// "Column Mapping"); the logical name where the field has no other.
    #[must_use]
    pub fn physical_name(&self) -> &str {
        self.metadata_text(PHYSICAL_NAME).unwrap_or(&self.name)
    }
}

impl StructType {
    /// Reads `metaData.schemaString`.
    ///
    /// Lenient where writers have been: a missing `nullable` or `containsNull` is true, a missing
    /// `metadata` is empty, an unknown type is [`DataType::Other`].
    ///
    /// # Errors
    /// `InvalidInput` with the column's path (`addr.zip`, `tags.element`).
    pub fn parse(schema_string: &str) -> Result<StructType> {
        json::parse(schema_string)
    }

    /// Reads the compact text form:
    /// `id long not null, amount decimal(10,2), addr struct<street:string,zip:int>`.
    ///
    /// Names are bare words or quoted with backticks or double quotes. Types are the protocol's
    /// names or their SQL synonyms (`bigint`, `int`, `text`, …); a field may end in `not null` and
    /// `comment '…'`.
    ///
    /// # Errors
    /// `InvalidInput` with the position and what was expected there.
    pub fn from_text(text: &str) -> Result<StructType> {
        text::parse(text)
    }

    /// The schema as `metaData.schemaString`.
    #[must_use]
    pub fn to_json(&self) -> String {
        json::write(self)
    }

    /// Whether a table that is made here can be partitioned by this column, which it has.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub(crate) fn check_partition_column(&self, column: &str) -> std::result::Result<(), String> {
        validate::partition_column(self, column)
    }

    /// Checks what a new table of ours must keep: at least one field in each struct, names that
    /// differ by more than case and hold none of `` ,;{}()\n\t=`` or space (which Parquet and Spark
    /// refuse without column mapping), known and storable types, decimals of 1 to 38 digits, and
    /// partition columns that exist, are primitive and leave at least one column for the files.
    ///
    /// # Errors
    /// `InvalidInput` naming the column.
    pub fn validate_new(&self, partition_columns: &[String]) -> Result<()> {
        validate::validate_new(self, partition_columns)
    }

    /// Paths of what is of type `void`: columns, fields, elements of arrays, keys and values of maps.
    #[must_use]
    pub fn void_columns(&self) -> Vec<String> {
        let mut found = Vec::new();
        validate::void_in_struct("", self, &mut found);
        found
    }

    /// The top-level field of exactly this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&StructField> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// The fields along a path, outermost first: an exact name wins, else the only one that
    /// differs by case.
    ///
    /// # Errors
    /// `InvalidInput` naming the part that is not there and listing what is.
    pub fn resolve(&self, path: &[String]) -> Result<Vec<&StructField>> {
        let mut found = Vec::with_capacity(path.len());
        let mut level = Some(self);
        for (depth, part) in path.iter().enumerate() {
            let dotted = path[..=depth].join(".");
            let Some(fields) = level else {
                return Err(CatalogError::invalid(format!(
                    "column '{dotted}' does not exist: '{}' is not a struct",
                    path[..depth].join(".")
                )));
            };
            let field = match fields.field(part) {
                Some(field) => field,
                None => fields.resolve_any_case(part, &dotted)?,
            };
            found.push(field);
            level = match &field.data_type {
                DataType::Struct(inner) => Some(inner),
                _ => None,
            };
        }
        if found.is_empty() {
            return Err(CatalogError::invalid("a column without a name"));
        }
        Ok(found)
    }

    fn resolve_any_case(&self, part: &str, dotted: &str) -> Result<&StructField> {
        let lower = part.to_lowercase();
        let mut same = self.fields.iter().filter(|f| f.name.to_lowercase() == lower);
        match (same.next(), same.next()) {
            (Some(field), None) => Ok(field),
            (Some(a), Some(b)) => Err(CatalogError::invalid(format!(
                "column '{dotted}' is ambiguous: there are '{}' and '{}'",
                a.name, b.name
            ))),
            (None, _) => {
                let known: Vec<_> = self.fields.iter().map(|f| f.name.as_str()).collect();
                Err(CatalogError::invalid(format!(
                    "unknown column '{dotted}': there are {}",
                    known.join(", ")
                )))
            }
        }
    }

    /// Visits every field, nested ones in arrays and maps included, with its dotted path; stops at
    /// the first error.
    ///
    /// # Errors
    /// What `visit` returns.
    pub fn visit_fields(
        &self,
        visit: &mut dyn FnMut(&str, &StructField) -> Result<()>,
    ) -> Result<()> {
        fn within(
            prefix: &str,
            data_type: &DataType,
            visit: &mut dyn FnMut(&str, &StructField) -> Result<()>,
        ) -> Result<()> {
            match data_type {
                DataType::Struct(fields) => {
                    for field in &fields.fields {
                        let path = join(prefix, &field.name);
                        visit(&path, field)?;
                        within(&path, &field.data_type, visit)?;
                    }
                    Ok(())
                }
                DataType::Array { element, .. } => within(&join(prefix, "element"), element, visit),
                DataType::Map { key, value, .. } => {
                    within(&join(prefix, "key"), key, visit)?;
                    within(&join(prefix, "value"), value, visit)
                }
                _ => Ok(()),
            }
        }
        for field in &self.fields {
            visit(&field.name, field)?;
            within(&field.name, &field.data_type, visit)?;
        }
        Ok(())
    }

    /// Whether any type in it, at any depth, is one that `test` accepts.
    #[must_use]
    pub fn any_type(&self, test: &dyn Fn(&DataType) -> bool) -> bool {
        fn within(data_type: &DataType, test: &dyn Fn(&DataType) -> bool) -> bool {
            test(data_type)
                || match data_type {
                    DataType::Struct(fields) => fields.any_type(test),
                    DataType::Array { element, .. } => within(element, test),
                    DataType::Map { key, value, .. } => within(key, test) || within(value, test),
                    _ => false,
                }
        }
        self.fields.iter().any(|f| within(&f.data_type, test))
    }
}

/// `prefix.name`, or `name` at the top.
fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

#[cfg(test)]
mod tests;
