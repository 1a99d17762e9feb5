//! Files of a table as rows.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int64Builder, MapBuilder, RecordBatch, StringBuilder, TimestampMillisecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use deltalakedb::FileRecord;
use serde_json::Value;

use crate::failure::{Failure, INTERNAL, Result};

/// Columns of the list of files. The names that `deltalake` has in `get_add_actions()` are the same.
pub(crate) fn schema() -> SchemaRef {
    let entries = DataType::Struct(
        vec![Field::new("keys", DataType::Utf8, false), Field::new("values", DataType::Utf8, true)]
            .into(),
    );
    let map = DataType::Map(Arc::new(Field::new("entries", entries, false)), false);
    let time = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("size_bytes", DataType::Int64, false),
        Field::new("num_records", DataType::Int64, true),
        Field::new("partition_values", map, false),
        Field::new("modification_time", time, false),
        Field::new("added_version", DataType::Int64, false),
        Field::new("stats", DataType::Utf8, true),
        Field::new("deletion_vector", DataType::Utf8, true),
        Field::new("deleted_records", DataType::Int64, true),
    ]))
}

/// Files as one batch.
pub(crate) fn batch(files: &[FileRecord], schema: &SchemaRef) -> Result<RecordBatch> {
    let mut path = StringBuilder::new();
    let mut size = Int64Builder::new();
    let mut records = Int64Builder::new();
    let mut partition = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    let mut modified = TimestampMillisecondBuilder::new().with_timezone("UTC");
    let mut version = Int64Builder::new();
    let mut stats = StringBuilder::new();
    let mut vector = StringBuilder::new();
    let mut deleted = Int64Builder::new();
    let failed = |e| Failure::new(INTERNAL, format!("the list of files has no form: {e}"));
    for file in files {
        let add = &file.add;
        path.append_value(&add.path);
        size.append_value(add.size);
        let parsed: Option<Value> =
            add.stats.as_deref().and_then(|text| serde_json::from_str(text).ok());
        records.append_option(parsed.and_then(|stats| stats["numRecords"].as_i64()));
        for (key, value) in &add.partition_values {
            partition.keys().append_value(key);
            partition.values().append_option(value.as_deref());
        }
        partition.append(true).map_err(failed)?;
        modified.append_value(add.modification_time);
        version.append_value(file.cursor.added_version.get());
        stats.append_option(add.stats.as_deref());
        vector.append_option(
            add.deletion_vector.as_ref().map(deltalakedb::core::action::DeletionVector::unique_id),
        );
        deleted.append_option(add.deletion_vector.as_ref().map(|vector| vector.cardinality));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(path.finish()),
        Arc::new(size.finish()),
        Arc::new(records.finish()),
        Arc::new(partition.finish()),
        Arc::new(modified.finish()),
        Arc::new(version.finish()),
        Arc::new(stats.finish()),
        Arc::new(vector.finish()),
        Arc::new(deleted.finish()),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).map_err(failed)
}
