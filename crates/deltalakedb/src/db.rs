//! An opened catalog.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deltalakedb_cache::{CacheOptions, CacheStats, CachedBackend};
use deltalakedb_catalog_core::audit::Actor;
use deltalakedb_catalog_core::backend::{CatalogBackend, PoolStats};
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_catalog_engine::catalog::{Catalog, CommitHook};
use deltalakedb_catalog_engine::env::{Clock, IdSource, Progress};
use deltalakedb_catalog_engine::retry::RetryPolicy;
use deltalakedb_catalog_engine::signature::{Signature, UserName};
use deltalakedb_mirror::publish::{Publisher, PublisherConfig};

use crate::backup::{self, BackupOptions, BackupReport};
use crate::indexing::Indexer;
use crate::system::{RandomIds, SystemClock, host_name};
use crate::traced::{Watch, traced};
use crate::uri::{CatalogUri, Place, Scheme, ServerUri};

/// A catalog that a URL opened: backend, cache, clock and mirror put together.
///
/// Derefs to [`Catalog`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    catalog: Catalog,
    /// The view that commits are planned on; readers have another one of the same cache.
    cache: Arc<CachedBackend>,
    uri: CatalogUri,
    /// What users read through, replicas and all, also where `catalog` is on its primary.
    readers: Arc<dyn CatalogBackend>,
    pub(crate) watch: Arc<Watch>,
}

impl Deref for Db {
    type Target = Catalog;

    fn deref(&self) -> &Catalog {
        &self.catalog
    }
}

impl Db {
    /// Opens a catalog that exists.
    ///
    /// # Errors
    /// `Schema` if it was never initialised (it says how), belongs to another program or is newer;
    /// `Unavailable` if it cannot be reached.
    pub async fn open(uri: &CatalogUri) -> Result<Db> {
        let start = Instant::now();
        let db = Db::assemble(uri, connect(uri, true).await?);
        let asked = db.clock().now();
        let info = db.backend().info().await?;
        let ms = start.elapsed().as_secs_f64() * 1_000.0;
        let database = uri.scheme().database();
        tracing::info!(catalog = %uri, database, schema = info.schema_version, ms, "catalog opened");
        db.note_info(asked, &info);
        if info.schema_version < info.supported_schema_version {
            let init = format!("`dl init --catalog {}`", quoted(uri));
            return Err(CatalogError::Schema(if info.schema_version == 0 {
                format!("{uri} holds no catalog yet: make one with {init}")
            } else {
                format!(
                    "the catalog in {uri} has schema version {}, this program needs {}: upgrade it \
                     with {init}",
                    info.schema_version, info.supported_schema_version
                )
            }));
        }
        Ok(db)
    }

    /// Opens a catalog, creating or upgrading its tables.
    ///
    /// # Errors
    /// As [`Db::open`].
    pub async fn create(uri: &CatalogUri) -> Result<Db> {
        let start = Instant::now();
        let db = Db::assemble(uri, connect(uri, false).await?);
        match db.backend().migrate(db.clock().now()).await.plain() {
            // Which other reasons there may be, the message says.
            Err(CatalogError::Unavailable { message, retryable: false, write })
                if uri.server().is_some() =>
            {
                Err(CatalogError::failed(
                    format!(
                        "{message} (making or upgrading the catalog takes a login that may create \
                         and alter tables; reading and committing does not)"
                    ),
                    write,
                ))
            }
            Err(error) => Err(error),
            Ok(()) => {
                let ms = start.elapsed().as_secs_f64() * 1_000.0;
                tracing::info!(catalog = %uri, database = uri.scheme().database(), ms, "catalog made");
                Ok(db)
            }
        }
    }

    fn assemble(uri: &CatalogUri, backend: Arc<dyn CatalogBackend>) -> Db {
        let watch = Arc::new(Watch::default());
        let (cache, reader) = cached(uri, traced(backend, &watch), &watch);
        let readers: Arc<dyn CatalogBackend> = Arc::new(reader);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let ids: Arc<dyn IdSource> = Arc::new(RandomIds);
        let mut catalog = Catalog::new(cache.clone(), clock, ids).with_meters(watch.meters());
        let policy = catalog.retry_policy();
        catalog = catalog.with_retry_policy(RetryPolicy {
            attempts: uri.retry_count().unwrap_or(policy.attempts),
            first_pause: uri.retry_base().unwrap_or(policy.first_pause),
            timeout: uri.retry_timeout().unwrap_or(policy.timeout),
        });
        if let Some(rows) = uri.page_size() {
            catalog = catalog.with_page_size(usize::try_from(rows).unwrap_or(usize::MAX));
        }
        if let Some(max) = uri.max_clock_skew() {
            catalog = catalog.with_max_clock_skew(max);
        }
        let indexer = Indexer::new(catalog.clone());
        let catalog = catalog.with_commit_hook(Arc::new(indexer));
        let catalog = catalog.with_reader(Arc::clone(&readers));
        // What is published is a backup of the catalog: it has the tables' names in it.
        let catalog = catalog.with_signature(Signature { user: None, table_names: true });
        let program = Some(concat!("deltalakedb ", env!("CARGO_PKG_VERSION")).to_owned());
        let catalog = catalog.with_actor(Actor { user: None, origin: host_name(), program });
        Db { catalog, cache, uri: uri.clone(), readers, watch }
    }

