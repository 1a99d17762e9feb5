//! Checkpoints (protocol section "Checkpoints"): V1 in one or several Parquet files, V2 with a
//! Parquet or JSON manifest and sidecars, under classic and UUID names, read batch by batch.
//!
//! Columns are found by name and may be missing. `add.partitionValues_parsed` is never read;
//! `add.stats_parsed` only where a file lacks `add.stats`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use deltalakedb_catalog_core::action::{
    Action, Add, DomainMetadata, Format, Metadata, Protocol, Remove, Sidecar, Txn,
};
use deltalakedb_catalog_core::commit::read_ndjson;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::Version;
use deltalakedb_catalog_core::lenient::{self, Oddities, Oddity};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use percent_encoding::percent_decode_str;

use super::columns::{FileColumns, Record};
use super::listing::{CheckpointFiles, CheckpointKind, LogName, SIDECARS};
use super::object_reader::ObjectReader;
use super::read_error;
use super::stats::StatsWriter;
use crate::store::LogDir;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 4096;
/// Footers read at the same time.
const PARALLEL_FOOTERS: usize = 8;
/// Refuses JSON manifests beyond this: their files belong into sidecars.
const MAX_MANIFEST_BYTES: u64 = 1 << 30;

/// A file action of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub enum FileAction {
    /// A file of the table.
    Add(Add),
    /// A tombstone.
    Remove(Remove),
}

/// All of a checkpoint but its files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CheckpointTail {
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// Metadata.
    pub metadata: Option<Metadata>,
    /// Application transactions.
    pub txns: Vec<Txn>,
    /// Domain metadata in force.
    pub domain_metadata: Vec<DomainMetadata>,
    /// Files that hold the file actions of a V2 checkpoint.
    pub sidecars: Vec<Sidecar>,
}

impl CheckpointTail {
    fn take(&mut self, action: Action) -> Option<FileAction> {
        match action {
            Action::Add(a) => return Some(FileAction::Add(a)),
            Action::Remove(r) => return Some(FileAction::Remove(r)),
            Action::Protocol(p) => self.protocol = Some(p),
            Action::Metadata(m) => self.metadata = Some(m),
            Action::Txn(t) => self.txns.push(t),
            Action::DomainMetadata(d) if !d.removed => self.domain_metadata.push(d),
            Action::Sidecar(s) => self.sidecars.push(s),
            _ => {}
        }
        None
    }
}

/// An opened checkpoint: its small actions are read, all of its files are known to be there.
#[derive(Debug)]
pub struct CheckpointReader {
    /// Version whose state it holds.
    pub version: Version,
    tail: CheckpointTail,
    store: Arc<dyn ObjectStore>,
    inline: Vec<FileAction>,
    parquet: Vec<ParquetPart>,
    manifest_name: String,
    odd: Oddities,
}

#[derive(Debug, Clone)]
struct ParquetPart {
    path: Path,
    /// The path as messages name it.
    shown: String,
    size: u64,
    metadata: ArrowReaderMetadata,
}

impl CheckpointReader {
    /// Opens a checkpoint: reads all but its files, and the footers of all Parquet files.
    ///
    /// # Errors
    /// `Corrupt` naming the file that cannot be read, or the action that is missing: a checkpoint
    /// without protocol or metadata is none.
    pub async fn open(
        store: &Arc<dyn ObjectStore>,
        log_dir: &LogDir,
        files: &CheckpointFiles,
    ) -> Result<CheckpointReader> {
        let mut tail = CheckpointTail::default();
        let mut inline = Vec::new();
        let mut parquet = Vec::new();
        let mut odd = Oddities::default();
        if files.kind == CheckpointKind::V2Json {
            for file in &files.files {
                let name = log_dir.shown(&file.path);
                let bytes = read_manifest(store, &file.path, &name, file.size).await?;
                let actions = read_ndjson(&format!("checkpoint '{name}'"), &bytes, &mut odd)
                    .map_err(|e| CatalogError::corrupt(e.to_string()))?;
                inline.extend(actions.into_iter().filter_map(|action| tail.take(action)));
            }
        } else {
            let files = files.files.iter().map(|f| (f.path.clone(), f.size));
            parquet = open_parts(store, log_dir, files).await?;
            for part in &parquet {
                let mut batches = part.batches(store, &SMALL_ACTIONS)?;
                while let Some(batch) = batches.try_next().await? {
                    read_small_actions(&part.shown, &batch, &mut tail, &mut odd)?;
                }
            }
        }
        let sidecars = tail
            .sidecars
            .iter()
            .map(|s| sidecar_file(&log_dir.path, s))
            .collect::<Result<Vec<_>>>()?;
        parquet.extend(open_parts(store, log_dir, sidecars.into_iter()).await?);
        for part in &parquet {
            odd_columns(part.metadata.schema(), &mut odd);
        }
        if let Some(metadata) = &mut tail.metadata {
            let mut noted = Vec::new();
            lenient::complete(metadata, &mut noted);
            for oddity in noted {
                odd.note(oddity, 0);
            }
        }
        let reader = CheckpointReader {
            version: files.version,
            tail,
            store: Arc::clone(store),
            inline,
            parquet,
            manifest_name: files.name().to_owned(),
            odd,
        };
        reader.state()?;
        Ok(reader)
    }

