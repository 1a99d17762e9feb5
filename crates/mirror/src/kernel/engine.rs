//! Reading by the Delta kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use delta_kernel::actions::{LOG_DOMAIN_METADATA_SCHEMA, LOG_TXN_SCHEMA};
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::scan::StatsOptions;
use delta_kernel::schema::SchemaRef;
use delta_kernel::table_features::TableFeature;
use delta_kernel::{Engine, EngineData, Snapshot, SnapshotRef};
use delta_kernel_engine::DefaultEngineBuilder;
use delta_kernel_engine::executor::tokio::TokioMultiThreadExecutor;
use deltalakedb_catalog_core::action::{
    Add, DomainMetadata, FileKey, Format, Metadata, NullableMap, Protocol, Txn,
};
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_core::ids::Version;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use tokio::runtime::{Handle, RuntimeFlavor};
use url::Url;

use super::{KernelFile, KernelState, LogLocation};
use crate::log::columns::{FileColumns, Record};
use crate::store::{open_store, redact};

/// Reads the state of a table with the Delta kernel; none = its latest version.
///
/// # Errors
/// `Unsupported` if the kernel does not know a feature of the table, `InvalidInput` for a location
/// that cannot be opened, else `Corrupt` with what the kernel says.
pub async fn read_state(
    location: LogLocation,
    options: &BTreeMap<String, String>,
    version: Option<Version>,
) -> Result<KernelState> {
    let mut opened = open_store(location.root()?, options)?;
    let mut root = opened.dir_url();
    // The kernel decodes a URL's path once too often for folders with a literal '%20' in their
    // names. Only the log is read here, so a local store may be rooted in the table itself.
    if let Some(local) = opened.local.as_ref().filter(|local| local.is_dir()) {
        let rooted = LocalFileSystem::new_with_prefix(local).map_err(|e| {
            let text = format!("cannot open the folder '{}': {e}", local.display());
            CatalogError::failed(text, WriteState::NotApplied)
        })?;
        opened.store = Arc::new(rooted);
        root = Url::parse("file:///")
            .map_err(|e| CatalogError::invalid(format!("bad location: {e}")))?;
    }
    with_engine(opened.store, root, move |engine, root| {
        let snapshot = snapshot(engine.as_ref(), root, version)?;
        state(engine.as_ref(), &snapshot)
    })
    .await
}

/// Counts the rows of the latest version by reading the data files; deletion vectors are honoured.
///
/// # Errors
/// As [`read_state`].
pub async fn count_rows(table_root: &str, options: &BTreeMap<String, String>) -> Result<u64> {
    let opened = open_store(table_root, options)?;
    let root = opened.dir_url();
    with_engine(opened.store, root, |engine, root| {
        let snapshot = snapshot(engine.as_ref(), root, None)?;
        let scan = snapshot.scan_builder().build().map_err(|e| kernel_error(&e))?;
        let engine: Arc<dyn Engine> = engine;
        let mut rows = 0_u64;
        for batch in scan.execute(engine).map_err(|e| kernel_error(&e))? {
            let batch = batch.map_err(|e| kernel_error(&e))?;
            rows = rows.saturating_add(u64::try_from(batch.len()).unwrap_or(u64::MAX));
        }
        Ok(rows)
    })
    .await
}

type KernelEngine = delta_kernel_engine::DefaultEngine<TokioMultiThreadExecutor>;

/// Runs synchronous kernel code off the reactor, on an engine for this location.
async fn with_engine<T: Send + 'static>(
    store: Arc<dyn ObjectStore>,
    root: Url,
    work: impl FnOnce(Arc<KernelEngine>, &Url) -> Result<T> + Send + 'static,
) -> Result<T> {
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        // The kernel's executor insists on a runtime with several threads.
        let executor = if runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
            TokioMultiThreadExecutor::new(runtime)
        } else {
            TokioMultiThreadExecutor::new_owned_runtime(Some(2), None)
                .map_err(|e| kernel_error(&e))?
        };
        let engine =
            DefaultEngineBuilder::new(store).with_task_executor(Arc::new(executor)).build();
        work(Arc::new(engine), &root)
    })
    .await
    .map_err(|e| {
        CatalogError::failed(format!("the Delta kernel broke off: {e}"), WriteState::NotApplied)
    })?
}

