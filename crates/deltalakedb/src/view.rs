//! The JSON forms of results, the same from the command line and from the service: names of fields stay, times are Unix
//! milliseconds, sizes are bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use deltalakedb_catalog_core::action::{
    DeletionVector, DomainMetadata, NullableMap, Protocol, Txn,
};
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::frozen::Frozen;
use deltalakedb_catalog_core::ids::{TableId, TableRef, TimestampMs, Version};
use deltalakedb_catalog_core::model::{
    CommitRecord, FileRecord, MirrorMode, MirrorRow, MirrorState, Snapshot, TableRecord, TableState,
};
use deltalakedb_catalog_engine::features::{column_mapping_enabled, ict_enabled, is_append_only};
use deltalakedb_catalog_engine::fence;
use deltalakedb_catalog_engine::freeze::is_frozen;
use deltalakedb_catalog_engine::pages::each_page;
use deltalakedb_mirror::foreign::standing;
use futures::TryStreamExt;
use serde::Serialize;
use serde_json::Value;

use crate::Db;

/// Rows of the outbox that are read at a time, and most that a [`MirrorView`] shows.
const OUTBOX_PAGE: usize = 1_000;

/// A table's row.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TableView {
    /// `namespace.name`.
    pub table: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name in that namespace.
    pub name: String,
    /// Its id in the catalog.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: TableId,
    /// URL of the table's root.
    pub location: String,
    /// Where it is in its life.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub state: TableState,
    /// Latest version.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    pub version: Option<Version>,
    /// When that was committed.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    pub timestamp_ms: Option<TimestampMs>,
    /// When it came into the catalog.
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub created_at_ms: TimestampMs,
    /// When it was dropped.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    pub dropped_at_ms: Option<TimestampMs>,
    /// First version that can be read.
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub first_version: Version,
    /// Whether it is published.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub mirror: MirrorMode,
    /// Last version that is published.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    pub published_version: Option<Version>,
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FileView<'a> {
    /// As the log has it.
    pub path: &'a str,
    /// Size.
    pub size_bytes: i64,
    /// Rows, those that are deleted by a vector too; none if its statistics do not say.
    pub num_records: Option<u64>,
    /// Partition values as the log has them.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Option<String>>))]
    pub partition_values: &'a NullableMap,
    /// When it was written.
    pub modification_time_ms: i64,
    /// Version that added it.
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub added_version: Version,
    /// Statistics.
    pub stats: Option<Value>,
    /// Tags.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, Option<String>>>))]
    pub tags: Option<&'a NullableMap>,
    /// Unique id of its deletion vector.
    pub deletion_vector: Option<String>,
    /// Rows that the vector deletes.
    pub deleted_records: Option<i64>,
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CommitView {
    /// Version.
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub version: Version,
    /// When it was committed.
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub timestamp_ms: TimestampMs,
    /// What it did, by its writer.
    pub operation: Option<String>,
    /// A person if one is named, else the program.
    pub who: Option<String>,
    /// Token of its transaction.
    pub token: Option<String>,
    /// Files.
    pub files_added: u64,
    /// Files.
    pub files_removed: u64,
    /// Bytes.
    pub bytes_added: u64,
    /// Bytes, as far as known.
    pub bytes_removed: u64,
    /// Whether it sets metadata.
    pub changes_metadata: bool,
    /// Whether it sets the protocol.
    pub changes_protocol: bool,
    /// Files of the table after it.
    pub total_files: u64,
    /// Their bytes.
    pub total_bytes: u64,
    /// Its `commitInfo`.
    pub commit_info: Option<Value>,
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

/// A table at one version, in full.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SnapshotView {
    /// The table's row as it is now; `version` and `timestamp_ms` are those of the version that is shown.
    #[serde(flatten)]
    pub table: TableView,
    /// The latest version.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    pub head_version: Option<Version>,
    /// Files at this version.
    pub num_files: u64,
    /// Their sizes.
    pub size_bytes: u64,
    /// The id in the table's metadata.
    pub delta_id: String,
    /// What the table is for.
    pub description: Option<String>,
    /// When its metadata says that it was created.
    pub created_time_ms: Option<i64>,
    /// Version that set the metadata.
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub metadata_version: Version,
    /// Version that set the protocol.
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub protocol_version: Version,
    /// Protocol.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub protocol: Protocol,
    /// What of it is in force.
    pub features: FeaturesView,
    /// Partition columns.
    pub partition_columns: Vec<String>,
    /// Properties.
    pub properties: BTreeMap<String, String>,
    /// Schema, in Delta's JSON.
    pub schema: Option<Value>,
    /// Application transactions.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub app_transactions: Vec<Txn>,
    /// Domain metadata.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub domain_metadata: Vec<DomainMetadata>,
    /// How far planning goes through the skipping index.
    pub skipping_index: IndexView,
    /// None if the table is not frozen at this version.
    pub frozen: Option<FrozenView>,
}

