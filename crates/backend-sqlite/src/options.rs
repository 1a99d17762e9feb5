//! How a SQLite catalog is opened.

use std::path::PathBuf;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::support::check_identifier;

/// Where the catalog's file is and how it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SqliteOptions {
    /// The database file. Its folder must exist; SQLite keeps `<path>-wal` and `<path>-shm` next
    /// to it. It must not lie on a network file system (WAL needs shared memory).
    pub path: PathBuf,
    /// What the names of our tables start with. Default `dl_`.
    pub table_prefix: String,
    /// Most reader connections, each with its own thread: 1 to 64. Default 4. The first is opened with
    /// the catalog, further ones when all are at work.
    pub readers: usize,
    /// How long a call waits for another process that holds the write lock, milliseconds.
    /// Default 10,000.
    pub busy_timeout_ms: u32,
    /// Never writes: every writing call fails, and the file is not even created. Default false.
    pub read_only: bool,
    /// Refuses a file without a catalog in it instead of creating one, and tells to run `dl init`.
    /// Default false.
    pub must_exist: bool,
}

impl SqliteOptions {
    /// Prefix of table names unless told otherwise.
    pub const DEFAULT_TABLE_PREFIX: &'static str = "dl_";
    /// Longest prefix, in characters.
    pub const MAX_PREFIX_CHARS: usize = 31;
    /// Most that `readers` may be.
    pub const MAX_READERS: usize = 64;

    /// The defaults, for this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        SqliteOptions {
            path: path.into(),
            table_prefix: Self::DEFAULT_TABLE_PREFIX.to_owned(),
            readers: 4,
            busy_timeout_ms: 10_000,
            read_only: false,
            must_exist: false,
        }
    }

    /// Checks every field. The prefix is the only text that is ever put into SQL itself.
    ///
    /// # Errors
    /// `InvalidInput` that names the field and what it may be.
    pub fn validate(&self) -> Result<()> {
        let path = self.path.to_string_lossy();
        // SQLite would read "file:…" as a URI with options of its own.
        let special = path == ":memory:" || path.starts_with("file:");
        if path.is_empty() || special || path.contains('\0') {
            return Err(CatalogError::invalid(format!(
                "bad path {path:?}: a SQLite catalog lives in a file, because several connections \
                 share it"
            )));
        }
        let prefix = &self.table_prefix;
        check_identifier("table_prefix", prefix, Self::MAX_PREFIX_CHARS)?;
        // "sqlite_" belongs to SQLite itself (https://sqlite.org/lang_createtable.html).
        let reserved = prefix.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"));
        if reserved {
            return Err(CatalogError::invalid(format!(
                "bad table_prefix {prefix:?}: names that start with 'sqlite_' are SQLite's own"
            )));
        }
        if !(1..=Self::MAX_READERS).contains(&self.readers) {
            return Err(CatalogError::invalid(format!(
                "bad number of readers {}: 1 to {} are allowed",
                self.readers,
                Self::MAX_READERS
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_an_identifier_or_refused() {
        let with = |prefix: &str| SqliteOptions {
            table_prefix: prefix.to_owned(),
            ..SqliteOptions::new("x.db")
        };
        for good in ["dl_", "_", "A9", &"x".repeat(31)] {
            with(good).validate().unwrap();
        }
        for bad in ["", "9a", "a-b", "a b", "a\"b", "é", "sqlite_x", "SQLite_", &"x".repeat(32)] {
            let error = with(bad).validate().unwrap_err().to_string();
            assert!(error.contains("table_prefix"), "{error}");
        }
    }

    #[test]
    fn a_catalog_is_a_file_with_readers() {
        for bad in ["", ":memory:", "a\0b", "file:x.db?mode=memory"] {
            assert!(SqliteOptions::new(bad).validate().is_err());
        }
        for readers in [0, 65] {
            assert!(SqliteOptions { readers, ..SqliteOptions::new("x.db") }.validate().is_err());
        }
    }
}