    /// What of its small actions is written in another way than the protocol's.
    #[must_use]
    pub fn odd(&self) -> &Oddities {
        &self.odd
    }

    /// All but the files.
    #[must_use]
    pub fn tail(&self) -> &CheckpointTail {
        &self.tail
    }

    /// Protocol and metadata.
    ///
    /// # Errors
    /// `Corrupt` if there is none, which [`CheckpointReader::open`] has checked.
    pub fn state(&self) -> Result<(&Protocol, &Metadata)> {
        let missing = |what: &str| {
            CatalogError::corrupt(format!(
                "checkpoint '{}' has no {what} action",
                self.manifest_name
            ))
        };
        Ok((
            self.tail.protocol.as_ref().ok_or_else(|| missing("protocol"))?,
            self.tail.metadata.as_ref().ok_or_else(|| missing("metaData"))?,
        ))
    }

    /// Number of rows that have to be read at most, for progress.
    #[must_use]
    pub fn rows(&self) -> u64 {
        let parquet = self.parquet.iter().map(|p| p.metadata.metadata().file_metadata().num_rows());
        let rows = parquet.filter_map(|n| u64::try_from(n).ok()).fold(0, u64::saturating_add);
        rows.saturating_add(u64::try_from(self.inline.len()).unwrap_or(u64::MAX))
    }

    /// Files and tombstones in the order of the checkpoint, which is the same each time.
    ///
    /// # Errors
    /// `Corrupt` naming the file that cannot be read.
    pub fn files(&self) -> BoxStream<'static, Result<Vec<FileAction>>> {
        let inline = stream::iter((!self.inline.is_empty()).then(|| Ok(self.inline.clone())));
        let store = Arc::clone(&self.store);
        let parquet = stream::iter(self.parquet.clone())
            .then(move |part| {
                let store = Arc::clone(&store);
                async move {
                    let batches = part.batches(&store, &FILE_ACTIONS)?;
                    let name = part.shown;
                    Ok::<_, CatalogError>(batches.map(move |batch| file_actions(&name, &batch?)))
                }
            })
            .try_flatten();
        inline.chain(parquet).boxed()
    }
}

/// Names of the sidecars that a checkpoint file needs, relative to the log folder.
///
/// # Errors
/// `Corrupt` if the file cannot be read.
pub(crate) fn sidecar_names(name: &str, bytes: Bytes) -> Result<Vec<String>> {
    let mut tail = CheckpointTail::default();
    if matches!(LogName::parse(name), LogName::UuidCheckpoint { json: true, .. }) {
        let odd = &mut Oddities::default();
        let actions = read_ndjson(&format!("checkpoint '{name}'"), &bytes, odd)
            .map_err(|e| CatalogError::corrupt(e.to_string()))?;
        for action in actions {
            tail.take(action);
        }
    } else {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)
            .map_err(|e| unreadable(name, &e))?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["sidecar"]);
        let batches = builder.with_projection(mask).build().map_err(|e| unreadable(name, &e))?;
        for batch in batches {
            let batch = batch.map_err(|e| unreadable(name, &e))?;
            read_small_actions(name, &batch, &mut tail, &mut Oddities::default())?;
        }
    }
    tail.sidecars.iter().map(|s| Ok(format!("{SIDECARS}{}", sidecar_name(s)?))).collect()
}

