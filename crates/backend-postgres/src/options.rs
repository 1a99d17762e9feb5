//! How a PostgreSQL catalog is reached.

use std::fmt;
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};
pub use deltalakedb_catalog_core::secrets::Secret;
use deltalakedb_catalog_core::support::{check_identifier, check_text, check_time};
pub use deltalakedb_sqlx_shared::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// `sslmode` of libpq (<https://www.postgresql.org/docs/current/libpq-ssl.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// If the server has it, unverified.
    #[default]
    Prefer,
    /// Always; the server's certificate is verified only if a `ca_file` is given, as libpq does.
    Require,
    /// Always, with a certificate that the CA signed.
    VerifyCa,
    /// As `VerifyCa`, and the certificate is for this host name.
    VerifyFull,
}

impl TlsMode {
    /// The modes as people write them.
    pub const NAMES: [&'static str; 5] =
        ["disable", "prefer", "require", "verify-ca", "verify-full"];

    /// Reads one of [`TlsMode::NAMES`].
    ///
    /// # Errors
    /// `InvalidInput` that lists them.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "disable" => Ok(TlsMode::Disable),
            "prefer" => Ok(TlsMode::Prefer),
            "require" => Ok(TlsMode::Require),
            "verify-ca" => Ok(TlsMode::VerifyCa),
            "verify-full" => Ok(TlsMode::VerifyFull),
            other => Err(CatalogError::invalid(format!(
                "bad sslmode '{other}': it is one of {}",
                Self::NAMES.join(", ")
            ))),
        }
    }
}

/// Encryption of connections.
pub type TlsOptions = deltalakedb_sqlx_shared::TlsOptions<TlsMode>;

/// Where the catalog's database is and how it is used.
///
/// What is not set here and libpq reads from the environment (`PGPASSWORD`, `PGSSLROOTCERT`,
/// `PGSSLCERT`, `PGSSLKEY`, `PGOPTIONS`) is read from there too.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Host name or address, or the folder of a Unix socket (it starts with `/`).
    pub host: String,
    /// Port. Default 5432.
    pub port: u16,
    /// Further servers of the same database, host and port. Connections are made to the first one that takes
    /// writes. Default none.
    pub more_hosts: Vec<(String, u16)>,
    /// Whether a server that takes no writes is refused even if it is the only one. Default no.
    pub read_write: bool,
    /// Database. It must exist.
    pub database: String,
    /// Login.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// What the names of our tables start with. Default `dl_`.
    pub table_prefix: String,
    /// Schema of our tables; `migrate` creates it. None = the first schema of the login's
    /// `search_path`, which is `public` unless it was changed. Default none.
    pub schema: Option<String>,
    /// Encryption.
    pub tls: TlsOptions,
    /// Connections.
    pub pool: PoolOptions,
    /// How long one statement may take. Default 60 s.
    ///
    /// The server ends it then, and nothing is written: connections start with this limit, and
    /// transactions of several statements begin with it. Should no answer come at all, the client
    /// gives the connection up a second later. A server of PostgreSQL 14 or newer also ends within a
    /// second what nobody waits for any more: the work of a program that was killed, of a call
    /// that was dropped.
    ///
    /// Behind a pooler that refuses start-up parameters of ours (PgBouncer does), the client alone
    /// watches over statements that only read, and commits wait for three quarters of this time for
    /// each lock.
    pub statement_timeout: Duration,
    /// Shown in `pg_stat_activity`. Default `deltalakedb`.
    pub application_name: String,
    /// Number of prepared statements that are kept for each connection. Default 100.
    ///
    /// 0 keeps none, for poolers in transaction mode that do not know prepared statements
    /// (PgBouncer before 1.21, or later with `max_prepared_statements = 0`). Each statement then
    /// runs in a transaction of its own, so that its parse and its execution meet one server
    /// connection: four round trips where it is one otherwise.
    pub statement_cache: usize,
}

