//! URLs of catalogs in SQLite files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use percent_encoding::utf8_percent_encode;

use super::prefix;
use super::text::{
    IN_PATH, IN_SEGMENT, QueryWriter, at_least_one, decode, duration, number, page_size, pairs,
    printable, show_duration,
};

/// `sqlite://path?options`.
#[derive(Clone, PartialEq, Eq)]
pub struct SqliteUri {
    pub(super) path: PathBuf,
    table_prefix: Option<String>,
    readers: Option<usize>,
    busy_timeout_ms: Option<u32>,
    cache_size_bytes: Option<u64>,
    cache_max_staleness: Option<Duration>,
    retry_timeout: Option<Duration>,
    max_clock_skew: Option<Duration>,
    retry_count: Option<u32>,
    retry_base: Option<Duration>,
    page_size: Option<u32>,
}

impl SqliteUri {
    /// Options of a `sqlite://` URL.
    pub const OPTIONS: &'static [&'static str] = &[
        "table_prefix",
        "readers",
        "busy_timeout_ms",
        "cache_size_bytes",
        "cache_max_staleness",
        "retry_timeout",
        "max_clock_skew",
        "retry_count",
        "retry_base",
        "page_size",
    ];

    /// This file, with default options.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        SqliteUri {
            path: path.into(),
            table_prefix: None,
            readers: None,
            busy_timeout_ms: None,
            cache_size_bytes: None,
            cache_max_staleness: None,
            retry_timeout: None,
            max_clock_skew: None,
            retry_count: None,
            retry_base: None,
            page_size: None,
        }
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `table_prefix`: what the names of the catalog's SQL tables start with.
    #[must_use]
    pub fn table_prefix(&self) -> Option<&str> {
        self.table_prefix.as_deref()
    }

    /// `readers`: number of reader connections.
    #[must_use]
    pub fn readers(&self) -> Option<usize> {
        self.readers
    }

    /// `busy_timeout_ms`: how long to wait for another writer, milliseconds.
    #[must_use]
    pub fn busy_timeout_ms(&self) -> Option<u32> {
        self.busy_timeout_ms
    }

    /// `cache_size_bytes`: what is kept in memory weighs at most so much, bytes.
    #[must_use]
    pub fn cache_size_bytes(&self) -> Option<u64> {
        self.cache_size_bytes
    }

    /// `cache_max_staleness`: reads of the head may be answered from memory, and be that much behind.
    #[must_use]
    pub fn cache_max_staleness(&self) -> Option<Duration> {
        self.cache_max_staleness
    }

    /// `retry_timeout`: how long calls on a busy database are repeated at most.
    #[must_use]
    pub fn retry_timeout(&self) -> Option<Duration> {
        self.retry_timeout
    }

    /// `max_clock_skew`: how far a table's head may be in the future without a warning.
    #[must_use]
    pub fn max_clock_skew(&self) -> Option<Duration> {
        self.max_clock_skew
    }

    /// `retry_count`: how often a call on a busy database is made at most.
    #[must_use]
    pub fn retry_count(&self) -> Option<u32> {
        self.retry_count
    }

    /// `retry_base`: the first pause between two calls on a busy database; it doubles.
    #[must_use]
    pub fn retry_base(&self) -> Option<Duration> {
        self.retry_base
    }

    /// `page_size`: rows that lists read at a time.
    #[must_use]
    pub fn page_size(&self) -> Option<u32> {
        self.page_size
    }

    /// Takes the options of another URL: those that this one lacks, or all that the other one has.
    #[cfg(feature = "config")]
    pub(super) fn merge(&mut self, other: SqliteUri, over: bool) {
        fn take<T>(mine: &mut Option<T>, theirs: Option<T>, over: bool) {
            if theirs.is_some() && (over || mine.is_none()) {
                *mine = theirs;
            }
        }
        let SqliteUri {
            path: _,
            table_prefix,
            readers,
            busy_timeout_ms,
            cache_size_bytes,
            cache_max_staleness,
            retry_timeout,
            max_clock_skew,
            retry_count,
            retry_base,
            page_size,
        } = other;
        take(&mut self.table_prefix, table_prefix, over);
        take(&mut self.readers, readers, over);
        take(&mut self.busy_timeout_ms, busy_timeout_ms, over);
        take(&mut self.cache_size_bytes, cache_size_bytes, over);
        take(&mut self.cache_max_staleness, cache_max_staleness, over);
        take(&mut self.retry_timeout, retry_timeout, over);
        take(&mut self.max_clock_skew, max_clock_skew, over);
        take(&mut self.retry_count, retry_count, over);
        take(&mut self.retry_base, retry_base, over);
        take(&mut self.page_size, page_size, over);
    }

    pub(super) fn parse(path: &str, query: Option<&str>) -> Result<Self> {
        let path = decode("the path of the catalog's URL", path)?;
        if path.is_empty() {
            return Err(CatalogError::invalid(
                "the catalog's URL names no file: write sqlite:///absolute/path.db or \
                 sqlite://relative.db",
            ));
        }
        let mut this = SqliteUri::new(native(&path));
        for (name, value) in pairs(query) {
            let name = decode("an option's name", name)?;
            let twice = match name.as_str() {
                "table_prefix" => this.table_prefix.replace(prefix(value)?).is_some(),
                "readers" => this.readers.replace(number(&name, value)?).is_some(),
                "busy_timeout_ms" => this.busy_timeout_ms.replace(number(&name, value)?).is_some(),
                "cache_size_bytes" => {
                    this.cache_size_bytes.replace(number(&name, value)?).is_some()
                }
                "cache_max_staleness" => {
                    this.cache_max_staleness.replace(duration(&name, value)?).is_some()
                }
                "retry_timeout" => this.retry_timeout.replace(duration(&name, value)?).is_some(),
                "max_clock_skew" => this.max_clock_skew.replace(duration(&name, value)?).is_some(),
                "retry_count" => {
                    let count = at_least_one(&name, number(&name, value)?)?;
                    this.retry_count.replace(count).is_some()
                }
                "retry_base" => this.retry_base.replace(duration(&name, value)?).is_some(),
                "page_size" => {
                    this.page_size.replace(page_size(&name, number(&name, value)?)?).is_some()
                }
                _ => {
                    return Err(CatalogError::invalid(format!(
                        "unknown option '{}' in the catalog's URL: sqlite has {}",
                        printable(&name),
                        Self::OPTIONS.join(", ")
                    )));
                }
            };
            if twice {
                return Err(CatalogError::invalid(format!(
                    "option {name} stands twice in the catalog's URL"
                )));
            }
        }
        Ok(this)
    }

    /// Everything before the options.
    pub(super) fn write_place(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string_lossy();
        // A drive letter follows the third slash: sqlite:///C:/lake/catalog.db
        let slash = if cfg!(windows) && self.path.is_absolute() { "/" } else { "" };
        write!(f, "sqlite://{slash}{}", utf8_percent_encode(&path, IN_PATH))
    }

    /// `?a=b&c=d`, or nothing.
    pub(super) fn write_query(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut query = QueryWriter::new(f);
        for (name, value) in [
            ("table_prefix", self.table_prefix.clone()),
            ("readers", self.readers.map(|n| n.to_string())),
            ("busy_timeout_ms", self.busy_timeout_ms.map(|n| n.to_string())),
            ("cache_size_bytes", self.cache_size_bytes.map(|n| n.to_string())),
            ("cache_max_staleness", self.cache_max_staleness.map(show_duration)),
            ("retry_timeout", self.retry_timeout.map(show_duration)),
            ("max_clock_skew", self.max_clock_skew.map(show_duration)),
            ("retry_count", self.retry_count.map(|n| n.to_string())),
            ("retry_base", self.retry_base.map(show_duration)),
            ("page_size", self.page_size.map(|n| n.to_string())),
        ] {
            if let Some(value) = value {
                query.option(name, &value, IN_SEGMENT)?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SqliteUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_place(f)?;
        self.write_query(f)
    }
}

/// A path as the system takes it: on Windows `/C:/lake` loses its first slash.
///
/// So does one that begins with `/./` or `/../`, everywhere: nobody means a path from the root by that,
/// and in SQLAlchemy's URLs what follows the third slash is relative.
fn native(path: &str) -> PathBuf {
    if path.starts_with("/./") || path.starts_with("/../") {
        return PathBuf::from(path.trim_start_matches('/'));
    }
    let drive = path.strip_prefix('/').filter(|rest| rest.as_bytes().get(1) == Some(&b':'));
    match drive {
        Some(rest) if cfg!(windows) => PathBuf::from(rest),
        // SQLite itself would take it for a URI, with options such as mode=memory.
        _ if path.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("file:")) => {
            PathBuf::from(format!("./{path}"))
        }
        _ => PathBuf::from(path),
    }
}