/// Columns of integers and of text, which may have any type that holds such.
const COLUMNS: [(&str, &[&str], &[&str]); 4] = [
    ("add", &["size", "modificationTime", "baseRowId"], &["path", "stats"]),
    ("remove", &["size", "deletionTimestamp"], &["path", "stats"]),
    ("metaData", &["createdTime"], &["id", "schemaString"]),
    ("txn", &["version", "lastUpdated"], &["appId"]),
];

/// Notes columns whose values are converted.
fn odd_columns(schema: &Schema, odd: &mut Oddities) {
    for (action, integers, texts) in COLUMNS {
        let Ok(DataType::Struct(fields)) = schema.field_with_name(action).map(Field::data_type)
        else {
            continue;
        };
        for field in fields {
            let name = field.name().as_str();
            let found = field.data_type();
            let is_text = match found {
                DataType::Dictionary(_, values) => values.is_string(),
                other => other.is_string() || other.is_null(),
            };
            if integers.contains(&name) && !found.is_integer() && !found.is_null()
                || texts.contains(&name) && !is_text
            {
                let column = format!("{action}.{name}");
                odd.note(Oddity::ColumnType { column, found: found.to_string() }, 0);
            }
        }
    }
}

async fn read_manifest(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    shown: &str,
    size: u64,
) -> Result<bytes::Bytes> {
    if size > MAX_MANIFEST_BYTES {
        return Err(CatalogError::corrupt(format!(
            "checkpoint '{shown}' is a JSON manifest of {size} bytes, at most {MAX_MANIFEST_BYTES} \
             are read"
        )));
    }
    let what = format!("checkpoint '{shown}'");
    let got = store.get(path).await.map_err(|e| read_error(&what, &e))?;
    got.bytes().await.map_err(|e| read_error(&what, &e))
}

/// A sidecar's `path` is URI-encoded and may be a full URI, but always lies in `_sidecars/`.
fn sidecar_file(log_dir: &Path, sidecar: &Sidecar) -> Result<(Path, u64)> {
    let name = sidecar_name(sidecar)?;
    let size = u64::try_from(sidecar.size_in_bytes).map_err(|_| bad_sidecar(sidecar))?;
    Ok((log_dir.clone().join("_sidecars").join(name.as_str()), size))
}

/// Its name in the folder of sidecars.
fn sidecar_name(sidecar: &Sidecar) -> Result<String> {
    let name = sidecar.path.rsplit('/').next().filter(|n| !n.is_empty());
    let name = name.ok_or_else(|| bad_sidecar(sidecar))?;
    let name = percent_decode_str(name).decode_utf8().map_err(|_| bad_sidecar(sidecar))?;
    Ok(name.into_owned())
}

fn bad_sidecar(sidecar: &Sidecar) -> CatalogError {
    CatalogError::corrupt(format!("bad sidecar path '{}'", sidecar.path))
}

async fn open_parts(
    store: &Arc<dyn ObjectStore>,
    log_dir: &LogDir,
    files: impl Iterator<Item = (Path, u64)>,
) -> Result<Vec<ParquetPart>> {
    stream::iter(files)
        .map(|(path, size)| async move {
            // The size in a sidecar action may be wrong: what the store says counts.
            let mut size = size;
            let mut loaded = load_footer(store, &path, size).await;
            if loaded.is_err()
                && let Ok(meta) = store.head(&path).await
                && meta.size != size
            {
                size = meta.size;
                loaded = load_footer(store, &path, size).await;
            }
            let shown = log_dir.shown(&path);
            let metadata = loaded.map_err(|e| unreadable(&shown, &e))?;
            Ok(ParquetPart { path, shown, size, metadata })
        })
        .buffered(PARALLEL_FOOTERS)
        .try_collect()
        .await
}

async fn load_footer(
    store: &Arc<dyn ObjectStore>,
    path: &Path,
    size: u64,
) -> Result<ArrowReaderMetadata, ParquetError> {
    let mut reader = ObjectReader::new(Arc::clone(store), path.clone(), size);
    // A writer's embedded Arrow schema must not change what columns mean here.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    ArrowReaderMetadata::load_async(&mut reader, options).await
}

