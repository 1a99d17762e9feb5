//! Reading the URL of a server, without ever repeating what could be a part of a password.

use std::collections::BTreeMap;
use std::path::PathBuf;

use deltalakedb_catalog_core::error::{CatalogError, Result};

use super::super::options::{self, Encrypt, Meaning, Opt, Value};
use super::super::password::Secret;
use super::super::text::{decode, pairs, split_query};
use super::super::{Scheme, scheme_of};
use super::{MISPLACED, ServerUri};

/// `pool_size` and `max_overflow`, which together are `max_connections`.
#[derive(Default)]
struct PoolSize {
    size: Option<u32>,
    overflow: Option<u32>,
}

impl ServerUri {
    /// Reads what stands between the scheme and the `?`, and behind it.
    pub(in crate::uri) fn parse(scheme: Scheme, place: &str, query: Option<&str>) -> Result<Self> {
        let this = Self::parse_partly(scheme, place, query)?;
        if this.database.is_none() {
            return Err(CatalogError::invalid(format!(
                "the catalog's URL names no database: write {}://user@host/database",
                scheme.as_str()
            )));
        }
        Ok(this)
    }

    /// Reads a URL that may lack a database, as a replica's.
    fn parse_partly(scheme: Scheme, place: &str, query: Option<&str>) -> Result<Self> {
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        // A password that was not encoded and has a '/' or '?' in it leaves its end and the '@'
        // behind the authority. From here on errors may say more than that.
        if path.contains('@') || query.is_some_and(|query| query.contains('@')) {
            return Err(CatalogError::invalid(MISPLACED));
        }
        let mut this = ServerUri {
            scheme,
            user: None,
            password: None,
            host: None,
            port: None,
            more_hosts: Vec::new(),
            read_write: false,
            socket: None,
            database: None,
            values: BTreeMap::new(),
            replicas: Vec::new(),
        };
        this.read_authority(authority)?;
        let path = path.strip_suffix('/').unwrap_or(path);
        if path.contains('/') {
            return Err(CatalogError::invalid(MISPLACED));
        }
        if !path.is_empty() {
            this.database = Some(decode("the database's name in the catalog's URL", path)?);
        }
        let mut pool = PoolSize::default();
        for (name, value) in pairs(query) {
            let name = decode("an option's name", name)?;
            this.read_option(&name, value, &mut pool)?;
        }
        this.set_pool_size(&pool)?;
        this.check()?;
        Ok(this)
    }

    /// Takes these options: those that this URL lacks, or all of them.
    #[cfg(feature = "config")]
    pub(in crate::uri) fn merge(&mut self, scheme: Scheme, query: &str, over: bool) -> Result<()> {
        let other = Self::parse_partly(scheme, "", Some(query))?;
        for (opt, value) in other.values {
            if opt == Opt::PasswordFile && self.password.is_some() {
                if !over {
                    continue;
                }
                self.password = None;
            }
            if over || !self.values.contains_key(&opt) {
                self.values.insert(opt, value);
            }
        }
        if !other.replicas.is_empty() && (over || self.replicas.is_empty()) {
            self.replicas = other.replicas;
        }
        self.check()
    }

    /// Takes this password, if the URL has none and names no file with one.
    #[cfg(feature = "config")]
    pub(in crate::uri) fn fill_password(&mut self, password: Secret) {
        if self.password.is_none() && self.password_file().is_none() {
            self.password = Some(password);
        }
    }

    fn read_authority(&mut self, authority: &str) -> Result<()> {
        let (login, host) = match authority.rsplit_once('@') {
            Some((login, host)) => (Some(login), host),
            None => (None, authority),
        };
        if let Some(login) = login {
            let (user, password) = match login.split_once(':') {
                Some((user, password)) => (user, Some(password)),
                None => (login, None),
            };
            if !user.is_empty() {
                self.user = Some(decode("the user in the catalog's URL", user)?);
            }
            if let Some(password) = password.filter(|password| !password.is_empty()) {
                let password = decode("the password in the catalog's URL", password)?;
                self.password = Some(Secret::new(password));
            }
        }
        let (host, more) = match host.split_once(',') {
            Some((host, more)) if matches!(self.scheme, Scheme::Postgres | Scheme::MySql) => {
                (host, more.split(',').collect())
            }
            _ => (host, Vec::new()),
        };
        let (host, port) = split_port(host)?;
        if let Some(port) = port {
            self.port = Some(read_port(port)?);
        }
        for other in more {
            let (other, port) = split_port(other)?;
            let port = port.map(read_port).transpose()?;
            let other = decode("the host in the catalog's URL", other)?;
            if host.is_empty() || other.is_empty() || !is_host(&other) {
                return Err(CatalogError::invalid(
                    "the hosts in the catalog's URL: each is a name or an IP address, with commas between \
                     them, as host1:5432,host2:5432",
                ));
            }
            self.more_hosts.push((other, port));
        }
        if !host.is_empty() {
            self.read_host(&decode("the host in the catalog's URL", host)?)?;
        }
        Ok(())
    }