/// Since when, by whom and why a table is frozen.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FrozenView {
    /// Version that froze it.
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub version: Version,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    pub since_ms: Option<TimestampMs>,
    /// By whom.
    pub user: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

impl From<&Frozen> for FrozenView {
    fn from(frozen: &Frozen) -> Self {
        FrozenView {
            version: frozen.version,
            since_ms: frozen.since,
            user: frozen.user.clone(),
            reason: frozen.reason.clone(),
        }
    }
}

/// A table's skipping index.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IndexView {
    /// Segments.
    pub segments: usize,
    /// Files in them, also those that are gone by now.
    pub files: i64,
}

/// Features of a table's protocol.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FeaturesView {
    /// Features that readers must know.
    pub reader: Vec<String>,
    /// Features that writers must know.
    pub writer: Vec<String>,
    /// Whether rows may not be deleted.
    pub append_only: bool,
    /// Whether commits carry their time.
    pub in_commit_timestamps: bool,
    /// Whether writers that do not go through the catalog are kept out.
    pub fence: bool,
    /// Whether all writers are kept out.
    pub frozen: bool,
    /// Whether columns have names of their own in files.
    pub column_mapping: bool,
}

impl From<&Snapshot> for FeaturesView {
    fn from(snapshot: &Snapshot) -> Self {
        let Snapshot { protocol, metadata, .. } = snapshot;
        FeaturesView {
            reader: protocol.reader_features.clone().unwrap_or_default(),
            writer: protocol.writer_features.clone().unwrap_or_default(),
            append_only: is_append_only(protocol, metadata),
            in_commit_timestamps: ict_enabled(protocol, metadata),
            fence: fence::is_up(protocol),
            frozen: is_frozen(protocol),
            column_mapping: column_mapping_enabled(metadata),
        }
    }
}

impl SnapshotView {
    /// Looks up what a snapshot does not have.
    ///
    /// # Errors
    /// `table_not_found` if there is no such table any more; those of the database.
    pub async fn look(db: &Db, snapshot: &Snapshot) -> Result<SnapshotView> {
        let id = snapshot.table.id;
        let app_transactions = db.reader().app_transactions(id, snapshot.version).await?;
        let domain_metadata = db.reader().domain_metadata(id, snapshot.version).await?;
        // Nothing rests on it: a login that may not read it sees none.
        let index = db.reader().skip_index(id).await.unwrap_or_default();
        let frozen = db.catalog().frozen(snapshot).await?;
        // The snapshot may be from the cache; the row is as of now.
        let record = db.catalog().table(&TableRef::Id(id)).await?;
        let Snapshot { metadata, protocol, .. } = snapshot;
        Ok(SnapshotView {
            table: TableView {
                version: Some(snapshot.version),
                timestamp_ms: Some(snapshot.timestamp),
                ..TableView::from(&record)
            },
            head_version: record.head,
            num_files: snapshot.num_files,
            size_bytes: snapshot.size_bytes,
            delta_id: metadata.id.clone(),
            description: metadata.description.clone(),
            created_time_ms: metadata.created_time,
            metadata_version: snapshot.metadata_version,
            protocol_version: snapshot.protocol_version,
            protocol: protocol.clone(),
            features: FeaturesView::from(snapshot),
            partition_columns: metadata.partition_columns.clone(),
            properties: properties(&metadata.configuration),
            schema: parsed(Some(&metadata.schema_string)),
            app_transactions,
            domain_metadata,
            skipping_index: IndexView {
                segments: index.segments.len(),
                files: index.segments.iter().map(|segment| segment.files).sum(),
            },
            frozen: frozen.as_ref().map(FrozenView::from),
        })
    }
}

