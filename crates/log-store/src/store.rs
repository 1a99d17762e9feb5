//! A table's object store: `_delta_log/` is virtual, everything else is the table's real storage.
//!
//! Paths begin with the path of the table's URL, as `deltalake` expects of the store at the root of a
//! URL.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_mirror::store::{LOG_FOLDER, Store};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use crate::context::Context;
use crate::staging::Created;
use crate::virtual_log::{Entry, File, VirtualLog};

/// Name of the store in errors.
const NAME: &str = "deltalakedb";

/// The store of one table.
#[derive(Debug, Clone)]
pub(crate) struct TableStore {
    context: Arc<Context>,
    log: VirtualLog,
    /// Path of the table's URL.
    root: Path,
}

impl fmt::Display for TableStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}({}, table {})", self.context.address.catalog, self.context.address.table)
    }
}

/// Where a path leads to.
enum Place {
    /// `_delta_log/<name>`
    Log(String),
    /// Relative to the table's root; empty for the root.
    Data(String),
}

/// An error of the catalog, as the store's.
pub(crate) fn store_error(error: CatalogError) -> Error {
    Error::Generic { store: NAME, source: Box::new(error) }
}

fn unsupported(what: &str, path: &Path) -> Error {
    let text = format!("{what} '{path}': the log of this table is kept in a catalog");
    Error::NotSupported { source: text.into() }
}

impl TableStore {
    pub(crate) fn new(context: Arc<Context>, root: Path) -> Self {
        let log = VirtualLog::new(Arc::clone(&context));
        TableStore { context, log, root }
    }

    pub(crate) fn log(&self) -> &VirtualLog {
        &self.log
    }

    fn place(&self, path: &Path) -> Result<Place> {
        let relative = below(path, &self.root).ok_or_else(|| Error::NotFound {
            path: path.to_string(),
            source: format!("it is not below the table's root '{}'", self.root).into(),
        })?;
        Ok(match relative.strip_prefix(LOG_FOLDER) {
            Some("") => Place::Log(String::new()),
            Some(name) if name.starts_with('/') => Place::Log(name[1..].to_owned()),
            _ => Place::Data(relative.to_owned()),
        })
    }

    async fn storage(&self) -> Result<Arc<Store>> {
        self.context.storage().await.map_err(store_error)
    }

    /// A path in the real storage.
    fn real(storage: &Store, relative: &str) -> Result<Path> {
        join(&storage.root, relative)
    }

    /// An object of the real storage, as one of ours; none of its own log.
    fn ours(&self, storage: &Store, mut meta: ObjectMeta) -> Option<ObjectMeta> {
        let relative = below(&meta.location, &storage.root)?;
        if relative.split('/').next() == Some(LOG_FOLDER) {
            return None;
        }
        meta.location = join(&self.root, relative).ok()?;
        Some(meta)
    }

    fn log_meta(&self, entry: &Entry) -> Result<ObjectMeta> {
        Ok(ObjectMeta {
            location: join(&self.root, &format!("{LOG_FOLDER}/{}", entry.name))?,
            last_modified: entry.modified,
            size: entry.size,
            e_tag: None,
            version: None,
        })
    }

    /// Files of the log, as a listing.
    fn log_listing(&self, after: Option<String>) -> BoxStream<'static, Result<ObjectMeta>> {
        let this = self.clone();
        stream::once(async move {
            let entries = this.log.list(after.as_deref()).await.map_err(store_error)?;
            let metas: Vec<_> = entries.iter().map(|entry| this.log_meta(entry)).collect();
            Ok::<_, Error>(stream::iter(metas))
        })
        .try_flatten()
        .boxed()
    }

    /// Data files below a folder of the table, as a listing.
    fn data_listing(
        &self,
        folder: String,
        after: Option<Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let this = self.clone();
        stream::once(async move {
            let storage = this.storage().await?;
            let prefix = Self::real(&storage, &folder)?;
            let prefix = (!prefix.is_root()).then_some(&prefix);
            let found = storage.store.list(prefix);
            let found = found.try_filter_map(move |meta| {
                let meta = this.ours(&storage, meta);
                let meta = meta.filter(|m| after.as_ref().is_none_or(|after| m.location > *after));
                futures::future::ready(Ok(meta))
            });
            Ok::<_, Error>(found)
        })
        .try_flatten()
        .boxed()
    }

    fn listing(
        &self,
        prefix: Option<&Path>,
        after: Option<&Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.unwrap_or(&self.root);
        let place = match self.place(prefix) {
            Ok(place) => place,
            // A prefix above the table's root holds all of it.
            Err(_) if below(&self.root, prefix).is_some() => Place::Data(String::new()),
            Err(_) => return stream::empty().boxed(),
        };
        let in_log = match after.map(|after| self.place(after)) {
            Some(Ok(Place::Log(name))) => Some(name),
            _ => None,
        };
        match place {
            Place::Log(name) if name.is_empty() => self.log_listing(in_log),
            // There are no folders in it.
            Place::Log(_) => stream::empty().boxed(),
            Place::Data(folder) if folder.is_empty() => {
                let past = after.cloned();
                self.log_listing(in_log)
                    .try_filter(move |meta| {
                        let is_past = past.as_ref().is_none_or(|past| meta.location > *past);
                        futures::future::ready(is_past)
                    })
                    .chain(self.data_listing(folder, after.cloned()))
                    .boxed()
            }
            Place::Data(folder) => self.data_listing(folder, after.cloned()),
        }
    }

    fn answer(path: &Path, file: File, options: &GetOptions) -> Result<GetResult> {
        let size = u64::try_from(file.bytes.len()).unwrap_or(u64::MAX);
        let meta = ObjectMeta {
            location: path.clone(),
            last_modified: file.modified,
            size,
            e_tag: None,
            version: None,
        };
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            None => 0..size,
            Some(range) => bounded(range, size).ok_or_else(|| Error::Generic {
                store: NAME,
                source: format!("'{path}' has {size} bytes, asked for {range:?}").into(),
            })?,
        };
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = file.bytes.slice(index(range.start)..index(range.end));
        let payload = GetResultPayload::Stream(stream::once(async move { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
    }
}

/// What follows a folder in a path, as it is written there; none if it is not in that folder.
fn below<'p>(path: &'p Path, folder: &Path) -> Option<&'p str> {
    let rest = path.as_ref().strip_prefix(folder.as_ref())?;
    if rest.is_empty() || folder.as_ref().is_empty() {
        return Some(rest);
    }
    rest.strip_prefix('/')
}

