//! URLs of catalogs on a server.
//!
//! ```text
//! scheme://user:password@host:port/database?option=value&…
//! postgresql://user@/database?host=/var/run/postgresql     a Unix socket in this folder
//! mysql://user@/database?socket=/run/mysqld/mysqld.sock    this Unix socket
//! ```

mod parse;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::utf8_percent_encode;

use super::options::{self, Encrypt, Opt, TlsMode, Value};
use super::password::Secret;
use super::text::{IN_SERVER, IN_SERVER_PATH, QueryWriter};
use super::{Scheme, prefix_or_default};

/// Where an `@` (or `/`) has no business to be, a password with such characters was not encoded.
pub(super) const MISPLACED: &str = "the catalog's URL has an '@' or '/' where none can be: in a user, password, database, table or \
     option's value write '@' as %40, '/' as %2F, '?' as %3F, '#' as %23, ':' as %3A, '%' as %25";

/// `postgresql://…`, `mysql://…` or `mssql://…`.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerUri {
    scheme: Scheme,
    user: Option<String>,
    password: Option<Secret>,
    host: Option<String>,
    port: Option<u16>,
    more_hosts: Vec<(String, Option<u16>)>,
    read_write: bool,
    socket: Option<PathBuf>,
    database: Option<String>,
    values: BTreeMap<Opt, Value>,
    replicas: Vec<ServerUri>,
}

