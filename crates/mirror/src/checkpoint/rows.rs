//! Actions as Arrow columns, and those as a Parquet file.
//!
//! Column names, nesting and nullability are those that the Delta kernel and Spark write: one
//! nullable struct column per kind of action, exactly one of them set in each row. No field ids.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, ListBuilder, MapBuilder, MapFieldNames,
    RecordBatch, StringArray, StringBuilder, StructArray, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use bytes::Bytes;
use deltalakedb_catalog_core::action::{DeletionVector, DomainMetadata, NullableMap, Sidecar, Txn};
use deltalakedb_catalog_core::error::Result;
use deltalakedb_catalog_core::model::{FileRecord, Snapshot, TombstoneRecord};
use deltalakedb_catalog_engine::canonical::Canonical;
use deltalakedb_catalog_engine::features;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::encode_error;
use super::parsed::Parsed;

/// A row group is closed once so much of it is encoded, bytes: that bounds what is held besides the
/// file itself.
const ROW_GROUP_BYTES: usize = 8 << 20;
/// Table feature of the V2 checkpoint spec.
pub(super) const V2_CHECKPOINT: &str = "v2Checkpoint";

/// What a file of a checkpoint holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// Everything: a checkpoint in one file.
    All,
    /// Everything but files, and which sidecars hold those.
    Manifest,
    /// Files and tombstones.
    Sidecar,
}

/// How partition values are spelt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Values {
    /// As in the commits: what is published says the same everywhere.
    AsWritten,
    /// As every reader can take them.
    Canonical,
}

fn required(name: &str, ty: DataType) -> Field {
    Field::new(name, ty, false)
}

fn optional(name: &str, ty: DataType) -> Field {
    Field::new(name, ty, true)
}

fn record(fields: Vec<Field>) -> DataType {
    DataType::Struct(Fields::from(fields))
}

/// Names as in Parquet's own description of maps; Arrow's default ones differ.
fn map_names() -> MapFieldNames {
    MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() }
}

fn map_type() -> DataType {
    let entries = record(vec![required("key", DataType::Utf8), optional("value", DataType::Utf8)]);
    DataType::Map(Arc::new(required("key_value", entries)), false)
}

fn list_type() -> DataType {
    DataType::List(Arc::new(optional("element", DataType::Utf8)))
}

fn vector_fields() -> Vec<Field> {
    vec![
        required("storageType", DataType::Utf8),
        required("pathOrInlineDv", DataType::Utf8),
        optional("offset", DataType::Int32),
        required("sizeInBytes", DataType::Int32),
        required("cardinality", DataType::Int64),
        optional("maxRowIndex", DataType::Int64),
    ]
}

static VECTOR: LazyLock<Fields> = LazyLock::new(|| vector_fields().into());

static TXN: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        required("appId", DataType::Utf8),
        required("version", DataType::Int64),
        optional("lastUpdated", DataType::Int64),
    ])
});

static ADD: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        required("path", DataType::Utf8),
        required("partitionValues", map_type()),
        required("size", DataType::Int64),
        required("modificationTime", DataType::Int64),
        required("dataChange", DataType::Boolean),
        optional("stats", DataType::Utf8),
        optional("tags", map_type()),
        optional("deletionVector", DataType::Struct(VECTOR.clone())),
        optional("baseRowId", DataType::Int64),
        optional("defaultRowCommitVersion", DataType::Int64),
        optional("clusteringProvider", DataType::Utf8),
    ])
});

static REMOVE: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        required("path", DataType::Utf8),
        optional("deletionTimestamp", DataType::Int64),
        required("dataChange", DataType::Boolean),
        optional("extendedFileMetadata", DataType::Boolean),
        optional("partitionValues", map_type()),
        optional("size", DataType::Int64),
        optional("tags", map_type()),
        optional("deletionVector", DataType::Struct(VECTOR.clone())),
        optional("baseRowId", DataType::Int64),
        optional("defaultRowCommitVersion", DataType::Int64),
    ])
});

static FORMAT: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![required("provider", DataType::Utf8), required("options", map_type())])
});

static METADATA: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        required("id", DataType::Utf8),
        optional("name", DataType::Utf8),
        optional("description", DataType::Utf8),
        required("format", DataType::Struct(FORMAT.clone())),
        required("schemaString", DataType::Utf8),
        required("partitionColumns", list_type()),
        optional("createdTime", DataType::Int64),
        required("configuration", map_type()),
    ])
});