/// A path in a folder. Not `Path::join`, which would encode characters of it once more.
pub(crate) fn join(folder: &Path, relative: &str) -> Result<Path> {
    if relative.is_empty() {
        return Ok(folder.clone());
    }
    Ok(Path::parse(format!("{folder}/{relative}"))?)
}

/// A range of a file of so many bytes; none if it begins behind it.
pub(crate) fn bounded(range: &GetRange, size: u64) -> Option<Range<u64>> {
    let range = match range {
        GetRange::Bounded(range) => range.start..range.end.min(size),
        GetRange::Offset(start) => *start..size,
        GetRange::Suffix(len) => size.saturating_sub(*len)..size,
    };
    (range.start <= range.end).then_some(range)
}

#[async_trait]
impl ObjectStore for TableStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let name = match self.place(location)? {
            Place::Data(relative) => {
                let storage = self.storage().await?;
                return storage
                    .store
                    .put_opts(&Self::real(&storage, &relative)?, payload, options)
                    .await;
            }
            Place::Log(name) => name,
        };
        if matches!(options.mode, PutMode::Update(_)) {
            return Err(unsupported("cannot replace", location));
        }
        match self.log.create(&name, Bytes::from(payload)).await.map_err(store_error)? {
            Created::Done => Ok(PutResult { e_tag: None, version: None }),
            Created::Exists => Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "the catalog has this version".into(),
            }),
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        match self.place(location)? {
            Place::Data(relative) => {
                let storage = self.storage().await?;
                storage.store.put_multipart_opts(&Self::real(&storage, &relative)?, options).await
            }
            // Checkpoints of `deltalake` may be large. They are dropped.
            Place::Log(_) => Ok(Box::new(Dropped)),
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        match self.place(location)? {
            Place::Data(relative) => {
                let storage = self.storage().await?;
                let mut found =
                    storage.store.get_opts(&Self::real(&storage, &relative)?, options).await?;
                found.meta.location = location.clone();
                Ok(found)
            }
            Place::Log(name) => {
                let file = self.log.get(&name).await.map_err(store_error)?;
                let file = file.ok_or_else(|| Error::NotFound {
                    path: location.to_string(),
                    source: "the catalog has no such file of this table's log".into(),
                })?;
                Self::answer(location, file, &options)
            }
        }
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        // Once for all of them: a vacuum has many.
        let asked = Arc::new(tokio::sync::OnceCell::new());
        locations
            .and_then(move |path| {
                let (this, asked) = (this.clone(), Arc::clone(&asked));
                async move {
                    match this.place(&path)? {
                        // Nothing authoritative is deleted through this.
                        Place::Log(_) => Ok(path),
                        Place::Data(relative) => {
                            let refuse =
                                || async { this.log.refuse_frozen().await.map_err(store_error) };
                            asked.get_or_try_init(refuse).await?;
                            let storage = this.storage().await?;
                            storage.store.delete(&Self::real(&storage, &relative)?).await?;
                            Ok(path)
                        }
                    }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.unwrap_or(&self.root);
        let folder = match self.place(prefix)? {
            Place::Log(_) => {
                let objects = self.listing(Some(prefix), None).try_collect().await?;
                return Ok(ListResult { common_prefixes: Vec::new(), objects });
            }
            Place::Data(folder) => folder,
        };
        let storage = self.storage().await?;
        let real = Self::real(&storage, &folder)?;
        let found = storage.store.list_with_delimiter(Some(&real)).await?;
        let objects = found.objects.into_iter().filter_map(|m| self.ours(&storage, m)).collect();
        let mut common_prefixes = Vec::with_capacity(found.common_prefixes.len() + 1);
        for path in &found.common_prefixes {
            if let Some(relative) = below(path, &storage.root).filter(|r| *r != LOG_FOLDER) {
                common_prefixes.push(join(&self.root, relative)?);
            }
        }
        if folder.is_empty() {
            common_prefixes.push(join(&self.root, LOG_FOLDER)?);
        }
        Ok(ListResult { common_prefixes, objects })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        match (self.place(from)?, self.place(to)?) {
            (Place::Data(from), Place::Data(to)) => {
                let storage = self.storage().await?;
                let (from, to) = (Self::real(&storage, &from)?, Self::real(&storage, &to)?);
                storage.store.copy_opts(&from, &to, options).await
            }
            _ => Err(unsupported("cannot copy to", to)),
        }
    }
}

/// An upload whose parts are dropped.
#[derive(Debug)]
struct Dropped;

#[async_trait]
impl MultipartUpload for Dropped {
    fn put_part(&mut self, _: PutPayload) -> object_store::UploadPart {
        Box::pin(async { Ok(()) })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