fn snapshot(engine: &dyn Engine, root: &Url, version: Option<Version>) -> Result<SnapshotRef> {
    let mut builder = Snapshot::builder_for(root.as_str());
    if let Some(version) = version {
        let version = u64::try_from(version.get())
            .map_err(|_| CatalogError::invalid(format!("bad version {version}")))?;
        builder = builder.at_version(version);
    }
    builder.build(engine).map_err(|e| kernel_error(&e))
}

fn state(engine: &dyn Engine, snapshot: &SnapshotRef) -> Result<KernelState> {
    let version = i64::try_from(snapshot.version())
        .map_err(|_| CatalogError::corrupt("the kernel reports an impossible version"))
        .and_then(|version| Ok(Version::new(version)?))?;
    let configuration = snapshot.table_configuration();
    let scan = Arc::clone(snapshot)
        .scan_builder()
        .without_row_transforms()
        // Both forms asked for, or checkpoints with struct statistics only yield none at all.
        .with_stats(StatsOptions::all())
        .build()
        .map_err(|e| kernel_error(&e))?;
    let mut files = BTreeMap::new();
    for batch in scan.scan_metadata(engine).map_err(|e| kernel_error(&e))? {
        let (data, selected) = batch.map_err(|e| kernel_error(&e))?.scan_files.into_parts();
        let batch = arrow_batch(data)?;
        read_files(&batch, |row| selected.get(row).copied().unwrap_or(true), &mut files)?;
    }
    let mut txns = BTreeMap::new();
    replay(engine, snapshot, &LOG_TXN_SCHEMA, |batch| {
        let Some(record) = Record::of_batch("kernel", batch, "txn")? else { return Ok(()) };
        let (app, version) = (record.text("appId")?, record.long("version")?);
        let updated = record.long("lastUpdated")?;
        for row in (0..batch.num_rows()).filter(|row| record.has(*row)) {
            let txn = Txn {
                app_id: app.need(row)?,
                version: version.need(row)?,
                last_updated: updated.get(row),
            };
            txns.entry(txn.app_id.clone()).or_insert(txn);
        }
        Ok(())
    })?;
    let mut domains: BTreeMap<String, DomainMetadata> = BTreeMap::new();
    replay(engine, snapshot, &LOG_DOMAIN_METADATA_SCHEMA, |batch| {
        let Some(record) = Record::of_batch("kernel", batch, "domainMetadata")? else {
            return Ok(());
        };
        let (domain, text) = (record.text("domain")?, record.text("configuration")?);
        let removed = record.flag("removed")?;
        for row in (0..batch.num_rows()).filter(|row| record.has(*row)) {
            let action = DomainMetadata {
                domain: domain.need(row)?,
                configuration: text.get(row).unwrap_or_default(),
                removed: removed.get(row).unwrap_or(false),
            };
            domains.entry(action.domain.clone()).or_insert(action);
        }
        Ok(())
    })?;
    domains.retain(|_, d| !d.removed);
    Ok(KernelState {
        version,
        protocol: protocol(configuration.protocol()),
        metadata: metadata(configuration.metadata()),
        files,
        txns,
        domain_metadata: domains,
    })
}