fn unreadable(path: &str, error: &dyn std::fmt::Display) -> CatalogError {
    CatalogError::corrupt(format!(
        "checkpoint file '{path}' cannot be read: {}",
        crate::store::redact(&error.to_string())
    ))
}

/// Top-level columns of a pass over a checkpoint.
struct Pass {
    columns: &'static [&'static str],
    /// Whether this is the pass over files, which skips leaves that are not needed.
    files: bool,
}

static SMALL_ACTIONS: Pass =
    Pass { columns: &["protocol", "metaData", "txn", "domainMetadata", "sidecar"], files: false };
static FILE_ACTIONS: Pass = Pass { columns: &["add", "remove"], files: true };

impl ParquetPart {
    fn batches(
        &self,
        store: &Arc<dyn ObjectStore>,
        pass: &Pass,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let metadata = Arc::clone(self.metadata.metadata());
        let schema = metadata.file_metadata().schema_descr_ptr();
        let json_stats = pass.files && all_have_json_stats(&metadata);
        let leaves: Vec<usize> = (0..schema.num_columns())
            .filter(|&leaf| {
                let column = schema.column(leaf);
                let path = column.path().parts();
                let unused = pass.files
                    && path.first().is_some_and(|p| p == "add")
                    && path.get(1).is_some_and(|p| {
                        p == "partitionValues_parsed" || (json_stats && p == "stats_parsed")
                    });
                path.first().is_some_and(|p| pass.columns.contains(&p.as_str())) && !unused
            })
            .collect();
        if leaves.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let reader = ObjectReader::new(Arc::clone(store), self.path.clone(), self.size);
        let name = self.shown.clone();
        let batches =
            ParquetRecordBatchStreamBuilder::new_with_metadata(reader, self.metadata.clone())
                .with_projection(ProjectionMask::leaves(&schema, leaves))
                .with_batch_size(BATCH_ROWS)
                .build()
                .map_err(|e| unreadable(&name, &e))?;
        Ok(batches.map_err(move |e| unreadable(&name, &e)).boxed())
    }
}

/// Whether the footer proves that no file lacks JSON statistics, so that the often much larger
/// struct ones need not be read.
fn all_have_json_stats(metadata: &ParquetMetaData) -> bool {
    let schema = metadata.file_metadata().schema_descr();
    let leaf = |name: &str| {
        (0..schema.num_columns()).find(|&i| schema.column(i).path().parts() == ["add", name])
    };
    let (Some(stats), Some(path)) = (leaf("stats"), leaf("path")) else { return false };
    metadata.row_groups().iter().all(|group| {
        let nulls =
            |leaf: usize| group.column(leaf).statistics().and_then(Statistics::null_count_opt);
        matches!((nulls(stats), nulls(path)), (Some(a), Some(b)) if a == b)
    })
}