/// How often the server looks whether the client is still there, while it works or waits. Milliseconds.
const CHECK_MILLIS: &str = "1000";

/// What a connection sets when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AtStart {
    /// `statement_timeout` and `client_connection_check_interval` (PostgreSQL 14, not on each system).
    LimitAndCheck,
    /// `statement_timeout`.
    Limit,
    /// Nothing: poolers refuse it.
    Nothing,
}

impl PostgresOptions {
    /// Prefix of table names unless told otherwise.
    pub const DEFAULT_TABLE_PREFIX: &'static str = "dl_";
    /// Longest prefix, in characters: names of our indexes stay below PostgreSQL's 63.
    pub const MAX_PREFIX_CHARS: usize = 31;
    /// Longest schema name, in characters.
    pub const MAX_SCHEMA_CHARS: usize = 63;

    /// The defaults, for this database.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        database: impl Into<String>,
        user: impl Into<String>,
    ) -> Self {
        PostgresOptions {
            host: host.into(),
            port,
            more_hosts: Vec::new(),
            read_write: false,
            database: database.into(),
            user: user.into(),
            password: None,
            table_prefix: Self::DEFAULT_TABLE_PREFIX.to_owned(),
            schema: None,
            tls: TlsOptions::default(),
            pool: PoolOptions::default(),
            statement_timeout: Duration::from_secs(60),
            application_name: "deltalakedb".to_owned(),
            statement_cache: 100,
        }
    }

    /// Checks every field. Prefix and schema are the only texts that are ever put into SQL itself.
    ///
    /// # Errors
    /// `InvalidInput` that names the field and what it may be.
    pub fn validate(&self) -> Result<()> {
        for (option, text) in [
            ("host", &self.host),
            ("database", &self.database),
            ("user", &self.user),
            ("application_name", &self.application_name),
        ] {
            check_text(option, text, option == "application_name")?;
        }
        check_identifier("table_prefix", &self.table_prefix, Self::MAX_PREFIX_CHARS)?;
        // PostgreSQL folds names that are not quoted, and ours are not: `DL_` and `dl_` are one.
        if self.table_prefix.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(CatalogError::invalid(format!(
                "bad table_prefix {:?}: PostgreSQL does not tell upper from lower case in it, \
                 write it in lower case",
                self.table_prefix
            )));
        }
        if self.table_prefix.starts_with("pg_") {
            return Err(CatalogError::invalid(format!(
                "bad table_prefix {:?}: names that start with 'pg_' belong to PostgreSQL",
                self.table_prefix
            )));
        }
        if let Some(schema) = &self.schema {
            check_identifier("schema", schema, Self::MAX_SCHEMA_CHARS)?;
            if schema.starts_with("pg_") {
                return Err(CatalogError::invalid(format!(
                    "bad schema {schema:?}: names that start with 'pg_' belong to PostgreSQL"
                )));
            }
        }
        self.pool.validate()?;
        check_time("statement_timeout", self.statement_timeout)
    }

    /// What every table name starts with in SQL.
    pub(crate) fn qualified_prefix(&self) -> String {
        match &self.schema {
            Some(schema) => format!("\"{schema}\".{}", self.table_prefix),
            None => self.table_prefix.clone(),
        }
    }

    fn servers_shown(&self) -> String {
        let more = self.more_hosts.iter().map(|(host, port)| format!(",{host}:{port}"));
        format!("{}:{}{}", self.host, self.port, more.collect::<String>())
    }

    /// These options for each server.
    pub(crate) fn each_server(&self) -> Vec<PostgresOptions> {
        let mut all = vec![self.clone()];
        all.extend(self.more_hosts.iter().map(|(host, port)| PostgresOptions {
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
        format!("{}/{}", self.servers_shown(), self.database)
    }

    /// `statement_timeout` as the server takes it.
    pub(crate) fn statement_millis(&self) -> u128 {
        // 0 would be no limit.
        self.statement_timeout.as_millis().clamp(1, 2_147_483_647)
    }

    pub(crate) fn to_driver(&self, at_start: AtStart) -> PgConnectOptions {
        let tls = &self.tls;
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .database(&self.database)
            .username(&self.user)
            .application_name(&self.application_name)
            // Poolers refuse start parameters that they do not know; no float is ever read.
            .extra_float_digits(None)
            .statement_cache_capacity(self.statement_cache)
            .ssl_mode(match (tls.mode, &tls.ca_file) {
                (TlsMode::Disable, _) => PgSslMode::Disable,
                (TlsMode::Prefer, _) => PgSslMode::Prefer,
                // With a CA at hand, libpq verifies; the driver by itself would not.
                (TlsMode::Require, None) => PgSslMode::Require,
                (TlsMode::Require, Some(_)) | (TlsMode::VerifyCa, _) => PgSslMode::VerifyCa,
                (TlsMode::VerifyFull, _) => PgSslMode::VerifyFull,
            });
        let millis = self.statement_millis().to_string();
        let mut settings = Vec::new();
        if at_start != AtStart::Nothing {
            settings.push(("statement_timeout", millis.as_str()));
        }
        if at_start == AtStart::LimitAndCheck {
            settings.push(("client_connection_check_interval", CHECK_MILLIS));
        }
        if !settings.is_empty() {
            options = options.options(settings);
        }
        if let Some(password) = &self.password {
            options = options.password(password.expose());
        }
        if let Some(ca) = &tls.ca_file {
            options = options.ssl_root_cert(ca);
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

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("more_hosts", &self.more_hosts)
            .field("read_write", &self.read_write)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("password", &self.password)
            .field("table_prefix", &self.table_prefix)
            .field("schema", &self.schema)
            .field("tls", &self.tls)
            .field("pool", &self.pool)
            .field("statement_timeout", &self.statement_timeout)
            .field("application_name", &self.application_name)
            .field("statement_cache", &self.statement_cache)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> PostgresOptions {
        PostgresOptions::new("db.example", 5432, "catalog", "dl")
    }

    #[test]
    fn debug_hides_the_password() {
        let options = PostgresOptions { password: Some("hunter2".into()), ..options() };
        let text = format!("{options:?} {:#?}", options.password);
        assert!(text.contains("db.example") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn identifiers_are_checked_and_named() {
        options().validate().unwrap();
        for bad in ["", "9a", "a-b", "a\"b", "DL_", "pg_x", &"x".repeat(32)] {
            let with = PostgresOptions { table_prefix: bad.to_owned(), ..options() };
            let error = with.validate().unwrap_err().to_string();
            assert!(error.contains("table_prefix"), "{error}");
        }
        for bad in ["", "a b", "a\"b", "pg_x", &"x".repeat(64)] {
            let with = PostgresOptions { schema: Some(bad.to_owned()), ..options() };
            let error = with.validate().unwrap_err().to_string();
            assert!(error.contains("schema"), "{error}");
        }
        let with = PostgresOptions { schema: Some("Lake".to_owned()), ..options() };
        with.validate().unwrap();
        assert_eq!(with.qualified_prefix(), "\"Lake\".dl_");
    }

    #[test]
    fn tls_modes_read_back_and_wrong_ones_list_the_right_ones() {
        for name in TlsMode::NAMES {
            TlsMode::parse(name).unwrap();
        }
        let error = TlsMode::parse("yes").unwrap_err().to_string();
        assert!(error.contains("verify-full"), "{error}");
    }

    #[test]
    fn a_pool_has_connections_and_time() {
        let mut none = options();
        none.pool.max_connections = 0;
        assert!(none.validate().is_err());
        let mut no_time = options();
        no_time.statement_timeout = Duration::ZERO;
        assert!(no_time.validate().unwrap_err().to_string().contains("statement_timeout"));
    }
}