/// How far publishing of a table is.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MirrorView {
    /// The table.
    #[serde(flatten)]
    pub table: TableView,
    /// Versions that are not published.
    pub unpublished: u64,
    /// Those of them whose last try failed.
    pub failed: u64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    /// Whether that is more than was asked for.
    pub late: bool,
    /// Tries of the first of them.
    pub attempts: u32,
    /// Why it is not published; of a table whose log has a foreign commit, what stands there.
    pub last_error: Option<String>,
    /// When it is tried again.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    pub retry_at_ms: Option<TimestampMs>,
    /// The first thousand of them, if they were asked for.
    pub versions: Vec<UnpublishedView>,
}

/// A version that is not published.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnpublishedView {
    /// Version.
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub version: Version,
    /// How it stands.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub state: MirrorState,
    /// Tries.
    pub attempts: u32,
    /// Why the last one failed.
    pub last_error: Option<String>,
    /// When it was committed.
    #[cfg_attr(feature = "openapi", schema(value_type = i64))]
    pub enqueued_at_ms: TimestampMs,
    /// When it is tried again.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<i64>))]
    pub retry_at_ms: Option<TimestampMs>,
}

impl MirrorView {
    /// Looks how far publishing of a table is; `late` is how long a version may wait, `versions` whether each is shown.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn look(
        db: &Db,
        record: &TableRecord,
        versions: bool,
        late: Duration,
    ) -> Result<MirrorView> {
        let now = db.clock().now();
        let (mut unpublished, mut failed) = (0_u64, 0_u64);
        let mut first: Option<MirrorRow> = None;
        let mut shown = Vec::new();
        let mut pages =
            each_page(|after| db.backend().mirror_rows(Some(record.id), None, after, OUTBOX_PAGE));
        while let Some(rows) = pages.try_next().await? {
            for row in rows {
                unpublished += 1;
                failed += u64::from(row.state == MirrorState::Failed);
                if versions && shown.len() < OUTBOX_PAGE {
                    shown.push(UnpublishedView {
                        version: row.version,
                        state: row.state,
                        attempts: row.attempts,
                        last_error: row.last_error.clone(),
                        enqueued_at_ms: row.enqueued_at,
                        retry_at_ms: row.retry_at,
                    });
                }
                first.get_or_insert(row);
            }
        }
        let oldest = first.as_ref().map_or(now, |row| row.enqueued_at);
        let lag = Duration::from_millis(u64::try_from(now.0.saturating_sub(oldest.0)).unwrap_or(0));
        Ok(MirrorView {
            table: TableView::from(record),
            unpublished,
            failed,
            lag_seconds: lag.as_secs_f64(),
            late: record.mirror != MirrorMode::Off && lag > late,
            attempts: first.as_ref().map_or(0, |row| row.attempts),
            retry_at_ms: first.as_ref().and_then(|row| row.retry_at),
            last_error: first
                .and_then(|row| row.last_error)
                .or_else(|| (record.mirror == MirrorMode::Diverged).then(|| standing(record))),
            versions: shown,
        })
    }
}

/// Partition values as paths show them: `day=2026-01-31/region=null`.
#[must_use]
pub fn partition(values: &NullableMap) -> String {
    let parts: Vec<String> = values
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("null")))
        .collect();
    parts.join("/")
}

/// Properties without a value are left out, as Delta does.
#[must_use]
pub fn properties(configuration: &NullableMap) -> BTreeMap<String, String> {
    let stated = configuration.iter().filter_map(|(key, value)| Some((key, value.as_deref()?)));
    stated.map(|(key, value)| (key.clone(), value.to_owned())).collect()
}

/// JSON text of a writer; text that is not JSON stays a string.
#[must_use]
pub fn parsed(text: Option<&str>) -> Option<Value> {
    text.map(|text| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())))
}

/// A library's report as JSON, with table names as text: `"table": "sales.orders"` instead of
/// `"name": {"namespace": "sales", "name": "orders"}`.
pub fn plain(report: &impl Serialize) -> Value {
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
