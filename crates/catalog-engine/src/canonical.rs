//! A table's files as strict readers can take them.
//!
//! Commits keep the bytes of their writers, and writers differ: partition values have many spellings
//! ([`PartitionValue`]), and statistics may be anything. Readers that are handed our files (the Delta kernel
//! below SQL and below the log store, and what reads a published checkpoint) fail as a whole on one such text,
//! so they are told the one spelling that all know, and only the statistics that can be used.

mod stats;

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::features::column_mapping_enabled;
use crate::predicate::PartitionValue;
use crate::schema::{BINARY, DataType, StructType};
use deltalakedb_catalog_core::action::{Action, Add, Metadata, NullableMap};
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::fields::Fields;
use stats::Columns;

/// What a table's files are rewritten by.
#[derive(Debug, Clone, Default)]
pub struct Canonical {
    /// Partition columns.
    partitions: Vec<Partition>,
    columns: Columns,
}

#[derive(Debug, Clone)]
struct Partition {
    /// Key in `partitionValues`.
    physical: String,
    name: String,
    data_type: DataType,
    nullable: bool,
}

impl Canonical {
    /// For files of a table with this schema. Where that cannot be read, no column is known: values stay.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Canonical {
        let schema = StructType::parse(&metadata.schema_string).unwrap_or_default();
        let mapped = column_mapping_enabled(metadata);
        let of_name = |name: &String| {
            let field = schema.field(name)?;
            let physical = if mapped { field.physical_name() } else { &field.name };
            Some(Partition {
                physical: physical.to_owned(),
                name: name.clone(),
                data_type: field.data_type.clone(),
                nullable: field.nullable,
            })
        };
        let partitions = metadata.partition_columns.iter().filter_map(of_name).collect();
        Canonical { partitions, columns: Columns::new(&schema, mapped) }
    }

    /// The value of a partition column, by its name in `partitionValues`; none if the text stands for none, or
    /// if there is no such column.
    #[must_use]
    pub fn partition_value(&self, physical: &str, text: Option<&str>) -> Option<PartitionValue> {
        let partition = self.partitions.iter().find(|p| p.physical == physical)?;
        PartitionValue::parse(&partition.data_type, text.unwrap_or_default())
    }

    /// Writes partition values in their one spelling; whether that changed anything. A text that stands for no
    /// value stays.
    pub fn partition_values(&self, values: &mut NullableMap) -> bool {
        let mut changed = false;
        for partition in &self.partitions {
            let Some(Some(text)) = values.get_mut(&partition.physical).map(|v| v.as_mut()) else {
                continue;
            };
            let Some(value) = PartitionValue::parse(&partition.data_type, text) else { continue };
            match value.to_text() {
                Some(canonical) if canonical == *text => {}
                canonical => {
                    values.insert(partition.physical.clone(), canonical);
                    changed = true;
                }
            }
        }
        changed
    }

    /// What keeps these values from being those of a file that is written: one that is no value of its column's
    /// type, null in a column that is not null, or a value of a binary column.
    ///
    /// # Errors
    /// The column, its text and its type, as part of a sentence.
    pub fn check_new_values(&self, values: &NullableMap) -> std::result::Result<(), String> {
        self.check_values(values)?;
        for partition in &self.partitions {
            let Partition { physical, name, data_type, nullable } = partition;
            let text = values.get(physical).and_then(Option::as_deref).unwrap_or_default();
            let value = PartitionValue::parse(data_type, text);
            if !nullable && value == Some(PartitionValue::Null) {
                return Err(format!(
                    "partition column '{name}' is not null, and has null (an empty string is null in a \
                     partition column)"
                ));
            }
            if let Some(PartitionValue::Binary(_)) = value {
                return Err(format!("partition column '{name}' is of type binary: {BINARY}"));
            }
        }
        Ok(())
    }

    /// What keeps values from being read: the first that is no value of its column's type.
    ///
    /// # Errors
    /// As [`Canonical::check_new_values`].
    pub fn check_values(&self, values: &NullableMap) -> std::result::Result<(), String> {
        for Partition { physical, name, data_type, .. } in &self.partitions {
            let text = values.get(physical).and_then(Option::as_deref).unwrap_or_default();
            let unknown = matches!(data_type, DataType::Other(_));
            if !unknown && PartitionValue::parse(data_type, text).is_none() {
                return Err(format!(
                    "partition column '{name}' has '{}', which is no {data_type}",
                    text.escape_debug()
                ));
            }
        }
        Ok(())
    }

    /// The statistics of a file, as far as they can be used; none if nothing can.
    #[must_use]
    pub fn stats<'t>(&self, text: &'t str) -> Option<Cow<'t, str>> {
        self.columns.usable(text)
    }

    /// A file as strict readers can take it.
    pub fn add(&self, add: &mut Add) {
        self.partition_values(&mut add.partition_values);
        self.stats_of(&mut add.stats);
    }

    /// Whether that changed anything.
    fn stats_of(&self, stats: &mut Option<String>) -> bool {
        let Some(text) = stats else { return false };
        let usable = match self.stats(text) {
            Some(Cow::Borrowed(_)) => return false,
            Some(Cow::Owned(usable)) => Some(usable),
            None => None,
        };
        *stats = usable;
        true
    }

    /// A commit as strict readers can take it; none if it stays as it is.
    ///
    /// # Errors
    /// `InvalidInput` for a line that is no action.
    pub fn commit(&self, ndjson: &str) -> Result<Option<String>> {
        changed_lines(ndjson, |line| self.line(line))
    }

    /// A line of a commit as strict readers can take it: the values of a file's action, and nothing else of
    /// it. None if it stays as it is.
    ///
    /// # Errors
    /// `InvalidInput` for a line that is no action.
    fn line(&self, line: &str) -> Result<Option<String>> {
        let partitioned = !self.partitions.is_empty() && line.contains("\"partitionValues\"");
        if !partitioned && !line.contains("\"stats\"") {
            return Ok(None);
        }
        let (name, values, stats) = match Action::parse(line)? {
            Action::Add(add) => ("add", Some(add.partition_values), add.stats),
            Action::Remove(remove) => ("remove", remove.partition_values, remove.stats),
            Action::Cdc(cdc) => ("cdc", Some(cdc.partition_values), None),
            _ => return Ok(None),
        };
        let (mut values, mut stats) = (values, stats);
        let mut changed = Vec::new();
        if values.as_mut().is_some_and(|values| self.partition_values(values)) {
            changed.push(("partitionValues", json(&values)?));
        }
        if self.stats_of(&mut stats) {
            changed.push(("stats", json(&stats)?));
        }
        if changed.is_empty() {
            return Ok(None);
        }
        with_fields(line, name, changed).map(Some)
    }
}

