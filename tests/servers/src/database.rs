//! The databases that a test is repeated on.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

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
        Ok(format!("{url}{sign}table_prefix={prefix}_{}_{number}_", std::process::id()))
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