fn read_small_actions(
    origin: &str,
    batch: &RecordBatch,
    tail: &mut CheckpointTail,
    odd: &mut Oddities,
) -> Result<()> {
    let rows = 0..batch.num_rows();
    if let Some(record) = Record::of_batch(origin, batch, "protocol")? {
        let (reader, writer) = (record.int("minReaderVersion")?, record.int("minWriterVersion")?);
        let (readers, writers) = (record.texts("readerFeatures")?, record.texts("writerFeatures")?);
        for row in rows.clone().filter(|row| record.has(*row)) {
            tail.protocol = Some(Protocol {
                min_reader_version: reader.need(row)?,
                min_writer_version: writer.need(row)?,
                reader_features: readers.get(row),
                writer_features: writers.get(row),
            });
        }
    }
    if let Some(record) = Record::of_batch(origin, batch, "metaData")? {
        let (id, name) = (record.text("id")?, record.text("name")?);
        let (description, schema) = (record.text("description")?, record.text("schemaString")?);
        let partition_columns = record.texts("partitionColumns")?;
        let (created, configuration) = (record.long("createdTime")?, record.map("configuration")?);
        let format = record.record("format")?;
        for row in rows.clone().filter(|row| record.has(*row)) {
            let format = match format.as_ref().filter(|f| f.has(row)) {
                None => Format::default(),
                Some(format) => Format {
                    provider: format
                        .text("provider")?
                        .get(row)
                        .unwrap_or_else(|| Format::default().provider),
                    options: format.map("options")?.get(row).unwrap_or_default(),
                },
            };
            tail.metadata = Some(Metadata {
                id: id.get(row).unwrap_or_else(|| {
                    odd.note(Oddity::Missing("metaData.id".to_owned()), 0);
                    lenient::derived_id(&schema.get(row).unwrap_or_default())
                }),
                name: name.get(row),
                description: description.get(row),
                format,
                schema_string: schema.get(row).unwrap_or_default(),
                partition_columns: partition_columns.get(row).unwrap_or_default(),
                created_time: created.get(row),
                configuration: configuration.get(row).unwrap_or_default(),
            });
        }
    }
    if let Some(record) = Record::of_batch(origin, batch, "txn")? {
        let (app, version) = (record.text("appId")?, record.long("version")?);
        let updated = record.long("lastUpdated")?;
        for row in rows.clone().filter(|row| record.has(*row)) {
            tail.txns.push(Txn {
                app_id: app.need(row)?,
                version: version.need(row)?,
                last_updated: updated.get(row),
            });
        }
    }
    if let Some(record) = Record::of_batch(origin, batch, "domainMetadata")? {
        let (domain, configuration) = (record.text("domain")?, record.text("configuration")?);
        let removed = record.flag("removed")?;
        for row in rows.clone().filter(|row| record.has(*row)) {
            if !removed.get(row).unwrap_or(false) {
                tail.domain_metadata.push(DomainMetadata {
                    domain: domain.need(row)?,
                    configuration: configuration.get(row).unwrap_or_default(),
                    removed: false,
                });
            }
        }
    }
    if let Some(record) = Record::of_batch(origin, batch, "sidecar")? {
        let (path, size) = (record.text("path")?, record.long("sizeInBytes")?);
        let (modified, tags) = (record.long("modificationTime")?, record.map("tags")?);
        for row in rows.filter(|row| record.has(*row)) {
            tail.sidecars.push(Sidecar {
                path: path.need(row)?,
                size_in_bytes: size.get(row).unwrap_or_default(),
                modification_time: modified.get(row).unwrap_or_default(),
                tags: tags.get(row),
            });
        }
    }
    Ok(())
}

fn file_actions(origin: &str, batch: &RecordBatch) -> Result<Vec<FileAction>> {
    let adds = Record::of_batch(origin, batch, "add")?;
    let removes = Record::of_batch(origin, batch, "remove")?;
    let add_columns = match &adds {
        None => None,
        Some(record) => Some((
            record,
            FileColumns::of(record)?,
            record.long("modificationTime")?,
            record.text("clusteringProvider")?,
            record.raw("stats_parsed").map(StatsWriter::new),
        )),
    };
    let remove_columns = match &removes {
        None => None,
        Some(record) => Some((
            record,
            FileColumns::of(record)?,
            record.long("deletionTimestamp")?,
            record.flag("extendedFileMetadata")?,
        )),
    };
    let mut out = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        if let Some((record, c, modified, clustering, parsed)) = &add_columns
            && record.has(row)
        {
            let stats = c.stats.get(row).or_else(|| parsed.as_ref().and_then(|p| p.json(row)));
            out.push(FileAction::Add(Add {
                path: c.path.need(row)?,
                partition_values: c.partition_values.get(row).unwrap_or_default(),
                size: c.size.need(row)?,
                modification_time: modified.need(row)?,
                data_change: c.data_change.get(row).unwrap_or(false),
                stats,
                tags: c.tags.get(row),
                deletion_vector: c.vector(row)?,
                base_row_id: c.base_row_id.get(row),
                default_row_commit_version: c.default_row_commit_version.get(row),
                clustering_provider: clustering.get(row),
            }));
        }
        if let Some((record, c, deleted, extended)) = &remove_columns
            && record.has(row)
        {
            out.push(FileAction::Remove(Remove {
                path: c.path.need(row)?,
                deletion_timestamp: deleted.get(row),
                data_change: c.data_change.get(row).unwrap_or(false),
                extended_file_metadata: extended.get(row),
                partition_values: c.partition_values.get(row),
                size: c.size.get(row),
                stats: c.stats.get(row),
                tags: c.tags.get(row),
                deletion_vector: c.vector(row)?,
                base_row_id: c.base_row_id.get(row),
                default_row_commit_version: c.default_row_commit_version.get(row),
            }));
        }
    }
    Ok(out)
}
