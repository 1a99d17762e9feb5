//! URLs of catalogs and of tables in them.
//!
//! ```text
//! sqlite:///abs/path.db                 absolute path
//! sqlite://rel.db, sqlite://./a%20b.db  relative to the working directory
//! memory://                             for tests: empty, and gone with the process
//! delta+sql://<catalog>/<table>?<options of the catalog>
//! ```
//!
//! Paths, table names and option values are percent-decoded: `%3F` is a `?`, `%25` a `%`. A `#`, a
//! space and any letter may stand as they are. Neither `Display`, `Debug` nor an error ever shows
//! what could be a password.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::ids::{TableName, TableRef};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// Scheme of a table URI.
const TABLE_SCHEME: &str = "delta+sql://";
/// What is encoded in a path: what would end it, and what would not print.
const IN_PATH: &AsciiSet = &CONTROLS.add(b'%').add(b'?');
/// What is encoded in a table's segment or an option's value.
const IN_SEGMENT: &AsciiSet = &IN_PATH.add(b'/').add(b'&').add(b'=');

/// Which database a catalog is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A SQLite file.
    Sqlite,
    /// The reference backend in memory, for tests.
    Memory,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Sqlite => "sqlite",
            Scheme::Memory => "memory",
        }
    }
}

/// URL of a catalog.
#[derive(Clone, PartialEq, Eq)]
pub struct CatalogUri {
    scheme: Scheme,
    path: PathBuf,
    table_prefix: Option<String>,
    readers: Option<usize>,
    busy_timeout_ms: Option<u32>,
}

impl CatalogUri {
    /// Options of a `sqlite://` URL.
    pub const SQLITE_OPTIONS: &'static [&'static str] =
        &["table_prefix", "readers", "busy_timeout_ms"];

    /// A SQLite catalog in this file, with default options.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        CatalogUri {
            scheme: Scheme::Sqlite,
            path: path.into(),
            table_prefix: None,
            readers: None,
            busy_timeout_ms: None,
        }
    }

    /// A fresh catalog in memory.
    #[must_use]
    pub fn memory() -> Self {
        CatalogUri { scheme: Scheme::Memory, ..CatalogUri::sqlite("") }
    }

    /// Which database.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The database file; empty for `memory://`.
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

    /// The same catalog with a relative path taken from this folder.
    #[must_use]
    pub fn relative_to(mut self, folder: &Path) -> Self {
        if self.scheme == Scheme::Sqlite && self.path.is_relative() {
            self.path = folder.join(&self.path);
        }
        self
    }

    /// Schemes that this build can open, as they stand in a URL.
    #[must_use]
    pub fn supported() -> &'static [&'static str] {
        if cfg!(feature = "sqlite") { &["sqlite"] } else { &[] }
    }

    fn from_parts(scheme: Scheme, path: &str, query: Option<&str>) -> Result<Self> {
        let mut this = match scheme {
            Scheme::Memory => {
                if !path.trim_matches('/').is_empty() {
                    return Err(CatalogError::invalid(
                        "a catalog in memory has no path: its URL is memory://",
                    ));
                }
                CatalogUri::memory()
            }
            Scheme::Sqlite => {
                let path = decode("the path of the catalog's URL", path)?;
                if path.is_empty() {
                    return Err(CatalogError::invalid(
                        "the catalog's URL names no file: write sqlite:///absolute/path.db or \
                         sqlite://relative.db",
                    ));
                }
                CatalogUri::sqlite(native(&path))
            }
        };
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            this.set_option(&decode("an option's name", name)?, value)?;
        }
        Ok(this)
    }

    fn set_option(&mut self, name: &str, value: &str) -> Result<()> {
        let twice = match (self.scheme, name) {
            (Scheme::Sqlite, "table_prefix") => {
                let value = decode("option table_prefix", value)?;
                let well_formed = !value.is_empty()
                    && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
                if !well_formed {
                    return Err(CatalogError::invalid(
                        "option table_prefix of the catalog's URL: letters, digits and \
                         underscores, at least one",
                    ));
                }
                self.table_prefix.replace(value).is_some()
            }
            (Scheme::Sqlite, "readers") => self.readers.replace(number(name, value)?).is_some(),
            (Scheme::Sqlite, "busy_timeout_ms") => {
                self.busy_timeout_ms.replace(number(name, value)?).is_some()
            }
            (Scheme::Sqlite, _) => {
                return Err(CatalogError::invalid(format!(
                    "unknown option '{}' in the catalog's URL: {} has {}",
                    printable(name),
                    self.scheme.as_str(),
                    Self::SQLITE_OPTIONS.join(", ")
                )));
            }
            (Scheme::Memory, _) => {
                return Err(CatalogError::invalid(format!(
                    "unknown option '{}' in the catalog's URL: memory:// has no options",
                    printable(name)
                )));
            }
        };
        if twice {
            return Err(CatalogError::invalid(format!(
                "option {name} stands twice in the catalog's URL"
            )));
        }
        Ok(())
    }

    /// `?a=b&c=d`, or nothing.
    fn write_query(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sign = '?';
        let mut option = |name: &str, value: Option<String>| match value {
            Some(value) => {
                let written = write!(f, "{sign}{name}={}", utf8_percent_encode(&value, IN_SEGMENT));
                sign = '&';
                written
            }
            None => Ok(()),
        };
        option("table_prefix", self.table_prefix.clone())?;
        option("readers", self.readers.map(|n| n.to_string()))?;
        option("busy_timeout_ms", self.busy_timeout_ms.map(|n| n.to_string()))
    }

    /// Everything before the options.
    fn write_place(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string_lossy();
        // A drive letter follows the third slash: sqlite:///C:/lake/catalog.db
        let slash = if cfg!(windows) && self.path.is_absolute() { "/" } else { "" };
        write!(f, "{}://{slash}{}", self.scheme.as_str(), utf8_percent_encode(&path, IN_PATH))
    }
}

