//! The keys: sections, kinds of values, defaults, names in the environment. Everything else about the
//! configuration is made from this table: the structs that serde reads, the JSON Schema, the example, and
//! the list of keys for errors.

use schemars::JsonSchema;
use serde::Deserialize;

use super::values::{
    Address, Bytes, CatalogUrl, Count, Encryption, Endpoint, FilePath, Flag, Format, Headers,
    Hidden, Kept, Kind, Level, LogFormat, Moments, Number, Pairs, Pause, Port, Protocol, Ratio,
    Sampler, Setting, Span, SslMode, Text,
};

/// What is known of a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Section and name, `section.name` or `section.part.name`; the name alone at the top.
    pub(crate) path: &'static str,
    /// What it does, in lines.
    pub(crate) about: &'static [&'static str],
    /// Kind of its values.
    pub(crate) kind: &'static str,
    /// What holds without it, in words or as it would be written.
    pub(crate) default: &'static str,
    /// A value, as it is written in TOML and in YAML alike.
    pub(crate) example: &'static str,
    /// Its names in the environment besides the one that is made of the path, first ones first.
    pub(crate) variables: &'static [&'static str],
    /// Whether it is never shown.
    pub(crate) secret: bool,
    /// Whether it is a path, relative to the file it stands in.
    pub(crate) file: bool,
    /// Whether a file must write it as a string.
    pub(crate) text: bool,
    /// Checks a value.
    pub(crate) check: fn(&str) -> Result<(), String>,
}

impl Key {
    /// Section and name; no section at the top.
    pub(crate) fn split(&self) -> (Option<&'static str>, &'static str) {
        match self.path.rsplit_once('.') {
            Some((section, name)) => (Some(section), name),
            None => (None, self.path),
        }
    }

    /// The name in the environment that is made of the path.
    pub(crate) fn own_variable(&self) -> String {
        format!("DELTA_{}", self.path.replace('.', "_").to_ascii_uppercase())
    }
}

fn check<S: Setting>(text: &str) -> Result<(), String> {
    S::read(text).map(|_| ())
}

/// The name of a key: its field's, unless that is a word of Rust's.
macro_rules! name {
    ($key:ident) => {
        stringify!($key)
    };
    ($key:ident $name:literal) => {
        $name
    };
}

