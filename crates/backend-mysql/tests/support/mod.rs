//! Databases for cases: each has one of its own, which is dropped after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use deltalakedb_backend_mysql::{MySqlBackend, MySqlOptions};
use deltalakedb_catalog_core::backend::CatalogBackend;
use deltalakedb_catalog_core::error::{CatalogError, Result, WriteState};
use deltalakedb_conformance::{Fixture, Harness};
use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};
use url::Url;

/// One for each server, or one that says why there is none.
pub(crate) fn harnesses() -> Vec<Arc<dyn Harness>> {
    let given = deltalakedb_test_servers::mysql_urls();
    let urls = if given.is_empty() {
        vec![deltalakedb_test_servers::shared_mysql()]
    } else {
        given.into_iter().map(Ok).collect()
    };
    urls.into_iter().map(|url| Arc::new(Server::new(url)) as Arc<dyn Harness>).collect()
}

struct Server {
    name: String,
    url: std::result::Result<String, String>,
}

impl Server {
    fn new(url: std::result::Result<String, String>) -> Self {
        let name = url.as_deref().map_or_else(
            |_| "mysql".to_owned(),
            |url| {
                blocking(async {
                    let mut admin = MySqlConnection::connect(url).await?;
                    let row = admin.fetch_one("SELECT VERSION()").await?;
                    row.try_get::<String, _>(0)
                })
                .map_or_else(|_| "mysql-unreachable".to_owned(), |version| called(&version))
            },
        );
        Server { name, url }
    }
}

/// `mysql-8.0`, `mysql-mariadb-10.11`.
fn called(version: &str) -> String {
    let maria = version.to_ascii_lowercase().contains("mariadb");
    let number = version.strip_prefix("5.5.5-").filter(|_| maria).unwrap_or(version);
    let number: Vec<&str> = number.split(|c: char| !c.is_ascii_digit()).take(2).collect();
    format!("mysql{}-{}", if maria { "-mariadb" } else { "" }, number.join("."))
}

/// Runs on a thread and runtime of its own: guards are dropped inside of others' runtimes.
fn blocking<T: Send>(
    work: impl std::future::Future<Output = sqlx::Result<T>> + Send,
) -> sqlx::Result<T> {
    std::thread::scope(|scope| {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let thread = scope.spawn(move || runtime().map_err(sqlx::Error::Io)?.block_on(work));
        thread.join().map_err(|_| sqlx::Error::WorkerCrashed)?
    })
}

/// Drops its database.
pub(crate) struct Guard {
    pub(crate) admin: String,
    pub(crate) database: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {}", self.database);
        let dropped = blocking(async {
            let mut admin = MySqlConnection::connect(&self.admin).await?;
            admin.execute(AssertSqlSafe(sql)).await
        });
        if let Err(error) = dropped {
            eprintln!("database {} stays behind: {error}", self.database);
        }
    }
}

fn broken(error: impl std::fmt::Display) -> CatalogError {
    CatalogError::failed(format!("the test's server: {error}"), WriteState::NotApplied)
}

/// Options from a URL without options.
pub(crate) fn options(url: &str) -> Result<MySqlOptions> {
    let url: Url = url.parse().map_err(broken)?;
    let mut options = MySqlOptions::new(
        url.host_str().unwrap_or("localhost"),
        url.port().unwrap_or(3306),
        url.path().trim_start_matches('/'),
        url.username(),
    );
    options.password = url.password().map(Into::into);
    options.pool.max_connections = 12;
    options.pool.idle_timeout = Duration::from_secs(5);
    Ok(options)
}

async fn open(place: &str) -> Result<Arc<dyn CatalogBackend>> {
    Ok(MySqlBackend::connect(options(place)?).await?)
}

#[async_trait]
impl Harness for Server {
    fn name(&self) -> &str {
        &self.name
    }

    async fn unavailable(&self) -> Option<String> {
        self.url.as_ref().err().cloned()
    }

    async fn fresh(&self) -> Result<Fixture> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        static RUN: OnceLock<String> = OnceLock::new();
        let run = RUN.get_or_init(|| uuid::Uuid::new_v4().simple().to_string()[..8].to_owned());
        let admin = self.url.clone().map_err(broken)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let database = format!("dl_test_{run}_{number}");
        let mut connection = MySqlConnection::connect(&admin).await.map_err(broken)?;
        // A character set and collation that are not ours.
        let sql = format!("CREATE DATABASE {database} CHARACTER SET latin1");
        connection.execute(AssertSqlSafe(sql)).await.map_err(broken)?;
        connection.close().await.map_err(broken)?;
        let mut place: Url = admin.parse().map_err(broken)?;
        place.set_path(&database);
        let backend = open(place.as_str()).await?;
        Ok(Fixture::new(backend, place.as_str()).guarded_by(Guard { admin, database }))
    }

    async fn reopen(&self, fixture: &Fixture) -> Result<Option<Arc<dyn CatalogBackend>>> {
        Ok(Some(open(&fixture.place).await?))
    }
}
