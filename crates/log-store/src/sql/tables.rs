//! Tables of a catalog as DataFusion's table providers.

use std::sync::Arc;

use async_trait::async_trait;
use deltalake::DeltaTableError;
use deltalake::arrow::datatypes::SchemaRef;
use deltalake::datafusion::catalog::{Session, TableProvider};
use deltalake::datafusion::datasource::DefaultTableSource;
use deltalake::datafusion::error::{DataFusionError, Result};
use deltalake::datafusion::logical_expr::{
    Expr, TableProviderFilterPushDown, TableScan, TableType,
};
use deltalake::datafusion::physical_plan::ExecutionPlan;
use deltalake::delta_datafusion::{DeltaScanConfig, DeltaScanNext};
use deltalake::kernel::Snapshot as DeltaSnapshot;
use deltalakedb_catalog_core::action::Action;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::model::Snapshot;
use deltalakedb_catalog_engine::canonical::Canonical;
use deltalakedb_catalog_engine::catalog::Catalog;
use deltalakedb_catalog_engine::fence;
use deltalakedb_catalog_engine::predicate::Predicate;
use deltalakedb_mirror::store::{Store, open_store};
use futures::TryStreamExt;
use url::Position;
use uuid::Uuid;

use super::scan_log::ScanLog;
use super::scan_paths::ScanPaths;
use super::{filters, query_error};
use crate::{runtime, statistics};

/// A version of a table in a catalog.
///
/// A scan asks the catalog which files can hold rows that match its filters, by partition values and
/// statistics; only those are opened.
#[derive(Debug)]
pub struct CatalogTable {
    catalog: Catalog,
    snapshot: Snapshot,
    storage: Arc<Store>,
    /// A scan of no files: knows schema and filters.
    empty: DeltaScanNext,
}

/// The version of a table that a plan scans, if it is one of ours.
pub(crate) fn table_of(scan: &TableScan) -> Option<&Snapshot> {
    let source = scan.source.downcast_ref::<DefaultTableSource>()?;
    let table = source.table_provider.downcast_ref::<CatalogTable>()?;
    Some(&table.snapshot)
}

impl CatalogTable {
    /// A table as of a snapshot. Reads no data.
    ///
    /// # Errors
    /// Those of opening its storage, and of `deltalake` where it cannot read tables of this protocol:
    /// that names the feature.
    pub async fn new(catalog: Catalog, snapshot: Snapshot) -> Result<CatalogTable> {
        let record = &snapshot.table;
        let storage = open_store(&record.location, &record.storage_options).map_err(query_error)?;
        let storage = Arc::new(storage);
        let log = scan_log(&snapshot, &storage)?;
        log.fill(lines(&snapshot, Vec::new())?);
        let empty = delta_scan(&log).await.map_err(|error| {
            DataFusionError::Context(format!("table '{}'", record.name), Box::new(error))
        })?;
        Ok(CatalogTable { catalog, snapshot, storage, empty })
    }

    /// The version that it is of.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Lines of the files that may have rows which match all filters, with paths and values as the reader
    /// below takes them.
    async fn files(
        &self,
        filters: &[Expr],
        log: &ScanLog,
    ) -> deltalakedb_catalog_core::error::Result<Vec<u8>> {
        let paths = ScanPaths::new(&self.snapshot.table.name, &self.storage, log.url())?;
        let (table, version) = (self.snapshot.table.id, self.snapshot.version);
        let mut files = match filters::predicate(filters) {
            Predicate::And(parts) if parts.is_empty() => self.catalog.files(table, version),
            // What the catalog cannot compare it cannot choose by: then all files are read.
            predicate => match self.catalog.files_matching(&self.snapshot, &predicate) {
                Ok(files) => files,
                Err(_) => self.catalog.files(table, version),
            },
        };
        let canonical = Canonical::of(&self.snapshot.metadata);
        let (name, version) = (self.snapshot.table.name.clone(), self.snapshot.version);
        runtime::run(async move {
            let mut lines = Vec::new();
            while let Some(file) = files.try_next().await? {
                let mut add = file.add;
                canonical.check_values(&add.partition_values).map_err(|what| {
                    CatalogError::corrupt(format!(
                        "table '{name}', version {version}: file '{}' cannot be read: {what}. Its \
                         writer wrote that. Remove the file from the table, or add it again with \
                         a value as the Delta protocol writes it",
                        add.path
                    ))
                })?;
                canonical.add(&mut add);
                lines.extend_from_slice(Action::Add(paths.write(add)?).to_line()?.as_bytes());
                lines.push(b'\n');
            }
            Ok(lines)
        })
        .await
    }
}

/// The snapshot's protocol and metadata, as far as they matter to a scan, and these adds.
fn lines(snapshot: &Snapshot, adds: Vec<u8>) -> Result<Vec<u8>> {
    let (protocol, metadata) = fence::scan_view(&snapshot.protocol, &snapshot.metadata);
    let mut lines = Vec::with_capacity(adds.len() + 4096);
    for action in [Action::Protocol(protocol), Action::Metadata(metadata)] {
        lines.extend_from_slice(action.to_line().map_err(query_error)?.as_bytes());
        lines.push(b'\n');
    }
    lines.extend(adds);
    Ok(lines)
}

/// The log of a scan, without lines yet.
fn scan_log(snapshot: &Snapshot, storage: &Arc<Store>) -> Result<ScanLog> {
    // Two handles on one storage may differ in what they are allowed there.
    let record = &snapshot.table;
    let key = format!("{}\n{:?}", record.location, record.storage_options);
    let host = Uuid::new_v5(&Uuid::NAMESPACE_URL, key.as_bytes()).as_simple().to_string();
    Ok(ScanLog::new(&host, &record.name, Arc::clone(storage))?)
}

async fn delta_scan(log: &ScanLog) -> Result<DeltaScanNext> {
    let store = log.log_store();
    let snapshot = DeltaSnapshot::try_new(store.as_ref(), None).await?;
    DeltaScanNext::new(snapshot, DeltaScanConfig::new().with_wrap_partition_values(false))
}

#[async_trait]
impl TableProvider for CatalogTable {
    fn schema(&self) -> SchemaRef {
        self.empty.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let log = scan_log(&self.snapshot, &self.storage)?;
        let adds = self.files(filters, &log).await.map_err(query_error)?;
        // The scan passes over files by their bounds, too, and takes them as they are.
        let adds = statistics::made_true(&adds, &self.snapshot.metadata).into_owned();
        log.fill(lines(&self.snapshot, adds)?);
        let (url, store) = log.root();
        let root = url::Url::parse(&url[..Position::BeforePath])
            .map_err(|_| DeltaTableError::InvalidTableLocation(url.to_string()))?;
        session.runtime_env().register_object_store(&root, store);
        // Its files are known when it is planned; the log is not needed any more then.
        delta_scan(&log).await?.scan(session, projection, filters, limit).await
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        self.empty.supports_filters_pushdown(filters)
    }
}