fn read_files(
    batch: &RecordBatch,
    selected: impl Fn(usize) -> bool,
    files: &mut BTreeMap<FileKey, KernelFile>,
) -> Result<()> {
    let origin = "kernel";
    let whole = Record::whole(origin, batch);
    let columns = FileColumns::of(&whole)?;
    let modified = whole.long("modificationTime")?;
    let Some(constants) = whole.record("fileConstantValues")? else {
        return Err(CatalogError::corrupt("the kernel reports files without partition values"));
    };
    let constants = FileColumns::of(&constants)?;
    for row in (0..batch.num_rows()).filter(|row| selected(*row)) {
        let Some(path) = columns.path.get(row) else { continue };
        let vector = columns.vector(row)?;
        let deleted_rows = vector.as_ref().map(|v| v.cardinality);
        let key = Add {
            path,
            deletion_vector: vector,
            partition_values: NullableMap::new(),
            size: 0,
            modification_time: 0,
            data_change: false,
            stats: None,
            tags: None,
            base_row_id: None,
            default_row_commit_version: None,
            clustering_provider: None,
        }
        .key();
        let file = KernelFile {
            partition_values: constants.partition_values.get(row).unwrap_or_default(),
            size: columns.size.need(row)?,
            modification_time: modified.need(row)?,
            stats: columns.stats.get(row),
            deleted_rows,
            tags: constants.tags.get(row),
            base_row_id: constants.base_row_id.get(row),
            default_row_commit_version: constants.default_row_commit_version.get(row),
        };
        if files.insert(key.clone(), file).is_some() {
            return Err(CatalogError::corrupt(format!("the kernel reports the file {key} twice")));
        }
    }
    Ok(())
}

/// All actions of a kind, newest commit first, down to the checkpoint.
fn replay(
    engine: &dyn Engine,
    snapshot: &SnapshotRef,
    schema: &SchemaRef,
    mut visit: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    let actions = snapshot
        .log_segment()
        .read_actions(engine, schema.clone())
        .map_err(|e| kernel_error(&e))?;
    for batch in actions {
        let batch = batch.map_err(|e| kernel_error(&e))?;
        visit(&arrow_batch(batch.actions)?)?;
    }
    Ok(())
}

fn arrow_batch(data: Box<dyn EngineData>) -> Result<RecordBatch> {
    ArrowEngineData::try_from_engine_data(data).map(Into::into).map_err(|e| kernel_error(&e))
}

fn protocol(protocol: &delta_kernel::actions::Protocol) -> Protocol {
    let names = |features: Option<&[TableFeature]>| features.map(|f| f.iter().map(shown).collect());
    Protocol {
        min_reader_version: protocol.min_reader_version(),
        min_writer_version: protocol.min_writer_version(),
        reader_features: names(protocol.reader_features()),
        writer_features: names(protocol.writer_features()),
    }
}

fn metadata(metadata: &delta_kernel::actions::Metadata) -> Metadata {
    Metadata {
        id: metadata.id().to_owned(),
        name: metadata.name().map(str::to_owned),
        description: metadata.description().map(str::to_owned),
        format: Format {
            provider: metadata.format_provider().to_owned(),
            options: NullableMap::new(),
        },
        schema_string: metadata.schema_string().clone(),
        partition_columns: metadata.partition_columns().to_vec(),
        created_time: metadata.created_time(),
        configuration: metadata
            .configuration()
            .iter()
            .map(|(k, v)| (k.clone(), Some(v.clone())))
            .collect(),
    }
}

/// The kernel gives all features that it does not know one name.
fn shown(feature: &TableFeature) -> String {
    match feature {
        TableFeature::Unknown(name) => name.clone(),
        known => known.as_ref().to_owned(),
    }
}

/// The name that the kernel knows a feature by.
pub(super) fn feature_name(name: &str) -> String {
    shown(&TableFeature::from(name.to_owned()))
}

fn kernel_error(error: &delta_kernel::Error) -> CatalogError {
    use delta_kernel::Error;
    match error {
        Error::Backtraced { source, .. } => kernel_error(source),
        Error::Unsupported(text) => {
            CatalogError::Unsupported(format!("the Delta kernel does not support this: {text}"))
        }
        other => CatalogError::corrupt(format!(
            "the Delta kernel cannot read this table: {}",
            redact(&other.to_string())
        )),
    }
}