    /// A host name or address; for PostgreSQL also the absolute path of a socket's folder.
    fn read_host(&mut self, host: &str) -> Result<()> {
        if host.starts_with('/') && self.scheme == Scheme::Postgres {
            self.socket = Some(PathBuf::from(host));
            return Ok(());
        }
        let instead = if host.contains(',') {
            "it names several hosts: name the listener of the availability group, and read replicas in option \
             replica_urls"
        } else if host.contains(';') {
            "write it as mssql://user:password@host:1433/database?encrypt=true, without semicolons"
        } else if host.contains('\\') {
            "a named instance is given by its port: mssql://user@host:port/database"
        } else if is_host(host) {
            self.host = Some(host.to_owned());
            return Ok(());
        } else {
            "a host is a name or an IP address, an IPv6 one in brackets; a user or password with \
             one of '/ ? # @ : %' in it must be percent-encoded"
        };
        Err(CatalogError::invalid(format!("the host in the catalog's URL: {instead}")))
    }

    fn read_option(&mut self, written: &str, raw: &str, pool: &mut PoolSize) -> Result<()> {
        let (meaning, name) = options::meaning(self.scheme, written)?;
        let raw = options::translated(written, raw);
        let text = || decode(&format!("option {name}"), raw);
        let twice = match meaning {
            Meaning::Sets(opt) => {
                let value = options::read(self.scheme, opt, name, raw)?;
                self.values.insert(opt, value).is_some()
            }
            Meaning::Host => {
                let there = self.host.is_some() || self.socket.is_some();
                self.read_host(&text()?)?;
                there
            }
            Meaning::Port => self.port.replace(read_port(&text()?)?).is_some(),
            Meaning::Socket => self.socket.replace(PathBuf::from(text()?)).is_some(),
            Meaning::Database => {
                let database = text()?;
                !database.is_empty() && self.database.replace(database).is_some()
            }
            Meaning::PoolSize => {
                pool.size.replace(options::read_connections(name, 1, &text()?)?).is_some()
            }
            Meaning::PoolOverflow => {
                pool.overflow.replace(options::read_connections(name, 0, &text()?)?).is_some()
            }
            Meaning::Ssl => {
                let value = options::read_ssl(self.scheme, &text()?)?;
                self.values.insert(Opt::TlsMode, value).is_some()
            }
            Meaning::SessionAttrs => {
                if !matches!(text()?.as_str(), "read-write" | "primary") {
                    return Err(CatalogError::invalid(format!(
                        "option {name} of the catalog's URL is read-write: commits need a server that takes \
                         writes. Read replicas stand in replica_urls"
                    )));
                }
                std::mem::replace(&mut self.read_write, true)
            }
            Meaning::Replicas => return self.read_replicas(&text()?),
            Meaning::Nothing => false,
            Meaning::Charset => {
                let charset = text()?.to_ascii_lowercase();
                if charset != "utf8mb4" {
                    return Err(CatalogError::invalid(format!(
                        "option {name} of the catalog's URL: the character set is always utf8mb4"
                    )));
                }
                false
            }
        };
        if twice {
            return Err(CatalogError::invalid(format!(
                "option {name} stands twice in the catalog's URL, maybe under another of its names \
                 or in front of the '?'"
            )));
        }
        Ok(())
    }

