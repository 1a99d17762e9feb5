//! What a scan reads: a log of one commit that has just the files which the catalog chose, in front of
//! the table's storage.
//!
//! `deltalake` and its kernel plan a scan from a log, and know all about reading files: column mapping,
//! deletion vectors, partition values, widened types. They are given a log that is as small as the scan
//! is, however large the table's own one has become.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake::{DeltaResult, DeltaTableError};
use deltalakedb_catalog_core::ids::TableName;
use deltalakedb_mirror::store::{LOG_FOLDER, Store};
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};
use url::{Position, Url};
use uuid::Uuid;

use crate::SCHEME;
use crate::store::{bounded, join};

/// Name of the store in errors.
const NAME: &str = "deltalakedb scan";
/// The one file of a log.
const COMMIT: &str = "00000000000000000000.json";

/// Folder of the files that lie outside of the table's root, by their keys in the table's storage. No scan
/// has this name.
const OUTSIDE: &str = "outside";

/// Logs of the scans that are being planned, by the first folder of their paths.
static LOGS: LazyLock<Mutex<HashMap<String, Bytes>>> = LazyLock::new(Mutex::default);

/// A log, as long as its scan is planned.
#[derive(Debug)]
pub(super) struct ScanLog {
    folder: String,
    store: ScanStore,
    url: Url,
}

impl ScanLog {
    /// A log for files in this storage, without lines. `host` tells storages apart; errors have the
    /// table's name from the folder.
    pub(super) fn new(host: &str, table: &TableName, storage: Arc<Store>) -> DeltaResult<ScanLog> {
        let scan = Uuid::new_v4().as_simple().to_string();
        let table = table.to_string();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let folder = if table.chars().all(plain) { format!("{table}@{scan}") } else { scan };
        let text = format!("{SCHEME}://{host}/{folder}/");
        let url = Url::parse(&text).map_err(|_| DeltaTableError::InvalidTableLocation(text))?;
        Ok(ScanLog { folder, store: ScanStore { storage }, url })
    }

    /// Gives it its lines.
    pub(super) fn fill(&self, lines: Vec<u8>) {
        logs().insert(self.folder.clone(), lines.into());
    }

    /// Where the scan has the table's root.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The store that all scans of this storage share, and the URL to register it by.
    pub(super) fn root(&self) -> (&Url, Arc<dyn ObjectStore>) {
        (&self.url, Arc::new(self.store.clone()))
    }

    pub(super) fn log_store(&self) -> LogStoreRef {
        let table = PrefixStore::new(self.store.clone(), self.folder.as_str());
        let (root, options) = (Arc::new(self.store.clone()), StorageConfig::default());
        default_logstore(Arc::new(table), root, &self.url, &options)
    }
}

/// The address of a file outside of the table's root, by its key in the table's storage, percent-encoded.
pub(super) fn outside_url(scan: &Url, key: &str) -> String {
    format!("{}/{OUTSIDE}/{key}", &scan[..Position::BeforePath])
}

impl Drop for ScanLog {
    fn drop(&mut self) {
        logs().remove(&self.folder);
    }
}

fn logs() -> std::sync::MutexGuard<'static, HashMap<String, Bytes>> {
    LOGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `/<scan>/_delta_log/` is the scan's log; everything else below `/<scan>/` is the table's storage, and
/// `/outside/` the whole of it.
#[derive(Debug, Clone)]
struct ScanStore {
    storage: Arc<Store>,
}

impl fmt::Display for ScanStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}({})", self.storage.url)
    }
}

fn not_found(path: &Path) -> Error {
    Error::NotFound { path: path.to_string(), source: "it is no file of a scan".into() }
}

fn read_only(path: &Path) -> Error {
    Error::NotSupported { source: format!("'{path}': scans only read").into() }
}

/// The log's one file, if the path is in the log's folder.
fn in_log(path: &Path) -> Option<(&str, &str)> {
    let (scan, relative) = path.as_ref().split_once('/')?;
    let name = relative.strip_prefix(LOG_FOLDER)?;
    (name.is_empty() || name.starts_with('/')).then_some((scan, name.trim_start_matches('/')))
}

fn commit_of(scan: &str) -> Option<(ObjectMeta, Bytes)> {
    let bytes = logs().get(scan).cloned()?;
    let meta = ObjectMeta {
        location: Path::from_iter([scan, LOG_FOLDER, COMMIT]),
        last_modified: DateTime::<Utc>::UNIX_EPOCH,
        size: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        e_tag: None,
        version: None,
    };
    Some((meta, bytes))
}

fn log_listing(prefix: Option<&Path>, after: Option<&Path>) -> Vec<Result<ObjectMeta>> {
    let found = prefix.and_then(in_log).filter(|(_, name)| name.is_empty());
    let commit = found.and_then(|(scan, _)| commit_of(scan)).map(|(meta, _)| meta);
    let commit = commit.filter(|meta| after.is_none_or(|after| meta.location > *after));
    commit.into_iter().map(Ok).collect()
}

#[async_trait]
impl ObjectStore for ScanStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if let Some((scan, name)) = in_log(location) {
            let found = commit_of(scan).filter(|_| name == COMMIT);
            let (meta, bytes) = found.ok_or_else(|| not_found(location))?;
            options.check_preconditions(&meta)?;
            let range = match &options.range {
                None => 0..meta.size,
                Some(range) => bounded(range, meta.size).ok_or_else(|| not_found(location))?,
            };
            let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let bytes = bytes.slice(index(range.start)..index(range.end));
            let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
            return Ok(GetResult { payload, meta, range, attributes: Attributes::default() });
        }
        let (scan, relative) =
            location.as_ref().split_once('/').ok_or_else(|| not_found(location))?;
        let real = match scan {
            OUTSIDE => Path::parse(relative)?,
            _ => join(&self.storage.root, relative)?,
        };
        let mut found = self.storage.store.get_opts(&real, options).await?;
        found.meta.location = location.clone();
        Ok(found)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::iter(log_listing(prefix, None)).boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::iter(log_listing(prefix, Some(offset))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let objects = log_listing(prefix, None).into_iter().collect::<Result<_>>()?;
        Ok(ListResult { common_prefixes: Vec::new(), objects })
    }

    async fn put_opts(&self, location: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(read_only(location))
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(read_only(location))
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        locations.map(|path| path.and_then(|path| Err(read_only(&path)))).boxed()
    }

    async fn copy_opts(&self, _: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        Err(read_only(to))
    }
}
