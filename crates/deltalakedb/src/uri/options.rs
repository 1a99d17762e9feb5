//! The options of a server's URL: one table of names for all databases, and their values.

use std::path::PathBuf;
use std::time::Duration;

use deltalakedb_catalog_core::error::{CatalogError, Result};

use super::Scheme;
use super::text::{
    at_least_one, boolean, decode, duration, number, page_size, printable, show_duration,
};

/// How far the connection to a server is encrypted and its certificate checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted if the server can. Protects from nobody who is in between.
    Prefer,
    /// Encrypted, whatever the certificate.
    Require,
    /// Encrypted, with a certificate of a known authority.
    VerifyCa,
    /// The same, and the certificate is for this host.
    VerifyFull,
}

impl TlsMode {
    const ALL: [TlsMode; 5] = [
        TlsMode::Disable,
        TlsMode::Prefer,
        TlsMode::Require,
        TlsMode::VerifyCa,
        TlsMode::VerifyFull,
    ];

    /// The word of the database's own clients.
    fn word(self, scheme: Scheme) -> &'static str {
        let mysql = scheme == Scheme::MySql;
        match self {
            TlsMode::Disable if mysql => "disabled",
            TlsMode::Disable => "disable",
            TlsMode::Prefer if mysql => "preferred",
            TlsMode::Prefer => "prefer",
            TlsMode::Require if mysql => "required",
            TlsMode::Require => "require",
            TlsMode::VerifyCa if mysql => "verify_ca",
            TlsMode::VerifyCa => "verify-ca",
            TlsMode::VerifyFull if mysql => "verify_identity",
            TlsMode::VerifyFull => "verify-full",
        }
    }
}

/// `encrypt` of SQL Server's drivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encrypt {
    /// Only the login, and that only if the server can.
    Off,
    /// Everything; a server without TLS is refused.
    On,
    /// TLS before anything else (TDS 8.0: SQL Server 2022 and Azure SQL).
    Strict,
}

/// An option with a value of its own. Those that stand for a part of the place (`host`, `socket`)
/// are [`Meaning`]s of another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Opt {
    TablePrefix,
    Schema,
    TlsMode,
    CaFile,
    CertFile,
    KeyFile,
    Encrypt,
    TrustServerCertificate,
    Instance,
    MaxConnections,
    MinConnections,
    AcquireTimeout,
    IdleTimeout,
    MaxLifetime,
    TestBeforeAcquire,
    StatementTimeout,
    RetryTimeout,
    StatementCache,
    ApplicationName,
    PasswordFile,
    ReplicaMaxStaleness,
    CacheSizeBytes,
    CacheMaxStaleness,
    MaxClockSkew,
    RetryCount,
    RetryBase,
    PageSize,
}

/// What an option of this name does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Sets this.
    Sets(Opt),
    /// Host, or the folder of the server's Unix socket.
    Host,
    /// Port.
    Port,
    /// The server's Unix socket.
    Socket,
    /// Database, where it does not stand in the path.
    Database,
    /// Connections that are kept, and more under load, as SQLAlchemy counts them: together the largest
    /// number.
    PoolSize,
    PoolOverflow,
    /// Whether to encrypt, as drivers of other languages ask: true or false, or a mode.
    Ssl,
    /// What is asked of a server before it is used.
    SessionAttrs,
    /// URLs of read replicas.
    Replicas,
    /// Nothing: it tells another program which library to load.
    Nothing,
    /// Nothing either, if it says what is so anyway.
    Charset,
}

/// A value, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Path(PathBuf),
    Number(u32),
    Size(u64),
    Flag(bool),
    Time(Duration),
    Tls(TlsMode),
    Encrypt(Encrypt),
}

/// An option's names in one database; the first is the one that is printed and recommended.
struct Spec {
    meaning: Meaning,
    postgres: &'static [&'static str],
    mysql: &'static [&'static str],
    mssql: &'static [&'static str],
}