impl ServerUri {
    /// Options of a URL with this scheme, by the names that are recommended.
    #[must_use]
    pub fn options(scheme: Scheme) -> Vec<&'static str> {
        options::names(scheme)
    }

    /// Which database: `Postgres`, `MySql` or `Mssql`.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or IP address, without the brackets of an IPv6 one. `localhost` if none is named.
    #[must_use]
    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("localhost")
    }

    /// Port, by default the database's own.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.usual_port())
    }

    fn usual_port(&self) -> u16 {
        match self.scheme {
            Scheme::MySql => 3306,
            Scheme::Mssql => 1433,
            Scheme::Postgres | Scheme::Sqlite | Scheme::Memory => 5432,
        }
    }

    /// Further hosts and their ports: connections are made to the first one that takes writes.
    #[must_use]
    pub fn more_hosts(&self) -> Vec<(String, u16)> {
        let usual = self.usual_port();
        self.more_hosts.iter().map(|(host, port)| (host.clone(), port.unwrap_or(usual))).collect()
    }

    /// `target_session_attrs=read-write`: a server that takes no writes is refused, even if it is the only one.
    #[must_use]
    pub fn wants_writes(&self) -> bool {
        self.read_write
    }

    /// Unix socket that is used instead of host and port. PostgreSQL: the folder it is in, MySQL:
    /// the socket itself.
    #[must_use]
    pub fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Database.
    #[must_use]
    pub fn database(&self) -> &str {
        self.database.as_deref().unwrap_or_default()
    }

    /// User, if the URL names one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Password, if it stands in the URL. See [`ServerUri::find_password`].
    #[must_use]
    pub fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    /// Whether the URL itself holds a password, its own or a replica's.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password.is_some() || self.replicas.iter().any(ServerUri::has_password)
    }

    /// `password_file`.
    #[must_use]
    pub fn password_file(&self) -> Option<&Path> {
        self.path(Opt::PasswordFile)
    }

    /// `table_prefix`.
    #[must_use]
    pub fn table_prefix(&self) -> Option<&str> {
        self.text(Opt::TablePrefix)
    }

    /// `schema` of PostgreSQL and SQL Server.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.text(Opt::Schema)
    }

    /// `sslmode`, `ssl-mode`.
    #[must_use]
    pub fn tls_mode(&self) -> Option<TlsMode> {
        match self.values.get(&Opt::TlsMode) {
            Some(Value::Tls(mode)) => Some(*mode),
            _ => None,
        }
    }

    /// `encrypt` of SQL Server.
    #[must_use]
    pub fn encrypt(&self) -> Option<Encrypt> {
        match self.values.get(&Opt::Encrypt) {
            Some(Value::Encrypt(encrypt)) => Some(*encrypt),
            _ => None,
        }
    }

    /// `trust_server_certificate` of SQL Server.
    #[must_use]
    pub fn trust_server_certificate(&self) -> Option<bool> {
        self.flag(Opt::TrustServerCertificate)
    }

    /// Certificates of the authorities that are trusted: `sslrootcert`, `ssl-ca`,
    /// `trust_server_certificate_ca`.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        self.path(Opt::CaFile)
    }

    /// The client's own certificate: `sslcert`, `ssl-cert`, `client_certificate`.
    #[must_use]
    pub fn cert_file(&self) -> Option<&Path> {
        self.path(Opt::CertFile)
    }

    /// The key of that certificate: `sslkey`, `ssl-key`, `client_key`.
    #[must_use]
    pub fn key_file(&self) -> Option<&Path> {
        self.path(Opt::KeyFile)
    }

    /// `instance` of SQL Server: which one is expected behind the port.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.text(Opt::Instance)
    }

    /// `max_connections`, at least 1.
    #[must_use]
    pub fn max_connections(&self) -> Option<u32> {
        self.number(Opt::MaxConnections)
    }

    /// `min_connections`, at most `max_connections` if both are there.
    #[must_use]
    pub fn min_connections(&self) -> Option<u32> {
        self.number(Opt::MinConnections)
    }

    /// `acquire_timeout`: longest wait for a connection, new or free.
    #[must_use]
    pub fn acquire_timeout(&self) -> Option<Duration> {
        self.time(Opt::AcquireTimeout)
    }

    /// `idle_timeout`: an unused connection is closed after it.
    #[must_use]
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.time(Opt::IdleTimeout)
    }

    /// `max_lifetime`: any connection is replaced after it.
    #[must_use]
    pub fn max_lifetime(&self) -> Option<Duration> {
        self.time(Opt::MaxLifetime)
    }

    /// `test_before_acquire`: whether a connection is tried before each use.
    #[must_use]
    pub fn test_before_acquire(&self) -> Option<bool> {
        self.flag(Opt::TestBeforeAcquire)
    }

    /// `statement_timeout`: longest time for one statement.
    #[must_use]
    pub fn statement_timeout(&self) -> Option<Duration> {
        self.time(Opt::StatementTimeout)
    }

    /// `retry_timeout`: how long calls on a busy database are repeated at most.
    #[must_use]
    pub fn retry_timeout(&self) -> Option<Duration> {
        self.time(Opt::RetryTimeout)
    }

    /// `statement_cache` of PostgreSQL: prepared statements that a connection keeps.
    #[must_use]
    pub fn statement_cache(&self) -> Option<u32> {
        self.number(Opt::StatementCache)
    }

    /// `application_name` of PostgreSQL and SQL Server: what the server's own lists of sessions show.
    #[must_use]
    pub fn application_name(&self) -> Option<&str> {
        self.text(Opt::ApplicationName)
    }

    /// `replica_max_staleness`: reads of the head may be that much behind.
    #[must_use]
    pub fn replica_max_staleness(&self) -> Option<Duration> {
        self.time(Opt::ReplicaMaxStaleness)
    }

    /// `cache_size_bytes`: what is kept in memory weighs at most so much, bytes.
    #[must_use]
    pub fn cache_size_bytes(&self) -> Option<u64> {
        match self.values.get(&Opt::CacheSizeBytes) {
            Some(Value::Size(bytes)) => Some(*bytes),
            _ => None,
        }
    }

    /// `cache_max_staleness`: reads of the head may be answered from memory, and be that much behind.
    #[must_use]
    pub fn cache_max_staleness(&self) -> Option<Duration> {
        self.time(Opt::CacheMaxStaleness)
    }

    /// `max_clock_skew`: commits are refused while this machine's clock is further ahead of the database's.
    #[must_use]
    pub fn max_clock_skew(&self) -> Option<Duration> {
        self.time(Opt::MaxClockSkew)
    }

    /// `retry_count`: how often a call on a busy database is made at most.
    #[must_use]
    pub fn retry_count(&self) -> Option<u32> {
        self.number(Opt::RetryCount)
    }

    /// `retry_base`: the first pause between two calls on a busy database; it doubles.
    #[must_use]
    pub fn retry_base(&self) -> Option<Duration> {
        self.time(Opt::RetryBase)
    }

    /// `page_size`: rows that lists read at a time.
    #[must_use]
    pub fn page_size(&self) -> Option<u32> {
        self.number(Opt::PageSize)
    }

    /// `replica_urls`, each completed: what a replica's URL leaves out is as in this one, but for
    /// the password of another user.
    #[must_use]
    pub fn replicas(&self) -> Vec<ServerUri> {
        self.replicas.iter().map(|replica| replica.completed_from(self)).collect()
    }

    /// Whether both name the same catalog, however they log in and tune the connection.
    #[must_use]
    pub fn same_catalog(&self, other: &ServerUri) -> bool {
        let places = |uri: &ServerUri| {
            let mut places = vec![match &uri.socket {
                Some(socket) => (socket.to_string_lossy().into_owned(), uri.port()),
                None => (uri.host().to_ascii_lowercase(), uri.port()),
            }];
            let more = uri.more_hosts().into_iter();
            places.extend(more.map(|(host, port)| (host.to_ascii_lowercase(), port)));
            places
        };
        // Servers of one list are one catalog: each takes over from the others.
        let (mine, theirs) = (places(self), places(other));
        self.scheme == other.scheme
            && mine.iter().any(|place| theirs.contains(place))
            && self.database == other.database
            && self.schema() == other.schema()
            && prefix_or_default(self.table_prefix()) == prefix_or_default(other.table_prefix())
    }

    fn completed_from(&self, primary: &ServerUri) -> ServerUri {
        let mut this = self.clone();
        let same_user = this.user.is_none() || this.user == primary.user;
        // A password file of its own wins over the primary's password.
        if same_user && this.password.is_none() && this.password_file().is_none() {
            this.password.clone_from(&primary.password);
        }
        this.user = this.user.or_else(|| primary.user.clone());
        this.database = this.database.or_else(|| primary.database.clone());
        for (opt, value) in &primary.values {
            if *opt == Opt::PasswordFile && !(same_user && this.password.is_none()) {
                continue;
            }
            this.values.entry(*opt).or_insert_with(|| value.clone());
        }
        this
    }

    /// Takes relative paths from this folder.
    pub(super) fn anchor(&mut self, folder: &Path) {
        for value in self.values.values_mut() {
            if let Value::Path(path) = value
                && path.is_relative()
            {
                *path = folder.join(&*path);
            }
        }
        for replica in &mut self.replicas {
            replica.anchor(folder);
        }
    }

    fn text(&self, opt: Opt) -> Option<&str> {
        match self.values.get(&opt) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn path(&self, opt: Opt) -> Option<&Path> {
        match self.values.get(&opt) {
            Some(Value::Path(path)) => Some(path),
            _ => None,
        }
    }

    fn number(&self, opt: Opt) -> Option<u32> {
        match self.values.get(&opt) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    fn flag(&self, opt: Opt) -> Option<bool> {
        match self.values.get(&opt) {
            Some(Value::Flag(flag)) => Some(*flag),
            _ => None,
        }
    }

    fn time(&self, opt: Opt) -> Option<Duration> {
        match self.values.get(&opt) {
            Some(Value::Time(time)) => Some(*time),
            _ => None,
        }
    }

    /// Everything before the options, without the password.
    pub(super) fn write_place(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme.as_str())?;
        if let Some(user) = &self.user {
            write!(f, "{}@", utf8_percent_encode(user, IN_SERVER))?;
        }
        write_host(f, self.host.as_deref(), self.port)?;
        for (host, port) in &self.more_hosts {
            f.write_str(",")?;
            write_host(f, Some(host), *port)?;
        }
        if let Some(database) = &self.database {
            write!(f, "/{}", utf8_percent_encode(database, IN_SERVER))?;
        }
        Ok(())
    }

    /// `?a=b&c=d`, or nothing.
    pub(super) fn write_query(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut query = QueryWriter::new(f);
        if let Some(socket) = &self.socket {
            let name = if self.scheme == Scheme::Postgres { "host" } else { "socket" };
            query.option(name, &socket.to_string_lossy(), IN_SERVER_PATH)?;
        }
        if self.read_write {
            query.option("target_session_attrs", "read-write", IN_SERVER_PATH)?;
        }
        for (opt, name) in options::values(self.scheme) {
            if let Some(value) = self.values.get(&opt) {
                query.option(name, &value.show(self.scheme), IN_SERVER_PATH)?;
            }
        }
        if !self.replicas.is_empty() {
            let urls: Vec<String> = self.replicas.iter().map(ToString::to_string).collect();
            query.option("replica_urls", &urls.join(","), IN_SERVER)?;
        }
        Ok(())
    }
}

/// `host:port`
fn write_host(f: &mut fmt::Formatter<'_>, host: Option<&str>, port: Option<u16>) -> fmt::Result {
    match host {
        Some(host) if host.contains(':') => {
            // The zone of a link-local address begins with a '%'.
            write!(f, "[{}]", host.replace('%', "%25"))?;
        }
        Some(host) => f.write_str(host)?,
        None => {}
    }
    port.map_or(Ok(()), |port| write!(f, ":{port}"))
}

/// Without passwords.
impl fmt::Display for ServerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_place(f)?;
        self.write_query(f)
    }
}

impl fmt::Debug for ServerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerUri({self})")
    }
}