impl fmt::Display for CatalogUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_place(f)?;
        self.write_query(f)
    }
}

impl fmt::Debug for CatalogUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CatalogUri({self})")
    }
}

impl FromStr for CatalogUri {
    type Err = CatalogError;

    /// Reads a catalog's URL.
    ///
    /// # Errors
    /// `InvalidInput` for text that is no such URL or has a wrong option, `Unsupported` for a
    /// database that this build has no backend for.
    fn from_str(text: &str) -> Result<Self> {
        if text.starts_with(TABLE_SCHEME) {
            return Err(CatalogError::invalid(
                "this is the URL of a table (delta+sql://…): a catalog's URL has no delta+sql:// \
                 and no table at its end",
            ));
        }
        let (scheme, rest) = scheme_of(text)?;
        let (path, query) = split_query(rest);
        CatalogUri::from_parts(scheme, path, query)
    }
}

/// URL of a table: a catalog and a name in it.
#[derive(Clone, PartialEq, Eq)]
pub struct TableUri {
    catalog: CatalogUri,
    table: TableName,
}

impl TableUri {
    /// A table of a catalog.
    #[must_use]
    pub fn new(catalog: CatalogUri, table: TableName) -> Self {
        TableUri { catalog, table }
    }

    /// Whether text is meant as a table URI (it may still be a wrong one).
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.get(..TABLE_SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(TABLE_SCHEME))
    }

    /// The catalog.
    #[must_use]
    pub fn catalog(&self) -> &CatalogUri {
        &self.catalog
    }

    /// The table's name in it.
    #[must_use]
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The name as a reference to a live table.
    #[must_use]
    pub fn table_ref(&self) -> TableRef {
        TableRef::Name(self.table.clone())
    }
}

impl fmt::Display for TableUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TABLE_SCHEME)?;
        self.catalog.write_place(f)?;
        write!(f, "/{}", utf8_percent_encode(&self.table.to_string(), IN_SEGMENT))?;
        self.catalog.write_query(f)
    }
}

impl fmt::Debug for TableUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TableUri({self})")
    }
}

impl FromStr for TableUri {
    type Err = CatalogError;

    /// Reads a table's URL: the last segment of the path is the table (`table` or
    /// `namespace.table`, a slash in it as `%2F`), everything before it the catalog.
    ///
    /// # Errors
    /// As [`CatalogUri`]'s, and `InvalidInput` for a missing or bad table name.
    fn from_str(text: &str) -> Result<Self> {
        let form = "a table's URL is delta+sql://<catalog>/<table>, for example \
                    delta+sql://sqlite:///lake/catalog.db/sales.orders";
        if !TableUri::is_one(text) {
            return Err(CatalogError::invalid(form));
        }
        let (scheme, rest) = scheme_of(&text[TABLE_SCHEME.len()..])?;
        let (path, query) = split_query(rest);
        let (place, table) = match (scheme, path.rsplit_once('/')) {
            (_, Some((place, table))) => (place, table),
            (Scheme::Memory, None) => ("", path),
            (Scheme::Sqlite, None) => {
                return Err(CatalogError::invalid(format!("the URL names no table: {form}")));
            }
        };
        if table.is_empty() {
            return Err(CatalogError::invalid(format!("the URL names no table: {form}")));
        }
        let table = decode("the table's name in the URL", table)?.parse()?;
        Ok(TableUri { catalog: CatalogUri::from_parts(scheme, place, query)?, table })
    }
}

/// Splits `scheme://rest`. Schemes are compared without case, as everywhere.
fn scheme_of(text: &str) -> Result<(Scheme, &str)> {
    let have = CatalogUri::supported();
    let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
    let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme))
    else {
        // What is not understood is not repeated: it may hold a password.
        return Err(CatalogError::invalid(
            "a catalog is given as a URL: sqlite:///absolute/path.db or sqlite://relative.db",
        ));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "sqlite" => Ok((Scheme::Sqlite, rest)),
        "memory" => Ok((Scheme::Memory, rest)),
        other => Err(CatalogError::Unsupported(format!(
            "this build has no backend for '{other}://' catalogs; it has: {have}"
        ))),
    }
}

fn is_scheme(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn split_query(rest: &str) -> (&str, Option<&str>) {
    match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    }
}

/// A path as the system takes it: on Windows `/C:/lake` loses its first slash.
fn native(path: &str) -> PathBuf {
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

/// Percent-decodes. Unlike browsers it does not let a `%` stand for itself: a path that was meant
/// otherwise would become another file.
fn decode(what: &str, text: &str) -> Result<String> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        let hex = after.as_bytes().get(..2).is_some_and(|d| d.iter().all(u8::is_ascii_hexdigit));
        if !hex {
            return Err(CatalogError::invalid(format!(
                "{what} has a '%' that is not followed by two hexadecimal digits: write a percent \
                 sign as %25"
            )));
        }
        rest = after;
    }
    let decoded = percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map_err(|_| CatalogError::invalid(format!("{what} is not UTF-8 when decoded")))?;
    if decoded.contains('\0') {
        return Err(CatalogError::invalid(format!("{what} contains NUL")));
    }
    Ok(decoded.into_owned())
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| {
        CatalogError::invalid(format!(
            "option {name} of the catalog's URL must be a whole number, not '{}'",
            printable(value)
        ))
    })
}

/// The start of foreign text, without control characters.
fn printable(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
#[path = "uri_tests.rs"]
mod tests;
