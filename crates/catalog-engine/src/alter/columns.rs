//! Adding, renaming, dropping and describing columns.

use serde_json::{Map, Value, json};

use super::mapping::{self, MAX_ID};
use super::{Step, Work};
use crate::schema::{DataType, StructField, StructType};
use deltalakedb_catalog_core::error::{CatalogError, Result};

/// Key of a field's metadata: what the column holds.
const COMMENT: &str = "comment";

impl Work<'_> {
    pub(super) fn comment(&mut self, column: &[String], text: Option<&str>) -> Result<Step> {
        let (parent, field) = self.field(column)?;
        match text {
            Some(text) => {
                field.metadata.insert(COMMENT.to_owned(), Value::from(text));
            }
            None => {
                field.metadata.remove(COMMENT);
            }
        }
        Ok(changed(&parent, field))
    }

    pub(super) fn set_nullable(&mut self, column: &[String]) -> Result<Step> {
        let (parent, field) = self.field(column)?;
        field.nullable = true;
        Ok(changed(&parent, field))
    }

    pub(super) fn add_column(
        &mut self,
        parent: &[String],
        name: &str,
        data_type: &DataType,
        comment: Option<&str>,
    ) -> Result<Step> {
        let mut field = StructField::new(name, data_type.clone(), true);
        if let Some(text) = comment {
            field.metadata.insert(COMMENT.to_owned(), Value::from(text));
        }
        let alone = StructType { fields: vec![field.clone()] };
        if self.mapped() {
            check_name(name)?;
        } else {
            alone.validate_new(&[])?;
        }
        // What is inside of it keeps the rules of a new table in any case.
        StructType { fields: vec![StructField::new("x", data_type.clone(), true)] }
            .validate_new(&[])?;
        if alone.any_type(&|t| *t == DataType::TimestampNtz) {
            self.need("timestampNtz")?;
        }
        if alone.any_type(&|t| *t == DataType::Variant) {
            self.need("variantType")?;
        }
        if self.mapped() {
            let mut next = mapping::max_id(&self.metadata, &self.schema);
            let uuid = &mut *self.uuid;
            mapping::assign(&mut field, &mut next, &mut |_| mapping::fresh(uuid()));
            self.metadata.configuration.insert(MAX_ID.to_owned(), Some(next.to_string()));
        }
        let found = struct_at(&mut self.schema, parent)?;
        free(found, parent, name, None)?;
        found.fields.push(field.clone());
        let columns = json!([{ "column": logged(parent, &field) }]);
        Ok(Step::new("ADD COLUMNS", json!({ "columns": columns.to_string() })))
    }

    pub(super) fn rename_column(&mut self, column: &[String], name: &str) -> Result<Step> {
        self.refuse_unmapped(column, "renamed")?;
        check_name(name)?;
        let column = self.exact(column)?;
        self.refuse_mentioned(&column, "renamed")?;
        let Some((last, parent)) = column.split_last() else {
            return Err(CatalogError::invalid("a column without a name"));
        };
        let found = struct_at(&mut self.schema, parent)?;
        free(found, parent, name, Some(last))?;
        if let Some(field) = found.fields.iter_mut().find(|field| field.name == *last) {
            name.clone_into(&mut field.name);
        }
        // Files' partition values are under the physical name, which stays.
        if parent.is_empty() {
            for partition in &mut self.metadata.partition_columns {
                if partition == last {
                    name.clone_into(partition);
                }
            }
        }
        let mut renamed = parent.to_vec();
        renamed.push(name.to_owned());
        let parameters =
            json!({ "oldColumnPath": dotted(&column), "newColumnPath": dotted(&renamed) });
        Ok(Step::new("RENAME COLUMN", parameters))
    }

    pub(super) fn drop_column(&mut self, column: &[String]) -> Result<Step> {
        self.refuse_unmapped(column, "dropped")?;
        let column = self.exact(column)?;
        let shown = column.join(".");
        if let [top] = column.as_slice()
            && self.metadata.partition_columns.contains(top)
        {
            return Err(CatalogError::invalid(format!(
                "column '{shown}' cannot be dropped: the table is partitioned by it"
            )));
        }
        self.refuse_mentioned(&column, "dropped")?;
        self.refuse_clustered(&column)?;
        let Some((last, parent)) = column.split_last() else {
            return Err(CatalogError::invalid("a column without a name"));
        };
        let partitions = self.metadata.partition_columns.clone();
        let found = struct_at(&mut self.schema, parent)?;
        let data = |field: &StructField| !parent.is_empty() || !partitions.contains(&field.name);
        if found.fields.iter().filter(|field| field.name != *last && data(field)).count() == 0 {
            return Err(CatalogError::invalid(format!(
                "column '{shown}' cannot be dropped: {} would have no column left that is stored in \
                 files",
                if parent.is_empty() {
                    "the table".to_owned()
                } else {
                    format!("'{}'", parent.join("."))
                }
            )));
        }
        found.fields.retain(|field| field.name != *last);
        let columns = json!([dotted(&column)]);
        Ok(Step::new("DROP COLUMNS", json!({ "columns": columns.to_string() })))
    }

    fn refuse_unmapped(&self, column: &[String], verb: &str) -> Result<()> {
        if self.mapped() {
            return Ok(());
        }
        Err(CatalogError::invalid(format!(
            "column '{}' cannot be {verb}: the table's files know columns by their names. Set the \
             property delta.columnMapping.mode=name first (a commit of its own): from then on only \
             readers and writers that know column mapping take the table",
            column.join(".")
        )))
    }

    /// A column's path as the schema spells it.
    fn exact(&mut self, column: &[String]) -> Result<Vec<String>> {
        let (mut path, field) = self.field(column)?;
        let name = field.name.clone();
        path.push(name);
        Ok(path)
    }

    /// A column, and the path of the struct that it is in.
    fn field(&mut self, column: &[String]) -> Result<(Vec<String>, &mut StructField)> {
        let Some((last, parent)) = column.split_last() else {
            return Err(CatalogError::invalid("a column without a name"));
        };
        let mut path = Vec::with_capacity(parent.len());
        let found = walk(&mut self.schema, parent, &mut path)?;
        let at = position(found, last, &column.join("."))?;
        match found.fields.get_mut(at) {
            Some(field) => Ok((path, field)),
            None => {
                Err(CatalogError::invalid(format!("there is no column '{}'", column.join("."))))
            }
        }
    }
}