static PROTOCOL: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        required("minReaderVersion", DataType::Int32),
        required("minWriterVersion", DataType::Int32),
        optional("readerFeatures", list_type()),
        optional("writerFeatures", list_type()),
    ])
});

static DOMAIN: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        required("domain", DataType::Utf8),
        required("configuration", DataType::Utf8),
        required("removed", DataType::Boolean),
    ])
});

static CHECKPOINT_METADATA: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![required("version", DataType::Int64), optional("tags", map_type())])
});

static SIDECAR: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        required("path", DataType::Utf8),
        required("sizeInBytes", DataType::Int64),
        required("modificationTime", DataType::Int64),
        optional("tags", map_type()),
    ])
});

fn schema(content: Content, v2: bool, add: &Fields) -> SchemaRef {
    let column = |name: &str, fields: &Fields| optional(name, DataType::Struct(fields.clone()));
    if content == Content::Sidecar {
        return Arc::new(Schema::new(vec![column("add", add), column("remove", &REMOVE)]));
    }
    let mut columns = vec![
        column("txn", &TXN),
        column("add", add),
        column("remove", &REMOVE),
        column("metaData", &METADATA),
        column("protocol", &PROTOCOL),
        column("domainMetadata", &DOMAIN),
    ];
    if v2 {
        columns.push(column("checkpointMetadata", &CHECKPOINT_METADATA));
    }
    if content == Content::Manifest {
        columns.push(column("sidecar", &SIDECAR));
    }
    Arc::new(Schema::new(columns))
}

/// Writes actions, batch by batch, into a Parquet file in memory.
pub(super) struct CheckpointEncoder {
    writer: ArrowWriter<Vec<u8>>,
    schema: SchemaRef,
    snapshot: Box<Snapshot>,
    v2: bool,
    parsed: Parsed,
    /// How files are seen.
    canonical: Canonical,
    values: Values,
    /// Columns of `add`.
    add: Fields,
    actions: u64,
}

impl CheckpointEncoder {
    pub(super) fn new(snapshot: &Snapshot, content: Content, values: Values) -> Result<Self> {
        let v2 = features::supports_writer(&snapshot.protocol, V2_CHECKPOINT);
        let parsed = Parsed::of(&snapshot.metadata);
        let canonical = Canonical::of(&snapshot.metadata);
        let add: Fields =
            ADD.iter().cloned().chain(parsed.fields().into_iter().map(Arc::new)).collect();
        let schema = schema(content, v2, &add);
        // Paths and statistics hardly repeat: a dictionary of them is wasted work.
        let plain = [["add", "path"], ["add", "stats"], ["remove", "path"]];
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("deltalakedb ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk);
        for path in plain {
            let path = ColumnPath::new(path.into_iter().map(str::to_owned).collect());
            properties = properties.set_column_dictionary_enabled(path, false);
        }
        // Arrow's own copy of the schema is of no use to Delta readers.
        let options = ArrowWriterOptions::new()
            .with_properties(properties.build())
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)
            .map_err(encode_error)?;
        let snapshot = Box::new(snapshot.clone());
        Ok(CheckpointEncoder {
            writer,
            schema,
            snapshot,
            v2,
            parsed,
            canonical,
            values,
            add,
            actions: 0,
        })
    }

    /// Everything but files: protocol, metadata, application transactions, domains.
    pub(super) fn small_actions(&mut self, txns: &[Txn], domains: &[DomainMetadata]) -> Result<()> {
        if self.v2 {
            let tags = maps([None].into_iter())?;
            let version = int64s([Some(self.snapshot.version.get())]);
            self.write("checkpointMetadata", &CHECKPOINT_METADATA, vec![version, tags])?;
        }
        let (protocol, metadata) = (self.protocol(), self.metadata()?);
        self.write("protocol", &PROTOCOL, protocol)?;
        self.write("metaData", &METADATA, metadata)?;
        if !txns.is_empty() {
            let columns = vec![
                texts(txns.iter().map(|t| Some(t.app_id.as_str()))),
                int64s(txns.iter().map(|t| Some(t.version))),
                int64s(txns.iter().map(|t| t.last_updated)),
            ];
            self.write("txn", &TXN, columns)?;
        }
        if !domains.is_empty() {
            let columns = vec![
                texts(domains.iter().map(|d| Some(d.domain.as_str()))),
                texts(domains.iter().map(|d| Some(d.configuration.as_str()))),
                flags(domains.iter().map(|_| Some(false))),
            ];
            self.write("domainMetadata", &DOMAIN, columns)?;
        }
        Ok(())
    }