/// Declares a section: its struct, its keys, and the sections within it.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $struct:ident = $section:literal {
            $(
                $(#[doc = $doc:literal])+
                $key:ident $(as $name:literal)?: $kind:ident = $default:literal, $example:literal $(, $variable:literal)*;
            )*
        }
        $(with {
            $(
                $(#[doc = $inner_doc:literal])+
                $inner:ident: $inner_struct:ident;
            )*
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $struct {
            $($(#[doc = $doc])+ $(#[serde(rename = $name)])? pub(crate) $key: Option<$kind>,)*
            $($($(#[doc = $inner_doc])+ pub(crate) $inner: $inner_struct,)*)?
        }

        impl $struct {
            const ABOUT: &[&str] = &[$($about),+];
            const KEYS: &[Key] = &[$(Key {
                path: concat!($section, name!($key $($name)?)),
                about: &[$($doc),+],
                kind: <$kind as Setting>::KIND,
                default: $default,
                example: $example,
                variables: &[$($variable),*],
                secret: <$kind as Setting>::SECRET,
                file: <$kind as Setting>::PATH,
                text: <$kind as Setting>::TEXT,
                check: check::<$kind>,
            },)*];
        }
    };
}

section! {
    /// What concerns everything.
    Top = "" {
        /// URL of the catalog, in place of the section `database`. A relative path is relative to this file.
        catalog: CatalogUrl = "none", "\"sqlite://catalog.db\"", "DELTA_DB_CONNECTION", "DELTA_DATABASE_URL", "DATABASE_URL";
        /// How `dl` prints results: table or json.
        format: Format = "table", "\"table\"";
        /// Which profile holds, see `profiles`.
        profile: Text = "none", "\"dev\"", "DELTA_PROFILE", "ENVIRONMENT";
    }
}

section! {
    /// The database that the catalog is in, part by part, and how to log in to it.
    Database = "database." {
        /// Which database: sqlite, postgresql, mysql (MariaDB too), mssql (Azure SQL too).
        kind as "type": Kind = "as in the URL", "\"postgresql\"", "DELTA_DB_TYPE";
        /// Name or address of the server.
        host: Text = "localhost", "\"db.example\"";
        /// Port of the server.
        port: Port = "the database's own", "5432";
        /// Name of the database; for SQLite the file.
        name: Text = "none", "\"lake\"";
        /// User to log in as.
        user: Text = "as the database's own clients", "\"dl\"";
        /// Password. Better: password_file, or the environment.
        password: Hidden = "none", "\"${LAKE_PASSWORD:-secret}\"";
        /// File with the password in it.
        password_file: FilePath = "none", "\"/run/secrets/lake-password\"";
        /// PostgreSQL, SQL Server: schema that the catalog's tables are in.
        schema: Text = "the login's", "\"dl\"";
        /// What the names of the catalog's SQL tables begin with.
        table_prefix: Text = "dl_", "\"dl_\"";
        /// PostgreSQL, SQL Server: name in the server's list of sessions.
        application_name: Text = "deltalakedb", "\"nightly\"";
        /// URLs of read replicas, with commas between them.
        replicas: CatalogUrl = "none", "\"postgresql://replica.example\"";
        /// Reads of the head may be answered by a replica that is so far behind.
        replica_max_staleness: Span = "0", "\"2s\"";
        /// true: encrypted, with a certificate for this host; false: not encrypted. See ssl_mode.
        ssl: Flag = "the database's own", "true";
        /// PostgreSQL, MySQL: disable, prefer, require, verify-ca, verify-full.
        ssl_mode: SslMode = "prefer", "\"verify-full\"";
        /// Certificates of the authorities that are trusted.
        ssl_ca: FilePath = "the system's", "\"/etc/ssl/lake-ca.pem\"";
        /// The client's own certificate; takes ssl_key too.
        ssl_cert: FilePath = "none", "\"client.pem\"";
        /// The key of that certificate.
        ssl_key: FilePath = "none", "\"client.key\"";
        /// SQL Server: true, false, strict.
        encrypt: Encryption = "true", "\"strict\"";
        /// SQL Server: whether any certificate will do.
        trust_server_certificate: Flag = "false", "false";
    }
}

section! {
    /// Connections and their limits.
    Connection = "connection." {
        /// Connections that are kept open; with max_overflow the largest number. SQLite: readers.
        pool_size: Count = "10 (SQLite: 4)", "10", "DB_POOL_SIZE";
        /// Connections besides those of pool_size under load. Takes pool_size.
        max_overflow: Number = "0", "5", "DB_MAX_OVERFLOW";
        /// Connections that are kept open at least.
        min_connections: Number = "0", "1";
        /// Longest wait for a connection. SQLite: for another writer.
        pool_timeout: Pause = "10s", "\"10s\"", "DB_TIMEOUT";
        /// A connection is replaced after this time. 0 = never.
        pool_recycle: Span = "30m", "\"30m\"";
        /// An unused connection is closed after this time. 0 = never.
        idle_timeout: Span = "10m", "\"10m\"";
        /// Whether a connection is tried before each use.
        pre_ping: Flag = "true", "false";
        /// Longest time for one statement.
        statement_timeout: Pause = "60s", "\"60s\"";
        /// PostgreSQL: prepared statements that a connection keeps. 0 = none, as some poolers need it.
        statement_cache: Number = "100", "100";
    }
}

section! {
    /// What is kept in memory.
    Cache = "cache." {
        /// What is kept weighs at most so much. 0 = nothing is kept.
        size: Bytes = "64MiB", "\"64MiB\"";
        /// Reads of the head may be answered from memory, and be so far behind what others wrote.
        max_staleness: Span = "0", "\"2s\"";
    }
}

section! {
    /// How the engine works.
    Performance = "performance." {
        /// Rows that lists (of files, commits, tables) read at a time: 100 to 10000.
        page_size: Count = "2500 (commits, tables: 1000)", "2500";
        /// Commits are refused while this machine's clock is further ahead of the database's than this.
        max_clock_skew: Span = "1h", "\"1h\"";
    }
}

section! {
    /// Calls that a busy database did not take are made again.
    Retry = "retry." {
        /// How often a call is made at most.
        count: Count = "60", "60";
        /// First pause between two calls; it doubles, up to 50 times its length.
        base: Pause = "5ms", "\"5ms\"";
        /// How long a call is repeated at most. 0 = not at all.
        deadline: Span = "60s", "\"60s\"";
    }
}

section! {
    /// Publishing to `_delta_log/`.
    Mirror = "mirror." {
        /// Tables that are published at a time.
        concurrency: Count = "4", "4";
        /// Versions that are taken at a time from one table.
        max_versions: Count = "100", "100";
        /// Versions that are recorded as published in one transaction.
        batch: Count = "16", "16";
        /// How long a lease holds: others wait so long after a worker was killed.
        lease: Pause = "10s", "\"10s\"";
        /// First pause after a failure; it doubles.
        first_backoff: Pause = "500ms", "\"500ms\"";
        /// Longest pause after a failure.
        max_backoff: Pause = "5m", "\"5m\"";
        /// How often a worker looks for work that nobody woke it for.
        poll_interval: Pause = "1s", "\"1s\"";
        /// How often a worker looks at idle tables for commits of other programs. 0 = never.
        foreign_check_interval: Span = "5m", "\"5m\"";
    }
}

section! {
    /// What `dl` logs, and where to. Options -v and -q, and the variable RUST_LOG, go first.
    Logging = "logging." {
        /// How much: off, error, warn, info, debug, trace.
        level: Level = "error", "\"info\"", "DELTA_LOG_LEVEL", "LOG_LEVEL";
        /// How a line looks: text, or json (one object a line).
        format: LogFormat = "text", "\"json\"", "DELTA_LOG_FORMAT", "LOG_FORMAT";
        /// File to write to in place of standard error.
        file: FilePath = "none", "\"dl.log\"", "DELTA_LOG_FILE";
        /// The file is put aside when it would be larger than this. 0 = never.
        max_size: Bytes = "64MiB", "\"64MiB\"";
        /// The file is put aside when its first line is older than this. 0 = never.
        max_age: Span = "1d", "\"1d\"";
        /// Files that were put aside and are kept: file.1 is the newest.
        max_files: Count = "7", "7";
    }
    with {
        /// Traces, sent to a receiver of OpenTelemetry.
        otlp: LoggingOtlp;
    }
}

section! {
    /// Traces are sent to a receiver of OpenTelemetry, if one is named. Needs a `dl` with the feature `otlp`.
    LoggingOtlp = "logging.otlp." {
        /// URL of a receiver of OTLP over HTTP; traces go to /v1/traces below it.
        endpoint: Endpoint = "none: nothing is sent", "\"http://127.0.0.1:4318\"", "OTEL_EXPORTER_OTLP_ENDPOINT";
        /// URL for traces as a whole, in place of endpoint.
        traces_endpoint: Endpoint = "none", "\"https://otel.example/v1/traces\"", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        /// Headers of each request, as name=value,other=value; values percent-encoded.
        headers: Headers = "none", "\"authorization=Bearer%20${OTEL_TOKEN:-token}\"", "OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS";
        /// How traces are sent.
        protocol: Protocol = "http/protobuf", "\"http/protobuf\"", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL";
        /// Longest time for one request. The variables of OpenTelemetry count milliseconds.
        timeout: Pause = "10s", "\"10s\"", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT";
        /// What traces are known by.
        service_name: Text = "dl", "\"lake-worker\"", "OTEL_SERVICE_NAME";
        /// Other attributes of the resource, as name=value,other=value.
        resource_attributes: Pairs = "none", "\"deployment.environment.name=production\"", "OTEL_RESOURCE_ATTRIBUTES";
        /// Which traces are sent: always_on, always_off, traceidratio, or parentbased_ and one of them.
        sampler: Sampler = "parentbased_traceidratio", "\"parentbased_traceidratio\"", "OTEL_TRACES_SAMPLER";
        /// Share of traces that are sent, where the sampler is one of a ratio.
        sample_ratio: Ratio = "1", "0.1", "OTEL_TRACES_SAMPLER_ARG";
        /// true: nothing is sent.
        disabled: Flag = "false", "true", "OTEL_SDK_DISABLED";
    }
}

section! {
    /// Watching a worker.
    Monitoring = "monitoring." {
        /// Address and port where a worker that watches serves /health, /ready and /metrics.
        listen: Address = "none", "\"127.0.0.1:9464\"";
        /// Calls to the database that take longer than this are logged as slow. 0 = none.
        slow_call_threshold: Span = "1s", "\"1s\"";
    }
}

section! {
    /// What `dl maintain` does, step by step. Each step ends after its timeout, whatever is left then.
    Maintenance = "maintenance." {
        /// false: `dl maintain` does nothing but what --step names.
        enabled: Flag = "true", "false";
        /// When `dl maintain --watch` begins: every so often (1h), or a cron expression of five fields in UTC.
        schedule: Moments = "1h", "\"30 2 * * *\"";
    }
    with {
        /// Bringing skipping indexes up to date.
        skipping_index: MaintainIndex;
        /// Comparing published logs with the catalog, and putting back what is missing.
        reconcile: MaintainReconcile;
        /// Backing the catalog up.
        backup: MaintainBackup;
        /// Forgetting what is old: tokens, and rows of what was published.
        expire: MaintainExpire;
        /// Making few large files of many small ones.
        optimize: MaintainOptimize;
        /// Deleting expired files of published logs.
        log_retention: MaintainLog;
        /// Deleting data files that no version needs any more.
        vacuum: MaintainVacuum;
        /// What the database itself likes to have done now and then.
        database: MaintainDatabase;
    }
}

section! {
    /// Skipping indexes are brought up to date, of all tables.
    MaintainIndex = "maintenance.skipping_index." {
        /// Whether this step is done.
        enabled: Flag = "true", "false";
        /// Longest that it takes.
        timeout: Pause = "10m", "\"10m\"";
    }
}

section! {
    /// Published logs are compared with the catalog, and what is missing is put back.
    MaintainReconcile = "maintenance.reconcile." {
        /// Whether this step is done.
        enabled: Flag = "true", "false";
        /// Longest that it takes.
        timeout: Pause = "30m", "\"30m\"";
    }
}

section! {
    /// The catalog is backed up, if a place is named, and old sets are deleted.
    MaintainBackup = "maintenance.backup." {
        /// Whether this step is done.
        enabled: Flag = "true", "false";
        /// Longest that it takes.
        timeout: Pause = "4h", "\"4h\"";
        /// Folder or URL that the sets are in.
        to: Text = "none: no backup", "\"s3://bucket/backups\"";
        /// Sets that are kept: so many of the newest (7) or those of a time (30d, 12h), with the sets that they go on from.
        keep: Kept = "all", "\"30d\"";
        /// The set is a full one if the last full one is so old. 0 = incremental ones for ever.
        full_every: Span = "7d", "\"7d\"";
    }
}

section! {
    /// Tokens of old commits are forgotten, if a time is given, and rows of what was published long ago removed.
    MaintainExpire = "maintenance.expire." {
        /// Whether this step is done.
        enabled: Flag = "true", "false";
        /// Longest that it takes.
        timeout: Pause = "30m", "\"30m\"";
        /// Tokens are kept for so long: at least 1d and twice retry.deadline. A commit that is repeated with a token that was forgotten is written again.
        tokens: Pause = "none: for ever", "\"90d\"";
        /// Rows of published versions are kept for so long, at least 1d. That of a table's newest published version stays.
        outbox: Pause = "30d", "\"7d\"";
    }
}

section! {
    /// Small files become large ones, of tables whose property deltalakedb.maintain.optimize is true.
    MaintainOptimize = "maintenance.optimize." {
        /// Whether this step is done.
        enabled: Flag = "true", "false";
        /// Longest that it takes.
        timeout: Pause = "2h", "\"2h\"";
    }
}

section! {
    /// Files of published logs that are older than delta.logRetentionDuration are deleted.
    MaintainLog = "maintenance.log_retention." {
        /// Whether this step is done.
        enabled: Flag = "true", "false";
        /// Longest that it takes.
        timeout: Pause = "30m", "\"30m\"";
    }
}

section! {
    /// Data files that no version needs are deleted, of tables whose property deltalakedb.maintain.vacuum is true.
    MaintainVacuum = "maintenance.vacuum." {
        /// Whether this step is done.
        enabled: Flag = "true", "false";
        /// Longest that it takes.
        timeout: Pause = "2h", "\"2h\"";
        /// Files are kept at least so long, also where delta.deletedFileRetentionDuration of a table is shorter.
        min_retention: Pause = "1d", "\"7d\"";
    }
}

section! {
    /// Statistics, dead rows, the log of the database's file: what may be done while others work.
    MaintainDatabase = "maintenance.database." {
        /// Whether this step is done.
        enabled: Flag = "true", "false";
        /// Longest that it takes.
        timeout: Pause = "10m", "\"10m\"";
    }
}

/// All of it.
#[derive(Debug, Default, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// URL of the catalog, in place of the section `database`.
    pub(crate) catalog: Option<CatalogUrl>,
    /// How `dl` prints results.
    pub(crate) format: Option<Format>,
    /// Which profile holds.
    pub(crate) profile: Option<Text>,
    /// The database that the catalog is in, part by part, and how to log in to it.
    pub(crate) database: Database,
    /// Connections and their limits.
    pub(crate) connection: Connection,
    /// What is kept in memory.
    pub(crate) cache: Cache,
    /// How the engine works.
    pub(crate) performance: Performance,
    /// Calls that a busy database did not take are made again.
    pub(crate) retry: Retry,
    /// Publishing to `_delta_log/`.
    pub(crate) mirror: Mirror,
    /// What `dl` logs, and where to.
    pub(crate) logging: Logging,
    /// Watching a worker.
    pub(crate) monitoring: Monitoring,
    /// What `dl maintain` does, step by step.
    pub(crate) maintenance: Maintenance,
}

/// A section: its name, what it is about, its keys.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) about: &'static [&'static str],
    pub(crate) keys: &'static [Key],
}

/// The keys at the top, and the sections.
pub(crate) const SECTIONS: &[Section] = &[
    Section { name: "", about: Top::ABOUT, keys: Top::KEYS },
    Section { name: "database", about: Database::ABOUT, keys: Database::KEYS },
    Section { name: "connection", about: Connection::ABOUT, keys: Connection::KEYS },
    Section { name: "cache", about: Cache::ABOUT, keys: Cache::KEYS },
    Section { name: "performance", about: Performance::ABOUT, keys: Performance::KEYS },
    Section { name: "retry", about: Retry::ABOUT, keys: Retry::KEYS },
    Section { name: "mirror", about: Mirror::ABOUT, keys: Mirror::KEYS },
    Section { name: "logging", about: Logging::ABOUT, keys: Logging::KEYS },
    Section { name: "logging.otlp", about: LoggingOtlp::ABOUT, keys: LoggingOtlp::KEYS },
    Section { name: "monitoring", about: Monitoring::ABOUT, keys: Monitoring::KEYS },
    // Those within it come right after it: an example of YAML nests them.
    Section { name: "maintenance", about: Maintenance::ABOUT, keys: Maintenance::KEYS },
    Section {
        name: "maintenance.skipping_index",
        about: MaintainIndex::ABOUT,
        keys: MaintainIndex::KEYS,
    },
    Section {
        name: "maintenance.reconcile",
        about: MaintainReconcile::ABOUT,
        keys: MaintainReconcile::KEYS,
    },
    Section {
        name: "maintenance.backup",
        about: MaintainBackup::ABOUT,
        keys: MaintainBackup::KEYS,
    },
    Section {
        name: "maintenance.expire",
        about: MaintainExpire::ABOUT,
        keys: MaintainExpire::KEYS,
    },
    Section {
        name: "maintenance.optimize",
        about: MaintainOptimize::ABOUT,
        keys: MaintainOptimize::KEYS,
    },
    Section {
        name: "maintenance.log_retention",
        about: MaintainLog::ABOUT,
        keys: MaintainLog::KEYS,
    },
    Section {
        name: "maintenance.vacuum",
        about: MaintainVacuum::ABOUT,
        keys: MaintainVacuum::KEYS,
    },
    Section {
        name: "maintenance.database",
        about: MaintainDatabase::ABOUT,
        keys: MaintainDatabase::KEYS,
    },
];

/// All keys.
pub(crate) fn keys() -> impl Iterator<Item = &'static Key> {
    SECTIONS.iter().flat_map(|section| section.keys)
}

/// The key of this path.
pub(crate) fn key(path: &str) -> Option<&'static Key> {
    keys().find(|key| key.path == path)
}

/// Other names of keys.
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("database.url", "catalog"),
    ("database.connection", "catalog"),
    ("database.connection_string", "catalog"),
    ("database.database", "database.name"),
    ("database.path", "database.name"),
    ("database.username", "database.user"),
    ("database.sslmode", "database.ssl_mode"),
    ("database.pool_size", "connection.pool_size"),
    ("database.max_overflow", "connection.max_overflow"),
    ("database.pool_timeout", "connection.pool_timeout"),
    ("database.pool_recycle", "connection.pool_recycle"),
    ("connection.timeout", "connection.pool_timeout"),
    ("connection.max_lifetime", "connection.pool_recycle"),
    ("connection.retry_timeout", "retry.deadline"),
    ("performance.cache_size", "cache.size"),
    ("performance.cache_max_staleness", "cache.max_staleness"),
    ("retry.max_attempts", "retry.count"),
    ("foreign_check_interval", "mirror.foreign_check_interval"),
    ("monitoring.otlp_endpoint", "logging.otlp.endpoint"),
    ("maintenance.cron", "maintenance.schedule"),
    ("maintenance.interval", "maintenance.schedule"),
];

/// The name that counts for this path.
pub(crate) fn canonical(path: &str) -> &str {
    ALIASES.iter().find(|(other, _)| *other == path).map_or(path, |(_, name)| name)
}

/// Sections and keys that other programs have, or a later version will have: what to do instead.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    (
        "server",
        "the service has its options on the command line: `dl serve --listen`; of a worker see the section monitoring",
    ),
    (
        "security",
        "clients of the service have keys (`dl keys`) and roles (`dl access`), logins of the database rights (`dl grants`); \
         its TLS is in the section database \
         (ssl, ssl_mode, ssl_ca)",
    ),
    (
        "auth",
        "clients of the service have keys (`dl keys`) and roles (`dl access`), logins of the database rights (`dl grants`)",
    ),
    ("metrics", "write monitoring.listen"),
    ("log_level", "write logging.level"),
    ("log_format", "write logging.format"),
    ("logging.rotation", "write logging.max_size, logging.max_age and logging.max_files"),
    ("monitoring.prometheus_port", "write monitoring.listen with an address and a port"),
    (
        "cache.ttl",
        "what is kept never changes, so it has no time to live; heads have max_staleness",
    ),
    ("cache.backend", "what is kept is in the memory of the process"),
];
