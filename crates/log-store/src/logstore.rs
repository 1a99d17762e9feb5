//! [`LogStore`] of a table in a catalog, and its registration.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use deltalake::kernel::Version as DeltaVersion;
use deltalake::kernel::transaction::{CommitConflictError, TransactionError};
use deltalake::logstore::{
    CommitOrBytes, LogStore, LogStoreConfig, LogStoreFactory, LogStoreRef, ObjectStoreFactory,
    ObjectStoreRef, StorageConfig, logstore_factories, object_store_factories,
};
use deltalake::{DeltaResult, DeltaTableError};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::ids::Version;
use deltalakedb_catalog_engine::conflict::ConflictKind;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;
use uuid::Uuid;

use crate::context::Context;
use crate::staging::Created;
use crate::store::TableStore;
use crate::virtual_log::commit_name;
use crate::{Opener, Options, SCHEME, TableAddress};

/// Makes `delta+sql://` URLs known to the `deltalake` crate of this process: `open_table`,
/// `DeltaTableBuilder` and everything else that takes a table's URL then take those of tables in
/// catalogs. Registering again replaces who opens catalogs.
pub fn register(opener: Opener) {
    let factory = Arc::new(Factory { opener });
    if let Ok(scheme) = Url::parse(&format!("{SCHEME}://")) {
        let (objects, logs) = (object_store_factories(), logstore_factories());
        objects.insert(scheme.clone(), Arc::clone(&factory) as _);
        logs.insert(scheme, factory);
    }
}

/// Tables by the hosts of the URLs that were made for them: a `DeltaTable` hands its URL on.
static KNOWN: LazyLock<Mutex<HashMap<String, (TableAddress, Options)>>> =
    LazyLock::new(Mutex::default);

#[derive(Debug)]
struct Factory {
    opener: Opener,
}

impl Factory {
    fn table(&self, url: &Url, config: &StorageConfig) -> DeltaResult<SqlLogStore> {
        let mut options: Options = config.raw.clone().into_iter().collect();
        let host = url.host_str().unwrap_or_default();
        let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known().get(host).cloned();
        let address = match found {
            Some((address, first)) => {
                for (name, value) in first {
                    options.entry(name).or_insert(value);
                }
                address
            }
            None => self.opener.address(url.as_str()).map_err(delta_error)?,
        };
        let location = table_url(&address.catalog, &address.table.to_string())?;
        if let Some(host) = location.host_str() {
            known().insert(host.to_owned(), (address.clone(), options.clone()));
        }
        let context = Arc::new(Context::new(Arc::clone(&self.opener), address, options));
        SqlLogStore::new(context, &location, config.clone())
    }
}

impl ObjectStoreFactory for Factory {
    fn parse_url_opts(
        &self,
        url: &Url,
        config: &StorageConfig,
    ) -> DeltaResult<(ObjectStoreRef, Path)> {
        let table = self.table(url, config)?;
        let path = Path::from_url_path(table.config.location().path())
            .map_err(object_store::Error::from)?;
        Ok((Arc::new(table.store), path))
    }
}

impl LogStoreFactory for Factory {
    fn with_options(
        &self,
        _prefixed: ObjectStoreRef,
        _root: ObjectStoreRef,
        location: &Url,
        options: &StorageConfig,
    ) -> DeltaResult<LogStoreRef> {
        Ok(Arc::new(self.table(location, options)?))
    }
}

/// The URL that `deltalake` knows a table by: `delta+sql://<scheme>/<catalog>/<table>/`, without
/// secrets. Its host is one a table, as DataFusion keeps one store for a scheme and host.
fn table_url(catalog: &str, table: &str) -> DeltaResult<Url> {
    let bad = || DeltaTableError::InvalidTableLocation(format!("{catalog}/{table}"));
    let key = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{catalog}\n{table}").as_bytes());
    let mut url = Url::parse(&format!("{SCHEME}://{}/", key.as_simple())).map_err(|_| bad())?;
    url.path_segments_mut().map_err(|()| bad())?.pop_if_empty().push(table).push("");
    Ok(url)
}

/// A table's log in a catalog.
#[derive(Debug, Clone)]
struct SqlLogStore {
    context: Arc<Context>,
    /// At the root of the URL.
    store: TableStore,
    /// At the table's root.
    table: Arc<PrefixStore<TableStore>>,
    config: LogStoreConfig,
    /// URL of the real storage, once it is known.
    uri: Arc<RwLock<Option<Url>>>,
}