    fn protocol(&self) -> Vec<ArrayRef> {
        let protocol = &self.snapshot.protocol;
        vec![
            int32s([Some(protocol.min_reader_version)]),
            int32s([Some(protocol.min_writer_version)]),
            list(protocol.reader_features.as_deref()),
            list(protocol.writer_features.as_deref()),
        ]
    }

    fn metadata(&self) -> Result<Vec<ArrayRef>> {
        let metadata = &self.snapshot.metadata;
        let format = vec![
            texts([Some(metadata.format.provider.as_str())]),
            maps([Some(&metadata.format.options)].into_iter())?,
        ];
        Ok(vec![
            texts([Some(metadata.id.as_str())]),
            texts([metadata.name.as_deref()]),
            texts([metadata.description.as_deref()]),
            Arc::new(StructArray::try_new(FORMAT.clone(), format, None).map_err(encode_error)?),
            texts([Some(metadata.schema_string.as_str())]),
            list(Some(&metadata.partition_columns)),
            int64s([metadata.created_time]),
            maps([Some(&metadata.configuration)].into_iter())?,
        ])
    }

    /// Active files. `dataChange` is false in checkpoints, as in those of other engines. Statistics are what of
    /// them can be used: a reader of a checkpoint fails on one file's statistics for all files.
    pub(super) fn adds(&mut self, files: &[FileRecord]) -> Result<()> {
        let adds = || files.iter().map(|f| &f.add);
        let json = self.parsed.json;
        let canonical = &self.canonical;
        let stats: Vec<Option<Cow<'_, str>>> =
            adds().map(|add| canonical.stats(add.stats.as_deref()?)).collect();
        let values: Vec<Cow<'_, NullableMap>> = adds()
            .map(|add| {
                if self.values == Values::AsWritten {
                    return Cow::Borrowed(&add.partition_values);
                }
                let mut values = add.partition_values.clone();
                canonical.partition_values(&mut values);
                Cow::Owned(values)
            })
            .collect();
        let mut columns = vec![
            texts(adds().map(|a| Some(a.path.as_str()))),
            maps(values.iter().map(|values| Some(values.as_ref())))?,
            int64s(adds().map(|a| Some(a.size))),
            int64s(adds().map(|a| Some(a.modification_time))),
            flags(adds().map(|_| Some(false))),
            texts(stats.iter().map(|stats| stats.as_deref().filter(|_| json))),
            maps(adds().map(|a| a.tags.as_ref()))?,
            vectors(adds().map(|a| a.deletion_vector.as_ref()))?,
            int64s(adds().map(|a| a.base_row_id)),
            int64s(adds().map(|a| a.default_row_commit_version)),
            texts(adds().map(|a| a.clustering_provider.as_deref())),
        ];
        let usable: Vec<Option<&str>> = stats.iter().map(Option::as_deref).collect();
        columns.extend(self.parsed.columns(adds(), &usable, canonical)?);
        let fields = self.add.clone();
        self.write("add", &fields, columns)
    }

    /// Tombstones that have not expired.
    pub(super) fn removes(&mut self, tombstones: &[TombstoneRecord]) -> Result<()> {
        let removes = || tombstones.iter().map(|t| &t.remove);
        let values: Vec<Option<NullableMap>> = removes()
            .map(|remove| {
                let mut values = remove.partition_values.clone();
                if let (Some(values), Values::Canonical) = (&mut values, self.values) {
                    self.canonical.partition_values(values);
                }
                values
            })
            .collect();
        let columns = vec![
            texts(removes().map(|r| Some(r.path.as_str()))),
            int64s(removes().map(|r| r.deletion_timestamp)),
            flags(removes().map(|_| Some(false))),
            flags(removes().map(|r| r.extended_file_metadata)),
            maps(values.iter().map(Option::as_ref))?,
            int64s(removes().map(|r| r.size)),
            maps(removes().map(|r| r.tags.as_ref()))?,
            vectors(removes().map(|r| r.deletion_vector.as_ref()))?,
            int64s(removes().map(|r| r.base_row_id)),
            int64s(removes().map(|r| r.default_row_commit_version)),
        ];
        self.write("remove", &REMOVE, columns)
    }

