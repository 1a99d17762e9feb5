//! Databases that catalogs of tests are in.

use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
    MySql,
    Mssql,
}

impl Database {
    /// URL of a place for a catalog that nothing else uses; tables of a server by their prefix.
    pub(crate) fn url(self, dir: &TempDir) -> String {
        self.place(dir).unwrap_or_else(|why| panic!("{why}"))
    }

    fn place(self, dir: &TempDir) -> Result<String, String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let url = match self {
            Database::Sqlite => {
                return Ok(format!("sqlite://{}", dir.path().join("catalog.db").display()));
            }
            Database::Postgres => deltalakedb_test_servers::shared_postgres()?,
            Database::MySql => deltalakedb_test_servers::shared_mysql()?,
            Database::Mssql => deltalakedb_test_servers::mssql_urls()
                .into_iter()
                .next()
                .ok_or("set DL_TEST_MSSQL_URL to a SQL Server")?,
        };
        let sign = if url.contains('?') { '&' } else { '?' };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(format!("{url}{sign}table_prefix=rs_{}_{number}_", std::process::id()))
    }

    /// Whether a test can run there; says why not.
    pub(crate) fn is_there(self) -> bool {
        let dir = tempfile::tempdir().unwrap();
        let Err(why) = self.place(&dir) else { return true };
        let required = std::env::var("DL_REQUIRE").unwrap_or_default();
        let names: &[&str] = match self {
            Database::Sqlite => &["sqlite"],
            Database::Postgres => &["postgres"],
            Database::MySql => &["mysql", "mariadb"],
            Database::Mssql => &["mssql"],
        };
        let required = required.split(',').any(|name| names.contains(&name.trim()));
        assert!(!required, "required by DL_REQUIRE: {why}");
        println!("skipped: {why}");
        false
    }
}