impl Spec {
    const fn everywhere(meaning: Meaning, names: &'static [&'static str]) -> Spec {
        Spec { meaning, postgres: names, mysql: names, mssql: names }
    }

    fn names(&self, scheme: Scheme) -> &'static [&'static str] {
        match scheme {
            Scheme::Postgres => self.postgres,
            Scheme::MySql => self.mysql,
            Scheme::Mssql => self.mssql,
            Scheme::Sqlite | Scheme::Memory => &[],
        }
    }
}

/// All options, in the order in which they are listed and printed. Names are compared in lower case
/// with `_` for `-`.
const SPECS: &[Spec] = &[
    Spec {
        meaning: Meaning::Host,
        // https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
        postgres: &["host"],
        mysql: &[],
        mssql: &[],
    },
    Spec { meaning: Meaning::Port, postgres: &["port"], mysql: &[], mssql: &[] },
    Spec { meaning: Meaning::Socket, postgres: &[], mysql: &["socket", "unix_socket"], mssql: &[] },
    Spec {
        meaning: Meaning::Database,
        postgres: &["dbname"],
        mysql: &[],
        mssql: &["database", "databasename"],
    },
    Spec {
        meaning: Meaning::Sets(Opt::TlsMode),
        postgres: &["sslmode", "ssl_mode"],
        // https://dev.mysql.com/doc/refman/8.0/en/connection-options.html
        mysql: &["ssl-mode", "sslmode"],
        mssql: &[],
    },
    Spec { meaning: Meaning::Ssl, postgres: &["ssl"], mysql: &["ssl"], mssql: &[] },
    Spec {
        meaning: Meaning::Sets(Opt::Encrypt),
        postgres: &[],
        mysql: &[],
        // https://learn.microsoft.com/sql/connect/odbc/dsn-connection-string-attribute
        mssql: &["encrypt"],
    },
    Spec {
        meaning: Meaning::Sets(Opt::TrustServerCertificate),
        postgres: &[],
        mysql: &[],
        mssql: &["trust_server_certificate", "trustservercertificate"],
    },
    Spec {
        meaning: Meaning::Sets(Opt::CaFile),
        postgres: &["sslrootcert", "ssl_root_cert", "ssl_ca"],
        mysql: &["ssl-ca"],
        mssql: &["trust_server_certificate_ca", "trustservercertificateca", "ssl_ca"],
    },
    Spec {
        meaning: Meaning::Sets(Opt::CertFile),
        postgres: &["sslcert", "ssl_cert"],
        mysql: &["ssl-cert"],
        mssql: &["client_certificate"],
    },
    Spec {
        meaning: Meaning::Sets(Opt::KeyFile),
        postgres: &["sslkey", "ssl_key"],
        mysql: &["ssl-key"],
        mssql: &["client_key"],
    },
    Spec { meaning: Meaning::Sets(Opt::Instance), postgres: &[], mysql: &[], mssql: &["instance"] },
    Spec::everywhere(Meaning::Sets(Opt::PasswordFile), &["password_file"]),
    Spec::everywhere(Meaning::Sets(Opt::TablePrefix), &["table_prefix"]),
    Spec {
        meaning: Meaning::Sets(Opt::Schema),
        postgres: &["schema"],
        mysql: &[],
        mssql: &["schema"],
    },
    Spec::everywhere(Meaning::Sets(Opt::MaxConnections), &["max_connections"]),
    Spec::everywhere(Meaning::Sets(Opt::MinConnections), &["min_connections"]),
    Spec::everywhere(
        Meaning::Sets(Opt::AcquireTimeout),
        &["acquire_timeout", "connect_timeout", "logintimeout", "pool_timeout"],
    ),
    Spec::everywhere(Meaning::Sets(Opt::IdleTimeout), &["idle_timeout"]),
    Spec::everywhere(Meaning::Sets(Opt::MaxLifetime), &["max_lifetime", POOL_RECYCLE]),
    Spec::everywhere(Meaning::PoolSize, &["pool_size"]),
    Spec::everywhere(Meaning::PoolOverflow, &["max_overflow"]),
    Spec::everywhere(
        Meaning::Sets(Opt::TestBeforeAcquire),
        &["test_before_acquire", "pre_ping", "pool_pre_ping"],
    ),
    Spec::everywhere(Meaning::Sets(Opt::StatementTimeout), &["statement_timeout"]),
    Spec::everywhere(Meaning::Sets(Opt::RetryTimeout), &["retry_timeout"]),
    Spec {
        meaning: Meaning::Sets(Opt::StatementCache),
        // As sqlx, SQLAlchemy's asyncpg and asyncpg itself call it.
        postgres: &[
            "statement_cache",
            "statement_cache_capacity",
            "prepared_statement_cache_size",
            "statement_cache_size",
        ],
        mysql: &[],
        mssql: &[],
    },
    Spec {
        meaning: Meaning::Sets(Opt::ApplicationName),
        postgres: &["application_name"],
        // The driver does not send connection attributes.
        mysql: &[],
        mssql: &["application_name", "applicationname", "app_name"],
    },
    Spec {
        meaning: Meaning::SessionAttrs,
        postgres: &["target_session_attrs"],
        mysql: &["target_session_attrs"],
        mssql: &[],
    },
    Spec::everywhere(Meaning::Replicas, &["replica_urls"]),
    Spec::everywhere(Meaning::Sets(Opt::ReplicaMaxStaleness), &["replica_max_staleness"]),
    Spec::everywhere(Meaning::Sets(Opt::CacheSizeBytes), &["cache_size_bytes"]),
    Spec::everywhere(Meaning::Sets(Opt::CacheMaxStaleness), &["cache_max_staleness"]),
    Spec::everywhere(Meaning::Sets(Opt::MaxClockSkew), &["max_clock_skew"]),
    Spec::everywhere(Meaning::Sets(Opt::RetryCount), &["retry_count"]),
    Spec::everywhere(Meaning::Sets(Opt::RetryBase), &["retry_base"]),
    Spec::everywhere(Meaning::Sets(Opt::PageSize), &["page_size"]),
    Spec { meaning: Meaning::Charset, postgres: &[], mysql: &["charset"], mssql: &[] },
    Spec { meaning: Meaning::Nothing, postgres: &[], mysql: &[], mssql: &["driver"] },
];