/// A commit in which no partition value is the empty string, which stands for null, but not to every
/// reader. None if it is so already.
///
/// # Errors
/// `InvalidInput` for a line that is no action.
pub fn without_empty_values(ndjson: &str) -> Result<Option<String>> {
    changed_lines(ndjson, empty_to_null)
}

/// The text with some lines changed; none if no line is.
fn changed_lines(
    text: &str,
    change: impl Fn(&str) -> Result<Option<String>>,
) -> Result<Option<String>> {
    let mut out: Option<String> = None;
    let mut done = 0;
    for line in text.split_inclusive('\n') {
        let at = done;
        done += line.len();
        let changed = change(line.trim_end_matches(['\r', '\n']))?;
        match (&mut out, changed) {
            (None, None) => {}
            (Some(out), None) => out.push_str(line),
            (out, Some(changed)) => {
                let out = out.get_or_insert_with(|| text[..at].to_owned());
                out.push_str(&changed);
                out.push('\n');
            }
        }
    }
    Ok(out)
}

fn empty_to_null(line: &str) -> Result<Option<String>> {
    if !line.contains("\"partitionValues\"") || !line.contains("\"\"") {
        return Ok(None);
    }
    let (name, values) = match Action::parse(line)? {
        Action::Add(add) => ("add", Some(add.partition_values)),
        Action::Remove(remove) => ("remove", remove.partition_values),
        Action::Cdc(cdc) => ("cdc", Some(cdc.partition_values)),
        _ => return Ok(None),
    };
    let Some(values) = values else { return Ok(None) };
    if !values.values().any(|value| value.as_deref() == Some("")) {
        return Ok(None);
    }
    let values: NullableMap = values
        .into_iter()
        .map(|(name, value)| (name, value.filter(|text| !text.is_empty())))
        .collect();
    with_fields(line, name, vec![("partitionValues", json(&values)?)]).map(Some)
}

fn json<T: serde::Serialize>(value: &T) -> Result<Box<RawValue>> {
    serde_json::value::to_raw_value(value)
        .map_err(|e| CatalogError::invalid(format!("cannot write a value of an action: {e}")))
}

/// The line with some fields of its action changed.
fn with_fields(
    line: &str,
    action: &str,
    changed: Vec<(&'static str, Box<RawValue>)>,
) -> Result<String> {
    let bad = |e: serde_json::Error| CatalogError::invalid(format!("bad '{action}' action: {e}"));
    let mut outer: Fields = serde_json::from_str(line).map_err(bad)?;
    let inner = outer.get(action).map_or("{}", RawValue::get);
    let mut inner: Fields = serde_json::from_str(inner).map_err(bad)?;
    for (name, value) in changed {
        inner.set(name, value);
    }
    outer.set(action, RawValue::from_string(inner.render()).map_err(bad)?);
    Ok(outer.render())
}

#[cfg(test)]
#[path = "canonical/tests.rs"]
mod tests;