/// The log store of a table in a transaction. `key` tells its URL from those of others.
pub(crate) fn log_store(context: Arc<Context>, key: &str) -> DeltaResult<LogStoreRef> {
    let location = table_url(key, &context.address.table.to_string())?;
    Ok(Arc::new(SqlLogStore::new(context, &location, StorageConfig::default())?))
}

impl SqlLogStore {
    fn new(context: Arc<Context>, location: &Url, config: StorageConfig) -> DeltaResult<Self> {
        let root = Path::from_url_path(location.path()).map_err(object_store::Error::from)?;
        let store = TableStore::new(Arc::clone(&context), root.clone());
        Ok(SqlLogStore {
            table: Arc::new(PrefixStore::new(store.clone(), root)),
            store,
            context,
            config: LogStoreConfig::new(location, config),
            uri: Arc::default(),
        })
    }

    async fn learn(&self) {
        let known = self.uri.read().unwrap_or_else(PoisonError::into_inner).is_some();
        if !known && let Ok(storage) = self.context.storage().await {
            *self.uri.write().unwrap_or_else(PoisonError::into_inner) = Some(storage.url.clone());
        }
    }
}

/// An error of the catalog, with its own text.
fn delta_error(error: CatalogError) -> DeltaTableError {
    DeltaTableError::GenericError { source: Box::new(error) }
}

fn transaction_error(error: CatalogError) -> TransactionError {
    TransactionError::LogStoreError { msg: error.to_string(), source: Box::new(error) }
}

fn version(version: DeltaVersion) -> Result<Version, CatalogError> {
    i64::try_from(version)
        .map_err(|_| CatalogError::invalid(format!("there is no version {version}")))
        .and_then(|version| Ok(Version::new(version)?))
}

#[async_trait]
impl LogStore for SqlLogStore {
    /// The name by which `deltalake` hands over a commit's bytes, not the path of a temporary file.
    fn name(&self) -> String {
        "DefaultLogStore".to_owned()
    }

    async fn read_commit_entry(&self, wanted: DeltaVersion) -> DeltaResult<Option<Bytes>> {
        self.learn().await;
        let name = commit_name(version(wanted).map_err(delta_error)?);
        let found = self.store.log().get(&name).await.map_err(delta_error)?;
        Ok(found.map(|file| file.bytes))
    }

    async fn write_commit_entry(
        &self,
        wanted: DeltaVersion,
        commit: CommitOrBytes,
        _: Uuid,
    ) -> Result<(), TransactionError> {
        let CommitOrBytes::LogBytes(bytes) = commit else {
            return Err(transaction_error(CatalogError::invalid(
                "the commit came as a temporary file, not as bytes",
            )));
        };
        let name = commit_name(version(wanted).map_err(transaction_error)?);
        match self.store.log().create(&name, bytes).await {
            Ok(Created::Done) => Ok(()),
            Ok(Created::Exists) => Err(TransactionError::VersionAlreadyExists(wanted)),
            Err(CatalogError::Conflict(conflict))
                if matches!(conflict.kind, ConflictKind::ConcurrentDeleteDelete { .. }) =>
            {
                Err(TransactionError::CommitConflict(CommitConflictError::ConcurrentDeleteDelete))
            }
            Err(error) => Err(transaction_error(error)),
        }
    }

    async fn abort_commit_entry(
        &self,
        _: DeltaVersion,
        _: CommitOrBytes,
        _: Uuid,
    ) -> Result<(), TransactionError> {
        // Nothing was put anywhere.
        Ok(())
    }

    async fn get_latest_version(&self, start: DeltaVersion) -> DeltaResult<DeltaVersion> {
        self.learn().await;
        let head = self.store.log().head().await.map_err(delta_error)?;
        let head = head.and_then(|head| DeltaVersion::try_from(head.get()).ok());
        head.filter(|head| *head >= start).ok_or(DeltaTableError::InvalidVersion(start))
    }

    fn object_store(&self, _: Option<Uuid>) -> ObjectStoreRef {
        Arc::clone(&self.table) as _
    }

    fn root_object_store(&self, _: Option<Uuid>) -> ObjectStoreRef {
        Arc::new(self.store.clone())
    }

    /// A file's URL in the real storage.
    fn to_uri(&self, location: &Path) -> String {
        let known = self.uri.read().unwrap_or_else(PoisonError::into_inner).clone();
        deltalake::logstore::to_uri(known.as_ref().unwrap_or(self.config.location()), location)
    }

    async fn is_delta_table_location(&self) -> DeltaResult<bool> {
        self.learn().await;
        Ok(self.store.log().head().await.map_err(delta_error)?.is_some())
    }

    fn config(&self) -> &LogStoreConfig {
        &self.config
    }
}