    /// Files that hold the files and tombstones.
    pub(super) fn sidecars(&mut self, sidecars: &[Sidecar]) -> Result<()> {
        if sidecars.is_empty() {
            return Ok(());
        }
        let columns = vec![
            texts(sidecars.iter().map(|s| Some(s.path.as_str()))),
            int64s(sidecars.iter().map(|s| Some(s.size_in_bytes))),
            int64s(sidecars.iter().map(|s| Some(s.modification_time))),
            maps(sidecars.iter().map(|s| s.tags.as_ref()))?,
        ];
        self.write("sidecar", &SIDECAR, columns)
    }

    /// Rows in which only this column is set.
    fn write(&mut self, name: &str, fields: &Fields, columns: Vec<ArrayRef>) -> Result<()> {
        let array = StructArray::try_new(fields.clone(), columns, None).map_err(encode_error)?;
        let rows = array.len();
        let array: ArrayRef = Arc::new(array);
        let columns = self
            .schema
            .fields()
            .iter()
            .map(|field| {
                if field.name() == name {
                    Arc::clone(&array)
                } else {
                    new_null_array(field.data_type(), rows)
                }
            })
            .collect();
        let batch =
            RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(encode_error)?;
        self.writer.write(&batch).map_err(encode_error)?;
        if self.writer.in_progress_size() > ROW_GROUP_BYTES {
            self.writer.flush().map_err(encode_error)?;
        }
        self.actions += u64::try_from(rows).unwrap_or(u64::MAX);
        Ok(())
    }

    /// The file, and how many actions are in it.
    pub(super) fn finish(self) -> Result<(Bytes, u64)> {
        let bytes = self.writer.into_inner().map_err(encode_error)?;
        Ok((bytes.into(), self.actions))
    }
}

fn texts<'a>(values: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<StringArray>())
}

fn int64s(values: impl IntoIterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int64Array>())
}

fn int32s(values: impl IntoIterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<Int32Array>())
}

fn flags(values: impl IntoIterator<Item = Option<bool>>) -> ArrayRef {
    Arc::new(values.into_iter().collect::<BooleanArray>())
}

/// One row of a list column.
fn list(values: Option<&[String]>) -> ArrayRef {
    let mut builder =
        ListBuilder::new(StringBuilder::new()).with_field(optional("element", DataType::Utf8));
    match values {
        None => builder.append_null(),
        Some(values) => builder.append_value(values.iter().map(Some)),
    }
    Arc::new(builder.finish())
}

fn maps<'a>(values: impl Iterator<Item = Option<&'a NullableMap>>) -> Result<ArrayRef> {
    let mut builder =
        MapBuilder::new(Some(map_names()), StringBuilder::new(), StringBuilder::new());
    for value in values {
        for (key, value) in value.into_iter().flatten() {
            builder.keys().append_value(key);
            builder.values().append_option(value.as_deref());
        }
        builder.append(value.is_some()).map_err(encode_error)?;
    }
    Ok(Arc::new(builder.finish()))
}

fn vectors<'a>(
    values: impl Iterator<Item = Option<&'a DeletionVector>> + Clone,
) -> Result<ArrayRef> {
    // Required fields hold a placeholder in the rows where the struct is null.
    let text = |get: fn(&DeletionVector) -> &str| -> ArrayRef {
        texts(values.clone().map(|v| Some(v.map_or("", get))))
    };
    let columns = vec![
        text(|v| &v.storage_type),
        text(|v| &v.path_or_inline_dv),
        int32s(values.clone().map(|v| v.and_then(|v| v.offset))),
        int32s(values.clone().map(|v| Some(v.map_or(0, |v| v.size_in_bytes)))),
        int64s(values.clone().map(|v| Some(v.map_or(0, |v| v.cardinality)))),
        int64s(values.clone().map(|v| v.and_then(|v| v.max_row_index))),
    ];
    let nulls: NullBuffer = values.map(|v| v.is_some()).collect();
    Ok(Arc::new(StructArray::try_new(VECTOR.clone(), columns, Some(nulls)).map_err(encode_error)?))
}