/// SQLAlchemy's name of `max_lifetime`, in seconds; -1 is never.
const POOL_RECYCLE: &str = "pool_recycle";

/// Options that other programs have and this one does not, and what to do instead.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["user", "username", "uid"],
        "the user stands in front of the host: scheme://user@host/database",
    ),
    (
        &["password", "pwd"],
        "the password stands in front of the host (scheme://user:password@host/database), in \
         password_file, or in the environment variable DELTA_DB_PASSWORD",
    ),
    (
        &["options"],
        "settings of the session do not survive a pooler: set them for the role or the database \
         (ALTER ROLE … SET …)",
    ),
    (&["pgbouncer"], "write statement_cache=0 instead: no prepared statement is kept then"),
    (
        &["ssl", "usessl", "requiressl"],
        "write encrypt=true, and trust_server_certificate_ca for an authority of your own",
    ),
    (&["passfile"], "name that file in the environment variable PGPASSFILE, or use password_file"),
    (
        &["service", "servicefile"],
        "connection service files are not read: write its values into the URL",
    ),
    (
        &["target_session_attrs", "load_balance_hosts"],
        "connections are made to the server that takes writes; name read replicas in replica_urls",
    ),
    (
        &["channel_binding"],
        "channel binding is not supported; sslmode=verify-full makes sure who the server is",
    ),
    (&["hostaddr"], "write the address as the host: scheme://user@address/database"),
    (
        &["trusted_connection", "integratedsecurity", "authentication"],
        "only SQL logins are supported: name a user and a password",
    ),
];

/// Name as it is compared.
fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

