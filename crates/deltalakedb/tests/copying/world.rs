//! Databases to copy from and to.

use std::any::Any;
use std::sync::Arc;

use deltalakedb::Db;
use deltalakedb::copy::{CopyOptions, CopyReport, Limits, Validate, copy_catalog};
use deltalakedb::core::backend::CatalogBackend;
use deltalakedb::core::catalog::Catalog;
use deltalakedb::core::env::NoProgress;
use deltalakedb::core::error::CatalogError;
use deltalakedb::core::ids::TimestampMs;
use deltalakedb::core::memory::MemoryBackend;
use deltalakedb::system::{RandomIds, SystemClock};
use deltalakedb_backend_sqlite::{SqliteBackend, SqliteOptions};

/// A kind of database.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Memory,
    Sqlite,
}

/// Every pair of kinds.
pub(crate) const PAIRS: [(Kind, Kind); 4] = [
    (Kind::Sqlite, Kind::Sqlite),
    (Kind::Sqlite, Kind::Memory),
    (Kind::Memory, Kind::Sqlite),
    (Kind::Memory, Kind::Memory),
];

/// A database of its own.
pub(crate) struct Database {
    pub(crate) db: Arc<dyn CatalogBackend>,
    _guard: Option<Box<dyn Any>>,
}

impl Kind {
    /// An empty catalog.
    pub(crate) async fn fresh(self) -> Database {
        let (db, guard): (Arc<dyn CatalogBackend>, Option<Box<dyn Any>>) = match self {
            Kind::Memory => (Arc::new(MemoryBackend::new()), None),
            Kind::Sqlite => {
                let dir = tempfile::tempdir().unwrap();
                let options = SqliteOptions::new(dir.path().join("catalog.db"));
                (SqliteBackend::open(options).unwrap(), Some(Box::new(dir)))
            }
        };
        db.migrate(TimestampMs(0)).await.unwrap();
        Database { db, _guard: guard }
    }
}

/// A place for a catalog on a server that nothing else uses, or why there is none. Servers are those
/// of this machine's packages, or those that `DL_TEST_POSTGRES_URL`, … name.
fn place(name: &str) -> Result<String, String> {
    type Server = fn() -> Result<String, String>;
    let (built, server): (bool, Server) = match name {
        "postgres" => (cfg!(feature = "postgres"), deltalakedb_test_servers::shared_postgres),
        "mysql" => (cfg!(feature = "mysql"), deltalakedb_test_servers::shared_mysql),
        _ => (cfg!(feature = "mssql"), || {
            let given = deltalakedb_test_servers::mssql_urls().into_iter().next();
            given.ok_or_else(|| "set DL_TEST_MSSQL_URL to a SQL Server".to_owned())
        }),
    };
    if !built {
        return Err(format!("built without the cargo feature {name}"));
    }
    let url = server()?;
    let sign = if url.contains('?') { '&' } else { '?' };
    let id = uuid::Uuid::new_v4().simple().to_string();
    Ok(format!("{url}{sign}table_prefix=c{}_", &id[..8]))
}

/// An empty catalog on a server; none, with the reason printed, if there is no such server.
pub(crate) async fn on_server(server: &str) -> Option<Database> {
    let place = match place(server) {
        Ok(place) => place,
        Err(why) => {
            deltalakedb_test_servers::skip(&[server], why);
            return None;
        }
    };
    let db = Db::create(&place.parse().unwrap()).await.unwrap();
    Some(Database { db: Arc::clone(db.backend()), _guard: None })
}

/// A catalog on a backend.
pub(crate) fn catalog(db: &Arc<dyn CatalogBackend>) -> Catalog {
    Catalog::new(Arc::clone(db), Arc::new(SystemClock), Arc::new(RandomIds))
}

/// Steps so small that every table takes several.
pub(crate) fn small_steps() -> CopyOptions {
    CopyOptions {
        limits: Limits { commits: 3, bytes: 2_000, files: 2 },
        validate: Validate::All,
        ..CopyOptions::default()
    }
}

/// Copies.
pub(crate) async fn copy(
    from: &Arc<dyn CatalogBackend>,
    to: &Arc<dyn CatalogBackend>,
    options: &CopyOptions,
) -> Result<CopyReport, CatalogError> {
    /// A server can run it as a task of its own.
    fn of_a_task<F: Future + Send>(future: F) -> F {
        future
    }
    of_a_task(copy_catalog(&catalog(from), &catalog(to), options, &NoProgress)).await
}

/// Copies all of it in small steps, and finds nothing wrong.
#[track_caller]
pub(crate) fn whole(report: &CopyReport) {
    assert!(report.finished && report.agrees(), "{report:#?}");
}
