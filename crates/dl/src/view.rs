//! The JSON forms of results: field names are stable, times are Unix milliseconds, sizes bytes.

use std::collections::BTreeMap;

use deltalakedb::core::action::{DeletionVector, NullableMap};
use deltalakedb::core::ids::{TableId, TimestampMs, Version};
use deltalakedb::core::model::{CommitRecord, FileRecord, MirrorMode, TableRecord, TableState};
use serde::Serialize;
use serde_json::Value;

/// A table's row.
#[derive(Debug, Serialize)]
pub(crate) struct TableView {
    pub(crate) table: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) id: TableId,
    pub(crate) location: String,
    pub(crate) state: TableState,
    pub(crate) version: Option<Version>,
    pub(crate) timestamp_ms: Option<TimestampMs>,
    pub(crate) created_at_ms: TimestampMs,
    pub(crate) dropped_at_ms: Option<TimestampMs>,
    pub(crate) first_version: Version,
    pub(crate) mirror: MirrorMode,
    pub(crate) published_version: Option<Version>,
}

impl From<&TableRecord> for TableView {
    fn from(record: &TableRecord) -> Self {
        TableView {
            table: record.name.to_string(),
            namespace: record.name.namespace().to_owned(),
            name: record.name.name().to_owned(),
            id: record.id,
            location: record.location.clone(),
            state: record.state,
            version: record.head,
            timestamp_ms: record.head_timestamp,
            created_at_ms: record.created_at,
            dropped_at_ms: record.dropped_at,
            first_version: record.base_version,
            mirror: record.mirror,
            published_version: record.published_version,
        }
    }
}

/// A file of a table.
#[derive(Debug, Serialize)]
pub(crate) struct FileView<'a> {
    pub(crate) path: &'a str,
    pub(crate) size_bytes: i64,
    pub(crate) num_records: Option<u64>,
    pub(crate) partition_values: &'a NullableMap,
    pub(crate) modification_time_ms: i64,
    pub(crate) added_version: Version,
    pub(crate) stats: Option<Value>,
    pub(crate) tags: Option<&'a NullableMap>,
    pub(crate) deletion_vector: Option<String>,
    pub(crate) deleted_records: Option<i64>,
}

impl<'a> From<&'a FileRecord> for FileView<'a> {
    fn from(record: &'a FileRecord) -> Self {
        let add = &record.add;
        let stats = parsed(add.stats.as_deref());
        FileView {
            path: &add.path,
            size_bytes: add.size,
            num_records: stats.as_ref().and_then(|s| s.get("numRecords")).and_then(Value::as_u64),
            partition_values: &add.partition_values,
            modification_time_ms: add.modification_time,
            added_version: record.cursor.added_version,
            stats,
            tags: add.tags.as_ref(),
            deletion_vector: add.deletion_vector.as_ref().map(DeletionVector::unique_id),
            deleted_records: add.deletion_vector.as_ref().map(|dv| dv.cardinality),
        }
    }
}

/// A line of history.
#[derive(Debug, Serialize)]
pub(crate) struct CommitView {
    pub(crate) version: Version,
    pub(crate) timestamp_ms: TimestampMs,
    pub(crate) operation: Option<String>,
    pub(crate) who: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) files_added: u64,
    pub(crate) files_removed: u64,
    pub(crate) bytes_added: u64,
    pub(crate) bytes_removed: u64,
    pub(crate) changes_metadata: bool,
    pub(crate) changes_protocol: bool,
    pub(crate) total_files: u64,
    pub(crate) total_bytes: u64,
    pub(crate) commit_info: Option<Value>,
}

impl From<&CommitRecord> for CommitView {
    fn from(record: &CommitRecord) -> Self {
        let info = parsed(record.commit_info.as_deref());
        let text = |name: &str| {
            let value = info.as_ref()?.get(name)?;
            match value {
                Value::String(text) if !text.is_empty() => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            }
        };
        CommitView {
            version: record.version,
            timestamp_ms: record.timestamp,
            operation: text("operation"),
            // A person if one is named, else the program.
            who: ["userName", "userId", "engineInfo", "clientVersion"].into_iter().find_map(text),
            token: record.token.as_ref().map(|t| t.as_str().to_owned()),
            files_added: record.num_added,
            files_removed: record.num_removed,
            bytes_added: record.bytes_added,
            bytes_removed: record.bytes_removed,
            changes_metadata: record.changes_metadata,
            changes_protocol: record.changes_protocol,
            total_files: record.total_files,
            total_bytes: record.total_bytes,
            commit_info: info,
        }
    }
}

/// Partition values as paths show them: `day=2026-01-31/region=null`.
pub(crate) fn partition(values: &NullableMap) -> String {
    let parts: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("null")))
        .collect();
    parts.join("/")
}

/// Properties without a value are left out, as Delta does.
pub(crate) fn properties(configuration: &NullableMap) -> BTreeMap<&str, &str> {
    configuration
        .iter()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_deref()?)))
        .collect()
}

/// JSON text of a writer; text that is not JSON stays a string.
pub(crate) fn parsed(text: Option<&str>) -> Option<Value> {
    text.map(|text| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
}

/// A library's report as JSON, with table names as text: `"table": "sales.orders"` instead of
/// `"name": {"namespace": "sales", "name": "orders"}`.
pub(crate) fn plain(report: &impl Serialize) -> Value {
    let mut value = serde_json::to_value(report).unwrap_or(Value::Null);
    names_as_text(&mut value);
    value
}

fn names_as_text(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(names_as_text),
        Value::Object(map) => {
            map.values_mut().for_each(names_as_text);
            let text = map.get("name").and_then(|name| {
                let parts = name.as_object().filter(|o| o.len() == 2)?;
                let namespace = parts.get("namespace")?.as_str()?;
                Some(format!("{namespace}.{}", parts.get("name")?.as_str()?))
            });
            if let Some(text) = text {
                map.remove("name");
                map.insert("table".to_owned(), Value::String(text));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_become_text_at_any_depth() {
        let value = plain(&json!({
            "name": {"namespace": "a", "name": "b"},
            "tables": [{"name": {"namespace": "c", "name": "d"}}, {"name": "plain"}],
        }));
        assert_eq!(value, json!({"table": "a.b", "tables": [{"table": "c.d"}, {"name": "plain"}]}));
    }
}