/// What an option of this name means, and the name that is recommended for it.
///
/// # Errors
/// `InvalidInput` that lists the right ones for this database, or says what to do instead.
pub(super) fn meaning(scheme: Scheme, name: &str) -> Result<(Meaning, &'static str)> {
    let wanted = normal(name);
    for spec in SPECS {
        let names = spec.names(scheme);
        if names.iter().any(|known| normal(known) == wanted)
            && let Some(first) = names.first()
        {
            return Ok((spec.meaning, first));
        }
    }
    // What does not look like a name may be anything, such as the rest of a password.
    let like_a_name = wanted.len() <= 40
        && !wanted.is_empty()
        && wanted.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let name = if like_a_name { format!(" '{}'", printable(name)) } else { String::new() };
    if let Some((_, instead)) = REFUSED.iter().find(|(names, _)| names.contains(&&*wanted)) {
        return Err(CatalogError::invalid(format!(
            "option{name} of the catalog's URL is not supported: {instead}"
        )));
    }
    Err(CatalogError::invalid(format!(
        "unknown option{name} in the catalog's URL: {} has {}",
        scheme.as_str(),
        names(scheme).join(", ")
    )))
}

/// Options of a database, by the names that are recommended.
pub(super) fn names(scheme: Scheme) -> Vec<&'static str> {
    SPECS
        .iter()
        .filter(|spec| !matches!(spec.meaning, Meaning::Nothing | Meaning::Charset | Meaning::Ssl))
        .filter_map(|spec| spec.names(scheme).first().copied())
        .collect()
}

/// The options that are values, in the order in which they are printed.
pub(super) fn values(scheme: Scheme) -> impl Iterator<Item = (Opt, &'static str)> {
    SPECS.iter().filter_map(move |spec| match spec.meaning {
        Meaning::Sets(opt) => Some((opt, *spec.names(scheme).first()?)),
        _ => None,
    })
}

/// A value as it is read: those that other programs write for the same thing are replaced.
pub(super) fn translated<'v>(written_name: &str, raw: &'v str) -> &'v str {
    if normal(written_name) == POOL_RECYCLE && raw == "-1" { "0" } else { raw }
}

/// Reads `ssl`: whether, or a mode.
///
/// # Errors
/// `InvalidInput` that lists the words.
pub(super) fn read_ssl(scheme: Scheme, raw: &str) -> Result<Value> {
    match boolean("ssl", raw) {
        // As drivers with this option do: who the server is, is checked.
        Ok(true) => Ok(Value::Tls(TlsMode::VerifyFull)),
        Ok(false) => Ok(Value::Tls(TlsMode::Disable)),
        Err(_) => read(scheme, Opt::TlsMode, "ssl", raw).map_err(|_| {
            let words = TlsMode::ALL.map(|mode| mode.word(scheme));
            CatalogError::invalid(format!(
                "option ssl of the catalog's URL is true, false, or one of {}",
                words.join(", ")
            ))
        }),
    }
}

/// Reads a number of connections of SQLAlchemy's, in which 0 or -1 may stand for any number.
///
/// # Errors
/// `InvalidInput` that names the option.
pub(super) fn read_connections(name: &str, least: u32, raw: &str) -> Result<u32> {
    raw.parse().ok().filter(|number| *number >= least).ok_or_else(|| {
        CatalogError::invalid(format!(
            "option {name} of the catalog's URL must be a whole number of at least {least}: a pool has a \
             limit, pool_size and max_overflow together"
        ))
    })
}