    /// What the cache of this catalog has done since it was opened, and what is in it.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.cache.stats()
    }

    /// The catalog itself.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The same without read replicas, and with every head as it is now, see [`Catalog::on_primary`].
    #[must_use]
    pub fn on_primary(mut self) -> Self {
        self.catalog = self.catalog.on_primary();
        self
    }

    /// The same with commits on behalf of this user from now on: `commitInfo.userName`, which the
    /// history shows. A commit whose own `commitInfo` names a user keeps that.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use deltalakedb::Db;
    /// let db = Db::open(&"sqlite:///lake/catalog.db".parse()?).await?;
    /// let db = db.with_user(Some("nightly load".parse()?));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn with_user(mut self, user: Option<UserName>) -> Self {
        let signature = Signature { user, ..self.catalog.signature().clone() };
        self.catalog = self.catalog.with_signature(signature);
        self
    }

    /// The same with this program, and this host or address, in the rows of the audit from now on. By itself it is
    /// this library and this machine's name.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> deltalakedb::Result<()> {
    /// let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
    /// let db = db.with_origin(Some("10.0.0.7"), Some("loader 1.2"))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` for text that is empty, long or has control characters.
    pub fn with_origin(mut self, origin: Option<&str>, program: Option<&str>) -> Result<Self> {
        let actor = Actor {
            user: None,
            origin: origin.map(str::to_owned),
            program: program.map(str::to_owned),
        };
        actor.check()?;
        self.catalog = self.catalog.with_actor(actor);
        Ok(self)
    }

    /// The same with a hook, see [`Catalog::with_commit_hook`].
    #[must_use]
    pub fn with_commit_hook(mut self, hook: Arc<dyn CommitHook>) -> Self {
        self.catalog = self.catalog.with_commit_hook(hook);
        self
    }

    /// The same with another time limit for repeated calls, see [`Catalog::with_retry_timeout`]; by itself
    /// it is what the URL's `retry_timeout` says.
    #[must_use]
    pub fn with_retry_timeout(mut self, timeout: Duration) -> Self {
        self.catalog = self.catalog.with_retry_timeout(timeout);
        self
    }

    /// Asks the database which schema the catalog has: one cheap call, for health checks.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> deltalakedb::Result<()> {
    /// use std::time::Duration;
    /// let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
    /// assert!(db.ping(Duration::from_secs(2)).await? < Duration::from_secs(2));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `busy` if the answer took longer than `limit`; `schema` if the catalog is not there or has another schema
    /// than this program's; those of the database.
    pub async fn ping(&self, limit: Duration) -> Result<Duration> {
        let start = Instant::now();
        let info = tokio::time::timeout(limit, self.backend().info()).await.map_err(|_| {
            CatalogError::busy(
                format!("{} did not answer within {} ms", self.uri, limit.as_millis()),
                WriteState::NotApplied,
            )
        })??;
        if info.schema_version != info.supported_schema_version {
            return Err(CatalogError::Schema(format!(
                "the catalog in {} has schema version {}, this program needs {}",
                self.uri, info.schema_version, info.supported_schema_version
            )));
        }
        Ok(start.elapsed())
    }

    /// The connections to the database at this moment; none where their number has no limit, as in memory.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> deltalakedb::Result<()> {
    /// # let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
    /// if let Some(pool) = db.pool_stats() {
    ///     println!("{} of {} connections work", pool.active, pool.limit);
    /// }
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn pool_stats(&self) -> Option<PoolStats> {
        self.backend().pool_stats()
    }

    /// Closes the connections of this handle and of all its clones, those to read replicas too. Calls that run
    /// end as they would have; later ones fail as `unavailable`. What is remembered may still be read.
    ///
    /// It may be dropped: connections that are left then are closed by themselves.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> deltalakedb::Result<()> {
    /// let db = deltalakedb::Db::create(&"memory://".parse()?).await?;
    /// db.close().await?;
    /// let error = db.table("t").await.unwrap_err();
    /// assert_eq!(error.code(), "unavailable");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// None at present: a connection that does not close cleanly is ended by the server.
    pub async fn close(&self) -> Result<()> {
        self.readers.close().await.plain()?;
        self.backend().close().await.plain()
    }

    /// Where it is.
    #[must_use]
    pub fn uri(&self) -> &CatalogUri {
        &self.uri
    }

    /// Backs up this catalog, see [`backup`](crate::backup::backup). It is restored by
    /// [`restore`](crate::backup::restore).
    ///
    /// # Errors
    /// Those of [`backup`](crate::backup::backup).
    pub async fn backup(
        &self,
        place: &backup::Place,
        options: &BackupOptions,
        progress: &dyn Progress,
    ) -> Result<BackupReport> {
        backup::backup(&self.catalog, place, options, progress).await
    }

    /// A worker that publishes this catalog's commits.
    #[must_use]
    pub fn publisher(&self, config: PublisherConfig) -> Publisher {
        Publisher::new(
            Arc::clone(self.backend()),
            Arc::clone(self.clock()),
            Arc::clone(self.ids()),
            config,
        )
        .with_retry_policy(self.retry_policy())
        .with_actor(self.catalog.actor().clone())
    }
}