    fn read_replicas(&mut self, list: &str) -> Result<()> {
        for url in list.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let number = self.replicas.len() + 1;
            let placed = |text: String| {
                CatalogError::invalid(format!("option replica_urls, replica {number}: {text}"))
            };
            let (scheme, rest) = scheme_of(url).map_err(|e| placed(e.to_string()))?;
            if scheme != self.scheme {
                return Err(placed(format!(
                    "it has the scheme {}://, the primary {}://",
                    scheme.as_str(),
                    self.scheme.as_str()
                )));
            }
            let (place, query) = split_query(rest);
            let replica =
                ServerUri::parse_partly(scheme, place, query).map_err(|e| placed(e.to_string()))?;
            if !replica.replicas.is_empty() || replica.replica_max_staleness().is_some() {
                return Err(placed("a replica has no replicas of its own".to_owned()));
            }
            if replica.cache_size_bytes().is_some() || replica.cache_max_staleness().is_some() {
                return Err(placed(
                    "a replica has no cache of its own: cache_size_bytes and cache_max_staleness \
                     stand in the primary's URL"
                        .to_owned(),
                ));
            }
            if replica.max_clock_skew().is_some() {
                return Err(placed(
                    "nothing is committed to a replica: max_clock_skew stands in the primary's URL"
                        .to_owned(),
                ));
            }
            self.replicas.push(replica);
        }
        Ok(())
    }

    fn set_pool_size(&mut self, pool: &PoolSize) -> Result<()> {
        let largest = match (pool.size, pool.overflow) {
            (None, None) => return Ok(()),
            (None, Some(_)) => {
                return Err(CatalogError::invalid(
                    "the catalog's URL has max_overflow without pool_size: name both, or \
                     max_connections, which is their sum",
                ));
            }
            (Some(size), overflow) => size.saturating_add(overflow.unwrap_or(0)),
        };
        if self.values.insert(Opt::MaxConnections, Value::Number(largest)).is_some() {
            return Err(CatalogError::invalid(
                "the catalog's URL has max_connections and pool_size: leave one of them out \
                 (max_connections is the sum of pool_size and max_overflow)",
            ));
        }
        Ok(())
    }

    /// What only shows when all parts are known.
    fn check(&self) -> Result<()> {
        if self.host.is_some() && self.socket.is_some() {
            return Err(CatalogError::invalid(
                "the catalog's URL names a host and a Unix socket: leave one of them out",
            ));
        }
        if self.password.is_some() && self.password_file().is_some() {
            return Err(CatalogError::invalid(
                "the catalog's URL has a password and a password_file: leave one of them out",
            ));
        }
        if let (Some(min), Some(max)) = (self.min_connections(), self.max_connections())
            && min > max
        {
            return Err(CatalogError::invalid(format!(
                "option min_connections of the catalog's URL is {min}, more than max_connections, \
                 {max}"
            )));
        }
        if self.encrypt() == Some(Encrypt::Off)
            && (self.ca_file().is_some() || self.trust_server_certificate().is_some())
        {
            return Err(CatalogError::invalid(
                "the catalog's URL says encrypt=false and how to check the server's certificate: \
                 leave one of them out",
            ));
        }
        if self.cert_file().is_some() != self.key_file().is_some() {
            return Err(CatalogError::invalid(
                "the catalog's URL names a client certificate without its key, or the other way \
                 around: it takes both",
            ));
        }
        Ok(())
    }
}

/// Splits `host:port`; an IPv6 address is in brackets.
fn split_port(text: &str) -> Result<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let bad = || {
            CatalogError::invalid(
                "the host in the catalog's URL: an IPv6 address is written [::1] or [::1]:5432",
            )
        };
        let (address, port) = rest.split_once(']').ok_or_else(bad)?;
        if !is_ipv6(address) {
            return Err(bad());
        }
        return match port.strip_prefix(':') {
            Some(port) => Ok((address, Some(port))),
            None if port.is_empty() => Ok((address, None)),
            None => Err(bad()),
        };
    }
    match text.split_once(':') {
        // A list of hosts gets an error of its own.
        Some((host, port)) if !text.contains(',') => Ok((host, Some(port))),
        _ => Ok((text, None)),
    }
}

/// A name or an address.
fn is_host(text: &str) -> bool {
    is_ipv6(text) || text.chars().all(|c| c.is_alphanumeric() || "-._".contains(c))
}

/// An IPv6 address, with or without the zone that a link-local one may carry.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, ""));
    address.parse::<std::net::Ipv6Addr>().is_ok()
        && zone.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c) || c == '%')
}

fn read_port(text: &str) -> Result<u16> {
    text.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
        // It may be the start of a password that was not encoded.
        CatalogError::invalid(
            "the port in the catalog's URL is a number from 1 to 65535; a user or password with one \
             of '/ ? # @ : %' in it must be percent-encoded, an IPv6 address stands in brackets",
        )
    })
}