/// Reads a value. Errors name the option and never repeat the value.
pub(super) fn read(scheme: Scheme, opt: Opt, name: &str, raw: &str) -> Result<Value> {
    let decoded = || {
        let text = decode(&format!("option {name}"), raw)?;
        if text.is_empty() {
            return Err(CatalogError::invalid(format!(
                "option {name} of the catalog's URL is empty: give it a value or leave it out"
            )));
        }
        Ok(text)
    };
    let positive = |time: Duration| {
        if time.is_zero() {
            return Err(CatalogError::invalid(format!(
                "option {name} of the catalog's URL must be longer than nothing"
            )));
        }
        Ok(Value::Time(time))
    };
    let not_whole = || {
        CatalogError::invalid(format!("option {name} of the catalog's URL must be a whole number"))
    };
    match opt {
        Opt::TablePrefix => Ok(Value::Text(super::prefix(raw)?)),
        Opt::Schema | Opt::Instance | Opt::ApplicationName => Ok(Value::Text(decoded()?)),
        Opt::CaFile | Opt::CertFile | Opt::KeyFile | Opt::PasswordFile => {
            Ok(Value::Path(decoded()?.into()))
        }
        Opt::TlsMode => {
            let word = normal(&decoded()?);
            // PostgreSQL's `allow` begins without encryption: `prefer` is never worse.
            let allow = scheme == Scheme::Postgres && word == "allow";
            TlsMode::ALL
                .into_iter()
                .find(|mode| normal(mode.word(scheme)) == word)
                .or(allow.then_some(TlsMode::Prefer))
                .map(Value::Tls)
                .ok_or_else(|| {
                    let words = TlsMode::ALL.map(|mode| mode.word(scheme));
                    CatalogError::invalid(format!(
                        "option {name} of the catalog's URL is one of {}",
                        words.join(", ")
                    ))
                })
        }
        Opt::Encrypt => match normal(&decoded()?).as_str() {
            // The words of Microsoft's newer drivers.
            "mandatory" => Ok(Value::Encrypt(Encrypt::On)),
            "optional" => Ok(Value::Encrypt(Encrypt::Off)),
            "strict" => Ok(Value::Encrypt(Encrypt::Strict)),
            word => match boolean(name, word) {
                Ok(true) => Ok(Value::Encrypt(Encrypt::On)),
                Ok(false) => Ok(Value::Encrypt(Encrypt::Off)),
                Err(_) => Err(CatalogError::invalid(format!(
                    "option {name} of the catalog's URL is one of true, false, strict"
                ))),
            },
        },
        Opt::TrustServerCertificate | Opt::TestBeforeAcquire => {
            boolean(name, &decoded()?).map(Value::Flag)
        }
        Opt::CacheSizeBytes => {
            let text = decoded()?;
            number(name, &text).map(Value::Size).map_err(|_| not_whole())
        }
        Opt::MaxConnections | Opt::MinConnections | Opt::StatementCache => {
            let text = decoded()?;
            let value = number::<u32>(name, &text).map_err(|_| not_whole())?;
            if opt == Opt::MaxConnections && value == 0 {
                return Err(CatalogError::invalid(format!(
                    "option {name} of the catalog's URL must be at least 1"
                )));
            }
            Ok(Value::Number(value))
        }
        Opt::RetryCount | Opt::PageSize => {
            let value = number::<u32>(name, &decoded()?).map_err(|_| not_whole())?;
            let checked = if opt == Opt::PageSize { page_size } else { at_least_one };
            checked(name, value).map(Value::Number)
        }
        Opt::AcquireTimeout | Opt::StatementTimeout | Opt::RetryBase => {
            positive(duration(name, &decoded()?)?)
        }
        Opt::RetryTimeout
        | Opt::IdleTimeout
        | Opt::MaxLifetime
        | Opt::ReplicaMaxStaleness
        | Opt::CacheMaxStaleness
        | Opt::MaxClockSkew => Ok(Value::Time(duration(name, &decoded()?)?)),
    }
}

impl Value {
    /// The value as it stands in a URL, before encoding.
    pub(super) fn show(&self, scheme: Scheme) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Path(path) => path.to_string_lossy().into_owned(),
            Value::Number(number) => number.to_string(),
            Value::Size(bytes) => bytes.to_string(),
            Value::Flag(flag) => flag.to_string(),
            Value::Time(time) => show_duration(*time),
            Value::Tls(mode) => mode.word(scheme).to_owned(),
            Value::Encrypt(Encrypt::Off) => "false".to_owned(),
            Value::Encrypt(Encrypt::On) => "true".to_owned(),
            Value::Encrypt(Encrypt::Strict) => "strict".to_owned(),
        }
    }
}
