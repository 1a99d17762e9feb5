//! A log folder in an object store. Put-if-absent is the store's conditional put.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::TimestampMs;
use deltalakedb_catalog_core::sink::{MirrorSink, PutOutcome, Replaced, SinkEntry};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};

use super::check_name;
use crate::store::store_error;

/// A prefix of a store.
pub struct ObjectSink {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
}

impl fmt::Debug for ObjectSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The store's own text may show its configuration.
        f.debug_struct("ObjectSink").field("url", &self.url).finish_non_exhaustive()
    }
}

impl ObjectSink {
    /// The log folder at `prefix`. `url` is for messages: it holds no secret.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path, url: &str) -> Self {
        ObjectSink { store, prefix, url: url.trim_end_matches('/').to_owned() }
    }

    fn path(&self, name: &str) -> Result<Path> {
        check_name(name)?;
        // Not `join`: it would encode characters of the name once more.
        Path::parse(format!("{}/{name}", self.prefix))
            .map_err(|e| CatalogError::invalid(format!("'{name}' is no object's name: {e}")))
    }

    fn error(&self, what: &str, name: &str, e: &Error) -> CatalogError {
        store_error(&format!("cannot {what} '{}/{name}'", self.url), e)
    }
}

#[async_trait]
impl MirrorSink for ObjectSink {
    async fn put_if_absent(&self, name: &str, bytes: Bytes) -> Result<PutOutcome> {
        let path = self.path(name)?;
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&path, PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(PutOutcome::Created),
            // After a lost answer the store's client repeats the put, and finds our own object:
            // callers compare bytes, so that is no harm.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(PutOutcome::Exists),
            Err(e) => Err(self.error("write", name, &e)),
        }
    }

    async fn replace(&self, name: &str, expected: &[u8], bytes: Bytes) -> Result<Replaced> {
        let path = self.path(name)?;
        let found = match self.store.get(&path).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(Replaced::Changed),
            Err(e) => return Err(self.error("read", name, &e)),
        };
        let seen =
            UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let there = found.bytes().await.map_err(|e| self.error("read", name, &e))?;
        if there != expected {
            return Ok(Replaced::Changed);
        }
        let options = PutOptions::from(PutMode::Update(seen));
        match self.store.put_opts(&path, PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(Replaced::Done),
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => Ok(Replaced::Changed),
            Err(e) => Err(self.error("replace", name, &e)),
        }
    }

    async fn put_replace(&self, name: &str, bytes: Bytes) -> Result<()> {
        let path = self.path(name)?;
        match self.store.put(&path, PutPayload::from_bytes(bytes)).await {
            Ok(_) => Ok(()),
            Err(e) => Err(self.error("write", name, &e)),
        }
    }

    async fn delete(&self, name: &str) -> Result<()> {
        match self.store.delete(&self.path(name)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.error("delete", name, &e)),
        }
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let path = self.path(name)?;
        let result = match self.store.get(&path).await {
            Ok(found) => found.bytes().await,
            Err(e) => Err(e),
        };
        match result {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.error("read", name, &e)),
        }
    }

    async fn list(&self, after: Option<&str>) -> Result<Vec<SinkEntry>> {
        let prefix = (!self.prefix.is_root()).then_some(&self.prefix);
        let found = match after {
            Some(after) => self.store.list_with_offset(prefix, &self.path(after)?),
            None => self.store.list(prefix),
        };
        let objects: Vec<_> = match found.try_collect().await {
            Ok(objects) => objects,
            Err(Error::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(store_error(&format!("cannot list '{}'", self.url), &e)),
        };
        let skip = if self.prefix.is_root() { 0 } else { self.prefix.as_ref().len() + 1 };
        let mut entries: Vec<SinkEntry> = objects
            .into_iter()
            .filter_map(|object| {
                Some(SinkEntry {
                    name: object.location.as_ref().get(skip..)?.to_owned(),
                    size_bytes: object.size,
                    modified: TimestampMs(object.last_modified.timestamp_millis()),
                })
            })
            // Stores disagree about whether an offset is included.
            .filter(|entry| after.is_none_or(|after| entry.name.as_str() > after))
            .collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Object stores set the time themselves.
    async fn set_modified(&self, _: &str, _: TimestampMs) -> Result<()> {
        Ok(())
    }

    fn describe(&self) -> String {
        self.url.clone()
    }
}
