//! The databases that a test is repeated on.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::shared::{mssql_urls, shared_mysql, shared_postgres};

/// A database that catalogs of tests are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// A file.
    Sqlite,
    /// The server of [`shared_postgres`].
    Postgres,
    /// The server of [`shared_mysql`].
    MySql,
    /// The first of [`mssql_urls`].
    Mssql,
}

impl Database {
    /// URL of a place for a catalog that nothing else uses: a file in `folder`, or tables of a server
    /// with a prefix that begins with `prefix`.
    ///
    /// # Errors
    /// Why there is none: a reason to skip the test.
    pub fn url(self, folder: &Path, prefix: &str) -> Result<String, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let url = match self {
            Database::Sqlite => {
                return Ok(format!("sqlite://{}", folder.join("catalog.db").display()));
            }
            Database::Postgres => shared_postgres()?,
            Database::MySql => shared_mysql()?,
            Database::Mssql => {
                mssql_urls().into_iter().next().ok_or("set DL_TEST_MSSQL_URL to a SQL Server")?
            }
        };
        let sign = if url.contains('?') { '&' } else { '?' };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Each test may be a process, and numbers of processes are given again: the moment counts, too.
        let process = std::process::id();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moment = since.as_micros() % 0x10_0000;
        Ok(format!("{url}{sign}table_prefix={prefix}_{process:x}{moment:05x}_{number}_"))
    }

    /// Its name in `DL_REQUIRE`, for [`skip`](crate::skip).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Database::Sqlite => "sqlite",
            Database::Postgres => "postgres",
            Database::MySql => "mysql",
            Database::Mssql => "mssql",
        }
    }
}