/// A URL as a shell takes it for one word.
fn quoted(uri: &CatalogUri) -> String {
    let text = uri.to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/:.@_-%[]+,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

async fn connect(uri: &CatalogUri, must_exist: bool) -> Result<Arc<dyn CatalogBackend>> {
    match uri.place() {
        #[cfg(feature = "sqlite")]
        Place::Sqlite(sqlite) => crate::sqlite::connect(sqlite, must_exist).await,
        Place::Server(server) => connect_server(server).await,
        Place::Memory => {
            let _ = must_exist;
            Ok(Arc::new(deltalakedb_catalog_engine::memory::MemoryBackend::new()))
        }
        #[cfg(not(feature = "sqlite"))]
        Place::Sqlite(_) => Err(not_built(Scheme::Sqlite)),
    }
}

async fn connect_server(server: &ServerUri) -> Result<Arc<dyn CatalogBackend>> {
    match server.scheme() {
        #[cfg(feature = "postgres")]
        Scheme::Postgres => crate::postgres::connect(server).await,
        #[cfg(feature = "mysql")]
        Scheme::MySql => crate::mysql::connect(server).await,
        #[cfg(feature = "mssql")]
        Scheme::Mssql => crate::mssql::connect(server).await,
        other => Err(not_built(other)),
    }
}

/// The view of the cache that commits are planned on, and that compares, and the one that users read through.
fn cached(
    uri: &CatalogUri,
    backend: Arc<dyn CatalogBackend>,
    watch: &Arc<Watch>,
) -> (Arc<CachedBackend>, CachedBackend) {
    let default = CacheOptions::default();
    let options = CacheOptions {
        capacity_bytes: uri.cache_size_bytes().unwrap_or(default.capacity_bytes),
        head_max_staleness: uri.cache_max_staleness(),
        ..default
    };
    if let Some(replicas) = replicas(uri, &backend, watch) {
        let (cache, reader) = CachedBackend::split(backend, replicas, &options);
        (Arc::new(cache), reader)
    } else {
        let cache = CachedBackend::with_options(backend, &options);
        let reader = cache.reader();
        (Arc::new(cache), reader)
    }
}

/// The read replicas that the URL names, if it does. They are connected to when they are needed.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mssql"))]
fn replicas(
    uri: &CatalogUri,
    primary: &Arc<dyn CatalogBackend>,
    watch: &Arc<Watch>,
) -> Option<Arc<dyn CatalogBackend>> {
    use deltalakedb_replicas::{Replica, ReplicaConfig, ReplicaReader};

    let server = uri.server()?;
    let replicas: Vec<Replica> = server
        .replicas()
        .into_iter()
        .map(|replica| {
            let watch = Arc::clone(watch);
            Replica::new(format!("{}:{}", replica.host(), replica.port()), move || {
                let (replica, watch) = (replica.clone(), Arc::clone(&watch));
                async move { Ok(traced(connect_server(&replica).await?, &watch)) }
            })
        })
        .collect();
    if replicas.is_empty() {
        return None;
    }
    let config =
        ReplicaConfig { max_staleness: server.replica_max_staleness(), ..ReplicaConfig::default() };
    let reader = ReplicaReader::new(Arc::clone(primary), replicas, config);
    Some(Arc::new(reader))
}

#[cfg(not(any(feature = "postgres", feature = "mysql", feature = "mssql")))]
fn replicas(
    _: &CatalogUri,
    _: &Arc<dyn CatalogBackend>,
    _: &Arc<Watch>,
) -> Option<Arc<dyn CatalogBackend>> {
    None
}

/// The error of a build without this database's backend.
pub(crate) fn not_built(scheme: Scheme) -> CatalogError {
    let have = CatalogUri::supported();
    CatalogError::Unsupported(format!(
        "this program was built without {}: build it with the cargo feature `{}` (it has: {})",
        scheme.database(),
        scheme.feature().unwrap_or_default(),
        if have.is_empty() { "none".to_owned() } else { have.join(", ") }
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> CatalogUri {
        text.parse().unwrap()
    }

    #[test]
    fn a_build_without_a_backend_names_the_feature() {
        for (url, feature) in [
            ("sqlite://c.db", "`sqlite`"),
            ("postgresql://u:geheim@h/d", "`postgres`"),
            ("mysql://u:geheim@h/d", "`mysql`"),
            ("mssql://u:geheim@h/d", "`mssql`"),
        ] {
            let e = not_built(uri(url).scheme()).to_string();
            assert!(e.contains("cargo feature") && e.contains(feature), "{e}");
            assert!(!e.contains("geheim"), "{e}");
        }
    }

    #[cfg(feature = "sqlite")]
    async fn commit(
        db: &Db,
        target: deltalakedb_catalog_engine::catalog::ChangeTarget,
        ndjson: &str,
    ) {
        use deltalakedb_catalog_engine::catalog::{CommitBatch, TableChange};

        let change = TableChange {
            target,
            ndjson: ndjson.into(),
            origin: "test".to_owned(),
            // It read the whole table, so that it goes on exactly one head.
            reads: deltalakedb_catalog_engine::conflict::Reads {
                whole_table: true,
                ..Default::default()
            },
            operation: None,
        };
        db.commit(CommitBatch { token: None, tables: vec![change] }).await.unwrap();
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test(flavor = "multi_thread")]
    async fn readers_may_be_told_an_older_head_and_commits_never_rest_on_it() {
        use deltalakedb_catalog_core::ids::{At, TableRef};
        use deltalakedb_catalog_core::model::MirrorMode;
        use deltalakedb_catalog_engine::catalog::ChangeTarget;

        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("c.db").display());
        let here = Db::create(&uri(&format!("{url}?cache_max_staleness=1h"))).await.unwrap();
        let there = Db::open(&uri(&url)).await.unwrap();
        let zero = "{\"protocol\":{\"minReaderVersion\":1,\"minWriterVersion\":2}}\n\
            {\"metaData\":{\"id\":\"m\",\"format\":{\"provider\":\"parquet\",\"options\":{}},\
            \"schemaString\":\"{\\\"type\\\":\\\"struct\\\",\\\"fields\\\":[]}\",\
            \"partitionColumns\":[],\"configuration\":{}}}\n";
        let target = ChangeTarget::Create {
            name: "t".parse().unwrap(),
            location: "memory://t".to_owned(),
            storage_options: std::collections::BTreeMap::new(),
            mirror: MirrorMode::Off,
            fence: false,
        };
        commit(&here, target, zero).await;
        let table = TableRef::Name("t".parse().unwrap());
        let head = async |db: &Db| db.snapshot(&table, At::Head).await.unwrap().version.get();
        let append = async |db: &Db, path: &str| {
            let line = format!(
                "{{\"add\":{{\"path\":\"{path}\",\"partitionValues\":{{}},\"size\":1,\
                 \"modificationTime\":1,\"dataChange\":true}}}}"
            );
            let target = ChangeTarget::Existing { table: table.clone(), read_version: None };
            commit(db, target, &line).await;
        };
        assert_eq!(head(&here).await, 0);
        append(&there, "a").await;
        assert_eq!(head(&there).await, 1);
        // The first look may have been one too: who indexes the commit may have seen the head before.
        let before = here.cache_stats().stale_hits;
        assert_eq!(head(&here).await, 0);
        assert_eq!(here.cache_stats().stale_hits, before + 1);
        assert_eq!(head(&here.clone().on_primary()).await, 1);
        append(&there, "b").await;
        // Planned on the head as it is, and read by who wrote it.
        append(&here, "c").await;
        assert_eq!(head(&here).await, 3);
    }

    #[test]
    fn urls_are_quoted_for_shells_where_they_need_it() {
        for (url, word) in [
            ("sqlite:///lake/c.db", "sqlite:///lake/c.db"),
            ("postgresql://u:geheim@[::1]:5433/d", "postgresql://u@[::1]:5433/d"),
            ("mysql://u@h/d?max_connections=2", "'mysql://u@h/d?max_connections=2'"),
            ("sqlite:///it's.db", r"'sqlite:///it'\''s.db'"),
        ] {
            assert_eq!(quoted(&uri(url)), word);
        }
    }
}
