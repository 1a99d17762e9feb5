//! URLs of catalogs and of tables in them.
//!
//! ```text
//! sqlite:///abs/path.db                 absolute path
//! sqlite://rel.db, sqlite://./a%20b.db  relative to the working directory
//! sqlite:///./rel.db, sqlite:///../rel.db  the same, as in SQLAlchemy's URLs
//! postgresql://user:password@host:5432/database?sslmode=verify-full
//! mysql://user:password@host:3306/database?ssl-mode=verify_identity
//! mssql://user:password@host:1433/database?encrypt=true
//! memory://                             for tests: empty, and gone with the process
//! delta+sql://<catalog>/<table>?<options of the catalog>
//! ```
//!
//! `postgres://`, `mariadb://`, `sqlserver://` and forms that name a driver of another program, as
//! `postgresql+asyncpg://` or `sqlite+aiosqlite://`, mean the same as without it: three slashes and a path
//! that does not begin with a dot are an absolute path. Every part is percent-decoded: `%3F` is a `?`, `%25` a
//! `%`, and a user, password, database or table with one of `/ ? # @ : %` in it needs that. A `#`, a
//! space and any letter may stand as they are in the path of a file. Neither `Display`, `Debug` nor
//! an error ever shows a password, or what could be a part of one.

mod options;
mod password;
mod server;
mod sqlite;
mod table;
mod text;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};

pub use options::{Encrypt, TlsMode};
pub use password::Secret;
#[cfg(feature = "config")]
pub(crate) use password::read_secret;
pub use server::ServerUri;
pub use sqlite::SqliteUri;
pub use table::TableUri;
pub(crate) use text::parse_duration;

/// Scheme of a table URI.
const TABLE_SCHEME: &str = "delta+sql://";

/// Which database a catalog is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A SQLite file.
    Sqlite,
    /// A PostgreSQL server, or one that speaks its protocol.
    Postgres,
    /// A MySQL or MariaDB server, or one that speaks their protocol.
    MySql,
    /// A Microsoft SQL Server, or Azure SQL.
    Mssql,
    /// The reference backend in memory, for tests.
    Memory,
}

impl Scheme {
    /// The scheme as it stands in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Scheme::Sqlite => "sqlite",
            Scheme::Postgres => "postgresql",
            Scheme::MySql => "mysql",
            Scheme::Mssql => "mssql",
            Scheme::Memory => "memory",
        }
    }

    /// The database's name, for people.
    #[must_use]
    pub const fn database(self) -> &'static str {
        match self {
            Scheme::Sqlite => "SQLite",
            Scheme::Postgres => "PostgreSQL",
            Scheme::MySql => "MySQL",
            Scheme::Mssql => "SQL Server",
            Scheme::Memory => "memory",
        }
    }

    /// The cargo feature with its backend, if it has one.
    #[must_use]
    pub const fn feature(self) -> Option<&'static str> {
        match self {
            Scheme::Sqlite => Some("sqlite"),
            Scheme::Postgres => Some("postgres"),
            Scheme::MySql => Some("mysql"),
            Scheme::Mssql => Some("mssql"),
            Scheme::Memory => None,
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Scheme> {
        let name = name.to_ascii_lowercase();
        // SQLAlchemy names the Python driver behind the database.
        let (family, driver) = name.split_once('+').map_or((&*name, None), |(f, d)| (f, Some(d)));
        let scheme = match family {
            "postgresql" | "postgres" => Scheme::Postgres,
            "mysql" | "mariadb" => Scheme::MySql,
            "mssql" | "sqlserver" => Scheme::Mssql,
            "sqlite" => Scheme::Sqlite,
            "memory" if driver.is_none() => Scheme::Memory,
            _ => return None,
        };
        Some(scheme).filter(|_| driver.is_none_or(|driver| !driver.is_empty()))
    }
}

/// URL of a catalog.
#[derive(Clone, PartialEq, Eq)]
pub struct CatalogUri {
    place: Place,
}

/// Where a catalog is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In a file.
    Sqlite(SqliteUri),
    /// On a server.
    Server(Box<ServerUri>),
    /// In this process.
    Memory,
}

