//! How a MySQL or MariaDB catalog is reached.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
pub use deltalakedb_catalog_core::secrets::Secret;
use deltalakedb_catalog_core::support::{check_identifier, check_text, check_time};
pub use deltalakedb_sqlx_shared::PoolOptions;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};

/// `ssl-mode` of MySQL's clients
/// (<https://dev.mysql.com/doc/refman/8.0/en/connection-options.html#option_general_ssl-mode>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Never.
    Disabled,
    /// If the server has it, unverified.
    #[default]
    Preferred,
    /// Always, unverified.
    Required,
    /// Always, with a certificate that the CA signed.
    VerifyCa,
    /// As `VerifyCa`, and the certificate is for this host name.
    VerifyIdentity,
}

impl TlsMode {
    /// The modes as people write them, in any case.
    pub const NAMES: [&'static str; 5] =
        ["disabled", "preferred", "required", "verify_ca", "verify_identity"];

    /// Reads one of [`TlsMode::NAMES`].
    ///
    /// # Errors
    /// `InvalidInput` that lists them.
    pub fn parse(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().replace('-', "_").as_str() {
            "disabled" => Ok(TlsMode::Disabled),
            "preferred" => Ok(TlsMode::Preferred),
            "required" => Ok(TlsMode::Required),
            "verify_ca" => Ok(TlsMode::VerifyCa),
            "verify_identity" => Ok(TlsMode::VerifyIdentity),
            other => Err(CatalogError::invalid(format!(
                "bad ssl-mode '{other}': it is one of {}",
                Self::NAMES.join(", ")
            ))),
        }
    }
}

/// Encryption of connections.
pub type TlsOptions = deltalakedb_sqlx_shared::TlsOptions<TlsMode>;

/// Where the catalog's database is and how it is used.
#[derive(Clone, PartialEq, Eq)]
pub struct MySqlOptions {
    /// Host name or address.
    pub host: String,
    /// Port. Default 3306.
    pub port: u16,
    /// Further servers of the same database, host and port. Connections are made to the first one that takes
    /// writes. Default none.
    pub more_hosts: Vec<(String, u16)>,
    /// Whether a server that takes no writes is refused even if it is the only one. Default no.
    pub read_write: bool,
    /// Unix socket, used instead of host and port. Default none.
    pub socket: Option<PathBuf>,
    /// Database. It must exist.
    pub database: String,
    /// Login.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// What the names of our tables start with. Default `dl_`.
    pub table_prefix: String,
    /// Encryption.
    pub tls: TlsOptions,
    /// Connections.
    pub pool: PoolOptions,
    /// How long one request may take. Default 60 s. The client watches over it and gives the connection
    /// up, so nothing is set for the session; the server's part of it is ended at once by another
    /// connection (`KILL`), and its transaction rolled back.
    pub statement_timeout: Duration,
}

impl MySqlOptions {
    /// Prefix of table names unless told otherwise.
    pub const DEFAULT_TABLE_PREFIX: &'static str = "dl_";
    /// Longest prefix, in characters: MySQL's names have at most 64.
    pub const MAX_PREFIX_CHARS: usize = 31;

    /// The defaults, for this database.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        database: impl Into<String>,
        user: impl Into<String>,
    ) -> Self {
        MySqlOptions {
            host: host.into(),
            port,
            more_hosts: Vec::new(),
            read_write: false,
            socket: None,
            database: database.into(),
            user: user.into(),
            password: None,
            table_prefix: Self::DEFAULT_TABLE_PREFIX.to_owned(),
            tls: TlsOptions::default(),
            pool: PoolOptions::default(),
            statement_timeout: Duration::from_secs(60),
        }
    }

    /// Checks every field. The prefix is the only text that is ever put into SQL as it is.
    ///
    /// # Errors
    /// `InvalidInput` that names the field and what it may be.
    pub fn validate(&self) -> Result<()> {
        for (option, text) in
            [("host", &self.host), ("database", &self.database), ("user", &self.user)]
        {
            check_text(option, text, false)?;
        }
        check_identifier("table_prefix", &self.table_prefix, Self::MAX_PREFIX_CHARS)?;
        self.pool.validate()?;
        check_time("statement_timeout", self.statement_timeout)
    }

