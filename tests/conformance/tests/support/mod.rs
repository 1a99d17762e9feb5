//! The databases that this repository has.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deltalakedb_backend_sqlite::{SqliteBackend, SqliteOptions};
use deltalakedb_cache::{CacheOptions, CachedBackend};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_engine::memory::MemoryBackend;
use deltalakedb_conformance::{Fixture, Harness};

/// All of them.
pub(crate) fn harnesses() -> Vec<Arc<dyn Harness>> {
    vec![Arc::new(Memory), Arc::new(Sqlite), Arc::new(Cached), Arc::new(Reader)]
}

/// The reference implementation.
struct Memory;

#[async_trait]
impl Harness for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    async fn fresh(&self) -> Result<Fixture> {
        Ok(Fixture::new(Arc::new(MemoryBackend::new()), "memory"))
    }

    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        Ok(Some(fixture.backend.clone()))
    }
}

/// SQLite in a file of a temporary folder.
struct Sqlite;

fn open(path: &Path) -> Result<Arc<dyn CatalogBackend>> {
    Ok(SqliteBackend::open(SqliteOptions::new(path))?)
}

#[async_trait]
impl Harness for Sqlite {
    fn name(&self) -> &'static str {
        "sqlite"
    }

    async fn fresh(&self) -> Result<Fixture> {
        let folder = tempfile::tempdir().map_err(|e| {
            CatalogError::failed(format!("no temporary folder: {e}"), WriteState::NotApplied)
        })?;
        let path = folder.path().join("catalog.db");
        let backend = open(&path)?;
        Ok(Fixture::new(backend, path.to_string_lossy()).guarded_by(folder))
    }

    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        Ok(Some(open(Path::new(&fixture.place))?))
    }
}

/// SQLite with the cache in front, as the facade puts them together. A second handle has a cache
/// of its own, as another process has.
struct Cached;

#[async_trait]
impl Harness for Cached {
    fn name(&self) -> &'static str {
        "sqlite-cached"
    }

    async fn fresh(&self) -> Result<Fixture> {
        let mut fixture = Sqlite.fresh().await?;
        fixture.backend = Arc::new(CachedBackend::new(fixture.backend));
        Ok(fixture)
    }

    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        let other = Sqlite.reopen(fixture).await?;
        Ok(other.map(|other| Arc::new(CachedBackend::new(other)) as Arc<dyn CatalogBackend>))
    }
}

/// The same, as those who may be told an hour old head see it: whoever writes through this view must read
/// what he wrote. There is no second handle, as what others write may be missed.
struct Reader;

#[async_trait]
impl Harness for Reader {
    fn name(&self) -> &'static str {
        "sqlite-cached-reader"
    }

    async fn fresh(&self) -> Result<Fixture> {
        let mut fixture = Sqlite.fresh().await?;
        let options = CacheOptions {
            head_max_staleness: Some(Duration::from_secs(3_600)),
            ..CacheOptions::default()
        };
        let cached = CachedBackend::with_options(fixture.backend, &options);
        fixture.backend = Arc::new(cached.reader());
        Ok(fixture)
    }

    async fn reopen(&self, _: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        Ok(None)
    }
}