impl CatalogUri {
    /// A SQLite catalog in this file, with default options.
    #[must_use]
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        CatalogUri { place: Place::Sqlite(SqliteUri::new(path)) }
    }

    /// A fresh catalog in memory.
    #[must_use]
    pub fn memory() -> Self {
        CatalogUri { place: Place::Memory }
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Which database.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        match &self.place {
            Place::Sqlite(_) => Scheme::Sqlite,
            Place::Server(server) => server.scheme(),
            Place::Memory => Scheme::Memory,
        }
    }

    /// The server and what is told to it, if it is on one.
    #[must_use]
    pub fn server(&self) -> Option<&ServerUri> {
        match &self.place {
            Place::Server(server) => Some(server),
            Place::Sqlite(_) | Place::Memory => None,
        }
    }

    /// `cache_size_bytes`: what is kept in memory weighs at most so much, bytes. 0 = nothing is kept.
    #[must_use]
    pub fn cache_size_bytes(&self) -> Option<u64> {
        match &self.place {
            Place::Sqlite(sqlite) => sqlite.cache_size_bytes(),
            Place::Server(server) => server.cache_size_bytes(),
            Place::Memory => None,
        }
    }

    /// `cache_max_staleness`: reads of the head may be answered from memory, and be that much behind what
    /// other processes wrote. Commits never rest on it.
    #[must_use]
    pub fn cache_max_staleness(&self) -> Option<Duration> {
        match &self.place {
            Place::Sqlite(sqlite) => sqlite.cache_max_staleness(),
            Place::Server(server) => server.cache_max_staleness(),
            Place::Memory => None,
        }
    }

    /// `retry_timeout`: how long calls on a busy database are repeated at most; zero = not at all. See
    /// [`Catalog::with_retry_timeout`](deltalakedb_catalog_engine::catalog::Catalog::with_retry_timeout).
    #[must_use]
    pub fn retry_timeout(&self) -> Option<Duration> {
        match &self.place {
            Place::Sqlite(sqlite) => sqlite.retry_timeout(),
            Place::Server(server) => server.retry_timeout(),
            Place::Memory => None,
        }
    }

    /// `max_clock_skew`: commits are refused while this machine's clock is further ahead of the database's
    /// than this, see [`core::skew`](deltalakedb_catalog_engine::skew).
    #[must_use]
    pub fn max_clock_skew(&self) -> Option<Duration> {
        match &self.place {
            Place::Sqlite(sqlite) => sqlite.max_clock_skew(),
            Place::Server(server) => server.max_clock_skew(),
            Place::Memory => None,
        }
    }

    /// Whether the URL itself holds a password, its own or a replica's.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.server().is_some_and(ServerUri::has_password)
    }

    /// `retry_count`: how often a call on a busy database is made at most.
    #[must_use]
    pub fn retry_count(&self) -> Option<u32> {
        match &self.place {
            Place::Sqlite(sqlite) => sqlite.retry_count(),
            Place::Server(server) => server.retry_count(),
            Place::Memory => None,
        }
    }

    /// `retry_base`: the first pause between two calls on a busy database; it doubles.
    #[must_use]
    pub fn retry_base(&self) -> Option<Duration> {
        match &self.place {
            Place::Sqlite(sqlite) => sqlite.retry_base(),
            Place::Server(server) => server.retry_base(),
            Place::Memory => None,
        }
    }

    /// `page_size`: rows that lists read at a time.
    #[must_use]
    pub fn page_size(&self) -> Option<u32> {
        match &self.place {
            Place::Sqlite(sqlite) => sqlite.page_size(),
            Place::Server(server) => server.page_size(),
            Place::Memory => None,
        }
    }

    /// The same with these options, as they would stand behind the `?`. Those that the URL has stay, unless
    /// `over`.
    #[cfg(feature = "config")]
    pub(crate) fn with_options(mut self, query: &str, over: bool) -> Result<Self> {
        let scheme = self.scheme();
        match &mut self.place {
            Place::Sqlite(sqlite) => {
                let path = sqlite.path.to_string_lossy().into_owned();
                let path = percent_encoding::utf8_percent_encode(&path, text::IN_PATH).to_string();
                sqlite.merge(SqliteUri::parse(&path, Some(query))?, over);
            }
            Place::Server(server) => server.merge(scheme, query, over)?,
            Place::Memory => {}
        }
        Ok(self)
    }

    /// The same with this password, if it is on a server and has none.
    #[cfg(feature = "config")]
    pub(crate) fn with_password(mut self, password: Secret) -> Self {
        if let Place::Server(server) = &mut self.place {
            server.fill_password(password);
        }
        self
    }

    /// Whether both name the same catalog, however they log in and tune the connection.
    #[must_use]
    pub fn same_catalog(&self, other: &CatalogUri) -> bool {
        match (&self.place, &other.place) {
            (Place::Sqlite(a), Place::Sqlite(b)) => {
                a.path() == b.path()
                    && prefix_or_default(a.table_prefix()) == prefix_or_default(b.table_prefix())
            }
            (Place::Server(a), Place::Server(b)) => a.same_catalog(b),
            (Place::Memory, Place::Memory) => true,
            _ => false,
        }
    }

    /// The same catalog with relative paths (of the file; of certificates and password files)
    /// taken from this folder.
    #[must_use]
    pub fn relative_to(mut self, folder: &Path) -> Self {
        match &mut self.place {
            Place::Sqlite(sqlite) if sqlite.path.is_relative() => {
                sqlite.path = folder.join(&sqlite.path);
            }
            Place::Server(server) => server.anchor(folder),
            Place::Sqlite(_) | Place::Memory => {}
        }
        self
    }

    /// Schemes that this build can open, as they stand in a URL.
    #[must_use]
    pub fn supported() -> Vec<&'static str> {
        [
            (Scheme::Sqlite, cfg!(feature = "sqlite")),
            (Scheme::Postgres, cfg!(feature = "postgres")),
            (Scheme::MySql, cfg!(feature = "mysql")),
            (Scheme::Mssql, cfg!(feature = "mssql")),
        ]
        .into_iter()
        .filter_map(|(scheme, built)| built.then_some(scheme.as_str()))
        .collect()
    }

    fn from_parts(scheme: Scheme, path: &str, query: Option<&str>) -> Result<Self> {
        let place = match scheme {
            Scheme::Memory => {
                if !path.trim_matches('/').is_empty() {
                    return Err(CatalogError::invalid(
                        "a catalog in memory has no path: its URL is memory://",
                    ));
                }
                if let Some((name, _)) = text::pairs(query).next() {
                    return Err(CatalogError::invalid(format!(
                        "unknown option '{}' in the catalog's URL: memory:// has no options",
                        text::printable(name)
                    )));
                }
                Place::Memory
            }
            Scheme::Sqlite => Place::Sqlite(SqliteUri::parse(path, query)?),
            Scheme::Postgres | Scheme::MySql | Scheme::Mssql => {
                Place::Server(Box::new(ServerUri::parse(scheme, path, query)?))
            }
        };
        Ok(CatalogUri { place })
    }

    /// Everything before the options.
    fn write_place(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Sqlite(sqlite) => sqlite.write_place(f),
            Place::Server(server) => server.write_place(f),
            Place::Memory => f.write_str("memory://"),
        }
    }

    /// `?a=b&c=d`, or nothing.
    fn write_query(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Sqlite(sqlite) => sqlite.write_query(f),
            Place::Server(server) => server.write_query(f),
            Place::Memory => Ok(()),
        }
    }
}

