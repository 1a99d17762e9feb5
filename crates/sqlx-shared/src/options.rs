//! Options that do not depend on the database.

use std::path::PathBuf;
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
use deltalakedb_catalog_core::support::check_time;

/// How many connections are kept, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolOptions {
    /// Most connections at a time. Default 10.
    pub max_connections: u32,
    /// Connections that are opened at the start and kept although nothing needs them. Default 0.
    pub min_connections: u32,
    /// How long a call waits for a connection. Default 10 s.
    pub acquire_timeout: Duration,
    /// After how long an unused connection is closed; zero = never. Default 10 min.
    pub idle_timeout: Duration,
    /// After how long a connection is replaced; zero = never. Default 30 min.
    pub max_lifetime: Duration,
    /// Whether a connection that was unused for more than a second is tried before it is used.
    /// Default true.
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

impl PoolOptions {
    /// Checks the numbers of connections and the time to wait for one.
    ///
    /// # Errors
    /// `InvalidInput` that names the option.
    pub fn validate(&self) -> Result<()> {
        if self.max_connections == 0 || self.min_connections > self.max_connections {
            return Err(CatalogError::invalid(format!(
                "bad pool: max_connections is {}, min_connections {}; at least 1 is needed, and \
                 no more can be kept than there may be",
                self.max_connections, self.min_connections
            )));
        }
        check_time("acquire_timeout", self.acquire_timeout)
    }
}

/// Encryption of connections. `M` are the modes of the database's clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsOptions<M> {
    /// When to use TLS and what to verify.
    pub mode: M,
    /// Certificates (PEM) of the authorities that may have signed the server's; none = the
    /// well-known public ones.
    pub ca_file: Option<PathBuf>,
    /// Certificate (PEM) that this client shows.
    pub cert_file: Option<PathBuf>,
    /// Its private key (PEM).
    pub key_file: Option<PathBuf>,
}