fn struct_at<'a>(schema: &'a mut StructType, parent: &[String]) -> Result<&'a mut StructType> {
    walk(schema, parent, &mut Vec::new())
}

/// The struct at a path; `path` gets the names as the schema has them.
fn walk<'a>(
    schema: &'a mut StructType,
    rest: &[String],
    path: &mut Vec<String>,
) -> Result<&'a mut StructType> {
    let Some((first, rest)) = rest.split_first() else { return Ok(schema) };
    let shown = shown(path, first);
    let at = position(schema, first, &shown)?;
    let Some(field) = schema.fields.get_mut(at) else {
        return Err(CatalogError::invalid(format!("there is no column '{shown}'")));
    };
    path.push(field.name.clone());
    within(&mut field.data_type, rest, path)
}

fn within<'a>(
    data_type: &'a mut DataType,
    rest: &[String],
    path: &mut Vec<String>,
) -> Result<&'a mut StructType> {
    let part = rest.first().map(String::as_str);
    match (data_type, part) {
        (DataType::Struct(fields), _) => walk(fields, rest, path),
        (DataType::Array { element, .. }, Some("element")) => {
            path.push("element".to_owned());
            within(element, &rest[1..], path)
        }
        (DataType::Map { key, .. }, Some("key")) => {
            path.push("key".to_owned());
            within(key, &rest[1..], path)
        }
        (DataType::Map { value, .. }, Some("value")) => {
            path.push("value".to_owned());
            within(value, &rest[1..], path)
        }
        (other, _) => Err(CatalogError::invalid(format!(
            "'{}' is of type {other}, no struct: elements of arrays are named by `element`, keys and \
             values of maps by `key` and `value`",
            path.join(".")
        ))),
    }
}

fn shown(path: &[String], last: &str) -> String {
    let mut all = path.to_vec();
    all.push(last.to_owned());
    all.join(".")
}

/// Where a field is in its struct: an exact name wins, else the only one that differs by case.
fn position(fields: &StructType, name: &str, shown: &str) -> Result<usize> {
    if let Some(at) = fields.fields.iter().position(|field| field.name == name) {
        return Ok(at);
    }
    let lower = name.to_lowercase();
    let mut same =
        fields.fields.iter().enumerate().filter(|(_, field)| field.name.to_lowercase() == lower);
    match (same.next(), same.next()) {
        (Some((at, _)), None) => Ok(at),
        (Some(_), Some(_)) => Err(CatalogError::invalid(format!(
            "column '{shown}' is ambiguous: names differ by case alone"
        ))),
        (None, _) => {
            let known: Vec<_> = fields.fields.iter().map(|field| field.name.as_str()).collect();
            Err(CatalogError::invalid(format!(
                "unknown column '{shown}': there are {}",
                known.join(", ")
            )))
        }
    }
}

/// Refuses a name that is taken; `but` is the column that is to be renamed.
fn free(fields: &StructType, parent: &[String], name: &str, but: Option<&String>) -> Result<()> {
    let lower = name.to_lowercase();
    let taken = fields
        .fields
        .iter()
        .find(|field| field.name.to_lowercase() == lower && Some(&field.name) != but);
    match taken {
        Some(field) => Err(CatalogError::invalid(format!(
            "column '{}' is there already: names differ by more than case",
            shown(parent, &field.name)
        ))),
        None => Ok(()),
    }
}

/// A name as column mapping allows it.
fn check_name(name: &str) -> Result<()> {
    if name.trim().is_empty() {
        return Err(CatalogError::invalid("a column's name cannot be empty"));
    }
    if let Some(bad) = name.chars().find(|c| c.is_control()) {
        return Err(CatalogError::invalid(format!(
            "column '{}': the character {bad:?} cannot be in a name",
            name.escape_debug()
        )));
    }
    Ok(())
}

/// A path as Spark writes it: parts that hold a dot or a backtick stand in backticks.
fn dotted(path: &[String]) -> String {
    let quoted = |part: &String| {
        if part.contains(['.', '`']) {
            format!("`{}`", part.replace('`', "``"))
        } else {
            part.clone()
        }
    };
    path.iter().map(quoted).collect::<Vec<_>>().join(".")
}

/// A column as Spark's history shows it.
fn logged(parent: &[String], field: &StructField) -> Value {
    let kind = match &field.data_type {
        DataType::Struct(_) => "struct".to_owned(),
        DataType::Array { .. } => "array".to_owned(),
        DataType::Map { .. } => "map".to_owned(),
        other => other.to_string(),
    };
    let mut path = parent.to_vec();
    path.push(field.name.clone());
    let mut logged = Map::new();
    logged.insert("name".to_owned(), Value::from(dotted(&path)));
    logged.insert("type".to_owned(), Value::from(kind));
    logged.insert("nullable".to_owned(), Value::from(field.nullable));
    logged.insert("metadata".to_owned(), Value::Object(field.metadata.clone()));
    Value::Object(logged)
}

fn changed(parent: &[String], field: &StructField) -> Step {
    Step::new("CHANGE COLUMN", json!({ "column": logged(parent, field).to_string() }))
}