    fn servers_shown(&self) -> String {
        let more = self.more_hosts.iter().map(|(host, port)| format!(",{host}:{port}"));
        format!("{}:{}{}", self.host, self.port, more.collect::<String>())
    }

    /// These options for each server.
    pub(crate) fn each_server(&self) -> Vec<MySqlOptions> {
        let mut all = vec![self.clone()];
        all.extend(self.more_hosts.iter().map(|(host, port)| MySqlOptions {
            host: host.clone(),
            port: *port,
            ..self.clone()
        }));
        all
    }

    /// Whether it is asked of each connection that its server takes writes.
    pub(crate) fn wants_writes(&self) -> bool {
        self.read_write || !self.more_hosts.is_empty()
    }

    /// `host:port/database`, for messages.
    pub(crate) fn place(&self) -> String {
        match &self.socket {
            Some(socket) => format!("{}:{}", socket.display(), self.database),
            None => format!("{}/{}", self.servers_shown(), self.database),
        }
    }

    pub(crate) fn to_driver(&self) -> MySqlConnectOptions {
        let tls = &self.tls;
        let mut options = MySqlConnectOptions::new()
            .host(&self.host)
            .port(self.port)
            .database(&self.database)
            .username(&self.user)
            // Nothing is set for a session that a pooler would have to follow, but the charset.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None)
            .statement_cache_capacity(0)
            .ssl_mode(match tls.mode {
                TlsMode::Disabled => MySqlSslMode::Disabled,
                TlsMode::Preferred => MySqlSslMode::Preferred,
                TlsMode::Required => MySqlSslMode::Required,
                TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
                TlsMode::VerifyIdentity => MySqlSslMode::VerifyIdentity,
            });
        if let Some(socket) = &self.socket {
            options = options.socket(socket);
        }
        if let Some(password) = &self.password {
            options = options.password(password.expose());
        }
        if let Some(ca) = &tls.ca_file {
            options = options.ssl_ca(ca);
        }
        if let Some(cert) = &tls.cert_file {
            options = options.ssl_client_cert(cert);
        }
        if let Some(key) = &tls.key_file {
            options = options.ssl_client_key(key);
        }
        options
    }
}

impl fmt::Debug for MySqlOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("more_hosts", &self.more_hosts)
            .field("read_write", &self.read_write)
            .field("socket", &self.socket)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("password", &self.password)
            .field("table_prefix", &self.table_prefix)
            .field("tls", &self.tls)
            .field("pool", &self.pool)
            .field("statement_timeout", &self.statement_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> MySqlOptions {
        MySqlOptions::new("db.example", 3306, "catalog", "dl")
    }

    #[test]
    fn debug_hides_the_password() {
        let options = MySqlOptions { password: Some("hunter2".into()), ..options() };
        let text = format!("{options:?} {:#?}", options.password);
        assert!(text.contains("db.example") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn wrong_options_are_named() {
        options().validate().unwrap();
        for bad in ["", "9a", "a-b", "a`b", &"x".repeat(32)] {
            let with = MySqlOptions { table_prefix: bad.to_owned(), ..options() };
            let error = with.validate().unwrap_err().to_string();
            assert!(error.contains("table_prefix"), "{error}");
        }
        let mut none = options();
        none.pool.max_connections = 0;
        assert!(none.validate().is_err());
        let mut no_time = options();
        no_time.statement_timeout = Duration::ZERO;
        assert!(no_time.validate().unwrap_err().to_string().contains("statement_timeout"));
    }

    #[test]
    fn tls_modes_read_back_and_wrong_ones_list_the_right_ones() {
        for name in TlsMode::NAMES {
            assert_eq!(
                TlsMode::parse(name).unwrap(),
                TlsMode::parse(&name.to_ascii_uppercase()).unwrap()
            );
        }
        let error = TlsMode::parse("yes").unwrap_err().to_string();
        assert!(error.contains("verify_identity"), "{error}");
    }
}