/// Without passwords.
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

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Sqlite(sqlite) => sqlite.fmt(f),
            Place::Server(server) => server.fmt(f),
            Place::Memory => f.write_str("Memory"),
        }
    }
}

impl FromStr for CatalogUri {
    type Err = CatalogError;

    /// Reads a catalog's URL. Whether this build has a backend for it shows when it is opened.
    ///
    /// # Errors
    /// `InvalidInput` for text that is no such URL or has a wrong option, `Unsupported` for a
    /// database that there is no backend for.
    fn from_str(text: &str) -> Result<Self> {
        if TableUri::is_one(text) {
            return Err(CatalogError::invalid(
                "this is the URL of a table (delta+sql://…): a catalog's URL has no delta+sql:// \
                 and no table at its end",
            ));
        }
        let (scheme, rest) = scheme_of(text)?;
        let (path, query) = text::split_query(rest);
        CatalogUri::from_parts(scheme, path, query)
    }
}

/// Splits `scheme://rest`. Schemes are compared without case, as everywhere.
fn scheme_of(text: &str) -> Result<(Scheme, &str)> {
    let Some((name, rest)) = text.split_once("://").filter(|(name, _)| is_scheme(name)) else {
        // What is not understood is not repeated: it may hold a password.
        return Err(CatalogError::invalid(
            "a catalog is given as a URL: sqlite:///absolute/path.db, sqlite://relative.db, \
             postgresql://user@host/database, mysql://user@host/database or \
             mssql://user@host/database",
        ));
    };
    match Scheme::from_name(name) {
        Some(scheme) => Ok((scheme, rest)),
        None => Err(CatalogError::Unsupported(format!(
            "there is no backend for '{}://' catalogs; there are: sqlite, postgresql, mysql, mssql",
            name.to_ascii_lowercase()
        ))),
    }
}

fn is_scheme(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c))
}

/// A variable of this process's environment.
#[cfg(any(feature = "postgres", feature = "mysql", feature = "mssql"))]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Prefix of table names unless told otherwise, in every database.
fn prefix_or_default(prefix: Option<&str>) -> &str {
    prefix.unwrap_or("dl_")
}

/// The value of option `table_prefix`. Each database may narrow it.
fn prefix(value: &str) -> Result<String> {
    let value = text::decode("option table_prefix", value)?;
    let well_formed =
        !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if well_formed {
        return Ok(value);
    }
    Err(CatalogError::invalid(
        "option table_prefix of the catalog's URL: letters, digits and underscores, at least one",
    ))
}

#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod tests;
