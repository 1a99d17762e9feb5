//! How a SQL Server catalog is opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::support::check_identifier;

mod url;

/// Where the server is, who logs in, and how connections are kept.
///
/// `Debug` does not show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct MssqlOptions {
    /// Name or address of the server.
    pub host: String,
    /// TCP port. Default 1433. A named instance listens on a port of its own.
    pub port: u16,
    /// Named instance that is expected behind the port: the server refuses the connection if it is
    /// another one. The SQL Server Browser is not asked, so the port must be right.
    pub instance: Option<String>,
    /// Database.
    pub database: String,
    /// SQL login.
    pub user: String,
    /// Its password.
    pub password: Option<String>,
    /// Schema that holds our tables. Default `dbo`. It must exist.
    pub schema: String,
    /// What the names of our tables start with. Default `dl_`.
    pub table_prefix: String,
    /// Encryption.
    pub tls: TlsOptions,
    /// Connections.
    pub pool: PoolOptions,
    /// How long one statement may wait for the server's answer. Its connection is closed then, and
    /// a commit's outcome is `Unknown`. Half of it, at most, is spent waiting for a row lock: that
    /// ends as a retryable error with nothing written. Default 60 s.
    pub statement_timeout: Duration,
    /// What the server's administrator sees (`program_name`).
    pub application_name: String,
}

/// Encryption of the connection.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsOptions {
    /// When to encrypt. Default `On`.
    pub mode: Encrypt,
    /// Accept any certificate, unchecked: only for networks that are trusted anyway.
    pub trust_server_certificate: bool,
    /// Certificates (PEM or DER) of authorities to trust besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// Client certificate (PEM), with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// Key of the client certificate (PEM).
    pub key_file: Option<PathBuf>,
}

/// When to encrypt (the `Encrypt` keyword of Microsoft's drivers).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encrypt {
    /// Only the login, and that only if the server can.
    Off,
    /// Everything; a server without TLS is refused.
    #[default]
    On,
    /// TLS before anything else (TDS 8.0, SQL Server 2022 and Azure SQL).
    Strict,
}

/// How connections are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolOptions {
    /// At most so many. Default 10.
    pub max_connections: usize,
    /// Opened at once when the catalog is opened. Default 0: one, to look at the server.
    pub min_connections: usize,
    /// How long a call waits for a connection. Default 10 s.
    pub acquire_timeout: Duration,
    /// A connection that was not used for so long is closed before the next use. Default 10 min.
    pub idle_timeout: Duration,
    /// A connection that is older is closed before the next use. Default 30 min.
    pub max_lifetime: Duration,
    /// Whether a connection that rested for more than a second is asked whether it still lives
    /// before it is used. Default true.
    pub test_before_acquire: bool,
}

impl Default for PoolOptions {
    fn default() -> Self {
        PoolOptions {
            max_connections: 10,
            min_connections: 0,
            acquire_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(1800),
            test_before_acquire: true,
        }
    }
}

impl fmt::Debug for MssqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MssqlOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("instance", &self.instance)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("schema", &self.schema)
            .field("table_prefix", &self.table_prefix)
            .field("tls", &self.tls)
            .field("pool", &self.pool)
            .field("statement_timeout", &self.statement_timeout)
            .field("application_name", &self.application_name)
            .finish()
    }
}

impl MssqlOptions {
    /// Schema of our tables unless told otherwise.
    pub const DEFAULT_SCHEMA: &'static str = "dbo";
    /// Prefix of table names unless told otherwise.
    pub const DEFAULT_TABLE_PREFIX: &'static str = "dl_";
    /// Longest prefix, in characters.
    pub const MAX_PREFIX_CHARS: usize = 31;
    /// Longest schema name, in characters.
    pub const MAX_SCHEMA_CHARS: usize = 128;
    /// Port of a default instance.
    pub const DEFAULT_PORT: u16 = 1433;

    /// The defaults, for this server, database and login.
    pub fn new(
        host: impl Into<String>,
        database: impl Into<String>,
        user: impl Into<String>,
    ) -> Self {
        MssqlOptions {
            host: host.into(),
            port: Self::DEFAULT_PORT,
            instance: None,
            database: database.into(),
            user: user.into(),
            password: None,
            schema: Self::DEFAULT_SCHEMA.to_owned(),
            table_prefix: Self::DEFAULT_TABLE_PREFIX.to_owned(),
            tls: TlsOptions::default(),
            pool: PoolOptions::default(),
            statement_timeout: Duration::from_secs(60),
            application_name: "deltalakedb".to_owned(),
        }
    }

    /// Checks every field. Schema and prefix are the only text that is ever put into SQL itself.
    ///
    /// # Errors
    /// `InvalidInput` that names the field and what it may be.
    pub fn validate(&self) -> Result<()> {
        for (field, text) in
            [("host", &self.host), ("database", &self.database), ("user", &self.user)]
        {
            if text.is_empty() || text.contains('\0') {
                return Err(CatalogError::invalid(format!(
                    "the {field} of the SQL Server is missing: mssql://user:password@host/database"
                )));
            }
        }
        check_identifier("schema", &self.schema, Self::MAX_SCHEMA_CHARS)?;
        check_identifier("table_prefix", &self.table_prefix, Self::MAX_PREFIX_CHARS)?;
        if self.pool.max_connections == 0 || self.pool.min_connections > self.pool.max_connections {
            return Err(CatalogError::invalid(format!(
                "bad pool of {} to {} connections: max_connections is at least 1 and not less \
                 than min_connections",
                self.pool.min_connections, self.pool.max_connections
            )));
        }
        for (field, time) in [
            ("acquire_timeout", self.pool.acquire_timeout),
            ("max_lifetime", self.pool.max_lifetime),
            ("statement_timeout", self.statement_timeout),
        ] {
            if time.is_zero() {
                return Err(CatalogError::invalid(format!("bad {field}: it is more than zero")));
            }
        }
        if self.tls.trust_server_certificate && self.tls.ca_file.is_some() {
            return Err(CatalogError::invalid(
                "trust_server_certificate=true checks nothing, so trust_server_certificate_ca has \
                 no use beside it: give one of the two",
            ));
        }
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            return Err(CatalogError::invalid(
                "a client certificate needs both client_certificate and client_key",
            ));
        }
        Ok(())
    }

    /// `host:port/database`, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}/{}", self.host, self.port, self.database)
    }
}
